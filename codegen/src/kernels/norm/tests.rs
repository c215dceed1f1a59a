//! Rows of random shapes and types against the reference, plain and with epilogues.

use crate::expr::{Access, Epilogue, Expr, ExprNode, Extra, What};
use crate::kernels::family;
use crate::kernels::testing::{Random, check, close, interpret};
use crate::unit::{Operand, Options, Unit};
use dnnc_ir::{Attr, Kind, Op, Tensor, TensorType, Type, eval_op};
use dnnc_targets::find;

const KINDS: [Kind; 4] = [Kind::Softmax, Kind::LogSoftmax, Kind::Norm, Kind::RmsNorm];

fn attrs(kind: Kind, random: &mut Random, rank: usize) -> Vec<(&'static str, Attr)> {
    match kind {
        Kind::Softmax | Kind::LogSoftmax => vec![("axis", Attr::Int(random.size(0, rank - 1) as i64))],
        _ => {
            let axes: Vec<i64> = (0..rank as i64).filter(|_| random.size(0, 1) == 0).collect();
            vec![("axes", if axes.is_empty() { vec![rank as i64 - 1] } else { axes }.into()), ("eps", Attr::from(1e-3))]
        }
    }
}

#[test]
fn rows_of_every_shape() {
    let mut random = Random::new(7);
    for round in 0..120 {
        let kind = KINDS[round % 4];
        let rank = random.size(1, 4);
        let shape: Vec<usize> = (0..rank).map(|_| [1, 2, 3, 5, 8, 9, 16, 33, 70][random.size(0, if rank == 4 { 5 } else { 8 })]).collect();
        let ty = [Type::F32, Type::F32, Type::F64, Type::F16, Type::BF16][random.size(0, 4)];
        let attrs = attrs(kind, &mut random, rank);
        check(kind, &attrs, &[(random.tensor(ty, shape), false)]);
    }
}

#[test]
fn long_rows_and_many() {
    let mut random = Random::new(8);
    for kind in KINDS {
        for shape in [vec![2, 9001], vec![1501, 3], vec![90, 57]] {
            let axis = if shape[0] == 1501 { 0 } else { 1 };
            let attrs = match kind {
                Kind::Softmax | Kind::LogSoftmax => vec![("axis", Attr::Int(axis))],
                _ => vec![("axes", Attr::Ints(vec![axis]))],
            };
            check(kind, &attrs, &[(random.tensor(Type::F32, shape), false)]);
        }
    }
}

#[test]
fn masked_elements_are_zero() {
    let values = [0.5, f32::NEG_INFINITY, 1.5, f32::NEG_INFINITY, -3.0, 88.0, f32::NEG_INFINITY];
    check(Kind::Softmax, &[("axis", Attr::Int(0))], &[(Tensor::new([7], &values), false)]);
}

/// (result · scale of the channel) + full, as a normalisation layer has them.
#[test]
fn epilogues() {
    let mut random = Random::new(9);
    for round in 0..40 {
        let kind = KINDS[round % 4];
        let rank = random.size(1, 3);
        let shape: Vec<usize> = (0..rank).map(|_| [1, 3, 8, 20, 37][random.size(0, 4)]).collect();
        let op = Op::new(kind, attrs(kind, &mut random, rank)).expect("attributes");
        let ty = [Type::F32, Type::F16][random.size(0, 1)];
        let (x, scale, full) = (random.tensor(ty, shape.clone()), random.tensor(ty, [shape[rank - 1]]), random.tensor(ty, shape.clone()));
        let scalar = random.tensor(ty, []);
        let binary = |kind| Op::new(kind, []).expect("no attributes");
        let node = |what| ExprNode { what, ty };
        let expr = Expr {
            nodes: vec![
                node(What::Operand(0)),
                node(What::Operand(1)),
                node(What::Operand(2)),
                node(What::Operand(3)),
                node(What::Apply(binary(Kind::Mul), vec![0, 1])),
                node(What::Apply(binary(Kind::Add), vec![4, 2])),
                node(What::Apply(binary(Kind::Max), vec![5, 3])),
            ],
        };
        let operands = [Access::Channel, Access::Full, Access::Scalar].map(|access| Extra { ty, access }).to_vec();
        let epilogue = Epilogue { expr, operands };
        let mut want = eval_op(&op, std::slice::from_ref(&x)).expect("a result").remove(0);
        for (kind, other) in [(Kind::Mul, &scale), (Kind::Add, &full), (Kind::Max, &scalar)] {
            want = eval_op(&binary(kind), &[want, other.clone()]).expect("a result").remove(0);
        }
        for target in ["x86-64-v3", "aarch64"] {
            let options = Options { threads: 2, ..Options::default() };
            let result = TensorType::new(ty, shape.clone());
            let unit = Unit {
                op: &op,
                inputs: vec![Operand { ty: result.clone(), constant: None }],
                results: vec![result.clone()],
                epilogue: Some(&epilogue),
                stored: result.clone(),
                target: find(target).expect("a target"),
                options: &options,
            };
            let lowered = (family(kind).expect("a family").lower)(&unit).expect("kernels");
            let bytes = interpret(&lowered, &[x.bytes()], &[scale.bytes(), full.bytes(), scalar.bytes()], &[result.bytes()]).expect("runs");
            let got = Tensor::from_bytes(result, &bytes[0]).expect("bytes of the result");
            close(&got, &want).unwrap_or_else(|e| panic!("{op:?} {shape:?} {ty} on {target}: {e}"));
        }
    }
}
