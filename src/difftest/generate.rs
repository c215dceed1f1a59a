//! Generation of random networks: operators of every kind on each other's results, with data on which the evaluator has a value.

use dnnc_ir::eval::eval_op;
use dnnc_ir::instance::{Preferences, generate_like};
use dnnc_ir::random::Rng;
use dnnc_ir::{Attr, Graph, Kind, Op, Tensor, TensorType, Type, Value};

/// A graph and data for its inputs: a test case.
#[derive(Clone, PartialEq, Debug)]
pub struct Case {
    /// The graph.
    pub graph: Graph,
    /// A tensor for each input.
    pub inputs: Vec<Tensor>,
}

/// Most elements of a value.
const MOST_ELEMENTS: usize = 20_000;
/// Values with larger numbers are discarded: results computed from them would be infinite.
const LARGEST: f64 = 1e4;

/// Larger integers are not averaged: their sum may overflow 64 bits.
const LARGEST_SUMMED: f64 = (1u64 << 48) as f64;

/// Larger numbers are not normalised: the sum of their squares would be infinite.
const LARGEST_SQUARED: f64 = 1e15;

/// Largest logarithm of the growth of an error in a recurrent layer without saturation.
const MOST_GROWTH: f64 = 60.0;

/// Operators that networks are mostly made of; the others are generated less often.
const COMMON: &[Kind] = &[
    Kind::Conv,
    Kind::Conv,
    Kind::Conv,
    Kind::MatMul,
    Kind::MatMul,
    Kind::Add,
    Kind::Add,
    Kind::Mul,
    Kind::Relu,
    Kind::Clamp,
    Kind::Silu,
    Kind::MaxPool,
    Kind::AvgPool,
    Kind::Softmax,
    Kind::Norm,
    Kind::Concat,
    Kind::Slice,
    Kind::Transpose,
    Kind::Reshape,
    Kind::Pad,
    Kind::ReduceMean,
    Kind::Attention,
    Kind::Cast,
];

/// A random network of up to 15 operators. The evaluator has a value for it, which is finite, except in few networks.
pub fn case(rng: &mut Rng) -> Case {
    let operators = 3 + rng.below(13);
    let mut generator = Generator {
        graph: Graph::new(),
        inputs: vec![],
        values: vec![],
        large: rng.below(4) == 0,
        common: rng.below(3),
        allows_infinite: rng.below(24) == 0,
        ty: rng.pick(&[Type::F32, Type::F32, Type::F32, Type::F32, Type::F16, Type::BF16, Type::F64, Type::I32, Type::I64, Type::U8]),
    };
    let mut count = 0;
    for _ in 0..6 * operators {
        count += usize::from(generator.operator(rng));
        if count == operators {
            break;
        }
    }
    generator.finish(rng)
}

struct Generator {
    graph: Graph,
    inputs: Vec<Tensor>,
    /// Every value so far, with its data for the inputs.
    values: Vec<(Value, Tensor)>,
    large: bool,
    /// How many of three operators are common ones.
    common: usize,
    /// Whether numbers may be infinite.
    allows_infinite: bool,
    /// Type of most inputs.
    ty: Type,
}

impl Generator {
    /// Adds a node of a random operator; false when none fits.
    fn operator(&mut self, rng: &mut Rng) -> bool {
        let kind = if rng.below(3) < self.common { rng.pick(COMMON) } else { rng.pick(Kind::ALL) };
        if matches!(kind, Kind::Input | Kind::Const) {
            return false;
        }
        let like = (rng.below(8) > 0 && !self.values.is_empty()).then(|| self.some_value(rng).1.ty().clone());
        let like = like.unwrap_or_else(|| self.some_type(rng));
        let like = Preferences { like: Some(like), large: self.large };
        let free = Preferences { like: None, large: self.large };
        // Large shapes come from operators whose operands are all new.
        let first = if self.large && rng.below(3) == 0 { &free } else { &like };
        let Some((op, drawn)) = generate_like(kind, rng, first).or_else(|| generate_like(kind, rng, &free)) else { return false };
        let kept = self.graph.clone();
        let (inputs, values) = (self.inputs.len(), self.values.len());
        let operands: Vec<(Value, Tensor)> = drawn.iter().enumerate().map(|(i, t)| self.operand(i, t, rng)).collect();
        if self.apply(op.clone(), &operands) {
            return true;
        }
        // The operator has no value for the data of these operands: all become new leaves.
        self.graph = kept.clone();
        self.inputs.truncate(inputs);
        self.values.truncate(values);
        let leaves: Vec<(Value, Tensor)> = drawn.iter().map(|t| self.leaf(t.clone(), rng.flip())).collect();
        if self.apply(op, &leaves) {
            return true;
        }
        self.graph = kept;
        self.inputs.truncate(inputs);
        self.values.truncate(values);
        false
    }

