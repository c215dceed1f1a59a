//! `dnnc explain`: what the compiler decided for a model, and why.

use super::flags::CompileFlags;
use super::output::{outln, print_json, table};
use super::progress;
use clap::Args;
use dnnc::kir::program::Choice;
use dnnc::kir::program::calls;
use dnnc::{Built, Error, Options};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// Explain what the compiler does with a model: rewrites, fused kernels, algorithms
///
/// Three tables: the rewrite rules that fired; the rules that nearly applied, with the condition that failed; and the steps of the program, with their kernels
/// and, where an operator has several algorithms, the predicted time of each, that of the chosen one first.
///
/// Example: dnnc explain model.onnx --target cortex-a72
#[derive(Args)]
pub struct Explain {
    /// The model
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileFlags,
}

/// What was decided for one shape of the inputs.
#[derive(Serialize)]
struct Report {
    rewrites: Option<Rewrites>,
    steps: Vec<Step>,
    staged: bool,
}

/// What was decided for one combination of dimensions.
#[derive(Serialize)]
struct Variant {
    dims: BTreeMap<String, usize>,
    explained: Report,
}

/// What the e-graph did.
#[derive(Serialize)]
struct Rewrites {
    predicted_us_before: f64,
    predicted_us_after: f64,
    iterations: usize,
    nodes: usize,
    fired: BTreeMap<&'static str, usize>,
    near_misses: Vec<NearMiss>,
}

#[derive(Serialize)]
struct NearMiss {
    rule: &'static str,
    node: String,
    why: &'static str,
}

#[derive(Serialize)]
struct Step {
    step: String,
    node: String,
    kernel: String,
    tasks: usize,
    work: u64,
    algorithm: Option<Algorithm>,
}

#[derive(Serialize)]
struct Algorithm {
    name: String,
    considered_us: BTreeMap<String, f64>,
    measured: bool,
    density: Option<f64>,
    density_4x1: Option<f64>,
    density_8x1: Option<f64>,
}

impl Explain {
    pub fn run(self) -> Result<ExitCode, Error> {
        let options = self.compile.options()?;
        let (model, inputs) = self.compile.load(&self.model, &options)?;
        let mut variants = vec![];
        for (variant, shapes) in inputs.shapes.iter().enumerate() {
            let stage = model.specialise(shapes)?;
            let built = progress::with_spinner("compiling", || dnnc::build(&stage.graph, "model", &options))?;
            let explained = Report::new(&built, stage.cut.is_some());
            if !self.json {
                if !inputs.open.is_empty() {
                    outln!("{}{}", if variant > 0 { "\n" } else { "" }, inputs.label(variant));
                }
                explained.print(&built, &options);
            }
            let dims = inputs.dims(variant).into_iter().map(|(name, value)| (name.to_string(), value)).collect();
            variants.push(Variant { dims, explained });
        }
        match &variants[..] {
            _ if !self.json => {}
            [one] if inputs.open.is_empty() => print_json(&one.explained),
            several => print_json(&several),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Report {
    fn new(built: &Built, staged: bool) -> Report {
        let near_miss = |m: &dnnc::rewrites::NearMiss| NearMiss { rule: m.rule, node: m.node.clone(), why: m.why };
        let rewrites = built.report.as_ref().map(|r| Rewrites {
            predicted_us_before: r.before / 1e3,
            predicted_us_after: r.after / 1e3,
            iterations: r.iterations,
            nodes: r.nodes,
            fired: r.fired.iter().map(|(rule, n)| (*rule, *n)).collect(),
            near_misses: r.near_misses.iter().map(near_miss).collect(),
        });
        let step = |c: &&dnnc::kir::program::Call| Step {
            step: c.label.clone(),
            node: c.node.clone(),
            kernel: built.program.kernels[c.kernel].name.clone(),
            tasks: c.tasks,
            work: c.work,
            algorithm: c.choice.as_ref().map(Algorithm::new),
        };
        Report { rewrites, steps: calls(&built.program.steps).iter().map(step).collect(), staged }
    }

    fn print(&self, built: &Built, options: &Options) {
        match &self.rewrites {
            Some(rewrites) => rewrites.print(),
            None => outln!("no rewrites (--no-rewrites)"),
        }
        let steps = calls(&built.program.steps);
        let mut out = table(&["step", "kernel", "tasks", "node", "algorithm (µs)"]);
        for (s, call) in self.steps.iter().zip(&steps) {
            let choice = call.choice.as_ref().map_or(String::new(), describe);
            out.add_row([s.step.clone(), s.kernel.clone(), s.tasks.to_string(), s.node.clone(), choice]);
        }
        outln!("{out}");
        if let Some(plan) = built.notes.threads {
            let serial = steps.iter().filter(|c| c.alone || c.tasks == 1).count();
            outln!(
                "runs on {} of {} threads: predicted {:.3} ms in parallel against {:.3} ms on one; {serial} of {} steps are serial",
                plan.threads,
                options.threads,
                plan.together_ns / 1e6,
                plan.alone_ns / 1e6,
                steps.len()
            );
        }
        let (in_place, copied) = built.notes.concat;
        if in_place + copied > 0 {
            outln!("concatenation: {in_place} operands are written in place, {copied} are copied");
        }
        if self.staged {
            outln!("a shape depends on data: this is the part before it; `dnnc run` compiles the rest when it knows the shape");
        }
    }
}

impl Rewrites {
    fn print(&self) {
        outln!(
            "predicted {:.1} µs as imported, {:.1} µs as rewritten; {} iterations, {} nodes in the largest e-graph",
            self.predicted_us_before,
            self.predicted_us_after,
            self.iterations,
            self.nodes
        );
        let mut fired: Vec<(&str, usize)> = self.fired.iter().map(|(rule, n)| (*rule, *n)).collect();
        fired.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let mut out = table(&["rule", "fired"]);
        for (rule, n) in fired {
            out.add_row([rule.to_string(), n.to_string()]);
        }
        outln!("{out}");
        if self.near_misses.is_empty() {
            return;
        }
        let mut out = table(&["rule that nearly applied", "node", "why not"]);
        for m in &self.near_misses {
            out.add_row([m.rule, &m.node, m.why]);
        }
        outln!("{out}");
    }
}

impl Algorithm {
    fn new(choice: &Choice) -> Algorithm {
        Algorithm {
            name: choice.name.clone(),
            considered_us: choice.considered.iter().map(|(n, ns)| (n.clone(), ns / 1e3)).collect(),
            measured: choice.measured,
            density: choice.density.map(|d| d.elements),
            density_4x1: choice.density.map(|d| d.fours),
            density_8x1: choice.density.map(|d| d.eights),
        }
    }
}

/// The algorithms with their times, the chosen one first: `winograd F(4,3) 812, direct 2130`.
fn describe(choice: &Choice) -> String {
    let mut considered: Vec<&(String, f64)> = choice.considered.iter().collect();
    considered.sort_by_key(|c| c.0 != choice.name);
    let text: Vec<String> = considered.iter().map(|(name, ns)| format!("{name} {:.1}", ns / 1e3)).collect();
    let sparsity = choice.density.map_or(String::new(), |d| {
        format!("; {:.0} % not 0, 8x1 blocks {:.0} %, 4x1 {:.0} %", d.elements * 100.0, d.eights * 100.0, d.fours * 100.0)
    });
    text.join(", ") + if choice.measured { " (measured)" } else { "" } + &sparsity
}
