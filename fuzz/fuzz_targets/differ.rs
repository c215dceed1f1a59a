//! The bytes decide which network is generated; all backends must agree with the evaluator on it.
#![no_main]

use dnnc::difftest::fuzz::{self, Outcome};
use dnnc::difftest::generate;
use dnnc::ir::random::Rng;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rng = Rng::of_bytes(bytes);
    let case = generate::case(&mut rng);
    if let Outcome::Different(configuration, finding) = fuzz::fuzz(&case, &mut rng, false) {
        let small = fuzz::minimize(&case, &configuration, &finding);
        panic!("{:?}: {}\n{configuration}\n{}", finding.kind, finding.message, small.graph);
    }
});
