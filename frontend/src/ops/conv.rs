//! Convolutions and the geometry of windows.

use super::expr::v;
use super::helpers::{Outputs, count, one, positive, sizes};
use super::row::{OpImport, onnx};
use crate::build::{Build, Node, Result, invalid, unsupported};
use dnnc_ir::{Attr, Kind, Type, Value};

pub(super) const OPS: &[OpImport] = &[
    onnx("Conv", conv),
    onnx("ConvTranspose", conv_transpose),
    OpImport { note: "two or three spatial axes", ..onnx("DeformConv", deform_conv) },
    onnx("Col2Im", col2im),
    onnx("CausalConvWithState", causal_conv_with_state),
];

/// How a window moves over the spatial axes: one number per axis.
#[derive(Clone)]
pub(super) struct Window {
    /// Size of the window.
    pub kernel: Vec<usize>,
    /// Steps between windows.
    pub strides: Vec<usize>,
    /// Steps between the elements of a window.
    pub dilations: Vec<usize>,
    /// Padding at the begins, then at the ends.
    pub pads: Vec<usize>,
    /// Padding at the ends that rounding the output size up asks for.
    pub extra: Vec<usize>,
}

impl Window {
    /// The window of a node over axes of these sizes; `ceil`: the output size is rounded up.
    pub fn read(n: &Node, spatial: &[usize], kernel: Vec<usize>, ceil: bool) -> Result<Window> {
        let rank = spatial.len();
        if kernel.len() != rank {
            return invalid!("a kernel with {} axes for {rank} spatial axes", kernel.len());
        }
        let strides = numbers(n, "strides", rank)?;
        let dilations = numbers(n, "dilations", rank)?;
        let mut window = Window { kernel, strides, dilations, pads: vec![0; 2 * rank], extra: vec![0; rank] };
        let spans = window.spans()?;
        match n.string("auto_pad", "NOTSET")? {
            "NOTSET" | "" => window.pads = explicit_pads(n, rank)?,
            "VALID" => {}
            mode @ ("SAME_UPPER" | "SAME_LOWER") => {
                for a in 0..rank {
                    let steps = spatial[a].div_ceil(window.strides[a]).saturating_sub(1);
                    let total = (steps * window.strides[a] + spans[a]).saturating_sub(spatial[a]);
                    window.pads[a] = if mode == "SAME_UPPER" { total / 2 } else { total.div_ceil(2) };
                    window.pads[rank + a] = total - window.pads[a];
                }
            }
            other => return invalid!("attribute `auto_pad` is {other:?}"),
        }
        for a in 0..rank {
            let (stride, padded) = (window.strides[a], spatial[a] + window.pads[a] + window.pads[rank + a]);
            let Some(room) = padded.checked_sub(spans[a]) else {
                return invalid!("a window of {} is larger than the padded size {padded}", spans[a]);
            };
            if ceil {
                let mut steps = room.div_ceil(stride);
                // A window that would start in the padding at the end does not count.
                if steps > 0 && steps * stride >= spatial[a] + window.pads[a] {
                    steps -= 1;
                }
                window.extra[a] = (steps * stride + spans[a]).saturating_sub(padded);
            }
        }
        Ok(window)
    }

    /// Elements from the first to the last of a window, both included.
    pub fn spans(&self) -> Result<Vec<usize>> {
        self.kernel.iter().zip(&self.dilations).map(|(&k, &d)| Ok(count(&[k - 1, d])? + 1)).collect()
    }

    /// Number of windows per axis, over axes of these sizes.
    pub fn steps(&self, spatial: &[usize]) -> Result<Vec<usize>> {
        let (rank, spans) = (spatial.len(), self.spans()?);
        let room = |a: usize| (spatial[a] + self.pads[a] + self.pads[rank + a] + self.extra[a]).saturating_sub(spans[a]);
        Ok((0..rank).map(|a| room(a) / self.strides[a] + 1).collect())
    }

