//! Arbitrary bytes: a model that can be imported is compiled and run. Nothing may panic or access memory out of bounds, and there are results where the
//! evaluator has them. Whether they agree is tested by `differ`, whose data is chosen so that it can be compared.
#![no_main]

use dnnc::difftest::fuzz::{self, FindingKind};
use dnnc::difftest::generate::Case;
use dnnc::difftest::tolerance::{Effort, Reference};
use dnnc::ir::random::Rng;
use libfuzzer_sys::{fuzz_crossover, fuzz_mutator, fuzz_target};

/// Most scalar operations and elements of a graph that is run.
const MOST_WORK: u64 = 1 << 18;

fuzz_target!(|bytes: &[u8]| {
    dnnc_fuzz::graphs(bytes, &mut |graph| {
        let work = fuzz::work(graph);
        if work > MOST_WORK || graph.nodes().len() > 60 {
            return;
        }
        let mut rng = Rng::new(bytes.len() as u64);
        let inputs = graph.inputs().iter().map(|v| rng.tensor(graph.ty(*v))).collect();
        let case = Case { graph: graph.clone(), inputs };
        let has_results = Reference::new(&case, Effort::Quick).is_some();
        for configuration in fuzz::configurations(&mut rng, work, false).iter().filter(|c| !c.onnx) {
            match fuzz::run(&case, configuration) {
                Err(f) if f.kind == FindingKind::Panic || has_results && f.kind == FindingKind::Error => {
                    panic!("{:?}: {}\n{configuration}\n{}", f.kind, f.message, case.graph);
                }
                _ => {}
            }
        }
    });
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { dnnc_fuzz::mutate(data, size, max_size, seed) });

fuzz_crossover!(|a: &[u8], b: &[u8], out: &mut [u8], seed: u32| { dnnc_fuzz::cross(a, b, out, seed) });
