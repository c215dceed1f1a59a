//! Resampling: values between the elements.

use super::check::{self, Types, ensure};
use super::{not_yet, product};
use crate::op::{Arity, AttrKind, Attrs, Class, Kind, OpDef};
use crate::types::{TensorType, Type};

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    OpDef {
        kind: Kind::Resample,
        doc: "Weighted sums along `axis`: y[.., o, ..] = Σₜ w[o, t] · x[.., idx[o, t], ..] for idx (i64) [O, T], w [O, T]. An index out of range \
              is an error, also a negative one.",
        inputs: Arity::Exactly(3),
        attrs: &[("axis", AttrKind::Int(0))],
        class: Class::Compute,
        infer: resample,
        eval: not_yet,
        work: |_, x, y| product(&[y[0].len(), x[1].shape[1]]),
    },
    OpDef {
        kind: Kind::GridSample,
        doc: "x [N, C, S…] (2 or 3 spatial axes) read at the places grid [N, O…, 2 or 3] → [N, C, O…]; places go from −1 to 1, the last axis \
              first (x, y, z), as of ONNX GridSample.",
        inputs: Arity::Exactly(2),
        attrs: &[
            ("mode", AttrKind::Word(&["linear", "nearest", "cubic"])),
            ("padding", AttrKind::Word(&["zeros", "border", "reflection"])),
            ("align_corners", AttrKind::Int(0)),
        ],
        class: Class::Compute,
        infer: grid_sample,
        eval: not_yet,
        work: |attrs, x, y| {
            let taps: usize = if attrs.word("mode") == "cubic" { 4 } else { 2 };
            product(&[y[0].len(), taps.pow(x[0].rank() as u32 - 2)])
        },
    },
    OpDef {
        kind: Kind::RoiAlign,
        doc: "Mean (or largest) of bilinear samples of x [N, C, H, W] in each of `out_h`×`out_w` bins of the boxes rois [R, 4] (x1, y1, x2, y2, \
              times `scale`) of image batch (i64) [R] → [R, C, out_h, out_w]. `ratio` samples a bin and axis; 0: by the size of the box.",
        inputs: Arity::Exactly(3),
        attrs: &[
            ("mode", AttrKind::Word(&["avg", "max"])),
            ("out_h", AttrKind::Int(1)),
            ("out_w", AttrKind::Int(1)),
            ("ratio", AttrKind::Int(0)),
            ("scale", AttrKind::Float(1.0)),
            ("half_pixel", AttrKind::Int(1)),
        ],
        class: Class::Compute,
        infer: roi_align,
        eval: not_yet,
        work: |attrs, _, y| {
            let ratio = attrs.size("ratio").max(2);
            product(&[y[0].len(), ratio, ratio, 4])
        },
    },
];

fn resample(attrs: &Attrs, x: &[TensorType]) -> Types {
    let [x, idx, w] = [&x[0], &x[1], &x[2]];
    check::real("the input", x)?;
    check::real("the weights", w)?;
    check::is_type("the indices", idx, Type::I64)?;
    check::rank("the indices", idx, 2)?;
    ensure(idx.shape == w.shape, || format!("the shapes of the indices {idx} and the weights {w} differ"))?;
    let axis = check::axis(attrs, x.rank())?;
    let mut shape = x.shape.clone();
    shape[axis] = idx.shape[0];
    check::one(x.ty, shape)
}

fn grid_sample(_: &Attrs, x: &[TensorType]) -> Types {
    let [x, grid] = [&x[0], &x[1]];
    check::real("the input", x)?;
    check::real("the grid", grid)?;
    let axes = x.rank().wrapping_sub(2);
    ensure(axes == 2 || axes == 3, || format!("the input is {x}, but must have 2 or 3 spatial axes"))?;
    let fits = grid.rank() == x.rank() && grid.shape[0] == x.shape[0] && grid.shape[axes + 1] == axes;
    ensure(fits, || format!("the grid {grid} does not fit {x}"))?;
    ensure(x.shape[2..].iter().all(|&s| s > 0), || format!("a spatial axis of {x} is empty"))?;
    check::one(x.ty, [&x.shape[..2], &grid.shape[1..=axes]].concat())
}

fn roi_align(attrs: &Attrs, x: &[TensorType]) -> Types {
    let [x, rois, batch] = [&x[0], &x[1], &x[2]];
    check::real("the input", x)?;
    check::rank("the input", x, 4)?;
    ensure(x.shape[2] > 0 && x.shape[3] > 0, || format!("the images of {x} are empty"))?;
    check::rank("the boxes", rois, 2)?;
    check::is_exactly("the boxes", rois, x.ty, &[rois.shape[0], 4])?;
    check::is_exactly("the images of the boxes", batch, Type::I64, &[rois.shape[0]])?;
    let [h, w] = [check::size(attrs, "out_h", 1)?, check::size(attrs, "out_w", 1)?];
    let ratio = check::size(attrs, "ratio", 0)?;
    ensure(ratio <= 1 << 16, || format!("a `ratio` of {ratio} is too large"))?;
    ensure(attrs.float("scale").is_finite(), || "the scale is not finite".into())?;
    check::one(x.ty, [rois.shape[0], x.shape[1], h, w])
}