    /// With a first axis of size one put before.
    pub fn unsqueezed(mut self) -> Window {
        let rank = self.kernel.len();
        self.pads.insert(rank, 0);
        self.pads.insert(0, 0);
        self.kernel.insert(0, 1);
        self.strides.insert(0, 1);
        self.dilations.insert(0, 1);
        self.extra.insert(0, 0);
        self
    }

    /// The attributes that convolutions and pools share.
    pub fn attrs(&self) -> Vec<(&'static str, Attr)> {
        vec![
            ("strides", self.strides.as_slice().into()),
            ("pads", self.pads.as_slice().into()),
            ("dilations", self.dilations.as_slice().into()),
        ]
    }
}

/// One positive number per axis, 1 where the attribute is missing.
fn numbers(n: &Node, name: &str, rank: usize) -> Result<Vec<usize>> {
    match n.ints(name)? {
        None => Ok(vec![1; rank]),
        Some(list) if list.len() == rank => list.iter().map(|&v| positive(name, v)).collect(),
        Some(list) => invalid!("attribute `{name}` has {} numbers for {rank} axes", list.len()),
    }
}

fn explicit_pads(n: &Node, rank: usize) -> Result<Vec<usize>> {
    match n.ints("pads")? {
        None => Ok(vec![0; 2 * rank]),
        Some(list) if list.len() == 2 * rank => sizes(&list),
        Some(list) => invalid!("attribute `pads` has {} numbers for {rank} axes", list.len()),
    }
}

/// Sizes of the spatial axes of [N, C, …].
pub(super) fn spatial(b: &Build, x: Value) -> Result<Vec<usize>> {
    match b.shape(x) {
        shape if shape.len() >= 3 => Ok(shape[2..].to_vec()),
        shape => invalid!("shape {shape:?} has no spatial axes"),
    }
}

/// Sizes of the kernel axes of weights, checked against the attribute.
fn kernel_of(b: &Build, n: &Node, x: Value, w: Value) -> Result<Vec<usize>> {
    let (shape, own) = (b.shape(w), b.rank(x));
    if shape.len() != own || own < 3 {
        return invalid!("weights {} for an input {}", b.ty(w), b.ty(x));
    }
    let kernel = shape[2..].to_vec();
    if kernel.contains(&0) {
        return invalid!("a kernel of shape {kernel:?}");
    }
    match n.ints("kernel_shape")? {
        Some(given) if !given.is_empty() && sizes(&given)? != kernel => {
            invalid!("attribute `kernel_shape` is {given:?}, the weights have {kernel:?}")
        }
        _ => Ok(kernel),
    }
}

fn conv(b: &mut Build, n: &Node) -> Outputs {
    one(convolution(b, n, n.input(0)?, n.input(1)?, n.opt(2)))
}

/// The convolution that the attributes of `n` describe. One spatial axis becomes two, so that the kernels for images serve it.
pub(super) fn convolution(b: &mut Build, n: &Node, x: Value, w: Value, bias: Option<Value>) -> Result<Value> {
    let window = Window::read(n, &spatial(b, x)?, kernel_of(b, n, x, w)?, false)?;
    let groups = positive("attribute `group`", n.int("group", 1)?)?;
    convolve(b, x, w, bias, window, groups)
}

/// A convolution over this window.
pub(super) fn convolve(b: &mut Build, x: Value, w: Value, bias: Option<Value>, window: Window, groups: usize) -> Result<Value> {
    if window.kernel.len() == 1 {
        let (x, w) = (b.unsqueeze(x, &[2])?, b.unsqueeze(w, &[2])?);
        let y = convolve(b, x, w, bias, window.unsqueezed(), groups)?;
        return b.squeeze(y, &[2]);
    }
    // A sum over no channels is that over one of zeros.
    let (x, w) = if b.shape(x)[1] == 0 && b.shape(w)[1] == 0 {
        let one_more = |b: &mut Build, v: Value, channels: usize| {
            let mut pads = vec![0; 2 * b.rank(v)];
            pads[1] = channels;
            let zero = b.scalar(b.elem(v), 0.0);
            b.pad(v, &pads, zero)
        };
        (one_more(b, x, groups)?, one_more(b, w, 1)?)
    } else {
        (x, w)
    };
    let mut attrs = window.attrs();
    attrs.push(("groups", Attr::Int(groups as i64)));
    let operands: Vec<Value> = [x, w].into_iter().chain(bias).collect();
    b.op(Kind::Conv, attrs, &operands)
}

