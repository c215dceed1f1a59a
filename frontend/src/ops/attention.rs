//! Attention as matmuls, masks and a softmax, in which the rewriter recognises the fused form.

use super::expr::v;
use super::helpers::{Outputs, count, one, positive};
use super::row::{OpImport, onnx};
use crate::build::{Build, Node, Result, invalid, unsupported};
use dnnc_ir::{Attr, Kind, Tensor, Type, Value};

pub(super) const OPS: &[OpImport] =
    &[onnx("Attention", attention), onnx("RotaryEmbedding", rotary_embedding), onnx("LinearAttention", linear_attention)];

/// [B, L, H·D] as [B, H, L, D]; what has four axes already is kept.
pub(super) fn heads(b: &mut Build, x: Value, heads: Option<usize>) -> Result<Value> {
    match (&b.shape(x)[..], heads) {
        (&[batch, len, width], Some(heads)) if width % heads == 0 => {
            let split = b.reshape(x, &[batch, len, heads, width / heads])?;
            b.transpose(split, &[0, 2, 1, 3])
        }
        ([_, _, _, _], _) => Ok(x),
        _ => invalid!("{} does not divide into {heads:?} heads", b.ty(x)),
    }
}

/// [B, H, L, D] as [B, L, H·D].
pub(super) fn joined(b: &mut Build, x: Value) -> Result<Value> {
    let [batch, heads, len, size] = four(b, x)?;
    let y = b.transpose(x, &[0, 2, 1, 3])?;
    b.reshape(y, &[batch, len, heads * size])
}

fn four(b: &Build, x: Value) -> Result<[usize; 4]> {
    match b.shape(x)[..] {
        [a, c, d, e] => Ok([a, c, d, e]),
        _ => invalid!("{} has not four axes", b.ty(x)),
    }
}

/// Heads shared by groups of queries, repeated for each of them.
pub(super) fn repeat_heads(b: &mut Build, x: Value, wanted: usize) -> Result<Value> {
    let [batch, heads, len, size] = four(b, x)?;
    if heads == wanted {
        return Ok(x);
    }
    if heads == 0 || !wanted.is_multiple_of(heads) {
        return invalid!("{wanted} heads of queries for {heads} heads of keys");
    }
    let x = b.reshape(x, &[batch, heads, 1, len, size])?;
    let x = b.expand(x, &[batch, heads, wanted / heads, len, size])?;
    b.reshape(x, &[batch, wanted, len, size])
}

/// 0 where the condition holds, −∞ elsewhere.
pub(super) fn bias_of(b: &mut Build, allowed: Value, ty: Type) -> Result<Value> {
    let (zero, never) = (b.scalar(ty, 0.0), b.scalar(ty, f64::NEG_INFINITY));
    b.select(allowed, zero, never)
}

fn sum(b: &mut Build, bias: Option<Value>, more: Value) -> Result<Option<Value>> {
    match bias {
        Some(bias) => b.emit(v(bias) + more).map(Some),
        None => Ok(Some(more)),
    }
}

/// A window to the left or right: −1 (or no attribute) is open.
fn reach(n: &Node, name: &str) -> Result<Option<i64>> {
    match n.int(name, -1)? {
        -1 => Ok(None),
        r @ 0.. => Ok(Some(r.min(1 << 40))),
        r => invalid!("attribute `{name}` is {r}"),
    }
}

