//! `dnnc serve`: what a budget or a plan of pipelines does with a trace of requests.

use super::output::{outln, print_json};
use clap::Args;
use dnnc::runtime::plan::budget::{self, Variant};
use dnnc::runtime::plan::chart::{self, Bar};
use dnnc::runtime::plan::pipeline::{self, Machine, Stage};
use dnnc::runtime::plan::simulate::{self, Arrivals};
use dnnc::{Error, pack};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Plan pipelines of stages over cores, or choose variants of a pack on a budget
///
/// FILE is a description of pipelines (.toml) or a pack whose models have an accuracy and a time (`dnnc pack --catalog`). What is planned is simulated on
/// a trace; stages are not run.
#[derive(Args)]
#[command(after_help = "Examples:
  dnnc serve pipelines.toml --simulate trace.json --chart schedule.json
  dnnc serve dogs.pack --budget 200ms/s --trace requests.json

pipelines.toml:
  cores = 2
  [[stage]]
  name = \"vad\"
  rate = 100            # inputs a second, of a stage that follows no other
  compute_ms = 0.4      # for each input
  wake_ms = 0.1         # for each run
  deadline_ms = 50      # from the input of the pipeline on
  pass = 0.1            # a gate: the part of its inputs that it passes on
  batch = 8             # most inputs that a run may take
  [[stage]]
  name = \"speech\"
  after = \"vad\"
  compute_ms = 6.0
  deadline_ms = 200

