//! Tiles and blocks by arithmetic over the facts of a target. Generators ask here and invent nothing.

use crate::unit::Options;
use dnnc_targets::{Target, Vector};

/// Rows × vectors of accumulators that a multiply-add tile keeps in registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tile {
    /// Rows.
    pub rows: usize,
    /// Vectors a row.
    pub vecs: usize,
}

/// Panels of equal width that cover some of the columns of a product.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group {
    /// First column.
    pub first: usize,
    /// Vectors a panel.
    pub vecs: usize,
    /// Number of panels.
    pub panels: usize,
    /// Columns of the last vector of the last panel that exist; a group where that is not all has one panel.
    pub last: usize,
}

/// Rows cut into tiles of two neighbouring heights: no tile is much smaller than the registers allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rows {
    /// Rows of the higher tiles, which come first.
    pub high: usize,
    /// Number of tiles with `high` rows; the others have one row less.
    pub high_tiles: usize,
    /// Number of all tiles.
    pub tiles: usize,
}

/// Lanes of elements of so many bytes in a vector of the target.
pub fn lanes(v: &Vector, bytes: usize) -> usize {
    (v.bits / 8 / bytes).max(1)
}

/// Widest panel in vectors, which one row (a vector times a matrix) uses to keep enough chains busy.
pub const WIDEST: usize = 8;

impl Tile {
    /// Registers in use at once: accumulators, the shorter side of the outer product and one of the longer. Where all operands lie in registers
    /// they are loaded while others are in use, and an allocator that has not two to spare keeps an accumulator in memory.
    fn registers(self, v: &Vector) -> usize {
        let operands = if v.by_element { self.rows + self.vecs + 2 } else { self.rows.min(self.vecs) + 1 };
        self.rows * self.vecs + operands
    }

    /// Most rows with so many vectors that stay in registers; 0 when not even one row does.
    fn most_rows(v: &Vector, vecs: usize) -> usize {
        (1..v.registers).take_while(|&rows| Tile { rows, vecs }.registers(v) <= v.registers).last().unwrap_or(0)
    }

    /// Cycles of one step of the reduction: of arithmetic, loads or latency, what takes longest.
    fn step(self, v: &Vector, lanes: usize) -> f64 {
        let fmas = self.rows * self.vecs;
        let ops = if v.fma { 1 } else { 2 };
        let broadcasts = if v.by_element { self.rows as f64 / lanes as f64 } else { self.rows as f64 };
        let loads = (broadcasts + self.vecs as f64) / v.loads;
        ((fmas * ops) as f64 / (v.fma_per_cycle as f64 * v.code.sustained)).max(loads).max((v.latency * ops) as f64)
    }
}

/// Most rows of a tile with so many vectors that stay in registers; 0 when not even one row does.
pub fn most_rows(v: &Vector, vecs: usize) -> usize {
    Tile::most_rows(v, vecs)
}

/// Cycles of a panel of listed steps for all rows: of each of its steps, and of all that is not a step. A step has one load more than that of
/// a dense panel, for its offset, and elements of rows are never taken from a vector.
pub fn listed_cycles(v: &Vector, rows: Rows, vecs: usize) -> (f64, f64) {
    let tile = |rows: usize| {
        let ops = if v.fma { 1 } else { 2 };
        let arithmetic = (rows * vecs * ops) as f64 / (v.fma_per_cycle as f64 * v.code.sustained);
        arithmetic.max((rows + vecs + 1) as f64 / v.loads)
    };
    let (high, low) = (rows.high_tiles as f64, (rows.tiles - rows.high_tiles) as f64);
    (high * tile(rows.high) + low * tile(rows.high.saturating_sub(1)), rows.tiles as f64 * v.code.tile)
}

impl Rows {
    /// Tiles of at most `most` rows.
    pub fn new(rows: usize, most: usize) -> Rows {
        let tiles = rows.div_ceil(most);
        let low = rows / tiles.max(1);
        match rows - low * tiles {
            0 => Rows { high: low, high_tiles: tiles, tiles },
            more => Rows { high: low + 1, high_tiles: more, tiles },
        }
    }

    /// Cycles of all tiles with panels of `vecs` vectors, `depth` steps each.
    pub fn cycles(self, v: &Vector, vecs: usize, lanes: usize, depth: usize) -> f64 {
        let tile = |rows| Tile { rows, vecs }.step(v, lanes) * depth as f64 + v.code.tile;
        self.high_tiles as f64 * tile(self.high) + (self.tiles - self.high_tiles) as f64 * tile(self.high.saturating_sub(1))
    }
}

