//! The tolerance model: how far a correct result may be from the reference evaluator's.
//!
//! Only rounding may differ. Its effect is measured: the evaluator runs several times with the results of every node perturbed by rounding errors, and a
//! result may be as far from the reference as `MARGIN` times the largest change. Results that a rounding decides (a comparison, an index) are not compared.

use super::generate::Case;
use dnnc_ir::eval::eval_op;
use dnnc_ir::random::Rng;
use dnnc_ir::{Class, Kind, Node, Op, Tensor, Type};

/// The number of perturbed runs, and their scale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// Few runs, for every network.
    Quick,
    /// Many runs of larger perturbations, for networks with a difference.
    Thorough,
}

/// The results of the reference evaluator for a network, and the error that the tolerance model allows.
pub struct Reference {
    want: Vec<Tensor>,
    /// Allowed error of each element of each result; infinite where a rounding decides.
    allowed: Vec<Vec<f64>>,
}

impl Reference {
    /// Runs the evaluator; `None` when it has no value, or none that is stable.
    pub fn new(case: &Case, effort: Effort) -> Option<Reference> {
        let want = dnnc_ir::eval(&case.graph, &case.inputs).ok()?;
        let allowed = allowed(case, &want, effort)?;
        Some(Reference { want, allowed })
    }

    /// The fraction of the elements that are compared.
    pub fn compared_fraction(&self) -> f64 {
        let all: usize = self.allowed.iter().map(Vec::len).sum();
        let open: usize = self.allowed.iter().flatten().filter(|a| a.is_infinite()).count();
        if all == 0 { 1.0 } else { 1.0 - open as f64 / all as f64 }
    }

    /// An error says where results differ by more than the model allows.
    pub fn compare(&self, got: &[Tensor]) -> Result<(), String> {
        if got.len() != self.want.len() {
            return Err(format!("{} results, not {}", got.len(), self.want.len()));
        }
        for (i, ((got, want), allowed)) in got.iter().zip(&self.want).zip(&self.allowed).enumerate() {
            if got.ty() != want.ty() {
                return Err(format!("result {i} is {}, not {}", got.ty(), want.ty()));
            }
            let (g, w) = (got.to_f64s(), want.to_f64s());
            let width = want.ty().ty.bytes();
            let bits = |t: &Tensor, e: usize| t.bytes()[e * width..(e + 1) * width].to_vec();
            // f64 does not tell all integers of 64 bits apart.
            let equal = |e: usize| if want.ty().ty.is_float() { g[e] == w[e] } else { bits(got, e) == bits(want, e) };
            let near = |e: usize| want.ty().ty.is_float() && (g[e] - w[e]).abs() <= allowed[e] || g[e].is_nan() && w[e].is_nan();
            let wrong: Vec<usize> = (0..g.len()).filter(|&e| !(equal(e) || near(e) || allowed[e].is_infinite())).collect();
            if let Some(&e) = wrong.first() {
                let (all, allowed) = (g.len(), allowed[e]);
                let text = format!("element {e} is {}, not {} ± {allowed:.1e}", g[e], w[e]);
                return Err(format!("result {i} ({}): {} of {all} elements differ; {text}", want.ty(), wrong.len()));
            }
        }
        Ok(())
    }
}

/// How zeros are perturbed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Zeros {
    /// They are exact.
    Exact,
    /// They are residuals of a cancellation of which no digit is left; other numbers may become such a zero, too.
    Residual,
    /// They are sums that cancelled: in another order of the summands they are small numbers of either sign.
    Cancelled,
}

/// Results may be this many times as far from the reference as the perturbed runs.
const MARGIN: f64 = 16.0;
/// A result that perturbations change by more than this fraction of its largest number is not compared.
const UNSTABLE: f64 = 0.05;

/// Allowed error of each element of each result; `None` when a perturbation makes the evaluator fail.
fn allowed(case: &Case, want: &[Tensor], effort: Effort) -> Option<Vec<Vec<f64>>> {
    let (runs, noise_scale) = match effort {
        Effort::Quick => (3, 1.0),
        Effort::Thorough => (24, 4.0),
    };
    let is_exact = |t: &Tensor| !t.ty().ty.is_float();
    let wanted: Vec<Vec<f64>> = want.iter().map(Tensor::to_f64s).collect();
    let largest: Vec<f64> = wanted.iter().map(|w| w.iter().filter(|v| v.is_finite()).fold(0.0, |m: f64, v| m.max(v.abs()))).collect();
    let mut allowed: Vec<Vec<f64>> =
        want.iter().zip(&largest).map(|(t, top)| vec![if is_exact(t) { 0.0 } else { kernel_error(t.ty().ty) * top }; t.len()]).collect();
    for run in 0..runs {
        // Most zeros are exact; whether a difference depends on one that is not is only asked once there is a difference.
        let cancelled = effort == Effort::Thorough && run % 2 == 1;
        let got = perturbed(case, &mut Rng::new(run + 1), noise_scale, cancelled).ok()?;
        for (i, got) in got.iter().enumerate() {
            let unstable = if is_exact(got) { 0.0 } else { UNSTABLE * largest[i] };
            for ((g, w), a) in got.to_f64s().iter().zip(&wanted[i]).zip(&mut allowed[i]) {
                let change = if g == w || g.is_nan() && w.is_nan() { 0.0 } else { (g - w).abs() };
                let new = if change <= unstable { MARGIN * change } else { f64::INFINITY };
                *a = a.max(new).max(smallest_normal(got.ty().ty));
            }
        }
    }
    Some(allowed)
}

/// The error that the tests of kernels allow, as a fraction of the largest number.
fn kernel_error(ty: Type) -> f64 {
    match ty {
        Type::F64 => 1e-12,
        Type::F32 => 2e-5,
        Type::F16 => 2e-3,
        Type::BF16 => 2e-2,
        _ => 0.0,
    }
}

