//! The importer: a resolved model at known input sizes becomes graphs of the IR: one, or several where a size depends on data.
//!
//! Import is a queue of [`Item`]s. Each waits until its inputs are bound, then builds its part of the graph and binds its outputs. Control flow
//! that is decided at compile time puts the items of its body in front of the queue. An item that needs the value of a tensor waits; when
//! the queue is empty, the graph is cut there, and import continues when that value is known.

mod branch;
mod control;
mod loops;
mod run;
mod scan;
mod state;
mod unroll;

use self::state::State;
use crate::build::Build;
use crate::refusal::{Refusal, RefusalKind, Refusals};
use crate::resolved::{ResolvedModel, Slot};
use crate::signature::{Dim, Port};
use dnnc_ir::{Graph, Tensor, TensorType, Value};
use indexmap::IndexSet;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// A graph that runs without knowing values in advance.
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

/// The end of a graph because a size depends on data, with what the next stage needs.
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

    /// Which outputs of the stage are needed by [`resume`](Cut::resume).
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
            return refuse(RefusalKind::Invalid, "the values given to continue with are not those that are needed".into());
        }
        let mut build = Build::new(*limits);
        let mut map = HashMap::new();
        for (i, &v) in self.live.iter().enumerate() {
            map.insert(v, build.input(&format!("live_{i}"), old.build.ty(v)));
        }
        // What an importer computed before it needed a value is computed again, so that it is found when the importer runs again. A needed
        // value that depends on another comes after it.
        let mut known: Vec<(Value, &Tensor)> = self.needed.iter().copied().zip(values).collect();
        known.sort_by_key(|(v, _)| *v);
        for (v, t) in known {
            if !old.build.is_source(v) {
                let again = old.build.replay(v, &mut build, &mut map);
                build.bind_value(again, t.clone());
            }
            let found = build.runtime_constant(t.clone());
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

/// The graph of a model for inputs of these types, up to the first size that depends on data.
pub(crate) fn first_stage(model: Arc<ResolvedModel>, inputs: &[TensorType]) -> Result<Stage, Refusals> {
    State::new(model, inputs).stage_after(0)
}

impl State {
    /// Imports what can be imported now, after so many stages.
    fn stage_after(mut self, stages: usize) -> Result<Stage, Refusals> {
        let model = self.model.clone();
        let missing: Vec<usize> = (0..self.done.len()).filter(|&i| !self.done[i]).collect();
        let slots: Vec<Slot> = missing.iter().map(|&i| model.graph.outputs[i]).collect();
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
fn contradiction(model: &ResolvedModel, output: &Port, shape: &[usize]) -> Option<String> {
    let fixed = |port: &Port| port.dims.as_ref().is_some_and(|d| d.iter().all(|d| matches!(d, Dim::Known(_))));
    let dims = output.dims.as_ref().filter(|_| model.inputs.iter().all(fixed))?;
    let fits = |(d, n): (&Dim, &usize)| !matches!(d, Dim::Known(k) if k != n);
    let wrong = dims.len() != shape.len() || !dims.iter().zip(shape).all(fits);
    wrong.then(|| dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(","))
}
