//! Small networks before and after.

mod common;

use common::Forecasts;
use dnnc_ir::eval::eval;
use dnnc_ir::random::Rng;
use dnnc_ir::{Attr, Graph, Kind, Tensor, TensorType, Type, Value};
use dnnc_rewrites::{Options, optimise};

/// Random numbers from −½ to ½.
fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = Rng::new(seed);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| (rng.unit() / 2.0) as f32).collect();
    Tensor::new(shape, &values)
}

fn conv(g: &mut Graph, x: Value, w: &[usize], seed: u64, pad: i64) -> Value {
    group_conv(g, x, w, seed, pad, 1)
}

fn group_conv(g: &mut Graph, x: Value, w: &[usize], seed: u64, pad: i64, groups: i64) -> Value {
    let w = g.constant(noise(w, seed));
    let one = Attr::from(vec![1, 1]);
    let attrs = [("strides", one.clone()), ("pads", Attr::from(vec![pad; 4])), ("dilations", one), ("groups", Attr::Int(groups))];
    g.apply(Kind::Conv, attrs, &[x, w]).expect("conv")
}

fn constant(g: &mut Graph, value: f32) -> Value {
    g.constant(Tensor::scalar(value))
}

fn ints(name: &'static str, values: &[i64]) -> (&'static str, Attr) {
    (name, Attr::from(values.to_vec()))
}

fn linear(g: &mut Graph, x: Value, k: usize, n: usize, seed: u64) -> Value {
    let (w, b) = (g.constant(noise(&[k, n], seed)), g.constant(noise(&[n], seed + 1)));
    let y = op(g, Kind::MatMul, &[x, w]);
    op(g, Kind::Add, &[y, b])
}

fn input(g: &mut Graph, shape: &[usize]) -> Value {
    g.input("x", TensorType::new(Type::F32, shape))
}

fn op(g: &mut Graph, kind: Kind, inputs: &[Value]) -> Value {
    g.apply(kind, [], inputs).expect("operator")
}

fn batch_norm(g: &mut Graph, x: Value, channels: usize, seed: u64) -> Value {
    let s = g.constant(noise(&[channels, 1, 1], seed));
    let t = g.constant(noise(&[channels, 1, 1], seed + 1));
    let y = op(g, Kind::Mul, &[x, s]);
    op(g, Kind::Add, &[y, t])
}

/// The graph found for `g`, checked to compute the same.
fn optimised(g: &Graph) -> String {
    let target = dnnc_targets::find("avx2").expect("target");
    let found = optimise(g, target, &Options::default(), &Forecasts(target)).expect("optimised");
    let again = optimise(g, target, &Options::default(), &Forecasts(target)).expect("optimised");
    assert_eq!(found.graph, again.graph, "the same input gives the same graph");
    assert!(found.report.after <= found.report.before, "{:?}", found.report);
    let inputs: Vec<Tensor> = g.inputs().iter().enumerate().map(|(i, &v)| noise(&g.ty(v).shape, 1000 + i as u64)).collect();
    let (before, after) = (eval(g, &inputs).expect("before"), eval(&found.graph, &inputs).expect("after"));
    for (a, b) in before.iter().zip(&after) {
        assert_eq!(a.ty(), b.ty());
        for (x, y) in a.values::<f32>().iter().zip(b.values::<f32>()) {
            assert!((x - y).abs() <= 1e-4 * (1.0 + x.abs()), "{x} is not {y}");
        }
    }
    found.graph.brief().to_string()
}

#[test]
fn convolutions_with_batch_norm_are_packed_convolutions_with_bias() {
    let mut g = Graph::new();
    let mut y = input(&mut g, &[1, 16, 8, 8]);
    for i in 0..2 {
        let z = conv(&mut g, y, &[16, 16, 3, 3], i, 1);
        let z = batch_norm(&mut g, z, 16, i + 100);
        let z = op(&mut g, Kind::Relu, &[z]);
        y = op(&mut g, Kind::Add, &[z, y]);
    }
    g.output("y", y);
    insta::assert_snapshot!(optimised(&g));
}

