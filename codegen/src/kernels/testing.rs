//! Units of work on random data: what a family lowers, interpreted, against the reference of the operator.

use super::family;
use crate::expr::{Access, Epilogue, Expr, ExprNode, Extra, What};
use crate::unit::{Arg, Lowered, Operand, Options, Unit};
use dnnc_ir::{Attr, Kind, Op, Tensor, TensorType, Type};
use dnnc_kir::{interp, verify};
use dnnc_targets::{Target, find};

/// Machines of different vectors and registers, and one whose caches are so small that everything is done in blocks.
pub fn targets() -> Vec<Target> {
    let known = ["x86-64-v3", "aarch64", "x86-64", "x86-64-v4"].map(|name| *find(name).expect("a target of that name"));
    let tiny = Target { name: "tiny", l1d: 1 << 9, l2: 1 << 12, ..known[0] };
    known.into_iter().chain([tiny]).collect()
}

/// Machines that multiply integers of such a type several at a time, beside those of [`targets`].
fn dots(ty: &TensorType) -> Vec<Target> {
    if !matches!(ty.ty, Type::I8 | Type::U8) {
        return vec![];
    }
    let known = ["neoverse-n1", "alderlake", "cascadelake"].map(|name| *find(name).expect("a target of that name"));
    let tiny = Target { name: "tiny-dot", l1d: 1 << 9, l2: 1 << 12, ..known[0] };
    known.into_iter().chain([tiny]).collect()
}

/// Random numbers that are the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// One of `low..=high`.
    pub fn size(&mut self, low: usize, high: usize) -> usize {
        low + (self.bits() >> 33) as usize % (high - low + 1)
    }

    /// Between −1 and 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// A tensor of numbers between −1 and 1, or of small integers.
    pub fn tensor(&mut self, ty: Type, shape: impl Into<Vec<usize>>) -> Tensor {
        let ty = TensorType::new(ty, shape);
        let n = ty.len();
        let bytes: Vec<u8> = match ty.ty {
            Type::F32 => (0..n).flat_map(|_| (self.unit() as f32).to_le_bytes()).collect(),
            Type::F64 => (0..n).flat_map(|_| self.unit().to_le_bytes()).collect(),
            Type::F16 => (0..n).flat_map(|_| half::f16::from_f64(self.unit()).to_le_bytes()).collect(),
            Type::BF16 => (0..n).flat_map(|_| half::bf16::from_f64(self.unit()).to_le_bytes()).collect(),
            Type::Bool => (0..n).map(|_| (self.bits() >> 40) as u8 & 1).collect(),
            other => (0..n).flat_map(|_| (self.bits() >> 8).to_le_bytes()[..other.bytes()].to_vec()).collect(),
        };
        Tensor::from_bytes(ty, &bytes).expect("as many bytes as the type has")
    }
}

/// An operand and whether the compiler knows it.
pub type Given = (Tensor, bool);

