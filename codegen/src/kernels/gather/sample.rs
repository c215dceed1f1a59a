//! Values between the elements of images: grid_sample and roi_align.

use crate::expr::{load_element, register, store_element};
use crate::kernels::lib::nest::{self, Axis};
use crate::math::{self, number};
use crate::unit::{Arg, LoweredCall, Unit};
use dnnc_ir::Type;
use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Ty, Un, Val};
use dnnc_runtime::abi;

/// An integer (as a float) as an index into an axis, wherever it lies.
fn index(b: &mut Builder, v: Val, size: usize) -> Val {
    let (zero, last) = (b.index(0), b.index(size - 1));
    let i = b.conv(Conv::FloatToInt, v, Elem::I64);
    let i = b.bin(Bin::MaxS, i, zero);
    b.bin(Bin::MinS, i, last)
}

fn both(b: &mut Builder, x: Val, y: Val) -> Val {
    b.bin(Bin::And, x, y)
}

/// The taps of a place are computed once for all channels.
pub(super) fn grid_sample(unit: &Unit) -> LoweredCall {
    let (x, grid, y) = (&unit.inputs[0].ty, &unit.inputs[1].ty, &unit.results[0]);
    let sizes = &x.shape[2..];
    let (axes, plane) = (sizes.len(), sizes.iter().product::<usize>());
    let places: usize = y.shape[2..].iter().product();
    let channels = x.shape[1];
    let (width, of_grid) = (x.ty.bytes(), grid.ty.bytes());
    let sampler = Sampler {
        mode: unit.op.attrs.word("mode"),
        padding: unit.op.attrs.word("padding"),
        align_corners: unit.op.attrs.flag("align_corners"),
        elem: register(x.ty),
    };
    // Pointers: x, grid, result.
    let bytes = |s: [usize; 3]| s.map(|v| v as i64).to_vec();
    let images = Axis { size: x.shape[0], strides: bytes([channels * plane * width, places * axes * of_grid, channels * places * width]) };
    let spots = Axis { size: places, strides: bytes([0, axes * of_grid, width]) };
    let planes = Axis { size: channels, strides: bytes([plane * width, 0, places * width]) };
    let weight = 8 * axes * 4usize.pow(axes as u32);
    let (parts, tasks) = nest::cut(&[images.size, places], nest::tasks(y.len(), weight, unit.options.threads));
    let mut b = Builder::new("grid_sample", 3);
    let pointers: Vec<Val> = (0..3).map(|i| b.param(i)).collect();
    nest::nest(&mut b, &[(&images, parts[0]), (&spots, parts[1])], &pointers, &mut |b, p| {
        // Offset in bytes and weight of each tap. The grid names the last axis first.
        let start = (b.index(0), b.number(Ty::scalar(sampler.elem), 1.0));
        let mut taps = vec![start];
        let mut stride = plane * width;
        for (axis, &size) in sizes.iter().enumerate() {
            stride /= size;
            let place = load_element(b, grid.ty, p[1], ((axes - 1 - axis) * of_grid) as i32, 1, 1);
            let along = sampler.taps(b, place, size);
            let along: Vec<(Val, Val)> = along.into_iter().map(|(i, w)| (b.mul_int(i, stride as i64), w)).collect();
            let mut all = vec![];
            for &(at, w) in &taps {
                all.extend(along.iter().map(|&(i, v)| (b.add(at, i), b.mul(w, v))));
            }
            taps = all;
        }
        nest::nest(b, &[(&planes, nest::Part::All)], p, &mut |b, p| {
            let mut sum = b.number(Ty::scalar(sampler.elem), 0.0);
            for &(at, w) in &taps {
                let from = b.offset(p[0], at);
                let v = load_element(b, x.ty, from, 0, 1, 1);
                sum = b.fma(v, w, sum);
            }
            store_element(b, x.ty, sum, p[2], 0, 1);
        });
    });
    LoweredCall { func: b.finish(), args: vec![Arg::Input(0), Arg::Input(1), Arg::Output(0)], tasks }
}

/// How grid_sample reads one axis.
struct Sampler {
    mode: &'static str,
    padding: &'static str,
    align_corners: bool,
    /// Type that is computed in.
    elem: Elem,
}

