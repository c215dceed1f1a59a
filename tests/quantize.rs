//! `dnnc quantize`: what is written computes almost the same, with 8-bit weights, and says what it cannot do.
#![cfg(feature = "cli")]

use dnnc::{Options, Tensor, tensors};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn dnnc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dnnc")).args(args).output().expect("the binary was built")
}

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lenet-5/model.onnx")
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("a path of the tests")
}

fn error(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Smooth made-up images.
fn images(seed: u64, count: usize) -> Tensor {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut values = vec![];
    for _ in 0..count {
        let waves: Vec<[f32; 3]> = (0..4).map(|_| [random.f32() * 0.6, random.f32() * 0.6, random.f32() * 6.0]).collect();
        let pixel = |i: usize| waves.iter().map(|w| 0.2 * (w[0] * (i / 28) as f32 + w[1] * (i % 28) as f32 + w[2]).sin()).sum::<f32>();
        values.extend((0..784).map(|i| (0.5 + pixel(i)).clamp(0.0, 1.0)));
    }
    Tensor::new([count, 1, 28, 28], &values)
}

/// 10·log₁₀ of signal over noise on images that calibration has not seen.
fn snr(path: &Path) -> f64 {
    let run = |path: &Path| {
        let x = images(2, 20);
        let model = dnnc::compile(path, &Options::default()).expect("a model");
        model.run(std::slice::from_ref(&x)).expect("it runs")[0].to_f64s()
    };
    let (reference, other) = (run(&model()), run(path));
    let signal: f64 = reference.iter().map(|v| v * v).sum();
    let noise: f64 = reference.iter().zip(&other).map(|(a, b)| (a - b).powi(2)).sum();
    10.0 * (signal / noise).log10()
}

#[test]
fn formats_keep_the_signal_and_bytes_are_the_same_twice() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str| dir.path().join(name);
    let (calib, source) = (file("x.npy"), model());
    tensors::write(&calib, "x", &images(1, 40)).expect("written");
    let quantize = |output: &Path, more: &[&str]| {
        let mut args = vec!["quantize", shown(&source), "--calib", shown(&calib), "-o", shown(output), "--json"];
        args.extend(more);
        let out = dnnc(&args);
        assert!(out.status.success(), "{more:?}: {}", error(&out));
        serde_json::from_slice::<serde_json::Value>(&out.stdout).expect("JSON")
    };
    for (format, least) in [("int8", 30.0), ("int8w", 38.0), ("dfp8", 20.0)] {
        let path = file(&format!("{format}.onnx"));
        let report = quantize(&path, &["--format", format]);
        let snr = snr(&path);
        assert!(snr > least, "{format}: {snr} dB, {report}");
        assert!(report["kept"].as_array().is_some_and(Vec::is_empty), "{report}");
        let (before, after) = (report["model_bytes"].as_f64().expect("a size"), report["output_bytes"].as_f64().expect("a size"));
        assert!(after < 0.3 * before, "{format}: {after} of {before} bytes");
    }
    quantize(&file("again.onnx"), &[]);
    assert_eq!(std::fs::read(file("int8.onnx")).expect("written"), std::fs::read(file("again.onnx")).expect("written"));
    // A node that stays in floats is named, and makes the result better.
    let name = dnnc::frontend::Draft::load(&source, &dnnc::Limits::default()).expect("a model");
    let first = name.views().iter().find(|n| n.op == "Conv").expect("a convolution").shown().to_string();
    let report = quantize(&file("kept.onnx"), &["--keep", &first]);
    assert_eq!(report["kept"][0]["node"], first.as_str());
}

#[test]
fn what_does_not_fit_is_said() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (calib, output) = (dir.path().join("x.npy"), dir.path().join("q.onnx"));
    tensors::write(&calib, "x", &Tensor::new([4, 3], &[0f32; 12])).expect("written");
    let source = model();
    let wrong = dir.path().join("q.txt");
    for (args, what) in [
        (vec!["-o", shown(&output)], "--calib"),
        (vec!["-o", shown(&output), "--calib", shown(&calib)], "a sample has the shape [3]"),
        (vec!["-o", shown(&wrong), "--calib", shown(&calib)], "ends in .onnx"),
        (vec!["-o", shown(&output), "--calib", shown(&calib), "--keep", "nobody"], "no node of that name"),
    ] {
        let mut all = vec!["quantize", shown(&source)];
        all.extend(args);
        let out = dnnc(&all);
        assert!(out.status.code() == Some(1) && error(&out).contains(what), "{all:?}: {}", error(&out));
        assert!(!output.exists() && !wrong.exists(), "nothing is written when there is an error");
    }
}
