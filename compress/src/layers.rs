//! The weighted layers of a network, with weights and inputs as matrices.

use crate::reconstruct::Matrix;
use dnnc_frontend::{Draft, Limits, NodeView};
use dnnc_ir::{Tensor, Type};

/// A layer whose output is linear in its input: a product with a constant, or a convolution without groups.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its name, for messages.
    pub name: String,
    /// The name of what it reads.
    pub input: String,
    /// The name of its weights.
    pub weight: String,
    /// The name of its bias, where that is a constant.
    pub bias: Option<String>,
    /// Inputs of one output (those of a window, for a convolution), and outputs.
    pub size: (usize, usize),
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Weights of outputs × inputs if transposed.
    Product {
        transposed: bool,
    },
    Conv {
        shape: Vec<usize>,
        strides: [usize; 2],
        pads: [usize; 2],
        dilations: [usize; 2],
    },
}

/// Places of an image whose windows are taken; more say little that is new.
const PLACES: usize = 64;

/// The layers in the order of the file, and nodes with weights that stay as they are, each with the reason.
pub fn layers(draft: &Draft, limits: &Limits) -> (Vec<Layer>, Vec<(String, &'static str)>) {
    let (mut found, mut kept) = (vec![], vec![]);
    let views = draft.views();
    for node in &views {
        if !matches!(node.op.as_str(), "Gemm" | "MatMul" | "Conv") {
            continue;
        }
        let readers = |name: &str| views.iter().flat_map(|n| &n.inputs).filter(|i| *i == name).count();
        match layer(draft, node, limits, &readers) {
            Ok(layer) => found.push(layer),
            Err(reason) => kept.push((node.shown().to_string(), reason)),
        }
    }
    (found, kept)
}

fn layer(draft: &Draft, node: &NodeView, limits: &Limits, readers: &dyn Fn(&str) -> usize) -> Result<Layer, &'static str> {
    let input = |i: usize| node.inputs.get(i).filter(|n| !n.is_empty());
    let (Some(data), Some(weight)) = (input(0), input(1)) else { return Err("it has no weights") };
    let value = draft.value(weight, limits).ok_or("its weights are no constant of the graph")?;
    if value.ty().ty != Type::F32 {
        return Err("its weights are no 32-bit floats");
    }
    if readers(weight) > 1 {
        return Err("its weights are used by other nodes, too");
    }
    let shape = value.shape().to_vec();
    let (size, kind) = match (node.op.as_str(), &shape[..]) {
        ("Gemm", &[a, b]) => {
            let plain = |name| node.floats.get(name).is_none_or(|v| *v == 1.0);
            if node.int("transA", 0) != 0 || !plain("alpha") || !plain("beta") {
                return Err("it is scaled, or its input is transposed");
            }
            let transposed = node.int("transB", 0) != 0;
            (if transposed { (b, a) } else { (a, b) }, Kind::Product { transposed })
        }
        ("MatMul", &[a, b]) => ((a, b), Kind::Product { transposed: false }),
        ("Conv", &[outputs, channels, height, width]) => {
            if node.int("group", 1) != 1 {
                return Err("it is a convolution of groups");
            }
            if node.strings.get("auto_pad").is_some_and(|pad| !matches!(pad.as_str(), "NOTSET" | "VALID")) {
                return Err("its padding is not written out");
            }
            let pair = |name: &str, default: usize| -> [usize; 2] {
                let list = node.ints.get(name).map_or(&[][..], |v| v);
                [0, 1].map(|i| list.get(i).and_then(|v| usize::try_from(*v).ok()).unwrap_or(default))
            };
            let kind =
                Kind::Conv { shape: shape.clone(), strides: pair("strides", 1), pads: pair("pads", 0), dilations: pair("dilations", 1) };
            ((channels * height * width, outputs), kind)
        }
        _ => return Err("its weights are no matrix and no window of an image"),
    };
    let bias = input(2).filter(|b| node.op != "MatMul" && readers(b) == 1);
    let bias = bias.filter(|b| draft.value(b, limits).is_some_and(|t| t.ty().ty == Type::F32 && t.len() == size.1)).cloned();
    Ok(Layer { name: node.shown().to_string(), input: data.clone(), weight: weight.clone(), bias, size, kind })
}

