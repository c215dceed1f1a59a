//! The cache of specialisations of a model: its bound holds, results stay right after an eviction, and equal constants are shared.

mod common;

use common::onnx;
use dnnc::compare::{Tolerance, compare};
use dnnc::difftest::Backend;
use dnnc::{Model, Options, Tensor};
use std::path::Path;

fn load(name: &str, cache_bytes: usize) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name).join("model.onnx");
    Model::load(&path, &Options { cache_bytes, ..Options::default() }).expect("a model of the repository")
}

fn close(got: &[Tensor], want: &[Tensor], what: &str) {
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        compare(g, w, Tolerance { rtol: 1e-4, atol: 1e-4 }).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
}

#[test]
fn many_shapes_stay_below_the_bound() {
    const BOUND: usize = 1_500_000;
    let model = load("fastgrnn-loop", BOUND);
    let oracle = load("fastgrnn-loop", BOUND).with_backend(Backend::Evaluator);
    let mut most = 0;
    for round in 0..2 {
        for time in 1..=24 {
            let inputs = dnnc::sample_inputs(model.inputs(), &[vec![1 + time % 3, time, 28]]);
            let got = model.run(&inputs).expect("it runs");
            if round == 0 {
                close(&got, &oracle.run(&inputs).expect("it runs"), &format!("time {time}"));
            }
            let held = model.cache_stats();
            assert!(held.bytes <= BOUND, "{held:?}");
            most = most.max(held.count);
        }
    }
    assert!((3..24).contains(&most), "the bound should hold a few of the shapes, and not all: {most}");
}

#[test]
fn weights_are_there_once() {
    let model = load("lenet-300-100", 1 << 30);
    let weights = 266_610 * 4;
    for batch in [8, 16, 24, 32] {
        model.run(&dnnc::sample_inputs(model.inputs(), &[vec![batch, 784]])).expect("it runs");
    }
    let held = model.cache_stats();
    assert_eq!(held.count, 4);
    // In large pages, and some biases packed in two ways; each on its own would take more than four times as much.
    assert!((weights..3 * weights).contains(&held.bytes), "{held:?}");
    // A weight lives as long as one who uses it.
    let small = load("lenet-300-100", weights * 5 / 2);
    for batch in [8, 16, 24, 32] {
        let inputs = dnnc::sample_inputs(model.inputs(), &[vec![batch, 784]]);
        close(&small.run(&inputs).expect("it runs"), &model.run(&inputs).expect("it runs"), &format!("batch {batch}"));
    }
    assert!(small.cache_stats().bytes <= weights * 5 / 2, "{:?}", small.cache_stats());
}

#[test]
fn the_shape_in_use_runs_though_it_alone_is_too_large() {
    let model = load("lenet-5", 1);
    for batch in [1, 2, 1] {
        model.run(&dnnc::sample_inputs(model.inputs(), &[vec![batch, 1, 28, 28]])).expect("it runs");
        assert_eq!(model.cache_stats().count, 1);
    }
}

#[test]
fn threads_that_run_many_shapes_get_right_answers() {
    let model = load("fastgrnn-loop", 700_000);
    let oracle = load("fastgrnn-loop", 1 << 30);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (model, oracle) = (&model, &oracle);
            scope.spawn(move || {
                for i in 0..12 {
                    let inputs = dnnc::sample_inputs(model.inputs(), &[vec![1, 1 + (i * 5 + thread) % 8, 28]]);
                    close(
                        &model.run(&inputs).expect("it runs"),
                        &oracle.run(&inputs).expect("it runs"),
                        &format!("thread {thread}, run {i}"),
                    );
                }
            });
        }
    });
    assert!(model.cache_stats().bytes <= 700_000, "{:?}", model.cache_stats());
}

/// The elements that are not 0, twice; then those of them that are above 1, as often as they say.
fn stages() -> Vec<u8> {
    let nodes = "
        NonZero x -> at
        Transpose at -> pairs
        GatherND x pairs -> some
        Add some some -> twice
        f32 one[] = 1
        Greater twice one -> large
        Compress(axis=0) twice large -> kept
    ";
    onnx::model("x:f32[n]", nodes, "kept:f32[k]")
}

#[test]
fn stages_count_and_go_too() {
    const BOUND: usize = 1_000_000;
    let model = Model::from_bytes(&stages(), &Options { cache_bytes: BOUND, ..Options::default() }).expect("a model");
    for round in 0..3 {
        for n in 0..20usize {
            let x: Vec<f32> = (0..24).map(|i| if i < n { (i as f32 - 3.0) / 4.0 } else { 0.0 }).collect();
            let want: Vec<f32> = x.iter().map(|v| 2.0 * v).filter(|v| *v > 1.0).collect();
            let got = model.run(&[Tensor::new([24], &x)]).expect("it runs");
            assert_eq!(got[0].values::<f32>(), want, "round {round}, {n} numbers");
            assert!(model.cache_stats().bytes <= BOUND, "{:?}", model.cache_stats());
        }
    }
    let all = Model::from_bytes(&stages(), &Options::default()).expect("a model");
    for n in [5, 9, 5] {
        all.run(&[Tensor::new([n], &vec![1.0f32; n])]).expect("it runs");
    }
    assert_eq!(all.cache_stats().count, 6, "three stages a shape");
}
