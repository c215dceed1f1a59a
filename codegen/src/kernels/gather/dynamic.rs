//! Operators whose number of results is data; the number found must be the one that was promised.

use super::access::move_row;
use crate::expr::{load_element, register, store_element};
use crate::kernels::lib::nest::{self, Axis, Part};
use crate::kernels::reduce::order_key;
use crate::math;
use crate::unit::{Arg, Lowered, LoweredCall, Unit};
use dnnc_ir::Type;
use dnnc_kir::{Bin, Builder, Cmp, Ty, Val};
use dnnc_runtime::abi;

/// Ends the kernel unless so many were found.
fn promised(b: &mut Builder, found: Val, count: usize) {
    let count = b.index(count);
    let other = b.cmp(Cmp::Ne, found, count);
    b.when(other, |b| b.fail(abi::SIZE));
}

/// Ends the kernel if there is no place for one more.
fn room(b: &mut Builder, found: Val, count: usize) {
    let count = b.index(count);
    let full = b.cmp(Cmp::Ge, found, count);
    b.when(full, |b| b.fail(abi::SIZE));
}

fn one_call(func: dnnc_kir::Func, args: Vec<Arg>) -> LoweredCall {
    LoweredCall { func, args, tasks: 1 }
}

/// Writes the coordinates of each element that is not 0.
pub(super) fn non_zero(unit: &Unit) -> LoweredCall {
    let (x, count) = (&unit.inputs[0].ty, unit.op.attrs.size("count"));
    let mut b = Builder::new("non_zero", 2);
    let (from, to) = (b.param(0), b.param(1));
    let zero = b.index(0);
    let found = axis(&mut b, &x.shape, &mut vec![], (zero, zero), &mut |b, at, index, found| {
        let ptr = b.element(from, index, x.ty.bytes());
        let v = load_element(b, x.ty, ptr, 0, 1, 1);
        let nothing = b.bits(b.ty(v), 0);
        let is = b.cmp(Cmp::Ne, v, nothing);
        b.branch(
            is,
            |b| {
                room(b, found, count);
                let place = b.element(to, found, 8);
                for (a, &i) in at.iter().enumerate() {
                    let (place, disp) = nest::place(b, place, (8 * a * count) as i64);
                    b.store(i, place, disp);
                }
                vec![b.add_int(found, 1)]
            },
            |_| vec![found],
        )[0]
    });
    promised(&mut b, found, count);
    one_call(b.finish(), vec![Arg::Input(0), Arg::Output(0)])
}

/// Loops over axes with all coordinates at hand; `(index, carried)` are the flat index so far and a value that goes along.
fn axis(
    b: &mut Builder,
    shape: &[usize],
    at: &mut Vec<Val>,
    (index, carried): (Val, Val),
    leaf: &mut dyn FnMut(&mut Builder, &[Val], Val, Val) -> Val,
) -> Val {
    let Some((&size, rest)) = shape.split_first() else { return leaf(b, at, index, carried) };
    b.for_count(size, &[carried], |b, i, carried| {
        at.push(i);
        let row = b.mul_int(index, size as i64);
        let index = b.add(row, i);
        let next = axis(b, rest, at, (index, carried[0]), leaf);
        at.pop();
        vec![next]
    })[0]
}

/// Rows whose condition holds, in each slice before the axis.
pub(super) fn compress(unit: &Unit) -> LoweredCall {
    let (x, cond) = (&unit.inputs[0].ty, &unit.inputs[1].ty);
    let (along, count) = (unit.op.attrs.size("axis"), unit.op.attrs.size("count"));
    let before: usize = x.shape[..along].iter().product();
    let row: usize = x.shape[along + 1..].iter().product();
    let bytes = row * x.ty.bytes();
    let mut b = Builder::new("compress", 3);
    let [from, flags, to] = [0, 1, 2].map(|i| b.param(i));
    let zero = b.index(0);
    let found = b.for_count(cond.len(), &[zero], |b, i, found| {
        let flag = b.offset(flags, i);
        let flag = load_element(b, Type::Bool, flag, 0, 1, 1);
        let no = b.int(Ty::I32, 0);
        let holds = b.cmp(Cmp::Ne, flag, no);
        b.branch(
            holds,
            |b| {
                room(b, found[0], count);
                let (from, to) = (b.element(from, i, bytes), b.element(to, found[0], bytes));
                let slices = Axis { size: before, strides: vec![(x.shape[along] * bytes) as i64, (count * bytes) as i64] };
                nest::nest(b, &[(&slices, Part::All)], &[from, to], &mut |b, p| move_row(b, unit, p[0], p[1], row));
                vec![b.add_int(found[0], 1)]
            },
            |_| vec![found[0]],
        )
    })[0];
    promised(&mut b, found, count);
    one_call(b.finish(), vec![Arg::Input(0), Arg::Input(1), Arg::Output(0)])
}

