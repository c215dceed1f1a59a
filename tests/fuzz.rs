//! Random networks on several backends, and networks that once differed; `dnnc fuzz` runs for longer.

use dnnc::difftest::fuzz::{self, Configuration, Outcome};
use dnnc::difftest::generate::Case;
use dnnc::difftest::tolerance::{Effort, Reference};
use dnnc::difftest::{Backend, shrink};
use dnnc::ir::{self, random::Rng, text};
use dnnc::{Options, Tensor};

/// A range of seeds: each range is a test of its own, so that they run in parallel.
fn part(seeds: std::ops::Range<u64>) {
    let (mut networks, mut compared) = (0, 0.0);
    for seed in seeds {
        let case = fuzz::case(seed);
        match fuzz::fuzz(&case, &mut Rng::new(!seed), false) {
            Outcome::Same { compared_fraction, .. } => {
                networks += 1;
                compared += compared_fraction;
            }
            Outcome::Skipped => {}
            Outcome::Different(configuration, finding) => panic!(
                "seed {seed} ({configuration}): {:?}: {}; for a smaller network: cargo run --release -- fuzz --seed {seed}\n{}",
                finding.kind,
                finding.message,
                case.graph.brief()
            ),
        }
    }
    // The fuzzer finds nothing where it compares little.
    assert!(networks > 50 && compared / f64::from(networks) > 0.9, "{networks} networks, {compared} of them compared");
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
fn a_difference_is_distinguished_from_rounding() {
    let graph = text::parse("graph(x: f32[8,32]) { %y = softmax(%x) {axis=1} %z = reduce_sum(%x) {axes=[0,1]} return y = %y, z = %z }")
        .expect("a graph");
    let inputs = vec![Rng::new(1).tensor(graph.ty(graph.inputs()[0]))];
    let want = ir::eval(&graph, &inputs).expect("an answer");
    let reference = Reference::new(&Case { graph, inputs }, Effort::Quick).expect("a stable answer");
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
    let reference = Reference::new(&Case { graph, inputs }, Effort::Thorough).expect("an answer");
    assert_eq!(reference.compared_fraction(), 64.0 / 65.0);
}

#[test]
fn shrinking_keeps_what_fails_and_little_else() {
    // "Fails" where a maximum is taken of a matmul, whatever is around it.
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

/// Checks a network that once differed, in all configurations.
fn agrees(text: &str) {
    let graph = text::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let inputs = graph.inputs().iter().map(|v| Rng::new(1).tensor(graph.ty(*v))).collect();
    let case = Case { graph, inputs };
    let reference = Reference::new(&case, Effort::Thorough).expect("a stable answer");
    for target in dnnc::targets::instruction_sets() {
        for rewrites in [true, false] {
            check(&case, &reference, Backend::Kir, Options { target, rewrites, ..Options::default() }, false);
        }
    }
    for (rewrites, threads, onnx) in [(true, 1, false), (false, 1, false), (true, 2, false), (false, 2, false), (true, 1, true)] {
        check(&case, &reference, Backend::Jit, Options { rewrites, threads, ..Options::default() }, onnx);
    }
}

fn check(case: &Case, reference: &Reference, backend: Backend, options: Options, onnx: bool) {
    let configuration = Configuration { backend, options, onnx };
    if let Err(f) = fuzz::check(case, &configuration, reference) {
        panic!("{configuration}: {:?}: {}\n{}", f.kind, f.message, case.graph);
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

#[test]
fn indices_of_maxima_have_their_channels_at_axis_1() {
    agrees(
        "graph(x: f32[1,1,3], n: i64[2]) {
        %p = arg_max_pool(%x) {kernel=[1], strides=[2], pads=[0,0], dilations=[1]}
        %m = mul(%p, %n) %le = le(%p, %n) return m = %m, le = %le }",
    );
    agrees(
        "graph(x: f16[1,8,1,2,6]) {
        %p = arg_max_pool(%x) {kernel=[1,3,2], strides=[1,1,1], pads=[0,1,2,0,0,0], dilations=[1,1,1]}
        %z = const i64[1,1,1,7] splat 0 %y = or(%p, %z) return y = %y }",
    );
}

#[test]
fn attention_to_nothing_reads_sliced_values() {
    agrees(
        "graph(q: f32[1,0], k: f32[4,0], x: f32[40]) {
        %s = slice(%x) {starts=[10], sizes=[16], steps=[1]} %v = reshape(%s) {shape=[4,4]}
        %m = const f32[1,4] [0, 1, 2, 3] %y = attention(%q, %k, %v, %m) {scale=0.5} return y = %y }",
    );
}

#[test]
fn signals_and_matrices_are_padded_in_blocks() {
    agrees(
        "graph(x: f32[3,2,4]) {
        %u = unpack(%x) {block=4, size=8} %z = const f32[] [2.765625] %y = pad(%u, %z) {pads=[2,4,1,4]} return y = %y }",
    );
    agrees(
        "graph(x: f32[2,1,3,5,2,4]) {
        %u = unpack(%x) {block=4, size=4} %z = const f32[] [0] %y = pad(%u, %z) {pads=[1,4,1,0,2,0,4,1,2,3]} return y = %y }",
    );
    agrees(
        "graph(x: bf16[3,0,4]) {
        %u = unpack(%x) {block=4} %z = const bf16[] [2.765625] %y = pad(%u, %z) {pads=[2,1,1,3]} return y = %y }",
    );
}

