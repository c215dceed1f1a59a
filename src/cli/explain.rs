use super::{Building, print_json, table};
use clap::Args;
use dnnc::Error;
use dnnc::kir::program::Choice;
use std::path::PathBuf;

/// Say which rewrites fired, which nearly did and why not, and what became one kernel
#[derive(Args)]
pub struct Explain {
    /// The model
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Threads that work is cut for
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[command(flatten)]
    building: Building,
}

impl Explain {
    pub fn run(self) -> Result<(), Error> {
        let options = self.building.options(self.threads)?;
        let (model, sizes) = self.building.bound(&self.model, &options)?;
        let mut all = vec![];
        for (variant, shapes) in sizes.shapes.iter().enumerate() {
            let stage = model.specialise(shapes)?;
            let built = super::progress::while_doing("compiling", || dnnc::build(&stage.graph, "model", &options))?;
            if !sizes.open.is_empty() && !self.json {
                say!("{}{}", if variant > 0 { "\n" } else { "" }, sizes.label(variant));
            }
            let Some(said) = self.one(&built, stage.cut.is_some(), &options) else { continue };
            all.push(if sizes.open.is_empty() { said } else { serde_json::json!({"dims": sizes.of(variant), "explained": said}) });
        }
        if self.json {
            print_json(&if sizes.open.is_empty() { all.remove(0) } else { all.into() });
        }
        Ok(())
    }

    /// Says it, or gives it as JSON.
    fn one(&self, built: &dnnc::Built, staged: bool, options: &dnnc::Options) -> Option<serde_json::Value> {
        let steps = dnnc::kir::program::calls(&built.program.steps);
        if self.json {
            let report = built.report.as_ref().map(|r| {
                let fired: serde_json::Map<String, serde_json::Value> =
                    r.fired.iter().map(|(rule, n)| (rule.to_string(), (*n).into())).collect();
                let missed: Vec<serde_json::Value> =
                    r.near_misses.iter().map(|m| serde_json::json!({"rule": m.rule, "node": m.node, "why": m.why})).collect();
                serde_json::json!({
                    "predicted_us_before": r.before / 1e3, "predicted_us_after": r.after / 1e3, "iterations": r.iterations, "nodes": r.nodes,
                    "fired": fired, "near_misses": missed,
                })
            });
            let steps: Vec<serde_json::Value> = steps
                .iter()
                .map(|c| {
                    serde_json::json!({"step": c.label, "node": c.node, "kernel": built.program.kernels[c.kernel].name, "tasks": c.tasks, "work": c.work, "algorithm": c.choice.as_ref().map(algorithm)})
                })
                .collect();
            return Some(serde_json::json!({"rewrites": report, "steps": steps, "staged": staged}));
        }
        match &built.report {
            Some(report) => show(report),
            None => say!("no rewrites (--plain)"),
        }
        let mut out = table(&["step", "kernel", "tasks", "node", "algorithm (µs)"]);
        for c in &steps {
            let kernel = built.program.kernels[c.kernel].name.clone();
            let choice = c.choice.as_ref().map_or(String::new(), describe);
            out.add_row([c.label.clone(), kernel, c.tasks.to_string(), c.node.clone(), choice]);
        }
        say!("{out}");
        if let Some(plan) = built.notes.threads {
            let alone = steps.iter().filter(|c| c.alone || c.tasks == 1).count();
            say!(
                "runs on {} of {} threads: predicted {:.3} ms together against {:.3} ms on one; {alone} of {} steps by one thread",
                plan.threads,
                options.threads,
                plan.together_ns / 1e6,
                plan.alone_ns / 1e6,
                steps.len()
            );
        }
        let (placed, copied) = built.notes.concat;
        if placed + copied > 0 {
            say!("concatenation: {placed} operands are made in place, {copied} are copied");
        }
        if staged {
            say!("a size depends on data: this is the part before it; `dnnc run` compiles the rest when it knows the size");
        }
        None
    }
}

/// What was taken and what was not: `winograd F(4,3) 812, direct 2130`.
fn describe(choice: &Choice) -> String {
    let mut considered: Vec<&(String, f64)> = choice.considered.iter().collect();
    considered.sort_by_key(|c| c.0 != choice.name);
    let text: Vec<String> = considered.iter().map(|(name, ns)| format!("{name} {:.1}", ns / 1e3)).collect();
    let zeros = choice.density.map_or(String::new(), |d| {
        format!("; {:.0} % not 0, 8x1 blocks {:.0} %, 4x1 {:.0} %", d.elements * 100.0, d.eights * 100.0, d.fours * 100.0)
    });
    text.join(", ") + if choice.measured { " (measured)" } else { "" } + &zeros
}

fn algorithm(choice: &Choice) -> serde_json::Value {
    let considered: serde_json::Map<String, serde_json::Value> =
        choice.considered.iter().map(|(n, ns)| (n.clone(), (ns / 1e3).into())).collect();
    serde_json::json!({"name": choice.name, "considered_us": considered, "measured": choice.measured, "density": choice.density.map(|d| d.elements), "density_4x1": choice.density.map(|d| d.fours), "density_8x1": choice.density.map(|d| d.eights)})
}

fn show(report: &dnnc::rewrites::Report) {
    say!(
        "predicted {:.1} µs as written, {:.1} µs as rewritten; {} iterations, {} nodes in the largest e-graph",
        report.before / 1e3,
        report.after / 1e3,
        report.iterations,
        report.nodes
    );
    let mut fired: Vec<(&str, usize)> = report.fired.iter().map(|(rule, n)| (*rule, *n)).collect();
    fired.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let mut out = table(&["rule", "fired"]);
    for (rule, n) in fired {
        out.add_row([rule.to_string(), n.to_string()]);
    }
    say!("{out}");
    if report.near_misses.is_empty() {
        return;
    }
    let mut out = table(&["rule that nearly applied", "node", "why not"]);
    for m in &report.near_misses {
        out.add_row([m.rule, &m.node, m.why]);
    }
    say!("{out}");
}
