//! Fourier transforms and the tables around them.

use super::expr::v;
use super::helpers::{Outputs, count, inverse, moved_last, one, positive, size};
use super::row::{OpImport, onnx};
use crate::build::{Build, Node, Result, axis, invalid};
use dnnc_ir::{Tensor, TensorType, Type, Value};
use std::f64::consts::PI;

pub(super) const OPS: &[OpImport] = &[
    onnx("DFT", dft),
    onnx("STFT", stft),
    onnx("HannWindow", |b, n| window(b, n, &[0.5, -0.5])),
    onnx("HammingWindow", |b, n| window(b, n, &[25.0 / 46.0, -21.0 / 46.0])),
    onnx("BlackmanWindow", |b, n| window(b, n, &[0.42, -0.5, 0.08])),
    onnx("MelWeightMatrix", mel_weight_matrix),
];

/// Σ cᵢ cos(2πi·n/N): the sum of cosines that the coefficients stand for.
fn window(b: &mut Build, n: &Node, coefficients: &[f64]) -> Outputs {
    let len = size(b.need_i64(n.input(0)?)?)?;
    let ty = n.dtype_if_set("output_datatype")?.unwrap_or(Type::F32);
    b.check_size(&TensorType::new(Type::F64, [len]))?;
    let period = if n.flag("periodic", true)? { len } else { len.saturating_sub(1) }.max(1) as f64;
    // The constant comes last: 1 in the middle of a window is exact then, which matters where it is cast to an integer.
    let cosine = |k: usize, i: usize| coefficients[k] * (2.0 * PI * k as f64 * i as f64 / period).cos();
    let at = |i: usize| (1..coefficients.len()).map(|k| cosine(k, i)).sum::<f64>() + coefficients[0];
    one(b.table(ty, &[len], &(0..len).map(at).collect::<Vec<f64>>()))
}

fn dft(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let rank = b.rank(x);
    let at = if n.opset < 20 {
        n.int("axis", 1)?
    } else {
        match n.opt(2) {
            Some(axis) => b.need_i64(axis)?,
            None => -2,
        }
    };
    let at = axis(at, rank)?;
    if at + 1 == rank {
        return invalid!("axis {at} of {} holds the parts of the numbers", b.ty(x));
    }
    let length = n.opt(1).map(|len| b.need_i64(len)).transpose()?.map(|len| positive("the length of a DFT", len)).transpose()?;
    one(transform(b, x, at, length, n.flag("inverse", false)?, n.flag("onesided", false)?))
}

/// The transform along `at` of complex numbers in the last axis (of one part or two): a product with a table of cosines and sines.
///
/// Everything is f64 inside: sums that cancel would lose their digits in f32.
fn transform(b: &mut Build, x: Value, at: usize, length: Option<usize>, inverse_too: bool, onesided: bool) -> Result<Value> {
    let (ty, shape) = (b.elem(x), b.shape(x));
    let (rank, given, parts) = (shape.len(), shape[at], shape[shape.len() - 1]);
    if !(1..=2).contains(&parts) {
        return invalid!("{} holds numbers of {parts} parts", b.ty(x));
    }
    let half = inverse_too && onesided;
    let len = length.unwrap_or(if half { 2 * given.saturating_sub(1) } else { given });
    let len = positive("the length of a DFT", len as i64)?;
    // What goes in and comes out; half a spectrum stands for a real signal.
    let used = if half { (len / 2 + 1).min(given) } else { len.min(given) };
    let (bins, out_parts) = match (inverse_too, onesided) {
        (true, true) => (len, 1),
        (false, true) => (len / 2 + 1, 2),
        _ => (len, 2),
    };
    b.check_size(&TensorType::new(Type::F64, [used, parts, bins, out_parts]))?;
    let mut table = vec![0.0; used * parts * bins * out_parts];
    let norm = if inverse_too { 1.0 / len as f64 } else { 1.0 };
    for i in 0..used {
        // The bins that half a spectrum leaves out mirror those between the ends.
        let weight = if half && i > 0 && 2 * i != len { 2.0 * norm } else { norm };
        for o in 0..bins {
            // The product is reduced first: cosines of large angles are not exact.
            let turn = (i as u128 * o as u128 % len as u128) as f64 / len as f64;
            let (mut sin, cos) = (2.0 * PI * turn).sin_cos();
            if !inverse_too {
                sin = -sin;
            }
            for (part, values) in [[cos, sin], [-sin, cos]].iter().enumerate().take(parts) {
                for (out, value) in values.iter().enumerate().take(out_parts) {
                    table[((i * parts + part) * bins + o) * out_parts + out] = weight * value;
                }
            }
        }
    }
    let table = b.constant(Tensor::new([used * parts, bins * out_parts], &table));
    let perm = moved_last(rank, &[at, rank - 1]);
    let x = b.slice_axis(x, at, 0, used)?;
    let x = b.cast(x, Type::F64)?;
    let x = b.transpose(x, &perm)?;
    let mut moved: Vec<usize> = perm.iter().map(|&a| shape[a]).collect();
    let rows = count(&moved[..rank - 2])?;
    let x = b.reshape(x, &[rows, used * parts])?;
    let y = b.matmul(x, table)?;
    (moved[rank - 2], moved[rank - 1]) = (bins, out_parts);
    let y = b.reshape(y, &moved)?;
    let y = b.transpose(y, &inverse(&perm))?;
    b.cast(y, ty)
}

