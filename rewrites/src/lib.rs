//! Rewriting: the e-graph, its rules, the facts about its classes, the cost model and extraction.
//!
//! Knows the IR and the machine, never the file format nor the instructions. Budgets are counted in iterations and nodes, never in
//! seconds: same input, same program, on every host.

mod cost;
mod extract;
mod fact;
mod forecast;
#[cfg(test)]
mod fuzz;
mod language;
mod mismatch;
mod options;
mod pattern;
mod report;
mod rules;
mod run;
mod sparsity;
mod term;

pub use forecast::{Forecast, Forecaster};
pub use options::Options;
pub use report::{NearMiss, Optimised, Report};

use dnnc_ir::Graph;
use dnnc_targets::Target;

/// Finds the cheapest graph that is equal to `graph`, as far as the rules and the cost model know. An error means a wrong rule, not a wrong graph.
pub fn optimise(graph: &Graph, target: &Target, options: &Options, forecaster: &dyn Forecaster) -> Result<Optimised, String> {
    run::optimise(graph, target, options, &cost::Forecasts::new(forecaster))
}

/// The names of all rules, in the order of the tables: for documentation and tests.
pub fn rule_names() -> Vec<&'static str> {
    rules::all().map(|r| r.name).collect()
}
