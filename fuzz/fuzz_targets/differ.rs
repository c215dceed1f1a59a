//! Bytes decide what network is made; every way to run it must give the evaluator's answer.
#![no_main]

use dnnc::hunt::{self, Outcome, generate};
use dnnc::ir::random::Rng;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rng = Rng::of_bytes(bytes);
    let case = generate::case(&mut rng);
    if let Outcome::Different(setting, finding) = hunt::hunt(&case, &mut rng, false) {
        let small = hunt::shrink(&case, &setting, &finding);
        panic!("{:?}: {}\n{setting}\n{}", finding.kind, finding.what, small.graph);
    }
});
