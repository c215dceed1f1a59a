//! Element-wise operators of one input.

use super::check::{self, Types};
use super::data::{self, Results};
use super::work::per_output;
use crate::graph::{Attrs, OpDef};
use crate::kind::{Arity, AttrKind, Class, Kind};
use crate::tensor::Tensor;
use crate::types::{TensorType, Type};

/// A row of a function of one input: kind, meaning, shape rule, operations an element, and the function, of floats only or one of
/// floats and one of integers.
macro_rules! unary {
    ($kind:ident, $doc:literal, $work:literal, $real:expr) => {
        unary!($kind, $doc, &[], real, $work, |_, x| Ok(vec![of_reals(&x[0], $real)]))
    };
    ($kind:ident, $doc:literal, $work:literal, $real:expr, $int:expr) => {
        unary!($kind, $doc, &[], number, $work, |_, x| Ok(vec![data::map(&x[0], x[0].ty(), $real, $int)]))
    };
    ($kind:ident, $doc:literal, $attrs:expr, $infer:expr, $work:literal, $eval:expr) => {
        OpDef {
            kind: Kind::$kind,
            doc: $doc,
            inputs: Arity::Exactly(1),
            attrs: $attrs,
            class: Class::Elementwise,
            infer: $infer,
            eval: $eval,
            work: per_output::<$work>,
        }
    };
}

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    unary!(Neg, "−x; integers wrap.", 1, |v| -v, |v| -v),
    unary!(Abs, "|x|; integers wrap.", 1, f64::abs, i128::abs),
    unary!(Sign, "−1, 0 or 1 by the sign of x; NaN stays.", 1, sign, i128::signum),
    unary!(Floor, "x rounded down.", 1, f64::floor),
    unary!(Ceil, "x rounded up.", 1, f64::ceil),
    unary!(Round, "x rounded to the nearest integer, halves to even.", 1, f64::round_ties_even),
    unary!(Trunc, "x rounded towards 0.", 1, f64::trunc),
    unary!(Sqrt, "√x.", 4, f64::sqrt),
    unary!(Recip, "1/x.", 4, f64::recip),
    unary!(Exp, "eˣ.", 8, f64::exp),
    unary!(Log, "Natural logarithm of x.", 8, f64::ln),
    unary!(Log1p, "log(1 + x), exact for small x.", 8, f64::ln_1p),
    unary!(Expm1, "eˣ − 1, exact for small x.", 8, f64::exp_m1),
    unary!(Sin, "Sine of x in radians.", 12, f64::sin),
    unary!(Cos, "Cosine of x in radians.", 12, f64::cos),
    unary!(Tan, "Tangent of x in radians.", 16, f64::tan),
    unary!(Asin, "Inverse sine.", 12, f64::asin),
    unary!(Acos, "Inverse cosine.", 12, f64::acos),
    unary!(Atan, "Inverse tangent.", 12, f64::atan),
    unary!(Sinh, "Hyperbolic sine.", 12, f64::sinh),
    unary!(Cosh, "Hyperbolic cosine.", 12, f64::cosh),
    unary!(Asinh, "Inverse hyperbolic sine.", 12, f64::asinh),
    unary!(Acosh, "Inverse hyperbolic cosine.", 12, f64::acosh),
    unary!(Atanh, "Inverse hyperbolic tangent.", 12, f64::atanh),
    unary!(Tanh, "Hyperbolic tangent.", 10, f64::tanh),
    unary!(Erf, "2/√π · ∫₀ˣ exp(−t²) dt.", 12, erf),
    unary!(Sigmoid, "1 / (1 + e⁻ˣ).", 10, sigmoid),
    unary!(Softplus, "log(1 + eˣ).", 16, softplus),
    unary!(Relu, "max(x, 0); NaN stays.", 1, |v| if v < 0.0 { 0.0 } else { v }, |v| v.max(0)),
    unary!(Gelu, "x/2 · (1 + erf(x/√2)).", 14, |v| v / 2.0 * erfc(-v * std::f64::consts::FRAC_1_SQRT_2)),
    unary!(GeluTanh, "x/2 · (1 + tanh(√(2/π) · (x + 0.044715·x³))).", 16, gelu_tanh),
    unary!(Silu, "x · sigmoid(x).", 11, |v| v * sigmoid(v)),
    unary!(HardSwish, "x · clamp(x/6 + 1/2, 0, 1).", 4, |v| v * (v / 6.0 + 0.5).clamp(0.0, 1.0)),
    unary!(Not, "Logical not.", &[], boolean, 1, |_, x| Ok(vec![data::map(&x[0], x[0].ty(), |v| v, |v| 1 - v)])),
    unary!(BitNot, "Every bit inverted.", &[], integer, 1, |_, x| Ok(vec![data::map(&x[0], x[0].ty(), |v| v, |v| !v)])),
    unary!(IsNan, "Whether x is not a number.", &[], real_to_bool, 1, |_, x| Ok(vec![test(&x[0], f64::is_nan)])),
    unary!(
        IsInf,
        "Whether x is infinite: +∞ counts if `positive`, −∞ if `negative`.",
        &[("positive", AttrKind::Int(1)), ("negative", AttrKind::Int(1))],
        real_to_bool,
        1,
        |attrs, x| {
            let [positive, negative] = [attrs.flag("positive"), attrs.flag("negative")];
            Ok(vec![test(&x[0], |v| v == f64::INFINITY && positive || v == f64::NEG_INFINITY && negative)])
        }
    ),
    unary!(
        Clamp,
        "min(max(x, lo), hi); NaN stays. For integers the bounds are rounded inwards.",
        &[("lo", AttrKind::Float(f64::NEG_INFINITY)), ("hi", AttrKind::Float(f64::INFINITY))],
        clamp,
        2,
        eval_clamp
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

/// A function of floats, for operators whose shape rule admits nothing else.
fn of_reals(x: &Tensor, f: impl Fn(f64) -> f64) -> Tensor {
    let mut values = x.to_f64s();
    values.iter_mut().for_each(|v| *v = f(*v));
    data::from_reals(x.ty(), &values)
}

fn test(x: &Tensor, f: impl Fn(f64) -> bool) -> Tensor {
    let values: Vec<u8> = x.to_f64s().into_iter().map(|v| f(v).into()).collect();
    Tensor::with_type(TensorType::new(Type::Bool, x.shape()), &values)
}

fn eval_clamp(attrs: &Attrs, x: &[Tensor]) -> Results {
    let [lo, hi] = [attrs.float("lo"), attrs.float("hi")];
    let (lo_int, hi_int) = (lo.ceil() as i128, hi.floor() as i128);
    // The bounds themselves must be values of the type.
    let x = &x[0];
    let real = |v: f64| if v.is_nan() { v } else { v.max(lo).min(hi) };
    Ok(vec![match data::numbers(x) {
        data::Numbers::Reals(v) => data::from_reals(x.ty(), &v.into_iter().map(real).collect::<Vec<_>>()),
        data::Numbers::Ints(v) => {
            let [least, most] = [<i128 as data::Number>::lowest(x.ty().ty), <i128 as data::Number>::highest(x.ty().ty)];
            let [lo, hi] = [lo_int.clamp(least, most), hi_int.clamp(least, most)];
            data::from_ints(x.ty(), &v.into_iter().map(|v| v.max(lo).min(hi)).collect::<Vec<_>>())
        }
    }])
}

fn sign(v: f64) -> f64 {
    if v > 0.0 {
        1.0
    } else if v < 0.0 {
        -1.0
    } else {
        v
    }
}

/// 1 / (1 + e⁻ˣ).
pub fn sigmoid(v: f64) -> f64 {
    1.0 / (1.0 + (-v).exp())
}

/// log(1 + eˣ), without overflow.
pub fn softplus(v: f64) -> f64 {
    v.max(0.0) + (-v.abs()).exp().ln_1p()
}

/// (1 + tanh u)/2 = sigmoid 2u, of which digits are left where the tangent is next to −1.
fn gelu_tanh(v: f64) -> f64 {
    v * sigmoid(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v * v * v))
}

