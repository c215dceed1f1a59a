//! Groups nodes into kernels: trees of element-wise operators become one expression, and an expression moves into the kernel that
//! makes its first operand where that kernel can take it.
//!
//! The e-graph has settled what is computed; this settles what is computed together. A group is convex by construction: only its last
//! node has users outside.

use crate::expr::{Access, Epilogue, Expr, ExprNode, Extra, What};
use crate::kernels;
use crate::kernels::attention::{self, Views};
use crate::kernels::lib::view::View;
use crate::kernels::movement::{reshaped, view_through};
use dnnc_ir::{Class, Graph, Kind, Node, TensorType, Value};
use std::collections::{HashMap, HashSet};

/// Nodes of an expression beyond which a new kernel starts: registers and compile time are bounded.
const MAX_NODES: usize = 48;
/// Operands beyond which a new kernel starts: each is a pointer that the kernel keeps.
const MAX_OPERANDS: usize = 10;

/// One kernel's worth of a graph.
#[derive(Debug)]
pub enum Group {
    /// A node as it is, perhaps with an epilogue whose further operands follow.
    Node {
        /// Index of the node.
        node: usize,
        /// What is computed on its first result, and the values of the epilogue's further operands.
        epilogue: Option<(Epilogue, Vec<Value>)>,
        /// What the kernel leaves: the node's first result, or the epilogue's.
        result: Value,
    },
    /// Attention that reads heads where they lie among others, and leaves them so: what only moves them is no step.
    Attention {
        /// Index of the node.
        node: usize,
        /// The values that are read, in the order of the node's operands.
        operands: Vec<Value>,
        /// How they and the result lie.
        views: Views,
        /// What it leaves.
        result: Value,
    },
    /// Nodes whose results only the next one reads, computed strip by strip.
    Chain {
        /// The nodes.
        links: Vec<Link>,
        /// What the first reads, in place of its first operand: that operand, or the plain image that it was packed from.
        input: Value,
        /// What the last leaves.
        result: Value,
    },
    /// An expression over stored values.
    Map {
        /// The expression.
        expr: Expr,
        /// Its operands.
        operands: Vec<Value>,
        /// What it leaves.
        result: Value,
    },
}

/// A node of a chain.
#[derive(Debug)]
pub struct Link {
    /// Index of the node.
    pub node: usize,
    /// As in [`Group::Node`].
    pub epilogue: Option<(Epilogue, Vec<Value>)>,
    /// What it leaves.
    pub result: Value,
}

impl Group {
    /// The values it reads, once a use.
    pub fn reads(&self, graph: &Graph) -> Vec<Value> {
        fn further(epilogue: &Option<(Epilogue, Vec<Value>)>) -> impl Iterator<Item = Value> {
            epilogue.iter().flat_map(|(_, vs)| vs.iter().copied())
        }
        match self {
            Group::Map { operands, .. } | Group::Attention { operands, .. } => operands.clone(),
            Group::Node { node, epilogue, .. } => graph.nodes()[*node].inputs.iter().copied().chain(further(epilogue)).collect(),
            Group::Chain { links, input, .. } => {
                let own = |l: &Link| graph.nodes()[l.node].inputs[1..].iter().copied().chain(further(&l.epilogue)).collect::<Vec<_>>();
                [*input].into_iter().chain(links.iter().flat_map(own)).collect()
            }
        }
    }

    /// The value it leaves (the first, of a node with several).
    pub fn result(&self) -> Value {
        match self {
            Group::Node { result, .. } | Group::Attention { result, .. } | Group::Map { result, .. } | Group::Chain { result, .. } => {
                *result
            }
        }
    }
}

/// Groups the nodes of a graph, in an order in which they can run. Sources are left out.
pub fn groups(graph: &Graph) -> Vec<Group> {
    let users = users(graph);
    let root_of = roots(graph, &users);
    let mut taken: HashSet<usize> = HashSet::new(); // nodes whose result an epilogue has replaced
    let mut at: Vec<Vec<Group>> = graph.nodes().iter().map(|_| vec![]).collect();
    for (root, &mine) in root_of.iter().enumerate() {
        if mine != Some(root) {
            continue;
        }
        let mut members: Vec<usize> = (0..=root).filter(|n| root_of[*n] == Some(root)).collect();
        let result = Value { node: root as u32, index: 0 };
        if let Some((anchor, absorbed, epilogue, extras)) = anchor(graph, &users, &members, &taken) {
            taken.insert(anchor);
            let last = *absorbed.last().expect("an epilogue has at least one node");
            let made = Value { node: last as u32, index: 0 };
            at[last].push(Group::Node { node: anchor, epilogue: Some((epilogue, extras)), result: made });
            members.retain(|n| !absorbed.contains(n));
            if members.is_empty() {
                continue;
            }
        }
        let (expr, operands) = expression(graph, &members, None);
        at[root].push(Group::Map { expr, operands, result });
    }
    for (n, group) in heads(graph, &users, &mut taken) {
        at[n].push(group);
    }
    let mut out = vec![];
    for (n, node) in graph.nodes().iter().enumerate() {
        let whole = !matches!(node.op.def.class, Class::Source | Class::Elementwise) && !taken.contains(&n);
        if whole {
            out.push(Group::Node { node: n, epilogue: None, result: Value { node: n as u32, index: 0 } });
        }
        out.append(&mut at[n]);
    }
    out
}

