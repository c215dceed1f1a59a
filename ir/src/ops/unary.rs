//! Element-wise operators of one input.

use super::check::{self, Types};
use super::{not_yet, per_output};
use crate::op::{Arity, AttrKind, Attrs, Class, Kind, OpDef};
use crate::types::{TensorType, Type};

/// A row of a function of one input: kind, meaning, shape rule, operations an element, reference.
macro_rules! unary {
    ($kind:ident, $doc:literal, $infer:expr, $work:literal, $eval:expr) => {
        unary!($kind, $doc, &[], $infer, $work, $eval)
    };
    ($kind:ident, $doc:literal, $attrs:expr, $infer:expr, $work:literal, $eval:expr) => {
        OpDef {
            kind: Kind::$kind,
            doc: $doc,
            inputs: Arity::Exactly(1),
            attrs: $attrs,
            class: Class::Map,
            infer: $infer,
            eval: $eval,
            work: per_output::<$work>,
        }
    };
}

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    unary!(Neg, "−x; integers wrap.", number, 1, not_yet),
    unary!(Abs, "|x|; integers wrap.", number, 1, not_yet),
    unary!(Sign, "−1, 0 or 1 by the sign of x; NaN stays.", number, 1, not_yet),
    unary!(Floor, "x rounded down.", real, 1, not_yet),
    unary!(Ceil, "x rounded up.", real, 1, not_yet),
    unary!(Round, "x rounded to the nearest integer, halves to even.", real, 1, not_yet),
    unary!(Trunc, "x rounded towards 0.", real, 1, not_yet),
    unary!(Sqrt, "√x.", real, 4, not_yet),
    unary!(Recip, "1/x.", real, 4, not_yet),
    unary!(Exp, "eˣ.", real, 8, not_yet),
    unary!(Log, "Natural logarithm of x.", real, 8, not_yet),
    unary!(Log1p, "log(1 + x), exact for small x.", real, 8, not_yet),
    unary!(Expm1, "eˣ − 1, exact for small x.", real, 8, not_yet),
    unary!(Sin, "Sine of x in radians.", real, 12, not_yet),
    unary!(Cos, "Cosine of x in radians.", real, 12, not_yet),
    unary!(Tan, "Tangent of x in radians.", real, 16, not_yet),
    unary!(Asin, "Inverse sine.", real, 12, not_yet),
    unary!(Acos, "Inverse cosine.", real, 12, not_yet),
    unary!(Atan, "Inverse tangent.", real, 12, not_yet),
    unary!(Sinh, "Hyperbolic sine.", real, 12, not_yet),
    unary!(Cosh, "Hyperbolic cosine.", real, 12, not_yet),
    unary!(Asinh, "Inverse hyperbolic sine.", real, 12, not_yet),
    unary!(Acosh, "Inverse hyperbolic cosine.", real, 12, not_yet),
    unary!(Atanh, "Inverse hyperbolic tangent.", real, 12, not_yet),
    unary!(Tanh, "Hyperbolic tangent.", real, 10, not_yet),
    unary!(Erf, "2/√π · ∫₀ˣ exp(−t²) dt.", real, 12, not_yet),
    unary!(Sigmoid, "1 / (1 + e⁻ˣ).", real, 10, not_yet),
    unary!(Softplus, "log(1 + eˣ).", real, 16, not_yet),
    unary!(Relu, "max(x, 0); NaN stays.", number, 1, not_yet),
    unary!(Gelu, "x/2 · (1 + erf(x/√2)).", real, 14, not_yet),
    unary!(GeluTanh, "x/2 · (1 + tanh(√(2/π) · (x + 0.044715·x³))).", real, 16, not_yet),
    unary!(Silu, "x · sigmoid(x).", real, 11, not_yet),
    unary!(HardSwish, "x · clamp(x/6 + 1/2, 0, 1).", real, 4, not_yet),
    unary!(Not, "Logical not.", boolean, 1, not_yet),
    unary!(BitNot, "Every bit inverted.", integer, 1, not_yet),
    unary!(IsNan, "Whether x is not a number.", real_to_bool, 1, not_yet),
    unary!(
        IsInf,
        "Whether x is infinite: +∞ counts if `positive`, −∞ if `negative`.",
        &[("positive", AttrKind::Int(1)), ("negative", AttrKind::Int(1))],
        real_to_bool,
        1,
        not_yet
    ),
    unary!(
        Clamp,
        "min(max(x, lo), hi); NaN stays. For integers the bounds are rounded inwards.",
        &[("lo", AttrKind::Float(f64::NEG_INFINITY)), ("hi", AttrKind::Float(f64::INFINITY))],
        clamp,
        2,
        not_yet
    ),
];

fn number(_: &Attrs, x: &[TensorType]) -> Types {
    check::number("the input", &x[0])?;
    check::same(&x[0])
}

fn real(_: &Attrs, x: &[TensorType]) -> Types {
    check::real("the input", &x[0])?;
    check::same(&x[0])
}

fn boolean(_: &Attrs, x: &[TensorType]) -> Types {
    check::is_type("the input", &x[0], Type::Bool)?;
    check::same(&x[0])
}

fn integer(_: &Attrs, x: &[TensorType]) -> Types {
    check::ensure(x[0].ty.is_int() && !x[0].ty.is_narrow(), || format!("the input is {}, but must be integers", x[0]))?;
    check::same(&x[0])
}

fn real_to_bool(_: &Attrs, x: &[TensorType]) -> Types {
    check::real("the input", &x[0])?;
    check::one(Type::Bool, x[0].shape.as_slice())
}

fn clamp(attrs: &Attrs, x: &[TensorType]) -> Types {
    check::number("the input", &x[0])?;
    let bounds = [attrs.float("lo"), attrs.float("hi")];
    check::ensure(!bounds.iter().any(|b| b.is_nan()), || "a bound is not a number".into())?;
    check::same(&x[0])
}