/// Lowers an operator, runs what comes out and compares it with the reference, for every target and for one and three threads; then
/// f32 results again with epilogues.
pub fn check(kind: Kind, attrs: &[(&'static str, Attr)], inputs: &[Given]) {
    check_by(&family(kind).expect("a family").lower, 1.0, kind, attrs, inputs);
}

/// A way to lower units.
type Lower<'a> = &'a dyn Fn(&Unit) -> Result<Lowered, String>;

/// The same for one way of lowering, with so many times the usual tolerance of f32.
pub fn check_by(lower: Lower, tolerance: f64, kind: Kind, attrs: &[(&'static str, Attr)], inputs: &[Given]) {
    let op = Op::new(kind, attrs.iter().cloned()).expect("attributes");
    let tensors: Vec<Tensor> = inputs.iter().map(|i| i.0.clone()).collect();
    let types: Vec<TensorType> = tensors.iter().map(|t| t.ty().clone()).collect();
    let results = (op.def.infer)(&op.attrs, &types).unwrap_or_else(|e| panic!("{op:?} {types:?}: {e}"));
    let want = dnnc_ir::eval_op(&op, &tensors).unwrap_or_else(|e| panic!("{op:?}: {e}"));
    let epilogues = (family(kind).expect("a family").epilogue)(&op, &results).is_some() && results[0].ty == Type::F32;
    let after: Vec<Option<After>> =
        std::iter::once(None).chain((0..2).filter(|_| epilogues).map(|which| Some(After::new(which, &op, &results[0])))).collect();
    for after in &after {
        for target in targets().into_iter().chain(dots(&types[0])) {
            for threads in [1, 3] {
                // Where a tile goes is the same with all epilogues: two machines are enough for them.
                if after.is_some() && (threads == 3 || !["x86-64-v3", "aarch64"].contains(&target.name)) {
                    continue;
                }
                let with = after.as_ref().map_or("nothing", |a| a.name);
                let what = format!("{op:?} of {types:?} and {with} on {} with {threads} threads", target.name);
                let got = run(lower, &op, inputs, &results, after.as_ref(), &target, threads).unwrap_or_else(|e| panic!("{what}: {e}"));
                let first = after.as_ref().map(|a| a.reference(&want[0]));
                for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                    let want = first.as_ref().filter(|_| i == 0).unwrap_or(want);
                    close_by(tolerance, got, want).unwrap_or_else(|e| panic!("{what}: {e}"));
                }
            }
        }
    }
}

/// An epilogue and its operands.
pub struct After {
    name: &'static str,
    pub epilogue: Epilogue,
    /// The operands as they are in memory, and spread over the result.
    pub operands: Vec<Tensor>,
    spread: Vec<Tensor>,
}

impl After {
    /// 0: `relu(y + channel) · scalar + full`; 1: `cast(mod(y, channel))` to f16, which is computed lane by lane; 2: `relu(y + channel)`.
    pub fn new(which: usize, op: &Op, ty: &TensorType) -> After {
        let r = &mut Random::new(which as u64 + 77);
        let op_of = |kind, attrs: Vec<(&'static str, Attr)>| Op::new(kind, attrs).expect("an operator");
        let node = |what, ty| ExprNode { what, ty };
        let apply = |kind, args: &[usize]| node(What::Apply(op_of(kind, vec![]), args.to_vec()), Type::F32);
        let operand = |i| node(What::Operand(i), Type::F32);
        // The channel of each element: of the last axis of matrices, of axis 1 of images, which may be packed.
        let packed = op.def.attrs.iter().any(|a| a.0 == "block") && op.attrs.int("block") > 0;
        let image = op.def.attrs.iter().any(|a| a.0 == "pads");
        let strides = ty.strides();
        let channel_of = |i: usize| match (image, packed) {
            (false, _) => i % ty.shape[ty.rank() - 1],
            (true, false) => i / strides[1] % ty.shape[1],
            (true, true) => i / strides[1] % ty.shape[1] * op.attrs.size("block") + i % op.attrs.size("block"),
        };
        let channels = if ty.is_empty() { 1 } else { (0..ty.len()).map(channel_of).max().expect("not empty") + 1 };
        let channel = r.tensor(Type::F32, [channels]);
        let full = r.tensor(Type::F32, ty.shape.clone());
        let scalar = r.tensor(Type::F32, [1]);
        let by_channel: Vec<f32> = (0..ty.len()).map(|i| channel.values::<f32>()[channel_of(i)]).collect();
        let by_channel = Tensor::new(ty.shape.clone(), &by_channel);
        let everywhere = Tensor::new(ty.shape.clone(), &vec![scalar.values::<f32>()[0]; ty.len()]);
        let extra = |access| Extra { ty: Type::F32, access };
        if which == 0 {
            let nodes = vec![
                operand(0),
                operand(1),
                operand(2),
                operand(3),
                apply(Kind::Add, &[0, 1]),
                apply(Kind::Relu, &[4]),
                apply(Kind::Mul, &[5, 2]),
                apply(Kind::Add, &[6, 3]),
            ];
            let operands = vec![extra(Access::Channel), extra(Access::Scalar), extra(Access::Full)];
            return After {
                name: "relu(y + channel)·scalar + full",
                epilogue: Epilogue { expr: Expr { nodes }, operands },
                operands: vec![channel, scalar, full.clone()],
                spread: vec![by_channel, everywhere, full],
            };
        }
        if which == 2 {
            let nodes = vec![operand(0), operand(1), apply(Kind::Add, &[0, 1]), apply(Kind::Relu, &[2])];
            let epilogue = Epilogue { expr: Expr { nodes }, operands: vec![extra(Access::Channel)] };
            return After { name: "relu(y + channel)", epilogue, operands: vec![channel], spread: vec![by_channel] };
        }
        let to_half = op_of(Kind::Cast, vec![("to", Attr::from(Type::F16))]);
        // A remainder has jumps: of small numbers by 8 it has none near them.
        let eight = Tensor::scalar(8.0f32);
        let trunc = op_of(Kind::Mod, vec![("trunc", Attr::from(1))]);
        let nodes = vec![
            operand(0),
            operand(1),
            apply(Kind::Add, &[0, 1]),
            node(What::Const(eight), Type::F32),
            node(What::Apply(trunc, vec![1, 3]), Type::F32),
            apply(Kind::Add, &[4, 0]),
            node(What::Apply(to_half, vec![5]), Type::F16),
        ];
        After {
            name: "f16(y + mod(channel, 8))",
            epilogue: Epilogue { expr: Expr { nodes }, operands: vec![extra(Access::Channel)] },
            operands: vec![channel],
            spread: vec![by_channel],
        }
    }

    /// The expression by the reference of its operators.
    pub fn reference(&self, y: &Tensor) -> Tensor {
        let mut values: Vec<Tensor> = vec![];
        for node in &self.epilogue.expr.nodes {
            values.push(match &node.what {
                What::Operand(0) => y.clone(),
                What::Operand(i) => self.spread[i - 1].clone(),
                What::Const(t) => t.clone(),
                What::Apply(op, args) => {
                    let args: Vec<Tensor> = args.iter().map(|&i| values[i].clone()).collect();
                    dnnc_ir::eval_op(op, &args).expect("an element-wise operator").remove(0)
                }
            });
        }
        values.pop().expect("a node")
    }
}

/// The error that an operator on this data ends with.
pub fn failure(kind: Kind, attrs: &[(&'static str, Attr)], inputs: &[Given]) -> String {
    let op = Op::new(kind, attrs.iter().cloned()).expect("attributes");
    let types: Vec<TensorType> = inputs.iter().map(|i| i.0.ty().clone()).collect();
    let results = (op.def.infer)(&op.attrs, &types).unwrap_or_else(|e| panic!("{op:?} {types:?}: {e}"));
    run(&family(kind).expect("a family").lower, &op, inputs, &results, None, &targets()[0], 1).expect_err("the data is wrong")
}

fn run(
    lower: Lower,
    op: &Op,
    inputs: &[Given],
    results: &[TensorType],
    after: Option<&After>,
    target: &Target,
    threads: usize,
) -> Result<Vec<Tensor>, String> {
    let options = Options { threads, ..Options::default() };
    let operands = inputs.iter().map(|(t, known)| Operand { ty: t.ty().clone(), constant: known.then_some(t) }).collect();
    let epilogue = after.map(|a| &a.epilogue);
    let stored = TensorType::new(epilogue.map_or(results[0].ty, |e| e.expr.ty()), results[0].shape.clone());
    let in_memory: Vec<TensorType> = std::iter::once(&stored).chain(&results[1..]).cloned().collect();
    let unit = Unit { op, inputs: operands, results: results.to_vec(), epilogue, stored, target, options: &options };
    let lowered = lower(&unit)?;
    let inputs: Vec<&[u8]> = inputs.iter().map(|i| i.0.bytes()).collect();
    let extras: Vec<&[u8]> = after.map_or(vec![], |a| a.operands.iter().map(|t| t.bytes()).collect());
    let sizes: Vec<usize> = in_memory.iter().map(|r| r.bytes()).collect();
    let outputs = interpret(&lowered, &inputs, &extras, &sizes)?;
    Ok(outputs.into_iter().zip(in_memory).map(|(bytes, ty)| Tensor::from_bytes(ty, &bytes).expect("bytes of a result")).collect())
}

/// Runs what a family made of a unit; memory that no kernel has written holds a pattern that is a NaN in every float type.
pub fn interpret(lowered: &Lowered, inputs: &[&[u8]], extras: &[&[u8]], outputs: &[usize]) -> Result<Vec<Vec<u8>>, String> {
    let mut buffers: Vec<Vec<u8>> = inputs.iter().map(|b| b.to_vec()).collect();
    let first_extra = buffers.len();
    buffers.extend(extras.iter().map(|b| b.to_vec()));
    let first_const = buffers.len();
    buffers.extend(lowered.constants.iter().cloned());
    let first_scratch = buffers.len();
    buffers.extend(lowered.scratch.iter().map(|&n| vec![0xff; n]));
    let first_output = buffers.len();
    buffers.extend(outputs.iter().map(|&n| vec![0xff; n]));
    for call in &lowered.calls {
        verify(&call.func)?;
        let args: Vec<interp::Pointer> = call
            .args
            .iter()
            .map(|arg| match *arg {
                Arg::Input(i) => i,
                Arg::Extra(i) => first_extra + i,
                Arg::Const(i) => first_const + i,
                Arg::Scratch(i) => first_scratch + i,
                Arg::Output(i) => first_output + i,
            })
            .map(|buffer| interp::Pointer { buffer, offset: 0 })
            .collect();
        match interp::run_at(&call.func, &mut buffers, &args, call.tasks)? {
            0 => {}
            status => return Err(format!("kernel {} ended with status {status}", call.func.name)),
        }
    }
    Ok(buffers.split_off(first_output))
}

/// The elements as numbers.
pub fn numbers(t: &Tensor) -> Vec<f64> {
    match t.ty().ty {
        Type::F32 => t.values::<f32>().iter().map(|&v| v.into()).collect(),
        Type::F64 => t.values::<f64>().to_vec(),
        Type::F16 => t.values::<u16>().iter().map(|&v| half::f16::from_bits(v).to_f64()).collect(),
        Type::BF16 => t.values::<u16>().iter().map(|&v| half::bf16::from_bits(v).to_f64()).collect(),
        Type::I32 => t.values::<i32>().iter().map(|&v| v.into()).collect(),
        Type::I64 => t.values::<i64>().iter().map(|&v| v as f64).collect(),
        ty => panic!("numbers of {ty}"),
    }
}

/// Whether two results are the same but for the order of sums.
pub fn close(got: &Tensor, want: &Tensor) -> Result<(), String> {
    close_by(1.0, got, want)
}

fn close_by(factor: f64, got: &Tensor, want: &Tensor) -> Result<(), String> {
    if !got.ty().ty.is_float() {
        let same = got.bytes() == want.bytes();
        return if same { Ok(()) } else { Err("integers differ".into()) };
    }
    let tolerance = match got.ty().ty {
        Type::F64 => 1e-12,
        Type::F32 => factor * 2e-5,
        Type::F16 => 2e-3,
        _ => 2e-2,
    };
    let (got, want) = (numbers(got), numbers(want));
    let top = want.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs())).max(1e-3);
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        let fits = g == w || (g - w).abs() <= tolerance * top || (g.is_nan() && w.is_nan());
        if !fits {
            return Err(format!("element {i} is {g}, not {w}"));
        }
    }
    Ok(())
}
