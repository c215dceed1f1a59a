//! The loop nest of every product: tiles of multiply-adds over packed panels.
//!
//! Rows (of a matrix, or pixels of an image) times panels of columns (of a matrix, or output channels). A panel holds, for each step of the
//! reduction, `vecs` vectors side by side. A tile keeps `rows × vecs` accumulators in registers; a step loads the vectors of the panel
//! and one element of each row. Matrix products and convolutions differ only in where their rows lie ([`Source`]).

use super::store::Output;
use crate::expr::{load_element, load_element_splat, register};
use crate::schedule::{self, Group, Rows, Tile};
use crate::unit::{Arg, Lowered};
use dnnc_ir::{Tensor, Type};
use dnnc_kir::program::ALIGN;
use dnnc_kir::{Bin, Builder, Cmp, Elem, Ty, Val};
use dnnc_targets::Target;
use std::borrow::Cow;
use std::collections::VecDeque;

/// How products of one type are accumulated.
#[derive(Clone, Copy, Debug)]
pub struct Mac {
    /// Type of the elements of rows in memory.
    pub rows: Type,
    /// Type of accumulators and of packed panels.
    pub ty: Ty,
    /// Whether a multiply-add takes one lane of a vector as it is.
    by_element: bool,
}

impl Mac {
    /// For rows of type `ty`; an error for types that have no product.
    pub fn new(ty: Type, target: &Target) -> Result<Mac, String> {
        if ty == Type::Bool || ty.bytes() == 1 && ty.is_float() {
            return Err(format!("sums and products of {ty} are not supported: cast to a wider type first"));
        }
        let elem = register(ty);
        // 64-bit integers have no vector product on common machines.
        let lanes = if elem == Elem::I64 { 1 } else { schedule::lanes(&target.vector, elem.bytes()) };
        let by_element = target.vector.by_element && matches!(ty, Type::F32 | Type::F64) && lanes > 1;
        Ok(Mac { rows: ty, ty: Ty::vector(elem, lanes as u8), by_element })
    }

    /// Lanes of an accumulator.
    pub fn lanes(&self) -> usize {
        self.ty.lanes as usize
    }

    /// Bytes of an element of a panel.
    pub fn bytes(&self) -> usize {
        self.ty.elem.bytes()
    }

    /// acc + a·w.
    pub fn mac(&self, b: &mut Builder, a: Val, w: Val, acc: Val) -> Val {
        if self.ty.elem.is_float() {
            return b.fma(a, w, acc);
        }
        let product = b.mul(a, w);
        b.add(acc, product)
    }

    /// The element at an address, as a number of the accumulator's type, in every lane of `ty`.
    pub fn splat(&self, b: &mut Builder, ty: Ty, ptr: Val, disp: i32) -> Val {
        load_element_splat(b, self.rows, ptr, disp, ty.lanes)
    }

    /// The first `count` of `lanes` elements at an address, as numbers of the accumulator's type; the other lanes are 0.
    pub fn load(&self, b: &mut Builder, lanes: u8, ptr: Val, disp: i32, count: usize) -> Val {
        load_element(b, self.rows, ptr, disp, lanes, count)
    }
}

/// Elements of a constant, each as the bytes of a number of the accumulator's type: the constant itself where it is of that type.
pub fn widened_constant(t: &Tensor) -> Cow<'_, [u8]> {
    fn of<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(|&v| bytes(v)).collect()
    }
    Cow::Owned(match t.ty().ty {
        Type::I8 => of(t.values::<i8>(), |v| i32::from(v).to_le_bytes()),
        Type::U8 => of(t.values::<u8>(), |v| i32::from(v).to_le_bytes()),
        Type::I16 => of(t.values::<i16>(), |v| i32::from(v).to_le_bytes()),
        Type::U16 => of(t.values::<u16>(), |v| i32::from(v).to_le_bytes()),
        Type::F16 => of(t.values::<u16>(), |v| half::f16::from_bits(v).to_f32().to_le_bytes()),
        Type::BF16 => of(t.values::<u16>(), |v| half::bf16::from_bits(v).to_f32().to_le_bytes()),
        _ => return Cow::Borrowed(t.bytes()),
    })
}

/// Consecutive steps of the reduction in the innermost, unrolled body.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Bytes from the row's pointer to the element of the first step.
    pub disp: i64,
    /// Number of steps.
    pub len: usize,
    /// Bytes from an element to that of the next step.
    pub step: i64,
}

