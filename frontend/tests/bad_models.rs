//! Hostile and malformed models: each is refused with a message that names the culprit, or accepted where it is only odd.
//!
//! The models are no part of the repository: `DNNC_BAD_MODELS` names their folder, with a `manifest.jsonl`. Without it nothing runs, which
//! is said.

use dnnc_frontend::{Dim, Limits, Model, read_tensor, run_with};
use dnnc_ir::{Tensor, eval};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Compiles, and runs where inputs are given; the message of a refusal or failure.
fn attempt(root: &Path, case: &Value) -> Result<Vec<Tensor>, String> {
    let model = Model::load(&root.join(case["file"].as_str().unwrap()), &Limits::default()).map_err(|e| e.to_string())?;
    if let Some(folder) = case["inputs"].as_str() {
        let path = |i| root.join(folder).join(format!("input_{i}.pb"));
        let inputs: Result<Vec<Tensor>, String> =
            (0..).map(path).take_while(|p| p.exists()).map(|p| Ok(read_tensor(&p, &Limits::default())?.1)).collect();
        return run_with(&model, &inputs?, |graph, inputs| eval::eval(graph, inputs).map_err(|e| e.to_string())).map_err(|e| e.to_string());
    }
    let size = |d: &Dim| if let Dim::Known(n) = d { *n } else { 1 };
    let shapes: Vec<Vec<usize>> = model.inputs().iter().map(|p| p.dims.iter().flatten().map(size).collect()).collect();
    model.specialise(&shapes).map(|_| vec![]).map_err(|e| e.to_string())
}

#[test]
fn bad_models_are_refused_by_name() {
    let Some(root) = std::env::var_os("DNNC_BAD_MODELS") else {
        eprintln!("DNNC_BAD_MODELS names no folder of bad models: nothing was tested");
        return;
    };
    let root = Path::new(&root);
    let mut wrong = vec![];
    for line in fs::read_to_string(root.join("manifest.jsonl")).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let file = case["file"].as_str().unwrap();
        let names: Vec<String> = case["names"].as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_lowercase()).collect();
        match (case["expect"].as_str().unwrap(), attempt(root, &case)) {
            ("error", Ok(_)) => wrong.push(format!("{file}: accepted")),
            ("error", Err(e)) if !names.is_empty() && !names.iter().any(|n| e.to_lowercase().contains(n)) => {
                wrong.push(format!("{file}: {e}"))
            }
            ("accept", Err(e)) => wrong.push(format!("{file}: refused: {e}")),
            ("accept", Ok(results)) => {
                let folder = root.join(case["outputs"].as_str().unwrap());
                for (i, got) in results.iter().enumerate() {
                    let (_, want) = read_tensor(&folder.join(format!("output_{i}.pb")), &Limits::default()).unwrap();
                    if want != *got {
                        wrong.push(format!("{file}: output {i} is wrong"));
                    }
                }
            }
            (_, Ok(_)) => {}
            (_, Err(e)) => eprintln!("{file}: {e}"),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