/// The numbers of the slices are sorted; a walk over them then numbers those that differ.
pub(super) fn unique(unit: &Unit) -> Lowered {
    let x = &unit.inputs[0].ty;
    let (before, all, row) = match unit.op.attrs.int("axis") {
        -1 => (1, x.len(), 1),
        a => {
            let a = a as usize;
            (x.shape[..a].iter().product(), x.shape[a], x.shape[a + 1..].iter().product())
        }
    };
    let count = usize::try_from(unit.op.attrs.int("count")).ok();
    let kept = count.unwrap_or(all);
    let results = if count.is_none() { 5 } else { 4 };
    let mut b = Builder::new("unique", 1 + results + 3);
    let [x_ptr, y, firsts, inverse, counts] = [0, 1, 2, 3, 4].map(|i| b.param(i));
    let [list, first, times] = [0, 1, 2].map(|i| b.param(1 + results + i));
    let slices = Slices { ty: x.ty, ptr: x_ptr, before, all, row };
    let [zero, one] = [0, 1].map(|i| b.index(i));
    slices.sort(&mut b, list);
    // Equal slices follow one another, the first one first: each that differs from the one before begins a new one.
    let found = b.for_count(all, &[zero], |b, k, found| {
        let found = found[0];
        let i = get(b, list, k);
        let later = b.cmp(Cmp::Gt, k, zero);
        let same = b.branch(
            later,
            |b| {
                let before = b.add_int(k, -1);
                let other = get(b, list, before);
                vec![slices.compare(b, other, i)]
            },
            |_| vec![one],
        )[0];
        let is_new = b.cmp(Cmp::Ne, same, zero);
        let next = b.branch(
            is_new,
            |b| {
                room(b, found, kept);
                put(b, first, found, i);
                put(b, times, found, zero);
                vec![b.add_int(found, 1)]
            },
            |_| vec![found],
        )[0];
        let id = b.add_int(next, -1);
        put(b, inverse, i, id);
        let n = get(b, times, id);
        let n = b.add_int(n, 1);
        put(b, times, id, n);
        vec![next]
    })[0];
    let sorted = unit.op.attrs.flag("sorted");
    if !sorted {
        // The list is that of the different slices as they appear.
        b.for_count(all, &[zero], |b, i, seen| {
            let id = get(b, inverse, i);
            let its_first = get(b, first, id);
            let appears = b.cmp(Cmp::Eq, its_first, i);
            b.branch(
                appears,
                |b| {
                    put(b, list, seen[0], id);
                    vec![b.add_int(seen[0], 1)]
                },
                |_| vec![seen[0]],
            )
        });
    }
    if let Some(count) = count {
        promised(&mut b, found, count);
    }
    // In their order in the result: `times` of a slice gives way to its place there.
    b.for_range(zero, found, 1, &[], |b, place, _| {
        let id = if sorted { place } else { get(b, list, place) };
        let (i, n) = (get(b, first, id), get(b, times, id));
        put(b, firsts, place, i);
        put(b, counts, place, n);
        put(b, times, id, place);
        let (from, to) = (slices.at(b, x_ptr, i), slices.at(b, y, place));
        let bytes = (row * x.ty.bytes()) as i64;
        let parts = Axis { size: before, strides: vec![all as i64 * bytes, kept as i64 * bytes] };
        nest::nest(b, &[(&parts, Part::All)], &[from, to], &mut |b, p| move_row(b, unit, p[0], p[1], row));
        vec![]
    });
    b.for_count(all, &[], |b, i, _| {
        let id = get(b, inverse, i);
        let place = get(b, times, id);
        put(b, inverse, i, place);
        vec![]
    });
    let mut args: Vec<Arg> = std::iter::once(Arg::Input(0)).chain((0..results).map(Arg::Output)).collect();
    if count.is_none() {
        let number = b.param(5);
        b.store(found, number, 0);
        let end = b.index(kept);
        b.for_range(found, end, 1, &[], |b, place, _| {
            put(b, firsts, place, zero);
            put(b, counts, place, zero);
            let to = slices.at(b, y, place);
            let bytes = (row * x.ty.bytes()) as i64;
            let parts = Axis { size: before, strides: vec![kept as i64 * bytes] };
            let elements = Axis { size: row, strides: vec![x.ty.bytes() as i64] };
            nest::nest(b, &[(&parts, Part::All), (&elements, Part::All)], &[to], &mut |b, p| {
                let nothing = b.bits(Ty::scalar(register(x.ty)), 0);
                store_element(b, x.ty, nothing, p[0], 0, 1);
            });
            vec![]
        });
    }
    args.extend((0..3).map(Arg::Scratch));
    Lowered { calls: vec![one_call(b.finish(), args)], scratch: vec![8 * all; 3], ..Lowered::default() }
}