fn conv_transpose(b: &mut Build, n: &Node) -> Outputs {
    let (x, w) = (n.input(0)?, n.input(1)?);
    let (spatial, kernel) = (spatial(b, x)?, kernel_of(b, n, x, w)?);
    let rank = spatial.len();
    let mut window = Window {
        kernel,
        strides: numbers(n, "strides", rank)?,
        dilations: numbers(n, "dilations", rank)?,
        pads: vec![0; 2 * rank],
        extra: vec![0; rank],
    };
    let mut output_padding = match n.ints("output_padding")? {
        None => vec![0; rank],
        Some(list) if list.len() == rank => sizes(&list)?,
        Some(list) => return invalid!("attribute `output_padding` has {} numbers for {rank} axes", list.len()),
    };
    let mode = n.string("auto_pad", "NOTSET")?;
    let wanted = match (n.ints("output_shape")?, mode) {
        (Some(list), _) if !list.is_empty() => {
            let list = sizes(&list)?;
            // Some exporters give all axes, the standard the spatial ones.
            match list.len().checked_sub(rank) {
                Some(0 | 2) => Some(list[list.len() - rank..].to_vec()),
                _ => return invalid!("attribute `output_shape` has {} numbers for {rank} axes", list.len()),
            }
        }
        (_, "SAME_UPPER" | "SAME_LOWER") => {
            Some(spatial.iter().zip(&window.strides).map(|(&d, &s)| count(&[d, s])).collect::<Result<_>>()?)
        }
        (_, "VALID") => None,
        (_, "NOTSET" | "") => {
            window.pads = explicit_pads(n, rank)?;
            None
        }
        (_, other) => return invalid!("attribute `auto_pad` is {other:?}"),
    };
    if let Some(wanted) = wanted {
        let spans = window.spans()?;
        for a in 0..rank {
            let full = count(&[spatial[a].saturating_sub(1), window.strides[a]])? + output_padding[a] + spans[a];
            // What is missing at the end is padding of the output.
            output_padding[a] += wanted[a].saturating_sub(full);
            let total = full.saturating_sub(wanted[a]);
            window.pads[a] = if mode == "SAME_UPPER" { total / 2 } else { total.div_ceil(2) };
            window.pads[rank + a] = total - window.pads[a];
        }
    }
    let groups = positive("attribute `group`", n.int("group", 1)?)?;
    one(transposed(b, x, w, n.opt(2), window, output_padding, groups))
}

fn transposed(
    b: &mut Build,
    x: Value,
    w: Value,
    bias: Option<Value>,
    window: Window,
    mut output_padding: Vec<usize>,
    groups: usize,
) -> Result<Value> {
    if window.kernel.len() == 1 {
        let (x, w) = (b.unsqueeze(x, &[2])?, b.unsqueeze(w, &[2])?);
        output_padding.insert(0, 0);
        let y = transposed(b, x, w, bias, window.unsqueezed(), output_padding, groups)?;
        return b.squeeze(y, &[2]);
    }
    let mut attrs = window.attrs();
    attrs.extend([("output_padding", Attr::from(output_padding.as_slice())), ("groups", Attr::Int(groups as i64))]);
    let operands: Vec<Value> = [x, w].into_iter().chain(bias).collect();
    b.op(Kind::ConvTranspose, attrs, &operands)
}

