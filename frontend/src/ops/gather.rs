//! Gather and scatter.

use super::expr::v;
use super::helpers::{Outputs, count, one, size};
use super::reduce::how_many;
use super::row::{OpImport, onnx};
use crate::build::{Build, Node, Result, axis, invalid};
use dnnc_ir::{Attr, Kind, Type, Value};

pub(super) const OPS: &[OpImport] = &[
    onnx("Gather", gather),
    onnx("GatherElements", gather_elements),
    onnx("GatherND", gather_nd),
    OpImport { until: Some(10), ..onnx("Scatter", scatter_elements) },
    onnx("ScatterElements", scatter_elements),
    onnx("ScatterND", scatter_nd),
    onnx("TensorScatter", tensor_scatter),
    onnx("OneHot", one_hot),
    onnx("ReverseSequence", reverse_sequence),
    onnx("NonZero", non_zero),
    onnx("Compress", compress),
    onnx("Unique", unique),
];

fn gather(b: &mut Build, n: &Node) -> Outputs {
    let (x, idx) = (n.input(0)?, n.input(1)?);
    let axis = n.axis("axis", 0, b.rank(x))?;
    let idx = b.cast(idx, Type::I64)?;
    one(b.gather(x, idx, axis))
}

fn gather_elements(b: &mut Build, n: &Node) -> Outputs {
    let (x, idx) = (n.input(0)?, n.input(1)?);
    let axis = n.axis("axis", 0, b.rank(x))?;
    let idx = b.cast(idx, Type::I64)?;
    one(b.op(Kind::GatherElements, [("axis", Attr::Int(axis as i64))], &[x, idx]))
}

pub(super) fn gather_nd(b: &mut Build, n: &Node) -> Outputs {
    let (x, idx) = (n.input(0)?, n.input(1)?);
    let batch = size(n.int("batch_dims", 0)?)?;
    let idx = b.cast(idx, Type::I64)?;
    one(b.op(Kind::GatherNd, [("batch_dims", Attr::Int(batch as i64))], &[x, idx]))
}

fn reduction(n: &Node) -> Result<Attr> {
    Ok(Attr::Word(match n.string("reduction", "none")? {
        "none" => "none",
        "add" => "add",
        "mul" => "mul",
        "max" => "max",
        "min" => "min",
        other => return invalid!("attribute `reduction` is {other:?}"),
    }))
}

fn scatter_elements(b: &mut Build, n: &Node) -> Outputs {
    let (x, idx, updates) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let axis = n.axis("axis", 0, b.rank(x))?;
    let idx = b.cast(idx, Type::I64)?;
    one(b.op(Kind::ScatterElements, [("axis", Attr::Int(axis as i64)), ("reduction", reduction(n)?)], &[x, idx, updates]))
}

fn scatter_nd(b: &mut Build, n: &Node) -> Outputs {
    let (x, idx, updates) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let idx = b.cast(idx, Type::I64)?;
    one(b.op(Kind::ScatterNd, [("reduction", reduction(n)?)], &[x, idx, updates]))
}

/// Writes the update along one axis, from a position of its own in every sample.
fn tensor_scatter(b: &mut Build, n: &Node) -> Outputs {
    let (cache, update) = (n.input(0)?, n.input(1)?);
    let (shape, wanted) = (b.shape(cache), b.shape(update));
    let axis = n.axis("axis", -2, shape.len())?;
    if axis == 0 || wanted.len() != shape.len() {
        return invalid!("{} written into {} along axis {axis}", b.ty(update), b.ty(cache));
    }
    let steps = b.iota(wanted[axis])?;
    let mut at = b.along(steps, axis, shape.len())?;
    if let Some(start) = n.opt(2) {
        let start = b.cast(start, Type::I64)?;
        let start = b.along(start, 0, shape.len())?;
        at = b.emit(v(at) + start)?;
    }
    match n.string("mode", "linear")? {
        // Positions before the start do not count from the end.
        "linear" => at = b.emit(v(at).lt(0.0).select(shape[axis] as f64, at))?,
        "circular" => at = b.emit(v(at).modulo(shape[axis] as f64))?,
        other => return invalid!("attribute `mode` is {other:?}"),
    }
    let at = b.expand(at, &wanted)?;
    one(b.op(Kind::ScatterElements, [("axis", Attr::Int(axis as i64))], &[cache, at, update]))
}

