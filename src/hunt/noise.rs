//! How much rounding moves the results of a network: the evaluator, with each result of a node rounded anew.

use super::generate::Case;
use super::is_exact;
use dnnc_ir::eval::eval_op;
use dnnc_ir::random::Rng;
use dnnc_ir::{Class, Kind, Node, Op, Tensor, Type};

/// How many noisy runs there are, and how loud they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// For every network.
    Little,
    /// For those where a difference was seen.
    Great,
}

/// What becomes of zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Zeros {
    /// They are exact.
    Stay,
    /// They are what is left where all digits are gone, as others may be.
    Left,
    /// They are what cancelled, and by another order of the summands they are something, of either sign.
    Cancelled,
}

/// Results may be so many times as far from the reference as the noisy runs are.
const MARGIN: f64 = 16.0;
/// A result that noise moves by more than this share of its largest number says nothing.
const BLUNT: f64 = 0.05;

/// Allowed error of each element of each result; `None` when noise makes the evaluator fail.
pub fn allowed(case: &Case, want: &[Tensor], effort: Effort) -> Option<Vec<Vec<f64>>> {
    let (runs, loud) = match effort {
        Effort::Little => (3, 1.0),
        Effort::Great => (24, 4.0),
    };
    let wanted: Vec<Vec<f64>> = want.iter().map(Tensor::to_f64s).collect();
    let tops: Vec<f64> = wanted.iter().map(|w| w.iter().filter(|v| v.is_finite()).fold(0.0, |m: f64, v| m.max(v.abs()))).collect();
    let mut allowed: Vec<Vec<f64>> =
        want.iter().zip(&tops).map(|(t, top)| vec![if is_exact(t.ty().ty) { 0.0 } else { base(t.ty().ty) * top }; t.len()]).collect();
    for run in 0..runs {
        // Most zeros are exact; whether the difference hangs on one that is not is asked once there is a difference.
        let cancelled = effort == Effort::Great && run % 2 == 1;
        let got = noisy(case, &mut Rng::new(run + 1), loud, cancelled).ok()?;
        for (i, got) in got.iter().enumerate() {
            let blunt = if is_exact(got.ty().ty) { 0.0 } else { BLUNT * tops[i] };
            for ((g, w), a) in got.to_f64s().iter().zip(&wanted[i]).zip(&mut allowed[i]) {
                let moved = if g == w || g.is_nan() && w.is_nan() { 0.0 } else { (g - w).abs() };
                let new = if moved <= blunt { MARGIN * moved } else { f64::INFINITY };
                *a = a.max(new).max(least(got.ty().ty));
            }
        }
    }
    Some(allowed)
}

/// What any kernel may be off by, as a share of the largest number: that of the tests of kernels.
fn base(ty: Type) -> f64 {
    match ty {
        Type::F64 => 1e-12,
        Type::F32 => 2e-5,
        Type::F16 => 2e-3,
        Type::BF16 => 2e-2,
        _ => 0.0,
    }
}

/// Numbers near 0 have fewer digits, or none where a machine flushes them.
fn least(ty: Type) -> f64 {
    match ty {
        Type::F64 => 1e-300,
        Type::F32 => 1e-37,
        Type::F16 => 1e-7,
        Type::BF16 => 1e-37,
        _ => 0.0,
    }
}

/// Half the distance of neighbours, as a share of the number.
fn unit(ty: Type) -> f64 {
    match ty {
        Type::F64 => 1.2e-16,
        Type::F32 => 6e-8,
        Type::F16 => 4.9e-4,
        Type::BF16 => 3.9e-3,
        _ => 0.0,
    }
}

/// The results with every node's rounded differently; `cancelled`: zeros of sums are taken for what cancelled.
fn noisy(case: &Case, rng: &mut Rng, loud: f64, cancelled: bool) -> Result<Vec<Tensor>, String> {
    let mut values: Vec<Vec<Tensor>> = vec![];
    for node in case.graph.nodes() {
        let results = match node.op.kind() {
            Kind::Input => vec![case.inputs[node.op.attrs.size("index")].clone()],
            _ => {
                let mut operands: Vec<Tensor> = node.inputs.iter().map(|v| values[v.node as usize][v.index as usize].clone()).collect();
                // What sums differently is right for operands that are a little different, and sums that cancel show it.
                if node.op.def.class == Class::Compute && !is_rounding_free(node) {
                    operands.iter_mut().for_each(|t| *t = moved(t, rng, Zeros::Stay, |v| 2.0 * loud * unit(t.ty().ty) * v.abs()));
                }
                let results = eval_op(&node.op, &operands)?;
                results.iter().map(|t| shaken(node, &operands, t, rng, loud, cancelled)).collect::<Result<_, _>>()?
            }
        };
        values.push(results);
    }
    Ok(case.graph.outputs().iter().map(|(_, v)| values[v.node as usize][v.index as usize].clone()).collect())
}

