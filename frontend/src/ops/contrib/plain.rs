//! Operators of ONNX Runtime that gather, sample or solve; and experimental ones that old exporters wrote into ONNX's own domain.

use crate::build::{Build, Node, Result, invalid};
use crate::ops::expr::v;
use crate::ops::helpers::{Outputs, count, one, positive, size};
use crate::ops::row::{Importer, OpImport, microsoft};
use crate::ops::{conv, detection, gather};
use dnnc_ir::{Attr, Kind, Tensor, TensorType, Type, Value};

pub(crate) const OPS: &[OpImport] = &[
    microsoft("GridSample", detection::grid_sample),
    microsoft("GatherND", gather::gather_nd),
    OpImport { note: "one axis, without dilation", ..microsoft("CausalConvWithState", conv::causal_conv_with_state) },
    microsoft("Unique", unique),
    microsoft("UnfoldTensor", unfold),
    microsoft("CropAndResize", crop_and_resize),
    microsoft("NGramRepeatBlock", ngram_repeat_block),
    microsoft("Inverse", inverse),
    experimental("Affine", |b, n| {
        let (alpha, beta) = (n.num("alpha", 1.0)?, n.num("beta", 0.0)?);
        one(b.emit(v(n.input(0)?) * alpha + beta))
    }),
    experimental("ParametricSoftplus", |b, n| {
        let (alpha, beta) = (n.num("alpha", 1.0)?, n.num("beta", 1.0)?);
        one(b.emit((v(n.input(0)?) * beta).softplus() * alpha))
    }),
    experimental("ScaledTanh", |b, n| {
        let (alpha, beta) = (n.num("alpha", 1.0)?, n.num("beta", 1.0)?);
        one(b.emit((v(n.input(0)?) * beta).tanh() * alpha))
    }),
    experimental("Scale", |b, n| {
        let scale = n.num("scale", 1.0)?;
        one(b.emit(v(n.input(0)?) * scale))
    }),
    experimental("ImageScaler", image_scaler),
    experimental("Crop", crop),
];

/// A row for an operator that ONNX had as an experiment, and ONNX Runtime still has.
const fn experimental(name: &'static str, import: Importer) -> OpImport {
    OpImport { domain: "", name, since: 1, until: None, import, note: "an experiment of ONNX, kept by ONNX Runtime" }
}

/// Distinct elements in the order in which they come, the index of each element among them, and their counts.
fn unique(b: &mut Build, n: &Node) -> Outputs {
    let outputs = gather::unique_of(b, n.input(0)?, None, false)?;
    Ok(vec![outputs[0], outputs[2], outputs[3]])
}

/// All windows along one axis, which become a new last axis.
fn unfold(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let axis = n.axis("dim", -1, b.rank(x))?;
    let (step, width) = (positive("attribute `step`", n.int("step", 1)?)?, positive("attribute `size`", n.req_int("size")?)?);
    let shape = b.shape(x);
    let Some(last) = shape[axis].checked_sub(width) else { return invalid!("windows of {width} along axis {axis} of {shape:?}") };
    let windows = last / step + 1;
    b.check_size(&TensorType::new(Type::I64, [windows, width]))?;
    let coordinates: Vec<i64> = (0..windows * width).map(|i| (i / width * step + i % width) as i64).collect();
    let coordinates = b.constant(Tensor::new([windows, width], &coordinates));
    let y = b.gather(x, coordinates, axis)?;
    let perm = crate::ops::helpers::moved_last(shape.len() + 1, &[axis + 1]);
    one(b.transpose(y, &perm))
}

