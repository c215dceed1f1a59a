//! Reductions, scans and rankings along axes.

use super::check::{self, Types};
use super::{not_yet, per_input};
use crate::op::{Arity, AttrKind, Attrs, Class, Kind, OpDef};
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
    along!(ReduceSum, "Sum over `axes`; no axes: a copy. Integers wrap.", REDUCE, numbers, 1, not_yet),
    along!(ReduceProd, "Product over `axes`; integers wrap.", REDUCE, numbers, 1, not_yet),
    along!(
        ReduceMax,
        "Largest over `axes`, NaN if there is one; −∞ (the lowest integer, false) over nothing.",
        REDUCE,
        ordered,
        1,
        not_yet
    ),
    along!(
        ReduceMin,
        "Smallest over `axes`, NaN if there is one; ∞ (the largest integer, true) over nothing.",
        REDUCE,
        ordered,
        1,
        not_yet
    ),
    along!(ReduceMean, "Mean over `axes`; integers truncate towards 0.", REDUCE, mean, 1, not_yet),
    along!(ArgMax, "Index (i64) of the largest along `axis`: the first such, or the last; a NaN is largest.", ARG, arg, 1, not_yet),
    along!(ArgMin, "Index (i64) of the smallest along `axis`: the first such, or the last; a NaN is smallest.", ARG, arg, 1, not_yet),
    along!(
        CumSum,
        "Running sum along `axis`, without the element itself if `exclusive`, from the end if `reverse`.",
        SCAN,
        scan,
        1,
        not_yet
    ),
    along!(CumProd, "Running product along `axis`, options as cum_sum.", SCAN, scan, 1, not_yet),
    along!(
        TopK,
        "The `k` largest (or smallest) along `axis` in order and their indices (i64); of equals the lower index comes first; a NaN is largest.",
        &[("axis", AttrKind::Int(0)), ("k", AttrKind::Int(1)), ("largest", AttrKind::Int(1))],
        top_k,
        8,
        not_yet
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