/// A part of the reduction: loops around an unrolled body. The panel is read straight on.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    /// Bytes from the row's pointer to where the stretch begins.
    pub start: i64,
    /// Counts and strides in bytes, outermost first.
    pub loops: Vec<(usize, i64)>,
    /// The body.
    pub runs: Vec<Run>,
    /// Equal parts of the stretch that are read side by side, one behind the other in memory; 0 and 1 for a single one.
    pub streams: usize,
}

impl Stretch {
    fn body(&self) -> usize {
        self.runs.iter().map(|r| r.len).sum()
    }

    /// Steps of the reduction.
    pub fn depth(&self) -> usize {
        self.streams.max(1) * self.stream_depth()
    }

    /// Steps of one stream.
    fn stream_depth(&self) -> usize {
        self.body() * self.loops.iter().map(|l| l.0).product::<usize>()
    }

    /// Bytes from a row's element of one stream to that of the next.
    fn stream_bytes(&self) -> i64 {
        self.loops.first().map_or(0, |&(n, stride)| n as i64 * stride)
    }
}

/// Steps unrolled in the body: enough to hide the counting of the loop behind 48 multiply-adds.
const UNROLL: usize = 4;

/// Places of a panel read at once: one stream gets 22 GB/s of 12 MB in the last level of Zen 3, two 40, four 50, eight 46.
const STREAMS: usize = 4;

/// The reduction over `depth` elements that lie `step` bytes apart.
pub fn straight(depth: usize, step: i64) -> Vec<Stretch> {
    let (full, rest) = (depth / UNROLL, depth % UNROLL);
    let mut out = vec![];
    if full > 0 {
        let run = Run { disp: 0, len: UNROLL, step };
        out.push(Stretch { start: 0, loops: vec![(full, UNROLL as i64 * step)], runs: vec![run], streams: 1 });
    }
    if rest > 0 {
        let run = Run { disp: 0, len: rest, step };
        out.push(Stretch { start: (full * UNROLL) as i64 * step, loops: vec![], runs: vec![run], streams: 1 });
    }
    out
}

/// Where the rows of a tile are.
pub enum Pointers {
    /// One address, and bytes from a row to the next.
    Even(Val, i64),
    /// One address each.
    Each(Vec<Val>),
}

/// Where the rows and panels of a product are.
pub trait Source {
    /// Called before rows `first..end` are used by a group of panels: the address they are found from, perhaps that of a copy. When the
    /// reduction is parted, `chunk` has the iterations of its outermost loop that are wanted now, and the address is that of the first.
    fn block(&self, b: &mut Builder, first: Val, end: Val, chunk: Option<Chunk>) -> Val;

    /// Addresses of `count` rows from row `first` of a block.
    fn rows(&self, b: &mut Builder, block: Val, first: Val, count: usize) -> Pointers;

    /// The panel that begins at column `column`, the `index`-th of its group, and bytes from one step to the next.
    fn panel(&self, b: &mut Builder, group: usize, index: Val, column: Val) -> (Val, i64);

    /// What is added to the product, if anything: a vector for each accumulator of the tile at a row and a column, of which `last` lanes of
    /// the last vectors exist.
    fn bias(&self, _b: &mut Builder, _row: Val, _column: Val, _tile: Tile, _last: usize) -> Option<Vec<Val>> {
        None
    }
}

/// A part of the reduction: iterations `at..to` of the outermost loop of the first stretch, and the bytes that one moves on.
#[derive(Clone, Copy)]
pub struct Chunk {
    /// The first.
    pub at: Val,
    /// The end.
    pub to: Val,
    /// Bytes from one to the next, in a row.
    pub stride: i64,
}

impl Chunk {
    /// An address at the beginning of a row, moved to the first iteration.
    pub fn skip(self, b: &mut Builder, ptr: Val) -> Val {
        let bytes = b.mul_int(self.at, self.stride);
        b.offset(ptr, bytes)
    }
}

/// A product: its cut into groups, tiles and blocks.
pub struct Nest {
    /// How it is accumulated.
    pub mac: Mac,
    /// Panels and tiles.
    pub groups: Vec<(Group, Rows)>,
    /// The reduction.
    pub depth: Vec<Stretch>,
    /// Iterations of the outermost loop of the first stretch done before partial sums are left in memory; `None` for all.
    chunk: Option<usize>,
    /// Number of rows.
    rows: usize,
    /// Bytes that one row adds to the working set, for the size of blocks.
    row_bytes: usize,
    /// Whether panels are made when they are needed.
    gathered: bool,
    /// Whether panels come from beyond the second-level cache, so that they are asked for ahead.
    far: bool,
    /// Parts that the rows are split into, over tasks.
    pub row_parts: usize,
    /// Parts that the panels of a group are split into, over tasks.
    pub panel_parts: usize,
    target: Target,
}

