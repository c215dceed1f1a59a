//! Attention as ONNX Runtime fuses it.

use crate::build::{Build, Node, Result, invalid, unsupported};
use crate::ops::attention::{bias_of, heads, joined, repeat_heads, rotate};
use crate::ops::expr::v;
use crate::ops::kit::{Outputs, count, one, positive};
use crate::ops::{OpImport, microsoft};
use dnnc_ir::{Kind, Type, Value};

pub(in crate::ops) const OPS: &[OpImport] = &[
    microsoft("Attention", attention),
    microsoft("MultiHeadAttention", multi_head_attention),
    microsoft("GroupQueryAttention", group_query_attention),
    microsoft("RotaryEmbedding", rotary_embedding),
];

/// softmax(scale · q·kᵀ + bias)·v over [B, H, …, D], joined to [B, L, H·E].
fn attend(b: &mut Build, q: Value, k: Value, val: Value, scale: Option<f64>, bias: Option<Value>) -> Result<Value> {
    let ty = b.elem(q);
    let (q, k, val) = (b.wide(q)?, b.wide(k)?, b.wide(val)?);
    let size = b.shape(q).last().copied().unwrap_or(1).max(1) as f64;
    let product = b.op(Kind::MatMul, [("trans_b", true.into())], &[q, k])?;
    let mut scores = b.put(v(product) * scale.unwrap_or(1.0 / size.sqrt()))?;
    if let Some(bias) = bias {
        let bias = b.cast(bias, b.elem(scores))?;
        scores = b.put(v(scores) + bias)?;
    }
    let weights = b.on_axis(Kind::Softmax, scores, 3)?;
    let y = b.matmul(weights, val)?;
    let y = joined(b, y)?;
    b.cast(y, ty)
}

fn scale(n: &Node) -> Result<Option<f64>> {
    Ok(n.opt_float("scale")?.map(f64::from).filter(|&s| s != 0.0))
}

