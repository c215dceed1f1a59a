//! Few rows: columns in lanes, each with a list of its own of the elements of the row that it needs.
//!
//! A panel is as many columns as a vector has lanes. An entry of its list has a place in the row and a weight for each lane: the elements are
//! brought together in a register, and the sums never leave theirs. Lists of a panel are as long as the longest of them; the others end in
//! entries of weight 0, whose place is a zero behind the copy of the row that each task makes.

use super::{Matrix, SparsityPattern, Steps, full_parts};
use crate::kernels::lib::gemm::Mac;
use crate::kernels::lib::loops;
use crate::kernels::lib::store::Output;
use crate::schedule::{self, Tile};
use dnnc_kir::{Builder, Conv, Elem, Ty, Val};
use dnnc_targets::Target;

/// Entries in the body of the loop over a list; the rest are done one by one.
const UNROLL: usize = 4;
/// Bytes that weights are asked for ahead of their use.
const AHEAD: usize = 2048;
/// Cycles of one lane of an entry: 17 loads of which 9 go to vector registers, and 7 moves between lanes, for 8 of them (0.75 on Zen 3).
const CYCLES: f64 = 0.75;
/// Cycles around the list of a panel.
const PANEL: f64 = 40.0;
/// Bytes of an entry of the table of panels: first entry, unrolled bodies, single entries.
const ENTRY: usize = 3 * 8;

/// A product with a constant whose zeros are left out.
pub struct GatherSpmv {
    mac: Mac,
    /// The steps at which each column is not 0.
    columns: Vec<Steps>,
    steps: usize,
    parts: usize,
    /// Predicted nanoseconds for a row.
    pub ns: f64,
}

/// The pointers that the kernel needs: the constants of [`GatherSpmv::constants`] and scratch memory of [`GatherSpmv::scratch_bytes`].
pub struct Given {
    /// Panels, places, weights.
    pub tables: [Val; 3],
    /// The copy of the row.
    pub copy: Val,
}

impl GatherSpmv {
    /// Takes a matrix in `parts` tasks at most.
    pub fn new(mac: Mac, target: &Target, m: &Matrix, support: &SparsityPattern, parts: usize) -> GatherSpmv {
        let lanes = mac.lanes();
        let columns = support.columns.clone();
        let panels = columns.len().div_ceil(lanes);
        let parts = full_parts(panels, parts);
        let gather = GatherSpmv { mac, columns, steps: m.steps, parts, ns: 0.0 };
        let (entries, bytes) = (gather.lengths().sum::<usize>() * lanes, gather.bytes());
        let cycles = (entries as f64 * CYCLES).max(bytes as f64 / schedule::bytes_per_cycle(target, bytes)) + panels as f64 * PANEL;
        GatherSpmv { ns: cycles * 1e3 / target.mhz as f64, ..gather }
    }

    /// Name of the algorithm.
    pub fn name(&self) -> String {
        "sparse 1x1, gather".into()
    }

    /// Number of tasks.
    pub fn tasks(&self) -> usize {
        self.parts
    }

    /// Type of a place in the row.
    fn place(&self) -> Ty {
        if self.steps < 1 << 16 { Ty::scalar(Elem::I16) } else { Ty::I32 }
    }

    /// Entries of each panel.
    fn lengths(&self) -> impl Iterator<Item = usize> {
        self.columns.chunks(self.mac.lanes()).map(|panel| panel.iter().map(Steps::len).max().unwrap_or(0))
    }

    /// Bytes of places and weights.
    pub fn bytes(&self) -> usize {
        self.lengths().sum::<usize>() * self.mac.lanes() * (4 + self.place().bytes())
    }

    /// Bytes of scratch memory of a task: a copy of the row, and a vector of zeros.
    pub fn scratch_bytes(&self) -> usize {
        self.steps * 4 + self.mac.ty.bytes()
    }

