//! Which convolutions and poolings follow each other strip by strip: runs of groups of which only the next reads each, parted where the
//! estimate of [`strip`] says.

use crate::expr::Epilogue;
use crate::fuse::{self, Group};
use crate::kernels::strip::{self, Link};
use crate::unit::{Operand, Options, Unit};
use dnnc_ir::{Graph, Kind, Value};
use dnnc_targets::Target;
use std::collections::HashMap;

/// Longest chain: each ring of rows takes its share of the cache.
const LONGEST: usize = 5;

/// Groups the windows over packed images of a graph into chains where that is no slower; of two ways equally fast the one with less memory.
pub fn group(graph: &Graph, groups: Vec<Group>, target: &Target, options: &Options) -> Vec<Group> {
    let readers = readers(graph, &groups);
    let makers: HashMap<Value, usize> = groups.iter().enumerate().map(|(g, group)| (group.result(), g)).collect();
    let only_reader = |v: Value| match readers.get(&v).map(Vec::as_slice) {
        Some([Some(g)]) => Some(*g),
        _ => None,
    };
    let next = |g: usize| {
        only_reader(groups[g].result())
            .filter(|&n| is_window(graph, &groups[n]) && first_operand(graph, &groups[n]) == Some(groups[g].result()))
    };
    let mut followed = vec![false; groups.len()];
    for g in (0..groups.len()).filter(|&g| is_window(graph, &groups[g])) {
        next(g).into_iter().for_each(|n| followed[n] = true);
    }
    let mut parts: Vec<(Vec<usize>, Option<usize>)> = vec![]; // the groups of a chain, and the group that packs its input
    for g in 0..groups.len() {
        if !is_window(graph, &groups[g]) || followed[g] {
            continue;
        }
        let run: Vec<usize> = std::iter::successors(Some(g), |&g| next(g)).collect();
        let packed_by = first_operand(graph, &groups[g]).filter(|&v| only_reader(v) == Some(g)).and_then(|v| makers.get(&v).copied());
        let pack = packed_by.filter(|&p| matches!(&groups[p], Group::Node { node, epilogue: None, .. } if packs_few(graph, *node)));
        parts.extend(part(graph, &groups, &run, pack, target, options));
    }
    assemble(graph, groups, parts)
}

/// The units of a chain whose first member reads `input`.
pub fn units<'a>(graph: &'a Graph, links: &'a [fuse::Link], input: Value, target: &'a Target, options: &'a Options) -> Vec<Unit<'a>> {
    let reads = |i: usize| if i == 0 { input } else { links[i - 1].result };
    links
        .iter()
        .enumerate()
        .map(|(i, l)| unit(graph, l.node, l.epilogue.as_ref().map(|e| &e.0), l.result, reads(i), target, options))
        .collect()
}

fn unit<'a>(
    graph: &'a Graph,
    node: usize,
    epilogue: Option<&'a Epilogue>,
    result: Value,
    input: Value,
    target: &'a Target,
    options: &'a Options,
) -> Unit<'a> {
    let node = &graph.nodes()[node];
    let mut inputs: Vec<Operand> = node.inputs.iter().map(|v| Operand::of(graph, *v)).collect();
    inputs[0] = Operand::of(graph, input);
    Unit { op: &node.op, inputs, results: node.types.clone(), epilogue, stored: graph.ty(result).clone(), target, options }
}

/// The groups that read each value, once a use; `None` for the results of the graph.
fn readers(graph: &Graph, groups: &[Group]) -> HashMap<Value, Vec<Option<usize>>> {
    let mut readers: HashMap<Value, Vec<Option<usize>>> = HashMap::new();
    for (g, group) in groups.iter().enumerate() {
        group.reads(graph).into_iter().for_each(|v| readers.entry(v).or_default().push(Some(g)));
    }
    graph.outputs().iter().for_each(|(_, v)| readers.entry(*v).or_default().push(None));
    readers
}

fn is_window(graph: &Graph, group: &Group) -> bool {
    let Group::Node { node, .. } = group else { return false };
    let op = &graph.nodes()[*node].op;
    matches!(op.kind(), Kind::Conv | Kind::MaxPool | Kind::AvgPool) && op.attrs.int("block") > 0
}

fn first_operand(graph: &Graph, group: &Group) -> Option<Value> {
    match group {
        Group::Node { node, .. } => graph.nodes()[*node].inputs.first().copied(),
        _ => None,
    }
}

