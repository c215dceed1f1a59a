//! Addresses: sums of a register, a scaled register and a number, absorbed by the operands that use them.

use super::lower::Lower;
use super::mach::{Arg, Base, Mem, V};
use super::sym::Sym;
use super::view::View;
use dnnc_kir::Val;
use iced_x86::{Code, OpKind};

/// More bytes than the widest value has.
const VECTOR_BYTES: i64 = 2048;

impl Lower<'_> {
    fn sym(&self, v: Val) -> Sym {
        let home = self.loop_now();
        match self.syms[v.0 as usize] {
            Some(sym) if sym.index.is_none() || sym.home == home => Sym { home, ..sym },
            _ => self.whole(v),
        }
    }

    /// An address or index as the register that has it.
    pub fn whole(&self, v: Val) -> Sym {
        let home = self.loop_now();
        match self.constant(v) {
            Some(bits) => Sym { base: None, index: None, disp: bits as i64, home },
            None => Sym { base: Some(self.own(v, 0)), index: None, disp: 0, home },
        }
    }

    /// The operand of an access to address + displacement.
    pub fn address(&mut self, ptr: Val, disp: i32) -> Mem {
        let mut sym = self.sym(ptr);
        sym.disp = sym.disp.wrapping_add(i64::from(disp));
        // Parts of a vector lie at larger displacements.
        if let Ok(disp) = i32::try_from(sym.disp.saturating_add(VECTOR_BYTES)) {
            return sym.mem(disp - VECTOR_BYTES as i32);
        }
        Mem { base: Base::Reg(self.sum(sym, false)), index: None, disp: 0 }
    }

    /// Records that an I64 or pointer is a sum, and makes it, in case the sum is needed as a whole.
    pub fn define_sum(&mut self, v: Val, a: Val, b: Val) {
        let (x, y) = (self.sym(a), self.sym(b));
        let sum = x.plus(y).or_else(|| x.plus(self.whole(b))).or_else(|| self.whole(a).plus(y));
        let sum = sum.unwrap_or_else(|| self.whole(a).plus(self.whole(b)).expect("two registers make a sum"));
        self.define_sym(v, sum);
    }

    /// Records that an I64 is another plus a number.
    pub fn define_shifted(&mut self, v: Val, a: Val, by: i64) {
        let mut sym = self.sym(a);
        sym.disp = sym.disp.wrapping_add(by);
        self.define_sym(v, sym);
    }

    /// Records that an I64 is another times 1, 2, 4 or 8, if that can be said; else does nothing.
    pub fn define_scaled(&mut self, v: Val, a: Val, by: u64) -> bool {
        let Some(sym) = self.sym(a).times(by).or_else(|| self.whole(a).times(by)) else { return false };
        self.define_sym(v, sym);
        true
    }

    fn define_sym(&mut self, v: Val, sym: Sym) {
        let r = self.sum(sym, false);
        self.set(v, &[r]);
        if i32::try_from(sym.disp).is_ok() {
            self.syms[v.0 as usize] = Some(sym);
        }
    }

    /// Computes a sum; `over` writes it over its first term, which is right where that is not needed any more.
    pub fn sum(&mut self, sym: Sym, over: bool) -> V {
        let Ok(disp) = i32::try_from(sym.disp) else {
            let rest = Sym { disp: 0, ..sym };
            let number = self.int_constant(sym.disp as u64);
            if rest.base.is_none() && rest.index.is_none() {
                return number;
            }
            let rest = self.sum(rest, over);
            return self.int_op(Code::Lea_r64_m, View::Q, &[Arg::Mem(Mem { base: Base::Reg(rest), index: Some((number, 1)), disp: 0 })]);
        };
        match (sym.base, sym.index) {
            (None, None) => self.int_constant(sym.disp as u64),
            (Some(base), None) if disp == 0 => base,
            (Some(base), None) if over => self.add_immediate(base, disp),
            (Some(base), Some((index, 1))) if over && disp == 0 => {
                self.in_place(Code::Add_r64_rm64, View::Q, base, &[Arg::Use(index, View::Q)])
            }
            _ => self.int_op(Code::Lea_r64_m, View::Q, &[Arg::Mem(sym.mem(disp))]),
        }
    }

    /// Adds a number to a register that is not needed any more.
    pub fn add_immediate(&mut self, to: V, by: i32) -> V {
        if i8::try_from(by).is_ok() {
            self.in_place(Code::Add_rm64_imm8, View::Q, to, &[Arg::Imm(OpKind::Immediate8to64, i64::from(by))])
        } else {
            self.in_place(Code::Add_rm64_imm32, View::Q, to, &[Arg::Imm(OpKind::Immediate32to64, i64::from(by))])
        }
    }

    /// A 64-bit integer in a register.
    pub fn int_constant(&mut self, bits: u64) -> V {
        if u32::try_from(bits).is_ok() {
            return self.int_op(Code::Mov_r32_imm32, View::D, &[Arg::Imm(OpKind::Immediate32, bits as i64)]);
        }
        match i32::try_from(bits as i64) {
            Ok(n) => self.int_op(Code::Mov_rm64_imm32, View::Q, &[Arg::Imm(OpKind::Immediate32to64, i64::from(n))]),
            Err(_) => self.int_op(Code::Mov_r64_imm64, View::Q, &[Arg::Imm(OpKind::Immediate64, bits as i64)]),
        }
    }
}
