//! Panels of columns with lists of the steps that they need.
//!
//! A panel is one or a few vectors of columns side by side; it has the steps of the reduction at which any of its columns is not 0, each as the
//! offset of the element in a row, and the vectors of weights of those steps. A tile keeps `rows × vectors` accumulators; a step loads an
//! offset, the vectors of the panel and one element of each row. Where the steps lie in the row costs nothing, so neither do shuffles.

use super::{Matrix, SparsityPattern, Steps};
use crate::kernels::lib::gemm::{Mac, Pointers, Source};
use crate::kernels::lib::loops;
use crate::kernels::lib::store::Output;
use crate::schedule::{self, Rows, Tile};
use dnnc_kir::{Builder, Conv, Ty, Val};
use dnnc_targets::Target;

/// Widest panel, in vectors: wider ones seldom have their steps in common.
const WIDEST: usize = 4;
/// Steps in the body of the loop over a list; the rest are done one by one.
const UNROLL: usize = 4;
/// Accumulators that hide the latency of a multiply-add: tiles with fewer take turns with several sets.
const CHAINS: usize = 8;
/// Bytes that weights are asked for ahead of their use.
const AHEAD: usize = 2048;
/// Bytes of an entry of the table of panels: first column, where offsets and weights begin, unrolled bodies, single steps.
const ENTRY: usize = 5 * 8;

struct Panel {
    /// First vector of columns.
    first: usize,
    steps: Steps,
}

/// Panels of one width.
struct Group {
    vecs: usize,
    /// Lanes of the last vector that exist.
    last: usize,
    rows: Rows,
    panels: Vec<Panel>,
}

/// A product with a constant whose zeros are left out.
pub struct BlockSparse {
    mac: Mac,
    groups: Vec<Group>,
    row_bytes: usize,
    row_parts: usize,
    panel_parts: usize,
    /// Whether all panels are done with a tile before the next tile, instead of all tiles with a panel.
    by_tile: bool,
    /// The column of the matrix at each place.
    order: Vec<usize>,
    target: Target,
    /// Predicted nanoseconds for all rows.
    pub ns: f64,
}

/// The pointers that the kernel needs: the constants of [`BlockSparse::constants`].
pub struct Tables {
    /// Entries of panels, offsets, weights.
    pub params: [Val; 3],
}

impl BlockSparse {
    /// Cuts a product of `rows` rows with a matrix, whose columns are taken in the order of its support. `even`: rows of a tile lie evenly; `columns` are stored; `row_bytes` is what one row adds
    /// to the working set; `parts` how many tasks are wanted.
    pub fn new(
        mac: Mac,
        target: &Target,
        rows: usize,
        even: bool,
        support: &SparsityPattern,
        columns: usize,
        row_bytes: usize,
        parts: usize,
    ) -> BlockSparse {
        let lanes = mac.lanes();
        let blocks = support.blocks(lanes);
        // Each of the rows that do not lie evenly needs an address.
        let most = if even { usize::MAX } else { 6 };
        let height = |vecs: usize| Rows::new(rows, schedule::most_rows(&target.vector, vecs).min(most).max(1));
        let panel = |vecs: usize| schedule::listed_cycles(&target.vector, height(vecs), vecs);
        let narrow = columns % lanes;
        let whole = blocks.len() - usize::from(narrow > 0);
        let (mut cut, cycles) = cut(&blocks[..whole], &panel);
        if narrow > 0 {
            cut.push((whole, 1));
        }
        let mut groups: Vec<Group> = vec![];
        for (first, vecs) in cut {
            let last = if first == whole { narrow } else { lanes };
            let steps = blocks[first + 1..first + vecs].iter().fold(blocks[first].clone(), |a, b| a.with(b));
            let panel = Panel { first, steps };
            match groups.iter_mut().find(|g| g.vecs == vecs && g.last == last) {
                Some(group) => group.panels.push(panel),
                None => groups.push(Group { vecs, last, rows: height(vecs), panels: vec![panel] }),
            }
        }
        let tiles = groups.iter().map(|g| g.rows.tiles).max().unwrap_or(1);
        // Every tile reads all lists.
        let block_sparse = |g: &Group| g.panels.iter().map(|p| p.steps.len()).sum::<usize>() * (g.vecs * lanes * 4 + 4);
        let bytes: usize = groups.iter().map(block_sparse).sum();
        let cycles = cycles.max((bytes * tiles) as f64 / schedule::bytes_per_cycle(target, bytes));
        // Panel by panel, each reads the vectors of all rows that it has a step of; results are then written one after the other.
        let touched: usize = groups.iter().flat_map(|g| &g.panels).map(|p| p.steps.vectors(lanes) * lanes * 4 * rows).sum();
        let by_tile = touched > 2 * bytes * tiles;
        let panels = groups.iter().map(|g| g.panels.len()).max().unwrap_or(1);
        let row_parts = parts.min(tiles.div_ceil(2)).max(1);
        let panel_parts = (parts / row_parts).clamp(1, panels.max(1));
        let ns = cycles * 1e3 / target.mhz as f64;
        BlockSparse { mac, groups, row_bytes, row_parts, panel_parts, by_tile, order: support.order.clone(), target: *target, ns }
    }

