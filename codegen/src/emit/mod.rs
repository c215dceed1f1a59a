//! Machine code of kernels.

pub mod wide;
