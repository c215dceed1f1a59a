//! Reductions, scans and rankings along axes.

use super::check::{self, Types};
use super::data::{self, Lanes, Number, Numbers, Results};
use super::work::per_input;
use crate::graph::{Attrs, OpDef};
use crate::kind::{Arity, AttrKind, Class, Kind};
use crate::tensor::Tensor;
use crate::types::{TensorType, Type};

const REDUCE: &[(&str, AttrKind)] = &[("axes", AttrKind::Ints), ("keepdims", AttrKind::Int(1))];
const ARG: &[(&str, AttrKind)] = &[("axis", AttrKind::Int(0)), ("keepdims", AttrKind::Int(1)), ("last", AttrKind::Int(0))];
const SCAN: &[(&str, AttrKind)] = &[("axis", AttrKind::Int(0)), ("exclusive", AttrKind::Int(0)), ("reverse", AttrKind::Int(0))];

/// A row of an operator of one input along axes: kind, meaning, attributes, shape rule, reference.
macro_rules! along {
    ($kind:ident, $doc:literal, $attrs:expr, $infer:expr, $work:literal, $eval:expr) => {
        OpDef {
            kind: Kind::$kind,
            doc: $doc,
            inputs: Arity::Exactly(1),
            attrs: $attrs,
            class: Class::Compute,
            infer: $infer,
            eval: $eval,
            work: per_input::<$work>,
        }
    };
}

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    along!(ReduceSum, "Sum over `axes`; no axes: a copy. Integers wrap.", REDUCE, numbers, 1, |attrs, x| fold(
        attrs,
        &x[0],
        |_| f64::ZERO,
        f64::plus,
        |_| i128::ZERO,
        i128::plus
    )),
    along!(ReduceProd, "Product over `axes`; integers wrap.", REDUCE, numbers, 1, |attrs, x| fold(
        attrs,
        &x[0],
        |_| f64::ONE,
        f64::times,
        |_| i128::ONE,
        i128::times
    )),
    along!(
        ReduceMax,
        "Largest over `axes`, NaN if there is one; −∞ (the lowest integer, false) over nothing.",
        REDUCE,
        ordered,
        1,
        |attrs, x| fold(attrs, &x[0], f64::lowest, f64::larger, i128::lowest, i128::larger)
    ),
    along!(
        ReduceMin,
        "Smallest over `axes`, NaN if there is one; ∞ (the largest integer, true) over nothing.",
        REDUCE,
        ordered,
        1,
        |attrs, x| fold(attrs, &x[0], f64::highest, f64::smaller, i128::highest, i128::smaller)
    ),
    along!(ReduceMean, "Mean over `axes`; integers truncate towards 0.", REDUCE, mean, 1, eval_mean),
    along!(ArgMax, "Index (i64) of the largest along `axis`: the first such, or the last; a NaN is largest.", ARG, arg, 1, |attrs, x| {
        eval_arg(attrs, &x[0], true)
    }),
    along!(ArgMin, "Index (i64) of the smallest along `axis`: the first such, or the last; a NaN is smallest.", ARG, arg, 1, |attrs, x| {
        eval_arg(attrs, &x[0], false)
    }),
    along!(
        CumSum,
        "Running sum along `axis`, without the element itself if `exclusive`, from the end if `reverse`.",
        SCAN,
        scan,
        1,
        |attrs, x| eval_scan(attrs, &x[0], (f64::ZERO, f64::plus), (i128::ZERO, i128::plus))
    ),
    along!(CumProd, "Running product along `axis`, options as cum_sum.", SCAN, scan, 1, |attrs, x| eval_scan(
        attrs,
        &x[0],
        (f64::ONE, f64::times),
        (i128::ONE, i128::times)
    )),
    along!(
        TopK,
        "The `k` largest (or smallest) along `axis` in order and their indices (i64); of equals the lower index comes first; a NaN is largest.",
        &[("axis", AttrKind::Int(0)), ("k", AttrKind::Int(1)), ("largest", AttrKind::Int(1))],
        top_k,
        8,
        eval_top_k
    ),
];

/// The shape of `x` without `axes`, or with 1 in their place.
fn reduced(x: &TensorType, axes: &[i64], keep: bool) -> Vec<usize> {
    let is_reduced = |i: &usize| axes.contains(&(*i as i64));
    match keep {
        true => (0..x.rank()).map(|i| if is_reduced(&i) { 1 } else { x.shape[i] }).collect(),
        false => (0..x.rank()).filter(|i| !is_reduced(i)).map(|i| x.shape[i]).collect(),
    }
}

fn reduce(attrs: &Attrs, x: &TensorType) -> Types {
    let axes = check::axes(attrs, x.rank())?;
    check::one(x.ty, reduced(x, axes, attrs.flag("keepdims")))
}