/// Number `i` of a list of I64.
fn get(b: &mut Builder, list: Val, i: Val) -> Val {
    let at = b.element(list, i, 8);
    b.load(Ty::I64, at, 0)
}

/// Makes number `i` of a list of I64 `v`.
fn put(b: &mut Builder, list: Val, i: Val, v: Val) {
    let at = b.element(list, i, 8);
    b.store(v, at, 0);
}

/// The slices of a tensor along an axis.
struct Slices {
    ty: Type,
    ptr: Val,
    before: usize,
    all: usize,
    row: usize,
}

impl Slices {
    /// The first element of slice `i`.
    fn at(&self, b: &mut Builder, ptr: Val, i: Val) -> Val {
        b.element(ptr, i, self.row * self.ty.bytes())
    }

    /// Makes `list` the numbers of all slices in ascending order of these, equal ones in that of their numbers: a heap sort, which needs no memory.
    fn sort(&self, b: &mut Builder, list: Val) {
        let [zero, one, all, half] = [0, 1, self.all, self.all / 2].map(|i| b.index(i));
        let less = |b: &mut Builder, i: Val, j: Val| {
            let order = self.compare(b, i, j);
            let (below, equal, first) = (b.cmp(Cmp::Lt, order, zero), b.cmp(Cmp::Eq, order, zero), b.cmp(Cmp::Lt, i, j));
            let before = b.bin(Bin::And, equal, first);
            b.bin(Bin::Or, below, before)
        };
        // Brings `v` from `start` down to where nothing below it, before `end`, is larger.
        let sift = |b: &mut Builder, start: Val, end: Val, v: Val| {
            let place = b.while_loop(
                &[start, one],
                |b, s| {
                    let left = b.add(s[0], s[0]);
                    let left = b.add_int(left, 1);
                    let (inside, goes) = (b.cmp(Cmp::Lt, left, end), b.cmp(Cmp::Ne, s[1], zero));
                    b.bin(Bin::And, inside, goes)
                },
                |b, s| {
                    let left = b.add(s[0], s[0]);
                    let (left, right) = (b.add_int(left, 1), b.add_int(left, 2));
                    let both = b.cmp(Cmp::Lt, right, end);
                    let larger = b.branch(
                        both,
                        |b| {
                            let (x, y) = (get(b, list, left), get(b, list, right));
                            let less = less(b, x, y);
                            vec![b.select(less, right, left)]
                        },
                        |_| vec![left],
                    )[0];
                    let below = get(b, list, larger);
                    let down = less(b, v, below);
                    b.branch(
                        down,
                        |b| {
                            put(b, list, s[0], below);
                            vec![larger, one]
                        },
                        |_| vec![s[0], zero],
                    )
                },
            )[0];
            put(b, list, place, v);
        };
        b.for_count(self.all, &[], |b, i, _| {
            put(b, list, i, i);
            vec![]
        });
        b.for_range(zero, half, 1, &[], |b, k, _| {
            let start = b.sub(half, k);
            let start = b.add_int(start, -1);
            let v = get(b, list, start);
            sift(b, start, all, v);
            vec![]
        });
        b.for_range(one, all, 1, &[], |b, k, _| {
            let end = b.sub(all, k);
            let (v, largest) = (get(b, list, end), get(b, list, zero));
            put(b, list, end, largest);
            sift(b, zero, end, v);
            vec![]
        });
    }

