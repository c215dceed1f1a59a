//! eˣ, the logarithm, and what is made of them.

use super::basic::{copy_sign, from_bits, is_f64, number, poly, relu, table, to_bits};
use dnnc_kir::{Bin, Builder, Cmp, Un, Val};
use std::f64::consts::{FRAC_1_SQRT_2, LN_2, LOG2_E};

/// e^r on |r| ≤ ln2/2 with an exact constant term: 1.5·2⁻²⁴ (5th degree), 2⁻⁵⁸ (11th degree).
const EXP_F32: &[f64] = &[0.0082902721125411025, 0.041898159618305981, 0.16667638127238848, 0.49999147841131425, 0.99999970631335773, 1.0];
const EXP_F64: &[f64] = &[
    2.5000016117366268e-8,
    2.7630306285882024e-7,
    2.755758681213974e-6,
    2.4801492949535658e-5,
    0.00019841269505765,
    0.0013888888943760054,
    0.0083333333334949811,
    0.041666666666529728,
    0.16666666666666412,
    0.50000000000000107,
    1.0,
    1.0,
];

/// e^(±x) as p·s with p = 2·e^r and s = 2^(n − 1 + scale): both factors are in range as long as `x` is clamped to where the product is, a
/// little beyond the overflow (s = ∞) and the underflow (s = 0). `r` is the rest that ln 2 leaves, by the sum with a magic number whose
/// last bits become n, and by ln 2 in two parts (Cody and Waite).
fn scaled_exp(b: &mut Builder, x: Val, negative: bool, scale: i64) -> (Val, Val) {
    let (n, s, r) = reduce_exp(b, x, negative, scale);
    let _ = n;
    let sign = if negative { -1.0 } else { 1.0 };
    let coefficients = table(b, x, EXP_F32, EXP_F64);
    let top = coefficients.len() - 1;
    let coefficients: Vec<f64> = coefficients.iter().enumerate().map(|(i, c)| 2.0 * c * f64::powi(sign, (top - i) as i32)).collect();
    (poly(b, r, &coefficients), s)
}

/// (n, 2^(n − 1 + scale), ±r) of [`scaled_exp`]; `r` has the sign of x, negated or not.
fn reduce_exp(b: &mut Builder, x: Val, negative: bool, scale: i64) -> (Val, Val, Val) {
    let sign = if negative { -1.0 } else { 1.0 };
    // 1.5·2^mantissa: adding it leaves the integer in the last bits; the bias of the exponent goes along.
    let (magic, bias, shift, hi, lo) = match is_f64(b, x) {
        false => (12582912.0, 127, 23, 0.693145751953125, 1.428606820309417e-6),
        true => (6755399441055744.0, 1023, 52, 6.93147180369123816490e-01, 1.90821492927058770002e-10),
    };
    let magic = number(b, x, magic + (bias - 1 + scale) as f64);
    let (log2e, hi, lo) = (number(b, x, sign * LOG2_E), number(b, x, -sign * hi), number(b, x, -sign * lo));
    let shifted = b.fma(x, log2e, magic);
    let n = b.sub(shifted, magic);
    let r = b.fma(n, hi, x);
    let r = b.fma(n, lo, r);
    let s = to_bits(b, shifted);
    let count = b.int(b.ty(s), shift);
    let s = b.bin(Bin::Shl, s, count);
    (n, from_bits(b, s), r)
}

/// Bounds just beyond underflow and overflow of eˣ.
fn exp_range(b: &Builder, x: Val) -> (f64, f64) {
    if is_f64(b, x) { (-708.6, 710.3) } else { (-87.5, 89.4) }
}

/// eˣ; 2 ulp. Results under twice the smallest normal number are 0.
pub fn exp(b: &mut Builder, x: Val) -> Val {
    let (lo, hi) = exp_range(b, x);
    let x = super::basic::clamp(b, x, lo, hi);
    let (p, s) = scaled_exp(b, x, false, 0);
    b.mul(p, s)
}

