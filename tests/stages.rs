//! Snapshots of a network after each stage of the compiler.

mod common;

use dnnc::kir::program::calls;
use dnnc::{Limits, Options};
use std::collections::BTreeMap;
use std::path::Path;

/// A model of the repository after import, after rewriting, and as steps, for a machine.
fn stages(name: &str, target: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name).join("model.onnx");
    let model = dnnc::frontend::Model::load(&path, &Limits::default()).expect("a model of the repository");
    let (shapes, _) = dnnc::bind(model.inputs(), &BTreeMap::new()).expect("only the batch is open");
    let stage = model.specialise(&shapes).expect("a graph");
    let options = Options { target: dnnc::targets::find(target).expect("a known target"), ..Options::default() };
    let built = dnnc::build(&stage.graph, "model", &options).expect("a program");
    let steps: Vec<String> = calls(&built.program.steps).iter().map(|c| format!("{} [{} tasks] {:?}", c.label, c.tasks, c.args)).collect();
    format!(
        "── imported\n{}\n── rewritten for {target}\n{}\n── steps, arena {} bytes\n{}\n",
        stage.graph.brief(),
        built.graph.brief(),
        built.program.arena_bytes,
        steps.join("\n")
    )
}

#[test]
fn a_perceptron() {
    insta::assert_snapshot!(stages("lenet-300-100", "x86-64-v3"));
}

#[test]
fn a_convolutional_network() {
    insta::assert_snapshot!(stages("lenet-5", "x86-64-v3"));
}

#[test]
fn a_convolutional_network_for_arm() {
    insta::assert_snapshot!(stages("fm-mobilenetv2", "aarch64"));
}

#[test]
fn kernels_as_text_parse_back() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lenet-5/model.onnx");
    let model = dnnc::frontend::Model::load(&path, &Limits::default()).expect("a model of the repository");
    let object = dnnc::object(&model, &[vec![1, 1, 28, 28]], "m", &Options::default()).expect("an object");
    for kernel in &object.built.program.kernels {
        let text = kernel.to_string();
        let again = dnnc::kir::text::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(again.to_string(), text);
    }
}
