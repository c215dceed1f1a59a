//! Mathematical functions on lanes of f32 or f64, written in kir.
//!
//! Every function takes values of any number of lanes and has no branch, but those that say so. Bounds of errors are in units in the
//! last place (ulp) of the result, measured against f64 (f32) or 40-digit arithmetic (f64) with a fused multiply-add; polynomials without
//! another source are minimax fits by the Remez exchange over the interval their comment names. Infinities, NaN and zeros give what IEEE 754
//! says. Results under the smallest normal number may be 0.

mod basic;
mod circular;
mod exponential;
mod power;
#[cfg(test)]
mod tests;

pub use basic::{clamp, hard_swish, max, min, recip, relu, sign};
pub(crate) use basic::{number, poly};
pub use circular::{acos, asin, atan, cos, sin, tan};
pub use exponential::{
    acosh, asinh, atanh, cosh, erf, exp, exp_nonpositive, expm1, gelu, gelu_tanh, log, log1p, sigmoid, silu, sinh, softplus, tanh,
};
pub use power::{float_rem, pow, whole_pow};
