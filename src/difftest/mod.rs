//! Differential testing: one network on several backends, whose results must agree.
//!
//! [`backends`] run a graph by the reference evaluator, the kernel interpreter, machine code or a linked object. [`generate`] makes random networks and
//! [`fuzz`] compares the backends on them, within the error that the [`tolerance`] model allows. A network that differs is made smaller by [`shrink`];
//! of an ONNX model, [`bisect`] finds the first wrong step, and [`reduce`] a smaller model that fails in the same way.

pub mod backends;
pub mod bisect;
pub mod fuzz;
pub mod generate;
pub mod reduce;
pub mod shrink;
pub mod tolerance;

pub use backends::{Backend, executor};
