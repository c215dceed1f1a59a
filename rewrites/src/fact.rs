//! Facts about a class: types, whether it is constant, its value if it is small, the number that all elements are, its name.

use crate::options::Options;
use crate::sparsity::SparsityPattern;
use crate::term::{Head, Term};
use dnnc_ir::eval::eval_op;
use dnnc_ir::{Class, Kind, Tensor, TensorType, Type};
use egg::{Analysis, DidMerge, Id};
use std::sync::Arc;

/// Constants of at most this many elements are computed while rules run; larger ones after extraction has chosen them.
const SMALL: usize = 4096;

/// The e-graph: classes of equal terms, and facts about each class.
pub type Classes = egg::EGraph<Term, Facts>;

/// Facts of one class.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Types of the results; exactly one unless the class is a tuple.
    pub types: Vec<TensorType>,
    /// Known when the model is compiled, though perhaps not computed yet.
    pub constant: bool,
    /// The value, where it is a literal or small.
    pub value: Option<Tensor>,
    /// The number that every element is.
    pub splat: Option<f64>,
    /// The positions of non-zeros of a constant with many zeros.
    pub filled: Option<SparsityPattern>,
    /// Read by more than one node of the original graph.
    pub shared: bool,
    /// Names by operator: that of the term of this operator in this class.
    pub names: Vec<(Kind, Arc<str>)>,
}

impl Fact {
    /// Type of the value; panics for tuples, which no rule looks into.
    pub fn ty(&self) -> &TensorType {
        &self.types[0]
    }

    /// The name for a term of operator `kind`.
    pub fn name(&self, kind: Option<Kind>) -> &str {
        let named = self.names.iter().find(|(k, _)| Some(*k) == kind).or(self.names.first());
        named.map_or("", |(_, name)| name)
    }
}

/// The operands that a machine multiplies integers of 8 bits by.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Integers {
    /// None in particular.
    #[default]
    None,
    /// Pairs of 16-bit integers.
    Words,
    /// Quads of bytes: those on the left have this type, those on the right are signed.
    Bytes(Type),
}

impl Integers {
    /// Those of a machine.
    pub fn of(target: &dnnc_targets::Target) -> Integers {
        match target.vector {
            v if v.dot.s8s8 => Integers::Bytes(Type::I8),
            v if v.dot.u8s8 => Integers::Bytes(Type::U8),
            v if v.pairs => Integers::Words,
            _ => Integers::None,
        }
    }
}

/// The analysis: what facts are derived from.
#[derive(Clone, Default, Debug)]
pub struct Facts {
    /// Types of the graph's inputs.
    pub inputs: Vec<TensorType>,
    /// Types of the term that is about to be added.
    pub inferred: Option<Vec<TensorType>>,
    /// Names of the terms that a rule matched, the root first: new terms inherit them.
    pub origin: Vec<(Kind, Arc<str>)>,
    /// The first merge of two classes of different types, which only a wrong rule makes.
    pub conflict: Option<String>,
    /// What the user chose.
    pub options: Options,
    /// Name of the rule being applied.
    pub rule: &'static str,
    /// Lanes of a vector register: the block size of NCHWc layouts.
    pub block: usize,
    /// Operands of integer products.
    pub integers: Integers,
}

impl Analysis<Term> for Facts {
    type Data = Fact;

    fn make(classes: &mut Classes, term: &Term, _: Id) -> Fact {
        let op = match &term.head {
            Head::Op(op) => op.clone(),
            Head::Result(index) => {
                let tuple = &classes[term.children[0]].data;
                let types = vec![tuple.types[*index as usize].clone()];
                let names = tuple.names.clone();
                return Fact { types, constant: tuple.constant, value: None, splat: None, filled: None, shared: false, names };
            }
        };
        let inferred = classes.analysis.inferred.take();
        let types = match op.kind() {
            Kind::Input => vec![classes.analysis.inputs[op.attrs.size("index")].clone()],
            Kind::Const => vec![op.attrs.tensor("value").ty().clone()],
            _ => inferred.unwrap_or_else(|| {
                let types: Vec<_> = term.children.iter().map(|&c| classes[c].data.ty().clone()).collect();
                (op.def.infer)(&op.attrs, &types).expect("a term is added only when its shape rule holds")
            }),
        };
        let children = || term.children.iter().map(|&c| &classes[c].data);
        let constant = match op.def.class {
            Class::Source => op.kind() == Kind::Const,
            Class::Control => false,
            _ => children().all(|f| f.constant),
        };
        let value = match op.kind() {
            Kind::Const => Some(op.attrs.tensor("value").clone()),
            _ if constant && types.len() == 1 && types[0].len() <= SMALL => {
                let values: Option<Vec<Tensor>> = children().map(|f| f.value.clone()).collect();
                values.and_then(|v| eval_op(&op, &v).ok()).and_then(|mut r| r.pop())
            }
            _ => None,
        };
        let splat = match op.kind() {
            Kind::Reshape | Kind::Transpose | Kind::Expand | Kind::Slice => children().next().and_then(|f| f.splat),
            _ => value.as_ref().and_then(splat),
        };
        let filled = match &value {
            _ if classes.analysis.options.dense || classes.analysis.options.precise => None,
            Some(value) => SparsityPattern::of(value),
            None if constant && types.len() == 1 => {
                let inputs: Vec<_> = children().map(|f| (f.ty(), f.filled.as_ref(), f.value.as_ref())).collect();
                SparsityPattern::through(&op, &inputs, &types[0])
            }
            None => None,
        };
        let origin = &classes.analysis.origin;
        let named = origin.iter().find(|(k, _)| *k == op.kind()).or(origin.first());
        let names = named.map(|(_, name)| (op.kind(), name.clone())).into_iter().collect();
        Fact { types, constant, value, splat, filled, shared: false, names }
    }

