//! LSTM, GRU and RNN: one matmul of all inputs with their weights, then the recurrence of each direction.

use super::expr::v;
use super::helpers::{Outputs, positive};
use super::row::{OpImport, onnx};
use crate::build::{Build, Node, Result, invalid, unsupported};
use dnnc_ir::{Attr, Kind, Type, Value};

pub(super) const OPS: &[OpImport] = &[onnx("LSTM", lstm), onnx("GRU", gru), onnx("RNN", rnn)];

/// What the three layers share; shapes as of layout 0.
struct Layer {
    /// Inputs [T, B, I].
    x: Value,
    /// How many directions, and whether the first runs backwards.
    directions: usize,
    backwards: bool,
    hidden: usize,
    steps: usize,
    batch: usize,
    /// Lengths of the sequences, i64 [B].
    lens: Option<Value>,
    clip: f64,
    /// Names and parameters of the activations, as many as `directions` times the layer has.
    acts: Vec<(&'static str, f64, f64)>,
    transposed: bool,
    ty: Type,
}

/// An activation and the defaults of its parameters.
fn act(name: &str) -> Result<(&'static str, f64, f64)> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "sigmoid" => ("sigmoid", 0.0, 0.0),
        "tanh" => ("tanh", 0.0, 0.0),
        "relu" => ("relu", 0.0, 0.0),
        "affine" => ("affine", 1.0, 0.0),
        "leakyrelu" => ("leaky_relu", 0.01, 0.0),
        "thresholdedrelu" => ("thresholded_relu", 1.0, 0.0),
        "scaledtanh" => ("scaled_tanh", 1.0, 1.0),
        "hardsigmoid" => ("hard_sigmoid", 0.2, 0.5),
        "elu" => ("elu", 1.0, 0.0),
        "softsign" => ("softsign", 0.0, 0.0),
        "softplus" => ("softplus", 0.0, 0.0),
        other => return unsupported!("the activation `{other}`"),
    })
}

/// Whether an activation has a parameter alpha.
pub(crate) fn takes_alpha(name: &str) -> bool {
    !matches!(name, "sigmoid" | "tanh" | "relu" | "softsign" | "softplus")
}

/// Whether an activation has a parameter beta.
pub(crate) fn takes_beta(name: &str) -> bool {
    matches!(name, "affine" | "scaled_tanh" | "hard_sigmoid")
}

impl Layer {
    fn read(b: &mut Build, n: &Node, r: Value, defaults: &[&str]) -> Result<Layer> {
        let x = n.input(0)?;
        let transposed = n.flag("layout", false)?;
        if b.rank(x) != 3 || b.rank(r) != 3 {
            return invalid!("an input {} and recurrent weights {}", b.ty(x), b.ty(r));
        }
        let ty = b.elem(x);
        let x = b.wide(x)?;
        let x = if transposed { b.transpose(x, &[1, 0, 2])? } else { x };
        let [steps, batch] = [b.shape(x)[0], b.shape(x)[1]];
        let hidden = b.shape(r)[2];
        if let Some(given) = n.opt_int("hidden_size")?
            && positive("attribute `hidden_size`", given)? != hidden
        {
            return invalid!("attribute `hidden_size` is {given}, the weights have {hidden}");
        }
        let (directions, backwards) = match n.string("direction", "forward")? {
            "forward" => (1, false),
            "reverse" => (1, true),
            "bidirectional" => (2, false),
            other => return invalid!("attribute `direction` is {other:?}"),
        };
        let names = match n.strings("activations")? {
            Some(list) if !list.is_empty() => list,
            _ => defaults.iter().cycle().take(defaults.len() * directions).copied().collect(),
        };
        if names.len() < defaults.len() * directions {
            return invalid!("{} activations for {directions} directions", names.len());
        }
        let (alpha, beta) = (n.floats("activation_alpha")?.unwrap_or_default(), n.floats("activation_beta")?.unwrap_or_default());
        let mut acts = names.iter().map(|name| act(name)).collect::<Result<Vec<_>>>()?;
        // The lists hold numbers for the activations that take one, in order.
        for (act, &a) in acts.iter_mut().filter(|a| takes_alpha(a.0)).zip(&alpha) {
            act.1 = a.into();
        }
        for (act, &c) in acts.iter_mut().filter(|a| takes_beta(a.0)).zip(&beta) {
            act.2 = c.into();
        }
        let lens = match n.opt(4) {
            Some(lens) if !full_length(b, lens, steps) => Some(b.cast(lens, Type::I64)?),
            _ => None,
        };
        Ok(Layer { x, directions, backwards, hidden, steps, batch, lens, clip: n.num("clip", 0.0)?, acts, transposed, ty })
    }

