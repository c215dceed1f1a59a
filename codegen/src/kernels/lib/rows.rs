//! Rows: the elements over which a reduction or a normalisation goes, walked several times.
//!
//! Axes are either kept (there is a row for each of their indices) or reduced (they are the row). Lanes lie along the last axis: where that is
//! reduced, a vector holds elements of one row and sums end with its lanes folded; where it is kept, a vector holds one element each of as many rows.
//!
//! A few vectors are computed at once, each in its slot: of rows side by side, of one row, or of as many short rows below each other, so that
//! the end of one row, where all waits for its sum, is not waited for four times.

use super::nest::{self, Axis, Index, Part, place, walk};
use crate::expr::{load_element, load_element_splat, store_element};
use crate::kernels::lib::view::View;
use dnnc_ir::Type;
use dnnc_kir::{Builder, Op, Ty, Val};

/// A tensor that is walked: its element type and how it lies over the axes; its pointer is that of the kernel with the same number.
pub struct Stream {
    /// Element type in memory.
    pub ty: Type,
    /// Over all axes, kept and reduced.
    pub view: View,
}

/// What is walked, how it is cut.
pub struct Rows {
    types: Vec<Type>,
    offsets: Vec<i64>,
    /// Kept axes that are walked index by index.
    kept: Vec<Axis>,
    /// Reduced axes; the last is walked in vectors if `columns` is none.
    reduced: Vec<Axis>,
    /// The last axis, if it is kept: lanes lie along it.
    columns: Option<Axis>,
    /// Whether vectors at once are of rows along the last kept axis.
    interleaved: bool,
    lanes: u8,
    /// Vectors at once.
    width: usize,
    /// Kept axis that is cut into tasks; the number of kept axes for the columns.
    split: usize,
    chunk: usize,
    tasks: usize,
}

/// Elements of a row after which partial sums are added up, so that the error of a long sum does not grow with its length.
const BLOCK: usize = 4096;

/// Vectors that are computed at once.
const SLOTS: usize = 4;

impl Rows {
    /// Rows over `shape`, where `reduced` says which axes they are; `weight` is about how many instructions an element takes in all. Several
    /// rows are walked at once where a cache of `cache` bytes holds them.
    pub fn new(shape: &[usize], reduced: &[bool], streams: &[Stream], lanes: u8, weight: usize, threads: usize, cache: usize) -> Rows {
        let mut axes: Vec<(Axis, bool)> = vec![];
        for (a, &size) in shape.iter().enumerate() {
            if size == 1 {
                continue;
            }
            let strides: Vec<i64> = streams.iter().map(|s| s.view.strides[a] as i64 * s.ty.bytes() as i64).collect();
            match axes.last_mut() {
                Some((outer, r)) if *r == reduced[a] && outer.strides.iter().zip(&strides).all(|(&o, &s)| o == s * size as i64) => {
                    *outer = Axis { size: outer.size * size, strides };
                }
                _ => axes.push((Axis { size, strides }, reduced[a])),
            }
        }
        let columns = match axes.last() {
            Some((_, false)) => axes.pop().map(|(axis, _)| axis),
            _ => None,
        };
        let part = |r: bool| axes.iter().filter(|a| a.1 == r).map(|a| a.0.clone()).collect::<Vec<_>>();
        let (kept, mut reduced) = (part(false), part(true));
        if reduced.is_empty() {
            reduced.push(Axis { size: 1, strides: vec![0; streams.len()] });
        }
        let length = columns.as_ref().map_or_else(|| reduced.last().expect("an axis").size, |c| c.size);
        let elements: usize = reduced.iter().map(|a| a.size).product();
        let walked = streams.iter().enumerate().filter(|(i, _)| reduced.iter().any(|a| a.strides[*i] != 0));
        let row_bytes = walked.map(|(_, s)| s.ty.bytes()).sum::<usize>().saturating_mul(elements);
        let many = columns.is_none() && kept.last().is_some_and(|rows| rows.size >= SLOTS);
        let interleaved = many && lanes > 1 && row_bytes.saturating_mul(SLOTS) <= cache;
        let width = match interleaved {
            true => SLOTS,
            false if lanes == 1 => 1,
            false => 1 << (length / lanes as usize).clamp(1, SLOTS).ilog2(),
        };
        let total: usize = shape.iter().product();
        let wanted = nest::tasks(total, weight, threads);
        // The axis that is walked in blocks, and how many of its indices are one.
        let (blocked, block) = match &columns {
            Some(_) => (kept.len(), lanes as usize * width),
            None if interleaved => (kept.len() - 1, width),
            None => (usize::MAX, 1),
        };
        let grain = |a: usize| if a == blocked { block } else { 1 };
        let sizes: Vec<usize> = kept.iter().chain(&columns).enumerate().map(|(a, axis)| axis.size.div_ceil(grain(a))).collect();
        let split = (0..sizes.len()).find(|&a| sizes[a] >= wanted).or_else(|| (0..sizes.len()).max_by_key(|&a| sizes[a]));
        let (split, chunk, tasks) = match split {
            Some(a) if wanted > 1 && sizes[a] > 1 => {
                let chunk = sizes[a].div_ceil(wanted);
                (a, chunk * grain(a), sizes[a].div_ceil(chunk))
            }
            _ => (usize::MAX, 0, 1),
        };
        let offsets = streams.iter().map(|s| (s.view.offset * s.ty.bytes()) as i64).collect();
        let types = streams.iter().map(|s| s.ty).collect();
        Rows { types, offsets, kept, reduced, columns, interleaved, lanes, width, split, chunk, tasks }
    }

