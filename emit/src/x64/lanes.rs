//! Lanes of vectors: splats, extraction and insertion, halves, reductions.

use super::lower::{Compare, Lower};
use super::mach::{Arg, V, cc, imm8, x};
use super::view::View;
use dnnc_kir::{Elem, Fold, Ty, Val};
use iced_x86::Code::*;
use iced_x86::OpKind;
use regalloc2::RegClass;

impl Lower<'_> {
    /// A scalar in every lane.
    pub fn splat(&mut self, elem: Elem, w: View, a: Val) -> V {
        let r = self.reg(a, 0);
        let low = match (r.class(), elem.bytes()) {
            (RegClass::Int, 8) => self.vec_op(VEX_Vmovq_xmm_rm64, View::X, &[Arg::Use(r, View::Q)]),
            (RegClass::Int, _) => self.vec_op(VEX_Vmovd_xmm_rm32, View::X, &[Arg::Use(r, View::D)]),
            _ => r,
        };
        self.broadcast(low, elem.bytes(), w)
    }

    /// The low `n` bytes of a register again and again.
    pub fn broadcast(&mut self, low: V, n: usize, w: View) -> V {
        let code = match n {
            1 => VEX_Vpbroadcastb_xmm_xmmm8,
            2 => VEX_Vpbroadcastw_xmm_xmmm16,
            4 => VEX_Vbroadcastss_xmm_xmm,
            8 if w == View::X => return self.vec_op(VEX_Vmovddup_xmm_xmmm64, w, &[x(low)]),
            8 => return self.vec_op(VEX_Vbroadcastsd_ymm_xmm, w, &[x(low)]),
            _ if w == View::X => return low,
            _ if w == View::Z => {
                let args = [Arg::Use(low, w), Arg::Use(low, w), imm8(0)];
                return self.vec_op(EVEX_Vshufi32x4_ymm_k1z_ymm_ymmm256b32_imm8, w, &args);
            }
            _ => return self.vec_op(VEX_Vinserti128_ymm_ymm_xmmm128_imm8, w, &[Arg::Use(low, w), x(low), imm8(1)]),
        };
        self.vec_op(code, w, &[x(low)])
    }

    /// Bytes from `at` on as the low ones of a 16-byte register; what is above them is undefined.
    pub fn slice(&mut self, v: V, at: usize) -> V {
        match at {
            0 => v,
            32.. => {
                let args = [Arg::Use(v, View::Z), imm8(1)];
                let high = self.vec_op(EVEX_Vextracti64x4_ymmm256_k1z_zmm_imm8, View::Y, &args);
                self.slice(high, at - 32)
            }
            16.. => {
                let high = self.vec_op(VEX_Vextracti128_xmmm128_ymm_imm8, View::X, &[Arg::Use(v, View::Y), imm8(1)]);
                self.slice(high, at - 16)
            }
            8 => self.vec_op(VEX_Vpshufd_xmm_xmmm128_imm8, View::X, &[x(v), imm8(0xEE)]),
            4 => self.vec_op(VEX_Vmovshdup_xmm_xmmm128, View::X, &[x(v)]),
            12 => self.vec_op(VEX_Vpshufd_xmm_xmmm128_imm8, View::X, &[x(v), imm8(0xFF)]),
            _ => self.vec_op(VEX_Vpsrldq_xmm_xmm_imm8, View::X, &[x(v), imm8(at as u8)]),
        }
    }

    /// A lane of a register as a scalar.
    pub fn lane(&mut self, elem: Elem, v: V, lane: usize) -> V {
        let n = elem.bytes();
        if elem.is_float() {
            return self.slice(v, lane * n);
        }
        let at = lane * n;
        let (v, lane) = if at >= 16 { (self.slice(v, at / 16 * 16), at % 16 / n) } else { (v, lane) };
        let view = if n == 8 { View::Q } else { View::D };
        let r = match (n, lane) {
            (8, 0) => self.int_op(VEX_Vmovq_rm64_xmm, view, &[x(v)]),
            (4, 0) => self.int_op(VEX_Vmovd_rm32_xmm, view, &[x(v)]),
            (8, _) => self.int_op(VEX_Vpextrq_rm64_xmm_imm8, view, &[x(v), imm8(lane as u8)]),
            (4, _) => self.int_op(VEX_Vpextrd_rm32_xmm_imm8, view, &[x(v), imm8(lane as u8)]),
            (2, _) => self.int_op(VEX_Vpextrw_r32_xmm_imm8, view, &[x(v), imm8(lane as u8)]),
            (..) => self.int_op(VEX_Vpextrb_r32m8_xmm_imm8, view, &[x(v), imm8(lane as u8)]),
        };
        if !elem.is_mask() || n == 8 {
            return r;
        }
        let (code, view) = match n {
            1 => (Movsx_r64_rm8, View::B),
            2 => (Movsx_r64_rm16, View::W),
            _ => (Movsxd_r64_rm32, View::D),
        };
        self.int_op(code, View::Q, &[Arg::Use(r, view)])
    }

    /// A lane as a scalar.
    pub fn extract(&mut self, a: Val, lane: usize) -> V {
        let ty = self.ty(a);
        if !ty.is_vector() {
            return self.reg(a, 0);
        }
        let each = ty.lanes as usize / self.parts_of(ty);
        let r = self.reg(a, lane / each);
        self.lane(ty.elem, r, lane % each)
    }

    /// A vector with a lane replaced.
    pub fn insert(&mut self, a: Val, value: Val, lane: usize) -> Vec<V> {
        let ty = self.ty(a);
        let each = ty.lanes as usize / self.parts_of(ty);
        let mut registers = self.regs(a);
        let (part, lane) = (lane / each, lane % each);
        let (w, n) = (self.width(ty), ty.elem.bytes());
        let r = registers[part];
        registers[part] = if w == View::X {
            let value = if ty.elem.is_float() { self.reg(value, 0) } else { self.int(value) };
            self.insert_low(ty.elem, r, value, lane)
        } else if w == View::Z {
            let all = self.splat(ty.elem, w, value);
            let mask = self.mask_constant(1 << lane);
            self.blend(mask, n, Arg::Use(r, w), Arg::Use(all, w))
        } else if n >= 4 {
            let all = self.splat(ty.elem, w, value);
            let mask = if n == 4 { 1 << lane } else { 3 << (2 * lane) };
            self.vec_op(VEX_Vpblendd_xmm_xmm_xmmm128_imm8, w, &[Arg::Use(r, w), Arg::Use(all, w), imm8(mask)])
        } else {
            let value = self.int(value);
            let half = self.slice(r, lane * n / 16 * 16);
            let half = self.insert_low(ty.elem, half, value, lane % (16 / n));
            let upper = lane * n >= 16;
            if upper {
                self.vec_op(VEX_Vinserti128_ymm_ymm_xmmm128_imm8, w, &[Arg::Use(r, w), x(half), imm8(1)])
            } else {
                self.vec_op(VEX_Vpblendd_xmm_xmm_xmmm128_imm8, w, &[Arg::Use(r, w), Arg::Use(half, w), imm8(0x0F)])
            }
        };
        registers
    }

    /// Puts a scalar into a lane of a 16-byte register.
    fn insert_low(&mut self, elem: Elem, r: V, value: V, lane: usize) -> V {
        let at = imm8(lane as u8);
        let (code, arg, imm) = match (elem, elem.bytes()) {
            (Elem::F32, _) => (VEX_Vinsertps_xmm_xmm_xmmm32_imm8, x(value), imm8((lane as u8) << 4)),
            (Elem::F64, _) => {
                let code = if lane == 0 { VEX_Vmovsd_xmm_xmm_xmm } else { VEX_Vmovlhps_xmm_xmm_xmm };
                return self.vec_op(code, View::X, &[x(r), x(value)]);
            }
            (_, 1) => (VEX_Vpinsrb_xmm_xmm_r32m8_imm8, Arg::Use(value, View::D), at),
            (_, 2) => (VEX_Vpinsrw_xmm_xmm_r32m16_imm8, Arg::Use(value, View::D), at),
            (_, 4) => (VEX_Vpinsrd_xmm_xmm_rm32_imm8, Arg::Use(value, View::D), at),
            (..) => (VEX_Vpinsrq_xmm_xmm_rm64_imm8, Arg::Use(value, View::Q), at),
        };
        self.vec_op(code, View::X, &[x(r), arg, imm])
    }

    /// Half of a vector.
    pub fn half(&mut self, a: Val, upper: bool) -> Vec<V> {
        let ty = self.ty(a);
        let half = ty.bytes() / 2;
        if half >= self.isa.bytes {
            let registers = self.regs(a);
            return registers[registers.len() / 2 * usize::from(upper)..][..registers.len() / 2].to_vec();
        }
        let r = self.reg(a, 0);
        if ty.lanes == 2 {
            return vec![self.lane(ty.elem, r, usize::from(upper))];
        }
        vec![if upper { self.slice(r, half) } else { r }]
    }

    /// Two vectors, or scalars, side by side.
    pub fn join(&mut self, a: Val, b: Val) -> Vec<V> {
        let ty = self.ty(a);
        if ty.bytes() >= self.isa.bytes {
            let mut registers = self.regs(a);
            registers.extend(self.regs(b));
            return registers;
        }
        if ty.is_vector() || ty.elem.is_float() {
            let (r, s) = (self.reg(a, 0), self.reg(b, 0));
            return vec![self.join_low(r, s, ty.bytes())];
        }
        let (r, s) = (self.int(a), self.int(b));
        let (code, view) = if ty.elem.bytes() == 8 { (VEX_Vmovq_xmm_rm64, View::Q) } else { (VEX_Vmovd_xmm_rm32, View::D) };
        let low = self.vec_op(code, View::X, &[Arg::Use(r, view)]);
        vec![self.insert_low(ty.elem.int(), low, s, 1)]
    }

    /// The low `n` bytes of two registers side by side.
    pub fn join_low(&mut self, a: V, b: V, n: usize) -> V {
        let code = match n {
            32 => {
                let args = [Arg::Use(a, View::Z), Arg::Use(b, View::Y), imm8(1)];
                return self.vec_op(EVEX_Vinserti64x4_zmm_k1z_zmm_ymmm256_imm8, View::Z, &args);
            }
            16 => return self.vec_op(VEX_Vinserti128_ymm_ymm_xmmm128_imm8, View::Y, &[Arg::Use(a, View::Y), x(b), imm8(1)]),
            8 => VEX_Vpunpcklqdq_xmm_xmm_xmmm128,
            4 => VEX_Vpunpckldq_xmm_xmm_xmmm128,
            2 => VEX_Vpunpcklwd_xmm_xmm_xmmm128,
            _ => VEX_Vpunpcklbw_xmm_xmm_xmmm128,
        };
        self.vec_op(code, View::X, &[x(a), x(b)])
    }

    /// Pieces of `each` bytes joined to registers of a value of `total` bytes.
    pub fn assemble(&mut self, mut pieces: Vec<V>, mut each: usize, total: usize) -> Vec<V> {
        while each < self.isa.bytes.min(total) && pieces.len() > 1 {
            pieces = pieces.chunks(2).map(|pair| self.join_low(pair[0], pair[1], each)).collect();
            each *= 2;
        }
        pieces
    }

    /// All lanes combined.
    pub fn reduce(&mut self, fold: Fold, a: Val) -> Result<V, String> {
        let ty = self.ty(a);
        if !ty.is_vector() {
            return Ok(self.reg(a, 0));
        }
        let op = fold.of(ty.elem);
        let n = ty.elem.bytes();
        let mut registers = self.regs(a);
        let full = Ty::vector(ty.elem, (self.isa.bytes / n) as u8);
        while registers.len() > 1 {
            let half = registers.len() / 2;
            registers = (0..half).map(|i| self.bin_of(op, full, registers[i], registers[i + half])).collect::<Result<_, _>>()?;
        }
        let mut r = registers[0];
        let mut bytes = ty.bytes().min(self.isa.bytes);
        while bytes > n {
            bytes /= 2;
            let upper = self.slice(r, bytes);
            r = self.bin_of(op, Ty::vector(ty.elem, (bytes.max(16) / n) as u8), r, upper)?;
        }
        Ok(self.lane(ty.elem, r, 0))
    }

    /// The test whether a lane of a mask is set.
    pub fn any(&mut self, mask: Val) -> Compare {
        let ty = self.ty(mask);
        if !ty.is_vector() {
            return self.test(mask);
        }
        let registers = self.regs(mask);
        if let [mask] = registers[..]
            && mask.class() == RegClass::Vector
        {
            return self.any_of_mask(mask, ty);
        }
        let w = self.width(ty);
        let all =
            registers.into_iter().reduce(|a, b| self.op2(VEX_Vpor_xmm_xmm_xmmm128, w, a, Arg::Use(b, w))).expect("at least one register");
        let code = if w == View::Y { VEX_Vpmovmskb_r32_ymm } else { VEX_Vpmovmskb_r32_xmm };
        let bits = Arg::Use(self.int_op(code, View::D, &[Arg::Use(all, w)]), View::D);
        if ty.bytes() >= 16 {
            return Compare { code: Test_rm32_r32, args: [bits, bits], cc: cc::NE };
        }
        let valid = Arg::Imm(OpKind::Immediate32, (1 << ty.bytes()) - 1);
        Compare { code: Test_rm32_imm32, args: [bits, valid], cc: cc::NE }
    }
}
