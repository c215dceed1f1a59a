//! Resampling: values between the elements.

use super::check::{self, Types, ensure};
use super::data::{self, Lanes, Results};
use super::work::product;
use crate::graph::{Attrs, OpDef};
use crate::kind::{Arity, AttrKind, Class, Kind};
use crate::tensor::Tensor;
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
        eval: eval_resample,
        work: |_, x, y| product(&[y[0].len(), x[1].shape[1]]),
    },
    OpDef {
        kind: Kind::GridSample,
        doc: "x [N, C, S…] (2 or 3 spatial axes) sampled at the coordinates grid [N, O…, 2 or 3] → [N, C, O…]; coordinates go from −1 to 1, the last axis \
              first (x, y, z), as of ONNX GridSample.",
        inputs: Arity::Exactly(2),
        attrs: &[
            ("mode", AttrKind::Word(&["linear", "nearest", "cubic"])),
            ("padding", AttrKind::Word(&["zeros", "border", "reflection"])),
            ("align_corners", AttrKind::Int(0)),
        ],
        class: Class::Compute,
        infer: grid_sample,
        eval: eval_grid_sample,
        work: |attrs, x, y| {
            let taps: usize = if attrs.word("mode") == "cubic" { 4 } else { 2 };
            product(&[y[0].len(), taps.pow(x[0].rank() as u32 - 2)])
        },
    },
    OpDef {
        kind: Kind::RoiAlign,
        doc: "Mean of bilinear samples (or the largest weighted corner of one) of x [N, C, H, W] in each of `out_h`×`out_w` bins of the boxes rois [R, 4] (x1, y1, x2, y2, \
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
        eval: eval_roi_align,
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
    ensure(ratio <= 1 << 10, || format!("a `ratio` of {ratio} is too large"))?;
    ensure(attrs.float("scale").is_finite(), || "the scale is not finite".into())?;
    check::one(x.ty, [rois.shape[0], x.shape[1], h, w])
}

fn eval_resample(attrs: &Attrs, x: &[Tensor]) -> Results {
    let axis = attrs.size("axis");
    let lanes = Lanes::new(x[0].shape(), axis);
    let [outputs, taps] = [x[1].shape()[0], x[1].shape()[1]];
    let (values, weights) = (x[0].to_f64s(), x[2].to_f64s());
    let indices = data::i64s(&x[1]);
    if let Some(i) = indices.iter().find(|&&i| usize::try_from(i).map_or(true, |i| i >= lanes.size)) {
        return Err(format!("index {i} is out of range for {} elements", lanes.size));
    }
    let mut shape = x[0].shape().to_vec();
    shape[axis] = outputs;
    let mut out = vec![0.0; shape.iter().product()];
    for o in 0..lanes.outer {
        for r in 0..outputs {
            let row = &mut out[(o * outputs + r) * lanes.inner..][..lanes.inner];
            for (&i, weight) in indices[r * taps..(r + 1) * taps].iter().zip(&weights[r * taps..]) {
                let from = &values[(o * lanes.size + i as usize) * lanes.inner..];
                row.iter_mut().zip(from).for_each(|(y, v)| *y += weight * v);
            }
        }
    }
    Ok(vec![data::from_reals(&TensorType::new(x[0].ty().ty, shape), &out)])
}

/// How GridSample reads one axis.
struct Sampler<'a> {
    mode: &'a str,
    padding: &'a str,
    align_corners: bool,
    /// Coordinates are computed in f64; otherwise in f32, as every implementation does: whether one is half way decides `nearest`.
    double: bool,
}

