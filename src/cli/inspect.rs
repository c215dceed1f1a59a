use super::{Building, bytes, count, print_json, table};
use clap::Args;
use dnnc::codegen::kernels::sparse::weight_density;
use dnnc::ir::{Class, Graph, Kind};
use dnnc::kir::program::Density;
use dnnc::{Error, Footprint, Options, Sizes};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Show what a model is and what it will need: operators, MACs, parameters, arena, code and weight bytes
#[derive(Args)]
pub struct Inspect {
    /// The model
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    building: Building,
}

impl Inspect {
    pub fn run(self) -> Result<(), Error> {
        let options = self.building.options(1)?;
        let (model, sizes) = self.building.bound(&self.model, &options)?;
        if !sizes.open.is_empty() {
            return self.several(&model, &sizes, &options);
        }
        let shapes = &sizes.shapes[0];
        let stage = model.specialise(shapes)?;
        let graph = &stage.graph;
        let operators: BTreeMap<String, usize> = model.operators();
        let (macs, parameters) = (macs(graph), parameters(graph));
        let object = super::progress::while_doing("compiling", || dnnc::object_of(graph, "model", &options))?;
        let sizes = object.footprint();
        let weights = weights(&object.built.graph);
        if self.json {
            print_json(&serde_json::json!({
                "inputs": ports(model.inputs()), "outputs": ports(model.outputs()), "shapes": shapes, "operators": operators,
                "macs": macs, "parameters": parameters, "arena_bytes": sizes.arena, "arena_bound_bytes": object.built.notes.arena_bound,
                "arena_unplanned_bytes": object.built.notes.arena_naive, "code_bytes": sizes.code, "weight_bytes": sizes.weights,
                "kernels": object.built.program.kernels.len(), "weights": weights.iter().map(Weights::json).collect::<Vec<_>>(), "staged": stage.cut.is_some(), "target": options.target.name,
            }));
            return Ok(());
        }
        head(&model);
        let mut out = table(&["", ""]);
        out.add_row(["multiply-accumulates", &count(macs)]);
        out.add_row(["parameters", &count(parameters as u64)]);
        out.add_row([
            "arena (RAM)",
            &format!(
                "{}, no plan is below {}; without planning {}",
                bytes(sizes.arena),
                bytes(object.built.notes.arena_bound),
                bytes(object.built.notes.arena_naive)
            ),
        ]);
        out.add_row(["code (flash)", &format!("{} in {} kernels", bytes(sizes.code), object.built.program.kernels.len())]);
        out.add_row(["weights (flash)", &bytes(sizes.weights)]);
        out.add_row(["target", options.target.name]);
        say!("{out}");
        show(&weights);
        if stage.cut.is_some() {
            say!("a size depends on data: the figures are those of the part before it");
        }
        Ok(())
    }

    /// A row for each combination of sizes, and what the object of all of them takes.
    fn several(&self, model: &dnnc::frontend::Model, sizes: &Sizes, options: &Options) -> Result<(), Error> {
        let mut rows = vec![];
        let object = super::progress::while_doing("compiling", || {
            dnnc::object_variants(model, sizes, "model", options, |variant, graph, built| {
                let program = &built.program;
                let weights = program.constants.iter().map(Vec::len).sum();
                let (arena, kernels) = (program.arena_bytes, program.kernels.len());
                rows.push(Row { variant, macs: macs(graph), parameters: parameters(graph), weights, arena, kernels });
                Ok(())
            })
        })?;
        let Footprint { code, weights, arena } = object.footprint;
        if self.json {
            let variant = |row: &Row| {
                serde_json::json!({
                    "dims": sizes.of(row.variant), "shapes": sizes.shapes[row.variant], "macs": row.macs, "parameters": row.parameters,
                    "weight_bytes": row.weights, "arena_bytes": row.arena, "kernels": row.kernels,
                })
            };
            print_json(&serde_json::json!({
                "inputs": ports(model.inputs()), "outputs": ports(model.outputs()), "operators": model.operators(), "arena_bytes": arena,
                "code_bytes": code, "weight_bytes": weights, "object_bytes": object.bytes.len(), "target": options.target.name,
                "variants": rows.iter().map(variant).collect::<Vec<_>>(),
            }));
            return Ok(());
        }
        head(model);
        let mut out = table(&["sizes", "multiply-accumulates", "arena (RAM)", "weights", "kernels"]);
        for row in rows {
            let label = sizes.label(row.variant);
            out.add_row([label, count(row.macs), bytes(row.arena), bytes(row.weights), row.kernels.to_string()]);
        }
        say!("{out}");
        say!(
            "one object of all for {}: code {}, weights {} (equal ones once), arena {} at most",
            options.target.name,
            bytes(code),
            bytes(weights),
            bytes(arena)
        );
        Ok(())
    }
}

