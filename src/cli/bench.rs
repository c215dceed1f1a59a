use super::{Building, count, print_json, table};
use clap::Args;
use dnnc::{Error, tensors};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Measure how long an inference takes
///
/// Prints `latency_ms: X`, the median over runs with the caller's buffers, then the fastest run and the 95th percentile.
#[derive(Args)]
pub struct Bench {
    /// The model
    model: PathBuf,
    /// Inputs (.npy, .npz, .pb or NAME=FILE); none: made-up numbers, the same every time
    inputs: Vec<String>,
    /// Threads to run on
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How long to measure
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// A table of the time of each step, with its share of the machine's peak
    #[arg(long)]
    layers: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    building: Building,
}

impl Bench {
    pub fn run(self) -> Result<(), Error> {
        let options = self.building.options(self.threads)?;
        let start = Instant::now();
        let model = super::jit_model(&self.model, &options)?;
        let inputs = if self.inputs.is_empty() {
            let (shapes, assumed) = self.building.one(model.inputs(), &options, "`dnnc bench` measures")?;
            for name in assumed {
                eprintln!("note: dimension {name} is not given; measured at 1 (--dim sets it)");
            }
            dnnc::sample_inputs(model.inputs(), &shapes)
        } else {
            tensors::read_inputs(model.inputs(), &self.inputs, &options.limits)?
        };
        let mut session = super::progress::while_doing("compiling", || model.into_session(&inputs))?;
        let compile = start.elapsed();
        let first = time(|| session.run())?;
        let mut times = vec![];
        let budget = Duration::from_secs_f64(self.seconds.max(0.0));
        let begin = Instant::now();
        while begin.elapsed() < budget || times.len() < 3 {
            times.push(time(|| session.run())?);
        }
        times.sort_by(f64::total_cmp);
        let (median, p95) = (times[times.len() / 2], times[(times.len() * 95 / 100).min(times.len() - 1)]);
        let layers = if self.layers { Some(session.profile(budget)?) } else { None };
        if self.json {
            let mut out = serde_json::json!({
                "latency_ms": median, "min_ms": times[0], "p95_ms": p95, "runs": times.len(), "first_ms": first,
                "compile_ms": compile.as_secs_f64() * 1e3, "threads": self.threads, "arena_bytes": session.arena_bytes(),
            });
            if let Some(rows) = &layers {
                let rows: Vec<serde_json::Value> = rows
                    .iter()
                    .map(|r| serde_json::json!({"step": r.label, "node": r.node, "ms": r.ms, "work": r.work, "bytes": r.traffic, "tasks": r.tasks}))
                    .collect();
                out["layers"] = rows.into();
            }
            print_json(&out);
            return Ok(());
        }
        say!("latency_ms: {median:.4}");
        say!("min_ms: {:.4}", times[0]);
        say!("p95_ms: {p95:.4}");
        say!(
            "runs: {}, first {first:.4} ms, compiled in {:.0} ms, arena {}",
            times.len(),
            compile.as_secs_f64() * 1e3,
            super::bytes(session.arena_bytes())
        );
        if let Some(rows) = layers {
            let core = dnnc::peak::measure(options.target)?;
            let peak = core * self.threads as f64;
            let total: f64 = rows.iter().map(|r| r.ms).sum();
            let mut out = table(&["step", "node", "ms", "%", "work", "GFLOP/s", "of peak", "GB/s"]);
            // The work of an operator in several parts stands at its last, over the time of all of them.
            let mut before = 0.0;
            for r in rows {
                let part = r.work == 0 && r.label.ends_with(']');
                let ms = r.ms + before;
                before = if part { ms } else { 0.0 };
                let macs = r.work as f64 / (ms * 1e-3);
                let compute = !part && (r.label.starts_with("conv") || r.label.starts_with("matmul") || r.label.starts_with("lstm"));
                out.add_row([
                    r.label.clone(),
                    r.node.clone(),
                    format!("{:.4}", r.ms),
                    format!("{:.1}", 100.0 * r.ms / total),
                    if part { String::new() } else { count(r.work) },
                    if compute { format!("{:.1}", 2e-9 * macs) } else { String::new() },
                    if compute { format!("{:.0} %", 100.0 * macs / peak) } else { String::new() },
                    if part { String::new() } else { format!("{:.1}", r.traffic as f64 / (ms * 1e-3) / 1e9) },
                ]);
            }
            say!("\n{out}\nsum of steps: {total:.4} ms; peak of a core, measured on registers: {:.1} GFLOP/s", 2e-9 * core);
        }
        Ok(())
    }
}

/// Milliseconds that `work` takes.
fn time(mut work: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