/// eˣ for x ≤ 0 (softmax); as [`exp`].
pub fn exp_nonpositive(b: &mut Builder, x: Val) -> Val {
    let (lo, _) = exp_range(b, x);
    let x = super::basic::clamp(b, x, lo, f64::INFINITY);
    let (p, s) = scaled_exp(b, x, false, 0);
    b.mul(p, s)
}

/// 1 + e⁻ˣ.
fn one_plus_exp_neg(b: &mut Builder, x: Val) -> Val {
    let (lo, hi) = exp_range(b, x);
    let x = super::basic::clamp(b, x, -hi, -lo);
    let (p, s) = scaled_exp(b, x, true, 0);
    let one = number(b, x, 1.0);
    b.fma(p, s, one)
}

/// 1 / (1 + e⁻ˣ); 3 ulp.
pub fn sigmoid(b: &mut Builder, x: Val) -> Val {
    let d = one_plus_exp_neg(b, x);
    let one = number(b, x, 1.0);
    b.div(one, d)
}

/// x · sigmoid(x); 3 ulp, but 0 where eˣ is (f32: below about −87).
pub fn silu(b: &mut Builder, x: Val) -> Val {
    let d = one_plus_exp_neg(b, x);
    b.div(x, d)
}

/// x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³))) = x · sigmoid(2√(2/π)·(x + …)); 4 ulp.
pub fn gelu_tanh(b: &mut Builder, x: Val) -> Val {
    let k = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    let z = b.mul(x, x);
    let inner = poly(b, z, &[0.044715 * k, k]);
    let u = b.mul(x, inner);
    let d = one_plus_exp_neg(b, u);
    b.div(x, d)
}

/// (e^r − 1 − r)/r² on |r| ≤ ln2/2: 2⁻²⁶ (4th degree), 2⁻⁶⁰ (10th degree), relative to e^r − 1.
const EXPM1_F32: &[f64] = &[0.0013882516489917349, 0.0083665471271561488, 0.041667200711291218, 0.16666543424312364, 0.49999998149620739];
const EXPM1_F64: &[f64] = &[
    2.0875329289255238e-9,
    2.5109024491178077e-8,
    2.7557402774929331e-7,
    2.7557244254112245e-6,
    2.4801587172229981e-5,
    0.00019841269886073523,
    0.0013888888888962606,
    0.0083333333333216541,
    0.041666666666666508,
    0.16666666666666677,
    0.5,
];

/// (eˣ − 1)/2 for x from −40 to a little beyond the overflow of eˣ/2.
fn half_expm1(b: &mut Builder, x: Val) -> Val {
    let (_, s, r) = reduce_exp(b, x, false, -1);
    let q = poly(b, r, table(b, x, EXPM1_F32, EXPM1_F64));
    let z = b.mul(r, r);
    let e = b.fma(z, q, r);
    let quarter = number(b, x, 0.25);
    let d = b.sub(s, quarter);
    let h = b.fma(s, e, d);
    b.add(h, h)
}

/// eˣ − 1; 3 ulp.
pub fn expm1(b: &mut Builder, x: Val) -> Val {
    let (_, hi) = exp_range(b, x);
    let clamped = super::basic::clamp(b, x, -40.0, hi);
    let h = half_expm1(b, clamped);
    let r = b.add(h, h);
    copy_sign(b, r, x)
}

