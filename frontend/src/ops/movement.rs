//! Data movement: shapes, slices, padding, tables of constants.

use super::expr::v;
use super::helpers::{Outputs, count, one, positive, size, sizes};
use super::row::{OpImport, onnx};
use crate::build::{Build, Node, Result, axes, axis, integers, invalid};
use dnnc_ir::{Attr, Kind, Tensor, Type, Value, broadcast};

pub(super) const OPS: &[OpImport] = &[
    onnx("Reshape", reshape),
    onnx("Flatten", flatten),
    onnx("Squeeze", squeeze),
    onnx("Unsqueeze", unsqueeze),
    onnx("Transpose", transpose),
    onnx("Expand", expand),
    onnx("Tile", tile),
    onnx("Concat", concat),
    onnx("Split", split),
    onnx("Slice", slice),
    onnx("Pad", pad),
    onnx("CenterCropPad", center_crop_pad),
    onnx("DepthToSpace", depth_to_space),
    onnx("SpaceToDepth", space_to_depth),
    onnx("Shape", shape),
    onnx("Size", |b, n| Ok(vec![b.i64(count(&b.shape(n.input(0)?))? as i64)])),
    onnx("ConstantOfShape", constant_of_shape),
    onnx("EyeLike", eye_like),
    onnx("Range", range),
    onnx("Trilu", trilu),
];

fn reshape(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let wanted = if n.opset < 5 { n.req_ints("shape")? } else { b.need_list(n.input(1)?)? };
    let shape = b.shape(x);
    let zero_copies = !n.flag("allowzero", false)?;
    let mut target = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (i, &d) in wanted.iter().enumerate() {
        target.push(match d {
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            0 if zero_copies => match shape.get(i) {
                Some(&same) => same,
                None => return invalid!("size {i} of {wanted:?} copies an axis that {} does not have", b.ty(x)),
            },
            d => size(d)?,
        });
    }
    if let Some(open) = open {
        let (all, known) = (count(&shape)?, count(&target)?);
        if known == 0 || all % known != 0 {
            return invalid!("{} does not reshape to {wanted:?}", b.ty(x));
        }
        target[open] = all / known;
    }
    one(b.reshape(x, &target))
}

fn flatten(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let shape = b.shape(x);
    let at = match n.int("axis", 1)? {
        a if a == shape.len() as i64 => shape.len(),
        a => axis(a, shape.len())?,
    };
    one(b.reshape(x, &[count(&shape[..at])?, count(&shape[at..])?]))
}

fn squeeze(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let shape = b.shape(x);
    let gone = match n.ints_or_input(b, "axes", 1)? {
        Some(list) => axes(&list, shape.len())?,
        None => (0..shape.len()).filter(|&a| shape[a] == 1).collect(),
    };
    one(b.squeeze(x, &gone))
}

fn unsqueeze(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let Some(list) = n.ints_or_input(b, "axes", 1)? else { return invalid!("the axes are missing") };
    let new = axes(&list, b.rank(x) + list.len())?;
    one(b.unsqueeze(x, &new))
}

fn transpose(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let rank = b.rank(x);
    let perm = match n.ints("perm")? {
        Some(list) if list.iter().any(|&a| a < 0) => return invalid!("attribute `perm` is {list:?}"),
        Some(list) => list.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<usize>>>()?,
        None => (0..rank).rev().collect(),
    };
    one(b.transpose(x, &perm))
}

fn expand(b: &mut Build, n: &Node) -> Outputs {
    let (x, wanted) = (n.input(0)?, n.input(1)?);
    let wanted = sizes(&b.need_list(wanted)?)?;
    match broadcast(&b.shape(x), &wanted) {
        Some(target) => one(b.expand(x, &target)),
        None => invalid!("{} does not broadcast with {wanted:?}", b.ty(x)),
    }
}

/// Repeats along every axis: [d] as [1, d], expanded to [r, d], joined.
fn tile(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let shape = b.shape(x);
    let repeats = if n.opset < 6 {
        let (times, at) = (b.need_i64(n.input(1)?)?, axis(b.need_i64(n.input(2)?)?, shape.len())?);
        (0..shape.len()).map(|a| if a == at { times } else { 1 }).collect()
    } else {
        b.need_list(n.input(1)?)?
    };
    let repeats = sizes(&repeats)?;
    if repeats.len() != shape.len() {
        return invalid!("{} repeats for {}", repeats.len(), b.ty(x));
    }
    let (mut single, mut many, mut joined) = (vec![], vec![], vec![]);
    for (&d, &r) in shape.iter().zip(&repeats) {
        if r != 1 {
            single.push(1);
            many.push(r);
        }
        single.push(d);
        many.push(d);
        joined.push(count(&[d, r])?);
    }
    count(&joined)?;
    let y = b.reshape(x, &single)?;
    let y = b.expand(y, &many)?;
    one(b.reshape(y, &joined))
}

