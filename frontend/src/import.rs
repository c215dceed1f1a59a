//! A net at known input sizes becomes graphs of the IR: one, or several where a size depends on data.
//!
//! Import is a queue of [`Item`]s. Each waits until its inputs are bound, then builds its part of the graph and binds its outputs. Control flow
//! that is decided at compile time puts the items of its body in front of the queue. An item that needs the value of a tensor stays; when
//! the queue is through, the graph is cut there, and import goes on when that value is known.

use crate::build::{Build, Fail, Node};
use crate::model::{Checked, Dim, Port};
use crate::net::{Import, Net, NetNode, Slot};
use crate::refusal::{Refusal, RefusalKind, Refusals};
use dnnc_ir::{Graph, Tensor, TensorType, Type, Value};
use indexmap::IndexSet;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// A graph that can run as a whole.
///
/// Its outputs are, in this order: outputs of the model that are complete ([`finished`](Stage::finished)), the inputs of the next stage
/// ([`Cut::live`]), and the values that decide how the next stage looks ([`Cut::needed`]). An output may be an input or a constant.
pub struct Stage {
    /// The graph.
    pub graph: Graph,
    /// For each of the first outputs, which output of the model it is.
    pub finished: Vec<usize>,
    /// What comes after, unless this was the last stage.
    pub cut: Option<Cut>,
}

/// The place where a graph ends because a size depends on data.
pub struct Cut {
    state: Arc<State>,
    live: Vec<Value>,
    needed: Vec<Value>,
    finished: usize,
    stages: usize,
}

impl Cut {
    /// Which outputs of the stage are the inputs of the next one, in order.
    pub fn live(&self) -> Range<usize> {
        self.finished..self.finished + self.live.len()
    }

    /// Which outputs of the stage are asked for by [`resume`](Cut::resume).
    pub fn needed(&self) -> Range<usize> {
        self.finished + self.live.len()..self.finished + self.live.len() + self.needed.len()
    }

    /// About how much memory it holds.
    pub fn bytes(&self) -> usize {
        self.state.build.bytes() + 64 * (self.state.bound.len() + self.state.queue.len() + self.state.waiting.len())
    }

    /// The next stage, for these values of the [`needed`](Cut::needed) outputs. Equal values give equal stages.
    pub fn resume(&self, values: &[Tensor]) -> Result<Stage, Refusals> {
        let old = &self.state;
        let refuse = |kind, reason: String| Err(old.model.refuse(vec![Refusal::new(kind, "model", "", reason)]));
        let limits = &old.model.limits;
        if self.stages >= limits.stages {
            return refuse(
                RefusalKind::TooLarge,
                format!("sizes that depend on data cut the model into more than {} stages (--max-stages)", limits.stages),
            );
        }
        if values.len() != self.needed.len() || values.iter().zip(&self.needed).any(|(t, &v)| *t.ty() != old.build.ty(v)) {
            return refuse(RefusalKind::Invalid, "the values given to go on with are not those that were asked for".into());
        }
        let mut build = Build::new(*limits);
        let mut map = HashMap::new();
        for (i, &v) in self.live.iter().enumerate() {
            map.insert(v, build.input(&format!("live_{i}"), old.build.ty(v)));
        }
        // What an importer computed before it asked is made again, so that it is recognised when the importer runs again. A value that
        // depends on another one asked for comes after it.
        let mut known: Vec<(Value, &Tensor)> = self.needed.iter().copied().zip(values).collect();
        known.sort_by_key(|(v, _)| *v);
        for (v, t) in known {
            if !old.build.is_source(v) {
                let again = old.build.replay(v, &mut build, &mut map);
                build.learn(again, t.clone());
            }
            let found = build.found(t.clone());
            map.insert(v, found);
        }
        let mut bound = HashMap::new();
        let mut slots: Vec<(Slot, Option<Value>)> = old.bound.iter().map(|(s, v)| (*s, *v)).collect();
        slots.sort_unstable();
        for (slot, value) in slots {
            bound.insert(slot, value.map(|v| old.build.replay(v, &mut build, &mut map)));
        }
        let queue = old.waiting.iter().map(|(item, _)| item.clone()).collect();
        let model = old.model.clone();
        let done = old.done.clone();
        let state = State { model, build, bound, queue, waiting: vec![], refusals: vec![], next: old.next, spent: old.spent, done };
        state.stage_after(self.stages)
    }
}