impl Sampler {
    /// Index and weight of the elements that make up the value at `place` (−1 … 1) of an axis; those outside weigh nothing.
    fn taps(&self, b: &mut Builder, place: Val, size: usize) -> Vec<(Val, Val)> {
        let n = size as f64;
        let (low, high) = if self.align_corners { (0.0, n - 1.0) } else { (-0.5, n - 0.5) };
        let (one, half, minus) = (number(b, place, 1.0), number(b, place, 0.5), number(b, place, -1.0));
        let (length, last) = (number(b, place, n), number(b, place, n - 1.0));
        let up = b.add(place, one);
        let mut at = if self.align_corners {
            let t = b.mul(up, half);
            b.mul(t, last)
        } else {
            let t = b.mul(up, length);
            let t = b.add(t, minus);
            b.mul(t, half)
        };
        if b.ty(at).elem != self.elem {
            at = b.conv(Conv::FloatToFloat, at, self.elem);
        }
        if self.mode == "nearest" {
            at = b.un(Un::Nearest, at);
        }
        let at = match self.padding {
            "border" => {
                // Only places beyond half an element from the edge move to it: the others have taps that do.
                let inside = self.inside(b, at, low, high);
                let edge = math::clamp(b, at, 0.0, n - 1.0);
                b.select(inside, at, edge)
            }
            "reflection" => self.reflect(b, at, low, high),
            _ => at,
        };
        let base = b.un(Un::Floor, at);
        let base = math::clamp(b, base, -1e15, 1e15);
        let t = b.sub(at, base);
        let (first, weights) = self.weights(b, base, t);
        weights
            .into_iter()
            .enumerate()
            .map(|(k, w)| {
                let offset = number(b, first, k as f64);
                let i = b.add(first, offset);
                match self.padding {
                    "border" => (index(b, i, size), w),
                    "reflection" => {
                        let i = self.reflect(b, i, low, high);
                        (index(b, i, size), w)
                    }
                    _ => {
                        let inside = self.inside(b, i, 0.0, n - 1.0);
                        let zero = number(b, w, 0.0);
                        (index(b, i, size), b.select(inside, w, zero))
                    }
                }
            })
            .collect()
    }

    fn inside(&self, b: &mut Builder, v: Val, low: f64, high: f64) -> Val {
        let (low, high) = (number(b, v, low), number(b, v, high));
        let (above, below) = (b.cmp(Cmp::Ge, v, low), b.cmp(Cmp::Le, v, high));
        both(b, above, below)
    }

    /// First element and the weights from it on, for the whole part and the rest of a place.
    fn weights(&self, b: &mut Builder, base: Val, t: Val) -> (Val, Vec<Val>) {
        let (one, two) = (number(b, t, 1.0), number(b, t, 2.0));
        match self.mode {
            "nearest" => (base, vec![one]),
            "linear" => (base, vec![b.sub(one, t), t]),
            _ => {
                // Keys' cubic with a = −3/4.
                let outer = |b: &mut Builder, x: Val| math::poly(b, x, &[-0.75, 3.75, -6.0, 3.0]);
                let inner = |b: &mut Builder, x: Val| math::poly(b, x, &[1.25, -2.25, 0.0, 1.0]);
                let (t1, u, u1) = (b.add(t, one), b.sub(one, t), b.sub(two, t));
                (b.sub(base, one), vec![outer(b, t1), inner(b, t), inner(b, u), outer(b, u1)])
            }
        }
    }

    /// `x` mirrored at the two ends until it lies between them.
    fn reflect(&self, b: &mut Builder, x: Val, low: f64, high: f64) -> Val {
        let range = high - low;
        let (low_v, high_v) = (number(b, x, low), number(b, x, high));
        if range <= 0.0 {
            return low_v;
        }
        let (range, half, zero) = (number(b, x, range), number(b, x, 0.5), number(b, x, 0.0));
        let (below, above) = (b.sub(low_v, x), b.sub(x, high_v));
        let beyond = b.max(below, above);
        let turns = b.div(beyond, range);
        let turns = b.un(Un::Trunc, turns);
        let minus = b.un(Un::Neg, turns);
        let rest = b.fma(minus, range, beyond);
        // Even numbers of turns end on the side where they began.
        let halved = b.mul(turns, half);
        let whole = b.un(Un::Trunc, halved);
        let even = b.cmp(Cmp::Eq, halved, whole);
        let from_low = b.cmp(Cmp::Lt, x, low_v);
        let differ = b.bin(Bin::Xor, even, from_low);
        let (up, down) = (b.add(low_v, rest), b.sub(high_v, rest));
        let mirrored = b.select(differ, down, up);
        let outside = b.cmp(Cmp::Gt, beyond, zero);
        b.select(outside, mirrored, x)
    }
}

/// Samples a bin and axis when a box asks for more than any image has.
const MOST_SAMPLES: f64 = 65536.0;
/// Channels that share the computation of a sample's place.
const CHANNELS: usize = 8;

