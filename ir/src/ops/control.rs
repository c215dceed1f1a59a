//! Control flow: operators that run other graphs.

use super::check::{self, Types, ensure};
use super::not_yet;
use crate::graph::Graph;
use crate::op::{Arity, AttrKind, Attrs, Class, Kind, OpDef};
use crate::types::{TensorType, Type};

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    OpDef {
        kind: Kind::If,
        doc: "The results of `then` if cond (bool scalar) holds, else of `else`; both graphs take the other inputs and give the same types.",
        inputs: Arity::AtLeast(1),
        attrs: &[("then", AttrKind::Graph), ("else", AttrKind::Graph)],
        class: Class::Control,
        infer: branch,
        eval: not_yet,
        work: |attrs, _, _| graph_work(attrs.graph("then")).max(graph_work(attrs.graph("else"))),
    },
    OpDef {
        kind: Kind::Loop,
        doc: "Runs `body` min(trip, max_trip) times while cond holds. Inputs: trip (i64 scalar), cond (bool scalar), `carried` carried values, \
              captures. The body takes iteration (i64 scalar), cond, carried…, captures… and gives cond, carried…, scans…. Results: \
              carried…, then each scan [max_trip, ..], 0 where no iteration ran.",
        inputs: Arity::AtLeast(2),
        attrs: &[("body", AttrKind::Graph), ("carried", AttrKind::Int(0)), ("max_trip", AttrKind::Int(0))],
        class: Class::Control,
        infer: repeat,
        eval: not_yet,
        work: |attrs, _, _| graph_work(attrs.graph("body")).saturating_mul(attrs.int("max_trip").max(0) as u64),
    },
];

/// Work of all nodes of a graph.
fn graph_work(graph: &Graph) -> u64 {
    let types = |n: &crate::graph::Node| n.inputs.iter().map(|v| graph.ty(*v).clone()).collect::<Vec<_>>();
    graph.nodes().iter().fold(0, |sum, n| sum.saturating_add((n.op.def.work)(&n.op.attrs, &types(n), &n.types)))
}

fn output_types(graph: &Graph) -> impl ExactSizeIterator<Item = &TensorType> {
    graph.outputs().iter().map(|(_, v)| graph.ty(*v))
}

/// `graph` must take inputs of exactly these types.
fn takes<'a>(what: &str, graph: &Graph, inputs: impl Iterator<Item = &'a TensorType> + Clone) -> Result<(), String> {
    let taken = graph.inputs().iter().map(|v| graph.ty(*v));
    ensure(taken.clone().eq(inputs.clone()), || {
        format!("{what} takes {:?}, but is given {:?}", taken.collect::<Vec<_>>(), inputs.collect::<Vec<_>>())
    })
}

fn branch(attrs: &Attrs, x: &[TensorType]) -> Types {
    check::scalar("the condition", &x[0], Type::Bool)?;
    let [then, other] = [attrs.graph("then"), attrs.graph("else")];
    takes("the `then` branch", then, x[1..].iter())?;
    takes("the `else` branch", other, x[1..].iter())?;
    ensure(output_types(then).eq(output_types(other)), || {
        let [a, b] = [then, other].map(|g| output_types(g).collect::<Vec<_>>());
        format!("the branches differ in their results: {a:?} and {b:?}")
    })?;
    Ok(output_types(then).cloned().collect())
}

fn repeat(attrs: &Attrs, x: &[TensorType]) -> Types {
    check::scalar("the number of iterations", &x[0], Type::I64)?;
    check::scalar("the condition", &x[1], Type::Bool)?;
    let body = attrs.graph("body");
    let carried = check::size(attrs, "carried", 0)?;
    let max_trip = check::size(attrs, "max_trip", 0)?;
    let values = x[2..].get(..carried).ok_or_else(|| format!("there are no {carried} carried values among {} inputs", x.len()))?;
    let [iter, cond] = [TensorType::new(Type::I64, []), TensorType::new(Type::Bool, [])];
    takes("the body", body, [&iter, &cond].into_iter().chain(&x[2..]))?;
    let mut results = output_types(body);
    ensure(results.len() > carried, || format!("the body gives {} results, but must give {} or more", results.len(), carried + 1))?;
    check::scalar("the condition that the body gives", results.next().expect("more than none"), Type::Bool)?;
    let mut types = Vec::with_capacity(results.len());
    for value in values {
        let next = results.next().expect("more than `carried`");
        ensure(next == value, || format!("the body carries {next} on, but was given {value}"))?;
        types.push(value.clone());
    }
    for scan in results {
        let mut shape = vec![max_trip];
        shape.extend(&scan.shape);
        types.push(TensorType::checked(scan.ty, shape)?);
    }
    Ok(types)
}
