//! What is kept of a layer's inputs.

use super::matrix::Matrix;
use nalgebra::{Cholesky, Dyn};

/// XᵀX of the inputs of a layer, in double precision, summed in the order in which they are given.
#[derive(Clone, Debug)]
pub struct Hessian {
    sum: Matrix,
    count: usize,
}

/// Rows that are multiplied at once.
const BLOCK: usize = 256;

impl Hessian {
    /// Of no inputs yet; a row has `width` of them.
    pub fn new(width: usize) -> Hessian {
        Hessian { sum: Matrix::zeros(width, width), count: 0 }
    }

    /// Adds rows of `width` inputs each.
    pub fn add(&mut self, rows: &[f32]) {
        let width = self.width();
        for block in rows.chunks(BLOCK * width.max(1)) {
            let n = block.len() / width;
            // Columns are samples here.
            let x = Matrix::from_iterator(width, n, block.iter().map(|v| f64::from(*v)));
            self.sum.gemm(1.0, &x, &x.transpose(), 1.0);
            self.count += n;
        }
    }

    /// Number of inputs of a row.
    pub fn width(&self) -> usize {
        self.sum.nrows()
    }

    /// Number of rows that were added.
    pub fn count(&self) -> usize {
        self.count
    }

    /// XᵀX + λI, where λ is `damping` of the mean of the diagonal.
    pub fn damped(&self, damping: f64) -> Matrix {
        let mean = self.sum.trace() / self.width().max(1) as f64;
        let lambda = (damping * mean).max(1e-12);
        let mut h = self.sum.clone();
        (0..self.width()).for_each(|i| h[(i, i)] += lambda);
        h
    }

    /// ‖X (a − b)‖².
    pub fn error(&self, a: &Matrix, b: &Matrix) -> f64 {
        let d = a - b;
        (&self.sum * &d).dot(&d)
    }

    /// ‖X w‖² without the part of the mean of each output: the signal that a layer gives. The last input is always 1.
    pub fn variance(&self, w: &Matrix) -> f64 {
        let total = (&self.sum * w).dot(w);
        let last = self.sum.row(self.width() - 1) * w;
        (total - last.norm_squared() / self.count.max(1) as f64).max(1e-30)
    }
}

/// H + λI and its inverse.
pub struct Factors {
    /// H + λI.
    pub h: Matrix,
    /// Its inverse.
    pub inverse: Matrix,
}

impl Factors {
    /// Of a Hessian; the damping grows until the factorisation succeeds.
    pub fn new(hessian: &Hessian, damping: f64) -> Factors {
        let mut damping = damping;
        loop {
            let h = hessian.damped(damping);
            if let Some(factor) = Cholesky::<f64, Dyn>::new(h.clone()) {
                return Factors { inverse: factor.inverse(), h };
            }
            damping = damping.max(1e-8) * 10.0;
        }
    }
}