/// Regions of images, the corners of each on the corners of the result; coordinates outside an image get a value.
fn crop_and_resize(b: &mut Build, n: &Node) -> Outputs {
    let (x, rois, batch) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let nearest = match n.string("mode", "bilinear")? {
        "bilinear" => false,
        "nearest" => true,
        other => return invalid!("attribute `mode` is {other:?}"),
    };
    let out = crate::ops::helpers::sizes(&b.need_i64s(n.input(3)?)?)?;
    let (&[_, channels, height, width], &[regions, 4], &[rows, columns]) = (&b.shape(x)[..], &b.shape(rois)[..], &out[..]) else {
        return invalid!("{} cropped to {} in {out:?}", b.ty(x), b.ty(rois));
    };
    let batch = b.cast(batch, Type::I64)?;
    let mut y = b.gather(x, batch, 0)?;
    let mut inside = Vec::new();
    for (axis, (from, to)) in [(height, rows), (width, columns)].into_iter().enumerate() {
        let corner = |b: &mut Build, column: usize| -> Result<Value> {
            let edge = b.slice_axis(rois, 1, column, 1)?;
            b.emit(v(edge) * (from as f64 - 1.0))
        };
        let (start, end) = (corner(b, axis)?, corner(b, axis + 2)?);
        // [R, out]: coordinates in the image.
        let coordinate = if to > 1 {
            let steps = b.iota(to)?;
            let steps = b.cast(steps, b.elem(rois))?;
            b.emit(v(start) + (v(end) - start) / (to as f64 - 1.0) * steps)?
        } else {
            b.emit((v(start) + end) * 0.5)?
        };
        let shape = if axis == 0 { [regions, 1, to, 1] } else { [regions, 1, 1, to] };
        let known = b.emit(v(coordinate).lt(0.0).not().and(v(coordinate).le(from as f64 - 1.0)))?;
        inside.push(b.reshape(known, &shape)?);
        let coordinate = b.emit(v(coordinate).clamp(0.0, from as f64 - 1.0))?;
        let coordinate = if nearest { b.emit((v(coordinate) + 0.5).floor())? } else { coordinate };
        let low = b.emit(v(coordinate).floor())?;
        let part = b.emit(v(coordinate) - low)?;
        let part = b.reshape(part, &shape)?;
        let now = b.shape(y);
        let take = |b: &mut Build, at: Value, more: f64| -> Result<Value> {
            let at = b.emit((v(at).cast(Type::I64) + more).min(from as f64 - 1.0))?;
            let at = b.reshape(at, &shape)?;
            let at = b.expand(at, &if axis == 0 { [regions, channels, to, now[3]] } else { [regions, channels, now[2], to] })?;
            b.op(Kind::GatherElements, [("axis", Attr::Int(axis as i64 + 2))], &[y, at])
        };
        let (first, second) = (take(b, low, 0.0)?, take(b, low, 1.0)?);
        y = b.emit(v(first) + (v(second) - first) * part)?;
    }
    let outside = n.num("extrapolation_value", 0.0)?;
    one(b.emit(v(inside[0]).and(inside[1]).select(y, outside)))
}

/// Scores without those tokens that would make the end of a sequence repeat `ngram_size` tokens that it holds already.
fn ngram_repeat_block(b: &mut Build, n: &Node) -> Outputs {
    let (ids, scores) = (n.input(0)?, n.input(1)?);
    let gram = positive("attribute `ngram_size`", n.req_int("ngram_size")?)?;
    let (&[batch, len], &[_, words]) = (&b.shape(ids)[..], &b.shape(scores)[..]) else {
        return invalid!("tokens {} and scores {}", b.ty(ids), b.ty(scores));
    };
    let Some(starts) = (len + 1).checked_sub(gram).filter(|&s| s > 0) else { return Ok(vec![scores]) };
    let ids = b.cast(ids, Type::I64)?;
    // What would come next after the same tokens as at the end: [B, starts].
    let next = b.slice_axis(ids, 1, gram - 1, starts)?;
    let next = b.reshape(next, &[batch, starts, 1])?;
    let words = b.iota(words)?;
    let mut hit = b.emit(v(next).eq(words))?;
    for i in 0..gram - 1 {
        let (now, end) = (b.slice_axis(ids, 1, i, starts)?, b.slice_axis(ids, 1, len + 1 - gram + i, 1)?);
        let same = b.emit(v(now).eq(end))?;
        let same = b.reshape(same, &[batch, starts, 1])?;
        hit = b.emit(v(hit).and(same))?;
    }
    let hits = b.cast(hit, Type::I32)?;
    let hits = b.reduce(Kind::ReduceMax, hits, &[1], false)?;
    let blocked = b.cast(hits, Type::Bool)?;
    one(b.emit(v(blocked).select(f64::NEG_INFINITY, scores)))
}

