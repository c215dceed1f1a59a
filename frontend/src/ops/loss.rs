//! Losses: the logarithm of the probability of the right class, negated and weighted.

use super::expr::v;
use super::helpers::{Outputs, one};
use super::row::{OpImport, onnx};
use crate::build::{Build, Node, Result, invalid};
use dnnc_ir::{Attr, Kind, Type, Value};

pub(super) const OPS: &[OpImport] =
    &[onnx("NegativeLogLikelihoodLoss", |b, n| one(loss(b, n, n.input(0)?))), onnx("SoftmaxCrossEntropyLoss", softmax_cross_entropy)];

fn softmax_cross_entropy(b: &mut Build, n: &Node) -> Outputs {
    let scores = n.input(0)?;
    if b.rank(scores) < 2 {
        return invalid!("scores {} have no classes", b.ty(scores));
    }
    let wide = b.wide(scores)?;
    let logs = b.on_axis(Kind::LogSoftmax, wide, 1)?;
    let y = loss(b, n, logs)?;
    Ok(vec![b.cast(y, b.elem(scores))?, b.cast(logs, b.elem(scores))?])
}

/// −log p[n, target, …], weighted by class; targets that are `ignore_index` count nothing.
fn loss(b: &mut Build, n: &Node, logs: Value) -> Result<Value> {
    let (target, weight) = (n.input(1)?, n.opt(2));
    let shape = b.shape(logs);
    let fits = shape.len() >= 2 && b.shape(target) == [&shape[..1], &shape[2..]].concat();
    if !fits {
        return invalid!("targets {} for scores {}", b.ty(target), b.ty(logs));
    }
    let mut target = b.cast(target, Type::I64)?;
    let ty = b.elem(logs);
    let ignored = match n.opt_int("ignore_index")? {
        Some(index) => {
            let index = b.i64(index);
            let ignored = b.emit(v(target).eq(index))?;
            target = b.emit(v(ignored).select(0.0, target))?;
            Some(ignored)
        }
        None => None,
    };
    let mut weights = match weight {
        Some(weight) if b.shape(weight) != [shape[1]] => return invalid!("weights {} for {} classes", b.ty(weight), shape[1]),
        Some(weight) => {
            let weight = b.cast(weight, ty)?;
            Some(b.gather(weight, target, 0)?)
        }
        None => None,
    };
    if let Some(ignored) = ignored {
        let one = b.scalar(ty, 1.0);
        weights = Some(b.emit(v(ignored).select(0.0, weights.unwrap_or(one)))?);
    }
    let index = b.unsqueeze(target, &[1])?;
    let right = b.op(Kind::GatherElements, [("axis", Attr::Int(1))], &[logs, index])?;
    let right = b.squeeze(right, &[1])?;
    let losses = match weights {
        Some(weights) => b.emit(-v(right) * weights)?,
        None => b.emit(-v(right))?,
    };
    let all: Vec<usize> = (0..b.rank(losses)).collect();
    match (n.string("reduction", "mean")?, weights) {
        ("none", _) => Ok(losses),
        ("sum", _) => b.reduce(Kind::ReduceSum, losses, &all, false),
        ("mean", None) => b.reduce(Kind::ReduceMean, losses, &all, false),
        ("mean", Some(weights)) => {
            let (sum, total) = (b.reduce(Kind::ReduceSum, losses, &all, false)?, b.reduce(Kind::ReduceSum, weights, &all, false)?);
            b.emit(v(sum) / total)
        }
        (other, _) => invalid!("attribute `reduction` is {other:?}"),
    }
}