    /// The encoded matrix: table of panels; places; weights.
    pub fn constants(&self, m: &Matrix) -> Vec<Vec<u8>> {
        let lanes = self.mac.lanes();
        let (mut table, mut places, mut weights) = (vec![], vec![], vec![]);
        let mut first = 0;
        for (panel, (columns, length)) in self.columns.chunks(lanes).zip(self.lengths()).enumerate() {
            for field in [first, length / UNROLL, length % UNROLL] {
                table.extend((field as u64).to_le_bytes());
            }
            first += length;
            let mut lists: Vec<_> = columns.iter().map(Steps::iter).collect();
            for _ in 0..length {
                for lane in 0..lanes {
                    let step = lists.get_mut(lane).and_then(Iterator::next);
                    let place = step.unwrap_or(self.steps) as u32;
                    places.extend(&place.to_le_bytes()[..self.place().bytes()]);
                    weights.extend(step.map_or(0.0, |step| m.at(step, panel * lanes + lane)).to_le_bytes());
                }
            }
        }
        vec![table, places, weights]
    }

    /// Emits the product of one row that begins at `x`; `part` is the number of the task within `0..tasks()`, `row` that of the row.
    pub fn emit(&self, b: &mut Builder, part: Val, x: Val, row: Val, given: &Given, out: &Output) {
        let (ty, lanes) = (self.mac.ty, self.mac.lanes());
        let Given { tables: [table, places, weights], copy } = *given;
        loops::each_element(b, &[x, copy], self.steps, ty, |b, at, i, count| {
            let v = b.load_part(ty, at[0], (i * 4) as i32, count);
            b.store_part(v, at[1], (i * 4) as i32, count);
        });
        let zero = b.int(ty, 0);
        b.store(zero, copy, (self.steps * 4) as i32);
        let panels = self.columns.len().div_ceil(lanes);
        let (from, to) = loops::part_range(b, part, self.parts, panels);
        let (place, none) = (self.place(), b.index(0));
        let panel = |b: &mut Builder, panel: Val, exist: usize| {
            let entry = b.element(table, panel, ENTRY);
            let field = |b: &mut Builder, i: usize| b.load(Ty::I64, entry, 8 * i as i32);
            let first = field(b, 0);
            let mut state = vec![b.element(places, first, lanes * place.bytes()), b.element(weights, first, ty.bytes()), zero];
            for (i, steps) in [(1, UNROLL), (2, 1)] {
                let count = field(b, i);
                state = b.for_range(none, count, 1, &state, |b, _, state| {
                    let (places, weights, mut sum) = (state[0], state[1], state[2]);
                    if steps > 1 {
                        (0..steps * ty.bytes()).step_by(64).for_each(|line| b.prefetch(weights, (AHEAD + line) as i32));
                    }
                    for step in 0..steps {
                        let elements: Vec<Val> = (0..lanes)
                            .map(|lane| {
                                let at = b.load(place, places, ((step * lanes + lane) * place.bytes()) as i32);
                                let at = b.conv(Conv::Zext, at, Ty::I64.elem);
                                let at = b.element(copy, at, 4);
                                b.load(Ty::scalar(ty.elem), at, 0)
                            })
                            .collect();
                        let element = joined(b, elements);
                        let weight = b.load(ty, weights, (step * ty.bytes()) as i32);
                        sum = self.mac.mac(b, element, weight, sum);
                    }
                    let places = b.offset_int(places, (steps * lanes * place.bytes()) as i64);
                    vec![places, b.offset_int(weights, (steps * ty.bytes()) as i64), sum]
                });
            }
            let column = b.mul_int(panel, lanes as i64);
            out.store(b, row, column, Tile { rows: 1, vecs: 1 }, exist, &[state[2]]);
        };
        loops::for_vectors(b, from, to, self.columns.len(), lanes, panel);
    }
}

/// Scalars side by side in one vector: pairs, pairs of pairs and so on.
fn joined(b: &mut Builder, mut parts: Vec<Val>) -> Val {
    while parts.len() > 1 {
        parts = parts.chunks(2).map(|pair| b.join(pair[0], pair[1])).collect();
    }
    parts[0]
}