    /// Number of tasks.
    pub fn tasks(&self) -> usize {
        self.tasks
    }

    /// Calls `body` for every row, or for as many as are walked at once.
    pub fn each(&self, b: &mut Builder, body: &mut dyn FnMut(&mut Builder, &Row)) {
        let part = |a: usize| if self.split == a { Part::Chunk(self.chunk) } else { Part::All };
        let outer = self.kept.len() - usize::from(self.interleaved);
        let axes: Vec<(&Axis, Part)> = self.kept[..outer].iter().enumerate().map(|(a, axis)| (axis, part(a))).collect();
        let pointers: Vec<Val> = (0..self.types.len()).map(|i| b.param(i)).collect();
        let pointers: Vec<Val> = pointers.iter().zip(&self.offsets).map(|(&p, &o)| b.offset_int(p, o)).collect();
        let lanes = self.lanes as usize;
        nest::nest(b, &axes, &pointers, &mut |b, p| {
            let row = |p: &[Val], width, used, slots| Row { rows: self, pointers: p.to_vec(), width, used, slots };
            // Slots, and how many there are for what is left: rows that are too few to be interleaved are walked one by one.
            let (axis, apart, left, slots_left) = match &self.columns {
                Some(columns) => (columns, lanes, 1, Some((columns, lanes))),
                None if self.interleaved => (&self.kept[outer], 1, self.width, None),
                None => return body(b, &row(p, self.width, lanes, None)),
            };
            let part = part(outer);
            let block = apart * self.width;
            let (main, single) = (axis.size / block * block, axis.size / apart * apart);
            walk(b, axis, part.bounds(main), block, p, &[], &mut |b, p, _| {
                body(b, &row(p, self.width, lanes, Some((axis, apart))));
                vec![]
            });
            if main == axis.size {
                return;
            }
            nest::in_last_task(b, part, axis.size, |b| {
                walk(b, axis, (Index::Known(main), Index::Known(single)), apart, p, &[], &mut |b, p, _| {
                    body(b, &row(p, left, lanes, slots_left));
                    vec![]
                });
                if axis.size > single {
                    let p = nest::at(b, axis, p, single);
                    body(b, &row(&p, 1, axis.size - single, slots_left));
                }
            });
        });
    }
}

/// A row, or those that are walked at once.
pub struct Row<'a> {
    rows: &'a Rows,
    /// Where its first elements are, a stream each.
    pub pointers: Vec<Val>,
    /// Vectors at once.
    width: usize,
    /// Rows in the last of these vectors; all lanes if they hold one row.
    used: usize,
    /// Where rows lie side by side or interleaved, the axis that slots lie along and the indices from a slot to the next; else all slots are of one row.
    slots: Option<(&'a Axis, usize)>,
}

/// Where in a row a vector of elements is.
pub struct At<'a> {
    rows: &'a Rows,
    pointers: &'a [Val],
    /// Along which lanes lie.
    axis: &'a Axis,
    /// Along which slots lie, so many indices apart.
    slots: (&'a Axis, usize),
    /// Which of the vectors that are computed at once: index into what [`Row::fold`] gave.
    pub slot: usize,
    /// Lanes with elements.
    pub used: usize,
}

