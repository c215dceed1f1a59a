//! The body of an element-wise nest: vectors of an expression over strided operands.

use crate::expr::{Expr, load_element, load_element_splat, store_element};
use crate::kernels::lib::nest::{self, Axis, Index, Part, place, walk};
use crate::kernels::lib::view::View;
use dnnc_ir::Type;
use dnnc_kir::{Builder, Op, Ty, Val};

/// An operand or the result, in bytes.
#[derive(Clone)]
pub(super) struct Stream {
    pub(super) ty: Type,
    pub(super) offset: i64,
    pub(super) strides: Vec<i64>,
    pub(super) valid: Option<usize>,
}

impl Stream {
    pub(super) fn new(ty: Type, view: &View, valid: Option<usize>) -> Stream {
        let width = ty.bytes() as i64;
        Stream { ty, offset: view.offset as i64 * width, strides: view.strides.iter().map(|&s| s as i64 * width).collect(), valid }
    }

    pub(super) fn width(&self) -> i64 {
        self.ty.bytes() as i64
    }
}

/// How a nest is partitioned.
pub(super) struct Plan {
    /// Vectors of the innermost loop.
    pub(super) unroll: usize,
    /// Axis that is split into tasks.
    pub(super) split: usize,
    /// Indices of that axis a task.
    pub(super) chunk: usize,
    pub(super) tasks: usize,
    /// Axis that is walked in tiles together with the last.
    pub(super) across: Option<usize>,
}

pub(super) struct Generator<'a> {
    pub(super) expr: &'a Expr,
    pub(super) streams: &'a [Stream],
    pub(super) lanes: u8,
    pub(super) unroll: usize,
}