/// For each box and bin, samples in two loops, of some channels at once.
pub(super) fn roi_align(unit: &Unit) -> LoweredCall {
    let (x, op) = (&unit.inputs[0].ty, unit.op);
    let [images, channels, height, width] = [0, 1, 2, 3].map(|i| x.shape[i]);
    let [out_h, out_w] = ["out_h", "out_w"].map(|name| op.attrs.size(name));
    let boxes = unit.inputs[1].ty.shape[0];
    let kernel = Boxes {
        ty: x.ty,
        reg: Ty::scalar(register(x.ty)),
        size: [height, width],
        out: [out_h, out_w],
        ratio: op.attrs.size("ratio"),
        scale: op.attrs.float("scale"),
        half_pixel: op.attrs.flag("half_pixel"),
        max: op.attrs.word("mode") == "max",
    };
    let bytes = x.ty.bytes();
    // Pointers: rois, batch, result.
    let row = Axis { size: boxes, strides: vec![4 * bytes as i64, 8, (channels * out_h * out_w * bytes) as i64] };
    let (parts, tasks) = nest::cut(&[boxes], nest::tasks(unit.results[0].len(), 400, unit.options.threads));
    let mut b = Builder::new("roi_align", 4);
    let x_ptr = b.param(0);
    let pointers: Vec<Val> = (1..4).map(|i| b.param(i)).collect();
    nest::nest(&mut b, &[(&row, parts[0])], &pointers, &mut |b, p| {
        let image = b.load(Ty::I64, p[1], 0);
        let count = b.index(images);
        let outside = b.cmp(Cmp::GeU, image, count);
        b.when(outside, |b| b.fail(abi::INDEX));
        let from = b.element(x_ptr, image, channels * height * width * bytes);
        let h = kernel.axis(b, p[0], 0);
        let w = kernel.axis(b, p[0], 1);
        let whole = channels / CHANNELS * CHANNELS;
        for (first, size, group) in [(0, whole, CHANNELS), (whole, channels - whole, channels - whole)] {
            let axis = Axis { size, strides: [height * width, out_h * out_w].map(|n| (n * bytes) as i64).to_vec() };
            let start = nest::at(b, &axis, &[from, p[2]], first);
            nest::walk(b, &axis, (nest::Index::Known(0), nest::Index::Known(size)), group, &start, &[], &mut |b, q, _| {
                kernel.bins(b, q[0], q[1], h, w, group);
                vec![]
            });
        }
    });
    LoweredCall { func: b.finish(), args: vec![Arg::Input(0), Arg::Input(1), Arg::Input(2), Arg::Output(0)], tasks }
}

struct Boxes {
    ty: Type,
    reg: Ty,
    size: [usize; 2],
    out: [usize; 2],
    ratio: usize,
    scale: f64,
    half_pixel: bool,
    max: bool,
}

/// A box along an axis: where it begins, how long a bin is, samples a bin as a float and as a count.
#[derive(Clone, Copy)]
struct Along {
    start: Val,
    bin: Val,
    samples: Val,
    count: Val,
}

impl Boxes {
    /// The box at `roi` (x, y, x, y) along the rows (0) or the columns (1).
    fn axis(&self, b: &mut Builder, roi: Val, which: usize) -> Along {
        let bytes = self.ty.bytes();
        let offset = b.number(self.reg, if self.half_pixel { -0.5 } else { 0.0 });
        let scale = b.number(self.reg, self.scale);
        let [start, end] = [1 - which, 3 - which].map(|i| {
            let v = load_element(b, self.ty, roi, (i * bytes) as i32, 1, 1);
            let v = b.mul(v, scale);
            b.add(v, offset)
        });
        let mut length = b.sub(end, start);
        if !self.half_pixel {
            // A box is at least one pixel large.
            length = math::clamp(b, length, 1.0, f64::INFINITY);
        }
        let parts = b.number(self.reg, self.out[which] as f64);
        let bin = b.div(length, parts);
        let samples = if self.ratio > 0 {
            b.number(self.reg, self.ratio as f64)
        } else {
            let up = b.un(Un::Ceil, bin);
            let zero = b.number(self.reg, 0.0);
            b.max(up, zero)
        };
        let most = b.number(self.reg, MOST_SAMPLES);
        let many = b.cmp(Cmp::Gt, samples, most);
        b.when(many, |b| b.fail(abi::SIZE));
        let count = b.conv(Conv::FloatToInt, samples, Elem::I64);
        Along { start, bin, samples, count }
    }

