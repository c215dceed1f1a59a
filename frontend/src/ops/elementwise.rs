//! Arithmetic, comparisons, logic, conversions and activations.

use super::expr::{Expr, num, v};
use super::helpers::{Outputs, count, one};
use super::row::{OpImport, onnx};
use crate::build::{Build, Node, Result, invalid, unsupported};
use dnnc_ir::{Attr, Kind, Type, Value, broadcast};

pub(super) const OPS: &[OpImport] = &[
    onnx("Abs", |b, n| map(b, n, Kind::Abs)),
    onnx("Acos", |b, n| map(b, n, Kind::Acos)),
    onnx("Acosh", |b, n| map(b, n, Kind::Acosh)),
    onnx("Asin", |b, n| map(b, n, Kind::Asin)),
    onnx("Asinh", |b, n| map(b, n, Kind::Asinh)),
    onnx("Atan", |b, n| map(b, n, Kind::Atan)),
    onnx("Atanh", |b, n| map(b, n, Kind::Atanh)),
    onnx("BitwiseNot", |b, n| map(b, n, Kind::BitNot)),
    onnx("Ceil", |b, n| map(b, n, Kind::Ceil)),
    onnx("Cos", |b, n| map(b, n, Kind::Cos)),
    onnx("Cosh", |b, n| map(b, n, Kind::Cosh)),
    onnx("Erf", |b, n| {
        // Before opset 13 integers may come, too.
        let x = n.input(0)?;
        let wide = if b.elem(x).is_float() { x } else { b.float(x)? };
        let y = b.op(Kind::Erf, [], &[wide])?;
        one(b.cast(y, b.elem(x)))
    }),
    onnx("Exp", |b, n| map(b, n, Kind::Exp)),
    onnx("Floor", |b, n| map(b, n, Kind::Floor)),
    onnx("HardSwish", |b, n| map(b, n, Kind::HardSwish)),
    OpImport { note: "tensors only", ..onnx("Identity", |_, n| Ok(vec![n.input(0)?])) },
    onnx("IsInf", is_inf),
    onnx("IsNaN", |b, n| {
        let x = compared(b, n.input(0)?)?;
        one(b.op(Kind::IsNan, [], &[x]))
    }),
    onnx("Log", |b, n| map(b, n, Kind::Log)),
    onnx("Neg", |b, n| map(b, n, Kind::Neg)),
    onnx("Not", |b, n| map(b, n, Kind::Not)),
    onnx("Reciprocal", |b, n| map(b, n, Kind::Recip)),
    onnx("Relu", |b, n| map(b, n, Kind::Relu)),
    onnx("Round", |b, n| map(b, n, Kind::Round)),
    onnx("Sigmoid", |b, n| map(b, n, Kind::Sigmoid)),
    onnx("Sign", |b, n| map(b, n, Kind::Sign)),
    onnx("Sin", |b, n| map(b, n, Kind::Sin)),
    onnx("Sinh", |b, n| map(b, n, Kind::Sinh)),
    onnx("Softplus", |b, n| map(b, n, Kind::Softplus)),
    onnx("Sqrt", |b, n| map(b, n, Kind::Sqrt)),
    onnx("Tan", |b, n| map(b, n, Kind::Tan)),
    onnx("Tanh", |b, n| map(b, n, Kind::Tanh)),
    onnx("Add", |b, n| binary(b, n, Kind::Add)),
    onnx("Sub", |b, n| binary(b, n, Kind::Sub)),
    onnx("Mul", |b, n| binary(b, n, Kind::Mul)),
    onnx("Div", |b, n| binary(b, n, Kind::Div)),
    onnx("Pow", |b, n| binary(b, n, Kind::Pow)),
    onnx("And", |b, n| binary(b, n, Kind::And)),
    onnx("Or", |b, n| binary(b, n, Kind::Or)),
    onnx("Xor", |b, n| binary(b, n, Kind::Xor)),
    onnx("BitwiseAnd", |b, n| binary(b, n, Kind::And)),
    onnx("BitwiseOr", |b, n| binary(b, n, Kind::Or)),
    onnx("BitwiseXor", |b, n| binary(b, n, Kind::Xor)),
    onnx("Equal", |b, n| binary(b, n, Kind::Eq)),
    onnx("Less", |b, n| binary(b, n, Kind::Lt)),
    onnx("LessOrEqual", |b, n| binary(b, n, Kind::Le)),
    onnx("Greater", |b, n| swapped(b, n, Kind::Lt)),
    onnx("GreaterOrEqual", |b, n| swapped(b, n, Kind::Le)),
    onnx("Mod", modulo),
    onnx("BitShift", bit_shift),
    onnx("Max", |b, n| variadic(b, n, Kind::Max)),
    onnx("Min", |b, n| variadic(b, n, Kind::Min)),
    onnx("Sum", |b, n| variadic(b, n, Kind::Add)),
    onnx("Mean", mean),
    onnx("Where", select),
    OpImport { note: "not: strings", ..onnx("Cast", cast) },
    OpImport { note: "not: strings", ..onnx("CastLike", cast_like) },
    onnx("BitCast", bit_cast),
    onnx("Clip", clip),
    onnx("PRelu", prelu),
    onnx("LeakyRelu", leaky_relu),
    onnx("ThresholdedRelu", |b, n| thresholded(b, n, n.num("alpha", 1.0)?)),
    onnx("Elu", |b, n| activation(b, n, |x, a, _| elu(x, a), 1.0, 0.0)),
    onnx("Celu", |b, n| activation(b, n, |x, a, _| v(x).max(0.0) + ((v(x).min(0.0) / a).expm1() * a), 1.0, 0.0)),
    onnx("Selu", |b, n| {
        let (alpha, gamma) = (n.num("alpha", 1.673_263_2)?, n.num("gamma", 1.050_701)?);
        formula(b, n, |x| elu(x, alpha) * gamma)
    }),
    onnx("HardSigmoid", |b, n| activation(b, n, |x, a, c| (v(x) * a + c).clamp(0.0, 1.0), 0.2, 0.5)),
    onnx("Softsign", |b, n| formula(b, n, |x| v(x) / (v(x).abs() + 1.0))),
    onnx("Mish", |b, n| formula(b, n, |x| v(x) * v(x).softplus().tanh())),
    onnx("Gelu", gelu),
    onnx("Swish", |b, n| swish(b, n, n.input(0)?)),
    onnx("SwiGLU", swiglu),
    onnx("Shrink", shrink),
];

