//! Sampling of images at computed coordinates, regions of interest, and non-maximum suppression.

use super::conv::spatial;
use super::expr::{num, v};
use super::helpers::{Outputs, count, one, positive, size, sizes};
use super::row::{OpImport, onnx};
use crate::build::{Build, Node, Result, invalid};
use dnnc_ir::{Attr, Kind, Type, Value};

pub(super) const OPS: &[OpImport] = &[
    onnx("GridSample", grid_sample),
    onnx("AffineGrid", affine_grid),
    onnx("RoiAlign", roi_align),
    onnx("MaxRoiPool", max_roi_pool),
    onnx("NonMaxSuppression", non_max_suppression),
];

pub(super) fn grid_sample(b: &mut Build, n: &Node) -> Outputs {
    let (x, grid) = (n.input(0)?, n.input(1)?);
    let mode = match n.string("mode", "linear")? {
        "linear" | "bilinear" => "linear",
        "cubic" | "bicubic" => "cubic",
        "nearest" => "nearest",
        other => return invalid!("attribute `mode` is {other:?}"),
    };
    let padding = match n.string("padding_mode", "zeros")? {
        "zeros" => "zeros",
        "border" => "border",
        "reflection" => "reflection",
        other => return invalid!("attribute `padding_mode` is {other:?}"),
    };
    let attrs = [("mode", mode.into()), ("padding", padding.into()), ("align_corners", n.flag("align_corners", false)?.into())];
    let ty = b.elem(x);
    let wide = if ty.is_float() { b.wide(x)? } else { b.float(x)? };
    let grid = b.wide(grid)?;
    let size = spatial(b, x)?;
    let line = size.len() == 1;
    let grid = if mode == "cubic" && padding == "border" { within_image(b, grid, &size, n.flag("align_corners", false)?)? } else { grid };
    if !line {
        let y = b.op(Kind::GridSample, attrs, &[wide, grid])?;
        return one(b.cast(y, ty));
    }
    // One axis is an image of one row, whose middle is at 0.
    let (image, shape) = (b.unsqueeze(wide, &[2])?, b.shape(grid));
    let [batch, out, 1] = shape[..] else { return invalid!("a grid {} for {}", b.ty(grid), b.ty(x)) };
    let zero = b.scalar(b.elem(grid), 0.0);
    let grid = b.pad(grid, &[0, 0, 0, 0, 0, 1], zero)?;
    let grid = b.reshape(grid, &[batch, 1, out, 2])?;
    let y = b.op(Kind::GridSample, attrs, &[image, grid])?;
    let y = b.squeeze(y, &[2])?;
    one(b.cast(y, ty))
}

/// Places outside the image moved onto the middle of its last element, before a cubic looks at their neighbours.
fn within_image(b: &mut Build, grid: Value, size: &[usize], align: bool) -> Result<Value> {
    let last = b.rank(grid) - 1;
    // The last axis of the image comes first.
    let ends = size.iter().rev().map(|&n| if align { 1.0 } else { 1.0 - 1.0 / n.max(1) as f64 }).collect::<Vec<f64>>();
    let mut parts = Vec::new();
    for (i, end) in ends.into_iter().enumerate() {
        let part = b.slice_axis(grid, last, i, 1)?;
        let outside = num(1.0).lt(v(part).abs());
        parts.push(b.emit(outside.select(v(part).clamp(-end, end), part))?);
    }
    b.concat(&parts, last)
}

/// The coordinates of an even grid from −1 to 1, multiplied with the matrices theta.
fn affine_grid(b: &mut Build, n: &Node) -> Outputs {
    let (theta, wanted) = (n.input(0)?, sizes(&b.need_i64s(n.input(1)?)?)?);
    let align = n.flag("align_corners", false)?;
    let axes = wanted.len().saturating_sub(2);
    let fits = (2..=3).contains(&axes) && b.shape(theta) == [wanted[0], axes, axes + 1];
    if !fits {
        return invalid!("matrices {} for a grid of {wanted:?}", b.ty(theta));
    }
    let out = &wanted[2..];
    let points = count(out)?;
    b.check_size(&dnnc_ir::TensorType::new(Type::F64, [points, axes + 1]))?;
    let coordinate = |i: usize, d: usize| match align {
        true => -1.0 + 2.0 * i as f64 / d.saturating_sub(1).max(1) as f64,
        false => (2 * i + 1) as f64 / d as f64 - 1.0,
    };
    let mut table = Vec::with_capacity(points * (axes + 1));
    for p in 0..points {
        // x comes first, then y, z, and a one.
        let at = |a: usize| coordinate(p / out[a + 1..].iter().product::<usize>() % out[a], out[a]);
        table.extend((0..axes).rev().map(at));
        table.push(1.0);
    }
    let wide = b.wide(theta)?;
    let table = b.table(b.elem(wide), &[points, axes + 1], &table)?;
    let y = b.op(Kind::MatMul, [("trans_b", true.into())], &[table, wide])?;
    let y = b.cast(y, b.elem(theta))?;
    let shape = [&wanted[..1], out, &[axes]].concat();
    one(b.reshape(y, &shape))
}

