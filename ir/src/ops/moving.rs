//! Operators that only move elements, to places known beforehand; they take every type.

use super::check::{self, Types, ensure};
use super::{not_yet, nothing, per_output};
use crate::op::{Arity, AttrKind, Attrs, Class, Kind, OpDef};
use crate::types::{TensorType, broadcast};

/// A row of the family: kind, meaning, arity, attributes, shape rule, reference.
macro_rules! moving {
    ($kind:ident, $doc:literal, $inputs:expr, $attrs:expr, $infer:expr, $eval:expr) => {
        OpDef {
            kind: Kind::$kind,
            doc: $doc,
            inputs: $inputs,
            attrs: $attrs,
            class: Class::Move,
            infer: $infer,
            eval: $eval,
            work: per_output::<1>,
        }
    };
}

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    OpDef {
        kind: Kind::Reshape,
        doc: "The elements of x in the same order under another `shape`.",
        inputs: Arity::Exactly(1),
        attrs: &[("shape", AttrKind::Ints)],
        class: Class::View,
        infer: reshape,
        eval: not_yet,
        work: nothing,
    },
    moving!(Transpose, "Axis i of the result is axis `perm`[i] of x.", Arity::Exactly(1), &[("perm", AttrKind::Ints)], transpose, not_yet),
    moving!(Expand, "x broadcast to exactly `shape`.", Arity::Exactly(1), &[("shape", AttrKind::Ints)], expand, not_yet),
    moving!(
        Slice,
        "Element i of each axis is x[start + i·step], i < size; steps may be negative.",
        Arity::Exactly(1),
        &[("starts", AttrKind::Ints), ("sizes", AttrKind::Ints), ("steps", AttrKind::Ints)],
        slice,
        not_yet
    ),
    moving!(Concat, "The inputs one after the other along `axis`.", Arity::AtLeast(1), &[("axis", AttrKind::Int(0))], concat, not_yet),
    moving!(
        Pad,
        "x with `pads` more elements at the begin of each axis, then at the end of each: the value of the second input, or x \
         mirrored without its edge (reflect), its edge, or x repeated (wrap).",
        Arity::Exactly(2),
        &[("pads", AttrKind::Ints), ("mode", AttrKind::Word(&["constant", "reflect", "edge", "wrap"]))],
        pad,
        not_yet
    ),
    moving!(
        Pack,
        "Axis `axis` of C in blocks as a new last axis: [N, C, H, W] → [N, ⌈C/block⌉, H, W, block]; elements past C are 0.",
        Arity::Exactly(1),
        &[("axis", AttrKind::Int(1)), ("block", AttrKind::Int(8))],
        pack,
        not_yet
    ),
    moving!(
        Unpack,
        "The inverse of pack: the last axis of `block` goes back into `axis`, of which the first `size` elements are kept.",
        Arity::Exactly(1),
        &[("axis", AttrKind::Int(1)), ("block", AttrKind::Int(8)), ("size", AttrKind::Int(0))],
        unpack,
        not_yet
    ),
];

/// The attribute `shape`, whose rank is not known beforehand.
fn shape(attrs: &Attrs) -> Result<Vec<usize>, String> {
    let shape = attrs.ints("shape");
    let sizes: Option<Vec<usize>> = shape.iter().map(|&s| usize::try_from(s).ok()).collect();
    sizes.ok_or_else(|| format!("the shape {shape:?} has a negative size"))
}

fn reshape(attrs: &Attrs, x: &[TensorType]) -> Types {
    let y = TensorType::checked(x[0].ty, shape(attrs)?)?;
    ensure(y.len() == x[0].len(), || format!("{} has {} elements, {y} has {}", x[0], x[0].len(), y.len()))?;
    Ok(vec![y])
}

fn transpose(attrs: &Attrs, x: &[TensorType]) -> Types {
    let perm = attrs.ints("perm");
    let rank = x[0].rank();
    let fits = perm.len() == rank && (0..rank as i64).all(|axis| perm.contains(&axis));
    ensure(fits, || format!("{perm:?} is no order of the axes of {}", x[0]))?;
    check::one(x[0].ty, perm.iter().map(|&p| x[0].shape[p as usize]).collect::<Vec<_>>())
}

