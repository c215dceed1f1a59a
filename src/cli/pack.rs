//! `dnnc pack`: several models in one file; and what `run`, `inspect` and `bench` do with it.

use super::flags::CompileFlags;
use super::output::{bytes, outln, print_json, table};
use super::progress;
use clap::Args;
use dnnc::pack::{self, Packed};
use dnnc::runtime::pack::executor::{self, Measured};
use dnnc::runtime::pack::file::{Pack as File, PackError};
use dnnc::runtime::plan::chart::{self, Bar};
use dnnc::runtime::plan::load::Job;
use dnnc::runtime::pool::Pool;
use dnnc::{Error, Tensor, tensors};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Put several models into one file that is mapped into memory
///
/// Equal weights and equal kernels are stored once. `dnnc run`, `dnnc inspect` and `dnnc serve` take the file; a name that ends in .o makes an object file
/// with all models and one header, for a program that shares one arena among them.
#[derive(Args)]
#[command(after_help = "Examples:
  dnnc pack detect.onnx landmark.onnx classify.onnx -o eye.pack
  dnnc run eye.pack --cold --ram 64M             read the weights of one model while another computes
  dnnc pack --catalog front.json -o dogs.pack    variants of a model with their accuracy and time
  dnnc pack a.onnx b.onnx -o pack.o              an object and pack.h")]
pub struct Pack {
    /// The models
    #[arg(required_unless_present = "catalog")]
    models: Vec<PathBuf>,
    /// The pack, or with the extension .o an object, beside which the header is written
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Memory that the weights in use may take when the pack is run, e.g. 64M
    #[arg(long, value_name = "BYTES", value_parser = size)]
    ram: Option<u64>,
    /// Variants of models: `{"variants": [{"file": "a.onnx", "model": "dogs", "accuracy": 0.8, "ms": 4.1}, …]}`, with `joules` where it was measured
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
    /// Print a summary as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileFlags,
}

#[derive(Serialize)]
struct Summary {
    file_bytes: usize,
    code_bytes: usize,
    weight_bytes: usize,
    weight_bytes_unshared: usize,
    arena_bytes: usize,
    models: Vec<SummaryRow>,
}

#[derive(Serialize)]
struct SummaryRow {
    name: String,
    weight_bytes: usize,
    arena_bytes: usize,
}

impl Pack {
    pub fn run(self) -> Result<ExitCode, Error> {
        let options = self.compile.options()?;
        let sources = pack::sources(&self.models, self.catalog.as_deref())?;
        let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
        let read = || sources.iter().map(|s| s.path.as_path()).chain(self.catalog.as_deref());
        if read().any(|p| same(p, &self.output) || same(p, &self.output.with_extension("h"))) {
            return Err(Error::Usage(format!("{}: a file of the pack itself would be overwritten", self.output.display())));
        }
        let object = self.output.extension().is_some_and(|e| e == "o");
        let stem = self.output.file_stem().map_or("pack".into(), |s| s.to_string_lossy());
        let shapes = |model: &dnnc::frontend::Model| Ok(self.compile.single_shapes(model.inputs(), &options, "a pack holds")?.0);
        let made = progress::with_spinner("compiling", || {
            pack::pack(&sources, &options, self.ram.unwrap_or(0), object.then_some(&*stem), shapes, |_| {})
        })?;
        pack::save(&made, &self.output)?;
        self.report(&made);
        Ok(ExitCode::SUCCESS)
    }

    fn report(&self, made: &Packed) {
        let row = |(name, weight_bytes, arena_bytes): &(String, usize, usize)| SummaryRow {
            name: name.clone(),
            weight_bytes: *weight_bytes,
            arena_bytes: *arena_bytes,
        };
        let summary = Summary {
            file_bytes: made.bytes.len(),
            code_bytes: made.code,
            weight_bytes: made.stored,
            weight_bytes_unshared: made.constants,
            arena_bytes: made.models.iter().map(|m| m.2).max().unwrap_or(0),
            models: made.models.iter().map(row).collect(),
        };
        if self.json {
            return print_json(&summary);
        }
        let mut t = table(&["model", "weights", "arena"]);
        for m in &summary.models {
            t.add_row([m.name.clone(), bytes(m.weight_bytes), bytes(m.arena_bytes)]);
        }
        outln!("{t}");
        outln!(
            "{}: {}, code {}, weights {} ({} without sharing), arena {}",
            self.output.display(),
            bytes(summary.file_bytes),
            bytes(summary.code_bytes),
            bytes(summary.weight_bytes),
            bytes(summary.weight_bytes_unshared),
            bytes(summary.arena_bytes)
        );
    }
}

