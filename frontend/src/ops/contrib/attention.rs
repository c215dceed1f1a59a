//! Attention as ONNX Runtime fuses it.

use crate::build::{Build, Node, Result, invalid, unsupported};
use crate::ops::attention::{bias_of, heads, joined, linear_attention, repeat_heads, rotate};
use crate::ops::expr::v;
use crate::ops::helpers::{Outputs, count, one, positive};
use crate::ops::linear::matmul;
use crate::ops::quant::integer_matmul;
use crate::ops::row::{OpImport, microsoft};
use dnnc_ir::{Attr, Kind, Type, Value};

pub(crate) const OPS: &[OpImport] = &[
    OpImport { note: "not: rotary embeddings inside, shared buffers", ..microsoft("Attention", attention) },
    microsoft("MultiHeadAttention", multi_head_attention),
    OpImport { note: "not: quantised or sliding caches, norms inside", ..microsoft("GroupQueryAttention", group_query_attention) },
    OpImport { note: "not: beams", ..microsoft("DecoderMaskedMultiHeadAttention", decoder_attention) },
    microsoft("QAttention", quantised_attention),
    microsoft("RotaryEmbedding", rotary_embedding),
    OpImport { note: "not: windows of states", ..microsoft("LinearAttention", linear_attention) },
];

/// What is done to the scores between the product and the softmax.
#[derive(Default)]
struct Scores {
    /// Factor; by default one over the root of the size of a head.
    scale: Option<f64>,
    /// Bound that scores approach by a tanh; 0 is none.
    softcap: f64,
    /// Added; broadcasts to [B, H, L, S].
    bias: Option<Value>,
    /// The score of a key without a value, that takes weight from the others; broadcasts to [B, H, L, 1].
    sink: Option<Value>,
}

/// softmax(scale · q·kᵀ + bias)·v over [B, H, …, D], joined to [B, L, H·E], and the weights.
fn attend(b: &mut Build, [q, k, val]: [Value; 3], how: Scores) -> Result<[Value; 2]> {
    let ty = b.elem(q);
    let (q, k, val) = (b.wide(q)?, b.wide(k)?, b.wide(val)?);
    let size = b.shape(q).last().copied().unwrap_or(1).max(1) as f64;
    let product = b.op(Kind::MatMul, [("trans_b", true.into())], &[q, k])?;
    let mut scores = b.emit(v(product) * how.scale.unwrap_or(1.0 / size.sqrt()))?;
    if how.softcap != 0.0 {
        scores = b.emit((v(scores) / how.softcap).tanh() * how.softcap)?;
    }
    if let Some(bias) = how.bias {
        let bias = b.cast(bias, b.elem(scores))?;
        scores = b.emit(v(scores) + bias)?;
    }
    let weights = match how.sink {
        None => b.on_axis(Kind::Softmax, scores, 3)?,
        Some(sink) => {
            let shape = b.shape(scores);
            let sink = b.cast(sink, b.elem(scores))?;
            let sink = b.expand(sink, &[shape[0], shape[1], shape[2], 1])?;
            let all = b.concat(&[scores, sink], 3)?;
            let all = b.on_axis(Kind::Softmax, all, 3)?;
            b.slice_axis(all, 3, 0, shape[3])?
        }
    };
    let y = b.matmul(weights, val)?;
    let y = joined(b, y)?;
    Ok([b.cast(y, ty)?, b.cast(weights, ty)?])
}

fn scale(n: &Node) -> Result<Option<f64>> {
    Ok(n.opt_float("scale")?.map(f64::from).filter(|&s| s != 0.0))
}

fn plus(b: &mut Build, bias: Option<Value>, more: Value) -> Result<Option<Value>> {
    match bias {
        Some(bias) => {
            let more = b.cast(more, b.elem(bias))?;
            b.emit(v(bias) + more).map(Some)
        }
        None => Ok(Some(more)),
    }
}