trace.json of pipelines: {\"seconds\": 10} for even inputs, or {\"inputs\": {\"vad\": [0.0, 0.01]}}, seconds of inputs
trace.json of a budget: [[0.01, \"dogs\"], [0.02, \"dogs\"]], seconds and model of each request")]
pub struct Serve {
    /// Pipelines (.toml), or a pack
    file: PathBuf,
    /// Inputs of the pipelines
    #[arg(long, value_name = "TRACE")]
    simulate: Option<PathBuf>,
    /// Write the schedule as a trace for Perfetto or Chrome
    #[arg(long, value_name = "FILE", requires = "simulate")]
    chart: Option<PathBuf>,
    /// Seed of what gates let pass
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// What runs may take in each period: `200ms/s`, `5J/h`, `1000J/day`
    #[arg(long, value_name = "BUDGET", value_parser = budget, requires = "trace", conflicts_with = "simulate")]
    budget: Option<Budget>,
    /// Requests for the models of the pack
    #[arg(long, requires = "budget", value_name = "TRACE")]
    trace: Option<PathBuf>,
    /// Memory that a variant may take, e.g. 64M
    #[arg(long, value_name = "BYTES", value_parser = super::pack::size, requires = "budget")]
    ram: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a period of some seconds may take.
#[derive(Clone, Copy)]
struct Budget {
    amount: f64,
    joules: bool,
    seconds: f64,
}

fn budget(text: &str) -> Result<Budget, String> {
    let usage = || "write an amount a period, e.g. 200ms/s, 5J/h or 1000J/day".to_string();
    let (amount, period) = text.split_once('/').ok_or_else(usage)?;
    let seconds = match period {
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        "day" => 86400.0,
        _ => return Err(usage()),
    };
    let at = amount.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(usage)?;
    let number: f64 = amount[..at].parse().map_err(|_| usage())?;
    let (scale, joules) = match &amount[at..] {
        "ms" => (1.0, false),
        "s" => (1e3, false),
        "J" => (1.0, true),
        "mJ" => (1e-3, true),
        _ => return Err(usage()),
    };
    if number <= 0.0 || !number.is_finite() {
        return Err("a budget is more than 0".into());
    }
    Ok(Budget { amount: number * scale, joules, seconds })
}

/// A file of pipelines.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pipelines {
    #[serde(default = "one")]
    cores: usize,
    #[serde(default)]
    hop_ms: f64,
    stage: Vec<StageRow>,
}

fn one() -> usize {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StageRow {
    name: String,
    after: Option<String>,
    rate: Option<f64>,
    compute_ms: f64,
    #[serde(default)]
    wake_ms: f64,
    deadline_ms: f64,
    pass: Option<f64>,
    #[serde(default = "one")]
    batch: usize,
}

/// Inputs of pipelines.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trace {
    seconds: Option<f64>,
    #[serde(default)]
    inputs: BTreeMap<String, Vec<f64>>,
}

#[derive(Serialize)]
struct PlanReport {
    core_seconds_a_second: f64,
    feasible: bool,
    stages: Vec<PlaceRow>,
    runs: usize,
    missed: usize,
    busy_seconds: Vec<f64>,
}

#[derive(Serialize)]
struct PlaceRow {
    name: String,
    core: usize,
    batch: usize,
    latency_ms: f64,
}

#[derive(Serialize)]
struct BudgetReport {
    requests: usize,
    served: usize,
    mean_accuracy: f64,
    offline_optimum: f64,
    peak_of_budget: f64,
    switches: usize,
    choices: BTreeMap<String, usize>,
}

impl Serve {
    pub fn run(self) -> Result<ExitCode, Error> {
        match (&self.budget, &self.simulate) {
            (Some(budget), _) => self.on_budget(*budget)?,
            (None, Some(trace)) => self.pipelines(trace)?,
            (None, None) => {
                let text =
                    "give --simulate TRACE for pipelines, or --budget BUDGET --trace TRACE for a pack; stages are planned and not run";
                return Err(Error::Usage(text.into()));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn pipelines(&self, trace: &Path) -> Result<(), Error> {
        let wrong = |e: String| Error::Usage(format!("{}: {e}", self.file.display()));
        let read: Pipelines = toml::from_str(&text(&self.file)?).map_err(|e| wrong(e.to_string()))?;
        let machine = Machine { cores: read.cores, hop: read.hop_ms / 1e3 };
        if !(1..=16).contains(&read.cores) || !(0.0..f64::INFINITY).contains(&read.hop_ms) {
            return Err(wrong("`cores` is 1 to 16, and `hop_ms` not negative".into()));
        }
        let stages = stages(&read.stage).map_err(wrong)?;
        let arrivals = arrivals(trace, &stages)?;
        let plan = pipeline::plan(&stages, machine);
        let schedule = simulate::simulate(&stages, machine, &plan, &arrivals, simulate::by_chance(&stages, self.seed));
        let bar = |r: &simulate::Run| Bar {
            name: format!("{} ×{}", stages[r.stage].name, r.inputs),
            track: format!("core {}", r.core),
            begin: r.begin,
            end: r.end,
            late: r.end > r.deadline + 1e-9,
        };
        let bars: Vec<Bar> = schedule.runs.iter().map(bar).collect();
        if let Some(path) = &self.chart {
            dnnc::files::write(path, chart::trace(&bars).as_bytes())?;
        }
        let row = |(i, s): (usize, &Stage)| PlaceRow {
            name: s.name.clone(),
            core: plan.places[i].core,
            batch: plan.places[i].batch,
            latency_ms: schedule.latency[i] * 1e3,
        };
        let report = PlanReport {
            core_seconds_a_second: plan.cost,
            feasible: plan.excess <= 0.0,
            stages: stages.iter().enumerate().map(row).collect(),
            runs: schedule.runs.len(),
            missed: schedule.missed,
            busy_seconds: schedule.busy,
        };
        if self.json {
            print_json(&report);
            return Ok(());
        }
        outln!("{}", chart::text(&bars).trim_end());
        for s in &report.stages {
            outln!("{}: core {}, {} inputs a run, longest latency {:.3} ms", s.name, s.core, s.batch, s.latency_ms);
        }
        let feasible = if report.feasible { "" } else { "; no plan that was found keeps all deadlines" };
        outln!("{:.4} core seconds a second, {} runs, {} late{feasible}", report.core_seconds_a_second, report.runs, report.missed);
        Ok(())
    }

    fn on_budget(&self, budget: Budget) -> Result<(), Error> {
        let file = pack::open(&self.file)?;
        let wrong = |e: String| Error::Usage(format!("{}: {e}", self.file.display()));
        let mut models: Vec<String> = vec![];
        let mut catalogues: Vec<Vec<Variant>> = vec![];
        let mut names: Vec<Vec<String>> = vec![];
        for m in &file.contents().models {
            let Some(r) = m.rating else {
                return Err(wrong(format!("`{}` has no accuracy: make the pack with --catalog", m.name)));
            };
            let cost = if budget.joules { r.joules } else { r.ms };
            if budget.joules && cost <= 0.0 {
                return Err(wrong(format!("the catalogue has no `joules` of `{}`", m.name)));
            }
            let at = models.iter().position(|x| *x == m.model).unwrap_or_else(|| {
                models.push(m.model.clone());
                catalogues.push(vec![]);
                names.push(vec![]);
                models.len() - 1
            });
            catalogues[at].push(Variant { accuracy: r.accuracy, cost, bytes: (m.bytes() + m.arena) as u64 });
            names[at].push(m.name.clone());
        }
        let path = self.trace.as_ref().ok_or_else(|| Error::Usage("--trace is missing".into()))?;
        let trace: Vec<(f64, String)> = serde_json::from_str(&text(path)?).map_err(|e| Error::Usage(format!("{}: {e}", path.display())))?;
        let mut requests: Vec<(f64, usize)> = vec![];
        for (time, model) in trace {
            let at = models.iter().position(|m| *m == model);
            let at = at.ok_or_else(|| {
                Error::Usage(format!("{}: the pack has no model `{model}`; it has {}", path.display(), models.join(", ")))
            })?;
            if !(0.0..f64::INFINITY).contains(&time) || requests.last().is_some_and(|&(t, _)| t > time) {
                return Err(Error::Usage(format!("{}: times rise from 0 on; {time} does not", path.display())));
            }
            requests.push((time, at));
        }
        let replay = budget::replay(&catalogues, &requests, budget.amount, budget.seconds, self.ram.unwrap_or(u64::MAX));
        let mut choices = BTreeMap::new();
        for (&(_, model), choice) in requests.iter().zip(&replay.choices) {
            let name = choice.map_or("(not served)", |v| &names[model][v]);
            *choices.entry(name.to_string()).or_insert(0) += 1;
        }
        let report = BudgetReport {
            requests: requests.len(),
            served: replay.choices.iter().flatten().count(),
            mean_accuracy: replay.accuracy,
            offline_optimum: replay.optimum,
            peak_of_budget: replay.peak,
            switches: replay.switches,
            choices,
        };
        if self.json {
            print_json(&report);
            return Ok(());
        }
        for (name, count) in &report.choices {
            outln!("{count:>8}  {name}");
        }
        outln!(
            "{} of {} requests served, mean accuracy {:.4} (offline optimum {:.4}), at most {:.1} % of a period's budget used, {} switches",
            report.served,
            report.requests,
            report.mean_accuracy,
            report.offline_optimum,
            report.peak_of_budget * 100.0,
            report.switches
        );
        Ok(())
    }
}

fn text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|e| Error::File { path: path.to_path_buf(), source: e })
}

/// The stages of a file, each after the one that it follows.
fn stages(rows: &[StageRow]) -> Result<Vec<Stage>, String> {
    let mut out: Vec<Stage> = vec![];
    for row in rows {
        let wrong = |what: &str| format!("stage `{}`: {what}", row.name);
        if out.iter().any(|s| s.name == row.name) {
            return Err(wrong("there are two of this name"));
        }
        let find =
            |name: &String| out.iter().position(|s| s.name == *name).ok_or_else(|| wrong(&format!("`after`: no stage `{name}` before it")));
        let after = row.after.as_ref().map(find).transpose()?;
        let rate = match (row.rate, after) {
            (Some(rate), None) if rate > 0.0 && rate <= 1e6 => rate,
            (None, Some(_)) => 0.0,
            _ => return Err(wrong("it has either a `rate` above 0, or a stage that it is `after`")),
        };
        let pass = row.pass.unwrap_or(1.0);
        let time = |ms: f64| ms >= 0.0 && ms.is_finite();
        if !time(row.compute_ms) || !time(row.wake_ms) || !time(row.deadline_ms) || row.deadline_ms == 0.0 {
            return Err(wrong("times are not negative, and the deadline is above 0"));
        }
        if !(0.0..=1.0).contains(&pass) || !(1..=1024).contains(&row.batch) {
            return Err(wrong("`pass` is 0 to 1, `batch` 1 to 1024"));
        }
        let (compute, wake, deadline) = (row.compute_ms / 1e3, row.wake_ms / 1e3, row.deadline_ms / 1e3);
        out.push(Stage { name: row.name.clone(), after, rate, pass, compute, wake, deadline, batch: row.batch });
    }
    if out.is_empty() { Err("there is no [[stage]]".into()) } else { Ok(out) }
}

/// Most runs of stages that a simulation may have.
const MOST: f64 = 5e6;

fn arrivals(path: &Path, stages: &[Stage]) -> Result<Arrivals, Error> {
    let wrong = |e: String| Error::Usage(format!("{}: {e}", path.display()));
    let trace: Trace = serde_json::from_str(&text(path)?).map_err(|e| wrong(e.to_string()))?;
    let mut arrivals = Arrivals { times: vec![vec![]; stages.len()] };
    if let Some(seconds) = trace.seconds {
        let inputs: f64 = stages.iter().map(|s| s.rate * seconds).sum();
        if !(0.0..=MOST).contains(&inputs) {
            return Err(wrong(format!("{seconds} seconds are more than a simulation may have ({MOST} inputs)")));
        }
        arrivals = simulate::periodic(stages, seconds);
    }
    for (name, times) in trace.inputs {
        let at = stages.iter().position(|s| s.name == name && s.after.is_none());
        let at = at.ok_or_else(|| wrong(format!("`{name}` is no stage that takes inputs")))?;
        if !times.iter().all(|t| (0.0..f64::INFINITY).contains(t)) || !times.is_sorted() {
            return Err(wrong(format!("the times of `{name}` do not rise from 0 on")));
        }
        arrivals.times[at] = times;
    }
    Ok(arrivals)
}