impl Nest {
    /// Cuts a product of `rows` × `columns`. `row_bytes` is what one row adds to the working set; `parts` how many tasks are wanted.
    pub fn new(mac: Mac, target: &Target, rows: usize, columns: usize, depth: Vec<Stretch>, row_bytes: usize, parts: usize) -> Nest {
        let steps: usize = depth.iter().map(Stretch::depth).sum();
        let groups = schedule::product(&target.vector, mac.lanes(), rows, columns, steps);
        let mut nest = Nest {
            mac,
            groups,
            depth,
            chunk: None,
            rows,
            row_bytes,
            gathered: false,
            far: false,
            row_parts: 1,
            panel_parts: 1,
            target: target.clone(),
        };
        let tiles = nest.groups.iter().map(|g| g.1.tiles).max().unwrap_or(1);
        let panels = nest.groups.iter().map(|g| g.0.panels).max().unwrap_or(1);
        let (most_rows, most_panels) = (tiles.div_ceil(2).max(1), panels.max(1));
        // Every part of the rows reads all panels: where those are the larger side and far away, they are split first.
        if nest.panel_bytes() > target.l2.max(2 * rows * row_bytes) {
            nest.panel_parts = parts.clamp(1, most_panels);
            nest.row_parts = (parts / nest.panel_parts).clamp(1, most_rows);
        } else {
            nest.row_parts = parts.clamp(1, most_rows);
            nest.panel_parts = (parts / nest.row_parts).clamp(1, most_panels);
        }
        if let Some((count, unit)) = nest.depth.first().and_then(|s| Some((s.loops.first()?.0, s.depth() / s.loops.first()?.0))) {
            let step_bytes = nest.groups.iter().map(|g| g.0.vecs).max().unwrap_or(1) * mac.ty.bytes();
            let block = schedule::depth_block(target, steps, unit, step_bytes, rows / nest.row_parts * row_bytes);
            nest.chunk = block.map(|steps| (steps / unit).max(1)).filter(|&chunk| chunk < count);
            if let Some(chunk) = nest.chunk {
                nest.row_bytes = row_bytes * chunk / count;
            }
        }
        nest.far = nest.panel_bytes() >= target.l2 / 2;
        nest
    }

    /// The same for panels of which these are only a part: whether all of them lie beyond the second-level cache.
    pub fn far(mut self, far: bool) -> Nest {
        self.far = far;
        self
    }

    /// The same for panels that are gathered when they are needed: the reduction is not parted and blocks have many rows, so that each is
    /// gathered seldom.
    pub fn gathered(mut self) -> Nest {
        const ROWS: usize = 64;
        self.chunk = None;
        self.row_bytes = self.row_bytes.min(self.target.l2 / 2 / ROWS);
        self.gathered = true;
        self
    }

    /// The same, with the reduction read in [`STREAMS`] places at once where every element of a panel is used by one tile only: such a product
    /// is as fast as memory, which serves several streams faster than one.
    pub fn streamed(mut self) -> Nest {
        const LEAST: usize = 8;
        let single = self.groups.iter().all(|(_, r)| r.tiles <= 1);
        let Some(&Stretch { start, ref loops, ref runs, streams: 1 }) = self.depth.first().filter(|_| single && self.chunk.is_none())
        else {
            return self;
        };
        let [(count, stride)] = loops[..] else { return self };
        let each = count / STREAMS;
        // Streams are told apart by displacements, of which rows may take half.
        let far = STREAMS * each * runs.iter().map(|r| r.len).sum::<usize>() * schedule::WIDEST * self.mac.ty.bytes();
        if each < LEAST || far.max(STREAMS * each * stride.unsigned_abs() as usize) > i32::MAX as usize / 4 {
            return self;
        }
        let mut depth = vec![Stretch { start, loops: vec![(each, stride)], runs: runs.clone(), streams: STREAMS }];
        let rest = count - STREAMS * each;
        if rest > 0 {
            let start = start + (STREAMS * each) as i64 * stride;
            depth.push(Stretch { start, loops: vec![(rest, stride)], runs: runs.clone(), streams: 1 });
        }
        depth.extend(self.depth.drain(1..));
        self.depth = depth;
        self
    }

