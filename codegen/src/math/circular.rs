//! Sine and its relatives.

use super::basic::{copy_sign, from_bits, is_f64, number, poly, table, to_bits};
use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Op, Ty, Un, Val};
use std::f64::consts::{FRAC_2_PI, FRAC_PI_2, FRAC_PI_4, PI};

/// (sin x/x − 1)/x² on |x| ≤ π/4, in x²: 4·10⁻⁹, 4·10⁻¹⁸.
const SIN_F32: &[f64] = &[-0.00019513979985781756, 0.00833215133182545, -0.16666654463346036];
const SIN_F64: &[f64] = &[
    1.5895578977490958e-10,
    -2.505073683599082e-8,
    2.7557313553678156e-6,
    -0.00019841269829400766,
    0.0083333333333218914,
    -0.1666666666666663,
];
/// (cos x − 1 + x²/2)/x⁴ on |x| ≤ π/4, in x²: 10⁻¹⁰, 6·10⁻²⁰.
const COS_F32: &[f64] = &[2.4431668189598071e-5, -0.0013887303459693778, 0.041666645425312807];
const COS_F64: &[f64] = &[
    -1.1358084176229154e-11,
    2.0875692289128897e-9,
    -2.7557314117786202e-7,
    2.4801587288643902e-5,
    -0.0013888888888872732,
    0.041666666666666591,
];

/// sin x; 2 ulp. Branches to a slower reduction where a lane is large.
pub fn sin(b: &mut Builder, x: Val) -> Val {
    let (r, n) = reduce_quarter(b, x);
    let (s, c) = (sin_kernel(b, r), cos_kernel(b, r));
    let y = by_quarter(b, n, s, c);
    // −0 and the numbers so small that their square is lost.
    let zero = number(b, x, 0.0);
    let is_zero = b.cmp(Cmp::Eq, x, zero);
    b.select(is_zero, x, y)
}

/// cos x; 2 ulp. Branches as [`sin`].
pub fn cos(b: &mut Builder, x: Val) -> Val {
    let (r, n) = reduce_quarter(b, x);
    let n = b.add_int(n, 1);
    let (s, c) = (sin_kernel(b, r), cos_kernel(b, r));
    by_quarter(b, n, s, c)
}

/// tan x; 4 ulp. Branches as [`sin`].
pub fn tan(b: &mut Builder, x: Val) -> Val {
    let (r, n) = reduce_quarter(b, x);
    let (s, c) = (sin_kernel(b, r), cos_kernel(b, r));
    let odd = is_odd(b, n);
    let minus = b.un(Un::Neg, c);
    let (num, den) = (b.select(odd, minus, s), b.select(odd, s, c));
    let y = b.div(num, den);
    let zero = number(b, x, 0.0);
    let is_zero = b.cmp(Cmp::Eq, x, zero);
    b.select(is_zero, x, y)
}

fn sin_kernel(b: &mut Builder, r: Val) -> Val {
    let z = b.mul(r, r);
    let p = poly(b, z, table(b, r, SIN_F32, SIN_F64));
    let p = b.mul(p, z);
    b.fma(p, r, r)
}

fn cos_kernel(b: &mut Builder, r: Val) -> Val {
    let (half, one) = (number(b, r, 0.5), number(b, r, 1.0));
    let z = b.mul(r, r);
    let p = poly(b, z, table(b, r, COS_F32, COS_F64));
    let h = b.mul(z, half);
    // 1 − h, and what its rounding lost.
    let w = b.sub(one, h);
    let e = b.sub(one, w);
    let e = b.sub(e, h);
    let z2 = b.mul(z, z);
    let e = b.fma(z2, p, e);
    b.add(w, e)
}

fn is_odd(b: &mut Builder, n: Val) -> Val {
    let ty = b.ty(n);
    let (one, zero) = (b.int(ty, 1), b.int(ty, 0));
    let bit = b.bin(Bin::And, n, one);
    b.cmp(Cmp::Ne, bit, zero)
}

