//! Programs of kernels to machine code: emitters, object files with their C headers, and the JIT.
//!
//! Never sees a graph, never chooses a tile. Same input, same bytes, on every host, at every run.

pub mod code;
pub mod cranelift;
mod dispatch;
pub mod emitter;
mod entry;
pub mod header;
pub mod image;
pub mod jit;
pub mod loaded;
pub mod object;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod variants;
pub mod x64;