/// Gauss and Jordan's elimination on the matrices beside unit matrices, the largest pivot of each column first.
fn inverse(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let (ty, shape) = (b.elem(x), b.shape(x));
    let side = match shape[..] {
        [.., rows, columns] if rows == columns => rows,
        _ => return invalid!("the inverse of {}", b.ty(x)),
    };
    let batch = count(&shape[..shape.len() - 2])?;
    if batch == 0 || side == 0 {
        return Ok(vec![x]);
    }
    let wide = b.wide(x)?;
    let flat = b.reshape(wide, &[batch, side, side])?;
    let coordinates = b.iota(side)?;
    let column = b.reshape(coordinates, &[side, 1])?;
    let unit = b.emit(v(column).eq(coordinates))?;
    let unit = b.cast(unit, b.elem(flat))?;
    let unit = b.expand(unit, &[batch, side, side])?;
    let both = b.concat(&[flat, unit], 2)?;

    let mut body = b.body();
    let step = body.input("step", TensorType::new(Type::I64, []));
    body.input("cond", TensorType::new(Type::Bool, []));
    let all = body.input("rows", b.ty(both));
    let rows = body.iota(side)?;
    let candidates = body.gather(all, step, 2)?;
    // Rows above are done: no pivot comes from there.
    let weight = body.emit(v(rows).lt(step).select(-1.0, v(candidates).abs()))?;
    let pivot = body.op(Kind::ArgMax, [("axis", Attr::Int(1)), ("keepdims", true.into())], &[weight])?;
    let from = body.emit(v(rows).eq(step).select(pivot, v(rows).eq(pivot).select(step, rows)))?;
    let from = body.reshape(from, &[batch, side, 1])?;
    let swapped = body.op(Kind::GatherNd, [("batch_dims", Attr::Int(1))], &[all, from])?;
    let top = body.gather(swapped, step, 1)?;
    let top = body.reshape(top, &[batch, 1, 2 * side])?;
    let head = body.gather(top, step, 2)?;
    let head = body.reshape(head, &[batch, 1, 1])?;
    let top = body.emit(v(top) / head)?;
    let factors = body.gather(swapped, step, 2)?;
    let factors = body.reshape(factors, &[batch, side, 1])?;
    let rows = body.reshape(rows, &[side, 1])?;
    let next = body.emit(v(rows).eq(step).select(top, v(swapped) - v(factors) * top))?;
    let go = body.constant(Tensor::with_type(TensorType::new(Type::Bool, []), &[1u8]));
    let graph = body.finish(&[("cond".into(), go), ("rows".into(), next)]);

    let (trip, go) = (b.i64(side as i64), b.constant(Tensor::with_type(TensorType::new(Type::Bool, []), &[1u8])));
    let attrs = [("body", graph.into()), ("carried", Attr::Int(1)), ("max_trip", Attr::Int(side as i64))];
    let done = b.op(Kind::Loop, attrs, &[trip, go, both])?;
    let right = b.slice_axis(done, 2, side, side)?;
    let right = b.reshape(right, &shape)?;
    one(b.cast(right, ty))
}

/// x · scale plus one number per channel.
fn image_scaler(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let bias = n.floats("bias")?.unwrap_or_default();
    let bias = b.constant(Tensor::new([bias.len()], &bias));
    let bias = b.cast(bias, b.elem(x))?;
    let bias = b.channels(x, bias)?;
    let scale = n.num("scale", 1.0)?;
    one(b.emit(v(x) * scale + bias))
}

/// Images without borders (left, top, right, bottom), or of a given size from the left and top border on.
fn crop(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let border = crate::ops::helpers::sizes(&n.req_ints("border")?)?;
    let (&[_, _, height, width], &[left, top, right, bottom]) = (&b.shape(x)[..], &border[..]) else {
        return invalid!("{} cropped by {border:?}", b.ty(x));
    };
    let (rows, columns) = match n.ints("scale")?.as_deref() {
        Some(&[rows, columns]) => (size(rows)?, size(columns)?),
        _ => (height.saturating_sub(top + bottom), width.saturating_sub(left + right)),
    };
    if top + rows > height || left + columns > width {
        return invalid!("{} cropped by {border:?}", b.ty(x));
    }
    let y = b.slice_axis(x, 2, top, rows)?;
    one(b.slice_axis(y, 3, left, columns))
}
