//! Recurrent layers, one direction each; the product of the inputs with their weights is taken before.

use super::check::{self, Types, ensure};
use super::data::{self, Results};
use super::unary::{sigmoid, softplus};
use super::work::product;
use crate::graph::{Attrs, OpDef};
use crate::kind::{Arity, AttrKind, Class, Kind};
use crate::tensor::Tensor;
use crate::types::{TensorType, Type};

/// Functions a gate may apply; the first is its default.
const SIGMOID: AttrKind = AttrKind::Word(&[
    "sigmoid",
    "tanh",
    "relu",
    "affine",
    "leaky_relu",
    "thresholded_relu",
    "scaled_tanh",
    "hard_sigmoid",
    "elu",
    "softsign",
    "softplus",
]);
const TANH: AttrKind = AttrKind::Word(&[
    "tanh",
    "sigmoid",
    "relu",
    "affine",
    "leaky_relu",
    "thresholded_relu",
    "scaled_tanh",
    "hard_sigmoid",
    "elu",
    "softsign",
    "softplus",
]);
const SWITCH: AttrKind = AttrKind::Int(0);
const NUMBER: AttrKind = AttrKind::Float(0.0);

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    OpDef {
        kind: Kind::Lstm,
        doc: "LSTM over xw [T, B, 4H] (x·Wᵀ + both biases; gates i, o, f, c), r [4H, H], h0 [B, H], c0 [B, H], lens (i64) [B] if `has_lens`, \
              peepholes [3H] (i, o, f) if `has_peepholes` → y [T, B, H], h [B, H], c [B, H]. Past its length a sequence keeps h and c and \
              y is 0; `reverse` runs each from its end. `clip` (0: none) bounds what enters a gate; `input_forget`: f = 1 − i. \
              `alpha_*`, `beta_*` are the parameters of the activations as of ONNX.",
        inputs: Arity::Between(4, 6),
        attrs: &[
            ("hidden", AttrKind::Int(1)),
            ("reverse", SWITCH),
            ("act_f", SIGMOID),
            ("act_g", TANH),
            ("act_h", TANH),
            ("clip", NUMBER),
            ("input_forget", SWITCH),
            ("has_lens", SWITCH),
            ("has_peepholes", SWITCH),
            ("alpha_f", NUMBER),
            ("beta_f", NUMBER),
            ("alpha_g", NUMBER),
            ("beta_g", NUMBER),
            ("alpha_h", NUMBER),
            ("beta_h", NUMBER),
        ],
        class: Class::Compute,
        infer: lstm,
        eval: eval_lstm,
        work,
    },
    OpDef {
        kind: Kind::Gru,
        doc: "GRU over xw [T, B, 3H] (x·Wᵀ + biases; gates z, r, h), r [3H, H], h0 [B, H], rb [3H] if `has_bias` (added to h·Rᵀ), lens (i64) [B] \
              if `has_lens` → y [T, B, H], h [B, H]. The rest as lstm; `linear_before_reset`: r scales h·Rᵀ + rb, not h.",
        inputs: Arity::Between(3, 5),
        attrs: &[
            ("hidden", AttrKind::Int(1)),
            ("reverse", SWITCH),
            ("linear_before_reset", SWITCH),
            ("act_f", SIGMOID),
            ("act_g", TANH),
            ("clip", NUMBER),
            ("has_bias", SWITCH),
            ("has_lens", SWITCH),
            ("alpha_f", NUMBER),
            ("beta_f", NUMBER),
            ("alpha_g", NUMBER),
            ("beta_g", NUMBER),
        ],
        class: Class::Compute,
        infer: gru,
        eval: eval_gru,
        work,
    },
    OpDef {
        kind: Kind::Rnn,
        doc: "h ← act(xw + h·Rᵀ) over xw [T, B, H] (x·Wᵀ + both biases), r [H, H], h0 [B, H], lens (i64) [B] if `has_lens` → y [T, B, H], \
              h [B, H]. The rest as lstm.",
        inputs: Arity::Between(3, 4),
        attrs: &[
            ("hidden", AttrKind::Int(1)),
            ("reverse", SWITCH),
            ("act", TANH),
            ("clip", NUMBER),
            ("has_lens", SWITCH),
            ("alpha", NUMBER),
            ("beta", NUMBER),
        ],
        class: Class::Compute,
        infer: rnn,
        eval: eval_rnn,
        work,
    },
];