    /// The same for so few rows that they are best done as one block, with the whole depth at once.
    pub fn at_once(mut self) -> Nest {
        (self.chunk, self.row_bytes) = (None, 0);
        self
    }

    /// Cycles that it takes by estimate.
    pub fn cycles(&self) -> f64 {
        let (v, lanes, steps) = (&self.target.vector, self.mac.lanes(), self.steps());
        self.groups.iter().map(|(g, rows)| g.panels as f64 * rows.cycles(v, g.vecs, lanes, steps)).sum()
    }

    /// Number of tasks.
    pub fn tasks(&self) -> usize {
        self.row_parts * self.panel_parts
    }

    /// Tiles of a block of rows of a group.
    fn block_tiles(&self, rows: &Rows) -> usize {
        schedule::row_block(&self.target, rows.tiles.div_ceil(self.row_parts), rows.high * self.row_bytes)
    }

    /// Most rows of a block.
    pub fn block_rows(&self) -> usize {
        self.groups.iter().map(|(_, r)| self.block_tiles(r) * r.high).max().unwrap_or(0)
    }

    /// Iterations of the outermost loop of the reduction that are done at once.
    pub fn chunk(&self) -> Option<usize> {
        self.chunk
    }

    /// Bytes of temporary memory for partial sums, for all tasks together.
    pub fn partial_bytes(&self) -> usize {
        self.chunk.map_or(0, |_| self.partial_offset(self.groups.len()))
    }

    /// Where the partial sums of a group begin: they lie panel by panel, row by row.
    fn partial_offset(&self, group: usize) -> usize {
        self.groups[..group].iter().map(|(g, _)| g.panels * self.rows * g.vecs * self.mac.ty.bytes()).sum()
    }

    /// Bytes of the panels of all groups, when each is packed.
    pub fn panel_bytes(&self) -> usize {
        self.panel_offset(self.groups.len())
    }

    /// Where the panels of a group begin.
    pub fn panel_offset(&self, group: usize) -> usize {
        self.groups[..group].iter().map(|(g, _)| g.panels * self.one_panel_bytes(g)).sum()
    }

    /// Bytes of a packed panel.
    pub fn one_panel_bytes(&self, group: &Group) -> usize {
        self.steps() * group.vecs * self.mac.ty.bytes()
    }

    /// Panel `index` of a group of the packed panels at `w`, and bytes from one step to the next.
    pub fn packed_panel(&self, b: &mut Builder, w: Val, group: usize, index: Val) -> (Val, i64) {
        let g = &self.groups[group].0;
        let first = b.offset_int(w, self.panel_offset(group) as i64);
        (b.element(first, index, self.one_panel_bytes(g)), (g.vecs * self.mac.ty.bytes()) as i64)
    }

    /// Steps of the reduction.
    pub fn steps(&self) -> usize {
        self.depth.iter().map(Stretch::depth).sum()
    }

    /// Packs a constant: `at` gives the index in `data` of the element of a step and a column. Columns that do not exist are 0.
    pub fn pack(&self, data: &[u8], at: impl Fn(usize, usize) -> Option<usize>) -> Vec<u8> {
        let bytes = self.mac.bytes();
        let mut out = vec![0; self.panel_bytes()];
        let mut slots = out.chunks_exact_mut(bytes);
        for (g, _) in &self.groups {
            let width = g.vecs * self.mac.lanes();
            for panel in 0..g.panels {
                let first = g.first + panel * width;
                let exist = if panel + 1 == g.panels { width - self.mac.lanes() + g.last } else { width };
                for step in 0..self.steps() {
                    for column in 0..width {
                        let slot = slots.next().expect("panel_bytes counts these elements");
                        if let Some(i) = (column < exist).then(|| at(step, first + column)).flatten() {
                            slot.copy_from_slice(&data[i * bytes..][..bytes]);
                        }
                    }
                }
            }
        }
        out
    }