/// Whether an operator gives the same bits however it is computed.
fn is_rounding_free(node: &Node) -> bool {
    use Kind::*;
    let kind = node.op.kind();
    matches!(node.op.def.class, Class::Source | Class::View | Class::Move)
        || matches!(
            kind,
            Neg | Abs | Sign | Floor | Ceil | Round | Trunc | Relu | Not | BitNot | IsNan | IsInf | Clamp | Bitcast | Min | Max | And | Or
        )
        || matches!(kind, Xor | Shl | Shr | Eq | Lt | Le | Select | ReduceMax | ReduceMin | ArgMax | ArgMin | TopK | MaxPool | ArgMaxPool)
        || matches!(kind, Gather | GatherElements | GatherNd | NonZero | Compress | Unique | NonMaxSuppression | Pack | Unpack | If)
}

fn shaken(node: &Node, operands: &[Tensor], t: &Tensor, rng: &mut Rng, loud: f64, cancelled: bool) -> Result<Tensor, String> {
    let ty = t.ty().ty;
    if !ty.is_real() || is_rounding_free(node) {
        return Ok(t.clone());
    }
    let kind = node.op.kind();
    let largest = |t: &Tensor| t.to_f64s().iter().filter(|v| v.is_finite()).fold(0.0, |m: f64, v| m.max(v.abs()));
    // Sums are as exact as their largest summand; element-wise functions as their value, and what they are a part of as theirs.
    let top = match (kind, node.op.def.class) {
        (Kind::Add | Kind::Sub | Kind::Mod, _) => operands.iter().map(largest).fold(0.0, f64::max),
        // What is left of 1 + erf, of x/6 + 1/2, or of 1 − a gate, has the error of 1.
        // Weights of pixels are what is left of a cubic polynomial.
        (Kind::Gelu | Kind::GeluTanh | Kind::HardSwish | Kind::GridSample, _) => largest(&operands[0]),
        // Summands that are equal are rounded alike, as many times as there are.
        (Kind::ReduceSum | Kind::ReduceMean, _) => {
            let abs = Op::new(Kind::Abs, []).expect("the row of `abs`");
            largest(&eval_op(&node.op, &eval_op(&abs, operands)?)?[0])
        }
        (Kind::Lstm | Kind::Gru | Kind::Rnn, _) => operands.iter().map(largest).fold(1.0, f64::max),
        (_, Class::Elementwise) => 0.0,
        _ => largest(t),
    };
    let of_top = match kind {
        // Winograd's transforms.
        Kind::Conv => base(ty) / 4.0,
        _ => 4.0 * unit(ty),
    };
    let zeros = match (kind, node.op.def.class) {
        (Kind::Gelu | Kind::GeluTanh | Kind::HardSwish, _) => Zeros::Left,
        (kind, class) if cancelled && (class != Class::Elementwise || matches!(kind, Kind::Add | Kind::Sub | Kind::Mod)) => {
            Zeros::Cancelled
        }
        _ => Zeros::Stay,
    };
    Ok(moved(t, rng, zeros, |v| loud * (4.0 * unit(ty) * v.abs() + of_top * top)))
}

/// The tensor with each number moved by up to so much.
fn moved(t: &Tensor, rng: &mut Rng, zeros: Zeros, by: impl Fn(f64) -> f64) -> Tensor {
    if !t.ty().ty.is_real() {
        return t.clone();
    }
    let ty = t.ty().ty;
    let mut noise = |v: f64| match v + rng.unit() * by(v) {
        _ if !v.is_finite() || v == 0.0 && zeros == Zeros::Stay => v,
        // A machine may flush it.
        _ if v.abs() < least(ty) && rng.below(2) == 0 => 0f64.copysign(v),
        new if zeros == Zeros::Left && new.signum() != v.signum() => 0.0,
        new => new,
    };
    let noise: Vec<f64> = t.to_f64s().into_iter().map(&mut noise).collect();
    let cast = Op::new(Kind::Cast, [("to", ty.into())]).expect("the row of `cast`");
    eval_op(&cast, &[Tensor::new(t.shape(), &noise)]).expect("doubles cast to every type").swap_remove(0)
}
