//! Smaller models that fail in the same way: outputs are moved forward, values become inputs, nodes are passed by, as long as the failure stays.

use crate::via::{Via, executor};
use crate::{Error, Options};
use dnnc_frontend::{Draft, Limits, Model, RunError, run_with};
use dnnc_ir::eval::eval;
use dnnc_ir::{Tensor, TensorType};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A model and values for its inputs, by their names.
#[derive(Clone, Debug)]
pub struct Specimen {
    /// The model.
    pub draft: Draft,
    /// Values of inputs; others may be among them.
    pub inputs: BTreeMap<String, Tensor>,
}

/// How a model fails. Two failures are the same when they are equal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The results are not those of the evaluator.
    Wrong,
    /// The reader refuses it: the reasons, without the names of nodes.
    Refused(Vec<String>),
    /// It cannot be compiled, or stops when it runs, but the evaluator has an answer.
    Error(String),
    /// The process that compiled and ran it died.
    Crash(String),
    /// It takes too long.
    Hang,
    /// A command of the user ended with this status.
    Command(i32),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Wrong => f.write_str("a wrong answer"),
            Failure::Refused(reasons) => write!(f, "a refusal ({})", reasons.join("; ")),
            Failure::Error(reason) => write!(f, "an error ({reason})"),
            Failure::Crash(how) => write!(f, "a crash ({how})"),
            Failure::Hang => f.write_str("no end"),
            Failure::Command(status) => write!(f, "status {status} of the command"),
        }
    }
}

/// How a model is compiled, run and compared.
#[derive(Clone, Debug)]
pub struct Judge {
    /// The way that is in doubt.
    pub via: Via,
    /// What is asked of the compiler.
    pub options: Options,
    /// Allowed error as a share of the largest number of a result.
    pub tolerance: f64,
}

impl Judge {
    /// Compiles and runs a model in this process, and says how it fails; a panic is a crash.
    pub fn failure(&self, specimen: &Specimen) -> Option<Failure> {
        catch_unwind(AssertUnwindSafe(|| self.judged(specimen))).unwrap_or_else(|_| Some(Failure::Crash("a panic".into())))
    }

    fn judged(&self, specimen: &Specimen) -> Option<Failure> {
        let refused = |r: dnnc_frontend::Refusals| {
            let of =
                |r: &dnnc_frontend::Refusal| format!("{}{}", if r.op.is_empty() { String::new() } else { format!("{}: ", r.op) }, r.reason);
            let mut reasons: Vec<String> = r.list.iter().map(of).collect();
            reasons.sort();
            reasons.dedup();
            Some(Failure::Refused(reasons))
        };
        let model = match Model::from_bytes(&specimen.draft.bytes(), None, &self.options.limits) {
            Ok(model) => model,
            Err(r) => return refused(r),
        };
        let Some(inputs) = model.inputs().iter().map(|p| specimen.inputs.get(&p.name).cloned()).collect::<Option<Vec<_>>>() else {
            return None; // nobody could run it
        };
        let judge = crate::bisect::Judge::new(self.via, &self.options, self.tolerance);
        let mut failure = None;
        let stage = |graph: &dnnc_ir::Graph, inputs: &[Tensor]| {
            let want = eval(graph, inputs).map_err(|e| e.to_string())?;
            if failure.is_none() {
                failure = match executor(graph.clone(), self.via, &self.options).and_then(|e| e.run(inputs)) {
                    Err(e) => Some(Failure::Error(plain_sentence(&e))),
                    Ok(got) => judge.differ(&got, &want).map(|_| Failure::Wrong),
                };
            }
            Ok(want)
        };
        match run_with(&model, &inputs, stage) {
            Ok(_) => failure,
            Err(RunError::Refused(r)) => refused(r),
            // Data that the evaluator cannot take either is no failure of the compiler.
            Err(RunError::Failed(_)) => failure,
        }
    }
}

