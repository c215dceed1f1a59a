//! Every element-wise operator on every type, expressions at random, and views, against the reference.

use super::*;
use crate::expr::ExprNode;
use crate::kernels::testing::{Random, interpret, numbers};
use dnnc_ir::{Attr, Class, Kind, Op, Tensor, eval_op};
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

/// Compares within the stated bounds. `of_input`: below −1 the error of gelu is that of its gate, in [0, 1], times x: so it is relative to x there.
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
        let scale = if of_input && at[0] < -1.0 { at[0].abs() } else { w.abs() };
        let near = g == w || (g - w).abs() <= tolerance * scale + least || (g.is_nan() && w.is_nan());
        assert!(near, "{what}: element {i} is {g:e}, not {w:e}, at {at:?}");
    }
}

/// 64-bit integers that were f64 before they were truncated: the same but for the last bit of those, which shows from 2³² on, where a
/// result that is not whole may lie so near to the next integer.
fn assert_truncated(got: &Tensor, want: &Tensor, what: &str) {
    let words = |t: &Tensor| -> Vec<i128> {
        let one = |c: &[u8]| u64::from_le_bytes(c.try_into().expect("8 bytes"));
        let signed = t.ty().ty.is_signed();
        t.bytes().chunks_exact(8).map(one).map(|w| if signed { i128::from(w as i64) } else { i128::from(w) }).collect()
    };
    for (i, (g, w)) in words(got).into_iter().zip(words(want)).enumerate() {
        let few = if w.abs() < 1 << 32 { 0 } else { 1 + (w.abs() >> 51) };
        assert!((g - w).abs() <= few, "{what}: element {i} is {g}, not {w}");
    }
}

fn single(op: &dnnc_ir::Op, types: &[Type]) -> Option<Expr> {
    let mut nodes: Vec<ExprNode> = types.iter().enumerate().map(|(i, &ty)| ExprNode { what: What::Operand(i), ty }).collect();
    let shapes: Vec<TensorType> = types.iter().map(|&ty| TensorType::new(ty, [3])).collect();
    let ty = (op.def.infer)(&op.attrs, &shapes).ok()?.remove(0).ty;
    nodes.push(ExprNode { what: What::Apply(op.clone(), (0..types.len()).collect()), ty });
    Some(Expr { nodes })
}

/// All ways to use an operator of `Class::Elementwise`: attributes and operand types.
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
            let what = format!("{op:?} {types:?} on {target}");
            match op.kind() {
                Kind::Pow if types[0].is_int() && types[0].bytes() == 8 && types[1].is_float() => assert_truncated(&got, &want, &what),
                kind => assert_close(&got, &want, &what, &operands, matches!(kind, Kind::Gelu | Kind::GeluTanh)),
            }
        }
    }
}

#[test]
fn every_operator_on_every_type() {
    for kind in Kind::ALL.iter().copied().filter(|k| dnnc_ir::ops::def(*k).class == Class::Elementwise) {
        check_kind(kind);
    }
}

/// An expression of so many random operators on f32 operands: without jumps but those that operands decide, and within ±4.
fn random_tree(random: &mut Random, operands: usize, size: usize) -> Expr {
    const UNARY: [Kind; 9] =
        [Kind::Tanh, Kind::Sigmoid, Kind::Relu, Kind::Abs, Kind::Neg, Kind::Erf, Kind::Sin, Kind::Atan, Kind::HardSwish];
    const BINARY: [Kind; 5] = [Kind::Add, Kind::Sub, Kind::Mul, Kind::Min, Kind::Max];
    let apply =
        |kind: Kind, args: &[usize], ty| ExprNode { what: What::Apply(Op::new(kind, []).expect("no attributes"), args.to_vec()), ty };
    let mut nodes: Vec<ExprNode> = (0..operands).map(|i| ExprNode { what: What::Operand(i), ty: Type::F32 }).collect();
    nodes.push(ExprNode { what: What::Const(Tensor::scalar(random.unit() as f32)), ty: Type::F32 });
    let mut floats: Vec<usize> = (0..nodes.len()).collect();
    for _ in 0..size {
        let (x, y) = (floats[floats.len() - 1 - random.size(0, 1)], floats[random.size(0, floats.len() - 1)]);
        match random.size(0, 4) {
            0 | 1 => nodes.push(apply(UNARY[random.size(0, 8)], &[x], Type::F32)),
            2 | 3 => nodes.push(apply(BINARY[random.size(0, 4)], &[x, y], Type::F32)),
            _ => {
                nodes.push(apply(Kind::Lt, &[random.size(0, operands - 1), random.size(0, operands)], Type::Bool));
                nodes.push(apply(Kind::Select, &[nodes.len() - 1, x, y], Type::F32));
            }
        }
        let clamp = Op::new(Kind::Clamp, [("lo", (-4.0).into()), ("hi", 4.0.into())]).expect("bounds");
        nodes.push(ExprNode { what: What::Apply(clamp, vec![nodes.len() - 1]), ty: Type::F32 });
        floats.push(nodes.len() - 1);
    }
    Expr { nodes }
}