impl Sampler<'_> {
    /// The elements of an axis of `size` that make up the value at a coordinate (−1 … 1), each with its weight; those outside are left out.
    fn taps(&self, coordinate: f64, size: usize) -> Vec<(usize, f64)> {
        let n = size as f64;
        let [low, high] = if self.align_corners { [0.0, n - 1.0] } else { [-0.5, n - 0.5] };
        let mut at = if self.double {
            if self.align_corners { (coordinate + 1.0) / 2.0 * (n - 1.0) } else { ((coordinate + 1.0) * n - 1.0) / 2.0 }
        } else {
            let (coordinate, n) = (coordinate as f32, n as f32);
            f64::from(if self.align_corners { (coordinate + 1.0) / 2.0 * (n - 1.0) } else { ((coordinate + 1.0) * n - 1.0) / 2.0 })
        };
        if self.mode == "nearest" {
            at = at.round_ties_even();
        }
        if at < low || at > high {
            match self.padding {
                "border" => at = at.clamp(0.0, n - 1.0),
                "reflection" => at = reflect(at, low, high),
                _ => {}
            }
        }
        // Far enough outside for every tap, near enough for integers.
        let base = at.floor().clamp(-1e15, 1e15);
        let t = at - base;
        let (first, weights) = match self.mode {
            "nearest" => (base, vec![1.0]),
            "linear" => (base, vec![1.0 - t, t]),
            _ => (base - 1.0, vec![outer(t + 1.0), inner(t), inner(1.0 - t), outer(2.0 - t)]),
        };
        let element = |i: f64| match self.padding {
            "border" => Some(i.clamp(0.0, n - 1.0) as usize),
            "reflection" => Some(reflect(i, low, high).clamp(0.0, n - 1.0) as usize),
            _ => (i >= 0.0 && i < n).then_some(i as usize),
        };
        weights.into_iter().enumerate().filter_map(|(i, w)| Some((element(first + i as f64)?, w))).collect()
    }
}

/// `x` mirrored at the two ends until it is between them.
fn reflect(x: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    let beyond = if x < low { low - x } else { x - high };
    if range <= 0.0 {
        return low;
    }
    if beyond <= 0.0 {
        return x;
    }
    let turns = (beyond / range).trunc();
    let rest = beyond - turns * range;
    if (turns % 2.0 == 0.0) == (x < low) { low + rest } else { high - rest }
}

/// Keys' cubic with a = −3/4, for distances up to 1.
fn inner(x: f64) -> f64 {
    (1.25 * x - 2.25) * x * x + 1.0
}

/// Keys' cubic with a = −3/4, for distances from 1 to 2.
fn outer(x: f64) -> f64 {
    ((-0.75 * x + 3.75) * x - 6.0) * x + 3.0
}

fn eval_grid_sample(attrs: &Attrs, x: &[Tensor]) -> Results {
    let ty = grid_sample(attrs, &[x[0].ty().clone(), x[1].ty().clone()])?.remove(0);
    let (values, grid) = (x[0].to_f64s(), x[1].to_f64s());
    let sampler = Sampler {
        mode: attrs.word("mode"),
        padding: attrs.word("padding"),
        align_corners: attrs.flag("align_corners"),
        double: x[1].ty().ty == Type::F64,
    };
    let sizes = &x[0].shape()[2..];
    let axes = sizes.len();
    let strides = data::strides(sizes);
    let plane: usize = sizes.iter().product();
    let [channels, coordinates] = [x[0].shape()[1], ty.shape[2..].iter().product()];
    let mut out = vec![0.0; ty.len()];
    for image in 0..x[0].shape()[0] {
        for coordinate in 0..coordinates {
            // The weighted elements of a plane: each axis multiplies them. The grid names the last axis first.
            let mut taps = vec![(0, 1.0)];
            for axis in 0..axes {
                let along = sampler.taps(grid[(image * coordinates + coordinate) * axes + axes - 1 - axis], sizes[axis]);
                let step = strides[axis] as usize;
                taps = taps.iter().flat_map(|&(at, w)| along.iter().map(move |&(i, v)| (at + i * step, w * v))).collect();
            }
            for c in 0..channels {
                let plane = &values[(image * channels + c) * plane..][..plane];
                out[(image * channels + c) * coordinates + coordinate] = taps.iter().map(|&(at, w)| w * plane[at]).sum();
            }
        }
    }
    Ok(vec![data::from_reals(&ty, &out)])
}

/// Samples a bin and axis when a box asks for more than any image has.
const MOST_SAMPLES: f64 = 65536.0;

/// The neighbours of a coordinate on an axis of `size` and their weights; none more than one element outside.
fn neighbours(v: f64, size: usize) -> Option<[(usize, f64); 2]> {
    if !(-1.0..=size as f64).contains(&v) {
        return None;
    }
    let v = v.max(0.0);
    let low = v as usize;
    let t = v - low as f64;
    Some(if low >= size - 1 { [(size - 1, 1.0), (size - 1, 0.0)] } else { [(low, 1.0 - t), (low + 1, t)] })
}

