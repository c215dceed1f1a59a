//! The matrices of the solvers.

/// A matrix in double precision.
pub type Matrix = nalgebra::DMatrix<f64>;
