//! Convolutions decomposed into others that have faster kernels: dilated ones by space-to-batch, transposed ones by sub-pixel (polyphase)
//! decomposition, 3-D ones slice by slice. Reshapes and transposes reorder the pixels; they cancel between neighbouring layers.

use super::table::{Check, Make, named, rules};
use crate::fact::Classes;
use crate::language::{Build, Range, full_ranges};
use crate::mismatch::{Mismatch, near_miss, no_match};
use crate::pattern::Arg;
use crate::term::OpRef;
use dnnc_ir::{Attr, Kind};
use egg::Id;

named! { #[doc = "Conditions."] CHECK: Check; dilated, few_phases, one_3d_image }
named! { #[doc = "Helpers."] MAKE: Make; space_to_batch, sub_pixel, by_slices, pooled_slices }

rules! {
    #[doc = "Convolutions decomposed into others that have faster kernels."]
    DECOMPOSE;
    "dilated convolution by space-to-batch"             : (conv[p] x w ..b)           => (space_to_batch p x w b) if dilated(p, w), f32(x, w), constant(w), reassociation()
    "transposed convolution by sub-pixel decomposition" : (conv_transpose[p] x w ..b) => (sub_pixel p x w b)      if few_phases(p, x, w), f32(x, w), constant(w, b), reassociation()
    "3-D convolution by slices"                         : (conv[p] x w ..b)           => (by_slices p x w b)      if one_3d_image(p, x), f32(x, w), constant(w), reassociation()
    "3-D max pool by slices"                            : (max_pool[p] x)             => (pooled_slices p x)      if one_3d_image(p, x), f32(x)
}

/// A dilated convolution of a kernel for which there is a Winograd form without dilation.
fn dilated(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let (attrs, kernel) = (&args[0].op().attrs, &g.shape(args[1].id())[2..]);
    let gaps = attrs.ints("dilations").iter().any(|&d| d > 1) && attrs.ints("strides").iter().all(|&s| s == 1);
    let dense = attrs.int("groups") == 1 && attrs.int("block") == 0;
    if gaps && dense && matches!(kernel, [3, 3] | [5, 5] | [7, 7]) {
        Ok(())
    } else {
        Err(no_match("the convolution is not dilated, dense and square"))
    }
}

/// A transposed convolution of few phases, each of which has taps along every axis.
fn few_phases(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    const MOST: i64 = 16;
    let (attrs, shape, w) = (&args[0].op().attrs, g.shape(args[1].id()), g.shape(args[2].id()));
    let (strides, axes) = (attrs.ints("strides"), w.len() - 2);
    let all = strides.iter().zip(&w[2..]).all(|(&s, &k)| k as i64 >= s) && strides.iter().product::<i64>() <= MOST;
    let gaps = attrs.ints("dilations").iter().any(|&d| d > 1);
    let empty = shape.iter().chain(w).any(|&n| n == 0);
    if axes <= 2 && all && !gaps && !empty { Ok(()) } else { Err(no_match("it has gaps, or phases without a tap")) }
}

/// One 3-D image per run, one group.
fn one_3d_image(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let (attrs, shape) = (&args[0].op().attrs, g.shape(args[1].id()));
    let one = shape.len() == 5 && shape[0] == 1 && shape.iter().all(|&n| n > 0) && attrs.ints("strides").len() == 3;
    let dense = args[0].op().kind() != Kind::Conv || attrs.int("groups") == 1;
    if one && dense && attrs.int("block") == 0 { Ok(()) } else { Err(no_match("the input is not one 3-D image, or there are groups")) }
}

/// Space-to-batch: every d-th pixel along an axis belongs to one image, on which a kernel of dilation d has no gaps; all d² images are a batch.
fn space_to_batch(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, x, w, bias) = (args[0].op(), args[1].id(), args[2].id(), args[3].ids());
    let (d, pads) = (p.attrs.sizes("dilations"), p.attrs.ints("pads"));
    let (shape, kernel) = (g.shape(x).to_vec(), g.shape(w)[2..].to_vec());
    let output: Vec<usize> =
        (0..2).map(|i| (shape[2 + i] as i64 + pads[i] + pads[2 + i] - ((kernel[i] - 1) * d[i]) as i64).max(0) as usize).collect();
    if output.contains(&0) {
        return Err(no_match("there is no result"));
    }
    // Padding before the image is a multiple of d, or becomes part of the image; after it, all images of the batch are padded to one size.
    let inside: Vec<i64> = (0..2).map(|i| if pads[i] % d[i] as i64 == 0 { 0 } else { pads[i] }).collect();
    let size: Vec<usize> = (0..2).map(|i| (shape[2 + i] + inside[i] as usize).div_ceil(d[i])).collect();
    let fill = |i: usize| (size[i] * d[i] - shape[2 + i]) as i64 - inside[i];
    let x = g.pad(x, 0.0, vec![0, 0, inside[0], inside[1], 0, 0, fill(0), fill(1)])?;
    let x = g.reshape(x, &[shape[0], shape[1], size[0], d[0], size[1], d[1]])?;
    let x = g.transpose(x, &[0, 3, 5, 1, 2, 4])?;
    let x = g.reshape(x, &[shape[0] * d[0] * d[1], shape[1], size[0], size[1]])?;

    let before: Vec<i64> = (0..2).map(|i| (pads[i] - inside[i]) / d[i] as i64).collect();
    let made: Vec<usize> = (0..2).map(|i| output[i].div_ceil(d[i])).collect();
    let after: Vec<i64> = (0..2).map(|i| (made[i] + kernel[i] - 1) as i64 - size[i] as i64 - before[i]).collect();
    if after.iter().any(|&n| n < 0) {
        return Err(near_miss("an image of the batch would be longer than what is read of it"));
    }
    let op = p.with("dilations", vec![1i64, 1]).with("pads", [before, after].concat());
    let operands = [&[x, w], bias].concat();
    let y = g.apply(&op, &operands)?;
    let channels = g.shape(w)[0];
    Ok(Arg::Value(interleaved(g, y, [shape[0], channels], &d, &output)?))
}

/// Batch-to-space: interleaves the pixels of `steps` images along each axis, and crops the result to `output` pixels. Images are batch × `steps`
/// × channels.
fn interleaved(g: &mut Classes, y: Id, [batch, channels]: [usize; 2], steps: &[usize], output: &[usize]) -> Result<Id, Mismatch> {
    let made = g.shape(y)[2..].to_vec();
    let y = g.reshape(y, &[&[batch], steps, &[channels], &made[..]].concat())?;
    let n = steps.len();
    let perm: Vec<usize> = [0, 1 + n].into_iter().chain((0..n).flat_map(|i| [2 + n + i, 1 + i])).collect();
    let y = g.transpose(y, &perm)?;
    let full = made.iter().zip(steps).map(|(made, step)| made * step);
    let y = g.reshape(y, &[batch, channels].into_iter().chain(full).collect::<Vec<_>>())?;
    g.slice(y, &full_ranges(&[&[batch, channels], output].concat()))
}

/// The results `stride·m + phase` along an axis, as a convolution of stride 1.
#[derive(Clone, Copy)]
struct Phase {
    /// Index of its last element of the kernel, which is read backwards in steps of the stride.
    last: usize,
    taps: usize,
    /// Padding before and after the axis; negative: cropping.
    before: i64,
    after: i64,
}

/// Sub-pixel (polyphase) decomposition: the results of each phase of the stride are a convolution with its own elements of the kernel.
fn sub_pixel(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, x, w, bias) = (args[0].op(), args[1].id(), args[2].id(), args[3].ids());
    let (strides, pads) = (p.attrs.sizes("strides"), p.attrs.ints("pads"));
    let (shape, weights) = (g.shape(x).to_vec(), g.shape(w).to_vec());
    let axes = strides.len();
    let result = g.apply(p, &[&[x, w], bias].concat())?;
    let output = g.shape(result)[2..].to_vec();
    if output.contains(&0) {
        return Err(no_match("there is no result"));
    }
    let made: Vec<usize> = (0..axes).map(|i| output[i].div_ceil(strides[i])).collect();
    let phase = |i: usize, r: usize| {
        let (s, kernel) = (strides[i] as i64, weights[2 + i]);
        let first = (r as i64 + pads[i]).rem_euclid(s);
        let taps = (kernel - first as usize).div_ceil(strides[i]);
        // Result m reads pixels m + reach − tap.
        let reach = (r as i64 + pads[i] - first) / s;
        let before = taps as i64 - 1 - reach;
        Phase { last: first as usize + (taps - 1) * strides[i], taps, before, after: made[i] as i64 + reach - shape[2 + i] as i64 }
    };
    let mut all: Vec<Vec<Phase>> = vec![vec![]];
    for (i, &s) in strides.iter().enumerate() {
        all = all.iter().flat_map(|v| (0..s).map(move |r| [&v[..], &[phase(i, r)]].concat())).collect();
    }
    // Phases with equal windows are one convolution, unless groups would separate them.
    let groups = p.attrs.size("groups");
    let equal_windows =
        |a: &[Phase], b: &[Phase]| groups == 1 && a.iter().zip(b).all(|(a, b)| (a.taps, a.before, a.after) == (b.taps, b.before, b.after));
    let mut parts = vec![];
    for together in all.chunk_by(|a, b| equal_windows(a, b)) {
        let at = &together[0];
        let mut axes_read = full_ranges(&shape[..2]);
        let cut = |n: i64| (-n).max(0) as usize;
        for (i, a) in at.iter().enumerate() {
            let size =
                shape[2 + i].checked_sub(cut(a.before) + cut(a.after)).filter(|&n| n > 0).ok_or(near_miss("a phase reads no pixel"))?;
            axes_read.push(Range { start: cut(a.before), size, step: 1 });
        }
        let read = g.slice(x, &axes_read)?;
        let mut kernels = vec![];
        for phase in together {
            let mut taken = full_ranges(&weights[..2]);
            taken.extend(phase.iter().zip(&strides).map(|(a, &s)| Range { start: a.last, size: a.taps, step: -(s as i64) }));
            let taken = g.slice(w, &taken)?;
            let taps: Vec<usize> = phase.iter().map(|a| a.taps).collect();
            let taken = g.reshape(taken, &[&[groups, weights[0] / groups, weights[1]], &taps[..]].concat())?;
            let perm: Vec<usize> = [0, 2, 1].into_iter().chain(3..3 + axes).collect();
            let turned = g.transpose(taken, &perm)?;
            kernels.push(g.reshape(turned, &[&[groups * weights[1], weights[0] / groups], &taps[..]].concat())?);
        }
        let kernels = g.concat(0, &kernels)?;
        let ones = vec![1i64; axes];
        let around = at.iter().map(|a| a.before.max(0)).chain(at.iter().map(|a| a.after.max(0))).collect::<Vec<i64>>();
        let attrs = [
            ("strides", Attr::from(ones.clone())),
            ("dilations", Attr::from(ones)),
            ("pads", Attr::from(around)),
            ("groups", Attr::Int(groups as i64)),
        ];
        let mut operands = vec![read, kernels];
        if let [bias] = bias {
            operands.push(g.concat(0, &vec![*bias; together.len()])?);
        }
        parts.push(g.op(Kind::Conv, attrs, &operands)?);
    }
    let y = g.concat(1, &parts)?;
    Ok(Arg::Value(interleaved(g, y, [shape[0], groups * weights[1]], &strides, &output)?))
}