    /// Name of the algorithm.
    pub fn name(&self) -> String {
        format!("sparse {}x1", self.mac.lanes())
    }

    /// Number of tasks.
    pub fn tasks(&self) -> usize {
        self.row_parts * self.panel_parts
    }

    fn block_tiles(&self, rows: &Rows) -> usize {
        schedule::row_block(&self.target, rows.tiles.div_ceil(self.row_parts), rows.high * self.row_bytes)
    }

    /// Most rows of a block.
    pub fn block_rows(&self) -> usize {
        self.groups.iter().map(|g| self.block_tiles(&g.rows) * g.rows.high).max().unwrap_or(0)
    }

    /// Where each column of the matrix is among those of the product.
    pub fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.order.len()];
        self.order.iter().enumerate().for_each(|(place, &column)| places[column] = place);
        places
    }

    /// The encoded matrix: table of panels, offsets, weights. `place` gives the bytes from the beginning of a row to the element of a step.
    pub fn constants(&self, m: &Matrix, place: impl Fn(usize) -> usize) -> Vec<Vec<u8>> {
        let lanes = self.mac.lanes();
        let (mut table, mut offsets, mut weights) = (vec![], vec![], vec![]);
        for group in &self.groups {
            for panel in &group.panels {
                let (first, count) = (panel.first * lanes, panel.steps.len());
                for field in [first, offsets.len(), weights.len(), count / UNROLL, count % UNROLL] {
                    table.extend((field as u64).to_le_bytes());
                }
                for step in panel.steps.iter() {
                    offsets.extend((place(step) as u32).to_le_bytes());
                    for column in first..first + group.vecs * lanes {
                        let weight = self.order.get(column).map_or(0.0, |&column| m.at(step, column));
                        weights.extend(weight.to_le_bytes());
                    }
                }
            }
        }
        vec![table, offsets, weights]
    }

    /// Emits the product; `part` is the number of the task within `0..tasks()`.
    pub fn emit(&self, b: &mut Builder, part: Val, source: &dyn Source, tables: &Tables, out: &Output) {
        let (row_part, panel_part) = loops::divmod(b, part, self.panel_parts);
        let mut entries = 0;
        for group in &self.groups {
            let panels = group.panels.len();
            let first_entry = entries;
            entries += panels;
            let (tile0, tile1) = loops::part_range(b, row_part, self.row_parts, group.rows.tiles);
            let (panel0, panel1) = loops::part_range(b, panel_part, self.panel_parts, panels);
            let block = self.block_tiles(&group.rows);
            let one = |b: &mut Builder, from: Val, to: Val| {
                let (first, end) = (loops::row_of(b, &group.rows, from), loops::row_of(b, &group.rows, to));
                let place = source.block(b, first, end, None);
                let product = |b: &mut Builder, panel: Val, row: Val, pointers: &Pointers, height: usize| {
                    let entry = b.add_int(panel, first_entry as i64);
                    let entry = b.element(tables.params[0], entry, ENTRY);
                    let field = |b: &mut Builder, i: usize| b.load(Ty::I64, entry, 8 * i as i32);
                    let (column, offsets, weights) = (field(b, 0), field(b, 1), field(b, 2));
                    let counts = [field(b, 3), field(b, 4)];
                    let offsets = b.offset(tables.params[1], offsets);
                    let weights = b.offset(tables.params[2], weights);
                    let tile = Tile { rows: height, vecs: group.vecs };
                    Pass { mac: self.mac, tile, last: group.last, row, column, pointers, offsets, weights, counts, source, out }.run(b);
                };
                let tiles = |b: &mut Builder, body: &dyn Fn(&mut Builder, Val, &Pointers, usize)| {
                    loops::by_height(b, &group.rows, from, to, |b, tile, height| {
                        let row = loops::row_of(b, &group.rows, tile);
                        let pointers = source.rows(b, place, row, height);
                        body(b, row, &pointers, height);
                    });
                };
                if self.by_tile {
                    tiles(b, &|b, row, pointers, height| {
                        loops::for_some(b, panel0, panel1, panels, |b, panel| product(b, panel, row, pointers, height));
                    });
                } else {
                    loops::for_some(b, panel0, panel1, panels, |b, panel| {
                        tiles(b, &|b, row, pointers, height| product(b, panel, row, pointers, height));
                    });
                }
            };
            loops::for_blocks(b, tile0, tile1, group.rows.tiles.div_ceil(self.row_parts), block, one);
        }
    }
}

