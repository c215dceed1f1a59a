//! Kernels that try an emitter against the interpreter: one for every operation and type, and random ones.

mod case;
mod numbers;
mod ops;
mod random;

pub use case::Case;
pub use numbers::Random;
pub use ops::every_op;
pub use random::random;