/// Sizes, strides and padding of the first axis of a 3-D window.
struct Depth {
    taps: usize,
    stride: usize,
    dilation: usize,
    pads: [i64; 2],
    output: usize,
}

impl Depth {
    fn new(p: &OpRef, shape: &[usize], taps: usize) -> Result<Depth, Mismatch> {
        let (strides, dilations, pads) = (p.attrs.sizes("strides"), p.attrs.sizes("dilations"), p.attrs.ints("pads"));
        let pads = [pads[0], pads[3]];
        let padded = shape[2] as i64 + pads[0] + pads[1];
        let left = padded - ((taps - 1) * dilations[0]) as i64 - 1;
        let output = usize::try_from(left).map_err(|_| no_match("there is no result"))? / strides[0] + 1;
        Ok(Depth { taps, stride: strides[0], dilation: dilations[0], pads, output })
    }

    /// For each tap, the slices [output, C, H, W] of `x` (slices [D, C, H, W]) that it reads.
    fn taken(&self, g: &mut Classes, x: Id, outside: f64) -> Result<Vec<Id>, Mismatch> {
        let x = g.pad(x, outside, vec![self.pads[0], 0, 0, 0, self.pads[1], 0, 0, 0])?;
        let shape = g.shape(x).to_vec();
        let at = |tap: usize| {
            [Range { start: tap * self.dilation, size: self.output, step: self.stride as i64 }]
                .into_iter()
                .chain(full_ranges(&shape[1..]))
                .collect::<Vec<_>>()
        };
        (0..self.taps).map(|tap| g.slice(x, &at(tap))).collect()
    }
}