    /// Direction `d` of a parameter [directions, …] of this shape, in the type computed with.
    fn part(&self, b: &mut Build, parameter: Value, d: usize, shape: &[usize]) -> Result<Value> {
        let whole: Vec<usize> = [self.directions].into_iter().chain(shape.iter().copied()).collect();
        if b.shape(parameter) != whole {
            return invalid!("a parameter {} where {whole:?} is expected", b.ty(parameter));
        }
        let part = b.slice_axis(parameter, 0, d, 1)?;
        let part = b.reshape(part, shape)?;
        b.wide(part)
    }

    /// The state before the first step, [B, H]; zeros where it is not given.
    fn state(&self, b: &mut Build, given: Option<Value>, d: usize) -> Result<Value> {
        match given {
            Some(state) => {
                let state = if self.transposed && b.rank(state) == 3 { b.transpose(state, &[1, 0, 2])? } else { state };
                self.part(b, state, d, &[self.batch, self.hidden])
            }
            None => b.full(&[self.batch, self.hidden], b.elem(self.x), 0.0),
        }
    }

    /// x·Wᵀ + bias for `gates` gates, [T, B, gates·H].
    fn product(&self, b: &mut Build, w: Value, d: usize, gates: usize, bias: Option<Value>) -> Result<Value> {
        let width = b.shape(self.x)[2];
        let w = self.part(b, w, d, &[gates * self.hidden, width])?;
        // One tall matrix: a matmul of rank 2 is what kernels are best at.
        let x = b.reshape(self.x, &[self.steps * self.batch, width])?;
        let y = b.op(Kind::MatMul, [("trans_b", true.into())], &[x, w])?;
        let y = match bias {
            Some(bias) => b.emit(v(y) + bias)?,
            None => y,
        };
        b.reshape(y, &[self.steps, self.batch, gates * self.hidden])
    }

    /// The two halves of a bias [directions, 2·gates·H]: of the input and of the state.
    fn biases(&self, b: &mut Build, bias: Option<Value>, d: usize, gates: usize) -> Result<Option<[Value; 2]>> {
        let Some(bias) = bias else { return Ok(None) };
        let half = gates * self.hidden;
        let whole = self.part(b, bias, d, &[2 * half])?;
        Ok(Some([b.slice_axis(whole, 0, 0, half)?, b.slice_axis(whole, 0, half, half)?]))
    }

    fn attrs(&self, d: usize) -> Vec<(&'static str, Attr)> {
        let reverse = self.backwards || d == 1;
        vec![
            ("hidden", Attr::Int(self.hidden as i64)),
            ("reverse", reverse.into()),
            ("clip", self.clip.into()),
            ("has_lens", self.lens.is_some().into()),
        ]
    }

    /// Joins the results of the directions: y [T, D, B, H] and the states [D, B, H], or as layout 1 has them.
    fn join(&self, b: &mut Build, results: &[Vec<Value>]) -> Outputs {
        let mut outputs = Vec::new();
        for i in 0..results[0].len() {
            let axis = usize::from(i == 0);
            let parts = results.iter().map(|r| b.unsqueeze(r[i], &[axis])).collect::<Result<Vec<Value>>>()?;
            let mut whole = b.concat(&parts, axis)?;
            if self.transposed {
                whole = b.transpose(whole, if i == 0 { &[2, 0, 1, 3] } else { &[1, 0, 2] })?;
            }
            outputs.push(b.cast(whole, self.ty)?);
        }
        Ok(outputs)
    }
}

/// Whether all sequences are known to have the full length: then nothing is masked.
fn full_length(b: &mut Build, lens: Value, steps: usize) -> bool {
    b.known(lens).and_then(|t| crate::build::integers(&t)).is_some_and(|list| list.iter().all(|&n| n == steps as i64))
}

fn lstm(b: &mut Build, n: &Node) -> Outputs {
    lstm_of(b, n, n.input(1)?, n.input(2)?)
}

