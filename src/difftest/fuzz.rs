//! The fuzzer: random networks on several backends and with several options, compared with the reference evaluator.

use super::backends::{Backend, executor};
use super::generate::{self, Case};
use super::shrink;
use super::tolerance::{Effort, Reference};
use crate::{Error, Options};
use dnnc_frontend::{Refusal, RefusalKind};
use dnnc_ir::random::Rng;
use dnnc_ir::{Graph, Tensor};
use dnnc_targets::Target;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

/// How a network is compiled and run.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The backend.
    pub backend: Backend,
    /// Options of the compilation.
    pub options: Options,
    /// Whether the network is written as an ONNX model and imported again.
    pub onnx: bool,
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let o = &self.options;
        write!(f, "--backend {} --target {} --threads {}", self.backend.name(), o.target.name, o.threads)?;
        let flags =
            [(!o.rewrites, " --no-rewrites"), (o.precise, " --precise"), (!o.sparse, " --sparse off"), (self.onnx, ", as an ONNX model")];
        flags.iter().filter(|(on, _)| *on).try_for_each(|(_, flag)| f.write_str(flag))
    }
}

/// The kind of a finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FindingKind {
    /// A result differs from the evaluator's.
    Wrong,
    /// There is an error in place of a result that the evaluator has.
    Error,
    /// The compiler panicked.
    Panic,
}

/// A difference between a backend and the reference evaluator.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Its kind.
    pub kind: FindingKind,
    /// What differs, as a sentence.
    pub message: String,
}

/// Compiles and runs a network in one configuration.
pub fn run(case: &Case, configuration: &Configuration) -> Result<Vec<Tensor>, Finding> {
    let failed = |e: Error| Finding { kind: FindingKind::Error, message: e.to_string() };
    let (graph, inputs) = (&case.graph, case.inputs.as_slice());
    let all = || -> Result<Vec<Tensor>, Finding> {
        if configuration.onnx {
            return through_onnx(case, configuration).map(|(_, results)| results).map_err(failed);
        }
        let executor = executor(graph.clone(), configuration.backend, &configuration.options).map_err(failed)?;
        let first = executor.run(inputs).map_err(failed)?;
        if configuration.backend == Backend::Jit {
            // The second run finds the arena as the first one left it.
            let again = executor.run(inputs).map_err(failed)?;
            if first != again {
                return Err(Finding { kind: FindingKind::Wrong, message: "a second run gives other results".into() });
            }
        }
        Ok(first)
    };
    catch_unwind(AssertUnwindSafe(all)).unwrap_or_else(|cause| {
        let text = cause.downcast_ref::<String>().cloned().or_else(|| cause.downcast_ref::<&str>().map(|s| s.to_string()));
        Err(Finding { kind: FindingKind::Panic, message: text.unwrap_or_else(|| "a panic without a message".into()) })
    })
}

/// Writes a network as an ONNX model and runs that. Nodes that ONNX has no operator for, or not for their types, are left out: their results become inputs.
/// Returns the network without them, and its results.
fn through_onnx(case: &Case, configuration: &Configuration) -> Result<(Case, Vec<Tensor>), Error> {
    let mut case = case.clone();
    loop {
        let negative = case.graph.nodes().len().is_multiple_of(2);
        let model = match dnnc_frontend::write(&case.graph, negative) {
            Ok(bytes) => crate::Model::from_bytes(&bytes, &configuration.options).map(|m| m.with_backend(configuration.backend)),
            Err(node) => {
                case = shrink::without_node(&case, node).expect("the evaluator has a value for it");
                continue;
            }
        };
        match model.and_then(|m| m.run(&case.inputs)) {
            Err(Error::Refused(r)) if r.list.iter().all(no_such_type) => {
                let node = r.list[0].name[1..].split('.').next().unwrap_or_default().parse().map_err(|_| Error::Refused(r.clone()))?;
                case = shrink::without_node(&case, node).ok_or(Error::Refused(r))?;
            }
            answer => return answer.map(|results| (case, results)),
        }
    }
}

/// Whether a node was refused because ONNX has no such operator for the type of an operand.
fn no_such_type(refusal: &Refusal) -> bool {
    refusal.kind == RefusalKind::Invalid && refusal.name.starts_with('n') && refusal.reason.contains("has element type")
}

