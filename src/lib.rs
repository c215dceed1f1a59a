//! dnnc compiles trained neural networks (ONNX) to specialised native code.
//!
//! In process, [`compile`] makes machine code of a model and a [`Model`] runs it:
//!
//! ```no_run
//! let model = dnnc::compile("model.onnx", &dnnc::Options::default())?;
//! let image = dnnc::Tensor::new([1, 1, 28, 28], &[0.0f32; 784]);
//! let results = model.run(&[image])?;
//! println!("{:?}", results[0].values::<f32>());
//! # Ok::<(), dnnc::Error>(())
//! ```
//!
//! For another machine, [`object`] gives the bytes of an object file and of the C header beside it. The command line is a thin door to the same functions.

pub mod bisect;
mod cache;
pub mod compare;
mod error;
pub mod files;
pub mod hunt;
mod model;
mod object;
pub mod peak;
mod pipeline;
pub mod reduce;
mod sizes;
pub mod tensors;
mod tune;
pub mod via;

pub use cache::Held;
pub use dnnc_frontend::{Dim, Limits, Port};
pub use dnnc_ir::{Tensor, TensorType, Type};
pub use dnnc_targets::Target;
pub use error::Error;
pub use model::{Layer, Model, Session, compile, describe, sample_inputs};
pub use object::{Footprint, Object, Variants, object, object_of, object_variants};
pub use pipeline::{Built, Options, build};
pub use sizes::{Sizes, bind, combinations, parse as parse_sizes};
pub use tune::TuneCache;

/// Graphs to programs of kernels.
pub use dnnc_codegen as codegen;
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
