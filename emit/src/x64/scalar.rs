//! Integers and scalar masks in general registers.
//!
//! Bits above the width of an I8, I16 or I32 are undefined. A scalar mask is 0 or −1 in 64 bits of a general register, or, where
//! floats were compared, in the low lane of a vector register.

use super::lower::{Compare, Lower, compare_code};
use super::mach::{Arg, Kind, V, cc, gpr, imm8};
use super::view::View;
use dnnc_kir::{Bin, Cmp, Elem, Op, Ty, Un, Val};
use iced_x86::Code::{self, *};
use iced_x86::OpKind;
use regalloc2::RegClass;

/// How narrow integers are made 32 bits wide.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Any,
    Signed,
    Unsigned,
}

fn view_of(elem: Elem) -> View {
    if elem.bytes() == 8 || elem.is_mask() { View::Q } else { View::D }
}

/// Picks the 32- or 64-bit form.
fn by(view: View, narrow: Code, wide: Code) -> Code {
    if view == View::Q { wide } else { narrow }
}

impl Lower<'_> {
    /// A general register with a scalar.
    pub fn int(&mut self, v: Val) -> V {
        let r = self.reg(v, 0);
        if r.class() == RegClass::Int {
            return r;
        }
        if self.ty(v).elem.bytes() == 8 {
            return self.int_op(VEX_Vmovq_rm64_xmm, View::Q, &[Arg::Use(r, View::X)]);
        }
        let low = self.int_op(VEX_Vmovd_rm32_xmm, View::D, &[Arg::Use(r, View::X)]);
        self.int_op(Movsxd_r64_rm32, View::Q, &[Arg::Use(low, View::D)])
    }

    /// A scalar as the operand that may be an immediate or in memory.
    pub fn int_arg(&mut self, v: Val, view: View) -> Arg {
        let elem = self.ty(v).elem;
        if let Some(bits) = self.constant(v) {
            if let Some(imm) = immediate(sign_extended(elem, bits), view) {
                return imm;
            }
        } else if let Some(mem) = self.load_of(v).filter(|_| elem.bytes() == view.bytes()) {
            return Arg::Mem(mem);
        }
        Arg::Use(self.int(v), view)
    }

    /// A scalar integer with its bits up to 32 defined as `sign` wants.
    pub fn extended(&mut self, v: Val, sign: Sign) -> V {
        let elem = self.ty(v).elem;
        let (from, code) = match (elem.bytes(), sign) {
            (1, Sign::Signed) => (View::B, Movsx_r32_rm8),
            (1, Sign::Unsigned) => (View::B, Movzx_r32_rm8),
            (2, Sign::Signed) => (View::W, Movsx_r32_rm16),
            (2, Sign::Unsigned) => (View::W, Movzx_r32_rm16),
            _ => return self.int(v),
        };
        if let Some(bits) = self.constant(v) {
            let n = if sign == Sign::Signed { sign_extended(elem, bits) } else { bits as i64 };
            return self.int_constant(n as u32 as u64);
        }
        let r = self.int(v);
        self.int_op(code, View::D, &[Arg::Use(r, from)])
    }

    /// Like `extended`, as the operand that may be an immediate or in memory.
    fn extended_arg(&mut self, v: Val, sign: Sign, view: View) -> Arg {
        let elem = self.ty(v).elem;
        match self.constant(v) {
            Some(bits) if elem.bytes() < 4 => {
                let n = if sign == Sign::Signed { sign_extended(elem, bits) } else { bits as i64 };
                immediate(n, view).expect("16 bits fit")
            }
            _ if elem.bytes() < 4 => Arg::Use(self.extended(v, sign), view),
            _ => self.int_arg(v, view),
        }
    }

    /// The comparison whose flags tell whether a scalar mask is set.
    pub fn test(&mut self, mask: Val) -> Compare {
        if let Some(compare) = self.compares[mask.0 as usize] {
            return compare;
        }
        let r = Arg::Use(self.int(mask), View::Q);
        Compare { code: Test_rm64_r64, args: [r, r], cc: cc::NE }
    }

    /// A mask from flags: 0 or −1.
    pub fn mask_of(&mut self, c: Compare) -> V {
        let low = self.int_register();
        self.m.push_after(Some(c.code), &c.args, Kind::Op(set_code(c.cc)), &[Arg::Def(low, View::B)]);
        let wide = self.int_op(Movzx_r32_rm8, View::D, &[Arg::Use(low, View::B)]);
        self.in_place(Neg_rm64, View::Q, wide, &[])
    }

    /// `flags ? yes : no` of general registers.
    pub fn choose(&mut self, c: Compare, yes: V, no: V) -> V {
        let d = self.int_register();
        self.m.push_after(Some(c.code), &c.args, Kind::Op(cmov_code(c.cc)), &[Arg::Mod(no, d, View::Q), Arg::Use(yes, View::Q)]);
        d
    }

    /// An operation whose result is a scalar in a general register, or a conversion between scalars.
    pub fn scalar(&mut self, v: Val, op: &Op) -> Result<(), String> {
        let ty = self.ty(v);
        let r = match *op {
            Op::Bin(Bin::Add, a, b) if view_of(ty.elem) == View::Q && !ty.elem.is_mask() => {
                self.define_sum(v, a, b);
                return Ok(());
            }
            Op::Bin(op @ (Bin::Sub | Bin::Mul | Bin::Shl), a, b) if ty.elem == Elem::I64 && self.define_linear(v, op, a, b) => {
                return Ok(());
            }
            Op::Un(op, a) => self.int_un(op, a)?,
            Op::Bin(op, a, b) => self.int_bin(op, a, b)?,
            Op::Cmp(op, a, b) => match self.ty(a).elem {
                elem if elem.is_float() => self.float_cmp(op, self.ty(a), a, b, 0),
                _ => {
                    let compare = self.int_compare(op, a, b);
                    self.compares[v.0 as usize] = Some(compare);
                    self.mask_of(compare)
                }
            },
            Op::Select(mask, a, b) => {
                let (yes, no) = (self.int(a), self.int(b));
                let compare = self.test(mask);
                self.choose(compare, yes, no)
            }
            Op::Conv(op, a) => self.scalar_conv(op, a, self.ty(a).elem, ty.elem)?,
            Op::Splat(a) => self.reg(a, 0),
            _ => return Err(format!("{op:?} on {ty:?} in {}", self.func.name)),
        };
        self.set(v, &[r]);
        Ok(())
    }

    /// I64 operations by a constant that an address can absorb.
    fn define_linear(&mut self, v: Val, op: Bin, a: Val, b: Val) -> bool {
        let (a, b) = if op == Bin::Mul && self.constant(a).is_some() { (b, a) } else { (a, b) };
        match (op, self.constant(b)) {
            (Bin::Sub, Some(n)) => {
                self.define_shifted(v, a, (n as i64).wrapping_neg());
                true
            }
            (Bin::Mul, Some(n)) => self.define_scaled(v, a, n),
            (Bin::Shl, Some(n)) => self.define_scaled(v, a, 1 << (n % 64)),
            _ => false,
        }
    }

    fn int_compare(&mut self, op: Cmp, a: Val, b: Val) -> Compare {
        let (condition, sign) = match op {
            Cmp::Eq => (cc::E, Sign::Unsigned),
            Cmp::Ne => (cc::NE, Sign::Unsigned),
            Cmp::Lt => (cc::L, Sign::Signed),
            Cmp::Le => (cc::LE, Sign::Signed),
            Cmp::Gt => (cc::G, Sign::Signed),
            Cmp::Ge => (cc::GE, Sign::Signed),
            Cmp::LtU => (cc::B, Sign::Unsigned),
            Cmp::LeU => (cc::BE, Sign::Unsigned),
            Cmp::GtU => (cc::A, Sign::Unsigned),
            Cmp::GeU => (cc::AE, Sign::Unsigned),
        };
        let elem = self.ty(a).elem;
        let view = view_of(elem);
        let (x, y) = if elem.is_mask() {
            (self.int(a), Arg::Use(self.int(b), view))
        } else {
            // The operand must not be a folded load: the comparison may be repeated after a store.
            let y = match self.extended_arg(b, sign, view) {
                Arg::Mem(_) => Arg::Use(self.int(b), view),
                other => other,
            };
            (self.extended(a, sign), y)
        };
        Compare { code: compare_code(&y, view), args: [Arg::Use(x, view), y], cc: condition }
    }

    fn int_un(&mut self, op: Un, a: Val) -> Result<V, String> {
        let elem = self.ty(a).elem;
        let view = view_of(elem);
        Ok(match op {
            Un::Not => {
                let r = self.int(a);
                self.in_place(by(view, Not_rm32, Not_rm64), view, r, &[])
            }
            Un::Neg => {
                let r = self.int(a);
                self.in_place(by(view, Neg_rm32, Neg_rm64), view, r, &[])
            }
            Un::Abs => {
                let r = self.extended(a, Sign::Signed);
                let sign = self.in_place(by(view, Sar_rm32_imm8, Sar_rm64_imm8), view, r, &[imm8(view.bytes() as u8 * 8 - 1)]);
                let flipped = self.in_place(by(view, Xor_r32_rm32, Xor_r64_rm64), view, r, &[Arg::Use(sign, view)]);
                self.in_place(by(view, Sub_r32_rm32, Sub_r64_rm64), view, flipped, &[Arg::Use(sign, view)])
            }
            _ => return Err(format!("{op:?} of integers")),
        })
    }

    fn int_bin(&mut self, op: Bin, a: Val, b: Val) -> Result<V, String> {
        let elem = self.ty(a).elem;
        let view = view_of(elem);
        let commutes = matches!(op, Bin::Add | Bin::Mul | Bin::And | Bin::Or | Bin::Xor);
        let (a, b) = if commutes && (self.constant(a).is_some() || self.dies(b) && !self.dies(a)) && self.constant(b).is_none() {
            (b, a)
        } else {
            (a, b)
        };
        let row = match op {
            Bin::Add => Some(ADD),
            Bin::Sub => Some(SUB),
            Bin::And => Some(AND),
            Bin::Or => Some(OR),
            Bin::Xor => Some(XOR),
            _ => None,
        };
        if let Some(row) = row {
            let y = if elem.is_mask() { Arg::Use(self.int(b), view) } else { self.int_arg(b, view) };
            let x = self.int(a);
            return Ok(self.in_place(row_code(row, &y, view), view, x, &[y]));
        }
        Ok(match op {
            Bin::Mul => self.int_mul(a, b, view),
            Bin::Shl | Bin::ShrS | Bin::ShrU => self.int_shift(op, a, b, elem, view),
            Bin::MinS | Bin::MaxS | Bin::MinU | Bin::MaxU | Bin::Min | Bin::Max => {
                let sign = if matches!(op, Bin::MinU | Bin::MaxU) { Sign::Unsigned } else { Sign::Signed };
                let (x, y) = (self.extended(a, sign), self.extended(b, sign));
                let condition = match op {
                    Bin::MinS | Bin::Min => cc::L,
                    Bin::MaxS | Bin::Max => cc::G,
                    Bin::MinU => cc::B,
                    _ => cc::A,
                };
                let args = [Arg::Use(x, view), Arg::Use(y, view)];
                self.choose(Compare { code: by(view, Cmp_r32_rm32, Cmp_r64_rm64), args, cc: condition }, x, y)
            }
            Bin::DivS | Bin::RemS | Bin::DivU | Bin::RemU => self.divide(op, a, b, elem, view),
            _ => return Err(format!("{op:?} of integers")),
        })
    }

    fn int_mul(&mut self, a: Val, b: Val, view: View) -> V {
        let elem = self.ty(a).elem;
        if let Some(bits) = self.constant(b) {
            let n = sign_extended(elem, bits);
            let x = self.int(a);
            if n > 0 && n.count_ones() == 1 {
                return self.in_place(by(view, Shl_rm32_imm8, Shl_rm64_imm8), view, x, &[imm8(n.trailing_zeros() as u8)]);
            }
            if let Some(imm @ Arg::Imm(kind, _)) = immediate(n, view) {
                let code = match kind {
                    OpKind::Immediate8to32 => Imul_r32_rm32_imm8,
                    OpKind::Immediate8to64 => Imul_r64_rm64_imm8,
                    OpKind::Immediate32 => Imul_r32_rm32_imm32,
                    _ => Imul_r64_rm64_imm32,
                };
                return self.int_op(code, view, &[Arg::Use(x, view), imm]);
            }
        }
        let y = match self.int_arg(b, view) {
            Arg::Imm(..) => Arg::Use(self.int(b), view),
            other => other,
        };
        let x = self.int(a);
        self.in_place(by(view, Imul_r32_rm32, Imul_r64_rm64), view, x, &[y])
    }

    fn int_shift(&mut self, op: Bin, a: Val, b: Val, elem: Elem, view: View) -> V {
        let (sign, imm, var) = match op {
            Bin::Shl => (Sign::Any, (Shl_rm32_imm8, Shl_rm64_imm8), (VEX_Shlx_r32_rm32_r32, VEX_Shlx_r64_rm64_r64)),
            Bin::ShrS => (Sign::Signed, (Sar_rm32_imm8, Sar_rm64_imm8), (VEX_Sarx_r32_rm32_r32, VEX_Sarx_r64_rm64_r64)),
            _ => (Sign::Unsigned, (Shr_rm32_imm8, Shr_rm64_imm8), (VEX_Shrx_r32_rm32_r32, VEX_Shrx_r64_rm64_r64)),
        };
        let width = elem.bytes() as u8 * 8;
        let x = self.extended(a, sign);
        if let Some(n) = self.constant(b) {
            return self.in_place(by(view, imm.0, imm.1), view, x, &[imm8(n as u8 % width)]);
        }
        let mut count = self.int(b);
        if width < 32 {
            count = self.in_place(And_rm32_imm8, View::D, count, &[Arg::Imm(OpKind::Immediate8to32, i64::from(width) - 1)]);
        }
        self.int_op(by(view, var.0, var.1), view, &[Arg::Use(x, view), Arg::Use(count, view)])
    }

    /// Division that gives 0 where the machine would trap.
    fn divide(&mut self, op: Bin, a: Val, b: Val, elem: Elem, view: View) -> V {
        let signed = matches!(op, Bin::DivS | Bin::RemS);
        let quotient = matches!(op, Bin::DivS | Bin::DivU);
        let wide = view == View::Q;
        if let Some(n) = self.constant(b).filter(|n| !signed && n.is_power_of_two()) {
            let x = self.extended(a, Sign::Unsigned);
            if quotient {
                return self.in_place(by(view, Shr_rm32_imm8, Shr_rm64_imm8), view, x, &[imm8(n.trailing_zeros() as u8)]);
            }
            let mask = match immediate((n - 1) as i64, view) {
                Some(imm) => imm,
                None => Arg::Use(self.int_constant(n - 1), view),
            };
            return self.in_place(row_code(AND, &mask, view), view, x, &[mask]);
        }
        let sign = if signed { Sign::Signed } else { Sign::Unsigned };
        let (x, y) = (self.extended(a, sign), self.extended(b, sign));
        let by_constant = self.constant(b).map(|bits| sign_extended(elem, bits));
        let zero = self.int_constant(0);
        let one = self.int_constant(1);
        let mut divisor = y;
        let is_zero = Compare { code: by(view, Test_rm32_r32, Test_rm64_r64), args: [Arg::Use(y, view); 2], cc: cc::E };
        // MIN / −1: add 1 to −1 and xor MIN to MIN; the or of both is 0 only then.
        let overflows = if signed && by_constant.is_none_or(|n| n == -1) {
            let least = self.int_constant((i64::MIN >> (64 - elem.bytes() * 8)) as u64 & if wide { u64::MAX } else { 0xFFFF_FFFF });
            let p = self.in_place(by(view, Xor_r32_rm32, Xor_r64_rm64), view, x, &[Arg::Use(least, view)]);
            let q = self.in_place(by(view, Not_rm32, Not_rm64), view, y, &[]);
            let or = self.in_place(by(view, Or_r32_rm32, Or_r64_rm64), view, p, &[Arg::Use(q, view)]);
            Some(Compare { code: by(view, Test_rm32_r32, Test_rm64_r64), args: [Arg::Use(or, view); 2], cc: cc::E })
        } else {
            None
        };
        let checked = by_constant.is_none_or(|n| n == 0);
        if checked {
            divisor = self.choose(is_zero, one, divisor);
        }
        if let Some(c) = overflows {
            divisor = self.choose(c, one, divisor);
        }
        let (q, r) = (self.int_register(), self.int_register());
        let args = [Arg::FixedUse(x, gpr::RAX), Arg::FixedDef(q, gpr::RAX), Arg::FixedDef(r, gpr::RDX), Arg::LateUse(divisor, view)];
        self.m.push(Kind::Divide { signed, wide }, &args);
        let mut result = if quotient { q } else { r };
        if checked {
            result = self.choose(is_zero, zero, result);
        }
        if let Some(c) = overflows {
            result = self.choose(c, zero, result);
        }
        result
    }
}

