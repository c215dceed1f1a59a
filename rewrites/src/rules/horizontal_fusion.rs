//! Horizontal fusion: convolutions or matmuls that share an input become one with concatenated weights, followed by slices.
//!
//! A rule of many left sides that share an operand is no pattern of one class, so it is code. The fused operator needs only the operand and
//! constants, so it makes no cycle. It pays for all members together or not at all: extraction is told the set.

use crate::fact::Classes;
use crate::language::{Build, Imported, Range, full_ranges, slice_attrs};
use crate::mismatch::Mismatch;
use crate::options::Options;
use crate::term::{Head, OpRef, Term};
use dnnc_ir::{Class, Kind, Op, TensorType};
use egg::Id;
use indexmap::IndexMap;

/// One of the operators to be fused.
struct Member {
    /// Name of the convolution or matmul.
    name: String,
    /// Weights, and the bias if there is one.
    weights: Id,
    bias: Option<Id>,
    /// The class that a slice of the fused result is equal to.
    result: Id,
}

/// What members have in common: operand, operator, sizes of the weights without the outputs, whether a bias may be added, and the element-wise
/// operator that follows.
type Key = (Id, OpRef, Vec<usize>, bool, Option<OpRef>);

/// Adds the fused operators; for each, which classes would take which slices of it.
pub fn fuse(imported: &mut Imported, options: &Options) -> Vec<Vec<(Id, Term)>> {
    if options.precise {
        return vec![];
    }
    let g = &imported.classes;
    let mut groups: IndexMap<Key, Vec<Member>> = IndexMap::new();
    for class in g.classes() {
        for term in &class.nodes {
            let member = match term.kind() {
                Some(Kind::Conv) => convolution(imported, class.id, term),
                Some(Kind::MatMul) => product(imported, class.id, term),
                _ => None,
            };
            if let Some((key, member)) = member {
                groups.entry(key).or_default().push(member);
            }
        }
    }
    let mut joint = Vec::new();
    for (key, candidates) in groups {
        // Each result begins at a multiple of the block, so that slices of packed results are slices of blocks; the last may end inside one.
        let block = imported.classes.analysis.block;
        let outputs = |g: &Classes, s: &Member| g.shape(s.weights)[output_axis(&key.1)];
        let (mut chosen, rest): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|s| outputs(&imported.classes, s).is_multiple_of(block));
        chosen.extend(rest.into_iter().next());
        if chosen.len() > 1
            && let Ok(set) = merge(&mut imported.classes, &key, &chosen)
        {
            joint.push(set);
        }
    }
    imported.classes.rebuild();
    joint
}

/// The axis of the weights that counts outputs.
fn output_axis(op: &OpRef) -> usize {
    usize::from(op.kind() == Kind::MatMul && !op.attrs.flag("trans_b"))
}

/// The only user of a class, if it has one and is no result of the graph.
fn only_user(imported: &Imported, id: Id) -> Option<(Id, &Term)> {
    let g = &imported.classes;
    let mut users = g[id].parents().map(|p| g.find(p));
    let user = users.next()?;
    let is_root = imported.roots.iter().any(|&r| g.find(r) == g.find(id));
    (users.next().is_none() && !is_root).then(|| (user, &g[user].nodes[0]))
}

/// The unary element-wise operator that follows a class, and its class.
fn function(imported: &Imported, id: Id) -> (Option<OpRef>, Id) {
    match only_user(imported, id) {
        Some((user, term)) if term.children.len() == 1 && term.op().is_some_and(|op| op.def.class == Class::Elementwise) => {
            (term.op().cloned(), user)
        }
        _ => (None, id),
    }
}

/// Operands of a concatenation are better written into it directly than sliced and copied.
fn is_part(imported: &Imported, id: Id) -> bool {
    let g = &imported.classes;
    g[id].parents().any(|p| g[g.find(p)].nodes.iter().any(|t| t.kind() == Some(Kind::Concat)))
}