fn map(b: &mut Build, n: &Node, kind: Kind) -> Outputs {
    one(b.op(kind, [], &[n.input(0)?]))
}

/// A formula on the first input, computed in f32 when that is narrower.
fn formula(b: &mut Build, n: &Node, f: impl FnOnce(Value) -> Expr) -> Outputs {
    let x = n.input(0)?;
    let wide = b.wide(x)?;
    let y = b.emit(f(wide))?;
    one(b.cast(y, b.elem(x)))
}

/// A formula on the first input and the attributes `alpha` and `beta`.
fn activation(b: &mut Build, n: &Node, f: fn(Value, f64, f64) -> Expr, alpha: f64, beta: f64) -> Outputs {
    let (alpha, beta) = (n.num("alpha", alpha)?, n.num("beta", beta)?);
    formula(b, n, |x| f(x, alpha, beta))
}

/// Both operands of a binary operator. Before opset 7 the second was laid along `axis` of the first.
fn operands(b: &mut Build, n: &Node) -> Result<[Value; 2]> {
    let (x, y) = (n.input(0)?, n.input(1)?);
    if n.opset >= 7 || !n.flag("broadcast", false)? || !n.has("axis") {
        return Ok([x, y]);
    }
    let (rank, own) = (b.rank(x), b.rank(y));
    let axis = n.axis("axis", 0, rank.max(1))?;
    if axis + own > rank {
        return invalid!("{:?} does not broadcast along axis {axis} of {:?}", b.shape(y), b.shape(x));
    }
    let mut shape = b.shape(y);
    shape.resize(rank - axis, 1);
    Ok([x, b.reshape(y, &shape)?])
}

fn binary(b: &mut Build, n: &Node, kind: Kind) -> Outputs {
    let both = operands(b, n)?;
    one(b.op(kind, [], &both))
}

fn swapped(b: &mut Build, n: &Node, kind: Kind) -> Outputs {
    let [x, y] = operands(b, n)?;
    one(b.op(kind, [], &[y, x]))
}

fn modulo(b: &mut Build, n: &Node) -> Outputs {
    one(b.op(Kind::Mod, [("trunc", n.flag("fmod", false)?.into())], &[n.input(0)?, n.input(1)?]))
}

fn is_inf(b: &mut Build, n: &Node) -> Outputs {
    let (negative, positive) = (n.flag("detect_negative", true)?, n.flag("detect_positive", true)?);
    let x = compared(b, n.input(0)?)?;
    one(b.op(Kind::IsInf, [("positive", positive.into()), ("negative", negative.into())], &[x]))
}

/// Floats of 8 bits as f32, which holds their infinities and NaN; others as they are.
fn compared(b: &mut Build, x: Value) -> Result<Value> {
    if b.elem(x).bytes() == 1 { b.cast(x, Type::F32) } else { Ok(x) }
}

