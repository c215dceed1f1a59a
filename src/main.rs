//! The command line of dnnc.
fn main() {}
