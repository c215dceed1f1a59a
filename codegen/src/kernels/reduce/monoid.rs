//! The operations that reductions and scans combine elements with.

use crate::expr::int_min_max;
use crate::math;
use dnnc_ir::{Kind, Type};
use dnnc_kir::{Builder, Ty, Val};

/// What a reduction combines with, in register form.
pub(super) struct Monoid {
    pub(super) kind: Kind,
    pub(super) ty: Type,
}

impl Monoid {
    /// The result over nothing, as a number.
    pub(super) fn identity(&self, b: &mut Builder, reg: Ty) -> Val {
        let (lowest, highest) = match self.ty {
            Type::Bool => (0, 1),
            ty if ty.is_float() => (0, 0),
            ty if ty.is_signed() => (i64::MIN >> (64 - 8 * ty.bytes()), i64::MAX >> (64 - 8 * ty.bytes())),
            ty => (0, (u64::MAX >> (64 - 8 * ty.bytes())) as i64),
        };
        match (self.kind, reg.elem.is_float()) {
            (Kind::ReduceSum | Kind::ReduceMean | Kind::CumSum, _) => b.bits(reg, 0),
            (Kind::ReduceProd | Kind::CumProd, true) => b.number(reg, 1.0),
            (Kind::ReduceProd | Kind::CumProd, false) => b.int(reg, 1),
            (Kind::ReduceMax, true) => b.number(reg, f64::NEG_INFINITY),
            (Kind::ReduceMax, false) => b.int(reg, lowest),
            (_, true) => b.number(reg, f64::INFINITY),
            (_, false) => b.int(reg, highest),
        }
    }

    pub(super) fn combine(&self, b: &mut Builder, x: Val, y: Val) -> Val {
        let float = b.ty(x).elem.is_float();
        match self.kind {
            Kind::ReduceProd | Kind::CumProd => b.mul(x, y),
            Kind::ReduceMax if float => math::max(b, x, y),
            Kind::ReduceMin if float => math::min(b, x, y),
            Kind::ReduceMax | Kind::ReduceMin => b.bin(int_min_max(self.ty, self.kind == Kind::ReduceMax), x, y),
            _ => b.add(x, y),
        }
    }
}
