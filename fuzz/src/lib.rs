//! What the fuzz targets share.

pub mod hostile;

use dnnc_frontend::{Dim, Limits, Model};
use dnnc_ir::{Graph, Kind, Op, Tensor, eval::eval_op};
use hostile::Rng;
use libfuzzer_sys::fuzzer_mutate;

/// Small, so that one input takes milliseconds.
const LIMITS: Limits = Limits {
    file_bytes: 1 << 20,
    constant_bytes: 4 << 20,
    tensor_bytes: 4 << 20,
    nodes: 2_000,
    unrolled: 500,
    depth: 32,
    stages: 20,
    iterations: 1000,
};

/// Reads bytes and, where they are a model, imports it for a few small sizes; `f` is called with the graph of each stage.
pub fn graphs(bytes: &[u8], f: &mut dyn FnMut(&Graph)) {
    let Ok(model) = Model::from_bytes(bytes, None, &LIMITS) else { return };
    for size in [1, 3, 0] {
        let dim = |d: &Dim| if let Dim::Known(n) = d { *n } else { size };
        let shapes: Vec<Vec<usize>> =
            model.inputs().iter().map(|p| p.dims.as_ref().map_or(vec![size; 2], |d| d.iter().map(dim).collect())).collect();
        let Ok(mut stage) = model.specialise(&shapes) else { continue };
        f(&stage.graph);
        for _ in 0..3 {
            let Some(cut) = &stage.cut else { break };
            // Sizes that data might give.
            let values = stage.graph.outputs()[cut.needed()].iter().map(|(_, v)| {
                let ty = stage.graph.ty(*v);
                let numbers: Vec<f64> = (0..ty.len()).map(|i| (i % 3) as f64 + size as f64).collect();
                let cast = Op::new(Kind::Cast, [("to", ty.ty.into())]).expect("the row of `cast`");
                eval_op(&cast, &[Tensor::new(ty.shape.clone(), &numbers)]).expect("numbers have a cast").swap_remove(0)
            });
            let values: Vec<Tensor> = values.collect();
            let Ok(next) = cut.resume(&values) else { break };
            stage = next;
            f(&stage.graph);
        }
    }
}

/// The mutator of models: changes the messages of a model mostly, else bytes.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut rng = Rng::new(seed.into());
    if rng.below(12) > 0
        && let Some(new) = hostile::mutate(&data[..size], &mut rng)
        && new.len() <= max_size
    {
        data[..new.len()].copy_from_slice(&new);
        return new.len();
    }
    fuzzer_mutate(data, size, max_size)
}

/// Parts of two models in one.
pub fn cross(a: &[u8], b: &[u8], out: &mut [u8], seed: u32) -> usize {
    match hostile::cross(a, b, &mut Rng::new(seed.into())) {
        Some(new) if new.len() <= out.len() => {
            out[..new.len()].copy_from_slice(&new);
            new.len()
        }
        _ => 0,
    }
}
