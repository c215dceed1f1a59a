//! Normalisation along axes.

use super::check::{self, Types};
use super::data::{self, Lanes, Results};
use super::work::per_output;
use crate::graph::{Attrs, OpDef};
use crate::kind::{Arity, AttrKind, Class, Kind};
use crate::tensor::Tensor;
use crate::types::TensorType;

const AXES: &[(&str, AttrKind)] = &[("axes", AttrKind::Ints), ("eps", AttrKind::Float(1e-5))];

/// A row of the family: kind, meaning, attributes, shape rule, operations an element, reference.
macro_rules! norm {
    ($kind:ident, $doc:literal, $attrs:expr, $infer:expr, $work:literal, $eval:expr) => {
        OpDef {
            kind: Kind::$kind,
            doc: $doc,
            inputs: Arity::Exactly(1),
            attrs: $attrs,
            class: Class::Compute,
            infer: $infer,
            eval: $eval,
            work: per_output::<$work>,
        }
    };
}

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    norm!(Softmax, "eˣ / Σ eˣ along `axis`.", &[("axis", AttrKind::Int(0))], along_axis, 12, |attrs, x| softmax(attrs, &x[0], false)),
    norm!(LogSoftmax, "x − log Σ eˣ along `axis`.", &[("axis", AttrKind::Int(0))], along_axis, 12, |attrs, x| softmax(
        attrs, &x[0], true
    )),
    norm!(Norm, "(x − mean) / √(variance + `eps`) over `axes`.", AXES, along_axes, 6, |attrs, x| normalise(attrs, &x[0], true)),
    norm!(RmsNorm, "x / √(mean of x² + `eps`) over `axes`.", AXES, along_axes, 4, |attrs, x| normalise(attrs, &x[0], false)),
];

fn along_axis(attrs: &Attrs, x: &[TensorType]) -> Types {
    check::real("the input", &x[0])?;
    check::axis(attrs, x[0].rank())?;
    check::same(&x[0])
}

fn along_axes(attrs: &Attrs, x: &[TensorType]) -> Types {
    check::real("the input", &x[0])?;
    check::axes(attrs, x[0].rank())?;
    check::ensure(!attrs.float("eps").is_nan(), || "`eps` is not a number".into())?;
    check::same(&x[0])
}

fn softmax(attrs: &Attrs, x: &Tensor, log: bool) -> Results {
    let lanes = Lanes::new(x.shape(), attrs.size("axis"));
    let mut values = x.to_f64s();
    for start in lanes.starts() {
        let mut lane: Vec<f64> = (0..lanes.size).map(|i| values[start + i * lanes.inner]).collect();
        softmax_lane(&mut lane, log);
        lane.into_iter().enumerate().for_each(|(i, v)| values[start + i * lanes.inner] = v);
    }
    Ok(vec![data::from_reals(x.ty(), &values)])
}

/// eˣ / Σ eˣ of some numbers, or its logarithm.
pub fn softmax_lane(lane: &mut [f64], log: bool) {
    let top = lane.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = lane.iter().map(|v| (v - top).exp()).sum();
    for v in lane {
        *v = if log { *v - top - sum.ln() } else { (*v - top).exp() / sum };
    }
}

/// (x − mean) / √(variance + eps), or without the mean: x / √(mean of x² + eps).
fn normalise(attrs: &Attrs, x: &Tensor, centred: bool) -> Results {
    let mut shape = x.shape().to_vec();
    let mut to = data::strides(x.shape());
    for &axis in attrs.ints("axes") {
        shape[axis as usize] = 1;
    }
    let kept = data::strides(&shape);
    (0..shape.len()).for_each(|i| to[i] = if attrs.ints("axes").contains(&(i as i64)) { 0 } else { kept[i] });
    let groups: usize = shape.iter().product();
    let count = (x.len() / groups.max(1)) as f64;
    let from = data::strides(x.shape());
    let rows = data::Rows::new(x.shape(), [&from, &to]);
    let mut values = x.to_f64s();
    // Means of the values, or of their squares, of each group.
    let mean = |values: &[f64], square: bool| {
        let mut sums = vec![0.0; groups];
        rows.each([0, 0], &mut |[i, g], [di, dg], n| {
            for k in 0..n as isize {
                let v = values[(i + k * di) as usize];
                sums[(g + k * dg) as usize] += if square { v * v } else { v };
            }
        });
        sums.iter_mut().for_each(|s| *s /= count);
        sums
    };
    let apply = |values: &mut [f64], of_group: &[f64], f: fn(f64, f64) -> f64| {
        rows.each([0, 0], &mut |[i, g], [di, dg], n| {
            for k in 0..n as isize {
                let v = &mut values[(i + k * di) as usize];
                *v = f(*v, of_group[(g + k * dg) as usize]);
            }
        });
    };
    if centred {
        let means = mean(&values, false);
        apply(&mut values, &means, |v, mean| v - mean);
    }
    let mut roots = mean(&values, true);
    roots.iter_mut().for_each(|r| *r = (*r + attrs.float("eps")).sqrt());
    apply(&mut values, &roots, |v, root| v / root);
    Ok(vec![data::from_reals(x.ty(), &values)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;
    use crate::graph::Op;

    fn run(kind: Kind, attrs: &[(&'static str, Attr)], shape: &[usize], x: &[f64]) -> Vec<f64> {
        let op = Op::new(kind, attrs.to_vec()).expect("attributes");
        crate::eval::eval_op(&op, &[Tensor::new(shape, x)]).expect("an answer")[0].values::<f64>().to_vec()
    }

    fn close(a: &[f64], b: &[f64]) {
        assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} is not {b:?}");
    }

    #[test]
    fn softmax_of_rows_and_columns() {
        let e = std::f64::consts::E;
        let along = |axis: i64| vec![("axis", Attr::Int(axis))];
        close(&run(Kind::Softmax, &along(1), &[1, 3], &[1000.0, 1000.0, 1001.0]), &[1.0, 1.0, e].map(|v| v / (2.0 + e)));
        close(&run(Kind::Softmax, &along(0), &[2, 2], &[0.0, 5.0, 1.0, 5.0]), &[1.0 / (1.0 + e), 0.5, e / (1.0 + e), 0.5]);
        close(&run(Kind::LogSoftmax, &along(0), &[2], &[0.0, 0.0]), &[-2f64.ln(), -2f64.ln()]);
    }

    #[test]
    fn mean_and_variance() {
        let attrs = |axes: &[i64], eps: f64| vec![("axes", Attr::Ints(axes.to_vec())), ("eps", eps.into())];
        // mean 2, variance 1; mean 5, variance 4
        close(&run(Kind::Norm, &attrs(&[1], 0.0), &[2, 2], &[1.0, 3.0, 3.0, 7.0]), &[-1.0, 1.0, -1.0, 1.0]);
        close(&run(Kind::Norm, &attrs(&[0], 3.0), &[2, 2], &[1.0, 3.0, 3.0, 7.0]), &[-0.5, -2.0 / 7f64.sqrt(), 0.5, 2.0 / 7f64.sqrt()]);
        close(&run(Kind::RmsNorm, &attrs(&[0, 1], 0.0), &[2, 2], &[1.0, 1.0, 5.0, 3.0]), &[1.0, 1.0, 5.0, 3.0].map(|v| v / 3.0));
    }
}
