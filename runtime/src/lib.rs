//! What a compiled network needs while it runs. At its core: no heap, no dependency, no standard library. With the feature `std`: what a process
//! needs that runs networks, on any number of threads.
#![cfg_attr(not(feature = "std"), no_std)]

pub mod abi;
#[cfg(feature = "std")]
pub mod constants;
#[cfg(feature = "std")]
pub mod memory;
#[cfg(feature = "std")]
pub mod pack;
#[cfg(feature = "std")]
pub mod plan;
#[cfg(feature = "std")]
pub mod pool;