/// sin(r + n·π/2) from sin r and cos r.
fn by_quarter(b: &mut Builder, n: Val, s: Val, c: Val) -> Val {
    let odd = is_odd(b, n);
    let y = b.select(odd, c, s);
    let ty = b.ty(n);
    let width = 8 * ty.elem.bytes() as i64;
    let (two, up) = (b.int(ty, 2), b.int(ty, width - 2));
    let sign = b.bin(Bin::And, n, two);
    let sign = b.bin(Bin::Shl, sign, up);
    let y = to_bits(b, y);
    let y = b.bin(Bin::Xor, y, sign);
    from_bits(b, y)
}

/// r in about ±π/4 and an integer n with x = r + n·π/2; n is right modulo 4.
fn reduce_quarter(b: &mut Builder, x: Val) -> (Val, Val) {
    // π/2 in parts: the first ones so short that their products with n are exact up to the bound.
    let (bound, magic, parts): (f64, f64, &[f64]) = match is_f64(b, x) {
        false => (6000.0, 12582912.0, &[1.5703125, 4.837512969970703125e-4, 7.549533620476723e-8, 2.563344151594519e-12]),
        true => (1e5, 6755399441055744.0, &[1.57079632673412561417e+00, 6.07710050630396597660e-11, 2.02226624879595063154e-21]),
    };
    let (scale, shift) = (number(b, x, FRAC_2_PI), number(b, x, magic));
    let shifted = b.fma(x, scale, shift);
    let n = b.sub(shifted, shift);
    let mut r = x;
    for part in parts {
        let part = number(b, x, -part);
        r = b.fma(n, part, r);
    }
    let n = to_bits(b, shifted);
    let a = b.un(Un::Abs, x);
    let bound = number(b, x, bound);
    let far = b.cmp(Cmp::Gt, a, bound);
    let any = if b.ty(x).is_vector() { b.push(Ty::scalar(Elem::M8), Op::Any(far)) } else { far };
    let results = b.branch(
        any,
        |b| {
            let (mut rs, mut ns) = (r, n);
            for lane in 0..b.ty(x).lanes {
                let one = b.extract(x, lane);
                let (r1, n1) = if is_f64(b, x) { payne_hanek_f64(b, one) } else { payne_hanek_f32(b, one) };
                if b.ty(x).is_vector() {
                    rs = b.insert(rs, r1, lane);
                    ns = b.insert(ns, n1, lane);
                } else {
                    (rs, ns) = (r1, n1);
                }
            }
            let r = b.select(far, rs, r);
            let as_float = from_bits(b, n);
            let new = from_bits(b, ns);
            let n = b.select(far, new, as_float);
            vec![r, to_bits(b, n)]
        },
        |_| vec![r, n],
    );
    (results[0], results[1])
}

/// The first 1216 bits of 2/π after the point, computed to 400 digits, after 64 zeros for the numbers whose last bit is behind the point.
const TWO_OVER_PI: [u64; 20] = [
    0,
    0xa2f9836e4e441529,
    0xfc2757d1f534ddc0,
    0xdb6295993c439041,
    0xfe5163abdebbc561,
    0xb7246e3a424dd2e0,
    0x06492eea09d1921c,
    0xfe1deb1cb129a73e,
    0xe88235f52ebb4484,
    0xe99c7026b45f7e41,
    0x3991d639835339f4,
    0x9c845f8bbdf9283b,
    0x1ff897ffde05980f,
    0xef2f118b5a0a6d1f,
    0x6d367ecf27cb09b7,
    0x4f463f669e5fea2d,
    0x7527bac7ebe5f17b,
    0x3d0739f78a5292ea,
    0x6bfb5fb11f8d5d08,
    0x56033046fc7b6bab,
];

/// The reduction of a large scalar x after Payne and Hanek: x = m·2^e with an integer m; only those bits of 2/π matter for m·2^e·2/π modulo 4
/// that lie from 2^(2 − e) on, as many as m and the result are long.
fn payne_hanek_f32(b: &mut Builder, x: Val) -> (Val, Val) {
    let bits = b.conv(Conv::Bits, x, Elem::I32);
    let bits = b.conv(Conv::Zext, bits, Elem::I64);
    let (e, m) = split(b, bits, 23, 0xff);
    // x < 2^128: at most 64 + 102 bits are skipped. Numbers under the bound come here too, beside large ones: their results are not used.
    let skip = b.add_int(e, 64 - (127 + 23) - 2);
    let window = bits_of_two_over_pi(b, skip, 3, 2);
    let hi = b.mul(m, window[0]);
    let c32 = b.int(Ty::I64, 32);
    let lo = b.bin(Bin::ShrU, window[1], c32);
    let lo = b.mul(m, lo);
    let lo = b.bin(Bin::ShrU, lo, c32);
    let turn = b.add(hi, lo);
    let (r, n) = signed_turn(b, turn, x);
    let r = b.conv(Conv::FloatToFloat, r, Elem::F32);
    (r, b.conv(Conv::Wrap, n, Elem::I32))
}

