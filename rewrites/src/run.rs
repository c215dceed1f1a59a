//! Running the rules: phases, iterations, budgets.

use crate::cost::{Forecasts, Model};
use crate::extract::{extract, map_bodies};
use crate::fact::{Facts, Integers};
use crate::language::{Imported, import};
use crate::options::Options;
use crate::report::{NearMiss, Optimised, Report};
use crate::rules::{self, PHASES, Phase, Rule, horizontal_fusion};
use dnnc_ir::Graph;
use dnnc_targets::Target;
use std::collections::{BTreeSet, HashSet};

/// Iterations of one phase at most.
const ITERATIONS: usize = 24;
/// The e-graph may grow to so many times the nodes of the graph, and …
const GROWTH: usize = 24;
/// … so many more.
const ROOM: usize = 20_000;
/// Near misses kept.
const MISSES: usize = 1000;

/// Optimises a graph and, before it, the bodies of its control flow.
pub fn optimise(graph: &Graph, target: &Target, options: &Options, forecasts: &Forecasts) -> Result<Optimised, String> {
    let mut report = Report::default();
    let mut misses = BTreeSet::new();
    let mut graph = map_bodies(graph, &mut |body| {
        let inner = optimise(body, target, options, forecasts)?;
        inner.report.fired.iter().for_each(|(rule, n)| *report.fired.entry(rule).or_default() += n);
        misses.extend(inner.report.near_misses);
        Ok(inner.graph)
    })?;
    let block = target.vector.bits / 32;
    for &phase in PHASES {
        let model = Model::new(target, forecasts, phase == Phase::Layout);
        let facts = Facts { options: options.clone(), block, integers: Integers::of(target), ..Facts::default() };
        let mut imported = import(&graph, facts);
        let joint = if phase == Phase::HorizontalFusion { horizontal_fusion::fuse(&mut imported, options) } else { vec![] };
        saturate(&mut imported, rules::of(phase), &mut report, &mut misses)?;
        if !joint.is_empty() {
            *report.fired.entry("horizontal fusion").or_default() += joint.len();
        }
        let found = extract(&graph, &imported, &model, &joint)?;
        report.nodes = report.nodes.max(imported.classes.total_number_of_nodes());
        // All phases compare by the final layouts.
        if phase == PHASES[0] {
            report.before = Model::new(target, forecasts, true).graph(&graph);
        }
        graph = found.graph;
        report.after = found.cost;
    }
    report.near_misses = misses.into_iter().take(MISSES).collect();
    Ok(Optimised { graph, report })
}

/// Applies rules until the e-graph does not change any more or a budget is spent.
fn saturate(imported: &mut Imported, rules: &'static [Rule], report: &mut Report, misses: &mut BTreeSet<NearMiss>) -> Result<(), String> {
    let classes = &mut imported.classes;
    let limit = ROOM + GROWTH * classes.total_number_of_nodes();
    // Matches that a rule has been applied to: nothing new comes from them.
    let mut done: HashSet<(usize, Vec<u64>)> = HashSet::new();
    for _ in 0..ITERATIONS {
        report.iterations += 1;
        let places: Vec<_> = rules.iter().map(|rule| rule.search(classes)).collect();
        let mut changed = false;
        for (number, (rule, places)) in rules.iter().zip(places).enumerate() {
            for place in places {
                let key = (number, place.key());
                if done.contains(&key) {
                    continue;
                }
                match rule.apply(classes, &place) {
                    Ok(new) => {
                        if new {
                            *report.fired.entry(rule.name).or_default() += 1;
                        }
                        changed |= new;
                        done.insert(key);
                    }
                    Err(why) if why.near && misses.len() < 4 * MISSES => {
                        let node = classes[place.root].data.name(place.trail.first().map(|(k, _)| *k)).to_string();
                        misses.insert(NearMiss { rule: rule.name, node, why: why.reason });
                    }
                    Err(_) => {}
                }
            }
            if let Some(conflict) = &classes.analysis.conflict {
                return Err(conflict.clone());
            }
            if classes.total_number_of_nodes() > limit {
                break;
            }
        }
        classes.rebuild();
        if !changed || classes.total_number_of_nodes() > limit {
            break;
        }
    }
    Ok(())
}
