//! Which weights stay: masks of a pattern.

use super::matrix::Matrix;

/// How zeros are grouped. Weights are inputs × outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Any weight may be zero.
    Any,
    /// Aligned groups of this many neighbouring outputs of one input.
    Outputs(usize),
    /// Aligned groups of this many neighbouring inputs of one output.
    Inputs(usize),
    /// At most `keep` of each aligned group of `of` inputs of one output; the density follows from it.
    Of {
        /// Weights that stay.
        keep: usize,
        /// Weights of a group.
        of: usize,
    },
}

/// Where a weight may differ from zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    rows: usize,
    kept: Vec<bool>,
}

impl Mask {
    /// The weights that are not zero.
    pub fn of(w: &Matrix) -> Mask {
        Mask { rows: w.nrows(), kept: w.iter().map(|w| *w != 0.0).collect() }
    }

    /// The groups of the largest sums of `scores`, so many that about `density` of the weights stay. Weights below the first `free` rows always stay.
    pub fn best(scores: &Matrix, pattern: Pattern, density: f64, free: usize) -> Mask {
        let (rows, columns) = scores.shape();
        let mut kept = vec![false; rows * columns];
        for c in 0..columns {
            kept[c * rows + free..(c + 1) * rows].fill(true);
        }
        // Weights are numbered as they are stored: the inputs of one output are neighbours.
        let mut groups: Vec<(f64, Vec<usize>)> = vec![];
        let mut group = |places: Vec<usize>| groups.push((places.iter().map(|&i| scores[i]).sum(), places));
        match pattern {
            Pattern::Of { keep, of } => {
                for c in 0..columns {
                    for first in (0..free).step_by(of) {
                        let mut places: Vec<usize> = (first..(first + of).min(free)).map(|r| c * rows + r).collect();
                        places.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
                        places.iter().take(keep).for_each(|&i| kept[i] = true);
                    }
                }
                return Mask { rows, kept };
            }
            Pattern::Any => (0..columns).for_each(|c| (0..free).for_each(|r| group(vec![c * rows + r]))),
            Pattern::Inputs(v) => {
                (0..columns).for_each(|c| (0..free).step_by(v).for_each(|r| group((r..(r + v).min(free)).map(|r| c * rows + r).collect())));
            }
            Pattern::Outputs(v) => {
                for first in (0..columns).step_by(v) {
                    (0..free).for_each(|r| group((first..(first + v).min(columns)).map(|c| c * rows + r).collect()));
                }
            }
        }
        groups.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut left = (density * (free * columns) as f64).round() as usize;
        for (_, places) in groups {
            if places.len() > left {
                break;
            }
            left -= places.len();
            places.into_iter().for_each(|i| kept[i] = true);
        }
        Mask { rows, kept }
    }

    /// Lets all weights below the first `free` rows stay.
    pub fn keep_below(&mut self, free: usize) {
        self.kept.chunks_mut(self.rows.max(1)).for_each(|column| column[free..].fill(true));
    }

    /// What both masks let stay.
    pub fn and(&self, other: &Mask) -> Mask {
        Mask { rows: self.rows, kept: self.kept.iter().zip(&other.kept).map(|(a, b)| *a && *b).collect() }
    }

    /// Whether a weight stays.
    pub fn keeps(&self, row: usize, column: usize) -> bool {
        self.kept[column * self.rows + row]
    }

    /// The fraction of the weights that stay.
    pub fn density(&self) -> f64 {
        self.kept.iter().filter(|k| **k).count() as f64 / self.kept.len().max(1) as f64
    }

    /// The weights with zeros where none may be.
    pub fn applied(&self, w: &Matrix) -> Matrix {
        Matrix::from_iterator(w.nrows(), w.ncols(), w.iter().zip(&self.kept).map(|(w, k)| if *k { *w } else { 0.0 }))
    }
}
