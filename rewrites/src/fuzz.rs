//! One test for all rules: random graphs in the shape of a left side, both sides through the reference evaluator.

use crate::fact;
use crate::fact::Classes;
use crate::fact::Facts;
use crate::language::import;
use crate::options::Options;
use crate::pattern::{Bracket, Names, Pattern, Reader, What};
use crate::rules::{self, Rule};
use crate::term::{Head, Term};
use dnnc_ir::eval::{eval_op, eval_with};
use dnnc_ir::random::Rng;
use dnnc_ir::{Attr, Class, Graph, Kind, Op, Tensor, TensorType, Type, Value};
use egg::Id;
use std::collections::HashMap;

/// Block of packed layouts in the instances: small, so that few channels make blocks and parts of blocks.
const BLOCK: usize = 4;

/// Left sides that look into lists: what stands in the list.
const INSTANCES: &[(&str, &[&str])] = &[
    ("concat of transposes", &["(concat[c] (transpose[p] x) (transpose[p] y))"]),
    ("function of concat", &["(map[f] (concat[c] x y))"]),
    ("concat of pieces", &["(concat[p] (slice[a] x) (slice[b] x))", "(concat[p] x)"]),
    ("concat of concat", &["(concat[p] (concat[p] x y) z)"]),
    ("quantise what was dequantised", &["(round (div (mul (cast[c] a) s) s))", "(round (div (mul (sub (cast[c] a) 3) s) s))"]),
    ("round of a whole number", &["(round (cast[c] a))", "(round (add (cast[c] a) 2))"]),
    ("shuffle of channels", &["(reshape[a] (transpose[p] (reshape[b] x)))"]),
    ("slice of concat", &["(slice[p] (concat[q] x y))", "(slice[p] (concat[q] x y z))"]),
    (
        "element-wise on blocks",
        &["(map[f] (unpack[u] x))", "(map[f] (unpack[u] x) y)", "(map[f] y (unpack[u] x))", "(select (unpack[u] x) y z)"],
    ),
    ("concat of blocks", &["(concat[c] (unpack[u] x) (unpack[u] y))", "(concat[c] (unpack[u] x) y)"]),
];

#[derive(Clone)]
enum Bound {
    Value(Value),
    Op(Op),
}

/// A random graph in the shape of a pattern.
struct Instance<'a> {
    rule: &'a Rule,
    names: &'a Names,
    random: &'a mut Rng,
    graph: Graph,
    bound: HashMap<usize, Bound>,
    /// Element type of leaves that nothing else decides.
    elem: Type,
    /// Sizes of leaves that nothing else decides.
    base: Vec<usize>,
}

type Made<T> = Result<T, String>;