/// The error function: erf x = 2/√π · e^(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (2n+1)!!, whose terms are all of one sign.
fn erf(x: f64) -> f64 {
    if x.abs() >= 2.0 {
        return (1.0 - erfc(x.abs())).copysign(x); // the power below would lose x² digits
    }
    let mut term = x;
    let mut sum = x;
    let mut odd = 1.0;
    while term.abs() > sum.abs() * 1e-17 {
        odd += 2.0;
        term *= 2.0 * x * x / odd;
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// 1 − erf x, exact where erf x is near 1: by its continued fraction.
fn erfc(x: f64) -> f64 {
    if x.is_nan() || x < 2.0 {
        return 1.0 - erf(x);
    }
    let fraction = (1..=100).rev().fold(x, |f, n| x + f64::from(n) / 2.0 / f);
    (-x * x).exp() / (std::f64::consts::PI.sqrt() * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Op;

    fn run<T: crate::Element>(kind: Kind, attrs: &[(&'static str, crate::Attr)], x: &[T]) -> Tensor {
        let op = Op::new(kind, attrs.to_vec()).expect("attributes");
        crate::eval::eval_op(&op, &[Tensor::new([x.len()], x)]).expect("an answer").remove(0)
    }

    #[test]
    fn functions_have_the_values_of_the_tables() {
        // From Python's math module, at 17 digits.
        let table: &[(Kind, f64, f64)] = &[
            (Kind::Erf, 0.5, 0.5204998778130465),
            (Kind::Erf, -2.5, -0.999593047982555),
            (Kind::Erf, 1e-9, 1.1283791670955126e-9),
            (Kind::Gelu, 1.0, 0.8413447460685429),
            (Kind::Gelu, -8.0, -4.9767684594174555e-15),
            (Kind::GeluTanh, 1.0, 0.8411919906082768),
            (Kind::Sigmoid, -2.0, 0.11920292202211755),
            (Kind::Softplus, 1000.0, 1000.0),
            (Kind::Softplus, -1.0, 0.31326168751822286),
            (Kind::Silu, 3.0, 2.8577223804673),
            (Kind::HardSwish, 1.5, 1.125),
            (Kind::HardSwish, -4.0, 0.0),
            (Kind::Asinh, 1.0, 0.881373587019543),
            (Kind::Acosh, 2.0, 1.3169578969248166),
            (Kind::Atanh, 0.5, 0.5493061443340549),
            (Kind::Log1p, 1e-12, 9.999999999995e-13),
            (Kind::Expm1, 1e-12, 1.0000000000005e-12),
            (Kind::Tan, 1.0, 1.5574077246549023),
            (Kind::Recip, 8.0, 0.125),
        ];
        for &(kind, x, y) in table {
            let got = run(kind, &[], &[x]).values::<f64>()[0];
            assert!((got - y).abs() <= 4e-15 * y.abs().max(1e-300) * 10.0, "{}({x}) = {got}, not {y}", kind.name());
            let single = run(kind, &[], &[x as f32]).values::<f32>()[0];
            assert!((f64::from(single) - y).abs() <= 2e-6 * y.abs().max(1e-30), "{}({x}) = {single}, not {y}", kind.name());
        }
    }

    #[test]
    fn erfc_joins_erf() {
        for x in [1.9, 1.99, 1.999999, 2.0, 2.1, 3.0, 5.0] {
            assert!((erfc(x) - (1.0 - erf(x))).abs() < 1e-15, "{x}");
        }
        assert!((erf(2.0 - 1e-9) - erf(2.0)).abs() < 1e-10);
        assert_eq!([erf(f64::INFINITY), erf(-f64::INFINITY), erf(-7.0)], [1.0, -1.0, -1.0]);
        assert!((erfc(4.0) / 1.541725790028002e-8 - 1.0).abs() < 1e-13);
    }

    #[test]
    fn rounding_and_signs() {
        let x = [-2.5f32, -1.5, -0.5, 0.5, 1.5, 2.5, f32::NAN];
        let of = |kind| run(kind, &[], &x).values::<f32>().to_vec();
        assert_eq!(of(Kind::Round)[..6], [-2.0, -2.0, 0.0, 0.0, 2.0, 2.0]);
        assert_eq!(of(Kind::Floor)[..6], [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0]);
        assert_eq!(of(Kind::Trunc)[..6], [-2.0, -1.0, 0.0, 0.0, 1.0, 2.0]);
        assert_eq!(of(Kind::Sign)[..6], [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0]);
        for kind in [Kind::Round, Kind::Sign, Kind::Relu, Kind::Clamp, Kind::Abs] {
            assert!(of(kind)[6].is_nan(), "{}", kind.name());
        }
        assert_eq!(run(Kind::Neg, &[], &[i8::MIN, 5]).values::<i8>(), [i8::MIN, -5]);
        assert_eq!(run(Kind::Abs, &[], &[i8::MIN, -5]).values::<i8>(), [i8::MIN, 5]);
        assert_eq!(run(Kind::Neg, &[], &[1u8]).values::<u8>(), [255]);
        assert_eq!(run(Kind::BitNot, &[], &[0u16, 0xfff0]).values::<u16>(), [0xffff, 0x000f]);
    }

    #[test]
    fn bounds() {
        let bounds = [("lo", crate::Attr::from(-1.5)), ("hi", 300.0.into())];
        assert_eq!(run(Kind::Clamp, &bounds, &[-2i8, -1, 127]).values::<i8>(), [-1, -1, 127]);
        assert_eq!(run(Kind::Clamp, &bounds, &[-2f32, 0.5, 999.0]).values::<f32>(), [-1.5, 0.5, 300.0]);
        assert_eq!(run(Kind::Clamp, &[], &[u64::MAX, 0]).values::<u64>(), [u64::MAX, 0]);
        let positive = [("negative", crate::Attr::from(0))];
        assert_eq!(run(Kind::IsInf, &positive, &[f32::INFINITY, f32::NEG_INFINITY, f32::NAN]).values::<u8>(), [1, 0, 0]);
        assert_eq!(run(Kind::IsNan, &[], &[f32::INFINITY, f32::NAN]).values::<u8>(), [0, 1]);
    }
}