fn stft(b: &mut Build, n: &Node) -> Outputs {
    let (x, window) = (n.input(0)?, n.opt(2));
    let step = positive("the step between frames", b.need_i64(n.input(1)?)?)?;
    let shape = b.shape(x);
    let [batch, samples, parts] = shape[..] else { return invalid!("a signal {}: [batch, samples, 1 or 2] is expected", b.ty(x)) };
    let length = match (n.opt(3), window) {
        (Some(length), _) => positive("the length of a frame", b.need_i64(length)?)?,
        (None, Some(window)) => count(&b.shape(window))?,
        (None, None) => samples,
    };
    let Some(rest) = samples.checked_sub(length).filter(|_| length > 0) else {
        return invalid!("frames of {length} of a signal of {samples}");
    };
    let frames = rest / step + 1;
    b.check_size(&TensorType::new(Type::I64, [frames, length]))?;
    let indices: Vec<i64> = (0..frames).flat_map(|f| (0..length).map(move |i| (f * step + i) as i64)).collect();
    let indices = b.constant(Tensor::new([frames, length], &indices));
    let mut y = b.gather(x, indices, 1)?;
    if let Some(window) = window {
        if b.shape(window) != [length] {
            return invalid!("a window {} for frames of {length}", b.ty(window));
        }
        let window = b.cast(window, b.elem(x))?;
        let window = b.reshape(window, &[length, 1])?;
        y = b.emit(v(y) * window)?;
    }
    let onesided = n.flag("onesided", true)?;
    debug_assert_eq!(b.shape(y), [batch, frames, length, parts]);
    one(transform(b, y, 2, None, false, onesided))
}

fn mel_weight_matrix(b: &mut Build, n: &Node) -> Outputs {
    let mut integer = |i: usize| n.input(i).and_then(|x| b.need_i64(x));
    let (bins, length, rate) = (integer(0)?, integer(1)?, integer(2)?);
    let (bins, length, rate) = (size(bins)?, size(length)?, positive("the sample rate", rate)?);
    let mut real = |i: usize| match b.need_f64s(n.input(i)?)?[..] {
        [f] => Ok(f),
        _ => invalid!("one frequency was expected"),
    };
    let (lower, upper) = (real(3)?, real(4)?);
    let ty = n.dtype_if_set("output_datatype")?.unwrap_or(Type::F32);
    let rows = length / 2 + 1;
    b.check_size(&TensorType::new(Type::F64, [rows, bins + 2]))?;
    let mel = |f: f64| 2595.0 * (f / 700.0).ln_1p() / 10f64.ln();
    let step = (mel(upper) - mel(lower)) / (bins + 2) as f64;
    let edge = |i: usize| {
        let hertz = 700.0 * ((i as f64 * step + mel(lower)) / 2595.0 * 10f64.ln()).exp_m1();
        ((length + 1) as f64 * hertz / rate as f64).floor()
    };
    let edges: Vec<f64> = (0..bins + 2).map(edge).collect();
    if !edges.iter().all(|&e| e >= 0.0 && e < rows as f64 + 1.0) {
        return invalid!("frequencies from {lower} to {upper} are outside a spectrum of {rows} bins");
    }
    let mut table = vec![0.0; rows * bins];
    for i in 0..bins {
        let [low, centre, high] = [edges[i], edges[i + 1], edges[i + 2]];
        for row in 0..rows {
            let f = row as f64;
            table[row * bins + i] = match f {
                f if f == centre && low == centre => 1.0,
                f if f >= centre && f < high => (high - f) / (high - centre),
                f if f >= low && f <= centre => (f - low) / (centre - low),
                _ => 0.0,
            };
        }
    }
    one(b.table(ty, &[rows, bins], &table))
}