    /// Emits the nest. `part` is the number of the task within `0..tasks()`; `partial` the memory
    /// for partial sums, which tasks share.
    pub fn emit(&self, b: &mut Builder, part: Val, source: &dyn Source, out: &Output, partial: Option<Val>) {
        let (row_part, panel_part) = divmod(b, part, self.panel_parts);
        for (index, (group, rows)) in self.groups.iter().enumerate() {
            let (tile0, tile1) = part_range(b, row_part, self.row_parts, rows.tiles);
            let (panel0, panel1) = part_range(b, panel_part, self.panel_parts, group.panels);
            let block = self.block_tiles(rows);
            self.for_chunks(b, |b, chunk| {
                let one = |b: &mut Builder, from: Val, to: Val| {
                    let (first, end) = (row_of(b, rows, from), row_of(b, rows, to));
                    let place = source.block(b, first, end, chunk);
                    for_some(b, panel0, panel1, group.panels, |b, panel| {
                        let offset = b.mul_int(panel, (group.vecs * self.mac.lanes()) as i64);
                        let column = b.add_int(offset, group.first as i64);
                        let (weights, step) = source.panel(b, index, panel, column);
                        let width = group.vecs * self.mac.ty.bytes();
                        let partial = partial.filter(|_| chunk.is_some()).map(|memory| {
                            let first = b.offset_int(memory, self.partial_offset(index) as i64);
                            b.element(first, panel, self.rows * width)
                        });
                        let pass =
                            Pass { nest: self, group, rows, from, to, place, column, weights, step, source, out, partial, chunk, block };
                        pass.tiles(b);
                    });
                };
                for_blocks(b, tile0, tile1, rows.tiles.div_ceil(self.row_parts), block, one);
            });
        }
    }

    /// The parts of the reduction, one after the other.
    fn for_chunks(&self, b: &mut Builder, body: impl FnOnce(&mut Builder, Option<Chunk>)) {
        let Some(chunk) = self.chunk else {
            return body(b, None);
        };
        let (count, stride) = self.depth[0].loops[0];
        let (zero, end) = (b.index(0), b.index(count));
        b.for_range(zero, end, chunk as i64, &[], |b, at, _| {
            let to = b.add_int(at, chunk as i64);
            let to = b.bin(Bin::MinS, to, end);
            body(b, Some(Chunk { at, to, stride }));
            vec![]
        });
    }

    /// Bytes of a panel that are read at once by a tile.
    fn pass_bytes(&self, group: &Group) -> usize {
        let Some(chunk) = self.chunk else {
            return self.one_panel_bytes(group);
        };
        let stretch = &self.depth[0];
        stretch.depth() / stretch.loops[0].0 * chunk * group.vecs * self.mac.ty.bytes()
    }
}

/// One panel times a block of rows.
struct Pass<'a> {
    nest: &'a Nest,
    group: &'a Group,
    rows: &'a Rows,
    /// Tiles.
    from: Val,
    to: Val,
    /// Where the rows of the block are found from.
    place: Val,
    column: Val,
    weights: Val,
    /// Bytes of the panel a step.
    step: i64,
    source: &'a dyn Source,
    out: &'a Output<'a>,
    /// The partial sums of the panel, when the reduction is parted.
    partial: Option<Val>,
    chunk: Option<Chunk>,
    /// Tiles of a block.
    block: usize,
}

/// What a tile asks for ahead of its use: the next panel, a piece by each tile.
#[derive(Clone, Copy)]
struct Ahead {
    at: Val,
    /// Bytes that each body of the reduction moves on.
    step: i64,
}

