//! `dnnc bench`: latency, the time of each step, and predicted against measured times.

use super::flags::CompileFlags;
use super::output::{bytes, count, outln, print_json, table};
use super::progress;
use clap::Args;
use dnnc::ir::{Class, Kind};
use dnnc::{Error, StepTime, machine_peak, tensors};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Measure the latency of a model
///
/// The first line is `latency_ms: X`, the median over runs with buffers that are reused; then come the fastest run and the 95th percentile. With --layers,
/// a table of the steps follows: operators that are fused into one kernel are one step.
///
/// Example: dnnc bench model.onnx --dim batch=1 --threads 2 --layers
#[derive(Args)]
pub struct Bench {
    /// The model
    model: PathBuf,
    /// Inputs (.npy, .npz, .pb or NAME=FILE); without any, made-up numbers, the same every time
    inputs: Vec<String>,
    /// How long to measure
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Print the time of each step, with its fraction of the machine's peak
    #[arg(long)]
    layers: bool,
    /// Print the time of each step as the compiler predicted it, and the error of the prediction by kernel family
    ///
    /// The error of a step is how much larger the larger of predicted and measured time is, in percent. An operator of several kernels is one step here.
    #[arg(long)]
    predicted: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileFlags,
}

/// What was measured.
#[derive(Serialize)]
struct Report {
    latency_ms: f64,
    min_ms: f64,
    p95_ms: f64,
    runs: usize,
    first_ms: f64,
    compile_ms: f64,
    threads: usize,
    arena_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<Vec<Layer>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted: Option<Forecasts>,
}

/// One step.
#[derive(Serialize)]
struct Layer {
    step: String,
    node: String,
    ms: f64,
    predicted_ms: f64,
    work: u64,
    bytes: u64,
    tasks: usize,
}

/// Predicted against measured times.
#[derive(Serialize)]
struct Forecasts {
    steps: Vec<Forecast>,
    /// By kernel family; the last row is that of all steps.
    families: Vec<Accuracy>,
}

/// The predicted and measured time of one operator, or of several that are fused.
#[derive(Serialize)]
struct Forecast {
    step: String,
    node: String,
    family: String,
    ms: f64,
    predicted_ms: f64,
    error_percent: f64,
}

/// The errors of predictions.
#[derive(Serialize)]
struct Accuracy {
    family: String,
    steps: usize,
    ms: f64,
    predicted_ms: f64,
    median_error_percent: f64,
    p90_error_percent: f64,
}

