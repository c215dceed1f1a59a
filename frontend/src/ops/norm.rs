//! Normalisation and softmax.

use super::expr::v;
use super::helpers::{Outputs, count, one, positive};
use super::row::{OpImport, onnx};
use crate::build::{Build, Node, Result, axes, invalid, unsupported};
use dnnc_ir::{Kind, Type, Value};

pub(super) const OPS: &[OpImport] = &[
    onnx("BatchNormalization", batch_norm),
    onnx("InstanceNormalization", instance_norm),
    onnx("GroupNormalization", group_norm),
    onnx("LayerNormalization", layer_norm),
    onnx("RMSNormalization", rms_norm),
    onnx("MeanVarianceNormalization", mean_variance_norm),
    onnx("LpNormalization", lp_norm),
    onnx("LRN", lrn),
    onnx("Softmax", |b, n| softmax(b, n, Kind::Softmax)),
    onnx("LogSoftmax", |b, n| softmax(b, n, Kind::LogSoftmax)),
    onnx("Hardmax", hardmax),
    OpImport { note: "not: training mode", ..onnx("Dropout", dropout) },
];

/// One number per channel, or per element with `spatial` = 0 before opset 9.
fn batch_norm(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let [scale, bias, mean, var] = [n.input(1)?, n.input(2)?, n.input(3)?, n.input(4)?];
    let eps = n.num("epsilon", 1e-5)?;
    let wide = b.wide(x)?;
    let shape = b.shape(x);
    if n.flag("training_mode", false)? {
        return trained_batch_norm(b, n, wide, [scale, bias, mean, var], eps);
    }
    let single = n.opset < 9 && !n.flag("spatial", true)?;
    let lay = |b: &mut Build, p: Value| -> Result<Value> {
        let p = b.cast(p, b.elem(wide))?;
        match shape.len() {
            1 if b.rank(p) <= 1 => Ok(p),
            _ if single => b.reshape(p, &shape[1..]),
            _ => b.channels(wide, p),
        }
    };
    let [scale, bias, mean, var] = [lay(b, scale)?, lay(b, bias)?, lay(b, mean)?, lay(b, var)?];
    // Two numbers per channel, computed at compile time if the parameters are constants.
    let factor = b.emit(v(scale) / (v(var) + eps).sqrt())?;
    let shift = b.emit(v(bias) - v(mean) * factor)?;
    let y = b.emit(v(wide) * factor + shift)?;
    one(b.cast(y, b.elem(x)))
}

/// Statistics of the batch itself, and the running ones moved towards them.
fn trained_batch_norm(b: &mut Build, n: &Node, wide: Value, [scale, bias, mean, var]: [Value; 4], eps: f64) -> Outputs {
    let momentum = n.num("momentum", f64::from(0.9_f32))?;
    let rank = b.rank(wide);
    let others: Vec<usize> = (0..rank).filter(|&a| a != 1).collect();
    let now = b.reduce(Kind::ReduceMean, wide, &others, true)?;
    let centred = b.emit(v(wide) - now)?;
    let square = b.emit(v(centred) * centred)?;
    let spread = b.reduce(Kind::ReduceMean, square, &others, true)?;
    let (scale, bias) = (b.cast(scale, b.elem(wide))?, b.cast(bias, b.elem(wide))?);
    let (scale, bias) = (b.channels(wide, scale)?, b.channels(wide, bias)?);
    let y = b.emit(v(centred) * (v(scale) / (v(spread) + eps).sqrt()) + bias)?;
    let mut outputs = vec![b.cast(y, b.elem(n.input(0)?))?];
    for (running, found) in [(mean, now), (var, spread)] {
        let wide_running = b.cast(running, b.elem(wide))?;
        let found = b.reshape(found, &b.shape(running))?;
        let moved = b.emit(v(wide_running) * momentum + v(found) * (1.0 - momentum))?;
        outputs.push(b.cast(moved, b.elem(running))?);
    }
    Ok(outputs)
}

fn normed(b: &mut Build, kind: Kind, x: Value, over: &[usize], eps: f64) -> Result<Value> {
    b.op(kind, [("axes", over.into()), ("eps", eps.into())], &[x])
}

