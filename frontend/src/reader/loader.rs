//! What the reader holds while it walks through the graphs of a file: names in scope, graphs under construction, reasons for refusal.

use crate::limits::Limits;
use crate::node::Attribute;
use crate::proto::{FunctionProto, GraphProto, NodeProto, OperatorSetIdProto};
use crate::refusal::{Refusal, RefusalKind};
use crate::resolved::{ResolvedGraph, ResolvedNode, Slot, qualified};
use dnnc_ir::{Tensor, Type};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// The newest opset version of each domain whose meaning dnnc knows.
pub(crate) const NEWEST_OPSET: &[(&str, i64)] = &[("", 28), ("ai.onnx.ml", 5), ("com.microsoft", 1)];

/// Opset versions by domain.
pub(super) type Opsets<'p> = BTreeMap<&'p str, i64>;
/// Attributes that a function was called with.
pub(super) type Bindings<'p> = HashMap<String, Attr<'p>>;

/// An attribute of a node, decoded, or the graph that it holds.
#[derive(Clone)]
pub(super) enum Attr<'p> {
    Plain(Attribute),
    Graph(&'p GraphProto),
}

pub(super) fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

/// Names of one graph or function body.
pub(super) struct Frame<'p> {
    /// `None`: an optional input of a function that was left out.
    pub(super) names: HashMap<String, Option<Slot>>,
    /// Which graph its slots belong to.
    pub(super) graph: usize,
    /// Whether names outside are hidden: a function.
    pub(super) closed: bool,
    /// Names of its nodes, which must differ.
    pub(super) nodes: HashSet<&'p str>,
    /// Element types that the file declares.
    pub(super) declared: HashMap<&'p str, Type>,
}

/// a graph under construction.
#[derive(Default)]
pub(super) struct UnfinishedGraph {
    pub(super) graph: ResolvedGraph,
    pub(super) nodes: Vec<ResolvedNode>,
    pub(super) captured: HashMap<Slot, Slot>,
    pub(super) missing: Vec<Missing>,
}

/// What cannot be compiled, and need not be if no output depends on it.
pub(super) struct Missing {
    pub(super) refusal: Refusal,
    /// Whether it is wrong even where nothing depends on it.
    pub(super) always: bool,
    /// How many nodes stand before it.
    pub(super) at: usize,
    pub(super) inputs: Vec<Option<Slot>>,
    pub(super) outputs: Vec<Slot>,
}

