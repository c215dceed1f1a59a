//! The result of optimising a graph, and what happened on the way.

use dnnc_ir::Graph;
use indexmap::IndexMap;

/// A graph and how it was found.
#[derive(Clone, Debug)]
pub struct Optimised {
    /// The graph: same inputs, same outputs.
    pub graph: Graph,
    /// What happened.
    pub report: Report,
}

/// What happened while a graph was optimised, bodies of control flow included.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Predicted time of the graph as written, nanoseconds.
    pub before: f64,
    /// Predicted time of the graph found, nanoseconds.
    pub after: f64,
    /// Rules that changed the e-graph, and how often.
    pub fired: IndexMap<&'static str, usize>,
    /// Matches to which a rule would have applied but for a condition.
    pub near_misses: Vec<NearMiss>,
    /// Iterations over the rules, of all phases.
    pub iterations: usize,
    /// Nodes of the largest e-graph.
    pub nodes: usize,
}

/// A match to which a rule would have applied but for a condition.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NearMiss {
    /// Name of the rule.
    pub rule: &'static str,
    /// Name of the node; may be empty.
    pub node: String,
    /// Why it did not apply.
    pub why: &'static str,
}