/// How a product of `rows` × `columns` with `depth` steps is cut: panels of at most two widths, so that few lanes and registers
/// are idle, each group with the tiles of its rows.
pub fn product(v: &Vector, lanes: usize, rows: usize, columns: usize, depth: usize) -> Vec<(Group, Rows)> {
    let vectors = columns.div_ceil(lanes);
    let options: Vec<(usize, Rows, f64)> = (1..=WIDEST.min(vectors))
        .filter(|&vecs| Tile::most_rows(v, vecs) > 0)
        .map(|vecs| {
            let rows = Rows::new(rows, Tile::most_rows(v, vecs));
            (vecs, rows, rows.cycles(v, vecs, lanes, depth))
        })
        .collect();
    let mut cuts: Vec<(f64, Vec<(usize, usize, Rows)>)> = vec![];
    for &(wide, wide_rows, wide_cycles) in &options {
        for &(narrow, narrow_rows, narrow_cycles) in options.iter() {
            let most = vectors / wide;
            for count in most.saturating_sub(narrow)..=most {
                let rest = vectors - count * wide;
                if count == 0 || !rest.is_multiple_of(narrow) || (rest > 0 && narrow == wide) {
                    continue;
                }
                let cycles = count as f64 * wide_cycles + (rest / narrow) as f64 * narrow_cycles;
                let groups = [(wide, count, wide_rows), (narrow, rest / narrow, narrow_rows)];
                cuts.push((cycles, groups.into_iter().filter(|g| g.1 > 0).collect()));
            }
        }
    }
    // Of those as good as the best, one group before two (less code), then the narrowest panels that still use an element of a row twice.
    let least = cuts.iter().map(|cut| cut.0).fold(f64::INFINITY, f64::min);
    cuts.retain(|cut| cut.0 <= least * 1.02);
    let best = cuts.into_iter().min_by_key(|(_, g)| (g.len(), g[0].0 == 1, g[0].0)).map(|cut| cut.1);
    let mut first = 0;
    let mut out = vec![];
    for (vecs, panels, rows) in best.unwrap_or_default() {
        let end = first + vecs * panels * lanes;
        if end > columns {
            if panels > 1 {
                out.push((Group { first, vecs, panels: panels - 1, last: lanes }, rows));
            }
            let group = Group { first: end - vecs * lanes, vecs, panels: 1, last: lanes - (end - columns) };
            out.push((group, rows));
        } else {
            out.push((Group { first, vecs, panels, last: lanes }, rows));
        }
        first = end;
    }
    out
}

/// Predicted nanoseconds of a product whose operands lie in the second-level cache.
pub fn product_ns(target: &Target, lanes: usize, rows: usize, columns: usize, depth: usize) -> f64 {
    let v = &target.vector;
    let cut = product(v, lanes, rows, columns, depth);
    let cycles: f64 = cut.iter().map(|(group, rows)| group.panels as f64 * rows.cycles(v, group.vecs, lanes, depth)).sum();
    cycles / target.ghz()
}

/// Bytes that a core reads a cycle, one after the other, from the level of the hierarchy that holds so many.
pub fn bytes_per_cycle(target: &Target, bytes: usize) -> f64 {
    match bytes {
        n if n <= target.l1d => target.bandwidth.l1,
        n if n <= target.l2 => target.bandwidth.l2,
        n if n <= target.l3 => target.bandwidth.l3,
        _ => target.memory_mb_s as f64 / 1e3 / target.ghz(),
    }
}

/// A tile of a sliding window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowTile {
    /// Rows of the result × pixels.
    pub tile: Tile,
    /// Whether the weights stay in registers.
    pub held: bool,
}

/// Rows × pixels of windows with so many weights (0 for pooling) that are computed together: two rows share most of what they read.
pub fn window_tile(v: &Vector, weights: usize) -> WindowTile {
    const ROWS: usize = 2;
    /// More pixels would only make the code longer.
    const MOST: usize = 12;
    // One register for an element of the input, one for a weight that is not held.
    let held = weights + 2 * ROWS < v.registers;
    let free = if held { v.registers - weights - 1 } else { v.registers - 3 };
    WindowTile { tile: Tile { rows: ROWS, vecs: free.min(MOST) / ROWS }, held }
}

/// Steps of the reduction after which tiles leave their partial sums, when all rows that a task has read for the whole depth (`row_bytes`) are too
/// many for half of the second-level cache: then fewer steps of more rows meet each panel. The part of the panel in use fits the first level.
/// `None` when the whole depth is best done at once; `unit` is the number of steps that cannot be parted.
pub fn depth_block(target: &Target, depth: usize, unit: usize, step_bytes: usize, row_bytes: usize) -> Option<usize> {
    let most = (target.l1d / step_bytes.max(1)).max(1);
    if depth * 2 <= most * 3 || row_bytes <= target.l2 / 2 {
        return None;
    }
    // This part of a panel, the next one that is asked for ahead, and the rows of a tile share the first level.
    let parts = depth.div_ceil((most / 2).max(1));
    let block = depth.div_ceil(parts).next_multiple_of(unit.max(1));
    (block < depth).then_some(block)
}

