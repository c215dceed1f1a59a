//! Recurrent layers, one direction each; the product of the inputs with their weights is taken before.

use super::check::{self, Types, ensure};
use super::{not_yet, product};
use crate::op::{Arity, AttrKind, Attrs, Class, Kind, OpDef};
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
        eval: not_yet,
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
        eval: not_yet,
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
        eval: not_yet,
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
