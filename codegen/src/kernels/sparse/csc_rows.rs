//! Rows of the product in the lanes of vectors: zeros may lie anywhere.
//!
//! A tile is a few vectors of rows. Its part of the input is transposed into scratch memory, a line a step of the reduction; a panel is one
//! column or a few neighbours with a list of the steps at which any of them is not 0, each as the offset of its line, and their weights. A step loads
//! an offset, a weight a column into every lane, and multiplies the vectors of the line. Results are transposed back a block of columns at a time.

use super::{Matrix, SparsityPattern, Steps};
use crate::kernels::lib::gemm::{Mac, Pointers, Source};
use crate::kernels::lib::loops;
use crate::kernels::lib::store::Output;
use crate::kernels::lib::transpose::transpose;
use crate::schedule::{self, Rows, Tile};
use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Ty, Val};
use dnnc_targets::Target;

/// Columns of a panel that come into question.
const WIDTHS: [usize; 3] = [1, 2, 4];
/// Steps in the body of the loop over a list; the rest are done one by one.
const UNROLL: usize = 4;
/// Accumulators that hide the latency of a multiply-add.
const CHAINS: usize = 8;
/// Bytes of an entry of the table of panels: where offsets and weights begin, unrolled bodies, single steps.
const ENTRY: usize = 4 * 8;
/// Cycles to load, transpose and store a block of `lanes` vectors, a lane.
const TRANSPOSE: f64 = 3.0;
/// Cycles around the list of a panel.
const PANEL: f64 = 12.0;
/// Bytes a cycle of lists that come from the third level.
const STREAM: f64 = 10.0;
/// Bytes that offsets of lines are counted in: a line is some vectors, and 16 bits reach the last one.
const UNIT: usize = 8;

/// A product with a constant whose zeros are left out.
pub struct CscRows {
    mac: Mac,
    /// Columns of a panel.
    width: usize,
    /// Vectors of rows.
    vectors: Rows,
    /// Rows in the last vector.
    last: usize,
    panels: Vec<Steps>,
    columns: usize,
    /// Lines of scratch memory, in blocks of as many as a vector has lanes.
    blocks: usize,
    row_bytes: usize,
    parts: usize,
    target: Target,
    /// Predicted nanoseconds for all rows.
    pub ns: f64,
}

/// What the kernel is given.
pub struct Given {
    /// The constants of [`CscRows::constants`]: places of blocks, entries of panels, offsets, weights.
    pub tables: [Val; 4],
    /// Scratch memory of [`CscRows::scratch_bytes`].
    pub scratch: Val,
    /// A number a column to begin with.
    pub bias: Option<Val>,
    /// Elements that exist in the last block of steps.
    pub last_block: usize,
}

impl CscRows {
    /// Cuts a product of `rows` rows with a matrix, of which `columns` are stored and whose steps are read in `blocks` blocks of vectors.
    /// `row_bytes` is what one row adds to the working set; `parts` how many tasks are wanted.
    pub fn new(
        mac: Mac,
        target: &Target,
        rows: usize,
        support: &SparsityPattern,
        columns: usize,
        blocks: usize,
        row_bytes: usize,
        parts: usize,
    ) -> CscRows {
        let lanes = mac.lanes();
        let vectors = rows.div_ceil(lanes);
        let mut best: Option<(f64, usize, Rows, Vec<Steps>)> = None;
        for width in WIDTHS.into_iter().filter(|w| lanes.is_multiple_of(*w)) {
            let panels = support.blocks(width);
            let steps = panels.iter().map(Steps::len).sum();
            for most in 1..=(target.vector.registers - 4).min(24) / width {
                let tiles = Rows::new(vectors, most);
                let lines = blocks * lanes * tiles.high * lanes * 4;
                if most > 1 && lines > UNIT << 16 {
                    break;
                }
                let sizes = Sizes { lanes, width, height: tiles.high, steps, panels: panels.len(), blocks, columns };
                let cycles = cycles(target, &sizes);
                let ns = cycles * tiles.tiles as f64 * 1e3 / target.mhz as f64;
                if best.as_ref().is_none_or(|b| ns < b.0) {
                    best = Some((ns, width, tiles, panels.clone()));
                }
            }
        }
        let (ns, width, vectors, mut panels) = best.expect("a column a panel is always possible");
        panels.resize(columns.next_multiple_of(lanes) / width, Steps::default());
        let last = rows - (rows.div_ceil(lanes) - 1) * lanes;
        let parts = parts.clamp(1, vectors.tiles);
        CscRows { mac, width, vectors, last, panels, columns, blocks, row_bytes, parts, target: *target, ns }
    }

