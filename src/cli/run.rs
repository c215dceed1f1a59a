//! `dnnc run`: a model in memory, on inputs from files.

use super::flags::CompileFlags;
use super::output::{outln, print_json};
use super::pack::{self, PackFlags};
use super::progress;
use clap::Args;
use dnnc::{Error, Tensor, tensors};
use serde::Serialize;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// Compile a model in memory and run it on inputs from files
///
/// Without --output-dir the largest values of each result are printed.
///
/// Example: dnnc run classifier.onnx image=photo.npy --output-dir results --npy
#[derive(Args)]
pub struct Run {
    /// The model
    model: PathBuf,
    /// Inputs in the model's order (.npy, .npz or .pb), or NAME=FILE; without any, the model is only compiled, unless it has no inputs
    inputs: Vec<String>,
    /// Write the results to this folder, as output_0.pb, …
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Write results as NumPy arrays (.npy) instead of .pb
    #[arg(long, requires = "output_dir")]
    npy: bool,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pack: PackFlags,
    #[command(flatten)]
    compile: CompileFlags,
}

/// One result.
#[derive(Serialize)]
struct Row {
    name: String,
    #[serde(rename = "type")]
    ty: &'static str,
    shape: Vec<usize>,
    values: Vec<f64>,
}

/// Number of values of a result that are printed.
const SHOWN: usize = 5;

impl Run {
    pub fn run(self) -> Result<ExitCode, Error> {
        let options = self.compile.options()?;
        if dnnc::pack::is_pack(&self.model) {
            let Some(name) = self.pack.only.as_ref().filter(|_| !self.pack.cold) else {
                if !self.inputs.is_empty() || self.pack.only.is_some() {
                    return Err(Error::Usage("inputs are for one model of a pack (--model NAME), without --cold".into()));
                }
                pack::run_all(&self.model, &self.pack, self.json)?;
                return Ok(ExitCode::SUCCESS);
            };
            let (names, results) = pack::run_one(&self.model, name, &self.inputs, options.threads, &options.limits)?;
            return self.report(names, &results);
        }
        if self.pack.given() {
            return Err(Error::Usage(format!("{}: not a pack; --model, --cold and --ram are for packs", self.model.display())));
        }
        let model = dnnc::compile(&self.model, &options)?;
        if self.inputs.is_empty() && !model.inputs().is_empty() {
            // What can be checked without data is checked.
            let (shapes, _) = self.compile.single_shapes(model.inputs(), &options, "`dnnc run` prepares")?;
            progress::with_spinner("compiling", || model.prepare(&shapes))?;
            if !self.json {
                outln!("compiled; give {} to run it", describe_inputs(&model));
            }
            return Ok(ExitCode::SUCCESS);
        }
        let inputs = tensors::read_inputs(model.inputs(), &self.inputs, &options.limits)?;
        let results = progress::with_spinner("compiling and running", || model.run(&inputs))?;
        self.report(model.outputs().iter().map(|p| p.name.clone()).collect(), &results)
    }

    fn report(&self, names: Vec<String>, results: &[Tensor]) -> Result<ExitCode, Error> {
        if let Some(dir) = &self.output_dir {
            std::fs::create_dir_all(dir).map_err(|e| Error::File { path: dir.clone(), source: e })?;
            for (i, (name, tensor)) in names.iter().zip(results).enumerate() {
                tensors::write(&dir.join(format!("output_{i}.{}", if self.npy { "npy" } else { "pb" })), name, tensor)?;
            }
        }
        if self.json {
            let row = |(name, t): (String, &Tensor)| Row { name, ty: t.ty().ty.name(), shape: t.shape().to_vec(), values: t.to_f64s() };
            print_json(&names.into_iter().zip(results).map(row).collect::<Vec<_>>());
        } else if self.output_dir.is_none() || std::io::stdout().is_terminal() {
            for (name, tensor) in names.iter().zip(results) {
                show(name, tensor);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn describe_inputs(model: &dnnc::Model) -> String {
    model.inputs().iter().map(|p| format!("`{}` ({})", p.name, dnnc::describe(p))).collect::<Vec<_>>().join(", ")
}

/// Prints the largest values of a result with their indices: the classes of a classifier.
fn show(name: &str, tensor: &Tensor) {
    outln!("{name}: {}", tensor.ty());
    let numbers = tensor.to_f64s();
    if numbers.len() <= SHOWN {
        outln!("  {numbers:?}");
        return;
    }
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[b].total_cmp(&numbers[a]).then(a.cmp(&b)));
    for &i in &order[..SHOWN] {
        let mut rest = i;
        let mut index = |stride: &usize| {
            let at = rest / stride;
            rest %= stride;
            at.to_string()
        };
        let indices: Vec<String> = tensor.ty().strides().iter().map(&mut index).collect();
        outln!("  [{}] {}", indices.join(","), numbers[i]);
    }
    outln!("  … of {} values, mean {:.6}", numbers.len(), numbers.iter().sum::<f64>() / numbers.len() as f64);
}
