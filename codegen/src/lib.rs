//! How it is done: fusion, kernel families, schedules and the memory plan. A graph goes in, a program of kernels comes out.
//!
//! Never sees ONNX, never changes what is computed, never makes or runs machine code. Same input, same program, on every host, at every run.

mod chains;
pub mod choice;
mod copies;
mod draft;
pub mod estimate;
pub mod expr;
pub mod forecast;
pub mod fuse;
pub mod kernels;
pub mod lower;
pub mod math;
pub mod memory;
pub mod schedule;
pub mod threads;
pub mod tuner;
pub mod unit;
mod views;