fn attention(b: &mut Build, n: &Node) -> Outputs {
    let given = [n.input(0)?, n.input(1)?, n.input(2)?];
    let ty = b.elem(given[0]);
    let count_of = |name: &str| n.opt_int(name)?.map(|h| positive(name, h)).transpose();
    let (q_heads, kv_heads) = (count_of("q_num_heads")?, count_of("kv_num_heads")?);
    let flat = b.rank(given[0]) == 3;
    let q = heads(b, given[0], q_heads)?;
    let (mut k, mut val) = (heads(b, given[1], kv_heads)?, heads(b, given[2], kv_heads)?);
    let past = match (n.opt(4), n.opt(5)) {
        (Some(key), Some(value)) => {
            (k, val) = (b.concat(&[key, k], 2)?, b.concat(&[value, val], 2)?);
            four(b, key)?[2]
        }
        (None, None) => 0,
        _ => return invalid!("past keys and past values must come together"),
    };
    let (present_key, present_value) = (k, val);
    let [_, q_heads, len, size] = four(b, q)?;
    let total = four(b, k)?[2];
    (k, val) = (repeat_heads(b, k, q_heads)?, repeat_heads(b, val, q_heads)?);

    let (q, k) = (b.wide(q)?, b.wide(k)?);
    let wide = b.elem(q);
    // Values may have a type of their own.
    let val = b.cast(val, wide)?;
    let scale = n.num("scale", 1.0 / (size.max(1) as f64).sqrt())?;
    let product = b.op(Kind::MatMul, [("trans_b", true.into())], &[q, k])?;
    let raw = b.emit(v(product) * scale)?;
    let softcap = n.num("softcap", 0.0)?;
    let capped = if softcap > 0.0 { b.emit((v(raw) / softcap).tanh() * softcap)? } else { raw };

    // The position of the first query after the first key: past keys, or the number of keys that a cache already holds of each sample.
    let rows = b.iota(len)?;
    let rows = b.reshape(rows, &[len, 1])?;
    let columns = b.iota(total)?;
    let filled = match n.opt(6) {
        Some(filled) => {
            let filled = b.cast(filled, Type::I64)?;
            Some(b.along(filled, 0, 4)?)
        }
        None => None,
    };
    let position = match filled {
        Some(filled) if n.opt(4).is_none() => b.emit(v(rows) + filled - len as f64)?,
        _ => b.emit(v(rows) + past as f64)?,
    };
    let mut bias = None;
    if let Some(mask) = n.opt(3) {
        bias = Some(mask_bias(b, mask, total, wide)?);
    }
    let causal = n.flag("is_causal", false)?;
    if causal {
        let allowed = b.emit(v(columns).le(position))?;
        let more = bias_of(b, allowed, wide)?;
        bias = sum(b, bias, more)?;
    }
    let (left, right) = (reach(n, "left_window_size")?, reach(n, "right_window_size")?);
    if let Some(left) = left {
        let allowed = b.emit((v(position) - left as f64).le(columns))?;
        let more = bias_of(b, allowed, wide)?;
        bias = sum(b, bias, more)?;
    }
    if let Some(right) = right {
        let allowed = b.emit(v(columns).le(v(position) + right as f64))?;
        let more = bias_of(b, allowed, wide)?;
        bias = sum(b, bias, more)?;
    }
    if let Some(filled) = filled {
        let allowed = b.emit(v(columns).lt(filled))?;
        let more = bias_of(b, allowed, wide)?;
        bias = sum(b, bias, more)?;
    }
    let scores = match bias {
        Some(bias) => b.emit(v(capped) + bias)?,
        None => capped,
    };
    let precise = match n.dtype_if_set("softmax_precision")? {
        Some(Type::F64) => b.cast(scores, Type::F64)?,
        // f32 is at least as precise as what is asked for.
        _ => scores,
    };
    let weights = b.on_axis(Kind::Softmax, precise, b.rank(precise) - 1)?;
    let weights = b.cast(weights, wide)?;
    let mut y = b.matmul(weights, val)?;
    // A query that may see no key at all gives 0. Causal masks alone leave it at least one.
    let blind = match bias {
        Some(bias) => blind_rows(b, bias)?,
        None => None,
    };
    if let Some(blind) = blind {
        y = b.emit(v(blind).select(0.0, y))?;
    }
    let y = if flat { joined(b, y)? } else { y };
    let mut outputs = vec![b.cast(y, ty)?, present_key, present_value];
    if n.wants_output(3) {
        let shown = match n.int("qk_matmul_output_mode", 0)? {
            0 => raw,
            1 => capped,
            2 => scores,
            3 => match blind {
                Some(blind) => b.emit(v(blind).select(0.0, weights))?,
                None => weights,
            },
            other => return invalid!("attribute `qk_matmul_output_mode` is {other}"),
        };
        outputs.push(b.cast(shown, ty)?);
    }
    Ok(outputs)
}

/// A mask as numbers to add; keys that it does not reach are masked.
fn mask_bias(b: &mut Build, mask: Value, total: usize, ty: Type) -> Result<Value> {
    let shape = b.shape(mask);
    let Some(&last) = shape.last() else { return invalid!("a mask of rank 0") };
    let mask = if b.elem(mask) == Type::Bool { bias_of(b, mask, ty)? } else { b.cast(mask, ty)? };
    match total.checked_sub(last) {
        None if last == 1 => Ok(mask),
        None => invalid!("a mask {shape:?} for {total} keys"),
        Some(missing) => {
            let mut pads = vec![0; 2 * shape.len()];
            pads[2 * shape.len() - 1] = missing;
            let never = b.scalar(ty, f64::NEG_INFINITY);
            b.pad(mask, &pads, never)
        }
    }
}