    /// Name of the algorithm.
    pub fn name(&self) -> String {
        format!("sparse {}x1, rows in lanes", self.width)
    }

    /// Number of tasks.
    pub fn tasks(&self) -> usize {
        self.parts
    }

    fn block_tiles(&self) -> usize {
        let lanes = self.mac.lanes();
        schedule::row_block(&self.target, self.vectors.tiles.div_ceil(self.parts), self.vectors.high * lanes * self.row_bytes)
    }

    /// Most rows of a block.
    pub fn block_rows(&self) -> usize {
        self.block_tiles() * self.vectors.high * self.mac.lanes()
    }

    /// Bytes from a line of scratch memory to the next.
    fn line(&self) -> usize {
        self.vectors.high * self.mac.ty.bytes()
    }

    /// Type of the offset of a line.
    fn offset(&self) -> Ty {
        if self.blocks * self.mac.lanes() * self.line() <= UNIT << 16 { Ty::scalar(Elem::I16) } else { Ty::I32 }
    }

    /// Bytes of scratch memory of a task: the lines of a tile, then those of a block of results.
    pub fn scratch_bytes(&self) -> usize {
        (self.blocks + 1) * self.mac.lanes() * self.line()
    }

    /// The encoded matrix: the bytes from the beginning of a row to each block of steps, the table of panels, offsets, weights. `line` gives the
    /// number of the line of a step.
    pub fn constants(&self, m: &Matrix, places: &[usize], line: impl Fn(usize) -> usize) -> Vec<Vec<u8>> {
        let (mut table, mut offsets, mut weights) = (vec![], vec![], vec![]);
        for (panel, steps) in self.panels.iter().enumerate() {
            let count = steps.len();
            for field in [offsets.len(), weights.len(), count / UNROLL, count % UNROLL] {
                table.extend((field as u64).to_le_bytes());
            }
            for step in steps.iter() {
                let offset = line(step) * self.line() / UNIT;
                offsets.extend(&(offset as u32).to_le_bytes()[..self.offset().bytes()]);
                for column in panel * self.width..(panel + 1) * self.width {
                    let weight = if column < m.columns { m.at(step, column) } else { 0.0 };
                    weights.extend(weight.to_le_bytes());
                }
            }
        }
        let places = places.iter().flat_map(|&p| (p as u32).to_le_bytes()).collect();
        vec![places, table, offsets, weights]
    }

    /// Emits the product; `part` is the number of the task within `0..tasks()`.
    pub fn emit(&self, b: &mut Builder, part: Val, source: &dyn Source, given: &Given, out: &Output) {
        let (v, lanes) = (&self.vectors, self.mac.lanes());
        let (tile0, tile1) = loops::part_range(b, part, self.parts, v.tiles);
        let block = self.block_tiles();
        let one = |b: &mut Builder, from: Val, to: Val| {
            let row = |b: &mut Builder, tile: Val| {
                let vector = loops::row_of(b, v, tile);
                b.mul_int(vector, lanes as i64)
            };
            let (first, end) = (row(b, from), row(b, to));
            let rows = b.index((v.high * v.high_tiles + (v.high - 1) * (v.tiles - v.high_tiles) - 1) * lanes + self.last);
            let end = b.bin(Bin::MinS, end, rows);
            let place = source.block(b, first, end, None);
            let low = if v.high_tiles == v.tiles { v.high } else { v.high - 1 };
            let (last, all) = (b.index(v.tiles - 1), b.index(v.tiles));
            let whole = if self.last == lanes { to } else { b.bin(Bin::MinS, to, last) };
            loops::by_height(b, v, from, whole, |b, tile, height| {
                let first = row(b, tile);
                Pass { csc_rows: self, given, source, out, height, last: lanes, place, first }.tile(b);
            });
            if self.last < lanes {
                let at_end = b.cmp(Cmp::Eq, to, all);
                b.when(at_end, |b| {
                    let first = row(b, last);
                    Pass { csc_rows: self, given, source, out, height: low, last: self.last, place, first }.tile(b);
                });
            }
        };
        loops::for_blocks(b, tile0, tile1, v.tiles.div_ceil(self.parts), block, one);
    }
}

