//! Smaller networks from calibration data: quantisation, pruning, factors, and the encodings of their weights.
//!
//! A network comes in and goes out as ONNX. Never knows a kernel or an instruction: it runs networks through a trait that the program implements with
//! compiled code, and asks for predicted times the same way.

pub mod layers;
pub mod prepare;
pub mod prune;
pub mod quantize;
pub mod reconstruct;
pub mod runner;
