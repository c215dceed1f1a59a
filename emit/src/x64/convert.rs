//! Changes of type, of scalars and of vectors.

use super::lower::{Compare, Lower};
use super::mach::{Arg, Mem, V, cc, imm8, x};
use super::scalar::{Sign, float_code};
use super::view::View;
use dnnc_kir::{Bin, Conv, Elem, Op, Ty, Val};
use iced_x86::Code::{self, *};
use iced_x86::OpKind;
use regalloc2::RegClass;

impl Lower<'_> {
    /// Change of type of a scalar.
    pub fn scalar_conv(&mut self, op: Conv, a: Val, from: Elem, to: Elem) -> Result<V, String> {
        Ok(match op {
            Conv::Sext | Conv::Zext => self.extend(a, from, op == Conv::Sext, to),
            Conv::Wrap => self.int(a),
            Conv::MaskToInt => self.int(a),
            Conv::Bits => {
                let into_vector = to.is_float();
                let r = if from.is_float() { self.reg(a, 0) } else { self.int(a) };
                let wide = to.bytes() == 8;
                match (into_vector, r.class()) {
                    (true, RegClass::Int) => {
                        let (code, view) = if wide { (VEX_Vmovq_xmm_rm64, View::Q) } else { (VEX_Vmovd_xmm_rm32, View::D) };
                        self.vec_op(code, View::X, &[Arg::Use(r, view)])
                    }
                    (false, RegClass::Float) => {
                        let (code, view) = if wide { (VEX_Vmovq_rm64_xmm, View::Q) } else { (VEX_Vmovd_rm32_xmm, View::D) };
                        self.int_op(code, view, &[x(r)])
                    }
                    _ => r,
                }
            }
            Conv::IntToFloat => {
                let (view, r) = match from.bytes() {
                    8 => (View::Q, self.int(a)),
                    _ => (View::D, self.extended(a, Sign::Signed)),
                };
                self.int_to_float(r, view, to)
            }
            Conv::UintToFloat => match from.bytes() {
                8 => {
                    let r = self.int(a);
                    self.u64_to_float(r, to)
                }
                _ => {
                    let r = self.extend(a, from, false, Elem::I64);
                    self.int_to_float(r, View::Q, to)
                }
            },
            Conv::FloatToInt => {
                let r = self.reg(a, 0);
                self.float_to_int(r, from, to)
            }
            Conv::FloatToUint => {
                let r = self.reg(a, 0);
                self.float_to_uint(r, from, to)
            }
            Conv::FloatToFloat if from == to => self.reg(a, 0),
            Conv::FloatToFloat => {
                let r = self.reg(a, 0);
                let code = if to == Elem::F64 { VEX_Vcvtss2sd_xmm_xmm_xmmm32 } else { VEX_Vcvtsd2ss_xmm_xmm_xmmm64 };
                self.vec_op(code, View::X, &[x(r), x(r)])
            }
            Conv::HalfToFloat => {
                let r = self.extended(a, Sign::Unsigned);
                let h = self.vec_op(VEX_Vmovd_xmm_rm32, View::X, &[Arg::Use(r, View::D)]);
                self.vec_op(VEX_Vcvtph2ps_xmm_xmmm64, View::X, &[x(h)])
            }
            Conv::FloatToHalf => {
                let r = self.reg(a, 0);
                let h = self.vec_op(VEX_Vcvtps2ph_xmmm64_xmm_imm8, View::X, &[x(r), imm8(0)]);
                self.int_op(VEX_Vmovd_rm32_xmm, View::D, &[x(h)])
            }
        })
    }

    fn extend(&mut self, a: Val, from: Elem, signed: bool, to: Elem) -> V {
        let wide = to.bytes() == 8;
        let (code, read, view) = match (from.bytes(), signed, wide) {
            (1, true, true) => (Movsx_r64_rm8, View::B, View::Q),
            (1, true, false) => (Movsx_r32_rm8, View::B, View::D),
            (1, false, _) => (Movzx_r32_rm8, View::B, View::D),
            (2, true, true) => (Movsx_r64_rm16, View::W, View::Q),
            (2, true, false) => (Movsx_r32_rm16, View::W, View::D),
            (2, false, _) => (Movzx_r32_rm16, View::W, View::D),
            (4, true, true) => (Movsxd_r64_rm32, View::D, View::Q),
            (4, false, true) => (Mov_r32_rm32, View::D, View::D),
            _ => return self.int(a),
        };
        let arg = match self.load_of(a) {
            Some(mem) => Arg::Mem(mem),
            None => Arg::Use(self.int(a), read),
        };
        self.int_op(code, view, &[arg])
    }

    /// A signed integer register to a float. The zero cuts the dependency on the register's old value.
    fn int_to_float(&mut self, r: V, view: View, to: Elem) -> V {
        let code = match (view, to) {
            (View::Q, Elem::F64) => VEX_Vcvtsi2sd_xmm_xmm_rm64,
            (View::Q, _) => VEX_Vcvtsi2ss_xmm_xmm_rm64,
            (_, Elem::F64) => VEX_Vcvtsi2sd_xmm_xmm_rm32,
            (..) => VEX_Vcvtsi2ss_xmm_xmm_rm32,
        };
        let zero = self.zero();
        self.vec_op(code, View::X, &[Arg::Use(zero, View::X), Arg::Use(r, view)])
    }

    /// Above the signed range: half of it, with the lost bit kept for rounding, converted and doubled.
    fn u64_to_float(&mut self, r: V, to: Elem) -> V {
        let q = |v: V| Arg::Use(v, View::Q);
        let half = self.in_place(Shr_rm64_imm8, View::Q, r, &[imm8(1)]);
        let odd = self.in_place(And_rm32_imm8, View::D, r, &[Arg::Imm(OpKind::Immediate8to32, 1)]);
        let half = self.in_place(Or_r64_rm64, View::Q, half, &[q(odd)]);
        let big = Compare { code: Test_rm64_r64, args: [q(r), q(r)], cc: cc::L };
        let signed = self.choose(big, half, r);
        let once = self.int_to_float(signed, View::Q, to);
        let ty = Ty::scalar(to);
        let twice = self.vec_op(float_code(Bin::Add, ty).expect("add"), View::X, &[Arg::Use(once, View::X); 2]);
        // The blend goes by the top bit of the lane.
        let top = if to == Elem::F64 { r } else { self.in_place(Shr_rm64_imm8, View::Q, r, &[imm8(32)]) };
        let top = self.vec_op(VEX_Vmovq_xmm_rm64, View::X, &[q(top)]);
        let blend = if to == Elem::F64 { VEX_Vblendvpd_xmm_xmm_xmmm128_xmm } else { VEX_Vblendvps_xmm_xmm_xmmm128_xmm };
        self.vec_op(blend, View::X, &[once, twice, top].map(|v| Arg::Use(v, View::X)))
    }

    fn float_constant(&mut self, elem: Elem, value: f64) -> Arg {
        let bits = if elem == Elem::F32 { u64::from((value as f32).to_bits()) } else { value.to_bits() };
        Arg::Mem(self.constant_in_memory(Ty::scalar(elem), bits))
    }

    /// A comparison of scalar floats with a constant, as a mask.
    fn compare_constant(&mut self, r: V, elem: Elem, value: f64, predicate: u8) -> V {
        let code = if elem == Elem::F32 { VEX_Vcmpss_xmm_xmm_xmmm32_imm8 } else { VEX_Vcmpsd_xmm_xmm_xmmm64_imm8 };
        let c = self.float_constant(elem, value);
        self.vec_op(code, View::X, &[Arg::Use(r, View::X), c, imm8(predicate)])
    }

    /// The number, or 0 for NaN.
    fn number_or_zero(&mut self, r: V, elem: Elem) -> V {
        let x = Arg::Use(r, View::X);
        let code = if elem == Elem::F32 { VEX_Vcmpss_xmm_xmm_xmmm32_imm8 } else { VEX_Vcmpsd_xmm_xmm_xmmm64_imm8 };
        let ordered = self.vec_op(code, View::X, &[x, x, imm8(7)]);
        self.vec_op(VEX_Vandps_xmm_xmm_xmmm128, View::X, &[x, Arg::Use(ordered, View::X)])
    }

    fn clamp(&mut self, r: V, elem: Elem, op: Bin, limit: f64) -> V {
        let c = self.float_constant(elem, limit);
        let code = float_code(op, Ty::scalar(elem)).expect("min and max");
        self.vec_op(code, View::X, &[Arg::Use(r, View::X), c])
    }

    fn truncated(&mut self, r: V, from: Elem, view: View) -> V {
        let code = match (from, view) {
            (Elem::F32, View::Q) => VEX_Vcvttss2si_r64_xmmm32,
            (Elem::F32, _) => VEX_Vcvttss2si_r32_xmmm32,
            (_, View::Q) => VEX_Vcvttsd2si_r64_xmmm64,
            (..) => VEX_Vcvttsd2si_r32_xmmm64,
        };
        self.int_op(code, view, &[Arg::Use(r, View::X)])
    }

    fn float_to_int(&mut self, r: V, from: Elem, to: Elem) -> V {
        let t = self.number_or_zero(r, from);
        if to.bytes() == 8 {
            // Too large gives MIN, whose bits flipped are MAX.
            let big = self.compare_constant(t, from, 2f64.powi(63), GE);
            let flip = self.mask_in_int(big, from);
            let n = self.truncated(t, from, View::Q);
            return self.in_place(Xor_r64_rm64, View::Q, n, &[Arg::Use(flip, View::Q)]);
        }
        if to.bytes() == 4 && from == Elem::F32 {
            let big = self.compare_constant(t, from, 2f64.powi(31), GE);
            let flip = self.mask_in_int(big, from);
            let n = self.truncated(t, from, View::D);
            return self.in_place(Xor_r32_rm32, View::D, n, &[Arg::Use(flip, View::D)]);
        }
        let most = 2f64.powi(to.bytes() as i32 * 8 - 1);
        let t = self.clamp(t, from, Bin::Min, most - 1.0);
        let t = self.clamp(t, from, Bin::Max, -most);
        self.truncated(t, from, View::D)
    }

    fn float_to_uint(&mut self, r: V, from: Elem, to: Elem) -> V {
        let t = self.number_or_zero(r, from);
        let t = self.clamp(t, from, Bin::Max, 0.0);
        if to.bytes() < 4 || to.bytes() == 4 && from == Elem::F64 {
            let t = self.clamp(t, from, Bin::Min, 2f64.powi(to.bytes() as i32 * 8) - 1.0);
            return self.truncated(t, from, View::Q);
        }
        if to.bytes() == 4 {
            let n = self.truncated(t, from, View::Q);
            let big = self.compare_constant(t, from, 2f64.powi(32), GE);
            let all = self.mask_in_int(big, from);
            return self.in_place(Or_r64_rm64, View::Q, n, &[Arg::Use(all, View::Q)]);
        }
        // Below 2⁶³ directly; from there on the rest above 2⁶³ with the top bit set; from 2⁶⁴ on all ones.
        let low = self.truncated(t, from, View::Q);
        let top = self.float_constant(from, 2f64.powi(63));
        let rest = self.vec_op(float_code(Bin::Sub, Ty::scalar(from)).expect("sub"), View::X, &[Arg::Use(t, View::X), top]);
        let high = self.truncated(rest, from, View::Q);
        let sign = self.in_place(Sar_rm64_imm8, View::Q, low, &[imm8(63)]);
        let high = self.in_place(And_r64_rm64, View::Q, high, &[Arg::Use(sign, View::Q)]);
        let both = self.in_place(Or_r64_rm64, View::Q, low, &[Arg::Use(high, View::Q)]);
        let big = self.compare_constant(t, from, 2f64.powi(64), GE);
        let all = self.mask_in_int(big, from);
        self.in_place(Or_r64_rm64, View::Q, both, &[Arg::Use(all, View::Q)])
    }

    /// A scalar mask from a vector register, sign-extended.
    fn mask_in_int(&mut self, mask: V, elem: Elem) -> V {
        if elem == Elem::F64 {
            return self.int_op(VEX_Vmovq_rm64_xmm, View::Q, &[Arg::Use(mask, View::X)]);
        }
        let low = self.int_op(VEX_Vmovd_rm32_xmm, View::D, &[Arg::Use(mask, View::X)]);
        self.int_op(Movsxd_r64_rm32, View::Q, &[Arg::Use(low, View::D)])
    }

    // Vectors

    /// Change of type of a vector.
    pub fn vec_conv(&mut self, op: Conv, a: Val, ty: Ty) -> Result<Vec<V>, String> {
        let from = self.ty(a);
        let w = self.width(ty);
        let parts = self.parts_of(ty);
        let widening = |signed: bool| widening(from.elem.bytes(), ty.elem.bytes(), signed);
        match (op, from.elem, ty.elem) {
            (Conv::Bits | Conv::MaskToInt, ..) => Ok(self.regs(a)),
            (Conv::Sext | Conv::Zext | Conv::Wrap, f, t) if f.bytes() == t.bytes() => Ok(self.regs(a)),
            (Conv::Sext | Conv::Zext, ..) => {
                let code = widening(op == Conv::Sext).ok_or_else(|| format!("{op:?} from {from:?} to {ty:?}"))?;
                Ok((0..parts).map(|p| self.widen(code, a, ty, p)).collect())
            }
            (Conv::Wrap, f, t) if from.bytes() == 64 && self.isa.bytes == 64 => {
                let r = self.reg(a, 0);
                Ok(vec![self.vec_op(truncation(f.bytes(), t.bytes()), self.width_of(ty.bytes()), &[Arg::Use(r, View::Z)])])
            }
            (Conv::Wrap, ..) => {
                let (f, t) = (from.elem.bytes(), ty.elem.bytes());
                let bytes: Vec<usize> = (0..ty.bytes()).map(|i| i / t * f + i % t).collect();
                let registers = self.regs(a);
                Ok(self.permute(&registers, from.bytes(), &bytes))
            }
            (Conv::IntToFloat, Elem::I32, Elem::F32) => Ok((0..parts)
                .map(|p| {
                    let y = self.rm(a, p);
                    self.vec_op(VEX_Vcvtdq2ps_xmm_xmmm128, w, &[y])
                })
                .collect()),
            (Conv::IntToFloat, Elem::I32, Elem::F64) => Ok((0..parts).map(|p| self.widen(VEX_Vcvtdq2pd_xmm_xmmm64, a, ty, p)).collect()),
            (Conv::IntToFloat, Elem::I8 | Elem::I16, _) => {
                let wide = self.make(from.of(Elem::I32), &Op::Conv(Conv::Sext, a))?;
                self.vec_conv(Conv::IntToFloat, wide, ty)
            }
            (Conv::FloatToInt, Elem::F32, Elem::I32) => Ok((0..parts).map(|p| self.floats_to_ints(a, w, p)).collect()),
            (Conv::FloatToFloat, f, t) if f == t => Ok(self.regs(a)),
            (Conv::FloatToFloat, Elem::F32, Elem::F64) => Ok((0..parts).map(|p| self.widen(VEX_Vcvtps2pd_xmm_xmmm64, a, ty, p)).collect()),
            (Conv::FloatToFloat, ..) => Ok(self.narrow(a, ty, VEX_Vcvtpd2ps_xmm_xmmm128, &[])),
            (Conv::HalfToFloat, ..) => Ok((0..parts).map(|p| self.widen(VEX_Vcvtph2ps_xmm_xmmm64, a, ty, p)).collect()),
            (Conv::FloatToHalf, ..) => Ok(self.narrow(a, ty, VEX_Vcvtps2ph_xmmm64_xmm_imm8, &[imm8(0)])),
            _ => self.lane_by_lane(ty, &[a], |l| Op::Conv(op, l[0])),
        }
    }

    /// An instruction that reads the low lanes of a register and gives them wider.
    fn widen(&mut self, code: Code, a: Val, ty: Ty, p: usize) -> V {
        let from = self.ty(a);
        let w = self.width(ty);
        let lanes = ty.lanes as usize / self.parts_of(ty);
        let at = p * lanes * from.elem.bytes();
        let arg = match self.load_of(a).filter(|_| ty.bytes() >= 16) {
            Some(mem) => Arg::Mem(Mem { disp: mem.disp + at as i32, ..mem }),
            None => {
                let r = self.reg(a, at / self.isa.bytes);
                Arg::Use(self.slice(r, at % self.isa.bytes), self.width_of(lanes * from.elem.bytes()))
            }
        };
        self.vec_op(code, w, &[arg])
    }

    /// An instruction that gives lanes of half the width, in a register of half the width.
    fn narrow(&mut self, a: Val, ty: Ty, code: Code, more: &[Arg]) -> Vec<V> {
        let from = self.ty(a);
        let w = self.width(from);
        let halves: Vec<V> = (0..self.parts_of(from))
            .map(|p| {
                let r = self.reg(a, p);
                let mut args = vec![Arg::Use(r, w)];
                args.extend_from_slice(more);
                self.vec_op(code, self.width_of(w.bytes() / 2), &args)
            })
            .collect();
        self.assemble(halves, 16, ty.bytes())
    }

    /// Truncation that saturates: what is too large comes out as MIN, whose bits flipped are MAX; NaN is cleared.
    fn floats_to_ints(&mut self, a: Val, w: View, p: usize) -> V {
        let r = self.reg(a, p);
        let arg = Arg::Use(r, w);
        if w == View::Z {
            let cmp = EVEX_Vcmpps_kr_k1_xmm_xmmm128b32_imm8;
            let limit = self.splat_in_memory(Elem::F32, w, u64::from(2f32.powi(31).to_bits()));
            let big = self.mask_op(cmp, &[arg, limit, imm8(GE)]);
            let ordered = self.mask_op(cmp, &[arg, arg, imm8(7)]);
            let n = self.vec_op(VEX_Vcvttps2dq_xmm_xmmm128, w, &[arg]);
            let most = self.splat_in_memory(Elem::I32, w, 0x7FFF_FFFF);
            let n = self.blend(big, 4, Arg::Use(n, w), most);
            return self.vec_op(EVEX_Vmovdqu32_xmm_k1z_xmmm128, w, &[Arg::Mask(ordered, true), Arg::Use(n, w)]);
        }
        let cmp = VEX_Vcmpps_xmm_xmm_xmmm128_imm8;
        let limit = self.splat_in_memory(Elem::F32, w, u64::from(2f32.powi(31).to_bits()));
        let big = self.vec_op(cmp, w, &[arg, limit, imm8(0x1D)]);
        let ordered = self.vec_op(cmp, w, &[arg, arg, imm8(7)]);
        let n = self.vec_op(VEX_Vcvttps2dq_xmm_xmmm128, w, &[arg]);
        let n = self.op2(VEX_Vpxor_xmm_xmm_xmmm128, w, n, Arg::Use(big, w));
        self.op2(VEX_Vpand_xmm_xmm_xmmm128, w, n, Arg::Use(ordered, w))
    }
}