fn one_hot(b: &mut Build, n: &Node) -> Outputs {
    let (idx, depth, values) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let depth = b.scalar_of(depth)?;
    let depth = b.cast(depth, Type::I64)?;
    let depth = size(b.need_i64(depth)?)?;
    let rank = b.rank(idx) + 1;
    let axis = n.axis("axis", -1, rank)?;
    if b.shape(values) != [2] {
        return invalid!("OneHot with values {}", b.ty(values));
    }
    let idx = b.index(idx, depth)?;
    let idx = b.unsqueeze(idx, &[axis])?;
    let positions = b.iota(depth)?;
    let positions = b.along(positions, axis, rank)?;
    let hot = b.emit(v(idx).eq(positions))?;
    let (off, on) = (b.slice_axis(values, 0, 0, 1)?, b.slice_axis(values, 0, 1, 1)?);
    let (off, on) = (b.scalar_of(off)?, b.scalar_of(on)?);
    one(b.select(hot, on, off))
}

/// Place t of a sequence of n comes from n − 1 − t, later positions stay.
fn reverse_sequence(b: &mut Build, n: &Node) -> Outputs {
    let (x, lens) = (n.input(0)?, n.input(1)?);
    let shape = b.shape(x);
    let (batch, time) = (n.axis("batch_axis", 1, shape.len())?, n.axis("time_axis", 0, shape.len())?);
    if batch == time || b.shape(lens) != [shape[batch]] {
        return invalid!("{} sequences along axis {time}, axis {batch} for {}", b.ty(lens), b.ty(x));
    }
    let positions = b.iota(shape[time])?;
    let (positions, lens) = (b.along(positions, time, shape.len())?, b.cast(lens, Type::I64)?);
    let lens = b.along(lens, batch, shape.len())?;
    let from = b.emit(v(positions).lt(lens).select(v(lens) - 1.0 - positions, positions))?;
    let from = b.expand(from, &shape)?;
    one(b.op(Kind::GatherElements, [("axis", Attr::Int(time as i64))], &[x, from]))
}

fn non_zero(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let held = b.cast(x, Type::Bool)?;
    let found = how_many(b, held)?;
    let found = b.need_i64(found)?;
    // A scalar has no axes, and its result no rows.
    one(b.op(Kind::NonZero, [("count", Attr::Int(found))], &[x]))
}

fn compress(b: &mut Build, n: &Node) -> Outputs {
    let (mut x, mut condition) = (n.input(0)?, n.input(1)?);
    let axis = match n.opt_int("axis")? {
        Some(a) => axis(a, b.rank(x))?,
        None => {
            x = b.reshape(x, &[count(&b.shape(x))?])?;
            0
        }
    };
    let size = b.shape(x)[axis];
    if b.rank(condition) == 1 && b.shape(condition)[0] > size {
        condition = b.slice_axis(condition, 0, 0, size)?;
    }
    let found = how_many(b, condition)?;
    let found = b.need_i64(found)?;
    one(b.op(Kind::Compress, [("axis", Attr::Int(axis as i64)), ("count", Attr::Int(found))], &[x, condition]))
}

fn unique(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let along = n.opt_int("axis")?.map(|a| axis(a, b.rank(x))).transpose()?;
    unique_of(b, x, along, n.flag("sorted", true)?)
}

/// Distinct slices along an axis (elements, without one): themselves, the first index of each, the slice at each position, their counts.
pub(super) fn unique_of(b: &mut Build, x: Value, along: Option<usize>, sorted: bool) -> Outputs {
    let x = if along.is_none() { b.reshape(x, &[count(&b.shape(x))?])? } else { x };
    let at = along.map_or(-1, |a| a as i64);
    let all = b.op(Kind::Unique, [("axis", Attr::Int(at)), ("sorted", sorted.into()), ("count", Attr::Int(-1))], &[x])?;
    let found = size(b.need_i64(all.result(4))?)?;
    Ok(vec![
        b.slice_axis(all, along.unwrap_or(0), 0, found)?,
        b.slice_axis(all.result(1), 0, 0, found)?,
        all.result(2),
        b.slice_axis(all.result(3), 0, 0, found)?,
    ])
}