/// Panels (first vector, vectors) that cover all blocks of one vector, and the cycles of all rows: of at most two widths, which keeps the code
/// short. `cycles` gives those of a panel of a width: one step, and all that is not a step.
fn cut(blocks: &[Steps], cycles: &dyn Fn(usize) -> (f64, f64)) -> (Vec<(usize, usize)>, f64) {
    let n = blocks.len();
    // Steps of the panels that begin at each vector, by width.
    let mut steps: Vec<Vec<f64>> = vec![];
    for first in 0..n {
        let mut all = blocks[first].clone();
        let widths = (1..=WIDEST.min(n - first)).map(|vecs| {
            all = all.with(&blocks[first + vecs - 1]);
            all.len() as f64
        });
        steps.push(widths.collect());
    }
    let cost: Vec<(f64, f64)> = (1..=WIDEST).map(cycles).collect();
    let mut best: Option<(f64, f64, Vec<(usize, usize)>)> = None;
    for wide in 1..=WIDEST {
        for narrow in 1..=wide {
            // Cheapest way to cover what begins at each vector.
            let mut way = vec![(0.0, 0); n + 1];
            for first in (0..n).rev() {
                let option = |&vecs: &usize| {
                    let rest = way.get(first + vecs)?.0;
                    let (step, panel) = cost[vecs - 1];
                    Some((steps[first][vecs - 1] * step + panel + rest, vecs))
                };
                let options = [wide, narrow].iter().filter_map(option).min_by(|a, b| a.0.total_cmp(&b.0));
                way[first] = options.unwrap_or((f64::INFINITY, 1));
            }
            let total = way[0].0;
            // A second width is code that must pay.
            let weighed = total * if wide == narrow { 1.0 } else { 1.03 };
            if total.is_finite() && best.as_ref().is_none_or(|b| weighed < b.0) {
                let mut cut = vec![];
                let mut first = 0;
                while first < n {
                    cut.push((first, way[first].1));
                    first += way[first].1;
                }
                best = Some((weighed, total, cut));
            }
        }
    }
    best.map_or((vec![], 0.0), |(_, total, cut)| (cut, total))
}

