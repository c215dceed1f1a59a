use super::{Building, print_json};
use clap::Args;
use dnnc::{Error, Tensor, tensors};
use std::io::IsTerminal;
use std::path::PathBuf;

/// Compile a model in memory and run it on inputs from files
#[derive(Args)]
pub struct Run {
    /// The model
    model: PathBuf,
    /// Inputs in the model's order (.npy, .npz or .pb), or NAME=FILE; none: only compile, or run a model without inputs
    inputs: Vec<String>,
    /// Write the results here, as output_0.pb, …
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Write results as NumPy arrays (.npy) instead of .pb
    #[arg(long, requires = "output_dir")]
    npy: bool,
    /// Threads to run on
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    building: Building,
}

/// Values of a result that are shown.
const SHOWN: usize = 5;

impl Run {
    pub fn run(self) -> Result<(), Error> {
        let options = self.building.options(self.threads)?;
        let model = super::jit_model(&self.model, &options)?;
        if self.inputs.is_empty() && !model.inputs().is_empty() {
            // Nothing to run on: what can be found out without data is found out.
            let (shapes, _) = self.building.one(model.inputs(), &options, "`dnnc run` prepares")?;
            super::progress::while_doing("compiling", || model.prepare(&shapes))?;
            if !self.json {
                say!("compiled; give {} to run it", describe_inputs(&model));
            }
            return Ok(());
        }
        let inputs = tensors::read_inputs(model.inputs(), &self.inputs, &options.limits)?;
        let results = super::progress::while_doing("compiling and running", || model.run(&inputs))?;
        let names: Vec<String> = model.outputs().iter().map(|p| p.name.clone()).collect();
        if let Some(dir) = &self.output_dir {
            std::fs::create_dir_all(dir).map_err(|e| Error::File { path: dir.clone(), source: e })?;
            for (i, (name, tensor)) in names.iter().zip(&results).enumerate() {
                tensors::write(&dir.join(format!("output_{i}.{}", if self.npy { "npy" } else { "pb" })), name, tensor)?;
            }
        }
        if self.json {
            let rows: Vec<serde_json::Value> = names
                .iter()
                .zip(&results)
                .map(|(n, t)| serde_json::json!({"name": n, "type": t.ty().ty.name(), "shape": t.shape(), "values": t.to_f64s()}))
                .collect();
            print_json(&rows.into());
        } else if self.output_dir.is_none() || std::io::stdout().is_terminal() {
            for (name, tensor) in names.iter().zip(&results) {
                show(name, tensor);
            }
        }
        Ok(())
    }
}

fn describe_inputs(model: &dnnc::Model) -> String {
    model.inputs().iter().map(|p| format!("`{}` ({})", p.name, dnnc::describe(p))).collect::<Vec<_>>().join(", ")
}

/// The largest values of a result with their places: what a person asks of a classifier first.
fn show(name: &str, tensor: &Tensor) {
    say!("{name}: {}", tensor.ty());
    let numbers = tensor.to_f64s();
    if numbers.len() <= SHOWN {
        say!("  {numbers:?}");
        return;
    }
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[b].total_cmp(&numbers[a]).then(a.cmp(&b)));
    for &i in &order[..SHOWN] {
        let mut rest = i;
        let place: Vec<String> = tensor
            .ty()
            .strides()
            .iter()
            .map(|s| {
                let at = rest / s;
                rest %= s;
                at.to_string()
            })
            .collect();
        say!("  [{}] {}", place.join(","), numbers[i]);
    }
    say!("  … of {} values, mean {:.6}", numbers.len(), numbers.iter().sum::<f64>() / numbers.len() as f64);
}
