//! Random networks through every way to run them; see `dnnc hunt` for the long form.

use dnnc::hunt::{self, Outcome, Reference, Setting, generate::Case, noise::Effort, shrink};
use dnnc::ir::{self, instance::Rng, text};
use dnnc::via::Via;
use dnnc::{Options, Tensor};

/// Seeds of a part of the hunt: each part is a test of its own, so that they run side by side.
fn part(seeds: std::ops::Range<u64>) {
    let (mut networks, mut sharpness) = (0, 0.0);
    for seed in seeds {
        let case = hunt::case(seed);
        match hunt::hunt(&case, &mut Rng::new(!seed), false) {
            Outcome::Same(_, sharp) => {
                networks += 1;
                sharpness += sharp;
            }
            Outcome::Unfit => {}
            Outcome::Different(setting, finding) => panic!(
                "seed {seed} ({setting}): {:?}: {}; for a smaller network: cargo run --release -- hunt --seed {seed}\n{}",
                finding.kind,
                finding.what,
                case.graph.brief()
            ),
        }
    }
    // A hunt that compares little finds nothing.
    assert!(networks > 50 && sharpness / f64::from(networks) > 0.9, "{networks} networks, {sharpness} of them compared");
}

#[test]
fn random_networks_give_one_answer() {
    part(0..100);
}

#[test]
fn more_random_networks_give_one_answer() {
    part(100..200);
}

#[test]
fn a_difference_is_told_from_rounding() {
    let graph = text::parse("graph(x: f32[8,32]) { %y = softmax(%x) {axis=1} %z = reduce_sum(%x) {axes=[0,1]} return y = %y, z = %z }")
        .expect("a graph");
    let inputs = vec![Rng::new(1).tensor(graph.ty(graph.inputs()[0]))];
    let want = ir::eval(&graph, &inputs).expect("an answer");
    let reference = Reference::new(&Case { graph, inputs }, Effort::Little).expect("a stable answer");
    let with = |i: usize, by: f32| {
        let mut got = want.clone();
        let mut values = got[0].values::<f32>().to_vec();
        values[i] += by;
        got[0] = Tensor::new([8, 32], &values);
        reference.compare(&got)
    };
    assert_eq!(with(3, 1e-7), Ok(()));
    assert!(with(3, 1e-3).unwrap_err().contains("result 0 (f32[8,32]): 1 of 256 elements differ; element 3 is "));
    assert_eq!(reference.compare(&want[..1]).unwrap_err(), "1 results, not 2");
}

#[test]
fn what_a_rounding_decides_is_not_compared() {
    // The sum of the exponentials is 1 but for its rounding, so that the comparison could say anything.
    let text = "graph(x: f32[1,64]) { %y = softmax(%x) {axis=1} %s = reduce_sum(%y) {axes=[1]} %one = const f32[] splat 1
        %less = lt(%s, %one) %c = lt(%x, %one) return less = %less, c = %c }";
    let graph = text::parse(text).expect("a graph");
    let inputs = vec![Rng::new(1).tensor(graph.ty(graph.inputs()[0]))];
    let reference = Reference::new(&Case { graph, inputs }, Effort::Great).expect("an answer");
    assert_eq!(reference.sharpness(), 64.0 / 65.0);
}

#[test]
fn shrinking_keeps_what_fails_and_little_else() {
    // "Fails" where a maximum is taken of a product, whatever is around it.
    let fails = |case: &Case| {
        let of = |v: ir::Value| case.graph.node(v);
        let product = |v: ir::Value| of(v).op.kind() == ir::Kind::MatMul;
        ir::eval(&case.graph, &case.inputs).is_ok()
            && case.graph.outputs().iter().any(|(_, v)| of(*v).op.kind() == ir::Kind::ReduceMax && product(of(*v).inputs[0]))
    };
    let text = "graph(x: f32[3,7,9], w: f32[9,12], b: f32[12]) {
        %a = relu(%x)
        %c = matmul(%a, %w)
        %d = reduce_max(%c) {axes=[1]}
        %e = add(%d, %b)
        %f = transpose(%c) {perm=[2,0,1]}
        return e = %e, d = %d, f = %f }";
    let graph = text::parse(text).expect("a graph");
    let inputs = graph.inputs().iter().map(|v| Rng::new(7).tensor(graph.ty(*v))).collect();
    let small = shrink::shrink(&Case { graph, inputs }, &mut |case| fails(case));
    assert!(fails(&small));
    let kinds: Vec<&str> = small.graph.nodes().iter().map(|n| n.op.kind().name()).collect();
    assert_eq!(kinds, ["input", "input", "matmul", "reduce_max"], "{}", small.graph);
    assert!(small.graph.values().all(|(_, ty)| ty.len() == 1), "{}", small.graph);
}

/// A network that once differed, in all ways that it can be run.
fn agrees(text: &str) {
    let graph = text::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let inputs = graph.inputs().iter().map(|v| Rng::new(1).tensor(graph.ty(*v))).collect();
    let case = Case { graph, inputs };
    let reference = Reference::new(&case, Effort::Great).expect("a stable answer");
    for target in dnnc::targets::all() {
        for plain in [false, true] {
            let setting = Setting { via: Via::Kir, options: Options { target, plain, ..Options::default() }, onnx: false };
            hunt::check(&case, &setting, &reference).unwrap_or_else(|f| panic!("{setting}: {:?}: {}\n{text}", f.kind, f.what));
        }
    }
    for (plain, threads) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
        let setting = Setting { via: Via::Jit, options: Options { plain, threads, ..Options::default() }, onnx: false };
        hunt::check(&case, &setting, &reference).unwrap_or_else(|f| panic!("{setting}: {:?}: {}\n{text}", f.kind, f.what));
    }
}

#[test]
fn an_empty_network_runs() {
    agrees("graph(x: f32[3]) { return y = %x }");
}

#[test]
fn a_power_wraps_before_it_is_cast() {
    agrees("graph(x: u8[16]) { %p = pow(%x, %x) %y = cast(%p) {to=f16} %z = cast(%p) {to=i32} return y = %y, z = %z }");
}