/// Tiles done with one panel before the next, so that their rows stay in half of the second-level cache.
pub fn row_block(target: &Target, tiles: usize, tile_bytes: usize) -> usize {
    let most = (target.l2 / 2 / tile_bytes.max(1)).max(4);
    tiles.div_ceil(tiles.div_ceil(most).max(1)).max(1)
}

/// Queries and keys of attention that are done at once, for keys of `key_bytes` with their values.
///
/// Keys: all, unless they are several times what fits the second-level cache; then as many as fit half of it. When queries see only some keys
/// (`causal`), smaller blocks leave out more. Queries: as many as have their scores in half of the first-level cache, or in a
/// quarter of the second where keys must come from there; at least `parts` blocks where there are enough.
pub fn attention(
    target: &Target,
    (queries, keys): (usize, usize),
    key_bytes: usize,
    score_bytes: usize,
    causal: bool,
    parts: usize,
) -> (usize, usize) {
    /// About the rows of one tile.
    const LEAST: usize = 6;
    /// A multiple of the lanes of every target.
    const KEYS: usize = 32;
    let fit = target.l2 / 2 / key_bytes.max(1);
    let (most, at_once) = if causal { (fit / 2, fit / 2) } else { (fit, 4 * fit) };
    let (most, at_once) = (most.max(KEYS), at_once.max(KEYS));
    // Few queries meet each key once.
    let one = keys <= at_once || queries <= 4 * LEAST;
    let block = if one { keys } else { keys.div_ceil(keys.div_ceil(most)).next_multiple_of(KEYS) };
    let memory = if block * key_bytes > 2 * target.l1d { target.l2 / 4 } else { target.l1d / 2 };
    let rows = (memory / (block * score_bytes).max(1)).max(LEAST);
    let blocks = queries.div_ceil(rows).max(parts.min(queries / LEAST)).max(1);
    (queries.div_ceil(blocks), block)
}

/// Nanoseconds in which element-wise code reads and writes so many bytes, which stay in the level of the hierarchy that holds them.
pub fn stream_ns(target: &Target, bytes: usize) -> f64 {
    let [l1, l2, l3] = target.bandwidth.stream;
    let per_cycle = match bytes {
        n if n <= target.l1d => l1,
        n if n <= target.l2 => l2,
        n if n <= target.l3 => l3,
        _ => return from_memory(target, bytes as f64),
    };
    bytes as f64 / (per_cycle * target.ghz())
}

/// Nanoseconds of scalar operations that are done in all lanes of f32, a register a cycle.
pub fn lanes_ns(target: &Target, operations: f64) -> f64 {
    operations / (lanes(&target.vector, 4) as f64 * target.ghz())
}

/// Nanoseconds of a product of so many that reads `weights` bytes of constants and moves `images` bytes of operands and results: those that stay
/// in the second-level cache cost nothing more. Of a network of large weights little is in a cache at its next run.
pub fn fed_ns(target: &Target, options: &Options, work: f64, weights: usize, images: usize) -> f64 {
    let constants = bring(target, weights as f64, weights.max(2 * options.weights) as f64);
    beside(target, work, constants + bring(target, images as f64, images as f64))
}

/// Nanoseconds to bring bytes from where a working set of that size stays: nothing within most of the second-level cache.
fn bring(target: &Target, bytes: f64, set: f64) -> f64 {
    match set {
        _ if set <= 0.75 * target.l2 as f64 => 0.0,
        _ if set <= 0.5 * target.l3 as f64 => bytes / (target.bandwidth.l3_beside * target.ghz()),
        _ => from_memory(target, bytes),
    }
}

fn from_memory(target: &Target, bytes: f64) -> f64 {
    bytes * 1e3 / target.memory_mb_s as f64
}

/// Nanoseconds of multiply-adds for which panels are fetched ahead: most of the shorter hides behind the longer.
fn beside(target: &Target, work: f64, fetch: f64) -> f64 {
    work.max(fetch) + target.code.exposed * work.min(fetch)
}

/// How a convolution by Winograd's algorithm is cut.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Winograd {
    /// Tiles of a block.
    pub tiles: usize,
    /// Columns computed for all points before they are transformed back.
    pub columns: usize,
    /// Whether one block is all, transformed by a kernel of its own.
    pub apart: bool,
    /// Predicted nanoseconds on one core.
    pub ns: f64,
}

