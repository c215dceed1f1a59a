//! Single elements and slices at places that are data.

use super::access::{INDEX, checked, move_row};
use crate::expr::{int_min_max, load_element, register, store_element};
use crate::kernels::lib::nest::{self, Axis, Part};
use crate::kernels::lib::view::View;
use crate::math;
use crate::unit::{Arg, LoweredCall, Unit};
use dnnc_ir::Type;
use dnnc_kir::{Builder, Elem, Ty, Val};

/// The axes of `shape` and the bytes along them of streams given by strides in elements and the bytes of one.
fn axes(shape: &[usize], streams: &[(&[isize], usize)]) -> Vec<Axis> {
    let strides = |a: usize| streams.iter().map(|(s, width)| s[a] as i64 * *width as i64).collect();
    (0..shape.len()).map(|a| Axis { size: shape[a], strides: strides(a) }).collect()
}

/// The strides of x along the axes of the indices, without the one that the indices are for.
fn strides_but(shape: &[usize], axis: usize) -> (Vec<isize>, isize) {
    let mut strides = View::dense(shape).strides;
    let along = std::mem::take(&mut strides[axis]);
    (strides, along)
}

/// Every element of the result is read at its place but for the index along the axis.
pub(super) fn gather_elements(unit: &Unit) -> LoweredCall {
    let (x, idx) = (&unit.inputs[0].ty, &unit.inputs[1].ty);
    let axis = unit.op.attrs.size("axis");
    let width = x.ty.bytes();
    let (strides, along) = strides_but(&x.shape, axis);
    let dense = View::dense(&idx.shape).strides;
    let axes = axes(&idx.shape, &[(&strides, width), (&dense, 8), (&dense, width)]);
    let (parts, tasks) = nest::cut(&idx.shape, nest::tasks(idx.len(), 16, unit.options.threads));
    let mut b = Builder::new("gather_elements", 3);
    let pointers: Vec<Val> = (0..3).map(|i| b.param(i)).collect();
    let axes: Vec<(&Axis, Part)> = axes.iter().zip(parts).collect();
    nest::nest(&mut b, &axes, &pointers, &mut |b, p| {
        let index = b.load(Ty::I64, p[1], 0);
        let index = checked(b, index, x.shape[axis]);
        let from = b.element(p[0], index, along as usize * width);
        move_row(b, unit, from, p[2], 1);
    });
    LoweredCall { func: b.finish(), args: vec![Arg::Input(0), Arg::Input(1), Arg::Output(0)], tasks }
}

/// The address of the slice of `x` that the indices at `idx` name.
fn slice(b: &mut Builder, x: Val, idx: Val, shape: &[usize], strides: &[isize], width: usize) -> Val {
    let mut at = x;
    for (d, (&size, &stride)) in shape.iter().zip(strides).enumerate() {
        let index = load_element(b, INDEX, idx, 8 * d as i32, 1, 1);
        let index = checked(b, index, size);
        at = b.element(at, index, stride as usize * width);
    }
    at
}

/// Slices of x, one for each row of indices, in each batch.
pub(super) fn gather_nd(unit: &Unit) -> LoweredCall {
    let (x, idx) = (&unit.inputs[0].ty, &unit.inputs[1].ty);
    let batch = unit.op.attrs.size("batch_dims");
    let depth = idx.shape[idx.rank() - 1];
    let (dense, width) = (View::dense(&x.shape).strides, x.ty.bytes());
    let batches: usize = x.shape[..batch].iter().product();
    let rows: usize = idx.shape[batch..idx.rank() - 1].iter().product();
    let of_batch: usize = x.shape[batch..].iter().product();
    let row: usize = x.shape[batch + depth..].iter().product();
    let outer = Axis { size: batches, strides: [of_batch * width, rows * depth * 8, rows * row * width].map(|s| s as i64).to_vec() };
    let inner = Axis { size: rows, strides: [0, depth * 8, row * width].map(|s| s as i64).to_vec() };
    let (parts, tasks) = nest::cut(&[batches, rows], nest::tasks(unit.results[0].len(), 1, unit.options.threads));
    let mut b = Builder::new("gather_nd", 3);
    let pointers: Vec<Val> = (0..3).map(|i| b.param(i)).collect();
    nest::nest(&mut b, &[(&outer, parts[0]), (&inner, parts[1])], &pointers, &mut |b, p| {
        let from = slice(b, p[0], p[1], &x.shape[batch..batch + depth], &dense[batch..batch + depth], width);
        move_row(b, unit, from, p[2], row);
    });
    LoweredCall { func: b.finish(), args: vec![Arg::Input(0), Arg::Input(1), Arg::Output(0)], tasks }
}