    /// Any value, recent ones more often.
    fn some_value(&self, rng: &mut Rng) -> (Value, Tensor) {
        let n = self.values.len();
        let back = if rng.flip() { rng.below(n.min(3)) } else { rng.below(n) };
        self.values[n - 1 - back].clone()
    }

    fn some_type(&self, rng: &mut Rng) -> TensorType {
        let ty = if rng.below(5) > 0 { self.ty } else { rng.pick(Type::ALL) };
        let rank = rng.pick(&[0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 4, 5, 6, 7, 8]);
        let most = if self.large { [60, 60, 48, 24, 16, 6, 4, 3, 3][rank] } else { [9, 9, 7, 6, 5, 4, 3, 3, 2][rank] };
        let size = |rng: &mut Rng| if rng.below(60) == 0 { 0 } else { 1 + rng.below(most) };
        TensorType::new(ty, (0..rank).map(|_| size(rng)).collect::<Vec<_>>())
    }

    /// An operand of the type of `drawn`: an existing value, one adapted to the type, or a new leaf.
    fn operand(&mut self, index: usize, drawn: &Tensor, rng: &mut Rng) -> (Value, Tensor) {
        let fitting: Vec<usize> = (0..self.values.len()).filter(|&i| self.values[i].1.ty() == drawn.ty()).collect();
        if !fitting.is_empty() && rng.below(10) < if index == 0 { 9 } else { 5 } {
            return self.values[rng.pick(&fitting)].clone();
        }
        // Indices and counts must be valid; other numbers may be any values.
        if !self.values.is_empty() && drawn.ty().ty != Type::I64 && rng.below(10) < if index == 0 { 6 } else { 2 } {
            let from = self.some_value(rng);
            if let Some(adapted) = self.adapt(from, drawn.ty(), rng) {
                return adapted;
            }
        }
        let data = if rng.below(4) == 0 { sparsified(drawn, rng) } else { drawn.clone() };
        self.leaf(data, rng.below(10) < if index == 0 { 2 } else { 7 })
    }

    fn leaf(&mut self, data: Tensor, constant: bool) -> (Value, Tensor) {
        let value = if constant {
            self.graph.constant(data.clone())
        } else {
            self.inputs.push(data.clone());
            self.graph.input(&format!("x{}", self.inputs.len() - 1), data.ty().clone())
        };
        self.values.push((value, data.clone()));
        (value, data)
    }

    /// A value cast, flattened, cut or padded to a type.
    fn adapt(&mut self, from: (Value, Tensor), to: &TensorType, rng: &mut Rng) -> Option<(Value, Tensor)> {
        let mut at = from;
        if at.1.ty().ty != to.ty {
            at = self.apply_view(Kind::Cast, vec![("to", to.ty.into())], at)?;
        }
        let [have, want] = [at.1.len(), to.len()];
        if have != want {
            at = self.apply_view(Kind::Reshape, vec![("shape", vec![have as i64].into())], at)?;
            if have > want {
                let start = rng.below(have - want + 1) as i64;
                let attrs = vec![("starts", vec![start].into()), ("sizes", vec![want as i64].into()), ("steps", vec![1].into())];
                at = self.apply_view(Kind::Slice, attrs, at)?;
            } else {
                let zero = self.graph.constant(Tensor::zeros(TensorType::new(to.ty, [])));
                let front = rng.below(want - have + 1);
                let pads = vec![front as i64, (want - have - front) as i64];
                let mode = if have == 0 { "constant" } else { rng.pick(&["constant", "edge", "wrap"]) };
                let op = Op::new(Kind::Pad, [("pads", pads.into()), ("mode", mode.into())]).ok()?;
                let zeros = (zero, Tensor::zeros(TensorType::new(to.ty, [])));
                at = self.apply(op, &[at, zeros]).then(|| self.values[self.values.len() - 1].clone())?;
            }
        }
        if at.1.shape() != to.shape {
            at = self.apply_view(Kind::Reshape, vec![("shape", to.shape.as_slice().into())], at)?;
        }
        Some(at)
    }

