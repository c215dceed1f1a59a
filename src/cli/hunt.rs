use clap::Args;
use dnnc::hunt::{self, Outcome};
use dnnc::ir::random::Rng;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Hunt for differences between the ways a network can be run: random networks, seed after seed
///
/// What differs is printed as a network that can be pasted into a test. Seeds run in processes of their own, so that a crash is a finding, too.
#[derive(Args)]
pub struct Hunt {
    /// First seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Stop after so many seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seeds that one process runs
    #[arg(long, default_value_t = 200)]
    batch: u64,
    /// Run this one seed and print its network
    #[arg(long)]
    seed: Option<u64>,
    /// Do not look for a smaller network
    #[arg(long)]
    whole: bool,
    /// Run the seeds from --from up to this one in this process
    #[arg(long, hide = true)]
    to: Option<u64>,
}

impl Hunt {
    pub fn run(self) -> ExitCode {
        if let Some(seed) = self.seed {
            say!("{}", hunt::case(seed).graph.brief());
            return if one(seed, self.whole) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        if let Some(to) = self.to {
            (self.from..to).for_each(|seed| {
                one(seed, self.whole);
            });
            return ExitCode::SUCCESS;
        }
        supervise(&self)
    }
}

/// Runs one seed and prints a line, and more where there is a difference.
fn one(seed: u64, whole: bool) -> bool {
    report(&format!("begin {seed}"));
    let begin = Instant::now();
    let case = hunt::case(seed);
    let outcome = hunt::hunt(&case, &mut Rng::new(!seed), true);
    let ms = begin.elapsed().as_millis();
    match outcome {
        Outcome::Same(ways, sharpness) => report(&format!("same {ways} {sharpness:.3} {ms}")),
        Outcome::Unfit => report("unfit"),
        Outcome::Different(setting, finding) => {
            report(&format!("different {:?}", finding.kind));
            say!("── seed {seed}: {:?}: {}\n   {setting}", finding.kind, finding.what);
            if !whole {
                let small = hunt::shrink(&case, &setting, &finding);
                say!("{}", small.graph);
                for (name, t) in small.graph.input_names().iter().zip(&small.inputs) {
                    let n = t.len().min(16);
                    say!("   {name} = {} {:?}", t.ty(), &t.to_f64s()[..n]);
                }
                if let Some(r) = hunt::Reference::new(&small, hunt::noise::Effort::Little)
                    && let Err(f) = hunt::check(&small, &setting, &r)
                {
                    say!("   {:?}: {}", f.kind, f.what);
                }
            }
            report("end");
            return false;
        }
    }
    true
}

fn report(line: &str) {
    say!("@ {line}");
    let _ = std::io::stdout().flush(); // nobody reads on: the next line finds out
}

/// Runs batches of seeds in processes of their own until the time is over.
fn supervise(args: &Hunt) -> ExitCode {
    let begin = Instant::now();
    let me = std::env::current_exe().expect("this program has a path");
    let (mut from, mut networks, mut ways, mut unfit, mut findings, mut sharp) = (args.from, 0u64, 0u64, 0u64, 0u64, 0.0);
    let mut told = Instant::now();
    while begin.elapsed() < Duration::from_secs(args.seconds) {
        let to = from + args.batch;
        let mut command = Command::new(&me);
        command.args(["hunt", "--from", &from.to_string(), "--to", &to.to_string()]).args(args.whole.then_some("--whole"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("this program can be started");
        let mut at = from;
        for line in BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok) {
            let Some(report) = line.strip_prefix("@ ") else {
                say!("{line}");
                continue;
            };
            let words: Vec<&str> = report.split(' ').collect();
            match words[..] {
                ["begin", seed] => at = seed.parse().expect("a number"),
                ["same", n, s, ms] => {
                    networks += 1;
                    ways += n.parse::<u64>().expect("a number");
                    sharp += s.parse::<f64>().expect("a number");
                    if ms.parse::<u64>().expect("a number") > 20_000 {
                        say!("── seed {at}: slow: {ms} ms");
                    }
                }
                ["unfit"] => unfit += 1,
                ["different", ..] => findings += 1,
                _ => {}
            }
        }
        let status = child.wait().expect("the process was started");
        if !status.success() {
            findings += 1;
            say!("── seed {at}: the process ended with {status}");
            from = at + 1;
        } else {
            from = to;
        }
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            say!(
                "{} s: seeds up to {from}: {networks} networks the same in {ways} runs, {unfit} unfit, {findings} findings",
                begin.elapsed().as_secs()
            );
        }
    }
    let share = 100.0 * sharp / networks.max(1) as f64;
    say!(
        "{networks} networks the same in {ways} runs ({share:.1} % of the elements compared), {unfit} unfit, {findings} findings; seeds {} to {from}",
        args.from
    );
    if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