/// Attention whose operands or result are views of other values, with the index of its node. What nobody needs any more is taken.
fn heads(graph: &Graph, users: &[Vec<usize>], taken: &mut HashSet<usize>) -> Vec<(usize, Group)> {
    let mut out = vec![];
    // Uses that are left of each node.
    let mut uses: Vec<usize> = users.iter().map(Vec::len).collect();
    for (n, node) in graph.nodes().iter().enumerate() {
        let made = Value { node: n as u32, index: 0 };
        let is_attention = node.op.kind() == Kind::Attention;
        if !is_attention || !attention::takes_views(graph.ty(node.inputs[0]), graph.ty(node.inputs[1]), &node.types[0]) {
            continue;
        }
        let mut operands = node.inputs.clone();
        let mut views = Views::default();
        for (operand, view) in operands.iter_mut().zip(&mut views.operands) {
            let Some((source, lies)) = source(graph, *operand, taken) else { continue };
            // What moves the value is gone when this was its last use.
            let mut value = std::mem::replace(operand, source);
            *view = Some(lies);
            while value != source {
                uses[value.node as usize] -= 1;
                if uses[value.node as usize] > 0 {
                    break;
                }
                taken.insert(value.node as usize);
                value = graph.node(value).inputs[0];
            }
        }
        let result = turned(graph, users, made).map_or(made, |(result, view, chain)| {
            views.result = Some(view);
            taken.extend(chain);
            result
        });
        if views != Views::default() {
            taken.insert(n);
            out.push((n, Group::Attention { node: n, operands, views, result }));
        }
    }
    out
}

/// The value in which another lies as an even view, further than through reshapes alone, and how. A view that is `taken` and still used is
/// the turned result of attention: what it turns lies nowhere.
fn source(graph: &Graph, value: Value, taken: &HashSet<usize>) -> Option<(Value, View)> {
    let mut chain = vec![];
    let mut at = value;
    while !taken.contains(&(at.node as usize))
        && matches!(graph.node(at).op.kind(), Kind::Reshape | Kind::Transpose | Kind::Slice | Kind::Expand)
    {
        chain.push(at);
        at = graph.node(at).inputs[0];
    }
    // From as far as the chain is even.
    while chain.iter().any(|v| graph.node(*v).op.kind() != Kind::Reshape) {
        let start = graph.node(*chain.last().expect("not empty")).inputs[0];
        let whole = chain.iter().rev().try_fold(View::dense(&graph.ty(start).shape), |view, &v| {
            let from = &graph.ty(graph.node(v).inputs[0]).shape;
            view_through(&graph.node(v).op, &view, from, &graph.ty(v).shape)
        });
        if let Some(view) = whole.filter(|v| v.strides.iter().all(|&s| s >= 0)) {
            return Some((start, view));
        }
        chain.pop();
    }
    None
}

/// The transpose that alone uses a value, perhaps reshaped, and how the value lies in its result; columns stay side by side.
fn turned(graph: &Graph, users: &[Vec<usize>], value: Value) -> Option<(Value, View, Vec<usize>)> {
    let mut chain = vec![];
    let mut at = value;
    loop {
        let [user] = users[at.node as usize][..] else { return None };
        let next = graph.nodes().get(user)?;
        chain.push(user);
        at = Value { node: user as u32, index: 0 };
        match next.op.kind() {
            Kind::Reshape => {}
            Kind::Transpose => break,
            _ => return None,
        }
    }
    let turn = graph.node(at);
    let dense = View::dense(&graph.ty(at).shape);
    let from = &graph.ty(turn.inputs[0]).shape;
    let mut strides = vec![0; from.len()];
    for (&axis, &stride) in turn.op.attrs.ints("perm").iter().zip(&dense.strides) {
        strides[axis as usize] = stride;
    }
    let strides = reshaped(&strides, from, &graph.ty(value).shape)?;
    let columns = graph.ty(value).shape.last().copied();
    (strides.last() == Some(&1) || columns == Some(1)).then_some((at, View { offset: 0, strides }, chain))
}

