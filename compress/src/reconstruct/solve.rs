//! Solvers: weights on a support that keep the output.

use super::hessian::Factors;
use super::matrix::Matrix;
use super::support::{Mask, Pattern};
use nalgebra::{Cholesky, DVector, Dyn};

/// The weights on a support that minimise the output error, exactly: for each output the normal equations of its inputs.
pub fn least_squares(h: &Matrix, w: &Matrix, mask: &Mask) -> Matrix {
    on_support(h, w, mask, false).0
}

/// The weights on a support that minimise the output error, and, where it is asked for, the diagonal of the inverse of each output's part of H (1 where a
/// weight is removed). Outputs are independent; threads share them.
fn on_support(h: &Matrix, w: &Matrix, mask: &Mask, diagonal: bool) -> (Matrix, Matrix) {
    let (rows, columns) = w.shape();
    let target = h * w;
    let (mut out, mut diagonals) = (Matrix::zeros(rows, columns), Matrix::from_element(rows, if diagonal { columns } else { 0 }, 1.0));
    let column = |c: usize, out: &mut [f64], diagonals: Option<&mut [f64]>| {
        let places: Vec<usize> = (0..rows).filter(|&r| mask.keeps(r, c)).collect();
        let part = Matrix::from_fn(places.len(), places.len(), |i, j| h[(places[i], places[j])]);
        let right = DVector::from_iterator(places.len(), places.iter().map(|&r| target[(r, c)]));
        let factor = Cholesky::<f64, Dyn>::new(part);
        let solved = factor.as_ref().map(|factor| factor.solve(&right));
        for (i, &r) in places.iter().enumerate() {
            out[r] = solved.as_ref().map_or(w[(r, c)], |s| s[i]);
        }
        if let (Some(factor), Some(diagonals)) = (factor, diagonals) {
            // H⁻¹ = L⁻ᵀL⁻¹: the squares of a column of L⁻¹ add up to an element of the diagonal.
            let mut lower = Matrix::identity(places.len(), places.len());
            if factor.l_dirty().solve_lower_triangular_mut(&mut lower) {
                places.iter().enumerate().for_each(|(i, &r)| diagonals[r] = lower.column(i).norm_squared());
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(columns.max(1));
    let share = columns.div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let mut wanted: Vec<&mut [f64]> = diagonals.as_mut_slice().chunks_mut(rows.max(1) * share).collect();
        wanted.reverse();
        for (part, out) in out.as_mut_slice().chunks_mut(rows.max(1) * share).enumerate() {
            let (column, mut diagonals) = (&column, wanted.pop());
            scope.spawn(move || {
                for (i, out) in out.chunks_mut(rows).enumerate() {
                    let diagonals = diagonals.as_deref_mut().map(|d| &mut d[i * rows..(i + 1) * rows]);
                    column(part * share + i, out, diagonals);
                }
            });
        }
    });
    (out, diagonals)
}

/// Multiply-adds that choosing the weights of one layer may take, and the most rounds.
const WORK: f64 = 3e10;
const ROUNDS: usize = 8;

/// The rounds in which weights are removed: a pattern and a density each, the last as asked for. Each round costs about the cube of the inputs that an
/// output still has.
fn rounds(rows: usize, columns: usize, pattern: Pattern, density: f64) -> Vec<(Pattern, f64)> {
    let at = |round: usize, of: usize| density.powf(round as f64 / of as f64);
    let cost = |densities: &mut dyn Iterator<Item = f64>| densities.map(|d| columns as f64 * (d * rows as f64).powi(3)).sum::<f64>();
    if let Pattern::Of { keep, of } = pattern {
        let mut steps = (keep..of).rev().map(|keep| (Pattern::Of { keep, of }, density)).collect::<Vec<_>>();
        if cost(&mut (keep + 1..of).map(|keep| keep as f64 / of as f64)) > WORK {
            steps.drain(..steps.len().saturating_sub(1));
        }
        return steps;
    }
    let fits = |of: &usize| cost(&mut (1..*of).map(|round| at(round, *of))) <= WORK;
    let number = (2..=ROUNDS).rev().find(fits).unwrap_or(1);
    (1..=number).map(|round| (pattern, if round == number { density } else { at(round, number) })).collect()
}

/// Optimal brain surgeon (Hassibi and Stork, 1993) in rounds: the weights whose removal adds least error, w²/(H⁻¹)ᵢᵢ with H of the inputs that an output
/// still has, go; those that stay are solved for anew (least squares). The fewer go at once, the better the choice: as many rounds as the size of the
/// layer allows. Weights of inputs from `free` on stay.
pub fn obs(factors: &Factors, w: &Matrix, pattern: Pattern, density: f64, free: usize) -> (Matrix, Mask) {
    let (rows, columns) = w.shape();
    let mut solved = w.clone();
    let mut diagonals = Matrix::from_fn(rows, columns, |r, _| factors.inverse[(r, r)]);
    let mut mask = Mask::best(w, pattern, 1.0, free);
    let rounds = rounds(rows, columns, pattern, density);
    for (round, (pattern, density)) in rounds.iter().enumerate() {
        let scores = Matrix::from_fn(rows, columns, |r, c| solved[(r, c)].powi(2) / diagonals[(r, c)]);
        mask = Mask::best(&scores, *pattern, *density, free);
        (solved, diagonals) = on_support(&factors.h, w, &mask, round + 1 < rounds.len());
    }
    (solved, mask)
}

/// Steps of each of the penalties.
const STEPS: usize = 6;

/// Penalties, as parts of the mean of the diagonal.
const PENALTIES: [f64; 7] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

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
