//! What codegen asks of whoever measures: codegen makes programs, it never runs them.

use dnnc_kir::program::Program;
use dnnc_targets::Target;
use std::fmt;

/// A unit of which several algorithms are to be measured.
pub struct Trial<'a> {
    /// Describes the unit: operator, sizes, epilogue, machine, threads, and where its constants are zero. Equal keys take equal times.
    pub key: &'a str,
    /// Names of the algorithms.
    pub names: &'a [&'a str],
    /// The unit by one of the algorithms as a program of its own.
    pub program: &'a mut dyn FnMut(usize) -> Result<Program, String>,
    /// The machine that the programs are for.
    pub target: &'a Target,
    /// Threads to run them on.
    pub threads: usize,
}

/// Measures algorithms, and remembers what was measured before, here or in an earlier compilation.
pub trait Tuner: fmt::Debug + Send + Sync {
    /// Nanoseconds of each algorithm.
    fn times(&self, trial: &mut Trial) -> Result<Vec<f64>, String>;
}
