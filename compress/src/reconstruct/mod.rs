//! The reconstruction engine: for a linear layer with inputs X and weights W, other weights W' of a set that minimise ‖X W' − X W‖².
//!
//! Only H = XᵀX is kept ([`Hessian`]): the error is tr((W' − W)ᵀ H (W' − W)). Weights are matrices of inputs × outputs; the bias of a layer is a last
//! row, whose input is always 1, and which is never removed.

mod hessian;
mod matrix;
mod share;
mod solve;
mod support;

pub use hessian::{Factors, Hessian};
pub use matrix::Matrix;
pub use share::share;
pub use solve::{admm, least_squares, obs};
pub use support::{Mask, Pattern};

#[cfg(test)]
mod tests;