    fn apply_view(&mut self, kind: Kind, attrs: Vec<(&'static str, Attr)>, from: (Value, Tensor)) -> Option<(Value, Tensor)> {
        let op = Op::new(kind, attrs).ok()?;
        self.apply(op, &[from]).then(|| self.values[self.values.len() - 1].clone())
    }

    /// Adds a node of `op` when the evaluator has a value for it that later operators can use.
    fn apply(&mut self, op: Op, operands: &[(Value, Tensor)]) -> bool {
        let tensors: Vec<Tensor> = operands.iter().map(|(_, t)| t.clone()).collect();
        if !self.is_determined(&op, operands) {
            return false;
        }
        let op = counted(op, &tensors);
        let Ok(results) = eval_op(&op, &tensors) else { return false };
        if results.iter().any(|t| t.len() > MOST_ELEMENTS || !self.allows_infinite && !is_moderate(t)) {
            return false;
        }
        let Ok(value) = self.graph.add(op, operands.iter().map(|(v, _)| *v).collect(), "") else { return false };
        self.values.extend(results.into_iter().enumerate().map(|(i, t)| (value.result(i as u32), t)));
        true
    }

    /// Whether one result is right for these operands: for some, two different results are.
    fn is_determined(&self, op: &Op, operands: &[(Value, Tensor)]) -> bool {
        let tensor = |i: usize| &operands[i].1;
        let real = |i: usize| tensor(i).ty().ty.is_real();
        let given = |i: usize| matches!(self.graph.node(operands[i].0).op.kind(), Kind::Input | Kind::Const);
        let has_zero = |i: usize| tensor(i).to_f64s().contains(&0.0);
        let largest = |i: usize| tensor(i).to_f64s().iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let every = 0..operands.len();
        // Kernels may multiply by the zeros of padding and of weights, or skip them: this is the same for finite numbers only.
        if adds_products(op.kind()) && every.clone().any(|i| real(i) && tensor(i).to_f64s().iter().any(|v| !v.is_finite())) {
            return false;
        }
        match op.kind() {
            // The mean of integers is computed from their sum in 64 bits.
            Kind::ReduceMean => real(0) || largest(0) <= LARGEST_SUMMED,
            // A partial product may overflow where the product is 0.
            Kind::ReduceProd | Kind::CumProd => {
                !real(0) || tensor(0).to_f64s().iter().filter(|v| **v != 0.0).map(|v| v.abs().ln().max(0.0)).sum::<f64>() <= 80.0
            }
            // The padding lanes of a block have any value.
            Kind::Pack => tensor(0).shape()[op.attrs.size("axis")].is_multiple_of(op.attrs.size("block")),
            // Coordinates of f32 in images of f64 have the precision of f32.
            Kind::GridSample => tensor(0).ty().ty == tensor(1).ty().ty,
            // Scores of f16 may overflow it.
            Kind::Attention if tensor(0).ty().ty == Type::F16 => {
                let depth = tensor(0).shape()[tensor(0).shape().len() - 1];
                largest(0) * largest(1) * depth as f64 <= LARGEST
            }
            // Rounding decides whether a computed number is exactly 0, the sign of a 0, and whether two numbers are equal.
            Kind::Eq | Kind::NonZero | Kind::Compress | Kind::Bitcast | Kind::Unique | Kind::NonMaxSuppression => {
                every.clone().all(|i| !real(i) || given(i))
            }
            Kind::Mod => !real(1) || given(1),
            Kind::Recip => given(0) || !has_zero(0),
            Kind::Div => !real(1) || given(1) || !has_zero(1),
            // Squares overflow f32.
            Kind::Norm | Kind::RmsNorm => largest(0) <= LARGEST_SQUARED,
            // A state that amplifies rounding errors in each step has no stable last steps.
            Kind::Lstm | Kind::Gru | Kind::Rnn => {
                let [steps, hidden] = [tensor(0).shape()[0], tensor(1).shape()[1]].map(|n| n as f64);
                steps * (hidden * largest(1)).max(1.0).ln() <= MOST_GROWTH
            }
            Kind::Cast if op.attrs.ty("to") == Type::Bool => !real(0) || given(0),
            _ => true,
        }
    }

    /// Makes the values that no node reads results, and a few more.
    fn finish(mut self, rng: &mut Rng) -> Case {
        let mut read = vec![];
        self.graph.nodes().iter().for_each(|node| read.extend(&node.inputs));
        let computed = |v: &Value| !matches!(self.graph.node(*v).op.kind(), Kind::Input | Kind::Const);
        let mut results: Vec<Value> = self.values.iter().map(|(v, _)| *v).filter(computed).filter(|v| !read.contains(v)).collect();
        results.truncate(6);
        while rng.below(4) == 0 || results.is_empty() {
            match self.values.is_empty() {
                true => results.push(self.leaf(Tensor::scalar(1f32), false).0),
                false => results.push(self.some_value(rng).0),
            }
        }
        for (i, v) in results.into_iter().enumerate() {
            self.graph.output(&format!("y{i}"), v);
        }
        Case { graph: self.graph.remove_dead(), inputs: self.inputs }
    }
}

/// Whether results are sums of products, of which those with 0 may be skipped.
fn adds_products(kind: Kind) -> bool {
    use Kind::*;
    matches!(kind, Conv | ConvTranspose | MatMul | Attention | Lstm | Gru | Rnn | Resample | GridSample | RoiAlign)
}

/// The operator with the count that its data implies.
fn counted(op: Op, operands: &[Tensor]) -> Op {
    let data = match op.kind() {
        // The scanned results of a loop are complete only when every iteration ran: the bound is the number that runs.
        Kind::Loop => {
            let bound = operands[0].values::<i64>()[0].min(op.attrs.int("max_trip"));
            let (mut ran, mut go) = (0, operands[1].values::<u8>()[0]);
            while ran < bound && go != 0 {
                go = operands[4].values::<u8>()[ran as usize];
                ran += 1;
            }
            return op.with("max_trip", ran);
        }
        // Half of these have results of the largest possible size.
        Kind::Unique | Kind::NonMaxSuppression => {
            let found = eval_op(&op, operands).ok().and_then(|results| results.last().map(|t| t.values::<i64>()[0]));
            return if let Some(count) = found.filter(|count| count % 2 == 1) { op.with("count", count) } else { op };
        }
        Kind::NonZero => &operands[0],
        Kind::Compress => &operands[1],
        _ => return op,
    };
    let bool = Op::new(Kind::Cast, [("to", Type::Bool.into())]).expect("the row of `cast`");
    let Ok(holds) = eval_op(&bool, std::slice::from_ref(data)) else { return op };
    op.with("count", holds[0].values::<u8>().iter().map(|&b| i64::from(b)).sum::<i64>())
}

fn is_moderate(t: &Tensor) -> bool {
    !t.ty().ty.is_real() || t.to_f64s().iter().all(|v| v.abs() <= LARGEST)
}

/// The tensor with most of its numbers set to 0: single ones, or blocks of the last axis.
fn sparsified(t: &Tensor, rng: &mut Rng) -> Tensor {
    let width = t.ty().ty.bytes();
    let block = rng.pick(&[1, 1, 4, 8]);
    let percent = 50 + rng.below(50);
    let mut bytes = t.bytes().to_vec();
    for piece in bytes.chunks_mut(block * width) {
        if rng.bits() >> 32 < (percent << 32) as u64 / 100 {
            piece.fill(0);
        }
    }
    Tensor::from_bytes(t.ty().clone(), &bytes).expect("as many bytes as before")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dnnc_ir::{eval, text};

    #[test]
    fn networks_are_valid_and_the_same_for_a_seed() {
        for seed in 0..200 {
            let case = super::case(&mut Rng::new(seed));
            case.graph.validate().unwrap_or_else(|e| panic!("seed {seed}: {e}\n{}", case.graph.brief()));
            eval(&case.graph, &case.inputs).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{}", case.graph.brief()));
            assert_eq!(super::case(&mut Rng::new(seed)), case, "seed {seed}");
            let parsed = text::parse(&case.graph.to_string()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert_eq!(parsed, case.graph, "seed {seed}");
        }
    }

    #[test]
    fn every_operator_is_in_some_network() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..2000 {
            seen.extend(super::case(&mut Rng::new(seed)).graph.nodes().iter().map(|node| node.op.kind()));
        }
        let missing: Vec<&str> = Kind::ALL.iter().filter(|k| !seen.contains(k)).map(|k| k.name()).collect();
        assert!(missing.is_empty(), "never generated: {missing:?}");
    }

    #[test]
    fn bytes_decide() {
        let bytes: Vec<u8> = (0..200u8).map(|i| i.wrapping_mul(37)).collect();
        let case = super::case(&mut Rng::of_bytes(&bytes));
        case.graph.validate().expect("a graph");
        assert_eq!(super::case(&mut Rng::of_bytes(&bytes)), case);
        assert_ne!(super::case(&mut Rng::of_bytes(&bytes[1..])), case);
    }
}