/// What a mask of ONNX Runtime adds to the scores: lengths [B], begins behind ends [2B], or 0 and 1 for [B, S], [B, L, S], [B, 1, M, M].
fn mask_bias(b: &mut Build, mask: Value, batch: usize, len: usize, total: usize, filter: f64) -> Result<Value> {
    let shape = b.shape(mask);
    let ends = |b: &mut Build, from: usize| -> Result<Value> {
        let part = b.slice_axis(mask, 0, from, batch)?;
        let part = b.cast(part, Type::I64)?;
        b.along(part, 0, 4)
    };
    let allowed = match shape[..] {
        [n] if n == batch || n == 2 * batch || n == 3 * batch + 2 => {
            let positions = b.iota(total)?;
            let end = ends(b, 0)?;
            let before = b.emit(v(positions).lt(end))?;
            if n == 2 * batch {
                let start = ends(b, batch)?;
                b.emit(v(start).le(positions).and(before))?
            } else {
                before
            }
        }
        [n, s] if n == batch && s == total => {
            let mask = b.cast(mask, Type::Bool)?;
            b.reshape(mask, &[batch, 1, 1, total])?
        }
        [n, l, s] if n == batch && l == len && s == total => {
            let mask = b.cast(mask, Type::Bool)?;
            b.reshape(mask, &[batch, 1, len, total])?
        }
        [n, 1, rows, s] if (n == batch || n == 1) && rows >= total && s >= total => {
            // A square of all positions: the rows of the queries are its last.
            let mask = b.slice_axis(mask, 2, total - len, len)?;
            let mask = b.slice_axis(mask, 3, 0, total)?;
            b.cast(mask, Type::Bool)?
        }
        _ => return invalid!("a mask {shape:?} for {batch} sequences of {len} queries and {total} keys"),
    };
    b.emit(v(allowed).select(0.0, filter))
}

/// Queries attend to keys up to their own position only, which is after those of the past.
fn causal_bias(b: &mut Build, past: usize, len: usize, total: usize) -> Result<Value> {
    let (rows, columns) = (b.iota(len)?, b.iota(total)?);
    let rows = b.reshape(rows, &[len, 1])?;
    let allowed = b.emit(v(columns).le(v(rows) + past as f64))?;
    bias_of(b, allowed, Type::F32)
}

/// Queries, keys and values are parts of one product with the weights.
fn attention(b: &mut Build, n: &Node) -> Outputs {
    let (x, w, bias) = (n.input(0)?, n.input(1)?, n.opt(2));
    if n.opt(6).is_some() || n.flag("past_present_share_buffer", false)? {
        return unsupported!("Attention with a shared buffer of past keys");
    }
    let &[_, width] = &b.shape(w)[..] else { return invalid!("weights {}", b.ty(w)) };
    let widths = match n.ints("qkv_hidden_sizes")? {
        Some(list) if !list.is_empty() => crate::ops::helpers::sizes(&list)?,
        _ => vec![width / 3; 3],
    };
    if widths.len() != 3 || widths.iter().try_fold(0usize, |s, &w| s.checked_add(w)) != Some(width) {
        return invalid!("widths {widths:?} of weights {}", b.ty(w));
    }
    let product = matmul(b, x, w)?;
    let product = match bias {
        Some(bias) => b.emit(v(product) + bias)?,
        None => product,
    };
    attention_of(b, n, product, &widths, [n.opt(3), n.opt(4), n.opt(5)])
}

/// As `Attention`, on 8-bit numbers with scales and zero points.
fn quantised_attention(b: &mut Build, n: &Node) -> Outputs {
    let (x, w) = (n.input(0)?, n.input(1)?);
    let acc = integer_matmul(b, x, w, n.opt(6), n.opt(7))?;
    let (x_scale, w_scale) = (b.scalar_of(n.input(3)?)?, n.input(4)?);
    let w_scale = if count(&b.shape(w_scale))? == 1 { b.scalar_of(w_scale)? } else { w_scale };
    let product = b.emit(v(acc).cast(b.elem(x_scale)) * (v(x_scale) * w_scale) + n.input(2)?)?;
    let width = b.shape(product).last().copied().unwrap_or(0);
    if width % 3 != 0 {
        return invalid!("weights {} are not those of queries, keys and values", b.ty(w));
    }
    attention_of(b, n, product, &[width / 3; 3], [n.opt(5), n.opt(8), None])
}

