//! What kernels are predicted to take, asked by sizes alone: the answer of each family, and the arithmetic that several share.

use crate::expr::{Access, Expr, What};
use crate::kernels;
use crate::schedule::{lanes_ns, stream_ns};
use crate::unit::{Family, Forecast, Lowered, Operand, Options, Unit};
use dnnc_ir::{Class, Kind, Op, Tensor, TensorType};
use dnnc_targets::Target;
use std::sync::LazyLock;

/// Stands for a constant whose value is not known yet.
static UNKNOWN: LazyLock<Tensor> = LazyLock::new(|| Tensor::new([0], &[0f32; 0]));

/// What an operator is predicted to take as a kernel of its own, by the types of its operands and whether each is constant.
pub fn of(op: &Op, operands: &[(&TensorType, bool)], results: &[TensorType], target: &Target, options: &Options) -> Forecast {
    if op.def.class == Class::View {
        return Forecast::NOTHING;
    }
    let operand = |&(ty, constant): &(&TensorType, bool)| Operand { ty: ty.clone(), constant: constant.then(|| &*UNKNOWN) };
    let (inputs, results) = (operands.iter().map(operand).collect(), results.to_vec());
    let stored = results[0].clone();
    let unit = Unit { op, inputs, results, epilogue: None, stored, target, options };
    if op.def.class == Class::Elementwise {
        return element_wise(&unit);
    }
    match kernels::family(op.kind()) {
        Some(family) => (family.forecast)(&unit),
        None => Forecast::kernel(target, stream_ns(target, unit.traffic())),
    }
}

/// An element-wise operator: arithmetic or traffic, whichever takes longer.
fn element_wise(unit: &Unit) -> Forecast {
    let ns = stream_ns(unit.target, unit.traffic()).max(lanes_ns(unit.target, operations(unit.op, &unit.results[0])));
    Forecast::kernel(unit.target, ns).with_epilogue()
}

/// Nanoseconds of a unit's kernels, epilogue included: of the algorithm that was chosen, or as the family predicts.
pub fn lowered_ns(family: &Family, unit: &Unit, lowered: &Lowered) -> f64 {
    let ns = match &lowered.choice {
        Some(choice) => unit.target.overheads.call + choice.ns(),
        None => (family.forecast)(unit).ns,
    };
    // A measured time has the epilogue in it.
    let measured = lowered.choice.as_ref().is_some_and(|c| c.measured);
    if measured { ns } else { ns + epilogue_ns(unit) }
}

/// What the operands of an epilogue that have an element for each of the result add to a kernel: they are read.
fn epilogue_ns(unit: &Unit) -> f64 {
    let complete = unit.epilogue.iter().flat_map(|e| &e.operands).filter(|x| x.access == Access::Full);
    match complete.map(|x| x.ty.bytes() * unit.stored.len()).sum() {
        0 => 0.0,
        bytes => stream_ns(unit.target, bytes),
    }
}

/// Nanoseconds of an expression over operands as a kernel of its own.
pub fn expression_ns(expr: &Expr, operands: &[Operand], result: &TensorType, target: &Target) -> f64 {
    let bytes: usize = operands.iter().map(|x| x.ty.bytes()).sum();
    let operations: f64 = expr.nodes.iter().map(|n| if let What::Apply(op, _) = &n.what { operations(op, result) } else { 0.0 }).sum();
    target.overheads.call + stream_ns(target, bytes + result.bytes()).max(lanes_ns(target, operations))
}

/// Operations of an element-wise operator with so many results.
fn operations(op: &Op, result: &TensorType) -> f64 {
    /// A general power is a logarithm and an exponential beyond the precision of the type.
    const POWER: f64 = 40.0;
    let each = (op.def.work)(&op.attrs, &[], std::slice::from_ref(result)) as f64;
    each * if op.kind() == Kind::Pow { POWER } else { 1.0 }
}