#[test]
fn a_block_of_mobilenet_v3_stays_packed() {
    let mut g = Graph::new();
    let x = input(&mut g, &[1, 16, 14, 14]);
    let y = conv(&mut g, x, &[48, 16, 1, 1], 1, 0);
    let y = batch_norm(&mut g, y, 48, 2);
    // Hard swish as exporters write it.
    let (three, six) = (constant(&mut g, 3.0), constant(&mut g, 6.0));
    let gate = op(&mut g, Kind::Add, &[y, three]);
    let gate = g.apply(Kind::Clamp, [("lo", Attr::from(0.0)), ("hi", Attr::from(6.0))], &[gate]).expect("clamp");
    let y = op(&mut g, Kind::Mul, &[y, gate]);
    let y = op(&mut g, Kind::Div, &[y, six]);
    let y = group_conv(&mut g, y, &[48, 1, 3, 3], 4, 1, 48);
    let y = batch_norm(&mut g, y, 48, 5);
    // Squeeze and excite.
    let s = g.apply(Kind::ReduceMean, [ints("axes", &[2, 3])], &[y]).expect("mean");
    let s = conv(&mut g, s, &[12, 48, 1, 1], 7, 0);
    let s = op(&mut g, Kind::Relu, &[s]);
    let s = conv(&mut g, s, &[48, 12, 1, 1], 8, 0);
    let s = op(&mut g, Kind::Sigmoid, &[s]);
    let y = op(&mut g, Kind::Mul, &[y, s]);
    let y = conv(&mut g, y, &[16, 48, 1, 1], 9, 0);
    let y = op(&mut g, Kind::Add, &[x, y]);
    g.output("y", y);
    insta::assert_snapshot!(optimised(&g));
}

#[test]
fn channels_last_becomes_channels_first() {
    let mut g = Graph::new();
    let mut y = input(&mut g, &[1, 8, 8, 16]);
    for i in 0..2 {
        y = g.apply(Kind::Transpose, [ints("perm", &[0, 3, 1, 2])], &[y]).expect("transpose");
        y = conv(&mut g, y, &[16, 16, 3, 3], i, 1);
        y = g.apply(Kind::Transpose, [ints("perm", &[0, 2, 3, 1])], &[y]).expect("transpose");
        let bias = g.constant(noise(&[16], i + 10));
        y = op(&mut g, Kind::Add, &[y, bias]);
        y = op(&mut g, Kind::Relu, &[y]);
        y = g
            .apply(Kind::ReduceMax, [ints("axes", &[1, 2])], &[y])
            .and_then(|m| g.apply(Kind::Mul, [], &[y, m]))
            .expect("scaled by its maximum");
    }
    g.output("y", y);
    insta::assert_snapshot!(optimised(&g));
}

#[test]
fn a_transformer_layer_is_norm_attention_and_gelu() {
    let (length, width, heads) = (6, 16, 2);
    let mut g = Graph::new();
    let x = input(&mut g, &[1, length, width]);
    // Layer norm of primitives.
    let last = ints("axes", &[2]);
    let mean = g.apply(Kind::ReduceMean, [last.clone()], &[x]).expect("mean");
    let centred = op(&mut g, Kind::Sub, &[x, mean]);
    let two = constant(&mut g, 2.0);
    let square = op(&mut g, Kind::Pow, &[centred, two]);
    let variance = g.apply(Kind::ReduceMean, [last], &[square]).expect("mean");
    let eps = constant(&mut g, 1e-5);
    let shifted = op(&mut g, Kind::Add, &[variance, eps]);
    let deviation = op(&mut g, Kind::Sqrt, &[shifted]);
    let y = op(&mut g, Kind::Div, &[centred, deviation]);
    let (scale, shift) = (g.constant(noise(&[width], 1)), g.constant(noise(&[width], 2)));
    let y = op(&mut g, Kind::Mul, &[y, scale]);
    let y = op(&mut g, Kind::Add, &[y, shift]);
    let split = [1, length as i64, heads, width as i64 / heads];
    let head = |g: &mut Graph, seed, perm: &[i64]| {
        let z = linear(g, y, width, width, seed);
        let z = g.apply(Kind::Reshape, [ints("shape", &split)], &[z]).expect("reshape");
        g.apply(Kind::Transpose, [ints("perm", perm)], &[z]).expect("transpose")
    };
    let (q, k, v) = (head(&mut g, 10, &[0, 2, 1, 3]), head(&mut g, 20, &[0, 2, 3, 1]), head(&mut g, 30, &[0, 2, 1, 3]));
    let scores = op(&mut g, Kind::MatMul, &[q, k]);
    let root = constant(&mut g, 8f32.sqrt());
    let scores = op(&mut g, Kind::Div, &[scores, root]);
    let weights = g.apply(Kind::Softmax, [("axis", Attr::Int(3))], &[scores]).expect("softmax");
    let y = op(&mut g, Kind::MatMul, &[weights, v]);
    let y = g.apply(Kind::Transpose, [ints("perm", &[0, 2, 1, 3])], &[y]).expect("transpose");
    let y = g.apply(Kind::Reshape, [ints("shape", &[1, length as i64, width as i64])], &[y]).expect("reshape");
    let y = linear(&mut g, y, width, 32, 40);
    // GELU of primitives.
    let (half, one, root) = (constant(&mut g, 0.5), constant(&mut g, 1.0), constant(&mut g, std::f32::consts::SQRT_2));
    let inner = op(&mut g, Kind::Div, &[y, root]);
    let inner = op(&mut g, Kind::Erf, &[inner]);
    let inner = op(&mut g, Kind::Add, &[inner, one]);
    let y = op(&mut g, Kind::Mul, &[y, inner]);
    let y = op(&mut g, Kind::Mul, &[y, half]);
    g.output("y", y);
    insta::assert_snapshot!(optimised(&g));
}

