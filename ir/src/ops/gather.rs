//! Elements read and written at places that are data.

use super::check::{self, Types, ensure};
use super::{not_yet, per_input, per_output};
use crate::op::{Arity, AttrKind, Attrs, Class, Kind, OpDef};
use crate::types::{TensorType, Type};

const REDUCTION: AttrKind = AttrKind::Word(&["none", "add", "mul", "min", "max"]);

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    OpDef {
        kind: Kind::Gather,
        doc: "x with `axis` replaced by the axes of idx (i64): y[.., i.., ..] = x[.., idx[i..], ..]. Negative indices count from the end; one \
              out of range is an error.",
        inputs: Arity::Exactly(2),
        attrs: &[("axis", AttrKind::Int(0))],
        class: Class::Move,
        infer: gather,
        eval: not_yet,
        work: per_output::<1>,
    },
    OpDef {
        kind: Kind::GatherElements,
        doc: "y[i, j, ..] = x[idx[i, j, ..], j, ..] for `axis` 0; idx (i64) has the rank of x and no larger sizes on the other axes. Indices as gather.",
        inputs: Arity::Exactly(2),
        attrs: &[("axis", AttrKind::Int(0))],
        class: Class::Move,
        infer: gather_elements,
        eval: not_yet,
        work: per_output::<1>,
    },
    OpDef {
        kind: Kind::GatherNd,
        doc: "y[b.., i..] = x[b.., idx[b.., i.., 0], idx[b.., i.., 1], ..]: the last axis of idx (i64) is an index into the axes of x after the \
              first `batch_dims`. Indices as gather.",
        inputs: Arity::Exactly(2),
        attrs: &[("batch_dims", AttrKind::Int(0))],
        class: Class::Move,
        infer: gather_nd,
        eval: not_yet,
        work: per_output::<1>,
    },
    OpDef {
        kind: Kind::ScatterElements,
        doc: "x with x[idx[i, j, ..], j, ..] = upd[i, j, ..] for `axis` 0, in order; or the element combined with the update by `reduction`. \
              idx (i64) and upd have one shape, of the rank of x. Indices as gather.",
        inputs: Arity::Exactly(3),
        attrs: &[("axis", AttrKind::Int(0)), ("reduction", REDUCTION)],
        class: Class::Compute,
        infer: scatter_elements,
        eval: not_yet,
        work: per_input::<1>,
    },
    OpDef {
        kind: Kind::ScatterNd,
        doc: "x with x[idx[i.., 0], idx[i.., 1], .., ..] = upd[i.., ..], in order; or combined with the update by `reduction`. Indices as gather.",
        inputs: Arity::Exactly(3),
        attrs: &[("reduction", REDUCTION)],
        class: Class::Compute,
        infer: scatter_nd,
        eval: not_yet,
        work: per_input::<1>,
    },
];

fn indices(idx: &TensorType) -> Result<(), String> {
    check::is_type("the indices", idx, Type::I64)
}

fn gather(attrs: &Attrs, x: &[TensorType]) -> Types {
    let [x, idx] = [&x[0], &x[1]];
    indices(idx)?;
    let axis = check::axis(attrs, x.rank())?;
    let shape = [&x.shape[..axis], &idx.shape, &x.shape[axis + 1..]].concat();
    check::one(x.ty, shape)
}

/// `idx` must have the rank of `x` and be no larger, except along `axis`.
fn elements(x: &TensorType, idx: &TensorType, axis: usize) -> Result<(), String> {
    indices(idx)?;
    let fits = idx.rank() == x.rank() && (0..x.rank()).all(|i| i == axis || idx.shape[i] <= x.shape[i]);
    ensure(fits, || format!("the indices {idx} do not fit {x} along axis {axis}"))
}

fn gather_elements(attrs: &Attrs, x: &[TensorType]) -> Types {
    elements(&x[0], &x[1], check::axis(attrs, x[0].rank())?)?;
    check::one(x[0].ty, x[1].shape.as_slice())
}

fn gather_nd(attrs: &Attrs, x: &[TensorType]) -> Types {
    let [x, idx] = [&x[0], &x[1]];
    indices(idx)?;
    let batch = check::size(attrs, "batch_dims", 0)?;
    let fits = batch < idx.rank() && batch < x.rank() && idx.shape[..batch] == x.shape[..batch];
    ensure(fits, || format!("{x} and the indices {idx} do not share their first {batch} axes and have more"))?;
    let depth = idx.shape[idx.rank() - 1];
    ensure(depth <= x.rank() - batch, || format!("the indices {idx} are of {depth} axes, {x} has only {} left", x.rank() - batch))?;
    check::one(x.ty, [&idx.shape[..idx.rank() - 1], &x.shape[batch + depth..]].concat())
}

fn updates(attrs: &Attrs, x: &TensorType, upd: &TensorType) -> Result<(), String> {
    check::same_type(x, upd)?;
    ensure(attrs.word("reduction") == "none" || x.ty.is_number(), || format!("{x} cannot be computed with"))
}

fn scatter_elements(attrs: &Attrs, x: &[TensorType]) -> Types {
    let [x, idx, upd] = [&x[0], &x[1], &x[2]];
    elements(x, idx, check::axis(attrs, x.rank())?)?;
    updates(attrs, x, upd)?;
    ensure(idx.shape == upd.shape, || format!("the shapes of the indices {idx} and the updates {upd} differ"))?;
    check::same(x)
}

fn scatter_nd(attrs: &Attrs, x: &[TensorType]) -> Types {
    let [x, idx, upd] = [&x[0], &x[1], &x[2]];
    indices(idx)?;
    updates(attrs, x, upd)?;
    check::rank_at_least("the indices", idx, 1)?;
    let depth = idx.shape[idx.rank() - 1];
    ensure(depth <= x.rank(), || format!("the indices {idx} are of {depth} axes, {x} has only {}", x.rank()))?;
    let fits = upd.shape.iter().eq(idx.shape[..idx.rank() - 1].iter().chain(&x.shape[depth..]));
    ensure(fits, || format!("the updates {upd} do not fit the indices {idx} into {x}"))?;
    check::same(x)
}