/// Whether a node packs an image of so few channels that most of the blocks would be empty.
fn packs_few(graph: &Graph, node: usize) -> bool {
    let node = &graph.nodes()[node];
    node.op.kind() == Kind::Pack && node.op.attrs.int("axis") == 1 && graph.ty(node.inputs[0]).shape[1] * 2 <= node.op.attrs.size("block")
}

/// The cheapest way to cut a run of groups into chains; only chains are answered, each with the group that packs its input.
fn part(
    graph: &Graph,
    groups: &[Group],
    run: &[usize],
    pack: Option<usize>,
    target: &Target,
    options: &Options,
) -> Vec<(Vec<usize>, Option<usize>)> {
    let nodes: Vec<_> = run.iter().map(|&g| as_node(&groups[g]).expect("a run has only nodes")).collect();
    let of = |i: usize, input: Value| unit(graph, nodes[i].0, nodes[i].1, nodes[i].2, input, target, options);
    let units: Vec<Unit> = (0..run.len()).map(|i| of(i, graph.nodes()[nodes[i].0].inputs[0])).collect();
    let plain_unit = pack.map(|p| of(0, first_operand(graph, &groups[p]).expect("a pack has an operand")));
    let links: Vec<Option<Link>> = units.iter().map(Link::new).collect();
    // The same, where the first reads the image that was packed.
    let plain: Vec<Option<Link>> = plain_unit.iter().map(Link::new).chain(units[1..].iter().map(Link::new)).collect();
    let stored = |i: usize| strip::traffic(graph.ty(nodes[i].2).bytes(), target);
    // Packing writes what is read then, about four bytes a cycle.
    let packing = pack.map_or(0.0, |_| units[0].inputs[0].ty.bytes() as f64 / 4.0);
    // Cheapest way to have the first so many members: cycles, where its last chain begins, whether that is a chain, and whether it reads packed.
    let mut best: Vec<(f64, usize, bool, bool)> = vec![(0.0, 0, false, true)];
    for to in 1..=run.len() {
        let mut ways = vec![];
        for from in (to.saturating_sub(LONGEST)..to).rev() {
            let before = best[from].0 + stored(to - 1);
            let packing = if from == 0 { packing } else { 0.0 };
            if to - from > 1 {
                ways.extend(cycles(&links[from..to]).map(|c| (before + packing + c, from, true, true)));
            }
            if from == 0 && pack.is_some() {
                ways.extend(cycles(&plain[..to]).map(|c| (before + c, from, true, false)));
            }
            if to - from == 1 {
                ways.push((before + packing + links[from].as_ref().map_or(0.0, Link::apart), from, false, true));
            }
            if links[from].is_none() {
                break;
            }
        }
        best.push(ways.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("each member can be alone"));
    }
    let mut out = vec![];
    let mut to = run.len();
    while to > 0 {
        let (_, from, is_chain, packed) = best[to];
        if is_chain {
            out.push((run[from..to].to_vec(), pack.filter(|_| !packed)));
        }
        to = from;
    }
    out
}

/// Cycles of some members as a chain; `None` where they are none.
fn cycles(links: &[Option<Link>]) -> Option<f64> {
    let links: Vec<&Link> = links.iter().map(Option::as_ref).collect::<Option<_>>()?;
    strip::Plan::new(&links).map(|p| p.cycles)
}

fn as_node(group: &Group) -> Option<(usize, Option<&Epilogue>, Value)> {
    match group {
        Group::Node { node, epilogue, result } => Some((*node, epilogue.as_ref().map(|e| &e.0), *result)),
        _ => None,
    }
}

/// Puts each chain where its last member was.
fn assemble(graph: &Graph, groups: Vec<Group>, parts: Vec<(Vec<usize>, Option<usize>)>) -> Vec<Group> {
    let mut slots: Vec<Option<Group>> = groups.into_iter().map(Some).collect();
    for (members, pack) in parts {
        let last = *members.last().expect("a chain has members");
        let mut links = vec![];
        for g in members {
            let Some(Group::Node { node, epilogue, result }) = slots[g].take() else { unreachable!("each group is in one chain") };
            links.push(fuse::Link { node, epilogue, result });
        }
        let own = graph.nodes()[links[0].node].inputs[0];
        let input = match pack.and_then(|p| slots[p].take()) {
            Some(p) => first_operand(graph, &p).expect("a pack has an operand"),
            None => own,
        };
        let result = links.last().expect("a chain has members").result;
        slots[last] = Some(Group::Chain { links, input, result });
    }
    slots.into_iter().flatten().collect()
}
