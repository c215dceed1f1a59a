//! Powers and the rest of a division.

use super::basic::{copy_sign, is_f64, number, poly};
use super::exponential::{exp, ln2_parts, log, log_limits, split_any};
use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Op, Ty, Un, Val};

/// x to the power of y, as IEEE 754's `pow`. f32: 1 ulp, by way of f64. f64: 1 ulp with a fused multiply-add; without one the rounding of the
/// exponent y·log x, at most 710, is not made good, and the power has an error of up to 400 ulp.
pub fn pow(b: &mut Builder, x: Val, y: Val) -> Val {
    let a = b.un(Un::Abs, x);
    let r = if is_f64(b, x) { magnitude_f64(b, a, y) } else { magnitude_f32(b, a, y) };
    let (zero, one, half) = (number(b, x, 0.0), number(b, x, 1.0), number(b, x, 0.5));
    let (nan, inf) = (number(b, x, f64::NAN), number(b, x, f64::INFINITY));
    // |x| = 1 to any power is 1, also to an infinite one.
    let unit = b.cmp(Cmp::Eq, a, one);
    let ordered = b.cmp(Cmp::Eq, y, y);
    let unit = b.bin(Bin::And, unit, ordered);
    let r = b.select(unit, one, r);
    // Below 0: an odd power is negative, a fraction is no number.
    let whole = b.un(Un::Trunc, y);
    let whole = b.cmp(Cmp::Eq, whole, y);
    let h = b.mul(y, half);
    let t = b.un(Un::Trunc, h);
    let odd = b.cmp(Cmp::Ne, t, h);
    let odd = b.bin(Bin::And, odd, whole);
    let signed = copy_sign(b, r, x);
    let r2 = b.select(odd, signed, r);
    let (negative, finite) = (b.cmp(Cmp::Lt, x, zero), b.cmp(Cmp::Lt, a, inf));
    let fraction = b.un(Un::Not, whole);
    let undefined = b.bin(Bin::And, negative, finite);
    let undefined = b.bin(Bin::And, undefined, fraction);
    let r = b.select(undefined, nan, r2);
    let trivial = b.cmp(Cmp::Eq, y, zero);
    let also = b.cmp(Cmp::Eq, x, one);
    let trivial = b.bin(Bin::Or, trivial, also);
    b.select(trivial, one, r)
}

/// a^y for a ≥ 0 in f32.
fn magnitude_f32(b: &mut Builder, a: Val, y: Val) -> Val {
    if b.ty(a).is_vector() {
        let half = b.ty(a).lanes / 2;
        let ty = Ty { elem: Elem::F32, lanes: half };
        let parts: Vec<Val> = [false, true]
            .into_iter()
            .map(|upper| {
                let (a, y) = (b.push(ty, Op::Half(a, upper)), b.push(ty, Op::Half(y, upper)));
                through_f64(b, a, y)
            })
            .collect();
        return b.join(parts[0], parts[1]);
    }
    through_f64(b, a, y)
}

fn through_f64(b: &mut Builder, a: Val, y: Val) -> Val {
    let (a, y) = (b.conv(Conv::FloatToFloat, a, Elem::F64), b.conv(Conv::FloatToFloat, y, Elem::F64));
    let l = log(b, a);
    let l = b.mul(l, y);
    let r = exp(b, l);
    b.conv(Conv::FloatToFloat, r, Elem::F32)
}

/// a^y for a ≥ 0 in f64: the logarithm as a sum of two numbers, so that its product with y keeps more than 53 bits before it is raised.
fn magnitude_f64(b: &mut Builder, a: Val, y: Val) -> Val {
    let (hi, lo) = log_sum(b, a);
    let p = b.mul(hi, y);
    let minus = b.un(Un::Neg, p);
    let tail = b.fma(hi, y, minus);
    let tail = b.fma(lo, y, tail);
    let e = exp(b, p);
    let r = b.fma(e, tail, e);
    // Where logarithm or power is 0 or infinite the tail is of no use.
    let (zero, inf) = (number(b, a, 0.0), number(b, a, f64::INFINITY));
    let usual = [(Cmp::Gt, e, zero), (Cmp::Lt, e, inf), (Cmp::Gt, a, zero), (Cmp::Lt, a, inf)];
    let usual = usual.map(|(op, x, y)| b.cmp(op, x, y));
    let usual = usual.into_iter().reduce(|x, y| b.bin(Bin::And, x, y)).expect("four masks");
    b.select(usual, r, e)
}