/// Forms of an integer instruction: register or memory, short and long immediate; 32 bits, then 64.
type Row = [Code; 6];
const ADD: Row = [Add_r32_rm32, Add_rm32_imm8, Add_rm32_imm32, Add_r64_rm64, Add_rm64_imm8, Add_rm64_imm32];
const SUB: Row = [Sub_r32_rm32, Sub_rm32_imm8, Sub_rm32_imm32, Sub_r64_rm64, Sub_rm64_imm8, Sub_rm64_imm32];
const AND: Row = [And_r32_rm32, And_rm32_imm8, And_rm32_imm32, And_r64_rm64, And_rm64_imm8, And_rm64_imm32];
const OR: Row = [Or_r32_rm32, Or_rm32_imm8, Or_rm32_imm32, Or_r64_rm64, Or_rm64_imm8, Or_rm64_imm32];
const XOR: Row = [Xor_r32_rm32, Xor_rm32_imm8, Xor_rm32_imm32, Xor_r64_rm64, Xor_rm64_imm8, Xor_rm64_imm32];

fn row_code(row: Row, b: &Arg, view: View) -> Code {
    let form = match b {
        Arg::Imm(OpKind::Immediate8to32 | OpKind::Immediate8to64, _) => 1,
        Arg::Imm(..) => 2,
        _ => 0,
    };
    row[form + if view == View::Q { 3 } else { 0 }]
}