fn work(_: &Attrs, x: &[TensorType], _: &[TensorType]) -> u64 {
    // Each row of xw is met by the product of the state with r; activations cost about 10 each.
    product(&[x[0].len(), x[1].shape[1].saturating_add(10)])
}

/// What the layers share: xw [T, B, gates·H], r [gates·H, H] and the states [B, H]. Answers y and one state of it.
fn layer(attrs: &Attrs, x: &[TensorType], gates: usize, states: usize) -> Result<[TensorType; 2], String> {
    let h = check::size(attrs, "hidden", 1)?;
    let xw = &x[0];
    check::real("the input", xw)?;
    check::rank("the input", xw, 3)?;
    let wide = h.checked_mul(gates).filter(|&w| w == xw.shape[2]);
    let wide = wide.ok_or_else(|| format!("the last axis of {xw} is not {gates} gates of {h}"))?;
    check::is_exactly("the recurrent weights", &x[1], xw.ty, &[wide, h])?;
    for state in &x[2..2 + states] {
        check::is_exactly("a first state", state, xw.ty, &[xw.shape[1], h])?;
    }
    ensure(attrs.float("clip") >= 0.0, || "`clip` is negative".into())?;
    Ok([TensorType::checked(xw.ty, [xw.shape[0], xw.shape[1], h])?, TensorType::checked(xw.ty, [xw.shape[1], h])?])
}

/// The inputs after the first `fixed`: each is present when its switch is on.
fn optional(attrs: &Attrs, x: &[TensorType], fixed: usize, inputs: &[(&str, Type, &[usize])]) -> Result<(), String> {
    let mut rest = x[fixed..].iter();
    for (switch, ty, shape) in inputs.iter().filter(|(switch, ..)| attrs.flag(switch)) {
        let input = rest.next().ok_or_else(|| format!("the input of `{switch}` is missing"))?;
        check::is_exactly(&format!("the input of `{switch}`"), input, *ty, shape)?;
    }
    ensure(rest.next().is_none(), || "there is an input whose `has_…` is 0".into())
}

fn lstm(attrs: &Attrs, x: &[TensorType]) -> Types {
    let [y, h] = layer(attrs, x, 4, 2)?;
    let peepholes = &[3 * h.shape[1]];
    optional(attrs, x, 4, &[("has_lens", Type::I64, &h.shape[..1]), ("has_peepholes", h.ty, peepholes)])?;
    Ok(vec![y, h.clone(), h])
}

fn gru(attrs: &Attrs, x: &[TensorType]) -> Types {
    let [y, h] = layer(attrs, x, 3, 1)?;
    optional(attrs, x, 3, &[("has_bias", h.ty, &[3 * h.shape[1]]), ("has_lens", Type::I64, &h.shape[..1])])?;
    Ok(vec![y, h])
}

fn rnn(attrs: &Attrs, x: &[TensorType]) -> Types {
    let [y, h] = layer(attrs, x, 1, 1)?;
    optional(attrs, x, 3, &[("has_lens", Type::I64, &h.shape[..1])])?;
    Ok(vec![y, h])
}

/// A function of a gate, with the parameters its attributes give.
fn activation(attrs: &Attrs, name: &str, [alpha, beta]: [&str; 2]) -> impl Fn(f64) -> f64 {
    let function = attrs.word(name);
    let [alpha, beta] = [attrs.float(alpha), attrs.float(beta)];
    move |v| match function {
        "sigmoid" => sigmoid(v),
        "tanh" => v.tanh(),
        "relu" => v.max(0.0),
        "affine" => alpha * v + beta,
        "leaky_relu" => {
            if v < 0.0 {
                alpha * v
            } else {
                v
            }
        }
        "thresholded_relu" => {
            if v < alpha {
                0.0
            } else {
                v
            }
        }
        "scaled_tanh" => alpha * (beta * v).tanh(),
        "hard_sigmoid" => (alpha * v + beta).clamp(0.0, 1.0),
        "elu" => {
            if v < 0.0 {
                alpha * v.exp_m1()
            } else {
                v
            }
        }
        "softsign" => v / (1.0 + v.abs()),
        _ => softplus(v),
    }
}