/// One panel times one tile of rows.
struct Pass<'a> {
    mac: Mac,
    tile: Tile,
    /// Lanes of the last vector that exist.
    last: usize,
    row: Val,
    column: Val,
    pointers: &'a Pointers,
    offsets: Val,
    weights: Val,
    /// Unrolled bodies and single steps.
    counts: [Val; 2],
    source: &'a dyn Source,
    out: &'a Output<'a>,
}

impl Pass<'_> {
    fn run(&self, b: &mut Builder) {
        let (ty, tile) = (self.mac.ty, self.tile);
        let size = tile.rows * tile.vecs;
        let chains = CHAINS.div_ceil(size).min(UNROLL);
        let nothing = b.int(ty, 0);
        let bias = self.source.bias(b, self.row, self.column, tile, self.last);
        let mut state = bias.unwrap_or_else(|| vec![nothing; size]);
        state.resize(size * chains, nothing);
        state.extend([self.offsets, self.weights]);
        let zero = b.index(0);
        for (count, steps) in self.counts.into_iter().zip([UNROLL, 1]) {
            state = b.for_range(zero, count, 1, &state, |b, _, state| {
                let (acc, at) = state.split_at(size * chains);
                let mut acc = acc.to_vec();
                // Few rows wait for the lists, and the prefetcher of the machine stops at the end of each page.
                if steps > 1 && size < CHAINS {
                    let bytes = steps * tile.vecs * ty.bytes();
                    (0..bytes).step_by(64).for_each(|line| b.prefetch(at[1], (AHEAD + line) as i32));
                }
                for step in 0..steps {
                    let set = &mut acc[step % chains * size..][..size];
                    self.step(b, at[0], at[1], step, set);
                }
                acc.push(b.offset_int(at[0], 4 * steps as i64));
                acc.push(b.offset_int(at[1], (steps * tile.vecs * ty.bytes()) as i64));
                acc
            });
        }
        let mut acc = state[..size].to_vec();
        for set in 1..chains {
            (0..size).for_each(|i| acc[i] = b.add(acc[i], state[set * size + i]));
        }
        self.out.store(b, self.row, self.column, tile, self.last, &acc);
    }

    /// One step: an element of each row times the vectors of the panel.
    fn step(&self, b: &mut Builder, offsets: Val, weights: Val, step: usize, acc: &mut [Val]) {
        let (ty, tile) = (self.mac.ty, self.tile);
        let offset = b.load(Ty::I32, offsets, 4 * step as i32);
        let offset = b.conv(Conv::Zext, offset, Ty::I64.elem);
        let weight = |b: &mut Builder, j: usize| b.load(ty, weights, ((step * tile.vecs + j) * ty.bytes()) as i32);
        let even = match self.pointers {
            Pointers::Even(p, stride) => Some((b.offset(*p, offset), *stride)),
            Pointers::Each(_) => None,
        };
        let element = |b: &mut Builder, i: usize| match (even, self.pointers) {
            (None, Pointers::Each(each)) => {
                let p = b.offset(each[i], offset);
                self.mac.splat(b, ty, p, 0)
            }
            (Some((p, stride)), _) => self.mac.splat(b, ty, p, (i as i64 * stride) as i32),
            (None, Pointers::Even(..)) => unreachable!("even rows have one address"),
        };
        if tile.rows >= tile.vecs {
            let w: Vec<Val> = (0..tile.vecs).map(|j| weight(b, j)).collect();
            for i in 0..tile.rows {
                let x = element(b, i);
                (0..tile.vecs).for_each(|j| acc[i * tile.vecs + j] = self.mac.mac(b, x, w[j], acc[i * tile.vecs + j]));
            }
        } else {
            let x: Vec<Val> = (0..tile.rows).map(|i| element(b, i)).collect();
            for j in 0..tile.vecs {
                let w = weight(b, j);
                (0..tile.rows).for_each(|i| acc[i * tile.vecs + j] = self.mac.mac(b, x[i], w, acc[i * tile.vecs + j]));
            }
        }
    }
}