    /// All bins of `group` channels from `from` on.
    fn bins(&self, b: &mut Builder, from: Val, to: Val, h: Along, w: Along, group: usize) {
        let bytes = self.ty.bytes();
        let (zero, one) = (b.index(0), b.number(self.reg, 1.0));
        let nothing = b.number(self.reg, 0.0);
        let start = b.number(self.reg, if self.max { f64::NEG_INFINITY } else { 0.0 });
        let total = b.mul(h.samples, w.samples);
        let none = b.cmp(Cmp::Eq, total, nothing);
        let share = b.div(one, total);
        b.for_count(self.out[0], &[], |b, ph, _| {
            b.for_count(self.out[1], &[], |b, pw, _| {
                let sums = b.for_range(zero, h.count, 1, &vec![start; group], |b, iy, sums| {
                    let y = self.place(b, h, ph, iy);
                    b.for_range(zero, w.count, 1, sums, |b, ix, sums| {
                        let x = self.place(b, w, pw, ix);
                        self.sample(b, from, y, x, sums)
                    })
                });
                let row = b.mul_int(ph, self.out[1] as i64);
                let at = b.add(row, pw);
                let to = b.element(to, at, bytes);
                for (c, sum) in sums.into_iter().enumerate() {
                    let v = if self.max { sum } else { b.mul(sum, share) };
                    let v = b.select(none, nothing, v);
                    let (to, disp) = nest::place(b, to, (c * self.out[0] * self.out[1] * bytes) as i64);
                    store_element(b, self.ty, v, to, disp, 1);
                }
                vec![]
            });
            vec![]
        });
    }

    /// start + bin·p + (i + ½)·bin/samples.
    fn place(&self, b: &mut Builder, along: Along, p: Val, i: Val) -> Val {
        let half = b.number(self.reg, 0.5);
        let (p, i) = (b.conv(Conv::IntToFloat, p, self.reg.elem), b.conv(Conv::IntToFloat, i, self.reg.elem));
        let at = b.fma(p, along.bin, along.start);
        let i = b.add(i, half);
        let step = b.mul(i, along.bin);
        let step = b.div(step, along.samples);
        b.add(at, step)
    }

    /// Lower and upper neighbour of a place and the weight of the upper one; whether the place is in the image.
    fn neighbours(&self, b: &mut Builder, v: Val, size: usize) -> (Val, Val, Val, Val) {
        let (least, most) = (b.number(self.reg, -1.0), b.number(self.reg, size as f64));
        let (above, below) = (b.cmp(Cmp::Ge, v, least), b.cmp(Cmp::Le, v, most));
        let inside = both(b, above, below);
        let v = math::clamp(b, v, 0.0, (size - 1) as f64);
        let low = b.conv(Conv::FloatToInt, v, Elem::I64);
        let last = b.index(size - 1);
        let low = b.bin(Bin::MinS, low, last);
        let high = b.add_int(low, 1);
        let high = b.bin(Bin::MinS, high, last);
        let whole = b.conv(Conv::IntToFloat, low, self.reg.elem);
        (low, high, b.sub(v, whole), inside)
    }

    /// The bilinear sample at a place, of each channel, added to its sum or its maximum.
    fn sample(&self, b: &mut Builder, from: Val, y: Val, x: Val, sums: &[Val]) -> Vec<Val> {
        let [height, width] = self.size;
        let (y0, y1, ty, in_y) = self.neighbours(b, y, height);
        let (x0, x1, tx, in_x) = self.neighbours(b, x, width);
        let inside = both(b, in_y, in_x);
        let (one, zero) = (b.number(self.reg, 1.0), b.number(self.reg, 0.0));
        let (uy, ux) = (b.sub(one, ty), b.sub(one, tx));
        let corners = [(y0, x0, uy, ux), (y0, x1, uy, tx), (y1, x0, ty, ux), (y1, x1, ty, tx)].map(|(y, x, wy, wx)| {
            let w = b.mul(wy, wx);
            let w = b.select(inside, w, zero);
            let row = b.mul_int(y, width as i64);
            let at = b.add(row, x);
            (b.element(from, at, self.ty.bytes()), w)
        });
        let plane = (height * width * self.ty.bytes()) as i64;
        sums.iter()
            .enumerate()
            .map(|(c, &sum)| {
                corners.iter().fold(sum, |sum, &(at, w)| {
                    let (at, disp) = nest::place(b, at, c as i64 * plane);
                    let v = load_element(b, self.ty, at, disp, 1, 1);
                    if self.max {
                        let v = b.mul(v, w);
                        b.max(sum, v)
                    } else {
                        b.fma(v, w, sum)
                    }
                })
            })
            .collect()
    }
}
