//! Changes of type of numbers in register form.

use crate::math;
use dnnc_ir::Type;
use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Ty, Un, Val};

/// Integers of another width, the same ones if they are of this.
pub fn resize(b: &mut Builder, v: Val, to: Elem, signed: bool) -> Val {
    let from = b.ty(v).elem;
    match from.bytes().cmp(&to.bytes()) {
        std::cmp::Ordering::Equal => v,
        std::cmp::Ordering::Greater => b.conv(Conv::Wrap, v, to),
        std::cmp::Ordering::Less if signed => b.conv(Conv::Sext, v, to),
        std::cmp::Ordering::Less => b.conv(Conv::Zext, v, to),
    }
}

/// Bits of an integer type as a value; [`Type::bytes`] does not tell those apart that do not fill a byte.
pub fn width(ty: Type) -> u32 {
    match ty {
        Type::Bool => 1,
        Type::I2 | Type::U2 => 2,
        Type::I4 | Type::U4 => 4,
        ty => 8 * ty.bytes() as u32,
    }
}

/// An integer in a register, reduced to the range of its type.
pub fn wrap(b: &mut Builder, v: Val, ty: Type) -> Val {
    let (reg, bits) = (b.ty(v), width(ty));
    let free = 8 * reg.elem.bytes() as u32 - bits;
    if free == 0 {
        return v;
    }
    if ty.is_signed() {
        let count = b.int(reg, i64::from(free));
        let v = b.bin(Bin::Shl, v, count);
        return b.bin(Bin::ShrS, v, count);
    }
    let mask = b.int(reg, (1 << bits) - 1);
    b.bin(Bin::And, v, mask)
}

/// The least and the largest number of an integer type.
pub fn range(ty: Type) -> (i128, i128) {
    let bits = width(ty);
    if ty.is_signed() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

/// A number in register form as a float, to nearest even.
pub(crate) fn to_float(b: &mut Builder, v: Val, from: Type, to: Elem) -> Val {
    if from.is_float() {
        return if b.ty(v).elem == to { v } else { b.conv(Conv::FloatToFloat, v, to) };
    }
    match from {
        Type::U32 if b.ty(v).is_vector() => {
            let ty = b.ty(v);
            let (half, low) = (b.int(ty, 16), b.int(ty, 0xffff));
            let (hi, lo) = (b.bin(Bin::ShrU, v, half), b.bin(Bin::And, v, low));
            let (hi, lo) = (b.conv(Conv::IntToFloat, hi, to), b.conv(Conv::IntToFloat, lo, to));
            let scale = math::number(b, hi, 65536.0);
            b.fma(hi, scale, lo)
        }
        Type::U32 | Type::U64 => b.conv(Conv::UintToFloat, v, to),
        _ => b.conv(Conv::IntToFloat, v, to),
    }
}

/// A number in register form as f32 rounded to odd where it is not exact: a second rounding, to fewer bits, then is as good as one.
pub fn to_odd_float(b: &mut Builder, v: Val, from: Type) -> Val {
    match from {
        Type::F64 => {
            let y = b.conv(Conv::FloatToFloat, v, Elem::F32);
            let back = b.conv(Conv::FloatToFloat, y, Elem::F64);
            let (a, back_a) = (b.un(Un::Abs, v), b.un(Un::Abs, back));
            let (exact, beyond) = (b.cmp(Cmp::Eq, a, back_a), b.cmp(Cmp::Gt, back_a, a));
            let i = b.conv(Conv::Bits, y, Elem::I32);
            let (zero, one) = (b.int(Ty::I32, 0), b.int(Ty::I32, 1));
            let step = b.branch(beyond, |_| vec![one], |_| vec![zero])[0];
            let odd = b.sub(i, step);
            let odd = b.bin(Bin::Or, odd, one);
            let nan = b.cmp(Cmp::Ne, y, y);
            let i = b.branch(exact, |_| vec![i], |_| vec![odd])[0];
            let odd = b.conv(Conv::Bits, i, Elem::F32);
            b.select(nan, y, odd)
        }
        Type::I32 | Type::U32 | Type::I64 | Type::U64 => {
            // Bits under the precision of the float become one that says whether there were any.
            let ty = b.ty(v);
            let lost = if ty.elem == Elem::I64 { 11 } else { 7 };
            let (low, unit, zero) = (b.int(ty, (1 << lost) - 1), b.int(ty, 1 << lost), b.int(ty, 0));
            let rest = b.bin(Bin::And, v, low);
            let inexact = b.cmp(Cmp::Ne, rest, zero);
            let sticky = b.select(inexact, unit, zero);
            let kept = b.sub(v, rest);
            let odd = b.bin(Bin::Or, kept, sticky);
            let magnitude = if from.is_signed() { b.un(Un::Abs, v) } else { v };
            let bound = b.int(ty, if ty.elem == Elem::I64 { 1 << 53 } else { 1 << 24 });
            let large = b.cmp(Cmp::GtU, magnitude, bound);
            let v = b.select(large, odd, v);
            if ty.elem == Elem::I32 {
                return to_float(b, v, from, Elem::F32);
            }
            let v = to_float(b, v, from, Elem::F64);
            to_odd_float(b, v, Type::F64)
        }
        _ => to_float(b, v, from, Elem::F32),
    }
}

/// A float as an integer in register form, towards 0, saturating; NaN is 0.
pub(crate) fn to_int(b: &mut Builder, v: Val, to: Type) -> Val {
    match to {
        Type::I32 => b.conv(Conv::FloatToInt, v, Elem::I32),
        Type::I64 => b.conv(Conv::FloatToInt, v, Elem::I64),
        Type::U64 => b.conv(Conv::FloatToUint, v, Elem::I64),
        Type::U32 if !b.ty(v).is_vector() => b.conv(Conv::FloatToUint, v, Elem::I32),
        Type::U32 => {
            let ty = b.ty(v).of(Elem::I32);
            let (zero, middle, top) = (math::number(b, v, 0.0), math::number(b, v, 2147483648.0), b.int(ty, i64::from(i32::MIN)));
            let low = b.max(v, zero);
            let low = b.conv(Conv::FloatToInt, low, Elem::I32);
            let high = b.sub(v, middle);
            let high = b.conv(Conv::FloatToInt, high, Elem::I32);
            let high = b.bin(Bin::Xor, high, top);
            let is_high = b.cmp(Cmp::Ge, v, middle);
            b.select(is_high, high, low)
        }
        _ => {
            let (lo, hi) = range(to);
            let v = math::clamp(b, v, lo as f64, hi as f64);
            b.conv(Conv::FloatToInt, v, Elem::I32)
        }
    }
}