/// (log((1 + s)/(1 − s)) − 2s − 2s³/3)/s⁵ for 1/√2 ≤ (1 + s)/(1 − s) ≤ √2, in s²: 2⁻⁶⁵ of the logarithm.
const LOG_TAIL: &[f64] = &[
    0.13197749118377642,
    0.13256668941022317,
    0.15386763527710318,
    0.18181784237111646,
    0.22222222521353427,
    0.28571428570091894,
    0.40000000000002271,
];

/// log a as an unevaluated sum of two numbers, about 64 bits; the limits are in the first.
fn log_sum(b: &mut Builder, a: Val) -> (Val, Val) {
    let (e, f) = split_any(b, a);
    let (two, zero) = (number(b, a, 2.0), number(b, a, 0.0));
    // s = f/(2 + f), with the rest of the division and of the sum.
    let d = b.add(f, two);
    let c = b.sub(d, two);
    let c = b.sub(f, c);
    let s = b.div(f, d);
    let minus = b.un(Un::Neg, s);
    let rest = b.fma(minus, d, f);
    let rest = b.fma(minus, c, rest);
    let s_lo = b.div(rest, d);
    // u = s³ and its tail.
    let z = b.mul(s, s);
    let z_lo = product_error(b, s, s, z);
    let u = b.mul(z, s);
    let u_lo = product_error(b, z, s, u);
    let u_lo = b.fma(z_lo, s, u_lo);
    let three = number(b, a, 3.0);
    let z3 = b.mul(z, three);
    let u_lo = b.fma(z3, s_lo, u_lo);
    // t = 2/3·s³, 2/3 in two parts.
    let (third, third_lo) = (number(b, a, 2.0 / 3.0), number(b, a, 3.700743415417188e-17));
    let t = b.mul(u, third);
    let t_lo = product_error(b, u, third, t);
    let t_lo = b.fma(u, third_lo, t_lo);
    let t_lo = b.fma(u_lo, third, t_lo);
    // s⁵·tail
    let p = poly(b, z, LOG_TAIL);
    let p = b.mul(p, z);
    let t_lo = b.fma(p, u, t_lo);
    let (ln2, ln2_lo) = ln2_parts(b, a);
    let (ln2, ln2_lo) = (number(b, a, ln2), number(b, a, ln2_lo));
    let t_lo = b.fma(e, ln2_lo, t_lo);
    let t_lo = b.fma(s_lo, two, t_lo);
    let s2 = b.add(s, s);
    let (near, near_lo) = ordered_sum(b, s2, t);
    let whole = b.mul(e, ln2);
    let (hi, hi_lo) = ordered_sum(b, whole, near);
    let lo = b.add(hi_lo, near_lo);
    let lo = b.add(lo, t_lo);
    let (hi, lo) = ordered_sum(b, hi, lo);
    (log_limits(b, a, zero, hi), lo)
}

/// What rounding took from a·b = p.
fn product_error(b: &mut Builder, x: Val, y: Val, p: Val) -> Val {
    let minus = b.un(Un::Neg, p);
    b.fma(x, y, minus)
}

/// x + y and what rounding took from it, for |x| ≥ |y| or x = 0.
fn ordered_sum(b: &mut Builder, x: Val, y: Val) -> (Val, Val) {
    let sum = b.add(x, y);
    let d = b.sub(sum, x);
    (sum, b.sub(y, d))
}

