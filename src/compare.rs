//! Comparison of tensors, by the rules of the ONNX backend tests.

use dnnc_ir::{Tensor, Type};

/// How far a value may be from its reference: `|got − want| ≤ atol + rtol·|want|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Relative part.
    pub rtol: f64,
    /// Absolute part.
    pub atol: f64,
}

impl Default for Tolerance {
    /// The tolerance of the ONNX backend tests.
    fn default() -> Tolerance {
        Tolerance { rtol: 1e-3, atol: 1e-7 }
    }
}

/// Compares shape, type and values (integers by `atol` alone); an error says how many values differ, and which one most.
pub fn compare(got: &Tensor, want: &Tensor, tolerance: Tolerance) -> Result<(), String> {
    if got.ty() != want.ty() {
        return Err(format!("type {}, want {}", got.ty(), want.ty()));
    }
    let rtol = match want.ty().ty {
        Type::BF16 => tolerance.rtol.max(1.0 / 64.0),
        ty if ty.is_int() => 0.0,
        _ => tolerance.rtol,
    };
    let (a, b) = (got.to_f64s(), want.to_f64s());
    let (long_a, long_b) = (long_integers(got), long_integers(want));
    let mut wrong = 0;
    let mut worst = (0.0, 0);
    for (i, (&g, &w)) in a.iter().zip(&b).enumerate() {
        let (same, error) = match (&long_a, &long_b) {
            (Some(a), Some(b)) => (a[i] == b[i], a[i].abs_diff(b[i]) as f64),
            _ => (g == w || (g.is_nan() && w.is_nan()), (g - w).abs()),
        };
        if same || error <= tolerance.atol + rtol * w.abs() {
            continue;
        }
        wrong += 1;
        let excess = if error.is_nan() { f64::INFINITY } else { error };
        if wrong == 1 || excess > worst.0 {
            worst = (excess, i);
        }
    }
    if wrong == 0 {
        return Ok(());
    }
    let i = worst.1;
    Err(format!("{wrong} of {} values differ, most at index {i}: {}, want {}", a.len(), a[i], b[i]))
}

/// The elements of a type whose values f64 does not hold exactly.
fn long_integers(t: &Tensor) -> Option<Vec<i128>> {
    match t.ty().ty {
        Type::I64 => Some(t.values::<i64>().iter().map(|&v| v.into()).collect()),
        Type::U64 => Some(t.values::<u64>().iter().map(|&v| v.into()).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_compared_exactly() {
        let far = [1i64 << 60, 1000, i64::MIN];
        let near = far.map(|v| v ^ 1);
        let exact = Tolerance::default();
        assert!(compare(&Tensor::new([3], &far), &Tensor::new([3], &far), exact).is_ok());
        assert!(compare(&Tensor::new([3], &near), &Tensor::new([3], &far), exact).unwrap_err().starts_with("3 of 3"));
        assert!(compare(&Tensor::new([3], &near), &Tensor::new([3], &far), Tolerance { atol: 1.0, ..exact }).is_ok());
    }
}