impl Instance<'_> {
    /// The numbers that condition `name` on the variable of `slot` gives, if there is such a condition.
    fn condition(&self, name: &str, slot: usize) -> Option<Vec<f64>> {
        let variable = &self.names.0[slot];
        self.rule.conditions.iter().filter(|(n, ..)| *n == name).find_map(|(_, _, args)| {
            let is_it = |a: &Pattern| matches!(a, Pattern::Var(s) | Pattern::Rest(s) if self.rule.names.0[*s] == *variable);
            args.iter().any(is_it).then(|| args.iter().filter_map(|a| if let Pattern::Number(v) = a { Some(*v) } else { None }).collect())
        })
    }

    fn make(&mut self, pattern: &Pattern, want: Option<TensorType>) -> Made<Value> {
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

    fn leaf(&mut self, slot: usize, want: Option<TensorType>) -> Made<Value> {
        let ty = want.unwrap_or_else(|| TensorType::new(self.elem, self.base.clone()));
        for (name, value) in [("is_zero", 0.0), ("zero", 0.0), ("lowest", f64::NEG_INFINITY)] {
            if self.condition(name, slot).is_some() {
                let one = fact::number(ty.ty, value).ok_or("no such number")?;
                return Ok(self.graph.constant(one));
            }
        }
        if ["permutation", "channels", "vector", "in_order"].iter().any(|c| self.condition(c, slot).is_some() && ty.ty == Type::I64) {
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
        let varying = self.condition("varying", slot).is_some();
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

    fn values(&mut self, ty: &TensorType, powers: bool) -> Tensor {
        values(self.random, ty, powers)
    }

    fn ty(&self, v: Value) -> TensorType {
        self.graph.ty(v).clone()
    }

    fn operator(&mut self, what: What, bracket: Option<&Bracket>, operands: &[Pattern], want: Option<TensorType>) -> Made<Value> {
        let slot = if let Some(Bracket::Var(slot)) = bracket { Some(*slot) } else { None };
        let before = slot.and_then(|s| if let Some(Bound::Op(op)) = self.bound.get(&s) { Some(op.clone()) } else { None });
        let fixed = operands.iter().filter(|p| !matches!(p, Pattern::Rest(_))).count();
        let kind = match (what, &before) {
            (_, Some(op)) => op.kind(),
            (What::Kind(kind), _) => kind,
            (What::Map, _) => {
                let maps: Vec<Kind> = Kind::ALL
                    .iter()
                    .copied()
                    .filter(|&k| dnnc_ir::ops::def(k).class == Class::Map && dnnc_ir::ops::def(k).inputs.admits(fixed))
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
            _ if slot.is_some_and(|s| self.condition("plain", s).is_some() || self.condition("matrices", s).is_some()) => (false, false),
            _ => (self.random.chance(20), self.random.chance(30)),
        };
        let mut inputs: Vec<Value> = Vec::new();
        // Operands that are no leaves decide what leaves beside them look like.
        let leaf = |p: &Pattern| matches!(p, Pattern::Var(_) | Pattern::Number(_));
        let map = dnnc_ir::ops::def(kind).class == Class::Map;
        // What is compared is no boolean.
        let want = if matches!(kind, Kind::Eq | Kind::Lt | Kind::Le) { want.map(|t| TensorType::new(self.elem, t.shape)) } else { want };
        if map {
            let mut made: Vec<Option<Value>> = vec![None; fixed];
            let mut around: Option<TensorType> = None;
            for leaves in [false, true] {
                for (i, p) in operands[..fixed].iter().enumerate().filter(|(_, p)| leaf(p) == leaves) {
                    let elem = match (kind, i) {
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
    fn broadcastable(&mut self, shape: &[usize]) -> Vec<usize> {
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

    fn permutation(&mut self, rank: usize) -> Vec<i64> {
        let mut perm: Vec<i64> = (0..rank as i64).collect();
        match self.random.below(4) {
            0 => {}
            1 | 2 if rank >= 2 => perm.swap(rank - 2, rank - 1),
            _ => (1..rank).for_each(|i| perm.swap(i, self.random.below(i + 1))),
        }
        perm
    }

    /// What operand `i` of an operator that is not element-wise should look like.
    fn operand(
        &mut self,
        kind: Kind,
        i: usize,
        types: &[TensorType],
        want: Option<&TensorType>,
        perm: &[i64],
        (trans_a, trans_b): (bool, bool),
        before: Option<&Op>,
    ) -> Option<TensorType> {
        let elem = want.map_or(self.elem, |t| t.ty);
        let want_shape = want.map(|t| t.shape.clone());
        let base = self.base.clone();
        let shuffles = self.rule.name == "shuffle of channels";
        let reorders = self.rule.name == "places in another order";
        let asks = |name: &str| self.rule.conditions.iter().any(|(n, ..)| *n == name);
        let volumes = asks("volumes");
        let (dense, grouped, few) = (asks("dense"), asks("depthwise"), asks("few_groups"));
        let narrow = asks("narrow_groups");
        let r = &mut *self.random;
        let column = asks("column");
        let image = |r: &mut Rng| {
            if column {
                return vec![1 + r.below(2), 1 + r.below(4), 2 + r.below(5), 1];
            }
            if volumes {
                return vec![1, 1 + r.below(3), 1 + r.below(5), 1 + r.below(4), 1 + r.below(4)];
            }
            let channels = if narrow { r.pick(&[8, 16]) } else { r.pick(&[1, 2, 3, 4, 6, 8]) };
            let mut shape = vec![1 + r.below(2), channels];
            let axes = if r.chance(20) { 1 } else { 2 };
            shape.extend((0..axes).map(|_| 1 + r.below(6)));
            shape
        };
        let swap = |mut s: Vec<usize>, yes: bool| {
            let n = s.len();
            if yes && n >= 2 {
                s.swap(n - 1, n - 2);
            }
            s
        };
        let shape = match (kind, i) {
            (Kind::Conv | Kind::ConvTranspose | Kind::MaxPool | Kind::AvgPool, 0) => want_shape.unwrap_or_else(|| image(r)),
            (Kind::Conv, 1) => {
                let x = &types[0].shape;
                if x.len() < 3 {
                    return None;
                }
                let groups = match before {
                    Some(op) => op.attrs.size("groups"),
                    None if dense => 1,
                    None if grouped => x[1],
                    None if few => 2,
                    None if narrow => 4,
                    None => r.pick(&[1, 1, 1, x[1], 2]),
                };
                let outputs = groups * if narrow || r.chance(50) { (x[1] / groups).max(1) } else { 1 + r.below(6) };
                let kernel = *[1, 1, 3, 3, 2].get(r.below(5)).unwrap_or(&1);
                let mut shape = vec![outputs, (x[1] / groups).max(1)];
                if column {
                    shape.extend([kernel, 1]);
                    return Some(TensorType::new(elem, shape));
                }
                shape.extend(x[2..].iter().map(|&s| if x.len() == 4 { kernel } else { kernel.min(s) }));
                shape
            }
            (Kind::ConvTranspose, 1) => {
                let x = &types[0].shape;
                if x.len() < 3 {
                    return None;
                }
                let mut shape = vec![x[1], 1 + r.below(3)];
                shape.extend(x[2..].iter().map(|_| 1 + r.below(3)));
                shape
            }
            (Kind::Conv | Kind::ConvTranspose, _) => vec![*types[1].shape.first()?],
            (Kind::MatMul, 0) => want_shape.filter(|s| s.len() >= 2).unwrap_or_else(|| {
                let mut shape = vec![1 + r.below(3); r.below(3)];
                shape.extend([1 + r.below(5), 1 + r.below(5)]);
                shape
            }),
            (Kind::MatMul, _) => {
                let a = swap(types[0].shape.clone(), trans_a);
                let k = *a.last()?;
                let mut shape = if r.chance(50) { vec![] } else { a[..a.len() - 2].to_vec() };
                let n = want_shape.and_then(|s| s.last().copied()).unwrap_or(1 + r.below(5));
                shape.extend(swap(vec![k, n], trans_b));
                shape
            }
            (Kind::Attention, 0) => vec![2, 1 + r.below(4), 1 + r.below(4)],
            (Kind::Attention, 1) => vec![2, 1 + r.below(4), *types[0].shape.last()?],
            (Kind::Attention, _) => vec![2, types[1].shape[1], 1 + r.below(4)],
            (Kind::Transpose, _) => match want_shape {
                Some(s) if s.len() == perm.len() => {
                    let mut source = vec![0; s.len()];
                    perm.iter().enumerate().for_each(|(i, &p)| source[p as usize] = s[i]);
                    source
                }
                _ => base,
            },
            (Kind::Pad, 0) => want_shape.unwrap_or_else(|| if r.chance(50) { image(r) } else { base }),
            (Kind::Pad, _) => vec![],
            (Kind::Unpack, _) if reorders => vec![r.pick(&[1, 4]), 1 + r.below(4), 2 * r.below(3), 2 + 2 * r.below(2), BLOCK],
            (Kind::Unpack, _) => {
                let mut shape = match want_shape.filter(|s| s.len() == 4) {
                    Some(s) => vec![s[0], s[1].div_ceil(BLOCK), s[2], s[3]],
                    None => vec![1 + r.below(2), 1 + r.below(2), 1 + r.below(4), 1 + r.below(4)],
                };
                if r.chance(20) {
                    (shape[2], shape[3]) = (1, 1);
                }
                shape.push(BLOCK);
                shape
            }
            (Kind::Pack, _) => image(r),
            (Kind::Gather, 1) if asks("spatial_axis") => return Some(TensorType::new(Type::I64, [1 + r.below(3)])),
            (Kind::Gather, 1) if types[0].rank() >= 3 => return Some(TensorType::new(Type::I64, [types[0].shape[1]])),
            (Kind::Gather, 1) => return Some(TensorType::new(Type::I64, vec![1 + r.below(3); r.below(2)])),
            (Kind::Resample, 1) => return Some(TensorType::new(Type::I64, [1 + r.below(4), 2])),
            (Kind::Resample, 2) => types[1].shape.clone(),
            (Kind::Concat, i) if i > 0 => types[0].shape.clone(),
            (Kind::Reshape, _) if shuffles => base,
            (Kind::Reshape, _) if want.is_some() => {
                let n: usize = want_shape.unwrap_or_default().iter().product();
                if r.chance(50) { vec![n] } else { vec![1, n, 1] }
            }
            (Kind::Cast, _) => {
                return Some(TensorType::new(r.pick(&[Type::F32, Type::F16, Type::I32, Type::I8, Type::Bool, Type::F64]), base));
            }
            _ => want_shape.unwrap_or(base),
        };
        Some(TensorType::new(elem, shape))
    }

    /// Rng attributes of an operator on these operands.
    fn attributes(
        &mut self,
        kind: Kind,
        slot: Option<usize>,
        x: &[TensorType],
        perm: &[i64],
        (trans_a, trans_b): (bool, bool),
    ) -> Made<Op> {
        let rank = x.first().map_or(0, |t| t.rank());
        let shape: Vec<i64> = x.first().map_or(vec![], |t| t.shape.iter().map(|&s| s as i64).collect());
        let window = matches!(kind, Kind::Conv | Kind::ConvTranspose | Kind::MaxPool | Kind::AvgPool);
        if window && x.iter().take(2).any(|t| t.rank() < 3 || t.rank() != rank) || kind == Kind::Unpack && rank != 5 {
            return Err("the operands are no images".into());
        }
        let range = slot.and_then(|s| self.condition("is_clamp", s));
        let relu = slot.is_some_and(|s| self.condition("is_relu", s).is_some());
        let pointwise = slot.is_some_and(|s| self.condition("pointwise", s).is_some());
        let unpadded = slot.is_some_and(|s| self.condition("unpadded", s).is_some() || self.condition("whole_windows", s).is_some());
        let spatial = slot.is_some_and(|s| self.condition("spatial_axes", s).is_some());
        let kept = slot.is_some_and(|s| self.condition("kept", s).is_some() || self.condition("keepdims", s).is_some());
        let asks = |name: &str| self.rule.conditions.iter().any(|(n, ..)| *n == name);
        let (whole, quantised) = (asks("whole"), asks("lowest_of") || asks("lowest_zero"));
        let shuffles = self.rule.name == "shuffle of channels";
        let reorders = self.rule.name == "places in another order";
        let unbounded = slot.is_some_and(|s| self.condition("unbounded", s).is_some());
        let r = &mut *self.random;
        let axes = |r: &mut Rng| -> Vec<i64> {
            if spatial {
                return r.pick(&[vec![2, 3], vec![2], vec![3]]);
            }
            match r.below(3) {
                0 if rank > 0 => vec![rank as i64 - 1],
                1 if rank == 4 => vec![2, 3],
                _ => (0..rank as i64).filter(|_| r.chance(50)).collect(),
            }
        };
        let axis = |r: &mut Rng| -> Attr {
            Attr::Int(if rank == 0 {
                0
            } else if r.chance(50) {
                rank as i64 - 1
            } else {
                r.below(rank) as i64
            })
        };
        let each =
            |r: &mut Rng, n: usize, most: usize| -> Attr { Attr::from((0..n).map(|_| r.below(most + 1) as i64).collect::<Vec<_>>()) };
        let spatial_rank = rank.saturating_sub(2);
        let attrs: Vec<(&'static str, Attr)> = match kind {
            Kind::Clamp => match range {
                Some(range) => vec![("lo", Attr::from(range[0])), ("hi", Attr::from(range[1]))],
                None if relu => vec![("lo", Attr::from(0.0))],
                None if unbounded => vec![],
                None => {
                    let lo = r.below(5) as f64 / 2.0 - 1.5;
                    vec![("lo", Attr::from(lo)), ("hi", Attr::from(lo + r.below(4) as f64 / 2.0))]
                }
            },
            Kind::Cast if whole => vec![("to", Attr::Type(Type::F32))],
            Kind::Cast if quantised => vec![("to", Attr::Type(r.pick(&[Type::I8, Type::U8])))],
            Kind::Cast => vec![("to", Attr::Type(r.pick(&[x[0].ty, Type::F32, Type::F16, Type::I32, Type::I8, Type::Bool, Type::F64])))],
            Kind::Bitcast => vec![("to", Attr::Type(x[0].ty))],
            Kind::ReduceSum | Kind::ReduceProd | Kind::ReduceMax | Kind::ReduceMin | Kind::ReduceMean => {
                vec![("axes", Attr::from(axes(r))), ("keepdims", Attr::from(kept || r.chance(50)))]
            }
            Kind::Gather if asks("spatial_axis") => vec![("axis", Attr::Int(2 + r.below(2) as i64))],
            Kind::Gather if rank >= 3 => vec![("axis", Attr::Int(1))],
            Kind::Softmax | Kind::LogSoftmax | Kind::Concat | Kind::Gather | Kind::Resample => {
                let along = if spatial || kind == Kind::Resample { Attr::Int(2 + r.below(2) as i64) } else { axis(r) };
                vec![("axis", if kind == Kind::Concat && rank == 4 && r.chance(50) { Attr::Int(1) } else { along })]
            }
            Kind::Norm | Kind::RmsNorm => vec![("axes", Attr::from(axes(r))), ("eps", Attr::from(1e-3))],
            Kind::MatMul => vec![("trans_a", Attr::from(trans_a)), ("trans_b", Attr::from(trans_b))],
            Kind::Attention => vec![("scale", Attr::from(0.5 + r.below(3) as f64 / 4.0))],
            Kind::Conv | Kind::ConvTranspose => {
                let groups = if kind == Kind::Conv { shape[1] as usize / x[1].shape[1].max(1) } else { r.pick(&[1, 1, x[0].shape[1]]) };
                let same = !pointwise && !unpadded && r.chance(40);
                let one = Attr::from(vec![1; spatial_rank]);
                let strides = if pointwise || same || r.chance(40) {
                    one.clone()
                } else {
                    Attr::from((0..spatial_rank).map(|_| 1 + r.below(2) as i64).collect::<Vec<_>>())
                };
                let dilations = if pointwise || same || r.chance(60) { one } else { Attr::from(vec![2; spatial_rank]) };
                let pads = if pointwise || unpadded {
                    Attr::from(vec![0; 2 * spatial_rank])
                } else if same {
                    let half: Vec<i64> = x[1].shape[2..].iter().map(|&k| (k as i64 - 1) / 2).collect();
                    Attr::from([half.clone(), half].concat())
                } else {
                    let mut pads: Vec<i64> = (0..2 * spatial_rank).map(|_| r.below(3) as i64).collect();
                    if asks("column") {
                        pads.iter_mut().skip(1).step_by(2).for_each(|p| *p = 0);
                    }
                    Attr::from(pads)
                };
                let mut attrs = vec![("strides", strides), ("pads", pads), ("dilations", dilations), ("groups", Attr::Int(groups as i64))];
                if kind == Kind::ConvTranspose {
                    attrs.push(("output_padding", Attr::from(vec![0; spatial_rank])));
                }
                attrs
            }
            Kind::MaxPool | Kind::AvgPool => {
                let mut kernel: Vec<i64> = (0..spatial_rank).map(|_| 1 + r.below(3) as i64).collect();
                let few = asks("few");
                if few || asks("column") {
                    kernel[1..].fill(1);
                }
                let bare = unpadded || r.chance(40);
                let pads: Vec<i64> =
                    [&kernel[..], &kernel[..]].concat().iter().map(|&k| if bare { 0 } else { r.below(k as usize) as i64 }).collect();
                let mut attrs = vec![
                    ("kernel", Attr::from(kernel)),
                    ("strides", Attr::from((0..spatial_rank).map(|_| if few { 1 } else { 1 + r.below(2) as i64 }).collect::<Vec<_>>())),
                    ("pads", Attr::from(pads)),
                    ("dilations", Attr::from(vec![1; spatial_rank])),
                ];
                if kind == Kind::AvgPool {
                    let extra = if bare { Attr::from(vec![0; spatial_rank]) } else { each(r, spatial_rank, 1) };
                    attrs.extend([("include_pad", Attr::from(r.chance(50))), ("extra", extra)]);
                }
                attrs
            }
            Kind::Reshape if reorders && rank == 4 => {
                let [n, c, h, w] = [0, 1, 2, 3].map(|i| shape[i]);
                let grids = [vec![n, c, h / 2, 2, w / 2, 2], vec![n / 4, 2, 2, c, h, w], vec![n, 2, 2, c / 4, h, w]];
                vec![("shape", Attr::from(r.pick(&grids)))]
            }
            Kind::Transpose if reorders && rank == 6 => {
                vec![("perm", Attr::from(r.pick(&[vec![0, 3, 5, 1, 2, 4], vec![0, 3, 4, 1, 5, 2]])))]
            }
            Kind::Reshape if reorders && rank == 6 => {
                let [a, b, c, d, e, f] = [0, 1, 2, 3, 4, 5].map(|i| shape[i]);
                vec![("shape", Attr::from(r.pick(&[vec![a * b * c, d, e, f], vec![a, b, c * d, e * f]])))]
            }
            Kind::Transpose if !shuffles => {
                vec![("perm", Attr::from(if perm.len() == rank { perm.to_vec() } else { self.permutation(rank) }))]
            }
            Kind::Reshape if shuffles && rank == 4 && shape[1] % 2 == 0 => {
                vec![("shape", Attr::from(vec![shape[0], 2, shape[1] / 2, shape[2], shape[3]]))]
            }
            Kind::Reshape if shuffles && rank == 5 => vec![("shape", Attr::from(vec![shape[0], shape[1] * shape[2], shape[3], shape[4]]))],
            Kind::Transpose if shuffles && rank == 5 => vec![("perm", Attr::from(vec![0, 2, 1, 3, 4]))],
            Kind::Reshape => {
                let n: i64 = shape.iter().product();
                let mut squeezed: Vec<i64> = shape.iter().copied().filter(|&s| s != 1).collect();
                let options = match r.below(5) {
                    0 => vec![n],
                    1 => vec![1, n, 1],
                    2 => shape.clone(),
                    3 => {
                        if r.chance(50) {
                            squeezed.push(1);
                        }
                        squeezed
                    }
                    _ if n % 2 == 0 => vec![2, n / 2],
                    _ => vec![n, 1],
                };
                vec![("shape", Attr::from(options))]
            }
            Kind::Expand => {
                let mut to: Vec<i64> = shape.iter().map(|&s| if s == 1 && r.chance(70) { 1 + r.below(3) as i64 } else { s }).collect();
                if r.chance(20) {
                    to.insert(0, 2);
                }
                vec![("shape", Attr::from(to))]
            }
            Kind::Slice => {
                let (mut starts, mut sizes, mut steps) = (vec![], vec![], vec![]);
                let whole = r.chance(30);
                for &n in &shape {
                    let all = whole || r.chance(50);
                    let anywhere = r.below(n.max(1) as usize) as i64;
                    let start = if all { 0 } else { r.pick(&[0, n / 2, anywhere]) };
                    let size = if all { n } else { 1 + r.below((n - start) as usize) as i64 };
                    let backwards = !whole && size == 1 && r.chance(10);
                    starts.push(start);
                    sizes.push(size);
                    steps.push(if backwards { -1 } else { 1 });
                }
                vec![("starts", Attr::from(starts)), ("sizes", Attr::from(sizes)), ("steps", Attr::from(steps))]
            }
            Kind::Pad => {
                let none = r.chance(20);
                let spatial_only = r.chance(80);
                let pads: Vec<i64> =
                    (0..2 * rank).map(|i| if none || spatial_only && rank >= 3 && i % rank < 2 { 0 } else { r.below(3) as i64 }).collect();
                vec![("pads", Attr::from(pads)), ("mode", Attr::Word(r.pick(&["constant", "constant", "edge"])))]
            }
            Kind::Pack => vec![("axis", Attr::Int(1)), ("block", Attr::Int(BLOCK as i64))],
            Kind::Unpack => {
                let size = shape[1] * BLOCK as i64 - if r.chance(60) { 0 } else { r.below(BLOCK) as i64 };
                vec![("axis", Attr::Int(1)), ("block", Attr::Int(BLOCK as i64)), ("size", Attr::Int(size))]
            }
            _ => vec![],
        };
        Op::new(kind, attrs)
    }
}

/// Rng numbers of a type.
fn values(r: &mut Rng, ty: &TensorType, powers: bool) -> Tensor {
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
        Type::I8 => make!(|_| r.below(7) as i8 - 3),
        Type::I32 => make!(|_| r.below(7) as i32 - 3),
        Type::I64 => make!(|_| r.below(2) as i64),
        other => panic!("no instances of {other}"),
    }
}

/// The values of classes: those of the graph as it came in are known, others are computed by a shortest term.
struct Values<'a> {
    classes: &'a Classes,
    known: HashMap<Id, Tensor>,
    terms: HashMap<Id, &'a Term>,
}

impl Values<'_> {
    fn of(&mut self, id: Id) -> Option<Tensor> {
        let id = self.classes.find(id);
        if let Some(v) = self.known.get(&id) {
            return Some(v.clone());
        }
        let term = self.terms.get(&id).copied()?;
        let v = self.run(term)?;
        self.known.insert(id, v.clone());
        Some(v)
    }

    fn run(&mut self, term: &Term) -> Option<Tensor> {
        let Head::Op(op) = &term.head else { return None };
        let inputs: Option<Vec<Tensor>> = term.children.iter().map(|&c| self.of(c)).collect();
        eval_op(op, &inputs?).ok()?.into_iter().next()
    }
}

/// Applies the rule to one instance; answers whether it fired, or how the sides differ.
fn check(rule: &'static Rule, random: &mut Rng) -> Result<bool, String> {
    let mut names = rule.names.clone();
    let instances = INSTANCES.iter().find(|(name, _)| *name == rule.name);
    let pattern = match instances {
        Some((_, texts)) => {
            let text = random.pick(texts);
            Reader::new(text, &mut names, rules::helper).pattern()
        }
        None => rule.left.clone(),
    };
    let real = rule.conditions.iter().any(|(n, ..)| *n == "real" || *n == "f32");
    let elem = if real || random.chance(80) { Type::F32 } else { random.pick(&[Type::I32, Type::F64, Type::Bool, Type::I8]) };
    let rank = if random.chance(40) { 4 } else { random.below(5) };
    let base: Vec<usize> =
        (0..rank).map(|i| if i == 1 && random.chance(50) { random.pick(&[4, 8, 6]) } else { 1 + random.below(4) }).collect();
    let mut instance = Instance { rule, names: &names, random, graph: Graph::new(), bound: HashMap::new(), elem, base };
    let root = match instance.make(&pattern, None) {
        Ok(root) => root,
        Err(_) => return Ok(false),
    };
    let mut graph = std::mem::take(&mut instance.graph);
    graph.output("y", root);

    let relaxed = rule.conditions.iter().any(|(n, ..)| *n == "relaxed");
    let options = Options {
        relaxed: relaxed || rule.conditions.iter().any(|(n, ..)| *n == "exact_reciprocal") && random.chance(50),
        ..Options::default()
    };
    let exact = !options.relaxed && !rule.conditions.iter().any(|(n, ..)| *n == "loose");
    let imported = import(&graph, Facts { options, block: BLOCK, ..Facts::default() });
    let (mut classes, target) = (imported.classes, imported.roots[0]);
    let places: Vec<_> = rule.search(&classes).into_iter().filter(|p| classes.find(p.root) == classes.find(target)).collect();
    let original: Vec<Term> = classes[target].nodes.clone();
    let mut fired = false;
    for place in places {
        fired |= rule.apply(&mut classes, &place).unwrap_or(false);
    }
    if !fired {
        return Ok(false);
    }
    classes.rebuild();

    let inputs: Vec<Tensor> = graph.inputs().iter().map(|&v| values(random, graph.ty(v), false)).collect();
    let mut known = HashMap::new();
    let mut results: Vec<Option<Tensor>> = vec![None; graph.nodes().len()];
    if eval_with(&graph, &inputs, |n, r| results[n] = r.first().cloned()).is_err() {
        return Ok(false);
    }
    for ((id, _), value) in imported.written.iter().zip(results) {
        known.extend(value.map(|v| (classes.find(*id), v)));
    }
    let expected = known[&classes.find(target)].clone();
    let mut terms: HashMap<Id, &Term> = HashMap::new();
    loop {
        let found: Vec<(Id, &Term)> = classes
            .classes()
            .filter(|c| !terms.contains_key(&c.id))
            .filter_map(|c| {
                let ready =
                    |t: &&Term| t.children.iter().all(|x| known.contains_key(&classes.find(*x)) || terms.contains_key(&classes.find(*x)));
                c.nodes.iter().filter(|t| t.kind() != Some(Kind::Input)).find(ready).map(|t| (c.id, t))
            })
            .collect();
        if found.is_empty() {
            break;
        }
        terms.extend(found);
    }
    let mut all = Values { classes: &classes, known, terms };
    let mut compared = false;
    for term in &classes[target].nodes {
        let canonical = |t: &Term| Term { head: t.head.clone(), children: t.children.iter().map(|&c| classes.find(c)).collect() };
        if original.iter().any(|t| canonical(t) == *term) {
            continue;
        }
        let found = match term.kind() {
            // The root became equal to an input: its value is that of the input.
            Some(Kind::Input) => inputs[term.op().expect("an input").attrs.size("index")].clone(),
            _ => all.run(term).ok_or_else(|| format!("cannot evaluate {term:?}"))?,
        };
        compared = true;
        // Dead lanes of packed values may differ.
        let live = |t: &Tensor| match (&rule.left, place_pack(&graph, root)) {
            (Pattern::Op(What::Kind(Kind::Pack), ..), Some(unpack)) => {
                eval_op(&unpack, std::slice::from_ref(t)).expect("unpacked").remove(0)
            }
            _ => t.clone(),
        };
        compare(&live(&expected), &live(&found), exact, relaxed).map_err(|e| format!("{e}\nas {term:?}\nof {graph:?}"))?;
    }
    Ok(compared)
}

/// How to unpack what a packing packs.
fn place_pack(graph: &Graph, root: Value) -> Option<Op> {
    let size = graph.ty(*graph.node(root).inputs.first()?).shape.get(1).copied()?;
    let attrs = [("axis", Attr::Int(1)), ("block", Attr::Int(BLOCK as i64)), ("size", Attr::Int(size as i64))];
    Op::new(Kind::Unpack, attrs).ok()
}

fn compare(a: &Tensor, b: &Tensor, exact: bool, finite: bool) -> Result<(), String> {
    if a.ty() != b.ty() {
        return Err(format!("{} is not {}", a.ty(), b.ty()));
    }
    let (Some(x), Some(y)) = (fact::exact_f64s(a), fact::exact_f64s(b)) else { return Err(format!("cannot compare {}", a.ty())) };
    let relative = match a.ty().ty {
        Type::F16 => 2e-3,
        Type::F32 if exact => 1e-6,
        Type::F32 => 2e-4,
        Type::F64 => 1e-9,
        _ => 0.0,
    };
    for (x, y) in x.into_iter().zip(y) {
        let same = x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= relative * (1.0 + x.abs());
        if !same && (!finite || x.is_finite()) {
            return Err(format!("{x} is not {y}"));
        }
    }
    Ok(())
}

#[test]
fn every_rule_keeps_its_meaning() {
    let mut silent = Vec::new();
    let mut wrong = Vec::new();
    for (number, rule) in rules::all().enumerate() {
        let mut random = Rng::new(number as u64);
        let mut fired = 0;
        for _ in 0..6000 {
            match check(rule, &mut random) {
                Ok(yes) => fired += usize::from(yes),
                Err(e) => {
                    wrong.push(format!("\"{}\": {e}", rule.name));
                    break;
                }
            }
            if fired == 64 {
                break;
            }
        }
        if fired < 3 {
            silent.push(rule.name);
        }
    }
    assert!(wrong.is_empty() && silent.is_empty(), "never seen to fire: {silent:#?}\nwrong:\n{}", wrong.join("\n"));
}