/// x · scale + bias in the type of `x`, cast to `to`.
fn affine(b: &mut Build, x: Value, scale: Option<Value>, bias: Option<Value>, to: Type) -> Result<Value> {
    let mut y = x;
    if let Some(scale) = scale {
        let scale = b.cast(scale, b.elem(x))?;
        y = b.emit(v(y) * scale)?;
    }
    if let Some(bias) = bias {
        let bias = b.cast(bias, b.elem(x))?;
        y = b.emit(v(y) + bias)?;
    }
    b.cast(y, to)
}

fn instance_norm(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let (scale, bias) = (b.channels(x, n.input(1)?)?, b.channels(x, n.input(2)?)?);
    let wide = b.wide(x)?;
    let over: Vec<usize> = (2..b.rank(x)).collect();
    let y = normed(b, Kind::Norm, wide, &over, n.num("epsilon", 1e-5)?)?;
    one(affine(b, y, Some(scale), Some(bias), b.elem(x)))
}

fn group_norm(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let (shape, groups) = (b.shape(x), positive("attribute `num_groups`", n.req_int("num_groups")?)?);
    if shape.len() < 2 || shape[1] % groups != 0 {
        return invalid!("{shape:?} in {groups} groups of channels");
    }
    let wide = b.wide(x)?;
    let split = b.reshape(wide, &[shape[0], groups, count(&shape[1..])? / groups])?;
    let y = normed(b, Kind::Norm, split, &[2], n.num("epsilon", 1e-5)?)?;
    let y = b.reshape(y, &shape)?;
    let mut parameters = [n.input(1)?, n.input(2)?];
    for p in &mut parameters {
        // Before opset 21 there is one number per group.
        if n.opset < 21 && b.shape(*p) == [groups] {
            let column = b.reshape(*p, &[groups, 1])?;
            *p = b.expand(column, &[groups, shape[1] / groups])?;
        }
        *p = b.channels(x, *p)?;
    }
    one(affine(b, y, Some(parameters[0]), Some(parameters[1]), b.elem(x)))
}

fn layer_norm(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    layer_norm_of(b, n, x, n.input(1)?, n.opt(2), 1e-5)
}

/// Layer normalisation of `x`: the result, the mean and one over the deviation.
pub(super) fn layer_norm_of(b: &mut Build, n: &Node, x: Value, scale: Value, bias: Option<Value>, default_eps: f64) -> Outputs {
    let (rank, eps) = (b.rank(x), n.num("epsilon", default_eps)?);
    let over: Vec<usize> = (n.axis("axis", -1, rank)?..rank).collect();
    let wide = b.wide(x)?;
    let y = normed(b, Kind::Norm, wide, &over, eps)?;
    let mut outputs = vec![affine(b, y, Some(scale), bias, b.elem(x))?];
    if n.wants_output(1) || n.wants_output(2) {
        let mean = b.reduce(Kind::ReduceMean, wide, &over, true)?;
        let square = b.emit((v(wide) - mean) * (v(wide) - mean))?;
        let var = b.reduce(Kind::ReduceMean, square, &over, true)?;
        let inverse = b.emit((v(var) + eps).sqrt().recip())?;
        let stash = n.dtype_if_set("stash_type")?.unwrap_or(Type::F32);
        outputs.extend([b.cast(mean, stash)?, b.cast(inverse, stash)?]);
    }
    Ok(outputs)
}

fn rms_norm(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    one(rms_norm_of(b, n, x, n.input(1)?, 1e-5))
}

pub(super) fn rms_norm_of(b: &mut Build, n: &Node, x: Value, scale: Value, default_eps: f64) -> Result<Value> {
    let rank = b.rank(x);
    let over: Vec<usize> = (n.axis("axis", -1, rank)?..rank).collect();
    let wide = b.wide(x)?;
    let y = normed(b, Kind::RmsNorm, wide, &over, n.num("epsilon", default_eps)?)?;
    affine(b, y, Some(scale), None, b.elem(x))
}

fn mean_variance_norm(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let over = axes(&n.ints("axes")?.unwrap_or(vec![0, 2, 3]), b.rank(x))?;
    let wide = b.wide(x)?;
    // The standard adds 1e-9 to the deviation, so that constant input gives 0: here its square is added to the variance.
    let y = normed(b, Kind::Norm, wide, &over, 1e-18)?;
    one(b.cast(y, b.elem(x)))
}