/// a^n of scalars, a ≥ 0 in f64 and n ≥ 0 in I64, by squaring with two numbers for each product. It is rounded once (with a fused
/// multiply-add) while it is below 2⁵⁰⁰, and some number from there on if it is not.
pub fn whole_pow(b: &mut Builder, a: Val, n: Val) -> Val {
    let (one, zero, limit) = (number(b, a, 1.0), number(b, a, 0.0), number(b, a, f64::powi(2.0, 500)));
    let (count_one, count_zero) = (b.int(Ty::I64, 1), b.int(Ty::I64, 0));
    let product = |b: &mut Builder, (x, x_lo): (Val, Val), (y, y_lo): (Val, Val)| {
        let p = b.mul(x, y);
        let lo = product_error(b, x, y, p);
        let lo = b.fma(x, y_lo, lo);
        let lo = b.fma(x_lo, y, lo);
        let fits = b.cmp(Cmp::Lt, p, limit);
        (b.select(fits, p, limit), b.select(fits, lo, zero))
    };
    let last = b.while_loop(
        &[one, zero, a, zero, n],
        |b, v| b.cmp(Cmp::Ne, v[4], count_zero),
        |b, v| {
            let (power, factor) = ((v[0], v[1]), (v[2], v[3]));
            let bit = b.bin(Bin::And, v[4], count_one);
            let odd = b.cmp(Cmp::Ne, bit, count_zero);
            let (more, more_lo) = product(b, power, factor);
            let (square, square_lo) = product(b, factor, factor);
            let rest = b.bin(Bin::ShrU, v[4], count_one);
            vec![b.select(odd, more, v[0]), b.select(odd, more_lo, v[1]), square, square_lo, rest]
        },
    );
    b.add(last[0], last[1])
}

/// The rest of x/y with the sign of x, exactly (C's `fmod`), of scalars. For f64 this needs a fused multiply-add where x/y is beyond 2⁵³.
pub fn float_rem(b: &mut Builder, x: Val, y: Val) -> Val {
    let single = !is_f64(b, x);
    let wide = |b: &mut Builder, v: Val| if single { b.conv(Conv::FloatToFloat, v, Elem::F64) } else { v };
    let (x0, y0) = (wide(b, x), wide(b, y));
    let (r, m) = (b.un(Un::Abs, x0), b.un(Un::Abs, y0));
    let (zero, inf) = (b.number(Ty::F64, 0.0), b.number(Ty::F64, f64::INFINITY));
    let nan = b.number(Ty::F64, f64::NAN);
    // No number where x is infinite or y is 0: the loop must not see them.
    let (finite, nonzero) = (b.cmp(Cmp::Lt, r, inf), b.cmp(Cmp::Gt, m, zero));
    let defined = b.bin(Bin::And, finite, nonzero);
    let start = b.select(defined, r, zero);
    let rest = b.while_loop(
        &[start],
        |b, v| {
            let a = b.un(Un::Abs, v[0]);
            b.cmp(Cmp::Ge, a, m)
        },
        |b, v| {
            let q = b.div(v[0], m);
            let q = if single {
                // 24 bits of the quotient: their product with the 24 bits of y is exact.
                let (bits, mask) = (b.conv(Conv::Bits, q, Elem::I64), b.int(Ty::I64, !((1 << 29) - 1)));
                let bits = b.bin(Bin::And, bits, mask);
                b.conv(Conv::Bits, bits, Elem::F64)
            } else {
                q
            };
            let q = b.un(Un::Trunc, q);
            let q = b.un(Un::Neg, q);
            vec![b.fma(q, m, v[0])]
        },
    )[0];
    // A quotient rounded up leaves a rest below 0.
    let negative = b.cmp(Cmp::Lt, rest, zero);
    let more = b.add(rest, m);
    let rest = b.select(negative, more, rest);
    let rest = copy_sign(b, rest, x0);
    let rest = b.select(defined, rest, nan);
    if single { b.conv(Conv::FloatToFloat, rest, Elem::F32) } else { rest }
}
