//! Mutated files: whatever the bytes are, reading and importing them does not panic.

use super::control_flow::{choice, doubling, doubling_up_to_8, repeat, scan};
use super::*;
use dnnc_ir::random::Rng;

#[test]
fn broken_bytes_never_panic() {
    let seeds = [relu(), choice(doubling(), vec![node("Exp", "x", "t")]), repeat("three", "_", doubling_up_to_8()), scan(3, vec![]).0];
    let mut rng = Rng::new(1);
    let limits = Limits { tensor_bytes: 1 << 20, nodes: 1000, ..Limits::default() };
    let mut accepted = 0;
    for seed in seeds {
        let valid = seed.encode_to_vec();
        for _ in 0..3000 {
            let mut bytes = valid.clone();
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(bytes.len());
                match rng.below(4) {
                    0 => bytes[at] ^= 1 << rng.below(8),
                    1 => bytes[at] = rng.below(256) as u8,
                    2 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, rng.below(256) as u8),
                }
            }
            let Ok(model) = Model::from_bytes(&bytes, None, &limits) else { continue };
            let size = |d: &Dim| if let Dim::Known(n) = d { *n } else { 2 };
            let shapes: Vec<Vec<usize>> = model.inputs().iter().map(|p| p.dims.iter().flatten().map(size).collect()).collect();
            accepted += usize::from(model.specialise(&shapes).is_ok());
        }
    }
    assert!(accepted > 100, "{accepted} mutants were accepted: the rest of the way is not tested");
}

/// Wrong numbers, for every field of a file that holds one.
const ODD: [i64; 14] = [0, 1, -1, 2, 3, -2, 7, 64, -64, 1 << 20, 1 << 31, -(1 << 31), i64::MAX, i64::MIN];