fn concat(b: &mut Build, n: &Node) -> Outputs {
    let xs = n.all_inputs()?;
    let Some(&first) = xs.first() else { return invalid!("there is no input") };
    let default = if n.opset < 4 { 1 } else { n.req_int("axis")? };
    let at = n.axis("axis", default, b.rank(first))?;
    one(b.concat(&xs, at))
}

fn split(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let at = n.axis("axis", 0, b.rank(x))?;
    let all = b.shape(x)[at];
    let parts = match n.ints_or_input(b, "split", 1)? {
        Some(list) => sizes(&list)?,
        None => {
            let parts = positive("the number of parts", n.int("num_outputs", n.n_outputs() as i64)?)?;
            if parts > n.n_outputs() || (n.opset < 18 && !all.is_multiple_of(parts)) {
                return invalid!("{all} elements do not split into {parts} equal parts");
            }
            // The last ones are smaller, perhaps empty, where it does not divide.
            let part = all.div_ceil(parts);
            (0..parts).map(|i| part.min(all - all.min(i * part))).collect()
        }
    };
    if parts.len() != n.n_outputs() || parts.iter().try_fold(0usize, |sum, &p| sum.checked_add(p)) != Some(all) {
        return invalid!("axis {at} of {} does not split into {parts:?}", b.ty(x));
    }
    let mut start = 0;
    parts
        .iter()
        .map(|&part| {
            start += part;
            b.slice_axis(x, at, start - part, part)
        })
        .collect()
}

fn slice(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let shape = b.shape(x);
    let (starts, ends, list, steps) = if n.opset < 10 {
        (n.req_ints("starts")?, n.req_ints("ends")?, n.ints("axes")?, None)
    } else {
        let (starts, ends) = (b.need_i64s(n.input(1)?)?, b.need_i64s(n.input(2)?)?);
        let list = n.opt(3).map(|a| b.need_i64s(a)).transpose()?;
        (starts, ends, list, n.opt(4).map(|a| b.need_i64s(a)).transpose()?)
    };
    let list = list.unwrap_or((0..starts.len() as i64).collect());
    let steps = steps.unwrap_or(vec![1; starts.len()]);
    if [ends.len(), list.len(), steps.len()] != [starts.len(); 3] {
        return invalid!("{} starts, {} ends, {} axes and {} steps", starts.len(), ends.len(), list.len(), steps.len());
    }
    axes(&list, shape.len())?;
    let (mut from, mut to, mut by) = (vec![0; shape.len()], shape.clone(), vec![1; shape.len()]);
    for (i, &a) in list.iter().enumerate() {
        let a = axis(a, shape.len())?;
        let d = shape[a] as i64;
        let clamped = |p: i64, lo: i64, hi: i64| if p < 0 { p.saturating_add(d) } else { p }.clamp(lo, hi.max(lo));
        let step = steps[i];
        let len = match step {
            0 => return invalid!("a step of 0"),
            1.. => {
                from[a] = clamped(starts[i], 0, d);
                (clamped(ends[i], 0, d) - from[a]).max(0).unsigned_abs().div_ceil(step.unsigned_abs())
            }
            _ => {
                from[a] = clamped(starts[i], 0, d - 1);
                (from[a].min(d - 1) - clamped(ends[i], -1, d - 1)).max(0).unsigned_abs().div_ceil(step.unsigned_abs())
            }
        };
        to[a] = len as usize;
        // One element or none needs no step, which may be too large to count with.
        by[a] = if len > 1 { step } else { 1 };
        from[a] = if len > 0 { from[a] } else { 0 };
    }
    one(b.slice(x, &from, &to, &by))
}

pub(super) fn pad(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let rank = b.rank(x);
    let given = match n.opset {
        ..2 if n.has("paddings") => n.req_ints("paddings")?,
        ..11 if n.has("pads") => n.req_ints("pads")?,
        _ => b.need_i64s(n.input(1)?)?,
    };
    let value = match n.opt(2) {
        Some(value) => {
            let value = b.scalar_of(value)?;
            b.cast(value, b.elem(x))?
        }
        _ => b.scalar(b.elem(x), n.num("value", 0.0)?),
    };
    let over = match n.opt(3) {
        Some(list) => b.need_i64s(list)?.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<usize>>>()?,
        None => (0..rank).collect(),
    };
    if given.len() != 2 * over.len() {
        return invalid!("{} pads for {} axes", given.len(), over.len());
    }
    let (mut begins, mut ends) = (vec![0; rank], vec![0; rank]);
    for (i, &a) in over.iter().enumerate() {
        (begins[a], ends[a]) = (given[i], given[over.len() + i]);
    }
    let mode = match n.string("mode", "constant")? {
        "constant" => "constant",
        "reflect" => "reflect",
        "edge" => "edge",
        "wrap" => "wrap",
        other => return invalid!("attribute `mode` is {other:?}"),
    };
    one(padded(b, x, &begins, &ends, mode, value))
}

