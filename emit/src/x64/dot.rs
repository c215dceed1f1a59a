//! Dot products of groups of small integers, added to 32-bit sums; all wrap and none saturates.

use super::lower::{Lower, Split};
use super::mach::{Arg, V, x};
use super::view::View;
use dnnc_kir::{Bin, Elem, Ty, Val};
use iced_x86::Code::{self, *};
use regalloc2::RegClass;

impl Lower<'_> {
    /// The accumulator of a dot product in a vector register.
    fn accumulator(&mut self, acc: Val, p: usize) -> V {
        let r = self.reg(acc, p);
        match r.class() {
            RegClass::Int => self.vec_op(VEX_Vmovd_xmm_rm32, View::X, &[Arg::Use(r, View::D)]),
            _ => r,
        }
    }

    fn dot_result(&mut self, ty: Ty, r: V) -> V {
        if ty.is_vector() { r } else { self.int_op(VEX_Vmovd_rm32_xmm, View::D, &[x(r)]) }
    }

    /// Multiplies pairs of 16-bit lanes and adds both products to the sum.
    pub fn dot2(&mut self, ty: Ty, acc: Val, a: Val, b: Val, p: usize) -> Result<V, String> {
        let w = self.width(ty);
        let (a, b) = if self.in_memory(a) && !self.in_memory(b) { (b, a) } else { (a, b) };
        let y = self.rm(b, p);
        let r = self.reg(a, p);
        if let Some(code) = self.accumulating(VEX_Vpdpwssd_xmm_xmm_xmmm128, EVEX_Vpdpwssd_xmm_k1z_xmm_xmmm128b32, w) {
            let acc = self.accumulator(acc, p);
            let sum = self.in_place(code, w, acc, &[Arg::Use(r, w), y]);
            return Ok(self.dot_result(ty, sum));
        }
        let products = self.op2(VEX_Vpmaddwd_xmm_xmm_xmmm128, w, r, y);
        let acc = self.accumulator(acc, p);
        let sum = self.op2(VEX_Vpaddd_xmm_xmm_xmmm128, w, acc, Arg::Use(products, w));
        Ok(self.dot_result(ty, sum))
    }

    /// The code of an instruction of VNNI that adds to its first operand, where the machine has it.
    fn accumulating(&self, vex: Code, evex: Code, w: View) -> Option<Code> {
        match w {
            View::Z if self.isa.vnni => Some(evex),
            View::Z => None,
            _ if self.isa.avx_vnni && self.isa.vnni => Some(vex),
            // With 32 registers and no EVEX form the operands would be confined to 16.
            _ if self.isa.avx_vnni && self.isa.registers == 16 => Some(vex),
            _ if self.isa.vnni => Some(evex),
            _ => None,
        }
    }

    /// Quads of bytes, those of `b` signed. Without an instruction for it even bytes and odd bytes are widened to 16 bits and multiplied:
    /// the four products of a lane stay in it.
    pub fn dot4(&mut self, ty: Ty, acc: Val, a: Val, b: Val, p: usize, left: Split) -> Result<V, String> {
        let w = self.width(ty);
        let code = match left {
            Split::Unsigned => self.accumulating(VEX_Vpdpbusd_xmm_xmm_xmmm128, EVEX_Vpdpbusd_xmm_k1z_xmm_xmmm128b32, w),
            Split::Signed => Some(VEX_Vpdpbssd_xmm_xmm_xmmm128).filter(|_| self.isa.avx_vnni_int8 && w != View::Z),
        };
        if let Some(code) = code {
            let y = self.rm(b, p);
            let r = self.reg(a, p);
            let acc = self.accumulator(acc, p);
            let sum = self.in_place(code, w, acc, &[Arg::Use(r, w), y]);
            return Ok(self.dot_result(ty, sum));
        }
        let (ra, rb) = (self.reg(a, p), self.reg(b, p));
        let (even_a, odd_a) = self.even_odd(w, ra, left);
        let (even_b, odd_b) = self.even_odd(w, rb, Split::Signed);
        let even = self.op2(VEX_Vpmaddwd_xmm_xmm_xmmm128, w, even_a, Arg::Use(even_b, w));
        let odd = self.op2(VEX_Vpmaddwd_xmm_xmm_xmmm128, w, odd_a, Arg::Use(odd_b, w));
        let acc = self.accumulator(acc, p);
        let sum = self.op2(VEX_Vpaddd_xmm_xmm_xmmm128, w, acc, Arg::Use(even, w));
        let sum = self.op2(VEX_Vpaddd_xmm_xmm_xmmm128, w, sum, Arg::Use(odd, w));
        Ok(self.dot_result(ty, sum))
    }

    /// The even and the odd bytes of a register as 16-bit lanes; remembered, as tiles ask for the same again.
    fn even_odd(&mut self, w: View, r: V, split: Split) -> (V, V) {
        if let Some(&(_, _, even, odd)) = self.split_bytes.iter().find(|s| (s.0, s.1) == (r, split)) {
            return (even, odd);
        }
        let (even, odd) = match split {
            Split::Signed => {
                let up = self.shift_by(Bin::Shl, 2, w, r, 8);
                (self.shift_by(Bin::ShrS, 2, w, up, 8), self.shift_by(Bin::ShrS, 2, w, r, 8))
            }
            Split::Unsigned => {
                let low = self.splat_in_memory(Elem::I16, w, 0xFF);
                (self.op2(VEX_Vpand_xmm_xmm_xmmm128, w, r, low), self.shift_by(Bin::ShrU, 2, w, r, 8))
            }
        };
        self.split_bytes.push((r, split, even, odd));
        (even, odd)
    }
}