/// The cut of least predicted time for so many tiles of `inner` pixels that give `out`, each down and across.
pub fn winograd(
    target: &Target,
    options: &Options,
    inner: [usize; 2],
    out: [usize; 2],
    tiles: usize,
    channels: usize,
    outputs: usize,
) -> Winograd {
    let v = &target.vector;
    let lanes = lanes(v, 4);
    let points = inner[0] * inner[1];
    // There is one pass less along an axis of one pixel.
    let (forth, back) = match inner.contains(&1) {
        true => (2 * points, points + out[0] * out[1]),
        false => (2 * points, (inner[0] + out[0]) * (inner[1] + out[1])),
    };
    let moves = channels.div_ceil(lanes) * forth + outputs.div_ceil(lanes) * back;
    let transforms = (tiles * moves) as f64 * target.code.transform * 2.0 / v.fma_per_cycle as f64 / target.ghz();
    let weights = (points * channels * outputs * 4) as f64;
    let threads = options.threads.max(1);
    let mut best: Option<Winograd> = None;
    for most in [6, 12, 18, 24, 36, 48, 72, 96, 144, 192, tiles] {
        let blocks = tiles.div_ceil(most);
        let block = tiles.div_ceil(blocks);
        for width in [16, 32, 64, 128, 256, outputs].map(|width| width.min(outputs).next_multiple_of(lanes)) {
            let parts = outputs.div_ceil(width);
            let apart = blocks == 1;
            let tasks = if apart { parts } else { blocks };
            let transformed = (points * block * channels * 4) as f64;
            let products = (points * block * width * 4) as f64;
            let set = transformed + products + weights / parts as f64;
            let work = (blocks * points) as f64 * product_ns(target, lanes, block, outputs, channels);
            // Weights of a large network are new to the caches at first; transformed tiles are read for every part, products once.
            let first = bring(target, weights, weights.max((2 * options.weights) as f64));
            let fetch = first + bring(target, (blocks - 1) as f64 * weights, weights + set);
            let moved = blocks as f64 * (transformed * (1 + parts) as f64 + products * 2.0 * parts as f64);
            // Of the threads, in the last round of tasks.
            let idle = (tasks.div_ceil(threads) * threads) as f64 / tasks as f64;
            let ns = (transforms + beside(target, work, fetch) + bring(target, moved, set)) * idle;
            if best.is_none_or(|b| ns < b.ns) {
                best = Some(Winograd { tiles: block, columns: width, apart, ns });
            }
        }
    }
    best.expect("there are several")
}

/// Multiply-adds of the smallest task: about 2 µs, a few times what it takes to hand it over. Which steps are shared at all is settled later,
/// in `threads.rs`. Tests cut much finer.
const TASK_WORK: u64 = if cfg!(test) { 1 << 6 } else { 1 << 17 };

/// Number of tasks that so much work is cut into, at most `most`: one for one thread, else about four a thread.
pub fn tasks(options: &Options, work: u64, most: usize) -> usize {
    if options.threads <= 1 {
        return 1;
    }
    let worth = usize::try_from(work / TASK_WORK).unwrap_or(usize::MAX);
    worth.min(options.threads * 4).min(most).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dnnc_targets::find;

    fn tiles(target: &str, rows: usize, columns: usize) -> String {
        let v = &find(target).expect("a target of that name").vector;
        let lanes = lanes(v, 4);
        let show = |(g, r): &(Group, Rows)| {
            format!("{}x({}x{})+{}x({}x{})", r.high_tiles, r.high, g.vecs, r.tiles - r.high_tiles, r.high - 1, g.vecs)
        };
        product(v, lanes, rows, columns, 256).iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn tiles_fill_the_registers_and_leave_no_small_rest() {
        assert_eq!(tiles("x86-64-v3", 3136, 64), "521x(6x2)+2x(5x2)");
        assert_eq!(tiles("x86-64-v3", 49, 512), "4x(6x2)+5x(5x2)");
        assert_eq!(tiles("x86-64-v3", 48, 24), "12x(4x3)+0x(3x3)");
        assert_eq!(tiles("x86-64-v3", 1, 1024), "1x(1x8)+0x(0x8)");
        assert_eq!(tiles("aarch64", 64, 64), "8x(8x2)+0x(7x2)");
    }

    #[test]
    fn every_column_is_in_one_panel() {
        for target in ["x86-64-v3", "aarch64", "x86-64"] {
            let v = &find(target).expect("a target of that name").vector;
            for columns in 1..200 {
                for rows in [1, 2, 5, 49] {
                    let mut next = 0;
                    for (g, r) in product(v, 8, rows, columns, 64) {
                        assert_eq!(g.first, next);
                        next += g.panels * g.vecs * 8 - (8 - g.last);
                        assert!(g.last == 8 || g.panels == 1);
                        assert_eq!(r.high * r.high_tiles + (r.high - 1) * (r.tiles - r.high_tiles), rows);
                    }
                    assert_eq!(next, columns);
                }
            }
        }
    }
}