/// Changes one thing of a model that is well-formed before and after.
fn mutate(model: &mut ModelProto, rng: &mut Rng) {
    let Some(graph) = &mut model.graph else { return };
    let odd = ODD[rng.below(ODD.len())];
    let names: Vec<String> = graph.node.iter().flat_map(|n| n.input.iter().chain(&n.output)).cloned().collect();
    let ops: Vec<String> = graph.node.iter().map(|n| n.op_type.clone()).collect();
    let pick = rng.below(graph.node.len().max(1));
    match (rng.below(9), graph.node.get_mut(pick)) {
        (0, _) => {
            let dims = graph.input.iter_mut().filter_map(|i| i.r#type.as_mut()?.tensor.as_mut()?.shape.as_mut());
            let mut dims: Vec<&mut DimensionProto> = dims.flat_map(|s| &mut s.dim).collect();
            let at = rng.below(dims.len().max(1));
            if let Some(dim) = dims.get_mut(at) {
                dim.dim_value = Some([0, 1, 2, 3, 5, 9][rng.below(6)]);
            }
        }
        (1, _) => {
            let at = rng.below(graph.input.len().max(1));
            if let Some(tensor) = graph.input.get_mut(at).and_then(|i| i.r#type.as_mut()?.tensor.as_mut()) {
                match rng.below(2) {
                    0 => tensor.elem_type = rng.below(27) as i32,
                    _ => drop(tensor.shape.as_mut().map(|s| s.dim.pop())),
                }
            }
        }
        (2, _) => {
            let at = rng.below(graph.initializer.len().max(1));
            if let Some(t) = graph.initializer.get_mut(at) {
                let n = t.int64_data.len();
                match &mut t.raw_data {
                    Some(raw) if t.data_type == 7 && raw.len() >= 8 => {
                        let (mut bytes, at) = (raw.to_vec(), rng.below(raw.len() / 8) * 8);
                        bytes[at..at + 8].copy_from_slice(&odd.to_le_bytes());
                        *raw = bytes.into();
                    }
                    _ if n > 0 => t.int64_data[rng.below(n)] = odd,
                    _ => t.dims = vec![t.dims.iter().product()],
                }
            }
        }
        (3 | 4, Some(node)) if !node.attribute.is_empty() => {
            let at = rng.below(node.attribute.len());
            let a = &mut node.attribute[at];
            let n = a.ints.len();
            match rng.below(4) {
                0 if n > 0 => a.ints.truncate(n - 1),
                1 if n > 0 => a.ints.push(odd),
                _ if n > 0 => a.ints[rng.below(n)] = odd,
                0 if a.f.is_some() => a.f = Some([f32::NAN, f32::INFINITY, -1.0, 0.0, 1e30][rng.below(5)]),
                1 => drop(node.attribute.remove(at)),
                _ if a.i.is_some() => a.i = Some(odd),
                _ => a.s = Some(vec![0xff; rng.below(3)].into()),
            }
        }
        (5, Some(node)) if !node.input.is_empty() => {
            let at = rng.below(node.input.len());
            match rng.below(4) {
                0 => node.input[at].clear(),
                1 => node.input.truncate(at),
                2 => node.input.push(String::new()),
                _ => node.input[at] = names[rng.below(names.len())].clone(),
            }
        }
        (6, Some(node)) => node.op_type = ops[rng.below(ops.len())].clone(),
        (7, Some(node)) => drop(node.output.pop()),
        _ => model.opset_import.iter_mut().for_each(|o| o.version = 1 + rng.below(28) as i64),
    }
}

/// Mutants of real files, which reach every importer. `DNNC_MUTANTS` names a folder whose folders hold each a `model.onnx`; without it
/// nothing runs, which is said. `DNNC_MUTANTS_SEED` gives other mutants.
#[test]
fn mutants_of_models_never_panic() {
    let Some(root) = std::env::var_os("DNNC_MUTANTS") else {
        eprintln!("DNNC_MUTANTS names no folder of models: nothing was tested");
        return;
    };
    let seed: u64 = std::env::var("DNNC_MUTANTS_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let limits = Limits { tensor_bytes: 1 << 24, nodes: 2000, ..Limits::default() };
    let mut files: Vec<_> = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path().join("model.onnx")).filter(|p| p.exists()).collect();
    files.sort();
    std::panic::set_hook(Box::new(|_| {}));
    let (mut panics, mut counts) = (vec![], [0; 3]);
    for (k, file) in files.iter().enumerate() {
        let Ok(valid) = ModelProto::decode(&std::fs::read(file).unwrap()[..]) else { continue };
        let mut rng = Rng::new(seed ^ (k as u64 + 1) << 32);
        for turn in 0..30 {
            let mut mutant = valid.clone();
            (0..1 + rng.below(2)).for_each(|_| mutate(&mut mutant, &mut rng));
            let bytes = mutant.encode_to_vec();
            let start = std::time::Instant::now();
            let outcome = std::panic::catch_unwind(|| {
                let Ok(model) = Model::from_bytes(&bytes, file.parent(), &limits) else { return 0 };
                let size = |d: &Dim| if let Dim::Known(n) = d { *n } else { 2 };
                let inputs: Option<Vec<Tensor>> =
                    model.inputs().iter().map(|p| some_input(p.ty?, p.dims.iter().flatten().map(size).collect())).collect();
                let Some(inputs) = inputs else { return 0 };
                let run = run_with(&model, &inputs, |graph, inputs| {
                    let bytes: usize = graph.nodes().iter().flat_map(|n| &n.types).map(TensorType::bytes).sum();
                    if bytes > 1 << 24 {
                        return Err("too large to be run here".into());
                    }
                    eval::eval(graph, inputs).map_err(|e| e.to_string())
                });
                1 + usize::from(run.is_ok())
            });
            let name = || format!("{} turn {turn}", file.parent().unwrap().file_name().unwrap().to_string_lossy());
            match outcome {
                Ok(kind) => counts[kind] += 1,
                Err(e) => {
                    let text = e.downcast_ref::<String>().cloned().or_else(|| e.downcast_ref::<&str>().map(|s| s.to_string()));
                    panics.push(format!("{}: {}", name(), text.unwrap_or_default()));
                }
            }
            if start.elapsed().as_secs() >= 5 {
                panics.push(format!("{}: takes {:.0} s", name(), start.elapsed().as_secs_f64()));
            }
        }
    }
    let _ = std::panic::take_hook();
    eprintln!("{} were refused when read, {} later, {} ran", counts[0], counts[1], counts[2]);
    assert!(panics.is_empty(), "{} mutants:\n{}", panics.len(), panics.join("\n"));
}

/// Numbers from −2 to 4 in every type.
fn some_input(ty: Type, shape: Vec<usize>) -> Option<Tensor> {
    let len = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))?;
    if len > 1 << 20 {
        return None;
    }
    let ty = TensorType::new(ty, shape);
    let value = |i: usize| Tensor::scalar((i * 5 % 13) as f64 / 2.0 - 2.0);
    let op = dnnc_ir::Op::new(Kind::Cast, [("to", ty.ty.into())]).ok()?;
    let bytes: Vec<u8> = (0..ty.len()).flat_map(|i| eval::eval_op(&op, &[value(i)]).unwrap()[0].bytes().to_vec()).collect();
    Tensor::from_bytes(ty, &bytes)
}
