use super::{Building, bytes, count, print_json, table};
use clap::Args;
use dnnc::Error;
use dnnc::codegen::kernels::sparse::Density;
use dnnc::ir::{Class, Graph, Kind};
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
        let (model, shapes) = self.building.bound(&self.model, &options)?;
        let stage = model.specialise(&shapes)?;
        let graph = &stage.graph;
        let operators: BTreeMap<String, usize> = model.operators();
        let (mut macs, mut parameters) = (0u64, 0usize);
        for node in graph.nodes() {
            if matches!(node.op.kind(), Kind::MatMul | Kind::Conv | Kind::ConvTranspose | Kind::Lstm | Kind::Gru | Kind::Rnn) {
                let inputs: Vec<_> = node.inputs.iter().map(|v| graph.ty(*v).clone()).collect();
                macs += (node.op.def.work)(&node.op.attrs, &inputs, &node.types);
            }
            if node.op.def.class == Class::Source && node.op.kind() == Kind::Const && node.types[0].rank() > 0 {
                parameters += node.types[0].len();
            }
        }
        let object = super::progress::while_doing("compiling", || dnnc::object_of(graph, "model", &options))?;
        let sizes = object.sizes();
        let weights = weights(&object.built.graph);
        let ports = |ports: &[dnnc::Port]| -> Vec<String> { ports.iter().map(|p| format!("{}: {}", p.name, dnnc::describe(p))).collect() };
        if self.json {
            print_json(&serde_json::json!({
                "inputs": ports(model.inputs()), "outputs": ports(model.outputs()), "shapes": shapes, "operators": operators,
                "macs": macs, "parameters": parameters, "arena_bytes": sizes.arena, "arena_bound_bytes": object.built.notes.arena_bound,
                "arena_unplanned_bytes": object.built.notes.arena_naive, "code_bytes": sizes.code, "weight_bytes": sizes.weights,
                "kernels": object.built.program.kernels.len(), "weights": weights.iter().map(Weights::json).collect::<Vec<_>>(), "staged": stage.cut.is_some(), "target": options.target.name,
            }));
            return Ok(());
        }
        for p in ports(model.inputs()) {
            say!("input   {p}");
        }
        for p in ports(model.outputs()) {
            say!("output  {p}");
        }
        let mut list: Vec<(String, usize)> = operators.into_iter().collect();
        list.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        say!("operators  {}", list.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", "));
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
        let density = Density::of(value, last)?;
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