    /// Below 0, 0 or above (I64), as slice `i` is less than slice `j`, equal or greater, by their first elements that differ.
    fn compare(&self, b: &mut Builder, i: Val, j: Val) -> Val {
        let (x, y) = (self.at(b, self.ptr, i), self.at(b, self.ptr, j));
        let width = self.ty.bytes();
        if self.before * self.row == 1 {
            return self.order(b, x, y);
        }
        let (zero, end) = (b.index(0), b.index(self.before * self.row));
        let row = b.index(self.row);
        b.while_loop(
            &[zero, zero],
            |b, v| {
                let (more, equal) = (b.cmp(Cmp::Lt, v[0], end), b.cmp(Cmp::Eq, v[1], zero));
                b.bin(Bin::And, more, equal)
            },
            |b, v| {
                // Element v[0] of a slice is number v[0] % row of the slice of its part.
                let part = b.bin(Bin::DivU, v[0], row);
                let part = b.mul_int(part, (self.all as i64 - 1) * self.row as i64);
                let at = b.add(v[0], part);
                let (x, y) = (b.element(x, at, width), b.element(y, at, width));
                let order = self.order(b, x, y);
                vec![b.add_int(v[0], 1), order]
            },
        )[1]
    }

    fn order(&self, b: &mut Builder, x: Val, y: Val) -> Val {
        let (x, y) = (load_element(b, self.ty, x, 0, 1, 1), load_element(b, self.ty, y, 0, 1, 1));
        let (x, y) = (order_key(b, x, self.ty, true), order_key(b, y, self.ty, true));
        let less = if matches!(self.ty, Type::U32 | Type::U64) { Cmp::LtU } else { Cmp::Lt };
        let (below, above) = (b.cmp(less, x, y), b.cmp(less, y, x));
        let [minus, zero, one] = [-1, 0, 1].map(|v| b.int(Ty::I64, v));
        let r = b.branch(above, |_| vec![one], |_| vec![zero])[0];
        b.branch(below, |_| vec![minus], |_| vec![r])[0]
    }
}

/// For each image and class the candidates stand in a list; the best is kept, and the next pass over the list leaves out what it overlaps.
pub(super) fn non_max_suppression(unit: &Unit) -> Lowered {
    let scores = &unit.inputs[1].ty;
    let [images, classes, candidates] = [0, 1, 2].map(|i| scores.shape[i]);
    let count = usize::try_from(unit.op.attrs.int("count")).ok();
    let rows = count.unwrap_or(scores.len());
    let results = if count.is_none() { 2 } else { 1 };
    let mut b = Builder::new("non_max_suppression", 5 + results + 1);
    let [boxes, scores, most, iou, least] = [0, 1, 2, 3, 4].map(|i| b.param(i));
    let (to, list) = (b.param(5), b.param(5 + results));
    let (most, iou, least) = (b.load(Ty::I64, most, 0), b.load(Ty::F32, iou, 0), b.load(Ty::F32, least, 0));
    let [zero, minus] = [0, -1].map(|v| b.int(Ty::I64, v));
    let lowest = b.number(Ty::F32, f64::NEG_INFINITY);
    let suppression = Suppression { center: unit.op.attrs.flag("center"), iou };
    let at = |b: &mut Builder, i: Val| b.element(list, i, 8);
    let found = b.for_count(images, &[zero], |b, image, found| {
        b.for_count(classes, found, |b, class, found| {
            let row = b.mul_int(image, classes as i64);
            let row = b.add(row, class);
            let scores = b.element(scores, row, 4 * candidates);
            let boxes = b.element(boxes, image, 16 * candidates);
            // (candidates in the list, the best of them, its score)
            let consider = |b: &mut Builder, i: Val, v: &[Val]| {
                let score = b.element(scores, i, 4);
                let score = b.load(Ty::F32, score, 0);
                let place = at(b, v[0]);
                b.store(i, place, 0);
                let better = b.cmp(Cmp::Gt, score, v[2]);
                let best = b.branch(better, |_| vec![i, score], |_| vec![v[1], v[2]]);
                vec![b.add_int(v[0], 1), best[0], best[1]]
            };
            let start = b.for_count(candidates, &[zero, minus, lowest], |b, i, v| {
                let score = b.element(scores, i, 4);
                let score = b.load(Ty::F32, score, 0);
                let fits = b.cmp(Cmp::Gt, score, least);
                b.branch(fits, |b| consider(b, i, v), |_| v.to_vec())
            });
            let end = b.while_loop(
                &[start[0], start[1], zero, found[0]],
                |b, v| {
                    let (left, more) = (b.cmp(Cmp::Gt, v[0], zero), b.cmp(Cmp::Lt, v[2], most));
                    b.bin(Bin::And, left, more)
                },
                |b, v| {
                    // Infinite scores leave no best: then the first of the list is.
                    let none = b.cmp(Cmp::Lt, v[1], zero);
                    let first = b.load(Ty::I64, list, 0);
                    let best = b.select(none, first, v[1]);
                    room(b, v[3], rows);
                    let row = b.element(to, v[3], 24);
                    for (k, part) in [image, class, best].into_iter().enumerate() {
                        b.store(part, row, 8 * k as i32);
                    }
                    let kept = suppression.corners(b, boxes, best);
                    let rest = b.for_range(zero, v[0], 1, &[zero, minus, lowest], |b, k, w| {
                        let place = at(b, k);
                        let i = b.load(Ty::I64, place, 0);
                        let other = suppression.corners(b, boxes, i);
                        let covered = suppression.overlap(b, kept, other);
                        let is_best = b.cmp(Cmp::Eq, i, best);
                        b.branch(covered, |_| w.to_vec(), |b| b.branch(is_best, |_| w.to_vec(), |b| consider(b, i, w)))
                    });
                    vec![rest[0], rest[1], b.add_int(v[2], 1), b.add_int(v[3], 1)]
                },
            );
            vec![end[3]]
        })
    })[0];
    match count {
        Some(count) => promised(&mut b, found, count),
        None => {
            let number = b.param(6);
            b.store(found, number, 0);
            let end = b.index(rows);
            b.for_range(found, end, 1, &[], |b, i, _| {
                let row = b.element(to, i, 24);
                for k in 0..3 {
                    b.store(minus, row, 8 * k);
                }
                vec![]
            });
        }
    }
    let args = (0..5).map(Arg::Input).chain((0..results).map(Arg::Output)).chain([Arg::Scratch(0)]).collect();
    Lowered { calls: vec![one_call(b.finish(), args)], scratch: vec![8 * candidates], ..Lowered::default() }
}