/// What the time of a tile depends on.
struct Sizes {
    lanes: usize,
    width: usize,
    /// Vectors of rows.
    height: usize,
    /// Lengths of all lists together.
    steps: usize,
    panels: usize,
    blocks: usize,
    columns: usize,
}

/// Cycles of a tile. Constants are fitted to 1×1 convolutions of 256 channels on Zen 3.
fn cycles(target: &Target, s: &Sizes) -> f64 {
    let (v, height) = (&target.vector, s.height as f64);
    let ops = if v.fma { 1 } else { 2 };
    let arithmetic = (s.width * s.height * ops) as f64 / v.fma_per_cycle as f64;
    let loads = (1 + s.width + s.height) as f64 / 2.0;
    // Lines that do not stay in the first-level cache come from the second.
    let bytes = (s.blocks * s.lanes * s.height * s.lanes * 4) as f64;
    let missing = (1.0 - 0.8 * target.l1d as f64 / bytes).clamp(0.0, 1.0);
    let step = arithmetic.max(loads + missing * height * 0.75) / v.code.sustained;
    let transposes = (s.blocks + s.columns / s.lanes) as f64 * height * s.lanes as f64 * TRANSPOSE;
    // Every tile reads all lists; long ones do not stay in the second-level cache.
    let block_sparse = (s.steps * (s.width * 4 + 2)) as f64;
    let away = (block_sparse / (target.l2 as f64 / 4.0) - 1.0).clamp(0.0, 1.0);
    s.steps as f64 * step + s.panels as f64 * PANEL + transposes + away * block_sparse / STREAM
}

/// One tile.
struct Pass<'a> {
    csc_rows: &'a CscRows,
    given: &'a Given,
    source: &'a dyn Source,
    out: &'a Output<'a>,
    /// Vectors.
    height: usize,
    /// Rows in the last of them.
    last: usize,
    /// Where the rows of the block are found from.
    place: Val,
    /// First row.
    first: Val,
}

