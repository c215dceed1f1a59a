//! Elements in memory and in registers.

use super::small_float::{decode, decode_power, encode, encode_power, small};
use dnnc_ir::float8;
use dnnc_ir::{Tensor, Type};
use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Ty, Val};

/// The type that elements have in registers: f32 for floats up to 32 bits, else f64; I32 for bools and integers up to 32 bits, extended
/// by their sign, else I64.
pub fn register(ty: Type) -> Elem {
    match ty {
        Type::F64 => Elem::F64,
        Type::I64 | Type::U64 => Elem::I64,
        ty if ty.is_float() => Elem::F32,
        _ => Elem::I32,
    }
}

/// The type that elements have in memory.
pub fn memory(ty: Type) -> Elem {
    match (ty, ty.bytes()) {
        (Type::F32, _) => Elem::F32,
        (Type::F64, _) => Elem::F64,
        (_, 1) => Elem::I8,
        (_, 2) => Elem::I16,
        (_, 4) => Elem::I32,
        _ => Elem::I64,
    }
}

/// Reads `count` of `lanes` elements and brings them into register form; the other lanes are what 0 is.
pub fn load_element(b: &mut Builder, ty: Type, ptr: Val, disp: i32, lanes: u8, count: usize) -> Val {
    let v = b.load_part(Ty { elem: memory(ty), lanes }, ptr, disp, count);
    from_memory(b, v, ty)
}

/// Reads one element into all lanes, in register form.
pub fn load_element_splat(b: &mut Builder, ty: Type, ptr: Val, disp: i32, lanes: u8) -> Val {
    if memory(ty) == register(ty) {
        return b.load_splat(Ty { elem: memory(ty), lanes }, ptr, disp);
    }
    let v = load_element(b, ty, ptr, disp, 1, 1);
    b.splat(v, lanes)
}

/// Writes the first `count` lanes of a value in register form as elements of a type, rounded to it.
pub fn store_element(b: &mut Builder, ty: Type, val: Val, ptr: Val, disp: i32, count: usize) {
    // A cast has saturated where it was asked to: what is left, infinities too, is a value of the type.
    let v = to_memory(b, val, ty, false);
    b.store_part(v, ptr, disp, count);
}

/// The one element of a constant, in every lane in register form.
pub fn constant(b: &mut Builder, lanes: u8, tensor: &Tensor) -> Val {
    let ty = tensor.ty().ty;
    let (reg, bits) = (Ty { elem: register(ty), lanes }, bits_of(tensor));
    match reg.elem {
        Elem::F32 => b.number(reg, to_f64(ty, bits)),
        _ if ty.is_signed() => b.int(reg, sign_extend(bits, 8 * ty.bytes())),
        _ => b.bits(reg, bits),
    }
}

/// The bits of the first element of a tensor.
pub fn bits_of(tensor: &Tensor) -> u64 {
    let mut word = [0; 8];
    let width = tensor.ty().ty.bytes();
    word[..width].copy_from_slice(&tensor.bytes()[..width]);
    u64::from_le_bytes(word)
}

pub fn sign_extend(bits: u64, width: usize) -> i64 {
    ((bits << (64 - width)) as i64) >> (64 - width)
}

/// The number that the bits of an element are.
pub fn to_f64(ty: Type, bits: u64) -> f64 {
    match ty {
        Type::F64 => f64::from_bits(bits),
        Type::F32 => f64::from(f32::from_bits(bits as u32)),
        _ if ty.is_float() => float8::decode(ty, bits as u32),
        _ if ty.is_signed() => sign_extend(bits, 8 * ty.bytes()) as f64,
        _ => bits as f64,
    }
}

/// Elements as memory holds them, in register form.
pub fn from_memory(b: &mut Builder, v: Val, ty: Type) -> Val {
    let signed = ty.is_signed();
    match ty {
        Type::F16 => b.conv(Conv::HalfToFloat, v, Elem::F32),
        Type::BF16 => {
            let v = b.conv(Conv::Zext, v, Elem::I32);
            let up = b.int(b.ty(v), 16);
            let v = b.bin(Bin::Shl, v, up);
            b.conv(Conv::Bits, v, Elem::F32)
        }
        Type::F8E8M0 => {
            let v = b.conv(Conv::Zext, v, Elem::I32);
            decode_power(b, v)
        }
        _ if small(ty).is_some() => {
            let v = b.conv(Conv::Zext, v, Elem::I32);
            decode(b, v, small(ty).expect("just seen"))
        }
        _ if b.ty(v).elem == register(ty) => v,
        _ if register(ty).bytes() == b.ty(v).elem.bytes() => b.conv(Conv::Bits, v, register(ty)),
        _ => b.conv(if signed { Conv::Sext } else { Conv::Zext }, v, register(ty)),
    }
}

/// Values in register form as memory holds them, rounded to the type.
pub fn to_memory(b: &mut Builder, v: Val, ty: Type, saturate: bool) -> Val {
    let elem = memory(ty);
    match ty {
        Type::F16 => b.conv(Conv::FloatToHalf, v, Elem::I16),
        Type::BF16 => {
            let v = bf16_bits(b, v);
            let down = b.int(b.ty(v), 16);
            let v = b.bin(Bin::ShrU, v, down);
            b.conv(Conv::Wrap, v, Elem::I16)
        }
        Type::F8E8M0 => {
            // Values of the type keep their exponent, the lowest too, which is a denormal of f32.
            let v = encode_power(b, v, "nearest", saturate);
            b.conv(Conv::Wrap, v, Elem::I8)
        }
        _ if small(ty).is_some() => {
            let v = encode(b, v, small(ty).expect("just seen"), saturate);
            b.conv(Conv::Wrap, v, Elem::I8)
        }
        _ if b.ty(v).elem == elem => v,
        _ => b.conv(Conv::Wrap, v, elem),
    }
}

/// f32 rounded to bf16, its 16 bits in the upper half of an I32.
pub fn bf16_bits(b: &mut Builder, v: Val) -> Val {
    let i = b.conv(Conv::Bits, v, Elem::I32);
    let ty = b.ty(i);
    let (down, one, upper, quiet) = (b.int(ty, 16), b.int(ty, 1), b.int(ty, !0xffff), b.int(ty, 0x40_0000));
    let lsb = b.bin(Bin::ShrU, i, down);
    let lsb = b.bin(Bin::And, lsb, one);
    let r = b.add(i, lsb);
    let r = b.add_int(r, 0x7fff);
    let nan = b.bin(Bin::Or, i, quiet);
    let is_nan = b.cmp(Cmp::Ne, v, v);
    let r = b.select(is_nan, nan, r);
    b.bin(Bin::And, r, upper)
}

/// A value in register form rounded to its type.
pub fn round_to(b: &mut Builder, v: Val, ty: Type) -> Val {
    match ty {
        Type::F16 => {
            let h = b.conv(Conv::FloatToHalf, v, Elem::I16);
            b.conv(Conv::HalfToFloat, h, Elem::F32)
        }
        Type::BF16 => {
            let i = bf16_bits(b, v);
            b.conv(Conv::Bits, i, Elem::F32)
        }
        _ => v,
    }
}