/// Sums overlapping columns into an image: a transposed convolution whose weights are ones, each column at its own tap.
fn col2im(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let (image, block) = (b.need_i64s(n.input(1)?)?, b.need_i64s(n.input(2)?)?);
    let (image, rank) = (sizes(&image)?, image.len());
    let block = block.iter().map(|&k| positive("a block size", k)).collect::<Result<Vec<usize>>>()?;
    let window = Window::read(n, &image, block.clone(), false)?;
    let (shape, taps, steps) = (b.shape(x), count(&block)?, window.steps(&image)?);
    let fits = shape.len() == 3 && shape[1] % taps == 0 && shape[2] == count(&steps)?;
    if !fits {
        return invalid!("columns of shape {shape:?} for an image {image:?} in blocks {block:?}");
    }
    let channels = shape[1] / taps;
    // Sums of integers are exact in doubles as far as these hold integers.
    let ty = b.elem(x);
    let x = if ty.is_float() { x } else { b.cast(x, Type::F64)? };
    let columns: Vec<usize> = [shape[0] * channels, taps].into_iter().chain(steps.iter().copied()).collect();
    let x = b.reshape(x, &columns)?;
    let (row, column) = (b.iota(taps)?, b.iota(taps)?);
    let row = b.unsqueeze(row, &[1])?;
    let one_hot = b.emit(v(row).eq(column).cast(b.elem(x)))?;
    let weights: Vec<usize> = [taps, 1].into_iter().chain(block.iter().copied()).collect();
    let one_hot = b.reshape(one_hot, &weights)?;
    let spans = window.spans()?;
    let padding = (0..rank).map(|a| image[a] + window.pads[a] + window.pads[rank + a] - ((steps[a] - 1) * window.strides[a] + spans[a]));
    let y = transposed(b, x, one_hot, None, window.clone(), padding.collect(), 1)?;
    let result: Vec<usize> = [shape[0], channels].into_iter().chain(image).collect();
    let y = b.reshape(y, &result)?;
    one(b.cast(y, ty))
}

