//! One model through the whole compiler in this process: it may be refused, but nothing may panic or take long.

use crate::hostile::proto::ModelProto;
use crate::sweep::{Fill, filled};
use dnnc::{Dim, Error, Limits, Model, Options, TensorType, Type};
use prost::Message;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// What became of a model.
#[derive(Debug)]
#[allow(dead_code)] // the fields are read where an outcome is printed
pub enum Outcome {
    Ran,
    /// Compiled, and stopped while running: a sentence.
    Stopped(String),
    /// Refused: a sentence.
    Refused(String),
    Panicked(String),
    /// It took so long.
    Slow(Duration),
}

/// The most that a small model may take, in a test that is not optimised, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// Small bounds: thousands of models go through one process.
pub fn options() -> Options {
    let limits = Limits { tensor_bytes: 16 << 20, constant_bytes: 16 << 20, nodes: 5_000, unrolled: 2_000, ..Limits::default() };
    Options { limits, max_arena: 256 << 20, ..Options::default() }
}

/// Compiles a model and runs it on filled inputs.
pub fn attempt(model: &ModelProto, fill: Fill) -> Outcome {
    attempt_bytes(&model.encode_to_vec(), fill)
}

/// As [`attempt`], for the bytes of a file.
pub fn attempt_bytes(bytes: &[u8], fill: Fill) -> Outcome {
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| match run(bytes, fill) {
        Ok(()) => Outcome::Ran,
        Err(Error::Run(e)) => Outcome::Stopped(e),
        Err(Error::Internal(e)) => Outcome::Panicked(format!("internal: {e}")),
        Err(e) => Outcome::Refused(e.to_string()),
    }));
    let took = start.elapsed();
    match outcome {
        Err(e) => {
            let text = e.downcast_ref::<String>().cloned().or_else(|| e.downcast_ref::<&str>().map(|s| s.to_string()));
            Outcome::Panicked(text.unwrap_or_default())
        }
        Ok(_) if took > PATIENCE => Outcome::Slow(took),
        Ok(outcome) => outcome,
    }
}

fn run(bytes: &[u8], fill: Fill) -> Result<(), Error> {
    let model = Model::from_bytes(bytes, &options())?;
    let size = |d: &Dim| if let Dim::Known(n) = d { *n } else { 2 };
    let mut inputs = vec![];
    let mut shapes = vec![];
    for port in model.inputs() {
        let shape: Vec<usize> = port.dims.as_ref().map_or(vec![2; 2], |d| d.iter().map(size).collect());
        shapes.push(shape);
    }
    // Checks that inputs are not too large before they are made.
    model.prepare(&shapes)?;
    for (port, shape) in model.inputs().iter().zip(&shapes) {
        inputs.push(filled(&TensorType::new(port.ty.unwrap_or(Type::F32), shape.clone()), fill));
    }
    model.run(&inputs).map(|_| ())
}