/// What one combination of sizes takes.
struct Row {
    variant: usize,
    macs: u64,
    parameters: usize,
    weights: usize,
    arena: usize,
    kernels: usize,
}

/// Inputs, outputs and operators of a model.
fn head(model: &dnnc::frontend::Model) {
    for p in ports(model.inputs()) {
        say!("input   {p}");
    }
    for p in ports(model.outputs()) {
        say!("output  {p}");
    }
    let mut list: Vec<(String, usize)> = model.operators().into_iter().collect();
    list.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    say!("operators  {}", list.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", "));
}

fn ports(ports: &[dnnc::Port]) -> Vec<String> {
    ports.iter().map(|p| format!("{}: {}", p.name, dnnc::describe(p))).collect()
}

/// Multiply-accumulates of products, convolutions and recurrent layers: of the larger branch of an `If`, of every iteration that a `Loop` may run, or
/// of one where nothing bounds them.
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

/// Elements of all constants but single numbers.
fn parameters(graph: &Graph) -> usize {
    let constants = graph.nodes().iter().filter(|n| n.op.def.class == Class::Source && n.op.kind() == Kind::Const);
    constants.filter(|n| n.types[0].rank() > 0).map(|n| n.types[0].len()).sum()
}

/// Constant weights of an operator, after rewriting.
struct Weights {
    node: String,
    operator: &'static str,
    shape: Vec<usize>,
    density: Density,
}

impl Weights {
    fn json(&self) -> serde_json::Value {
        let Density { elements, fours, eights } = self.density;
        serde_json::json!({
            "node": self.node, "operator": self.operator, "shape": self.shape, "density": elements, "density_4x1": fours, "density_8x1": eights,
        })
    }
}

/// The constant weights of convolutions and products, in order.
fn weights(graph: &Graph) -> Vec<Weights> {
    let of = |node: &dnnc::ir::Node| {
        let last = match node.op.kind() {
            Kind::Conv => false,
            Kind::MatMul => !node.op.attrs.flag("trans_b"),
            _ => return None,
        };
        let source = &graph.nodes()[node.inputs.get(1)?.node as usize].op;
        let value = (source.kind() == Kind::Const).then(|| source.attrs.tensor("value"))?;
        let density = weight_density(value, last)?;
        Some(Weights { node: node.name.clone(), operator: node.op.kind().name(), shape: value.ty().shape.clone(), density })
    };
    graph.nodes().iter().filter_map(of).collect()
}

/// Weights of which at least one number in a hundred is 0.
fn show(weights: &[Weights]) {
    let thin: Vec<&Weights> = weights.iter().filter(|w| w.density.elements <= 0.99).collect();
    if thin.is_empty() {
        return;
    }
    let mut out = table(&["weights with zeros", "node", "not 0", "of 4x1 blocks", "of 8x1 blocks"]);
    for w in &thin {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let Density { elements, fours, eights } = w.density;
        let shape = w.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        out.add_row([format!("{} {shape}", w.operator), w.node.clone(), percent(elements), percent(fours), percent(eights)]);
    }
    say!("{out}");
    say!("{} of {} weights have no zeros to speak of", weights.len() - thin.len(), weights.len());
}
