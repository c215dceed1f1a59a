//! What rewrites ask of code generation.

use dnnc_ir::{Op, TensorType};

/// What a kernel of an operator is predicted to take on the machine that the graph is compiled for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Nanoseconds of one thread; 0 where nothing is done at run time.
    pub ns: f64,
    /// Whether element-wise operators on its first result are computed before that is stored.
    pub epilogue: bool,
    /// Whether the result is where an operand is stored, or operands are made where the result is: then no kernel runs.
    pub in_place: bool,
}

/// Code generation, as far as rewrites ask it: what an operator takes.
pub trait Forecaster {
    /// An operator on its own, by the types of its operands, whether each is constant, and the types of its results.
    fn forecast(&self, op: &Op, operands: &[(&TensorType, bool)], results: &[TensorType]) -> Forecast;
}
