//! Real models through import and the reference evaluator, against the answers that come with them.
//!
//! The models are no part of the repository: `DNNC_REAL_MODELS` names their folder. Without it nothing runs, which is said.
//! `DNNC_REAL_ONLY` runs those whose name contains its value.

use dnnc_frontend::{Limits, Model, read_tensor, run_with};
use dnnc_ir::{Tensor, eval};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

fn tensors(set: &Path, kind: &str) -> Vec<Tensor> {
    let path = |i| set.join(format!("{kind}_{i}.pb"));
    (0..).map(path).take_while(|p| p.exists()).map(|p| read_tensor(&p, &Limits::default()).unwrap().1).collect()
}

fn tolerance(folder: &Path) -> (f64, f64) {
    let data: serde_json::Value =
        fs::read(folder.join("data.json")).map_or_else(|_| Default::default(), |b| serde_json::from_slice(&b).unwrap());
    (data["rtol"].as_f64().unwrap_or(1e-3), data["atol"].as_f64().unwrap_or(1e-5))
}

fn run(folder: &Path) -> Result<String, String> {
    let start = Instant::now();
    let model = Model::load(&folder.join("model.onnx"), &Limits::default()).map_err(|e| e.to_string())?;
    let (rtol, atol) = tolerance(folder);
    let (mut stages, mut nodes) = (0, 0);
    for set in ["test_data_set_0", "test_data_set_1"].map(|s| folder.join(s)) {
        let (inputs, wanted) = (tensors(&set, "input"), tensors(&set, "output"));
        let results = run_with(&model, &inputs, |graph, inputs| {
            (stages, nodes) = (stages + 1, nodes + graph.nodes().len());
            eval::eval(graph, inputs).map_err(|e| e.to_string())
        });
        let results = results.map_err(|e| e.to_string())?;
        for (i, (want, got)) in wanted.iter().zip(&results).enumerate() {
            if want.ty() != got.ty() {
                return Err(format!("output {i} is {}, want {}", got.ty(), want.ty()));
            }
            let worst = want.to_f64s().iter().zip(got.to_f64s()).map(|(w, g)| (w - g).abs() - rtol * w.abs()).fold(f64::MIN, f64::max);
            if worst.is_nan() || worst > atol {
                return Err(format!("output {i} is wrong by {worst}, tolerance {atol}"));
            }
        }
        if results.len() != wanted.len() {
            return Err(format!("{} results, want {}", results.len(), wanted.len()));
        }
    }
    Ok(format!("{stages} stages, {nodes} nodes, {:.1} s", start.elapsed().as_secs_f64()))
}

#[test]
fn real_models_give_their_answers() {
    let Some(root) = std::env::var_os("DNNC_REAL_MODELS") else {
        eprintln!("DNNC_REAL_MODELS names no folder of models: nothing was tested");
        return;
    };
    let only = std::env::var("DNNC_REAL_ONLY").unwrap_or_default();
    let mut folders: Vec<PathBuf> =
        fs::read_dir(&root).unwrap().map(|e| e.unwrap().path()).filter(|p| p.join("model.onnx").exists()).collect();
    folders.sort();
    assert!(!folders.is_empty(), "no models in {}", root.display());
    let mut wrong = vec![];
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if !name.contains(&only) {
            continue;
        }
        match run(&folder) {
            Ok(how) => eprintln!("{name}: {how}"),
            Err(e) => {
                eprintln!("{name}: {e}");
                wrong.push(name);
            }
        }
    }
    assert!(wrong.is_empty(), "wrong: {}", wrong.join(", "));
}
