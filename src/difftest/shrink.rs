//! Test case reduction of networks: one change at a time that makes the network smaller, as long as a change is found that keeps the failure.

use super::generate::Case;
use dnnc_ir::eval::{eval_op, eval_with};
use dnnc_ir::random::Rng;
use dnnc_ir::{Attr, Graph, Kind, Op, Tensor, TensorType, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Changes to a network.
#[derive(Default)]
struct Edit {
    /// Values whose readers read another value.
    replaced: BTreeMap<Value, By>,
    /// New attributes of nodes.
    ops: BTreeMap<u32, Op>,
    /// New data of inputs and constants.
    leaves: BTreeMap<u32, Tensor>,
    /// New results.
    outputs: Option<Vec<Value>>,
}

enum By {
    /// An earlier value.
    Value(Value),
    /// A new input.
    Input(Tensor),
}

/// The smallest network found for which `fails` holds, as it does for `case`.
pub fn shrink(case: &Case, fails: &mut dyn FnMut(&Case) -> bool) -> Case {
    let mut best = case.clone();
    let passes: [fn(&Case) -> Vec<Edit>; 8] =
        [fewer_outputs, earlier_outputs, cuts, bypasses, smaller_dims, smaller_axes, simpler_attributes, simpler_data];
    loop {
        let mut progress = false;
        for pass in passes {
            // After a change the other candidates of the pass may be invalid: it starts again.
            loop {
                let smaller = pass(&best).iter().filter_map(|e| apply(&best, e)).find(|c| size(c) < size(&best) && fails(c));
                let Some(smaller) = smaller else { break };
                best = smaller;
                progress = true;
            }
        }
        if !progress {
            return best;
        }
    }
}

/// What shrinking minimises: operators, results, leaves, elements, then data that is not simple.
fn size(case: &Case) -> (usize, usize, usize, usize, usize, u64) {
    let kind = |k: Kind| case.graph.nodes().iter().filter(|n| n.op.kind() == k).count();
    let leaves = kind(Kind::Input) + kind(Kind::Const);
    let elements: usize = case.graph.values().map(|(_, ty)| ty.len() + ty.rank()).sum();
    let data = leaf_data(case);
    let complex = data.values().filter(|t| !is_simple(t)).count() * 4 + data.values().filter(|t| **t != zeros(t)).count();
    let attributes: u64 = case.graph.nodes().iter().flat_map(|n| n.op.attrs.iter().map(|(_, a)| weight(a))).sum();
    (case.graph.nodes().len() - leaves, case.graph.outputs().len(), leaves, elements, complex, attributes)
}

fn weight(attr: &Attr) -> u64 {
    match attr {
        Attr::Int(v) => v.unsigned_abs().min(1 << 20),
        Attr::Ints(v) => v.iter().map(|v| v.unsigned_abs().min(1 << 20)).sum(),
        _ => 0,
    }
}

fn zeros(t: &Tensor) -> Tensor {
    Tensor::zeros(t.ty().clone())
}

/// Data that a test can make again from the type alone.
fn simple_data(ty: &TensorType) -> Tensor {
    Rng::new(1).tensor(ty)
}

fn is_simple(t: &Tensor) -> bool {
    *t == simple_data(t.ty()) || *t == zeros(t)
}

fn leaf_data(case: &Case) -> BTreeMap<u32, Tensor> {
    let leaf = |(n, node): (usize, &dnnc_ir::Node)| match node.op.kind() {
        Kind::Input => Some((n as u32, case.inputs[node.op.attrs.size("index")].clone())),
        Kind::Const => Some((n as u32, node.op.attrs.tensor("value").clone())),
        _ => None,
    };
    case.graph.nodes().iter().enumerate().filter_map(leaf).collect()
}

/// The network with a change, without unused nodes; `None` when it is invalid.
fn apply(case: &Case, edit: &Edit) -> Option<Case> {
    let old = &case.graph;
    let outputs: Vec<Value> = edit.outputs.clone().unwrap_or_else(|| old.outputs().iter().map(|(_, v)| *v).collect());
    // What is read, from the results backwards.
    let mut needed = BTreeSet::new();
    let mut new_inputs: BTreeSet<Value> = BTreeSet::new();
    let mut open: Vec<Value> = outputs.clone();
    let mut visited = BTreeSet::new();
    while let Some(v) = open.pop() {
        if !visited.insert(v) {
            continue;
        }
        match edit.replaced.get(&v) {
            Some(By::Value(by)) => open.push(*by),
            Some(By::Input(_)) => {
                new_inputs.insert(v);
            }
            None => {
                if needed.insert(v.node) {
                    open.extend(&old.node(v).inputs);
                }
            }
        }
    }
    let leaves = leaf_data(case);
    let data = |n: u32| edit.leaves.get(&n).or(leaves.get(&n)).expect("a leaf").clone();
    let (mut graph, mut inputs) = (Graph::new(), vec![]);
    let mut mapped: BTreeMap<Value, Value> = BTreeMap::new();
    let mut input = |graph: &mut Graph, tensor: Tensor| {
        inputs.push(tensor.clone());
        graph.input(&format!("x{}", inputs.len() - 1), tensor.ty().clone())
    };
    for (n, node) in old.nodes().iter().enumerate().filter(|(n, node)| node.op.kind() == Kind::Input && needed.contains(&(*n as u32))) {
        debug_assert_eq!(node.types.len(), 1);
        let n = n as u32;
        mapped.insert(Value { node: n, index: 0 }, input(&mut graph, data(n)));
    }
    for v in new_inputs {
        let Some(By::Input(tensor)) = edit.replaced.get(&v) else { unreachable!("only new inputs are listed") };
        mapped.insert(v, input(&mut graph, tensor.clone()));
    }
    let find = |mapped: &BTreeMap<Value, Value>, mut v: Value| {
        while let Some(By::Value(by)) = edit.replaced.get(&v) {
            v = *by;
        }
        mapped.get(&v).copied()
    };
    for (n, node) in old.nodes().iter().enumerate().filter(|(n, _)| needed.contains(&(*n as u32))) {
        let n = n as u32;
        let new = match node.op.kind() {
            Kind::Input => continue,
            Kind::Const => graph.constant(data(n)),
            _ => {
                let operands: Option<Vec<Value>> = node.inputs.iter().map(|v| find(&mapped, *v)).collect();
                graph.add(edit.ops.get(&n).unwrap_or(&node.op).clone(), operands?, &node.name).ok()?
            }
        };
        for i in 0..graph.node(new).types.len() as u32 {
            mapped.entry(Value { node: n, index: i }).or_insert(new.result(i));
        }
    }
    for (i, v) in outputs.iter().enumerate() {
        graph.output(&format!("y{i}"), find(&mapped, *v)?);
    }
    Some(Case { graph, inputs })
}

/// The network with the results of a node as inputs; `None` where the evaluator has no value for them.
pub fn without_node(case: &Case, n: usize) -> Option<Case> {
    let mut replaced = BTreeMap::new();
    let done = eval_with(&case.graph, &case.inputs, |at, results| {
        if at == n {
            let by = |(i, t): (usize, &Tensor)| (Value { node: n as u32, index: i as u32 }, By::Input(t.clone()));
            replaced.extend(results.iter().enumerate().map(by));
        }
    });
    done.ok()?;
    if replaced.is_empty() { None } else { apply(case, &Edit { replaced, ..Edit::default() }) }
}

fn output_values(case: &Case) -> Vec<Value> {
    case.graph.outputs().iter().map(|(_, v)| *v).collect()
}

fn fewer_outputs(case: &Case) -> Vec<Edit> {
    let all = output_values(case);
    let with = |outputs: Vec<Value>| Edit { outputs: Some(outputs), ..Edit::default() };
    let single = all.iter().map(|v| vec![*v]);
    let without = (0..all.len()).map(|i| [&all[..i], &all[i + 1..]].concat());
    if all.len() < 2 { vec![] } else { single.chain(without).map(with).collect() }
}

/// A result replaced by an operand of the node that computes it.
fn earlier_outputs(case: &Case) -> Vec<Edit> {
    let all = output_values(case);
    let mut edits = vec![];
    for (i, v) in all.iter().enumerate() {
        for operand in &case.graph.node(*v).inputs {
            let mut outputs = all.clone();
            outputs[i] = *operand;
            edits.push(Edit { outputs: Some(outputs), ..Edit::default() });
        }
    }
    edits
}

/// Values that become inputs: late ones first, which make most nodes unused.
fn cuts(case: &Case) -> Vec<Edit> {
    let mut values: Vec<(Value, Tensor)> = vec![];
    let done = eval_with(&case.graph, &case.inputs, |n, results| {
        values.extend(results.iter().enumerate().map(|(i, t)| (Value { node: n as u32, index: i as u32 }, t.clone())));
    });
    if done.is_err() {
        return vec![];
    }
    let computed = |v: &Value| !matches!(case.graph.node(*v).op.kind(), Kind::Input);
    values
        .into_iter()
        .rev()
        .filter(|(v, _)| computed(v))
        .map(|(v, t)| Edit { replaced: BTreeMap::from([(v, By::Input(t))]), ..Edit::default() })
        .collect()
}

/// Values for which another, earlier one of the same type stands in.
fn bypasses(case: &Case) -> Vec<Edit> {
    let values: Vec<(Value, &TensorType)> = case.graph.values().collect();
    let mut edits = vec![];
    for (i, (v, ty)) in values.iter().enumerate().rev() {
        let node = case.graph.node(*v);
        let operands = node.inputs.iter().filter(|o| case.graph.ty(**o) == *ty).copied();
        let others = values[..i].iter().filter(|(w, t)| t == ty && w.node < v.node).map(|(w, _)| *w).take(3);
        let all: Vec<Value> = operands.chain(others).collect();
        edits.extend(all.into_iter().map(|by| Edit { replaced: BTreeMap::from([(*v, By::Value(by))]), ..Edit::default() }));
    }
    edits
}

/// The first `size` elements along an axis.
fn cropped(t: &Tensor, sizes: &[usize]) -> Tensor {
    let ints = |v: Vec<usize>| Attr::Ints(v.iter().map(|&v| v as i64).collect());
    let rank = sizes.len();
    let attrs = [("starts", ints(vec![0; rank])), ("sizes", ints(sizes.to_vec())), ("steps", ints(vec![1; rank]))];
    let op = Op::new(Kind::Slice, attrs).expect("the row of `slice`");
    eval_op(&op, std::slice::from_ref(t)).expect("a slice of the front").swap_remove(0)
}

fn less(n: usize) -> Vec<usize> {
    let mut all = vec![1, 2, n / 2, n - 1];
    all.retain(|&m| m < n && m > 0);
    all.dedup();
    all
}

/// A dimension replaced by a smaller one, wherever the number occurs.
fn smaller_dims(case: &Case) -> Vec<Edit> {
    let leaves = leaf_data(case);
    let sizes: BTreeSet<usize> = leaves.values().flat_map(|t| t.shape().to_vec()).filter(|&n| n > 1).collect();
    let mut edits = vec![];
    for &from in sizes.iter().rev() {
        for to in less(from) {
            let swap = |n: usize| if n == from { to } else { n };
            let crop = |(n, t): (&u32, &Tensor)| (*n, cropped(t, &t.shape().iter().map(|&n| swap(n)).collect::<Vec<_>>()));
            edits.push(Edit { leaves: leaves.iter().map(crop).collect(), ops: resized(case, from, to), ..Edit::default() });
        }
    }
    edits
}

/// Attributes that contain a dimension.
fn resized(case: &Case, from: usize, to: usize) -> BTreeMap<u32, Op> {
    let swap = |v: i64| if v == from as i64 { to as i64 } else { v };
    let mut ops = BTreeMap::new();
    for (n, node) in case.graph.nodes().iter().enumerate() {
        let mut op = node.op.clone();
        for &(name, _) in node.op.def.attrs {
            match op.attrs.get(name).clone() {
                Attr::Ints(v) if ["shape", "sizes"].contains(&name) => op = op.with(name, v.iter().map(|&v| swap(v)).collect::<Vec<i64>>()),
                Attr::Int(v) if ["size", "hidden", "groups", "k"].contains(&name) => op = op.with(name, swap(v)),
                _ => {}
            }
        }
        if op != node.op && node.op.kind() != Kind::Input {
            ops.insert(n as u32, op);
        }
    }
    ops
}

/// A smaller dimension of one input or constant.
fn smaller_axes(case: &Case) -> Vec<Edit> {
    let mut edits = vec![];
    for (n, t) in &leaf_data(case) {
        for (axis, &size) in t.shape().iter().enumerate().filter(|(_, n)| **n > 1) {
            for to in less(size) {
                let mut shape = t.shape().to_vec();
                shape[axis] = to;
                for ops in [BTreeMap::new(), resized(case, size, to)] {
                    edits.push(Edit { leaves: BTreeMap::from([(*n, cropped(t, &shape))]), ops, ..Edit::default() });
                }
            }
        }
    }
    edits
}

/// A smaller number in one attribute.
fn simpler_attributes(case: &Case) -> Vec<Edit> {
    let mut edits = vec![];
    for (n, node) in case.graph.nodes().iter().enumerate().filter(|(_, node)| !matches!(node.op.kind(), Kind::Input | Kind::Const)) {
        let mut with = |op: Op| edits.push(Edit { ops: BTreeMap::from([(n as u32, op)]), ..Edit::default() });
        for (name, attr) in node.op.attrs.iter() {
            match attr {
                Attr::Int(v) => {
                    [0, 1, v / 2].iter().filter(|w| w.unsigned_abs() < v.unsigned_abs()).for_each(|w| with(node.op.with(name, *w)))
                }
                Attr::Ints(v) => {
                    for i in 0..v.len() {
                        for w in [0, 1, v[i] / 2, v[i] - 1] {
                            let mut new = v.clone();
                            new[i] = w;
                            with(node.op.with(name, new));
                        }
                    }
                }
                _ => {}
            }
        }
    }
    edits
}

fn simpler_data(case: &Case) -> Vec<Edit> {
    let mut edits = vec![];
    for (n, t) in &leaf_data(case) {
        for data in [zeros(t), simple_data(t.ty())] {
            if data != *t {
                edits.push(Edit { leaves: BTreeMap::from([(*n, data)]), ..Edit::default() });
            }
        }
    }
    edits
}
