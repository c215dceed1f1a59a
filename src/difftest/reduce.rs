//! Test case reduction of ONNX models: outputs are moved to earlier nodes, values become inputs and nodes are bypassed, as long as the failure is the same.

use super::backends::{Backend, executor};
use super::bisect;
use crate::{Error, Options};
use dnnc_frontend::{Draft, Limits, Model, RunError, run_with};
use dnnc_ir::eval::eval;
use dnnc_ir::{Tensor, TensorType};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A model that fails, and values for its inputs by name.
#[derive(Clone, Debug)]
pub struct TestModel {
    /// The model.
    pub draft: Draft,
    /// Values of its inputs, and perhaps of others.
    pub inputs: BTreeMap<String, Tensor>,
}

/// How a model fails. Two models fail in the same way when these are equal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Failure {
    /// The results differ from the evaluator's.
    Wrong,
    /// Import refuses it: the reasons, without the names of nodes.
    Refused(Vec<String>),
    /// Compiling or running it ends in an error, but the evaluator has results.
    Error(String),
    /// The process that compiled and ran it crashed.
    Crash(String),
    /// The time limit was exceeded.
    Timeout,
    /// A command of the user ended with this status.
    Command(i32),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Wrong => f.write_str("a wrong result"),
            Failure::Refused(reasons) => write!(f, "a refusal ({})", reasons.join("; ")),
            Failure::Error(reason) => write!(f, "an error ({reason})"),
            Failure::Crash(how) => write!(f, "a crash ({how})"),
            Failure::Timeout => f.write_str("a timeout"),
            Failure::Command(status) => write!(f, "status {status} of the command"),
        }
    }
}

/// Decides how a model fails: how it is compiled, run and compared.
#[derive(Clone, Debug)]
pub struct Oracle {
    /// The backend under test.
    pub backend: Backend,
    /// Options of the compilation.
    pub options: Options,
    /// Allowed error as a fraction of the largest number of a result.
    pub tolerance: f64,
}

impl Oracle {
    /// How a model fails when it is compiled and run in this process; a panic counts as a crash.
    pub fn failure(&self, model: &TestModel) -> Option<Failure> {
        catch_unwind(AssertUnwindSafe(|| self.failure_of(model))).unwrap_or_else(|_| Some(Failure::Crash("a panic".into())))
    }

    fn failure_of(&self, test: &TestModel) -> Option<Failure> {
        let refused = |r: dnnc_frontend::Refusals| {
            let of =
                |r: &dnnc_frontend::Refusal| format!("{}{}", if r.op.is_empty() { String::new() } else { format!("{}: ", r.op) }, r.reason);
            let mut reasons: Vec<String> = r.list.iter().map(of).collect();
            reasons.sort();
            reasons.dedup();
            Some(Failure::Refused(reasons))
        };
        let model = match Model::from_bytes(&test.draft.bytes(), None, &self.options.limits) {
            Ok(model) => model,
            Err(r) => return refused(r),
        };
        let Some(inputs) = model.inputs().iter().map(|p| test.inputs.get(&p.name).cloned()).collect::<Option<Vec<_>>>() else {
            return None; // an input has no value: the model cannot be run
        };
        let oracle = bisect::Oracle::new(self.backend, &self.options, self.tolerance);
        let mut failure = None;
        let stage = |graph: &dnnc_ir::Graph, inputs: &[Tensor]| {
            let want = eval(graph, inputs).map_err(|e| e.to_string())?;
            if failure.is_none() {
                failure = match executor(graph.clone(), self.backend, &self.options).and_then(|e| e.run(inputs)) {
                    Err(e) => Some(Failure::Error(without_names(&e))),
                    Ok(got) => oracle.differ(&got, &want).map(|_| Failure::Wrong),
                };
            }
            Ok(want)
        };
        match run_with(&model, &inputs, stage) {
            Ok(_) => failure,
            Err(RunError::Refused(r)) => refused(r),
            // Data for which the evaluator stops, too, is no failure of the compiler.
            Err(RunError::Failed(_)) => failure,
        }
    }
}

/// An error without the names of nodes.
fn without_names(error: &Error) -> String {
    match error {
        Error::Lower(e) => format!("{}: {}", e.op, e.reason),
        Error::Internal(e) => format!("internal: {e}"),
        other => other.to_string(),
    }
}

/// The state of a search, for reports.
pub struct Progress {
    /// Models tried.
    pub tried: usize,
    /// Nodes of the smallest model that fails.
    pub nodes: usize,
}

/// A search for a smaller model.
pub struct Search<'a> {
    /// How a model fails; `None` if it does not.
    pub failure: &'a mut dyn FnMut(&TestModel) -> Option<Failure>,
    /// Whether it is time to stop.
    pub stop: &'a dyn Fn() -> bool,
    /// Called after each model that is tried.
    pub progress: &'a dyn Fn(&Progress),
    /// Limits of import.
    pub limits: Limits,
}

impl Search<'_> {
    /// The smallest model found that fails as `model` does, how it fails, and how many models were tried; `None` when it does not fail.
    pub fn run(&mut self, model: &TestModel) -> Option<(TestModel, Failure, usize)> {
        let failure = (self.failure)(model)?;
        let mut state = State { best: model.clone(), failure: &failure, tried: 1, search: self };
        // First the outputs move to a node in the middle, then the values before it become inputs; then single changes are tried.
        loop {
            let size = measure(&state.best);
            state.outputs();
            state.inputs();
            state.small_changes();
            if measure(&state.best) == size || (state.search.stop)() {
                break;
            }
        }
        let (best, tried) = (state.best, state.tried);
        Some((best, failure, tried))
    }
}

