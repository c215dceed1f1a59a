//! `dnnc check`: models on reference data.

use super::flags::{BackendFlags, CompileFlags};
use super::output::{outln, print_json};
use super::progress;
use clap::Args;
use dnnc::compare::{Tolerance, compare};
use dnnc::difftest::Backend;
use dnnc::difftest::bisect::{Cause, FirstWrong, Oracle, first_wrong_of};
use dnnc::{Error, Model, Tensor, tensors};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Check models against reference data (folders in the layout of the ONNX backend tests)
///
/// A folder holds model.onnx, test_data_set_K/ with input_N.pb and output_N.pb, and optionally data.json {"rtol", "atol"}. The last line for each folder is
/// `PASS name`, `FAIL name reason` or `UNSUPPORTED name reason`; the exit status is 0, 1 or 2, the worst of all folders. For a wrong result, the lines before
/// it name the first wrong step, found by comparison with the reference evaluator, and the part of the compiler that causes it.
/// With DNNC_TEST_OUT set, results are also written to that folder (those of the last model checked).
///
/// Example: dnnc check node/test_add node/test_conv_with_strides_padding
#[derive(Args)]
pub struct Check {
    /// Folders
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Do not search for the first wrong step
    #[arg(long)]
    no_bisect: bool,
    /// Print a JSON array with the verdict of each folder
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    backend: BackendFlags,
    #[command(flatten)]
    compile: CompileFlags,
}

enum Verdict {
    Pass,
    /// Why, and what the search for the first wrong step found.
    Fail(String, Option<Found>),
    Unsupported(String),
}

/// What a search for the first wrong step found.
enum Found {
    Step(Box<FirstWrong>),
    Nothing(String),
}

/// The verdict of a folder.
#[derive(Serialize)]
struct Row {
    name: String,
    verdict: &'static str,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_wrong: Option<FoundReport>,
}

/// What a search for the first wrong step found, as JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum FoundReport {
    Nothing {
        note: String,
    },
    Step {
        node: String,
        operator: &'static str,
        r#use: String,
        error: String,
        nodes_before: usize,
        cause: &'static str,
        steps: Vec<String>,
        graph: String,
    },
}

/// A result that differs from the reference data.
struct Wrong {
    what: String,
    inputs: Vec<Tensor>,
}

