//! What a network is: operators, types, constants, graphs, their text form and the reference evaluator.
//!
//! Never knows ONNX nor any machine. An operator is one row of a table in `ops/`; everything else is derived from it.

pub mod eval;
pub mod float8;
pub mod graph;
pub mod instance;
pub mod op;
pub mod ops;
pub mod tensor;
pub mod text;
pub mod types;

pub use eval::{EvalError, eval, eval_op};
pub use graph::{Graph, Node, Value};
pub use op::{Arity, Attr, AttrKind, Attrs, Class, Kind, Op, OpDef};
pub use tensor::{Element, Tensor};
pub use types::{TensorType, Type, broadcast};