impl At<'_> {
    /// The elements of a stream in register form; lanes without one are what 0 is.
    pub fn load(&self, b: &mut Builder, stream: usize) -> Val {
        let (ty, lanes) = (self.rows.types[stream], self.rows.lanes);
        let (ptr, disp) = self.place(b, stream);
        if self.axis.strides[stream] == 0 {
            return load_element_splat(b, ty, ptr, disp, lanes);
        }
        load_element(b, ty, ptr, disp, lanes, self.used)
    }

    fn place(&self, b: &mut Builder, stream: usize) -> (Val, i32) {
        let (axis, apart) = self.slots;
        place(b, self.pointers[stream], axis.strides[stream] * (self.slot * apart) as i64)
    }

    /// Writes elements of a stream.
    pub fn store(&self, b: &mut Builder, stream: usize, value: Val) {
        let (ptr, disp) = self.place(b, stream);
        store_element(b, self.rows.types[stream], value, ptr, disp, self.used);
    }

    /// `value`, but `other` in the lanes that have no element.
    pub fn keep(&self, b: &mut Builder, value: Val, other: Val) -> Val {
        let lanes = self.rows.lanes;
        if self.used == lanes as usize {
            return value;
        }
        let pick: Vec<u8> = (0..lanes).map(|l| if (l as usize) < self.used { l } else { lanes + l }).collect();
        b.shuffle(value, other, &pick)
    }
}