/// sinh x; 4 ulp.
pub fn sinh(b: &mut Builder, x: Val) -> Val {
    // Just beyond the overflow, at most 129 (1025) and a half powers of two.
    let limit = if is_f64(b, x) { 710.6 } else { 89.6 };
    let a = b.un(Un::Abs, x);
    let a = super::basic::clamp(b, a, f64::NEG_INFINITY, limit);
    // With h = (e^a − 1)/2: sinh a = h + h/(2h + 1), whose second summand is ½ long before h overflows.
    let h = half_expm1(b, a);
    let (one, half, far) = (number(b, x, 1.0), number(b, x, 0.5), number(b, x, 40.0));
    let d = b.add(h, h);
    let d = b.add(d, one);
    let q = b.div(h, d);
    let is_far = b.cmp(Cmp::Gt, a, far);
    let q = b.select(is_far, half, q);
    let r = b.add(h, q);
    copy_sign(b, r, x)
}

/// cosh x; 4 ulp.
pub fn cosh(b: &mut Builder, x: Val) -> Val {
    let (_, hi) = exp_range(b, x);
    let a = b.un(Un::Abs, x);
    let a = super::basic::clamp(b, a, f64::NEG_INFINITY, hi + LN_2 - 0.05);
    let (p, s) = scaled_exp(b, a, false, -1);
    let t = b.mul(p, s);
    let quarter = number(b, x, 0.25);
    let q = b.div(quarter, t);
    b.add(t, q)
}

/// tanh x/x as a quotient of polynomials in x²: 0.4·2⁻²⁴, then searched for the coefficients of f32 whose rounding does least harm.
const TANH_P: &[f64] = &[1.33310749e-8, 2.05976539e-5, 0.00349514675, 0.133807436, 1.0];
const TANH_Q: &[f64] = &[7.76854506e-7, 0.000328473223, 0.0258755777, 0.467140615, 1.0];
/// Where this quotient is 1 to the last bit, and stays so.
const TANH_LIMIT: f64 = 8.89999962;

/// tanh x; 5 ulp (f32), 3 ulp (f64).
pub fn tanh(b: &mut Builder, x: Val) -> Val {
    if !is_f64(b, x) {
        return rational(b, x, TANH_LIMIT, TANH_P, TANH_Q);
    }
    // −e/(e + 2) with e = e^(−2|x|) − 1.
    let a = b.un(Un::Abs, x);
    let minus = number(b, x, -2.0);
    let a = b.mul(a, minus);
    let a = super::basic::clamp(b, a, -40.0, f64::INFINITY);
    let h = half_expm1(b, a);
    let one = number(b, x, 1.0);
    let d = b.add(h, one);
    let r = b.div(h, d);
    copy_sign(b, r, x)
}

/// x·P(x²)/Q(x²) with x clamped to ±limit.
fn rational(b: &mut Builder, x: Val, limit: f64, p: &[f64], q: &[f64]) -> Val {
    let x = super::basic::clamp(b, x, -limit, limit);
    let z = b.mul(x, x);
    let w = b.mul(z, z);
    let p = by_pairs(b, z, w, p);
    let q = by_pairs(b, z, w, q);
    let r = b.div(p, q);
    b.mul(r, x)
}

/// A polynomial, highest power first, as one in w = z² of pairs: half as long a chain as Horner's rule, and half as many roundings in turn.
fn by_pairs(b: &mut Builder, z: Val, w: Val, coefficients: &[f64]) -> Val {
    let pairs: Vec<Val> = coefficients.rchunks(2).map(|pair| poly(b, z, pair)).collect();
    pairs.into_iter().rev().reduce(|high, low| b.fma(high, w, low)).expect("a coefficient")
}

/// erf x/x as a quotient of polynomials in x², found as those of the hyperbolic tangent.
const ERF_P: &[f64] = &[2.01344619e-6, 0.000283942791, 0.00381222577, 0.052886229, 0.191756114, 1.12837911];
const ERF_Q: &[f64] = &[3.76636599e-5, 0.00117012986, 0.0150643187, 0.114629544, 0.503272176, 1.0];
/// Where this quotient is 1 to the last bit, and stays so.
const ERF_LIMIT: f64 = 3.925;