/// Shifts of signed integers are those of unsigned ones, with sign extension.
fn bit_shift(b: &mut Build, n: &Node) -> Outputs {
    let (x, by) = (n.input(0)?, n.input(1)?);
    let ty = b.elem(x);
    let left = match n.string("direction", "")? {
        "LEFT" => true,
        "RIGHT" => false,
        other => return invalid!("attribute `direction` is {other:?}"),
    };
    let kind = if left { Kind::Shl } else { Kind::Shr };
    let unsigned = match ty {
        Type::I8 => Type::U8,
        Type::I16 => Type::U16,
        Type::I32 => Type::U32,
        Type::I64 => Type::U64,
        _ => return one(b.op(kind, [], &[x, by])),
    };
    let to_bits = |b: &mut Build, x| b.op(Kind::Bitcast, [("to", unsigned.into())], &[x]);
    // A negative shift count is a huge one as an unsigned number, which is what the standard asks for. For x < 0 the arithmetic
    // shift is !(!x >> n).
    let by = to_bits(b, by)?;
    let y = if left {
        let bits = to_bits(b, x)?;
        b.op(Kind::Shl, [], &[bits, by])?
    } else {
        let zero = b.scalar(ty, 0.0);
        let negative = b.op(Kind::Lt, [], &[x, zero])?;
        let flipped = b.op(Kind::BitNot, [], &[x])?;
        let magnitude = b.op(Kind::Select, [], &[negative, flipped, x])?;
        let magnitude = to_bits(b, magnitude)?;
        let shifted = b.op(Kind::Shr, [], &[magnitude, by])?;
        let flipped = b.op(Kind::BitNot, [], &[shifted])?;
        b.op(Kind::Select, [], &[negative, flipped, shifted])?
    };
    one(b.op(Kind::Bitcast, [("to", ty.into())], &[y]))
}

fn fold(b: &mut Build, n: &Node, kind: Kind) -> Result<Value> {
    let mut all = n.all_inputs()?.into_iter();
    let Some(mut y) = all.next() else { return invalid!("there is no input") };
    for x in all {
        y = b.op(kind, [], &[y, x])?;
    }
    Ok(y)
}

fn variadic(b: &mut Build, n: &Node, kind: Kind) -> Outputs {
    one(fold(b, n, kind))
}

fn mean(b: &mut Build, n: &Node) -> Outputs {
    let sum = fold(b, n, Kind::Add)?;
    one(match n.inputs.len() {
        1 => Ok(sum),
        count => b.emit(v(sum) / count as f64),
    })
}

fn select(b: &mut Build, n: &Node) -> Outputs {
    one(b.op(Kind::Select, [], &[n.input(0)?, n.input(1)?, n.input(2)?]))
}

fn convert(b: &mut Build, n: &Node, x: Value, to: Type) -> Outputs {
    if b.elem(x) == to {
        return one(Ok(x));
    }
    let round = match n.string("round_mode", "up")? {
        "up" => "up",
        "down" => "down",
        "nearest" => "nearest",
        other => return invalid!("attribute `round_mode` is {other:?}"),
    };
    one(b.op(Kind::Cast, [("to", to.into()), ("saturate", n.flag("saturate", true)?.into()), ("round", round.into())], &[x]))
}

fn cast(b: &mut Build, n: &Node) -> Outputs {
    let Some(to) = n.dtype("to")? else { return invalid!("attribute `to` is missing") };
    convert(b, n, n.input(0)?, to)
}

fn cast_like(b: &mut Build, n: &Node) -> Outputs {
    convert(b, n, n.input(0)?, b.elem(n.input(1)?))
}

fn bit_cast(b: &mut Build, n: &Node) -> Outputs {
    let Some(to) = n.dtype("to")? else { return invalid!("attribute `to` is missing") };
    let mut x = n.input(0)?;
    // Elements of less than 8 bits are stored one per byte, signed ones sign-extended: a cast between integers keeps the bits that count.
    if b.elem(x) == Type::F4E2M1 && to.is_int() {
        x = b.op(Kind::Bitcast, [("to", Type::U4.into())], &[x])?;
    }
    match (b.elem(x), to) {
        (Type::I4, Type::F4E2M1) => x = b.cast(x, Type::U4)?,
        (Type::I4, Type::U4) | (Type::U4, Type::I4) | (Type::I2, Type::U2) | (Type::U2, Type::I2) => x = b.cast(x, to)?,
        _ => {}
    }
    if b.elem(x) == to {
        return Ok(vec![x]);
    }
    one(b.op(Kind::Bitcast, [("to", to.into())], &[x]))
}

