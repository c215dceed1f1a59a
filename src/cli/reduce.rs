use super::{Building, print_json, progress};
use clap::Args;
use dnnc::frontend::Draft;
use dnnc::reduce::{Failure, Judge, Progress, Search, Specimen, typed};
use dnnc::via::Via;
use dnnc::{Error, Model, tensors};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Shrink a model that fails: to a smaller one that fails in the same way
///
/// A model fails when its answer is not that of the reference evaluator, when it is refused, when compiling or running it ends in an error or a crash, or when
/// that takes too long; with --command, when the command ends with a status other than 0. Models are tried in processes of their own. Written are
/// MODEL.reduced.onnx and, where made-up inputs do not do, MODEL.reduced.input_0.pb, …
#[derive(Args)]
pub struct Reduce {
    /// The model
    model: PathBuf,
    /// Inputs in the model's order (.npy, .npz or .pb), or NAME=FILE; none: made-up ones
    inputs: Vec<String>,
    /// Where the smaller model is written [default: MODEL.reduced.onnx]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A command of yours that fails: {} in it becomes the path of a model, its inputs lie beside that as input_0.pb, …
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,
    /// How the model is run
    #[arg(long, value_enum, default_value_t = Via::Jit)]
    via: Via,
    /// Threads of the JIT
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How far an answer may be from the evaluator's, as a share of the largest number of a result
    #[arg(long, value_name = "SHARE", default_value_t = 1e-3)]
    tolerance: f64,
    /// Seconds after which the smallest model so far will do
    #[arg(long, default_value_t = 300.0)]
    seconds: f64,
    /// Seconds that one model may take
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    timeout: f64,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    /// Say how this one model fails, as a line of JSON
    #[arg(long, hide = true)]
    judge: bool,
    #[command(flatten)]
    building: Building,
}

/// A folder for the models that are tried, removed with the value.
struct Workshop(PathBuf);

impl Drop for Workshop {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // a folder that stays behind is no error
    }
}

impl Reduce {
    pub fn run(self) -> Result<(), Error> {
        let options = self.building.options(self.threads)?;
        let limits = options.limits;
        let draft = Draft::load(&self.model, &limits).map_err(Error::Usage)?;
        let given = self.given(&options, &draft)?;
        if self.judge {
            let judge = Judge { via: self.via, options, tolerance: self.tolerance };
            say!("{}", to_json(judge.failure(&Specimen { draft, inputs: given }).as_ref()));
            return Ok(());
        }
        let workshop = std::env::temp_dir().join(format!("dnnc-reduce-{}", std::process::id()));
        std::fs::create_dir_all(&workshop).map_err(|e| Error::File { path: workshop.clone(), source: e })?;
        let workshop = Workshop(workshop);
        let begin = Instant::now();
        let bar = progress::counter();
        let specimen = Specimen { draft, inputs: given };
        let before = specimen.draft.nodes();
        let mut trouble = None;
        let mut failure = |s: &Specimen| {
            self.failure(s, &workshop.0).unwrap_or_else(|e| {
                trouble = Some(e);
                None
            })
        };
        let mut search = Search {
            failure: &mut failure,
            stop: &|| begin.elapsed().as_secs_f64() > self.seconds,
            progress: &|p: &Progress| bar.set_message(format!("{} models tried, {} nodes", p.tried, p.nodes)),
            limits,
        };
        let found = search.run(&specimen);
        bar.finish_and_clear();
        if let Some(e) = trouble {
            return Err(e);
        }
        let Some((mut small, how, tried)) = found else {
            let command = if self.command.is_some() { "the command ends with status 0" } else { "its answer is that of the evaluator" };
            return Err(Error::Usage(format!("{} does not fail: {command}", self.model.display())));
        };
        small.draft = typed(&small, &limits);
        // Made-up inputs need no files.
        let plain = Specimen { inputs: made_up(&small)?, draft: small.draft.clone() };
        let files = self.failure(&plain, &workshop.0)?.as_ref() != Some(&how);
        self.write(&small, files, &how, before, tried)
    }

    /// The values of the inputs: from files, or made up.
    fn given(&self, options: &dnnc::Options, draft: &Draft) -> Result<std::collections::BTreeMap<String, dnnc::Tensor>, Error> {
        // A model that is refused is not run: it needs no inputs.
        let model = match Model::from_bytes(&draft.bytes(), options) {
            Ok(model) => model,
            Err(_) if self.inputs.is_empty() => return Ok(Default::default()),
            Err(e) => return Err(e),
        };
        let ports = model.inputs();
        let values = if self.inputs.is_empty() {
            let (shapes, _) = self.building.one(ports, options, "a model is shrunk for")?;
            dnnc::sample_inputs(ports, &shapes)
        } else {
            tensors::read_inputs(ports, &self.inputs, &options.limits)?
        };
        Ok(ports.iter().map(|p| p.name.clone()).zip(values).collect())
    }

