//! Every operator test of ONNX through import and the reference evaluator, with the tolerances of ONNX.
//!
//! The tests are no part of the repository: `DNNC_ONNX_TESTS` names their folder. Without it nothing runs, which is said.
//! `DNNC_ONNX_ONLY` runs those whose name contains its value.

use dnnc_frontend::{Limits, Model, read_tensor, run_with};
use dnnc_ir::{Tensor, Type, eval};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

fn differ(want: &Tensor, got: &Tensor, [rtol, atol]: [f64; 2]) -> Option<String> {
    if want.ty() != got.ty() {
        return Some(format!("{}, want {}", got.ty(), want.ty()));
    }
    let exact = want.ty().ty.is_int() || want.ty().ty == Type::Bool || want.ty().ty.bytes() == 1;
    if exact {
        let wrong =
            want.to_f64s().iter().zip(got.to_f64s()).filter(|(a, b)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan())).count();
        return (wrong > 0 && want.bytes() != got.bytes()).then(|| format!("{wrong} of {} elements differ", want.len()));
    }
    let rtol = if want.ty().ty == Type::BF16 { rtol.max(1.0 / 64.0) } else { rtol };
    let close = |(a, b): (&f64, &f64)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= atol + rtol * a.abs();
    let (want, got) = (want.to_f64s(), got.to_f64s());
    let wrong: Vec<usize> = (0..want.len()).filter(|&i| !close((&want[i], &got[i]))).collect();
    let first = *wrong.first()?;
    Some(format!("{} of {} elements differ: element {first} is {}, want {}", wrong.len(), want.len(), got[first], want[first]))
}

fn tensors(folder: &Path, kind: &str) -> Result<Vec<Tensor>, String> {
    let path = |i| folder.join(format!("{kind}_{i}.pb"));
    (0..).map(path).take_while(|p| p.exists()).map(|p| read_tensor(&p, &Limits::default()).map(|(_, t)| t)).collect()
}

fn run(folder: &Path) -> Result<(), String> {
    let model = Model::load(&folder.join("model.onnx"), &Limits::default()).map_err(|e| e.to_string())?;
    // A test may bring tolerances of its own.
    let own: serde_json::Value = fs::read(folder.join("data.json")).ok().and_then(|t| serde_json::from_slice(&t).ok()).unwrap_or_default();
    let tolerance = [("rtol", 1e-3), ("atol", 1e-7)].map(|(name, usual)| own[name].as_f64().unwrap_or(usual));
    for set in (0..).map(|i| folder.join(format!("test_data_set_{i}"))).take_while(|p| p.exists()) {
        let (inputs, wanted) = (tensors(&set, "input")?, tensors(&set, "output")?);
        let execute = |graph: &dnnc_ir::Graph, inputs: &[Tensor]| eval::eval(graph, inputs).map_err(|e| e.to_string());
        let results = run_with(&model, &inputs, execute).map_err(|e| e.to_string())?;
        if results.len() != wanted.len() {
            return Err(format!("{} results, want {}", results.len(), wanted.len()));
        }
        for (i, (want, got)) in wanted.iter().zip(&results).enumerate() {
            if let Some(how) = differ(want, got, tolerance) {
                return Err(format!("output {i}: {how}"));
            }
        }
    }
    Ok(())
}

fn tests(root: &Path) -> Vec<PathBuf> {
    let only = std::env::var("DNNC_ONNX_ONLY").unwrap_or_default();
    let mut found = vec![];
    for kind in ["node", "simple", "pytorch-operator", "pytorch-converted"] {
        let Ok(entries) = fs::read_dir(root.join(kind)) else { continue };
        found.extend(entries.filter_map(|e| e.ok()).map(|e| e.path()).filter(|p| p.join("model.onnx").exists()));
    }
    found.retain(|p| p.to_string_lossy().contains(&only));
    found.sort();
    found
}

#[test]
fn onnx_operator_tests_pass() {
    let Ok(root) = std::env::var("DNNC_ONNX_TESTS") else {
        println!("not run: DNNC_ONNX_TESTS names no folder");
        return;
    };
    let all = tests(Path::new(&root));
    assert!(!all.is_empty(), "{root} holds no tests");
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(vec![]));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while let Some(folder) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = catch_unwind(AssertUnwindSafe(|| run(folder))).unwrap_or_else(|_| Err("panic".into()));
                    if let Err(reason) = outcome {
                        let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                        failed.lock().expect("no holder panics").push(format!("{name}: {}", reason.replace('\n', " ")));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("no holder panics");
    failed.sort();
    for line in &failed {
        println!("FAIL {line}");
    }
    println!("{} passed, {} failed", all.len() - failed.len(), failed.len());
    assert!(failed.is_empty(), "{} of {} tests fail", failed.len(), all.len());
}
