//! Indices and contiguous rows.

use crate::expr::{load_element, store_element};
use crate::kernels::lib::nest::{self, Axis, place};
use crate::kernels::map;
use crate::unit::Unit;
use dnnc_ir::Type;
use dnnc_kir::{Builder, Cmp, Elem, Ty, Val};
use dnnc_runtime::abi;

/// The type of indices.
pub(super) const INDEX: Type = Type::I64;

/// An index into an axis of `size`: negative ones count from the end, those out of range end the kernel.
pub(super) fn checked(b: &mut Builder, index: Val, size: usize) -> Val {
    let (zero, n) = (b.index(0), b.index(size));
    let negative = b.cmp(Cmp::Lt, index, zero);
    let from_end = b.add(index, n);
    let index = b.select(negative, from_end, index);
    let outside = b.cmp(Cmp::GeU, index, n);
    b.when(outside, |b| b.fail(abi::INDEX));
    index
}

/// Copies so many bytes.
pub(super) fn copy(b: &mut Builder, from: Val, to: Val, bytes: usize, vector: usize) {
    let elem = match bytes {
        n if n % 4 == 0 => Elem::F32,
        n if n % 2 == 0 => Elem::I16,
        _ => Elem::I8,
    };
    let ty = Ty { elem, lanes: (vector / elem.bytes()) as u8 };
    let block = 4 * vector;
    let whole = bytes / block * block;
    let axis = Axis { size: whole, strides: vec![1, 1] };
    let move_at = |b: &mut Builder, p: &[Val], at: usize, bytes: usize| {
        let ((from, disp), (to, _)) = (place(b, p[0], at as i64), place(b, p[1], at as i64));
        let v = b.load_part(ty, from, disp, bytes / elem.bytes());
        b.store_part(v, to, disp, bytes / elem.bytes());
    };
    nest::walk(b, &axis, (nest::Index::Known(0), nest::Index::Known(whole)), block, &[from, to], &[], &mut |b, p, _| {
        for u in 0..4 {
            move_at(b, p, u * vector, vector);
        }
        vec![]
    });
    for at in (whole..bytes).step_by(vector) {
        move_at(b, &[from, to], at, vector.min(bytes - at));
    }
}

/// Moves `count` contiguous elements.
pub(super) fn move_row(b: &mut Builder, unit: &Unit, from: Val, to: Val, count: usize) {
    let ty = map::moved_as(unit.results[0].ty);
    if count == 1 {
        let v = load_element(b, ty, from, 0, 1, 1);
        return store_element(b, ty, v, to, 0, 1);
    }
    copy(b, from, to, count * ty.bytes(), unit.target.vector.bits / 8);
}
