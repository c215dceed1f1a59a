//! Operators that are like no other: determinants and the places of maxima in windows.

use super::nest::{self, Axis, Part};
use super::reduce::Order;
use super::{Arg, Family, Lowered, LoweredCall, Unit};
use crate::expr::{load_element, register, store_element};
use crate::kir::{Bin, Builder, Cmp, Conv, Elem, Ty, Un, Val};
use dnnc_ir::{Kind, TensorType, Type};

/// The family.
pub const FAMILY: Family = Family { name: "misc", kinds: &[Kind::Det, Kind::ArgMaxPool], lower, epilogue: |_, _, _| false };

fn lower(unit: &Unit) -> Result<Lowered, String> {
    if unit.results.iter().all(TensorType::is_empty) {
        return Ok(Lowered::default());
    }
    Ok(match unit.op.kind() {
        Kind::Det => det(unit),
        _ => Lowered { calls: vec![arg_max_pool(unit)], ..Lowered::default() },
    })
}

/// Gaussian elimination in f64 on a copy; each step takes the row with the largest first element.
fn det(unit: &Unit) -> Lowered {
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
                let larger = b.cmp(Cmp::Gt, a, v[0]);
                vec![b.select(larger, a, v[0]), b.select(larger, row, v[1])]
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
            vec![b.mul(det[0], factor)]
        })[0];
        let v = if register(x.ty) == Elem::F64 { det } else { b.conv(Conv::FloatToFloat, det, Elem::F32) };
        store_element(b, x.ty, v, p[1], 0, 1);
    });
    let call = LoweredCall { func: b.finish(), args: vec![Arg::Input(0), Arg::Output(0), Arg::Scratch(0)], tasks: 1 };
    Lowered { calls: vec![call], scratch: vec![8 * n * n], ..Lowered::default() }
}

/// The flat index of the maximum of each window, −1 where that lies in the padding only.
fn arg_max_pool(unit: &Unit) -> LoweredCall {
    let (x, y, attrs) = (&unit.inputs[0].ty, &unit.results[0], &unit.op.attrs);
    let sizes = &x.shape[2..];
    let axes = sizes.len();
    let plane: usize = sizes.iter().product();
    let planes = x.shape[0] * x.shape[1];
    let windows: usize = y.shape[2..].iter().product();
    // Elements from one index of an axis to the next: in memory, and as they are counted.
    let strides = |order: &mut dyn Iterator<Item = usize>| {
        let mut strides = vec![0; axes];
        order.fold(1, |step, axis| {
            strides[axis] = step;
            step * sizes[axis]
        });
        strides
    };
    let in_memory = strides(&mut (0..axes).rev());
    let counted = if attrs.flag("column_major") { strides(&mut (0..axes)) } else { in_memory.clone() };
    let window = Window {
        order: Order { ty: x.ty, max: true, last: false },
        sizes,
        kernel: attrs.sizes("kernel"),
        dilations: attrs.ints("dilations").to_vec(),
        in_memory,
        counted,
    };
    let (stride, pads) = (attrs.ints("strides"), attrs.ints("pads"));
    let mut b = Builder::new("arg_max_pool", 2);
    let pointers = [b.param(0), b.param(1)];
    let outer = Axis { size: planes, strides: vec![(plane * x.ty.bytes()) as i64, (windows * 8) as i64] };
    let (parts, tasks) = nest::cut(&[planes], nest::tasks(y.len(), 8 * window.kernel.iter().product::<usize>(), unit.options.threads));
    nest::nest(&mut b, &[(&outer, parts[0])], &pointers, &mut |b, p| {
        // The number of the plane, from how far the pointer has come.
        let (here, start) = (b.conv(Conv::Bits, p[0], Elem::I64), b.param(0));
        let start = b.conv(Conv::Bits, start, Elem::I64);
        let bytes = b.sub(here, start);
        let width = b.index(x.ty.bytes());
        let first = b.bin(Bin::DivU, bytes, width);
        b.for_count(windows, &[], |b, w, _| {
            let mut rest = w;
            let mut corner = vec![w; axes];
            for a in (0..axes).rev() {
                let size = b.index(y.shape[2 + a]);
                let at = b.bin(Bin::RemU, rest, size);
                rest = b.bin(Bin::DivU, rest, size);
                let at = b.mul_int(at, stride[a]);
                corner[a] = b.add_int(at, -pads[a]);
            }
            let (none, lowest) = (b.int(Ty::I64, -1), b.bits(Ty::scalar(register(x.ty)), 0));
            let zero = b.index(0);
            let best = window.taps(b, 0, p[0], &corner, (zero, zero), &[none, lowest]);
            let flat = b.add(first, best[0]);
            let empty = b.cmp(Cmp::Lt, best[0], zero);
            let index = b.select(empty, none, flat);
            let to = b.element(p[1], w, 8);
            store_element(b, Type::I64, index, to, 0, 1);
            vec![]
        });
    });
    LoweredCall { func: b.finish(), args: vec![Arg::Input(0), Arg::Output(0)], tasks }
}

struct Window<'a> {
    order: Order,
    sizes: &'a [usize],
    kernel: Vec<usize>,
    dilations: Vec<i64>,
    in_memory: Vec<usize>,
    counted: Vec<usize>,
}

impl Window<'_> {
    /// The best of the elements of a window (index in the plane, value) along the axes from `axis` on; `at` is the place so far, in memory and
    /// as it is counted.
    fn taps(&self, b: &mut Builder, axis: usize, ptr: Val, corner: &[Val], at: (Val, Val), best: &[Val]) -> Vec<Val> {
        if axis == self.sizes.len() {
            let from = b.element(ptr, at.0, self.order.ty.bytes());
            let v = load_element(b, self.order.ty, from, 0, 1, 1);
            let zero = b.index(0);
            let first = b.cmp(Cmp::Lt, best[0], zero);
            let better = self.order.beats(b, v, best[1]);
            let taken = vec![at.1, v];
            return b.branch(first, |_| taken.clone(), |b| b.branch(better, |_| taken.clone(), |_| best.to_vec()));
        }
        b.for_count(self.kernel[axis], best, |b, k, best| {
            let step = b.mul_int(k, self.dilations[axis]);
            let i = b.add(corner[axis], step);
            let size = b.index(self.sizes[axis]);
            let inside = b.cmp(Cmp::LtU, i, size);
            b.branch(
                inside,
                |b| {
                    let (m, c) = (b.mul_int(i, self.in_memory[axis] as i64), b.mul_int(i, self.counted[axis] as i64));
                    let at = (b.add(at.0, m), b.add(at.1, c));
                    self.taps(b, axis + 1, ptr, corner, at, best)
                },
                |_| best.to_vec(),
            )
        })
    }
}

#[cfg(test)]
mod tests;
