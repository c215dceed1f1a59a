//! `dnnc compress` and the container that it writes.
#![cfg(feature = "cli")]

use dnnc::{Limits, Options, Tensor, tensors};
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

/// Blurred made-up images.
fn images(count: usize) -> Tensor {
    let mut random = fastrand::Rng::with_seed(9);
    let mut values = vec![];
    for _ in 0..count {
        let waves: Vec<[f32; 3]> = (0..4).map(|_| [random.f32() * 0.6, random.f32() * 0.6, random.f32() * 6.0]).collect();
        let pixel = |i: usize| waves.iter().map(|w| 0.2 * (w[0] * (i / 28) as f32 + w[1] * (i % 28) as f32 + w[2]).sin()).sum::<f32>();
        values.extend((0..784).map(|i| (0.5 + pixel(i)).clamp(0.0, 1.0)));
    }
    Tensor::new([count, 1, 28, 28], &values)
}

fn run(path: &Path, x: &Tensor) -> Vec<f32> {
    let model = dnnc::compile(path, &Options::default()).expect("a model");
    model.run(std::slice::from_ref(x)).expect("it runs")[0].values::<f32>().to_vec()
}

#[test]
fn a_container_is_the_same_model() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let packed = dir.path().join("m.dnnc");
    let out = dnnc(&["compress", shown(&model()), "-o", shown(&packed)]);
    assert!(out.status.success(), "{}", error(&out));
    let x = images(2);
    assert_eq!(run(&packed, &x), run(&model(), &x));
    for command in ["inspect", "explain"] {
        let out = dnnc(&[command, shown(&packed)]);
        assert!(out.status.success(), "{command}: {}", error(&out));
    }
    let whole = std::fs::read(&packed).expect("it was written");
    for (name, change) in [("cut", 0), ("flipped", 1)] {
        let mut bytes = whole.clone();
        if change == 0 {
            bytes.truncate(whole.len() / 2);
        } else {
            bytes[whole.len() / 2] ^= 1;
        }
        let path = dir.path().join(format!("{name}.dnnc"));
        std::fs::write(&path, bytes).expect("written");
        let out = dnnc(&["run", shown(&path)]);
        assert_eq!(out.status.code(), Some(1), "{name}");
        assert!(error(&out).contains("a damaged dnnc container") && !error(&out).contains("panicked"), "{}", error(&out));
    }
}

#[test]
fn fewer_weights_and_the_same_bytes_twice() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str| dir.path().join(name);
    let calib = file("x.npy");
    tensors::write(&calib, "x", &images(40)).expect("written");
    let compress = |output: &Path, more: &[&str]| {
        let source = model();
        let mut args = vec!["compress", shown(&source), "--calib", shown(&calib), "-o", shown(output), "--json"];
        args.extend(more);
        let out = dnnc(&args);
        assert!(out.status.success(), "{}", error(&out));
        serde_json::from_slice::<serde_json::Value>(&out.stdout).expect("JSON")
    };
    let difference = |path: &Path| {
        let x = images(40);
        run(path, &x).iter().zip(run(&model(), &x)).map(|(a, b)| (a - b).powi(2)).sum::<f32>()
    };
    for (name, method) in [("m.onnx", "magnitude"), ("o.onnx", "obs")] {
        let report = compress(&file(name), &["--prune", method, "--density", "0.1"]);
        let density = report["density"].as_f64().expect("a number");
        assert!((density - 0.1).abs() < 0.002, "{method}: {density}");
    }
    assert!(difference(&file("o.onnx")) < difference(&file("m.onnx")));

    let deep = ["--recipe", "deep-compression", "--density", "0.2"];
    let report = compress(&file("a.dnnc"), &deep);
    compress(&file("b.dnnc"), &deep);
    let bytes = std::fs::read(file("a.dnnc")).expect("written");
    assert_eq!(bytes, std::fs::read(file("b.dnnc")).expect("written"));
    assert_eq!(report["output_bytes"], bytes.len());
    assert!(report["times_smaller"].as_f64().expect("a number") > 15.0, "{report}");
    // A container is compressed as the model in it; its zeros and shared values are found again.
    let again = file("c.dnnc");
    assert!(dnnc(&["compress", shown(&file("a.dnnc")), "-o", shown(&again)]).status.success());
    assert_eq!(bytes, std::fs::read(again).expect("written"));
    dnnc::frontend::Model::load(&file("a.dnnc"), &Limits::default()).expect("a container is a model");
}

#[test]
fn what_does_not_fit_is_said() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (calib, output) = (dir.path().join("x.npy"), dir.path().join("m.dnnc"));
    tensors::write(&calib, "x", &Tensor::new([4, 3], &[0f32; 12])).expect("written");
    let source = model();
    for (args, what) in [
        (vec!["--density", "0.1"], "--calib"),
        (vec!["--density", "0.1", "--calib", shown(&calib)], "a sample has the shape [3]"),
        (vec!["--density", "0"], "a number above 0"),
    ] {
        let mut all = vec!["compress", shown(&source), "-o", shown(&output)];
        all.extend(args);
        let out = dnnc(&all);
        assert!(!out.status.success() && error(&out).contains(what), "{}", error(&out));
        assert!(!output.exists(), "nothing is written when there is an error");
    }
}