/// The bound of what enters a gate.
fn clip(attrs: &Attrs) -> impl Fn(f64) -> f64 {
    let bound = if attrs.float("clip") > 0.0 { attrs.float("clip") } else { f64::INFINITY };
    move |v: f64| v.clamp(-bound, bound)
}

/// What a layer runs over.
struct Sequences {
    steps: usize,
    hidden: usize,
    batch: usize,
    reverse: bool,
    xw: Vec<f64>,
    r: Vec<f64>,
    h: Vec<f64>,
    lens: Vec<usize>,
}

impl Sequences {
    fn new(attrs: &Attrs, x: &[Tensor], lens: Option<&Tensor>) -> Result<Sequences, String> {
        let [steps, batch] = [x[0].shape()[0], x[0].shape()[1]];
        let len = |&len: &i64| {
            usize::try_from(len).ok().filter(|&l| l <= steps).ok_or_else(|| format!("a sequence of {steps} has no length {len}"))
        };
        let lens = lens.map_or(Ok(vec![steps; batch]), |l| data::i64s(l).iter().map(len).collect())?;
        let [xw, r, h] = [0, 1, 2].map(|i| x[i].to_f64s());
        Ok(Sequences { steps, hidden: attrs.size("hidden"), batch, reverse: attrs.flag("reverse"), xw, r, h, lens })
    }

    /// Row `row` of h·Rᵀ for a state `h`.
    fn recurrent(&self, h: &[f64], row: usize) -> f64 {
        self.r[row * self.hidden..(row + 1) * self.hidden].iter().zip(h).map(|(r, h)| r * h).sum()
    }

    /// Runs every sequence: `step` gets its number, its row of xw and its state, which it replaces. Answers y and the last states.
    fn run(mut self, x: &Tensor, mut step: impl FnMut(&Sequences, usize, &[f64], &mut [f64])) -> Vec<Tensor> {
        let hidden = self.hidden;
        let wide = x.shape()[2];
        let mut y = vec![0.0; self.steps * self.batch * hidden];
        let mut states = std::mem::take(&mut self.h);
        for b in 0..self.batch {
            let state = &mut states[b * hidden..(b + 1) * hidden];
            for s in 0..self.lens[b] {
                let at = (if self.reverse { self.lens[b] - 1 - s } else { s }) * self.batch + b;
                step(&self, b, &self.xw[at * wide..(at + 1) * wide], state);
                y[at * hidden..(at + 1) * hidden].copy_from_slice(state);
            }
        }
        let ty = x.ty().ty;
        let y = data::from_reals(&TensorType::new(ty, [self.steps, self.batch, hidden]), &y);
        vec![y, data::from_reals(&TensorType::new(ty, [self.batch, hidden]), &states)]
    }
}

fn eval_lstm(attrs: &Attrs, x: &[Tensor]) -> Results {
    let lens = attrs.flag("has_lens").then(|| &x[4]);
    let sequences = Sequences::new(attrs, x, lens)?;
    let hidden = sequences.hidden;
    let mut cells = x[3].to_f64s();
    let peepholes = if attrs.flag("has_peepholes") { x[x.len() - 1].to_f64s() } else { vec![0.0; 3 * hidden] };
    let f = activation(attrs, "act_f", ["alpha_f", "beta_f"]);
    let g = activation(attrs, "act_g", ["alpha_g", "beta_g"]);
    let h = activation(attrs, "act_h", ["alpha_h", "beta_h"]);
    let (clip, input_forget) = (clip(attrs), attrs.flag("input_forget"));
    let mut results = sequences.run(&x[0], |all, b, xw, state| {
        let before = state.to_vec();
        for j in 0..hidden {
            let cell = &mut cells[b * hidden + j];
            let gate = |gate: usize| xw[gate * hidden + j] + all.recurrent(&before, gate * hidden + j);
            let [p_i, p_o, p_f] = [0, 1, 2].map(|p| peepholes[p * hidden + j]);
            let input = f(clip(gate(0) + p_i * *cell));
            let forget = if input_forget { 1.0 - input } else { f(clip(gate(2) + p_f * *cell)) };
            *cell = forget * *cell + input * g(clip(gate(3)));
            state[j] = f(clip(gate(1) + p_o * *cell)) * h(*cell);
        }
    });
    let last = results[1].ty().clone();
    results.push(data::from_reals(&last, &cells));
    Ok(results)
}