/// Bounds are attributes before opset 11, then inputs of one element that need not be known.
fn clip(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    if n.opset < 11 {
        let (lo, hi) = (n.num("min", f64::NEG_INFINITY)?, n.num("max", f64::INFINITY)?);
        return one(b.emit(v(x).clamp(lo, hi)));
    }
    let (lo, hi) = (n.opt(1), n.opt(2));
    for bound in [lo, hi].into_iter().flatten() {
        if count(&b.shape(bound))? != 1 {
            return invalid!("a bound of Clip has shape {:?}", b.shape(bound));
        }
    }
    let exact = |b: &mut Build, bound: Option<Value>, default: f64| match bound {
        None => Some(default),
        Some(bound) => b.known_f64(bound).filter(|n| !n.is_nan() && n.abs() < 9e15),
    };
    if let (Some(lo), Some(hi)) = (exact(b, lo, f64::NEG_INFINITY), exact(b, hi, f64::INFINITY)) {
        return one(if (lo, hi) == (f64::NEG_INFINITY, f64::INFINITY) { Ok(x) } else { b.emit(v(x).clamp(lo, hi)) });
    }
    let mut y = x;
    for (bound, kind) in [(lo, Kind::Max), (hi, Kind::Min)] {
        if let Some(bound) = bound {
            let bound = b.reshape(bound, &[])?;
            y = b.op(kind, [], &[y, bound])?;
        }
    }
    one(Ok(y))
}

fn prelu(b: &mut Build, n: &Node) -> Outputs {
    let (x, mut slope) = (n.input(0)?, n.input(1)?);
    let (shape, len) = (b.shape(x), count(&b.shape(slope))?);
    // Before opset 7, and in many models since, a vector of slopes has one per channel.
    if b.rank(slope) == 1 && shape.len() > 1 && len == shape[1] && (n.opset < 7 || broadcast(&shape, &[len]).as_ref() != Some(&shape)) {
        slope = b.along(slope, 1, shape.len())?;
    }
    if broadcast(&shape, &b.shape(slope)).as_ref() != Some(&shape) {
        return invalid!("a slope of shape {:?} does not broadcast to {shape:?}", b.shape(slope));
    }
    let zero = b.scalar(b.elem(x), 0.0);
    one(b.emit(v(x).lt(zero).select(v(x) * slope, x)))
}

fn leaky_relu(b: &mut Build, n: &Node) -> Outputs {
    let alpha = n.num("alpha", 0.01)?;
    // max(x, αx) is one operation less; α = 0 would turn +∞ into NaN.
    let short = alpha > 0.0 && alpha <= 1.0;
    formula(b, n, |x| if short { v(x).max(v(x) * alpha) } else { v(x).lt(0.0).select(v(x) * alpha, x) })
}

pub(super) fn thresholded(b: &mut Build, n: &Node, alpha: f64) -> Outputs {
    formula(b, n, |x| num(alpha).lt(x).select(x, 0.0))
}

fn elu(x: Value, alpha: f64) -> Expr {
    v(x).lt(0.0).select(v(x).expm1() * alpha, x)
}

fn gelu(b: &mut Build, n: &Node) -> Outputs {
    match n.string("approximate", "none")? {
        "none" => formula(b, n, |x| v(x).gelu()),
        "tanh" => formula(b, n, |x| v(x).gelu_tanh()),
        other => unsupported!("Gelu with approximate={other:?}"),
    }
}

fn swish(b: &mut Build, n: &Node, x: Value) -> Outputs {
    let alpha = n.num("alpha", 1.0)?;
    let wide = b.wide(x)?;
    let y = b.emit(if alpha == 1.0 { v(wide).silu() } else { v(wide) * (v(wide) * alpha).sigmoid() })?;
    one(b.cast(y, b.elem(x)))
}

fn swiglu(b: &mut Build, n: &Node) -> Outputs {
    let (x, y) = (n.input(0)?, n.input(1)?);
    if b.ty(x) != b.ty(y) {
        return invalid!("SwiGLU of {} and {}", b.ty(x), b.ty(y));
    }
    let (wide, other) = (b.wide(x)?, b.wide(y)?);
    let gate = swish(b, n, wide)?[0];
    let product = b.emit(v(gate) * other)?;
    one(b.cast(product, b.elem(x)))
}

fn shrink(b: &mut Build, n: &Node) -> Outputs {
    let (lambda, bias) = (n.num("lambd", 0.5)?, n.num("bias", 0.0)?);
    let x = n.input(0)?;
    let ty = b.elem(x);
    // Integers are compared and moved as numbers, then cast back.
    let wide = if ty.is_int() { b.float(x)? } else { b.wide(x)? };
    let low = v(wide).lt(-lambda).select(v(wide) + bias, 0.0);
    let y = b.emit(num(lambda).lt(wide).select(v(wide) - bias, low))?;
    one(b.op(Kind::Cast, [("to", Attr::Type(ty))], &[y]))
}
