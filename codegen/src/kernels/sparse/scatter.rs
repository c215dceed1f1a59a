//! Few rows: each element of a row is scattered to the columns where its weights are not 0, and nothing is done where the element is 0.
//!
//! The matrix is kept step by step: an entry is the place of one column, or of a block of columns as wide as a vector, and its weights. Sums
//! lie in scratch memory, which stays in the first-level cache. The steps at which the row is not 0 are listed first: then no branch has to be guessed,
//! and the entries of the next are asked for while those of one are in use.

use super::{Matrix, SparsityPattern, Steps, full_parts};
use crate::kernels::lib::gemm::Mac;
use crate::kernels::lib::loops;
use crate::kernels::lib::store::Output;
use crate::schedule::{self, Tile};
use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Ty, Val};
use dnnc_targets::Target;

/// Entries in the body of the loop over a step; the rest are done one by one.
const UNROLL: usize = 8;
/// Cycles of an entry: its place, its sum to and fro (1.5 on Zen 3, whoever computes the places).
const CYCLES: f64 = 1.6;
/// Cycles around the entries of a step.
const STEP: f64 = 25.0;

/// A product with a constant whose zeros are left out.
pub struct ScatterSpmv {
    mac: Mac,
    /// Columns of an entry: 1 or the lanes of a vector.
    width: usize,
    /// Type of the place of an entry, in units of [`ScatterSpmv::unit`].
    place: Ty,
    /// For each block of `width` columns, the steps at which it is not 0.
    blocks: Vec<Steps>,
    steps: usize,
    columns: usize,
    parts: usize,
    /// Predicted nanoseconds for a row without zeros.
    pub ns: f64,
}

/// The pointers that the kernel needs: the constants of [`ScatterSpmv::constants`] and scratch memory of [`ScatterSpmv::scratch_bytes`].
pub struct Given {
    /// First entries of steps, places, weights.
    pub tables: [Val; 3],
    /// The sums of a task, and its list of steps.
    pub scratch: Val,
}

impl ScatterSpmv {
    /// Takes a matrix in entries of one column or of a whole vector, in `parts` tasks at most.
    pub fn new(mac: Mac, target: &Target, m: &Matrix, support: &SparsityPattern, parts: usize) -> ScatterSpmv {
        let lanes = mac.lanes();
        let ghz = target.mhz as f64 / 1e3;
        let option = |width: usize| {
            let blocks = support.blocks(width);
            let entries: usize = blocks.iter().map(Steps::len).sum();
            let bytes = entries * (width * 4 + 2);
            let cycles = (entries as f64 * CYCLES).max(bytes as f64 / schedule::bytes_per_cycle(target, bytes)) + m.steps as f64 * STEP;
            ScatterSpmv { mac, width, place: Ty::I32, blocks, steps: m.steps, columns: m.columns, parts: 1, ns: cycles / ghz }
        };
        let (single, whole) = (option(1), option(lanes));
        let best = if single.ns < whole.ns { single } else { whole };
        let best = ScatterSpmv { parts: full_parts(m.columns.div_ceil(lanes), parts), ..best };
        // Half as wide where that is enough.
        let narrow = best.sum_bytes() / best.unit() <= 1 << 16;
        ScatterSpmv { place: if narrow { Ty::scalar(Elem::I16) } else { Ty::I32 }, ..best }
    }

    /// Name of the algorithm.
    pub fn name(&self) -> String {
        format!("sparse {}x1, scatter", self.width)
    }

    /// Number of tasks.
    pub fn tasks(&self) -> usize {
        self.parts
    }

    /// The vectors of columns that a task has at most.
    fn vectors(&self) -> usize {
        self.columns.div_ceil(self.mac.lanes()).div_ceil(self.parts)
    }

    /// Bytes that places are counted in: an address can be reached with them.
    fn unit(&self) -> usize {
        (self.width * 4).min(8)
    }

