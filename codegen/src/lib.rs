//! How it is done: lowering, memory plan, the vector kernel IR and the emitters.
//!
//! Never sees ONNX, never changes what is computed: both were settled upstream. Same input, same bytes, on every host, at every run.

pub mod emit;
pub mod expr;
pub mod fuse;
pub mod header;
pub mod kernels;
pub mod kir;
pub mod math;
pub mod memory;
mod pool;
pub mod program;
pub mod schedule;
