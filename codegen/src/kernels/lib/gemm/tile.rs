//! The inner loops of a product: one panel times a block of rows.

use super::{KBlock, KSegment, Nest, Pointers, Source, UnrolledSteps};
use crate::kernels::lib::loops::{by_height, divmod, for_blocks, for_some, part_range, row_of};
use crate::kernels::lib::store::Output;
use crate::schedule::{Group, Rows, Tile};
use dnnc_kir::{Builder, Cmp, Val};
use std::collections::VecDeque;

impl Nest {
    /// Emits the nest. `part` is the number of the task within `0..tasks()`; `partial` the memory
    /// for partial sums, which tasks share.
    pub fn emit(&self, b: &mut Builder, part: Val, source: &dyn Source, out: &Output, partial: Option<Val>) {
        let (row_part, panel_part) = divmod(b, part, self.panel_parts);
        for (index, (group, rows)) in self.groups.iter().enumerate() {
            let (tile0, tile1) = part_range(b, row_part, self.row_parts, rows.tiles);
            let (panel0, panel1) = part_range(b, panel_part, self.panel_parts, group.panels);
            let block = self.block_tiles(rows);
            self.for_k_blocks(b, |b, k_block| {
                let one = |b: &mut Builder, from: Val, to: Val| {
                    let (first, end) = (row_of(b, rows, from), row_of(b, rows, to));
                    let place = source.block(b, first, end, k_block);
                    for_some(b, panel0, panel1, group.panels, |b, panel| {
                        let offset = b.mul_int(panel, (group.vecs * self.mac.lanes()) as i64);
                        let column = b.add_int(offset, group.first as i64);
                        let (weights, step) = source.panel(b, index, panel, column);
                        let width = group.vecs * self.mac.ty.bytes();
                        let partial = partial.filter(|_| k_block.is_some()).map(|memory| {
                            let first = b.offset_int(memory, self.partial_offset(index) as i64);
                            b.element(first, panel, self.rows * width)
                        });
                        let pass =
                            Pass { nest: self, group, rows, from, to, place, column, weights, step, source, out, partial, k_block, block };
                        pass.tiles(b);
                    });
                };
                let blocks = |b: &mut Builder| for_blocks(b, tile0, tile1, rows.tiles.div_ceil(self.row_parts), block, one);
                if self.row_parts <= rows.tiles {
                    return blocks(b);
                }
                // Of fewer tiles than parts some parts have none, and no rows to find.
                let some = b.cmp(Cmp::Lt, tile0, tile1);
                b.when(some, blocks);
            });
        }
    }
}