fn eval_roi_align(attrs: &Attrs, x: &[Tensor]) -> Results {
    let [images, channels, height, width] = [0, 1, 2, 3].map(|i| x[0].shape()[i]);
    let (values, boxes) = (x[0].to_f64s(), x[1].to_f64s());
    let [out_h, out_w, ratio] = ["out_h", "out_w", "ratio"].map(|name| attrs.size(name));
    let [max, half_pixel] = [attrs.word("mode") == "max", attrs.flag("half_pixel")];
    let mut out = Vec::with_capacity(x[1].shape()[0] * channels * out_h * out_w);
    for (corner, &image) in boxes.chunks(4).zip(data::i64s(&x[2])) {
        let image = usize::try_from(image).ok().filter(|&i| i < images).ok_or_else(|| format!("there is no image {image} of {images}"))?;
        let offset = if half_pixel { 0.5 } else { 0.0 };
        let [x0, y0, x1, y1] = [0, 1, 2, 3].map(|i| corner[i] * attrs.float("scale") - offset);
        // Without half pixels a box is at least one pixel large.
        let least = if half_pixel { f64::NEG_INFINITY } else { 1.0 };
        let [bin_h, bin_w] = [(y1 - y0).max(least) / out_h as f64, (x1 - x0).max(least) / out_w as f64];
        let samples = |bin: f64| if ratio > 0 { ratio as f64 } else { bin.ceil().max(0.0) };
        let [rows, columns] = [samples(bin_h), samples(bin_w)];
        if rows.max(columns) > MOST_SAMPLES {
            return Err(format!("a box needs {} samples", rows.max(columns)));
        }
        let [rows, columns] = [rows as usize, columns as usize];
        for c in 0..channels {
            let plane = &values[(image * channels + c) * height * width..][..height * width];
            for (ph, pw) in (0..out_h).flat_map(|ph| (0..out_w).map(move |pw| (ph, pw))) {
                // Samples outside of the image count as 0.
                let coordinates = |start: f64, cell: usize, bin: f64, count: usize, size: usize| -> Vec<[(usize, f64); 2]> {
                    let coordinate = |i: usize| start + cell as f64 * bin + (i as f64 + 0.5) * bin / count as f64;
                    (0..count).filter_map(|i| neighbours(coordinate(i), size)).collect()
                };
                let [ys, xs] = [coordinates(y0, ph, bin_h, rows, height), coordinates(x0, pw, bin_w, columns, width)];
                let (mut sum, mut most) = (0.0, if ys.len() * xs.len() < rows * columns { 0.0 } else { f64::NEG_INFINITY });
                for (y, x) in ys.iter().flat_map(|y| xs.iter().map(move |x| (y, x))) {
                    for ((row, wy), (column, wx)) in y.iter().flat_map(|y| x.iter().map(move |x| (y, x))) {
                        let corner = wy * wx * plane[row * width + column];
                        sum += corner;
                        most = most.max(corner);
                    }
                }
                let count = rows * columns;
                out.push(match (count, max) {
                    (0, _) => 0.0,
                    (_, true) => most,
                    _ => sum / count as f64,
                });
            }
        }
    }
    Ok(vec![data::from_reals(&TensorType::new(x[0].ty().ty, [x[1].shape()[0], channels, out_h, out_w]), &out)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;
    use crate::graph::Op;

    fn run(kind: Kind, attrs: &[(&'static str, Attr)], x: &[Tensor]) -> Vec<f32> {
        let op = Op::new(kind, attrs.to_vec()).expect("attributes");
        crate::eval::eval_op(&op, x).expect("an answer")[0].values::<f32>().to_vec()
    }

    fn close(a: &[f32], b: &[f32]) {
        assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} is not {b:?}");
    }

    #[test]
    fn weighted_sums_along_an_axis() {
        let x = Tensor::new([2, 3], &[1f32, 2.0, 3.0, 10.0, 20.0, 30.0]);
        let idx = Tensor::new([2, 2], &[0i64, 1, 2, 2]);
        let w = Tensor::new([2, 2], &[0.25f32, 0.75, 1.0, 0.0]);
        assert_eq!(run(Kind::Resample, &[("axis", Attr::Int(1))], &[x.clone(), idx.clone(), w.clone()]), [1.75, 3.0, 17.5, 30.0]);
        let op = Op::new(Kind::Resample, []).expect("attributes");
        assert_eq!(crate::eval::eval_op(&op, &[x, idx, w]).unwrap_err(), "index 2 is out of range for 2 elements");
    }

    #[test]
    fn grids_as_in_onnx() {
        // ONNX GridSample, the examples of padding modes and of test_gridsample_bicubic.
        let x = Tensor::new([1, 1, 3, 2], &[0f32, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let far = [-10.0, -10.0, -5.0, -5.0, -0.2, -0.2, 10.0, 10.0, 10.0, 10.0, -0.2, -0.2, 5.0, 5.0, 10.0, 10.0f32];
        let grid = Tensor::new([1, 2, 4, 2], &far);
        let padded = |padding: &'static str| run(Kind::GridSample, &[("padding", padding.into())], &[x.clone(), grid.clone()]);
        close(&padded("zeros"), &[0.0, 0.0, 1.7, 0.0, 0.0, 1.7, 0.0, 0.0]);
        close(&padded("border"), &[0.0, 0.0, 1.7, 5.0, 5.0, 1.7, 5.0, 5.0]);
        close(&padded("reflection"), &[2.5, 0.0, 1.7, 2.5, 2.5, 1.7, 5.0, 2.5]);
        let near = [-1.0, -1.0, -0.5, -0.5, -0.2, -0.2, 0.0, 0.0, 0.0, 0.0, -0.2, -0.2, 0.5, 0.5, 1.0, 1.0f32];
        let grid = Tensor::new([1, 2, 4, 2], &near);
        let mode = |mode: &'static str| run(Kind::GridSample, &[("mode", mode.into())], &[x.clone(), grid.clone()]);
        close(&mode("cubic"), &[-0.1406, 0.3828, 1.7556, 2.9688, 2.9688, 1.7556, 5.1445, 1.3906]);
        close(&mode("nearest"), &[0.0, 0.0, 2.0, 2.0, 2.0, 2.0, 5.0, 0.0]);
    }

    #[test]
    fn no_place_is_too_far() {
        for padding in ["zeros", "border", "reflection"] {
            for mode in ["linear", "nearest", "cubic"] {
                let grid = Tensor::new([1, 1, 2, 2], &[f32::NAN, f32::INFINITY, -1e38f32, f32::NEG_INFINITY]);
                let attrs = [("mode", mode.into()), ("padding", padding.into()), ("align_corners", Attr::Int(1))];
                let y = run(Kind::GridSample, &attrs, &[Tensor::new([1, 1, 1, 2], &[1f32, 2.0]), grid]);
                assert_eq!(y.len(), 2);
            }
        }
    }

    #[test]
    fn boxes_are_aligned() {
        let x = Tensor::new([1, 1, 4, 4], &(0..16).map(|v| v as f32).collect::<Vec<_>>());
        let align = |corners: [f32; 4], more: &[(&'static str, Attr)]| {
            let attrs = [&[("out_h", Attr::Int(1)), ("out_w", Attr::Int(2)), ("ratio", Attr::Int(2))], more].concat();
            run(Kind::RoiAlign, &attrs, &[x.clone(), Tensor::new([1, 4], &corners), Tensor::new([1], &[0i64])])
        };
        // A plane whose value is 4y + x: the mean of samples is the value at their centre.
        close(&align([0.5, 0.5, 2.5, 2.5], &[]), &[4.5, 5.5]);
        close(&align([0.5, 0.5, 2.5, 2.5], &[("half_pixel", Attr::Int(0))]), &[7.0, 8.0]);
        close(&align([0.0, 0.0, 4.0, 4.0], &[("scale", 0.5.into()), ("half_pixel", Attr::Int(0))]), &[4.5, 5.5]);
        let op = Op::new(Kind::RoiAlign, []).expect("attributes");
        let error = crate::eval::eval_op(&op, &[x, Tensor::new([1, 4], &[0f32; 4]), Tensor::new([1], &[1i64])]).unwrap_err();
        assert_eq!(error, "there is no image 1 of 1");
    }
}