/// An error without the names of nodes.
fn plain_sentence(error: &Error) -> String {
    match error {
        Error::Lower(e) => format!("{}: {}", e.op, e.reason),
        Error::Internal(e) => format!("internal: {e}"),
        other => other.to_string(),
    }
}

/// What is told of the search.
pub struct Progress {
    /// Models tried.
    pub tried: usize,
    /// Nodes of the smallest that fails.
    pub nodes: usize,
}

/// A search for a smaller model.
pub struct Search<'a> {
    /// How a model fails, if it does.
    pub failure: &'a mut dyn FnMut(&Specimen) -> Option<Failure>,
    /// Whether it is time to stop.
    pub stop: &'a dyn Fn() -> bool,
    /// Told of each model that is tried.
    pub progress: &'a dyn Fn(&Progress),
    /// Bounds on what is read.
    pub limits: Limits,
}

impl Search<'_> {
    /// The smallest model found that fails as `specimen` does, how that is, and how many models were tried; `None` when it does not fail.
    pub fn run(&mut self, specimen: &Specimen) -> Option<(Specimen, Failure, usize)> {
        let failure = (self.failure)(specimen)?;
        let mut state = State { best: specimen.clone(), failure: &failure, tried: 1, search: self };
        // A result of a node in the middle may do; then what is before it may be given from outside. Then one change after the other.
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

/// What is to become less.
fn measure(specimen: &Specimen) -> (usize, usize, usize, usize) {
    let draft = &specimen.draft;
    (draft.nodes(), draft.outputs().len(), draft.inputs().len(), draft.constant_bytes())
}

struct State<'a, 'b> {
    best: Specimen,
    failure: &'a Failure,
    tried: usize,
    search: &'a mut Search<'b>,
}

impl State<'_, '_> {
    /// Takes a model if it fails in the same way and is smaller.
    fn attempt(&mut self, candidate: Specimen) -> bool {
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

    fn with(&self, draft: Draft) -> Specimen {
        Specimen { draft, inputs: self.best.inputs.clone() }
    }

    /// One output in place of all, then values of earlier nodes in place of it: of ever more nodes before.
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

    /// What the first nodes make, given from outside.
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

    /// The smallest failing model with these values as inputs, whose data the evaluator gives.
    fn given(&self, names: &[String]) -> Option<Specimen> {
        let values = values(&self.best, names, &self.search.limits)?;
        let types: Vec<(String, TensorType)> = values.iter().map(|(n, t)| (n.clone(), t.ty().clone())).collect();
        let mut inputs = self.best.inputs.clone();
        inputs.extend(values);
        Some(Specimen { draft: self.best.draft.with_inputs(&types), inputs })
    }

    /// One value given from outside or known, one node passed by, one output less.
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

/// The values of some names, by the evaluator; `None` when it has none.
fn values(specimen: &Specimen, names: &[String], limits: &Limits) -> Option<Vec<(String, Tensor)>> {
    let draft = specimen.draft.with_outputs(names);
    let run = || {
        let model = Model::from_bytes(&draft.bytes(), None, limits).ok()?;
        let inputs: Vec<Tensor> = model.inputs().iter().map(|p| specimen.inputs.get(&p.name).cloned()).collect::<Option<_>>()?;
        run_with(&model, &inputs, |graph, inputs| eval(graph, inputs).map_err(|e| e.to_string())).ok()
    };
    let results = catch_unwind(AssertUnwindSafe(run)).ok().flatten()?;
    Some(names.iter().cloned().zip(results).collect())
}

/// The model with the types of its outputs written to it, where the evaluator knows them.
pub fn typed(specimen: &Specimen, limits: &Limits) -> Draft {
    let outputs = specimen.draft.outputs();
    let types = values(specimen, &outputs, limits).unwrap_or_default();
    let types: Vec<(String, TensorType)> = types.into_iter().map(|(n, t)| (n, t.ty().clone())).collect();
    specimen.draft.with_types(&types)
}