/// Bytes as a person writes them: `65536`, `64K`, `64M`, `1G`.
pub fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M')) => (&text[..at], 20),
        Some((at, 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let n: u64 = digits.parse().map_err(|_| "write a number of bytes, e.g. 65536 or 64M".to_string())?;
    n.checked_mul(1 << shift).filter(|&n| n > 0).ok_or_else(|| "not a possible number of bytes".to_string())
}

/// Flags of `dnnc run` for packs.
#[derive(Args)]
pub struct PackFlags {
    /// Run only this model of a pack
    #[arg(long = "model", value_name = "NAME")]
    pub only: Option<String>,
    /// Read the weights of a pack from the disk, not from the system's cache, and compare the plan with reading and computing in turn
    #[arg(long)]
    pub cold: bool,
    /// Memory that the process may take while it runs all models of a pack, e.g. 64M [default: as `dnnc pack` was told]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub ram: Option<u64>,
}

impl PackFlags {
    /// Whether one of the flags is given.
    pub fn given(&self) -> bool {
        self.only.is_some() || self.cold || self.ram.is_some()
    }
}

/// One model of a run.
#[derive(Serialize)]
struct RunRow {
    model: String,
    load_ms: f64,
    compute_ms: f64,
    #[serde(skip)]
    results: Vec<Tensor>,
}

#[derive(Serialize)]
struct RunReport {
    makespan_ms: f64,
    serial_ms: f64,
    bound_ms: f64,
    peak_rss_bytes: Option<u64>,
    models: Vec<RunRow>,
}

/// One model of a pack on inputs.
pub fn run_one(
    path: &Path,
    name: &str,
    given: &[String],
    threads: usize,
    limits: &dnnc::Limits,
) -> Result<(Vec<String>, Vec<Tensor>), Error> {
    let file = pack::open(path)?;
    let number = file.find(name)?;
    let entry = file.model(number);
    let inputs = tensors::read_inputs(&pack::ports(&entry.inputs)?, given, limits)?;
    let pool = (threads > 1).then(|| Pool::new(threads));
    let results = pack::run(&file, number, &inputs, &mut executor::arena(&file), pool.as_ref())?;
    Ok((entry.outputs.iter().map(|p| p.name.clone()).collect(), results))
}

/// All models of a pack on made-up inputs: when each was loaded and computed.
pub fn run_all(path: &Path, flags: &PackFlags, json: bool) -> Result<(), Error> {
    let begin = Instant::now();
    let file = pack::open(path)?;
    let opened = begin.elapsed();
    let models = file.contents().models.len();
    let inputs: Vec<Vec<Tensor>> = file.contents().models.iter().map(pack::sample_inputs).collect::<Result<_, _>>()?;
    let mut arena = executor::arena(&file);
    let limit = match flags.ram.or(Some(file.contents().ram).filter(|&r| r > 0)) {
        Some(ram) => left(ram, &file)?,
        None => u64::MAX,
    };
    // What a load and a run take, measured alone.
    let serial = pass(
        &file,
        &executor::plan(&file, &vec![Job { load: 0.0, compute: 0.0, bytes: 0 }; models], limit)?,
        limit,
        false,
        flags.cold,
        &inputs,
        &mut arena,
    )?;
    let mut jobs = vec![Job { load: 0.0, compute: 0.0, bytes: 0 }; models];
    for m in &serial.0 {
        let bytes = file.model(m.model).bytes() as u64;
        jobs[m.model] = Job { load: m.load.1 - m.load.0, compute: m.compute.1 - m.compute.0, bytes };
    }
    let plan = executor::plan(&file, &jobs, limit)?;
    let (times, mut results) = pass(&file, &plan, limit, true, flags.cold, &inputs, &mut arena)?;
    let end = |list: &[Measured]| list.last().map_or(0.0, |m| m.compute.1) * 1e3;
    let row = |m: &Measured| RunRow {
        model: file.model(m.model).name.clone(),
        load_ms: (m.load.1 - m.load.0) * 1e3,
        compute_ms: (m.compute.1 - m.compute.0) * 1e3,
        results: std::mem::take(&mut results[m.model]),
    };
    let report = RunReport {
        makespan_ms: end(&times),
        serial_ms: end(&serial.0),
        bound_ms: plan.bound * 1e3,
        peak_rss_bytes: peak_rss(),
        models: times.iter().map(row).collect(),
    };
    if json {
        print_json(&report);
        return Ok(());
    }
    outln!("opened in {:.3} ms", opened.as_secs_f64() * 1e3);
    outln!("{}", chart::text(&bars(&file, &times)).trim_end());
    for row in &report.models {
        let shown: Vec<String> = row.results.iter().map(|t| format!("{} mean {:.6}", t.ty(), mean(t))).collect();
        outln!("{}: {}", row.model, shown.join("; "));
    }
    outln!("makespan_ms: {:.3} (in turn {:.3}, no plan below {:.3})", report.makespan_ms, report.serial_ms, report.bound_ms);
    if let Some(peak) = report.peak_rss_bytes {
        outln!("peak memory of the process: {}", bytes(peak as usize));
    }
    Ok(())
}

fn mean(t: &Tensor) -> f64 {
    let values = t.to_f64s();
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Bars of a chart of what was measured.
fn bars(file: &File, times: &[Measured]) -> Vec<Bar> {
    let bar = |m: &Measured, track: &str, span: (f64, f64)| Bar {
        name: file.model(m.model).name.clone(),
        track: track.into(),
        begin: span.0,
        end: span.1,
        late: false,
    };
    let mut out: Vec<Bar> = times.iter().flat_map(|m| [bar(m, "load", m.load), bar(m, "compute", m.compute)]).collect();
    out.sort_by(|a, b| a.begin.total_cmp(&b.begin));
    out
}

/// One round over all models: times, and results by model.
fn pass(
    file: &File,
    plan: &dnnc::runtime::plan::load::Plan,
    limit: u64,
    overlap: bool,
    cold: bool,
    inputs: &[Vec<Tensor>],
    arena: &mut dnnc::runtime::pack::file::Arena,
) -> Result<(Vec<Measured>, Vec<Vec<Tensor>>), Error> {
    if cold {
        file.make_cold();
    }
    let mut results = vec![vec![]; inputs.len()];
    let run = |model: usize| {
        results[model] = pack::run(file, model, &inputs[model], arena, None).map_err(|e| PackError::Refused(e.to_string()))?;
        Ok(())
    };
    let times = executor::execute(file, plan, limit, overlap, run)?;
    Ok((times, results))
}

/// What a limit of the process's memory leaves for constants: it holds code, inputs, arena and itself, too.
fn left(ram: u64, file: &File) -> Result<u64, Error> {
    let arena = file.contents().models.iter().map(|m| m.arena).max().unwrap_or(0) as u64;
    let taken = rss().unwrap_or(0) + arena;
    ram.checked_sub(taken).filter(|&n| n > 0).ok_or_else(|| {
        Error::Usage(format!("--ram {}: the process itself and the arena take {}", bytes(ram as usize), bytes(taken as usize)))
    })
}

/// Bytes of memory that the process has now, and at most had.
fn rss() -> Option<u64> {
    status("VmRSS:")
}

fn peak_rss() -> Option<u64> {
    status("VmHWM:")
}

fn status(row: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(row))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

/// What a pack holds.
pub fn inspect(path: &Path, json: bool) -> Result<(), Error> {
    let file = pack::open(path)?;
    let contents = file.contents();
    (0..contents.models.len()).try_for_each(|m| file.verify(m))?;
    if json {
        print_json(contents);
        return Ok(());
    }
    let (code, constants) = file.sizes();
    outln!("pack for {}: {} models, code {}, weights {}", contents.target, contents.models.len(), bytes(code), bytes(constants));
    let mut t = table(&["model", "variant of", "weights", "arena", "predicted", "accuracy"]);
    for m in &contents.models {
        let accuracy = m.rating.map_or(String::new(), |r| format!("{:.3}", r.accuracy));
        t.add_row([m.name.clone(), m.model.clone(), bytes(m.bytes()), bytes(m.arena), format!("{:.3} ms", m.ns / 1e6), accuracy]);
    }
    outln!("{t}");
    Ok(())
}
