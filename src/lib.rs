//! dnnc compiles trained neural networks (ONNX) to specialised native code.
//!
//! In process, [`compile`] compiles a model to machine code and a [`Model`] runs it:
//!
//! ```no_run
//! let model = dnnc::compile("model.onnx", &dnnc::Options::default())?;
//! let image = dnnc::Tensor::new([1, 1, 28, 28], &[0.0f32; 784]);
//! let results = model.run(&[image])?;
//! println!("{:?}", results[0].values::<f32>());
//! # Ok::<(), dnnc::Error>(())
//! ```
//!
//! For another machine, [`object`] returns the bytes of an object file and the text of its C header. The command line calls the same functions.
//!
//! Cargo features, both on by default: `cli` builds the command line and the readers of NumPy files, `dev` the module `difftest` (differential
//! testing: backends, fuzzing, bisecting, reducing). `compress`, part of `cli`, builds quantisation and compression.

mod cache;
#[cfg(feature = "compress")]
pub mod calibration;
pub mod compare;
#[cfg(feature = "dev")]
pub mod difftest;
mod error;
mod executor;
pub mod files;
pub mod machine_peak;
mod model;
mod object;
pub mod pack;
mod pipeline;
mod samples;
mod shapes;
#[cfg(feature = "cli")]
pub mod tensors;
mod tune;

pub use cache::CacheStats;
pub use dnnc_frontend::{Dim, Limits, Port};
pub use dnnc_ir::{Tensor, TensorType, Type};
pub use dnnc_targets::Target;
pub use error::Error;
pub use executor::Executor;
pub use model::{Model, Session, StepTime, compile, sample_inputs};
pub use object::{Footprint, Object, Variants, object, object_of, object_variants};
pub use pipeline::{Built, Options, build};
pub use samples::sample;
pub use shapes::{InputShapes, bind, combinations, describe, parse_dim_values};
pub use tune::TuneCache;

/// Graphs to programs of kernels.
pub use dnnc_codegen as codegen;
/// Smaller networks from calibration data.
#[cfg(feature = "compress")]
pub use dnnc_compress as compress;
/// Programs to machine code.
pub use dnnc_emit as emit;
/// The reader of ONNX models.
pub use dnnc_frontend as frontend;
/// The intermediate representation and its reference evaluator.
pub use dnnc_ir as ir;
/// The kernel IR and programs of kernels.
pub use dnnc_kir as kir;
/// The e-graph.
pub use dnnc_rewrites as rewrites;
/// What a compiled network needs while it runs.
pub use dnnc_runtime as runtime;
/// Records of machines.
pub use dnnc_targets as targets;
