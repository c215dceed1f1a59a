//! Kernel families: each makes kir for a group of operators, from sizes, layout and the target's facts.
//!
//! A family is a folder: generators, schedule, reference tests. It is asked with a [`Unit`](crate::unit::Unit) and answers with [`Lowered`](crate::unit::Lowered): kernels, where their
//! pointers point, constants packed at compile time and scratch memory. No family knows the network around it.

pub mod attention;
pub mod conv;
pub mod conv_transpose;
pub mod depthwise;
pub mod det;
pub mod gather;
pub mod lib;
pub mod map;
pub mod matmul;
pub mod movement;
pub mod norm;
pub mod pool;
pub mod recurrent;
pub mod reduce;
pub mod sparse;
pub mod strip;
#[cfg(test)]
pub(crate) mod testing;

use crate::unit::Family;
use dnnc_ir::Kind;

/// All families.
pub const FAMILIES: &[&Family] = &[
    &matmul::FAMILY,
    &conv::FAMILY,
    &movement::FAMILY,
    &norm::FAMILY,
    &pool::FAMILY,
    &recurrent::FAMILY,
    &reduce::FAMILY,
    &attention::FAMILY,
    &gather::FAMILY,
    &conv_transpose::FAMILY,
    &det::FAMILY,
];

/// The family that serves an operator.
pub fn family(kind: Kind) -> Option<&'static Family> {
    FAMILIES.iter().copied().find(|f| f.kinds.contains(&kind))
}
