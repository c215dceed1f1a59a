//! Shared weights: a codebook for each layer.

use super::matrix::Matrix;

/// Rounds of the clustering.
const ROUNDS: usize = 40;

/// Gives the weights of the first `free` rows at most `count` different values beside 0, by k-means in one dimension. A weight counts as much as its input:
/// `importance` has a number for each row. Means start linearly between the smallest and the largest (Han et al., *Deep Compression*, 2016), half of them
/// at quantiles. Zeros stay, and so do weights that have no more values than that.
pub fn share(w: &Matrix, importance: &[f64], count: usize, free: usize) -> Matrix {
    let mut points: Vec<(f64, f64)> = vec![];
    for c in 0..w.ncols() {
        points.extend((0..free).filter(|&r| w[(r, c)] != 0.0).map(|r| (w[(r, c)], importance[r].max(1e-12))));
    }
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    // What is shared already stays as it is.
    if points.windows(2).filter(|p| p[0].0 != p[1].0).count() < count {
        return w.clone();
    }
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return w.clone() };
    let linear = |i: usize| first.0 + (last.0 - first.0) * i as f64 / (count - 1).max(1) as f64;
    let quantile = |i: usize| points[(2 * i + 1) * points.len() / (2 * count)].0;
    let mut means: Vec<f64> = (0..count).map(|i| if count < 3 || i % 2 == 1 { quantile(i) } else { linear(i) }).collect();
    for _ in 0..ROUNDS {
        means.sort_by(f64::total_cmp);
        means.dedup();
        let (mut sums, mut at) = (vec![(0.0, 0.0); means.len()], 0);
        for &(value, weight) in &points {
            while at + 1 < means.len() && (value - means[at + 1]).abs() <= (value - means[at]).abs() {
                at += 1;
            }
            sums[at].0 += value * weight;
            sums[at].1 += weight;
        }
        means = means.iter().zip(&sums).map(|(m, s)| if s.1 > 0.0 { s.0 / s.1 } else { *m }).collect();
    }
    // As single precision, so that values that are written stay equal; none may become zero.
    means.sort_by(f64::total_cmp);
    let nearest = |v: f64| {
        let at = means.partition_point(|m| *m < v);
        let near = [at.saturating_sub(1), at.min(means.len() - 1)];
        let best = if (means[near[0]] - v).abs() <= (means[near[1]] - v).abs() { means[near[0]] } else { means[near[1]] };
        f64::from(best as f32)
    };
    Matrix::from_fn(w.nrows(), w.ncols(), |r, c| if r < free && w[(r, c)] != 0.0 { nearest(w[(r, c)]) } else { w[(r, c)] })
}