/// (erf x/x − 1) on |x| ≤ 1, in x²: 7·10⁻¹⁸.
const ERF_NEAR: &[f64] = &[
    -7.7795064284619479e-10,
    1.3711002334663818e-8,
    -1.620631927634979e-7,
    1.6447132362935231e-6,
    -1.4924712373381395e-5,
    0.00012055293581099568,
    -0.00085483259294765919,
    0.0052239776061224975,
    -0.026866170643112078,
    0.1128379167094419,
    -0.3761263890318352,
    0.12837916709551257,
];
/// e^(x²)·(1 − erf x) on 1 ≤ x ≤ 6, in (x − 5/2)/(x + 5/2): 2·10⁻¹⁸.
const ERF_FAR: &[f64] = &[
    3.4198492175587349e-7,
    1.2986958016554586e-7,
    -1.8008877475684559e-6,
    -2.314193983719283e-6,
    7.5524001296563109e-6,
    1.8617090392009248e-5,
    -3.4182227888363037e-5,
    -0.0001288774166998413,
    0.00022838037960763381,
    0.00087591546309406916,
    -0.0026423659643979439,
    -0.0039937011662206646,
    0.03992253907558849,
    -0.12503305237882478,
    0.25171319321744926,
    -0.37173673394897337,
    0.21080636406114358,
];

/// erf x; 5.3 ulp (f32), 2 ulp (f64); ±1 exactly where it rounds to that.
pub fn erf(b: &mut Builder, x: Val) -> Val {
    if !is_f64(b, x) {
        return rational(b, x, ERF_LIMIT, ERF_P, ERF_Q);
    }
    let (one, half) = (number(b, x, 1.0), number(b, x, 2.5));
    let a = b.un(Un::Abs, x);
    let z = b.mul(x, x);
    let p = poly(b, z, ERF_NEAR);
    let near = b.fma(x, p, x);
    // Beyond 6 nothing is left of the rest.
    let a6 = super::basic::clamp(b, a, f64::NEG_INFINITY, 6.0);
    let (num, den) = (b.sub(a6, half), b.add(a6, half));
    let t = b.div(num, den);
    let p = poly(b, t, ERF_FAR);
    let square = b.mul(a6, a6);
    let square = b.un(Un::Neg, square);
    let e = exp_nonpositive(b, square);
    let rest = b.mul(e, p);
    let far = b.sub(one, rest);
    let far = copy_sign(b, far, x);
    let is_near = b.cmp(Cmp::Lt, a, one);
    b.select(is_near, near, far)
}

/// x/2 · (1 + erf(x/√2)); the error is that of erf, times x/2: below −1 that is relative to x, not to what is left. gelu(−0) is 0.
pub fn gelu(b: &mut Builder, x: Val) -> Val {
    let (scale, half) = (number(b, x, FRAC_1_SQRT_2), number(b, x, 0.5));
    let e = b.mul(x, scale);
    let e = erf(b, e);
    let h = b.mul(x, half);
    b.fma(h, e, h)
}

/// (log(1 + f) − f + f²/2)/f³ on 1/√2 ≤ 1 + f ≤ √2: 6·10⁻⁹ relative to the logarithm.
const LOG_F32: &[f64] = &[
    -0.076344993391905797,
    0.12761578167671362,
    -0.13160181860530944,
    0.1420175781113617,
    -0.16623357380350495,
    0.20001226885163842,
    -0.25000821033417279,
    0.33333331707616333,
];
/// (log(1 + f) − 2s)/s³ with s = f/(2 + f), in s²: fdlibm's e_log.c, 2⁻⁵⁸.
const LOG_F64: &[f64] = &[
    1.479819860511658591e-01,
    1.531383769920937332e-01,
    1.818357216161805012e-01,
    2.222219843214978396e-01,
    2.857142874366239149e-01,
    3.999999999940941908e-01,
    6.666666666666735130e-01,
];