/// Updates go one after the other to the copy of x in the result.
pub(super) fn scatter_elements(unit: &Unit) -> LoweredCall {
    let (x, idx) = (&unit.inputs[0].ty, &unit.inputs[1].ty);
    let axis = unit.op.attrs.size("axis");
    let width = x.ty.bytes();
    let (strides, along) = strides_but(&x.shape, axis);
    let dense = View::dense(&idx.shape).strides;
    let axes = axes(&idx.shape, &[(&dense, 8), (&dense, width), (&strides, width)]);
    let mut b = Builder::new("scatter_elements", 3);
    let pointers: Vec<Val> = (0..3).map(|i| b.param(i)).collect();
    let axes: Vec<(&Axis, Part)> = axes.iter().map(|a| (a, Part::All)).collect();
    nest::nest(&mut b, &axes, &pointers, &mut |b, p| {
        let index = b.load(Ty::I64, p[0], 0);
        let index = checked(b, index, x.shape[axis]);
        let to = b.element(p[2], index, along as usize * width);
        update(b, unit, p[1], to, 1);
    });
    LoweredCall { func: b.finish(), args: vec![Arg::Input(1), Arg::Input(2), Arg::Output(0)], tasks: 1 }
}

/// As [`scatter_elements`], a slice at a time.
pub(super) fn scatter_nd(unit: &Unit) -> LoweredCall {
    let (x, idx) = (&unit.inputs[0].ty, &unit.inputs[1].ty);
    let depth = idx.shape[idx.rank() - 1];
    let rows: usize = idx.shape[..idx.rank() - 1].iter().product();
    let (dense, width) = (View::dense(&x.shape).strides, x.ty.bytes());
    let row: usize = x.shape[depth..].iter().product();
    let axis = Axis { size: rows, strides: [depth * 8, row * width, 0].map(|s| s as i64).to_vec() };
    let mut b = Builder::new("scatter_nd", 3);
    let pointers: Vec<Val> = (0..3).map(|i| b.param(i)).collect();
    nest::nest(&mut b, &[(&axis, Part::All)], &pointers, &mut |b, p| {
        let to = slice(b, p[2], p[0], &x.shape[..depth], &dense[..depth], width);
        update(b, unit, p[1], to, row);
    });
    LoweredCall { func: b.finish(), args: vec![Arg::Input(1), Arg::Input(2), Arg::Output(0)], tasks: 1 }
}

/// Combines `count` contiguous elements with those at their place.
fn update(b: &mut Builder, unit: &Unit, from: Val, to: Val, count: usize) {
    let ty = unit.results[0].ty;
    let reduction = unit.op.attrs.word("reduction");
    if reduction == "none" {
        return move_row(b, unit, from, to, count);
    }
    let elem = register(ty);
    let lanes = if elem == Elem::I64 || count == 1 { 1 } else { unit.target.vector.bits / (8 * elem.bytes()) };
    let step = |b: &mut Builder, p: &[Val], used: usize| {
        let (x, y) = (load_element(b, ty, p[1], 0, lanes as u8, used), load_element(b, ty, p[0], 0, lanes as u8, used));
        let v = combine(b, reduction, ty, x, y);
        store_element(b, ty, v, p[1], 0, used);
    };
    let width = ty.bytes() as i64;
    let axis = Axis { size: count, strides: vec![width, width] };
    let whole = count / lanes * lanes;
    nest::walk(b, &axis, (nest::Index::Known(0), nest::Index::Known(whole)), lanes, &[from, to], &[], &mut |b, p, _| {
        step(b, p, lanes);
        vec![]
    });
    if count > whole {
        let p = nest::at(b, &axis, &[from, to], whole);
        step(b, &p, count - whole);
    }
}

fn combine(b: &mut Builder, reduction: &str, ty: Type, x: Val, y: Val) -> Val {
    match (reduction, ty.is_float()) {
        ("add", _) => b.add(x, y),
        ("mul", _) => b.mul(x, y),
        ("min", true) => math::min(b, x, y),
        ("max", true) => math::max(b, x, y),
        (which, _) => b.bin(int_min_max(ty, which == "max"), x, y),
    }
}
