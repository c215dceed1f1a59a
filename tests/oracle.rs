//! An independent oracle: tract, another ONNX runtime, on the float networks of the repository.

mod common;

use dnnc::compare::{Tolerance, compare};
use dnnc::{Options, Tensor};
use tract_onnx::prelude::*;

#[test]
fn tract_agrees() {
    let mut compared = 0;
    for dir in common::models() {
        let name = dir.file_name().expect("a folder").to_string_lossy().into_owned();
        // tract rounds int8 networks elsewhere, and does not type this Loop.
        if name == "fm-mobilenetv2-int8" || name == "fastgrnn-loop" {
            continue;
        }
        let path = dir.join("model.onnx");
        let model = dnnc::compile(&path, &Options::default()).expect("a model of the repository");
        let (shapes, _) = dnnc::bind(model.inputs(), &Default::default()).expect("only the batch is open");
        let inputs = dnnc::sample_inputs(model.inputs(), &shapes);
        let got = model.run(&inputs).expect("results");
        let mut other = tract_onnx::onnx().model_for_path(&path).expect("tract reads the model");
        for (i, t) in inputs.iter().enumerate() {
            other = other.with_input_fact(i, f32::fact(t.shape()).into()).expect("a typed input");
        }
        let other = other.into_optimized().and_then(|m| m.into_runnable()).expect("tract compiles the model");
        let fed: TVec<TValue> = inputs
            .iter()
            .map(|t| tract_onnx::prelude::Tensor::from_shape(t.shape(), t.values::<f32>()).expect("a tensor").into())
            .collect();
        let want = other.run(fed).expect("tract's results");
        for (g, w) in got.iter().zip(want.iter()) {
            let w = Tensor::new(w.shape().to_vec(), w.as_slice::<f32>().expect("floats"));
            let largest = w.values::<f32>().iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let tolerance = Tolerance { rtol: 0.0, atol: f64::from(largest) * 1e-4 };
            compare(g, &w, tolerance).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        compared += 1;
    }
    assert!(compared >= 5, "only {compared} networks were compared");
}
