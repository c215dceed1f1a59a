//! The ONNX reader: a file becomes a [`Model`]; a model with known input sizes becomes an [`ir::Graph`](dnnc_ir::Graph), or a few of them,
//! one after the other ([`Stage`]), where a size depends on data.
//!
//! Never knows a machine or a kernel. Everything that cannot be compiled is found before anything is built, and said with its name.

mod build;
mod control;
mod driver;
mod edit;
mod import;
mod limits;
mod model;
mod net;
mod node;
mod ops;
mod order;
mod proto;
mod refusal;
mod schema;
mod support;
mod tensor_file;
#[cfg(test)]
mod tests;
mod wire;
mod write;

pub use driver::{RunError, run_with};
pub use edit::Draft;
pub use import::{Cut, Stage};
pub use limits::Limits;
pub use model::{Dim, Model, Port};
pub use refusal::{Refusal, RefusalKind, Refusals};
pub use support::{Operator, Version, in_words, operators};
pub use tensor_file::{decode_tensor, encode_tensor, read_tensor, write_tensor};
pub use write::write;