/// ln 2 in two parts; the first is so short that its products with exponents are exact.
pub(super) fn ln2_parts(b: &Builder, x: Val) -> (f64, f64) {
    if is_f64(b, x) { (6.93147180369123816490e-01, 1.90821492927058770002e-10) } else { (0.693359375, -2.12194440e-4) }
}

/// (e, f) with x = 2^e·(1 + f) and √½ ≤ 1 + f < √2, for normal, positive, finite x.
fn split_exponent(b: &mut Builder, x: Val) -> (Val, Val) {
    // The bits of √½ and of 1: so that the exponent changes at √½ and its field is that of a number in [1, 2).
    let (shift, root, one_bits, implied, bias) = match is_f64(b, x) {
        false => (23, 0x3f35_04f3, 0x3f80_0000, 8388608.0, 127.0),
        true => (52, 0x3fe6_a09e_667f_3bcd, 0x3ff0_0000_0000_0000, 4503599627370496.0, 1023.0),
    };
    let bits = to_bits(b, x);
    let bits = b.add_int(bits, one_bits - root);
    let (count, mantissa) = (b.int(b.ty(bits), shift), b.int(b.ty(bits), (1 << shift) - 1));
    let e = b.bin(Bin::ShrU, bits, count);
    let m = b.bin(Bin::And, bits, mantissa);
    let m = b.add_int(m, root);
    let m = from_bits(b, m);
    // A small integer in the last bits of 2^mantissa is that number plus the integer.
    let magic = number(b, x, implied);
    let magic = to_bits(b, magic);
    let e = b.bin(Bin::Or, e, magic);
    let e = from_bits(b, e);
    let (bias, one) = (number(b, x, implied + bias), number(b, x, 1.0));
    (b.sub(e, bias), b.sub(m, one))
}

/// As [`split_exponent`], also for numbers that are not normal.
pub(super) fn split_any(b: &mut Builder, x: Val) -> (Val, Val) {
    let (least, up) = if is_f64(b, x) { (f64::MIN_POSITIVE, 54) } else { (f64::from(f32::MIN_POSITIVE), 25) };
    let (least, zero) = (number(b, x, least), number(b, x, 0.0));
    let (scale, down) = (number(b, x, f64::powi(2.0, up)), number(b, x, -f64::from(up)));
    let tiny = b.cmp(Cmp::Lt, x, least);
    let scaled = b.mul(x, scale);
    let y = b.select(tiny, scaled, x);
    let down = b.select(tiny, down, zero);
    let (e, f) = split_exponent(b, y);
    (b.add(e, down), f)
}

/// log(2^e·(1 + f)).
fn log_of_parts(b: &mut Builder, e: Val, f: Val) -> Val {
    let (hi, lo) = ln2_parts(b, f);
    let (hi, lo) = (number(b, f, hi), number(b, f, lo));
    let z = b.mul(f, f);
    if !is_f64(b, f) {
        let p = poly(b, f, LOG_F32);
        let p = b.mul(p, f);
        let p = b.mul(p, z);
        let p = b.fma(e, lo, p);
        let minus = number(b, f, -0.5);
        let p = b.fma(z, minus, p);
        let r = b.add(f, p);
        return b.fma(e, hi, r);
    }
    let (two, half) = (number(b, f, 2.0), number(b, f, 0.5));
    let d = b.add(f, two);
    let s = b.div(f, d);
    let w = b.mul(s, s);
    let p = poly(b, w, LOG_F64);
    let h = b.mul(z, half);
    let p = b.fma(p, w, h);
    let p = b.mul(p, s);
    let p = b.fma(e, lo, p);
    let p = b.sub(p, h);
    let p = b.add(p, f);
    b.fma(e, hi, p)
}

/// Natural logarithm; 2 ulp.
pub fn log(b: &mut Builder, x: Val) -> Val {
    let (e, f) = split_any(b, x);
    let r = log_of_parts(b, e, f);
    let zero = number(b, x, 0.0);
    log_limits(b, x, zero, r)
}

