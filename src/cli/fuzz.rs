//! `dnnc fuzz`: differential fuzzing of the compiler.

use super::output::outln;
use clap::Args;
use dnnc::Error;
use dnnc::difftest::fuzz::{self, Outcome};
use dnnc::difftest::tolerance::{Effort, Reference};
use dnnc::ir::random::Rng;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Fuzz the compiler: run random networks on all backends and compare their results
///
/// A finding is printed as a small network in the text form of the IR, which can be pasted into a test. Seeds run in processes of their own, so that a crash is
/// a finding, too. The exit status is 1 when there are findings.
///
/// Example: dnnc fuzz --seconds 600; then dnnc fuzz --seed N for the seed of a finding
#[derive(Args)]
#[command(alias = "hunt")] // its name up to 0.1
pub struct Fuzz {
    /// First seed
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Stop after this time
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Number of seeds that one process runs
    #[arg(long, value_name = "N", default_value_t = 200)]
    batch: u64,
    /// Run this seed only and print its network
    #[arg(long)]
    seed: Option<u64>,
    /// Print the network of a finding as it was generated, without a search for a smaller one
    #[arg(long, alias = "whole")]
    no_shrink: bool,
    /// Run the seeds from --from up to this one in this process
    #[arg(long, hide = true)]
    to: Option<u64>,
}

impl Fuzz {
    pub fn run(self) -> Result<ExitCode, Error> {
        if let Some(seed) = self.seed {
            outln!("{}", fuzz::case(seed).graph.brief());
            return Ok(if one(seed, self.no_shrink) { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        if let Some(to) = self.to {
            (self.from..to).for_each(|seed| {
                one(seed, self.no_shrink);
            });
            return Ok(ExitCode::SUCCESS);
        }
        Ok(supervise(&self))
    }
}

/// Runs one seed, prints a line for the supervisor, and a finding; false when there is one.
fn one(seed: u64, no_shrink: bool) -> bool {
    report(&format!("begin {seed}"));
    let begin = Instant::now();
    let case = fuzz::case(seed);
    let outcome = fuzz::fuzz(&case, &mut Rng::new(!seed), true);
    let ms = begin.elapsed().as_millis();
    match outcome {
        Outcome::Same { configurations, compared_fraction } => report(&format!("same {configurations} {compared_fraction:.3} {ms}")),
        Outcome::Skipped => report("skipped"),
        Outcome::Different(configuration, finding) => {
            report(&format!("different {:?}", finding.kind));
            outln!("── seed {seed}: {:?}: {}\n   {configuration}", finding.kind, finding.message);
            if !no_shrink {
                let small = fuzz::minimize(&case, &configuration, &finding);
                outln!("{}", small.graph);
                for (name, t) in small.graph.input_names().iter().zip(&small.inputs) {
                    let n = t.len().min(16);
                    outln!("   {name} = {} {:?}", t.ty(), &t.to_f64s()[..n]);
                }
                if let Some(r) = Reference::new(&small, Effort::Quick)
                    && let Err(f) = fuzz::check(&small, &configuration, &r)
                {
                    outln!("   {:?}: {}", f.kind, f.message);
                }
            }
            report("end");
            return false;
        }
    }
    true
}

fn report(line: &str) {
    outln!("@ {line}");
    let _ = std::io::stdout().flush(); // a closed pipe is noticed by the next line
}

/// What the processes have reported.
#[derive(Default)]
struct Totals {
    networks: u64,
    runs: u64,
    skipped: u64,
    findings: u64,
    compared: f64,
}

/// Runs batches of seeds in processes of their own until the time is over.
fn supervise(args: &Fuzz) -> ExitCode {
    let begin = Instant::now();
    let program = std::env::current_exe().expect("this program has a path");
    let (mut from, mut totals, mut printed) = (args.from, Totals::default(), Instant::now());
    while begin.elapsed() < Duration::from_secs(args.seconds) {
        let to = from + args.batch;
        let mut command = Command::new(&program);
        command.args(["fuzz", "--from", &from.to_string(), "--to", &to.to_string()]).args(args.no_shrink.then_some("--no-shrink"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("this program can be started");
        let mut at = from;
        for line in BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok) {
            let Some(report) = line.strip_prefix("@ ") else {
                outln!("{line}");
                continue;
            };
            let words: Vec<&str> = report.split(' ').collect();
            match words[..] {
                ["begin", seed] => at = seed.parse().expect("a number"),
                ["same", runs, fraction, ms] => {
                    totals.networks += 1;
                    totals.runs += runs.parse::<u64>().expect("a number");
                    totals.compared += fraction.parse::<f64>().expect("a number");
                    if ms.parse::<u64>().expect("a number") > 20_000 {
                        outln!("── seed {at}: slow: {ms} ms");
                    }
                }
                ["skipped"] => totals.skipped += 1,
                ["different", ..] => totals.findings += 1,
                _ => {}
            }
        }
        let status = child.wait().expect("the process was started");
        if status.success() {
            from = to;
        } else {
            totals.findings += 1;
            outln!("── seed {at}: the process ended with {status}");
            from = at + 1;
        }
        if printed.elapsed() > Duration::from_secs(60) {
            printed = Instant::now();
            outln!("{} s: seeds up to {from}: {}", begin.elapsed().as_secs(), totals.sentence());
        }
    }
    outln!("{}; seeds {} to {from}", totals.sentence(), args.from);
    if totals.findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Totals {
    fn sentence(&self) -> String {
        let percent = 100.0 * self.compared / self.networks.max(1) as f64;
        format!(
            "{} networks agree in {} runs ({percent:.1} % of the elements compared), {} skipped, {} findings",
            self.networks, self.runs, self.skipped, self.findings
        )
    }
}
