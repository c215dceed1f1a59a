//! Products with a constant that has zeros.
//!
//! Kernels are loops over encoded data, never an instruction stream of single non-zeros. [`block_sparse`] has panels of columns in lanes with a list of the
//! steps of the reduction that they need: for blocks of non-zeros along columns, and for groups whose channels lie anywhere. [`csc_rows`] has
//! rows in lanes: zeros may lie anywhere. Two are for few rows: [`gather`] has columns in lanes, each with its own list, [`scatter`] goes through
//! the matrix step by step and leaves out those at which the row is 0.

pub mod block_sparse;
pub mod csc_rows;
pub mod gather;
pub mod scatter;
#[cfg(test)]
mod tests;

use crate::unit::Options;
use dnnc_ir::{Tensor, Type};
use dnnc_kir::program::Density;

/// Constants with a larger share of non-zeros are taken as dense.
const DENSE: f64 = 0.8;

/// Density of f32 weights whose outputs are the first axis, or the last of matrices where `last` says so; none of anything else.
pub fn weight_density(weights: &Tensor, last: bool) -> Option<Density> {
    let (ty, shape) = (weights.ty().ty, &weights.ty().shape);
    if ty != Type::F32 || shape.len() < 2 || weights.is_empty() {
        return None;
    }
    let (columns, steps) =
        if last { (shape[shape.len() - 1], weights.len() / shape[shape.len() - 1]) } else { (shape[0], weights.len() / shape[0]) };
    let (step, column) = if last { (columns, 1) } else { (1, steps) };
    let m = Matrix { data: weights.values::<f32>(), steps, columns, step, column };
    Some(m.densities())
}

/// A constant right side of a product: steps of the reduction × columns.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Steps of the reduction.
    pub steps: usize,
    /// Columns.
    pub columns: usize,
    /// Elements from a step to the next.
    pub step: usize,
    /// Elements from a column to the next.
    pub column: usize,
}

impl Matrix<'_> {
    /// The element of a step and a column.
    pub fn at(&self, step: usize, column: usize) -> f32 {
        self.data[step * self.step + column * self.column]
    }

    /// Share of elements that are not 0.
    pub fn density(&self) -> f64 {
        let filled = self.data.iter().filter(|&&v| v != 0.0).count();
        filled as f64 / self.data.len().max(1) as f64
    }

    /// Shares that are not 0.
    pub fn densities(&self) -> Density {
        let support = SparsityPattern::of(self);
        let share = |width: usize| {
            let blocks = support.blocks(width);
            blocks.iter().map(Steps::len).sum::<usize>() as f64 / (blocks.len() * self.steps) as f64
        };
        Density { elements: share(1), fours: share(4), eights: share(8) }
    }

    /// Whether there are zeros enough to come into question, and the user lets them be left out.
    pub fn worth_leaving_out(&self, options: &Options) -> bool {
        options.sparse && !options.precise && self.density() < DENSE
    }
}

/// Where a matrix is not 0, column by column, perhaps in another order.
#[derive(Clone)]
pub struct SparsityPattern {
    /// Steps at which each column is not 0.
    columns: Vec<Steps>,
    /// The column of the matrix at each place.
    order: Vec<usize>,
}

impl SparsityPattern {
    /// Of a matrix as it is.
    pub fn of(m: &Matrix) -> SparsityPattern {
        let mut columns = vec![Steps(vec![0; m.steps.div_ceil(64)]); m.columns];
        // Along the data, whichever way they lie.
        let (steps, lie) = (m.steps, m.step < m.column);
        let mut note = |step: usize, column: usize| columns[column].0[step / 64] |= u64::from(m.at(step, column) != 0.0) << (step % 64);
        match lie {
            true => (0..m.columns).for_each(|column| (0..steps).for_each(|step| note(step, column))),
            false => (0..steps).for_each(|step| (0..m.columns).for_each(|column| note(step, column))),
        }
        SparsityPattern { columns, order: (0..m.columns).collect() }
    }

    /// With columns side by side that have many steps in common: in the order of a few hashes of their sets, each the least of the hashes of its
    /// members, which two sets share the more often the more alike they are.
    pub fn grouped(&self) -> SparsityPattern {
        const HASHES: u64 = 4;
        let least = |steps: &Steps, seed: u64| {
            let hash = |step: usize| {
                (step as u64 * HASHES + seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
            };
            steps.iter().map(hash).min()
        };
        let keys: Vec<Vec<Option<u64>>> = self.columns.iter().map(|c| (0..HASHES).map(|seed| least(c, seed)).collect()).collect();
        let mut places: Vec<usize> = (0..self.columns.len()).collect();
        places.sort_by(|&a, &b| keys[a].cmp(&keys[b]).then_with(|| self.columns[a].0.cmp(&self.columns[b].0)).then(a.cmp(&b)));
        SparsityPattern {
            columns: places.iter().map(|&p| self.columns[p].clone()).collect(),
            order: places.iter().map(|&p| self.order[p]).collect(),
        }
    }

    /// The steps at which any column of each block of `width` is not 0.
    fn blocks(&self, width: usize) -> Vec<Steps> {
        self.columns.chunks(width).map(|block| block[1..].iter().fold(block[0].clone(), |a, b| a.with(b))).collect()
    }
}

/// A set of steps of a reduction.
#[derive(Clone, Default)]
struct Steps(Vec<u64>);

impl Steps {
    fn len(&self) -> usize {
        self.0.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Number of vectors of `lanes` steps that have one of these.
    fn vectors(&self, lanes: usize) -> usize {
        let per_word = 64 / lanes;
        let some = |word: u64| (0..per_word).filter(|i| word >> (i * lanes) & (u64::MAX >> (64 - lanes)) != 0).count();
        self.0.iter().map(|&word| some(word)).sum()
    }

    fn with(&self, other: &Steps) -> Steps {
        Steps(self.0.iter().zip(&other.0).map(|(a, b)| a | b).collect())
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(i, &word)| (0..64).filter(move |b| word >> b & 1 == 1).map(move |b| i * 64 + b))
    }
}

/// As many of `parts` tasks as leave none without one of `pieces`.
fn full_parts(pieces: usize, parts: usize) -> usize {
    let pieces = pieces.max(1);
    pieces.div_ceil(pieces.div_ceil(parts.max(1)))
}
