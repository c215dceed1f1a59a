//! kir through Cranelift, for every instruction set it knows.
//!
//! Cranelift's vectors have 128 bits. A wider kir vector becomes several of them, a narrower one is in the low lanes of one, with anything
//! above. Vector masks are integer vectors of all ones or zeros; a scalar mask is an I8 that is 0 or 1. No operation may become a call of a library:
//! what the machine has no instruction for is written out here.

mod arithmetic;
mod control;
mod convert;
mod dot;
mod emitter;
mod folding;
mod lanes;
mod machine;
mod memory;
mod translator;

pub use emitter::Cranelift;
pub use machine::{isa, signature};

#[cfg(test)]
mod tests;