    /// Puts a model and its inputs into a folder and finds out in another process how it fails.
    fn failure(&self, specimen: &Specimen, folder: &Path) -> Result<Option<Failure>, Error> {
        let model = folder.join("model.onnx");
        let files = put(specimen, &model, |i| folder.join(format!("input_{i}.pb")))?;
        let mut command = match &self.command {
            Some(text) => {
                let mut command = Command::new("sh");
                command.arg("-c").arg(text.replace("{}", &model.display().to_string()));
                command
            }
            None => {
                let me = std::env::current_exe().map_err(|e| Error::Usage(format!("this program cannot be found: {e}")))?;
                let mut command = Command::new(me);
                command.arg("reduce").arg("--judge").args(["--via", self.via.name(), "--tolerance", &self.tolerance.to_string()]);
                command.args(["--threads", &self.threads.to_string()]).args(self.building.arguments()).arg(&model).args(&files);
                command
            }
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.map_err(|e| Error::Usage(format!("a process to try models in cannot be started: {e}")))?;
        let mut out = child.stdout.take();
        let Some(status) = wait(&mut child, Duration::from_secs_f64(self.timeout)) else { return Ok(Some(Failure::Hang)) };
        if self.command.is_some() {
            return Ok(match status.code() {
                Some(0) => None,
                Some(status) => Some(Failure::Command(status)),
                None => Some(Failure::Crash(status.to_string())),
            });
        }
        let mut text = String::new();
        let _ = out.as_mut().map(|o| o.read_to_string(&mut text)); // what cannot be read is no answer
        match (status.success(), serde_json::from_str::<serde_json::Value>(text.trim())) {
            (true, Ok(answer)) => Ok(from_json(&answer)),
            _ if status.code() == Some(1) => Ok(None), // the model cannot even be bound to its inputs
            _ => Ok(Some(Failure::Crash(status.to_string()))),
        }
    }

    fn write(&self, small: &Specimen, files: bool, how: &Failure, before: usize, tried: usize) -> Result<(), Error> {
        let path = self.output.clone().unwrap_or_else(|| self.model.with_extension("reduced.onnx"));
        let stem = path.with_extension("");
        let beside = |i: usize| PathBuf::from(format!("{}.input_{i}.pb", stem.display()));
        let specimen = if files { small.clone() } else { Specimen { inputs: Default::default(), ..small.clone() } };
        let inputs = put(&specimen, &path, beside)?;
        let (nodes, operators) = (small.draft.nodes(), small.draft.operators().join(", "));
        if self.json {
            print_json(&serde_json::json!({
                "failure": how.to_string(), "model": path, "inputs": inputs, "nodes_before": before, "nodes": nodes,
                "operators": small.draft.operators(), "bytes": small.draft.bytes().len(), "tried": tried,
            }));
            return Ok(());
        }
        say!("{}: {how}", self.model.display());
        say!("{before} nodes before, {nodes} now ({operators}); {tried} models tried");
        let with: Vec<String> = inputs.iter().map(|p| format!(" {}", p.display())).collect();
        say!("written: {}{}", path.display(), with.concat());
        Ok(())
    }
}

/// Writes a model and the values of its inputs, in their order; returns the paths of the latter.
fn put(specimen: &Specimen, path: &Path, input: impl Fn(usize) -> PathBuf) -> Result<Vec<PathBuf>, Error> {
    std::fs::write(path, specimen.draft.bytes()).map_err(|e| Error::File { path: path.into(), source: e })?;
    let mut paths = vec![];
    for name in specimen.draft.inputs() {
        if let Some(tensor) = specimen.inputs.get(&name) {
            let path = input(paths.len());
            tensors::write(&path, &name, tensor)?;
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Made-up values for the inputs of a model, of the shapes that they have.
fn made_up(specimen: &Specimen) -> Result<std::collections::BTreeMap<String, dnnc::Tensor>, Error> {
    let names = specimen.draft.inputs();
    let known =
        names.iter().enumerate().filter_map(|(i, n)| Some((n.clone(), tensors::sample(specimen.inputs.get(n)?.ty(), i as u64 + 1))));
    Ok(known.collect())
}

/// Waits for a process; one that takes too long is ended.
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

fn to_json(failure: Option<&Failure>) -> serde_json::Value {
    match failure {
        None => serde_json::Value::Null,
        Some(Failure::Wrong) => serde_json::json!({"wrong": true}),
        Some(Failure::Refused(reasons)) => serde_json::json!({"refused": reasons}),
        Some(Failure::Error(reason)) => serde_json::json!({"error": reason}),
        Some(other) => serde_json::json!({"crash": other.to_string()}),
    }
}

fn from_json(answer: &serde_json::Value) -> Option<Failure> {
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_string();
    let (key, value) = answer.as_object()?.iter().next()?;
    Some(match key.as_str() {
        "wrong" => Failure::Wrong,
        "refused" => Failure::Refused(value.as_array().into_iter().flatten().map(text).collect()),
        "error" => Failure::Error(text(value)),
        _ => Failure::Crash("a panic".into()),
    })
}
