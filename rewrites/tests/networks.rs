//! Small networks before and after.

use dnnc_ir::eval::eval;
use dnnc_ir::{Attr, Graph, Kind, Tensor, TensorType, Type, Value};
use dnnc_rewrites::{Options, optimise};

/// Numbers that look random and are the same everywhere.
fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::new(shape, &values)
}

fn conv(g: &mut Graph, x: Value, w: &[usize], seed: u64, pad: i64) -> Value {
    let w = g.constant(noise(w, seed));
    let attrs = [("strides", Attr::from(vec![1, 1])), ("pads", Attr::from(vec![pad; 4])), ("dilations", Attr::from(vec![1, 1]))];
    g.apply(Kind::Conv, attrs, &[x, w]).expect("conv")
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

/// A graph as a list of operators on the numbers of nodes.
fn text(graph: &Graph) -> String {
    let line = |(i, n): (usize, &dnnc_ir::Node)| {
        let inputs: Vec<String> = n.inputs.iter().map(|v| format!("%{}", v.node)).collect();
        format!("%{i} = {} {} : {}\n", n.op.kind().name(), inputs.join(" "), n.types[0])
    };
    graph.nodes().iter().enumerate().map(line).collect()
}

/// The graph found for `g`, checked to compute the same.
fn optimised(g: &Graph) -> Graph {
    let found = optimise(g, dnnc_targets::find("avx2").expect("target"), &Options::default()).expect("optimised");
    assert!(found.report.after <= found.report.before, "{:?}", found.report);
    let inputs: Vec<Tensor> = g.inputs().iter().enumerate().map(|(i, &v)| noise(&g.ty(v).shape, 1000 + i as u64)).collect();
    let (before, after) = (eval(g, &inputs).expect("before"), eval(&found.graph, &inputs).expect("after"));
    for (a, b) in before.iter().zip(&after) {
        assert_eq!(a.ty(), b.ty());
        for (x, y) in a.values::<f32>().iter().zip(b.values::<f32>()) {
            assert!((x - y).abs() <= 1e-4 * (1.0 + x.abs()), "{x} is not {y}");
        }
    }
    found.graph
}

#[test]
fn convolutions_with_batch_norm_are_packed_convolutions_with_bias() {
    let mut g = Graph::new();
    let x = g.input("x", TensorType::new(Type::F32, [1, 16, 8, 8]));
    let mut y = x;
    for i in 0..3 {
        let z = conv(&mut g, y, &[16, 16, 3, 3], i, 1);
        let z = batch_norm(&mut g, z, 16, i + 100);
        let z = op(&mut g, Kind::Relu, &[z]);
        y = op(&mut g, Kind::Add, &[z, y]);
    }
    g.output("y", y);
    insta::assert_snapshot!(text(&optimised(&g)));
}
