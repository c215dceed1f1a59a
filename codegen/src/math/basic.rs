//! Simple functions, and the tools that the others are written with: numbers, bits, polynomials.

use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Un, Val};

/// 1/x.
pub fn recip(b: &mut Builder, x: Val) -> Val {
    let one = number(b, x, 1.0);
    b.div(one, x)
}

/// max(x, 0); NaN stays.
pub fn relu(b: &mut Builder, x: Val) -> Val {
    let zero = number(b, x, 0.0);
    b.max(zero, x)
}

/// min(max(x, lo), hi); NaN stays.
pub fn clamp(b: &mut Builder, x: Val, lo: f64, hi: f64) -> Val {
    let mut x = x;
    if lo > f64::NEG_INFINITY {
        let lo = number(b, x, lo);
        x = b.max(lo, x);
    }
    if hi < f64::INFINITY {
        let hi = number(b, x, hi);
        x = b.min(hi, x);
    }
    x
}

/// x · clamp(x/6 + ½, 0, 1).
pub fn hard_swish(b: &mut Builder, x: Val) -> Val {
    let (sixth, half) = (number(b, x, 1.0 / 6.0), number(b, x, 0.5));
    let gate = b.fma(x, sixth, half);
    let gate = clamp(b, gate, 0.0, 1.0);
    b.mul(x, gate)
}

/// −1, 0 or 1 by the sign of x; zeros and NaN stay.
pub fn sign(b: &mut Builder, x: Val) -> Val {
    let (zero, one, minus) = (number(b, x, 0.0), number(b, x, 1.0), number(b, x, -1.0));
    let (above, below) = (b.cmp(Cmp::Gt, x, zero), b.cmp(Cmp::Lt, x, zero));
    let r = b.select(below, minus, x);
    b.select(above, one, r)
}

/// The smaller of two floats; NaN if one is.
pub fn min(b: &mut Builder, x: Val, y: Val) -> Val {
    let r = b.min(x, y);
    keep_nan(b, x, r)
}

/// The larger of two floats; NaN if one is.
pub fn max(b: &mut Builder, x: Val, y: Val) -> Val {
    let r = b.max(x, y);
    keep_nan(b, x, r)
}

/// `r`, but `x` where that is NaN.
pub(super) fn keep_nan(b: &mut Builder, x: Val, r: Val) -> Val {
    let ordered = b.cmp(Cmp::Eq, x, x);
    b.select(ordered, r, x)
}

/// A number in every lane of the type of `like`.
pub(crate) fn number(b: &mut Builder, like: Val, value: f64) -> Val {
    b.number(b.ty(like), value)
}

/// A polynomial by Horner's rule, highest power first.
pub(crate) fn poly(b: &mut Builder, x: Val, coefficients: &[f64]) -> Val {
    let mut p = number(b, x, coefficients[0]);
    for &c in &coefficients[1..] {
        let c = number(b, x, c);
        p = b.fma(p, x, c);
    }
    p
}

/// The bits of floats as integers.
pub(super) fn to_bits(b: &mut Builder, x: Val) -> Val {
    b.conv(Conv::Bits, x, b.ty(x).elem.int())
}

/// Integers as the bits of floats.
pub(super) fn from_bits(b: &mut Builder, x: Val) -> Val {
    let elem = if b.ty(x).elem == Elem::I64 { Elem::F64 } else { Elem::F32 };
    b.conv(Conv::Bits, x, elem)
}

/// Whether the lanes are f64.
pub(super) fn is_f64(b: &Builder, x: Val) -> bool {
    b.ty(x).elem == Elem::F64
}

/// |x| with the sign of `sign`.
pub(crate) fn copy_sign(b: &mut Builder, x: Val, sign: Val) -> Val {
    let bits = b.ty(x).elem.int();
    let ty = b.ty(x).of(bits);
    let mask = b.int(ty, if bits == Elem::I64 { i64::MIN } else { i64::from(i32::MIN) });
    let (x, sign) = (b.un(Un::Abs, x), to_bits(b, sign));
    let (x, sign) = (to_bits(b, x), b.bin(Bin::And, sign, mask));
    let r = b.bin(Bin::Or, x, sign);
    from_bits(b, r)
}

/// What of `f32` and `f64` tables the type of `x` needs.
pub(super) fn table<'t>(b: &Builder, x: Val, single: &'t [f64], double: &'t [f64]) -> &'t [f64] {
    if is_f64(b, x) { double } else { single }
}
