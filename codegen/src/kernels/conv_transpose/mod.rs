//! Transposed convolution: a product of weights and pixels gives what each pixel of the input adds under the kernel, a second kernel adds it up.
//!
//! The sums of a plane are kept by phase of the last axis (the pixels `s·m + r` of a row for each `r` of stride `s`), so that what one element of the
//! kernel adds to a row is contiguous on both sides.

#[cfg(test)]
mod tests;

use super::matmul;
use crate::kernels::lib::gemm::Mac;
use crate::kernels::lib::loops::{self, Memory};
use crate::kernels::lib::store::{Channel, Output};
use crate::schedule::{self, Tile};
use crate::unit::{Arg, Family, Forecast, Lowered, LoweredCall, Operand, Unit};
use dnnc_ir::{Attr, Kind, Op, TensorType, Type};
use dnnc_kir::{Bin, Builder, Ty, Val};

/// The family.
pub const FAMILY: Family =
    Family { name: "conv_transpose", kinds: &[Kind::ConvTranspose], lower, forecast, epilogue: crate::unit::channel_axes };

/// Sizes; the vectors have an entry a spatial axis.
struct Shape {
    batch: usize,
    groups: usize,
    /// Channels of the input and the result in a group.
    channels: usize,
    outputs: usize,
    input: Vec<usize>,
    kernel: Vec<usize>,
    output: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    before: Vec<usize>,
}

impl Shape {
    fn new(unit: &Unit) -> Shape {
        let (attrs, x, w, y) = (&unit.op.attrs, &unit.inputs[0].ty, &unit.inputs[1].ty, &unit.results[0]);
        let groups = attrs.size("groups");
        let axes = w.rank() - 2;
        Shape {
            batch: x.shape[0],
            groups,
            channels: x.shape[1] / groups,
            outputs: w.shape[1],
            input: x.shape[2..].to_vec(),
            kernel: w.shape[2..].to_vec(),
            output: y.shape[2..].to_vec(),
            strides: attrs.sizes("strides"),
            dilations: attrs.sizes("dilations"),
            before: attrs.sizes("pads")[..axes].to_vec(),
        }
    }

    fn last(&self) -> usize {
        self.input.len() - 1
    }

    /// Pixels of a phase in a row of sums.
    fn phase(&self) -> usize {
        self.output[self.last()].div_ceil(self.strides[self.last()])
    }

    /// Sums of a row: those of all phases.
    fn row(&self) -> usize {
        self.phase() * self.strides[self.last()]
    }
}

/// A product, and what each of its elements adds to the result.
fn forecast(unit: &Unit) -> Forecast {
    /// Share of the peak that the product of few channels reaches, whose pixels are packed at run time.
    const EFFICIENCY: f64 = 0.3;
    if unit.results[0].is_empty() {
        return Forecast::NOTHING;
    }
    let s = Shape::new(unit);
    let elements: usize = [&s.kernel, &s.input].iter().map(|v| v.iter().product::<usize>()).product();
    let added = s.batch * s.groups * s.outputs * elements * 4;
    let product = unit.work() / (unit.target.peak_macs() / 1e9 * EFFICIENCY);
    Forecast::kernel(unit.target, product + schedule::stream_ns(unit.target, 2 * added)).with_epilogue()
}

fn lower(unit: &Unit) -> Result<Lowered, String> {
    let s = &Shape::new(unit);
    if unit.results[0].is_empty() {
        return Ok(Lowered::default());
    }
    let ty = unit.inputs[0].ty.ty;
    let mac = Mac::new(ty, unit.target)?;
    // Sums are not rounded before the last.
    let sums = if mac.bytes() == 8 { Type::F64 } else { Type::F32 };
    let [taps, pixels] = [&s.kernel, &s.input].map(|v| v.iter().product::<usize>());
    let weights = TensorType::new(ty, [1, s.groups, s.channels, s.outputs * taps]);
    let image = TensorType::new(ty, [s.batch, s.groups, s.channels, pixels]);
    let spread = TensorType::new(sums, [s.batch, s.groups, s.outputs * taps, pixels]);
    let op = Op::new(Kind::MatMul, [("trans_a", Attr::Int(1))])?;
    let operand = |ty: &TensorType| Operand { ty: ty.clone(), constant: None };
    let inner = Unit {
        op: &op,
        inputs: vec![operand(&weights), operand(&image)],
        results: vec![spread.clone()],
        epilogue: None,
        stored: spread.clone(),
        target: unit.target,
        options: unit.options,
    };
    let mut lowered = Lowered { scratch: vec![spread.bytes()], ..Lowered::default() };
    lowered.append((matmul::FAMILY.lower)(&inner)?, &[Arg::Input(1), Arg::Input(0)], Arg::Scratch(0));
    add_up(unit, s, mac, &mut lowered);
    Ok(lowered)
}

