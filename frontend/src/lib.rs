//! The ONNX reader: a file becomes a [`Model`], a model with known input sizes becomes one or more [`ir::Graph`](dnnc_ir::Graph)s.
//!
//! Never knows a machine or a kernel. Everything that cannot be compiled is found before anything is built, and said with its name.

mod build;
mod ops;

pub use ops::{Operator, operators};