impl Layer {
    /// Weights of inputs × outputs, and a last row with the bias (zeros where there is none).
    pub fn matrix(&self, draft: &Draft, limits: &Limits) -> Matrix {
        let weight = draft.value(&self.weight, limits).expect("it was read before");
        let bias = self.bias.as_ref().and_then(|b| draft.value(b, limits));
        let (inputs, outputs) = self.size;
        let values = weight.values::<f32>();
        let bias: &[f32] = bias.as_ref().map_or(&[], |b| b.values::<f32>());
        Matrix::from_fn(inputs + 1, outputs, |r, c| {
            f64::from(if r < inputs { values[self.place(r, c)] } else { bias.get(c).copied().unwrap_or(0.0) })
        })
    }

    /// Writes what [`Layer::matrix`] gives into the network.
    pub fn write(&self, draft: &mut Draft, matrix: &Matrix, limits: &Limits) {
        let old = draft.value(&self.weight, limits).expect("it was read before");
        let (inputs, outputs) = self.size;
        let mut values = vec![0f32; old.len()];
        for c in 0..outputs {
            (0..inputs).for_each(|r| values[self.place(r, c)] = matrix[(r, c)] as f32);
        }
        draft.set_value(&self.weight, &Tensor::new(old.shape().to_vec(), &values));
        if let Some(bias) = &self.bias {
            let shape = draft.value(bias, limits).expect("it was read before").shape().to_vec();
            let values: Vec<f32> = (0..outputs).map(|c| matrix[(inputs, c)] as f32).collect();
            draft.set_value(bias, &Tensor::new(shape, &values));
        }
    }

    /// Where a weight is in its tensor.
    fn place(&self, row: usize, column: usize) -> usize {
        let (inputs, outputs) = self.size;
        match &self.kind {
            Kind::Product { transposed: false } => row * outputs + column,
            _ => column * inputs + row,
        }
    }

    /// The rows of inputs (those of sampled windows, for a convolution), each with a last 1. An error is a sentence.
    pub fn rows(&self, input: &Tensor) -> Result<Vec<f32>, String> {
        let values = input.values::<f32>();
        let (inputs, _) = self.size;
        let fail = || format!("layer `{}`: its input has the shape {:?}, which does not fit its weights", self.name, input.shape());
        let mut out = vec![];
        match (&self.kind, input.shape()) {
            (Kind::Product { .. }, shape) if shape.last() == Some(&inputs) => {
                values.chunks_exact(inputs).for_each(|row| out.extend(row.iter().chain(&[1.0])));
            }
            (Kind::Conv { shape, strides, pads, dilations }, &[batch, channels, height, width]) if channels == shape[1] => {
                let size = |n: usize, i: usize| {
                    let window = dilations[i] * (shape[2 + i] - 1) + 1;
                    (n + 2 * pads[i]).checked_sub(window).map(|free| free / strides[i].max(1) + 1)
                };
                let (rows, columns) = (size(height, 0).ok_or_else(fail)?, size(width, 1).ok_or_else(fail)?);
                let step = (rows * columns).div_ceil(PLACES).max(1);
                for b in 0..batch {
                    // Each image begins at another place, so that all are seen.
                    for place in (b % step..rows * columns).step_by(step) {
                        let (top, left) = (place / columns * strides[0], place % columns * strides[1]);
                        for c in 0..channels {
                            for y in (0..shape[2]).map(|y| (top + y * dilations[0]).wrapping_sub(pads[0])) {
                                for x in (0..shape[3]).map(|x| (left + x * dilations[1]).wrapping_sub(pads[1])) {
                                    let inside = y < height && x < width;
                                    out.push(if inside { values[((b * channels + c) * height + y) * width + x] } else { 0.0 });
                                }
                            }
                        }
                        out.push(1.0);
                    }
                }
            }
            _ => return Err(fail()),
        }
        Ok(out)
    }
}