fn convolution(imported: &Imported, id: Id, term: &Term) -> Option<(Key, Member)> {
    let g = &imported.classes;
    let (op, weights) = (term.op()?.clone(), term.children[1]);
    let bias = term.children.get(2).copied();
    let name = g[id].data.name(term.kind()).to_string();
    let plain = op.attrs.int("groups") == 1 && op.attrs.int("block") == 0 && g.constant(weights) && bias.is_none_or(|b| g.constant(b));
    let (after, result) = function(imported, id);
    let shape = g.shape(weights)[1..].to_vec();
    (plain && !is_part(imported, result)).then(|| ((term.children[0], op, shape, true, after), Member { name, weights, bias, result }))
}

fn product(imported: &Imported, id: Id, term: &Term) -> Option<(Key, Member)> {
    let g = &imported.classes;
    let (op, weights) = (term.op()?.clone(), term.children[1]);
    let name = g[id].data.name(term.kind()).to_string();
    let shape = g.shape(weights).to_vec();
    if shape.len() != 2 || !g.constant(weights) || g.constant(term.children[0]) {
        return None;
    }
    // A constant row added to it.
    let outputs = shape[output_axis(&op)];
    let row = only_user(imported, id).filter(|(_, t)| t.kind() == Some(Kind::Add)).and_then(|(user, t)| {
        let b = t.children.iter().copied().find(|&c| g.constant(c) && g.shape(c) == [outputs])?;
        Some((user, b))
    });
    let (sum, bias) = row.map_or((id, None), |(user, b)| (user, Some(b)));
    let (after, result) = function(imported, sum);
    let inner = vec![shape[1 - output_axis(&op)]];
    (!is_part(imported, result)).then(|| ((term.children[0], op, inner, bias.is_some(), after), Member { name, weights, bias, result }))
}

fn merge(g: &mut Classes, (x, op, _, biased, after): &Key, members: &[Member]) -> Result<Vec<(Id, Term)>, Mismatch> {
    let axis = output_axis(op);
    let names: Vec<&str> = members.iter().map(|s| s.name.as_str()).filter(|n| !n.is_empty()).collect();
    g.analysis.origin = if names.is_empty() { vec![] } else { vec![(op.kind(), names.join(" + ").into())] };
    let made = build(g, x, op, *biased, after.as_ref(), members, axis);
    g.analysis.origin.clear();
    made
}

/// The fused operator, and a slice of its result for each member.
fn build(
    g: &mut Classes,
    x: &Id,
    op: &OpRef,
    biased: bool,
    after: Option<&OpRef>,
    members: &[Member],
    axis: usize,
) -> Result<Vec<(Id, Term)>, Mismatch> {
    let parts: Vec<Id> = members.iter().map(|s| s.weights).collect();
    let weights = g.concat(axis, &parts)?;
    let mut bias = None;
    if biased && members.iter().any(|s| s.bias.is_some()) {
        let mut parts = Vec::with_capacity(members.len());
        for s in members {
            let none = TensorType::new(g.elem(s.weights), [g.shape(s.weights)[axis]]);
            parts.push(s.bias.unwrap_or_else(|| g.tensor(dnnc_ir::Tensor::zeros(none))));
        }
        bias = Some(g.concat(0, &parts)?);
    }
    let mut y = match (op.kind(), bias) {
        (Kind::Conv, Some(b)) => g.apply(op, &[*x, weights, b])?,
        (_, Some(b)) => {
            let product = g.apply(op, &[*x, weights])?;
            g.sum(product, b)?
        }
        (_, None) => g.apply(op, &[*x, weights])?,
    };
    if let Some(f) = after {
        y = g.apply(f, &[y])?;
    }
    let shape = g.shape(y).to_vec();
    let along = if op.kind() == Kind::Conv { 1 } else { shape.len() - 1 };
    let mut start = 0;
    let mut set = Vec::with_capacity(members.len());
    for s in members {
        let size = g.shape(s.weights)[axis];
        let mut ranges = full_ranges(&shape);
        ranges[along] = Range { start, size, step: 1 };
        start += size;
        let slice = OpRef::new(Op::new(Kind::Slice, slice_attrs(&ranges)).expect("the row of `slice`"));
        let made = g.apply(&slice, &[y])?;
        g.analysis.rule = "horizontal fusion";
        g.union(s.result, made);
        set.push((s.result, Term { head: Head::Op(slice), children: vec![y] }));
    }
    Ok(set)
}
