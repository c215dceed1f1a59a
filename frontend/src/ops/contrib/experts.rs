//! Mixtures of experts: each token goes through the feed-forward networks that its router chooses, and gets the sum of their answers by weight.

use super::quantised::unpacked;
use crate::build::{Build, Node, Result, invalid, unsupported};
use crate::ops::expr::v;
use crate::ops::helpers::{Outputs, count, one, positive};
use crate::ops::quant::dequantize;
use crate::ops::row::{OpImport, microsoft};
use dnnc_ir::{Attr, Kind, Type, Value};

pub(crate) const OPS: &[OpImport] = &[
    OpImport { note: "every expert computes every token; SwiGLU interleaved or with fc3; no sparse mixer", ..microsoft("MoE", moe) },
    OpImport { note: "as MoE, weights of 2, 4 or 8 bits as they are (quant_type int, not prepacked)", ..microsoft("QMoE", qmoe) },
];

/// A layer of all experts: weights [E, out, in] and biases [E, out].
struct Layer {
    weights: Value,
    bias: Option<Value>,
}

fn moe(b: &mut Build, n: &Node) -> Outputs {
    let layer = |b: &mut Build, i: usize| -> Result<Option<Layer>> {
        let Some(weights) = n.opt(i) else { return Ok(None) };
        Ok(Some(Layer { weights: b.wide(weights)?, bias: n.opt(i + 1) }))
    };
    let layers = [layer(b, 2)?, layer(b, 4)?, layer(b, 6)?];
    let (scores, k) = routed(b, n)?;
    // The share of an expert among all, or among those that are chosen.
    let shares = b.on_axis(Kind::Softmax, scores, 1)?;
    let (kept, chosen) = choose(b, scores, shares, k, n.flag("normalize_routing_weights", false)?)?;
    one(mixture(b, n, layers, kept, chosen))
}

fn qmoe(b: &mut Build, n: &Node) -> Outputs {
    match n.string("quant_type", "int")? {
        "int" => {}
        other => return unsupported!("QMoE with quant_type={other:?}: \"int\" is supported"),
    }
    if n.int("weights_prepacked", -1)? > 0 {
        return unsupported!("QMoE with weights_prepacked=1: weights as a quantiser writes them (0) are supported");
    }
    if let Some(i) = (15..=20).find(|&i| n.opt(i).is_some()) {
        return unsupported!("QMoE with input {i}, a scale of floating-point weights or activations");
    }
    let bits = n.int("expert_weight_bits", 4)?;
    let layer = |b: &mut Build, first: usize, zeros: usize, own: &str| -> Result<Option<Layer>> {
        let Some(weights) = n.opt(first) else { return Ok(None) };
        let bits = match n.int(own, bits)? {
            bits @ (2 | 4 | 8) => bits as usize,
            bits => return unsupported!("QMoE with weights of {bits} bits: 2, 4 and 8 are supported"),
        };
        let scales = n.input(first + 1)?;
        Ok(Some(Layer { weights: plain_weights(b, n, weights, scales, n.opt(zeros), bits)?, bias: n.opt(first + 2) }))
    };
    let layers = [
        layer(b, 2, 11, "fc1_expert_weight_bits")?,
        layer(b, 5, 12, "fc2_expert_weight_bits")?,
        layer(b, 8, 13, "fc3_expert_weight_bits")?,
    ];
    let (scores, k) = routed(b, n)?;
    // The router's own weights are taken as they are; else the chosen experts share among themselves.
    let (kept, chosen) = match n.opt(14) {
        Some(weights) => {
            let weights = b.wide(weights)?;
            choose(b, scores, weights, k, n.flag("normalize_routing_weights", false)?)?
        }
        None => {
            let shares = b.on_axis(Kind::Softmax, scores, 1)?;
            choose(b, scores, shares, k, true)?
        }
    };
    one(mixture(b, n, layers, kept, chosen))
}

/// The scores of the router [tokens, E], and how many experts a token goes to.
fn routed(b: &mut Build, n: &Node) -> Result<(Value, usize)> {
    if n.flag("use_sparse_mixer", false)? {
        return unsupported!("use_sparse_mixer=1: experts that are chosen by score alone (0) are supported");
    }
    let scores = n.input(1)?;
    let k = positive("attribute `k`", n.int("k", 1)?)?;
    match b.shape(scores)[..] {
        [_, experts] if k <= experts => Ok((b.wide(scores)?, k)),
        _ => invalid!("{k} experts of the router's {}", b.ty(scores)),
    }
}

/// Of `weights` [tokens, E] those of the `k` experts with the largest scores, perhaps divided by their sum, else 0; and which these are.
fn choose(b: &mut Build, scores: Value, weights: Value, k: usize, normalise: bool) -> Result<(Value, Value)> {
    let (&[tokens, experts], given) = (&b.shape(scores)[..], b.shape(weights)) else { return invalid!("scores {}", b.ty(scores)) };
    if given != [tokens, experts] {
        return invalid!("router weights {} for scores {}", b.ty(weights), b.ty(scores));
    }
    let best = b.op(Kind::TopK, [("axis", Attr::Int(1)), ("k", Attr::Int(k as i64)), ("largest", true.into())], &[scores])?;
    let indices = b.cast(best.result(1), Type::I64)?;
    let indices = b.reshape(indices, &[tokens, k, 1])?;
    let all = b.iota(experts)?;
    let hits = b.emit(v(indices).eq(all).cast(Type::I32))?;
    let hits = b.reduce(Kind::ReduceMax, hits, &[1], false)?;
    let chosen = b.cast(hits, Type::Bool)?;
    let kept = b.emit(v(chosen).select(weights, 0.0))?;
    if !normalise {
        return Ok((kept, chosen));
    }
    let sum = b.reduce(Kind::ReduceSum, kept, &[1], true)?;
    Ok((b.emit(v(kept) / sum)?, chosen))
}

