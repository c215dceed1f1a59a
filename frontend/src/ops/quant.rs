//! Quantisation: integers that stand for `scale · (q − zero_point)`.
//!
//! Everything is expanded: dequantise is cast to i32, subtract, cast, multiply; quantise is divide, round, add, saturating
//! cast; an integer convolution is a convolution of i32 differences. The rewriter finds the 8-bit kernels in that.

use super::conv::convolution;
use super::expr::v;
use super::helpers::{Outputs, count, one, positive};
use super::linear::matmul;
use super::row::{OpImport, onnx};
use crate::build::{Build, Node, Result, axis, invalid};
use dnnc_ir::{Kind, Type, Value};

pub(super) const OPS: &[OpImport] = &[
    onnx("QuantizeLinear", quantize_linear),
    onnx("DequantizeLinear", dequantize_linear),
    onnx("DynamicQuantizeLinear", dynamic_quantize_linear),
    onnx("MatMulInteger", matmul_integer),
    onnx("ConvInteger", conv_integer),
    onnx("QLinearMatMul", qlinear_matmul),
    onnx("QLinearConv", |b, n| one(qlinear_conv_of(b, n, n.input(0)?))),
];

/// Broadcasts a scale or a zero point to `x`: one number for all, one per element of the axis, or one per block of `block` elements.
pub(super) fn spread(b: &mut Build, x: Value, scale: Value, at: i64, block: i64) -> Result<Value> {
    let (shape, given) = (b.shape(x), b.shape(scale));
    if block != 0 {
        let (block, axis) = (positive("block_size", block)?, axis(at, shape.len())?);
        let blocks = shape[axis].div_ceil(block);
        let fits = given.len() == shape.len() && (0..shape.len()).all(|a| given[a] == if a == axis { blocks } else { shape[a] });
        if !fits {
            return invalid!("scales of shape {given:?} do not fit {shape:?} in blocks of {block} along axis {axis}");
        }
        let mut split = given;
        split.insert(axis + 1, 1);
        let scale = b.reshape(scale, &split)?;
        split[axis + 1] = block;
        let scale = b.expand(scale, &split)?;
        split.remove(axis + 1);
        split[axis] = blocks * block;
        let scale = b.reshape(scale, &split)?;
        return b.slice_axis(scale, axis, 0, shape[axis]);
    }
    if count(&given)? == 1 {
        return b.reshape(scale, &[]);
    }
    let axis = axis(at, shape.len())?;
    if given != [shape[axis]] {
        return invalid!("scales of shape {given:?} are not one per element of axis {axis} of {shape:?}");
    }
    b.along(scale, axis, shape.len())
}

/// round(x / scale) + zero, converted to `to`; all operands broadcast.
pub(super) fn quantize(b: &mut Build, x: Value, scale: Value, zero: Option<Value>, to: Type, saturate: bool) -> Result<Value> {
    let (x, scale) = (b.wide(x)?, b.wide(scale)?);
    let x = b.cast(x, b.elem(scale))?;
    let y = b.emit(v(x) / scale)?;
    requantize(b, y, zero, to, saturate)
}

/// round(x) + zero, converted to `to`; floats are not rounded first: their cast does it.
pub(super) fn requantize(b: &mut Build, x: Value, zero: Option<Value>, to: Type, saturate: bool) -> Result<Value> {
    let mut y = if to.is_float() { x } else { b.emit(v(x).round())? };
    if let Some(zero) = zero.filter(|&z| !b.is_zero(z)) {
        let zero = b.cast(zero, b.elem(y))?;
        y = b.emit(v(y) + zero)?;
    }
    // A cast to less than 8 bits wraps, but quantising saturates.
    if let Some([lo, hi]) = to.range().filter(|_| to.is_narrow()) {
        y = b.op(Kind::Clamp, [("lo", (lo as f64).into()), ("hi", (hi as f64).into())], &[y])?;
    }
    b.op(Kind::Cast, [("to", to.into()), ("saturate", saturate.into())], &[y])
}

/// scale · (q − zero) in the type of `scale`.
pub(super) fn dequantize(b: &mut Build, q: Value, scale: Value, zero: Option<Value>) -> Result<Value> {
    let x = centred(b, q, zero)?;
    let wide = b.wide(scale)?;
    let x = b.cast(x, b.elem(wide))?;
    let y = b.emit(v(x) * wide)?;
    b.cast(y, b.elem(scale))
}

/// q − zero: in i32 for integers, in f32 for 8-bit floats; `q` itself where there is nothing to subtract.
fn centred(b: &mut Build, q: Value, zero: Option<Value>) -> Result<Value> {
    let Some(zero) = zero.filter(|&z| !b.is_zero(z)) else { return Ok(q) };
    let wide = if b.elem(q).is_float() { Type::F32 } else { Type::I32 };
    let (q, zero) = (b.cast(q, wide)?, b.cast(zero, wide)?);
    b.emit(v(q) - zero)
}