fn numbers(attrs: &Attrs, x: &[TensorType]) -> Types {
    check::number("the input", &x[0])?;
    reduce(attrs, &x[0])
}

fn ordered(attrs: &Attrs, x: &[TensorType]) -> Types {
    check::ensure(!x[0].ty.is_narrow(), || format!("{} cannot be compared", x[0]))?;
    reduce(attrs, &x[0])
}

fn mean(attrs: &Attrs, x: &[TensorType]) -> Types {
    check::number("the input", &x[0])?;
    let axes = check::axes(attrs, x[0].rank())?;
    let empty = !x[0].ty.is_float() && axes.iter().any(|&a| x[0].shape[a as usize] == 0);
    check::ensure(!empty, || format!("there is no mean of no integers: {} over {axes:?}", x[0]))?;
    reduce(attrs, &x[0])
}

fn arg(attrs: &Attrs, x: &[TensorType]) -> Types {
    check::number("the input", &x[0])?;
    let axis = check::axis(attrs, x[0].rank())?;
    check::ensure(x[0].shape[axis] > 0, || format!("axis {axis} of {} is empty", x[0]))?;
    check::one(Type::I64, reduced(&x[0], &[axis as i64], attrs.flag("keepdims")))
}

fn scan(attrs: &Attrs, x: &[TensorType]) -> Types {
    check::number("the input", &x[0])?;
    check::axis(attrs, x[0].rank())?;
    check::same(&x[0])
}

fn top_k(attrs: &Attrs, x: &[TensorType]) -> Types {
    check::number("the input", &x[0])?;
    let axis = check::axis(attrs, x[0].rank())?;
    let k = check::size(attrs, "k", 0)?;
    check::ensure(k <= x[0].shape[axis], || format!("axis {axis} of {} does not hold {k} elements", x[0]))?;
    let mut shape = x[0].shape.clone();
    shape[axis] = k;
    Ok(vec![TensorType::checked(x[0].ty, shape.as_slice())?, TensorType::checked(Type::I64, shape)?])
}

/// All elements of `x` combined over the axes of the attribute.
fn combine<N: Number>(attrs: &Attrs, x: &Tensor, values: &[N], first: N, f: impl Fn(N, N) -> N) -> (TensorType, Vec<N>) {
    let axes = attrs.ints("axes");
    let kept = reduced(x.ty(), axes, true);
    let mut to = data::strides(&kept);
    axes.iter().for_each(|&a| to[a as usize] = 0);
    let mut out = vec![first; kept.iter().product()];
    data::Rows::new(x.shape(), [&data::strides(x.shape()), &to]).each([0, 0], &mut |[i, o], [di, step], n| {
        for k in 0..n as isize {
            let at = (o + k * step) as usize;
            out[at] = f(out[at], values[(i + k * di) as usize]);
        }
    });
    (TensorType::new(x.ty().ty, reduced(x.ty(), axes, attrs.flag("keepdims"))), out)
}

fn fold(
    attrs: &Attrs,
    x: &Tensor,
    first_real: impl Fn(Type) -> f64,
    real: impl Fn(f64, f64) -> f64,
    first_int: impl Fn(Type) -> i128,
    int: impl Fn(i128, i128) -> i128,
) -> Results {
    let ty = x.ty().ty;
    Ok(vec![match data::numbers(x) {
        Numbers::Reals(v) => {
            let (ty, values) = combine(attrs, x, &v, first_real(ty), real);
            data::from_reals(&ty, &values)
        }
        Numbers::Ints(v) => {
            let (ty, values) = combine(attrs, x, &v, first_int(ty), int);
            data::from_ints(&ty, &values)
        }
    }])
}

fn eval_mean(attrs: &Attrs, x: &[Tensor]) -> Results {
    let x = &x[0];
    let count: usize = attrs.ints("axes").iter().map(|&a| x.shape()[a as usize]).product();
    Ok(vec![match data::numbers(x) {
        Numbers::Reals(v) => {
            let (ty, mut sums) = combine(attrs, x, &v, f64::ZERO, f64::plus);
            sums.iter_mut().for_each(|s| *s /= count as f64);
            data::from_reals(&ty, &sums)
        }
        Numbers::Ints(v) => {
            let (ty, mut sums) = combine(attrs, x, &v, i128::ZERO, i128::plus);
            sums.iter_mut().for_each(|s| *s /= (count as i128).max(1));
            data::from_ints(&ty, &sums)
        }
    }])
}

/// Whether `a` comes before `b` when the largest (or smallest) comes first; NaN is beyond every number.
fn before<N: Number>(a: N, b: N, largest: bool) -> bool {
    match (a.nan(), b.nan()) {
        (true, b_nan) => !b_nan,
        (_, true) => false,
        _ => {
            if largest {
                a > b
            } else {
                a < b
            }
        }
    }
}