/// As [`payne_hanek_f32`]: the product of 53 bits and of 192 bits, of which the upper 128 modulo 4 are kept.
fn payne_hanek_f64(b: &mut Builder, x: Val) -> (Val, Val) {
    let bits = b.conv(Conv::Bits, x, Elem::I64);
    let (e, m) = split(b, bits, 52, 0x7ff);
    let skip = b.add_int(e, 64 - (1023 + 52) - 2);
    let window = bits_of_two_over_pi(b, skip, 17, 3);
    let first = b.mul(m, window[0]);
    let (h1, l1) = wide_mul(b, m, window[1]);
    let (h2, _) = wide_mul(b, m, window[2]);
    let low = b.add(l1, h2);
    let carry = b.cmp(Cmp::LtU, low, l1);
    let (zero, one) = (b.int(Ty::I64, 0), b.int(Ty::I64, 1));
    let carry = b.select(carry, one, zero);
    let high = b.add(first, h1);
    let high = b.add(high, carry);
    // 64 bits of fraction leave 62 − 61 bits near a multiple of π/2: the word below them goes along.
    let (n, sign, fraction) = nearest_turn(b, high, x);
    let top = b.conv(Conv::IntToFloat, fraction, Elem::F64);
    let back = b.conv(Conv::FloatToInt, top, Elem::I64);
    let rest = b.sub(fraction, back);
    let rest = b.conv(Conv::IntToFloat, rest, Elem::F64);
    let half_low = b.bin(Bin::ShrU, low, one);
    let tail = b.conv(Conv::IntToFloat, half_low, Elem::F64);
    let scale = b.number(Ty::F64, f64::powi(2.0, -63));
    let rest = b.fma(tail, scale, rest);
    // (top + rest)·2⁻⁶²·π/2 with π/2 in two parts.
    let (p1, p2, down) = (b.number(Ty::F64, FRAC_PI_2), b.number(Ty::F64, 6.123233995736766e-17), b.number(Ty::F64, f64::powi(2.0, -62)));
    let lo = b.mul(rest, p1);
    let lo = b.fma(top, p2, lo);
    let r = b.fma(top, p1, lo);
    let r = b.mul(r, down);
    let r = b.mul(r, sign);
    let r = keep_special(b, r, x);
    (r, n)
}

/// Exponent field and mantissa with its implied bit.
fn split(b: &mut Builder, bits: Val, width: i64, exponents: i64) -> (Val, Val) {
    let (w, mask, low, implied) =
        (b.int(Ty::I64, width), b.int(Ty::I64, exponents), b.int(Ty::I64, (1 << width) - 1), b.int(Ty::I64, 1 << width));
    let e = b.bin(Bin::ShrU, bits, w);
    let e = b.bin(Bin::And, e, mask);
    let m = b.bin(Bin::And, bits, low);
    (e, b.bin(Bin::Or, m, implied))
}

/// `count` words of [`TWO_OVER_PI`] from bit `skip` on; `skip` < 64·`words`, negative ones count as 0.
fn bits_of_two_over_pi(b: &mut Builder, skip: Val, words: usize, count: usize) -> Vec<Val> {
    let (zero, six, low) = (b.int(Ty::I64, 0), b.int(Ty::I64, 6), b.int(Ty::I64, 63));
    let skip = b.bin(Bin::MaxS, skip, zero);
    let word = b.bin(Bin::ShrU, skip, six);
    let up = b.bin(Bin::And, skip, low);
    let down = b.sub(low, up);
    let one = b.int(Ty::I64, 1);
    let parts: Vec<Val> = (0..=count)
        .map(|i| {
            let mut part = b.int(Ty::I64, TWO_OVER_PI[i] as i64);
            for w in 1..words {
                let (this, value) = (b.int(Ty::I64, w as i64), b.int(Ty::I64, TWO_OVER_PI[w + i] as i64));
                let here = b.cmp(Cmp::Eq, word, this);
                part = b.select(here, value, part);
            }
            part
        })
        .collect();
    parts
        .windows(2)
        .map(|pair| {
            let hi = b.bin(Bin::Shl, pair[0], up);
            let lo = b.bin(Bin::ShrU, pair[1], one);
            let lo = b.bin(Bin::ShrU, lo, down);
            b.bin(Bin::Or, hi, lo)
        })
        .collect()
}

