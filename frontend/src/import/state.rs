//! An import under way: the queue of work, and the values that slots are bound to.

use crate::build::{Build, Fail};
use crate::refusal::Refusal;
use crate::resolved::{ResolvedGraph, ResolvedModel, ResolvedNode, Slot};
use dnnc_ir::{TensorType, Value};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Why an item is not imported.
pub(crate) enum Stop {
    /// An input is not bound yet.
    Wait,
    /// An input comes from a node that was refused.
    UpstreamRefused,
    /// As it says.
    Fail(Fail),
}

impl From<Fail> for Stop {
    fn from(fail: Fail) -> Stop {
        Stop::Fail(fail)
    }
}

/// A piece of work of the import.
#[derive(Clone)]
pub(crate) enum Item {
    /// A node of a graph whose slots start at `base`.
    Node { node: Arc<ResolvedNode>, base: Slot },
    /// Two slots of the same value.
    Alias { from: Slot, to: Slot },
    /// The iterations of a `Loop` or `Scan` that are still to come.
    Loop(Box<LoopRun>),
    /// The values of all iterations as one tensor.
    Stack { node: Arc<ResolvedNode>, parts: Vec<Slot>, to: Slot, axis: i64, reverse: bool },
    /// The first `count` elements of a tensor along its first axis.
    Trim { node: Arc<ResolvedNode>, from: Slot, count: Slot, to: Slot },
}

impl Item {
    pub fn node(&self) -> Option<&ResolvedNode> {
        match self {
            Item::Node { node, .. } | Item::Stack { node, .. } | Item::Trim { node, .. } => Some(node),
            Item::Loop(run) => Some(&run.node),
            Item::Alias { .. } => None,
        }
    }

    pub fn inputs(&self) -> Vec<Slot> {
        let of_node = |node: &ResolvedNode, base: Slot| {
            let captures = node.bodies.iter().flat_map(|b| b.captures.iter().map(|c| c.0));
            node.inputs.iter().flatten().copied().chain(captures).map(|s| base + s).collect::<Vec<_>>()
        };
        match self {
            Item::Node { node, base } => of_node(node, *base),
            Item::Alias { from, .. } => vec![*from],
            Item::Loop(run) => {
                let mut all = of_node(&run.node, run.base);
                all.extend(run.slots());
                all
            }
            Item::Stack { parts, .. } => parts.clone(),
            Item::Trim { from, count, .. } => vec![*from, *count],
        }
    }

    pub fn outputs(&self) -> Vec<Slot> {
        let of_node = |node: &ResolvedNode, base: Slot| node.outputs.iter().flatten().map(|s| base + s).collect();
        match self {
            Item::Node { node, base } => of_node(node, *base),
            Item::Loop(run) => run.outputs.iter().flatten().copied().collect(),
            Item::Alias { to, .. } | Item::Stack { to, .. } | Item::Trim { to, .. } => vec![*to],
        }
    }
}

/// Iterations of a loop that is being unrolled.
#[derive(Clone)]
pub(crate) struct LoopRun {
    pub node: Arc<ResolvedNode>,
    pub base: Slot,
    /// Number of iterations, if it is known.
    pub trip: Option<i64>,
    /// Iterations unrolled.
    pub at: i64,
    /// Whether there is another iteration; `None`: there is.
    pub cond: Option<Slot>,
    pub carried: Vec<Slot>,
    /// For each scan output, the values so far.
    pub scans: Vec<Vec<Slot>>,
    /// Set for `Scan`.
    pub scan: Option<Arc<ScanAxes>>,
    /// Where the final values go, then the scan outputs.
    pub outputs: Vec<Option<Slot>>,
}

impl LoopRun {
    /// Every slot that it reads and that is not an input of its node.
    pub fn slots(&self) -> Vec<Slot> {
        let walked = self.scan.iter().flat_map(|s| s.inputs.iter().map(|i| i.0));
        self.cond.iter().chain(&self.carried).chain(self.scans.iter().flatten()).copied().chain(walked).collect()
    }
}

/// What `Scan` goes along.
pub(crate) struct ScanAxes {
    /// Slot, axis and whether it is walked backwards.
    pub inputs: Vec<(Slot, usize, bool)>,
    /// Axis and whether it is written backwards.
    pub outputs: Vec<(i64, bool)>,
}

/// What an input of an instantiated graph is.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Value(Value),
    Slot(Slot),
}

/// An import under way: of the model, or of a body of control flow that becomes a graph of its own.
pub(crate) struct State {
    pub model: Arc<ResolvedModel>,
    pub build: Build,
    /// Value of each slot that is reached; `None` where its node was refused or does not make it.
    pub bound: HashMap<Slot, Option<Value>>,
    pub queue: VecDeque<Item>,
    /// Items that wait, with the value that each needs.
    pub waiting: Vec<(Item, Option<Value>)>,
    pub refusals: Vec<Refusal>,
    /// First slot that is free.
    pub next: Slot,
    /// Slots used so far, by trials too.
    pub spent: usize,
    /// For each output of the model, whether an earlier stage gave it.
    pub done: Vec<bool>,
}

