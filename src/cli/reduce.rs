//! `dnnc reduce`: a smaller model that fails in the same way.

use super::flags::{BackendFlags, CompileFlags};
use super::output::{outln, print_json};
use super::progress;
use clap::Args;
use dnnc::difftest::reduce::{Failure, Oracle, Progress, Search, TestModel, typed};
use dnnc::frontend::Draft;
use dnnc::{Error, Model, tensors};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Reduce a model that fails to a smaller one that fails in the same way
///
/// A model fails when its results differ from the reference evaluator's, when it is refused, when compiling or running it ends in an error or a crash, or when
/// that exceeds --timeout; with --command, when the command ends with a status other than 0. Models are tried in processes of their own. The result is
/// MODEL.reduced.onnx and, where made-up inputs do not make it fail, MODEL.reduced.input_0.pb, …
///
/// Example: dnnc reduce wrong.onnx --command 'my-check {}'
#[derive(Args)]
pub struct Reduce {
    /// The model
    model: PathBuf,
    /// Inputs in the model's order (.npy, .npz or .pb), or NAME=FILE; without any, made-up ones
    inputs: Vec<String>,
    /// The file of the smaller model [default: MODEL.reduced.onnx]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A shell command that fails for the model: {} stands for its path; its inputs are in the same folder, as input_0.pb, …
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,
    /// How far a result may be from the evaluator's, as a fraction of its largest number
    #[arg(long, value_name = "FRACTION", default_value_t = 1e-3)]
    tolerance: f64,
    /// Time limit of the search; then the smallest model so far is written
    #[arg(long, default_value_t = 300.0)]
    seconds: f64,
    /// Time limit of one model
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    timeout: f64,
    /// Print a summary as JSON
    #[arg(long)]
    json: bool,
    /// Print how this model fails, as a line of JSON, in place of MODEL and INPUTS
    #[arg(long, value_name = "FILE", hide = true)]
    judge: Option<PathBuf>,
    /// Inputs of the model of --judge
    #[arg(long, value_name = "FILE", hide = true)]
    judge_input: Vec<String>,
    #[command(flatten)]
    backend: BackendFlags,
    #[command(flatten)]
    compile: CompileFlags,
}

/// The outcome of a search.
#[derive(Serialize)]
struct Report {
    failure: String,
    model: PathBuf,
    inputs: Vec<PathBuf>,
    nodes_before: usize,
    nodes: usize,
    operators: Vec<String>,
    bytes: usize,
    tried: usize,
}