impl Pass<'_> {
    /// All tiles of the block.
    fn tiles(&self, b: &mut Builder) {
        by_height(b, self.rows, self.from, self.to, |b, tile, height| {
            let row = row_of(b, self.rows, tile);
            let ahead = self.ahead(b, tile);
            self.tile(b, row, Tile { rows: height, vecs: self.group.vecs }, ahead);
        });
    }

    /// Panels that do not all stay in the second-level cache are asked for one ahead: the prefetcher of the machine sees a panel end where
    /// the next begins only when that is wanted at once.
    fn ahead(&self, b: &mut Builder, tile: Val) -> Option<Ahead> {
        let packed = self.step == (self.group.vecs * self.nest.mac.ty.bytes()) as i64;
        if !packed || self.block < 3 || self.nest.gathered || !self.nest.far || self.nest.depth.is_empty() {
            return None;
        }
        let pass = self.nest.pass_bytes(self.group);
        let stretch = &self.nest.depth[0];
        let bodies = pass / (stretch.body() * self.step as usize).max(1);
        let piece = pass.div_ceil(self.block);
        let step = piece.div_ceil(bodies.max(1));
        let done = b.sub(tile, self.from);
        let offset = b.mul_int(done, (step * bodies) as i64);
        let now = self.weights_now(b);
        let next = b.offset_int(now, pass as i64);
        Some(Ahead { at: b.offset(next, offset), step: step as i64 })
    }

    /// Where the panel begins for this part of the reduction.
    fn weights_now(&self, b: &mut Builder) -> Val {
        let Some(chunk) = self.chunk else {
            return self.weights;
        };
        let stretch = &self.nest.depth[0];
        let skip = b.mul_int(chunk.at, (stretch.depth() / stretch.loops[0].0) as i64 * self.step);
        b.offset(self.weights, skip)
    }

    fn tile(&self, b: &mut Builder, row: Val, tile: Tile, ahead: Option<Ahead>) {
        let pointers = self.source.rows(b, self.place, row, tile.rows);
        let begin = |b: &mut Builder| {
            let bias = self.source.bias(b, row, self.column, tile, self.group.last);
            bias.unwrap_or_else(|| vec![b.int(self.nest.mac.ty, 0); tile.rows * tile.vecs])
        };
        let mut weights = self.weights_now(b);
        let Some(chunk) = self.chunk else {
            let mut acc = begin(b);
            for (i, stretch) in self.nest.depth.iter().enumerate() {
                (acc, weights) = self.stretch(b, tile, acc, &pointers, weights, stretch, None, ahead.filter(|_| i == 0));
            }
            return self.out.store(b, row, self.column, tile, self.group.last, &acc);
        };
        // Partial sums of the tile, between chunks of the reduction.
        let ty = self.nest.mac.ty;
        let partial = self.partial.expect("memory for partial sums where there are chunks");
        let partial = b.element(partial, row, tile.vecs * ty.bytes());
        let disp = |i: usize| (i * ty.bytes()) as i32;
        let stretch = &self.nest.depth[0];
        let (zero, end) = (b.index(0), b.index(stretch.loops[0].0));
        let starts = b.cmp(Cmp::Eq, chunk.at, zero);
        let acc = b.branch(starts, begin, |b| (0..tile.rows * tile.vecs).map(|i| b.load(ty, partial, disp(i))).collect());
        let n = b.sub(chunk.to, chunk.at);
        let (acc, weights) = self.stretch(b, tile, acc, &pointers, weights, stretch, Some(n), ahead);
        let ends = b.cmp(Cmp::Eq, chunk.to, end);
        let back = b.mul_int(chunk.at, -chunk.stride);
        b.branch(
            ends,
            |b| {
                let pointers = match &pointers {
                    Pointers::Even(p, stride) => Pointers::Even(b.offset(*p, back), *stride),
                    Pointers::Each(ps) => Pointers::Each(ps.iter().map(|p| b.offset(*p, back)).collect()),
                };
                let (mut acc, mut weights) = (acc.clone(), weights);
                for stretch in &self.nest.depth[1..] {
                    (acc, weights) = self.stretch(b, tile, acc, &pointers, weights, stretch, None, None);
                }
                self.out.store(b, row, self.column, tile, self.group.last, &acc);
                vec![]
            },
            |b| {
                for (i, v) in acc.iter().enumerate() {
                    b.store(*v, partial, disp(i));
                }
                vec![]
            },
        );
    }

    /// Accumulates a stretch; gives the accumulators and where the panel goes on. `count` replaces that of the outermost loop.
    fn stretch(
        &self,
        b: &mut Builder,
        tile: Tile,
        acc: Vec<Val>,
        pointers: &Pointers,
        weights: Val,
        stretch: &Stretch,
        count: Option<Val>,
        ahead: Option<Ahead>,
    ) -> (Vec<Val>, Val) {
        let (rows, even): (Vec<Val>, Option<i64>) = match pointers {
            Pointers::Even(p, stride) => (vec![*p], Some(*stride)),
            Pointers::Each(ps) => (ps.clone(), None),
        };
        let rows = rows.into_iter().map(|p| b.offset_int(p, stretch.start)).collect();
        let streams = Streams { count: stretch.streams.max(1), rows: stretch.stream_bytes(), steps: stretch.stream_depth() };
        let state = self.level(b, tile, State { acc, rows, weights, ahead }, even, &stretch.loops, &stretch.runs, &streams, count);
        (state.acc, b.offset_int(state.weights, ((streams.count - 1) * streams.steps) as i64 * self.step))
    }

    /// The loops of a stretch; of the result the rows are those of the last iteration.
    fn level(
        &self,
        b: &mut Builder,
        tile: Tile,
        state: State,
        even: Option<i64>,
        loops: &[(usize, i64)],
        runs: &[Run],
        streams: &Streams,
        count: Option<Val>,
    ) -> State {
        let Some((&(n, stride), inner)) = loops.split_first() else {
            return self.body(b, tile, state, even, runs, streams);
        };
        if n == 1 && count.is_none() {
            return self.level(b, tile, state, even, inner, runs, streams, None);
        }
        let (start, end) = (b.index(0), count.unwrap_or_else(|| b.index(n)));
        let out = b.for_range(start, end, 1, &state.carried(), |b, _, carried| {
            let now = state.with(carried);
            let rows: Vec<Val> = now.rows.clone();
            let next = self.level(b, tile, now, even, inner, runs, streams, None);
            let rows = rows.into_iter().map(|p| b.offset_int(p, stride)).collect();
            State { rows, ..next }.carried()
        });
        state.with(&out)
    }

    fn body(&self, b: &mut Builder, tile: Tile, state: State, even: Option<i64>, runs: &[Run], streams: &Streams) -> State {
        let State { mut acc, rows, weights, ahead } = state;
        let ahead = ahead.map(|ahead| {
            (0..ahead.step).step_by(self.nest.target.line).for_each(|line| b.prefetch(ahead.at, line as i32));
            Ahead { at: b.offset_int(ahead.at, ahead.step), ..ahead }
        });
        let mac = self.nest.mac;
        let mut feeds = vec![];
        for stream in 0..streams.count {
            let mut step = stream * streams.steps;
            for run in runs {
                // Where an element of a vector can be a factor, rows are read as vectors of steps.
                let contiguous = run.step == mac.rows.bytes() as i64;
                let whole = if mac.by_element && contiguous { run.len / mac.lanes() * mac.lanes() } else { 0 };
                let mut at = 0;
                while at < run.len {
                    let steps = if at < whole { mac.lanes() } else { 1 };
                    feeds.push(Feed { disp: run.disp + stream as i64 * streams.rows + at as i64 * run.step, first: step, steps });
                    (at, step) = (at + steps, step + steps);
                }
            }
        }
        let row = |b: &mut Builder, feed: &Feed, i: usize| {
            let (ptr, disp) = match even {
                Some(stride) => (rows[0], (i as i64 * stride + feed.disp) as i32),
                None => (rows[i], feed.disp as i32),
            };
            if feed.steps > 1 { b.load(mac.ty, ptr, disp) } else { mac.splat(b, mac.ty, ptr, disp) }
        };
        if mac.by_element {
            self.steps_ahead(b, tile, &mut acc, weights, &feeds, row);
        } else {
            feeds.iter().for_each(|feed| self.step(b, tile, &mut acc, weights, feed.first, |b, i| row(b, feed, i)));
        }
        let moved: usize = runs.iter().map(|r| r.len).sum();
        let weights = b.offset_int(weights, moved as i64 * self.step);
        State { acc, rows, weights, ahead }
    }

    /// Vector `j` of a step of the panel.
    fn weight(&self, b: &mut Builder, weights: Val, step: usize, j: usize, vecs: usize) -> Val {
        let mac = self.nest.mac;
        let exact = self.step != (vecs * mac.ty.bytes()) as i64;
        let disp = (step as i64 * self.step) as i32 + (j * mac.ty.bytes()) as i32;
        let count = if exact && j + 1 == vecs { self.group.last } else { mac.lanes() };
        b.load_part(mac.ty, weights, disp, count)
    }

    /// Steps whose operands are all in registers. A vector of the panel is loaded where the one before it is done, and rows a few ahead, so that a
    /// machine that keeps the order of a program does not wait for them.
    fn steps_ahead(
        &self,
        b: &mut Builder,
        tile: Tile,
        acc: &mut [Val],
        weights: Val,
        feeds: &[Feed],
        row: impl Fn(&mut Builder, &Feed, usize) -> Val,
    ) {
        let mac = self.nest.mac;
        // Vectors of the panel in the order of their use.
        let steps = feeds.iter().flat_map(|feed| feed.first..feed.first + feed.steps);
        let mut panel = steps.flat_map(|step| (0..tile.vecs).map(move |j| (step, j)));
        let mut next = |b: &mut Builder| panel.next().map(|(step, j)| self.weight(b, weights, step, j, tile.vecs));
        let mut w: VecDeque<Val> = (0..tile.vecs.max(2)).map_while(|_| next(b)).collect();
        for feed in feeds {
            let mut x: Vec<Val> = vec![];
            for step in 0..feed.steps {
                for j in 0..tile.vecs {
                    let now = w.pop_front().expect("a vector of the panel is asked for before its use");
                    for i in 0..tile.rows {
                        while x.len() < tile.rows.min(i + ROWS_AHEAD) {
                            x.push(row(b, feed, x.len()));
                        }
                        let factor = if feed.steps > 1 { b.shuffle(x[i], x[i], &vec![step as u8; mac.lanes()]) } else { x[i] };
                        acc[i * tile.vecs + j] = mac.mac(b, factor, now, acc[i * tile.vecs + j]);
                    }
                    w.extend(next(b));
                }
            }
        }
    }

    /// One step: an outer product of elements of the rows with vectors of the panel. The longer side is streamed.
    fn step(&self, b: &mut Builder, tile: Tile, acc: &mut [Val], weights: Val, step: usize, a: impl Fn(&mut Builder, usize) -> Val) {
        let mac = self.nest.mac;
        let weight = |b: &mut Builder, j: usize| self.weight(b, weights, step, j, tile.vecs);
        if tile.rows >= tile.vecs {
            let w: Vec<Val> = (0..tile.vecs).map(|j| weight(b, j)).collect();
            for i in 0..tile.rows {
                let x = a(b, i);
                for j in 0..tile.vecs {
                    acc[i * tile.vecs + j] = mac.mac(b, x, w[j], acc[i * tile.vecs + j]);
                }
            }
        } else {
            let x: Vec<Val> = (0..tile.rows).map(|i| a(b, i)).collect();
            for j in 0..tile.vecs {
                let w = weight(b, j);
                for i in 0..tile.rows {
                    acc[i * tile.vecs + j] = mac.mac(b, x[i], w, acc[i * tile.vecs + j]);
                }
            }
        }
    }
}

