//! The compilation pipeline: from a graph through rewriting and lowering to a program.

use crate::Error;
use dnnc_codegen::tuner::Tuner;
use dnnc_codegen::{forecast, lower, unit};
use dnnc_frontend::Limits;
use dnnc_ir::{Graph, Kind, Op, TensorType};
use dnnc_kir::program::Program;
use dnnc_rewrites::{Forecast, Forecaster, Report};
use dnnc_targets::Target;
use std::sync::Arc;

/// Options of a compilation.
#[derive(Clone, Debug)]
pub struct Options {
    /// Machine to compile for.
    pub target: &'static Target,
    /// Threads that the JIT runs on, and that work is partitioned for.
    pub threads: usize,
    /// Keep the network's order of operations: no Winograd, no reassociation of constants.
    pub precise: bool,
    /// Allow rewrites that hold for finite numbers only, and products with rounded reciprocals instead of quotients; [`precise`](Options::precise)
    /// takes precedence.
    pub relaxed: bool,
    /// Whether the e-graph rewrites the graph; without it the graph is compiled as it was imported.
    pub rewrites: bool,
    /// Limits on the resources that a model may ask for.
    pub limits: Limits,
    /// Measures the algorithms of a step that has several; without it the predicted time decides.
    pub tuner: Option<Arc<dyn Tuner>>,
    /// Whether kernels may skip zeros of constants where that is predicted to be faster; 0·∞ is 0 there.
    pub sparse: bool,
    /// Largest arena that a network may need, in bytes.
    pub max_arena: usize,
    /// Bytes of code, constants and arenas that the cache of a [`Model`](crate::Model) may hold; the least recently used shape is evicted first. The
    /// shape in use is kept in any case.
    pub cache_bytes: usize,
    /// Most combinations of dimensions that one object may hold.
    pub max_variants: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            target: dnnc_targets::native(),
            threads: 1,
            precise: false,
            relaxed: false,
            rewrites: true,
            limits: Limits::default(),
            tuner: None,
            sparse: true,
            max_arena: 4 << 30,
            cache_bytes: 1 << 30,
            max_variants: 64,
        }
    }
}

/// A network ready for an emitter, with the reports of the stages before.
pub struct Built {
    /// The graph after rewriting.
    pub graph: Graph,
    /// What the e-graph did; `None` without rewrites.
    pub report: Option<Report>,
    /// The program.
    pub program: Program,
    /// Statistics of lowering.
    pub notes: lower::Notes,
}

impl Built {
    /// Disassembly of the kernels.
    pub fn assembly(&self, target: &Target) -> Result<String, Error> {
        let text = |k| dnnc_emit::emitter::assembly(k, target).map_err(Error::Internal);
        self.program.kernels.iter().map(text).collect::<Result<Vec<_>, _>>().map(|t| t.join("\n"))
    }

    /// Cranelift IR of the kernels that Cranelift compiles.
    pub fn clif(&self, target: &Target) -> Result<String, Error> {
        let text = |k| dnnc_emit::emitter::clif_text(k, target).map_err(Error::Internal);
        self.program.kernels.iter().map(text).collect::<Result<Vec<_>, _>>().map(|t| t.join("\n"))
    }

    /// The kernels in the kernel IR.
    pub fn kir(&self) -> String {
        self.program.kernels.iter().map(|k| format!("{k}\n")).collect()
    }

    /// The rewritten graph for Graphviz.
    pub fn dot(&self) -> String {
        let graph = &self.graph;
        let mut out = String::from("digraph model {\n  node [shape=box, fontname=\"monospace\"];\n");
        for (n, node) in graph.nodes().iter().enumerate() {
            let types: Vec<String> = node.types.iter().map(|t| t.to_string()).collect();
            if node.op.kind() == Kind::Const && node.types[0].rank() == 0 {
                continue;
            }
            out += &format!("  n{n} [label=\"{}\\n{}\"];\n", node.op.kind().name(), types.join(", "));
            for v in &node.inputs {
                out += &format!("  n{} -> n{n};\n", v.node);
            }
        }
        for (i, (name, v)) in graph.outputs().iter().enumerate() {
            out += &format!("  out{i} [label=\"{}\", shape=ellipse];\n  n{} -> out{i};\n", name.replace('"', "'"), v.node);
        }
        out + "}\n"
    }
}

/// Rewrites and lowers a graph; `name` becomes the prefix of its symbols.
pub fn build(graph: &Graph, name: &str, options: &Options) -> Result<Built, Error> {
    let (graph, report) = rewritten(graph.clone(), options)?;
    let (program, notes) = lowered(graph.clone(), name, options)?;
    Ok(Built { graph, report, program, notes })
}

/// The program alone: the graph is dropped early, so that constants are not held by both at the same time.
pub(crate) fn program(graph: Graph, options: &Options) -> Result<Program, Error> {
    let (graph, _) = rewritten(graph, options)?;
    Ok(lowered(graph, "model", options)?.0)
}

fn rewritten(graph: Graph, options: &Options) -> Result<(Graph, Option<Report>), Error> {
    if !options.rewrites {
        return Ok((graph, None));
    }
    let asked = dnnc_rewrites::Options { precise: options.precise, relaxed: options.relaxed, dense: !options.sparse };
    let weights = graph.nodes().iter().filter(|n| n.op.kind() == Kind::Const).flat_map(|n| &n.types).map(TensorType::bytes).sum();
    // The graph does not depend on the number of threads.
    let serial = unit::Options { threads: 1, tuner: None, ..unit_options(options, weights) };
    let forecasts = Forecasts { target: options.target, options: serial };
    let done = dnnc_rewrites::optimise(&graph, options.target, &asked, &forecasts).map_err(Error::Internal)?;
    Ok((done.graph, Some(done.report)))
}

/// What code generation predicts, for rewrites.
struct Forecasts<'a> {
    target: &'a Target,
    options: unit::Options,
}

impl Forecaster for Forecasts<'_> {
    fn forecast(&self, op: &Op, operands: &[(&TensorType, bool)], results: &[TensorType]) -> Forecast {
        let unit::Forecast { ns, epilogue, in_place } = forecast::of(op, operands, results, self.target, &self.options);
        Forecast { ns, epilogue, in_place }
    }
}

/// What the user asked for, as far as code generation is concerned; `weights` are the bytes of all constants.
fn unit_options(options: &Options, weights: usize) -> unit::Options {
    let Options { precise, threads, tuner, sparse, .. } = options.clone();
    unit::Options { precise, threads, tuner, sparse, weights }
}

fn lowered(graph: Graph, name: &str, options: &Options) -> Result<(Program, lower::Notes), Error> {
    let (program, notes) = lower::lower(graph, name, options.target, &unit_options(options, 0))?;
    if program.arena_bytes > options.max_arena {
        return Err(Error::Usage(format!(
            "the network needs an arena of {} bytes, more than the limit of {} (--max-arena)",
            program.arena_bytes, options.max_arena
        )));
    }
    Ok((program, notes))
}