/// `x` with so many elements more (or, where negative, fewer) at both ends of each axis.
fn padded(b: &mut Build, x: Value, begins: &[i64], ends: &[i64], mode: &'static str, value: Value) -> Result<Value> {
    let shape = b.shape(x);
    let rank = shape.len();
    let (mut starts, mut kept, mut pads) = (vec![0; rank], shape.clone(), vec![0; 2 * rank]);
    for a in 0..rank {
        let cut = |p: i64| size(p.checked_neg().unwrap_or(i64::MAX).max(0));
        let (head, tail) = (cut(begins[a])?, cut(ends[a])?);
        let Some(rest) = shape[a].checked_sub(head + tail) else { return invalid!("pads {begins:?}, {ends:?} for {shape:?}") };
        (starts[a], kept[a]) = (head as i64, rest);
        (pads[a], pads[rank + a]) = (size(begins[a].max(0))?, size(ends[a].max(0))?);
    }
    let x = b.slice(x, &starts, &kept, &vec![1; rank])?;
    if pads.iter().all(|&p| p == 0) {
        return Ok(x);
    }
    b.op(Kind::Pad, [("pads", pads.as_slice().into()), ("mode", mode.into())], &[x, value])
}

fn center_crop_pad(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let shape = b.shape(x);
    let wanted = b.need_i64s(n.input(1)?)?;
    let over = match n.ints("axes")? {
        Some(list) => list.iter().map(|&a| axis(a, shape.len())).collect::<Result<Vec<usize>>>()?,
        None => (0..shape.len()).collect(),
    };
    if wanted.len() != over.len() {
        return invalid!("{} sizes for {} axes", wanted.len(), over.len());
    }
    let (mut begins, mut ends) = (vec![0; shape.len()], vec![0; shape.len()]);
    for (&a, &wanted) in over.iter().zip(&wanted) {
        let more = size(wanted)? as i64 - shape[a] as i64;
        // An odd one goes to the end, be it added or cut.
        begins[a] = more / 2;
        ends[a] = more - begins[a];
    }
    let zero = b.scalar(b.elem(x), 0.0);
    one(padded(b, x, &begins, &ends, "constant", zero))
}

fn depth_to_space(b: &mut Build, n: &Node) -> Outputs {
    let (x, s) = (n.input(0)?, positive("attribute `blocksize`", n.req_int("blocksize")?)?);
    let [batch, c, h, w] = image(b, x)?;
    let square = count(&[s, s])?;
    if c % square != 0 {
        return invalid!("{c} channels in blocks of {s}×{s}");
    }
    let (split, perm) = match n.string("mode", "DCR")? {
        "DCR" => ([batch, s, s, c / square, h, w], [0, 3, 4, 1, 5, 2]),
        "CRD" => ([batch, c / square, s, s, h, w], [0, 1, 4, 2, 5, 3]),
        other => return invalid!("attribute `mode` is {other:?}"),
    };
    let y = b.reshape(x, &split)?;
    let y = b.transpose(y, &perm)?;
    one(b.reshape(y, &[batch, c / square, h * s, w * s]))
}

fn space_to_depth(b: &mut Build, n: &Node) -> Outputs {
    let (x, s) = (n.input(0)?, positive("attribute `blocksize`", n.req_int("blocksize")?)?);
    let [batch, c, h, w] = image(b, x)?;
    if h % s != 0 || w % s != 0 {
        return invalid!("an image {h}×{w} in blocks of {s}×{s}");
    }
    let perm = match n.string("mode", "DCR")? {
        "DCR" => [0, 3, 5, 1, 2, 4],
        "CRD" => [0, 1, 3, 5, 2, 4],
        other => return invalid!("attribute `mode` is {other:?}"),
    };
    let y = b.reshape(x, &[batch, c, h / s, s, w / s, s])?;
    let y = b.transpose(y, &perm)?;
    one(b.reshape(y, &[batch, count(&[c, s, s])?, h / s, w / s]))
}

fn image(b: &Build, x: Value) -> Result<[usize; 4]> {
    match b.shape(x)[..] {
        [n, c, h, w] => Ok([n, c, h, w]),
        _ => invalid!("{} is not [N, C, H, W]", b.ty(x)),
    }
}