/// Adds up the planes of the result; the first temporary buffer has [batch, group, channel, tap, pixel].
fn add_up(unit: &Unit, s: &Shape, mac: Mac, lowered: &mut Lowered) {
    let bytes = mac.bytes();
    let [taps, pixels, out_pixels] = [&s.kernel, &s.input, &s.output].map(|v| v.iter().product::<usize>());
    let planes = s.batch * s.groups * s.outputs;
    let parts = schedule::tasks(unit.options, (planes * taps * pixels) as u64, planes);
    let rows: usize = s.output[..s.last()].iter().product();
    let plane_bytes = rows * s.row() * bytes;
    let mut args = vec![Arg::Scratch(0)];
    let mut memory = Memory::default();
    let sums = memory.add(lowered, &mut args, plane_bytes, parts);
    let bias = unit.inputs.get(2).map(|x| {
        args.push(Arg::Input(2));
        (args.len() - 1, Mac::new(x.ty.ty, unit.target).expect("of the type of the input"))
    });
    let out_at = args.len();
    args.extend(Output::args(unit));
    let mut builder = Builder::new("add_up", args.len());
    let b = &mut builder;
    let (cols, task) = (b.param(0), b.task());
    let sums = memory.piece(b, sums, task).expect("a plane that is not empty");
    let (first, end) = loops::part_range(b, task, parts, planes);
    loops::for_some(b, first, end, planes, |b, plane| {
        let (_, channel) = loops::divmod(b, plane, s.groups * s.outputs);
        let scalar = Ty::scalar(mac.ty.elem);
        let bias = match bias {
            Some((param, loads)) => {
                let bias = b.param(param);
                let at = b.element(bias, channel, loads.lhs.bytes());
                loads.load(b, 1, at, 0, 1)
            }
            None => b.int(scalar, 0),
        };
        let cols = b.element(cols, plane, taps * pixels * bytes);
        // Every sum begins with the bias.
        loops::each_element(b, &[sums], rows * s.row(), mac.ty, |b, at, i, n| {
            let v = b.splat(bias, mac.ty.lanes);
            b.store_part(v, at[0], (i * bytes) as i32, n);
        });
        Sums { s, ty: mac.ty }.axis(b, 0, cols, sums);
        let mut out = Output::new(b, unit, out_at, 1, 1);
        out.base = b.mul_int(plane, out_pixels as i64);
        out.channel = (Channel::Row, channel);
        finish(b, s, mac, rows, sums, &out);
    });
    lowered.calls.push(LoweredCall { func: builder.finish(), args, tasks: parts });
}

struct Sums<'a> {
    s: &'a Shape,
    ty: Ty,
}

