//! Pooling, and the arithmetic of windows that slide over axes.

use super::check::{self, Types, ensure};
use super::not_yet;
use crate::op::{Arity, AttrKind, Attrs, Class, Kind, OpDef};
use crate::types::{TensorType, Type};

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    OpDef {
        kind: Kind::MaxPool,
        doc: "Largest of each window of x [N, C, S…]; padding is −∞ (the lowest integer). `block` = b: x and result are packed [N, C/b, S…, b].",
        inputs: Arity::Exactly(1),
        attrs: &[
            ("kernel", AttrKind::Ints),
            ("strides", AttrKind::Ints),
            ("pads", AttrKind::Ints),
            ("dilations", AttrKind::Ints),
            ("block", AttrKind::Int(0)),
        ],
        class: Class::Compute,
        infer: |attrs, x| {
            check::number("the input", &x[0])?;
            pool(attrs, &x[0], x[0].ty, check::size(attrs, "block", 0)?, false)
        },
        eval: not_yet,
        work: window_work,
    },
    OpDef {
        kind: Kind::ArgMaxPool,
        doc: "Where max_pool finds its maxima (the first of equals): indices (i64) into all of x [N, C, S…], counted row-major, or with the \
              spatial axes `column_major`.",
        inputs: Arity::Exactly(1),
        attrs: &[
            ("kernel", AttrKind::Ints),
            ("strides", AttrKind::Ints),
            ("pads", AttrKind::Ints),
            ("dilations", AttrKind::Ints),
            ("column_major", AttrKind::Int(0)),
        ],
        class: Class::Compute,
        infer: |attrs, x| {
            check::number("the input", &x[0])?;
            pool(attrs, &x[0], Type::I64, 0, false)
        },
        eval: not_yet,
        work: window_work,
    },
    OpDef {
        kind: Kind::AvgPool,
        doc: "Mean of each window of x [N, C, S…], over the elements of x only, or over `pads` too if `include_pad`. `extra`: more padding at \
              the end of each axis that is never counted; a window of nothing gives 0. `block` as max_pool.",
        inputs: Arity::Exactly(1),
        attrs: &[
            ("kernel", AttrKind::Ints),
            ("strides", AttrKind::Ints),
            ("pads", AttrKind::Ints),
            ("dilations", AttrKind::Ints),
            ("include_pad", AttrKind::Int(0)),
            ("extra", AttrKind::Ints),
            ("block", AttrKind::Int(0)),
        ],
        class: Class::Compute,
        infer: |attrs, x| {
            check::real("the input", &x[0])?;
            pool(attrs, &x[0], x[0].ty, check::size(attrs, "block", 0)?, true)
        },
        eval: not_yet,
        work: window_work,
    },
];

fn window_work(attrs: &Attrs, _: &[TensorType], y: &[TensorType]) -> u64 {
    attrs.ints("kernel").iter().fold(y[0].len() as u64, |n, &k| n.saturating_mul(k as u64))
}

/// The spatial sizes of x [N, C, S…], or of x [N, C/block, S…, block] when `block` is not 0.
pub fn spatial(x: &TensorType, block: usize) -> Result<&[usize], String> {
    let packed = usize::from(block > 0);
    check::rank_at_least("the input", x, 3 + packed)?;
    let end = x.rank() - packed;
    ensure(block == 0 || x.shape[end] == block, || format!("the last axis of {x} is not the block of {block}"))?;
    Ok(&x.shape[2..end])
}

/// How many positions a window takes along each axis; `strides`, `pads` and `dilations` are attributes, `extra` more padding at the ends.
pub fn positions(attrs: &Attrs, sizes: &[usize], kernel: &[i64], extra: Option<&[i64]>) -> Result<Vec<usize>, String> {
    let axes = sizes.len();
    let strides = check::small_sizes(attrs, "strides", axes, 1)?;
    let pads = check::small_sizes(attrs, "pads", 2 * axes, 0)?;
    let dilations = check::small_sizes(attrs, "dilations", axes, 1)?;
    let mut counts = Vec::with_capacity(axes);
    for i in 0..axes {
        let window = i128::from(kernel[i] - 1) * i128::from(dilations[i]) + 1;
        let size = check::small_size("an axis", sizes[i])? + pads[i] + pads[axes + i] + extra.map_or(0, |e| e[i]);
        let room = i128::from(size) - window;
        ensure(room >= 0, || format!("a window of {window} does not fit the {size} elements of spatial axis {i} with its padding"))?;
        counts.push((room / i128::from(strides[i])) as usize + 1);
    }
    Ok(counts)
}

fn pool(attrs: &Attrs, x: &TensorType, ty: Type, block: usize, has_extra: bool) -> Types {
    let sizes = spatial(x, block)?;
    let kernel = check::small_sizes(attrs, "kernel", sizes.len(), 1)?;
    let extra = if has_extra { Some(check::small_sizes(attrs, "extra", sizes.len(), 0)?) } else { None };
    let counts = positions(attrs, sizes, kernel, extra)?;
    let mut shape = x.shape.clone();
    shape[2..2 + counts.len()].copy_from_slice(&counts);
    check::one(ty, shape)
}