/// `r`, the logarithm of something that is positive where `x` > `least`, with infinities and NaN put right.
pub(super) fn log_limits(b: &mut Builder, x: Val, least: Val, r: Val) -> Val {
    let (inf, minus, nan) = (number(b, x, f64::INFINITY), number(b, x, f64::NEG_INFINITY), number(b, x, f64::NAN));
    let finite = b.cmp(Cmp::Lt, x, inf);
    let r = b.select(finite, r, x);
    let at = b.cmp(Cmp::Eq, x, least);
    let limit = b.select(at, minus, nan);
    let above = b.cmp(Cmp::Gt, x, least);
    b.select(above, r, limit)
}

/// log(1 + x); 3 ulp.
pub fn log1p(b: &mut Builder, x: Val) -> Val {
    let (one, minus) = (number(b, x, 1.0), number(b, x, -1.0));
    let u = b.add(x, one);
    let (e, f) = split_exponent(b, u);
    let r = log_of_parts(b, e, f);
    // What rounding took from 1 + x.
    let c = b.sub(u, one);
    let c = b.sub(x, c);
    let c = b.div(c, u);
    let r = b.add(r, c);
    let r = log_limits(b, x, minus, r);
    copy_sign(b, r, x)
}

/// log(1 + eˣ) = max(x, 0) + log(1 + e^−|x|); 4 ulp.
pub fn softplus(b: &mut Builder, x: Val) -> Val {
    let a = b.un(Un::Abs, x);
    let a = b.un(Un::Neg, a);
    let e = exp_nonpositive(b, a);
    let l = log1p(b, e);
    let m = relu(b, x);
    b.add(m, l)
}

/// asinh x; 4 ulp.
pub fn asinh(b: &mut Builder, x: Val) -> Val {
    let a = b.un(Un::Abs, x);
    let one = number(b, x, 1.0);
    let z = b.mul(a, a);
    let root = b.add(z, one);
    let root = b.un(Un::Sqrt, root);
    let d = b.add(root, one);
    let q = b.div(z, d);
    let near = b.add(a, q);
    let r = log1p_or_log_twice(b, a, near);
    copy_sign(b, r, x)
}

/// acosh x; 4 ulp.
pub fn acosh(b: &mut Builder, x: Val) -> Val {
    let (one, two) = (number(b, x, 1.0), number(b, x, 2.0));
    let t = b.sub(x, one);
    let d = b.add(t, two);
    let root = b.mul(t, d);
    let root = b.un(Un::Sqrt, root);
    let near = b.add(t, root);
    let r = log1p_or_log_twice(b, x, near);
    let inside = b.cmp(Cmp::Ge, x, one);
    let nan = number(b, x, f64::NAN);
    b.select(inside, r, nan)
}

/// log(1 + near), or log(2a) = log(1 + a) + log 2 where `a` is so large that 1 is nothing beside it and that its square could overflow.
fn log1p_or_log_twice(b: &mut Builder, a: Val, near: Val) -> Val {
    let far = f64::powi(2.0, if is_f64(b, a) { 60 } else { 28 });
    let (far, ln2, zero) = (number(b, a, far), number(b, a, LN_2), number(b, a, 0.0));
    let is_far = b.cmp(Cmp::Gt, a, far);
    let y = b.select(is_far, a, near);
    let add = b.select(is_far, ln2, zero);
    let l = log1p(b, y);
    b.add(l, add)
}

/// atanh x; 4 ulp.
pub fn atanh(b: &mut Builder, x: Val) -> Val {
    let a = b.un(Un::Abs, x);
    let (one, half) = (number(b, x, 1.0), number(b, x, 0.5));
    let twice = b.add(a, a);
    let d = b.sub(one, a);
    let q = b.div(twice, d);
    let l = log1p(b, q);
    let r = b.mul(l, half);
    copy_sign(b, r, x)
}
