//! The networks of the repository on each backend, compared with their reference data.

mod common;

use common::{aarch64_runs, check, models, shared};
use dnnc::Options;
use dnnc::difftest::Backend;
use std::path::PathBuf;

fn all(dirs: &[PathBuf], backend: Backend, options: &Options, sets: usize) {
    let failures: Vec<String> =
        dirs.iter().filter_map(|d| check(d, backend, options, sets).err().map(|e| format!("{}: {e}", d.display()))).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_evaluator_gives_the_reference() {
    all(&models(), Backend::Evaluator, &Options::default(), 2);
}

#[test]
fn the_kernel_interpreter_gives_the_reference() {
    // The interpreter is slow: the smallest networks, one set.
    let small: Vec<PathBuf> =
        models().into_iter().filter(|d| std::fs::metadata(d.join("model.onnx")).is_ok_and(|m| m.len() < 500_000)).collect();
    all(&small, Backend::Kir, &Options::default(), 1);
}

#[test]
fn the_jit_gives_the_reference() {
    all(&models(), Backend::Jit, &Options::default(), 2);
}

#[test]
fn the_jit_gives_the_reference_with_threads() {
    all(&models(), Backend::Jit, &Options { threads: 2, ..Options::default() }, 2);
}

#[test]
fn the_jit_gives_the_reference_without_rewrites() {
    all(&models(), Backend::Jit, &Options { rewrites: false, ..Options::default() }, 1);
}

#[test]
fn linked_objects_give_the_reference() {
    all(&models(), Backend::Object, &Options::default(), 2);
}

#[test]
fn aarch64_objects_give_the_reference() {
    if aarch64_runs() {
        all(&models(), Backend::Aarch64, &Options::default(), 1);
    }
}

#[test]
fn older_machines_give_the_reference() {
    let target = dnnc::targets::find("x86-64").expect("the record of baseline x86-64");
    all(&models(), Backend::Object, &Options { target, ..Options::default() }, 1);
}

#[test]
fn networks_beside_the_repository_give_the_reference() {
    let Some(root) = shared("models/real") else { return };
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(root)
        .expect("a folder")
        .filter_map(|e| e.ok())
        .map(|e| e.path())
        .filter(|p| p.join("model.onnx").exists())
        .collect();
    dirs.sort();
    all(&dirs, Backend::Jit, &Options::default(), 2);
}
