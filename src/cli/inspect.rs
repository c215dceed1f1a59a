//! `dnnc inspect`: what a model is, and the memory that it needs.

use super::flags::CompileFlags;
use super::output::{bytes, count, outln, print_json, table};
use super::progress;
use clap::Args;
use dnnc::codegen::kernels::sparse::weight_density;
use dnnc::ir::{Class, Graph, Kind};
use dnnc::kir::program::Density;
use dnnc::{Error, Footprint, InputShapes, Options};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// Show the inputs, outputs and operators of a model, and its size: multiply-accumulates, parameters, arena, code and weights
///
/// Example: dnnc inspect model.onnx --target cortex-a72
#[derive(Args)]
pub struct Inspect {
    /// The model
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileFlags,
}

/// A model for one value of each dimension.
#[derive(Serialize)]
struct Report {
    inputs: Vec<String>,
    outputs: Vec<String>,
    shapes: Vec<Vec<usize>>,
    operators: BTreeMap<String, usize>,
    macs: u64,
    parameters: usize,
    arena_bytes: usize,
    arena_bound_bytes: usize,
    arena_unplanned_bytes: usize,
    code_bytes: usize,
    weight_bytes: usize,
    kernels: usize,
    weights: Vec<Weights>,
    staged: bool,
    target: &'static str,
}

/// A model for several combinations of dimensions, in one object.
#[derive(Serialize)]
struct VariantsReport {
    inputs: Vec<String>,
    outputs: Vec<String>,
    operators: BTreeMap<String, usize>,
    arena_bytes: usize,
    code_bytes: usize,
    weight_bytes: usize,
    object_bytes: usize,
    target: &'static str,
    variants: Vec<Variant>,
}

/// One combination of dimensions.
#[derive(Serialize)]
struct Variant {
    dims: BTreeMap<String, usize>,
    shapes: Vec<Vec<usize>>,
    macs: u64,
    parameters: usize,
    weight_bytes: usize,
    arena_bytes: usize,
    kernels: usize,
    #[serde(skip)]
    label: String,
}

/// Constant weights of an operator, after rewriting.
#[derive(Serialize)]
struct Weights {
    node: String,
    operator: &'static str,
    shape: Vec<usize>,
    /// Fraction of the elements that are not 0, and of the blocks of 4 and 8 neighbouring outputs.
    density: f64,
    density_4x1: f64,
    density_8x1: f64,
}