impl Bench {
    pub fn run(self) -> Result<ExitCode, Error> {
        let options = self.compile.options()?;
        if self.predicted && options.threads > 1 {
            return Err(Error::Usage("--predicted: times are predicted for one thread; leave out --threads".into()));
        }
        let start = Instant::now();
        let model = dnnc::compile(&self.model, &options)?;
        let inputs = if self.inputs.is_empty() {
            let (shapes, assumed) = self.compile.single_shapes(model.inputs(), &options, "`dnnc bench` measures")?;
            for name in assumed {
                eprintln!("note: dimension {name} is not given; measured at 1 (--dim sets it)");
            }
            dnnc::sample_inputs(model.inputs(), &shapes)
        } else {
            tensors::read_inputs(model.inputs(), &self.inputs, &options.limits)?
        };
        let mut session = progress::with_spinner("compiling", || model.into_session(&inputs))?;
        let compile = start.elapsed();
        let first = time(|| session.run())?;
        let mut times = vec![];
        let budget = Duration::from_secs_f64(self.seconds.max(0.0));
        let begin = Instant::now();
        while begin.elapsed() < budget || times.len() < 3 {
            times.push(time(|| session.run())?);
        }
        times.sort_by(f64::total_cmp);
        let steps = if self.layers || self.predicted { Some(session.profile(budget)?) } else { None };
        let report = Report {
            latency_ms: percentile(&times, 50),
            min_ms: times[0],
            p95_ms: percentile(&times, 95),
            runs: times.len(),
            first_ms: first,
            compile_ms: compile.as_secs_f64() * 1e3,
            threads: options.threads,
            arena_bytes: session.arena_bytes(),
            layers: steps.as_ref().filter(|_| self.layers).map(|steps| steps.iter().map(Layer::new).collect()),
            predicted: steps.as_ref().filter(|_| self.predicted).map(|steps| Forecasts::new(steps)),
        };
        if self.json {
            print_json(&report);
            return Ok(ExitCode::SUCCESS);
        }
        report.print();
        if let Some(layers) = &report.layers {
            print_layers(layers, machine_peak::multiply_adds_per_second(options.target)?, options.threads);
        }
        if let Some(forecasts) = &report.predicted {
            forecasts.print();
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Report {
    fn print(&self) {
        outln!("latency_ms: {:.4}", self.latency_ms);
        outln!("min_ms: {:.4}", self.min_ms);
        outln!("p95_ms: {:.4}", self.p95_ms);
        let arena = bytes(self.arena_bytes);
        outln!("runs: {}, first {:.4} ms, compiled in {:.0} ms, arena {arena}", self.runs, self.first_ms, self.compile_ms);
    }
}

impl Layer {
    fn new(s: &StepTime) -> Layer {
        let (step, node) = (s.label.clone(), s.node.clone());
        Layer { step, node, ms: s.ms, predicted_ms: s.predicted_ms, work: s.work, bytes: s.traffic, tasks: s.tasks }
    }

    /// Whether this is one kernel of an operator that has several, but not the last: the work of the operator is that of the last.
    fn is_part(&self) -> bool {
        self.work == 0 && self.step.ends_with(']')
    }
}

/// The steps with their throughput; `core` is the peak of a core in multiply-adds per second.
fn print_layers(layers: &[Layer], core: f64, threads: usize) {
    let peak = core * threads as f64;
    let total: f64 = layers.iter().map(|r| r.ms).sum();
    let mut out = table(&["step", "node", "ms", "%", "work", "GFLOP/s", "of peak", "GB/s"]);
    let mut before = 0.0;
    for r in layers {
        let part = r.is_part();
        let ms = r.ms + before;
        before = if part { ms } else { 0.0 };
        let macs = r.work as f64 / (ms * 1e-3);
        let compute = !part && ["conv", "matmul", "lstm"].iter().any(|name| r.step.starts_with(name));
        out.add_row([
            r.step.clone(),
            r.node.clone(),
            format!("{:.4}", r.ms),
            format!("{:.1}", 100.0 * r.ms / total),
            if part { String::new() } else { count(r.work) },
            if compute { format!("{:.1}", 2e-9 * macs) } else { String::new() },
            if compute { format!("{:.0} %", 100.0 * macs / peak) } else { String::new() },
            if part { String::new() } else { format!("{:.1}", r.bytes as f64 / (ms * 1e-3) / 1e9) },
        ]);
    }
    outln!("\n{out}\nsum of steps: {total:.4} ms; peak of a core, measured on registers: {:.1} GFLOP/s", 2e-9 * core);
}

impl Forecasts {
    fn new(steps: &[StepTime]) -> Forecasts {
        let mut all: Vec<Forecast> = vec![];
        let (mut ms, mut predicted_ms) = (0.0, 0.0);
        for s in steps {
            ms += s.ms;
            predicted_ms += s.predicted_ms;
            let (step, parts) = match s.label.strip_suffix(']').and_then(|l| l.rsplit_once(" [")) {
                Some((step, parts)) => (step, parts.split_once('/').filter(|(i, n)| i != n).is_some()),
                None => (s.label.as_str(), false),
            };
            if parts {
                continue;
            }
            let error_percent = (ratio(predicted_ms, ms) - 1.0) * 100.0;
            all.push(Forecast { step: step.to_string(), node: s.node.clone(), family: family(s, step), ms, predicted_ms, error_percent });
            (ms, predicted_ms) = (0.0, 0.0);
        }
        let mut families: BTreeMap<&str, Vec<&Forecast>> = BTreeMap::new();
        all.iter().for_each(|f| families.entry(&f.family).or_default().push(f));
        let mut families: Vec<Accuracy> = families.into_iter().map(|(name, steps)| Accuracy::new(name, &steps)).collect();
        families.push(Accuracy::new("all steps", &all.iter().collect::<Vec<_>>()));
        Forecasts { steps: all, families }
    }

    fn print(&self) {
        let mut out = table(&["step", "node", "family", "ms", "predicted", "error"]);
        for f in &self.steps {
            let sign = if f.predicted_ms < f.ms { "−" } else { "+" };
            out.add_row([
                f.step.clone(),
                f.node.clone(),
                f.family.clone(),
                format!("{:.4}", f.ms),
                format!("{:.4}", f.predicted_ms),
                format!("{sign}{:.0} %", f.error_percent),
            ]);
        }
        outln!("\n{out}");
        let mut out = table(&["family", "steps", "ms", "predicted", "median error", "90th percentile"]);
        for a in &self.families {
            out.add_row([
                a.family.clone(),
                a.steps.to_string(),
                format!("{:.4}", a.ms),
                format!("{:.4}", a.predicted_ms),
                format!("{:.1} %", a.median_error_percent),
                format!("{:.1} %", a.p90_error_percent),
            ]);
        }
        outln!("\n{out}");
    }
}

impl Accuracy {
    fn new(family: &str, steps: &[&Forecast]) -> Accuracy {
        let mut errors: Vec<f64> = steps.iter().map(|f| f.error_percent).collect();
        errors.sort_by(f64::total_cmp);
        let sum = |of: fn(&Forecast) -> f64| steps.iter().map(|f| of(f)).sum();
        Accuracy {
            family: family.to_string(),
            steps: steps.len(),
            ms: sum(|f| f.ms),
            predicted_ms: sum(|f| f.predicted_ms),
            median_error_percent: percentile(&errors, 50),
            p90_error_percent: percentile(&errors, 90),
        }
    }
}

/// The kernel family that computes a step, with the algorithm where there were several: `conv, winograd F(4,3)`.
fn family(step: &StepTime, label: &str) -> String {
    if label.contains(" → ") {
        return "fused strip".into();
    }
    let first = label.split('+').next().unwrap_or_default();
    let class = Kind::ALL.iter().find(|k| k.name() == first).map(|k| dnnc::ir::ops::def(*k).class);
    match &step.algorithm {
        _ if class == Some(Class::Elementwise) => "element-wise".into(),
        Some(algorithm) => format!("{first}, {algorithm}"),
        None => first.to_string(),
    }
}

/// The ratio of two times, at least 1.
fn ratio(a: f64, b: f64) -> f64 {
    (a / b).max(b / a)
}

/// A percentile of sorted numbers; 0 of none.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// Milliseconds that `work` takes.
fn time(mut work: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(label: &str, ms: f64, predicted_ms: f64) -> StepTime {
        StepTime { label: label.into(), node: String::new(), algorithm: None, ms, predicted_ms, work: 1, traffic: 1, tasks: 1 }
    }

    #[test]
    fn kernels_of_one_operator_are_one_forecast() {
        let steps = [
            step("conv+relu [1/2]", 1.0, 1.5),
            step("conv+relu [2/2]", 3.0, 1.5),
            step("add+mul", 2.0, 2.5),
            step("conv → conv", 1.0, 1.0),
        ];
        let forecasts = Forecasts::new(&steps);
        let rows: Vec<(&str, &str, f64, f64)> =
            forecasts.steps.iter().map(|f| (f.step.as_str(), f.family.as_str(), f.ms, f.predicted_ms)).collect();
        assert_eq!(
            rows,
            [("conv+relu", "conv", 4.0, 3.0), ("add+mul", "element-wise", 2.0, 2.5), ("conv → conv", "fused strip", 1.0, 1.0)]
        );
        let errors: Vec<f64> = forecasts.steps.iter().map(|f| f.error_percent.round()).collect();
        assert_eq!(errors, [33.0, 25.0, 0.0]);
        let all = forecasts.families.last().expect("a row of all steps");
        assert_eq!((all.steps, all.median_error_percent.round(), all.p90_error_percent.round()), (3, 25.0, 33.0));
    }
}