impl Row<'_> {
    /// Number of slots: vectors computed at once.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows in each vector; all lanes if they hold one row.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Calls `body` for all elements of the row, a vector at a time; `carried` goes along, a list for each slot.
    pub fn each(&self, b: &mut Builder, carried: Vec<Vec<Val>>, body: &mut Body) -> Vec<Vec<Val>> {
        assert_eq!(carried.len(), self.width, "carried values for each vector");
        self.axes(b, &self.rows.reduced, &self.pointers, carried, body, None)
    }

    /// Combines what `map` gives for each vector of elements. The result, an entry a slot, has the combination over its row in every lane if a
    /// vector holds one row, else that of each of the rows side by side. `identity` must leave a combination as it is.
    pub fn fold(
        &self,
        b: &mut Builder,
        identity: Val,
        map: &mut dyn FnMut(&mut Builder, &At) -> Val,
        combine: &mut dyn FnMut(&mut Builder, Val, Val) -> Val,
    ) -> Vec<Val> {
        let start = vec![vec![identity]; self.width];
        let mut step = |b: &mut Builder, at: &At, acc: &[Val], combine: &mut dyn FnMut(&mut Builder, Val, Val) -> Val| {
            let v = map(b, at);
            let v = if self.rows.columns.is_none() { at.keep(b, v, identity) } else { v };
            vec![combine(b, acc[0], v)]
        };
        let combine = std::cell::RefCell::new(combine);
        let mut outer = |b: &mut Builder, x: Val, y: Val| (combine.borrow_mut())(b, x, y);
        let sums = self.axes(
            b,
            &self.rows.reduced,
            &self.pointers,
            start,
            &mut |b, at, acc| step(b, at, acc, &mut |b, x, y| (combine.borrow_mut())(b, x, y)),
            Some((identity, &mut outer)),
        );
        let sums: Vec<Val> = sums.into_iter().map(|s| s[0]).collect();
        if self.rows.columns.is_some() {
            return sums;
        }
        let mut combine = |b: &mut Builder, x: Val, y: Val| (combine.borrow_mut())(b, x, y);
        if self.slots.is_some() {
            let ones: Vec<Val> = sums.into_iter().map(|sum| fold_lanes(b, sum, &mut combine)).collect();
            return ones.into_iter().map(|one| b.splat(one, self.rows.lanes)).collect();
        }
        let one = sums.into_iter().reduce(|x, y| combine(b, x, y)).expect("a slot");
        let one = fold_lanes(b, one, &mut combine);
        vec![b.splat(one, self.rows.lanes); self.width]
    }

    /// Writes what is one number a row (as [`Row::fold`] gives it) to a stream that does not move along the row.
    pub fn store_result(&self, b: &mut Builder, stream: usize, values: &[Val]) {
        let ty = self.rows.types[stream];
        for (slot, &v) in values.iter().enumerate().take(if self.slots.is_some() { self.width } else { 1 }) {
            let further = self.slots.map_or(0, |(axis, apart)| axis.strides[stream] * (slot * apart) as i64);
            let (ptr, disp) = place(b, self.pointers[stream], further);
            let (v, used) = if self.rows.columns.is_some() { (v, self.used) } else { (b.extract(v, 0), 1) };
            store_element(b, ty, v, ptr, disp, used);
        }
    }

    /// All but the last reduced axis, index by index.
    fn axes(
        &self,
        b: &mut Builder,
        axes: &[Axis],
        pointers: &[Val],
        carried: Vec<Vec<Val>>,
        body: &mut Body,
        mut blocks: Option<Blocks>,
    ) -> Vec<Vec<Val>> {
        let (axis, rest) = axes.split_first().expect("a reduced axis");
        if rest.is_empty() {
            return self.last(b, axis, pointers, carried, body, blocks);
        }
        self.walk(b, axis, axis.size, 1, pointers, carried, &mut |b, p, c| {
            let blocks = blocks.as_mut().map(|(v, f)| (*v, &mut **f as Combine));
            self.axes(b, rest, p, c, body, blocks)
        })
    }

    /// The last reduced axis, in blocks if it is long and there is a way to combine them.
    fn last(
        &self,
        b: &mut Builder,
        axis: &Axis,
        pointers: &[Val],
        carried: Vec<Vec<Val>>,
        body: &mut Body,
        blocks: Option<Blocks>,
    ) -> Vec<Vec<Val>> {
        let lanes = if self.rows.columns.is_some() { 1 } else { self.rows.lanes as usize };
        let block = BLOCK / 8 * lanes;
        let (Some((identity, combine)), true) = (blocks, axis.size >= 2 * block) else {
            return self.stretch(b, axis, axis.size, pointers, carried, body);
        };
        let whole = axis.size / block * block;
        let carried = self.walk(b, axis, whole, block, pointers, carried, &mut |b, p, carried| {
            let fresh = self.stretch(b, axis, block, p, vec![vec![identity]; self.width], body);
            fresh.into_iter().zip(carried).map(|(x, y)| vec![combine(b, y[0], x[0])]).collect()
        });
        let p = nest::at(b, axis, pointers, whole);
        self.stretch(b, axis, axis.size - whole, &p, carried, body)
    }

    /// `size` indices of the last reduced axis.
    fn stretch(
        &self,
        b: &mut Builder,
        axis: &Axis,
        size: usize,
        pointers: &[Val],
        mut carried: Vec<Vec<Val>>,
        body: &mut Body,
    ) -> Vec<Vec<Val>> {
        let lanes = self.rows.lanes as usize;
        let columns = self.rows.columns.as_ref();
        let interleaved = columns.is_none() && self.slots.is_some();
        let at = |pointers: &'_ [Val], slot: usize, used: usize, b: &mut Builder, c: &[Val], body: &mut Body| {
            let slots = self.slots.unwrap_or((axis, lanes));
            body(b, &At { rows: self.rows, pointers, axis: columns.unwrap_or(axis), slots, slot, used }, c)
        };
        // Indices that a vector has, and all slots at once.
        let (step, block) = match columns {
            Some(_) => (1, 1),
            None if interleaved => (lanes, lanes),
            None => (lanes, lanes * self.width),
        };
        let full = if columns.is_some() { self.used } else { lanes };
        let (main, single) = (size / block * block, size / step * step);
        carried = self.walk(b, axis, main, block, pointers, carried, &mut |b, p, c| {
            c.iter().enumerate().map(|(slot, c)| at(p, slot, full, b, c, body)).collect()
        });
        // What is left of one row goes to the first slots.
        if single > main {
            let p = nest::at(b, axis, pointers, main);
            for slot in 0..(single - main) / step {
                carried[slot] = at(&p, slot, full, b, &carried[slot].clone(), body);
            }
        }
        if size > single {
            let p = nest::at(b, axis, pointers, single);
            for slot in 0..if interleaved { self.width } else { 1 } {
                carried[slot] = at(&p, slot, size - single, b, &carried[slot].clone(), body);
            }
        }
        carried
    }

    fn walk(
        &self,
        b: &mut Builder,
        axis: &Axis,
        size: usize,
        step: usize,
        pointers: &[Val],
        carried: Vec<Vec<Val>>,
        body: &mut dyn FnMut(&mut Builder, &[Val], Vec<Vec<Val>>) -> Vec<Vec<Val>>,
    ) -> Vec<Vec<Val>> {
        let each = carried[0].len();
        let split = |flat: &[Val]| -> Vec<Vec<Val>> {
            if each == 0 { vec![vec![]; self.width] } else { flat.chunks(each).map(<[Val]>::to_vec).collect() }
        };
        let flat: Vec<Val> = carried.concat();
        let flat =
            walk(b, axis, (Index::Known(0), Index::Known(size)), step, pointers, &flat, &mut |b, p, c| body(b, p, split(c)).concat());
        split(&flat)
    }
}

/// What is done with a vector of elements and the values that go along.
type Body<'a> = dyn FnMut(&mut Builder, &At, &[Val]) -> Vec<Val> + 'a;
type Combine<'a> = &'a mut dyn FnMut(&mut Builder, Val, Val) -> Val;
/// The identity of a combination, and the combination.
type Blocks<'a> = (Val, Combine<'a>);

/// All lanes of a vector combined, pairwise: a scalar.
pub fn fold_lanes(b: &mut Builder, v: Val, combine: Combine) -> Val {
    let ty = b.ty(v);
    if !ty.is_vector() {
        return v;
    }
    let half = Ty { elem: ty.elem, lanes: ty.lanes / 2 };
    let (lower, upper) = (b.push(half, Op::Half(v, false)), b.push(half, Op::Half(v, true)));
    let v = combine(b, lower, upper);
    fold_lanes(b, v, combine)
}
