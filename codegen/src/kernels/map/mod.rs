//! Element-wise expressions over strided views: also the engine of every operator that only moves elements.
//!
//! The axes of the result are merged where every view allows. The last axis that remains is computed in vectors; where a view has its elements
//! side by side along another axis only, that axis and the last one are walked in square tiles that are transposed in registers.

pub(crate) mod tile;
mod vectors;

use self::vectors::{Generator, Plan, Stream};
use crate::expr::{Expr, What};
use crate::kernels::lib::nest::{self, Axis};
use crate::kernels::lib::view::View;
use crate::unit::{Arg, Lowered, LoweredCall, Operand, Options};
use dnnc_ir::{TensorType, Type};
use dnnc_kir::{Builder, Val};
use dnnc_targets::Target;

/// An operand of a nest.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where its pointer points.
    pub arg: Arg,
    /// Element type in memory.
    pub ty: Type,
    /// How it lies over the result.
    pub view: View,
    /// Elements of the last axis that exist, where not all do; the others are 0.
    pub valid: Option<usize>,
}

impl Source {
    /// All elements exist.
    pub fn new(arg: Arg, ty: Type, view: View) -> Source {
        Source { arg, ty, view, valid: None }
    }
}

/// The kernel of an expression over dense operands that broadcast to the result. Where an operand has the shape of the result and elements of
/// the same width, both may be the same memory.
pub fn lower(expr: &Expr, operands: &[Operand], result: &TensorType, target: &Target, options: &Options) -> Result<Lowered, String> {
    let views = vec![None; operands.len()];
    lower_views(expr, operands, &views, result, target, options)
}

/// As [`lower`], with operands that lie in some other way over the result where a view is given: a transposed, sliced or expanded tensor.
pub fn lower_views(
    expr: &Expr,
    operands: &[Operand],
    views: &[Option<View>],
    result: &TensorType,
    target: &Target,
    options: &Options,
) -> Result<Lowered, String> {
    let sources: Vec<Source> = operands
        .iter()
        .zip(views)
        .enumerate()
        .map(|(i, (operand, view))| {
            let view = view.clone().unwrap_or_else(|| View::broadcast(&operand.ty.shape, &result.shape));
            Source::new(Arg::Input(i), operand.ty.ty, view)
        })
        .collect();
    let calls = call(expr, &sources, &result.shape, &View::dense(&result.shape), target, options).into_iter().collect();
    Ok(Lowered { calls, ..Lowered::default() })
}

/// The call that computes an expression over the axes of `shape` and writes it where `out` says; none where there are no elements.
pub fn call(expr: &Expr, sources: &[Source], shape: &[usize], out: &View, target: &Target, options: &Options) -> Option<LoweredCall> {
    if shape.contains(&0) {
        return None;
    }
    let mut streams: Vec<Stream> = sources.iter().map(|s| Stream::new(s.ty, &s.view, s.valid)).collect();
    streams.push(Stream::new(expr.ty(), out, None));
    let axes = collapse(shape, &streams);
    let mut b = Builder::new(name(expr), streams.len());
    let weight = weight(expr);
    if weight >= 16 {
        b.tune(dnnc_kir::Tuning::Optimise);
    }
    let lanes = expr.lanes(target.vector.bits).max(1);
    let plan = Plan::new(&axes, &streams, lanes, weight, options);
    let generator = Generator { expr, streams: &streams, lanes, unroll: plan.unroll };
    let pointers: Vec<Val> = (0..streams.len()).map(|i| b.param(i)).collect();
    let pointers: Vec<Val> = pointers.iter().zip(&streams).map(|(&p, s)| b.offset_int(p, s.offset)).collect();
    generator.nest(&mut b, &plan, &axes, &pointers);
    let args = sources.iter().map(|s| s.arg).chain([Arg::Output(0)]).collect();
    Some(LoweredCall { func: b.finish(), args, tasks: plan.tasks })
}

/// `map_` and the operators.
fn name(expr: &Expr) -> String {
    let kinds: Vec<&str> = expr
        .nodes
        .iter()
        .filter_map(|n| match &n.what {
            What::Apply(op, _) => Some(op.kind().name()),
            _ => None,
        })
        .collect();
    if kinds.is_empty() { "copy".into() } else { format!("map_{}", kinds.join("_")) }
}

/// About how many instructions a vector of the expression takes.
fn weight(expr: &Expr) -> u64 {
    let one = TensorType::new(Type::F32, []);
    expr.nodes
        .iter()
        .map(|n| match &n.what {
            What::Apply(op, args) => (op.def.work)(&op.attrs, &vec![one.clone(); args.len()], std::slice::from_ref(&one)),
            _ => 0,
        })
        .sum()
}

/// The axes that are left when those of size 1 are dropped and neighbours merged; at least one.
fn collapse(shape: &[usize], streams: &[Stream]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = vec![];
    for (a, &size) in shape.iter().enumerate() {
        if size == 1 {
            continue;
        }
        let strides: Vec<i64> = streams.iter().map(|s| s.strides[a]).collect();
        let keep = a + 1 == shape.len() && streams.iter().any(|s| s.valid.is_some());
        match axes.last_mut() {
            Some(outer) if !keep && outer.strides.iter().zip(&strides).all(|(&o, &s)| o == s * size as i64) => {
                *outer = Axis { size: outer.size * size, strides };
            }
            _ => axes.push(Axis { size, strides }),
        }
    }
    if axes.is_empty() {
        axes.push(Axis { size: 1, strides: streams.iter().map(Stream::width).collect() });
    }
    axes
}

impl Plan {
    fn new(axes: &[Axis], streams: &[Stream], lanes: u8, weight: u64, options: &Options) -> Plan {
        let last = axes.len() - 1;
        let unroll = match weight {
            _ if lanes == 1 => 1,
            0..=6 => 4,
            7..=15 => 2,
            _ => 1,
        };
        let across = tile::across(axes, streams, lanes);
        let total: usize = axes.iter().map(|a| a.size).product();
        let wanted = nest::tasks(total, weight as usize, options.threads);
        // Whole steps of the axes that are walked in vectors or tiles.
        let grain = |a: usize| match a {
            _ if across == Some(a) => lanes as usize,
            a if a == last && across.is_some() => lanes as usize,
            a if a == last => lanes as usize * unroll,
            _ => 1,
        };
        let steps = |a: usize| if a == last && streams.iter().any(|s| s.valid.is_some()) { 1 } else { axes[a].size.div_ceil(grain(a)) };
        let split = (0..=last).find(|&a| steps(a) >= wanted).unwrap_or_else(|| (0..=last).max_by_key(|&a| steps(a)).expect("an axis"));
        let chunk = steps(split).div_ceil(wanted) * grain(split);
        let chunk = if wanted == 1 { axes[split].size } else { chunk };
        Plan { unroll, split, chunk, tasks: axes[split].size.div_ceil(chunk), across }
    }
}

/// Type as which elements are moved when nothing is computed with them: of the same width, with vectors.
pub fn moved_as(ty: Type) -> Type {
    match ty.bytes() {
        1 => Type::U8,
        2 => Type::U16,
        4 => Type::F32,
        _ => Type::F64,
    }
}

/// The expression that is its operand.
pub fn identity(ty: Type) -> Expr {
    Expr { nodes: vec![crate::expr::ExprNode { what: What::Operand(0), ty }] }
}

#[cfg(test)]
mod tests;