pub(super) struct Loader<'p, 'r> {
    pub(super) functions: HashMap<(&'p str, &'p str, &'p str), &'p FunctionProto>,
    pub(super) folder: Option<&'p Path>,
    pub(super) limits: &'p Limits,
    pub(super) refusals: &'r mut Vec<Refusal>,
    pub(super) open_graphs: Vec<UnfinishedGraph>,
    pub(super) frames: Vec<Frame<'p>>,
    /// Functions being inlined, with the prefix of their nodes' names.
    pub(super) calls: Vec<((&'p str, &'p str, &'p str), String)>,
    pub(super) nodes: usize,
    /// Whether a limit was met: nothing more is expanded.
    pub(super) full: bool,
}

impl<'p> Loader<'p, '_> {
    pub(super) fn refuse(&mut self, kind: RefusalKind, what: &'static str, name: &str, reason: impl Into<String>) {
        if self.should_report(kind) {
            self.refusals.push(Refusal::new(kind, what, name, reason));
        }
    }

    /// Whether to report another refusal: of a broken file the first thousand are enough, and what is missing because a limit was reached is no
    /// error of its own.
    pub(super) fn should_report(&mut self, kind: RefusalKind) -> bool {
        let more = !self.full && self.refusals.len() < 1000;
        self.full |= kind == RefusalKind::TooLarge;
        more
    }

    /// Defers the refusal of a node or tensor with these outputs until it is known whether they are needed.
    pub(super) fn report_missing(&mut self, refusal: Refusal, always: bool, inputs: Vec<Option<Slot>>, names: &[&str]) {
        let mut outputs = vec![];
        for name in names.iter().filter(|n| !n.is_empty()) {
            let slot = self.fresh();
            if !self.define(name, slot) {
                self.refuse(RefusalKind::Invalid, "tensor", name, "duplicate name: two values are called so");
            }
            outputs.push(slot);
        }
        let unfinished = self.innermost();
        unfinished.missing.push(Missing { refusal, always, at: unfinished.nodes.len(), inputs, outputs });
    }

    pub(super) fn refuse_node(
        &mut self,
        kind: RefusalKind,
        node: &NodeProto,
        opset: i64,
        reason: impl Into<String>,
        help: impl Into<String>,
    ) {
        let name = self.node_name(node);
        let refusal = Refusal::new(kind, "node", &name, reason);
        if self.should_report(kind) {
            self.refusals.push(Refusal { op: qualified(domain(&node.domain), &node.op_type), opset, help: help.into(), ..refusal });
        }
    }

    pub(super) fn node_name(&self, node: &NodeProto) -> String {
        let own = if node.name.is_empty() { node.output.iter().find(|o| !o.is_empty()).map_or("", |o| o) } else { &node.name };
        self.calls.last().map_or(own.to_string(), |(_, prefix)| format!("{prefix}/{own}"))
    }

    pub(super) fn opsets(&mut self, imports: &'p [OperatorSetIdProto], what: &'static str, name: &str) -> Opsets<'p> {
        let mut opsets = Opsets::new();
        for import in imports {
            let (domain, version) = (domain(&import.domain), import.version);
            let shown = if domain.is_empty() { "ai.onnx" } else { domain };
            if opsets.insert(domain, version).is_some_and(|other| other != version) {
                self.refuse(RefusalKind::Invalid, what, name, format!("two opset versions of domain {shown}"));
            }
            let newest = NEWEST_OPSET.iter().find(|(d, _)| *d == domain).map(|(_, v)| *v);
            match newest {
                Some(newest) if version > newest => {
                    self.refuse(
                        RefusalKind::Unsupported,
                        what,
                        name,
                        format!("opset version {version} of domain {shown}; the newest known is {newest}"),
                    );
                }
                _ if version < 1 => self.refuse(RefusalKind::Invalid, what, name, format!("opset version {version} of domain {shown}")),
                _ => {}
            }
        }
        if opsets.is_empty() {
            self.refuse(RefusalKind::Invalid, what, name, "no opset version is given (opset_import is missing)");
        }
        opsets
    }

    pub(super) fn innermost(&mut self) -> &mut UnfinishedGraph {
        self.open_graphs.last_mut().expect("a graph is under construction")
    }

    pub(super) fn fresh(&mut self) -> Slot {
        let graph = &mut self.innermost().graph;
        graph.slots += 1;
        graph.slots - 1
    }

    /// Gives `name` a slot in the innermost frame; whether it was free.
    pub(super) fn define(&mut self, name: &str, slot: Slot) -> bool {
        let frame = self.frames.last_mut().expect("a frame is open");
        frame.names.insert(name.to_string(), Some(slot)).is_none()
    }

    /// The slot of a name in the innermost graph, captured through the graphs between; `None` when there is no such name.
    pub(super) fn lookup(&mut self, name: &str) -> Option<Option<Slot>> {
        let mut found = None;
        for frame in self.frames.iter().rev() {
            if let Some(slot) = frame.names.get(name) {
                found = Some((frame.graph, *slot));
                break;
            }
            if frame.closed {
                break;
            }
        }
        let (home, slot) = found?;
        let Some(mut slot) = slot else { return Some(None) };
        for unfinished in &mut self.open_graphs[home + 1..] {
            let UnfinishedGraph { graph, captured, .. } = unfinished;
            slot = *captured.entry(slot).or_insert_with(|| {
                graph.slots += 1;
                graph.captures.push((slot, graph.slots - 1));
                graph.slots - 1
            });
        }
        Some(Some(slot))
    }

    pub(super) fn constant(&mut self, name: &str, tensor: Tensor) {
        let slot = self.fresh();
        if !self.define(name, slot) {
            self.refuse(RefusalKind::Invalid, "tensor", name, "duplicate name: two values are called so");
        }
        self.innermost().graph.constants.push((slot, name.to_string(), tensor));
    }
}

impl UnfinishedGraph {
    /// The refusals of what an output of the graph depends on, in order.
    pub(super) fn needed_but_missing(&self) -> Vec<Refusal> {
        let mut live: HashSet<Slot> = self.graph.outputs.iter().copied().collect();
        let mut refusals = vec![];
        let mut missing = self.missing.iter().rev().peekable();
        for at in (0..=self.nodes.len()).rev() {
            while let Some(gap) = missing.next_if(|l| l.at == at) {
                if gap.always || gap.outputs.iter().any(|s| live.contains(s)) {
                    live.extend(gap.inputs.iter().flatten());
                    refusals.push(gap.refusal.clone());
                }
            }
            if at > 0 && self.nodes[at - 1].outputs.iter().flatten().any(|s| live.contains(s)) {
                let node = &self.nodes[at - 1];
                live.extend(node.inputs.iter().flatten());
                live.extend(node.bodies.iter().flat_map(|b| b.captures.iter().map(|c| c.0)));
            }
        }
        refusals.reverse();
        refusals
    }
}
