//! Optimises ONNX models and prints what became of them: `cargo run --release -p dnnc-rewrites --example optimise [--check] [--list] MODEL…`.
//!
//! `--check` runs both graphs through the reference evaluator, `--list` prints the graph found.

#[path = "../tests/common/mod.rs"]
mod common;

use common::Forecasts;
use dnnc_frontend::{Dim, Limits, Model, Port, read_tensor};
use dnnc_ir::eval::eval;
use dnnc_ir::random::Rng;
use dnnc_ir::{Graph, Tensor, TensorType, Type, Value};
use dnnc_rewrites::{Options, optimise};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

fn main() {
    let (flags, models): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let has = |flag: &str| flags.iter().any(|f| f == flag);
    for model in models {
        if let Err(e) = run(&model, has("--check"), has("--list")) {
            println!("{model}: {e}");
        }
    }
}

fn run(path: &str, check: bool, list: bool) -> Result<(), String> {
    let model = Model::load(Path::new(path), &Limits::default()).map_err(|e| e.to_string())?;
    // Inputs beside the model, or noise.
    let file = |i: usize| Path::new(path).with_file_name("test_data_set_0").join(format!("input_{i}.pb"));
    let given: Vec<Option<Tensor>> =
        (0..model.inputs().len()).map(|i| read_tensor(&file(i), &Limits::default()).ok().map(|t| t.1)).collect();
    let size = |d: &Dim| if let Dim::Known(n) = d { *n } else { 1 };
    let shape = |(p, t): (&Port, &Option<Tensor>)| match t {
        Some(t) => t.shape().to_vec(),
        None => p.dims.iter().flatten().map(size).collect(),
    };
    let shapes: Vec<Vec<usize>> = model.inputs().iter().zip(&given).map(shape).collect();
    let stage = model.specialise(&shapes).map_err(|e| e.to_string())?;
    let (graph, cut) = (stage.graph, stage.cut.is_some());
    let start = Instant::now();
    let target = dnnc_targets::find("avx2").ok_or("no target")?;
    let found = optimise(&graph, target, &Options::default(), &Forecasts(target))?;
    let seconds = start.elapsed().as_secs_f64();
    let report = &found.report;
    println!(
        "{path}{}: {} → {} nodes, {:.2} → {:.2} ms, search {seconds:.2} s, {} iterations, {} e-nodes",
        if cut { " (first stage)" } else { "" },
        graph.nodes().len(),
        found.graph.nodes().len(),
        report.before / 1e6,
        report.after / 1e6,
        report.iterations,
        report.nodes,
    );
    println!("  before: {}\n  after:  {}", operators(&graph), operators(&found.graph));
    if list {
        println!("  {:?}", report.fired);
        print_nodes(&found.graph);
    }
    if check {
        let input = |(i, &v): (usize, &Value)| given[i].clone().unwrap_or_else(|| noise(graph.ty(v), i as u64));
        let inputs: Vec<Tensor> = graph.inputs().iter().enumerate().map(input).collect();
        let (a, b) = (eval(&graph, &inputs).map_err(|e| e.to_string())?, eval(&found.graph, &inputs).map_err(|e| e.to_string())?);
        for (x, y) in a.iter().zip(&b) {
            println!("  {}: {}", x.ty(), difference(x, y));
        }
    }
    Ok(())
}

fn operators(graph: &Graph) -> String {
    let mut counts = BTreeMap::new();
    for node in graph.nodes() {
        *counts.entry(node.op.kind().name()).or_insert(0) += 1;
    }
    counts.iter().filter(|(k, _)| **k != "const").map(|(k, n)| format!("{k} {n}")).collect::<Vec<_>>().join(", ")
}

fn print_nodes(graph: &Graph) {
    for (i, node) in graph.nodes().iter().enumerate() {
        let inputs: Vec<String> = node.inputs.iter().map(|v| format!("%{}", v.node)).collect();
        let attrs = if node.op.kind().name() == "const" { String::new() } else { format!("{:?}", node.op.attrs) };
        println!("  %{i} = {} {} {attrs} : {} ; {}", node.op.kind().name(), inputs.join(" "), node.types[0], node.name);
    }
}

fn noise(ty: &TensorType, seed: u64) -> Tensor {
    let mut rng = Rng::new(seed);
    let n = ty.len();
    match ty.ty {
        Type::F32 => Tensor::with_type(ty.clone(), &(0..n).map(|_| rng.unit() as f32).collect::<Vec<_>>()),
        Type::I64 => Tensor::with_type(ty.clone(), &(0..n).map(|_| rng.below(2) as i64).collect::<Vec<_>>()),
        Type::U8 => Tensor::with_type(ty.clone(), &(0..n).map(|_| rng.bits() as u8).collect::<Vec<_>>()),
        _ => Tensor::zeros(ty.clone()),
    }
}

fn difference(a: &Tensor, b: &Tensor) -> String {
    if a.ty() != b.ty() {
        return format!("WRONG TYPE {}", b.ty());
    }
    if a.ty().ty != Type::F32 {
        return if a == b { "equal".into() } else { "DIFFERENT".into() };
    }
    let (a, b) = (a.values::<f32>(), b.values::<f32>());
    let most = a.iter().map(|v| v.abs()).fold(0f32, f32::max);
    let worst = a.iter().zip(b).map(|(x, y)| if x == y || x.is_nan() && y.is_nan() { 0.0 } else { (x - y).abs() });
    let worst = worst.fold(0f32, |m, v| if v.is_nan() { f32::INFINITY } else { m.max(v) });
    format!("largest {most:e}, worst difference {worst:e}{}", if worst > 1e-3 * most.max(1e-3) { " WRONG" } else { "" })
}
