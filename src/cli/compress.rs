//! `dnnc compress`: a smaller network from calibration data.

use super::flags::CompileFlags;
use super::output::{bytes, outln, print_json, table};
use super::samples::{Kept, SampleFlags};
use clap::Args;
use dnnc::Error;
use dnnc::compress::prune::{Compressed, Method, Plan, Survey};
use dnnc::compress::reconstruct::Pattern;
use dnnc::frontend::Draft;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Make a network smaller, from a few hundred inputs and without training
///
/// Weights are removed layer by layer, from the outputs of the layers before; those that stay are solved for again, so that the output changes least. OUT is an
/// ONNX model with zeros, or with the extension .dnnc a compact container that every command takes like a model.
///
/// Example: dnnc compress model.onnx --calib images.npy --scale 255 --prune obs --density 0.25 -o small.dnnc
#[derive(Args)]
#[command(after_help = "Examples:
  dnnc compress m.onnx --calib x.npy --prune obs --density 0.25 -o small.onnx          a quarter of the weights
  dnnc compress m.onnx --calib x.npy --recipe deep-compression --size 15x -o m.dnnc    prune, share, Huffman, to a size
  dnnc compress m.onnx -o m.dnnc                                                       the same network, encoded; nothing is lost")]
pub struct Compress {
    /// The model
    model: PathBuf,
    /// Where the network is written: .onnx, or .dnnc for a compact container
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// How the weights that stay are chosen [default: obs]
    #[arg(long, value_enum)]
    prune: Option<Prune>,
    /// How zeros are grouped: any, groups (8 outputs), 2:4, 8x1 (outputs), 1x8 (inputs)
    #[arg(long, default_value = "any", value_parser = pattern)]
    pattern: Pattern,
    /// The fraction of the weights that stays, over all layers
    #[arg(long, value_name = "D", value_parser = density, conflicts_with = "size")]
    density: Option<f64>,
    /// How many times smaller the file becomes than the model, e.g. 15x; only for a container
    #[arg(long, value_name = "TIMES", value_parser = times)]
    size: Option<f64>,
    /// The smallest density that loses at most this accuracy on --eval, in points of per cent, e.g. 0.5%
    #[arg(long, value_name = "LOSS", value_parser = loss, requires = "eval", conflicts_with_all = ["density", "size"])]
    max_loss: Option<f64>,
    /// Bits of the codebook of each layer: weights share 2^BITS values
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(1..=8))]
    share: Option<u32>,
    /// A list of steps: deep-compression is obs, --share 5 and, unless given, --density 0.25
    #[arg(long, value_enum)]
    recipe: Option<Recipe>,
    /// Part of the mean energy of an input that is added to each, against chance in few samples
    #[arg(long, value_name = "PART", default_value_t = 0.01)]
    damping: f64,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    samples: SampleFlags,
    #[command(flatten)]
    compile: CompileFlags,
}

#[derive(clap::ValueEnum, Clone, Copy)]
enum Prune {
    Magnitude,
    Wanda,
    Obs,
    Admm,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq)]
enum Recipe {
    DeepCompression,
}

fn pattern(text: &str) -> Result<Pattern, String> {
    Ok(match text {
        "any" => Pattern::Any,
        "groups" | "8x1" => Pattern::Outputs(8),
        "1x8" => Pattern::Inputs(8),
        "2:4" => Pattern::Of { keep: 2, of: 4 },
        _ => return Err("there are any, groups, 2:4, 8x1, 1x8".into()),
    })
}

fn density(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|d| *d > 0.0 && *d <= 1.0).ok_or_else(|| "a number above 0 and at most 1".into())
}

fn loss(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|t| t.parse::<f64>().ok()).filter(|l| (0.0..100.0).contains(l));
    number.map(|l| l / 100.0).ok_or_else(|| "a loss in per cent, e.g. 0.5%".into())
}

fn times(text: &str) -> Result<f64, String> {
    text.trim_end_matches('x').parse().ok().filter(|t: &f64| *t >= 1.0 && t.is_finite()).ok_or_else(|| "a number of times, e.g. 10x".into())
}

/// What was done.
#[derive(Serialize)]
struct Report {
    model_bytes: usize,
    output_bytes: usize,
    times_smaller: f64,
    density: f64,
    top1_before: Option<f64>,
    top1_after: Option<f64>,
    layers: Vec<Row>,
    kept: Vec<Kept>,
}

#[derive(Serialize)]
struct Row {
    layer: String,
    inputs: usize,
    outputs: usize,
    density: f64,
    error: f64,
}

