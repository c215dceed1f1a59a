//! Elements read and written at indices that are data.

use super::check::{self, Types, ensure};
use super::data::{self, Number, Numbers, Results, with_bits};
use super::work::{per_input, per_output};
use crate::graph::{Attrs, OpDef};
use crate::kind::{Arity, AttrKind, Class, Kind};
use crate::tensor::Tensor;
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
        eval: eval_gather,
        work: per_output::<1>,
    },
    OpDef {
        kind: Kind::GatherElements,
        doc: "y[i, j, ..] = x[idx[i, j, ..], j, ..] for `axis` 0; idx (i64) has the rank of x and no larger sizes on the other axes. Indices as gather.",
        inputs: Arity::Exactly(2),
        attrs: &[("axis", AttrKind::Int(0))],
        class: Class::Move,
        infer: gather_elements,
        eval: |attrs, x| Ok(vec![data::take_elements(&x[0], x[1].shape(), data::i64s(&x[1]), attrs.size("axis"))?]),
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
        eval: eval_gather_nd,
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
        eval: eval_scatter_elements,
        work: per_input::<1>,
    },
    OpDef {
        kind: Kind::ScatterNd,
        doc: "x with x[idx[i.., 0], idx[i.., 1], .., ..] = upd[i.., ..], in order; or combined with the update by `reduction`. Indices as gather.",
        inputs: Arity::Exactly(3),
        attrs: &[("reduction", REDUCTION)],
        class: Class::Compute,
        infer: scatter_nd,
        eval: eval_scatter_nd,
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

fn eval_gather(attrs: &Attrs, x: &[Tensor]) -> Results {
    let axis = attrs.size("axis");
    let size = x[0].shape()[axis];
    let indices: Result<Vec<usize>, String> = data::i64s(&x[1]).iter().map(|&i| data::index(i, size)).collect();
    let shape = [&x[0].shape()[..axis], x[1].shape(), &x[0].shape()[axis + 1..]].concat();
    Ok(vec![data::take(&x[0], axis, &indices?).reshaped(shape)])
}

/// Where the slices begin that the rows of `idx` name, whose last axis is an index into the axes of `shape` after the first `batch`, and
/// the number of elements of a slice.
fn slices(shape: &[usize], idx: &Tensor, batch: usize) -> Result<(Vec<usize>, usize), String> {
    let depth = idx.shape()[idx.shape().len() - 1];
    let strides = data::strides(shape);
    let slice = shape[batch + depth..].iter().product();
    let batches: usize = shape[..batch].iter().product();
    let rows: usize = idx.shape()[..idx.shape().len() - 1].iter().product();
    let of_batch: usize = shape[batch..].iter().product();
    let offset = |row: usize| {
        let mut at = row / (rows / batches) * of_batch;
        for (d, &i) in data::i64s(idx)[row * depth..(row + 1) * depth].iter().enumerate() {
            at += data::index(i, shape[batch + d])? * strides[batch + d] as usize;
        }
        Ok(at)
    };
    Ok(((0..rows).map(offset).collect::<Result<_, String>>()?, slice))
}

fn eval_gather_nd(attrs: &Attrs, x: &[Tensor]) -> Results {
    let ty = gather_nd(attrs, &[x[0].ty().clone(), x[1].ty().clone()])?.remove(0);
    let (offsets, slice) = slices(x[0].shape(), &x[1], attrs.size("batch_dims"))?;
    with_bits!(ty.ty, T => {
        let from = x[0].values::<T>();
        let elements: Vec<T> = offsets.iter().flat_map(|&at| from[at..at + slice].iter().copied()).collect();
        Ok(vec![Tensor::with_type(ty, &elements)])
    })
}

/// `x` with `updates` at `offsets`, in order, each combined with the element there.
fn scatter(x: &Tensor, updates: &Tensor, offsets: impl Iterator<Item = usize>, reduction: &str) -> Results {
    fn combine<N: Number>(to: &mut [N], from: &[N], offsets: impl Iterator<Item = usize>, reduction: &str) {
        let f = match reduction {
            "add" => N::plus,
            "mul" => N::times,
            "min" => N::smaller,
            _ => N::larger,
        };
        offsets.zip(from).for_each(|(at, &v)| to[at] = f(to[at], v));
    }
    if reduction == "none" {
        return with_bits!(x.ty().ty, T => {
            let mut out = x.values::<T>().to_vec();
            offsets.zip(updates.values::<T>()).for_each(|(at, &v)| out[at] = v);
            Ok(vec![Tensor::with_type(x.ty().clone(), &out)])
        });
    }
    Ok(vec![match (data::numbers(x), data::numbers(updates)) {
        (Numbers::Reals(mut to), Numbers::Reals(from)) => {
            combine(&mut to, &from, offsets, reduction);
            data::from_reals(x.ty(), &to)
        }
        (Numbers::Ints(mut to), Numbers::Ints(from)) => {
            combine(&mut to, &from, offsets, reduction);
            data::from_ints(x.ty(), &to)
        }
        _ => return Err(format!("the types of {} and {} differ", x.ty(), updates.ty())),
    }])
}

fn eval_scatter_elements(attrs: &Attrs, x: &[Tensor]) -> Results {
    let offsets = data::element_offsets(x[0].shape(), x[1].shape(), data::i64s(&x[1]), attrs.size("axis"))?;
    scatter(&x[0], &x[2], offsets.into_iter(), attrs.word("reduction"))
}

fn eval_scatter_nd(attrs: &Attrs, x: &[Tensor]) -> Results {
    let (offsets, slice) = slices(x[0].shape(), &x[1], 0)?;
    scatter(&x[0], &x[2], offsets.into_iter().flat_map(|at| at..at + slice), attrs.word("reduction"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;
    use crate::graph::Op;

    fn try_run(kind: Kind, attrs: &[(&'static str, Attr)], x: &[Tensor]) -> Result<Tensor, String> {
        crate::eval::eval_op(&Op::new(kind, attrs.to_vec()).expect("attributes"), x).map(|mut y| y.remove(0))
    }

    fn run(kind: Kind, attrs: &[(&'static str, Attr)], x: &[Tensor]) -> Tensor {
        try_run(kind, attrs, x).expect("an answer")
    }

    fn idx(shape: &[usize], v: &[i64]) -> Tensor {
        Tensor::new(shape, v)
    }

    #[test]
    fn gather_takes_slices() {
        // From the examples of ONNX Gather.
        let x = Tensor::new([3, 2], &[1.0f32, 1.2, 2.3, 3.4, 4.5, 5.7]);
        let y = run(Kind::Gather, &[], &[x.clone(), idx(&[2, 2], &[0, 1, 1, -1])]);
        assert_eq!(y, Tensor::new([2, 2, 2], &[1.0f32, 1.2, 2.3, 3.4, 2.3, 3.4, 4.5, 5.7]));
        let y = run(Kind::Gather, &[("axis", Attr::Int(1))], &[x.clone(), idx(&[], &[1])]);
        assert_eq!(y, Tensor::new([3], &[1.2f32, 3.4, 5.7]));
        assert_eq!(try_run(Kind::Gather, &[], &[x, idx(&[1], &[3])]).unwrap_err(), "index 3 is out of range for 3 elements");
    }

    #[test]
    fn gather_elements_and_nd() {
        // From the examples of ONNX GatherElements and GatherND.
        let x = Tensor::new([3, 3], &[1i32, 2, 3, 4, 5, 6, 7, 8, 9]);
        let y = run(Kind::GatherElements, &[], &[x, idx(&[2, 3], &[1, 2, 0, 2, 0, 0])]);
        assert_eq!(y, Tensor::new([2, 3], &[4, 8, 3, 7, 2, 3]));
        let x = Tensor::new([2, 2], &[0i32, 1, 2, 3]);
        assert_eq!(run(Kind::GatherNd, &[], &[x.clone(), idx(&[2, 2], &[0, 0, 1, 1])]), Tensor::new([2], &[0, 3]));
        assert_eq!(run(Kind::GatherNd, &[], &[x, idx(&[2, 1], &[1, 0])]), Tensor::new([2, 2], &[2, 3, 0, 1]));
        let x = Tensor::new([2, 2, 2], &[0i32, 1, 2, 3, 4, 5, 6, 7]);
        let y = run(Kind::GatherNd, &[("batch_dims", Attr::Int(1))], &[x, idx(&[2, 1], &[1, 0])]);
        assert_eq!(y, Tensor::new([2, 2], &[2, 3, 4, 5]));
    }

    #[test]
    fn scatter_writes_in_order() {
        // From the examples of ONNX ScatterElements and ScatterND.
        let zeros = Tensor::new([3, 3], &[0f32; 9]);
        let updates = Tensor::new([2, 3], &[1.0f32, 1.1, 1.2, 2.0, 2.1, 2.2]);
        let y = run(Kind::ScatterElements, &[], &[zeros, idx(&[2, 3], &[1, 0, 2, 0, 2, 1]), updates]);
        assert_eq!(y.values::<f32>(), [2.0, 1.1, 0.0, 1.0, 0.0, 2.2, 0.0, 2.1, 1.2]);
        let x = Tensor::new([1, 5], &[1i32, 2, 3, 4, 5]);
        let scatter = |reduction: &'static str| {
            let attrs = [("axis", Attr::Int(1)), ("reduction", reduction.into())];
            run(Kind::ScatterElements, &attrs, &[x.clone(), idx(&[1, 2], &[1, -4]), Tensor::new([1, 2], &[11, -21])]).values::<i32>()[1]
        };
        assert_eq!(["none", "add", "mul", "min", "max"].map(scatter), [-21, -8, -462, -21, 11]);
        let y = run(Kind::ScatterNd, &[], &[Tensor::new([4], &[1u8, 2, 3, 4]), idx(&[2, 1], &[3, 0]), Tensor::new([2], &[9u8, 8])]);
        assert_eq!(y.values::<u8>(), [8, 2, 3, 9]);
        let y = run(
            Kind::ScatterNd,
            &[("reduction", "add".into())],
            &[Tensor::new([2, 2], &[1f64, 2.0, 3.0, 4.0]), idx(&[2, 1], &[1, 1]), Tensor::new([2, 2], &[10f64, 20.0, 100.0, 200.0])],
        );
        assert_eq!(y.values::<f64>(), [1.0, 2.0, 113.0, 224.0]);
    }
}
