//! What a compiled network needs while it runs. No heap, no dependency, no standard library.
#![no_std]

pub mod abi;