impl Compress {
    pub fn run(self) -> Result<ExitCode, Error> {
        let options = self.compile.options()?;
        let container = match self.output.extension().and_then(|e| e.to_str()) {
            Some("dnnc") => true,
            Some("onnx") => false,
            _ => return Err(Error::Usage(format!("{}: the extension says what is written: .onnx or .dnnc", self.output.display()))),
        };
        if self.size.is_some() && !container {
            return Err(Error::Usage("--size is for a container: an ONNX file holds its zeros; give an output that ends in .dnnc".into()));
        }
        let model = dnnc::compile(&self.model, &options)?;
        let draft = Draft::load(&self.model, &options.limits).map_err(Error::Usage)?;
        let before = draft.bytes().len();
        let deep = self.recipe == Some(Recipe::DeepCompression);
        let work = deep || self.prune.is_some() || self.density.is_some() || self.size.is_some() || self.share.is_some();
        let encode = |c: &Draft| if container { c.container().0 } else { c.bytes() };
        let mut top1 = (None, None);
        let (done, file) = if work {
            let mut runner = self.samples.calibration(&model, &options)?;
            let survey = Survey::new(&draft, &options.limits, &mut runner).map_err(Error::Usage)?;
            let plan = |density| Plan {
                method: match self.prune.unwrap_or(Prune::Obs) {
                    Prune::Magnitude => Method::Magnitude,
                    Prune::Wanda => Method::Wanda,
                    Prune::Obs => Method::Obs,
                    Prune::Admm => Method::Admm,
                },
                pattern: self.pattern,
                density,
                share_bits: self.share.or(deep.then_some(5)),
                damping: self.damping,
            };
            let mut eval = self.samples.evaluation(&model, &options)?;
            if let Some(eval) = &mut eval {
                top1.0 = Some(eval.accuracy(&draft)?);
            }
            let mut attempt = |density| survey.compress(&plan(density), &mut runner).map(|c| (encode(&c.draft), c)).map_err(Error::Usage);
            let (file, done) = match (self.size, self.max_loss) {
                (Some(times), _) => {
                    let mut least = usize::MAX;
                    let found = search(&mut attempt, Wish::Largest, &mut |made| {
                        least = least.min(made.0.len());
                        Ok(made.0.len() as f64 * times <= before as f64)
                    })?;
                    found.ok_or_else(|| {
                        let can = before as f64 / least as f64;
                        Error::Usage(format!(
                            "--size {times}x cannot be reached: the smallest file that was made is {can:.1} times smaller"
                        ))
                    })?
                }
                (None, Some(loss)) => {
                    let (Some(eval), Some(before)) = (&mut eval, top1.0) else {
                        return Err(Error::Usage("--max-loss needs --eval".into()));
                    };
                    let mut best = 0f64;
                    let found = search(&mut attempt, Wish::Smallest, &mut |made| {
                        let after = eval.accuracy(&made.1.draft)?;
                        best = best.max(after);
                        Ok(after >= before - loss - 1e-9)
                    })?;
                    found.ok_or_else(|| {
                        Error::Usage(format!(
                            "--max-loss cannot be reached: the best that was made has top-1 {:.2} %, the model {:.2} %",
                            best * 100.0,
                            before * 100.0
                        ))
                    })?
                }
                _ => attempt(self.density.unwrap_or(if deep { 0.25 } else { 1.0 }))?,
            };
            if let Some(eval) = &mut eval {
                top1.1 = Some(eval.accuracy(&done.draft)?);
            }
            (Some(done), file)
        } else {
            (None, encode(&draft))
        };
        dnnc::files::write(&self.output, &file)?;
        let report = Report::new(before, file.len(), top1, done);
        if self.json {
            print_json(&report)
        } else {
            report.print()
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Which of the densities that are good enough is wanted.
#[derive(PartialEq)]
enum Wish {
    Largest,
    Smallest,
}

/// A density between 0 and 1 whose network is good enough, by nine halvings: the largest, where small ones are; or the smallest, where large ones are.
fn search(
    attempt: &mut dyn FnMut(f64) -> Result<(Vec<u8>, Compressed), Error>,
    wish: Wish,
    good: &mut dyn FnMut(&(Vec<u8>, Compressed)) -> Result<bool, Error>,
) -> Result<Option<(Vec<u8>, Compressed)>, Error> {
    let (mut low, mut high, mut best) = (0.0, 1.0, None);
    for _ in 0..9 {
        let middle = (low + high) / 2.0;
        let made = attempt(middle)?;
        let fits = good(&made)?;
        if fits == (wish == Wish::Largest) {
            low = middle
        } else {
            high = middle
        }
        best = if fits { Some(made) } else { best };
    }
    Ok(best)
}

impl Report {
    fn new(model_bytes: usize, output_bytes: usize, top1: (Option<f64>, Option<f64>), done: Option<Compressed>) -> Report {
        let (layers, kept) = done.map_or((vec![], vec![]), |d| (d.layers, d.kept));
        let weights: f64 = layers.iter().map(|l| (l.size.0 * l.size.1) as f64).sum();
        let stay: f64 = layers.iter().map(|l| l.density * (l.size.0 * l.size.1) as f64).sum();
        let row = |l: dnnc::compress::prune::Outcome| Row {
            layer: l.layer,
            inputs: l.size.0,
            outputs: l.size.1,
            density: l.density,
            error: l.error,
        };
        Report {
            model_bytes,
            output_bytes,
            times_smaller: model_bytes as f64 / output_bytes as f64,
            density: if weights > 0.0 { stay / weights } else { 1.0 },
            top1_before: top1.0,
            top1_after: top1.1,
            layers: layers.into_iter().map(row).collect(),
            kept: kept.into_iter().map(|(node, reason)| Kept { node, reason }).collect(),
        }
    }

    fn print(&self) {
        if !self.layers.is_empty() {
            let mut t = table(&["layer", "weights", "density", "error"]);
            for l in &self.layers {
                let error = format!("{:.2} %", l.error * 100.0);
                t.add_row([l.layer.clone(), format!("{}×{}", l.inputs, l.outputs), format!("{:.3}", l.density), error]);
            }
            outln!("{t}");
        }
        for k in &self.kept {
            outln!("kept {}: {}", k.node, k.reason);
        }
        outln!("{} from {}: {:.1} times smaller", bytes(self.output_bytes), bytes(self.model_bytes), self.times_smaller);
        if let (Some(before), Some(after)) = (self.top1_before, self.top1_after) {
            outln!("top-1 {:.2} %, was {:.2} %", after * 100.0, before * 100.0);
        }
    }
}