fn eval_arg(attrs: &Attrs, x: &Tensor, largest: bool) -> Results {
    let axis = attrs.size("axis");
    let last = attrs.flag("last");
    fn best<N: Number>(values: &[N], lanes: Lanes, largest: bool, last: bool) -> Vec<i64> {
        let best = |start: usize| {
            let at = |i: usize| values[start + i * lanes.inner];
            (1..lanes.size).fold(0, |best, i| {
                let better = if last { !before(at(best), at(i), largest) } else { before(at(i), at(best), largest) };
                if better { i } else { best }
            }) as i64
        };
        lanes.starts().map(best).collect()
    }
    let lanes = Lanes::new(x.shape(), axis);
    let indices = match data::numbers(x) {
        Numbers::Reals(v) => best(&v, lanes, largest, last),
        Numbers::Ints(v) => best(&v, lanes, largest, last),
    };
    Ok(vec![Tensor::new(reduced(x.ty(), &[axis as i64], attrs.flag("keepdims")), &indices)])
}

fn eval_scan(attrs: &Attrs, x: &Tensor, real: (f64, fn(f64, f64) -> f64), int: (i128, fn(i128, i128) -> i128)) -> Results {
    fn run<N: Number>(attrs: &Attrs, lanes: Lanes, values: &mut [N], (first, f): (N, fn(N, N) -> N)) {
        let [exclusive, reverse] = [attrs.flag("exclusive"), attrs.flag("reverse")];
        for start in lanes.starts() {
            let mut so_far = first;
            for i in 0..lanes.size {
                let at = start + lanes.inner * if reverse { lanes.size - 1 - i } else { i };
                let with = f(so_far, values[at]);
                values[at] = if exclusive { so_far } else { with };
                so_far = with;
            }
        }
    }
    let lanes = Lanes::new(x.shape(), attrs.size("axis"));
    Ok(vec![match data::numbers(x) {
        Numbers::Reals(mut v) => {
            run(attrs, lanes, &mut v, real);
            data::from_reals(x.ty(), &v)
        }
        Numbers::Ints(mut v) => {
            run(attrs, lanes, &mut v, int);
            data::from_ints(x.ty(), &v)
        }
    }])
}

