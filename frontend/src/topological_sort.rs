//! Topological sort of the nodes of a graph, and the names that nodes use.

use crate::proto::{GraphProto, NodeProto};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// The names of the constants of a graph.
pub(crate) fn initialised(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let sparse = graph.sparse_initializer.iter().filter_map(|s| Some(s.values.as_ref()?.name.as_str()));
    graph.initializer.iter().map(|t| t.name.as_str()).chain(sparse)
}

/// The names that a graph uses and does not make: those of the graphs around it.
fn free_names<'p>(graph: &'p GraphProto, free: &mut HashSet<&'p str>) {
    let mut inner = HashSet::new();
    let mut made: HashSet<&str> = graph.input.iter().map(|i| i.name.as_str()).chain(initialised(graph)).collect();
    for node in &graph.node {
        made.extend(node.output.iter().map(String::as_str));
        uses(node, &mut inner);
    }
    inner.extend(graph.output.iter().map(|o| o.name.as_str()));
    free.extend(inner.difference(&made));
}

/// The names that a node and its bodies use.
pub(crate) fn uses<'p>(node: &'p NodeProto, names: &mut HashSet<&'p str>) {
    names.extend(node.input.iter().map(String::as_str).filter(|n| !n.is_empty()));
    node.attribute.iter().filter_map(|a| a.g.as_deref()).for_each(|g| free_names(g, names));
}

/// An order in which the nodes can run, that of the file where it does; or the nodes of a cycle, the first again at its end.
pub(crate) fn order(nodes: &[NodeProto]) -> Result<Vec<usize>, Vec<usize>> {
    let mut maker = HashMap::new();
    for (i, node) in nodes.iter().enumerate() {
        for name in node.output.iter().filter(|n| !n.is_empty()) {
            maker.entry(name.as_str()).or_insert(i);
        }
    }
    let mut before: Vec<Vec<usize>> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let mut names = HashSet::new();
        uses(node, &mut names);
        let mut makers: Vec<usize> = names.iter().filter_map(|n| maker.get(n).copied()).collect();
        makers.sort_unstable();
        makers.dedup();
        before.push(makers);
    }
    sort(&before)
}

/// An order in which each comes after those `before` it (sorted, each once), as near as can be to that given; or a cycle, the first
/// again at its end.
pub(crate) fn sort(before: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    if before.iter().enumerate().all(|(i, makers)| makers.last().is_none_or(|&m| m < i)) {
        return Ok((0..before.len()).collect());
    }
    let mut after = vec![vec![]; before.len()];
    let mut missing: Vec<usize> = before.iter().map(Vec::len).collect();
    before.iter().enumerate().for_each(|(i, makers)| makers.iter().for_each(|&m| after[m].push(i)));
    let mut ready: BinaryHeap<Reverse<usize>> = (0..before.len()).filter(|&i| missing[i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(before.len());
    while let Some(Reverse(i)) = ready.pop() {
        order.push(i);
        for &j in &after[i] {
            missing[j] -= 1;
            if missing[j] == 0 {
                ready.push(Reverse(j));
            }
        }
    }
    if order.len() == before.len() {
        return Ok(order);
    }
    // Every node left waits for another one left: going from one to the next ends in a cycle.
    let (mut path, mut seen) = (vec![], HashSet::new());
    let mut at = missing.iter().position(|&m| m > 0).expect("a node is left");
    while seen.insert(at) {
        path.push(at);
        at = before[at].iter().copied().find(|&m| missing[m] > 0).expect("it waits for a node that is left");
    }
    let start = path.iter().position(|&i| i == at).expect("seen before");
    let mut cycle = path.split_off(start);
    cycle.push(at);
    cycle.reverse();
    Err(cycle)
}
