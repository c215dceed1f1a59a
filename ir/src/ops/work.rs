//! Work: how many operations a use of an operator takes, as rows of the table count them.

use crate::graph::Attrs;
use crate::types::TensorType;

/// Work: so many operations per element of the first result.
pub fn per_output<const N: u64>(_: &Attrs, _: &[TensorType], results: &[TensorType]) -> u64 {
    (results[0].len() as u64).saturating_mul(N)
}

/// Work: so many operations per element of the first input.
pub fn per_input<const N: u64>(_: &Attrs, inputs: &[TensorType], _: &[TensorType]) -> u64 {
    (inputs[0].len() as u64).saturating_mul(N)
}

/// Work of operators that compute nothing: they move bytes.
pub fn nothing(_: &Attrs, _: &[TensorType], _: &[TensorType]) -> u64 {
    0
}

/// The product of numbers that may be large.
pub fn product(factors: &[usize]) -> u64 {
    factors.iter().fold(1, |n, &f| n.saturating_mul(f as u64))
}
