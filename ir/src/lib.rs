//! The IR: operators, types, constants, graphs, their text form and the reference evaluator.
//!
//! Never knows ONNX nor any machine. An operator is one row of a table in `ops/`; everything else is derived from it.

mod build;
pub mod eval;
pub mod float8;
pub mod graph;
#[cfg(any(test, feature = "dev"))]
pub mod instance;
pub mod kind;
pub mod ops;
pub mod random;
pub mod tensor;
pub mod text;
pub mod types;

pub use eval::{EvalError, eval, eval_op};
pub use graph::{Attr, Attrs, Graph, Node, Op, OpDef, Value};
pub use kind::{Arity, AttrKind, Class, Kind};
pub use tensor::{Element, Tensor};
pub use types::{TensorType, Type, broadcast};