fn expand(attrs: &Attrs, x: &[TensorType]) -> Types {
    let shape = shape(attrs)?;
    let fits = broadcast(&x[0].shape, &shape).is_some_and(|both| both == shape);
    ensure(fits, || format!("{} does not broadcast to {shape:?}", x[0]))?;
    check::one(x[0].ty, shape)
}

fn slice(attrs: &Attrs, x: &[TensorType]) -> Types {
    let rank = x[0].rank();
    let starts = check::sizes(attrs, "starts", rank, 0)?;
    let sizes = check::sizes(attrs, "sizes", rank, 0)?;
    let steps = check::sizes(attrs, "steps", rank, i64::MIN)?;
    for (axis, &size) in x[0].shape.iter().enumerate() {
        let [start, count, step] = [starts[axis], sizes[axis], steps[axis]].map(i128::from);
        let last = start + (count - 1) * step;
        let fits = count == 0 || step != 0 && start < size as i128 && (0..size as i128).contains(&last);
        ensure(fits, || format!("axis {axis} of {} has no {count} elements from {start} in steps of {step}", x[0]))?;
    }
    check::one(x[0].ty, sizes.iter().map(|&s| s as usize).collect::<Vec<_>>())
}

fn concat(attrs: &Attrs, x: &[TensorType]) -> Types {
    let axis = check::axis(attrs, x[0].rank())?;
    let mut shape = x[0].shape.clone();
    for other in &x[1..] {
        check::same_type(&x[0], other)?;
        let fits = other.rank() == x[0].rank() && (0..shape.len()).all(|i| i == axis || shape[i] == other.shape[i]);
        ensure(fits, || format!("{} and {other} differ in more than axis {axis}", x[0]))?;
        shape[axis] = shape[axis].checked_add(other.shape[axis]).ok_or("the result is too large")?;
    }
    check::one(x[0].ty, shape)
}

fn pad(attrs: &Attrs, x: &[TensorType]) -> Types {
    let rank = x[0].rank();
    let pads = check::sizes(attrs, "pads", 2 * rank, 0)?;
    check::scalar("the padding value", &x[1], x[0].ty)?;
    let mode = attrs.word("mode");
    let mut shape = x[0].shape.clone();
    for (axis, size) in shape.iter_mut().enumerate() {
        let [begin, end] = [pads[axis] as usize, pads[rank + axis] as usize];
        let fits = mode == "constant" || *size > 0 || begin == 0 && end == 0;
        ensure(fits, || format!("axis {axis} of {} has nothing to pad with", x[0]))?;
        let padded = size.checked_add(begin).and_then(|s| s.checked_add(end));
        *size = padded.ok_or_else(|| format!("axis {axis} would be too large"))?;
    }
    check::one(x[0].ty, shape)
}

fn pack(attrs: &Attrs, x: &[TensorType]) -> Types {
    let axis = check::axis(attrs, x[0].rank())?;
    let block = check::size(attrs, "block", 1)?;
    let mut shape = x[0].shape.clone();
    shape[axis] = shape[axis].div_ceil(block);
    shape.push(block);
    check::one(x[0].ty, shape)
}

fn unpack(attrs: &Attrs, x: &[TensorType]) -> Types {
    check::rank_at_least("the input", &x[0], 2)?;
    let axis = check::axis(attrs, x[0].rank() - 1)?;
    let block = check::size(attrs, "block", 1)?;
    let size = check::size(attrs, "size", 0)?;
    let mut shape = x[0].shape.clone();
    ensure(shape.pop() == Some(block), || format!("the last axis of {} is not the block of {block}", x[0]))?;
    ensure(size.div_ceil(block) == shape[axis], || format!("axis {axis} of {} does not hold {size} in blocks of {block}", x[0]))?;
    shape[axis] = size;
    check::one(x[0].ty, shape)
}