/// The operator on the two axes of a slice.
fn flat(p: &OpRef) -> OpRef {
    let last = |name: &str| p.attrs.ints(name)[1..].to_vec();
    let pads = p.attrs.ints("pads");
    let made =
        p.with("strides", last("strides")).with("dilations", last("dilations")).with("pads", vec![pads[1], pads[2], pads[4], pads[5]]);
    if p.kind() == Kind::Conv { made } else { made.with("kernel", last("kernel")) }
}

/// A 3-D image [1, C, D, H, W] as slices [D, C, H, W].
fn to_slices(g: &mut Classes, x: Id) -> Result<Id, Mismatch> {
    let shape = g.shape(x).to_vec();
    let x = g.transpose(x, &[0, 2, 1, 3, 4])?;
    g.reshape(x, &[shape[2], shape[1], shape[3], shape[4]])
}

/// Slices [D, C, H, W] as a 3-D image [1, C, D, H, W].
fn from_slices(g: &mut Classes, y: Id) -> Result<Id, Mismatch> {
    let shape = g.shape(y).to_vec();
    let y = g.reshape(y, &[1, shape[0], shape[1], shape[2], shape[3]])?;
    g.transpose(y, &[0, 2, 1, 3, 4])
}

/// Slices of a 3-D image are 2-D images; those that a window reads are concatenated along channels.
fn by_slices(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, x, w, bias) = (args[0].op(), args[1].id(), args[2].id(), args[3].ids());
    let weights = g.shape(w).to_vec();
    let depth = Depth::new(p, g.shape(x), weights[2])?;
    let x = to_slices(g, x)?;
    let taken = depth.taken(g, x, 0.0)?;
    let x = g.concat(1, &taken)?;
    let w = g.transpose(w, &[0, 2, 1, 3, 4])?;
    let w = g.reshape(w, &[weights[0], weights[2] * weights[1], weights[3], weights[4]])?;
    let y = g.apply(&flat(p), &[&[x, w], bias].concat())?;
    Ok(Arg::Value(from_slices(g, y)?))
}

/// The maximum of each slice, then of the slices.
fn pooled_slices(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, x) = (args[0].op(), args[1].id());
    let depth = Depth::new(p, g.shape(x), p.attrs.sizes("kernel")[0])?;
    let x = to_slices(g, x)?;
    let x = g.apply(&flat(p), &[x])?;
    let taken = depth.taken(g, x, f64::NEG_INFINITY)?;
    let (first, rest) = taken.split_first().ok_or(no_match("the window is empty"))?;
    let mut y = *first;
    for &slice in rest {
        y = g.op(Kind::Max, [], &[y, slice])?;
    }
    Ok(Arg::Value(from_slices(g, y)?))
}