/// The LSTM that `n` describes, with these weights.
pub(super) fn lstm_of(b: &mut Build, n: &Node, w: Value, r: Value) -> Outputs {
    let layer = Layer::read(b, n, r, &["Sigmoid", "Tanh", "Tanh"])?;
    let h = layer.hidden;
    let mut results = Vec::new();
    for d in 0..layer.directions {
        let bias = match layer.biases(b, n.opt(3), d, 4)? {
            Some([input, state]) => Some(b.emit(v(input) + state)?),
            None => None,
        };
        let xw = layer.product(b, w, d, 4, bias)?;
        let r = layer.part(b, r, d, &[4 * h, h])?;
        let (h0, c0) = (layer.state(b, n.opt(5), d)?, layer.state(b, n.opt(6), d)?);
        let mut operands = vec![xw, r, h0, c0];
        operands.extend(layer.lens);
        let peepholes = n.opt(7).map(|p| layer.part(b, p, d, &[3 * h])).transpose()?;
        operands.extend(peepholes);
        let [f, g, last] = [layer.acts[3 * d], layer.acts[3 * d + 1], layer.acts[3 * d + 2]];
        let mut attrs = layer.attrs(d);
        attrs.extend([
            ("act_f", f.0.into()),
            ("act_g", g.0.into()),
            ("act_h", last.0.into()),
            ("alpha_f", f.1.into()),
            ("beta_f", f.2.into()),
            ("alpha_g", g.1.into()),
            ("beta_g", g.2.into()),
            ("alpha_h", last.1.into()),
            ("beta_h", last.2.into()),
            ("input_forget", n.flag("input_forget", false)?.into()),
            ("has_peepholes", peepholes.is_some().into()),
        ]);
        let y = b.op(Kind::Lstm, attrs, &operands)?;
        results.push(vec![y, y.result(1), y.result(2)]);
    }
    layer.join(b, &results)
}

fn gru(b: &mut Build, n: &Node) -> Outputs {
    let layer = Layer::read(b, n, n.input(2)?, &["Sigmoid", "Tanh"])?;
    let (h, before_reset) = (layer.hidden, n.flag("linear_before_reset", false)?);
    let mut results = Vec::new();
    for d in 0..layer.directions {
        let biases = layer.biases(b, n.opt(3), d, 3)?;
        // Only behind a reset that scales the product must the bias of the state stay apart.
        let (bias, state_bias) = match biases {
            Some([input, state]) if before_reset => (Some(input), Some(state)),
            Some([input, state]) => (Some(b.emit(v(input) + state)?), None),
            None => (None, None),
        };
        let xw = layer.product(b, n.input(1)?, d, 3, bias)?;
        let r = layer.part(b, n.input(2)?, d, &[3 * h, h])?;
        let h0 = layer.state(b, n.opt(5), d)?;
        let mut operands = vec![xw, r, h0];
        operands.extend(state_bias);
        operands.extend(layer.lens);
        let [f, g] = [layer.acts[2 * d], layer.acts[2 * d + 1]];
        let mut attrs = layer.attrs(d);
        attrs.extend([
            ("act_f", f.0.into()),
            ("act_g", g.0.into()),
            ("alpha_f", f.1.into()),
            ("beta_f", f.2.into()),
            ("alpha_g", g.1.into()),
            ("beta_g", g.2.into()),
            ("linear_before_reset", before_reset.into()),
            ("has_bias", state_bias.is_some().into()),
        ]);
        let y = b.op(Kind::Gru, attrs, &operands)?;
        results.push(vec![y, y.result(1)]);
    }
    layer.join(b, &results)
}

fn rnn(b: &mut Build, n: &Node) -> Outputs {
    let layer = Layer::read(b, n, n.input(2)?, &["Tanh"])?;
    let h = layer.hidden;
    let mut results = Vec::new();
    for d in 0..layer.directions {
        let bias = match layer.biases(b, n.opt(3), d, 1)? {
            Some([input, state]) => Some(b.emit(v(input) + state)?),
            None => None,
        };
        let xw = layer.product(b, n.input(1)?, d, 1, bias)?;
        let r = layer.part(b, n.input(2)?, d, &[h, h])?;
        let mut operands = vec![xw, r, layer.state(b, n.opt(5), d)?];
        operands.extend(layer.lens);
        let (name, alpha, beta) = layer.acts[d];
        let mut attrs = layer.attrs(d);
        attrs.extend([("act", name.into()), ("alpha", alpha.into()), ("beta", beta.into())]);
        let y = b.op(Kind::Rnn, attrs, &operands)?;
        results.push(vec![y, y.result(1)]);
    }
    layer.join(b, &results)
}