impl Pass<'_> {
    fn tile(&self, b: &mut Builder) {
        let lanes = self.csc_rows.mac.lanes();
        for vector in 0..self.height {
            self.fill(b, vector);
        }
        let (full, rest) = (self.csc_rows.columns / lanes, self.csc_rows.columns % lanes);
        let (zero, end) = (b.index(0), b.index(full));
        loops::for_some(b, zero, end, full, |b, block| self.columns(b, block, lanes));
        if rest > 0 {
            self.columns(b, end, rest);
        }
    }

    /// Rows of a vector of the tile.
    fn count(&self, vector: usize) -> usize {
        if vector + 1 == self.height { self.last } else { self.csc_rows.mac.lanes() }
    }

    /// Transposes the rows of a vector into the lines.
    fn fill(&self, b: &mut Builder, vector: usize) {
        let (s, lanes, ty) = (self.csc_rows, self.csc_rows.mac.lanes(), self.csc_rows.mac.ty);
        let count = self.count(vector);
        let first = b.add_int(self.first, (vector * lanes) as i64);
        let rows = self.source.rows(b, self.place, first, count);
        let nothing = b.int(ty, 0);
        let to = b.offset_int(self.given.scratch, (vector * ty.bytes()) as i64);
        let block = |b: &mut Builder, from: Val, to: Val, elements: usize| {
            let at = b.load(Ty::I32, from, 0);
            let at = b.conv(Conv::Zext, at, Ty::I64.elem);
            let loaded = (0..lanes).map(|i| {
                if i >= count {
                    return nothing;
                }
                let (p, disp) = match &rows {
                    Pointers::Even(p, stride) => (*p, i as i64 * stride),
                    Pointers::Each(each) => (each[i], 0),
                };
                let p = b.offset(p, at);
                b.load_part(ty, p, disp as i32, elements)
            });
            let loaded = loaded.collect();
            for (i, line) in transpose(b, loaded).into_iter().enumerate() {
                b.store(line, to, (i * s.line()) as i32);
            }
        };
        let partial = usize::from(self.given.last_block < lanes);
        let end = b.for_count(s.blocks - partial, &[self.given.tables[0], to], |b, _, at| {
            block(b, at[0], at[1], lanes);
            vec![b.offset_int(at[0], 4), b.offset_int(at[1], (lanes * s.line()) as i64)]
        });
        if partial > 0 {
            block(b, end[0], end[1], self.given.last_block);
        }
    }

    /// A block of columns of which `exist` exist: each panel into scratch memory, then transposed and stored.
    fn columns(&self, b: &mut Builder, block: Val, exist: usize) {
        let (s, lanes, ty) = (self.csc_rows, self.csc_rows.mac.lanes(), self.csc_rows.mac.ty);
        let results = b.offset_int(self.given.scratch, (s.blocks * lanes * s.line()) as i64);
        let panels = lanes / s.width;
        let first = b.mul_int(block, panels as i64);
        b.each(panels, |b, number| {
            let panel = b.add(first, number);
            let to = b.element(results, number, s.width * s.line());
            self.panel(b, panel, to);
        });
        let column = b.mul_int(block, lanes as i64);
        for vector in 0..self.height {
            let lines = (0..lanes).map(|i| b.load(ty, results, (i * s.line() + vector * ty.bytes()) as i32)).collect();
            let mut rows = transpose(b, lines);
            rows.truncate(self.count(vector));
            let row = b.add_int(self.first, (vector * lanes) as i64);
            self.out.store(b, row, column, Tile { rows: rows.len(), vecs: 1 }, exist, &rows);
        }
    }

    /// The vectors of a panel of columns, into lines from `to`.
    fn panel(&self, b: &mut Builder, panel: Val, to: Val) {
        let (s, ty) = (self.csc_rows, self.csc_rows.mac.ty);
        let [_, table, offsets, weights] = self.given.tables;
        let entry = b.element(table, panel, ENTRY);
        let field = |b: &mut Builder, i: usize| b.load(Ty::I64, entry, 8 * i as i32);
        let (o, w, counts) = (field(b, 0), field(b, 1), [field(b, 2), field(b, 3)]);
        let at = [b.offset(offsets, o), b.offset(weights, w)];
        let size = s.width * self.height;
        let chains = CHAINS.div_ceil(size).min(UNROLL);
        let nothing = b.int(ty, 0);
        let mut state = vec![nothing; size * chains];
        if let Some(bias) = self.given.bias {
            let bias = b.element(bias, panel, s.width * 4);
            for column in 0..s.width {
                let number = b.load_splat(ty, bias, 4 * column as i32);
                state[column * self.height..][..self.height].fill(number);
            }
        }
        state.extend(at);
        let zero = b.index(0);
        for (count, steps) in counts.into_iter().zip([UNROLL, 1]) {
            state = b.for_range(zero, count, 1, &state, |b, _, state| {
                let (acc, at) = state.split_at(size * chains);
                let mut acc = acc.to_vec();
                for step in 0..steps {
                    let set = &mut acc[step % chains * size..][..size];
                    self.step(b, at[0], at[1], step, set);
                }
                acc.push(b.offset_int(at[0], (steps * s.offset().bytes()) as i64));
                acc.push(b.offset_int(at[1], (4 * steps * s.width) as i64));
                acc
            });
        }
        for i in 0..size {
            let sum = (1..chains).fold(state[i], |sum, set| b.add(sum, state[set * size + i]));
            b.store(sum, to, (i / self.height * s.line() + i % self.height * ty.bytes()) as i32);
        }
    }

    /// One step: the vectors of a line times the weights of the panel.
    fn step(&self, b: &mut Builder, offsets: Val, weights: Val, step: usize, acc: &mut [Val]) {
        let (s, ty) = (self.csc_rows, self.csc_rows.mac.ty);
        let offset = b.load(s.offset(), offsets, (step * s.offset().bytes()) as i32);
        let offset = b.conv(Conv::Zext, offset, Ty::I64.elem);
        let line = b.element(self.given.scratch, offset, UNIT);
        let weight = |b: &mut Builder, j: usize| b.load_splat(ty, weights, (4 * (step * s.width + j)) as i32);
        let row = |b: &mut Builder, i: usize| b.load(ty, line, (i * ty.bytes()) as i32);
        let mut mac = |b: &mut Builder, i: usize, j: usize, w: Val, x: Val| {
            let at = j * self.height + i;
            acc[at] = s.mac.mac(b, w, x, acc[at]);
        };
        // The shorter side is held, so that all sums stay in registers.
        if s.width <= self.height {
            let w: Vec<Val> = (0..s.width).map(|j| weight(b, j)).collect();
            for i in 0..self.height {
                let x = row(b, i);
                (0..s.width).for_each(|j| mac(b, i, j, w[j], x));
            }
        } else {
            let x: Vec<Val> = (0..self.height).map(|i| row(b, i)).collect();
            for j in 0..s.width {
                let w = weight(b, j);
                (0..self.height).for_each(|i| mac(b, i, j, w, x[i]));
            }
        }
    }
}
