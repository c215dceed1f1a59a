//! Loops that kernels are made of: over tiles, parts, vectors and elements; temporary memory of tasks; offsets into batches.

use crate::schedule::Rows;
use crate::unit::{Arg, Lowered};
use dnnc_kir::program::ALIGN;
use dnnc_kir::{Bin, Builder, Cmp, Ty, Val};

/// Vectors that a loop over vectors handles in an iteration.
const VECTORS: usize = 4;

/// Calls `body` for the ends of each block of at most `block` tiles of `from..to`, which are at most `most`: once when they are one block.
pub fn for_blocks(b: &mut Builder, from: Val, to: Val, most: usize, block: usize, body: impl Fn(&mut Builder, Val, Val)) {
    if block >= most {
        return body(b, from, to);
    }
    b.for_range(from, to, block as i64, &[], |b, first, _| {
        let end = b.add_int(first, block as i64);
        let end = b.bin(Bin::MinS, end, to);
        body(b, first, end);
        vec![]
    });
}

/// `body` for the tiles `from..to` of some rows, first the higher ones: it is given the tile and its height.
pub fn by_height(b: &mut Builder, r: &Rows, from: Val, to: Val, body: impl Fn(&mut Builder, Val, usize)) {
    let high_tiles = b.index(r.high_tiles);
    let (none, all) = (b.index(0), b.index(r.tiles));
    let height = |b: &mut Builder, from: Val, to: Val, height: usize| for_some(b, from, to, r.tiles, |b, tile| body(b, tile, height));
    if r.high_tiles < r.tiles && (from, to) == (none, all) {
        height(b, none, high_tiles, r.high);
        return height(b, high_tiles, all, r.high - 1);
    }
    if r.high_tiles == r.tiles {
        return height(b, from, to, r.high);
    }
    let middle = b.bin(Bin::MinS, high_tiles, to);
    height(b, from, middle, r.high);
    let middle = b.bin(Bin::MaxS, high_tiles, from);
    height(b, middle, to, r.high - 1);
}

/// First row of a tile.
pub fn row_of(b: &mut Builder, rows: &Rows, tile: Val) -> Val {
    if rows.high_tiles == rows.tiles {
        return b.mul_int(tile, rows.high as i64);
    }
    let high = b.index(rows.high_tiles);
    let more = b.bin(Bin::MinS, tile, high);
    let low = b.mul_int(tile, rows.high as i64 - 1);
    b.add(low, more)
}

/// Quotient and remainder of an index by a constant.
pub fn divmod(b: &mut Builder, value: Val, by: usize) -> (Val, Val) {
    if by == 1 {
        return (value, b.index(0));
    }
    let n = b.index(by);
    let q = b.bin(Bin::DivU, value, n);
    let whole = b.mul(q, n);
    (q, b.sub(value, whole))
}

/// The range of part `part` when `total` things are split into `parts`.
pub fn part_range(b: &mut Builder, part: Val, parts: usize, total: usize) -> (Val, Val) {
    if parts == 1 {
        return (b.index(0), b.index(total));
    }
    let n = b.index(parts);
    let at = |b: &mut Builder, part: Val| {
        let scaled = b.mul_int(part, total as i64);
        b.bin(Bin::DivU, scaled, n)
    };
    let start = at(b, part);
    let next = b.add_int(part, 1);
    (start, at(b, next))
}

/// `for i in from..to`, which are known to lie in `0..total`: no loop where that is a single one from 0.
pub fn for_some(b: &mut Builder, from: Val, to: Val, total: usize, body: impl FnOnce(&mut Builder, Val)) {
    if total == 1 && from == b.index(0) && to == b.index(1) {
        return body(b, from);
    }
    b.for_range(from, to, 1, &[], |b, i, _| {
        body(b, i);
        vec![]
    });
}

/// `body` for the vectors `from..to` of so many columns: it is given the vector's number and how many of its lanes exist.
pub fn for_vectors(b: &mut Builder, from: Val, to: Val, columns: usize, lanes: usize, body: impl Fn(&mut Builder, Val, usize)) {
    let (whole, rest) = (b.index(columns / lanes), columns % lanes);
    let end = b.bin(Bin::MinS, to, whole);
    b.for_range(from, end, 1, &[], |b, vector, _| {
        body(b, vector, lanes);
        vec![]
    });
    if rest > 0 {
        let here = b.cmp(Cmp::Gt, to, whole);
        b.when(here, |b| body(b, whole, rest));
    }
}

/// Temporary buffers of a kernel: one piece for each task, or for each part of a batch.
#[derive(Default)]
pub struct Memory(Vec<Option<(usize, usize)>>);

