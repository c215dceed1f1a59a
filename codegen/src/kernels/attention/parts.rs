//! By parts: the scores with the scale on the registers of their product, the mask added in place, softmax by rows, the product with v. Scores lie in
//! scratch memory between the parts. For types that are not computed as they are stored.

use crate::expr::{Epilogue, Expr, ExprNode, What};
use crate::kernels::{map, matmul, norm};
use crate::unit::{Arg, Lowered, Operand, Unit};
use dnnc_ir::{Attr, Kind, Op, Tensor, TensorType, Type, broadcast};

pub(super) fn lower(unit: &Unit) -> Result<Lowered, String> {
    let [q, k, v] = [0, 1, 2].map(|i| unit.inputs[i].clone());
    let result = &unit.results[0];
    let ty = q.ty.ty;
    let (queries, keys) = (q.ty.shape[q.ty.rank() - 2], k.ty.shape[k.ty.rank() - 2]);
    let lead = |t: &TensorType| t.shape[..t.rank() - 2].to_vec();
    let batch = broadcast(&lead(&q.ty), &lead(&k.ty)).ok_or("the batch axes of q and k do not fit")?;
    let mut scores_shape = batch;
    scores_shape.extend([queries, keys]);
    let scores = TensorType::new(ty, scores_shape);
    let op = |kind, attrs: Vec<(&'static str, Attr)>| Op::new(kind, attrs).expect("the row of an operator");
    let known = |ty: &TensorType| Operand { ty: ty.clone(), constant: None };
    let mut out = Lowered { scratch: vec![scores.bytes(), scores.bytes()], ..Lowered::default() };
    let (raw, weights) = (Arg::Scratch(0), Arg::Scratch(1));

    let product = op(Kind::MatMul, vec![("trans_b", 1.into())]);
    let scale = Epilogue { expr: scaled(ty, unit.op.attrs.float("scale")), operands: vec![] };
    let part = Unit {
        op: &product,
        inputs: vec![q, k],
        results: vec![scores.clone()],
        epilogue: Some(&scale),
        stored: scores.clone(),
        target: unit.target,
        options: unit.options,
    };
    out.append((matmul::FAMILY.lower)(&part)?, &[Arg::Input(0), Arg::Input(1)], raw);

    let mut masks: Vec<(Operand, Arg)> = unit.inputs.get(3).map(|m| (m.clone(), Arg::Input(3))).into_iter().collect();
    let causal = unit.op.attrs.flag("causal").then(|| below_diagonal(ty, queries, keys));
    if let Some(mask) = &causal {
        out.constants.push(mask.bytes().to_vec());
        masks.push((known(mask.ty()), Arg::Const(out.constants.len() - 1)));
    }
    for (mask, at) in masks {
        let add = sum(ty);
        let part = map::lower(&add, &[known(&scores), mask], &scores, unit.target, unit.options)?;
        out.append(part, &[raw, at], raw);
    }

    let softmax = op(Kind::Softmax, vec![("axis", (scores.rank() as i64 - 1).into())]);
    let part = Unit {
        op: &softmax,
        inputs: vec![known(&scores)],
        results: vec![scores.clone()],
        epilogue: None,
        stored: scores.clone(),
        target: unit.target,
        options: unit.options,
    };
    out.append((norm::FAMILY.lower)(&part)?, &[raw], weights);

    let product = op(Kind::MatMul, vec![]);
    let part = Unit {
        op: &product,
        inputs: vec![known(&scores), v],
        results: vec![result.clone()],
        epilogue: None,
        stored: result.clone(),
        target: unit.target,
        options: unit.options,
    };
    out.append((matmul::FAMILY.lower)(&part)?, &[weights, Arg::Input(2)], Arg::Output(0));
    Ok(out)
}

/// Operand 0 times a constant.
fn scaled(ty: Type, scale: f64) -> Expr {
    let factor = number(ty, scale);
    let nodes = vec![
        ExprNode { what: What::Operand(0), ty },
        ExprNode { what: What::Const(factor), ty },
        ExprNode { what: What::Apply(Op::new(Kind::Mul, []).expect("the row of `mul`"), vec![0, 1]), ty },
    ];
    Expr { nodes }
}

/// Operand 0 plus operand 1.
fn sum(ty: Type) -> Expr {
    let nodes = vec![
        ExprNode { what: What::Operand(0), ty },
        ExprNode { what: What::Operand(1), ty },
        ExprNode { what: What::Apply(Op::new(Kind::Add, []).expect("the row of `add`"), vec![0, 1]), ty },
    ];
    Expr { nodes }
}

/// A number as a constant of a type.
fn number(ty: Type, value: f64) -> Tensor {
    cast(&Tensor::scalar(value), ty)
}

fn cast(t: &Tensor, ty: Type) -> Tensor {
    let op = Op::new(Kind::Cast, [("to", ty.into())]).expect("the row of `cast`");
    dnnc_ir::eval_op(&op, std::slice::from_ref(t)).expect("a cast of numbers").remove(0)
}

/// 0 where a key may be seen by a query (its number is not larger), −∞ elsewhere.
fn below_diagonal(ty: Type, queries: usize, keys: usize) -> Tensor {
    let values: Vec<f64> = (0..queries * keys).map(|i| if i % keys <= i / keys { 0.0 } else { f64::NEG_INFINITY }).collect();
    cast(&Tensor::new([queries, keys], &values), ty)
}