impl Check {
    pub fn run(self) -> Result<ExitCode, Error> {
        let mut worst = 0;
        let mut rows = vec![];
        let (mut passed, mut checked) = (0, 0);
        for dir in &self.dirs {
            if self.dirs.len() > 1 && !dir.join("model.onnx").exists() {
                eprintln!("note: {} is skipped: it has no model.onnx", dir.display());
                continue;
            }
            checked += 1;
            let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| dir.display().to_string());
            let verdict = self.one(dir);
            let (word, reason, status) = match &verdict {
                Verdict::Pass => ("PASS", String::new(), 0),
                Verdict::Fail(why, _) => ("FAIL", one_line(why), 1),
                Verdict::Unsupported(why) => ("UNSUPPORTED", one_line(why), 2),
            };
            passed += usize::from(status == 0);
            worst = match (worst, status) {
                (1, _) | (_, 1) => 1,
                (a, b) => a.max(b),
            };
            let found = if let Verdict::Fail(_, found) = &verdict { found.as_ref() } else { None };
            if self.json {
                rows.push(Row { name, verdict: word, reason, first_wrong: found.map(Found::report) });
            } else {
                match found {
                    Some(Found::Step(step)) => outln!("{step}"),
                    Some(Found::Nothing(why)) => outln!("{why}"),
                    None => {}
                }
                outln!("{}", format!("{word} {name} {reason}").trim_end());
            }
        }
        if self.json {
            print_json(&rows);
        } else if self.dirs.len() > 1 {
            outln!("{passed} of {checked} passed on backend {}", self.backend.backend.name());
        }
        Ok(ExitCode::from(worst))
    }

    fn one(&self, dir: &Path) -> Verdict {
        match self.compare_all(dir) {
            Ok(None) => Verdict::Pass,
            Ok(Some(wrong)) => {
                let search = || progress::with_spinner("searching for the first wrong step", || self.first_wrong(dir, &wrong.inputs));
                let found = (!self.no_bisect && self.backend.backend != Backend::Evaluator)
                    .then(|| search().unwrap_or_else(|e| Found::Nothing(e.to_string())));
                Verdict::Fail(wrong.what, found)
            }
            Err(Error::Refused(r)) if r.list.iter().all(|r| r.kind == dnnc::frontend::RefusalKind::Unsupported) => {
                Verdict::Unsupported(r.to_string())
            }
            Err(e) => Verdict::Fail(e.to_string(), None),
        }
    }

    fn first_wrong(&self, dir: &Path, inputs: &[Tensor]) -> Result<Found, Error> {
        let options = self.compile.options()?;
        let model = dnnc::frontend::Model::load(&dir.join("model.onnx"), &options.limits)?;
        let oracle = Oracle::new(self.backend.backend, &options, tolerance(dir)?.rtol);
        Ok(match first_wrong_of(&model, inputs, &oracle)? {
            Some(step) => Found::Step(Box::new(step)),
            None => Found::Nothing(
                "no step is wrong: the reference evaluator has the same result; the cause is import, or the reference data".into(),
            ),
        })
    }

    fn compare_all(&self, dir: &Path) -> Result<Option<Wrong>, Error> {
        let options = self.compile.options()?;
        let model = Model::load(&dir.join("model.onnx"), &options)?.with_backend(self.backend.backend);
        let tolerance = tolerance(dir)?;
        let mut sets: Vec<PathBuf> = list(dir)?.into_iter().filter(|p| file_name(p).starts_with("test_data_set_")).collect();
        sets.sort();
        if sets.is_empty() {
            return Err(Error::Usage(format!("{}: it has no test_data_set_K", dir.display())));
        }
        let out = std::env::var_os("DNNC_TEST_OUT").map(PathBuf::from);
        for set in sets {
            let inputs = numbered(&set, "input_", &options)?;
            let want = numbered(&set, "output_", &options)?;
            let got = progress::with_spinner(&format!("checking {}", dir.display()), || model.run(&inputs))?;
            if let Some(out) = &out {
                let folder = out.join(file_name(&set));
                std::fs::create_dir_all(&folder).map_err(|e| Error::File { path: folder.clone(), source: e })?;
                for (i, t) in got.iter().enumerate() {
                    tensors::write(&folder.join(format!("output_{i}.pb")), &model.outputs()[i].name, t)?;
                }
            }
            if got.len() != want.len() {
                return Err(Error::Run(format!("{}: {} results, want {}", file_name(&set), got.len(), want.len())));
            }
            for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                if let Err(e) = compare(g, w, tolerance) {
                    let what = format!("{}: output {i} (`{}`): {e}", file_name(&set), model.outputs()[i].name);
                    return Ok(Some(Wrong { what, inputs }));
                }
            }
        }
        Ok(None)
    }
}

impl Found {
    fn report(&self) -> FoundReport {
        match self {
            Found::Nothing(why) => FoundReport::Nothing { note: why.clone() },
            Found::Step(s) => FoundReport::Step {
                node: s.node.clone(),
                operator: s.op,
                r#use: s.line.clone(),
                error: s.error.clone(),
                nodes_before: s.before,
                cause: match s.cause {
                    Cause::Rewriting => "rewriting",
                    Cause::CodeGeneration => "code generation",
                },
                steps: s.steps.clone(),
                graph: s.graph.clone(),
            },
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(dir).map_err(|e| Error::File { path: dir.into(), source: e })?;
    Ok(entries.filter_map(|e| e.ok()).map(|e| e.path()).collect())
}

/// Tensors of the files `prefix0.pb`, `prefix1.pb`, …, by number.
fn numbered(dir: &Path, prefix: &str, options: &dnnc::Options) -> Result<Vec<Tensor>, Error> {
    let mut files: Vec<(usize, PathBuf)> = list(dir)?
        .into_iter()
        .filter_map(|p| {
            let name = file_name(&p);
            let number = name.strip_prefix(prefix)?.strip_suffix(".pb")?.parse().ok()?;
            Some((number, p))
        })
        .collect();
    files.sort();
    files.iter().map(|(_, p)| tensors::read(p, &options.limits)).collect()
}

fn tolerance(dir: &Path) -> Result<Tolerance, Error> {
    let path = dir.join("data.json");
    let mut tolerance = Tolerance::default();
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(tolerance) };
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| Error::Usage(format!("{}: not JSON: {e}", path.display())))?;
    if let Some(v) = json.get("rtol").and_then(|v| v.as_f64()) {
        tolerance.rtol = v;
    }
    if let Some(v) = json.get("atol").and_then(|v| v.as_f64()) {
        tolerance.atol = v;
    }
    Ok(tolerance)
}