/// An immediate operand of a 32- or 64-bit instruction, if the number fits.
fn immediate(n: i64, view: View) -> Option<Arg> {
    let n = if view == View::D { i64::from(n as i32) } else { n };
    match (i8::try_from(n), i32::try_from(n), view) {
        (Ok(_), _, View::Q) => Some(Arg::Imm(OpKind::Immediate8to64, n)),
        (Ok(_), ..) => Some(Arg::Imm(OpKind::Immediate8to32, n)),
        (_, Ok(_), View::Q) => Some(Arg::Imm(OpKind::Immediate32to64, n)),
        (_, Ok(_), _) => Some(Arg::Imm(OpKind::Immediate32, n)),
        _ => None,
    }
}

/// The bits of a number as a signed integer; a mask that is set is −1.
pub fn sign_extended(elem: Elem, bits: u64) -> i64 {
    if elem.is_mask() {
        return -i64::from(bits != 0);
    }
    let unused = 64 - elem.bytes() * 8;
    (bits << unused) as i64 >> unused
}

fn set_code(condition: u8) -> Code {
    match condition {
        cc::B => Setb_rm8,
        cc::AE => Setae_rm8,
        cc::E => Sete_rm8,
        cc::NE => Setne_rm8,
        cc::BE => Setbe_rm8,
        cc::A => Seta_rm8,
        cc::L => Setl_rm8,
        cc::GE => Setge_rm8,
        cc::LE => Setle_rm8,
        _ => Setg_rm8,
    }
}