/// A tensor, a way in which it lies over `shape` (broadcast, in steps, backwards, its axes in any order), and the elements that are seen so.
fn random_view(random: &mut Random, shape: &[usize]) -> (Tensor, View, Tensor) {
    let rank = shape.len();
    let mut order: Vec<usize> = (0..rank).collect();
    for i in (1..rank).rev() {
        order.swap(i, if random.size(0, 2) == 0 { random.size(0, i) } else { i });
    }
    let steps: Vec<isize> = (0..rank).map(|_| [1, 1, 1, 1, 0, 2, -1, -3][random.size(0, 7)]).collect();
    let extent = |a: usize| (shape[a] - 1) * steps[a].unsigned_abs() + 1;
    let before = random.size(0, 5);
    let mut strides = vec![0; rank];
    let (mut offset, mut size) = (before, 1);
    for &a in order.iter().rev() {
        strides[a] = steps[a] * size as isize;
        if steps[a] < 0 {
            offset += (shape[a] - 1) * strides[a].unsigned_abs();
        }
        size *= extent(a);
    }
    let memory = random.tensor(Type::F32, [before + size]);
    let values = memory.values::<f32>();
    let count: usize = shape.iter().product();
    let seen = |i: usize| {
        let mut rest = i;
        let mut at = offset as isize;
        for a in (0..rank).rev() {
            at += strides[a] * (rest % shape[a]) as isize;
            rest /= shape[a];
        }
        values[at as usize]
    };
    let seen = Tensor::new(shape.to_vec(), &(0..count).map(seen).collect::<Vec<f32>>());
    (memory.clone(), View { offset, strides }, seen)
}

fn assert_tree(random: &mut Random, shape: &[usize], threads: usize, target: &str) {
    let (operands, size) = (random.size(1, 3), random.size(1, 8));
    let expr = random_tree(random, operands, size);
    let given: Vec<(Tensor, View, Tensor)> = (0..operands).map(|_| random_view(random, shape)).collect();
    let seen: Vec<Tensor> = given.iter().map(|g| g.2.clone()).collect();
    let spread = |t: Tensor| if t.len() == 1 { vec![f64::from(t.values::<f32>()[0]); seen[0].len()] } else { numbers(&t) };
    let want = spread(reference(&expr, &seen).expect("an answer"));
    let options = Options { threads, ..Options::default() };
    let types: Vec<Operand> = given.iter().map(|g| Operand { ty: g.0.ty().clone(), constant: None }).collect();
    let views: Vec<Option<View>> = given.iter().map(|g| Some(g.1.clone())).collect();
    let result = TensorType::new(Type::F32, shape);
    let lowered = lower_views(&expr, &types, &views, &result, find(target).expect("a target"), &options).expect("kernels");
    let inputs: Vec<&[u8]> = given.iter().map(|g| g.0.bytes()).collect();
    let bytes = interpret(&lowered, &inputs, &[], &[result.bytes()]).expect("no error").remove(0);
    let got = numbers(&Tensor::from_bytes(result, &bytes).expect("bytes of the result"));
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!((g - w).abs() < 1e-3, "element {i} of {shape:?} is {g}, not {w}, on {target} with {threads} threads: {expr:?} {views:?}");
    }
}

#[test]
fn random_expressions_on_random_views() {
    let mut random = Random::new(31);
    for i in 0..300 {
        let rank = random.size(1, 4);
        let shape: Vec<usize> = (0..rank).map(|_| [1, 2, 3, 7, 8, 9, 16, 17][random.size(0, 7)]).collect();
        assert_tree(&mut random, &shape, 1, ["x86-64-v3", "aarch64"][i % 2]);
    }
}

#[test]
fn large_expressions_in_tasks() {
    let mut random = Random::new(32);
    for shape in [vec![70001], vec![3, 11, 2048], vec![257, 263], vec![40000, 2], vec![2, 190, 181]] {
        for _ in 0..2 {
            assert_tree(&mut random, &shape, 3, "x86-64-v3");
        }
    }
    let relu = single(&Op::new(Kind::Tanh, []).expect("no attributes"), &[Type::F32]).expect("of floats");
    let operand = Operand { ty: TensorType::new(Type::F32, [70001]), constant: None };
    let options = Options { threads: 3, ..Options::default() };
    let lowered =
        lower(&relu, std::slice::from_ref(&operand), &operand.ty, find("x86-64-v3").expect("a target"), &options).expect("a kernel");
    assert!(lowered.calls[0].tasks > 1, "such an array is cut into tasks");
}

#[test]
fn integers_divided_by_zero_are_an_error() {
    for kind in [Kind::Div, Kind::Mod] {
        for (i, target) in ["x86-64-v3", "aarch64"].into_iter().enumerate() {
            let expr = single(&Op::new(kind, []).expect("no attributes"), &[Type::I32; 2]).expect("of integers");
            let ones = Tensor::new([19], &[7i32; 19]);
            let mut divisors = [2i32; 19];
            let result = ones.ty().clone();
            let run = |divisors: &[i32]| compiled(&expr, &[ones.clone(), Tensor::new([19], divisors)], &result, target, 1);
            assert_eq!(run(&divisors).expect("no zero").values::<i32>()[18], if kind == Kind::Div { 3 } else { 1 });
            divisors[[18, 3][i]] = 0;
            let status = format!("status {}", dnnc_runtime::abi::DIVISION);
            let why = run(&divisors).expect_err("a zero");
            assert!(why.contains(&status), "{why}");
        }
    }
}