/// Attention over concatenated queries, keys and values; mask, past keys and values, and what is added to the scores may be missing.
fn attention_of(b: &mut Build, n: &Node, product: Value, widths: &[usize], [mask, past, more]: [Option<Value>; 3]) -> Outputs {
    let n_heads = positive("attribute `num_heads`", n.req_int("num_heads")?)?;
    if n.flag("do_rotary", false)? {
        return unsupported!("rotary embeddings inside Attention");
    }
    let &[batch, len, _] = &b.shape(product)[..] else { return invalid!("an input of {} axes", b.rank(product)) };
    let mut parts = Vec::new();
    let mut start = 0;
    for &width in widths {
        let part = b.slice_axis(product, 2, start, width)?;
        parts.push(heads(b, part, Some(n_heads))?);
        start += width;
    }
    let (q, mut k, mut val) = (parts[0], parts[1], parts[2]);
    if let Some(past) = past {
        let (past_k, past_v) = (b.slice_axis(past, 0, 0, 1)?, b.slice_axis(past, 0, 1, 1)?);
        let (past_k, past_v) = (b.squeeze(past_k, &[0])?, b.squeeze(past_v, &[0])?);
        (k, val) = (b.concat(&[past_k, k], 2)?, b.concat(&[past_v, val], 2)?);
    }
    let total = b.shape(k)[2];
    let mut bias = None;
    if let Some(mask) = mask {
        bias = Some(mask_bias(b, mask, batch, len, total, n.num("mask_filter_value", -10000.0)?)?);
    }
    if n.flag("unidirectional", false)? {
        let causal = causal_bias(b, total - len, len, total)?;
        bias = plus(b, bias, causal)?;
    }
    if let Some(more) = more {
        bias = plus(b, bias, more)?;
    }
    let [y, _] = attend(b, [q, k, val], Scores { scale: scale(n)?, bias, ..Scores::default() })?;
    let mut outputs = vec![y];
    if n.wants_output(1) {
        let (k, val) = (b.unsqueeze(k, &[0])?, b.unsqueeze(val, &[0])?);
        outputs.push(b.concat(&[k, val], 0)?);
    }
    Ok(outputs)
}

/// Adds the parts of one vector to queries, keys and values; those that come with heads have their bias already.
fn add_bias(b: &mut Build, bias: Option<Value>, parts: &mut [Value]) -> Result<()> {
    let Some(bias) = bias else { return Ok(()) };
    let mut start = 0;
    for part in parts {
        let shape = b.shape(*part);
        let width = if let [_, heads, _, size] = shape[..] { heads * size } else { shape.last().copied().unwrap_or(0) };
        let piece = b.slice_axis(bias, 0, start, width)?;
        start += width;
        if shape.len() == 3 {
            *part = b.emit(v(*part) + piece)?;
        }
    }
    Ok(())
}