fn lp_norm(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let axis = n.axis("axis", -1, b.rank(x))?;
    let wide = b.wide(x)?;
    let length = match n.int("p", 2)? {
        1 => {
            let size = b.emit(v(wide).abs())?;
            b.reduce(Kind::ReduceSum, size, &[axis], true)?
        }
        2 => {
            let square = b.emit(v(wide) * wide)?;
            let sum = b.reduce(Kind::ReduceSum, square, &[axis], true)?;
            b.emit(v(sum).sqrt())?
        }
        p => return unsupported!("LpNormalization with p={p}: 1 and 2 are supported"),
    };
    let y = b.emit(v(length).eq(0.0).select(0.0, v(wide) / length))?;
    one(b.cast(y, b.elem(x)))
}

/// x / (bias + alpha · mean of x² over neighbouring channels)^beta: the mean is a pool along the channels.
fn lrn(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let (alpha, beta, bias) = (n.num("alpha", f64::from(1e-4_f32))?, n.num("beta", 0.75)?, n.num("bias", 1.0)?);
    let size = positive("attribute `size`", n.req_int("size")?)?;
    let shape = b.shape(x);
    if shape.len() < 2 {
        return invalid!("{} has no channels", b.ty(x));
    }
    let wide = b.wide(x)?;
    let square = b.emit(v(wide) * wide)?;
    // The window is a sum of views of the padded squares, each shifted by one channel, which becomes one element-wise kernel.
    let mut pads = vec![0i64; 2 * shape.len()];
    pads[1] = ((size - 1) / 2) as i64;
    pads[shape.len() + 1] = (size / 2) as i64;
    let zero = b.scalar(b.elem(square), 0.0);
    let padded = b.op(Kind::Pad, [("pads", pads.into())], &[square, zero])?;
    let mut sum = b.slice_axis(padded, 1, 0, shape[1])?;
    for shift in 1..size {
        let next = b.slice_axis(padded, 1, shift, shape[1])?;
        sum = b.binary(Kind::Add, sum, next)?;
    }
    let mean = b.emit(v(sum) / size as f64)?;
    let y = b.emit(v(wide) / (v(mean) * alpha + bias).pow(beta))?;
    one(b.cast(y, b.elem(x)))
}

/// Applies `f` along the attribute `axis`; before opset 13 that is all axes from there on, taken as one.
fn along(b: &mut Build, n: &Node, f: impl FnOnce(&mut Build, Value, usize) -> Result<Value>) -> Outputs {
    let x = n.input(0)?;
    let shape = b.shape(x);
    if n.opset >= 13 {
        let axis = n.axis("axis", -1, shape.len())?;
        return one(f(b, x, axis));
    }
    // The default is beyond the last axis of a vector, which is then meant.
    let axis = n.int("axis", 1.min(shape.len() as i64 - 1))?;
    let axis = crate::build::axis(axis, shape.len())?;
    let flat = b.reshape(x, &[count(&shape[..axis])?, count(&shape[axis..])?])?;
    let y = f(b, flat, 1)?;
    one(b.reshape(y, &shape))
}

fn softmax(b: &mut Build, n: &Node, kind: Kind) -> Outputs {
    along(b, n, |b, x, axis| b.on_axis(kind, x, axis))
}

fn hardmax(b: &mut Build, n: &Node) -> Outputs {
    along(b, n, |b, x, axis| {
        let shape = b.shape(x);
        if shape.contains(&0) {
            return Ok(x); // nothing is largest of nothing
        }
        let top = b.op(Kind::ArgMax, [("axis", (axis as i64).into()), ("keepdims", true.into())], &[x])?;
        let indices = b.iota(shape[axis])?;
        let indices = b.along(indices, axis, shape.len())?;
        b.emit(v(top).eq(indices).cast(b.elem(x)))
    })
}

/// At inference nothing is dropped.
fn dropout(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    if let Some(training) = n.opt(2) {
        let ratio = n.opt(1).and_then(|r| b.known_f64(r));
        let training = b.need_i64(training)? != 0;
        if training && ratio != Some(0.0) {
            return unsupported!("Dropout in training mode: random numbers are not supported");
        }
    }
    let mut outputs = vec![x];
    if n.wants_output(1) {
        // Before opset 10 the mask has the type of the data.
        let ty = if n.opset < 10 { b.elem(x) } else { Type::Bool };
        outputs.push(b.full(&b.shape(x), ty, 1.0)?);
    }
    Ok(outputs)
}
