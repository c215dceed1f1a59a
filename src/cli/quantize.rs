//! `dnnc quantize`: a network of 8-bit integers from calibration data.

use super::flags::CompileFlags;
use super::output::{bytes, outln, print_json, table};
use super::samples::{Kept, SampleFlags};
use clap::Args;
use dnnc::Error;
use dnnc::compress::quantize::{Format, Plan, RangeMethod, quantize};
use dnnc::frontend::Draft;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Quantise a network to 8-bit integers, from a few hundred inputs and without training
///
/// OUT is a standard ONNX model with QuantizeLinear and DequantizeLinear (QDQ), which other runtimes read, too. Normalisations are merged into convolutions
/// first. Ranges of activations and the correction of biases are chosen by the signal-to-noise ratio of the outputs on the calibration inputs.
///
/// Example: dnnc quantize model.onnx --calib images.npy --scale 255 -o model-int8.onnx
#[derive(Args)]
#[command(after_help = "Examples:
  dnnc quantize m.onnx --calib x.npy -o q.onnx                               8-bit activations and weights
  dnnc quantize m.onnx --calib x.npy --eval e.npy --labels l.npy -o q.onnx   and top-1 before and after
  dnnc quantize m.onnx --calib x.npy --keep conv1 -o q.onnx                  a node stays in floats
  dnnc quantize m.onnx --calib x.npy --format dfp8 -o q.onnx                 scales that are powers of two")]
pub struct Quantize {
    /// The model
    model: PathBuf,
    /// Where the network is written (.onnx)
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// What numbers become: int8 (activations and weights), int8w (weights alone), dfp8 (dynamic fixed point: scales are powers of two)
    #[arg(long, value_enum, default_value_t = Wanted::Int8, hide_possible_values = true)]
    format: Wanted,
    /// How ranges of activations are found [default: the best of all]
    #[arg(long, value_enum)]
    range: Option<Range>,
    /// One scale for all weights of a layer instead of one for each output
    #[arg(long)]
    per_tensor: bool,
    /// Name of a node that stays in floats; may be given several times
    #[arg(long, value_name = "NODE")]
    keep: Vec<String>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    samples: SampleFlags,
    #[command(flatten)]
    compile: CompileFlags,
}

#[derive(clap::ValueEnum, Clone, Copy)]
enum Wanted {
    Int8,
    Int8w,
    Dfp8,
}

#[derive(clap::ValueEnum, Clone, Copy)]
enum Range {
    MinMax,
    Percentile,
    LeastSquares,
}

/// What was done.
#[derive(Serialize)]
struct Report {
    model_bytes: usize,
    output_bytes: usize,
    choice: String,
    output_snr_db: f64,
    top1_before: Option<f64>,
    top1_after: Option<f64>,
    layers: Vec<Row>,
    kept: Vec<Kept>,
}

#[derive(Serialize)]
struct Row {
    layer: String,
    weight_snr_db: f64,
    input_saturation: Option<f64>,
}

impl Quantize {
    pub fn run(self) -> Result<ExitCode, Error> {
        let options = self.compile.options()?;
        if self.output.extension().is_none_or(|e| e != "onnx") {
            return Err(Error::Usage(format!(
                "{}: what is written is an ONNX model; give a name that ends in .onnx",
                self.output.display()
            )));
        }
        let model = dnnc::compile(&self.model, &options)?;
        let draft = Draft::load(&self.model, &options.limits).map_err(Error::Usage)?;
        let views = draft.views();
        if let Some(unknown) = self.keep.iter().find(|k| views.iter().all(|n| n.shown() != **k)) {
            return Err(Error::Usage(format!("--keep {unknown}: the model has no node of that name")));
        }
        let mut runner = self.samples.calibration(&model, &options)?;
        let mut evaluation = self.samples.evaluation(&model, &options)?;
        let before = evaluation.as_mut().map(|e| e.accuracy(&draft)).transpose()?;
        let plan = Plan {
            format: match self.format {
                Wanted::Int8 => Format::Int8,
                Wanted::Int8w => Format::Int8Weights,
                Wanted::Dfp8 => Format::FixedPoint8,
            },
            range: self.range.map(|r| match r {
                Range::MinMax => RangeMethod::MinMax,
                Range::Percentile => RangeMethod::Percentile,
                Range::LeastSquares => RangeMethod::LeastSquares,
            }),
            per_tensor: self.per_tensor,
            keep: self.keep.clone(),
        };
        let done = quantize(&draft, &plan, &options.limits, &mut runner).map_err(Error::Usage)?;
        let after = evaluation.as_mut().map(|e| e.accuracy(&done.draft)).transpose()?;
        let file = done.draft.bytes();
        dnnc::files::write(&self.output, &file)?;
        let row =
            |l: dnnc::compress::quantize::LayerReport| Row { layer: l.layer, weight_snr_db: l.weight_snr, input_saturation: l.saturation };
        let report = Report {
            model_bytes: draft.bytes().len(),
            output_bytes: file.len(),
            choice: done.choice,
            output_snr_db: done.snr,
            top1_before: before,
            top1_after: after,
            layers: done.layers.into_iter().map(row).collect(),
            kept: done.kept.into_iter().map(|(node, reason)| Kept { node, reason }).collect(),
        };
        if self.json {
            print_json(&report)
        } else {
            report.print()
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Report {
    fn print(&self) {
        let mut t = table(&["layer", "weights", "input beyond range"]);
        for l in &self.layers {
            let saturation = l.input_saturation.map_or("float".into(), |s| format!("{:.3} %", s * 100.0));
            t.add_row([l.layer.clone(), format!("{:.1} dB", l.weight_snr_db), saturation]);
        }
        outln!("{t}");
        for k in &self.kept {
            outln!("kept {}: {}", k.node, k.reason);
        }
        outln!("{}", self.choice);
        outln!(
            "{} from {}; signal-to-noise ratio of the outputs {:.1} dB",
            bytes(self.output_bytes),
            bytes(self.model_bytes),
            self.output_snr_db
        );
        if let (Some(before), Some(after)) = (self.top1_before, self.top1_after) {
            outln!("top-1 {:.2} %, was {:.2} %", after * 100.0, before * 100.0);
        }
    }
}