/// What the search minimises.
fn measure(model: &TestModel) -> (usize, usize, usize, usize) {
    let draft = &model.draft;
    (draft.nodes(), draft.outputs().len(), draft.inputs().len(), draft.constant_bytes())
}

struct State<'a, 'b> {
    best: TestModel,
    failure: &'a Failure,
    tried: usize,
    search: &'a mut Search<'b>,
}

impl State<'_, '_> {
    /// Accepts a model that is smaller and fails in the same way.
    fn attempt(&mut self, candidate: TestModel) -> bool {
        if (self.search.stop)() || measure(&candidate) >= measure(&self.best) {
            return false;
        }
        self.tried += 1;
        let same = (self.search.failure)(&candidate).as_ref() == Some(self.failure);
        if same {
            self.best = candidate;
        }
        (self.search.progress)(&Progress { tried: self.tried, nodes: self.best.draft.nodes() });
        same
    }

    fn with(&self, draft: Draft) -> TestModel {
        TestModel { draft, inputs: self.best.inputs.clone() }
    }

    /// Replaces all outputs by one, then that one by values of earlier nodes.
    fn outputs(&mut self) {
        for name in self.best.draft.outputs() {
            if self.best.draft.outputs().len() > 1 && self.attempt(self.with(self.best.draft.with_outputs(std::slice::from_ref(&name)))) {
                break;
            }
        }
        let mut step = self.best.draft.made().len() / 2;
        while step > 0 {
            let made = self.best.draft.made();
            let at = made.len().saturating_sub(step + 1);
            let names = made.get(at).cloned().unwrap_or_default();
            if names.is_empty() || !self.attempt(self.with(self.best.draft.with_outputs(&names))) {
                step /= 2;
            }
        }
    }

    /// Replaces the first nodes by inputs.
    fn inputs(&mut self) {
        let mut step = self.best.draft.made().len().saturating_sub(1);
        while step > 0 {
            let draft = &self.best.draft;
            let (made, read) = (draft.made(), draft.read());
            let later: Vec<&String> = read.iter().skip(step).flatten().chain(made.iter().skip(step).flatten()).collect();
            let outputs = draft.outputs();
            let names: Vec<String> =
                made.iter().take(step).flatten().filter(|n| later.contains(n) || outputs.contains(n)).cloned().collect();
            let candidate = self.given(&names);
            if !candidate.is_some_and(|c| self.attempt(c)) {
                step /= 2;
            }
            step = step.min(self.best.draft.made().len().saturating_sub(1));
        }
    }

    /// The smallest failing model with these values as inputs, whose data the evaluator computes.
    fn given(&self, names: &[String]) -> Option<TestModel> {
        let values = values(&self.best, names, &self.search.limits)?;
        let types: Vec<(String, TensorType)> = values.iter().map(|(n, t)| (n.clone(), t.ty().clone())).collect();
        let mut inputs = self.best.inputs.clone();
        inputs.extend(values);
        Some(TestModel { draft: self.best.draft.with_inputs(&types), inputs })
    }

    /// Single changes: a value becomes an input, a node is bypassed, an output is dropped.
    fn small_changes(&mut self) {
        let mut progress = true;
        while progress && !(self.search.stop)() {
            progress = false;
            let outputs = self.best.draft.outputs();
            for i in (0..outputs.len()).filter(|_| outputs.len() > 1) {
                let fewer = [&outputs[..i], &outputs[i + 1..]].concat();
                if self.attempt(self.with(self.best.draft.with_outputs(&fewer))) {
                    progress = true;
                    break;
                }
            }
            let nodes = self.best.draft.made().into_iter().zip(self.best.draft.read()).rev();
            'nodes: for (made, read) in nodes.collect::<Vec<_>>() {
                if self.given(&made).is_some_and(|c| self.attempt(c)) {
                    progress = true;
                    break;
                }
                for old in &made {
                    for name in &read {
                        if self.attempt(self.with(self.best.draft.with_alias(old, name))) {
                            progress = true;
                            break 'nodes;
                        }
                    }
                }
            }
        }
    }
}

/// The values of some names, computed by the evaluator; `None` when it has none.
fn values(test: &TestModel, names: &[String], limits: &Limits) -> Option<Vec<(String, Tensor)>> {
    let draft = test.draft.with_outputs(names);
    let run = || {
        let model = Model::from_bytes(&draft.bytes(), None, limits).ok()?;
        let inputs: Vec<Tensor> = model.inputs().iter().map(|p| test.inputs.get(&p.name).cloned()).collect::<Option<_>>()?;
        run_with(&model, &inputs, |graph, inputs| eval(graph, inputs).map_err(|e| e.to_string())).ok()
    };
    let results = catch_unwind(AssertUnwindSafe(run)).ok().flatten()?;
    Some(names.iter().cloned().zip(results).collect())
}

/// The model with declared types of its outputs, where the evaluator can compute them.
pub fn typed(model: &TestModel, limits: &Limits) -> Draft {
    let outputs = model.draft.outputs();
    let types = values(model, &outputs, limits).unwrap_or_default();
    let types: Vec<(String, TensorType)> = types.into_iter().map(|(n, t)| (n, t.ty().clone())).collect();
    model.draft.with_types(&types)
}