/// Queries, keys and values apart, or packed as [B, L, N, 3, D] or [B, S, N, 2, D].
fn multi_head_attention(b: &mut Build, n: &Node) -> Outputs {
    let n_heads = positive("attribute `num_heads`", n.req_int("num_heads")?)?;
    let query = n.input(0)?;
    let unpack = |b: &mut Build, x: Value, parts: usize| -> Result<Vec<Value>> {
        let [batch, len, heads, given, size] = b.shape(x)[..] else { return invalid!("{} is not packed", b.ty(x)) };
        if given != parts || heads != n_heads {
            return invalid!("{} in {n_heads} heads of {parts} parts", b.ty(x));
        }
        (0..parts)
            .map(|i| {
                let part = b.slice_axis(x, 3, i, 1)?;
                b.reshape(part, &[batch, len, heads * size])
            })
            .collect()
    };
    let mut parts = match (b.rank(query), n.opt(1), n.opt(2)) {
        (5, None, None) => unpack(b, query, 3)?,
        (3, Some(kv), None) => [vec![query], unpack(b, kv, 2)?].concat(),
        (3, Some(k), Some(val)) => vec![query, k, val],
        _ => return invalid!("a query {}", b.ty(query)),
    };
    add_bias(b, n.opt(3), &mut parts)?;
    let q = heads(b, parts[0], Some(n_heads))?;
    let (mut k, mut val) = (heads(b, parts[1], Some(n_heads))?, heads(b, parts[2], Some(n_heads))?);
    let new = b.shape(k)[2];
    if let (Some(past_k), Some(past_v)) = (n.opt(6), n.opt(7)) {
        (k, val) = (b.concat(&[past_k, k], 2)?, b.concat(&[past_v, val], 2)?);
    }
    let (batch, len, total) = (b.shape(q)[0], b.shape(q)[2], b.shape(k)[2]);
    let mut sum = None;
    if let Some(mask) = n.opt(4) {
        sum = Some(mask_bias(b, mask, batch, len, total, n.num("mask_filter_value", -10000.0)?)?);
    }
    if n.flag("unidirectional", false)? {
        let causal = causal_bias(b, total - new, len, total)?;
        sum = plus(b, sum, causal)?;
    }
    if let Some(more) = n.opt(5) {
        sum = plus(b, sum, more)?;
    }
    let [y, weights] = attend(b, [q, k, val], Scores { scale: scale(n)?, bias: sum, ..Scores::default() })?;
    Ok(vec![y, k, val, weights])
}

/// One query per sequence, on keys that are given (cross attention) or kept in a buffer (self attention).
fn decoder_attention(b: &mut Build, n: &Node) -> Outputs {
    let n_heads = positive("attribute `num_heads`", n.req_int("num_heads")?)?;
    if n.opt(8).is_some() || n.opt(9).is_some() {
        return unsupported!("DecoderMaskedMultiHeadAttention with beams");
    }
    let query = n.input(0)?;
    let mut parts = match (n.opt(1), n.opt(2)) {
        (Some(k), Some(val)) => vec![query, k, val],
        (None, None) => {
            let width = b.shape(query).last().copied().unwrap_or(0) / 3;
            (0..3).map(|i| b.slice_axis(query, 2, i * width, width)).collect::<Result<Vec<_>>>()?
        }
        _ => return invalid!("a key without a value"),
    };
    add_bias(b, n.opt(10), &mut parts)?;
    let cross = b.rank(parts[1]) == 4;
    let q = heads(b, parts[0], Some(n_heads))?;
    let mut now = [heads(b, parts[1], Some(n_heads))?, heads(b, parts[2], Some(n_heads))?];
    let mut present = now;
    if !cross {
        let shared = n.flag("past_present_share_buffer", false)?;
        for (i, now) in now.iter_mut().enumerate() {
            let Some(past) = n.opt(5 + i) else { continue };
            let room = b.shape(past).get(2).copied().unwrap_or(0);
            let filled = if shared { crate::ops::helpers::size(b.need_i64(n.input(7)?)?)? } else { room };
            if filled + usize::from(shared) > room {
                return invalid!("{filled} past keys in a buffer of {room}");
            }
            let before = b.slice_axis(past, 2, 0, filled)?;
            *now = b.concat(&[before, *now], 2)?;
            present[i] = *now;
            if shared {
                let rest = b.slice_axis(past, 2, filled + 1, room - filled - 1)?;
                present[i] = b.concat(&[*now, rest], 2)?;
            }
        }
    }
    let (batch, len, total) = (b.shape(q)[0], b.shape(q)[2], b.shape(now[0])[2]);
    let mut bias = None;
    if let Some(mask) = n.opt(3) {
        bias = Some(mask_bias(b, mask, batch, len, total, n.num("mask_filter_value", -10000.0)?)?);
    }
    if let Some(more) = n.opt(4) {
        bias = plus(b, bias, more)?;
    }
    let [y, weights] = attend(b, [q, now[0], now[1]], Scores { scale: scale(n)?, bias, ..Scores::default() })?;
    Ok(vec![y, present[0], present[1], weights])
}