pub(super) fn quantize_linear(b: &mut Build, n: &Node) -> Outputs {
    let (x, scale, zero) = (n.input(0)?, n.input(1)?, n.opt(2));
    let (axis, block) = (n.int("axis", 1)?, n.int("block_size", 0)?);
    let to = match (zero, n.dtype_if_set("output_dtype")?) {
        (Some(zero), _) => b.elem(zero),
        (None, Some(to)) => to,
        (None, None) => Type::U8,
    };
    if to == Type::Bool {
        return invalid!("nothing quantises to {to}");
    }
    let scale = spread(b, x, scale, axis, block)?;
    let zero = zero.map(|z| spread(b, x, z, axis, block)).transpose()?;
    let ratio = ratio(b, x, scale, n.dtype_if_set("precision")?)?;
    one(requantize(b, ratio, zero, to, n.flag("saturate", true)?))
}

/// x / scale, rounded to `precision`: by default the type of the two, where they have one.
fn ratio(b: &mut Build, x: Value, scale: Value, precision: Option<Type>) -> Result<Value> {
    let types = [b.elem(x), b.elem(scale)];
    // Integers, and scales that are powers of two in 8 bits, are divided as floats.
    let usual = match types {
        [a, c] if a == c && a.is_float() => a,
        [_, c] if c.is_int() => Type::F64,
        [_, Type::F64] | [Type::F64, _] => Type::F64,
        _ => Type::F32,
    };
    let ty = precision.filter(|t| t.is_float()).unwrap_or(usual);
    let (x, scale) = (b.cast(x, ty)?, b.cast(scale, ty)?);
    let (x, scale) = (b.wide(x)?, b.wide(scale)?);
    let y = b.emit(v(x) / scale)?;
    let rounded = b.cast(y, ty)?;
    b.wide(rounded)
}

pub(super) fn dequantize_linear(b: &mut Build, n: &Node) -> Outputs {
    let (x, scale, zero) = (n.input(0)?, n.input(1)?, n.opt(2));
    let (axis, block) = (n.int("axis", 1)?, n.int("block_size", 0)?);
    // Scales that are powers of two in 8 bits are no type to compute in.
    let scale = if b.elem(scale).bytes() == 1 { b.cast(scale, Type::F32)? } else { scale };
    let to = n.dtype_if_set("output_dtype")?.unwrap_or(b.elem(scale));
    let scale = spread(b, x, scale, axis, block)?;
    let zero = zero.map(|z| spread(b, x, z, axis, block)).transpose()?;
    let y = dequantize(b, x, scale, zero)?;
    one(b.cast(y, to))
}

/// The u8 scale and zero point that cover the range of `x` and 0, and `x` in them.
pub(super) fn quantize_dynamically(b: &mut Build, x: Value) -> Result<[Value; 3]> {
    let axes: Vec<usize> = (0..b.rank(x)).collect();
    let (lo, hi) = (b.reduce(Kind::ReduceMin, x, &axes, false)?, b.reduce(Kind::ReduceMax, x, &axes, false)?);
    let (lo, hi) = (b.emit(v(lo).min(0.0))?, b.emit(v(hi).max(0.0))?);
    let scale = b.emit((v(hi) - lo) / 255.0)?;
    // All zero: any scale will do.
    let scale = b.emit(v(scale).eq(0.0).select(1.0, scale))?;
    let zero = b.emit((-v(lo) / scale).clamp(0.0, 255.0).round().cast(Type::U8))?;
    let y = quantize(b, x, scale, Some(zero), Type::U8, true)?;
    Ok([y, scale, zero])
}

fn dynamic_quantize_linear(b: &mut Build, n: &Node) -> Outputs {
    Ok(quantize_dynamically(b, n.input(0)?)?.to_vec())
}

/// A zero point of a matrix: one number, or one per row (`along` −2) or column (−1).
fn matrix_zero(b: &mut Build, x: Value, zero: Option<Value>, along: i64) -> Result<Option<Value>> {
    let Some(zero) = zero else { return Ok(None) };
    let (shape, given) = (b.shape(x), b.shape(zero));
    if given.len() <= 1 && count(&given)? != 1 && shape.len() >= 2 {
        let at = axis(along, shape.len())?;
        return if given == [shape[at]] { b.along(zero, at, shape.len()).map(Some) } else { invalid!("{given:?} numbers for {shape:?}") };
    }
    Ok(Some(if count(&given)? == 1 { b.reshape(zero, &[])? } else { zero }))
}