fn shape(b: &mut Build, n: &Node) -> Outputs {
    let shape: Vec<i64> = b.shape(n.input(0)?).iter().map(|&d| d as i64).collect();
    let rank = shape.len() as i64;
    let clamped = |p: i64| if p < 0 { p.saturating_add(rank) } else { p }.clamp(0, rank) as usize;
    let (start, end) = (clamped(n.int("start", 0)?), clamped(n.int("end", rank)?));
    Ok(vec![b.i64s(shape.get(start..end).unwrap_or_default())])
}

fn constant_of_shape(b: &mut Build, n: &Node) -> Outputs {
    let value = match n.tensor("value")? {
        Some(t) if t.len() != 1 => return invalid!("attribute `value` has {} elements", t.len()),
        Some(t) => b.constant(t),
        None => b.scalar(Type::F32, 0.0),
    };
    let value = b.scalar_of(value)?;
    let shape = sizes(&b.need_list(n.input(0)?)?)?;
    one(b.expand(value, &shape))
}

fn eye_like(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let (ty, k) = (n.dtype_if_set("dtype")?.unwrap_or(b.elem(x)), n.int("k", 0)?);
    let [rows, cols] = b.shape(x)[..] else { return invalid!("{} is no matrix", b.ty(x)) };
    let (row, col) = (b.iota(rows)?, b.iota(cols)?);
    let row = b.reshape(row, &[rows, 1])?;
    // Diagonals beyond the corners are all equal.
    let k = b.i64(k.clamp(-(rows as i64), cols as i64));
    one(b.emit((v(row) + k).eq(col).cast(ty)))
}

pub(super) fn range(b: &mut Build, n: &Node) -> Outputs {
    let (start, limit) = (n.input(0)?, n.input(1)?);
    let delta = n.opt(2).unwrap_or_else(|| b.scalar(b.elem(start), 1.0));
    let [start, limit, delta] = [start, limit, delta].map(|x| b.scalar_of(x));
    let (start, limit, delta) = (b.need(start?)?, b.need(limit?)?, b.need(delta?)?);
    let ty = start.ty().ty;
    if let (Some(s), Some(l), Some(d)) = (integers(&start), integers(&limit), integers(&delta)) {
        let (s, l, d) = (i128::from(s[0]), i128::from(l[0]), i128::from(d[0]));
        let steps = if d == 0 { return invalid!("a range with steps of 0") } else { ((l - s) * d.signum() + d.abs() - 1).max(0) / d.abs() };
        let len = size(i64::try_from(steps).unwrap_or(i64::MAX))?;
        b.check_size(&dnnc_ir::TensorType::new(Type::I64, [len]))?;
        let list: Vec<i64> = (0..len as i128).map(|i| (s + i * d) as i64).collect();
        let list = b.constant(Tensor::new([len], &list));
        return one(b.cast(list, ty));
    }
    let one_of = |t: &Tensor| t.to_f64s().first().copied();
    let (Some(s), Some(l), Some(d)) = (one_of(&start), one_of(&limit), one_of(&delta)) else { return invalid!("a range of {ty}") };
    let steps = ((l - s) / d).ceil();
    if d == 0.0 || !steps.is_finite() {
        return invalid!("a range from {s} to {l} in steps of {d}");
    }
    let len = size(steps.max(0.0) as i64)?;
    b.check_size(&dnnc_ir::TensorType::new(Type::F64, [len]))?;
    let list: Vec<f64> = (0..len).map(|i| s + i as f64 * d).collect();
    one(b.table(ty, &[len], &list))
}

pub(super) fn trilu(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let shape = b.shape(x);
    let [.., rows, cols] = shape[..] else { return invalid!("{} holds no matrices", b.ty(x)) };
    let (row, col) = (b.iota(rows)?, b.iota(cols)?);
    let row = b.reshape(row, &[rows, 1])?;
    let k = match n.opt(1) {
        Some(k) => b.scalar_of(k)?,
        None => b.i64(0),
    };
    // Far beyond the corners is as good as just beyond: no overflow.
    let k = b.op(Kind::Clamp, [("lo", (-(rows as f64)).into()), ("hi", (cols as f64).into())], &[k])?;
    let far = b.emit(v(col) - row)?;
    let kept = if n.flag("upper", true)? { b.emit(v(k).le(far))? } else { b.emit(v(far).le(k))? };
    let zero = b.scalar(b.elem(x), 0.0);
    one(b.op(Kind::Select, Vec::<(&'static str, Attr)>::new(), &[kept, x, zero]))
}
