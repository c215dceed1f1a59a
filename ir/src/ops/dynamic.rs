//! Operators whose number of results is data: it is given as `count`, known from an earlier stage.

use super::check::{self, Types, ensure};
use super::{not_yet, per_input, product};
use crate::op::{Arity, AttrKind, Attrs, Class, Kind, OpDef};
use crate::types::{TensorType, Type};

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    OpDef {
        kind: Kind::NonZero,
        doc: "Indices (i64) [rank, count] of the elements that are not 0, in row-major order; an error unless there are `count`.",
        inputs: Arity::Exactly(1),
        attrs: &[("count", AttrKind::Int(0))],
        class: Class::Compute,
        infer: non_zero,
        eval: not_yet,
        work: per_input::<2>,
    },
    OpDef {
        kind: Kind::Compress,
        doc: "The slices of x along `axis` whose element of cond (bool) [n], n ≤ the size of the axis, holds; an error unless there are `count`.",
        inputs: Arity::Exactly(2),
        attrs: &[("axis", AttrKind::Int(0)), ("count", AttrKind::Int(0))],
        class: Class::Compute,
        infer: compress,
        eval: not_yet,
        work: per_input::<1>,
    },
    OpDef {
        kind: Kind::Unique,
        doc: "The different elements of x, or slices along `axis` (−1: the elements of all of x), in ascending order if `sorted`, else in order \
              of appearance; and as i64: where each first appears, for each element or slice of x the index of its equal, and how often \
              each appears. An error unless there are `count`; `count` −1: as many as x has, the rest 0, and the number (i64 scalar) as \
              fifth result.",
        inputs: Arity::Exactly(1),
        attrs: &[("axis", AttrKind::Int(-1)), ("sorted", AttrKind::Int(1)), ("count", AttrKind::Int(-1))],
        class: Class::Compute,
        infer: unique,
        eval: not_yet,
        work: per_input::<16>,
    },
    OpDef {
        kind: Kind::NonMaxSuppression,
        doc: "The boxes [N, B, 4] that no better box of the same class (scores [N, C, B]) overlaps by more than iou: rows image, class, box \
              (i64) [count, 3], at most max_per_class (i64) of each class, only scores above score. Corners are y1, x1, y2, x2, or \
              x, y, width, height if `center`. `count` −1: [N·C·B, 3], the rest −1, and the number (i64 scalar) as second result.",
        inputs: Arity::Exactly(5),
        attrs: &[("center", AttrKind::Int(0)), ("count", AttrKind::Int(-1))],
        class: Class::Compute,
        infer: non_max_suppression,
        eval: not_yet,
        work: |_, x, _| product(&[x[1].len(), 32]),
    },
];

fn non_zero(attrs: &Attrs, x: &[TensorType]) -> Types {
    ensure(!x[0].ty.is_narrow(), || format!("{} cannot be compared", x[0]))?;
    let count = check::size(attrs, "count", 0)?;
    ensure(count <= x[0].len(), || format!("{} has no {count} elements", x[0]))?;
    check::one(Type::I64, [x[0].rank(), count])
}

fn compress(attrs: &Attrs, x: &[TensorType]) -> Types {
    let [x, cond] = [&x[0], &x[1]];
    let axis = check::axis(attrs, x.rank())?;
    check::is_type("the condition", cond, Type::Bool)?;
    check::rank("the condition", cond, 1)?;
    ensure(cond.shape[0] <= x.shape[axis], || format!("the condition {cond} is longer than axis {axis} of {x}"))?;
    let count = check::size(attrs, "count", 0)?;
    ensure(count <= cond.shape[0], || format!("the condition {cond} has no {count} elements"))?;
    let mut shape = x.shape.clone();
    shape[axis] = count;
    check::one(x.ty, shape)
}

/// The attribute `count`, at most `all`; `None` when it is −1.
fn count_of(attrs: &Attrs, all: usize) -> Result<Option<usize>, String> {
    if attrs.int("count") == -1 {
        return Ok(None);
    }
    let count = check::size(attrs, "count", 0)?;
    ensure(count <= all, || format!("there cannot be {count} of {all}"))?;
    Ok(Some(count))
}

fn unique(attrs: &Attrs, x: &[TensorType]) -> Types {
    let x = &x[0];
    ensure(!x.ty.is_narrow(), || format!("{x} cannot be compared"))?;
    let (mut shape, axis) = match attrs.int("axis") {
        -1 => (vec![x.len()], 0),
        _ => (x.shape.clone(), check::axis(attrs, x.rank())?),
    };
    let all = shape[axis];
    let count = count_of(attrs, all)?;
    let kept = count.unwrap_or(all);
    shape[axis] = kept;
    let list = |n: usize| TensorType::checked(Type::I64, [n]);
    let mut results = vec![TensorType::checked(x.ty, shape)?, list(kept)?, list(all)?, list(kept)?];
    if count.is_none() {
        results.push(TensorType::new(Type::I64, []));
    }
    Ok(results)
}

fn non_max_suppression(attrs: &Attrs, x: &[TensorType]) -> Types {
    let [boxes, scores] = [&x[0], &x[1]];
    check::rank("the boxes", boxes, 3)?;
    check::rank("the scores", scores, 3)?;
    let [n, b] = [boxes.shape[0], boxes.shape[1]];
    check::is_exactly("the boxes", boxes, Type::F32, &[n, b, 4])?;
    check::is_exactly("the scores", scores, Type::F32, &[n, scores.shape[1], b])?;
    check::scalar("the number of boxes a class", &x[2], Type::I64)?;
    check::scalar("the overlap", &x[3], Type::F32)?;
    check::scalar("the least score", &x[4], Type::F32)?;
    let count = count_of(attrs, scores.len())?;
    let mut results = vec![TensorType::checked(Type::I64, [count.unwrap_or(scores.len()), 3])?];
    if count.is_none() {
        results.push(TensorType::new(Type::I64, []));
    }
    Ok(results)
}
