//! Integers that are known before the kernel runs, division by them, and constant factors of multiply-adds.

use super::translator::{REGISTER, Translator, lanes_of, part_type};
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use dnnc_kir::{Bin, Elem, Op, Stmt, Ty, Val};
use std::collections::BTreeSet;

/// Values that are factors of multiply-adds.
fn factors(body: &[Stmt], found: &mut BTreeSet<Val>) {
    for stmt in body {
        match stmt {
            Stmt::Let(_, Op::Fma(a, b, _)) => found.extend([*a, *b]),
            Stmt::For { body, .. } => factors(body, found),
            Stmt::While { head, body, .. } => [head, body].into_iter().for_each(|body| factors(body, found)),
            Stmt::If { then, otherwise, .. } => [then, otherwise].into_iter().for_each(|body| factors(body, found)),
            Stmt::Let(..) | Stmt::Store { .. } | Stmt::Prefetch { .. } | Stmt::Fail(_) => {}
        }
    }
}

/// What is known about the result of an operation.
pub enum Folded {
    Known(u64),
    Same(Val),
    Not,
}

/// (m, s, carries) such that ⌊x / by⌋ is ⌊x·m / 2^(64 + s)⌋ for all x of 64 bits, or ⌊x·(m + 2^64) / 2^(64 + s)⌋ where it carries; not for powers
/// of two (Granlund and Montgomery, "Division by Invariant Integers using Multiplication", 1994).
pub fn reciprocal(by: u64) -> (u64, u32, bool) {
    let most = u64::BITS - by.leading_zeros();
    let factor = |s: u32| {
        // 2^(64 + s) may have 129 bits: rounded up from 2^(64 + s) − 1, which is no multiple of `by` less one.
        let power = if s == 64 { u128::MAX } else { (1u128 << (64 + s)) - 1 };
        power / u128::from(by) + 1
    };
    for s in 0..most {
        let m = factor(s);
        let error = (m * u128::from(by)).wrapping_sub(1u128 << (64 + s));
        if m <= u128::from(u64::MAX) && error <= 1 << s {
            return (m as u64, s, false);
        }
    }
    (factor(most) as u64, most, true)
}

impl Translator<'_> {
    /// Puts the constant factors of multiply-adds side by side, so that many of them take few registers.
    pub fn gather_factors(&mut self) {
        let mut used = BTreeSet::new();
        factors(&self.func.body, &mut used);
        let constants = self.func.body.iter().filter_map(|stmt| match stmt {
            Stmt::Let(v, Op::Const(bits)) if used.contains(v) => Some((*v, *bits)),
            _ => None,
        });
        for elem in [Elem::F32, Elem::F64] {
            let of: Vec<(Val, u64)> = constants.clone().filter(|(v, _)| self.ty(*v).elem == elem && self.ty(*v).is_vector()).collect();
            for some in of.chunks(lanes_of(elem)) {
                let mut bytes: Vec<u8> = some.iter().flat_map(|(_, bits)| bits.to_le_bytes()[..elem.bytes()].to_vec()).collect();
                bytes.resize(REGISTER, 0);
                let register = self.vector_bytes(part_type(elem), bytes);
                self.factors.extend(some.iter().enumerate().map(|(lane, (v, _))| (*v, (register, lane))));
            }
        }
    }

    /// Integers that are known before the kernel runs.
    pub fn fold(&self, ty: Ty, op: &Op) -> Folded {
        match op {
            _ if ty.is_vector() || ty.elem.is_float() || ty.elem.is_mask() => Folded::Not,
            Op::Const(bits) => Folded::Known(*bits),
            Op::Offset(p, bytes) if self.known(*bytes) == Some(0) => Folded::Same(*p),
            Op::Bin(op, a, b) => match (op, self.known(*a), self.known(*b)) {
                (_, Some(x), Some(y)) => Folded::Known(op.on(ty.elem)(x, y)),
                (Bin::Mul, Some(0), _) | (Bin::Mul, _, Some(0)) => Folded::Known(0),
                (Bin::Add, Some(0), _) | (Bin::Mul, Some(1), _) => Folded::Same(*b),
                (Bin::Add | Bin::Sub, _, Some(0)) | (Bin::Mul | Bin::DivU, _, Some(1)) => Folded::Same(*a),
                _ => Folded::Not,
            },
            _ => Folded::Not,
        }
    }

    /// An operation of two scalar integers; multiplications and divisions by what is known need no such instruction.
    pub fn int_bin(&mut self, op: Bin, ty: Ty, a: Val, b: Val) -> Value {
        match (op, self.known(a), self.known(b)) {
            (Bin::Mul, Some(by), _) if by.is_power_of_two() => self.shift_left(ty, b, by),
            (Bin::Mul, _, Some(by)) if by.is_power_of_two() => self.shift_left(ty, a, by),
            (Bin::DivU, _, Some(by)) if by != 0 && ty.elem == Elem::I64 => {
                let a = self.one(a);
                self.quotient(a, by)
            }
            (Bin::RemU, _, Some(by)) if by != 0 && ty.elem == Elem::I64 => {
                let a = self.one(a);
                let quotient = self.quotient(a, by);
                let by = self.b.ins().iconst(I64, by as i64);
                let whole = self.b.ins().imul(quotient, by);
                self.b.ins().isub(a, whole)
            }
            _ => {
                let (a, b) = (self.one(a), self.one(b));
                self.bin(op, ty, a, b)
            }
        }
    }

    pub fn shift_left(&mut self, ty: Ty, x: Val, by: u64) -> Value {
        let x = self.one(x);
        let bits = self.scalar_bits(ty.elem, by.trailing_zeros().into());
        self.b.ins().ishl(x, bits)
    }

    /// An unsigned number of 64 bits by a constant that is not 0.
    pub fn quotient(&mut self, x: Value, by: u64) -> Value {
        let shift = |t: &mut Self, x: Value, bits: u32| {
            let bits = t.b.ins().iconst(I64, i64::from(bits));
            t.b.ins().ushr(x, bits)
        };
        if by.is_power_of_two() {
            return shift(self, x, by.trailing_zeros());
        }
        let (factor, bits, carries) = reciprocal(by);
        let factor = self.b.ins().iconst(I64, factor as i64);
        let high = self.b.ins().umulhi(x, factor);
        if !carries {
            return shift(self, high, bits);
        }
        // high + x may have 65 bits.
        let rest = self.b.ins().isub(x, high);
        let half = shift(self, rest, 1);
        let sum = self.b.ins().iadd(half, high);
        shift(self, sum, bits - 1)
    }
}