fn eval_top_k(attrs: &Attrs, x: &[Tensor]) -> Results {
    let [axis, k] = [attrs.size("axis"), attrs.size("k")];
    fn rank<N: Number>(values: &[N], lanes: Lanes, k: usize, largest: bool) -> Vec<i64> {
        let from = lanes;
        let mut indices = vec![0; from.outer * k * from.inner];
        for (lane, start) in from.starts().enumerate() {
            let at = |i: i64| values[start + i as usize * from.inner];
            let mut order: Vec<i64> = (0..from.size as i64).collect();
            // A stable sort leaves equals in the order of their indices.
            order.sort_by(|&i, &j| before(at(j), at(i), largest).cmp(&before(at(i), at(j), largest)));
            let to = (lane / from.inner) * k * from.inner + lane % from.inner;
            order.into_iter().take(k).enumerate().for_each(|(i, index)| indices[to + i * from.inner] = index);
        }
        indices
    }
    let lanes = Lanes::new(x[0].shape(), axis);
    let indices = match data::numbers(&x[0]) {
        Numbers::Reals(v) => rank(&v, lanes, k, attrs.flag("largest")),
        Numbers::Ints(v) => rank(&v, lanes, k, attrs.flag("largest")),
    };
    let mut shape = x[0].shape().to_vec();
    shape[axis] = k;
    let indices = Tensor::new(shape, &indices);
    Ok(vec![data::take_elements(&x[0], indices.shape(), data::i64s(&indices), axis)?, indices])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;
    use crate::graph::Op;

    fn run(kind: Kind, attrs: &[(&'static str, Attr)], x: Tensor) -> Vec<Tensor> {
        crate::eval::eval_op(&Op::new(kind, attrs.to_vec()).expect("attributes"), &[x]).expect("an answer")
    }

    fn axes(axes: &[i64], keep: bool) -> Vec<(&'static str, Attr)> {
        vec![("axes", Attr::Ints(axes.to_vec())), ("keepdims", keep.into())]
    }

    /// [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]
    fn cube() -> Tensor {
        Tensor::new([2, 2, 3], &(1..=12).map(|v| v as f32).collect::<Vec<_>>())
    }

    #[test]
    fn over_any_axes() {
        let sum = |a: &[i64], keep| run(Kind::ReduceSum, &axes(a, keep), cube()).remove(0);
        assert_eq!(sum(&[1], false), Tensor::new([2, 3], &[5f32, 7.0, 9.0, 17.0, 19.0, 21.0]));
        assert_eq!(sum(&[0, 2], true), Tensor::new([1, 2, 1], &[30f32, 48.0]));
        assert_eq!(sum(&[0, 1, 2], false), Tensor::scalar(78f32));
        assert_eq!(sum(&[], true), cube());
        assert_eq!(run(Kind::ReduceMean, &axes(&[2], false), cube())[0], Tensor::new([2, 2], &[2f32, 5.0, 8.0, 11.0]));
        assert_eq!(run(Kind::ReduceProd, &axes(&[0, 1], false), cube())[0], Tensor::new([3], &[280f32, 880.0, 1944.0]));
        assert_eq!(run(Kind::ReduceMean, &axes(&[0], false), Tensor::new([2], &[-3i32, 0]))[0], Tensor::scalar(-1i32));
    }

    #[test]
    fn extremes_of_nothing_and_of_nan() {
        let empty = Tensor::new::<i8>([0, 1], &[]);
        assert_eq!(run(Kind::ReduceMax, &axes(&[0], false), empty.clone())[0], Tensor::new([1], &[i8::MIN]));
        assert_eq!(run(Kind::ReduceMin, &axes(&[0], false), empty)[0], Tensor::new([1], &[i8::MAX]));
        let nan = run(Kind::ReduceMin, &axes(&[0], false), Tensor::new([3], &[1f32, f32::NAN, 0.0]));
        assert!(nan[0].values::<f32>()[0].is_nan());
        let bools = Tensor::with_type(TensorType::new(Type::Bool, [2, 2]), &[0u8, 1, 0, 0]);
        assert_eq!(run(Kind::ReduceMax, &axes(&[1], false), bools)[0].values::<u8>(), [1, 0]);
    }

    #[test]
    fn where_the_extremes_are() {
        let x = Tensor::new([2, 3], &[1f32, 3.0, 3.0, 2.0, 2.0, 1.0]);
        let of = |kind, last: bool| {
            run(kind, &[("axis", Attr::Int(1)), ("keepdims", Attr::Int(0)), ("last", last.into())], x.clone())[0].clone()
        };
        assert_eq!(of(Kind::ArgMax, false), Tensor::new([2], &[1i64, 0]));
        assert_eq!(of(Kind::ArgMax, true), Tensor::new([2], &[2i64, 1]));
        assert_eq!(of(Kind::ArgMin, false), Tensor::new([2], &[0i64, 2]));
        let nan = Tensor::new([3], &[5f32, f32::NAN, 9.0]);
        assert_eq!(run(Kind::ArgMax, &[], nan.clone())[0], Tensor::new([1], &[1i64]));
        assert_eq!(run(Kind::ArgMin, &[], nan)[0], Tensor::new([1], &[1i64]));
    }

    #[test]
    fn running_sums() {
        let of = |exclusive: bool, reverse: bool| {
            let attrs = [("exclusive", exclusive.into()), ("reverse", reverse.into())];
            run(Kind::CumSum, &attrs, Tensor::new([4], &[1i32, 2, 3, 4]))[0].values::<i32>().to_vec()
        };
        assert_eq!(of(false, false), [1, 3, 6, 10]);
        assert_eq!(of(true, false), [0, 1, 3, 6]);
        assert_eq!(of(false, true), [10, 9, 7, 4]);
        assert_eq!(of(true, true), [9, 7, 4, 0]);
        let x = Tensor::new([2, 2], &[1f32, 2.0, 3.0, 4.0]);
        assert_eq!(run(Kind::CumProd, &[], x)[0].values::<f32>(), [1.0, 2.0, 3.0, 8.0]);
    }

    #[test]
    fn the_k_largest_and_smallest() {
        let x = Tensor::new([2, 4], &[3f32, 1.0, 3.0, 2.0, f32::NAN, 0.0, 7.0, -1.0]);
        let of = |k: i64, largest: i64| {
            let attrs = [("axis", Attr::Int(1)), ("k", Attr::Int(k)), ("largest", Attr::Int(largest))];
            run(Kind::TopK, &attrs, x.clone())
        };
        let y = of(2, 1);
        assert_eq!(y[1].values::<i64>(), [0, 2, 0, 2]);
        assert_eq!(y[0].values::<f32>()[..2], [3.0, 3.0]);
        assert_eq!(of(3, 0)[1].values::<i64>(), [1, 3, 0, 0, 3, 1]);
        let columns = run(Kind::TopK, &[("k", Attr::Int(1))], Tensor::new([2, 2], &[1i8, 9, 5, 3]));
        assert_eq!((columns[0].values::<i8>(), columns[1].values::<i64>()), (&[5i8, 9][..], &[1i64, 0][..]));
    }
}