impl State {
    /// The import of a model for inputs of these types.
    pub fn new(model: Arc<ResolvedModel>, inputs: &[TensorType]) -> State {
        let mut state = State::empty(model.clone(), 0);
        state.done = vec![false; model.graph.outputs.len()];
        let values: Vec<Value> = model.inputs.iter().zip(inputs).map(|(port, ty)| state.build.input(&port.name, ty.clone())).collect();
        state.enter(&model.graph, &values);
        state.spent = 0;
        state
    }

    /// An import of nothing yet.
    pub fn empty(model: Arc<ResolvedModel>, spent: usize) -> State {
        let build = Build::new(model.limits);
        let (bound, queue, waiting, refusals, done) = (HashMap::new(), VecDeque::new(), vec![], vec![], vec![]);
        State { model, build, bound, queue, waiting, refusals, next: 0, spent, done }
    }

    /// Makes `graph` the outermost one of this import.
    pub fn enter(&mut self, graph: &ResolvedGraph, inputs: &[Value]) {
        for (&slot, &value) in graph.inputs.iter().zip(inputs) {
            self.set(slot, Some(value));
        }
        self.spent += graph.slots as usize + 1;
        self.constants(graph, 0);
        self.queue.extend(graph.nodes.iter().map(|node| Item::Node { node: node.clone(), base: 0 }));
        self.next = graph.slots;
    }

    fn constants(&mut self, graph: &ResolvedGraph, base: Slot) {
        for (slot, name, tensor) in &graph.constants {
            let value = self.build.named_constant(name, tensor.clone());
            self.set(base + slot, Some(value));
        }
    }

    /// Puts the nodes of `graph` into `items`, its slots starting at the base that is returned; captures come from slots at `outer`.
    pub fn instantiate(&mut self, graph: &ResolvedGraph, outer: Slot, inputs: &[Source], items: &mut Vec<Item>) -> Result<Slot, Fail> {
        let base = self.next;
        self.spent += graph.slots as usize + 1;
        let limit = self.model.limits.unrolled;
        // A node has about two slots.
        self.next = match base.checked_add(graph.slots) {
            Some(next) if self.spent / 2 <= limit => next,
            _ => {
                return Err(Fail::Unsupported(format!(
                    "too large: unrolled, the model has more than the limit of {limit} nodes (--max-unrolled)"
                )));
            }
        };
        self.constants(graph, base);
        for (from, to) in &graph.captures {
            self.link(outer + from, base + to, items);
        }
        for (source, &slot) in inputs.iter().zip(&graph.inputs) {
            match *source {
                Source::Value(v) => self.set(base + slot, Some(v)),
                Source::Slot(s) => self.link(s, base + slot, items),
            }
        }
        items.extend(graph.nodes.iter().map(|node| Item::Node { node: node.clone(), base }));
        Ok(base)
    }

    /// Makes `to` an alias of `from`, now or when that is bound.
    pub fn link(&mut self, from: Slot, to: Slot, items: &mut Vec<Item>) {
        match self.bound.get(&from) {
            Some(&value) => self.set(to, value),
            None => items.push(Item::Alias { from, to }),
        }
    }

    /// Inserts items at the front of the queue, in their order.
    pub fn next_up(&mut self, items: Vec<Item>) {
        items.into_iter().rev().for_each(|item| self.queue.push_front(item));
    }

    /// A slot that no graph knows, bound to a value.
    pub fn hidden(&mut self, value: Value) -> Slot {
        let slot = self.next;
        self.next += 1;
        self.set(slot, Some(value));
        slot
    }

    /// Binds a slot.
    pub fn set(&mut self, slot: Slot, value: Option<Value>) {
        self.bound.insert(slot, value);
    }

    /// The value of a slot.
    pub fn value(&self, slot: Slot) -> Result<Value, Stop> {
        match self.bound.get(&slot) {
            Some(Some(v)) => Ok(*v),
            Some(None) => Err(Stop::UpstreamRefused),
            None => Err(Stop::Wait),
        }
    }

    /// Binds the outputs of a node to values.
    pub fn bind(&mut self, node: &ResolvedNode, base: Slot, values: &[Value]) -> Result<(), Stop> {
        for (i, slot) in node.outputs.iter().enumerate() {
            if let Some(slot) = slot {
                let Some(&value) = values.get(i) else {
                    return Err(Fail::Unsupported(format!("output {i} is not supported")).into());
                };
                let got = self.build.elem(value);
                if let Some(declared) = node.declared.get(i).copied().flatten().filter(|t| *t != got) {
                    return Err(Fail::Invalid(format!("output {i} has element type {got}; the file declares {declared}")).into());
                }
                self.set(base + slot, Some(value));
            }
        }
        Ok(())
    }
}