/// Heads of keys shared by groups of queries, past keys in a buffer, rotary embeddings inside.
///
/// Sequences may hold different numbers of keys: `before` is how many each had; new ones follow.
fn group_query_attention(b: &mut Build, n: &Node) -> Outputs {
    let query = n.input(0)?;
    let q_heads = positive("attribute `num_heads`", n.req_int("num_heads")?)?;
    let kv_heads = positive("attribute `kv_num_heads`", n.req_int("kv_num_heads")?)?;
    if (12..n.inputs.len()).any(|i| n.opt(i).is_some()) || n.flag("sliding_window_cache", false)? {
        return unsupported!("GroupQueryAttention with a quantised or sliding cache, or norms inside");
    }
    let [batch, len, width] = b.shape(query)[..] else { return invalid!("a query {}", b.ty(query)) };
    let (q, k, val) = match (n.opt(1), n.opt(2)) {
        (Some(k), Some(val)) => (query, k, val),
        (None, None) => {
            let size = width / (q_heads + 2 * kv_heads);
            let (q, kv) = (q_heads * size, kv_heads * size);
            (b.slice_axis(query, 2, 0, q)?, b.slice_axis(query, 2, q, kv)?, b.slice_axis(query, 2, q + kv, kv)?)
        }
        _ => return invalid!("a key without a value"),
    };
    let past = [n.opt(3), n.opt(4)].map(|p| p.filter(|&p| b.rank(p) == 4));
    let room = past[0].map_or(0, |p| b.shape(p)[2]);
    let total = crate::ops::helpers::size(b.need_i64(n.input(6)?)?)?;
    if total < len || past[0].is_none() && total > len {
        return invalid!("{total} keys for {len} queries and {room} past keys");
    }
    let before = if total == len {
        b.full(&[batch], Type::I64, 0.0)?
    } else {
        // The input is the position of the last key.
        let last = b.cast(n.input(5)?, Type::I64)?;
        b.emit(v(last) + (1.0 - len as f64))?
    };
    let before = b.reshape(before, &[batch, 1])?;
    let steps = b.iota(len)?;
    let positions = b.emit(v(before) + steps)?;

    let split = |b: &mut Build, x: Value, h: usize| heads(b, x, Some(h));
    let (mut q, mut k, val) = (split(b, q, q_heads)?, split(b, k, kv_heads)?, split(b, val, kv_heads)?);
    if n.flag("do_rotary", false)? {
        let tables = [n.input(7)?, n.input(8)?];
        let at = match n.opt(9) {
            // The first prompt starts where the first number says.
            Some(given) if total == len => {
                let first = b.slice(given, &[0, 0], &[1, 1], &[1, 1])?;
                b.emit(v(first) + positions)?
            }
            Some(given) => given,
            None => positions,
        };
        let width = 2 * b.shape(tables[0]).last().copied().unwrap_or(0) as i64;
        let interleaved = n.flag("rotary_interleaved", false)?;
        q = rotate(b, q, None, tables, Some(at), width, interleaved)?;
        k = rotate(b, k, None, tables, Some(at), width, interleaved)?;
    }
    let mut present = [k, val];
    for (now, past) in present.iter_mut().zip(past) {
        *now = cached(b, past, *now, before, room.max(total))?;
    }
    let mut parts = [q; 3];
    for (part, all) in parts[1..].iter_mut().zip(present) {
        let all = b.slice_axis(all, 2, 0, total)?;
        *part = repeat_heads(b, all, q_heads)?;
    }
    let mut bias = None;
    let columns = b.iota(total)?;
    let positions = b.reshape(positions, &[batch, 1, len, 1])?;
    if n.flag("causal", true)? {
        let mut allowed = b.emit(v(columns).le(positions))?;
        let window = n.int("local_window_size", -1)?;
        if window > 0 {
            allowed = b.emit((v(positions) - (window as f64 - 1.0)).le(columns).and(allowed))?;
        }
        bias = Some(bias_of(b, allowed, Type::F32)?);
    }
    if let Some(more) = n.opt(10) {
        let more = b.slice_axis(more, 3, 0, total)?;
        bias = plus(b, bias, more)?;
    }
    let sink = match n.opt(11) {
        Some(sink) => Some(b.along(sink, 1, 4)?),
        None if n.flag("smooth_softmax", false)? => Some(b.full(&[1; 4], Type::F32, 0.0)?),
        None => None,
    };
    let [y, _] = attend(b, parts, Scores { scale: scale(n)?, softcap: n.num("softcap", 0.0)?, bias, sink })?;
    Ok(vec![y, present[0], present[1]])
}

