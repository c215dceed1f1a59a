//! How it is done: lowering, memory plan, the vector kernel IR and the emitters.
//!
//! Never sees ONNX, never changes what is computed: both were settled upstream. Same input, same bytes, on every host, at every run.

mod chains;
pub mod choice;
mod dispatch;
pub mod emit;
mod entry;
pub mod expr;
pub mod fuse;
pub mod header;
pub mod interpret;
pub mod jit;
pub mod kernels;
pub mod kir;
pub mod loaded;
pub mod lower;
pub mod math;
pub mod memory;
pub mod object;
mod pool;
pub mod program;
pub mod schedule;
pub mod shelf;
pub mod threads;
pub mod variants;