    /// Bytes of places and weights.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(Steps::len).sum::<usize>() * (self.width * 4 + self.place.bytes())
    }

    /// Bytes of the sums of a task.
    fn sum_bytes(&self) -> usize {
        self.vectors() * self.mac.ty.bytes()
    }

    /// Bytes of scratch memory of a task: sums, and the list of steps.
    pub fn scratch_bytes(&self) -> usize {
        self.sum_bytes() + (self.steps + 1) * 4
    }

    /// The encoded matrix, task by task: the number of the first entry of each step, and behind them that of the end; places; weights.
    pub fn constants(&self, m: &Matrix) -> Vec<Vec<u8>> {
        let lanes = self.mac.lanes();
        let (mut starts, mut places, mut weights) = (vec![], vec![], vec![]);
        let per_task = self.vectors() * lanes / self.width;
        let mut count = 0u32;
        for part in 0..self.parts {
            let blocks = part * per_task..((part + 1) * per_task).min(self.blocks.len());
            let mut of_step: Vec<Vec<usize>> = vec![vec![]; m.steps];
            for block in blocks.clone() {
                self.blocks[block].iter().for_each(|step| of_step[step].push(block));
            }
            for (step, entries) in of_step.iter().enumerate() {
                starts.extend(count.to_le_bytes());
                count += entries.len() as u32;
                for &block in entries {
                    let place = (block - blocks.start) * self.width * 4 / self.unit();
                    places.extend(&(place as u32).to_le_bytes()[..self.place.bytes()]);
                    for column in block * self.width..(block + 1) * self.width {
                        let weight = if column < m.columns { m.at(step, column) } else { 0.0 };
                        weights.extend(weight.to_le_bytes());
                    }
                }
            }
            starts.extend(count.to_le_bytes());
        }
        vec![starts, places, weights]
    }

    /// Lists the steps at which the row that begins at `x` is not 0, and gives their number.
    pub fn active(&self, b: &mut Builder, x: Val, given: &Given) -> Val {
        let list = b.offset_int(given.scratch, self.sum_bytes() as i64);
        let elem = Ty::scalar(self.mac.ty.elem);
        let (none, first) = (b.index(0), b.int(Ty::I32, 0));
        let (zero, one, nothing) = (b.int(elem, 0), b.int(Ty::I32, 1), first);
        let state = b.for_count(self.steps, &[x, first, none], |b, _, state| {
            let (x, step, count) = (state[0], state[1], state[2]);
            let at = b.element(list, count, 4);
            b.store(step, at, 0);
            let value = b.load(elem, x, 0);
            let some = b.cmp(Cmp::Ne, value, zero);
            let more = b.select(some, one, nothing);
            let more = b.conv(Conv::Zext, more, Ty::I64.elem);
            vec![b.offset_int(x, 4), b.add_int(step, 1), b.add(count, more)]
        });
        // Behind the last step that is used comes the end: its entries are asked for ahead, too.
        let end = b.element(list, state[2], 4);
        b.store(state[1], end, 0);
        state[2]
    }

    /// Emits the product of one row that begins at `x`, whose steps [`ScatterSpmv::active`] has listed; `part` is the number of the task within
    /// `0..tasks()`, `row` that of the row.
    pub fn emit(&self, b: &mut Builder, part: Val, x: Val, active: Val, row: Val, given: &Given, out: &Output) {
        let (ty, lanes) = (self.mac.ty, self.mac.lanes());
        let Given { tables: [starts, places, weights], scratch: sums } = *given;
        let list = b.offset_int(sums, self.sum_bytes() as i64);
        let nothing = b.int(ty, 0);
        loops::each_vector(b, &[sums], self.vectors(), ty.bytes(), |b, at, i| b.store(nothing, at[0], (i * ty.bytes()) as i32));
        let starts = b.element(starts, part, 4 * (self.steps + 1));
        let one = Ty::vector(ty.elem, self.width as u8);
        let zero = b.index(0);
        b.for_range(zero, active, 1, &[], |b, a, _| {
            let number = |b: &mut Builder, at: Val, i: i32| {
                let n = b.load(Ty::I32, at, 4 * i);
                b.conv(Conv::Zext, n, Ty::I64.elem)
            };
            let at = b.element(list, a, 4);
            let (step, next) = (number(b, at, 0), number(b, at, 1));
            let at = b.element(starts, step, 4);
            let (first, end) = (number(b, at, 0), number(b, at, 1));
            let at = b.element(starts, next, 4);
            let ahead = number(b, at, 0);
            let value = b.element(x, step, 4);
            let value = b.load(Ty::scalar(ty.elem), value, 0);
            let value = b.splat(value, one.lanes);
            let entries = b.sub(end, first);
            let three = b.index(UNROLL.trailing_zeros() as usize);
            let bodies = b.bin(Bin::ShrU, entries, three);
            let mask = b.index(UNROLL - 1);
            let singles = b.bin(Bin::And, entries, mask);
            let pair = |b: &mut Builder, n: Val| [b.element(places, n, self.place.bytes()), b.element(weights, n, 4 * self.width)];
            let mut from = [pair(b, first), pair(b, ahead)].concat();
            // Which step is next is known, where its entries are is not for the machine to guess.
            let ask = |b: &mut Builder, from: &[Val]| {
                b.prefetch(from[2], 0);
                (0..UNROLL * one.bytes()).step_by(64).for_each(|line| b.prefetch(from[3], line as i32));
            };
            for (count, steps) in [(bodies, UNROLL), (singles, 1)] {
                if steps == 1 {
                    ask(b, &from);
                }
                from = b.for_range(zero, count, 1, &from, |b, _, from| {
                    if steps > 1 {
                        ask(b, from);
                    }
                    // The entries of a step are of different columns: all sums are read before the first is written.
                    let made: Vec<(Val, Val)> = (0..steps)
                        .map(|i| {
                            let place = b.load(self.place, from[0], (i * self.place.bytes()) as i32);
                            let place = b.conv(Conv::Zext, place, Ty::I64.elem);
                            let sum = b.element(sums, place, self.unit());
                            let weight = b.load(one, from[1], (i * one.bytes()) as i32);
                            let before = b.load(one, sum, 0);
                            (self.mac.mac(b, value, weight, before), sum)
                        })
                        .collect();
                    made.into_iter().for_each(|(after, sum)| b.store(after, sum, 0));
                    let bytes = [self.place.bytes(), one.bytes()];
                    from.iter().enumerate().map(|(i, &at)| b.offset_int(at, (steps * bytes[i % 2]) as i64)).collect()
                });
            }
            vec![]
        });
        let first = b.mul_int(part, self.vectors() as i64);
        let end = b.add_int(first, self.vectors() as i64);
        loops::for_vectors(b, first, end, self.columns, lanes, |b, vector, exist| {
            let number = b.sub(vector, first);
            let from = b.element(sums, number, ty.bytes());
            let sum = b.load(ty, from, 0);
            let column = b.mul_int(vector, lanes as i64);
            out.store(b, row, column, Tile { rows: 1, vecs: 1 }, exist, &[sum]);
        });
    }
}
