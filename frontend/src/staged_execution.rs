//! Staged execution: runs a model stage by stage with any executor of graphs.

use crate::model::Model;
use crate::refusal::Refusals;
use dnnc_ir::{Graph, Tensor, Value};
use std::fmt;

/// Why a run gave no result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RunError {
    /// The model cannot be compiled for these inputs.
    Refused(Refusals),
    /// The executor failed: a sentence.
    Failed(String),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Refused(refusals) => refusals.fmt(f),
            RunError::Failed(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for RunError {}

impl From<Refusals> for RunError {
    fn from(refusals: Refusals) -> RunError {
        RunError::Refused(refusals)
    }
}

/// The outputs of a graph that computes nothing: the stage before a size that an input decides.
fn passed_through(graph: &Graph, inputs: &[Tensor]) -> Option<Vec<Tensor>> {
    let source = |v: Value| match graph.const_of(v) {
        Some(tensor) => Some(tensor.clone()),
        None => graph.inputs().iter().position(|i| *i == v).and_then(|i| inputs.get(i).cloned()),
    };
    graph.outputs().iter().map(|(_, v)| source(*v)).collect()
}

/// Runs `model` on `inputs`: `execute` gets each stage's graph with its inputs and returns the graph's outputs. It is not called for a stage
/// that computes nothing.
pub fn run_with(
    model: &Model,
    inputs: &[Tensor],
    mut execute: impl FnMut(&Graph, &[Tensor]) -> Result<Vec<Tensor>, String>,
) -> Result<Vec<Tensor>, RunError> {
    model.check_types(inputs)?;
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|t| t.shape().to_vec()).collect();
    let mut stage = model.specialise(&shapes)?;
    let mut feed = inputs.to_vec();
    let mut results: Vec<Option<Tensor>> = vec![None; model.outputs().len()];
    loop {
        let outputs = match passed_through(&stage.graph, &feed) {
            Some(outputs) => outputs,
            None => execute(&stage.graph, &feed).map_err(RunError::Failed)?,
        };
        if outputs.len() != stage.graph.outputs().len() {
            return Err(RunError::Failed(format!("{} results of a graph that has {}", outputs.len(), stage.graph.outputs().len())));
        }
        for (&i, tensor) in stage.finished.iter().zip(&outputs) {
            results[i] = Some(tensor.clone());
        }
        let Some(cut) = stage.cut else { break };
        feed = outputs[cut.live()].to_vec();
        stage = cut.resume(&outputs[cut.needed()])?;
    }
    results.into_iter().collect::<Option<Vec<Tensor>>>().ok_or_else(|| RunError::Failed("an output was not computed".into()))
}