/// The i32 product of two matrices of integers less their zero points.
pub(super) fn integer_matmul(b: &mut Build, x: Value, w: Value, x_zero: Option<Value>, w_zero: Option<Value>) -> Result<Value> {
    let x_zero = matrix_zero(b, x, x_zero, -2)?;
    let w_zero = matrix_zero(b, w, w_zero, -1)?;
    let (x, w) = (centred(b, x, x_zero)?, centred(b, w, w_zero)?);
    // 8-bit floats have no product of their own.
    let (x, w) = if b.elem(x).is_float() { (b.cast(x, Type::F32)?, b.cast(w, Type::F32)?) } else { (x, w) };
    matmul(b, x, w)
}

fn matmul_integer(b: &mut Build, n: &Node) -> Outputs {
    one(integer_matmul(b, n.input(0)?, n.input(1)?, n.opt(2), n.opt(3)))
}

fn qlinear_matmul(b: &mut Build, n: &Node) -> Outputs {
    let (x, x_scale, x_zero) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let (w, w_scale, w_zero) = (n.input(3)?, n.input(4)?, n.input(5)?);
    let (y_scale, y_zero) = (n.input(6)?, n.input(7)?);
    let acc = integer_matmul(b, x, w, Some(x_zero), Some(w_zero))?;
    let x_scale = scale_of_matrix(b, x, x_scale, -2)?;
    let w_scale = scale_of_matrix(b, w, w_scale, -1)?;
    let y_scale = scale_of_matrix(b, acc, y_scale, -2)?;
    let y_zero = matrix_zero(b, acc, Some(y_zero), -2)?;
    one(rescale(b, acc, [x_scale, w_scale, y_scale], y_zero, b.elem(n.input(7)?)))
}

fn scale_of_matrix(b: &mut Build, x: Value, scale: Value, along: i64) -> Result<Value> {
    let wide = b.wide(scale)?;
    Ok(matrix_zero(b, x, Some(wide), along)?.unwrap_or(wide))
}

/// acc · (x_scale · w_scale / y_scale), quantised.
fn rescale(b: &mut Build, acc: Value, [x, w, y]: [Value; 3], zero: Option<Value>, to: Type) -> Result<Value> {
    let factor = b.emit(v(x) * w / y)?;
    let real = b.emit(v(acc).cast(b.elem(factor)) * factor)?;
    requantize(b, real, zero, to, true)
}

/// The zero point of weights [O,…]: one number or one per output channel.
fn kernel_zero(b: &mut Build, w: Value, zero: Option<Value>) -> Result<Option<Value>> {
    match zero {
        None => Ok(None),
        Some(zero) => spread(b, w, zero, 0, 0).map(Some),
    }
}

fn conv_integer(b: &mut Build, n: &Node) -> Outputs {
    let (x, w) = (n.input(0)?, n.input(1)?);
    let x_zero = n.opt(2).map(|z| spread(b, x, z, 1, 0)).transpose()?;
    one(integer_conv(b, n, x, w, x_zero, n.opt(3)))
}

fn integer_conv(b: &mut Build, n: &Node, x: Value, w: Value, x_zero: Option<Value>, w_zero: Option<Value>) -> Result<Value> {
    let w_zero = kernel_zero(b, w, w_zero)?;
    let (x, w) = (centred(b, x, x_zero)?, centred(b, w, w_zero)?);
    convolution(b, n, x, w, None)
}

/// The quantised convolution that the inputs after the first and the attributes of `n` describe.
pub(super) fn qlinear_conv_of(b: &mut Build, n: &Node, x: Value) -> Result<Value> {
    let (x_scale, x_zero) = (n.input(1)?, n.input(2)?);
    let (w, w_scale, w_zero) = (n.input(3)?, n.input(4)?, n.input(5)?);
    let (y_scale, y_zero) = (n.input(6)?, n.input(7)?);
    let x_zero = b.scalar_of(x_zero)?;
    let mut acc = integer_conv(b, n, x, w, Some(x_zero), Some(w_zero))?;
    if let Some(bias) = n.opt(8) {
        let bias = b.channels(acc, bias)?;
        acc = b.emit(v(acc) + bias)?;
    }
    let w_scale = if count(&b.shape(w_scale))? == 1 { b.scalar_of(w_scale)? } else { b.channels(acc, w_scale)? };
    let (x_scale, y_scale, to) = (b.scalar_of(x_scale)?, b.scalar_of(y_scale)?, b.elem(y_zero));
    let y_zero = b.scalar_of(y_zero)?;
    rescale(b, acc, [x_scale, w_scale, y_scale], Some(y_zero), to)
}
