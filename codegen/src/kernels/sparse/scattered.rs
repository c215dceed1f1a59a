//! Few rows: each element of a row is scattered to the columns where its weights are not 0, and nothing is done where the element is 0.
//!
//! The matrix is kept step by step: an entry is the place of one column, or of a block of columns as wide as a vector, and its weights. Sums
//! lie in scratch memory, which stays in the first-level cache.

use super::{Matrix, Steps, Support};
use crate::kernels::product::{self, Mac};
use crate::kernels::store::Output;
use crate::kir::{Bin, Builder, Cmp, Conv, Elem, Ty, Val};
use crate::schedule::{self, Tile};
use dnnc_targets::Target;

/// Entries in the body of the loop over a step; the rest are done one by one.
const UNROLL: usize = 8;
/// Bytes that weights are asked for ahead of their use.
const AHEAD: usize = 1024;
/// Cycles of an entry: its place, its sum to and fro.
const CYCLES: f64 = 1.9;
/// Cycles around the entries of a step.
const STEP: f64 = 25.0;

/// A product with a constant whose zeros are left out.
pub struct Scattered {
    mac: Mac,
    /// Columns of an entry: 1 or the lanes of a vector.
    width: usize,
    /// Type of the place of an entry, in units of [`Scattered::unit`].
    place: Ty,
    /// For each block of `width` columns, the steps at which it is not 0.
    blocks: Vec<Steps>,
    steps: usize,
    columns: usize,
    parts: usize,
    /// Predicted nanoseconds for a row without zeros.
    pub ns: f64,
}

/// The pointers that the kernel needs: the constants of [`Scattered::constants`] and scratch memory of [`Scattered::scratch_bytes`].
pub struct Given {
    /// Counts of entries, places, weights.
    pub tables: [Val; 3],
    /// The sums of a task.
    pub sums: Val,
}

impl Scattered {
    /// Takes a matrix in entries of one column or of a whole vector, in `parts` tasks at most.
    pub fn new(mac: Mac, target: &Target, m: &Matrix, support: &Support, parts: usize) -> Scattered {
        let lanes = mac.lanes();
        let ghz = target.mhz as f64 / 1e3;
        let option = |width: usize| {
            let blocks = support.blocks(width);
            let entries: usize = blocks.iter().map(Steps::len).sum();
            let bytes = entries * (width * 4 + 2);
            let cycles = (entries as f64 * CYCLES).max(bytes as f64 / schedule::bytes_per_cycle(target, bytes)) + m.steps as f64 * STEP;
            Scattered { mac, width, place: Ty::I32, blocks, steps: m.steps, columns: m.columns, parts: 1, ns: cycles / ghz }
        };
        let (single, whole) = (option(1), option(lanes));
        let best = if single.ns < whole.ns { single } else { whole };
        // No task is without columns.
        let vectors = m.columns.div_ceil(lanes).max(1);
        let parts = vectors.div_ceil(vectors.div_ceil(parts.max(1)));
        let best = Scattered { parts, ..best };
        // Half as wide where that is enough.
        let narrow = best.scratch_bytes() / best.unit() <= 1 << 16;
        Scattered { place: if narrow { Ty::scalar(Elem::I16) } else { Ty::I32 }, ..best }
    }