fn eval_gru(attrs: &Attrs, x: &[Tensor]) -> Results {
    let lens = attrs.flag("has_lens").then(|| &x[x.len() - 1]);
    let sequences = Sequences::new(attrs, x, lens)?;
    let hidden = sequences.hidden;
    let rb = if attrs.flag("has_bias") { x[3].to_f64s() } else { vec![0.0; 3 * hidden] };
    let f = activation(attrs, "act_f", ["alpha_f", "beta_f"]);
    let g = activation(attrs, "act_g", ["alpha_g", "beta_g"]);
    let (clip, linear_before_reset) = (clip(attrs), attrs.flag("linear_before_reset"));
    Ok(sequences.run(&x[0], |all, _, xw, state| {
        let before = state.to_vec();
        let recurrent = |h: &[f64], gate: usize, j: usize| all.recurrent(h, gate * hidden + j) + rb[gate * hidden + j];
        let gate = |gate: usize, j: usize| f(clip(xw[gate * hidden + j] + recurrent(&before, gate, j)));
        let reset: Vec<f64> = (0..hidden).map(|j| gate(1, j) * before[j]).collect();
        for j in 0..hidden {
            let update = gate(0, j);
            let from_state = if linear_before_reset { gate(1, j) * recurrent(&before, 2, j) } else { recurrent(&reset, 2, j) };
            let new = g(clip(xw[2 * hidden + j] + from_state));
            state[j] = (1.0 - update) * new + update * before[j];
        }
    }))
}

