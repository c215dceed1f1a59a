//! Any bytes: read, and where they are a model, import it for small sizes, stage by stage. Nothing may panic, hang or take much memory.
#![no_main]

use libfuzzer_sys::{fuzz_crossover, fuzz_mutator, fuzz_target};

fuzz_target!(|bytes: &[u8]| dnnc_fuzz::graphs(bytes, &mut |_| ()));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { dnnc_fuzz::mutate(data, size, max_size, seed) });

fuzz_crossover!(|a: &[u8], b: &[u8], out: &mut [u8], seed: u32| { dnnc_fuzz::cross(a, b, out, seed) });