impl Reduce {
    pub fn run(self) -> Result<ExitCode, Error> {
        let options = self.compile.options()?;
        let limits = options.limits;
        if let Some(path) = &self.judge {
            let model = self.load(path, &self.judge_input, &options)?;
            let oracle = Oracle { backend: self.backend.backend, options, tolerance: self.tolerance };
            outln!("{}", serde_json::to_string(&oracle.failure(&model)).expect("a failure has a JSON form"));
            return Ok(ExitCode::SUCCESS);
        }
        let model = self.load(&self.model, &self.inputs, &options)?;
        let temporary = tempfile::tempdir().map_err(|e| Error::File { path: std::env::temp_dir(), source: e })?;
        let begin = Instant::now();
        let bar = progress::counter();
        let before = model.draft.nodes();
        let mut error = None;
        let mut failure = |m: &TestModel| {
            self.failure(m, temporary.path()).unwrap_or_else(|e| {
                error = Some(e);
                None
            })
        };
        let mut search = Search {
            failure: &mut failure,
            stop: &|| begin.elapsed().as_secs_f64() > self.seconds,
            progress: &|p: &Progress| bar.set_message(format!("{} models tried, {} nodes", p.tried, p.nodes)),
            limits,
        };
        let found = search.run(&model);
        bar.finish_and_clear();
        if let Some(e) = error {
            return Err(e);
        }
        let Some((mut small, how, tried)) = found else {
            let command = if self.command.is_some() { "the command ends with status 0" } else { "its results agree with the evaluator's" };
            return Err(Error::Usage(format!("{} does not fail: {command}", self.model.display())));
        };
        small.draft = typed(&small, &limits);
        // Made-up inputs need no files.
        let made_up = TestModel { inputs: made_up(&small), draft: small.draft.clone() };
        if self.failure(&made_up, temporary.path())?.as_ref() == Some(&how) {
            small.inputs.clear();
        }
        let report = self.write(&small, &how, before, tried)?;
        if self.json {
            print_json(&report)
        } else {
            report.print(&self.model)
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Reads a model, and the values of its inputs from files; without files they are made up.
    fn load(&self, path: &Path, files: &[String], options: &dnnc::Options) -> Result<TestModel, Error> {
        let draft = Draft::load(path, &options.limits).map_err(Error::Usage)?;
        // A model that is refused is not run: it needs no inputs.
        let model = match Model::from_bytes(&draft.bytes(), options) {
            Ok(model) => model,
            Err(_) if files.is_empty() => return Ok(TestModel { draft, inputs: BTreeMap::new() }),
            Err(e) => return Err(e),
        };
        let ports = model.inputs();
        let values = if files.is_empty() {
            let (shapes, _) = self.compile.single_shapes(ports, options, "a model is reduced for")?;
            dnnc::sample_inputs(ports, &shapes)
        } else {
            tensors::read_inputs(ports, files, &options.limits)?
        };
        Ok(TestModel { draft, inputs: ports.iter().map(|p| p.name.clone()).zip(values).collect() })
    }

    /// Writes a model and its inputs to a folder and finds out in another process how it fails.
    fn failure(&self, test: &TestModel, folder: &Path) -> Result<Option<Failure>, Error> {
        let model = folder.join("model.onnx");
        let files = put(test, &model, |i| folder.join(format!("input_{i}.pb")))?;
        let mut command = match &self.command {
            Some(text) => {
                let mut command = Command::new("sh");
                command.arg("-c").arg(text.replace("{}", &model.display().to_string()));
                command
            }
            None => {
                // The arguments of this process, and the model to judge.
                let program = std::env::current_exe().map_err(|e| Error::Usage(format!("this program cannot be found: {e}")))?;
                let arguments: Vec<OsString> = std::env::args_os().skip(2).collect();
                let mut command = Command::new(program);
                command.arg("reduce").arg("--judge").arg(&model);
                files.iter().for_each(|file| {
                    command.arg("--judge-input").arg(file);
                });
                command.args(arguments);
                command
            }
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.map_err(|e| Error::Usage(format!("a process to try models in cannot be started: {e}")))?;
        let mut out = child.stdout.take();
        let Some(status) = wait(&mut child, Duration::from_secs_f64(self.timeout)) else { return Ok(Some(Failure::Timeout)) };
        if self.command.is_some() {
            return Ok(match status.code() {
                Some(0) => None,
                Some(status) => Some(Failure::Command(status)),
                None => Some(Failure::Crash(status.to_string())),
            });
        }
        let mut text = String::new();
        let _ = out.as_mut().map(|o| o.read_to_string(&mut text)); // what cannot be read is no verdict
        match (status.success(), serde_json::from_str(text.trim())) {
            (true, Ok(failure)) => Ok(failure),
            _ if status.code() == Some(1) => Ok(None), // the inputs do not fit the model
            _ => Ok(Some(Failure::Crash(status.to_string()))),
        }
    }

    /// Writes the smaller model, and its inputs where they are needed.
    fn write(&self, small: &TestModel, how: &Failure, before: usize, tried: usize) -> Result<Report, Error> {
        let path = self.output.clone().unwrap_or_else(|| self.model.with_extension("reduced.onnx"));
        let stem = path.with_extension("");
        let inputs = put(small, &path, |i| PathBuf::from(format!("{}.input_{i}.pb", stem.display())))?;
        Ok(Report {
            failure: how.to_string(),
            model: path,
            inputs,
            nodes_before: before,
            nodes: small.draft.nodes(),
            operators: small.draft.operators().into_iter().map(str::to_string).collect(),
            bytes: small.draft.bytes().len(),
            tried,
        })
    }
}

impl Report {
    fn print(&self, model: &Path) {
        let operators = self.operators.join(", ");
        outln!("{}: {}", model.display(), self.failure);
        outln!("{} nodes before, {} now ({operators}); {} models tried", self.nodes_before, self.nodes, self.tried);
        let inputs: Vec<String> = self.inputs.iter().map(|p| format!(" {}", p.display())).collect();
        outln!("written: {}{}", self.model.display(), inputs.concat());
    }
}

/// Writes a model and the values of its inputs, in their order; returns the paths of the inputs.
fn put(test: &TestModel, path: &Path, input: impl Fn(usize) -> PathBuf) -> Result<Vec<PathBuf>, Error> {
    std::fs::write(path, test.draft.bytes()).map_err(|e| Error::File { path: path.into(), source: e })?;
    let mut paths = vec![];
    for name in test.draft.inputs() {
        if let Some(tensor) = test.inputs.get(&name) {
            let path = input(paths.len());
            tensors::write(&path, &name, tensor)?;
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Made-up values for the inputs of a model, of their types.
fn made_up(test: &TestModel) -> BTreeMap<String, dnnc::Tensor> {
    let sample = |(i, name): (usize, String)| {
        let tensor = dnnc::sample(test.inputs.get(&name)?.ty(), i as u64 + 1);
        Some((name, tensor))
    };
    test.draft.inputs().into_iter().enumerate().filter_map(sample).collect()
}

/// Waits for a process; one that exceeds the limit is killed.
fn wait(child: &mut Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let begin = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if begin.elapsed() < limit => std::thread::sleep(pause),
            _ => {
                let _ = child.kill(); // it may just have ended
                let _ = child.wait();
                return None;
            }
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
