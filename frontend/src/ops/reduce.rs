//! Reductions, arguments of extremes, running sums.

use super::expr::v;
use super::helpers::{Outputs, count, one, size};
use super::row::{OpImport, onnx};
use crate::build::{Build, Node, Result, axes, axis, invalid};
use dnnc_ir::{Attr, Kind, Type, Value};

pub(super) const OPS: &[OpImport] = &[
    onnx("ReduceSum", |b, n| plain(b, n, Kind::ReduceSum)),
    onnx("ReduceProd", |b, n| plain(b, n, Kind::ReduceProd)),
    onnx("ReduceMax", |b, n| plain(b, n, Kind::ReduceMax)),
    onnx("ReduceMin", |b, n| plain(b, n, Kind::ReduceMin)),
    onnx("ReduceMean", |b, n| plain(b, n, Kind::ReduceMean)),
    onnx("ReduceL1", reduce_l1),
    onnx("ReduceL2", |b, n| squares(b, n, true)),
    onnx("ReduceSumSquare", |b, n| squares(b, n, false)),
    onnx("ReduceLogSum", reduce_log_sum),
    onnx("ReduceLogSumExp", reduce_log_sum_exp),
    onnx("ArgMax", |b, n| arg(b, n, Kind::ArgMax)),
    onnx("ArgMin", |b, n| arg(b, n, Kind::ArgMin)),
    onnx("CumSum", |b, n| running(b, n, Kind::CumSum)),
    onnx("CumProd", |b, n| running(b, n, Kind::CumProd)),
    onnx("TopK", top_k),
];

/// The axes of a reduction: an attribute in old opsets, an input in newer ones; none given means all, or none if the node says so.
fn over(b: &mut Build, n: &Node) -> Result<(Vec<usize>, bool)> {
    let rank = b.rank(n.input(0)?);
    let given = n.ints_or_input(b, "axes", 1)?.unwrap_or_default();
    let all = given.is_empty() && !n.flag("noop_with_empty_axes", false)?;
    Ok((if all { (0..rank).collect() } else { axes(&given, rank)? }, n.flag("keepdims", true)?))
}

fn plain(b: &mut Build, n: &Node, kind: Kind) -> Outputs {
    let (over, keep) = over(b, n)?;
    one(b.reduce(kind, n.input(0)?, &over, keep))
}

fn reduce_l1(b: &mut Build, n: &Node) -> Outputs {
    let (over, keep) = over(b, n)?;
    let size = b.emit(v(n.input(0)?).abs())?;
    one(b.reduce(Kind::ReduceSum, size, &over, keep))
}

fn squares(b: &mut Build, n: &Node, root: bool) -> Outputs {
    let (x, (over, keep)) = (n.input(0)?, over(b, n)?);
    // A root of integers is taken of a float; their plain sum of squares is exact (and wraps) as it is.
    let wide = if root { b.float(x)? } else { b.wide(x)? };
    let square = b.emit(v(wide) * wide)?;
    let mut y = b.reduce(Kind::ReduceSum, square, &over, keep)?;
    if root {
        y = b.emit(v(y).sqrt())?;
    }
    one(b.cast(y, b.elem(x)))
}

fn reduce_log_sum(b: &mut Build, n: &Node) -> Outputs {
    let (x, (over, keep)) = (n.input(0)?, over(b, n)?);
    let wide = b.float(x)?;
    let sum = b.reduce(Kind::ReduceSum, wide, &over, keep)?;
    let y = b.emit(v(sum).log())?;
    one(b.cast(y, b.elem(x)))
}

/// The largest element is taken out first, so that no exponential overflows.
fn reduce_log_sum_exp(b: &mut Build, n: &Node) -> Outputs {
    let (x, (over, keep)) = (n.input(0)?, over(b, n)?);
    let wide = b.float(x)?;
    let top = b.reduce(Kind::ReduceMax, wide, &over, true)?;
    // Nothing is taken out where all elements are −∞ or one is ∞: ∞ − ∞ is no number.
    let top = b.emit(v(top).is_inf().select(0.0, top))?;
    let exps = b.emit((v(wide) - top).exp())?;
    let sum = b.reduce(Kind::ReduceSum, exps, &over, true)?;
    let y = b.emit(v(sum).log() + top)?;
    let y = if keep { y } else { b.squeeze(y, &over)? };
    one(b.cast(y, b.elem(x)))
}

fn arg(b: &mut Build, n: &Node, kind: Kind) -> Outputs {
    let x = n.input(0)?;
    let axis = n.axis("axis", 0, b.rank(x))?;
    let (keep, last) = (n.flag("keepdims", true)?, n.flag("select_last_index", false)?);
    one(b.op(kind, [("axis", Attr::Int(axis as i64)), ("keepdims", keep.into()), ("last", last.into())], &[x]))
}

fn running(b: &mut Build, n: &Node, kind: Kind) -> Outputs {
    let x = n.input(0)?;
    let axis = axis(b.need_i64(n.input(1)?)?, b.rank(x))?;
    let (exclusive, reverse) = (n.flag("exclusive", false)?, n.flag("reverse", false)?);
    one(b.op(kind, [("axis", Attr::Int(axis as i64)), ("exclusive", exclusive.into()), ("reverse", reverse.into())], &[x]))
}

fn top_k(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let axis = n.axis("axis", -1, b.rank(x))?;
    let k = if n.opset < 10 { n.req_int("k")? } else { b.need_i64(n.input(1)?)? };
    let k = size(k)?;
    if k > b.shape(x)[axis] {
        return invalid!("the {k} largest of {} elements", b.shape(x)[axis]);
    }
    let largest = n.flag("largest", true)?;
    let values = b.op(Kind::TopK, [("axis", Attr::Int(axis as i64)), ("k", Attr::Int(k as i64)), ("largest", largest.into())], &[x])?;
    Ok(vec![values, values.result(1)])
}

/// How many elements of a bool tensor hold, as an i64 of rank 0.
pub(super) fn how_many(b: &mut Build, condition: Value) -> Result<Value> {
    let all = [count(&b.shape(condition))?];
    let flat = b.reshape(condition, &all)?;
    let ones = b.cast(flat, Type::I64)?;
    b.reduce(Kind::ReduceSum, ones, &[0], false)
}
