//! Post-training quantisation: a float network and samples become a network of QuantizeLinear and DequantizeLinear (QDQ), which runtimes compute on integers.

mod place;
mod range;

pub use range::{Grid, RangeMethod, Seen, integer_length};

use crate::prepare::prepare;
use crate::runner::{Runner, collect};
use dnnc_frontend::{Draft, Limits, NewNode};
use dnnc_ir::{Tensor, TensorType, Type};
use place::{Placement, Weighted};
use std::collections::BTreeMap;

/// What numbers become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Activations of 8 bits with any zero, weights of 8 signed bits with a scale for each output.
    Int8,
    /// Weights as in [`Int8`](Format::Int8); activations stay floats.
    Int8Weights,
    /// Dynamic fixed point of 8 bits: signed, scales are powers of two, one for each tensor (Gysel et al., *Ristretto*, 2016).
    FixedPoint8,
}

/// What to try.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The format.
    pub format: Format,
    /// How ranges of activations are found; the best by the signal-to-noise ratio of the outputs, where none is given.
    pub range: Option<RangeMethod>,
    /// One scale for the weights of a layer instead of one for each output.
    pub per_tensor: bool,
    /// Names of nodes that stay in floats.
    pub keep: Vec<String>,
}

/// What became of a layer.
#[derive(Clone, Debug)]
pub struct LayerReport {
    /// Its name.
    pub layer: String,
    /// Signal-to-noise ratio of its weights, in dB.
    pub weight_snr: f64,
    /// The part of the values of its input beyond the range, where the input is quantised.
    pub saturation: Option<f64>,
}

