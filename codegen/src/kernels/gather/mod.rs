//! Elements read and written at places that are data, and values between elements. Indices out of range end the kernel.

mod access;
mod dynamic;
mod elements;
mod resample;
mod sample;

use self::access::{checked, move_row};
use super::lib::view::View;
use super::map;
use crate::estimate;
use crate::expr::Expr;
use crate::kernels::lib::nest::{self, Axis};
use crate::unit::{Arg, Family, Lowered, LoweredCall, Unit};
use dnnc_ir::{Kind, TensorType};
use dnnc_kir::{Builder, Ty, Val};

/// The family.
pub const FAMILY: Family = Family {
    name: "gather",
    kinds: &[
        Kind::Gather,
        Kind::GatherElements,
        Kind::GatherNd,
        Kind::ScatterElements,
        Kind::ScatterNd,
        Kind::Resample,
        Kind::GridSample,
        Kind::RoiAlign,
        Kind::NonZero,
        Kind::Compress,
        Kind::Unique,
        Kind::NonMaxSuppression,
    ],
    lower,
    forecast: |unit| estimate::rows(unit, 2.0),
    epilogue: |_, _| None,
};

fn lower(unit: &Unit) -> Result<Lowered, String> {
    if unit.results.iter().all(TensorType::is_empty) {
        return Ok(Lowered::default());
    }
    let calls = match unit.op.kind() {
        Kind::Gather => vec![gather(unit)],
        Kind::GatherElements => vec![elements::gather_elements(unit)],
        Kind::GatherNd => vec![elements::gather_nd(unit)],
        Kind::ScatterElements => scatter(unit, elements::scatter_elements),
        Kind::ScatterNd => scatter(unit, elements::scatter_nd),
        Kind::Resample => vec![resample::lower(unit)],
        Kind::GridSample => vec![sample::grid_sample(unit)],
        Kind::RoiAlign => vec![sample::roi_align(unit)],
        Kind::NonZero => vec![dynamic::non_zero(unit)],
        Kind::Compress => vec![dynamic::compress(unit)],
        Kind::Unique => return Ok(dynamic::unique(unit)),
        _ => return Ok(dynamic::non_max_suppression(unit)),
    };
    Ok(Lowered { calls, ..Lowered::default() })
}

/// A copy of the first operand, which then is written to.
fn scatter(unit: &Unit, update: fn(&Unit) -> LoweredCall) -> Vec<LoweredCall> {
    let ty = map::moved_as(unit.results[0].ty);
    let shape = &unit.results[0].shape;
    let source = map::Source::new(Arg::Input(0), ty, View::dense(shape));
    let expr: Expr = map::identity(ty);
    let copy = map::call(&expr, &[source], shape, &View::dense(shape), unit.target, unit.options);
    let updates = (!unit.inputs[2].ty.is_empty()).then(|| update(unit));
    copy.into_iter().chain(updates).collect()
}

/// Rows of x, one for each index, in each slice before the axis.
fn gather(unit: &Unit) -> LoweredCall {
    let (x, idx) = (&unit.inputs[0].ty, &unit.inputs[1].ty);
    let axis = unit.op.attrs.size("axis");
    let before: usize = x.shape[..axis].iter().product();
    let row: usize = x.shape[axis + 1..].iter().product();
    let (size, width) = (x.shape[axis], x.ty.bytes());
    let bytes = (row * width) as i64;
    // Pointers: x, idx, result.
    let slices = Axis { size: before, strides: vec![size as i64 * bytes, 0, idx.len() as i64 * bytes] };
    let indices = Axis { size: idx.len(), strides: vec![0, 8, bytes] };
    let (parts, tasks) = nest::cut(&[before, idx.len()], nest::tasks(unit.results[0].len(), 1, unit.options.threads));
    let mut b = Builder::new("gather", 3);
    let pointers: Vec<Val> = (0..3).map(|i| b.param(i)).collect();
    nest::nest(&mut b, &[(&slices, parts[0]), (&indices, parts[1])], &pointers, &mut |b, p| {
        let index = b.load(Ty::I64, p[1], 0);
        let index = checked(b, index, size);
        let from = b.element(p[0], index, bytes as usize);
        move_row(b, unit, from, p[2], row);
    });
    LoweredCall { func: b.finish(), args: vec![Arg::Input(0), Arg::Input(1), Arg::Output(0)], tasks }
}

#[cfg(test)]
mod tests;
