//! Products of few rows or few columns whose reduction is contiguous on both sides: dot products, a vector of the reduction at a time.
//!
//! As many dot products as a vector has lanes are summed side by side; their accumulators are then transposed and added, which leaves a
//! vector of sums: some rows of some columns.

use super::shape::Shape;
use crate::kernels::lib::gemm::Mac;
use crate::kernels::lib::loops;
use crate::kernels::lib::store::{self, Output};
use crate::kernels::lib::transpose::transpose;
use crate::schedule::{self, Tile};
use crate::unit::{Arg, Lowered, LoweredCall, Unit};
use dnnc_kir::{Builder, Val};

/// Rows × columns of a tile: its dot products fill a vector. `None` where panels are better.
fn tile(mac: &Mac, shape: &Shape, known: bool) -> Option<Tile> {
    let lanes = mac.lanes();
    // Shorter reductions do not repay the sums across lanes; 64-bit integers have no lanes.
    if shape.trans_a || lanes == 1 || shape.depth < 4 * lanes {
        return None;
    }
    let in_place = shape.trans_b || shape.columns == 1;
    let few_rows = !known && in_place && shape.rows <= 2;
    let few_columns = shape.columns <= lanes / 2 && shape.rows >= lanes && (known || in_place);
    let columns = match (few_rows, few_columns) {
        (true, _) => lanes / shape.rows.next_power_of_two(),
        (_, true) => shape.columns.next_power_of_two(),
        _ => return None,
    };
    Some(Tile { rows: lanes / columns, vecs: columns })
}

/// The product by dot products, where they are better than panels.
pub(super) fn lower(unit: &Unit, shape: &Shape) -> Result<Option<Lowered>, String> {
    let (a_ty, b_ty) = (unit.inputs[0].ty.ty, unit.inputs[1].ty.ty);
    let (mac, loads) = (Mac::new(a_ty, unit.target)?, Mac::new(b_ty, unit.target)?);
    let known = unit.inputs[1].constant;
    let Some(tile) = tile(&mac, shape, known.is_some()) else { return Ok(None) };
    let mut lowered = Lowered::default();
    let right = match known {
        Some(constant) if !shape.trans_b => {
            // Columns of constants one after the other.
            let (n, k, bytes) = (shape.columns, shape.depth, b_ty.bytes());
            let element = |i: usize| (i / (n * k) * n * k + i % k * n + i / k % n) * bytes;
            let data = constant.bytes();
            lowered.constants.push((0..constant.len()).flat_map(|i| data[element(i)..][..bytes].iter().copied()).collect());
            Arg::Const(0)
        }
        _ => Arg::Input(1),
    };
    let dot = Dot { mac, loads, depth: shape.depth, a: shape.depth * a_ty.bytes(), b: shape.depth * b_ty.bytes() };
    loops::reachable(tile.rows.max(tile.vecs) * shape.depth, a_ty.bytes().max(b_ty.bytes()))?;
    loops::reachable(tile.rows * shape.columns, store::widest_element(unit))?;
    let work = (shape.batches * shape.rows * shape.columns) as u64 * shape.depth as u64;
    let parts = schedule::tasks(unit.options, work, usize::MAX);
    let batch_parts = parts.min(shape.batches);
    // The longer side of the result is split over tasks.
    let by_rows = shape.rows > shape.columns;
    let (blocks, step) = match by_rows {
        true => (shape.rows.div_ceil(tile.rows), tile.rows),
        false => (shape.columns.div_ceil(tile.vecs), tile.vecs),
    };
    let block_parts = (parts / batch_parts).clamp(1, blocks);
    let mut args = vec![Arg::Input(0), right];
    let out_at = args.len();
    args.extend(Output::args(unit));
    let mut builder = Builder::new("matmul_dot", args.len());
    let b = &mut builder;
    let task = b.task();
    let (batch_part, part) = loops::divmod(b, task, block_parts);
    let (from, to) = loops::part_range(b, batch_part, batch_parts, shape.batches);
    // Whole tiles are parted; what is left is done with the last of them.
    let whole = if by_rows { shape.rows } else { shape.columns } / step;
    let (first, end) = loops::part_range(b, part, block_parts, whole);
    loops::for_some(b, from, to, shape.batches, |b, batch| {
        let offsets = loops::batch_offsets(b, batch, &shape.axes, &shape.strides);
        let mut out = Output::new(b, unit, out_at, mac.lanes(), shape.columns);
        out.base = b.mul_int(batch, (shape.rows * shape.columns) as i64);
        let (x, w) = (b.param(0), b.param(1));
        let x = b.element(x, offsets[0], a_ty.bytes());
        let w = b.element(w, offsets[1], b_ty.bytes());
        let zero = b.index(0);
        let done = |b: &mut Builder, at: Val, count: usize| match by_rows {
            true => dot.tile(b, x, w, &out, at, zero, Tile { rows: count, vecs: shape.columns }, tile.vecs),
            false => dot.tile(b, x, w, &out, zero, at, Tile { rows: shape.rows, vecs: count }, tile.vecs),
        };
        loops::for_some(b, first, end, whole, |b, block| {
            let at = b.mul_int(block, step as i64);
            done(b, at, step);
        });
        let left = if by_rows { shape.rows } else { shape.columns } - whole * step;
        if left > 0 {
            let at = b.index(whole * step);
            if block_parts == 1 {
                return done(b, at, left);
            }
            let last = b.index(block_parts - 1);
            let is_last = b.cmp(dnnc_kir::Cmp::Eq, part, last);
            b.when(is_last, |b| done(b, at, left));
        }
    });
    lowered.calls.push(LoweredCall { func: builder.finish(), args, tasks: batch_parts * block_parts });
    Ok(Some(lowered))
}