#[test]
fn a_shuffle_goes_into_the_weights() {
    let mut g = Graph::new();
    let x = input(&mut g, &[1, 24, 7, 7]);
    let y = group_conv(&mut g, x, &[24, 12, 1, 1], 1, 0, 2);
    let y = op(&mut g, Kind::Relu, &[y]);
    let y = g.apply(Kind::Reshape, [ints("shape", &[1, 2, 12, 7, 7])], &[y]).expect("reshape");
    let y = g.apply(Kind::Transpose, [ints("perm", &[0, 2, 1, 3, 4])], &[y]).expect("transpose");
    let y = g.apply(Kind::Reshape, [ints("shape", &[1, 24, 7, 7])], &[y]).expect("reshape");
    let y = group_conv(&mut g, y, &[24, 1, 3, 3], 2, 1, 24);
    let y = group_conv(&mut g, y, &[24, 12, 1, 1], 3, 0, 2);
    g.output("y", y);
    insta::assert_snapshot!(optimised(&g));
}

#[test]
fn pooling_comes_before_pointwise_convolutions() {
    let mut g = Graph::new();
    let x = input(&mut g, &[1, 32, 8, 8]);
    let y = conv(&mut g, x, &[16, 32, 1, 1], 1, 0);
    let two = || Attr::from(vec![2, 2]);
    let attrs = [("kernel", two()), ("strides", two()), ints("pads", &[0; 4]), ints("dilations", &[1, 1]), ints("extra", &[0, 0])];
    let y = g.apply(Kind::AvgPool, attrs, &[y]).expect("pool");
    g.output("y", y);
    insta::assert_snapshot!(optimised(&g));
}

#[test]
fn branches_of_repvgg_are_one_convolution() {
    let mut g = Graph::new();
    let x = input(&mut g, &[1, 8, 6, 6]);
    let wide = conv(&mut g, x, &[8, 8, 3, 3], 1, 1);
    let wide = batch_norm(&mut g, wide, 8, 2);
    let narrow = conv(&mut g, x, &[8, 8, 1, 1], 3, 0);
    let narrow = batch_norm(&mut g, narrow, 8, 4);
    let identity = batch_norm(&mut g, x, 8, 6);
    let y = op(&mut g, Kind::Add, &[wide, narrow]);
    let y = op(&mut g, Kind::Add, &[y, identity]);
    let y = op(&mut g, Kind::Relu, &[y]);
    g.output("y", y);
    insta::assert_snapshot!(optimised(&g));
}

#[test]
fn one_dimensional_convolutions_are_packed() {
    let mut g = Graph::new();
    let x = input(&mut g, &[1, 16, 40]);
    let w = g.constant(noise(&[16, 16, 3], 1));
    let attrs = [ints("strides", &[1]), ints("pads", &[1, 1]), ints("dilations", &[1])];
    let y = g.apply(Kind::Conv, attrs.clone(), &[x, w]).expect("conv");
    let bias = g.constant(noise(&[16, 1], 2));
    let y = op(&mut g, Kind::Add, &[y, bias]);
    let y = op(&mut g, Kind::Relu, &[y]);
    let w = g.constant(noise(&[16, 16, 3], 3));
    let y = g.apply(Kind::Conv, attrs, &[y, w]).expect("conv");
    g.output("y", y);
    insta::assert_snapshot!(optimised(&g));
}

#[test]
fn dilated_convolutions_in_sequence_stay_in_the_batch_layout() {
    let mut g = Graph::new();
    let mut y = input(&mut g, &[1, 32, 28, 28]);
    for seed in 1..3 {
        let w = g.constant(noise(&[32, 32, 3, 3], seed));
        let attrs = [ints("strides", &[1, 1]), ints("pads", &[2; 4]), ints("dilations", &[2, 2])];
        y = g.apply(Kind::Conv, attrs, &[y, w]).expect("conv");
        y = op(&mut g, Kind::Relu, &[y]);
    }
    g.output("y", y);
    insta::assert_snapshot!(optimised(&g));
}

