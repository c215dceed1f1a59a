//! Shared by several test files: folders of reference data, and running a model on them.

// Each test program uses a part of this module.
#![allow(dead_code)]

pub mod onnx;

use dnnc::compare::{Tolerance, compare};
use dnnc::difftest::Backend;
use dnnc::{Limits, Model, Options, Tensor, tensors};
use std::path::{Path, PathBuf};

/// Folders of the models in the repository.
pub fn models() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(&root)
        .expect("tests/data is part of the repository")
        .filter_map(|e| e.ok())
        .map(|e| e.path())
        .filter(|p| p.join("model.onnx").exists())
        .collect();
    dirs.sort();
    assert!(!dirs.is_empty());
    dirs
}

/// A folder of additional test data beside the repository; `None` with a message when it is missing.
pub fn shared(what: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(what);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: there is no ../shared/{what} beside the repository");
    None
}

/// Whether objects for AArch64 can be linked and run here; false with a message when they cannot.
pub fn aarch64_runs() -> bool {
    let found = ["qemu-aarch64", "aarch64-linux-gnu-gcc"].iter().all(|p| std::process::Command::new(p).arg("--version").output().is_ok());
    if !found {
        eprintln!("skipped: qemu-aarch64 or aarch64-linux-gnu-gcc is not installed");
    }
    found
}

/// Tensors `prefix0.pb`, `prefix1.pb`, … of a folder.
pub fn numbered(dir: &Path, prefix: &str) -> Vec<Tensor> {
    (0..)
        .map(|i| dir.join(format!("{prefix}{i}.pb")))
        .take_while(|p| p.exists())
        .map(|p| tensors::read(&p, &Limits::default()).unwrap_or_else(|e| panic!("{e}")))
        .collect()
}

/// Tolerance of a folder.
pub fn tolerance(dir: &Path) -> Tolerance {
    let mut tolerance = Tolerance::default();
    if let Ok(text) = std::fs::read_to_string(dir.join("data.json")) {
        let json: serde_json::Value = serde_json::from_str(&text).expect("data.json is JSON");
        tolerance.rtol = json["rtol"].as_f64().unwrap_or(tolerance.rtol);
        tolerance.atol = json["atol"].as_f64().unwrap_or(tolerance.atol);
    }
    tolerance
}

/// Runs a model on the first `sets` sets of its folder and compares; an error says what differs.
pub fn check(dir: &Path, backend: Backend, options: &Options, sets: usize) -> Result<(), String> {
    let model = Model::load(&dir.join("model.onnx"), options).map(|m| m.with_backend(backend)).map_err(|e| e.to_string())?;
    for k in 0..sets {
        let set = dir.join(format!("test_data_set_{k}"));
        if !set.exists() {
            break;
        }
        let want = numbered(&set, "output_");
        let got = model.run(&numbered(&set, "input_")).map_err(|e| e.to_string())?;
        assert_eq!(got.len(), want.len(), "{}", dir.display());
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            compare(g, w, tolerance(dir)).map_err(|e| format!("set {k}, output {i}: {e}"))?;
        }
    }
    Ok(())
}