impl Inspect {
    pub fn run(self) -> Result<ExitCode, Error> {
        if dnnc::pack::is_pack(&self.model) {
            super::pack::inspect(&self.model, self.json)?;
            return Ok(ExitCode::SUCCESS);
        }
        let options = self.compile.options()?;
        let (model, inputs) = self.compile.load(&self.model, &options)?;
        if inputs.open.is_empty() {
            let report = Report::new(&model, &inputs, &options)?;
            if self.json { print_json(&report) } else { report.print() }
        } else {
            let report = VariantsReport::new(&model, &inputs, &options)?;
            if self.json { print_json(&report) } else { report.print() }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Report {
    fn new(model: &dnnc::frontend::Model, inputs: &InputShapes, options: &Options) -> Result<Report, Error> {
        let shapes = &inputs.shapes[0];
        let stage = model.specialise(shapes)?;
        let object = progress::with_spinner("compiling", || dnnc::object_of(&stage.graph, "model", options))?;
        let Footprint { code, weights, arena } = object.footprint();
        Ok(Report {
            inputs: ports(model.inputs()),
            outputs: ports(model.outputs()),
            shapes: shapes.clone(),
            operators: model.operators(),
            macs: macs(&stage.graph),
            parameters: parameters(&stage.graph),
            arena_bytes: arena,
            arena_bound_bytes: object.built.notes.arena_bound,
            arena_unplanned_bytes: object.built.notes.arena_naive,
            code_bytes: code,
            weight_bytes: weights,
            kernels: object.built.program.kernels.len(),
            weights: weights_of(&object.built.graph),
            staged: stage.cut.is_some(),
            target: options.target.name,
        })
    }

    fn print(&self) {
        print_interface(&self.inputs, &self.outputs, &self.operators);
        let mut out = table(&["", ""]);
        out.add_row(["multiply-accumulates", &count(self.macs)]);
        out.add_row(["parameters", &count(self.parameters as u64)]);
        let (arena, bound, unplanned) = (bytes(self.arena_bytes), bytes(self.arena_bound_bytes), bytes(self.arena_unplanned_bytes));
        out.add_row(["arena (RAM)", &format!("{arena}; lower bound {bound}; without memory planning {unplanned}")]);
        out.add_row(["code (flash)", &format!("{} in {} kernels", bytes(self.code_bytes), self.kernels)]);
        out.add_row(["weights (flash)", &bytes(self.weight_bytes)]);
        out.add_row(["target", self.target]);
        outln!("{out}");
        print_sparse(&self.weights);
        if self.staged {
            outln!("a shape depends on data: these are the numbers of the part before it");
        }
    }
}

impl VariantsReport {
    fn new(model: &dnnc::frontend::Model, inputs: &InputShapes, options: &Options) -> Result<VariantsReport, Error> {
        let mut variants = vec![];
        let object = progress::with_spinner("compiling", || {
            dnnc::object_variants(model, inputs, "model", options, |variant, graph, built| {
                let program = &built.program;
                variants.push(Variant {
                    dims: inputs.dims(variant).into_iter().map(|(name, value)| (name.to_string(), value)).collect(),
                    shapes: inputs.shapes[variant].clone(),
                    macs: macs(graph),
                    parameters: parameters(graph),
                    weight_bytes: program.constants.iter().map(Vec::len).sum(),
                    arena_bytes: program.arena_bytes,
                    kernels: program.kernels.len(),
                    label: inputs.label(variant),
                });
                Ok(())
            })
        })?;
        let Footprint { code, weights, arena } = object.footprint;
        Ok(VariantsReport {
            inputs: ports(model.inputs()),
            outputs: ports(model.outputs()),
            operators: model.operators(),
            arena_bytes: arena,
            code_bytes: code,
            weight_bytes: weights,
            object_bytes: object.bytes.len(),
            target: options.target.name,
            variants,
        })
    }

    fn print(&self) {
        print_interface(&self.inputs, &self.outputs, &self.operators);
        let mut out = table(&["dimensions", "multiply-accumulates", "arena (RAM)", "weights", "kernels"]);
        for v in &self.variants {
            out.add_row([v.label.clone(), count(v.macs), bytes(v.arena_bytes), bytes(v.weight_bytes), v.kernels.to_string()]);
        }
        outln!("{out}");
        outln!(
            "one object for all of them on {}: code {}, weights {} (equal constants once), arena {} at most",
            self.target,
            bytes(self.code_bytes),
            bytes(self.weight_bytes),
            bytes(self.arena_bytes)
        );
    }
}

/// Prints inputs, outputs and operators of a model.
fn print_interface(inputs: &[String], outputs: &[String], operators: &BTreeMap<String, usize>) {
    inputs.iter().for_each(|p| outln!("input   {p}"));
    outputs.iter().for_each(|p| outln!("output  {p}"));
    let mut list: Vec<(&String, &usize)> = operators.iter().collect();
    list.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    outln!("operators  {}", list.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", "));
}

fn ports(ports: &[dnnc::Port]) -> Vec<String> {
    ports.iter().map(|p| format!("{}: {}", p.name, dnnc::describe(p))).collect()
}

/// Multiply-accumulates of matmuls, convolutions and recurrent layers: of the larger branch of an `If`, of all iterations of a `Loop`, or of one where
/// their number is unbounded.
fn macs(graph: &Graph) -> u64 {
    let work = |node: &dnnc::ir::Node| match node.op.kind() {
        Kind::MatMul | Kind::Conv | Kind::ConvTranspose | Kind::Lstm | Kind::Gru | Kind::Rnn => {
            let inputs: Vec<_> = node.inputs.iter().map(|v| graph.ty(*v).clone()).collect();
            (node.op.def.work)(&node.op.attrs, &inputs, &node.types)
        }
        Kind::If => macs(node.op.attrs.graph("then")).max(macs(node.op.attrs.graph("else"))),
        Kind::Loop => {
            let bounded = Some(node.op.attrs.size("max_trip") as u64).filter(|&trips| trips <= u64::from(u32::MAX));
            macs(node.op.attrs.graph("body")).saturating_mul(bounded.unwrap_or(1))
        }
        _ => 0,
    };
    graph.nodes().iter().map(work).fold(0, u64::saturating_add)
}

/// Elements of all constants except scalars.
fn parameters(graph: &Graph) -> usize {
    let constants = graph.nodes().iter().filter(|n| n.op.def.class == Class::Source && n.op.kind() == Kind::Const);
    constants.filter(|n| n.types[0].rank() > 0).map(|n| n.types[0].len()).sum()
}

/// The constant weights of convolutions and matmuls, in order.
fn weights_of(graph: &Graph) -> Vec<Weights> {
    let of = |node: &dnnc::ir::Node| {
        let last = match node.op.kind() {
            Kind::Conv => false,
            Kind::MatMul => !node.op.attrs.flag("trans_b"),
            _ => return None,
        };
        let source = &graph.nodes()[node.inputs.get(1)?.node as usize].op;
        let value = (source.kind() == Kind::Const).then(|| source.attrs.tensor("value"))?;
        let Density { elements: density, fours: density_4x1, eights: density_8x1 } = weight_density(value, last)?;
        let (node, operator, shape) = (node.name.clone(), node.op.kind().name(), value.ty().shape.clone());
        Some(Weights { node, operator, shape, density, density_4x1, density_8x1 })
    };
    graph.nodes().iter().filter_map(of).collect()
}

/// Prints the weights of which at least one number in a hundred is 0.
fn print_sparse(weights: &[Weights]) {
    let sparse: Vec<&Weights> = weights.iter().filter(|w| w.density <= 0.99).collect();
    if sparse.is_empty() {
        return;
    }
    let mut out = table(&["sparse weights", "node", "not 0", "of 4x1 blocks", "of 8x1 blocks"]);
    for w in &sparse {
        let percent = |fraction: f64| format!("{:.1} %", fraction * 100.0);
        let shape = w.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        out.add_row([
            format!("{} {shape}", w.operator),
            w.node.clone(),
            percent(w.density),
            percent(w.density_4x1),
            percent(w.density_8x1),
        ]);
    }
    outln!("{out}");
    outln!("{} of {} weights are dense", weights.len() - sparse.len(), weights.len());
}
