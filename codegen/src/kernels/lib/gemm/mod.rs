//! The loop nest of every product: tiles of multiply-adds over packed panels.
//!
//! Rows (of a matrix, or pixels of an image) times panels of columns (of a matrix, or output channels). A panel holds, for each step of the
//! reduction, `vecs` vectors side by side. A tile keeps `rows × vecs` accumulators in registers; a step loads the vectors of the panel
//! and one element of each row, or as many as the product type takes at once ([`types`]). Matrix products and convolutions differ only in
//! where their rows are ([`Source`]).

mod tile;
pub mod types;

use crate::schedule::{self, Group, Rows, Tile};
use dnnc_kir::{Bin, Builder, Val};
use dnnc_targets::Target;

pub use types::{Mac, ProductType};

/// Consecutive steps of the reduction in the innermost, unrolled body.
#[derive(Clone, Copy, Debug)]
pub struct UnrolledSteps {
    /// Bytes from the row's pointer to the element of the first step.
    pub disp: i64,
    /// Number of steps.
    pub len: usize,
    /// Bytes from an element to that of the next step.
    pub step: i64,
    /// Elements of the last step that exist, where those are not all that a step of the product type takes.
    pub part: Option<usize>,
}

/// A part of the reduction: loops around an unrolled body. The panel is read straight on.
#[derive(Clone, Debug, Default)]
pub struct KSegment {
    /// Bytes from the row's pointer to where the segment begins.
    pub start: i64,
    /// Counts and strides in bytes, outermost first.
    pub loops: Vec<(usize, i64)>,
    /// The body.
    pub unrolled: Vec<UnrolledSteps>,
    /// Equal parts of the segment that are read side by side, one behind the other in memory; 0 and 1 for a single one.
    pub streams: usize,
}

