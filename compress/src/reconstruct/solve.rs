//! Solvers: weights on a support that keep the output.

use super::Matrix;
use super::hessian::Factors;
use super::support::{Mask, Pattern};
use nalgebra::{Cholesky, DVector, Dyn};

/// The weights on a support that minimise the output error, exactly: for each output the normal equations of its inputs.
pub fn least_squares(h: &Matrix, w: &Matrix, mask: &Mask) -> Matrix {
    let (rows, columns) = w.shape();
    let target = h * w;
    let mut out = Matrix::zeros(rows, columns);
    for c in 0..columns {
        let places: Vec<usize> = (0..rows).filter(|&r| mask.keeps(r, c)).collect();
        let part = Matrix::from_fn(places.len(), places.len(), |i, j| h[(places[i], places[j])]);
        let right = DVector::from_iterator(places.len(), places.iter().map(|&r| target[(r, c)]));
        let solved = Cholesky::<f64, Dyn>::new(part).map(|factor| factor.solve(&right));
        for (i, &r) in places.iter().enumerate() {
            out[(r, c)] = solved.as_ref().map_or(w[(r, c)], |s| s[i]);
        }
    }
    out
}

/// Inputs between two choices of a mask.
const BLOCK: usize = 128;

/// Optimal brain surgeon in the order of the inputs (Hassibi and Stork, 1993; Frantar and Alistarh, *SparseGPT*, 2023): where a weight is removed, the
/// weights of later inputs take over what they can; then least squares on the support. Weights of inputs below the first `free` stay.
pub fn obs(factors: &Factors, w: &Matrix, pattern: Pattern, density: f64, free: usize) -> (Matrix, Mask) {
    let (rows, columns) = w.shape();
    // The upper factor U of the inverse, H⁻¹ = UᵀU: row i holds what removing input i does to the inputs behind it.
    let Some(upper) = Cholesky::<f64, Dyn>::new(factors.inverse.clone()).map(|f| f.l().transpose()) else {
        let mask = Mask::best(&w.map(f64::abs), pattern, density, free);
        return (least_squares(&factors.h, w, &mask), mask);
    };
    // How many weights a block of inputs keeps follows from the importance of all weights.
    let first = Mask::best(&Matrix::from_fn(rows, columns, |r, c| w[(r, c)].powi(2) / factors.inverse[(r, r)]), pattern, density, free);
    let mut work = w.clone();
    let mut begin = 0;
    while begin < free {
        let end = (begin + BLOCK).min(free);
        let scores = Matrix::from_fn(end - begin, columns, |r, c| (work[(begin + r, c)] / upper[(begin + r, begin + r)]).powi(2));
        let kept = (begin..end).flat_map(|r| (0..columns).map(move |c| (r, c))).filter(|&(r, c)| first.keeps(r, c)).count();
        let mask = Mask::best(&scores, pattern, kept as f64 / scores.len() as f64, end - begin);
        let mut errors = Matrix::zeros(end - begin, columns);
        for i in begin..end {
            for c in 0..columns {
                if !mask.keeps(i - begin, c) {
                    let error = work[(i, c)] / upper[(i, i)];
                    for j in i..end {
                        work[(j, c)] -= error * upper[(i, j)];
                    }
                    work[(i, c)] = 0.0;
                    errors[(i - begin, c)] = error;
                }
            }
        }
        let later = upper.view((begin, end), (end - begin, rows - end)).transpose() * &errors;
        let mut rest = work.rows_mut(end, rows - end);
        rest -= later;
        begin = end;
    }
    let mut mask = Mask::of(&work);
    mask.keep_below(free);
    (least_squares(&factors.h, w, &mask), mask)
}

/// Steps of each of the penalties.
const STEPS: usize = 6;

/// Penalties, as parts of the mean of the diagonal.
const PENALTIES: [f64; 6] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0];

/// The alternating direction method of multipliers (Zhang et al., *A Systematic DNN Weight Pruning Framework*, 2018) with a growing penalty, on
/// inputs scaled to equal energy, where the projection is that of the largest |w|·‖x‖; then least squares on the support. Gives the weights, the mask and
/// ‖W − Z‖/‖W‖ at the end of the alternation.
pub fn admm(factors: &Factors, w: &Matrix, pattern: Pattern, density: f64, free: usize) -> (Matrix, Mask, f64) {
    let (rows, columns) = w.shape();
    let scale: Vec<f64> = (0..rows).map(|i| factors.h[(i, i)].sqrt()).collect();
    let h = Matrix::from_fn(rows, rows, |i, j| factors.h[(i, j)] / (scale[i] * scale[j]));
    let scaled = Matrix::from_fn(rows, columns, |r, c| w[(r, c)] * scale[r]);
    let target = &h * &scaled;
    let project = |m: &Matrix| Mask::best(&m.map(|v| v * v), pattern, density, free);
    let (mut x, mut z, mut u) = (scaled.clone(), project(&scaled).applied(&scaled), Matrix::zeros(rows, columns));
    let mut previous = PENALTIES[0];
    for rho in PENALTIES {
        let mut left = h.clone();
        (0..rows).for_each(|i| left[(i, i)] += rho);
        let Some(factor) = Cholesky::<f64, Dyn>::new(left) else { break };
        let inverse = factor.inverse();
        u *= previous / rho;
        previous = rho;
        for _ in 0..STEPS {
            x = &inverse * (&target + (&z - &u) * rho);
            let sum = &x + &u;
            z = project(&sum).applied(&sum);
            u += &x - &z;
        }
    }
    let residual = (&x - &z).norm() / x.norm().max(1e-30);
    let mut mask = Mask::of(&z);
    mask.keep_below(free);
    (least_squares(&factors.h, w, &mask), mask, residual)
}