fn cmov_code(condition: u8) -> Code {
    match condition {
        cc::B => Cmovb_r64_rm64,
        cc::AE => Cmovae_r64_rm64,
        cc::E => Cmove_r64_rm64,
        cc::NE => Cmovne_r64_rm64,
        cc::BE => Cmovbe_r64_rm64,
        cc::A => Cmova_r64_rm64,
        cc::L => Cmovl_r64_rm64,
        cc::GE => Cmovge_r64_rm64,
        cc::LE => Cmovle_r64_rm64,
        _ => Cmovg_r64_rm64,
    }
}

/// The float instruction of an operation: scalar or vector, any width.
pub fn float_code(op: Bin, ty: Ty) -> Option<Code> {
    let [ss, sd, ps, pd] = match op {
        Bin::Add => [VEX_Vaddss_xmm_xmm_xmmm32, VEX_Vaddsd_xmm_xmm_xmmm64, VEX_Vaddps_xmm_xmm_xmmm128, VEX_Vaddpd_xmm_xmm_xmmm128],
        Bin::Sub => [VEX_Vsubss_xmm_xmm_xmmm32, VEX_Vsubsd_xmm_xmm_xmmm64, VEX_Vsubps_xmm_xmm_xmmm128, VEX_Vsubpd_xmm_xmm_xmmm128],
        Bin::Mul => [VEX_Vmulss_xmm_xmm_xmmm32, VEX_Vmulsd_xmm_xmm_xmmm64, VEX_Vmulps_xmm_xmm_xmmm128, VEX_Vmulpd_xmm_xmm_xmmm128],
        Bin::Div => [VEX_Vdivss_xmm_xmm_xmmm32, VEX_Vdivsd_xmm_xmm_xmmm64, VEX_Vdivps_xmm_xmm_xmmm128, VEX_Vdivpd_xmm_xmm_xmmm128],
        Bin::Min => [VEX_Vminss_xmm_xmm_xmmm32, VEX_Vminsd_xmm_xmm_xmmm64, VEX_Vminps_xmm_xmm_xmmm128, VEX_Vminpd_xmm_xmm_xmmm128],
        Bin::Max => [VEX_Vmaxss_xmm_xmm_xmmm32, VEX_Vmaxsd_xmm_xmm_xmmm64, VEX_Vmaxps_xmm_xmm_xmmm128, VEX_Vmaxpd_xmm_xmm_xmmm128],
        _ => return None,
    };
    let (scalar, packed) = if ty.elem == Elem::F64 { (sd, pd) } else { (ss, ps) };
    Some(if ty.is_vector() { packed } else { scalar })
}
