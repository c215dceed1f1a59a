//! Resize and Upsample: along each axis an output element is a weighted sum of a few input elements, all known at import.

use super::helpers::{Outputs, count, one, size, sizes};
use super::row::{OpImport, onnx};
use crate::build::{Build, Node, Result, axes, invalid, unsupported};
use dnnc_ir::{Attr, Kind, Type, Value};

pub(super) const OPS: &[OpImport] = &[onnx("Resize", resize), OpImport { until: Some(9), ..onnx("Upsample", upsample) }];

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// Everything of a Resize that is the same for all axes.
struct Plan<'a> {
    mode: Mode,
    coordinates: &'a str,
    nearest: &'a str,
    /// As `nearest`, along axes that shrink.
    nearest_shrunk: &'a str,
    antialias: bool,
    cubic_a: f64,
    exclude_outside: bool,
    extrapolation: f64,
}

/// What becomes of one axis.
struct Axis {
    axis: usize,
    scale: f64,
    out: usize,
    /// The size of the result as coordinates count it: with the fraction that a scale may give, or without.
    length: f64,
    roi: [f64; 2],
}

fn mode(n: &Node) -> Result<Mode> {
    match n.string("mode", "nearest")? {
        "nearest" => Ok(Mode::Nearest),
        "linear" | "bilinear" => Ok(Mode::Linear),
        "cubic" => Ok(Mode::Cubic),
        other => unsupported!("resizing with mode={other:?}"),
    }
}

/// Output elements are asymmetric in the coordinates; nearest ones are rounded down where an axis grows, up where it shrinks.
const OLD: Plan = Plan {
    mode: Mode::Nearest,
    coordinates: "asymmetric",
    nearest: "floor",
    nearest_shrunk: "ceil",
    antialias: false,
    cubic_a: -0.75,
    exclude_outside: false,
    extrapolation: 0.0,
};

fn upsample(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let scales = match n.opset {
        ..7 => vec![1.0, 1.0, n.num("height_scale", 1.0)?, n.num("width_scale", 1.0)?],
        7 | 8 => n.floats("scales")?.unwrap_or_default().into_iter().map(f64::from).collect(),
        _ => b.need_f64s(n.input(1)?)?,
    };
    let all: Vec<usize> = (0..b.rank(x)).collect();
    let axes = by_scales(&b.shape(x), &all, &scales, true)?;
    one(apply(b, x, &Plan { mode: mode(n)?, ..OLD }, &axes))
}

fn resize(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let shape = b.shape(x);
    if n.opset < 11 {
        let all: Vec<usize> = (0..shape.len()).collect();
        let axes = by_scales(&shape, &all, &b.need_f64s(n.input(1)?)?, true)?;
        return one(apply(b, x, &Plan { mode: mode(n)?, ..OLD }, &axes));
    }
    let over: Vec<usize> = match n.ints("axes")? {
        Some(list) => {
            axes(&list, shape.len())?;
            list.iter().map(|&a| crate::build::axis(a, shape.len())).collect::<Result<_>>()?
        }
        None => (0..shape.len()).collect(),
    };
    let plan = Plan {
        mode: mode(n)?,
        coordinates: n.string("coordinate_transformation_mode", "half_pixel")?,
        nearest: n.string("nearest_mode", "round_prefer_floor")?,
        nearest_shrunk: n.string("nearest_mode", "round_prefer_floor")?,
        antialias: n.flag("antialias", false)?,
        cubic_a: n.num("cubic_coeff_a", -0.75)?,
        exclude_outside: n.flag("exclude_outside", false)?,
        extrapolation: n.num("extrapolation_value", 0.0)?,
    };
    // An input of no elements is one that is left out.
    let given = |b: &Build, i: usize| n.opt(i).filter(|&x| !b.shape(x).contains(&0));
    let mut found = match (given(b, 2), given(b, 3)) {
        (Some(scales), None) => by_scales(&shape, &over, &b.need_f64s(scales)?, b.is_given(scales))?,
        (None, Some(wanted)) => by_sizes(&shape, &over, &sizes(&b.need_i64s(wanted)?)?, n.string("keep_aspect_ratio_policy", "stretch")?)?,
        (None, None) if count(&shape)? == 0 => return Ok(vec![x]),
        _ => return invalid!("either scales or sizes must be given"),
    };
    if plan.coordinates == "tf_crop_and_resize" {
        let Some(roi) = given(b, 1) else { return invalid!("tf_crop_and_resize needs a region") };
        let roi = b.need_f64s(roi)?;
        if roi.len() != 2 * over.len() {
            return invalid!("a region of {} numbers for {} axes", roi.len(), over.len());
        }
        for (i, axis) in found.iter_mut().enumerate() {
            axis.roi = [roi[i], roi[over.len() + i]];
        }
    }
    one(apply(b, x, &plan, &found))
}

