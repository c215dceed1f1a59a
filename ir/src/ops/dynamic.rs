//! Operators whose number of results is data: it is given as `count`, known from an earlier stage.

use super::check::{self, Types, ensure};
use super::data::{self, Number, Numbers, Results};
use super::work::{per_input, product};
use crate::graph::{Attrs, OpDef};
use crate::kind::{Arity, AttrKind, Class, Kind};
use crate::tensor::Tensor;
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
        eval: eval_non_zero,
        work: per_input::<2>,
    },
    OpDef {
        kind: Kind::Compress,
        doc: "The slices of x along `axis` whose element of cond (bool) [n], n ≤ the size of the axis, holds; an error unless there are `count`.",
        inputs: Arity::Exactly(2),
        attrs: &[("axis", AttrKind::Int(0)), ("count", AttrKind::Int(0))],
        class: Class::Compute,
        infer: compress,
        eval: eval_compress,
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
        eval: eval_unique,
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
        eval: eval_non_max_suppression,
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

/// The number found must be the one promised, if one was.
fn promised(count: i64, found: usize) -> Result<(), String> {
    ensure(count == -1 || count == found as i64, || format!("{count} were expected, but there are {found}"))
}

fn eval_non_zero(attrs: &Attrs, x: &[Tensor]) -> Results {
    let found: Vec<usize> = match data::numbers(&x[0]) {
        Numbers::Reals(v) => (0..v.len()).filter(|&i| v[i] != 0.0).collect(),
        Numbers::Ints(v) => (0..v.len()).filter(|&i| v[i] != 0).collect(),
    };
    promised(attrs.int("count"), found.len())?;
    let shape = x[0].shape();
    let coordinate = |axis: usize, i: usize| i / shape[axis + 1..].iter().product::<usize>() % shape[axis];
    let indices: Vec<i64> = (0..shape.len()).flat_map(|axis| found.iter().map(move |&i| coordinate(axis, i) as i64)).collect();
    Ok(vec![Tensor::new([shape.len(), found.len()], &indices)])
}

fn eval_compress(attrs: &Attrs, x: &[Tensor]) -> Results {
    let kept: Vec<usize> = data::bools(&x[1]).enumerate().filter_map(|(i, holds)| holds.then_some(i)).collect();
    promised(attrs.int("count"), kept.len())?;
    Ok(vec![data::take(&x[0], attrs.size("axis"), &kept)])
}

fn eval_unique(attrs: &Attrs, x: &[Tensor]) -> Results {
    let flat = x[0].reshaped([x[0].len()]);
    let (x, axis) = if attrs.int("axis") == -1 { (&flat, 0) } else { (&x[0], attrs.size("axis")) };
    /// For each slice the first one equal to it.
    fn groups<N: Number>(values: &[N], x: &Tensor, axis: usize, order: &mut [usize]) -> Vec<usize> {
        let lanes = data::Lanes::new(x.shape(), axis);
        let slice =
            |i: usize| (0..lanes.outer).flat_map(move |o| (0..lanes.inner).map(move |k| values[(o * lanes.size + i) * lanes.inner + k]));
        // NaN is equal to NaN and beyond every number.
        let compare = |a: usize, b: usize| {
            let each = |(x, y): (N, N)| x.nan().cmp(&y.nan()).then(x.partial_cmp(&y).unwrap_or(std::cmp::Ordering::Equal));
            slice(a).zip(slice(b)).map(each).find(|o| o.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
        };
        order.sort_by(|&a, &b| compare(a, b));
        let mut first = vec![0; order.len()];
        for (i, &at) in order.iter().enumerate() {
            let starts = i == 0 || compare(order[i - 1], at).is_ne();
            first[at] = if starts { at } else { first[order[i - 1]] };
        }
        first
    }
    let size = x.shape()[axis];
    let mut order: Vec<usize> = (0..size).collect();
    let first = match data::numbers(x) {
        Numbers::Reals(v) => groups(&v, x, axis, &mut order),
        Numbers::Ints(v) => groups(&v, x, axis, &mut order),
    };
    if !attrs.flag("sorted") {
        order.sort();
    }
    let mut firsts: Vec<usize> = order.into_iter().filter(|&i| first[i] == i).collect();
    let found = firsts.len();
    promised(attrs.int("count"), found)?;
    let mut rank = vec![0i64; size];
    firsts.iter().enumerate().for_each(|(r, &i)| rank[i] = r as i64);
    let inverse: Vec<i64> = first.iter().map(|&f| rank[f]).collect();
    let padded = if attrs.int("count") == -1 { size } else { found };
    let mut counts = vec![0i64; padded];
    inverse.iter().for_each(|&r| counts[r as usize] += 1);
    let mut y = data::take(x, axis, &firsts);
    if padded > found {
        let mut missing = x.shape().to_vec();
        missing[axis] = padded - found;
        let zeros = Tensor::zeros(TensorType::new(x.ty().ty, missing));
        y = data::join(&[y, zeros], axis);
        firsts.resize(padded, 0);
    }
    let firsts: Vec<i64> = firsts.into_iter().map(|i| i as i64).collect();
    let mut results = vec![y, Tensor::new([padded], &firsts), Tensor::new([size], &inverse), Tensor::new([padded], &counts)];
    if attrs.int("count") == -1 {
        results.push(Tensor::scalar(found as i64));
    }
    Ok(results)
}

/// Lower and upper corner of a box: y, x, y, x.
fn corners(b: &[f32], center: bool) -> [f32; 4] {
    if center {
        let [half_w, half_h] = [b[2] / 2.0, b[3] / 2.0];
        return [b[1] - half_h, b[0] - half_w, b[1] + half_h, b[0] + half_w];
    }
    [b[0].min(b[2]), b[1].min(b[3]), b[0].max(b[2]), b[1].max(b[3])]
}

/// Whether two boxes share more than `iou` of the area they cover; in f32, so that all evaluators agree at the border.
fn overlap(a: [f32; 4], b: [f32; 4], iou: f32) -> bool {
    let area = |[y0, x0, y1, x1]: [f32; 4]| (y1 - y0) * (x1 - x0);
    let [height, width] = [a[2].min(b[2]) - a[0].max(b[0]), a[3].min(b[3]) - a[1].max(b[1])];
    if height <= 0.0 || width <= 0.0 {
        return false;
    }
    let shared = height * width;
    let all = area(a) + area(b) - shared;
    area(a) > 0.0 && area(b) > 0.0 && all > 0.0 && shared / all > iou
}

fn eval_non_max_suppression(attrs: &Attrs, x: &[Tensor]) -> Results {
    let [images, classes, candidates] = [0, 1, 2].map(|i| x[1].shape()[i]);
    let (boxes, scores) = (x[0].values::<f32>(), x[1].values::<f32>());
    let (most, iou, least) = (data::i64s(&x[2])[0].max(0) as usize, x[3].values::<f32>()[0], x[4].values::<f32>()[0]);
    let mut rows: Vec<i64> = vec![];
    for (image, class) in (0..images).flat_map(|i| (0..classes).map(move |c| (i, c))) {
        let scores = &scores[(image * classes + class) * candidates..][..candidates];
        let corners = |i: usize| corners(&boxes[(image * candidates + i) * 4..][..4], attrs.flag("center"));
        let mut order: Vec<usize> = (0..candidates).filter(|&i| scores[i] > least).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut kept: Vec<usize> = vec![];
        for i in order {
            if kept.len() < most && !kept.iter().any(|&k| overlap(corners(k), corners(i), iou)) {
                kept.push(i);
                rows.extend([image as i64, class as i64, i as i64]);
            }
        }
    }
    let found = rows.len() / 3;
    promised(attrs.int("count"), found)?;
    if attrs.int("count") != -1 {
        return Ok(vec![Tensor::new([found, 3], &rows)]);
    }
    rows.resize(images * classes * candidates * 3, -1);
    Ok(vec![Tensor::new([images * classes * candidates, 3], &rows), Tensor::scalar(found as i64)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;
    use crate::graph::Op;

    fn run(kind: Kind, attrs: &[(&'static str, Attr)], x: &[Tensor]) -> Result<Vec<Tensor>, String> {
        crate::eval::eval_op(&Op::new(kind, attrs.to_vec()).expect("attributes"), x)
    }

    #[test]
    fn coordinates_of_what_is_not_zero() {
        let x = Tensor::new([2, 2], &[1f32, 0.0, f32::NAN, -1.0]);
        let y = run(Kind::NonZero, &[("count", Attr::Int(3))], std::slice::from_ref(&x)).expect("an answer");
        assert_eq!(y[0], Tensor::new([2, 3], &[0i64, 1, 1, 0, 0, 1]));
        assert_eq!(run(Kind::NonZero, &[("count", Attr::Int(2))], &[x]).unwrap_err(), "2 were expected, but there are 3");
        assert_eq!(run(Kind::NonZero, &[("count", Attr::Int(1))], &[Tensor::scalar(5i8)]).expect("an answer")[0].shape(), [0, 1]);
    }

    #[test]
    fn slices_that_are_kept() {
        let cond = Tensor::with_type(TensorType::new(Type::Bool, [2]), &[0u8, 1]);
        let attrs = [("axis", Attr::Int(1)), ("count", Attr::Int(1))];
        let y = run(Kind::Compress, &attrs, &[Tensor::new([2, 3], &[1i32, 2, 3, 4, 5, 6]), cond]).expect("an answer");
        assert_eq!(y[0], Tensor::new([2, 1], &[2, 5]));
    }

    #[test]
    fn different_elements() {
        // ONNX Unique, its examples.
        let x = Tensor::new([6], &[2f32, 1.0, 1.0, 3.0, 4.0, 3.0]);
        let list = |v: &[i64]| Tensor::new([v.len()], v);
        let y = run(Kind::Unique, &[("sorted", Attr::Int(0)), ("count", Attr::Int(4))], std::slice::from_ref(&x)).expect("an answer");
        assert_eq!(y, [Tensor::new([4], &[2f32, 1.0, 3.0, 4.0]), list(&[0, 1, 3, 4]), list(&[0, 1, 1, 2, 3, 2]), list(&[1, 2, 2, 1])]);
        let y = run(Kind::Unique, &[("count", Attr::Int(-1))], &[x]).expect("an answer");
        assert_eq!(y[0], Tensor::new([6], &[1f32, 2.0, 3.0, 4.0, 0.0, 0.0]));
        assert_eq!(y[1..], [list(&[1, 0, 3, 4, 0, 0]), list(&[1, 0, 0, 2, 3, 2]), list(&[2, 1, 2, 1, 0, 0]), Tensor::scalar(4i64)]);
        let x = Tensor::new([3, 3], &[1i32, 0, 0, 1, 0, 0, 2, 3, 4]);
        let y = run(Kind::Unique, &[("axis", Attr::Int(0)), ("count", Attr::Int(2))], std::slice::from_ref(&x)).expect("an answer");
        assert_eq!(y, [Tensor::new([2, 3], &[1, 0, 0, 2, 3, 4]), list(&[0, 2]), list(&[0, 0, 1]), list(&[2, 1])]);
        let y = run(Kind::Unique, &[("axis", Attr::Int(1)), ("count", Attr::Int(3))], &[x]).expect("an answer");
        assert_eq!(y[0], Tensor::new([3, 3], &[0, 0, 1, 0, 0, 1, 3, 4, 2]));
    }

    #[test]
    fn the_best_boxes() {
        // ONNX NonMaxSuppression: suppress_by_IOU and limit_output_size.
        let boxes = [
            0.0, 0.0, 1.0, 1.0, 0.0, 0.1, 1.0, 1.1, 0.0, -0.1, 1.0, 0.9, 0.0, 10.0, 1.0, 11.0, 0.0, 10.1, 1.0, 11.1, 0.0, 100.0, 1.0, 101.0,
        ];
        let scores = [0.9f32, 0.75, 0.6, 0.95, 0.5, 0.3];
        let of = |most: i64, least: f32, count: i64| {
            let x = [Tensor::new([1, 6, 4], &boxes.map(|v| v as f32)), Tensor::new([1, 1, 6], &scores)];
            let x = [&x[..], &[Tensor::scalar(most), Tensor::scalar(0.5f32), Tensor::new([1], &[least])]].concat();
            run(Kind::NonMaxSuppression, &[("count", Attr::Int(count))], &x)
        };
        let rows = |y: &Tensor| y.values::<i64>().chunks(3).map(|r| r[2]).collect::<Vec<_>>();
        let all = of(3, 0.0, -1).expect("an answer");
        assert_eq!((rows(&all[0]), &all[1]), (vec![3, 0, 5, -1, -1, -1], &Tensor::scalar(3i64)));
        assert_eq!(rows(&of(2, 0.0, 2).expect("an answer")[0]), [3, 0]);
        assert_eq!(rows(&of(3, 0.4, 2).expect("an answer")[0]), [3, 0]);
        assert!(of(3, 0.0, 2).is_err());
        assert_eq!(of(0, 0.0, 0).expect("an answer")[0].shape(), [0, 3]);
    }

    #[test]
    fn boxes_by_their_centres() {
        assert_eq!(corners(&[0.5, 2.0, 1.0, 4.0], true), [0.0, 0.0, 4.0, 1.0]);
        assert_eq!(corners(&[1.0, 1.0, 0.0, 0.0], false), [0.0, 0.0, 1.0, 1.0]);
        let [a, b] = [[0.0, 0.0, 1.0, 2.0], [0.0, 1.0, 1.0, 3.0]];
        assert!(overlap(a, b, 0.33) && !overlap(a, b, 0.34));
    }
}