/// Nodes that use each node's results, once a use; graph outputs count as a use by `usize::MAX`.
fn users(graph: &Graph) -> Vec<Vec<usize>> {
    let mut users = vec![vec![]; graph.nodes().len()];
    for (n, node) in graph.nodes().iter().enumerate() {
        for v in &node.inputs {
            users[v.node as usize].push(n);
        }
    }
    for (_, v) in graph.outputs() {
        users[v.node as usize].push(usize::MAX);
    }
    users
}

/// For each element-wise node the node whose kernel computes it: itself, or that of its users when all are in one kernel of its shape.
fn roots(graph: &Graph, users: &[Vec<usize>]) -> Vec<Option<usize>> {
    let mut root_of: Vec<Option<usize>> = vec![None; graph.nodes().len()];
    let mut size: HashMap<usize, (usize, usize)> = HashMap::new(); // root → (nodes, operands at most)
    for (n, node) in graph.nodes().iter().enumerate().rev() {
        if node.op.def.class != Class::Elementwise {
            continue;
        }
        let mut root = n;
        let candidates: Option<Vec<usize>> = users[n].iter().map(|&u| if u == usize::MAX { None } else { root_of[u] }).collect();
        if let Some(candidates) = candidates
            && let Some(&first) = candidates.first()
            && candidates.iter().all(|&c| c == first)
            && graph.nodes()[first].types[0].shape == node.types[0].shape
        {
            let (nodes, operands) = size[&first];
            if nodes < MAX_NODES && operands + node.inputs.len() <= MAX_OPERANDS + 1 {
                root = first;
            }
        }
        root_of[n] = Some(root);
        let entry = size.entry(root).or_insert((0, 1));
        let fresh = node.inputs.iter().filter(|v| graph.const_of(**v).is_none_or(|c| c.len() != 1)).count();
        *entry = (entry.0 + 1, (entry.1 + fresh).saturating_sub(1));
    }
    root_of
}

/// The producer that can compute (a first part of) these nodes before it stores, with the part absorbed, the epilogue and its operands.
fn anchor(
    graph: &Graph,
    users: &[Vec<usize>],
    members: &[usize],
    taken: &HashSet<usize>,
) -> Option<(usize, Vec<usize>, Epilogue, Vec<Value>)> {
    let mut candidates: Vec<usize> = vec![];
    for &m in members {
        for v in &graph.nodes()[m].inputs {
            let p = v.node as usize;
            let node = &graph.nodes()[p];
            if node.op.def.class != Class::Compute || taken.contains(&p) || candidates.contains(&p) || v.index != 0 {
                continue;
            }
            let Some(family) = kernels::family(node.op.kind()) else { continue };
            if users[p].iter().all(|u| members.contains(u))
                && users[p].iter().all(|&u| u != usize::MAX && graph.nodes()[u].inputs.iter().all(|v| v.node as usize != p || v.index == 0))
                && (family.epilogue)(&node.op, &node.types).is_some()
            {
                candidates.push(p);
            }
        }
    }
    // The dearest producer first: what it saves is a pass over its result; the others then are plain operands.
    candidates.sort_by_key(|&p| (std::cmp::Reverse(work(graph, &graph.nodes()[p])), p));
    for p in candidates {
        let absorbed = absorbable(graph, users, members, p);
        if absorbed.is_empty() {
            continue;
        }
        let value = Value { node: p as u32, index: 0 };
        let (expr, operands) = expression(graph, &absorbed, Some(value));
        let extras = operands[1..]
            .iter()
            .map(|v| Extra {
                ty: graph.ty(*v).ty,
                access: access(&graph.nodes()[p], graph.ty(*v)).expect("absorbable() asked for each operand"),
            })
            .collect();
        return Some((p, absorbed, Epilogue { expr, operands: extras }, operands[1..].to_vec()));
    }
    None
}

/// The largest first part of `members` that can follow node `p` in its kernel: all of them, or a chain from `p` on.
fn absorbable(graph: &Graph, users: &[Vec<usize>], members: &[usize], p: usize) -> Vec<usize> {
    let node = &graph.nodes()[p];
    let shape = &node.types[0].shape;
    let fits = |n: usize, inside: &[usize]| {
        let m = &graph.nodes()[n];
        m.types[0].shape == *shape
            && m.inputs.iter().all(|v| {
                let q = v.node as usize;
                // A member that stays outside has no memory of its own to be read from.
                q == p
                    || inside.contains(&q)
                    || graph.const_of(*v).is_some_and(|c| c.len() == 1)
                    || (!members.contains(&q) && access(node, graph.ty(*v)).is_some())
            })
    };
    if members.iter().all(|&m| fits(m, members))
        && expression(graph, members, Some(Value { node: p as u32, index: 0 })).1.len() <= MAX_OPERANDS
    {
        return members.to_vec();
    }
    let mut chain: Vec<usize> = vec![];
    let mut last = p;
    loop {
        let mut next: Vec<usize> = users[last].clone();
        next.dedup();
        match next[..] {
            [n] if n != usize::MAX && members.contains(&n) && fits(n, &chain) => {
                chain.push(n);
                last = n;
            }
            _ => return chain,
        }
        if chain.len() >= MAX_OPERANDS {
            return chain;
        }
    }
}