/// Samples the input where the offsets say, one plane per tap of the kernel, and multiplies the planes with the weights.
fn deform_conv(b: &mut Build, n: &Node) -> Outputs {
    let (x, w, offset, bias, mask) = (n.input(0)?, n.input(1)?, n.input(2)?, n.opt(3), n.opt(4));
    let (size, kernel) = (spatial(b, x)?, kernel_of(b, n, x, w)?);
    let rank = size.len();
    if !(2..=3).contains(&rank) {
        return unsupported!("DeformConv over {rank} axes: 2 and 3 are supported");
    }
    let window = Window::read(n, &size, kernel.clone(), false)?;
    let (out, taps) = (window.steps(&size)?, count(&kernel)?);
    let groups = positive("attribute `group`", n.int("group", 1)?)?;
    let parts = positive("attribute `offset_group`", n.int("offset_group", 1)?)?;
    let (batch, channels, outputs) = (b.shape(x)[0], b.shape(x)[1], b.shape(w)[0]);
    let expected: Vec<usize> = [batch, parts * taps * rank].into_iter().chain(out.iter().copied()).collect();
    if b.shape(offset) != expected || channels % parts != 0 || channels % groups != 0 || outputs % groups != 0 {
        return invalid!("offsets {} for an input {} and weights {}", b.ty(offset), b.ty(x), b.ty(w));
    }
    let ty = b.elem(x);
    // Where each tap of the kernel samples without offsets, [taps, rank, out…], in elements of the input.
    let points = count(&out)?;
    let mut base = vec![0.0; count(&[taps, rank, points])?];
    for tap in 0..taps {
        for a in 0..rank {
            let k = tap / kernel[a + 1..].iter().product::<usize>() % kernel[a];
            for p in 0..points {
                let o = p / out[a + 1..].iter().product::<usize>() % out[a];
                base[(tap * rank + a) * points + p] = (o * window.strides[a] + k * window.dilations[a]) as f64 - window.pads[a] as f64;
            }
        }
    }
    let split: Vec<usize> = [batch * parts, taps, rank].into_iter().chain([points]).collect();
    let base = b.table(ty, &[taps, rank, points], &base)?;
    let offset = b.reshape(offset, &split)?;
    // grid_sample counts from −1 to 1 over the outer edges, the last axis first.
    let scale = b.table(ty, &[rank, 1], &size.iter().map(|&d| 2.0 / d.max(1) as f64).collect::<Vec<_>>())?;
    let shift = b.table(ty, &[rank, 1], &size.iter().map(|&d| 1.0 / d.max(1) as f64 - 1.0).collect::<Vec<_>>())?;
    let at = b.emit((v(base) + offset) * scale + shift)?;
    let at = b.transpose(at, &[0, 1, 3, 2])?;
    let order: Vec<i64> = (0..rank as i64).rev().collect();
    let order = b.i64s(&order);
    let at = b.gather(at, order, 3)?;
    let mut grid = vec![batch * parts, taps * out[0]];
    grid.extend(&out[1..]);
    grid.push(rank);
    let at = b.reshape(at, &grid)?;
    let planes: Vec<usize> = [batch * parts, channels / parts].into_iter().chain(size).collect();
    let planes = b.reshape(x, &planes)?;
    let sampled = b.op(Kind::GridSample, [], &[planes, at])?;
    let mut sampled = b.reshape(sampled, &[batch, parts, channels / parts, taps, points])?;
    if let Some(mask) = mask {
        let mask = b.reshape(mask, &[batch, parts, 1, taps, points])?;
        sampled = b.emit(v(sampled) * mask)?;
    }
    let columns = b.reshape(sampled, &[batch, groups, channels / groups * taps, points])?;
    let weights = b.reshape(w, &[groups, outputs / groups, channels / groups * taps])?;
    let y = b.matmul(weights, columns)?;
    let result: Vec<usize> = [batch, outputs].into_iter().chain(out).collect();
    let mut y = b.reshape(y, &result)?;
    if let Some(bias) = bias {
        let bias = b.channels(y, bias)?;
        y = b.emit(v(y) + bias)?;
    }
    one(Ok(y))
}

/// A depthwise convolution over what was before and what comes now.
pub(super) fn causal_conv_with_state(b: &mut Build, n: &Node) -> Outputs {
    // Attributes that only ONNX Runtime's form has.
    if n.int("ndim", 1)? != 1 || n.int("dilation", 1)? != 1 || n.int("state_window", 0)? != 0 || n.flag("channels_last", false)? {
        return unsupported!("CausalConvWithState with ndim, dilation, state_window or channels_last");
    }
    let (x, w, bias, past) = (n.input(0)?, n.input(1)?, n.opt(2), n.opt(3));
    let (shape, kernel) = (b.shape(x), kernel_of(b, n, x, w)?);
    if shape.len() != 3 {
        return invalid!("an input {}: three axes are expected", b.ty(x));
    }
    let (channels, length, before) = (shape[1], shape[2], kernel[0] - 1);
    let past = match past {
        Some(past) => past,
        None => b.full(&[shape[0], channels, before], b.elem(x), 0.0)?,
    };
    let all = b.concat(&[past, x], 2)?;
    if b.shape(all) != [shape[0], channels, before + length] {
        return invalid!("a state {} for a kernel of {}", b.ty(past), kernel[0]);
    }
    let window = Window { kernel, strides: vec![1], dilations: vec![1], pads: vec![0; 2], extra: vec![0] };
    let y = convolve(b, all, w, bias, window, channels)?;
    let y = match n.string("activation", "none")? {
        "none" => y,
        "silu" | "swish" => b.emit(v(y).silu())?,
        other => return invalid!("attribute `activation` is {other:?}"),
    };
    Ok(vec![y, b.slice_axis(all, 2, length, before)?])
}
