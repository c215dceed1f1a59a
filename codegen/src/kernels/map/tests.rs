//! Every element-wise operator on every type, expressions at random, and views, against the reference.

use super::*;
use crate::expr::ExprNode;
use crate::kernels::testing::{Random, interpret, numbers};
use dnnc_ir::{Attr, Class, Kind, Tensor, eval_op};
use dnnc_targets::find;

/// Numbers with those among them at which functions go wrong.
fn tensor(random: &mut Random, ty: Type, shape: &[usize], wide: bool) -> Tensor {
    const SPECIAL: [f64; 12] = [0.0, -0.0, 1.0, -1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 0.5, 2.0, 1e-30, -88.5, 1e6];
    let ty = TensorType::new(ty, shape);
    let mut bytes = vec![];
    for _ in 0..ty.len() {
        let special = wide && random.size(0, 5) == 0;
        let real = if special { SPECIAL[random.size(0, 11)] } else { random.unit() * [1.0, 4.0, 30.0][random.size(0, 2)] };
        let whole = if wide && random.size(0, 2) == 0 { random.bits() } else { random.size(0, 20) as u64 };
        let whole = if ty.ty.is_signed() && random.size(0, 1) == 0 { whole.wrapping_neg() } else { whole };
        match ty.ty {
            Type::F64 => bytes.extend(real.to_le_bytes()),
            Type::F32 => bytes.extend((real as f32).to_le_bytes()),
            Type::F16 | Type::BF16 => bytes.extend((dnnc_ir::float8::encode(ty.ty, real, false) as u16).to_le_bytes()),
            Type::Bool => bytes.push(random.size(0, 1) as u8),
            Type::U2 => bytes.push(whole as u8 & 3),
            Type::U4 | Type::F4E2M1 => bytes.push(whole as u8 & 15),
            Type::I2 => bytes.push(((whole as i8) << 6 >> 6) as u8),
            Type::I4 => bytes.push(((whole as i8) << 4 >> 4) as u8),
            _ => bytes.extend(&whole.to_le_bytes()[..ty.ty.bytes()]),
        }
    }
    Tensor::from_bytes(ty, &bytes).expect("as many bytes as the type has")
}

/// An expression on tensors by the reference, node by node.
fn reference(expr: &Expr, operands: &[Tensor]) -> Result<Tensor, String> {
    let mut values: Vec<Tensor> = vec![];
    for node in &expr.nodes {
        values.push(match &node.what {
            What::Operand(i) => operands[*i].clone(),
            What::Const(t) => t.clone(),
            What::Apply(op, args) => eval_op(op, &args.iter().map(|&i| values[i].clone()).collect::<Vec<_>>())?.remove(0),
        });
    }
    Ok(values.pop().expect("a node"))
}

fn compiled(expr: &Expr, operands: &[Tensor], result: &TensorType, target: &str, threads: usize) -> Result<Tensor, String> {
    let options = Options { threads, ..Options::default() };
    let types: Vec<Operand> = operands.iter().map(|t| Operand { ty: t.ty().clone(), constant: None }).collect();
    let lowered = lower(expr, &types, result, find(target).expect("a target"), &options)?;
    let inputs: Vec<&[u8]> = operands.iter().map(Tensor::bytes).collect();
    let bytes = interpret(&lowered, &inputs, &[], &[result.bytes()])?.remove(0);
    Ok(Tensor::from_bytes(result.clone(), &bytes).expect("bytes of the result"))
}

fn reals(t: &Tensor) -> Vec<f64> {
    match t.ty().ty {
        Type::F32 | Type::F64 | Type::F16 | Type::BF16 => numbers(t),
        ty if ty.is_float() => t.values::<u8>().iter().map(|&v| dnnc_ir::float8::decode(ty, v.into())).collect(),
        _ => t.bytes().iter().map(|&v| v.into()).collect(),
    }
}

/// Compares within the stated bounds. `of_input`: the error of gelu is that of its gate, in [0, 1], times x: so it is relative to x and not to the result.
fn assert_close(got: &Tensor, want: &Tensor, what: &str, inputs: &[Tensor], of_input: bool) {
    let tolerance = match want.ty().ty {
        Type::F64 => 4e-15,
        Type::F32 => 1e-6,
        Type::F16 => 1.1e-3,
        Type::BF16 => 8e-3,
        _ => 0.0,
    };
    let least = if want.ty().ty == Type::F16 { 1e-7 } else { 3e-38 };
    for (i, (g, w)) in reals(got).into_iter().zip(reals(want)).enumerate() {
        let at: Vec<f64> = inputs.iter().filter(|t| t.len() == want.len()).filter_map(|t| reals(t).get(i).copied()).collect();
        let scale = if of_input { at[0].abs().max(w.abs()) } else { w.abs() };
        let near = g == w || (g - w).abs() <= tolerance * scale + least || (g.is_nan() && w.is_nan());
        assert!(near, "{what}: element {i} is {g:e}, not {w:e}, at {at:?}");
    }
}

