//! What kernel families are made of: loop nests, packed operands, matrix products, windows and stores with their epilogues.

pub mod gemm;
pub mod image;
pub mod loops;
pub mod nest;
pub mod pack;
pub mod repack;
pub mod rows;
pub mod store;
pub mod transpose;
pub mod view;
pub mod window;