fn roi_align(b: &mut Build, n: &Node) -> Outputs {
    let (x, rois, batch) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let mode = match n.string("mode", "avg")? {
        "avg" => "avg",
        "max" => "max",
        other => return invalid!("attribute `mode` is {other:?}"),
    };
    let default = if n.opset < 16 { "output_half_pixel" } else { "half_pixel" };
    let half_pixel = match n.string("coordinate_transformation_mode", default)? {
        "half_pixel" => true,
        "output_half_pixel" => false,
        other => return invalid!("attribute `coordinate_transformation_mode` is {other:?}"),
    };
    let out = |name: &str| positive(name, n.int(name, 1)?).map(|s| Attr::Int(s as i64));
    let attrs = [
        ("mode", mode.into()),
        ("out_h", out("output_height")?),
        ("out_w", out("output_width")?),
        ("ratio", Attr::Int(size(n.int("sampling_ratio", 0)?)? as i64)),
        ("scale", n.num("spatial_scale", 1.0)?.into()),
        ("half_pixel", half_pixel.into()),
    ];
    let (wide, batch) = (b.wide(x)?, b.cast(batch, Type::I64)?);
    let rois = b.cast(rois, b.elem(wide))?;
    let y = b.op(Kind::RoiAlign, attrs, &[wide, rois, batch])?;
    one(b.cast(y, b.elem(x)))
}

/// The largest element of each bin of each region, rows first, then columns: elements outside a bin count as −∞, none at all as 0.
fn max_roi_pool(b: &mut Build, n: &Node) -> Outputs {
    let (x, rois) = (n.input(0)?, n.input(1)?);
    let scale = n.num("spatial_scale", 1.0)?;
    let out = n.req_ints("pooled_shape")?.iter().map(|&s| positive("a pooled size", s)).collect::<Result<Vec<usize>>>()?;
    let (shape, regions) = (b.shape(x), b.shape(rois));
    let ([_, channels, ..], [regions, 5], [_, _]) = (&shape[..], &regions[..], &out[..]) else {
        return invalid!("{} pooled in regions {}", b.ty(x), b.ty(rois));
    };
    let (channels, regions, size) = (*channels, *regions, spatial(b, x)?);
    if size.len() != 2 {
        return invalid!("{} is no image", b.ty(x));
    }
    let wide = b.wide(x)?;
    let ty = b.elem(wide);
    let rois = b.cast(rois, ty)?;
    let batch = b.slice_axis(rois, 1, 0, 1)?;
    let batch = b.reshape(batch, &[regions])?;
    let batch = b.cast(batch, Type::I64)?;
    // [R, C, H, W]
    let mut y = b.gather(wide, batch, 0)?;
    for (axis, &bins) in out.iter().enumerate() {
        // Columns of a region: batch, x1, y1, x2, y2.
        let edge = |b: &mut Build, column: usize| -> Result<Value> {
            let edge = b.slice_axis(rois, 1, column, 1)?;
            let edge = b.reshape(edge, &[regions, 1, 1])?;
            b.emit((v(edge) * scale + 0.5).floor())
        };
        let (start, end) = (edge(b, 2 - axis)?, edge(b, 4 - axis)?);
        let (bin, coordinate) = (b.iota(bins)?, b.iota(size[axis])?);
        let (bin, coordinate) = (b.cast(bin, ty)?, b.cast(coordinate, ty)?);
        let (bin, coordinate) = (b.reshape(bin, &[1, bins, 1])?, b.reshape(coordinate, &[1, 1, size[axis]])?);
        let step = b.emit((v(end) - start + 1.0).max(1.0) / bins as f64)?;
        let from = b.emit((v(bin) * step).floor() + start)?;
        let to = b.emit(((v(bin) + 1.0) * step).ceil() + start)?;
        // [R, bins, size]
        let within = b.emit(v(from).le(coordinate).and(v(coordinate).lt(to)))?;
        let (mask, spread, reduced) = match axis {
            0 => ([regions, 1, bins, size[0], 1], [regions, channels, 1, size[0], size[1]], 3),
            _ => ([regions, 1, 1, bins, size[1]], [regions, channels, out[0], 1, size[1]], 4),
        };
        let (within, spread) = (b.reshape(within, &mask)?, b.reshape(y, &spread)?);
        let masked = b.emit(v(within).select(spread, f64::NEG_INFINITY))?;
        y = b.reduce(Kind::ReduceMax, masked, &[reduced], false)?;
    }
    let y = b.emit(v(y).eq(f64::NEG_INFINITY).select(0.0, y))?;
    one(b.cast(y, b.elem(x)))
}

fn non_max_suppression(b: &mut Build, n: &Node) -> Outputs {
    let (boxes, scores) = (n.input(0)?, n.input(1)?);
    let center = match n.int("center_point_box", 0)? {
        0 => false,
        1 => true,
        other => return invalid!("attribute `center_point_box` is {other}"),
    };
    let most = match n.opt(2) {
        Some(most) => {
            let most = b.scalar_of(most)?;
            b.cast(most, Type::I64)?
        }
        None => b.i64(0),
    };
    let mut threshold = |i: usize, default: f64| match n.opt(i) {
        Some(t) => {
            let t = b.scalar_of(t)?;
            b.cast(t, Type::F32)
        }
        None => Ok(b.scalar(Type::F32, default)),
    };
    let (iou, score) = (threshold(3, 0.0)?, threshold(4, f64::NEG_INFINITY)?);
    let attrs = [("center", center.into()), ("count", Attr::Int(-1))];
    let all = b.op(Kind::NonMaxSuppression, attrs, &[boxes, scores, most, iou, score])?;
    let found = size(b.need_i64(all.result(1))?)?;
    one(b.slice_axis(all, 0, 0, found))
}