/// The product of two unsigned words, as its upper and lower word.
fn wide_mul(b: &mut Builder, x: Val, y: Val) -> (Val, Val) {
    let (c32, low) = (b.int(Ty::I64, 32), b.int(Ty::I64, 0xffff_ffff));
    let (x0, x1) = (b.bin(Bin::And, x, low), b.bin(Bin::ShrU, x, c32));
    let (y0, y1) = (b.bin(Bin::And, y, low), b.bin(Bin::ShrU, y, c32));
    let (p00, p01, p10, p11) = (b.mul(x0, y0), b.mul(x0, y1), b.mul(x1, y0), b.mul(x1, y1));
    let mid = b.bin(Bin::ShrU, p00, c32);
    let mid = b.add(mid, p10);
    let carry = b.bin(Bin::ShrU, mid, c32);
    let mid = b.bin(Bin::And, mid, low);
    let mid = b.add(mid, p01);
    let mid_carry = b.bin(Bin::ShrU, mid, c32);
    let hi = b.add(p11, carry);
    (b.add(hi, mid_carry), b.mul(x, y))
}

/// |x|·2/π modulo 4 as a fraction of 2⁶⁴ → quarters n of x, the sign of x, and the signed rest in units of 2⁻⁶² quarters.
fn nearest_turn(b: &mut Builder, turn: Val, x: Val) -> (Val, Val, Val) {
    let (c62, c2, half) = (b.int(Ty::I64, 62), b.int(Ty::I64, 2), b.int(Ty::I64, 1 << 61));
    let rounded = b.add(turn, half);
    let n = b.bin(Bin::ShrU, rounded, c62);
    // The lower 62 bits, with sign: bit 61 is ½.
    let fraction = b.bin(Bin::Shl, turn, c2);
    let fraction = b.bin(Bin::ShrS, fraction, c2);
    let (zero, one, minus) = (number(b, x, 0.0), b.number(Ty::F64, 1.0), b.number(Ty::F64, -1.0));
    let negative = b.cmp(Cmp::Lt, x, zero);
    // The selects below want a mask as wide as their arms.
    let negative = widen(b, negative);
    let sign = b.select(negative, minus, one);
    let back = b.un(Un::Neg, n);
    let n = b.select(negative, back, n);
    (n, sign, fraction)
}

/// A scalar mask as one of 64 bits.
fn widen(b: &mut Builder, mask: Val) -> Val {
    if b.ty(mask).elem == Elem::M64 {
        return mask;
    }
    let i = b.conv(Conv::MaskToInt, mask, Elem::I32);
    let i = b.conv(Conv::Sext, i, Elem::I64);
    let zero = b.int(Ty::I64, 0);
    b.cmp(Cmp::Ne, i, zero)
}

fn signed_turn(b: &mut Builder, turn: Val, x: Val) -> (Val, Val) {
    let (n, sign, fraction) = nearest_turn(b, turn, x);
    let r = b.conv(Conv::IntToFloat, fraction, Elem::F64);
    let scale = b.number(Ty::F64, FRAC_PI_2 * f64::powi(2.0, -62));
    let r = b.mul(r, scale);
    let r = b.mul(r, sign);
    let x = b.conv(Conv::FloatToFloat, x, Elem::F64);
    (keep_special(b, r, x), n)
}

/// NaN where x (f64) is infinite or NaN.
fn keep_special(b: &mut Builder, r: Val, x: Val) -> Val {
    let rest = b.sub(x, x);
    b.add(r, rest)
}

