//! A random graph of the form of a pattern.

use crate::fact;
use crate::pattern::{Bracket, Names, Pattern, What};
use crate::rules::Rule;
use dnnc_ir::random::Rng;
use dnnc_ir::{Class, Graph, Kind, Op, Tensor, TensorType, Type, Value};
use std::collections::HashMap;

/// Block of NCHWc layouts in the instances: small, so that few channels make complete and incomplete blocks.
pub(super) const BLOCK: usize = 4;

/// What a variable of the pattern is bound to.
#[derive(Clone)]
pub(super) enum Bound {
    Value(Value),
    Op(Op),
}

/// A random graph in the shape of a pattern.
pub(super) struct Instance<'a> {
    pub(super) rule: &'a Rule,
    pub(super) names: &'a Names,
    pub(super) random: &'a mut Rng,
    pub(super) graph: Graph,
    pub(super) bound: HashMap<usize, Bound>,
    /// Element type of leaves that nothing else decides.
    pub(super) elem: Type,
    /// Sizes of leaves that nothing else decides.
    pub(super) base: Vec<usize>,
}

pub(super) type Made<T> = Result<T, String>;

impl Instance<'_> {
    /// The numbers that condition `name` on the variable of `slot` gives, if there is such a condition.
    pub(super) fn condition(&self, name: &str, slot: usize) -> Option<Vec<f64>> {
        let variable = &self.names.0[slot];
        self.rule.conditions.iter().filter(|(n, ..)| *n == name).find_map(|(_, _, args)| {
            let is_it = |a: &Pattern| matches!(a, Pattern::Var(s) | Pattern::Rest(s) if self.rule.names.0[*s] == *variable);
            args.iter().any(is_it).then(|| args.iter().filter_map(|a| if let Pattern::Number(v) = a { Some(*v) } else { None }).collect())
        })
    }

    pub(super) fn make(&mut self, pattern: &Pattern, want: Option<TensorType>) -> Made<Value> {
        match pattern {
            Pattern::Var(slot) => {
                if let Some(Bound::Value(v)) = self.bound.get(slot) {
                    return Ok(*v);
                }
                let v = self.leaf(*slot, want)?;
                self.bound.insert(*slot, Bound::Value(v));
                Ok(v)
            }
            Pattern::Number(v) => {
                let elem = want.map_or(self.elem, |t| t.ty);
                let one = match elem {
                    Type::Bool => Tensor::with_type(TensorType::new(Type::Bool, []), &[*v as u8]),
                    _ => fact::number(elem, *v).ok_or("no such number")?,
                };
                let shape = vec![1; self.random.below(2)];
                Ok(self.graph.constant(one.reshaped(shape)))
            }
            Pattern::Op(what, bracket, operands) => self.operator(*what, bracket.as_ref(), operands, want),
            other => Err(format!("{other:?} on a left side")),
        }
    }

    pub(super) fn leaf(&mut self, slot: usize, want: Option<TensorType>) -> Made<Value> {
        let ty = want.unwrap_or_else(|| TensorType::new(self.elem, self.base.clone()));
        for (name, value) in [("is_zero", 0.0), ("zero", 0.0), ("lowest", f64::NEG_INFINITY)] {
            if self.condition(name, slot).is_some() {
                let one = fact::number(ty.ty, value).ok_or("no such number")?;
                return Ok(self.graph.constant(one));
            }
        }
        if ["permutation", "channels", "is_vector", "in_order"].iter().any(|c| self.condition(c, slot).is_some() && ty.ty == Type::I64) {
            let n = ty.len();
            let sorted = self.condition("in_order", slot).is_some();
            let order: Vec<i64> = if sorted { (0..n as i64).collect() } else { self.permutation(n) };
            return Ok(self.graph.constant(Tensor::new([n], &order)));
        }
        let splat = self.condition("splat", slot).is_some() || self.condition("positive", slot).is_some();
        if self.condition("lowest_of", slot).is_some() {
            let value = self.random.pick(&[0.0, -128.0]);
            let one = fact::number(ty.ty, value).ok_or("no such number")?;
            return Ok(self.graph.constant(one));
        }
        let power = self.condition("exact_reciprocal", slot).is_some();
        let constant = splat || power || self.condition("usable_scale", slot).is_some() || self.condition("constant", slot).is_some();
        let varying = self.condition("non_constant", slot).is_some();
        if splat {
            let value = 0.25 * (1 + self.random.below(12)) as f64;
            let value = if ty.ty.is_float() { value } else { value.ceil() };
            let one = fact::number(ty.ty, value).ok_or("no such number")?;
            let shape = vec![1; self.random.below(2)];
            return Ok(self.graph.constant(one.reshaped(shape)));
        }
        // Inputs are told apart by their number, which seeds their values.
        if constant || !varying && self.random.chance(15) {
            let tensor = self.values(&ty, power);
            return Ok(self.graph.constant(tensor));
        }
        let name = format!("i{}", self.graph.inputs().len());
        Ok(self.graph.input(&name, ty))
    }

    /// Whether the rule is one of integer products, whose operands are bytes; in f32 where they are dequantised.
    pub(super) fn of_bytes(&self) -> Option<Type> {
        match self.rule.name {
            name if name.ends_with("of dequantised") => Some(Type::F32),
            _ => self.rule.conditions.iter().any(|(n, ..)| *n == "integers").then_some(Type::I32),
        }
    }

    pub(super) fn values(&mut self, ty: &TensorType, powers: bool) -> Tensor {
        values(self.random, ty, powers)
    }

    pub(super) fn ty(&self, v: Value) -> TensorType {
        self.graph.ty(v).clone()
    }

    pub(super) fn operator(
        &mut self,
        what: What,
        bracket: Option<&Bracket>,
        operands: &[Pattern],
        want: Option<TensorType>,
    ) -> Made<Value> {
        let slot = if let Some(Bracket::Var(slot)) = bracket { Some(*slot) } else { None };
        let before = slot.and_then(|s| if let Some(Bound::Op(op)) = self.bound.get(&s) { Some(op.clone()) } else { None });
        let fixed = operands.iter().filter(|p| !matches!(p, Pattern::Rest(_))).count();
        let kind = match (what, &before) {
            (_, Some(op)) => op.kind(),
            (What::Kind(kind), _) => kind,
            (What::Elementwise, _) => {
                let maps: Vec<Kind> = Kind::ALL
                    .iter()
                    .copied()
                    .filter(|&k| dnnc_ir::ops::def(k).class == Class::Elementwise && dnnc_ir::ops::def(k).inputs.admits(fixed))
                    .collect();
                self.random.pick(&maps)
            }
        };
        // Attributes that decide what operands look like come first.
        let perm: Vec<i64> = if let (Kind::Transpose, Some(op)) = (kind, &before) {
            op.attrs.ints("perm").to_vec()
        } else {
            let rank = want.as_ref().map_or(self.base.len(), |t| t.rank());
            self.permutation(rank)
        };
        let (trans_a, trans_b) = match &before {
            Some(op) if kind == Kind::MatMul => (op.attrs.flag("trans_a"), op.attrs.flag("trans_b")),
            _ if slot.is_some_and(|s| self.condition("untransposed", s).is_some() || self.condition("matrices", s).is_some()) => {
                (false, false)
            }
            _ => (self.random.chance(20), self.random.chance(30)),
        };
        let mut inputs: Vec<Value> = Vec::new();
        // Operands that are no leaves decide what leaves beside them look like.
        let leaf = |p: &Pattern| matches!(p, Pattern::Var(_) | Pattern::Number(_));
        let map = dnnc_ir::ops::def(kind).class == Class::Elementwise;
        // What is compared is no boolean.
        let want = if matches!(kind, Kind::Eq | Kind::Lt | Kind::Le) { want.map(|t| TensorType::new(self.elem, t.shape)) } else { want };
        if map {
            let mut made: Vec<Option<Value>> = vec![None; fixed];
            let mut around: Option<TensorType> = None;
            for leaves in [false, true] {
                for (i, p) in operands[..fixed].iter().enumerate().filter(|(_, p)| leaf(p) == leaves) {
                    let elem = match (kind, i) {
                        (Kind::Cast, _) if self.of_bytes().is_some() => self.random.pick(&[Type::I8, Type::U8]),
                        (Kind::Not | Kind::And | Kind::Or | Kind::Xor, _) | (Kind::Select, 0) => Type::Bool,
                        _ => around.as_ref().or(want.as_ref()).map_or(self.elem, |t| t.ty),
                    };
                    let whole = around.clone().or_else(|| want.clone()).unwrap_or_else(|| TensorType::new(self.elem, self.base.clone()));
                    let shape = if leaves && around.is_some() { self.broadcastable(&whole.shape) } else { whole.shape.clone() };
                    let v = self.make(p, Some(TensorType::new(elem, shape)))?;
                    made[i] = Some(v);
                    let ty = self.ty(v);
                    if around.as_ref().is_none_or(|a| a.len() < ty.len()) {
                        around = Some(TensorType::new(if ty.ty == Type::Bool && elem == Type::Bool { self.elem } else { ty.ty }, ty.shape));
                    }
                }
            }
            inputs.extend(made.into_iter().flatten());
        } else {
            for (i, p) in operands.iter().enumerate() {
                if matches!(p, Pattern::Rest(_)) {
                    break;
                }
                let types: Vec<TensorType> = inputs.iter().map(|&v| self.ty(v)).collect();
                let wanted = self.operand(kind, i, &types, want.as_ref(), &perm, (trans_a, trans_b), before.as_ref());
                inputs.push(self.make(p, wanted)?);
            }
        }
        if let Some(Pattern::Rest(slot)) = operands.last() {
            let types: Vec<TensorType> = inputs.iter().map(|&v| self.ty(v)).collect();
            let more = match kind {
                Kind::Conv | Kind::ConvTranspose if self.random.chance(60) => {
                    vec![TensorType::new(types[0].ty, [types[1].shape.first().copied().unwrap_or(1)])]
                }
                Kind::Attention if self.random.chance(50) && types.iter().all(|t| t.rank() >= 2) => {
                    let (q, k) = (&types[0].shape, &types[1].shape);
                    vec![TensorType::new(types[0].ty, [q[q.len() - 2], k[k.len() - 2]])]
                }
                _ => vec![],
            };
            for ty in more {
                let constant = self.condition("constant", *slot).is_some();
                let tensor = self.values(&ty, false);
                let v = if constant || self.random.chance(50) {
                    self.graph.constant(tensor)
                } else {
                    let name = format!("i{}", self.graph.inputs().len());
                    self.graph.input(&name, ty)
                };
                inputs.push(v);
            }
        }
        let types: Vec<TensorType> = inputs.iter().map(|&v| self.ty(v)).collect();
        let mut last = String::new();
        for _ in 0..12 {
            let op = match &before {
                Some(op) => op.clone(),
                None => match self.attributes(kind, slot, &types, &perm, (trans_a, trans_b)) {
                    Ok(op) => op,
                    Err(e) => {
                        last = e;
                        continue;
                    }
                },
            };
            match self.graph.add(op.clone(), inputs.clone(), "") {
                Ok(v) if self.ty(v).len() < 6000 => {
                    if let Some(s) = slot {
                        self.bound.insert(s, Bound::Op(op));
                    }
                    return Ok(v);
                }
                Ok(_) => last = "too large".into(),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// A shape that broadcasts to `shape`.
    pub(super) fn broadcastable(&mut self, shape: &[usize]) -> Vec<usize> {
        let rank = shape.len();
        let only = |axis: usize| (0..rank).map(|i| if i == axis { shape[i] } else { 1 }).collect::<Vec<_>>();
        match self.random.below(8) {
            0 => vec![],
            1 if rank >= 2 => only(1),
            2 if rank >= 2 => only(1)[1..].to_vec(),
            3 if rank >= 1 => vec![shape[rank - 1]],
            4 => shape.iter().map(|&s| if self.random.chance(50) { s } else { 1 }).collect(),
            5 => vec![1; rank],
            _ => shape.to_vec(),
        }
    }

    pub(super) fn permutation(&mut self, rank: usize) -> Vec<i64> {
        let mut perm: Vec<i64> = (0..rank as i64).collect();
        match self.random.below(4) {
            0 => {}
            1 | 2 if rank >= 2 => perm.swap(rank - 2, rank - 1),
            _ => (1..rank).for_each(|i| perm.swap(i, self.random.below(i + 1))),
        }
        perm
    }
}

/// Random numbers of a type.
pub(super) fn values(r: &mut Rng, ty: &TensorType, powers: bool) -> Tensor {
    let n = ty.len();
    let real = |r: &mut Rng| match powers {
        true => r.pick(&[0.25, 0.5, 1.0, 2.0, 4.0, -2.0]),
        false => (r.below(4001) as f64 - 2000.0) / 700.0,
    };
    macro_rules! make {
        ($f:expr) => {{
            let v: Vec<_> = (0..n).map($f).collect();
            Tensor::with_type(ty.clone(), &v)
        }};
    }
    match ty.ty {
        Type::Bool => make!(|_| r.below(2) as u8),
        Type::F32 => make!(|_| real(r) as f32),
        Type::F64 => make!(|_| real(r)),
        Type::F16 => make!(|_| half::f16::from_f64(real(r)).to_bits()),
        Type::U8 => make!(|_| r.below(256) as u8),
        Type::I8 => make!(|_| r.below(7) as i8 - 3),
        Type::I32 => make!(|_| r.below(7) as i32 - 3),
        Type::I64 => make!(|_| r.below(2) as i64),
        other => panic!("no instances of {other}"),
    }
}