/// The answers of all experts to all tokens, those of a token's experts by weight.
fn mixture(b: &mut Build, n: &Node, [fc1, fc2, fc3]: [Option<Layer>; 3], kept: Value, chosen: Value) -> Result<Value> {
    let (x, (Some(fc1), Some(fc2))) = (n.input(0)?, (fc1, fc2)) else { return invalid!("the weights of fc1 and of fc2 are needed") };
    let (shape, ty) = (b.shape(x), b.elem(x));
    let (&[tokens, experts], Some(&width)) = (&b.shape(kept)[..], shape.last()) else { return invalid!("tokens {}", b.ty(x)) };
    if count(&shape[..shape.len() - 1])? != tokens {
        return invalid!("tokens {} for a router of {tokens} tokens", b.ty(x));
    }
    let x = b.wide(x)?;
    let x = b.reshape(x, &[1, tokens, width])?;
    let dense = |b: &mut Build, x: Value, layer: &Layer| -> Result<Value> {
        let y = b.op(Kind::MatMul, [("trans_b", true.into())], &[x, layer.weights])?;
        let Some(bias) = layer.bias else { return Ok(y) };
        let bias = b.wide(bias)?;
        let bias = b.unsqueeze(bias, &[1])?;
        b.emit(v(y) + bias)
    };
    let hidden = dense(b, x, &fc1)?;
    let linear = fc3.map(|fc3| dense(b, x, &fc3)).transpose()?;
    let hidden = match (n.string("activation_type", "relu")?, linear) {
        ("swiglu", linear) => {
            let (gate, linear) = match (n.int("swiglu_fusion", 0)?, linear) {
                (0, Some(linear)) => (hidden, linear),
                (1, None) => {
                    let shape = b.shape(hidden);
                    let pairs = b.reshape(hidden, &[shape[0], shape[1], shape[2] / 2, 2])?;
                    let part = |b: &mut Build, i: usize| -> Result<Value> {
                        let half = b.slice_axis(pairs, 3, i, 1)?;
                        b.reshape(half, &[shape[0], shape[1], shape[2] / 2])
                    };
                    (part(b, 0)?, part(b, 1)?)
                }
                (fusion, linear) => {
                    let fc3 = if linear.is_some() { "with" } else { "without" };
                    return unsupported!("swiglu_fusion={fusion} {fc3} fc3: 1 without and 0 with fc3 are supported");
                }
            };
            let (alpha, beta) = (n.num("activation_alpha", 1.0)?, n.num("activation_beta", 0.0)?);
            let limit = n.num("swiglu_limit", f64::INFINITY)?;
            let gate = b.emit(v(gate).min(limit))?;
            b.emit(v(gate) * (v(gate) * alpha).sigmoid() * (v(linear).clamp(-limit, limit) + beta))?
        }
        (name, linear) => {
            let hidden = match name {
                "relu" => b.emit(v(hidden).relu())?,
                "gelu" => b.emit(v(hidden).gelu_tanh())?,
                "silu" => b.emit(v(hidden).silu())?,
                "identity" => hidden,
                other => return invalid!("attribute `activation_type` is {other:?}"),
            };
            linear.map_or(Ok(hidden), |linear| b.emit(v(hidden) * linear))?
        }
    };
    // [E, tokens, width]; what an expert says to a token that is not its own may be anything.
    let answers = dense(b, hidden, &fc2)?;
    let across = |b: &mut Build, x: Value| -> Result<Value> {
        let x = b.transpose(x, &[1, 0])?;
        b.reshape(x, &[experts, tokens, 1])
    };
    let (kept, chosen) = (across(b, kept)?, across(b, chosen)?);
    let parts = b.emit(v(chosen).select(v(answers) * kept, 0.0))?;
    let sum = b.reduce(Kind::ReduceSum, parts, &[0], false)?;
    let sum = b.reshape(sum, &shape)?;
    b.cast(sum, ty)
}

/// Weights [E, out, in] from packed numbers with a scale and perhaps a zero point per row, or per block of a row.
fn plain_weights(b: &mut Build, n: &Node, weights: Value, scales: Value, zeros: Option<Value>, bits: usize) -> Result<Value> {
    let narrow = unpacked(b, weights, bits)?;
    let &[experts, rows, columns] = &b.shape(narrow)[..] else { return invalid!("weights {}", b.ty(weights)) };
    let block = match n.int("block_size", 0)? {
        0 => columns,
        size => positive("attribute `block_size`", size)?,
    };
    let blocks = columns.checked_div(block).unwrap_or(0);
    let narrow = b.reshape(narrow, &[experts, rows, blocks, block])?;
    let scales = b.wide(scales)?;
    let scales = b.reshape(scales, &[experts, rows, blocks, 1])?;
    let zeros = match zeros {
        Some(zeros) => {
            // One row of them after the other, or all rows of an expert without a gap.
            let numbers = unpacked(b, zeros, bits)?;
            let last = b.rank(numbers).saturating_sub(1);
            let numbers = b.slice_axis(numbers, last, 0, if last == 2 { blocks } else { rows })?;
            b.reshape(numbers, &[experts, rows, blocks, 1])?
        }
        // In the middle of the range.
        None => b.scalar(Type::U8, f64::from(1u32 << (bits - 1))),
    };
    let plain = dequantize(b, narrow, scales, Some(zeros))?;
    b.reshape(plain, &[experts, rows, columns])
}