/// A quantised network.
pub struct Quantized {
    /// The network.
    pub draft: Draft,
    /// Its layers.
    pub layers: Vec<LayerReport>,
    /// Nodes with weights that stay in floats, and why.
    pub kept: Vec<(String, &'static str)>,
    /// Signal-to-noise ratio of the outputs against the float network on the calibration data, in dB.
    pub snr: f64,
    /// What was chosen, in words.
    pub choice: String,
}

/// Quantises a network. An error is a sentence.
pub fn quantize(draft: &Draft, plan: &Plan, limits: &Limits, runner: &mut dyn Runner) -> Result<Quantized, String> {
    match draft.opset() {
        ..10 => {
            return Err(format!(
                "the model has opset {}; QuantizeLinear came with opset 10: convert the model to 13 or later",
                draft.opset()
            ));
        }
        10..13 if !plan.per_tensor && plan.format == Format::Int8 => {
            return Err(format!(
                "the model has opset {}, where all weights of a layer have one scale: convert the model to 13 or later, or say --per-tensor",
                draft.opset()
            ));
        }
        _ => {}
    }
    let draft = prepare(draft, limits);
    let placement = place::place(&draft, limits, &plan.keep);
    if placement.layers.is_empty() {
        return Err("there is no layer to quantise: no Conv, Gemm or MatMul has constant weights".into());
    }
    let reference = collect(runner, &draft.bytes())?;
    let activations = plan.format != Format::Int8Weights;
    let seen = if activations { observe(&draft, &placement, runner)? } else { BTreeMap::new() };
    let methods: &[RangeMethod] = match (plan.format, plan.range) {
        (Format::Int8, None) => &[RangeMethod::MinMax, RangeMethod::Percentile, RangeMethod::LeastSquares],
        (_, Some(RangeMethod::Percentile)) => &[RangeMethod::Percentile],
        (_, Some(RangeMethod::LeastSquares)) => &[RangeMethod::LeastSquares],
        _ => &[RangeMethod::MinMax],
    };
    let mut best: Option<Quantized> = None;
    for &method in methods {
        for corrected in [false, true] {
            if corrected && !activations {
                continue;
            }
            runner.progress(&format!("range {method:?}, bias correction {corrected}"));
            let (quantized, layers) = write(&draft, &placement, &seen, plan, method, corrected);
            let snr = snr(&reference, &collect(runner, &quantized.bytes())?);
            if best.as_ref().is_none_or(|b| snr > b.snr) {
                let range = match (plan.format, method) {
                    (Format::Int8Weights, _) => "weights alone",
                    (Format::FixedPoint8, _) => "powers of two",
                    (_, RangeMethod::MinMax) => "ranges from least to largest",
                    (_, RangeMethod::Percentile) => "ranges of 99.99 % at each end",
                    (_, RangeMethod::LeastSquares) => "ranges of least squared error",
                };
                let choice = format!("{range}{}", if corrected { ", biases corrected" } else { "" });
                best = Some(Quantized { draft: quantized, layers, kept: placement.kept.clone(), snr, choice });
            }
        }
    }
    Ok(best.expect("there is at least one method"))
}

/// 10·log₁₀ of the energy of the signal over that of the difference, over all outputs of floats.
pub fn snr(reference: &[Tensor], other: &[Tensor]) -> f64 {
    let (mut signal, mut noise) = (0.0, 0.0);
    for (a, b) in reference.iter().zip(other) {
        for (x, y) in a.to_f64s().iter().zip(b.to_f64s()) {
            signal += x * x;
            noise += (x - y) * (x - y);
        }
    }
    10.0 * (signal / f64::max(noise, f64::MIN_POSITIVE)).log10()
}

/// Tensors that are watched in one run: what a batch makes of them is in memory at once.
const AT_ONCE: usize = 8;

/// Watches the tensors that have grids of their own, some at a time: two runs each, one for the extremes and one for the distribution between them.
fn observe(draft: &Draft, placement: &Placement, runner: &mut dyn Runner) -> Result<BTreeMap<String, Seen>, String> {
    let roots: Vec<String> = placement.tensors.iter().filter(|(name, root)| name == root).map(|(name, _)| name.clone()).collect();
    let views = draft.views();
    let mut seen = BTreeMap::new();
    for (number, names) in roots.chunks(AT_ONCE).enumerate() {
        runner.progress(&format!("watching tensors {} to {} of {}", number * AT_ONCE + 1, number * AT_ONCE + names.len(), roots.len()));
        let model = draft.with_outputs(names).bytes();
        let mut found: Vec<Option<Seen>> = vec![None; names.len()];
        runner.run(&model, &mut |results| {
            for ((tensor, name), found) in results.iter().zip(names).zip(&mut found) {
                if tensor.ty().ty != Type::F32 {
                    return Err(format!("tensor `{name}` is not of 32-bit floats"));
                }
                let values = tensor.values::<f32>();
                if values.iter().any(|v| !v.is_finite()) {
                    return Err(format!("tensor `{name}` is not finite on the calibration data"));
                }
                // Channels are in front of the places of an image, and last elsewhere.
                let convolved = views.iter().any(|n| n.op == "Conv" && n.inputs[0] == *name);
                let shape = tensor.shape();
                let image = convolved && shape.len() > 2;
                let (channels, inner) =
                    if image { (shape[1], shape[2..].iter().product()) } else { (shape.last().copied().unwrap_or(1), 1) };
                found.get_or_insert_with(|| Seen::new(channels.max(1))).extremes(values, inner.max(1));
            }
            Ok(())
        })?;
        let mut found: Vec<Seen> = found.into_iter().map(|s| s.ok_or("there are no samples")).collect::<Result<_, _>>()?;
        runner.run(&model, &mut |results| {
            results.iter().zip(&mut found).for_each(|(tensor, s)| s.distribution(tensor.values::<f32>()));
            Ok(())
        })?;
        seen.extend(names.iter().cloned().zip(found));
    }
    Ok(seen)
}

/// The scale and zero of a tensor as constants, and the pair of nodes that rounds it.
fn round_trip(draft: &mut Draft, name: &str, grid: &Grid, place: Option<usize>, nodes: &mut Vec<(Option<usize>, NewNode)>) -> String {
    let (scale, zero) = (format!("{name}_scale"), format!("{name}_zero_point"));
    draft.add_value(&scale, &Tensor::scalar(grid.scale));
    let zeros = if grid.low < 0 { Tensor::scalar(grid.zero as i8) } else { Tensor::scalar(grid.zero as u8) };
    draft.add_value(&zero, &zeros);
    let (q, dq) = (format!("{name}_quantized"), format!("{name}_dequantized"));
    let node = |op, input: &str, output: &str| NewNode {
        op,
        name: output.to_string(),
        inputs: vec![input.to_string(), scale.clone(), zero.clone()],
        output: output.to_string(),
        ints: vec![],
    };
    nodes.push((place, node("QuantizeLinear", name, &q)));
    nodes.push((place, node("DequantizeLinear", &q, &dq)));
    dq
}

fn write(
    draft: &Draft,
    placement: &Placement,
    seen: &BTreeMap<String, Seen>,
    plan: &Plan,
    method: RangeMethod,
    corrected: bool,
) -> (Draft, Vec<LayerReport>) {
    let mut out = draft.clone();
    let (views, mut nodes, mut reports) = (draft.views(), vec![], vec![]);
    let grids: BTreeMap<&String, Grid> =
        seen.iter().map(|(name, s)| (name, if plan.format == Format::FixedPoint8 { s.fixed_point(8) } else { s.grid(method) })).collect();
    let activations = plan.format != Format::Int8Weights;
    let mut dequantized = BTreeMap::new();
    for (name, root) in placement.tensors.iter().filter(|_| activations) {
        let place = views.iter().position(|n| n.outputs.contains(name));
        let dq = round_trip(&mut out, name, &grids[root], place, &mut nodes);
        for (number, node) in views.iter().enumerate() {
            for (input, _) in node.inputs.iter().enumerate().filter(|(_, i)| *i == name) {
                out.set_input(number, input, &dq);
            }
        }
        dequantized.insert(name, root);
    }
    for layer in &placement.layers {
        let node = &views[layer.node];
        let (weights, scales) = quantize_weights(layer, plan);
        let input = dequantized.get(&node.inputs[0]).map(|root| (&grids[*root], &seen[*root]));
        let scale_of = if scales.len() == 1 { Tensor::scalar(scales[0]) } else { Tensor::new([scales.len()], &scales) };
        // Layers may share weights, so their names come from the node.
        let base = format!("{}_weight", node.outputs[0]);
        let mut constant = |suffix: &str, value: &Tensor, scale: &Tensor, axis: usize, nodes: &mut Vec<(Option<usize>, NewNode)>| {
            let name = |what: &str| format!("{}_{suffix}{what}", node.outputs[0]);
            out.add_value(&name("_quantized"), value);
            out.add_value(&name("_scale"), scale);
            let inputs = vec![name("_quantized"), name("_scale")];
            let ints = if scale.shape().is_empty() { vec![] } else { vec![("axis", axis as i64)] };
            nodes.push((None, NewNode { op: "DequantizeLinear", name: name("_dequantized"), inputs, output: name("_dequantized"), ints }));
            name("_dequantized")
        };
        let name = constant("weight", &weights, &scale_of, layer.axis, &mut nodes);
        debug_assert!(name.starts_with(&base));
        let rounded = dequantize(&weights, &scales, layer.axis);
        let outputs = layer.weight.shape()[layer.axis];
        let mut bias = layer.bias.as_ref().map(Tensor::to_f64s);
        if let (true, Some((_, seen))) = (corrected && node.op != "MatMul", input) {
            // E[W·x] − E[W'·x] from the means of the inputs (Nagel et al., *Data-free quantization*, 2019).
            let shift = mean_shift(layer, &rounded, &seen.means());
            let bias = bias.get_or_insert_with(|| vec![0.0; outputs]);
            bias.iter_mut().zip(shift).for_each(|(b, s)| *b += s);
        }
        let bias_name = bias.filter(|_| node.op != "MatMul").map(|bias| match input {
            None => node.inputs.get(2).cloned().unwrap_or_default(),
            Some((grid, _)) => {
                let steps: Vec<f32> = (0..outputs).map(|c| grid.scale * scales[if scales.len() == 1 { 0 } else { c }]).collect();
                let values: Vec<i32> = bias.iter().zip(&steps).map(|(b, s)| (b / f64::from(*s)).round_ties_even() as i32).collect();
                let scale = if scales.len() == 1 { Tensor::scalar(steps[0]) } else { Tensor::new([outputs], &steps) };
                constant("bias", &Tensor::new([outputs], &values), &scale, 0, &mut nodes)
            }
        });
        out.set_input(layer.node, 1, &name);
        if let Some(bias) = bias_name.filter(|b| !b.is_empty()) {
            out.set_input(layer.node, 2, &bias);
        }
        let float = Tensor::new(layer.weight.shape(), layer.weight.values::<f32>());
        reports.push(LayerReport {
            layer: node.shown().to_string(),
            weight_snr: snr(&[float], &[Tensor::new(layer.weight.shape(), &rounded)]),
            saturation: input.map(|(grid, seen)| seen.saturation(grid)),
        });
    }
    out.insert(nodes);
    // Constants of floats that nothing reads any more go.
    let outputs = out.outputs();
    (out.with_outputs(&outputs), reports)
}

/// Weights as signed bytes, −127 to 127 (two products of them and bytes never exceed what 16 bits hold by the half), and a scale for all or for each output.
fn quantize_weights(layer: &Weighted, plan: &Plan) -> (Tensor, Vec<f32>) {
    let (values, shape) = (layer.weight.values::<f32>(), layer.weight.shape());
    let (outputs, inner) = (shape[layer.axis], shape[layer.axis + 1..].iter().product::<usize>());
    let group = |i: usize| if plan.per_tensor || plan.format == Format::FixedPoint8 { 0 } else { i / inner % outputs };
    let mut largest = vec![0f32; if plan.per_tensor || plan.format == Format::FixedPoint8 { 1 } else { outputs }];
    values.iter().enumerate().for_each(|(i, w)| largest[group(i)] = largest[group(i)].max(w.abs()));
    let all = largest.iter().copied().fold(0.0, f32::max);
    let scales: Vec<f32> = largest
        .iter()
        .map(|&max| match plan.format {
            // Integer length ⌈log₂ max + 1⌉, the sign among its bits.
            Format::FixedPoint8 => Grid::fixed_point(8 - (integer_length(max) + 1), 8).scale,
            // An output of zeros has any scale; not so small that its bias has no steps.
            _ if max / 127.0 > all * 1e-6 && (max / 127.0).is_normal() => max / 127.0,
            _ => (all * 1e-6).max(f32::MIN_POSITIVE * 256.0),
        })
        .collect();
    let bytes: Vec<i8> =
        values.iter().enumerate().map(|(i, w)| (w / scales[group(i)]).round_ties_even().clamp(-127.0, 127.0) as i8).collect();
    let ty = TensorType::new(Type::I8, shape.to_vec());
    (Tensor::with_type(ty, &bytes), scales)
}

fn dequantize(weights: &Tensor, scales: &[f32], axis: usize) -> Vec<f32> {
    let shape = weights.shape();
    let inner: usize = shape[axis + 1..].iter().product();
    let scale = |i: usize| scales[if scales.len() == 1 { 0 } else { i / inner % shape[axis] }];
    weights.values::<i8>().iter().enumerate().map(|(i, w)| f32::from(*w) * scale(i)).collect()
}

/// What rounding the weights took from the mean of each output; for a convolution as if it had no padding.
fn mean_shift(layer: &Weighted, rounded: &[f32], means: &[f64]) -> Vec<f64> {
    let (values, shape) = (layer.weight.values::<f32>(), layer.weight.shape());
    let outputs = shape[layer.axis];
    let mut shift = vec![0.0; outputs];
    let is_conv = shape.len() > 2;
    let inner: usize = shape[layer.axis + 1..].iter().product();
    let taps: usize = shape.iter().skip(2).product();
    let groups = if is_conv { means.len() / shape[1].max(1) } else { 1 };
    for (i, (w, r)) in values.iter().zip(rounded).enumerate() {
        let output = i / inner % outputs;
        let input = if is_conv {
            output / (outputs / groups.max(1)).max(1) * shape[1] + i / taps % shape[1]
        } else if layer.axis == 0 {
            i % shape[1]
        } else {
            i / outputs
        };
        shift[output] += f64::from(w - r) * means.get(input).copied().unwrap_or(0.0);
    }
    shift
}
