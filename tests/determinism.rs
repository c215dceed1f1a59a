//! Determinism: the same model gives the same bytes.

mod common;

use dnnc::{Limits, Options};
use std::collections::BTreeMap;

#[test]
fn the_same_model_gives_the_same_object() {
    for target in ["x86-64-v3", "aarch64"] {
        for dir in common::models() {
            let make = || {
                let options = Options { target: dnnc::targets::find(target).expect("a known target"), ..Options::default() };
                let model = dnnc::frontend::Model::load(&dir.join("model.onnx"), &Limits::default()).expect("a model of the repository");
                let dims: BTreeMap<String, usize> = [("time".to_string(), 28)].into();
                let dims = if dir.ends_with("fastgrnn-loop") { dims } else { BTreeMap::new() };
                let (shapes, _) = dnnc::bind(model.inputs(), &dims).expect("only the batch is open");
                let object = dnnc::object(&model, &shapes, "m", &options).expect("an object");
                (object.bytes, object.header)
            };
            assert!(make() == make(), "{} differs between two compilations for {target}", dir.display());
        }
    }
}