/// The axes resized by scales.
///
/// The test suite of the standard, whose scales are inputs, counts sizes with their fraction; PyTorch, from where constant scales come, and
/// ONNX Runtime count complete elements: `integral`.
fn by_scales(shape: &[usize], over: &[usize], scales: &[f64], integral: bool) -> Result<Vec<Axis>> {
    if scales.len() != over.len() {
        return invalid!("{} scales for {} axes", scales.len(), over.len());
    }
    let each = |(&axis, &scale): (&usize, &f64)| {
        let out = (shape[axis] as f64 * scale).floor();
        if !(scale > 0.0 && out < 1e15) {
            return invalid!("a scale of {scale}");
        }
        let length = if integral { out } else { shape[axis] as f64 * scale };
        Ok(Axis { axis, scale, out: size(out as i64)?, length, roi: [0.0, 1.0] })
    };
    over.iter().zip(scales).map(each).collect()
}

fn by_sizes(shape: &[usize], over: &[usize], wanted: &[usize], policy: &str) -> Result<Vec<Axis>> {
    if wanted.len() != over.len() {
        return invalid!("{} sizes for {} axes", wanted.len(), over.len());
    }
    let ratios = over.iter().zip(wanted).map(|(&a, &w)| w as f64 / shape[a].max(1) as f64);
    let common = match policy {
        "stretch" => None,
        "not_larger" => Some(ratios.fold(f64::INFINITY, f64::min)),
        "not_smaller" => Some(ratios.fold(0.0, f64::max)),
        other => return invalid!("attribute `keep_aspect_ratio_policy` is {other:?}"),
    };
    let each = |(&axis, &wanted): (&usize, &usize)| match common {
        None => Ok(Axis { axis, scale: wanted as f64 / shape[axis].max(1) as f64, out: wanted, length: wanted as f64, roi: [0.0, 1.0] }),
        Some(scale) => {
            let length = scale * shape[axis] as f64;
            Ok(Axis { axis, scale, out: size((length + 0.5).floor() as i64)?, length, roi: [0.0, 1.0] })
        }
    };
    over.iter().zip(wanted).map(each).collect()
}

/// Resizes one axis after the other.
fn apply(b: &mut Build, x: Value, plan: &Plan, all: &[Axis]) -> Result<Value> {
    let ty = b.elem(x);
    let shape = b.shape(x);
    let mut target = shape.clone();
    for axis in all {
        target[axis.axis] = axis.out;
        b.check_size(&dnnc_ir::TensorType::new(ty, target.as_slice()))?;
    }
    if plan.antialias && plan.mode == Mode::Nearest {
        return invalid!("antialias with mode nearest");
    }
    let mut y = x;
    let mut outside: Option<Value> = None;
    for axis in all {
        let n = shape[axis.axis];
        let same = (axis.scale - 1.0).abs() < 1e-9 && axis.out == n && axis.roi == [0.0, 1.0];
        if same || axis.out == 0 {
            if axis.out == 0 {
                y = b.slice_axis(y, axis.axis, 0, 0)?;
            }
            continue;
        }
        if n == 0 {
            return invalid!("axis {} of {} has nothing to resize", axis.axis, b.ty(x));
        }
        let coordinates = (0..axis.out).map(|o| coordinate(plan.coordinates, axis, n, o as f64)).collect::<Result<Vec<f64>>>()?;
        if plan.coordinates == "tf_crop_and_resize" && coordinates.iter().any(|&p| !(0.0..=(n - 1) as f64).contains(&p)) {
            let mask: Vec<u8> = coordinates.iter().map(|p| (!(0.0..=(n - 1) as f64).contains(p)).into()).collect();
            let mask = b.constant(dnnc_ir::Tensor::with_type(dnnc_ir::TensorType::new(Type::Bool, [axis.out]), &mask));
            let mask = b.along(mask, axis.axis, shape.len())?;
            outside = Some(match outside {
                Some(other) => b.binary(Kind::Or, other, mask)?,
                None => mask,
            });
        }
        if plan.mode == Mode::Nearest {
            let mode = if axis.scale < 1.0 { plan.nearest_shrunk } else { plan.nearest };
            let idx = coordinates.iter().map(|&p| nearest(mode, p, n)).collect::<Result<Vec<i64>>>()?;
            let idx = b.i64s(&idx);
            y = b.gather(y, idx, axis.axis)?;
            continue;
        }
        // Integers are resized as floats; so are narrow floats, which keeps the sums exact enough.
        y = if ty == Type::F64 { y } else { b.cast(y, Type::F32)? };
        let taps: Vec<(Vec<i64>, Vec<f64>)> = coordinates.iter().map(|&p| taps(plan, axis.scale, p, n)).collect();
        let width = taps.first().map_or(0, |t| t.0.len());
        let idx: Vec<i64> = taps.iter().flat_map(|t| t.0.iter().copied()).collect();
        let weights: Vec<f64> = taps.iter().flat_map(|t| t.1.iter().copied()).collect();
        let idx = b.constant(dnnc_ir::Tensor::new([axis.out, width], &idx));
        let weights = b.table(b.elem(y), &[axis.out, width], &weights)?;
        y = b.op(Kind::Resample, [("axis", Attr::Int(axis.axis as i64))], &[y, idx, weights])?;
    }
    if let Some(outside) = outside {
        let value = b.scalar(b.elem(y), plan.extrapolation);
        y = b.select(outside, value, y)?;
    }
    b.cast(y, ty)
}