#[test]
fn memory_that_another_operand_reads_is_not_overwritten() {
    agrees(
        "graph(x: f32[1]) {
        %z = const f32[] [0] %p = pad(%x, %z) {pads=[281,42], mode=wrap} %a = reshape(%p) {shape=[2,3,3,2,3,3,1]}
        %s = slice(%p) {starts=[0], sizes=[3], steps=[1]} %b = reshape(%s) {shape=[3,1]} %y = add(%a, %b) return y = %y }",
    );
    agrees(
        "graph(x: bool[5,4,4,3]) {
        %f = cast(%x) {to=f32} %a = reshape(%f) {shape=[240]} %s = slice(%a) {starts=[1], sizes=[3], steps=[1]}
        %y = select(%x, %s, %f) return y = %y }",
    );
}

#[test]
fn a_float_between_integers_saturates() {
    agrees("graph() { %x = const i16[2] [15, -7] %f = cast(%x) {to=f32} %y = cast(%f) {to=u32} return y = %y }");
    agrees(
        "graph(x: i16[40]) { %f = cast(%x) {to=f32} %y = cast(%f) {to=u32} %z = cast(%f) {to=i8} %b = cast(%f) {to=bool} return y = %y, z = %z, b = %b }",
    );
}

#[test]
fn results_are_rounded_before_they_are_cast() {
    agrees("graph() { %x = const f16[2,2] [-1, 1, -1, 19] %s = softmax(%x) {axis=1} %y = cast(%s) {to=bool} return y = %y }");
    agrees(
        "graph(a: f16[2,2]) { %k = const f16[2,2] [-1, 1, -1, 19] %x = max(%a, %k) %s = softmax(%x) {axis=1} %y = cast(%s) {to=bool} return y = %y }",
    );
}

#[test]
fn gates_near_zero_keep_few_digits() {
    agrees(
        "graph(x: f32[6]) {
        %k = const f32[6] [-3.577673, -5, -6, -7, -8, -9] %z = min(%x, %k) %y = gelu(%z) %t = gelu_tanh(%z)
        %d = cast(%z) {to=f64} %dy = gelu(%d) %dt = gelu_tanh(%d) %h = cast(%z) {to=bf16} %ht = gelu_tanh(%h)
        return y = %y, t = %t, dy = %dy, dt = %dt, ht = %ht }",
    );
    // Some machines flush these numbers to 0: which is the smallest is not determined.
    agrees(
        "graph(x: f32[6]) { %k = const f32[6] [-17, -19, -17, -18, -17, -10.3] %z = min(%x, %k) %t = gelu_tanh(%z) %i = arg_min(%t) {axis=0,keepdims=0}
        return i = %i }",
    );
    agrees(
        "graph(w: f32[6,2]) {
        %zero = const f32[] [0] %x = const f32[1,1,6] [9, 9, 9, 9, 9, 0] %h = const f32[1,2] splat 0 %b = const f32[6] splat 0
        %w0 = mul(%w, %zero) %s = gru(%x, %w0, %h, %b) {hidden=2, has_bias=1} return s = %s, l = %s.1 }",
    );
}

#[test]
fn coordinates_in_images_have_their_own_precision() {
    agrees(
        "graph(x: f64[4,1,1,2], at: f32[4,1,1,2]) {
        %c = grid_sample(%x, %at) {mode=cubic, padding=border} %l = grid_sample(%x, %at) {padding=border} return c = %c, l = %l }",
    );
}