/// Predicate of `vcmp`: greater or equal, false for NaN.
const GE: u8 = 0x1D;

/// The 128-bit instruction that widens integers of `from` bytes to `to`.
fn widening(from: usize, to: usize, signed: bool) -> Option<Code> {
    Some(match (from, to, signed) {
        (1, 2, true) => VEX_Vpmovsxbw_xmm_xmmm64,
        (1, 4, true) => VEX_Vpmovsxbd_xmm_xmmm32,
        (1, 8, true) => VEX_Vpmovsxbq_xmm_xmmm16,
        (2, 4, true) => VEX_Vpmovsxwd_xmm_xmmm64,
        (2, 8, true) => VEX_Vpmovsxwq_xmm_xmmm32,
        (4, 8, true) => VEX_Vpmovsxdq_xmm_xmmm64,
        (1, 2, false) => VEX_Vpmovzxbw_xmm_xmmm64,
        (1, 4, false) => VEX_Vpmovzxbd_xmm_xmmm32,
        (1, 8, false) => VEX_Vpmovzxbq_xmm_xmmm16,
        (2, 4, false) => VEX_Vpmovzxwd_xmm_xmmm64,
        (2, 8, false) => VEX_Vpmovzxwq_xmm_xmmm32,
        (4, 8, false) => VEX_Vpmovzxdq_xmm_xmmm64,
        _ => return None,
    })
}

/// The instruction that drops the high bits of lanes of `from` bytes to leave `to`.
fn truncation(from: usize, to: usize) -> Code {
    match (from, to) {
        (2, _) => EVEX_Vpmovwb_xmmm64_k1z_xmm,
        (4, 1) => EVEX_Vpmovdb_xmmm32_k1z_xmm,
        (4, _) => EVEX_Vpmovdw_xmmm64_k1z_xmm,
        (_, 1) => EVEX_Vpmovqb_xmmm16_k1z_xmm,
        (_, 2) => EVEX_Vpmovqw_xmmm32_k1z_xmm,
        _ => EVEX_Vpmovqd_xmmm64_k1z_xmm,
    }
}
