use super::{Building, print_json};
use clap::Args;
use dnnc::bisect::{Cause, FirstWrong, Judge, first_wrong_of};
use dnnc::compare::{Tolerance, compare};
use dnnc::via::Via;
use dnnc::{Error, Model, Tensor, tensors};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Run models on reference data and compare (folders in the layout of the ONNX backend tests)
///
/// A folder holds model.onnx, test_data_set_K/ with input_N.pb and output_N.pb, and perhaps data.json {"rtol", "atol"}. The last line for each folder is
/// `PASS name`, `FAIL name reason` or `UNSUPPORTED name reason`; the exit status is 0, 1 or 2, the worst of all folders. Where an answer is wrong, the lines
/// before it name the first step that is, by the reference evaluator, and what is to blame.
/// With DNNC_TEST_OUT set, results are also written to that folder (of the last model checked).
#[derive(Args)]
pub struct Check {
    /// Folders
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// How the model is run
    #[arg(long, value_enum, default_value_t = Via::Jit)]
    via: Via,
    /// Threads of the JIT
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Do not look for the first wrong step of a model whose answer is wrong
    #[arg(long)]
    no_bisect: bool,
    /// Print a JSON object with all verdicts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    building: Building,
}

enum Verdict {
    Pass,
    /// Why, and where the answer is first wrong.
    Fail(String, Option<Found>),
    Unsupported(String),
}

/// What a search for the first wrong step says.
enum Found {
    Step(Box<FirstWrong>),
    Nothing(String),
}

/// An answer that is not that of the reference data.
struct Wrong {
    what: String,
    inputs: Vec<Tensor>,
}

impl Check {
    pub fn run(self) -> ExitCode {
        let mut worst = 0;
        let mut rows = vec![];
        let (mut passed, mut checked) = (0, 0);
        for dir in &self.dirs {
            if self.dirs.len() > 1 && !dir.join("model.onnx").exists() {
                eprintln!("note: {} is left out: no model.onnx in it", dir.display());
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
                let mut row = serde_json::json!({"name": name, "verdict": word, "reason": reason});
                if let Some(found) = found {
                    row["first_wrong"] = found.json();
                }
                rows.push(row);
            } else {
                match found {
                    Some(Found::Step(step)) => say!("{step}"),
                    Some(Found::Nothing(why)) => say!("{why}"),
                    None => {}
                }
                say!("{}", format!("{word} {name} {reason}").trim_end());
            }
        }
        if self.json {
            print_json(&rows.into());
        } else if self.dirs.len() > 1 {
            say!("{passed} of {checked} passed via {}", self.via.name());
        }
        ExitCode::from(worst)
    }

    fn one(&self, dir: &Path) -> Verdict {
        match self.compare_all(dir) {
            Ok(None) => Verdict::Pass,
            Ok(Some(wrong)) => {
                let search = || super::progress::while_doing("looking for the first wrong step", || self.first_wrong(dir, &wrong.inputs));
                let found =
                    (!self.no_bisect && self.via != Via::Evaluator).then(|| search().unwrap_or_else(|e| Found::Nothing(e.to_string())));
                Verdict::Fail(wrong.what, found)
            }
            Err(Error::Refused(r)) if r.list.iter().all(|r| r.kind == dnnc::frontend::RefusalKind::Unsupported) => {
                Verdict::Unsupported(r.to_string())
            }
            Err(e) => Verdict::Fail(e.to_string(), None),
        }
    }

    fn first_wrong(&self, dir: &Path, inputs: &[Tensor]) -> Result<Found, Error> {
        let options = self.building.options(self.threads)?;
        let model = dnnc::frontend::Model::load(&dir.join("model.onnx"), &options.limits)?;
        let judge = Judge::new(self.via, &options, tolerance(dir)?.rtol);
        Ok(match first_wrong_of(&model, inputs, &judge)? {
            Some(step) => Found::Step(Box::new(step)),
            None => Found::Nothing(
                "no step is wrong: the reference evaluator has the same answer, so that reading the model is at fault".into(),
            ),
        })
    }

    fn compare_all(&self, dir: &Path) -> Result<Option<Wrong>, Error> {
        let options = self.building.options(self.threads)?;
        let model = Model::load(&dir.join("model.onnx"), &options)?.via(self.via)?;
        let tolerance = tolerance(dir)?;
        let mut sets: Vec<PathBuf> = list(dir)?.into_iter().filter(|p| file_name(p).starts_with("test_data_set_")).collect();
        sets.sort();
        if sets.is_empty() {
            return Err(Error::Usage(format!("{}: no test_data_set_K in it", dir.display())));
        }
        let out = std::env::var_os("DNNC_TEST_OUT").map(PathBuf::from);
        for set in sets {
            let inputs = numbered(&set, "input_", &options)?;
            let want = numbered(&set, "output_", &options)?;
            let got = super::progress::while_doing(&format!("checking {}", dir.display()), || model.run(&inputs))?;
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
    fn json(&self) -> serde_json::Value {
        match self {
            Found::Nothing(why) => serde_json::json!({"note": why}),
            Found::Step(s) => serde_json::json!({
                "node": s.node, "operator": s.op, "use": s.line, "error": s.error, "nodes_before": s.before,
                "cause": match s.cause { Cause::Rewriting => "rewriting", Cause::CodeGeneration => "code generation" },
                "steps": s.steps, "graph": s.graph,
            }),
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

/// Tensors of the files `prefix0.pb`, `prefix1.pb`, … in order of their number.
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