    fn merge(&mut self, a: &mut Fact, b: Fact) -> DidMerge {
        if a.types != b.types && self.conflict.is_none() {
            self.conflict = Some(format!("rule \"{}\" makes {:?} equal to {:?}", self.rule, a.types, b.types));
            debug_assert!(false, "{:?}", self.conflict);
        }
        let known = |f: &Fact| (f.constant, f.value.is_some(), f.splat, f.filled.is_some());
        let (before, other) = (known(a), known(&b));
        a.constant |= b.constant;
        a.shared |= b.shared;
        a.value = a.value.take().or(b.value);
        a.splat = a.splat.or(b.splat);
        a.filled = a.filled.take().or(b.filled);
        for (kind, name) in b.names {
            if !a.names.iter().any(|(k, _)| *k == kind) {
                a.names.push((kind, name));
            }
        }
        let after = known(a);
        DidMerge(before != after, other != after)
    }

    fn modify(classes: &mut Classes, id: Id) {
        let class = &classes[id];
        if let Some(value) = class.data.value.clone()
            && !class.nodes.iter().any(|t| t.kind() == Some(Kind::Const))
        {
            let literal = classes.add(Term::constant(value));
            classes.union(id, literal);
        }
    }
}

/// The elements of a tensor as `f64`, unless one is not exact in it; elements of fewer than 8 bits and 8-bit floats are not folded.
pub fn exact_f64s(tensor: &Tensor) -> Option<Vec<f64>> {
    use Type::*;
    let exact = match tensor.ty().ty {
        I64 => tensor.values::<i64>().iter().all(|v| v.unsigned_abs() < 1 << 53),
        U64 => tensor.values::<u64>().iter().all(|&v| v < 1 << 53),
        ty => matches!(ty, F16 | BF16 | F32 | F64 | I8 | U8 | Bool | I16 | U16 | I32 | U32),
    };
    exact.then(|| tensor.to_f64s())
}

/// The number that every element of a tensor is; NaN, which equals nothing, is none.
pub fn splat(tensor: &Tensor) -> Option<f64> {
    let width = tensor.ty().ty.bytes();
    let first = tensor.bytes().get(..width)?;
    let uniform = tensor.bytes().chunks_exact(width).all(|e| e == first);
    let one = || Tensor::from_bytes(TensorType::new(tensor.ty().ty, []), first);
    if uniform { exact_f64s(&one()?)?.first().copied().filter(|v| !v.is_nan()) } else { None }
}

/// A constant of rank 0, if the number is one of the type.
pub fn number(ty: Type, value: f64) -> Option<Tensor> {
    macro_rules! int {
        ($t:ty) => {
            (value.fract() == 0.0 && value >= <$t>::MIN as f64 && value <= <$t>::MAX as f64).then(|| Tensor::scalar(value as $t))
        };
    }
    let bits16 = |bits: u16| Some(Tensor::with_type(TensorType::new(ty, []), &[bits]));
    match ty {
        Type::F32 => Some(Tensor::scalar(value as f32)),
        Type::F64 => Some(Tensor::scalar(value)),
        Type::F16 => bits16(half::f16::from_f64(value).to_bits()),
        Type::BF16 => bits16(half::bf16::from_f64(value).to_bits()),
        Type::I8 => int!(i8),
        Type::I16 => int!(i16),
        Type::I32 => int!(i32),
        Type::I64 => int!(i64),
        Type::U8 => int!(u8),
        Type::U16 => int!(u16),
        Type::U32 => int!(u32),
        Type::U64 => int!(u64),
        _ => None,
    }
}
