//! Networks made ready for other weights: constants are constants of the graph, and a normalisation behind a convolution is part of its weights.

use dnnc_frontend::{Draft, Limits, NodeView};
use dnnc_ir::{Tensor, Type};

/// The network with constant nodes as constants of the graph, dequantised constants as floats, and each `BatchNormalization` with constant
/// parameters merged into the convolution before it, whose result nothing else reads. It computes the same up to rounding.
pub fn prepare(draft: &Draft, limits: &Limits) -> Draft {
    let mut draft = draft.clone();
    draft.inline_constants(limits);
    dequantize_constants(&mut draft, limits);
    merge_norms(&mut draft, limits);
    draft
}

/// The number of nodes that read a name, outputs of the graph counted.
pub(crate) fn readers(draft: &Draft, views: &[NodeView], name: &str) -> usize {
    let nodes = draft.read().iter().flatten().filter(|n| *n == name).count();
    debug_assert_eq!(draft.read().len(), views.len());
    nodes + draft.outputs().iter().filter(|o| *o == name).count()
}

fn dequantize_constants(draft: &mut Draft, limits: &Limits) {
    let mut done = vec![];
    for (number, node) in draft.views().iter().enumerate() {
        let [q, scale, rest @ ..] = &node.inputs[..] else { continue };
        if node.op != "DequantizeLinear" || node.ints.contains_key("block_size") || draft.outputs().contains(&node.outputs[0]) {
            continue;
        }
        let (Some(q), Some(scale)) = (draft.value(q, limits), draft.value(scale, limits)) else { continue };
        let zero = match rest.first().filter(|n| !n.is_empty()) {
            Some(name) => match draft.value(name, limits) {
                Some(zero) => Some(zero.to_f64s()),
                None => continue,
            },
            None => None,
        };
        // Only what is small enough to be a quantised weight; a bias of 32 bits, too.
        if scale.ty().ty != Type::F32 || !matches!(q.ty().ty, Type::I8 | Type::U8 | Type::I32) {
            continue;
        }
        let axis = node.int("axis", 1);
        let axis = if axis < 0 { axis + q.shape().len() as i64 } else { axis } as usize;
        let channels = scale.len();
        if channels != 1 && q.shape().get(axis) != Some(&channels) {
            continue;
        }
        let inner: usize = q.shape().iter().skip(axis + 1).product();
        let scales = scale.values::<f32>();
        let of = |i: usize| if channels == 1 { 0 } else { i / inner % channels };
        let values: Vec<f32> =
            q.to_f64s().iter().enumerate().map(|(i, v)| (v - zero.as_ref().map_or(0.0, |z| z[of(i)])) as f32 * scales[of(i)]).collect();
        draft.add_value(&node.outputs[0], &Tensor::new(q.shape(), &values));
        done.push(number);
    }
    draft.remove(&done);
}

fn merge_norms(draft: &mut Draft, limits: &Limits) {
    let mut done = vec![];
    let views = draft.views();
    for (number, norm) in views.iter().enumerate() {
        if norm.op != "BatchNormalization" || norm.inputs.len() < 5 || norm.int("training_mode", 0) != 0 {
            continue;
        }
        let Some(at) = views.iter().position(|n| n.outputs.first() == Some(&norm.inputs[0])) else { continue };
        let conv = &views[at];
        if conv.op != "Conv" || readers(draft, &views, &norm.inputs[0]) != 1 || readers(draft, &views, &conv.inputs[1]) != 1 {
            continue;
        }
        let float = |name: &String| draft.value(name, limits).filter(|t| t.ty().ty == Type::F32);
        let (Some(weight), Some(gamma), Some(beta), Some(mean), Some(variance)) =
            (float(&conv.inputs[1]), float(&norm.inputs[1]), float(&norm.inputs[2]), float(&norm.inputs[3]), float(&norm.inputs[4]))
        else {
            continue;
        };
        let outputs = weight.shape()[0];
        if [&gamma, &beta, &mean, &variance].iter().any(|t| t.len() != outputs) {
            continue;
        }
        let bias = match conv.inputs.get(2).filter(|n| !n.is_empty()) {
            Some(name) => match float(name) {
                Some(bias) => bias.to_f64s(),
                None => continue,
            },
            None => vec![0.0; outputs],
        };
        // y = γ·(x − mean)/√(variance + ε) + β, in double precision.
        let epsilon = f64::from(norm.floats.get("epsilon").copied().unwrap_or(1e-5));
        let (gamma, beta, mean, variance) = (gamma.to_f64s(), beta.to_f64s(), mean.to_f64s(), variance.to_f64s());
        let scale: Vec<f64> = (0..outputs).map(|c| gamma[c] / (variance[c] + epsilon).sqrt()).collect();
        let per = weight.len() / outputs.max(1);
        let weights: Vec<f32> = weight.values::<f32>().iter().enumerate().map(|(i, w)| (f64::from(*w) * scale[i / per]) as f32).collect();
        let biases: Vec<f32> = (0..outputs).map(|c| ((bias[c] - mean[c]) * scale[c] + beta[c]) as f32).collect();
        draft.set_value(&conv.inputs[1].clone(), &Tensor::new(weight.shape(), &weights));
        let name = format!("{}_with_norm_bias", norm.outputs[0]);
        draft.add_value(&name, &Tensor::new([outputs], &biases));
        draft.set_input(at, 2, &name);
        draft.set_output(at, &norm.outputs[0].clone());
        done.push(number);
    }
    draft.remove(&done);
}
