//! Any bytes: what can be imported is compiled and run. Nothing may panic or touch memory that is not its own, and where the evaluator has a
//! value there is one. Whether it is the same is asked by `differ`, whose numbers are chosen so that they can be compared.
#![no_main]

use dnnc::hunt::{self, Kind, Reference, generate::Case, noise::Effort};
use dnnc::ir::random::Rng;
use libfuzzer_sys::{fuzz_crossover, fuzz_mutator, fuzz_target};

/// Scalar operations and elements of a graph that is run.
const MOST_WORK: u64 = 1 << 18;

fuzz_target!(|bytes: &[u8]| {
    dnnc_fuzz::graphs(bytes, &mut |graph| {
        let work = hunt::work(graph);
        if work > MOST_WORK || graph.nodes().len() > 60 {
            return;
        }
        let mut rng = Rng::new(bytes.len() as u64);
        let inputs = graph.inputs().iter().map(|v| rng.tensor(graph.ty(*v))).collect();
        let case = Case { graph: graph.clone(), inputs };
        let valued = Reference::new(&case, Effort::Little).is_some();
        for setting in hunt::settings(&mut rng, work, false).iter().filter(|s| !s.onnx) {
            match hunt::run(&case, setting) {
                Err(f) if f.kind == Kind::Panic || valued && f.kind == Kind::Error => {
                    panic!("{:?}: {}\n{setting}\n{}", f.kind, f.what, case.graph);
                }
                _ => {}
            }
        }
    });
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { dnnc_fuzz::mutate(data, size, max_size, seed) });

fuzz_crossover!(|a: &[u8], b: &[u8], out: &mut [u8], seed: u32| { dnnc_fuzz::cross(a, b, out, seed) });
