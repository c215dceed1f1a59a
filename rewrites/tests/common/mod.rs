//! The forecasts of code generation for tests and the example.

use dnnc_codegen::{forecast, unit};
use dnnc_ir::{Op, TensorType};
use dnnc_rewrites::{Forecast, Forecaster};
use dnnc_targets::Target;

/// Code generation for a machine.
pub struct Forecasts(pub &'static Target);

impl Forecaster for Forecasts {
    fn forecast(&self, op: &Op, operands: &[(&TensorType, bool)], results: &[TensorType]) -> Forecast {
        let unit::Forecast { ns, epilogue, in_place } = forecast::of(op, operands, results, self.0, &unit::Options::default());
        Forecast { ns, epilogue, in_place }
    }
}