impl KSegment {
    fn body(&self) -> usize {
        self.unrolled.iter().map(|r| r.len).sum()
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
pub fn straight(depth: usize, step: i64) -> Vec<KSegment> {
    straight_steps(depth, step, None)
}

/// The reduction over `depth` contiguous elements of a row.
pub fn contiguous(depth: usize, mac: &Mac) -> Vec<KSegment> {
    let part = Some(depth % mac.k_step()).filter(|&part| part > 0);
    straight_steps(depth.div_ceil(mac.k_step()), mac.step_bytes() as i64, part)
}

/// The reduction over so many steps that are `step` bytes apart; of the last perhaps only a part exists.
fn straight_steps(steps: usize, step: i64, part: Option<usize>) -> Vec<KSegment> {
    // The part is in a body of its own.
    let full = (steps - usize::from(part.is_some())) / UNROLL;
    let rest = steps - full * UNROLL;
    let mut out = vec![];
    if full > 0 {
        let run = UnrolledSteps { disp: 0, len: UNROLL, step, part: None };
        out.push(KSegment { start: 0, loops: vec![(full, UNROLL as i64 * step)], unrolled: vec![run], streams: 1 });
    }
    if rest > 0 {
        let run = UnrolledSteps { disp: 0, len: rest, step, part };
        out.push(KSegment { start: (full * UNROLL) as i64 * step, loops: vec![], unrolled: vec![run], streams: 1 });
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
    /// reduction is parted, `k_block` has the iterations of its outermost loop that are wanted now, and the address is that of the first.
    fn block(&self, b: &mut Builder, first: Val, end: Val, k_block: Option<KBlock>) -> Val;

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

/// A part of the reduction: iterations `at..to` of the outermost loop of the first segment, and the bytes that one moves on.
#[derive(Clone, Copy)]
pub struct KBlock {
    /// The first.
    pub at: Val,
    /// The end.
    pub to: Val,
    /// Bytes from one to the next, in a row.
    pub stride: i64,
}

impl KBlock {
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
    pub depth: Vec<KSegment>,
    /// Iterations of the outermost loop of the first segment done before partial sums are left in memory; `None` for all.
    k_block: Option<usize>,
    /// Number of rows.
    rows: usize,
    /// Bytes that one row adds to the working set, for the size of blocks.
    row_bytes: usize,
    /// Whether panels are made when they are needed.
    packed_at_runtime: bool,
    /// Whether panels come from beyond the second-level cache, so that they are asked for ahead.
    panels_exceed_l2: bool,
    /// Parts that the rows are split into, over tasks.
    pub row_parts: usize,
    /// Parts that the panels of a group are split into, over tasks.
    pub panel_parts: usize,
    target: Target,
}

impl Nest {
    /// Cuts a product of `rows` × `columns`. `row_bytes` is what one row adds to the working set; `parts` how many tasks are wanted.
    pub fn new(mac: Mac, target: &Target, rows: usize, columns: usize, depth: Vec<KSegment>, row_bytes: usize, parts: usize) -> Nest {
        let steps: usize = depth.iter().map(KSegment::depth).sum();
        let groups = schedule::product(&mac.vector(target), mac.lanes(), rows, columns, steps);
        let mut nest = Nest {
            mac,
            groups,
            depth,
            k_block: None,
            rows,
            row_bytes,
            packed_at_runtime: false,
            panels_exceed_l2: false,
            row_parts: 1,
            panel_parts: 1,
            target: *target,
        };
        let tiles = nest.groups.iter().map(|g| g.1.tiles).max().unwrap_or(1);
        let panels = nest.groups.iter().map(|g| g.0.panels).max().unwrap_or(1);
        let (most_rows, most_panels) = (tiles.div_ceil(2).max(1), panels.max(1));
        // Every part of the rows reads all panels: where those are the larger side and beyond the second-level cache, they are split first.
        if nest.panel_bytes() > target.l2.max(2 * rows * row_bytes) {
            nest.panel_parts = parts.clamp(1, most_panels);
            nest.row_parts = (parts / nest.panel_parts).clamp(1, most_rows);
        } else {
            nest.row_parts = parts.clamp(1, most_rows);
            nest.panel_parts = (parts / nest.row_parts).clamp(1, most_panels);
        }
        if let Some((count, unit)) = nest.depth.first().and_then(|s| Some((s.loops.first()?.0, s.depth() / s.loops.first()?.0))) {
            let step_bytes = nest.groups.iter().map(|g| g.0.vecs).max().unwrap_or(1) * mac.panel().bytes();
            let block = schedule::depth_block(target, steps, unit, step_bytes, rows / nest.row_parts * row_bytes);
            nest.k_block = block.map(|steps| (steps / unit).max(1)).filter(|&k_block| k_block < count);
            if let Some(k_block) = nest.k_block {
                nest.row_bytes = row_bytes * k_block / count;
            }
        }
        nest.panels_exceed_l2 = nest.panel_bytes() >= target.l2 / 2;
        nest
    }

    /// The same for panels of which these are only a part: whether all of them lie beyond the second-level cache.
    pub fn panels_exceed_l2(mut self, panels_exceed_l2: bool) -> Nest {
        self.panels_exceed_l2 = panels_exceed_l2;
        self
    }

    /// The same for panels that are packed at run time, when they are needed: the reduction is not split and blocks have many rows, so that each
    /// panel is packed seldom.
    pub fn packed_at_runtime(mut self) -> Nest {
        const ROWS: usize = 64;
        self.k_block = None;
        self.row_bytes = self.row_bytes.min(self.target.l2 / 2 / ROWS);
        self.packed_at_runtime = true;
        self
    }

    /// The same, with the reduction read in `STREAMS` places at once where every element of a panel is used by one tile only: such a product
    /// is as fast as memory, which serves several streams faster than one.
    pub fn streamed(mut self) -> Nest {
        const LEAST: usize = 8;
        let single = self.groups.iter().all(|(_, r)| r.tiles <= 1);
        let Some(&KSegment { start, ref loops, ref unrolled, streams: 1 }) =
            self.depth.first().filter(|_| single && self.k_block.is_none())
        else {
            return self;
        };
        let [(count, stride)] = loops[..] else { return self };
        let each = count / STREAMS;
        // Streams are told apart by displacements, of which rows may take half.
        let reach = STREAMS * each * unrolled.iter().map(|r| r.len).sum::<usize>() * schedule::WIDEST * self.mac.panel().bytes();
        if each < LEAST || reach.max(STREAMS * each * stride.unsigned_abs() as usize) > i32::MAX as usize / 4 {
            return self;
        }
        let mut depth = vec![KSegment { start, loops: vec![(each, stride)], unrolled: unrolled.clone(), streams: STREAMS }];
        let rest = count - STREAMS * each;
        if rest > 0 {
            let start = start + (STREAMS * each) as i64 * stride;
            depth.push(KSegment { start, loops: vec![(rest, stride)], unrolled: unrolled.clone(), streams: 1 });
        }
        depth.extend(self.depth.drain(1..));
        self.depth = depth;
        self
    }

    /// The same for so few rows that they are best done as one block, with the whole depth at once.
    pub fn at_once(mut self) -> Nest {
        (self.k_block, self.row_bytes) = (None, 0);
        self
    }

    /// Cycles that it takes by estimate.
    pub fn cycles(&self) -> f64 {
        let (v, lanes, steps) = (&self.mac.vector(&self.target), self.mac.lanes(), self.steps());
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
    pub fn k_block(&self) -> Option<usize> {
        self.k_block
    }

    /// Bytes of temporary memory for partial sums, for all tasks together.
    pub fn partial_bytes(&self) -> usize {
        self.k_block.map_or(0, |_| self.partial_offset(self.groups.len()))
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
        self.steps() * group.vecs * self.mac.panel().bytes()
    }

    /// Panel `index` of a group of the packed panels at `w`, and bytes from one step to the next.
    pub fn packed_panel(&self, b: &mut Builder, w: Val, group: usize, index: Val) -> (Val, i64) {
        let g = &self.groups[group].0;
        let first = b.offset_int(w, self.panel_offset(group) as i64);
        (b.element(first, index, self.one_panel_bytes(g)), (g.vecs * self.mac.panel().bytes()) as i64)
    }

    /// Steps of the reduction.
    pub fn steps(&self) -> usize {
        self.depth.iter().map(KSegment::depth).sum()
    }

    /// Packs a constant: `at` gives the index in `data` of an element of the reduction and a column. What does not exist is 0.
    pub fn pack(&self, data: &[u8], at: impl Fn(usize, usize) -> Option<usize>) -> Vec<u8> {
        let (bytes, k_step) = (self.mac.product.panel.bytes(), self.mac.k_step());
        let mut out = vec![0; self.panel_bytes()];
        let mut slots = out.chunks_exact_mut(bytes);
        for (g, _) in &self.groups {
            let width = g.vecs * self.mac.lanes();
            for panel in 0..g.panels {
                let first = g.first + panel * width;
                let exist = if panel + 1 == g.panels { width - self.mac.lanes() + g.last } else { width };
                for step in 0..self.steps() {
                    for column in 0..width {
                        for k in step * k_step..(step + 1) * k_step {
                            let slot = slots.next().expect("panel_bytes counts these elements");
                            if let Some(i) = (column < exist).then(|| at(k, first + column)).flatten() {
                                slot.copy_from_slice(&data[i * bytes..][..bytes]);
                            }
                        }
                    }
                }
            }
        }
        out
    }

    /// The parts of the reduction, one after the other.
    fn for_k_blocks(&self, b: &mut Builder, body: impl FnOnce(&mut Builder, Option<KBlock>)) {
        let Some(k_block) = self.k_block else {
            return body(b, None);
        };
        let (count, stride) = self.depth[0].loops[0];
        let (zero, end) = (b.index(0), b.index(count));
        b.for_range(zero, end, k_block as i64, &[], |b, at, _| {
            let to = b.add_int(at, k_block as i64);
            let to = b.bin(Bin::MinS, to, end);
            body(b, Some(KBlock { at, to, stride }));
            vec![]
        });
    }

    /// Bytes of a panel that are read at once by a tile.
    fn pass_bytes(&self, group: &Group) -> usize {
        let Some(k_block) = self.k_block else {
            return self.one_panel_bytes(group);
        };
        let segment = &self.depth[0];
        segment.depth() / segment.loops[0].0 * k_block * group.vecs * self.mac.panel().bytes()
    }
}