fn plus(b: &mut Build, bias: Option<Value>, more: Value) -> Result<Option<Value>> {
    match bias {
        Some(bias) => {
            let more = b.cast(more, b.elem(bias))?;
            b.put(v(bias) + more).map(Some)
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
            let places = b.iota(total)?;
            let end = ends(b, 0)?;
            let before = b.put(v(places).lt(end))?;
            if n == 2 * batch {
                let start = ends(b, batch)?;
                b.put(v(start).le(places).and(before))?
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
            // A square of all places: the rows of the queries are its last ones.
            let mask = b.slice_axis(mask, 2, total - len, len)?;
            let mask = b.slice_axis(mask, 3, 0, total)?;
            b.cast(mask, Type::Bool)?
        }
        _ => return invalid!("a mask {shape:?} for {batch} sequences of {len} queries and {total} keys"),
    };
    b.put(v(allowed).select(0.0, filter))
}

/// Queries see keys up to their own place only.
fn causal_bias(b: &mut Build, len: usize, total: usize) -> Result<Value> {
    let (rows, columns) = (b.iota(len)?, b.iota(total)?);
    let rows = b.reshape(rows, &[len, 1])?;
    let allowed = b.put(v(columns).le(v(rows) + (total - len.min(total)) as f64))?;
    bias_of(b, allowed, Type::F32)
}

/// Queries, keys and values are parts of one product with the weights.
fn attention(b: &mut Build, n: &Node) -> Outputs {
    let (x, w, bias) = (n.input(0)?, n.input(1)?, n.opt(2));
    let n_heads = positive("attribute `num_heads`", n.req_int("num_heads")?)?;
    if n.flag("do_rotary", false)? || n.opt(6).is_some() {
        return unsupported!("Attention with rotary embeddings or a shared buffer of past keys");
    }
    let (&[batch, len, _], &[_, width]) = (&b.shape(x)[..], &b.shape(w)[..]) else {
        return invalid!("{} with weights {}", b.ty(x), b.ty(w));
    };
    let widths = match n.ints("qkv_hidden_sizes")? {
        Some(list) if !list.is_empty() => crate::ops::kit::sizes(&list)?,
        _ => vec![width / 3; 3],
    };
    if widths.len() != 3 || widths.iter().try_fold(0usize, |s, &w| s.checked_add(w)) != Some(width) {
        return invalid!("widths {widths:?} of weights {}", b.ty(w));
    }
    let product = b.matmul(x, w)?;
    let product = match bias {
        Some(bias) => b.put(v(product) + bias)?,
        None => product,
    };
    let mut parts = Vec::new();
    let mut start = 0;
    for width in widths {
        let part = b.slice_axis(product, 2, start, width)?;
        parts.push(heads(b, part, Some(n_heads))?);
        start += width;
    }
    let (q, mut k, mut val) = (parts[0], parts[1], parts[2]);
    if let Some(past) = n.opt(4) {
        let (past_k, past_v) = (b.slice_axis(past, 0, 0, 1)?, b.slice_axis(past, 0, 1, 1)?);
        let (past_k, past_v) = (b.squeeze(past_k, &[0])?, b.squeeze(past_v, &[0])?);
        (k, val) = (b.concat(&[past_k, k], 2)?, b.concat(&[past_v, val], 2)?);
    }
    let total = b.shape(k)[2];
    let mut sum = None;
    if let Some(mask) = n.opt(3) {
        sum = Some(mask_bias(b, mask, batch, len, total, n.num("mask_filter_value", -10000.0)?)?);
    }
    if n.flag("unidirectional", false)? {
        let causal = causal_bias(b, len, total)?;
        sum = plus(b, sum, causal)?;
    }
    if let Some(more) = n.opt(5) {
        sum = plus(b, sum, more)?;
    }
    let mut outputs = vec![attend(b, q, k, val, scale(n)?, sum)?];
    if n.wants_output(1) {
        let (k, val) = (b.unsqueeze(k, &[0])?, b.unsqueeze(val, &[0])?);
        outputs.push(b.concat(&[k, val], 0)?);
    }
    Ok(outputs)
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
    if let Some(bias) = n.opt(3) {
        let mut start = 0;
        for part in &mut parts {
            let width = if b.rank(*part) == 3 { b.shape(*part)[2] } else { b.shape(*part)[1] * b.shape(*part)[3] };
            let piece = b.slice_axis(bias, 0, start, width)?;
            start += width;
            // Keys and values that come with heads have their bias already.
            if b.rank(*part) == 3 {
                *part = b.put(v(*part) + piece)?;
            }
        }
    }
    let q = heads(b, parts[0], Some(n_heads))?;
    let (mut k, mut val) = (heads(b, parts[1], Some(n_heads))?, heads(b, parts[2], Some(n_heads))?);
    if let (Some(past_k), Some(past_v)) = (n.opt(6), n.opt(7)) {
        (k, val) = (b.concat(&[past_k, k], 2)?, b.concat(&[past_v, val], 2)?);
    }
    let (batch, len, total) = (b.shape(q)[0], b.shape(q)[2], b.shape(k)[2]);
    let mut sum = None;
    if let Some(mask) = n.opt(4) {
        sum = Some(mask_bias(b, mask, batch, len, total, n.num("mask_filter_value", -10000.0)?)?);
    }
    if n.flag("unidirectional", false)? {
        let causal = causal_bias(b, len, total)?;
        sum = plus(b, sum, causal)?;
    }
    if let Some(more) = n.opt(5) {
        sum = plus(b, sum, more)?;
    }
    Ok(vec![attend(b, q, k, val, scale(n)?, sum)?, k, val])
}

/// Heads of keys shared by groups of queries, past keys in a buffer, rotary embeddings inside.
fn group_query_attention(b: &mut Build, n: &Node) -> Outputs {
    let (query, past_k, past_v) = (n.input(0)?, n.opt(3), n.opt(4));
    let q_heads = positive("attribute `num_heads`", n.req_int("num_heads")?)?;
    let kv_heads = positive("attribute `kv_num_heads`", n.req_int("kv_num_heads")?)?;
    if n.num("softcap", 0.0)? != 0.0 || n.flag("smooth_softmax", false)? || n.int("local_window_size", -1)? != -1 {
        return unsupported!("GroupQueryAttention with softcap, smooth_softmax or local_window_size");
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
    // The last place of each sequence; past keys are those before the new ones.
    let last = b.need_i64s(n.input(5)?)?;
    let past = match past_k {
        Some(past_k) if b.rank(past_k) == 4 => b.shape(past_k)[2],
        _ => 0,
    };
    let Some(&end) = last.first().filter(|&&end| last.len() == batch && last.iter().all(|&e| e == end) && end >= 0) else {
        return unsupported!("GroupQueryAttention with sequences of different lengths: {last:?}");
    };
    let total = crate::ops::kit::size(end + 1)?;
    let Some(before) = total.checked_sub(len).filter(|&before| before <= past) else {
        return invalid!("{total} places for {len} queries and {past} past keys");
    };
    let split = |b: &mut Build, x: Value, h: usize| heads(b, x, Some(h));
    let (mut q, mut k, val) = (split(b, q, q_heads)?, split(b, k, kv_heads)?, split(b, val, kv_heads)?);
    if n.flag("do_rotary", false)? {
        let tables = [n.input(7)?, n.input(8)?];
        let places: Vec<i64> = (before as i64..total as i64).collect();
        let places = b.konst(dnnc_ir::Tensor::new([1, len], &places));
        let width = 2 * b.shape(tables[0]).last().copied().unwrap_or(0) as i64;
        let interleaved = n.flag("rotary_interleaved", false)?;
        q = rotate(b, q, None, tables, Some(places), width, interleaved)?;
        k = rotate(b, k, None, tables, Some(places), width, interleaved)?;
    }
    let mut present = [k, val];
    for (now, past) in present.iter_mut().zip([past_k, past_v]) {
        if let Some(past) = past.filter(|_| before > 0) {
            let past = b.slice_axis(past, 2, 0, before)?;
            *now = b.concat(&[past, *now], 2)?;
        }
    }
    let (k, val) = (repeat_heads(b, present[0], q_heads)?, repeat_heads(b, present[1], q_heads)?);
    let mut bias = Some(causal_bias(b, len, total)?);
    if let Some(more) = n.opt(10) {
        let rank = b.rank(more);
        let more = if rank == 4 { b.slice_axis(more, 3, 0, total)? } else { more };
        bias = plus(b, bias, more)?;
    }
    let y = attend(b, q, k, val, scale(n)?, bias)?;
    Ok(vec![y, present[0], present[1]])
}

fn rotary_embedding(b: &mut Build, n: &Node) -> Outputs {
    let (x, places, cos, sin) = (n.input(0)?, n.input(1)?, n.input(2)?, n.input(3)?);
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
    // One place is that of the first token of all sequences.
    let places = if count(&b.shape(places))? == 1 && batch * len != 1 {
        let (first, steps) = (b.to_scalar(places)?, b.iota(len)?);
        let steps = b.reshape(steps, &[1, len])?;
        b.put(v(first).cast(Type::I64) + steps)?
    } else {
        b.reshape(places, &[batch, len])?
    };
    let y = rotate(b, x, split, [cos, sin], Some(places), width, n.flag("interleaved", false)?)?;
    one(if flat { joined(b, y) } else { Ok(y) })
}
