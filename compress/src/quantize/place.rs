//! Which tensors of a network are quantised.

use crate::prepare::readers;
use dnnc_frontend::{Draft, Limits, NodeView};
use dnnc_ir::{Tensor, Type};
use std::collections::BTreeMap;

/// A layer whose product is computed on integers.
#[derive(Clone, Debug)]
pub struct Weighted {
    /// The number of its node.
    pub node: usize,
    /// Its weights.
    pub weight: Tensor,
    /// The axis of the weights along which outputs lie.
    pub axis: usize,
    /// Its bias, where it has one; `None` also where one can be added.
    pub bias: Option<Tensor>,
}

/// What is quantised.
#[derive(Debug, Default)]
pub struct Placement {
    /// The layers.
    pub layers: Vec<Weighted>,
    /// The tensors by name; each with the tensor whose grid it shares (itself, mostly).
    pub tensors: BTreeMap<String, String>,
    /// Nodes with weights that stay in floats, and why.
    pub kept: Vec<(String, &'static str)>,
}

/// Operators that only move, choose or repeat elements: their result has the grid of their operand.
const MOVES: [&str; 8] = ["MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "DepthToSpace", "SpaceToDepth"];
/// Operators that have an integer form with grids of their own on both sides.
const JOINS: [&str; 4] = ["Add", "Concat", "AveragePool", "GlobalAveragePool"];

/// Chooses layers and tensors; nodes named in `keep` stay in floats.
pub fn place(draft: &Draft, limits: &Limits, keep: &[String]) -> Placement {
    let views = draft.views();
    let mut placement = Placement::default();
    for (number, node) in views.iter().enumerate() {
        if !matches!(node.op.as_str(), "Conv" | "Gemm" | "MatMul" | "ConvTranspose" | "LSTM" | "GRU" | "RNN") {
            continue;
        }
        match weighted(draft, limits, number, node, keep) {
            Ok(layer) => placement.layers.push(layer),
            Err(reason) => placement.kept.push((node.shown().to_string(), reason)),
        }
    }
    let maker = |name: &str| views.iter().position(|n| n.outputs.iter().any(|o| o == name));
    let is_constant = |name: &str| draft.value(name, limits).is_some();
    // What every layer reads, and what it leaves behind its activation where integers go on from there.
    let mut wanted: Vec<String> = placement.layers.iter().map(|l| views[l.node].inputs[0].clone()).collect();
    for layer in &placement.layers {
        let end = end(draft, limits, &views, &views[layer.node].outputs[0]);
        let goes_on = |n: &NodeView| {
            n.inputs.contains(&end)
                && (MOVES.contains(&n.op.as_str())
                    || JOINS.contains(&n.op.as_str())
                    || placement.layers.iter().any(|l| views[l.node].shown() == n.shown()))
        };
        if !draft.outputs().contains(&end) && views.iter().any(goes_on) {
            wanted.push(end);
        }
    }
    while let Some(name) = wanted.pop() {
        if placement.tensors.contains_key(&name) {
            continue;
        }
        placement.tensors.insert(name.clone(), name.clone());
        let Some(node) = maker(&name).map(|i| &views[i]) else { continue };
        // Through an activation in a requantisation: what is before it stays wide.
        let node = match node.op.as_str() {
            "Relu" | "Clip" => match maker(&node.inputs[0]).map(|i| &views[i]) {
                Some(before) if JOINS.contains(&before.op.as_str()) && readers(draft, &views, &node.inputs[0]) == 1 => before,
                _ => continue,
            },
            _ => node,
        };
        if MOVES.contains(&node.op.as_str()) {
            placement.tensors.insert(name, node.inputs[0].clone());
            wanted.push(node.inputs[0].clone());
        } else if JOINS.contains(&node.op.as_str()) && node.inputs.iter().all(|i| !is_constant(i)) {
            wanted.extend(node.inputs.iter().cloned());
        }
    }
    // A grid is shared with the first tensor that has its own.
    for name in placement.tensors.keys().cloned().collect::<Vec<_>>() {
        let mut root = name.clone();
        while placement.tensors[&root] != root {
            root = placement.tensors[&root].clone();
        }
        placement.tensors.insert(name, root);
    }
    placement
}

/// The last tensor of a layer: behind a bias and an activation that nothing else reads.
fn end(draft: &Draft, limits: &Limits, views: &[NodeView], name: &str) -> String {
    let mut name = name.to_string();
    loop {
        if readers(draft, views, &name) != 1 {
            return name;
        }
        let Some(next) = views.iter().find(|n| n.inputs.contains(&name)) else { return name };
        let constant = |n: &&String| **n == name || n.is_empty() || draft.value(n, limits).is_some();
        let follows = match next.op.as_str() {
            "Relu" => true,
            "Clip" | "Add" | "Mul" => next.inputs.iter().all(|n| constant(&n)),
            _ => false,
        };
        if !follows {
            return name;
        }
        name = next.outputs[0].clone();
    }
}

fn weighted(draft: &Draft, limits: &Limits, number: usize, node: &NodeView, keep: &[String]) -> Result<Weighted, &'static str> {
    if keep.iter().any(|k| k == node.shown()) {
        return Err("it was asked to stay in floats");
    }
    if !matches!(node.op.as_str(), "Conv" | "Gemm" | "MatMul") {
        return Err("its operator is not quantised");
    }
    let weight = node.inputs.get(1).and_then(|w| draft.value(w, limits)).ok_or("its weights are no constant of the graph")?;
    if weight.ty().ty != Type::F32 || weight.is_empty() {
        return Err("its weights are not of 32-bit floats");
    }
    if weight.values::<f32>().iter().any(|w| !w.is_finite()) {
        return Err("some of its weights are not finite");
    }
    if draft.value(&node.inputs[0], limits).is_some() {
        return Err("its input is a constant");
    }
    let bias = match node.inputs.get(2).filter(|n| !n.is_empty()) {
        Some(name) => Some(draft.value(name, limits).ok_or("its bias is no constant of the graph")?),
        None => None,
    };
    let axis = match node.op.as_str() {
        "Conv" => 0,
        "MatMul" if weight.shape().len() == 2 => 1,
        "MatMul" => return Err("its weights are not a matrix"),
        _ if node.int("transA", 0) != 0 => return Err("its input is transposed"),
        _ if ["alpha", "beta"].iter().any(|a| node.floats.get(*a).is_some_and(|v| *v != 1.0)) => {
            return Err("it scales its product or bias");
        }
        _ => usize::from(node.int("transB", 0) == 0),
    };
    if bias.as_ref().is_some_and(|b| b.ty().ty != Type::F32 || b.shape() != [weight.shape()[axis]]) {
        return Err("its bias has not one value for each output");
    }
    Ok(Weighted { node: number, weight, axis, bias })
}
