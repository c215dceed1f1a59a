//! Weighted sums of elements along an axis.

use crate::expr::{load_element, load_element_splat, register, store_element};
use crate::kernels::lib::nest::{self, Axis, Index, Part, walk};
use crate::unit::{Arg, LoweredCall, Unit};
use dnnc_ir::Type;
use dnnc_kir::{Builder, Cmp, Conv, Ty, Val};
use dnnc_runtime::abi;

/// Vectors lie along the axes after the one that is resampled; indices are checked once, before all.
pub(super) fn lower(unit: &Unit) -> LoweredCall {
    let [x, idx, w] = [0, 1, 2].map(|i| &unit.inputs[i].ty);
    let axis = unit.op.attrs.size("axis");
    let (before, after): (usize, usize) = (x.shape[..axis].iter().product(), x.shape[axis + 1..].iter().product());
    let kernel = Kernel {
        ty: x.ty,
        weight: w.ty,
        size: x.shape[axis],
        taps: idx.shape[1],
        row: after,
        lanes: if after == 1 { 1 } else { (unit.target.vector.bits / (8 * register(x.ty).bytes())) as u8 },
    };
    let row = (after * x.ty.bytes()) as i64;
    let outputs = idx.shape[0];
    // Pointers: x, idx, w, result.
    let slices = Axis { size: before, strides: vec![kernel.size as i64 * row, 0, 0, outputs as i64 * row] };
    let taps = kernel.taps as i64;
    let along = Axis { size: outputs, strides: vec![0, 8 * taps, w.ty.bytes() as i64 * taps, row] };
    let (parts, tasks) = nest::cut(&[before, outputs], nest::tasks(unit.results[0].len(), 2 * kernel.taps, unit.options.threads));
    let mut b = Builder::new("resample", 4);
    let pointers: Vec<Val> = (0..4).map(|i| b.param(i)).collect();
    kernel.check(&mut b, pointers[1], idx.len());
    nest::nest(&mut b, &[(&slices, parts[0]), (&along, parts[1])], &pointers, &mut |b, p| kernel.element(b, p));
    let args = vec![Arg::Input(0), Arg::Input(1), Arg::Input(2), Arg::Output(0)];
    LoweredCall { func: b.finish(), args, tasks }
}

struct Kernel {
    ty: Type,
    weight: Type,
    /// Elements of the axis.
    size: usize,
    taps: usize,
    /// Elements of a row: of all axes after it.
    row: usize,
    lanes: u8,
}

/// Taps that are written one after the other; more are a loop.
const UNROLLED: usize = 8;

impl Kernel {
    fn check(&self, b: &mut Builder, idx: Val, count: usize) {
        let n = b.index(self.size);
        let axis = Axis { size: count, strides: vec![8] };
        nest::nest(b, &[(&axis, Part::All)], &[idx], &mut |b, p| {
            let i = b.load(Ty::I64, p[0], 0);
            let outside = b.cmp(Cmp::GeU, i, n);
            b.when(outside, |b| b.fail(abi::INDEX));
        });
    }

    /// The row of x and the weight of tap `tap`, as an index in `taps` or one that a loop counts.
    fn tap(&self, b: &mut Builder, x: Val, idx: Val, w: Val, disp: usize) -> (Val, Val) {
        let i = b.load(Ty::I64, idx, 8 * disp as i32);
        let from = b.element(x, i, self.row * self.ty.bytes());
        let mut weight = load_element_splat(b, self.weight, w, (self.weight.bytes() * disp) as i32, 1);
        let elem = register(self.ty);
        if b.ty(weight).elem != elem {
            weight = b.conv(Conv::FloatToFloat, weight, elem);
        }
        (from, b.splat(weight, self.lanes))
    }

    /// One row of the result.
    fn element(&self, b: &mut Builder, p: &[Val]) {
        let lanes = self.lanes as usize;
        let width = self.ty.bytes() as i64;
        let unrolled = self.taps <= UNROLLED;
        let taps: Vec<(Val, Val)> = if unrolled { (0..self.taps).map(|t| self.tap(b, p[0], p[1], p[2], t)).collect() } else { vec![] };
        let mut pointers = vec![p[3]];
        if unrolled {
            pointers.extend(taps.iter().map(|t| t.0));
        } else {
            pointers.push(p[0]);
        }
        let sum = |b: &mut Builder, q: &[Val], used: usize| {
            let zero = b.number(Ty { elem: register(self.ty), lanes: self.lanes }, 0.0);
            if unrolled {
                return q[1..].iter().zip(&taps).fold(zero, |acc, (from, (_, weight))| {
                    let v = load_element(b, self.ty, *from, 0, self.lanes, used);
                    if acc == zero { b.mul(v, *weight) } else { b.fma(v, *weight, acc) }
                });
            }
            let axis = Axis { size: self.taps, strides: vec![8, self.weight.bytes() as i64] };
            walk(b, &axis, (Index::Known(0), Index::Known(self.taps)), 1, &p[1..3], &[zero], &mut |b, t, acc| {
                let (from, weight) = self.tap(b, q[1], t[0], t[1], 0);
                let v = load_element(b, self.ty, from, 0, self.lanes, used);
                vec![b.fma(v, weight, acc[0])]
            })[0]
        };
        let axis = Axis { size: self.row, strides: vec![width; pointers.len()] };
        let whole = self.row / lanes * lanes;
        walk(b, &axis, (Index::Known(0), Index::Known(whole)), lanes, &pointers, &[], &mut |b, q, _| {
            let v = sum(b, q, lanes);
            store_element(b, self.ty, v, q[0], 0, lanes);
            vec![]
        });
        if self.row > whole {
            let q = nest::at(b, &axis, &pointers, whole);
            let v = sum(b, &q, self.row - whole);
            store_element(b, self.ty, v, q[0], 0, self.row - whole);
        }
    }
}