struct Suppression {
    center: bool,
    iou: Val,
}

impl Suppression {
    /// Lower and upper corner of box `i`: y, x, y, x.
    fn corners(&self, b: &mut Builder, boxes: Val, i: Val) -> [Val; 4] {
        let ptr = b.element(boxes, i, 16);
        let v = [0, 1, 2, 3].map(|k| b.load(Ty::F32, ptr, 4 * k));
        if !self.center {
            return [b.min(v[0], v[2]), b.min(v[1], v[3]), b.max(v[0], v[2]), b.max(v[1], v[3])];
        }
        let half = b.number(Ty::F32, 0.5);
        let (w, h) = (b.mul(v[2], half), b.mul(v[3], half));
        [b.sub(v[1], h), b.sub(v[0], w), b.add(v[1], h), b.add(v[0], w)]
    }

    /// Whether two boxes share more than `iou` of the area they cover; operation by operation as the reference does, so that both agree at the border.
    fn overlap(&self, b: &mut Builder, p: [Val; 4], q: [Val; 4]) -> Val {
        let zero = math::number(b, self.iou, 0.0);
        let area = |b: &mut Builder, c: [Val; 4]| {
            let (h, w) = (b.sub(c[2], c[0]), b.sub(c[3], c[1]));
            b.mul(h, w)
        };
        let side = |b: &mut Builder, low: usize, high: usize| {
            let (end, start) = (b.min(p[high], q[high]), b.max(p[low], q[low]));
            b.sub(end, start)
        };
        let (h, w) = (side(b, 0, 2), side(b, 1, 3));
        let (pa, qa) = (area(b, p), area(b, q));
        let shared = b.mul(h, w);
        let all = b.add(pa, qa);
        let all = b.sub(all, shared);
        let part = b.div(shared, all);
        let mut fits = b.cmp(Cmp::Gt, part, self.iou);
        for v in [h, w, pa, qa, all] {
            let positive = b.cmp(Cmp::Gt, v, zero);
            fits = b.bin(Bin::And, fits, positive);
        }
        fits
    }
}