/// Rows that are loaded ahead of the first multiply-adds with them.
const ROWS_AHEAD: usize = 4;

/// What one load of each row gives.
struct Feed {
    /// Bytes from where a row stands.
    disp: i64,
    /// Its first step of the panel.
    first: usize,
    /// Its steps: an element each.
    steps: usize,
}

/// How the streams of a stretch lie: bytes from one to the next in a row, and steps in a panel.
struct Streams {
    count: usize,
    rows: i64,
    steps: usize,
}

/// What the loops of a reduction carry.
struct State {
    acc: Vec<Val>,
    rows: Vec<Val>,
    weights: Val,
    ahead: Option<Ahead>,
}

impl State {
    fn carried(&self) -> Vec<Val> {
        self.acc.iter().chain(&self.rows).copied().chain([self.weights]).chain(self.ahead.map(|a| a.at)).collect()
    }

    /// The same with other values.
    fn with(&self, carried: &[Val]) -> State {
        let (acc, rest) = carried.split_at(self.acc.len());
        let (rows, rest) = rest.split_at(self.rows.len());
        State { acc: acc.to_vec(), rows: rows.to_vec(), weights: rest[0], ahead: self.ahead.map(|a| Ahead { at: rest[1], ..a }) }
    }
}

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
    let loops = if count / UNROLL > 1 { count / UNROLL } else { 0 };
    if loops > 0 {
        at = b.for_count(loops, &at, |b, _, at| {
            (0..UNROLL).for_each(|i| body(b, at, i));
            at.iter().map(|p| b.offset_int(*p, (UNROLL * bytes) as i64)).collect()
        });
    }
    (0..count - loops * UNROLL).for_each(|i| body(b, &at, i));
}

/// `body` for `count` elements behind some pointers, a vector at a time: given the pointers, the index behind them and how many exist.
pub fn each_element(b: &mut Builder, pointers: &[Val], count: usize, ty: Ty, body: impl Fn(&mut Builder, &[Val], usize, usize)) {
    let lanes = ty.lanes as usize;
    each_vector(b, pointers, count / lanes, ty.bytes(), |b, at, i| body(b, at, i * lanes, lanes));
    if count % lanes > 0 {
        let done = (count / lanes * ty.bytes()) as i64;
        let at: Vec<Val> = pointers.iter().map(|p| b.offset_int(*p, done)).collect();
        body(b, &at, 0, count % lanes);
    }
}