/// One panel times a block of rows.
pub struct Pass<'a> {
    pub nest: &'a Nest,
    pub group: &'a Group,
    pub rows: &'a Rows,
    /// Tiles.
    pub from: Val,
    pub to: Val,
    /// Where the rows of the block are found from.
    pub place: Val,
    pub column: Val,
    pub weights: Val,
    /// Bytes of the panel a step.
    pub step: i64,
    pub source: &'a dyn Source,
    pub out: &'a Output<'a>,
    /// The partial sums of the panel, when the reduction is parted.
    pub partial: Option<Val>,
    pub k_block: Option<KBlock>,
    /// Tiles of a block.
    pub block: usize,
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
    pub fn tiles(&self, b: &mut Builder) {
        by_height(b, self.rows, self.from, self.to, |b, tile, height| {
            let row = row_of(b, self.rows, tile);
            let ahead = self.ahead(b, tile);
            self.tile(b, row, Tile { rows: height, vecs: self.group.vecs }, ahead);
        });
    }

    /// Panels that do not all stay in the second-level cache are asked for one ahead: the prefetcher of the machine sees a panel end where
    /// the next begins only when that is wanted at once.
    fn ahead(&self, b: &mut Builder, tile: Val) -> Option<Ahead> {
        let packed = self.step == (self.group.vecs * self.nest.mac.panel().bytes()) as i64;
        if !packed || self.block < 3 || self.nest.packed_at_runtime || !self.nest.panels_exceed_l2 || self.nest.depth.is_empty() {
            return None;
        }
        let pass = self.nest.pass_bytes(self.group);
        let segment = &self.nest.depth[0];
        let bodies = pass / (segment.body() * self.step as usize).max(1);
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
        let Some(k_block) = self.k_block else {
            return self.weights;
        };
        let segment = &self.nest.depth[0];
        let skip = b.mul_int(k_block.at, (segment.depth() / segment.loops[0].0) as i64 * self.step);
        b.offset(self.weights, skip)
    }

    fn tile(&self, b: &mut Builder, row: Val, tile: Tile, ahead: Option<Ahead>) {
        let pointers = self.source.rows(b, self.place, row, tile.rows);
        let begin = |b: &mut Builder| {
            let bias = self.source.bias(b, row, self.column, tile, self.group.last);
            bias.unwrap_or_else(|| vec![b.int(self.nest.mac.ty, 0); tile.rows * tile.vecs])
        };
        let mut weights = self.weights_now(b);
        let Some(k_block) = self.k_block else {
            let mut acc = begin(b);
            for (i, segment) in self.nest.depth.iter().enumerate() {
                (acc, weights) = self.segment(b, tile, acc, &pointers, weights, segment, None, ahead.filter(|_| i == 0));
            }
            return self.out.store(b, row, self.column, tile, self.group.last, &acc);
        };
        // Partial sums of the tile, between chunks of the reduction.
        let ty = self.nest.mac.ty;
        let partial = self.partial.expect("memory for partial sums where there are chunks");
        let partial = b.element(partial, row, tile.vecs * ty.bytes());
        let disp = |i: usize| (i * ty.bytes()) as i32;
        let segment = &self.nest.depth[0];
        let (zero, end) = (b.index(0), b.index(segment.loops[0].0));
        let starts = b.cmp(Cmp::Eq, k_block.at, zero);
        let acc = b.branch(starts, begin, |b| (0..tile.rows * tile.vecs).map(|i| b.load(ty, partial, disp(i))).collect());
        let n = b.sub(k_block.to, k_block.at);
        let (acc, weights) = self.segment(b, tile, acc, &pointers, weights, segment, Some(n), ahead);
        let ends = b.cmp(Cmp::Eq, k_block.to, end);
        let back = b.mul_int(k_block.at, -k_block.stride);
        b.branch(
            ends,
            |b| {
                let pointers = match &pointers {
                    Pointers::Even(p, stride) => Pointers::Even(b.offset(*p, back), *stride),
                    Pointers::Each(ps) => Pointers::Each(ps.iter().map(|p| b.offset(*p, back)).collect()),
                };
                let (mut acc, mut weights) = (acc.clone(), weights);
                for segment in &self.nest.depth[1..] {
                    (acc, weights) = self.segment(b, tile, acc, &pointers, weights, segment, None, None);
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

    /// Accumulates a segment; gives the accumulators and where the panel goes on. `count` replaces that of the outermost loop.
    fn segment(
        &self,
        b: &mut Builder,
        tile: Tile,
        acc: Vec<Val>,
        pointers: &Pointers,
        weights: Val,
        segment: &KSegment,
        count: Option<Val>,
        ahead: Option<Ahead>,
    ) -> (Vec<Val>, Val) {
        let (rows, even): (Vec<Val>, Option<i64>) = match pointers {
            Pointers::Even(p, stride) => (vec![*p], Some(*stride)),
            Pointers::Each(ps) => (ps.clone(), None),
        };
        let rows = rows.into_iter().map(|p| b.offset_int(p, segment.start)).collect();
        let streams = Streams { count: segment.streams.max(1), rows: segment.stream_bytes(), steps: segment.stream_depth() };
        let state = self.level(b, tile, State { acc, rows, weights, ahead }, even, &segment.loops, &segment.unrolled, &streams, count);
        (state.acc, b.offset_int(state.weights, ((streams.count - 1) * streams.steps) as i64 * self.step))
    }

    /// The loops of a segment; of the result the rows are those of the last iteration.
    fn level(
        &self,
        b: &mut Builder,
        tile: Tile,
        state: State,
        even: Option<i64>,
        loops: &[(usize, i64)],
        unrolled: &[UnrolledSteps],
        streams: &Streams,
        count: Option<Val>,
    ) -> State {
        let Some((&(n, stride), inner)) = loops.split_first() else {
            return self.body(b, tile, state, even, unrolled, streams);
        };
        if n == 1 && count.is_none() {
            return self.level(b, tile, state, even, inner, unrolled, streams, None);
        }
        let (start, end) = (b.index(0), count.unwrap_or_else(|| b.index(n)));
        let out = b.for_range(start, end, 1, &state.carried(), |b, _, carried| {
            let now = state.with(carried);
            let rows: Vec<Val> = now.rows.clone();
            let next = self.level(b, tile, now, even, inner, unrolled, streams, None);
            let rows = rows.into_iter().map(|p| b.offset_int(p, stride)).collect();
            State { rows, ..next }.carried()
        });
        state.with(&out)
    }

    fn body(&self, b: &mut Builder, tile: Tile, state: State, even: Option<i64>, unrolled: &[UnrolledSteps], streams: &Streams) -> State {
        let State { mut acc, rows, weights, ahead } = state;
        let ahead = ahead.map(|ahead| {
            (0..ahead.step).step_by(self.nest.target.line).for_each(|line| b.prefetch(ahead.at, line as i32));
            Ahead { at: b.offset_int(ahead.at, ahead.step), ..ahead }
        });
        let mac = self.nest.mac;
        let mut feeds = vec![];
        for stream in 0..streams.count {
            let mut step = stream * streams.steps;
            for run in unrolled {
                // Where an element of a vector can be a factor, rows are read as vectors of steps.
                let contiguous = run.step == mac.lhs.bytes() as i64;
                let whole = if mac.by_element && contiguous { run.len / mac.lanes() * mac.lanes() } else { 0 };
                let mut at = 0;
                while at < run.len {
                    let steps = if at < whole { mac.lanes() } else { 1 };
                    let part = run.part.filter(|_| at + 1 == run.len);
                    feeds.push(Feed { disp: run.disp + stream as i64 * streams.rows + at as i64 * run.step, first: step, steps, part });
                    (at, step) = (at + steps, step + steps);
                }
            }
        }
        let row = |b: &mut Builder, feed: &Feed, i: usize| {
            let (ptr, disp) = match even {
                Some(stride) => (rows[0], (i as i64 * stride + feed.disp) as i32),
                None => (rows[i], feed.disp as i32),
            };
            match feed.part {
                Some(part) => mac.splat_part(b, ptr, disp, part),
                None if feed.steps > 1 => b.load(mac.ty, ptr, disp),
                None => mac.splat(b, mac.ty, ptr, disp),
            }
        };
        if mac.by_element {
            self.steps_ahead(b, tile, &mut acc, weights, &feeds, row);
        } else {
            feeds.iter().for_each(|feed| self.step(b, tile, &mut acc, weights, feed.first, |b, i| row(b, feed, i)));
        }
        let moved: usize = unrolled.iter().map(|r| r.len).sum();
        let weights = b.offset_int(weights, moved as i64 * self.step);
        State { acc, rows, weights, ahead }
    }

    /// Vector `j` of a step of the panel.
    fn weight(&self, b: &mut Builder, weights: Val, step: usize, j: usize, vecs: usize) -> Val {
        let mac = self.nest.mac;
        let panel = mac.panel();
        let exact = self.step != (vecs * panel.bytes()) as i64;
        let disp = (step as i64 * self.step) as i32 + (j * panel.bytes()) as i32;
        let count = if exact && j + 1 == vecs { self.group.last } else { panel.lanes as usize };
        b.load_part(panel, weights, disp, count)
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
    /// Elements of the step that exist, where not all do.
    part: Option<usize>,
}

/// How the streams of a segment lie: bytes from one to the next in a row, and steps in a panel.
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