fn single(op: &dnnc_ir::Op, types: &[Type]) -> Option<Expr> {
    // Beyond 2³² a whole power depends on the last bits of the float power, which are not the same in both.
    if op.kind() == Kind::Pow && types[0].is_int() && types[0].bytes() >= 4 && types[1].is_float() {
        return None;
    }
    let mut nodes: Vec<ExprNode> = types.iter().enumerate().map(|(i, &ty)| ExprNode { what: What::Operand(i), ty }).collect();
    let shapes: Vec<TensorType> = types.iter().map(|&ty| TensorType::new(ty, [3])).collect();
    let ty = (op.def.infer)(&op.attrs, &shapes).ok()?.remove(0).ty;
    nodes.push(ExprNode { what: What::Apply(op.clone(), (0..types.len()).collect()), ty });
    Some(Expr { nodes })
}

/// All ways to use an operator of `Class::Map`: attributes and operand types.
fn uses(kind: Kind) -> Vec<(dnnc_ir::Op, Vec<Type>)> {
    let attrs: Vec<Vec<(&'static str, Attr)>> = match kind {
        Kind::Cast => Type::ALL
            .iter()
            .flat_map(|&to| {
                let mut all = vec![vec![("to", Attr::Type(to))]];
                if to.is_float() && to.is_narrow() {
                    all.push(vec![("to", Attr::Type(to)), ("saturate", Attr::Int(0))]);
                    all.push(vec![("to", Attr::Type(to)), ("round", Attr::Word("down"))]);
                    all.push(vec![("to", Attr::Type(to)), ("round", Attr::Word("nearest")), ("saturate", Attr::Int(0))]);
                }
                all
            })
            .collect(),
        Kind::Bitcast => Type::ALL.iter().map(|&to| vec![("to", Attr::Type(to))]).collect(),
        Kind::Clamp => vec![vec![], vec![("lo", (-2.5).into()), ("hi", 3.5.into())], vec![("hi", 1e30.into()), ("lo", 0.0.into())]],
        Kind::Mod => vec![vec![], vec![("trunc", Attr::Int(1))]],
        Kind::IsInf => vec![vec![], vec![("positive", Attr::Int(0))], vec![("negative", Attr::Int(0))]],
        _ => vec![vec![]],
    };
    let mut uses = vec![];
    for attrs in attrs {
        let op = dnnc_ir::Op::new(kind, attrs).expect("attributes");
        for &a in Type::ALL {
            let operands: Vec<Vec<Type>> = match op.def.inputs {
                dnnc_ir::Arity::Exactly(1) => vec![vec![a]],
                dnnc_ir::Arity::Exactly(2) => Type::ALL.iter().map(|&b| vec![a, b]).collect(),
                _ => vec![vec![Type::Bool, a, a]],
            };
            uses.extend(operands.into_iter().filter(|types| single(&op, types).is_some()).map(|types| (op.clone(), types)));
        }
    }
    uses
}

fn check_kind(kind: Kind) {
    let mut random = Random::new(kind as u64 + 1);
    for (op, types) in uses(kind) {
        let expr = single(&op, &types).expect("checked");
        let n = 37;
        let mut operands: Vec<Tensor> = types.iter().map(|&ty| tensor(&mut random, ty, &[n], true)).collect();
        // Integers do not divide by 0, nor raise it to a negative power.
        if matches!(kind, Kind::Div | Kind::Mod | Kind::Pow) && !types[0].is_float() {
            let which = if kind == Kind::Pow { 0 } else { 1 };
            let mut bytes = operands[which].bytes().to_vec();
            let width = types[which].bytes();
            bytes.chunks_mut(width).filter(|c| c.iter().all(|b| *b == 0)).for_each(|c| c[0] = 1);
            operands[which] = Tensor::from_bytes(operands[which].ty().clone(), &bytes).expect("as before");
        }
        let want = reference(&expr, &operands).unwrap_or_else(|e| panic!("{op:?} {types:?}: {e}"));
        for target in ["x86-64-v3", "aarch64"] {
            let got = compiled(&expr, &operands, want.ty(), target, 1).unwrap_or_else(|e| panic!("{op:?} {types:?}: {e}"));
            assert_close(
                &got,
                &want,
                &format!("{op:?} {types:?} on {target}"),
                &operands,
                matches!(op.kind(), Kind::Gelu | Kind::GeluTanh),
            );
        }
    }
}

#[test]
fn every_operator_on_every_type() {
    for kind in Kind::ALL.iter().copied().filter(|k| dnnc_ir::ops::def(*k).class == Class::Map) {
        check_kind(kind);
    }
}