struct Dot {
    mac: Mac,
    loads: Mac,
    depth: usize,
    /// Bytes from a row of the left side to the next, and from a column of the right side to the next.
    a: usize,
    b: usize,
}

impl Dot {
    /// Computes and stores a tile of so many rows and columns (`vecs`), which are `pitch` lanes apart from row to row.
    fn tile(&self, b: &mut Builder, x: Val, w: Val, out: &Output, row: Val, column: Val, tile: Tile, pitch: usize) {
        let (ty, lanes) = (self.mac.ty, self.mac.lanes());
        let (x, w) = (b.element(x, row, self.a), b.element(w, column, self.b));
        let (a_size, b_size) = (self.mac.lhs.bytes(), self.loads.lhs.bytes());
        let zero = b.int(ty, 0);
        let step = |b: &mut Builder, at: &[Val], i: usize, count: usize, acc: &mut [Val]| {
            let load = |b: &mut Builder, mac: &Mac, ptr: Val, n: usize, stride: usize| {
                mac.load(b, ty.lanes, ptr, (n * stride + i * lanes * mac.lhs.bytes()) as i32, count)
            };
            let rows: Vec<Val> = (0..tile.rows).map(|r| load(b, &self.mac, at[0], r, self.a)).collect();
            for c in 0..tile.vecs {
                let v = load(b, &self.loads, at[1], c, self.b);
                for (r, &x) in rows.iter().enumerate() {
                    acc[r * tile.vecs + c] = self.mac.mac(b, x, v, acc[r * tile.vecs + c]);
                }
            }
        };
        let mut state = vec![x, w];
        state.resize(2 + tile.rows * tile.vecs, zero);
        let full = self.depth / lanes;
        // Two vectors an iteration: enough to hide the counting of the loop.
        let unroll = if full.is_multiple_of(2) { 2 } else { 1 };
        let state = b.for_count(full / unroll, &state, |b, _, now| {
            let mut acc = now[2..].to_vec();
            (0..unroll).for_each(|i| step(b, now, i, lanes, &mut acc));
            let next = [(now[0], a_size), (now[1], b_size)].map(|(p, size)| b.offset_int(p, (unroll * lanes * size) as i64));
            next.into_iter().chain(acc).collect()
        });
        let mut acc = state[2..].to_vec();
        if !self.depth.is_multiple_of(lanes) {
            step(b, &state, 0, self.depth % lanes, &mut acc);
        }
        let mut sums = vec![zero; lanes];
        for r in 0..tile.rows {
            sums[r * pitch..][..tile.vecs].copy_from_slice(&acc[r * tile.vecs..][..tile.vecs]);
        }
        let sums = transpose(b, sums).into_iter().reduce(|x, y| b.add(x, y)).expect("a vector has lanes");
        for r in 0..tile.rows {
            // The sums of the row come first.
            let order: Vec<u8> = (0..lanes).map(|l| ((l + r * pitch) % lanes) as u8).collect();
            let v = if r == 0 { sums } else { b.shuffle(sums, sums, &order) };
            let row = b.add_int(row, r as i64);
            out.store(b, row, column, Tile { rows: 1, vecs: 1 }, tile.vecs, &[v]);
        }
    }
}
