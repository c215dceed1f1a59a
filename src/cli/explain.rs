use super::{Building, print_json, table};
use clap::Args;
use dnnc::Error;
use std::path::PathBuf;

/// Say which rewrites fired, which nearly did and why not, and what became one kernel
#[derive(Args)]
pub struct Explain {
    /// The model
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    building: Building,
}

impl Explain {
    pub fn run(self) -> Result<(), Error> {
        let options = self.building.options(1);
        let (model, shapes) = self.building.bound(&self.model, &options)?;
        let stage = model.specialise(&shapes)?;
        let built = super::progress::while_doing("compiling", || dnnc::build(&stage.graph, "model", &options))?;
        let steps = dnnc::codegen::program::calls(&built.program.steps);
        if self.json {
            let report = built.report.as_ref().map(|r| r.to_json());
            let steps: Vec<serde_json::Value> = steps
                .iter()
                .map(|c| {
                    serde_json::json!({"step": c.label, "node": c.node, "kernel": built.program.kernels[c.kernel].name, "tasks": c.tasks, "work": c.work})
                })
                .collect();
            print_json(&serde_json::json!({"rewrites": report, "steps": steps}));
            return Ok(());
        }
        match &built.report {
            Some(report) => println!("{report}"),
            None => println!("no rewrites (--plain)"),
        }
        let mut out = table(&["step", "kernel", "tasks", "node"]);
        for c in steps {
            out.add_row([c.label.clone(), built.program.kernels[c.kernel].name.clone(), c.tasks.to_string(), c.node.clone()]);
        }
        println!("{out}");
        let (placed, copied) = built.notes.concat;
        if placed + copied > 0 {
            println!("concatenation: {placed} operands are made in place, {copied} are copied");
        }
        Ok(())
    }
}
