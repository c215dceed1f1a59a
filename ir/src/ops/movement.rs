//! Data movement: operators that only move elements, to positions that do not depend on data; they take every type.

use super::check::{self, Types, ensure};
use super::data::{self, Results, with_bits};
use super::work::{nothing, per_output};
use crate::graph::{Attrs, OpDef};
use crate::kind::{Arity, AttrKind, Class, Kind};
use crate::tensor::Tensor;
use crate::types::{TensorType, broadcast};

/// A row of the family: kind, meaning, arity, attributes, shape rule, reference.
macro_rules! movement {
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
        eval: |attrs, x| Ok(vec![x[0].reshaped(attrs.sizes("shape"))]),
        work: nothing,
    },
    movement!(
        Transpose,
        "Axis i of the result is axis `perm`[i] of x.",
        Arity::Exactly(1),
        &[("perm", AttrKind::Ints)],
        transpose,
        eval_transpose
    ),
    movement!(Expand, "x broadcast to exactly `shape`.", Arity::Exactly(1), &[("shape", AttrKind::Ints)], expand, eval_expand),
    movement!(
        Slice,
        "Element i of each axis is x[start + i·step], i < size; steps may be negative.",
        Arity::Exactly(1),
        &[("starts", AttrKind::Ints), ("sizes", AttrKind::Ints), ("steps", AttrKind::Ints)],
        slice,
        eval_slice
    ),
    movement!(
        Concat,
        "The inputs one after the other along `axis`.",
        Arity::AtLeast(1),
        &[("axis", AttrKind::Int(0))],
        concat,
        eval_concat
    ),
    movement!(
        Pad,
        "x with `pads` more elements at the begin of each axis, then at the end of each: the value of the second input, or x \
         mirrored without its edge (reflect), its edge, or x repeated (wrap).",
        Arity::Exactly(2),
        &[("pads", AttrKind::Ints), ("mode", AttrKind::Word(&["constant", "reflect", "edge", "wrap"]))],
        pad,
        eval_pad
    ),
    movement!(
        Pack,
        "Axis `axis` of C in blocks as a new last axis: [N, C, H, W] → [N, ⌈C/block⌉, H, W, block]; elements past C are 0.",
        Arity::Exactly(1),
        &[("axis", AttrKind::Int(1)), ("block", AttrKind::Int(8))],
        pack,
        eval_pack
    ),
    movement!(
        Unpack,
        "The inverse of pack: the last axis of `block` goes back into `axis`, of which the first `size` elements are kept.",
        Arity::Exactly(1),
        &[("axis", AttrKind::Int(1)), ("block", AttrKind::Int(8)), ("size", AttrKind::Int(0))],
        unpack,
        eval_unpack
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

/// The strided box of `x`, as a tensor.
fn view(x: &Tensor, shape: Vec<usize>, strides: &[isize], start: isize) -> Results {
    let ty = TensorType::new(x.ty().ty, shape);
    with_bits!(ty.ty, T => {
        let elements = data::collect(x.values::<T>(), &ty.shape, strides, start);
        Ok(vec![Tensor::with_type(ty, &elements)])
    })
}

fn eval_transpose(attrs: &Attrs, x: &[Tensor]) -> Results {
    let perm = attrs.sizes("perm");
    let strides = data::strides(x[0].shape());
    let strides: Vec<isize> = perm.iter().map(|&p| strides[p]).collect();
    view(&x[0], perm.iter().map(|&p| x[0].shape()[p]).collect(), &strides, 0)
}

fn eval_expand(attrs: &Attrs, x: &[Tensor]) -> Results {
    let shape = attrs.sizes("shape");
    let strides = data::broadcast_strides(x[0].shape(), &shape);
    view(&x[0], shape, &strides, 0)
}

fn eval_slice(attrs: &Attrs, x: &[Tensor]) -> Results {
    let shape = attrs.sizes("sizes");
    if shape.contains(&0) {
        return Ok(vec![Tensor::zeros(TensorType::new(x[0].ty().ty, shape))]);
    }
    let strides = data::strides(x[0].shape());
    let start = attrs.ints("starts").iter().zip(&strides).map(|(&start, stride)| start as isize * stride).sum();
    // The step of an axis of one element says nothing and may be anything.
    let step = |axis: usize| if shape[axis] == 1 { 0 } else { attrs.ints("steps")[axis] as isize * strides[axis] };
    let steps: Vec<isize> = (0..shape.len()).map(step).collect();
    view(&x[0], shape, &steps, start)
}

fn eval_concat(attrs: &Attrs, x: &[Tensor]) -> Results {
    Ok(vec![data::join(x, attrs.size("axis"))])
}

fn eval_pad(attrs: &Attrs, x: &[Tensor]) -> Results {
    let pads = attrs.sizes("pads");
    let (begins, ends) = pads.split_at(x[0].shape().len());
    let shape: Vec<usize> = (0..begins.len()).map(|i| begins[i] + x[0].shape()[i] + ends[i]).collect();
    if attrs.word("mode") != "constant" {
        return Ok(vec![mirrored(&x[0], &shape, begins, attrs.word("mode"))]);
    }
    let to = data::strides(&shape);
    let start = begins.iter().zip(&to).map(|(&begin, stride)| begin as isize * stride).sum();
    let ty = TensorType::new(x[0].ty().ty, shape);
    with_bits!(ty.ty, T => {
        let mut out = vec![x[1].values::<T>()[0]; ty.len()];
        data::copy_box(&mut out, &to, start, x[0].values::<T>(), &data::strides(x[0].shape()), x[0].shape());
        Ok(vec![Tensor::with_type(ty, &out)])
    })
}

/// Padding with elements of `x` itself, one axis after the other.
fn mirrored(x: &Tensor, shape: &[usize], begins: &[usize], mode: &str) -> Tensor {
    let mut padded = x.clone();
    for axis in (0..shape.len()).filter(|&axis| shape[axis] != x.shape()[axis]) {
        let size = x.shape()[axis] as isize;
        let index = |i: isize| match mode {
            "edge" => i.clamp(0, size - 1),
            "wrap" => i.rem_euclid(size),
            _ => {
                // There and back, the ends once: 0 1 2 1 | 0 1 2 1 | …
                let i = i.rem_euclid((2 * size - 2).max(1));
                if i < size { i } else { 2 * size - 2 - i }
            }
        };
        let indices: Vec<usize> = (0..shape[axis] as isize).map(|i| index(i - begins[axis] as isize) as usize).collect();
        padded = data::take(&padded, axis, &indices);
    }
    padded
}

/// Calls `f` with the box of each block of an axis of `x`: offset in the unpacked tensor, offset in the packed one, and its size.
fn blocks(shape: &[usize], axis: usize, block: usize, mut f: impl FnMut(isize, isize, &[usize])) {
    if shape.contains(&0) {
        return;
    }
    let inner: isize = shape[axis + 1..].iter().product::<usize>() as isize;
    let mut part = shape.to_vec();
    for (i, start) in (0..shape[axis]).step_by(block).enumerate() {
        part[axis] = block.min(shape[axis] - start);
        f(start as isize * inner, (i * block) as isize * inner, &part);
    }
}

/// Strides of the packed tensor along the axes of the unpacked one: along the axis inside of a block.
fn packed_strides(packed: &[usize], axis: usize) -> Vec<isize> {
    let mut strides = data::strides(packed);
    strides.pop();
    strides[axis] = 1;
    strides
}

fn eval_pack(attrs: &Attrs, x: &[Tensor]) -> Results {
    let [axis, block] = [attrs.size("axis"), attrs.size("block")];
    let ty = pack(attrs, &[x[0].ty().clone()])?.remove(0);
    let (to, from) = (packed_strides(&ty.shape, axis), data::strides(x[0].shape()));
    with_bits!(ty.ty, T => {
        let mut out = vec![T::default(); ty.len()];
        blocks(x[0].shape(), axis, block, |unpacked, packed, part| {
            data::copy_box(&mut out, &to, packed, &x[0].values::<T>()[unpacked as usize..], &from, part);
        });
        Ok(vec![Tensor::with_type(ty, &out)])
    })
}

fn eval_unpack(attrs: &Attrs, x: &[Tensor]) -> Results {
    let [axis, block] = [attrs.size("axis"), attrs.size("block")];
    let ty = unpack(attrs, &[x[0].ty().clone()])?.remove(0);
    let (from, to) = (packed_strides(x[0].shape(), axis), data::strides(&ty.shape));
    with_bits!(ty.ty, T => {
        let mut out = vec![T::default(); ty.len()];
        blocks(&ty.shape, axis, block, |unpacked, packed, part| {
            data::copy_box(&mut out, &to, unpacked, &x[0].values::<T>()[packed as usize..], &from, part);
        });
        Ok(vec![Tensor::with_type(ty, &out)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;
    use crate::graph::Op;
    use crate::types::Type;

    fn run(kind: Kind, attrs: &[(&'static str, Attr)], x: &[Tensor]) -> Tensor {
        crate::eval::eval_op(&Op::new(kind, attrs.to_vec()).expect("attributes"), x).expect("an answer").remove(0)
    }

    fn ints(v: &[i64]) -> Attr {
        Attr::Ints(v.to_vec())
    }

    /// 0, 1, 2, …
    fn count(shape: &[usize]) -> Tensor {
        Tensor::new(shape, &(0..shape.iter().product::<usize>() as i32).collect::<Vec<_>>())
    }

    #[test]
    fn axes_change_places() {
        assert_eq!(run(Kind::Transpose, &[("perm", ints(&[1, 0]))], &[count(&[2, 3])]), Tensor::new([3, 2], &[0, 3, 1, 4, 2, 5]));
        let y = run(Kind::Transpose, &[("perm", ints(&[2, 0, 1]))], &[count(&[2, 2, 2])]);
        assert_eq!(y.values::<i32>(), [0, 2, 4, 6, 1, 3, 5, 7]);
        assert_eq!(run(Kind::Expand, &[("shape", ints(&[2, 2, 2]))], &[count(&[2, 1])]).values::<i32>(), [0, 0, 1, 1, 0, 0, 1, 1]);
    }

    #[test]
    fn slices_go_both_ways() {
        let slice = |starts: &[i64], sizes: &[i64], steps: &[i64]| {
            let attrs = [("starts", ints(starts)), ("sizes", ints(sizes)), ("steps", ints(steps))];
            run(Kind::Slice, &attrs, &[count(&[3, 4])])
        };
        assert_eq!(slice(&[2, 0], &[2, 2], &[-2, 3]), Tensor::new([2, 2], &[8, 11, 0, 3]));
        assert_eq!(slice(&[1, 3], &[1, 4], &[i64::MAX, -1]), Tensor::new([1, 4], &[7, 6, 5, 4]));
        assert_eq!(slice(&[3, 0], &[0, 4], &[1, 1]).shape(), [0, 4]);
    }

    #[test]
    fn slices_outside_are_refused() {
        let attrs = [("starts", ints(&[1])), ("sizes", ints(&[3])), ("steps", ints(&[1]))];
        let op = Op::new(Kind::Slice, attrs).expect("attributes");
        assert!(crate::eval::eval_op(&op, &[count(&[3])]).unwrap_err().contains("has no 3 elements from 1"));
    }

    #[test]
    fn one_after_the_other() {
        let y = run(Kind::Concat, &[("axis", Attr::Int(1))], &[count(&[2, 1]), count(&[2, 2])]);
        assert_eq!(y, Tensor::new([2, 3], &[0, 0, 1, 1, 2, 3]));
    }

    #[test]
    fn all_kinds_of_padding() {
        let pad = |mode: &'static str, pads: &[i64], x: Tensor| {
            run(Kind::Pad, &[("pads", ints(pads)), ("mode", mode.into())], &[x, Tensor::scalar(9i32)])
        };
        assert_eq!(pad("constant", &[1, 0, 0, 1], count(&[1, 2])), Tensor::new([2, 3], &[9, 9, 9, 0, 1, 9]));
        assert_eq!(pad("reflect", &[3, 4], count(&[3])).values::<i32>(), [1, 2, 1, 0, 1, 2, 1, 0, 1, 2]);
        assert_eq!(pad("reflect", &[2, 1], count(&[1])).values::<i32>(), [0; 4]);
        assert_eq!(pad("edge", &[2, 1], count(&[2])).values::<i32>(), [0, 0, 0, 1, 1]);
        assert_eq!(pad("wrap", &[2, 4], count(&[3])).values::<i32>(), [1, 2, 0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(pad("edge", &[1, 0, 0, 1], count(&[2, 2])), Tensor::new([3, 3], &[0, 1, 1, 0, 1, 1, 2, 3, 3]));
    }

    #[test]
    fn packing_by_channels() {
        let attrs = [("axis", Attr::Int(1)), ("block", Attr::Int(2))];
        let y = run(Kind::Pack, &attrs, &[count(&[1, 3, 2])]);
        assert_eq!(y, Tensor::new([1, 2, 2, 2], &[0, 2, 1, 3, 4, 0, 5, 0]));
        let back = run(Kind::Unpack, &[attrs[0].clone(), attrs[1].clone(), ("size", Attr::Int(3))], &[y]);
        assert_eq!(back, count(&[1, 3, 2]));
    }

    #[test]
    fn narrow_types_move() {
        let x = Tensor::with_type(TensorType::new(Type::F8E5M2, [2, 1]), &[1u8, 2]);
        assert_eq!(run(Kind::Transpose, &[("perm", ints(&[1, 0]))], &[x]).ty(), &TensorType::new(Type::F8E5M2, [1, 2]));
    }
}