/// Runs a network in one configuration and compares its results. A difference counts only when a thorough tolerance model confirms it.
pub fn check(case: &Case, configuration: &Configuration, reference: &Reference) -> Result<(), Finding> {
    let got = run(case, configuration)?;
    if reference.compare(&got).is_ok() {
        return Ok(());
    }
    // A result that became an input is exact there, and rounding before it has no effect.
    let written = if configuration.onnx { through_onnx(case, configuration).ok().map(|(written, _)| written) } else { None };
    match Reference::new(written.as_ref().unwrap_or(case), Effort::Thorough) {
        Some(again) => again.compare(&got).map_err(|message| Finding { kind: FindingKind::Wrong, message }),
        None => Ok(()),
    }
}

/// A machine whose caches are so small that every kernel works in blocks.
static TINY: LazyLock<Target> = LazyLock::new(|| Target { name: "tiny", l1d: 1 << 9, l2: 1 << 12, ..*dnnc_targets::native() });

/// Configurations to run a network in: the default ones, and random ones. `processes`: also those that link and start programs.
pub fn configurations(rng: &mut Rng, work: u64, processes: bool) -> Vec<Configuration> {
    let native = Options::default();
    let on = |backend, options| Configuration { backend, options, onnx: false };
    let mut all = vec![on(Backend::Jit, native.clone()), Configuration { onnx: true, ..on(Backend::Jit, native.clone()) }];
    let machines: Vec<&'static Target> =
        dnnc_targets::all().into_iter().filter(|t| t.triple == native.target.triple && native.target.runs(t)).collect();
    let options = |rng: &mut Rng, target: &'static Target| Options {
        target,
        rewrites: rng.below(3) != 0,
        precise: rng.below(6) == 0,
        sparse: rng.below(4) > 0,
        threads: 1 + rng.below(2),
        ..native.clone()
    };
    let target = if rng.below(3) == 0 { &*TINY } else { rng.pick(&machines) };
    all.push(on(Backend::Jit, options(rng, target)));
    all.push(on(Backend::Jit, Options { rewrites: false, ..native.clone() }));
    // The interpreter takes tens of nanoseconds for each element access.
    if work < 1 << 19 {
        let target = if rng.below(4) == 0 { &*TINY } else { rng.pick(&dnnc_targets::all()) };
        all.push(on(Backend::Kir, options(rng, target)));
    }
    if processes && rng.below(60) == 0 {
        let backend = if rng.below(3) == 0 { Backend::Aarch64 } else { Backend::Object };
        all.push(on(backend, Options { threads: 1, ..options(rng, native.target) }));
    }
    all
}

/// Scalar operations and elements that a network computes.
pub fn work(graph: &Graph) -> u64 {
    let of = |node: &dnnc_ir::Node| {
        let types: Vec<_> = node.inputs.iter().map(|v| graph.ty(*v).clone()).collect();
        (node.op.def.work)(&node.op.attrs, &types, &node.types) + node.types.iter().map(|t| t.len() as u64).sum::<u64>()
    };
    graph.nodes().iter().map(of).sum()
}

/// The outcome of one network.
pub enum Outcome {
    /// All configurations agree.
    Same {
        /// Number of configurations.
        configurations: usize,
        /// The fraction of the elements that were compared.
        compared_fraction: f64,
    },
    /// The evaluator has no stable value to compare with.
    Skipped,
    /// A difference, and the configuration in which it occurs.
    Different(Box<Configuration>, Finding),
}

/// The network of a seed.
pub fn case(seed: u64) -> Case {
    generate::case(&mut Rng::new(seed))
}

/// Runs one network in several configurations, which `rng` draws.
pub fn fuzz(case: &Case, rng: &mut Rng, processes: bool) -> Outcome {
    let Some(reference) = Reference::new(case, Effort::Quick) else { return Outcome::Skipped };
    let configurations = configurations(rng, work(&case.graph), processes);
    for configuration in &configurations {
        if let Err(finding) = check(case, configuration, &reference) {
            return Outcome::Different(Box::new(configuration.clone()), finding);
        }
    }
    Outcome::Same { configurations: configurations.len(), compared_fraction: reference.compared_fraction() }
}

/// A smaller network that has a finding of the same kind.
pub fn minimize(case: &Case, configuration: &Configuration, finding: &Finding) -> Case {
    shrink::shrink(case, &mut |smaller| {
        let Some(reference) = Reference::new(smaller, Effort::Quick) else { return false };
        matches!(check(smaller, configuration, &reference), Err(f) if f.kind == finding.kind)
    })
}