/// Numbers below this have fewer digits, or are flushed to 0.
fn smallest_normal(ty: Type) -> f64 {
    match ty {
        Type::F64 => 1e-300,
        Type::F32 => 1e-37,
        Type::F16 => 1e-7,
        Type::BF16 => 1e-37,
        _ => 0.0,
    }
}

/// Half the distance of neighbouring numbers, as a fraction of the number.
fn unit_roundoff(ty: Type) -> f64 {
    match ty {
        Type::F64 => 1.2e-16,
        Type::F32 => 6e-8,
        Type::F16 => 4.9e-4,
        Type::BF16 => 3.9e-3,
        _ => 0.0,
    }
}

/// The results with the results of every node perturbed; `cancelled`: zeros of sums are perturbed, too.
fn perturbed(case: &Case, rng: &mut Rng, noise_scale: f64, cancelled: bool) -> Result<Vec<Tensor>, String> {
    let mut values: Vec<Vec<Tensor>> = vec![];
    for node in case.graph.nodes() {
        let results = match node.op.kind() {
            Kind::Input => vec![case.inputs[node.op.attrs.size("index")].clone()],
            _ => {
                let mut operands: Vec<Tensor> = node.inputs.iter().map(|v| values[v.node as usize][v.index as usize].clone()).collect();
                // Another order of summation is exact for slightly different operands, which matters where sums cancel.
                if node.op.def.class == Class::Compute && !is_rounding_free(node) {
                    operands
                        .iter_mut()
                        .for_each(|t| *t = perturb(t, rng, Zeros::Exact, |v| 2.0 * noise_scale * unit_roundoff(t.ty().ty) * v.abs()));
                }
                let results = eval_op(&node.op, &operands)?;
                results.iter().map(|t| perturb_result(node, &operands, t, rng, noise_scale, cancelled)).collect::<Result<_, _>>()?
            }
        };
        values.push(results);
    }
    Ok(case.graph.outputs().iter().map(|(_, v)| values[v.node as usize][v.index as usize].clone()).collect())
}

/// Whether an operator gives the same bits in every order of computation.
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

/// A result of a node, perturbed by the rounding errors of its operator.
fn perturb_result(
    node: &Node,
    operands: &[Tensor],
    t: &Tensor,
    rng: &mut Rng,
    noise_scale: f64,
    cancelled: bool,
) -> Result<Tensor, String> {
    let ty = t.ty().ty;
    if !ty.is_real() || is_rounding_free(node) {
        return Ok(t.clone());
    }
    let kind = node.op.kind();
    let largest = |t: &Tensor| t.to_f64s().iter().filter(|v| v.is_finite()).fold(0.0, |m: f64, v| m.max(v.abs()));
    // The error of a sum is relative to its largest summand, that of an element-wise function to its value.
    let scale = match (kind, node.op.def.class) {
        (Kind::Add | Kind::Sub | Kind::Mod, _) => operands.iter().map(largest).fold(0.0, f64::max),
        // 1 + erf, x/6 + 1/2 and 1 − a gate have the error of 1, also where they cancel; so have the weights of a cubic interpolation.
        (Kind::Gelu | Kind::GeluTanh | Kind::HardSwish | Kind::GridSample, _) => largest(&operands[0]),
        // Equal summands are rounded in the same direction: the errors add up.
        (Kind::ReduceSum | Kind::ReduceMean, _) => {
            let abs = Op::new(Kind::Abs, []).expect("the row of `abs`");
            largest(&eval_op(&node.op, &eval_op(&abs, operands)?)?[0])
        }
        (Kind::Lstm | Kind::Gru | Kind::Rnn, _) => operands.iter().map(largest).fold(1.0, f64::max),
        (_, Class::Elementwise) => 0.0,
        _ => largest(t),
    };
    let of_scale = match kind {
        // The transforms of Winograd's algorithm.
        Kind::Conv => kernel_error(ty) / 4.0,
        _ => 4.0 * unit_roundoff(ty),
    };
    let zeros = match (kind, node.op.def.class) {
        (Kind::Gelu | Kind::GeluTanh | Kind::HardSwish, _) => Zeros::Residual,
        (kind, class) if cancelled && (class != Class::Elementwise || matches!(kind, Kind::Add | Kind::Sub | Kind::Mod)) => {
            Zeros::Cancelled
        }
        _ => Zeros::Exact,
    };
    Ok(perturb(t, rng, zeros, |v| noise_scale * (4.0 * unit_roundoff(ty) * v.abs() + of_scale * scale)))
}

/// The tensor with each number changed by up to `by` of it.
fn perturb(t: &Tensor, rng: &mut Rng, zeros: Zeros, by: impl Fn(f64) -> f64) -> Tensor {
    if !t.ty().ty.is_real() {
        return t.clone();
    }
    let ty = t.ty().ty;
    let mut change = |v: f64| match v + rng.unit() * by(v) {
        _ if !v.is_finite() || v == 0.0 && zeros == Zeros::Exact => v,
        // Some machines flush it to 0.
        _ if v.abs() < smallest_normal(ty) && rng.below(2) == 0 => 0f64.copysign(v),
        new if zeros == Zeros::Residual && new.signum() != v.signum() => 0.0,
        new => new,
    };
    let changed: Vec<f64> = t.to_f64s().into_iter().map(&mut change).collect();
    let cast = Op::new(Kind::Cast, [("to", ty.into())]).expect("the row of `cast`");
    eval_op(&cast, &[Tensor::new(t.shape(), &changed)]).expect("doubles cast to every type").swap_remove(0)
}