/// How an operand of type `ty` is spread over the first result of `node`, if an epilogue can read it.
fn access(node: &Node, ty: &TensorType) -> Option<Access> {
    let result = &node.types[0].shape;
    if ty.shape == *result {
        return Some(Access::Full);
    }
    if ty.len() == 1 {
        return Some(Access::Scalar);
    }
    if ty.rank() > result.len() {
        return None;
    }
    let channel_axes = (kernels::family(node.op.kind())?.epilogue)(&node.op, &node.types)?;
    let skip = result.len() - ty.rank();
    let spread = (0..result.len()).all(|axis| {
        let size = if axis < skip { 1 } else { ty.shape[axis - skip] };
        size == if channel_axes.contains(&axis) { result[axis] } else { 1 }
    });
    spread.then_some(Access::Channel)
}

/// The expression of these nodes (in order, the last being the result) and its operands; `first` becomes operand 0 where it is given.
fn expression(graph: &Graph, members: &[usize], first: Option<Value>) -> (Expr, Vec<Value>) {
    let mut operands: Vec<Value> = first.into_iter().collect();
    let mut expr = Expr::default();
    let mut place: HashMap<Value, usize> = HashMap::new();
    for &m in members {
        let node = &graph.nodes()[m];
        let mut args = vec![];
        for v in &node.inputs {
            let at = place.get(v).copied().unwrap_or_else(|| {
                let ty = graph.ty(*v).ty;
                let what = match graph.const_of(*v) {
                    Some(c) if c.len() == 1 => What::Const(c.reshaped([])),
                    _ => {
                        let i = operands.iter().position(|o| o == v).unwrap_or_else(|| {
                            operands.push(*v);
                            operands.len() - 1
                        });
                        What::Operand(i)
                    }
                };
                expr.nodes.push(ExprNode { what, ty });
                place.insert(*v, expr.nodes.len() - 1);
                expr.nodes.len() - 1
            });
            args.push(at);
        }
        expr.nodes.push(ExprNode { what: What::Apply(node.op.clone(), args), ty: node.types[0].ty });
        place.insert(Value { node: m as u32, index: 0 }, expr.nodes.len() - 1);
    }
    (expr, operands)
}

fn work(graph: &Graph, node: &Node) -> u64 {
    let inputs: Vec<TensorType> = node.inputs.iter().map(|v| graph.ty(*v).clone()).collect();
    (node.op.def.work)(&node.op.attrs, &inputs, &node.types)
}

/// Multiply-accumulates (or scalar operations) of a group.
pub fn group_work(graph: &Graph, group: &Group) -> u64 {
    match group {
        Group::Node { node, .. } | Group::Attention { node, .. } => work(graph, &graph.nodes()[*node]),
        Group::Chain { links, .. } => links.iter().map(|l| work(graph, &graph.nodes()[l.node])).sum(),
        Group::Map { expr, result, .. } => {
            let applied = expr.nodes.iter().filter(|n| matches!(n.what, What::Apply(..))).count();
            (applied * graph.ty(*result).len()) as u64
        }
    }
}

/// Bytes of a group's operands and results: what must be read and written at least once.
pub fn group_traffic(graph: &Graph, group: &Group) -> u64 {
    group.reads(graph).iter().chain([&group.result()]).map(|v| graph.ty(*v).bytes() as u64).sum()
}

/// What a group computes, for reports: `conv+add+relu`; the members of a chain with arrows between.
pub fn label(graph: &Graph, group: &Group) -> String {
    let names = |expr: &Expr| -> Vec<&'static str> {
        expr.nodes
            .iter()
            .filter_map(|n| match &n.what {
                What::Apply(op, _) => Some(op.kind().name()),
                _ => None,
            })
            .collect()
    };
    let of_node = |node: usize, epilogue: &Option<(Epilogue, Vec<Value>)>| {
        let mut parts = vec![graph.nodes()[node].op.kind().name()];
        if let Some((e, _)) = epilogue {
            parts.extend(names(&e.expr));
        }
        parts.join("+")
    };
    match group {
        Group::Node { node, epilogue, .. } => of_node(*node, epilogue),
        Group::Attention { node, .. } => graph.nodes()[*node].op.kind().name().into(),
        Group::Chain { links, .. } => links.iter().map(|l| of_node(l.node, &l.epilogue)).collect::<Vec<_>>().join(" → "),
        Group::Map { expr, .. } => names(expr).join("+"),
    }
}
