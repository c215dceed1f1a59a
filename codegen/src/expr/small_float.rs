//! Floats of 8 bits or less, by integer arithmetic on lanes.

use crate::math;
use dnnc_ir::Type;
use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Un, Val};

/// A float of 8 bits or less with sign, exponent and mantissa.
#[derive(Clone, Copy)]
pub struct Small {
    pub bits: u32,
    pub mantissa: u32,
    pub bias: i32,
    /// Largest finite magnitude.
    pub max: i64,
    pub infinity: Option<i64>,
    pub nan: Nan,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Nan {
    /// This magnitude, with a sign.
    Signed(i64),
    /// The bits of −0, which therefore is not there.
    MinusZero,
    /// There is none; ONNX gives −0.
    None,
}

pub fn small(ty: Type) -> Option<Small> {
    let (bits, mantissa, bias, max, infinity, nan) = match ty {
        Type::F8E4M3FN => (8, 3, 7, 0x7e, None, Nan::Signed(0x7f)),
        Type::F8E4M3FNUZ => (8, 3, 8, 0x7f, None, Nan::MinusZero),
        Type::F8E5M2 => (8, 2, 15, 0x7b, Some(0x7c), Nan::Signed(0x7e)),
        Type::F8E5M2FNUZ => (8, 2, 16, 0x7f, None, Nan::MinusZero),
        Type::F4E2M1 => (4, 1, 1, 0x7, None, Nan::None),
        _ => return None,
    };
    Some(Small { bits, mantissa, bias, max, infinity, nan })
}

/// f32 to the bits (in I32) of a small float, to nearest even; what is too large becomes the largest number, or infinity or NaN.
pub fn encode(b: &mut Builder, x: Val, f: Small, saturate: bool) -> Val {
    let a = b.un(Un::Abs, x);
    let (xi, ai) = (b.conv(Conv::Bits, x, Elem::I32), b.conv(Conv::Bits, a, Elem::I32));
    let ty = b.ty(xi);
    let drop = i64::from(23 - f.mantissa);
    let shift = b.int(ty, drop);
    let one = b.int(ty, 1);
    let lsb = b.bin(Bin::ShrU, ai, shift);
    let lsb = b.bin(Bin::And, lsb, one);
    let r = b.add(ai, lsb);
    let r = b.add_int(r, (1 << (drop - 1)) - 1);
    let r = b.bin(Bin::ShrU, r, shift);
    let normal = b.add_int(r, -(i64::from(127 - f.bias) << f.mantissa));
    // Below the normal numbers the spacing is constant: that of a float in this range, whose last bits are the result.
    let magic = math::number(b, x, f64::powi(2.0, 23 + 1 - f.bias - f.mantissa as i32));
    let (sum, magic) = (b.add(a, magic), b.conv(Conv::Bits, magic, Elem::I32));
    let sum = b.conv(Conv::Bits, sum, Elem::I32);
    let tiny = b.sub(sum, magic);
    let least = math::number(b, x, f64::powi(2.0, 1 - f.bias));
    let is_tiny = b.cmp(Cmp::Lt, a, least);
    let r = b.select(is_tiny, tiny, normal);
    let (max, sign_bit, zero) = (b.int(ty, f.max), b.int(ty, 1 << (f.bits - 1)), b.int(ty, 0));
    let over = b.cmp(Cmp::Gt, r, max);
    let limit = match (f.infinity, f.nan) {
        _ if saturate => max,
        (Some(i), _) => b.int(ty, i),
        (None, Nan::Signed(nan)) => b.int(ty, nan),
        (None, Nan::MinusZero) => sign_bit,
        (None, Nan::None) => max,
    };
    let r = b.select(over, limit, r);
    let is_nan = b.cmp(Cmp::Ne, x, x);
    let up = b.int(ty, i64::from(32 - f.bits));
    let sign = b.bin(Bin::ShrU, xi, up);
    let sign = b.bin(Bin::And, sign, sign_bit);
    match f.nan {
        Nan::Signed(nan) => {
            let nan = b.int(ty, nan);
            let r = b.select(is_nan, nan, r);
            b.bin(Bin::Or, r, sign)
        }
        Nan::MinusZero => {
            let is_zero = b.cmp(Cmp::Eq, r, zero);
            let sign = b.select(is_zero, zero, sign);
            let r = b.bin(Bin::Or, r, sign);
            b.select(is_nan, sign_bit, r)
        }
        Nan::None => {
            let r = b.bin(Bin::Or, r, sign);
            b.select(is_nan, sign_bit, r)
        }
    }
}

/// The bits (in I32) of a small float to f32.
pub fn decode(b: &mut Builder, bits: Val, f: Small) -> Val {
    let ty = b.ty(bits);
    let magnitude = b.int(ty, (1 << (f.bits - 1)) - 1);
    let magnitude = b.bin(Bin::And, bits, magnitude);
    let up = b.int(ty, i64::from(23 - f.mantissa));
    let r = b.bin(Bin::Shl, magnitude, up);
    let r = b.conv(Conv::Bits, r, Elem::F32);
    let scale = math::number(b, r, f64::powi(2.0, 127 - f.bias));
    let mut r = b.mul(r, scale);
    let nan = math::number(b, r, f64::NAN);
    if let Some(i) = f.infinity {
        let (i, inf) = (b.int(ty, i), math::number(b, r, f64::INFINITY));
        let is_inf = b.cmp(Cmp::Eq, magnitude, i);
        r = b.select(is_inf, inf, r);
    }
    if let Nan::Signed(_) = f.nan {
        // What is beyond the numbers and infinity.
        let first = b.int(ty, f.infinity.unwrap_or(f.max) + 1);
        let is_nan = b.cmp(Cmp::Ge, magnitude, first);
        r = b.select(is_nan, nan, r);
    }
    let to_top = b.int(ty, i64::from(32 - f.bits));
    let top = b.int(ty, i64::from(i32::MIN));
    let sign = b.bin(Bin::Shl, bits, to_top);
    let sign = b.bin(Bin::And, sign, top);
    let r = b.conv(Conv::Bits, r, Elem::I32);
    let r = b.bin(Bin::Or, r, sign);
    let mut r = b.conv(Conv::Bits, r, Elem::F32);
    if f.nan == Nan::MinusZero {
        let minus_zero = b.int(ty, 1 << (f.bits - 1));
        let is_nan = b.cmp(Cmp::Eq, bits, minus_zero);
        r = b.select(is_nan, nan, r);
    }
    r
}

/// f32 to the exponent (in I32) of an f8e8m0: `up`, `down` or to the `nearest` power of two. The sign is lost; infinities and NaN are NaN.
pub fn encode_power(b: &mut Builder, x: Val, round: &str, saturate: bool) -> Val {
    let a = b.un(Un::Abs, x);
    let i = b.conv(Conv::Bits, a, Elem::I32);
    let ty = b.ty(i);
    let (shift, max, nan, zero) = (b.int(ty, 23), b.int(ty, 0xfe), b.int(ty, 0xff), b.int(ty, 0));
    let e = b.bin(Bin::ShrU, i, shift);
    let i = match round {
        "up" => b.add_int(i, 0x7f_ffff),
        "nearest" => {
            // Halves go up, but not from 0.
            let (half, less) = (b.int(ty, 0x40_0000), b.int(ty, 0x3f_ffff));
            let lowest = b.cmp(Cmp::Eq, e, zero);
            let add = b.select(lowest, less, half);
            b.add(i, add)
        }
        _ => i,
    };
    let mut r = b.bin(Bin::ShrU, i, shift);
    if saturate {
        r = b.bin(Bin::MinS, r, max);
    }
    let special = b.cmp(Cmp::Eq, e, nan);
    b.select(special, nan, r)
}

/// The exponent (in I32) of an f8e8m0 to f32.
pub fn decode_power(b: &mut Builder, bits: Val) -> Val {
    let ty = b.ty(bits);
    let (zero, nan, shift) = (b.int(ty, 0), b.int(ty, 0xff), b.int(ty, 23));
    // 2⁻¹²⁷ is no normal number.
    let least = b.int(ty, 0x40_0000);
    let r = b.bin(Bin::Shl, bits, shift);
    let is_zero = b.cmp(Cmp::Eq, bits, zero);
    let r = b.select(is_zero, least, r);
    let r = b.conv(Conv::Bits, r, Elem::F32);
    let is_nan = b.cmp(Cmp::Eq, bits, nan);
    let not = math::number(b, r, f64::NAN);
    b.select(is_nan, not, r)
}
