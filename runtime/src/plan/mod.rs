//! Plans for many models on one device: which to load when ([`load`]), which variant to run on a budget ([`budget`]), and which stage of which pipeline
//! runs on which core ([`pipeline`], [`simulate`]). Pure functions of numbers: nothing here reads a clock, a file or a random device.

pub mod budget;
pub mod chart;
pub mod load;
pub mod pipeline;
pub mod random;
pub mod simulate;
pub mod traces;
