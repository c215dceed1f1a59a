//! Operators on floats.

use crate::math;
use dnnc_ir::Kind;
use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Ty, Un, Val};

pub fn square_root(b: &mut Builder, x: Val) -> Val {
    // pow(−0, ½) is +0 and pow(−∞, ½) is ∞ where √ gives −0 and NaN.
    let (zero, minus, inf) = (math::number(b, x, 0.0), math::number(b, x, f64::NEG_INFINITY), math::number(b, x, f64::INFINITY));
    let y = b.add(x, zero);
    let y = b.un(Un::Sqrt, y);
    let is_minus = b.cmp(Cmp::Eq, x, minus);
    b.select(is_minus, inf, y)
}

pub fn float_unary(b: &mut Builder, kind: Kind, x: Val) -> Val {
    match kind {
        Kind::Neg => b.un(Un::Neg, x),
        Kind::Abs => b.un(Un::Abs, x),
        Kind::Sign => math::sign(b, x),
        Kind::Floor => b.un(Un::Floor, x),
        Kind::Ceil => b.un(Un::Ceil, x),
        Kind::Round => b.un(Un::Nearest, x),
        Kind::Trunc => b.un(Un::Trunc, x),
        Kind::Sqrt => b.un(Un::Sqrt, x),
        Kind::Recip => math::recip(b, x),
        Kind::Exp => math::exp(b, x),
        Kind::Log => math::log(b, x),
        Kind::Log1p => math::log1p(b, x),
        Kind::Expm1 => math::expm1(b, x),
        Kind::Sin => math::sin(b, x),
        Kind::Cos => math::cos(b, x),
        Kind::Tan => math::tan(b, x),
        Kind::Asin => math::asin(b, x),
        Kind::Acos => math::acos(b, x),
        Kind::Atan => math::atan(b, x),
        Kind::Sinh => math::sinh(b, x),
        Kind::Cosh => math::cosh(b, x),
        Kind::Asinh => math::asinh(b, x),
        Kind::Acosh => math::acosh(b, x),
        Kind::Atanh => math::atanh(b, x),
        Kind::Tanh => math::tanh(b, x),
        Kind::Erf => math::erf(b, x),
        Kind::Sigmoid => math::sigmoid(b, x),
        Kind::Softplus => math::softplus(b, x),
        Kind::Relu => math::relu(b, x),
        Kind::Gelu => math::gelu(b, x),
        Kind::GeluTanh => math::gelu_tanh(b, x),
        Kind::Silu => math::silu(b, x),
        Kind::HardSwish => math::hard_swish(b, x),
        other => panic!("`{}` is no function of one float", other.name()),
    }
}

pub fn float_binary(b: &mut Builder, kind: Kind, x: Val, y: Val) -> Val {
    match kind {
        Kind::Add => b.add(x, y),
        Kind::Sub => b.sub(x, y),
        Kind::Mul => b.mul(x, y),
        Kind::Div => b.div(x, y),
        other => panic!("`{}` is no function of two floats", other.name()),
    }
}

pub fn float_mod(b: &mut Builder, x: Val, y: Val, trunc: bool) -> Val {
    let r = math::float_rem(b, x, y);
    if trunc {
        return r;
    }
    let zero = math::number(b, x, 0.0);
    let more = b.add(r, y);
    let (r_below, y_below) = (b.cmp(Cmp::Lt, r, zero), b.cmp(Cmp::Lt, y, zero));
    let (differ, rest) = (b.bin(Bin::Xor, r_below, y_below), b.cmp(Cmp::Ne, r, zero));
    let other = b.bin(Bin::And, differ, rest);
    b.select(other, more, r)
}

/// x (whole) to the power of y, f64 scalars. Powers that are whole are rounded once: truncation to an integer must not lose the one that is
/// meant. A fraction of 2 in y gives one where x has that root: 4 to the power of 3.5 is 2⁷.
pub fn whole_or_any_power(b: &mut Builder, x: Val, y: Val) -> Val {
    let one = b.number(Ty::F64, 1.0);
    let roots = b.while_loop(
        &[x, y],
        |b, v| {
            let (root, whole) = (b.un(Un::Sqrt, v[0]), b.un(Un::Trunc, v[1]));
            let square = b.un(Un::Trunc, root);
            // Of 0, 1 and numbers below 0 every power is known.
            let (fraction, more) = (b.cmp(Cmp::Ne, whole, v[1]), b.cmp(Cmp::Gt, v[0], one));
            let square = b.cmp(Cmp::Eq, square, root);
            let rooted = b.bin(Bin::And, fraction, more);
            b.bin(Bin::And, rooted, square)
        },
        |b, v| vec![b.un(Un::Sqrt, v[0]), b.add(v[1], v[1])],
    );
    let (x, y) = (roots[0], roots[1]);
    // Beyond this every power is 0, ±1 or larger than all integers, which the general function knows.
    let most = b.number(Ty::F64, 1024.0);
    let (size, whole) = (b.un(Un::Abs, y), b.un(Un::Trunc, y));
    let (small, whole) = (b.cmp(Cmp::Le, size, most), b.cmp(Cmp::Eq, whole, y));
    let whole = b.bin(Bin::And, small, whole);
    b.branch(
        whole,
        |b| {
            let (n, a) = (b.conv(Conv::FloatToInt, size, Elem::I64), b.un(Un::Abs, x));
            let p = math::whole_pow(b, a, n);
            let (zero, one) = (b.number(Ty::F64, 0.0), b.int(Ty::I64, 1));
            let (inverse, below) = (math::recip(b, p), b.cmp(Cmp::Lt, y, zero));
            let p = b.select(below, inverse, p);
            let (negative, odd) = (b.cmp(Cmp::Lt, x, zero), b.bin(Bin::And, n, one));
            let odd = b.cmp(Cmp::Eq, odd, one);
            let (minus, back) = (b.bin(Bin::And, negative, odd), b.un(Un::Neg, p));
            vec![b.select(minus, back, p)]
        },
        |b| vec![math::pow(b, x, y)],
    )[0]
}
