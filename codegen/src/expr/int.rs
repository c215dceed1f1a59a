//! Operators on integers.

use super::convert::{resize, width};
use dnnc_ir::{Kind, Type};
use dnnc_kir::{Bin, Builder, Cmp, Elem, Ty, Un, Val};

/// The minimum or maximum instruction of an integer type in its register.
pub(crate) fn int_min_max(ty: Type, max: bool) -> Bin {
    match (matches!(ty, Type::U32 | Type::U64), max) {
        (false, false) => Bin::MinS,
        (false, true) => Bin::MaxS,
        (true, false) => Bin::MinU,
        (true, true) => Bin::MaxU,
    }
}

pub fn int_unary(b: &mut Builder, kind: Kind, ty: Type, x: Val) -> Val {
    let reg = b.ty(x);
    let (zero, one) = (b.int(reg, 0), b.int(reg, 1));
    match kind {
        Kind::Neg => b.sub(zero, x),
        Kind::BitNot => b.un(Un::Not, x),
        Kind::Abs if ty.is_signed() => {
            let minus = b.sub(zero, x);
            b.bin(Bin::MaxS, x, minus)
        }
        Kind::Relu if ty.is_signed() => b.bin(Bin::MaxS, x, zero),
        Kind::Abs | Kind::Relu => x,
        Kind::Sign if ty.is_signed() => {
            let minus = b.int(reg, -1);
            let r = b.bin(Bin::MinS, x, one);
            b.bin(Bin::MaxS, r, minus)
        }
        Kind::Sign => b.bin(Bin::MinU, x, one),
        other => panic!("`{}` is no function of one integer", other.name()),
    }
}

pub fn int_binary(b: &mut Builder, kind: Kind, ty: Type, x: Val, y: Val) -> Val {
    match kind {
        Kind::Add => b.add(x, y),
        Kind::Sub => b.sub(x, y),
        Kind::Mul => b.mul(x, y),
        Kind::Div => each_lane(b, &[x, y], &mut |b, v| int_div(b, v[0], v[1], ty)),
        Kind::Min | Kind::Max => b.bin(int_min_max(ty, kind == Kind::Max), x, y),
        Kind::And | Kind::Or | Kind::Xor => b.bin(bitwise(kind), x, y),
        Kind::Shl | Kind::Shr => {
            let reg = b.ty(x);
            let (limit, zero) = (b.int(reg, i64::from(width(ty))), b.int(reg, 0));
            let r = b.bin(if kind == Kind::Shl { Bin::Shl } else { Bin::ShrU }, x, y);
            let fits = b.cmp(Cmp::LtU, y, limit);
            b.select(fits, r, zero)
        }
        other => panic!("`{}` is no function of two integers", other.name()),
    }
}

pub fn check_divisor(b: &mut Builder, y: Val) {
    let zero = b.int(b.ty(y), 0);
    let is_zero = b.cmp(Cmp::Eq, y, zero);
    b.when(is_zero, |b| b.fail(dnnc_runtime::abi::DIVISION));
}

pub fn int_div(b: &mut Builder, x: Val, y: Val, ty: Type) -> Val {
    check_divisor(b, y);
    if !ty.is_signed() {
        return b.bin(Bin::DivU, x, y);
    }
    let reg = b.ty(x);
    let (minus, zero) = (b.int(reg, -1), b.int(reg, 0));
    let q = b.bin(Bin::DivS, x, y);
    // The quotient of the least number by −1 wraps.
    let negated = b.sub(zero, x);
    let is_minus = b.cmp(Cmp::Eq, y, minus);
    b.select(is_minus, negated, q)
}

pub fn int_mod(b: &mut Builder, x: Val, y: Val, ty: Type, trunc: bool) -> Val {
    check_divisor(b, y);
    if !ty.is_signed() {
        return b.bin(Bin::RemU, x, y);
    }
    let r = b.bin(Bin::RemS, x, y);
    if trunc {
        return r;
    }
    let zero = b.int(b.ty(x), 0);
    let more = b.add(r, y);
    let signs = b.bin(Bin::Xor, r, y);
    let (differ, rest) = (b.cmp(Cmp::Lt, signs, zero), b.cmp(Cmp::Ne, r, zero));
    let other = b.bin(Bin::And, differ, rest);
    b.select(other, more, r)
}

pub fn int_pow(b: &mut Builder, x: Val, y: Val, base: Type, exponent: Type) -> Val {
    let reg = b.ty(x);
    let e = resize(b, y, Elem::I64, exponent.is_signed());
    let (zero, one) = (b.int(Ty::I64, 0), b.int(Ty::I64, 1));
    let (zero_x, one_x, minus_x) = (b.int(reg, 0), b.int(reg, 1), b.int(reg, -1));
    let negative = if exponent.is_signed() { b.cmp(Cmp::Lt, e, zero) } else { b.cmp(Cmp::Ne, e, e) };
    // A negative power is that of 1/x truncated: 1 and −1 are their own, all others are 0.
    let is_zero = b.cmp(Cmp::Eq, x, zero_x);
    b.when(negative, |b| b.when(is_zero, |b| b.fail(dnnc_runtime::abi::DIVISION)));
    let (is_one, is_minus) = (b.cmp(Cmp::Eq, x, one_x), b.cmp(Cmp::Eq, x, minus_x));
    let unit = if base.is_signed() { b.bin(Bin::Or, is_one, is_minus) } else { is_one };
    let inverse = b.select(unit, x, zero_x);
    let start = b.branch(negative, |_| vec![inverse], |_| vec![x])[0];
    let back = b.sub(zero, e);
    let count = b.select(negative, back, e);
    b.while_loop(
        &[one_x, start, count],
        |b, v| b.cmp(Cmp::Ne, v[2], zero),
        |b, v| {
            let bit = b.bin(Bin::And, v[2], one);
            let odd = b.cmp(Cmp::Ne, bit, zero);
            let product = b.mul(v[0], v[1]);
            let r = b.branch(odd, |_| vec![product], |_| vec![v[0]])[0];
            let square = b.mul(v[1], v[1]);
            vec![r, square, b.bin(Bin::ShrU, v[2], one)]
        },
    )[0]
}

pub fn bitwise(kind: Kind) -> Bin {
    match kind {
        Kind::And => Bin::And,
        Kind::Or => Bin::Or,
        _ => Bin::Xor,
    }
}

/// Computes lane by lane what has no vectors.
pub fn each_lane(b: &mut Builder, args: &[Val], f: &mut dyn FnMut(&mut Builder, &[Val]) -> Val) -> Val {
    let ty = b.ty(args[0]);
    if !ty.is_vector() {
        return f(b, args);
    }
    let mut result = args[0];
    for lane in 0..ty.lanes {
        let scalars: Vec<Val> = args.iter().map(|&v| b.extract(v, lane)).collect();
        let r = f(b, &scalars);
        result = b.insert(result, r, lane);
    }
    result
}
