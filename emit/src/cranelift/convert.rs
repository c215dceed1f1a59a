//! Changes of type.

use super::translator::{REGISTER, Translator, lanes_of, part_count, part_type, value_type};
use cranelift_codegen::ir::types::{F32, F32X4, F64, F64X2, I8X16, I16, I16X8, I32, I32X4};
use cranelift_codegen::ir::{InstBuilder, Value};
use dnnc_kir::{Cmp, Conv, Elem, Ty, Val};

impl Translator<'_> {
    pub fn conv(&mut self, op: Conv, from: Ty, to: Ty, a: Val) -> Vec<Value> {
        let parts = self.get(a);
        if from.is_vector() {
            return self.conv_lanes(op, from, to, parts);
        }
        let (a, ty) = (parts[0], value_type(to));
        vec![match op {
            Conv::Sext => self.b.ins().sextend(ty, a),
            Conv::Zext => self.b.ins().uextend(ty, a),
            Conv::Wrap => self.b.ins().ireduce(ty, a),
            Conv::IntToFloat => self.b.ins().fcvt_from_sint(ty, a),
            Conv::UintToFloat => self.b.ins().fcvt_from_uint(ty, a),
            Conv::FloatToInt => self.b.ins().fcvt_to_sint_sat(ty, a),
            Conv::FloatToUint => self.b.ins().fcvt_to_uint_sat(ty, a),
            Conv::FloatToFloat if to.elem == Elem::F64 => self.b.ins().fpromote(F64, a),
            Conv::FloatToFloat => self.b.ins().fdemote(F32, a),
            Conv::Bits => self.cast(ty, a),
            Conv::MaskToInt => self.b.ins().bmask(ty, a),
            Conv::HalfToFloat => {
                let wide = self.b.ins().uextend(I32, a);
                self.half_to_float(Ty::F32, wide)
            }
            Conv::FloatToHalf => {
                let wide = self.float_to_half(Ty::F32, a);
                self.b.ins().ireduce(I16, wide)
            }
        }]
    }

    pub fn conv_lanes(&mut self, op: Conv, from: Ty, to: Ty, parts: Vec<Value>) -> Vec<Value> {
        match op {
            Conv::Sext | Conv::Zext => self.widen(from, to, parts, op == Conv::Sext),
            Conv::Wrap => self.narrow(from, to, parts),
            Conv::IntToFloat if to.elem == Elem::F32 => parts.into_iter().map(|x| self.b.ins().fcvt_from_sint(F32X4, x)).collect(),
            Conv::IntToFloat => self.by_halves(from, to, parts, |t, x| {
                let wide = t.b.ins().swiden_low(x);
                t.b.ins().fcvt_from_sint(F64X2, wide)
            }),
            Conv::FloatToInt => parts.into_iter().map(|x| self.b.ins().fcvt_to_sint_sat(I32X4, x)).collect(),
            Conv::FloatToFloat if to.elem == Elem::F64 => self.by_halves(from, to, parts, |t, x| t.b.ins().fvpromote_low(x)),
            Conv::FloatToFloat => parts
                .chunks(2)
                .map(|pair| {
                    let halves: Vec<Value> = pair.iter().map(|x| self.b.ins().fvdemote(*x)).collect();
                    if halves.len() == 1 { halves[0] } else { self.pick(Elem::F32, &halves, &[0, 1, 4, 5]) }
                })
                .collect(),
            Conv::Bits => parts.into_iter().map(|x| self.cast(part_type(to.elem), x)).collect(),
            Conv::MaskToInt => parts,
            Conv::HalfToFloat => {
                let wide = self.widen(from, to.of(Elem::I32), parts, false);
                wide.into_iter().map(|x| self.half_to_float(Ty::vector(Elem::F32, 4), x)).collect()
            }
            Conv::FloatToHalf => {
                let wide = parts.into_iter().map(|x| self.float_to_half(Ty::vector(Elem::F32, 4), x)).collect();
                self.narrow(from.of(Elem::I32), to, wide)
            }
            Conv::UintToFloat | Conv::FloatToUint => unreachable!("the verifier admits it for scalars only"),
        }
    }

    /// A conversion to lanes of twice the width that reads the low half of a register.
    pub fn by_halves(&mut self, from: Ty, to: Ty, parts: Vec<Value>, mut f: impl FnMut(&mut Self, Value) -> Value) -> Vec<Value> {
        let n = lanes_of(from.elem);
        let upper: Vec<usize> = (n / 2..n).collect();
        let mut out = vec![];
        for x in parts {
            out.push(f(self, x));
            if out.len() < part_count(to) {
                let x = self.pick(from.elem, &[x], &upper);
                out.push(f(self, x));
            }
        }
        out
    }

    pub fn widen(&mut self, from: Ty, to: Ty, mut parts: Vec<Value>, signed: bool) -> Vec<Value> {
        let mut bytes = from.elem.bytes();
        while bytes < to.elem.bytes() {
            bytes *= 2;
            let count = (bytes * from.lanes as usize).div_ceil(REGISTER);
            let mut out = Vec::with_capacity(count);
            for x in parts {
                out.push(if signed { self.b.ins().swiden_low(x) } else { self.b.ins().uwiden_low(x) });
                if out.len() < count {
                    out.push(if signed { self.b.ins().swiden_high(x) } else { self.b.ins().uwiden_high(x) });
                }
            }
            parts = out;
        }
        parts
    }

    pub fn narrow(&mut self, from: Ty, to: Ty, mut parts: Vec<Value>) -> Vec<Value> {
        let mut bytes = from.elem.bytes();
        while bytes > to.elem.bytes() {
            parts = parts.chunks(2).map(|pair| self.narrow_pair(bytes, pair[0], *pair.last().expect("chunks are not empty"))).collect();
            bytes /= 2;
        }
        parts
    }

    /// The low halves of the lanes of two registers.
    pub fn narrow_pair(&mut self, bytes: usize, low: Value, high: Value) -> Value {
        if bytes == 8 || self.features.unzip {
            let (half, to) = match bytes {
                8 => (Elem::I32, I32X4),
                4 => (Elem::I16, I16X8),
                _ => (Elem::I8, I8X16),
            };
            let (low, high) = (self.cast(to, low), self.cast(to, high));
            let lanes: Vec<usize> = (0..lanes_of(half)).map(|i| 2 * i).collect();
            return self.pick(half, &[low, high], &lanes);
        }
        if bytes == 2 || self.features.pack_unsigned {
            let mask = if bytes == 2 { self.splat_bits(Elem::I16, 0xff) } else { self.splat_bits(Elem::I32, 0xffff) };
            let (low, high) = (self.b.ins().band(low, mask), self.b.ins().band(high, mask));
            return self.b.ins().unarrow(low, high);
        }
        let sixteen = self.b.ins().iconst(I32, 16);
        let mut extend = |x| {
            let x = self.b.ins().ishl(x, sixteen);
            self.b.ins().sshr(x, sixteen)
        };
        let (low, high) = (extend(low), extend(high));
        self.b.ins().snarrow(low, high)
    }

    /// The bits of an f16, in 32-bit lanes, to a float: shifted into place and scaled by 2^112, which rebiases the exponent and is right for
    /// subnormal numbers too; infinities and NaN get the largest exponent.
    pub fn half_to_float(&mut self, ty: Ty, h: Value) -> Value {
        let int = ty.of(Elem::I32);
        let (value, bits) = (value_type(ty), value_type(int));
        let shift = |t: &mut Self, x, n| {
            let n = t.b.ins().iconst(I32, n);
            t.b.ins().ishl(x, n)
        };
        let (sign, rest) = (self.bits(int, 0x8000), self.bits(int, 0x7fff));
        let (sign, rest) = (self.b.ins().band(h, sign), self.b.ins().band(h, rest));
        let (sign, rest) = (shift(self, sign, 16), shift(self, rest, 13));
        let scale = self.number(ty, 2f64.powi(112));
        let x = self.cast(value, rest);
        let x = self.b.ins().fmul(x, scale);
        let x = self.cast(bits, x);
        let (largest, special) = (self.bits(int, 0x0f7f_ffff), self.bits(int, 0x7f80_0000));
        let is_special = self.cmp(Cmp::Gt, int, rest, largest);
        let with = self.b.ins().bor(x, special);
        let x = self.select(int, is_special, with, x);
        let x = self.b.ins().bor(x, sign);
        self.cast(value, x)
    }

    /// A float to the bits of an f16 in the low half of 32-bit lanes.
    pub fn float_to_half(&mut self, ty: Ty, x: Value) -> Value {
        let int = ty.of(Elem::I32);
        let bits = value_type(int);
        let shift = |t: &mut Self, x, n| {
            let n = t.b.ins().iconst(I32, n);
            t.b.ins().ushr(x, n)
        };
        let all = self.cast(bits, x);
        let (sign, rest) = (self.bits(int, 0x8000_0000), self.bits(int, 0x7fff_ffff));
        let (sign, rest) = (self.b.ins().band(all, sign), self.b.ins().band(all, rest));
        let sign = shift(self, sign, 16);
        // Normal: rebias, add half a unit less one and the lowest kept bit, which rounds ties to even, and drop 13 bits.
        let (rebias, one) = (self.bits(int, u64::from((15u32.wrapping_sub(127) << 23).wrapping_add(0xfff))), self.bits(int, 1));
        let kept = shift(self, rest, 13);
        let odd = self.b.ins().band(kept, one);
        let normal = self.b.ins().iadd(rest, rebias);
        let normal = self.b.ins().iadd(normal, odd);
        let normal = shift(self, normal, 13);
        // Subnormal: adding 1/2 leaves units of 2^-24 in the low bits, rounded by the addition.
        let half = self.number(ty, 0.5);
        let magnitude = self.cast(value_type(ty), rest);
        let sum = self.b.ins().fadd(magnitude, half);
        let (sum, half) = (self.cast(bits, sum), self.cast(bits, half));
        let subnormal = self.b.ins().isub(sum, half);
        let least = self.bits(int, 113 << 23);
        let is_small = self.cmp(Cmp::Lt, int, rest, least);
        let finite = self.select(int, is_small, subnormal, normal);
        // From 65536 on infinity; NaN keeps the high bits of its payload.
        let (infinity, payload, quiet) = (self.bits(int, 0x7c00), self.bits(int, 0x3ff), self.bits(int, 0x7e00));
        let (inf_bits, most) = (self.bits(int, 0x7f80_0000), self.bits(int, 0x477f_ffff));
        let payload = self.b.ins().band(kept, payload);
        let nan = self.b.ins().bor(payload, quiet);
        let is_nan = self.cmp(Cmp::Gt, int, rest, inf_bits);
        let special = self.select(int, is_nan, nan, infinity);
        let is_large = self.cmp(Cmp::Gt, int, rest, most);
        let y = self.select(int, is_large, special, finite);
        self.b.ins().bor(y, sign)
    }
}