/// Which rows of a bias are −∞ everywhere, unless it is known that none is.
pub(super) fn blind_rows(b: &mut Build, bias: Value) -> Result<Option<Value>> {
    let top = b.reduce(Kind::ReduceMax, bias, &[b.rank(bias) - 1], true)?;
    let blind = b.emit(v(top).eq(f64::NEG_INFINITY))?;
    Ok(if b.is_zero(blind) { None } else { Some(blind) })
}

fn rotary_embedding(b: &mut Build, n: &Node) -> Outputs {
    let (x, cos, sin, positions) = (n.input(0)?, n.input(1)?, n.input(2)?, n.opt(3));
    let count_of = n.int("num_heads", 0)?;
    let flat = b.rank(x) == 3;
    let split = if flat { Some(positive("attribute `num_heads`", count_of)?) } else { None };
    let y = rotate(b, x, split, [cos, sin], positions, n.int("rotary_embedding_dim", 0)?, n.flag("interleaved", false)?)?;
    one(if flat { joined(b, y) } else { Ok(y) })
}

/// Rotates pairs of the first `width` (0: all) elements of each head by the angles of its position, [B, H, L, D].
pub(super) fn rotate(
    b: &mut Build,
    x: Value,
    split: Option<usize>,
    tables: [Value; 2],
    positions: Option<Value>,
    width: i64,
    interleaved: bool,
) -> Result<Value> {
    let ty = b.elem(x);
    let x = heads(b, x, split)?;
    let x = b.wide(x)?;
    let [batch, heads, len, size] = four(b, x)?;
    let width = match width {
        0 => size,
        w => positive("attribute `rotary_embedding_dim`", w)?,
    };
    if width > size || width % 2 != 0 {
        return invalid!("{width} rotated elements of {size}");
    }
    let half = width / 2;
    let mut angles = [x; 2];
    for (angle, table) in angles.iter_mut().zip(tables) {
        let table = b.cast(table, b.elem(x))?;
        let at = match positions {
            Some(positions) => {
                let positions = b.cast(positions, Type::I64)?;
                b.gather(table, positions, 0)?
            }
            None => table,
        };
        let shape = b.shape(at);
        if shape.len() != 3 || shape[1..] != [len, half] || (shape[0] != batch && shape[0] != 1) {
            return invalid!("angles of shape {shape:?} for {batch} sequences of {len} with {width} rotated elements");
        }
        *angle = b.unsqueeze(at, &[1])?;
    }
    let [cos, sin] = angles;
    let turned = b.slice_axis(x, 3, 0, width)?;
    let (first, second) = if interleaved {
        let pairs = b.reshape(turned, &[batch, heads, len, half, 2])?;
        let (first, second) = (b.slice_axis(pairs, 4, 0, 1)?, b.slice_axis(pairs, 4, 1, 1)?);
        (b.squeeze(first, &[4])?, b.squeeze(second, &[4])?)
    } else {
        (b.slice_axis(turned, 3, 0, half)?, b.slice_axis(turned, 3, half, half)?)
    };
    let real = b.emit(v(cos) * first - v(sin) * second)?;
    let imaginary = b.emit(v(sin) * first + v(cos) * second)?;
    let turned = if interleaved {
        let (real, imaginary) = (b.unsqueeze(real, &[4])?, b.unsqueeze(imaginary, &[4])?);
        let pairs = b.concat(&[real, imaginary], 4)?;
        b.reshape(pairs, &[batch, heads, len, width])?
    } else {
        b.concat(&[real, imaginary], 3)?
    };
    let y = if width < size {
        let rest = b.slice_axis(x, 3, width, size - width)?;
        b.concat(&[turned, rest], 3)?
    } else {
        turned
    };
    b.cast(y, ty)
}