    /// Name of the algorithm.
    pub fn name(&self) -> String {
        format!("sparse {}x1, scattered", self.width)
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

    /// Bytes of scratch memory of a task.
    pub fn scratch_bytes(&self) -> usize {
        self.vectors() * self.mac.ty.bytes()
    }

    /// The encoded matrix, task by task: for each step the number of its entries by bodies and singles, then places in bytes, then weights.
    /// Before them stand the places in bytes where those of the task begin.
    pub fn constants(&self, m: &Matrix) -> Vec<Vec<u8>> {
        let lanes = self.mac.lanes();
        let (mut counts, mut places, mut weights) = (vec![], vec![], vec![]);
        let per_task = self.vectors() * lanes / self.width;
        for part in 0..self.parts {
            let blocks = part * per_task..((part + 1) * per_task).min(self.blocks.len());
            for at in [places.len(), weights.len()] {
                counts.extend((at as u64).to_le_bytes());
            }
            let mut of_step: Vec<Vec<usize>> = vec![vec![]; m.steps];
            for block in blocks.clone() {
                self.blocks[block].iter().for_each(|step| of_step[step].push(block));
            }
            for (step, entries) in of_step.iter().enumerate() {
                for count in [entries.len() / UNROLL, entries.len() % UNROLL] {
                    counts.extend((count as u32).to_le_bytes());
                }
                for &block in entries {
                    let place = (block - blocks.start) * self.width * 4 / self.unit();
                    places.extend(&(place as u32).to_le_bytes()[..self.place.bytes()]);
                    for column in block * self.width..(block + 1) * self.width {
                        let weight = if column < m.columns { m.at(step, column) } else { 0.0 };
                        weights.extend(weight.to_le_bytes());
                    }
                }
            }
        }
        vec![counts, places, weights]
    }

    /// Emits the product of one row that begins at `x`; `part` is the number of the task within `0..tasks()`, `row` that of the row.
    pub fn emit(&self, b: &mut Builder, part: Val, x: Val, row: Val, given: &Given, out: &Output) {
        let (ty, lanes) = (self.mac.ty, self.mac.lanes());
        let Given { tables: [counts, places, weights], sums } = *given;
        let nothing = b.int(ty, 0);
        product::each_vector(b, &[sums], self.vectors(), ty.bytes(), |b, at, i| b.store(nothing, at[0], (i * ty.bytes()) as i32));
        let counts = b.element(counts, part, 16 + 8 * self.steps);
        let begin = |b: &mut Builder, i: usize, of: Val| {
            let at = b.load(Ty::I64, counts, 8 * i as i32);
            b.offset(of, at)
        };
        let (places, weights) = (begin(b, 0, places), begin(b, 1, weights));
        let counts = b.offset_int(counts, 16);
        let one = Ty::vector(ty.elem, self.width as u8);
        let zero = b.index(0);
        b.for_count(self.steps, &[x, counts, places, weights], |b, _, at| {
            let number = |b: &mut Builder, i: usize| {
                let n = b.load(Ty::I32, at[1], 4 * i as i32);
                b.conv(Conv::Zext, n, Ty::I64.elem)
            };
            let (bodies, singles) = (number(b, 0), number(b, 1));
            let entries = b.mul_int(bodies, UNROLL as i64);
            let entries = b.add(entries, singles);
            let next = [b.element(at[2], entries, self.place.bytes()), b.element(at[3], entries, 4 * self.width)];
            let value = b.load(Ty::scalar(ty.elem), at[0], 0);
            let none = b.int(Ty::scalar(ty.elem), 0);
            let some = b.cmp(Cmp::Ne, value, none);
            b.when(some, |b| {
                let value = b.splat(value, one.lanes);
                let mut from = vec![at[2], at[3]];
                for (count, steps) in [(bodies, UNROLL), (singles, 1)] {
                    from = b.for_range(zero, count, 1, &from, |b, _, from| {
                        if steps > 1 {
                            (0..steps * one.bytes()).step_by(64).for_each(|line| b.prefetch(from[1], (AHEAD + line) as i32));
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
                        vec![
                            b.offset_int(from[0], (steps * self.place.bytes()) as i64),
                            b.offset_int(from[1], (steps * one.bytes()) as i64),
                        ]
                    });
                }
            });
            vec![b.offset_int(at[0], 4), b.offset_int(at[1], 8), next[0], next[1]]
        });
        let first = b.mul_int(part, self.vectors() as i64);
        let (full, rest) = (self.columns / lanes, self.columns % lanes);
        let store = |b: &mut Builder, vector: Val, exist: usize| {
            let number = b.sub(vector, first);
            let from = b.element(sums, number, ty.bytes());
            let sum = b.load(ty, from, 0);
            let column = b.mul_int(vector, lanes as i64);
            self.out(b, row, column, exist, sum, out);
        };
        let all = b.index(full);
        let end = b.add_int(first, self.vectors() as i64);
        let whole = b.bin(Bin::MinS, end, all);
        b.for_range(first, whole, 1, &[], |b, vector, _| {
            store(b, vector, lanes);
            vec![]
        });
        if rest > 0 {
            let here = b.cmp(Cmp::Gt, end, all);
            b.when(here, |b| store(b, all, rest));
        }
    }

    fn out(&self, b: &mut Builder, row: Val, column: Val, exist: usize, sum: Val, out: &Output) {
        out.store(b, row, column, Tile { rows: 1, vecs: 1 }, exist, &[sum]);
    }
}