/// Why an item is not through.
pub(crate) enum Stop {
    /// An input is not bound yet.
    Wait,
    /// An input comes from a node that was refused.
    Poison,
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
    /// A node of a net whose slots start at `base`.
    Node { node: Arc<NetNode>, base: Slot },
    /// Two slots of the same value.
    Alias { from: Slot, to: Slot },
    /// The iterations of a `Loop` or `Scan` that are still to come.
    Loop(Box<crate::control::LoopRun>),
    /// The values of all iterations as one tensor.
    Stack { node: Arc<NetNode>, parts: Vec<Slot>, to: Slot, axis: i64, reverse: bool },
    /// The first `count` places of a tensor.
    Trim { node: Arc<NetNode>, from: Slot, count: Slot, to: Slot },
}

impl Item {
    fn node(&self) -> Option<&NetNode> {
        match self {
            Item::Node { node, .. } | Item::Stack { node, .. } | Item::Trim { node, .. } => Some(node),
            Item::Loop(run) => Some(&run.node),
            Item::Alias { .. } => None,
        }
    }

    fn inputs(&self) -> Vec<Slot> {
        let of_node = |node: &NetNode, base: Slot| {
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

    fn outputs(&self) -> Vec<Slot> {
        let of_node = |node: &NetNode, base: Slot| node.outputs.iter().flatten().map(|s| base + s).collect();
        match self {
            Item::Node { node, base } => of_node(node, *base),
            Item::Loop(run) => run.outputs.iter().flatten().copied().collect(),
            Item::Alias { to, .. } | Item::Stack { to, .. } | Item::Trim { to, .. } => vec![*to],
        }
    }
}

/// An import under way: of the model, or of a body of control flow that becomes a graph of its own.
pub(crate) struct State {
    pub model: Arc<Checked>,
    pub build: Build,
    /// Value of each slot that is reached; `None` where its node was refused or does not make it.
    pub bound: HashMap<Slot, Option<Value>>,
    pub queue: VecDeque<Item>,
    /// Items that are not through, with the value each asked for.
    waiting: Vec<(Item, Option<Value>)>,
    refusals: Vec<Refusal>,
    /// First slot that is free.
    pub next: Slot,
    /// Slots used so far, by trials too.
    pub spent: usize,
    /// For each output of the model, whether an earlier stage gave it.
    done: Vec<bool>,
}

impl State {
    /// The import of a model for inputs of these types.
    pub fn new(model: Arc<Checked>, inputs: &[TensorType]) -> State {
        let mut state = State::empty(model.clone(), 0);
        state.done = vec![false; model.net.outputs.len()];
        let values: Vec<Value> = model.inputs.iter().zip(inputs).map(|(port, ty)| state.build.input(&port.name, ty.clone())).collect();
        state.enter(&model.net, &values);
        state.spent = 0;
        state
    }

    /// An import of nothing yet.
    pub fn empty(model: Arc<Checked>, spent: usize) -> State {
        let build = Build::new(model.limits);
        let (bound, queue, waiting, refusals, done) = (HashMap::new(), VecDeque::new(), vec![], vec![], vec![]);
        State { model, build, bound, queue, waiting, refusals, next: 0, spent, done }
    }

    /// Makes `net` the outermost one of this import.
    pub fn enter(&mut self, net: &Net, inputs: &[Value]) {
        for (&slot, &value) in net.inputs.iter().zip(inputs) {
            self.set(slot, Some(value));
        }
        self.spent += net.slots as usize + 1;
        self.constants(net, 0);
        self.queue.extend(net.nodes.iter().map(|node| Item::Node { node: node.clone(), base: 0 }));
        self.next = net.slots;
    }

    fn constants(&mut self, net: &Net, base: Slot) {
        for (slot, name, tensor) in &net.constants {
            let value = self.build.named_konst(name, tensor.clone());
            self.set(base + slot, Some(value));
        }
    }

    /// Puts the nodes of `net` into `items`, its slots starting at the base that is returned; captures come from slots at `outer`.
    pub fn instantiate(&mut self, net: &Net, outer: Slot, inputs: &[Source], items: &mut Vec<Item>) -> Result<Slot, Fail> {
        let base = self.next;
        self.spent += net.slots as usize + 1;
        let limit = self.model.limits.unrolled;
        // A node has about two slots.
        self.next = match base.checked_add(net.slots) {
            Some(next) if self.spent / 2 <= limit => next,
            _ => {
                return Err(Fail::Unsupported(format!(
                    "too large: unrolled, the model has more than the limit of {limit} nodes (--max-unrolled)"
                )));
            }
        };
        self.constants(net, base);
        for (from, to) in &net.captures {
            self.link(outer + from, base + to, items);
        }
        for (source, &slot) in inputs.iter().zip(&net.inputs) {
            match *source {
                Source::Value(v) => self.set(base + slot, Some(v)),
                Source::Slot(s) => self.link(s, base + slot, items),
            }
        }
        items.extend(net.nodes.iter().map(|node| Item::Node { node: node.clone(), base }));
        Ok(base)
    }

    /// Makes `to` the same as `from`, now or when it is bound.
    pub fn link(&mut self, from: Slot, to: Slot, items: &mut Vec<Item>) {
        match self.bound.get(&from) {
            Some(&value) => self.set(to, value),
            None => items.push(Item::Alias { from, to }),
        }
    }

    /// Puts items in front of the queue, in their order.
    pub fn next_up(&mut self, items: Vec<Item>) {
        items.into_iter().rev().for_each(|item| self.queue.push_front(item));
    }

    /// A slot that no net knows, bound to a value.
    pub fn hidden(&mut self, value: Value) -> Slot {
        let slot = self.next;
        self.next += 1;
        self.set(slot, Some(value));
        slot
    }

    /// States what a slot is.
    pub fn set(&mut self, slot: Slot, value: Option<Value>) {
        self.bound.insert(slot, value);
    }

    /// The value of a slot.
    pub fn value(&self, slot: Slot) -> Result<Value, Stop> {
        match self.bound.get(&slot) {
            Some(Some(v)) => Ok(*v),
            Some(None) => Err(Stop::Poison),
            None => Err(Stop::Wait),
        }
    }

    /// Binds the outputs of a node to values.
    pub fn bind(&mut self, node: &NetNode, base: Slot, values: &[Value]) -> Result<(), Stop> {
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

    /// Works the queue off; what stays waits for values.
    fn run(&mut self, outputs: &[Slot]) {
        let mut waiting = vec![];
        while let Some(item) = self.queue.pop_front() {
            let poison = match self.step(&item) {
                Ok(()) => false,
                Err(Stop::Wait) => {
                    waiting.push((item.clone(), None));
                    false
                }
                Err(Stop::Poison) => true,
                Err(Stop::Fail(Fail::NeedsValue(v))) => {
                    waiting.push((item.clone(), Some(v)));
                    false
                }
                Err(Stop::Fail(Fail::Unsupported(reason))) => self.refuse(&item, RefusalKind::Unsupported, reason),
                Err(Stop::Fail(Fail::Invalid(reason))) => self.refuse(&item, RefusalKind::Invalid, reason),
            };
            if poison {
                item.outputs().iter().for_each(|slot| self.set(*slot, None));
            }
        }
        // Only what an output needs is worth waiting for.
        let mut wanted: HashSet<Slot> = outputs.iter().copied().filter(|s| !self.bound.contains_key(s)).collect();
        for (item, need) in waiting.into_iter().rev() {
            if item.outputs().iter().any(|s| wanted.contains(s)) {
                wanted.extend(item.inputs());
                self.waiting.push((item, need));
            }
        }
        self.waiting.reverse();
    }

    fn refuse(&mut self, item: &Item, kind: RefusalKind, reason: String) -> bool {
        let refusal = match item.node() {
            Some(n) => Refusal { op: qualified(&n.domain, &n.op_type), opset: n.opset, ..Refusal::new(kind, "node", &n.name, reason) },
            None => Refusal::new(kind, "node", "", reason),
        };
        // An unrolled body says the same thing again and again.
        if self.refusals.len() < 1000 && !self.refusals.contains(&refusal) {
            self.refusals.push(refusal);
        }
        true
    }

    fn step(&mut self, item: &Item) -> Result<(), Stop> {
        if let Some(node) = item.node() {
            self.build.set_name(&node.name);
        }
        match item {
            Item::Node { node, base } => match node.import {
                Import::Op(row) => {
                    let input = |slot: &Option<Slot>| slot.map(|s| self.value(base + s)).transpose();
                    let inputs = node.inputs.iter().map(input).collect::<Result<Vec<_>, Stop>>()?;
                    if let Some(schema) = node.schema {
                        let types: Vec<Option<Type>> = inputs.iter().map(|v| v.map(|v| self.build.elem(v))).collect();
                        schema.check_types(&types).map_err(Fail::Invalid)?;
                    }
                    let view = Node {
                        opset: node.opset,
                        attributes: &node.attributes,
                        inputs,
                        outputs: node.outputs.iter().map(Option::is_some).collect(),
                    };
                    let values = (row.import)(&mut self.build, &view)?;
                    self.bind(node, *base, &values)
                }
                Import::If => self.import_if(node, *base),
                Import::Loop => self.import_loop(node, *base),
                Import::Scan => self.import_scan(node, *base),
            },
            Item::Alias { from, to } => {
                let value = self.value(*from)?;
                self.set(*to, Some(value));
                Ok(())
            }
            Item::Loop(run) => self.iterate(run),
            Item::Stack { parts, to, axis, reverse, .. } => {
                let parts = parts.iter().map(|&p| self.value(p)).collect::<Result<Vec<_>, Stop>>()?;
                let value = self.stack(&parts, *axis, *reverse)?;
                self.set(*to, Some(value));
                Ok(())
            }
            Item::Trim { from, count, to, .. } => {
                let (from, count) = (self.value(*from)?, self.value(*count)?);
                let count = self.build.need_i64(count)?.max(0) as usize;
                let value = self.build.slice_axis(from, 0, 0, count)?;
                self.set(*to, Some(value));
                Ok(())
            }
        }
    }

    /// Imports everything and returns the values of `outputs`; `None` when something is refused or needs a value.
    pub fn complete(&mut self, outputs: &[Slot]) -> Option<Vec<Value>> {
        self.run(outputs);
        if !self.waiting.is_empty() || !self.refusals.is_empty() {
            return None;
        }
        outputs.iter().map(|s| self.value(*s).ok()).collect()
    }

    /// Imports what can be imported now.
    pub fn stage(self) -> Result<Stage, Refusals> {
        self.stage_after(0)
    }

    fn stage_after(mut self, stages: usize) -> Result<Stage, Refusals> {
        let model = self.model.clone();
        let missing: Vec<usize> = (0..self.done.len()).filter(|&i| !self.done[i]).collect();
        let slots: Vec<Slot> = missing.iter().map(|&i| model.net.outputs[i]).collect();
        self.run(&slots);
        let (mut finished, mut outputs) = (vec![], vec![]);
        for (&i, &slot) in missing.iter().zip(&slots) {
            let Some(&Some(value)) = self.bound.get(&slot) else { continue };
            let (port, got) = (&model.outputs[i], self.build.elem(value));
            if let Some(declared) = port.ty.filter(|t| *t != got) {
                let reason = format!("declared with element type {declared}, made with {got}");
                self.refusals.push(Refusal::new(RefusalKind::Invalid, "output", &port.name, reason));
            }
            if let Some(declared) = contradiction(&model, port, &self.build.shape(value)) {
                let reason = format!("declared with shape [{declared}], made with {:?}", self.build.shape(value));
                self.refusals.push(Refusal::new(RefusalKind::Invalid, "output", &port.name, reason));
            }
            self.done[i] = true;
            finished.push(i);
            outputs.push((port.name.clone(), value));
        }
        if !self.refusals.is_empty() {
            return Err(model.refuse(self.refusals));
        }
        if self.waiting.is_empty() {
            let graph = self.build.finish(&outputs);
            return Ok(Stage { graph, finished, cut: None });
        }
        let needed: IndexSet<Value> = self.waiting.iter().filter_map(|(_, need)| *need).collect();
        if needed.is_empty() || needed.iter().any(|&v| self.build.known(v).is_some()) {
            let reason = "import does not make progress; this is a bug in dnnc";
            let names = self.waiting.iter().filter_map(|(item, _)| item.node()).take(1);
            let list = names.map(|n| Refusal { op: n.op_type.clone(), ..Refusal::new(RefusalKind::Unsupported, "node", &n.name, reason) });
            return Err(model.refuse(list.collect()));
        }
        // Live: what waiting items read, as far as it is computed, and the leaves of what they computed before they asked.
        let used: HashSet<Slot> = self.waiting.iter().flat_map(|(item, _)| item.inputs()).collect();
        self.bound.retain(|slot, _| used.contains(slot));
        let mut slots: Vec<(Slot, Value)> = self.bound.iter().filter_map(|(s, v)| Some((*s, (*v)?))).collect();
        slots.sort_unstable();
        let among = |v: &Value| !self.build.is_constant(*v) && !needed.contains(v);
        let live: IndexSet<Value> = slots.into_iter().map(|(_, v)| v).filter(among).collect();
        let (needed, mut live): (Vec<Value>, Vec<Value>) = (needed.into_iter().collect(), live.into_iter().collect());
        live.extend(self.build.leaves(&needed, &live));
        outputs.extend(live.iter().enumerate().map(|(i, &v)| (format!("live_{i}"), v)));
        outputs.extend(needed.iter().enumerate().map(|(i, &v)| (format!("needed_{i}"), v)));
        let graph = self.build.finish(&outputs);
        let cut = Cut { state: Arc::new(self), live, needed, finished: finished.len(), stages: stages + 1 };
        Ok(Stage { graph, finished, cut: Some(cut) })
    }
}

/// The sizes that the file declares of an output, where they cannot be true. Where an input has a symbol nothing is said: writers often
/// leave the sizes of one export in the outputs.
fn contradiction(model: &Checked, output: &Port, shape: &[usize]) -> Option<String> {
    let fixed = |port: &Port| port.dims.as_ref().is_some_and(|d| d.iter().all(|d| matches!(d, Dim::Known(_))));
    let dims = output.dims.as_ref().filter(|_| model.inputs.iter().all(fixed))?;
    let fits = |(d, n): (&Dim, &usize)| !matches!(d, Dim::Known(k) if k != n);
    let wrong = dims.len() != shape.len() || !dims.iter().zip(shape).all(fits);
    wrong.then(|| dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(","))
}

/// An operator's name with its domain, unless that is ONNX's own.
pub(crate) fn qualified(domain: &str, op: &str) -> String {
    if domain.is_empty() { op.to_string() } else { format!("{domain}.{op}") }
}

/// What an input of an instantiated net is.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Value(Value),
    Slot(Slot),
}