impl Generator<'_> {
    pub(super) fn nest(&self, b: &mut Builder, plan: &Plan, axes: &[Axis], pointers: &[Val]) {
        let part = |a: usize| if plan.tasks > 1 && plan.split == a { Part::Chunk(plan.chunk) } else { Part::All };
        let last = axes.len() - 1;
        let outer: Vec<usize> = (0..last).filter(|&a| plan.across != Some(a)).collect();
        let outer: Vec<(&Axis, Part)> = outer.into_iter().map(|a| (&axes[a], part(a))).collect();
        nest::nest(b, &outer, pointers, &mut |b, p| match plan.across {
            Some(across) => self.tiles(b, (&axes[across], part(across)), (&axes[last], part(last)), p),
            None => self.row(b, &axes[last], part(last), p),
        });
    }

    /// The last axis: unrolled vectors, single vectors, a part of a vector.
    pub(super) fn row(&self, b: &mut Builder, axis: &Axis, part: Part, pointers: &[Val]) {
        let lanes = self.lanes as usize;
        if self.streams.iter().any(|s| s.valid.is_some()) {
            for start in (0..axis.size).step_by(lanes) {
                self.vectors(b, axis, pointers, start, 1, (axis.size - start).min(lanes), &[]);
            }
            return;
        }
        let splats = self.splats(b, axis, pointers);
        let block = lanes * self.unroll;
        let main = axis.size / block * block;
        walk(b, axis, part.bounds(main), block, pointers, &[], &mut |b, p, _| {
            self.vectors(b, axis, p, 0, self.unroll, lanes, &splats);
            vec![]
        });
        let single = axis.size / lanes * lanes;
        if main == axis.size {
            return;
        }
        nest::in_last_task(b, part, axis.size, |b| {
            walk(b, axis, (Index::Known(main), Index::Known(single)), lanes, pointers, &[], &mut |b, p, _| {
                self.vectors(b, axis, p, 0, 1, lanes, &splats);
                vec![]
            });
            if axis.size > single {
                let p = nest::at(b, axis, pointers, single);
                self.vectors(b, axis, &p, 0, 1, axis.size - single, &splats);
            }
        });
    }

    /// Operands that do not move along the last axis, read once.
    pub(super) fn splats(&self, b: &mut Builder, axis: &Axis, pointers: &[Val]) -> Vec<Option<Val>> {
        let inputs = self.streams.len() - 1;
        (0..inputs).map(|i| (axis.strides[i] == 0).then(|| load_element_splat(b, self.streams[i].ty, pointers[i], 0, self.lanes))).collect()
    }

    /// `count` vectors from index `first` of the last axis on, of `used` elements each.
    pub(super) fn vectors(
        &self,
        b: &mut Builder,
        axis: &Axis,
        pointers: &[Val],
        first: usize,
        count: usize,
        used: usize,
        splats: &[Option<Val>],
    ) {
        let inputs = self.streams.len() - 1;
        let values: Vec<Val> = (0..count)
            .map(|u| {
                let at = first + u * self.lanes as usize;
                let operands: Vec<Val> = (0..inputs)
                    .map(|i| match splats.get(i) {
                        Some(Some(v)) => *v,
                        _ => self.load(b, i, pointers[i], axis.strides[i], at, used),
                    })
                    .collect();
                self.expr.emit(b, self.lanes, &operands)
            })
            .collect();
        for (u, v) in values.into_iter().enumerate() {
            let at = first + u * self.lanes as usize;
            self.store(b, v, pointers[inputs], axis.strides[inputs], at, used);
        }
    }

    /// `used` elements of operand `i`, `stride` bytes apart, from index `at` on.
    pub(super) fn load(&self, b: &mut Builder, i: usize, ptr: Val, stride: i64, at: usize, used: usize) -> Val {
        let stream = &self.streams[i];
        let existing = stream.valid.map_or(used, |valid| valid.saturating_sub(at).min(used));
        if existing == 0 {
            let zero = Ty { elem: crate::expr::register(stream.ty), lanes: self.lanes };
            return b.bits(zero, 0);
        }
        let (ptr, disp) = place(b, ptr, stride * at as i64);
        if stride == stream.width() || self.lanes == 1 || existing == 1 {
            return load_element(b, stream.ty, ptr, disp, self.lanes, existing);
        }
        if stride == 0 {
            return load_element_splat(b, stream.ty, ptr, disp, self.lanes);
        }
        if stride == -stream.width() && existing == self.lanes as usize {
            let back: Vec<u8> = (0..self.lanes).rev().collect();
            let (ptr, disp) = place(b, ptr, i64::from(disp) + stride * (i64::from(self.lanes) - 1));
            let v = load_element(b, stream.ty, ptr, disp, self.lanes, existing);
            return b.shuffle(v, v, &back);
        }
        let elements: Vec<Val> = (0..self.lanes as usize)
            .map(|lane| {
                if lane >= existing {
                    return b.bits(Ty::scalar(crate::expr::register(stream.ty)), 0);
                }
                let (ptr, disp) = place(b, ptr, i64::from(disp) + stride * lane as i64);
                load_element(b, stream.ty, ptr, disp, 1, 1)
            })
            .collect();
        join(b, elements)
    }

    /// `used` elements of a value to the result, `stride` bytes apart, from index `at` on.
    pub(super) fn store(&self, b: &mut Builder, v: Val, ptr: Val, stride: i64, at: usize, used: usize) {
        let ty = self.streams.last().expect("the result").ty;
        if stride == ty.bytes() as i64 || used == 1 {
            let (ptr, disp) = place(b, ptr, stride * at as i64);
            return store_element(b, ty, v, ptr, disp, used);
        }
        for lane in 0..used {
            let one = b.extract(v, lane as u8);
            let (ptr, disp) = place(b, ptr, stride * (at + lane) as i64);
            store_element(b, ty, one, ptr, disp, 1);
        }
    }
}

/// Scalars as a vector, pairwise.
pub(super) fn join(b: &mut Builder, mut values: Vec<Val>) -> Val {
    while values.len() > 1 {
        values = values
            .chunks(2)
            .map(|pair| {
                let ty = b.ty(pair[0]);
                b.push(Ty { elem: ty.elem, lanes: 2 * ty.lanes }, Op::Join(pair[0], pair[1]))
            })
            .collect();
    }
    values[0]
}