/// One step of the recurrence after the other, as a loop that carries the state [B, H, K, V].
pub(super) fn linear_attention(b: &mut Build, n: &Node) -> Outputs {
    if n.int("state_window", 0)? != 0 {
        return unsupported!("LinearAttention with a window of states");
    }
    let rule = n.string("update_rule", "gated_delta")?;
    let (gated, delta) = match rule {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        other => return unsupported!("LinearAttention with update_rule={other:?}"),
    };
    let (q, k, val) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let ty = b.elem(q);
    let q_heads = positive("attribute `q_num_heads`", n.req_int("q_num_heads")?)?;
    let kv_heads = positive("attribute `kv_num_heads`", n.req_int("kv_num_heads")?)?;
    let (shape, values) = (b.shape(q), b.shape(val));
    let fits = shape.len() == 3 && values.len() == 3 && q_heads % kv_heads == 0 && shape[2] % q_heads == 0 && values[2] % kv_heads == 0;
    if !fits {
        return invalid!("{} and {} in {q_heads} and {kv_heads} heads", b.ty(q), b.ty(val));
    }
    let (batch, steps, size, width) = (shape[0], shape[1], shape[2] / q_heads, values[2] / kv_heads);
    // Time comes first, so that a step is a slice: [T, B, H, …].
    let by_step = |b: &mut Build, x: Value, parts: &[usize]| -> Result<Value> {
        let x = b.wide(x)?;
        let split = b.reshape(x, &[&[batch, steps], parts].concat())?;
        let perm: Vec<usize> = [1, 0].into_iter().chain(2..2 + parts.len()).collect();
        b.transpose(split, &perm)
    };
    let mut captures = vec![
        by_step(b, q, &[kv_heads, q_heads / kv_heads, size])?,
        by_step(b, k, &[kv_heads, size, 1])?,
        by_step(b, val, &[kv_heads, 1, width])?,
    ];
    if gated {
        let decay = n.input(4)?;
        let each = count(&b.shape(decay))? / (batch * steps * kv_heads).max(1);
        captures.push(by_step(b, decay, &[kv_heads, each, 1])?);
    }
    if delta {
        let beta = n.input(5)?;
        let each = count(&b.shape(beta))? / (batch * steps).max(1);
        captures.push(by_step(b, beta, &[each, 1, 1])?);
    }
    let state = match n.opt(3) {
        Some(state) => b.wide(state)?,
        None => b.full(&[batch, kv_heads, size, width], b.elem(captures[0]), 0.0)?,
    };
    if b.shape(state) != [batch, kv_heads, size, width] {
        return invalid!("a state {} where [{batch}, {kv_heads}, {size}, {width}] is expected", b.ty(state));
    }
    let state_ty = n.opt(3).map_or(ty, |s| b.elem(s));
    let scale = match n.num("scale", 0.0)? {
        0.0 => 1.0 / (size.max(1) as f64).sqrt(),
        scale => scale,
    };

    let mut body = b.body();
    let step = body.input("step", dnnc_ir::TensorType::new(Type::I64, []));
    body.input("cond", dnnc_ir::TensorType::new(Type::Bool, []));
    let mut s = body.input("state", b.ty(state));
    let mut now = Vec::new();
    for &x in &captures {
        let all = body.input("", b.ty(x));
        now.push(body.gather(all, step, 0)?);
    }
    let mut rest = now[3..].iter();
    let (q, k, mut val) = (now[0], now[1], now[2]);
    if let Some(&decay) = rest.next().filter(|_| gated) {
        s = body.emit(v(s) * v(decay).exp())?;
    }
    if let Some(&beta) = now.last().filter(|_| delta) {
        let known = body.op(Kind::MatMul, [("trans_a", true.into())], &[k, s])?;
        val = body.emit((v(val) - known) * beta)?;
    }
    s = body.emit(v(s) + v(k) * val)?;
    let read = body.matmul(q, s)?;
    let read = body.emit(v(read) * scale)?;
    let go = body.constant(Tensor::with_type(dnnc_ir::TensorType::new(Type::Bool, []), &[1u8]));
    let graph = body.finish(&[("cond".into(), go), ("state".into(), s), ("read".into(), read)]);

    let (trip, go) = (b.i64(steps as i64), b.constant(Tensor::with_type(dnnc_ir::TensorType::new(Type::Bool, []), &[1u8])));
    let inputs: Vec<Value> = [trip, go, state].into_iter().chain(captures).collect();
    let attrs = [("body", graph.into()), ("carried", Attr::Int(1)), ("max_trip", Attr::Int(steps as i64))];
    let last = b.op(Kind::Loop, attrs, &inputs)?;
    // [T, B, H, G, V] → [B, T, H·G·V]
    let reads = b.transpose(last.result(1), &[1, 0, 2, 3, 4])?;
    let y = b.reshape(reads, &[batch, steps, q_heads * width])?;
    Ok(vec![b.cast(y, ty)?, b.cast(last, state_ty)?])
}
