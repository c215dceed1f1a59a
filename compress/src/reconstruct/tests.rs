//! Solvers against each other, on inputs that are correlated as those of trained networks are.

use super::*;

/// Inputs that are mixtures of few hidden ones, with noise; the last is 1.
fn inputs(random: &mut fastrand::Rng, rows: usize, width: usize) -> Vec<f32> {
    let hidden = width / 4;
    let mut normal = || (0..6).map(|_| random.f64()).sum::<f64>() - 3.0;
    let mixture: Vec<f64> = (0..hidden * width).map(|_| normal()).collect();
    let mut out = vec![];
    for _ in 0..rows {
        let h: Vec<f64> = (0..hidden).map(|_| normal()).collect();
        for i in 0..width {
            let mixed: f64 = (0..hidden).map(|j| h[j] * mixture[j * width + i]).sum();
            out.push((mixed / (hidden as f64).sqrt() + 0.3 * normal()) as f32);
        }
        out.push(1.0);
    }
    out
}

fn problem(width: usize, outputs: usize) -> (Hessian, Matrix) {
    let mut random = fastrand::Rng::with_seed(4);
    let mut hessian = Hessian::new(width + 1);
    hessian.add(&inputs(&mut random, 2 * width, width));
    let w = Matrix::from_fn(width + 1, outputs, |_, _| (0..6).map(|_| random.f64()).sum::<f64>() - 3.0);
    (hessian, w)
}

#[test]
fn admm_beats_obs_and_obs_beats_magnitude() {
    let (width, outputs) = (128, 64);
    let (hessian, w) = problem(width, outputs);
    let factors = Factors::new(&hessian, 1e-4);
    let magnitude = Mask::best(&w.map(f64::abs), Pattern::Any, 0.1, width);
    let by_magnitude = hessian.error(&least_squares(&factors.h, &w, &magnitude), &w);
    let by_obs = hessian.error(&obs(&factors, &w, Pattern::Any, 0.1, width).0, &w);
    let (solved, mask, residual) = admm(&factors, &w, Pattern::Any, 0.1, width);
    let by_admm = hessian.error(&solved, &w);
    assert!(by_obs < by_magnitude, "{by_obs} {by_magnitude}");
    assert!(by_admm <= 0.7 * by_magnitude && by_admm <= by_obs, "{by_admm} of {by_magnitude} and {by_obs}");
    assert!(residual <= 1e-3, "{residual}");
    let kept = (mask.density() * w.len() as f64).round() as usize - outputs;
    assert!(kept <= (0.1 * (width * outputs) as f64).round() as usize, "{kept}");
}

#[test]
fn least_squares_of_all_weights_changes_nothing() {
    let (hessian, w) = problem(24, 5);
    let factors = Factors::new(&hessian, 1e-6);
    let all = Mask::best(&w, Pattern::Any, 1.0, 24);
    assert!((least_squares(&factors.h, &w, &all) - &w).norm() < 1e-6 * w.norm());
    assert!((&factors.h * &factors.inverse - Matrix::identity(25, 25)).norm() < 1e-6);
}

#[test]
fn patterns_are_kept() {
    let (hessian, w) = problem(32, 16);
    let factors = Factors::new(&hessian, 1e-4);
    for pattern in [Pattern::Outputs(8), Pattern::Inputs(8), Pattern::Of { keep: 2, of: 4 }] {
        for solved in [obs(&factors, &w, pattern, 0.25, 32).0, admm(&factors, &w, pattern, 0.25, 32).0] {
            let zero = |r: usize, c: usize| solved[(r, c)] == 0.0;
            let (mut groups, mut kept) = (0u32, 0u32);
            for c in 0..16 {
                for r in 0..32 {
                    let whole = match pattern {
                        Pattern::Outputs(v) => (c / v * v..c / v * v + v).all(|other| zero(r, other) == zero(r, c)),
                        Pattern::Inputs(v) => (r / v * v..r / v * v + v).all(|other| zero(other, c) == zero(r, c)),
                        _ => (r / 4 * 4..r / 4 * 4 + 4).filter(|r| !zero(*r, c)).count() <= 2,
                    };
                    assert!(whole, "{pattern:?}: {r} {c}");
                    groups += 1;
                    kept += u32::from(!zero(r, c));
                }
            }
            let density = if matches!(pattern, Pattern::Of { .. }) { 0.5 } else { 0.25 };
            let part = f64::from(kept) / f64::from(groups);
            assert!((part - density).abs() < 0.02, "{pattern:?} {kept}");
        }
    }
}

#[test]
fn sharing_keeps_zeros_and_few_values() {
    let (_, w) = problem(64, 32);
    let sparse = Mask::best(&w.map(f64::abs), Pattern::Any, 0.3, 64).applied(&w);
    let shared = share(&sparse, &[1.0; 65], 16, 64);
    let mut values: Vec<u64> = shared.rows(0, 64).iter().filter(|v| **v != 0.0).map(|v| v.to_bits()).collect();
    values.sort_unstable();
    values.dedup();
    assert!(values.len() <= 16, "{}", values.len());
    assert!(shared.iter().zip(sparse.iter()).all(|(a, b)| (*a == 0.0) == (*b == 0.0)));
    assert!((&shared - &sparse).norm() < 0.1 * sparse.norm());
}
