//! Encodings of weights that are smaller than dense floats, and the container `.dnnc` made of them.
//!
//! Everything here is lossless: what is decoded has the bits that were encoded. Pruning and sharing (the crate `compress`) make zeros and equal values;
//! an encoding finds them again, whoever made them. Never knows a network: a tensor is a list of floats with a number of rows.

mod bits;
mod codebook;
pub mod container;
pub mod eie;
mod huffman;
mod tensor;

pub use tensor::{Form, decode, encode, encode_as, form};
