//! The ONNX reader: a file becomes a [`Model`]; a model with known input sizes becomes an [`ir::Graph`](dnnc_ir::Graph), or a few of them,
//! one after the other ([`Stage`]), where a size depends on data.
//!
//! Never knows a machine or a kernel. Everything that cannot be compiled is found before anything is built, and said with its name.

mod build;
mod compact;
#[cfg(any(test, feature = "dev"))]
mod draft_layers;
#[cfg(any(test, feature = "dev"))]
mod draft_nodes;
mod element;
mod encoded_size;
mod fail;
mod import;
mod limits;
mod model;
#[cfg(any(test, feature = "dev"))]
mod model_editing;
mod node;
mod ops;
mod proto;
mod reader;
mod refusal;
mod resolved;
mod schema;
mod signature;
mod staged_execution;
mod support;
mod tensor_file;
#[cfg(test)]
mod tests;
mod topological_sort;
#[cfg(any(test, feature = "dev"))]
mod write;

#[cfg(any(test, feature = "dev"))]
pub use compact::Encoded;
#[cfg(any(test, feature = "dev"))]
pub use draft_layers::NodeView;
#[cfg(any(test, feature = "dev"))]
pub use draft_nodes::NewNode;
pub use import::{Cut, Stage};
pub use limits::Limits;
pub use model::Model;
#[cfg(any(test, feature = "dev"))]
pub use model_editing::Draft;
pub use refusal::{Refusal, RefusalKind, Refusals};
pub use signature::{Dim, Port};
pub use staged_execution::{RunError, run_with};
pub use support::{Operator, Version, in_words, operators};
pub use tensor_file::{decode_tensor, encode_tensor, read_tensor, write_tensor};
#[cfg(any(test, feature = "dev"))]
pub use write::write;