#[test]
fn absolute_values_of_integers_wrap() {
    agrees("graph(x: u32[4], i: i32[2]) {
        %n = neg(%x) %a = abs(%n) %l = const i32[2] [46341, 65536] %s = mul(%l, %l) %b = abs(%s) %t = add(%i, %l) %r = mul(%t, %t) %c = abs(%r)
        %m = const i32[2] [-2147483648, -1] %e = min(%i, %m) %f = abs(%e) %g = relu(%f) return a = %a, b = %b, c = %c, g = %g }");
}

#[test]
fn cells_are_rounded_when_they_are_stored() {
    // Unbounded gates: the cells overflow f16 within the sequence.
    agrees("graph(x: f16[4,1,8]) {
        %w = const f16[8,2] [60, 0, 60, 0, 60, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0] %h = const f16[1,2] [30, 30] %k = const f16[4,1,8] splat 20
        %z = max(%x, %k) %n = const i64[1] [3] %p = const f16[6] [-2.66796875, -3.40234375, 3.162109375, -1.8134765625, -2.7265625, 2.90234375]
        %y = lstm(%z, %w, %h, %h, %n, %p) {hidden=2, act_f=leaky_relu, has_lens=1, has_peepholes=1} %t = tanh(%y) return y = %t }");
}

#[test]
fn nothing_is_unique_among_nothing() {
    agrees("graph(x: f32[0,3]) { %y = unique(%x) {axis=0} return y = %y, n = %y.4 }");
}

#[test]
fn determinants_of_nan_are_nan() {
    agrees(
        "graph(x: f32[3,3]) { %y = det(%x)
        %a = const f32[2,3,3] [0, 1, 2, nan, 0, 1, 0, 2, 1, nan, 1, 2, 0, 0, 1, 0, 2, 1] %b = const f32[] [0] %c = add(%a, %b) %z = det(%c)
        %i = reshape(%x) {shape=[1,3,3]} %j = mul(%i, %b) %k = add(%j, %a) %w = det(%k) return y = %y, z = %z, w = %w }",
    );
}

#[test]
fn empty_slices_begin_anywhere() {
    agrees("graph(x: f32[6,4]) {
        %a = slice(%x) {starts=[0,0], sizes=[1,2], steps=[4611686018427387904,2]} %b = slice(%a) {starts=[0,1], sizes=[1,1], steps=[4611686018427387904,9]}
        %c = slice(%x) {starts=[5,0], sizes=[3,4], steps=[-2,1]} %d = slice(%c) {starts=[9223372036854775807,0], sizes=[0,4], steps=[-9,1]}
        %e = slice(%c) {starts=[2,3], sizes=[2,2], steps=[-2,-3]} return b = %b, d = %d, e = %e }");
}

#[test]
fn operands_of_concatenations_are_not_reused_in_place() {
    agrees(
        "graph(x: u16[1,1,1], w: u16[1]) {
        %a = reduce_min(%x) {axes=[0,1], keepdims=0} %c = concat(%a, %w) {axis=0} %h = cast(%a) {to=f16} %f = cast(%c) {to=f32}
        return f = %f, h = %h }",
    );
}

#[test]
fn powers_of_squares_are_exact() {
    agrees(
        "graph(either: bool[6]) {
        %a = const u8[6] [4, 16, 64, 9, 1, 0] %b = const u8[6] [16, 4, 25, 4, 4, 1] %y = const bf16[6] [3.5, 1.75, 0.5, 2.5, 0.125, 1.25]
        %c = const i64[6] [1099511627776, 152587890625, 81, -4, 4, 9] %d = const i64[6] [16, 6561, 4, 9, 1, 0]
        %z = const f64[6] [0.625, -0.25, 2.75, 1.5, nan, inf]
        %s = select(%either, %a, %b) %p = pow(%s, %y) %t = select(%either, %c, %d) %q = pow(%t, %z) return p = %p, q = %q }",
    );
}

#[test]
fn attention_reads_transposed_attention() {
    agrees(
        "graph(x: f32[1,1,1,1], m: f32[1,1], q: f32[2,1,2,1], k: f32[2,1,5,4]) {
        %a = attention(%q, %x, %x) {scale=0.5} %t = transpose(%a) {perm=[2,3,0,1]} %z = const f32[1,1,2,1] splat 2 %b = attention(%t, %t, %z, %m) {scale=0.5}
        %c = attention(%k, %k, %k) {scale=0.5} %u = transpose(%c) {perm=[2,0,1,3]} %v = reshape(%u) {shape=[1,5,2,4]} %d = attention(%v, %v, %v) {scale=0.5}
        return b = %b, d = %d }",
    );
}
