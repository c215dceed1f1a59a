//! Determinants.

use crate::expr::{load_element, register, store_element};
use crate::kernels::lib::nest::{self, Axis, Part};
use crate::unit::{Arg, Family, Lowered, LoweredCall, Unit};
use dnnc_ir::Kind;
use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Ty, Un, Val};

/// The family.
pub const FAMILY: Family =
    Family { name: "det", kinds: &[Kind::Det], lower, forecast: |unit| crate::estimate::rows(unit, 8.0), epilogue: |_, _| None };

/// Gaussian elimination in f64 on a copy; each step takes the row with the largest first element.
fn lower(unit: &Unit) -> Result<Lowered, String> {
    if unit.results[0].is_empty() {
        return Ok(Lowered::default());
    }
    let x = &unit.inputs[0].ty;
    let n = x.shape[x.rank() - 1];
    let width = x.ty.bytes();
    let mut b = Builder::new("det", 3);
    let pointers = [b.param(0), b.param(1)];
    let m = b.param(2);
    let axis = Axis { size: unit.results[0].len(), strides: vec![(n * n * width) as i64, width as i64] };
    let (zero, size) = (b.index(0), b.index(n));
    let nothing = b.number(Ty::F64, 0.0);
    let at = |b: &mut Builder, row: Val, column: Val| {
        let row = b.mul_int(row, n as i64);
        let i = b.add(row, column);
        b.element(m, i, 8)
    };
    nest::nest(&mut b, &[(&axis, Part::All)], &pointers, &mut |b, p| {
        b.for_count(n * n, &[], |b, i, _| {
            let (from, to) = (b.element(p[0], i, width), b.element(m, i, 8));
            let v = load_element(b, x.ty, from, 0, 1, 1);
            let v = if b.ty(v).elem == Elem::F64 { v } else { b.conv(Conv::FloatToFloat, v, Elem::F64) };
            b.store(v, to, 0);
            vec![]
        });
        let one = b.number(Ty::F64, 1.0);
        let det = b.for_range(zero, size, 1, &[one], |b, step, det| {
            let lowest = b.number(Ty::F64, -1.0);
            let found = b.for_range(step, size, 1, &[lowest, step], |b, row, v| {
                let place = at(b, row, step);
                let a = b.load(Ty::F64, place, 0);
                let a = b.un(Un::Abs, a);
                // A NaN is the largest: it must not be left behind.
                let (smaller, known) = (b.cmp(Cmp::Le, a, v[0]), b.cmp(Cmp::Ne, v[0], v[0]));
                let keep = b.bin(Bin::Or, smaller, known);
                vec![b.select(keep, v[0], a), b.select(keep, v[1], row)]
            });
            let pivot_row = found[1];
            b.for_range(step, size, 1, &[], |b, column, _| {
                let (upper, lower) = (at(b, step, column), at(b, pivot_row, column));
                let (u, l) = (b.load(Ty::F64, upper, 0), b.load(Ty::F64, lower, 0));
                b.store(l, upper, 0);
                b.store(u, lower, 0);
                vec![]
            });
            let place = at(b, step, step);
            let pivot = b.load(Ty::F64, place, 0);
            let below = b.add_int(step, 1);
            b.for_range(below, size, 1, &[], |b, row, _| {
                let place = at(b, row, step);
                let first = b.load(Ty::F64, place, 0);
                let factor = b.div(first, pivot);
                // Under a pivot of 0 all are 0, and so is the determinant.
                let none = b.cmp(Cmp::Eq, pivot, nothing);
                let factor = b.select(none, nothing, factor);
                let factor = b.un(Un::Neg, factor);
                b.for_range(step, size, 1, &[], |b, column, _| {
                    let (upper, lower) = (at(b, step, column), at(b, row, column));
                    let (u, l) = (b.load(Ty::F64, upper, 0), b.load(Ty::F64, lower, 0));
                    let l = b.fma(factor, u, l);
                    b.store(l, lower, 0);
                    vec![]
                });
                vec![]
            });
            let swapped = b.cmp(Cmp::Ne, pivot_row, step);
            let minus = b.un(Un::Neg, pivot);
            let factor = b.select(swapped, minus, pivot);
            // A column of zeros decides, whatever stands in the columns after it.
            let known = b.cmp(Cmp::Eq, det[0], nothing);
            let product = b.mul(det[0], factor);
            vec![b.select(known, det[0], product)]
        })[0];
        let v = if register(x.ty) == Elem::F64 { det } else { b.conv(Conv::FloatToFloat, det, Elem::F32) };
        store_element(b, x.ty, v, p[1], 0, 1);
    });
    let call = LoweredCall { func: b.finish(), args: vec![Arg::Input(0), Arg::Output(0), Arg::Scratch(0)], tasks: 1 };
    Ok(Lowered { calls: vec![call], scratch: vec![8 * n * n], ..Lowered::default() })
}

#[cfg(test)]
mod tests;