/// The coordinate of output element `o` among `n` input elements.
fn coordinate(coordinates: &str, axis: &Axis, n: usize, o: f64) -> Result<f64> {
    let (n, scale, out, length) = (n as f64, axis.scale, axis.scale * n as f64, axis.length);
    let half_pixel = (o + 0.5) / scale - 0.5;
    Ok(match coordinates {
        "half_pixel" => half_pixel,
        // An output smaller than its scale says is centred.
        "half_pixel_symmetric" => n / 2.0 * (1.0 - axis.out as f64 / out) + half_pixel,
        "pytorch_half_pixel" => {
            if out != 1.0 {
                half_pixel
            } else {
                0.0
            }
        }
        "tf_half_pixel_for_nn" => (o + 0.5) / scale,
        "align_corners" => {
            if length == 1.0 {
                0.0
            } else {
                o * (n - 1.0) / (length - 1.0)
            }
        }
        "asymmetric" => o / scale,
        "tf_crop_and_resize" => {
            let [start, end] = axis.roi;
            let within = if length == 1.0 { (end - start) * (n - 1.0) / 2.0 } else { o * (end - start) * (n - 1.0) / (length - 1.0) };
            start * (n - 1.0) + within
        }
        other => return invalid!("attribute `coordinate_transformation_mode` is {other:?}"),
    })
}

fn nearest(mode: &str, coordinate: f64, n: usize) -> Result<i64> {
    let index = match mode {
        "round_prefer_floor" => (coordinate - 0.5).ceil(),
        "round_prefer_ceil" => (coordinate + 0.5).floor(),
        "floor" => coordinate.floor(),
        "ceil" => coordinate.ceil(),
        other => return invalid!("attribute `nearest_mode` is {other:?}"),
    };
    Ok(index.clamp(0.0, (n - 1) as f64) as i64)
}

/// Input elements and weights for one coordinate. Elements beyond the border are those at the border, or left out if the node says so.
fn taps(plan: &Plan, scale: f64, coordinate: f64, n: usize) -> (Vec<i64>, Vec<f64>) {
    // Antialiasing widens the window when an axis shrinks.
    let shrink = if plan.antialias { scale.min(1.0) } else { 1.0 };
    let reach = if plan.mode == Mode::Cubic { 2.0 } else { 1.0 };
    // Beyond the border all elements are equal: a coordinate further out has the same value.
    let coordinate = coordinate.clamp(-4.0 * n as f64 - 8.0, 5.0 * n as f64 + 8.0);
    let floor = coordinate.floor();
    let first = ((-reach / shrink).floor() + 1.0).max(-4.0 * n as f64 - 4.0) as i64;
    let last = 2 - first;
    let kernel = |x: f64| if plan.mode == Mode::Cubic { cubic(x.abs(), plan.cubic_a) } else { (1.0 - x.abs()).max(0.0) };
    let (mut at, mut weights) = (vec![], vec![]);
    for i in first..last {
        let index = floor as i64 + i;
        let inside = (0..n as i64).contains(&index);
        at.push(index.clamp(0, n as i64 - 1));
        weights.push(if plan.exclude_outside && !inside { 0.0 } else { kernel((i as f64 - (coordinate - floor)) * shrink) });
    }
    let sum: f64 = weights.iter().sum();
    if sum != 0.0 && (plan.exclude_outside || plan.antialias) {
        weights.iter_mut().for_each(|w| *w /= sum);
    }
    (at, weights)
}

/// Keys' cubic kernel at a distance.
fn cubic(x: f64, a: f64) -> f64 {
    match x {
        x if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        x if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}