/// (atan x/x − 1)/x² on |x| ≤ tan(π/8), in x²: 7·10⁻¹⁰, 5·10⁻²⁰.
const ATAN_F32: &[f64] = &[-0.060781259004340832, 0.10593777827840129, -0.14243528751451404, 0.19998471287618577, -0.33333315185173901];
const ATAN_F64: &[f64] = &[
    0.015193976438360224,
    -0.033472685228407034,
    0.045034446127845574,
    -0.05218370878218469,
    0.058770152707444762,
    -0.066662259416987536,
    0.076922826922199337,
    -0.09090908141037716,
    0.111111110880639,
    -0.14285714285385872,
    0.19999999999997649,
    -0.33333333333333327,
];

/// atan x; 3 ulp.
pub fn atan(b: &mut Builder, x: Val) -> Val {
    let a = b.un(Un::Abs, x);
    let (one, minus, zero) = (number(b, x, 1.0), number(b, x, -1.0), number(b, x, 0.0));
    let (low, high) = (number(b, x, 0.414213562373095), number(b, x, 2.414213562373095));
    let (middle, far) = (b.cmp(Cmp::Gt, a, low), b.cmp(Cmp::Gt, a, high));
    // atan a = π/4 + atan((a − 1)/(a + 1)) = π/2 − atan(1/a).
    let (sum, diff) = (b.add(a, one), b.sub(a, one));
    let num = b.select(middle, diff, a);
    let num = b.select(far, minus, num);
    let den = b.select(middle, sum, one);
    let den = b.select(far, a, den);
    let (quarter, half) = (number(b, x, FRAC_PI_4), number(b, x, FRAC_PI_2));
    let base = b.select(middle, quarter, zero);
    let base = b.select(far, half, base);
    let t = b.div(num, den);
    let z = b.mul(t, t);
    let p = poly(b, z, table(b, x, ATAN_F32, ATAN_F64));
    let p = b.mul(p, z);
    let p = b.fma(p, t, t);
    let r = b.add(base, p);
    copy_sign(b, r, x)
}

/// (asin x/x − 1)/x² on |x| ≤ ½, in x²: 5·10⁻⁹, 10⁻¹⁸.
const ASIN_F32: &[f64] = &[0.042166308803989265, 0.024179514514424229, 0.045470375980616989, 0.074952976430480075, 0.16666752482010369];
const ASIN_F64: &[f64] = &[
    0.032628658488397724,
    -0.020999121427186761,
    0.021707492039305441,
    0.0037063883070314168,
    0.010780258970937931,
    0.011398910909489709,
    0.013980820746750719,
    0.017351611992639786,
    0.022372214989121443,
    0.030381942707718221,
    0.044642857174613564,
    0.074999999999707976,
    0.1666666666666676,
];

/// (|x| > ½, asin of |x| or of √((1 − |x|)/2) where it is).
fn asin_parts(b: &mut Builder, x: Val) -> (Val, Val) {
    let a = b.un(Un::Abs, x);
    let (half, one) = (number(b, x, 0.5), number(b, x, 1.0));
    let far = b.cmp(Cmp::Gt, a, half);
    let w = b.sub(one, a);
    let w = b.mul(w, half);
    let z = b.mul(a, a);
    let z = b.select(far, w, z);
    let root = b.un(Un::Sqrt, w);
    let t = b.select(far, root, a);
    let p = poly(b, z, table(b, x, ASIN_F32, ASIN_F64));
    let p = b.mul(p, z);
    (far, b.fma(p, t, t))
}

/// asin x; 3 ulp.
pub fn asin(b: &mut Builder, x: Val) -> Val {
    let (far, p) = asin_parts(b, x);
    let (half_pi, minus) = (number(b, x, FRAC_PI_2), number(b, x, -2.0));
    let q = b.fma(p, minus, half_pi);
    let r = b.select(far, q, p);
    copy_sign(b, r, x)
}

/// acos x; 3 ulp.
pub fn acos(b: &mut Builder, x: Val) -> Val {
    let (far, p) = asin_parts(b, x);
    let (zero, pi, half_pi) = (number(b, x, 0.0), number(b, x, PI), number(b, x, FRAC_PI_2));
    let negative = b.cmp(Cmp::Lt, x, zero);
    let twice = b.add(p, p);
    let other = b.sub(pi, twice);
    let q = b.select(negative, other, twice);
    let minus = b.un(Un::Neg, p);
    let p = b.select(negative, p, minus);
    let near = b.add(half_pi, p);
    b.select(far, q, near)
}