fn eval_rnn(attrs: &Attrs, x: &[Tensor]) -> Results {
    let sequences = Sequences::new(attrs, x, x.get(3))?;
    let (act, clip) = (activation(attrs, "act", ["alpha", "beta"]), clip(attrs));
    Ok(sequences.run(&x[0], |all, _, xw, state| {
        let before = state.to_vec();
        for (j, h) in state.iter_mut().enumerate() {
            *h = act(clip(xw[j] + all.recurrent(&before, j)));
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;
    use crate::graph::Op;

    fn run(kind: Kind, attrs: &[(&'static str, Attr)], x: &[Tensor]) -> Vec<Vec<f64>> {
        let op = Op::new(kind, attrs.to_vec()).expect("attributes");
        crate::eval::eval_op(&op, x).expect("an answer").iter().map(|y| y.values::<f64>().to_vec()).collect()
    }

    fn close(a: &[f64], b: &[f64]) {
        assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} is not {b:?}");
    }

    #[test]
    fn a_plain_layer() {
        // One sequence of two steps, a state of one: tanh(1) and tanh(2 + tanh(1)/2).
        let x = [Tensor::new([2, 1, 1], &[1f64, 2.0]), Tensor::new([1, 1], &[0.5f64]), Tensor::new([1, 1], &[0f64])];
        let first = 1f64.tanh();
        let second = (2.0 + first / 2.0).tanh();
        let y = run(Kind::Rnn, &[], &x);
        close(&y[0], &[first, second]);
        close(&y[1], &[second]);
        let back = run(Kind::Rnn, &[("reverse", Attr::Int(1)), ("act", "relu".into())], &x);
        close(&back[0], &[2.0, 2.0]);
        close(&back[1], &[2.0]);
        close(
            &run(Kind::Rnn, &[("clip", 0.5.into()), ("act", "affine".into()), ("alpha", 2.0.into()), ("beta", 1.0.into())], &x)[0],
            &[2.0, 2.0],
        );
    }

    #[test]
    fn sequences_end_at_their_length() {
        let x = [
            Tensor::new([2, 2, 1], &[1f64, 2.0, 3.0, 4.0]),
            Tensor::new([1, 1], &[1f64]),
            Tensor::new([2, 1], &[0f64, 0.0]),
            Tensor::new([2], &[1i64, 2]),
        ];
        let attrs = |reverse: i64| [("act", "relu".into()), ("has_lens", Attr::Int(1)), ("reverse", Attr::Int(reverse))];
        assert_eq!(run(Kind::Rnn, &attrs(0), &x), [vec![1.0, 2.0, 0.0, 6.0], vec![1.0, 6.0]]);
        assert_eq!(run(Kind::Rnn, &attrs(1), &x), [vec![1.0, 6.0, 0.0, 4.0], vec![1.0, 6.0]]);
        let op = Op::new(Kind::Rnn, attrs(0)).expect("attributes");
        let mut wrong = x.to_vec();
        wrong[3] = Tensor::new([2], &[1i64, 3]);
        assert_eq!(crate::eval::eval_op(&op, &wrong).unwrap_err(), "a sequence of 2 has no length 3");
    }

    #[test]
    fn gates_of_an_lstm() {
        let x = |h0: f64, c0: f64| {
            [
                Tensor::new([1, 1, 4], &[0.1f64, 0.2, 0.3, 0.4]),
                Tensor::new([4, 1], &[1f64, 2.0, 3.0, 4.0]),
                Tensor::new([1, 1], &[h0]),
                Tensor::new([1, 1], &[c0]),
            ]
        };
        let step = |i: f64, o: f64, f: f64, g: f64, c0: f64| {
            let c = sigmoid(f) * c0 + sigmoid(i) * g.tanh();
            [sigmoid(o) * c.tanh(), c]
        };
        let y = run(Kind::Lstm, &[], &x(0.5, -1.0));
        let [h, c] = step(0.6, 1.2, 1.8, 2.4, -1.0);
        close(&[y[0][0], y[1][0], y[2][0]], &[h, h, c]);
        let peeping = [&x(0.0, 2.0)[..], &[Tensor::new([3], &[0.5f64, 0.25, -0.5])]].concat();
        let y = run(Kind::Lstm, &[("has_peepholes", Attr::Int(1))], &peeping);
        let c = sigmoid(0.3 - 1.0) * 2.0 + sigmoid(0.1 + 1.0) * 0.4f64.tanh();
        close(&[y[1][0], y[2][0]], &[sigmoid(0.2 + 0.25 * c) * c.tanh(), c]);
        let y = run(Kind::Lstm, &[("input_forget", Attr::Int(1))], &x(0.0, 1.0));
        close(&y[2], &[1.0 - sigmoid(0.1) + sigmoid(0.1) * 0.4f64.tanh()]);
    }

    #[test]
    fn gates_of_a_gru() {
        let x = [
            Tensor::new([1, 1, 3], &[0.1f64, 0.2, 0.3]),
            Tensor::new([3, 1], &[1f64, 2.0, 3.0]),
            Tensor::new([1, 1], &[0.5f64]),
            Tensor::new([3], &[0.01f64, 0.02, 0.03]),
        ];
        let (z, r) = (sigmoid(0.1 + 0.5 + 0.01), sigmoid(0.2 + 1.0 + 0.02));
        let before = (0.3 + 3.0 * r * 0.5 + 0.03f64).tanh();
        let after = (0.3 + r * (1.5 + 0.03f64)).tanh();
        let bias = ("has_bias", Attr::Int(1));
        close(&run(Kind::Gru, std::slice::from_ref(&bias), &x)[1], &[(1.0 - z) * before + z * 0.5]);
        close(&run(Kind::Gru, &[bias, ("linear_before_reset", Attr::Int(1))], &x)[1], &[(1.0 - z) * after + z * 0.5]);
    }
}