#[test]
fn transposed_convolutions_are_sub_pixel_convolutions() {
    let mut g = Graph::new();
    let x = input(&mut g, &[1, 32, 14, 14]);
    let x = conv(&mut g, x, &[32, 32, 3, 3], 1, 1);
    // Equal windows of all phases, then each its own.
    let (w, v) = (g.constant(noise(&[32, 16, 2, 2], 2)), g.constant(noise(&[16, 16, 4, 4], 3)));
    let attrs = |pad: i64| [ints("strides", &[2, 2]), ints("pads", &[pad; 4]), ints("dilations", &[1, 1]), ints("output_padding", &[0, 0])];
    let y = g.apply(Kind::ConvTranspose, attrs(0), &[x, w]).expect("conv_transpose");
    let y = g.apply(Kind::ConvTranspose, attrs(1), &[y, v]).expect("conv_transpose");
    let y = op(&mut g, Kind::Relu, &[y]);
    g.output("y", y);
    insta::assert_snapshot!(optimised(&g));
}

#[test]
fn three_dimensional_images_are_batches_of_slices() {
    let mut g = Graph::new();
    let x = input(&mut g, &[1, 8, 6, 12, 12]);
    let w = g.constant(noise(&[16, 8, 3, 3, 3], 1));
    let attrs = [ints("strides", &[1; 3]), ints("pads", &[1; 6]), ints("dilations", &[1; 3])];
    let y = g.apply(Kind::Conv, attrs, &[x, w]).expect("conv");
    let y = op(&mut g, Kind::Relu, &[y]);
    let attrs = [ints("kernel", &[2; 3]), ints("strides", &[2; 3]), ints("pads", &[0; 6]), ints("dilations", &[1; 3])];
    let y = g.apply(Kind::MaxPool, attrs, &[y]).expect("max_pool");
    g.output("y", y);
    insta::assert_snapshot!(optimised(&g));
}

#[test]
fn bodies_of_loops_are_optimised() {
    let state = TensorType::new(Type::F32, [1, 8, 4, 4]);
    let mut body = Graph::new();
    body.input("i", TensorType::new(Type::I64, []));
    let go = body.input("go", TensorType::new(Type::Bool, []));
    let y = body.input("state", state.clone());
    let y = conv(&mut body, y, &[8, 8, 3, 3], 1, 1);
    let y = batch_norm(&mut body, y, 8, 2);
    let zero = constant(&mut body, 0.0);
    let y = op(&mut body, Kind::Max, &[y, zero]);
    body.output("go", go);
    body.output("state", y);
    let mut g = Graph::new();
    let x = g.input("x", state);
    let (trip, go) = (g.constant(Tensor::scalar(3i64)), g.constant(Tensor::with_type(TensorType::new(Type::Bool, []), &[1u8])));
    let attrs = [("body", Attr::from(body)), ("carried", Attr::Int(1)), ("max_trip", Attr::Int(3))];
    let y = g.apply(Kind::Loop, attrs, &[trip, go, x]).expect("loop");
    g.output("y", y);
    insta::assert_snapshot!(optimised(&g));
}

#[test]
fn precise_keeps_the_rounding_of_the_model() {
    let mut g = Graph::new();
    let x = input(&mut g, &[1, 8, 4, 4]);
    let y = conv(&mut g, x, &[8, 8, 3, 3], 1, 1);
    let y = batch_norm(&mut g, y, 8, 2);
    g.output("y", y);
    let options = Options { precise: true, ..Options::default() };
    let target = dnnc_targets::find("avx2").expect("target");
    let found = optimise(&g, target, &options, &Forecasts(target)).expect("optimised");
    let x = noise(&[1, 8, 4, 4], 9);
    assert_eq!(eval(&g, std::slice::from_ref(&x)), eval(&found.graph, &[x]));
    let miss = |m: &dnnc_rewrites::NearMiss| m.rule == "scale into convolution weights" && m.why.contains("precise");
    assert!(found.report.near_misses.iter().any(miss), "{:?}", found.report.near_misses);
}

#[test]
fn parallel_matmuls_are_fused() {
    let mut g = Graph::new();
    let x = input(&mut g, &[1, 48]);
    let parts: Vec<Value> = (0..3).map(|i| linear(&mut g, x, 48, 32, 10 * i)).collect();
    let gate = op(&mut g, Kind::Sigmoid, &[parts[0]]);
    let y = op(&mut g, Kind::Mul, &[gate, parts[1]]);
    let y = op(&mut g, Kind::Add, &[y, parts[2]]);
    g.output("y", y);
    insta::assert_snapshot!(optimised(&g));
}

#[test]
fn parallel_convolutions_are_fused() {
    let mut g = Graph::new();
    let x = input(&mut g, &[1, 32, 10, 10]);
    let mut branch = |n: usize, seed| {
        let y = conv(&mut g, x, &[n, 32, 1, 1], seed, 0);
        let y = op(&mut g, Kind::Relu, &[y]);
        conv(&mut g, y, &[8, n, 3, 3], seed + 1, 1)
    };
    let (a, b) = (branch(16, 1), branch(12, 3));
    let y = op(&mut g, Kind::Add, &[a, b]);
    g.output("y", y);
    insta::assert_snapshot!(optimised(&g));
}