/// A cache [B, H, room, D] of which each sequence has filled `before` [B, 1] positions, followed by the new rows and zeros.
fn cached(b: &mut Build, past: Option<Value>, new: Value, before: Value, room: usize) -> Result<Value> {
    let [batch, heads, len, size] = b.shape(new)[..] else { return invalid!("{} has not four axes", b.ty(new)) };
    let Some(past) = past else { return Ok(new) };
    let held = b.shape(past)[2];
    let zeros = |b: &mut Build, n: usize| b.full(&[batch, heads, n, size], b.elem(new), 0.0);
    if let Some(filled) = b.known(before).and_then(|t| crate::build::integers(&t)) {
        // All are as long: nothing depends on data.
        let first = filled.first().copied().unwrap_or(0);
        if filled.iter().all(|&f| f == first) && first >= 0 && first as usize <= held && first as usize + len <= room {
            let filled = first as usize;
            let mut parts = vec![b.slice_axis(past, 2, 0, filled)?, new];
            if filled + len < room {
                parts.push(zeros(b, room - filled - len)?);
            }
            return b.concat(&parts, 2);
        }
    }
    // Place p is the past's before `before`, then one of the new ones, then 0.
    let nothing = zeros(b, 1)?;
    let all = b.concat(&[past, new, nothing], 2)?;
    let positions = b.iota(room)?;
    let new_position = b.emit(v(positions) - before + held as f64)?;
    let beyond = (held + len) as f64;
    let from = b.emit(v(positions).lt(before).select(positions, v(new_position).min(beyond)))?;
    let from = b.reshape(from, &[batch, 1, room, 1])?;
    let from = b.expand(from, &[batch, heads, room, size])?;
    b.op(Kind::GatherElements, [("axis", Attr::Int(2))], &[all, from])
}

fn rotary_embedding(b: &mut Build, n: &Node) -> Outputs {
    let (x, positions, cos, sin) = (n.input(0)?, n.input(1)?, n.input(2)?, n.input(3)?);
    let shape = b.shape(x);
    if n.num("scale", 1.0)? != 1.0 {
        return unsupported!("RotaryEmbedding with a scale");
    }
    let width = n.int("rotary_embedding_dim", 0)?;
    let flat = shape.len() == 3;
    let half = b.shape(cos).last().copied().unwrap_or(0);
    let split = match (flat, n.int("num_heads", 0)?) {
        (false, _) => None,
        (true, 0) => Some(positive("the number of heads", (shape[2] / (2 * half).max(1)) as i64)?),
        (true, heads) => Some(positive("attribute `num_heads`", heads)?),
    };
    let (batch, len) = if flat { (shape[0], shape[1]) } else { (shape[0], shape.get(2).copied().unwrap_or(0)) };
    // A single position is that of the first token of all sequences.
    let positions = if count(&b.shape(positions))? == 1 && batch * len != 1 {
        let (first, steps) = (b.scalar_of(positions)?, b.iota(len)?);
        let steps = b.reshape(steps, &[1, len])?;
        b.emit(v(first).cast(Type::I64) + steps)?
    } else {
        b.reshape(positions, &[batch, len])?
    };
    let y = rotate(b, x, split, [cos, sin], Some(positions), width, n.flag("interleaved", false)?)?;
    one(if flat { joined(b, y) } else { Ok(y) })
}