impl Memory {
    /// Adds a buffer of `parts` pieces to a unit and its pointer to those of a kernel; nothing for no bytes. Answers its number.
    pub fn add(&mut self, lowered: &mut Lowered, args: &mut Vec<Arg>, bytes: usize, parts: usize) -> usize {
        let piece = (bytes > 0).then(|| {
            args.push(Arg::Scratch(lowered.scratch.len()));
            // Pieces of tasks share no cache line.
            let bytes = bytes.next_multiple_of(ALIGN);
            lowered.scratch.push(bytes * parts);
            (args.len() - 1, bytes)
        });
        self.0.push(piece);
        self.0.len() - 1
    }

    /// Piece `part` of a buffer.
    pub fn piece(&self, b: &mut Builder, buffer: usize, part: Val) -> Option<Val> {
        let (param, bytes) = self.0[buffer]?;
        let memory = b.param(param);
        Some(b.element(memory, part, bytes))
    }
}

/// Offsets, in elements, into operands broadcast over a batch: `strides` of each operand an axis of `sizes`, for batch number `index`.
pub fn batch_offsets(b: &mut Builder, index: Val, sizes: &[usize], strides: &[Vec<usize>]) -> Vec<Val> {
    let zero = b.index(0);
    let mut offsets = vec![zero; strides.len()];
    let mut rest = index;
    for axis in (0..sizes.len()).rev() {
        let (outer, at) = if axis == 0 { (rest, rest) } else { divmod(b, rest, sizes[axis]) };
        rest = outer;
        for (offset, strides) in offsets.iter_mut().zip(strides) {
            if strides[axis] > 0 && sizes[axis] > 1 {
                let step = b.mul_int(at, strides[axis] as i64);
                *offset = b.add(*offset, step);
            }
        }
    }
    offsets
}

/// Axes of a batch merged where all operands walk through them evenly; sizes of 1 are dropped.
pub fn merge_axes(sizes: &[usize], strides: &[Vec<usize>]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut out: Vec<usize> = vec![];
    let mut walks: Vec<Vec<usize>> = vec![vec![]; strides.len()];
    for axis in 0..sizes.len() {
        if sizes[axis] == 1 {
            continue;
        }
        let even = !out.is_empty() && strides.iter().zip(&walks).all(|(s, w)| w[out.len() - 1] == s[axis] * sizes[axis]);
        if even {
            *out.last_mut().expect("checked") *= sizes[axis];
            for (s, w) in strides.iter().zip(&mut walks) {
                *w.last_mut().expect("as many as sizes") = s[axis];
            }
        } else {
            out.push(sizes[axis]);
            for (s, w) in strides.iter().zip(&mut walks) {
                w.push(s[axis]);
            }
        }
    }
    (out, walks)
}

/// Whether all of so many elements can be reached by the displacement of a load; the generators put rows of a tile there.
pub fn reachable(elements: usize, bytes: usize) -> Result<(), String> {
    match elements.checked_mul(bytes) {
        Some(n) if n < i32::MAX as usize / 2 => Ok(()),
        _ => Err(format!("rows of {elements} elements in a tile are too far apart")),
    }
}

/// `body` for `count` consecutive vectors behind some pointers, four an iteration: it is given the pointers and the vector's number behind them.
pub fn each_vector(b: &mut Builder, pointers: &[Val], count: usize, bytes: usize, body: impl Fn(&mut Builder, &[Val], usize)) {
    let mut at = pointers.to_vec();
    let loops = if count / VECTORS > 1 { count / VECTORS } else { 0 };
    if loops > 0 {
        at = b.for_count(loops, &at, |b, _, at| {
            (0..VECTORS).for_each(|i| body(b, at, i));
            at.iter().map(|p| b.offset_int(*p, (VECTORS * bytes) as i64)).collect()
        });
    }
    (0..count - loops * VECTORS).for_each(|i| body(b, &at, i));
}

/// `body` for `count` elements behind some pointers, a vector at a time: given the pointers, the index behind them and how many exist.
pub fn each_element(b: &mut Builder, pointers: &[Val], count: usize, ty: Ty, body: impl Fn(&mut Builder, &[Val], usize, usize)) {
    let lanes = ty.lanes as usize;
    each_vector(b, pointers, count / lanes, ty.bytes(), |b, at, i| body(b, at, i * lanes, lanes));
    if !count.is_multiple_of(lanes) {
        let done = (count / lanes * ty.bytes()) as i64;
        let at: Vec<Val> = pointers.iter().map(|p| b.offset_int(*p, done)).collect();
        body(b, &at, 0, count % lanes);
    }
}
