//! Quantised layers become products of the integers that the target multiplies.

mod common;

use common::Forecasts;
use dnnc_ir::eval::eval;
use dnnc_ir::random::Rng;
use dnnc_ir::{Attr, Graph, Kind, Node, Tensor, TensorType, Type, Value};
use dnnc_rewrites::{Options, optimise};

fn op(g: &mut Graph, kind: Kind, inputs: &[Value]) -> Value {
    g.apply(kind, [], inputs).expect("operator")
}

fn cast(g: &mut Graph, x: Value, to: Type) -> Value {
    g.apply(Kind::Cast, [("to", Attr::Type(to))], &[x]).expect("cast")
}

fn number(g: &mut Graph, value: f32) -> Value {
    g.constant(Tensor::scalar(value))
}

/// Random bytes of a type.
fn bytes(ty: Type, shape: &[usize], seed: u64) -> Tensor {
    let mut rng = Rng::new(seed);
    let ty = TensorType::new(ty, shape);
    let data: Vec<u8> = (0..ty.len()).map(|_| rng.below(256) as u8).collect();
    Tensor::from_bytes(ty, &data).expect("a byte an element")
}

/// q less a zero point, in i32.
fn centred(g: &mut Graph, q: Value, zero: i32) -> Value {
    let q = cast(g, q, Type::I32);
    let zero = g.constant(Tensor::scalar(zero));
    op(g, Kind::Sub, &[q, zero])
}

fn conv(g: &mut Graph, x: Value, w: Value, pad: i64) -> Value {
    let one = Attr::from(vec![1i64, 1]);
    g.apply(Kind::Conv, [("strides", one.clone()), ("pads", Attr::from(vec![pad; 4])), ("dilations", one)], &[x, w]).expect("conv")
}

/// The graph found on a target; what it computes differs by at most so many steps.
fn optimised(g: &Graph, target: &str, inputs: &[Tensor], steps: f64) -> Graph {
    let target = dnnc_targets::find(target).expect("target");
    let found = optimise(g, target, &Options::default(), &Forecasts(target)).expect("optimised").graph;
    let (before, after) = (eval(g, inputs).expect("before"), eval(&found, inputs).expect("after"));
    for (a, b) in before.iter().zip(&after) {
        assert_eq!(a.ty(), b.ty());
        let far = a.to_f64s().iter().zip(b.to_f64s()).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
        assert!(far <= steps, "{far} steps apart on {}", target.name);
    }
    found
}

/// Operand types of the products of a kind.
fn operands(g: &Graph, kind: Kind) -> Vec<[Type; 2]> {
    let of = |n: &Node| [g.ty(n.inputs[0]).ty, g.ty(n.inputs[1]).ty];
    g.nodes().iter().filter(|n| n.op.kind() == kind).map(of).collect()
}

#[test]
fn integer_matmuls_take_the_bytes() {
    for zero_w in [0, 3] {
        let mut g = Graph::new();
        let x = g.input("x", TensorType::new(Type::U8, [40, 64]));
        let w = g.constant(bytes(Type::I8, &[64, 48], 1));
        let (x, w) = (centred(&mut g, x, 121), centred(&mut g, w, zero_w));
        let y = op(&mut g, Kind::MatMul, &[x, w]);
        g.output("y", y);
        let inputs = [bytes(Type::U8, &[40, 64], 2)];
        let found = optimised(&g, "neoverse-n1", &inputs, 0.0);
        assert_eq!(operands(&found, Kind::MatMul), [[Type::I8; 2]]);
        let found = optimised(&g, "x86-64-v3", &inputs, 0.0);
        assert_eq!(operands(&found, Kind::MatMul), [[Type::I16; 2]]);
    }
}

#[test]
fn padded_convolutions_take_the_bytes() {
    let mut g = Graph::new();
    let x = g.input("x", TensorType::new(Type::U8, [1, 16, 7, 9]));
    let w = g.constant(bytes(Type::U8, &[24, 16, 3, 3], 3));
    // 128 makes signed bytes of unsigned ones.
    let (x, w) = (centred(&mut g, x, 77), centred(&mut g, w, 128));
    let y = conv(&mut g, x, w, 1);
    g.output("y", y);
    let found = optimised(&g, "neoverse-n1", &[bytes(Type::U8, &[1, 16, 7, 9], 4)], 0.0);
    assert_eq!(operands(&found, Kind::Conv), [[Type::I8; 2]]);
}

#[test]
fn dequantised_convolutions_are_of_integers() {
    for (ty, zero) in [(Type::U8, 121), (Type::I8, -128), (Type::I8, 0)] {
        let mut g = Graph::new();
        let x = g.input("x", TensorType::new(ty, [1, 32, 6, 6]));
        let w = g.constant(bytes(Type::I8, &[24, 32, 3, 3], 5));
        let x = centred(&mut g, x, zero);
        let (x, w) = (cast(&mut g, x, Type::F32), cast(&mut g, w, Type::F32));
        let scale = number(&mut g, 0.02);
        let x = op(&mut g, Kind::Mul, &[x, scale]);
        let scales = g.constant(Tensor::new([24, 1, 1, 1], &(0..24).map(|i| 0.001 + 0.0001 * i as f32).collect::<Vec<_>>()));
        let w = op(&mut g, Kind::Mul, &[w, scales]);
        let y = conv(&mut g, x, w, 1);
        let y = op(&mut g, Kind::Relu, &[y]);
        let step = number(&mut g, 0.4);
        let y = op(&mut g, Kind::Div, &[y, step]);
        let y = op(&mut g, Kind::Round, &[y]);
        let y = cast(&mut g, y, Type::U8);
        g.output("y", y);
        let found = optimised(&g, "neoverse-n1", &[bytes(ty, &[1, 32, 6, 6], 6)], 1.0);
        assert_eq!(operands(&found, Kind::Conv), [[Type::I8; 2]]);
    }
}

#[test]
fn dequantised_matmuls_are_of_integers() {
    let mut g = Graph::new();
    let x = g.input("x", TensorType::new(Type::U8, [20, 64]));
    let w = g.constant(bytes(Type::I8, &[64, 32], 7));
    let x = centred(&mut g, x, 128);
    let (x, w) = (cast(&mut g, x, Type::F32), cast(&mut g, w, Type::F32));
    let scale = number(&mut g, 0.02);
    let x = op(&mut g, Kind::Mul, &[x, scale]);
    let scales = g.constant(Tensor::new([1, 32], &(0..32).map(|i| 0.001 + 0.0001 * i as f32).collect::<Vec<_>>()));
    let w = op(&mut g, Kind::Mul, &[w, scales]);
    let y = op(&mut g, Kind::MatMul, &[x, w]);
    g.output("y", y);
    let found = optimised(&g, "neoverse-n1", &[bytes(Type::U8, &[20, 64], 8)], 1e-4);
    assert_eq!(operands(&found, Kind::MatMul), [[Type::I8; 2]]);
}
