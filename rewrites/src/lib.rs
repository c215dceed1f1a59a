//! What may be said differently: the e-graph, its rules, facts and cost.
//!
//! Knows the IR and the machine, never the file format nor the instructions. Budgets are counted in iterations and nodes, never in
//! seconds: same input, same program, on every host.

mod cost;
mod extract;
mod fact;
#[cfg(test)]
mod fuzz;
mod language;
mod pattern;
mod rules;
mod run;
mod zeros;

use dnnc_ir::Graph;
use dnnc_targets::Target;
use indexmap::IndexMap;

/// What the user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keep the rounding of the model as written: only rules that are exact for every number.
    pub precise: bool,
    /// Allow rules that hold for finite numbers only.
    pub relaxed: bool,
    /// Kernels compute the zeros of constants like all other numbers: then they save no time.
    pub dense: bool,
}

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
    /// Rules that said something new, and how often.
    pub fired: IndexMap<&'static str, usize>,
    /// Places where a rule would have applied but for a condition.
    pub near_misses: Vec<NearMiss>,
    /// Iterations over the rules, of all phases.
    pub iterations: usize,
    /// Nodes of the largest e-graph.
    pub nodes: usize,
}

/// A place where a rule would have applied but for a condition.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NearMiss {
    /// What the rule says.
    pub rule: &'static str,
    /// Name of the node; may be empty.
    pub node: String,
    /// Why it did not apply.
    pub why: &'static str,
}

/// Finds the cheapest graph that is equal to `graph`, as far as rules and cost model know. An error means a wrong rule, not a wrong graph.
pub fn optimise(graph: &Graph, target: &Target, options: &Options) -> Result<Optimised, String> {
    run::optimise(graph, target, options)
}

/// Every rule, by what it says, in the order of the tables: for documentation and tests.
pub fn rule_names() -> Vec<&'static str> {
    rules::all().map(|r| r.name).collect()
}
