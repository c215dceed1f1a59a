//! Running sums and products.

use super::monoid::Monoid;
use crate::expr::{load_element, register, store_element};
use crate::kernels::lib::nest::{Axis, Index, walk};
use crate::kernels::lib::rows::{Rows, Stream};
use crate::kernels::lib::view::View;
use crate::unit::{Arg, LoweredCall, Unit};
use dnnc_kir::{Builder, Elem, Ty};

/// One step of the axis after the other, for as many columns beside each other as a vector holds.
pub(super) fn lower(unit: &Unit) -> LoweredCall {
    let (op, x) = (unit.op, &unit.inputs[0].ty);
    let axis = op.attrs.size("axis");
    let (exclusive, reverse) = (op.attrs.flag("exclusive"), op.attrs.flag("reverse"));
    let size = x.shape[axis];
    // The axis itself is walked here: the rows are over the others.
    let mut outer = x.shape.clone();
    outer[axis] = 1;
    let view = View { offset: 0, strides: View::dense(&x.shape).strides };
    let streams = [Stream { ty: x.ty, view: view.clone() }, Stream { ty: x.ty, view: view.clone() }];
    let elem = register(x.ty);
    let inner: usize = x.shape[axis + 1..].iter().product();
    let lanes = if elem == Elem::I64 || inner == 1 { 1 } else { (unit.target.vector.bits / (8 * elem.bytes())) as u8 };
    let rows = Rows::new(&outer, &vec![false; outer.len()], &streams, lanes, size, unit.options.threads, 0);
    let mut b = Builder::new(op.kind().name(), 2);
    let (reg, monoid) = (Ty { elem, lanes }, Monoid { kind: op.kind(), ty: x.ty });
    let bytes = view.strides[axis] as i64 * x.ty.bytes() as i64;
    let step = if reverse { -bytes } else { bytes };
    let walked = Axis { size, strides: vec![step, step] };
    rows.each(&mut b, &mut |b, row| {
        let first = if reverse { bytes * (size as i64 - 1) } else { 0 };
        let pointers: Vec<_> = row.pointers.iter().map(|&p| b.offset_int(p, first)).collect();
        let start = vec![monoid.identity(b, reg); row.width()];
        walk(b, &walked, (Index::Known(0), Index::Known(size)), 1, &pointers, &start, &mut |b, p, sums| {
            let mut next = vec![];
            for (slot, &sum) in sums.iter().enumerate() {
                let disp = (slot * lanes as usize * x.ty.bytes()) as i32;
                let v = load_element(b, x.ty, p[0], disp, lanes, row.used());
                let after = monoid.combine(b, sum, v);
                store_element(b, x.ty, if exclusive { sum } else { after }, p[1], disp, row.used());
                next.push(after);
            }
            next
        });
    });
    LoweredCall { func: b.finish(), args: vec![Arg::Input(0), Arg::Output(0)], tasks: rows.tasks() }
}