impl Sums<'_> {
    /// Adds what the kernel's elements along the axes from `axis` on bring; `cols` is at their first, `sums` at the row that is reached.
    fn axis(&self, b: &mut Builder, axis: usize, cols: Val, sums: Val) {
        let s = self.s;
        let bytes = self.ty.elem.bytes();
        let pixels = s.input.iter().product::<usize>();
        let inner_taps = s.kernel[axis + 1..].iter().product::<usize>();
        if axis == s.last() {
            for k in 0..s.kernel[axis] {
                let cols = b.offset_int(cols, (k * pixels * bytes) as i64);
                self.row(b, k, cols, sums);
            }
            return;
        }
        let [stride, dilation, before] = [&s.strides, &s.dilations, &s.before].map(|v| v[axis]);
        let input_row = s.input[axis + 1..].iter().product::<usize>();
        let sums_row = s.output[axis + 1..s.last()].iter().product::<usize>() * s.row();
        b.each(s.kernel[axis], |b, k| {
            // Pixel p adds to row p·stride + offset.
            let offset = b.mul_int(k, dilation as i64);
            let offset = b.add_int(offset, -(before as i64));
            let (zero, size) = (b.index(0), b.index(s.input[axis]));
            let missing = b.sub(zero, offset);
            let from = steps(b, missing, stride);
            let end = b.index(s.output[axis]);
            let left = b.sub(end, offset);
            let to = steps(b, left, stride);
            let to = b.bin(Bin::MinS, to, size);
            let cols = b.element(cols, k, inner_taps * pixels * bytes);
            b.for_range(from, to, 1, &[], |b, p, _| {
                let cols = b.element(cols, p, input_row * bytes);
                let row = b.mul_int(p, stride as i64);
                let row = b.add(row, offset);
                let sums = b.element(sums, row, sums_row * bytes);
                self.axis(b, axis + 1, cols, sums);
                vec![]
            });
        });
    }

    /// Adds a row of pixels at column `k` of the kernel to their phase of a row of sums.
    fn row(&self, b: &mut Builder, k: usize, cols: Val, sums: Val) {
        let s = self.s;
        let (axis, bytes) = (s.last(), self.ty.elem.bytes());
        let (stride, width) = (s.strides[axis] as i64, s.output[axis] as i64);
        let offset = (k * s.dilations[axis]) as i64 - s.before[axis] as i64;
        let (phase, shift) = (offset.rem_euclid(stride), offset.div_euclid(stride));
        // Pixels of the phase that exist, and pixels of the input that reach them.
        let exist = (width - phase + stride - 1).div_euclid(stride).max(0);
        let from = (-shift).max(0);
        let to = (s.input[axis] as i64).min(exist - shift);
        if to <= from {
            return;
        }
        let cols = b.offset_int(cols, from * bytes as i64);
        let sums = b.offset_int(sums, (phase * s.phase() as i64 + from + shift) * bytes as i64);
        loops::each_element(b, &[cols, sums], (to - from) as usize, self.ty, |b, at, i, n| {
            let disp = (i * bytes) as i32;
            let x = b.load_part(self.ty, at[0], disp, n);
            let y = b.load_part(self.ty, at[1], disp, n);
            let y = b.add(x, y);
            b.store_part(y, at[1], disp, n);
        });
    }
}

/// How many steps of `by` reach `value`: 0 for negative ones.
fn steps(b: &mut Builder, value: Val, by: usize) -> Val {
    let zero = b.index(0);
    let value = b.bin(Bin::MaxS, value, zero);
    let value = b.add_int(value, by as i64 - 1);
    loops::divmod(b, value, by).0
}

/// Stores a plane of sums: rows of phases become rows of pixels.
fn finish(b: &mut Builder, s: &Shape, mac: Mac, rows: usize, sums: Val, out: &Output) {
    let bytes = mac.bytes();
    let (width, stride, phase) = (s.output[s.last()], s.strides[s.last()], s.phase());
    let lanes = mac.lanes();
    let zero = b.index(0);
    let store = |b: &mut Builder, row: Val, x: Val, value: Val, count: usize| {
        let at = b.mul_int(row, width as i64);
        let at = b.add(at, x);
        let out = Output { base: b.add(out.base, at), extras: out.extras.clone(), ..*out };
        out.store(b, zero, zero, Tile { rows: 1, vecs: 1 }, count, &[value]);
    };
    b.each(rows, |b, row| {
        let sums = b.element(sums, row, s.row() * bytes);
        // A vector of pixels takes turns in the phases.
        let together = lanes.is_multiple_of(stride);
        let step = if together { lanes } else { stride };
        let group = |b: &mut Builder, x: Val, count: usize| {
            let (m, _) = loops::divmod(b, x, stride);
            let at = b.element(sums, m, bytes);
            if !together {
                for r in 0..count {
                    let v = b.load(Ty::scalar(mac.ty.elem), at, (r * phase * bytes) as i32);
                    let x = b.add_int(x, r as i64);
                    store(b, row, x, v, 1);
                }
                return;
            }
            if stride == 1 {
                let v = b.load_part(mac.ty, at, 0, count);
                return store(b, row, x, v, count);
            }
            let mut v = b.int(mac.ty, 0);
            for lane in 0..count {
                let one = b.load(Ty::scalar(mac.ty.elem), at, ((lane % stride * phase + lane / stride) * bytes) as i32);
                v = b.insert(v, one, lane as u8);
            }
            store(b, row, x, v, count);
        };
        let whole = b.index(width / step * step);
        b.for_range(zero, whole, step as i64, &[], |b, x, _| {
            group(b, x, step);
            vec![]
        });
        if width % step > 0 {
            group(b, whole, width % step);
        }
    });
}
