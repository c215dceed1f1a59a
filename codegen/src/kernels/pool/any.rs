//! Windows of any type, rank, size and layout: loops over positions and over the elements of each window that exist.

use super::shape::{Pool, Shape};
use crate::kernels::lib::gemm::Mac;
use crate::kernels::lib::loops;
use crate::kernels::lib::store::Output;
use crate::kernels::lib::window;
use crate::math;
use crate::schedule::{self, Tile};
use crate::unit::{Arg, Lowered, LoweredCall, Unit};
use dnnc_ir::Type;
use dnnc_kir::{Bin, Builder, Cmp, Conv, Ty, Val};

pub fn lower(unit: &Unit, s: &Shape) -> Result<Lowered, String> {
    let from = unit.inputs[0].ty.ty;
    let mac = Mac::new(from, unit.target)?;
    let block = s.block.max(1);
    // A block of channels is one vector, several, or as many single numbers.
    let lanes = match s.pool {
        Pool::ArgMax { .. } => 1,
        _ if block.is_multiple_of(mac.lanes()) => mac.lanes(),
        _ => 1,
    };
    let tasks = schedule::tasks(unit.options, (s.planes * block * s.pixels() * s.taps()) as u64, s.planes);
    let mut args = vec![Arg::Input(0)];
    args.extend(Output::args(unit));
    let mut builder = Builder::new("pool", args.len());
    let b = &mut builder;
    let plane_elements = s.input.iter().product::<usize>() * block;
    window::for_images(b, tasks, s.planes, |b, plane| {
        let (_, channel) = loops::divmod(b, plane, s.channels);
        let x = b.param(0);
        let x = b.element(x, plane, plane_elements * from.bytes());
        let base = b.mul_int(plane, (s.pixels() * block) as i64);
        let first_channel = b.mul_int(channel, block as i64);
        let first_index = b.mul_int(plane, plane_elements as i64);
        let ty = Ty::vector(mac.ty.elem, lanes as u8);
        let loops = Loops { s, mac, from, ty, block, unit, base, first_channel, first_index };
        loops.positions(b, 0, x, vec![]);
    });
    Ok(Lowered { calls: vec![LoweredCall { func: builder.finish(), args, tasks }], ..Lowered::default() })
}

/// One plane of an image.
struct Loops<'a> {
    s: &'a Shape,
    /// How elements are read.
    mac: Mac,
    from: Type,
    /// What is computed at once.
    ty: Ty,
    block: usize,
    unit: &'a Unit<'a>,
    /// Index of the plane's first element in the result, its first channel, and the index of its first element in the input.
    base: Val,
    first_channel: Val,
    first_index: Val,
}

/// The elements of a window along an axis.
struct Range {
    /// Position in the result.
    position: Val,
    /// Index in the input of the element that number 0 would have.
    start: Val,
    /// The first element that exists, and the end.
    from: Val,
    to: Val,
}

impl Loops<'_> {
    fn positions(&self, b: &mut Builder, axis: usize, x: Val, ranges: Vec<Range>) {
        let s = self.s;
        if axis == s.output.len() {
            return b.each(self.block / self.ty.lanes as usize, |b, part| self.window(b, x, &ranges, part));
        }
        b.each(s.output[axis], |b, position| {
            let start = b.mul_int(position, s.strides[axis] as i64);
            let start = b.add_int(start, -(s.before[axis] as i64));
            let zero = b.index(0);
            let size = b.index(s.input[axis]);
            let dilation = s.dilations[axis];
            let missing = b.sub(zero, start);
            let from = self.ceil_div(b, missing, dilation);
            let left = b.sub(size, start);
            let to = self.ceil_div(b, left, dilation);
            let end = b.index(s.kernel[axis]);
            let (from, to) = (b.bin(Bin::MinS, from, end), b.bin(Bin::MinS, to, end));
            let ranges = ranges.iter().map(|r| Range { ..*r }).chain([Range { position, start, from, to }]).collect();
            self.positions(b, axis + 1, x, ranges);
        });
    }

    /// How many steps of `by` reach `value`: 0 for negative ones.
    fn ceil_div(&self, b: &mut Builder, value: Val, by: usize) -> Val {
        let zero = b.index(0);
        let value = b.bin(Bin::MaxS, value, zero);
        let value = b.add_int(value, by as i64 - 1);
        loops::divmod(b, value, by).0
    }

    /// Elements from one of an axis to the next.
    fn stride(&self, axis: usize) -> usize {
        self.s.input[axis + 1..].iter().product::<usize>() * self.block
    }

    fn window(&self, b: &mut Builder, x: Val, ranges: &[Range], part: Val) {
        let s = self.s;
        let lane = b.mul_int(part, self.ty.lanes as i64);
        let at = b.element(x, lane, self.from.bytes());
        let none = b.int(Ty::I64, -1);
        let init = match s.pool {
            Pool::Mean { .. } => vec![b.int(self.ty, 0)],
            Pool::Max => vec![self.lowest(b)],
            Pool::ArgMax { .. } => vec![self.lowest(b), none],
        };
        let acc = self.taps(b, 0, at, self.first_index, ranges, init);
        let result = match s.pool {
            Pool::Max => acc[0],
            Pool::ArgMax { .. } => acc[1],
            Pool::Mean { include_pad } => {
                let count = self.count(b, ranges, include_pad);
                let count = b.conv(Conv::IntToFloat, count, self.ty.elem);
                let count = b.splat(count, self.ty.lanes);
                b.div(acc[0], count)
            }
        };
        let mut out = Output::new(b, self.unit, 1, self.ty.lanes as usize, self.block);
        out.base = b.add(self.base, lane);
        out.channel.1 = b.add(self.first_channel, lane);
        let mut pixel = b.index(0);
        for (axis, r) in ranges.iter().enumerate() {
            pixel = b.mul_int(pixel, s.output[axis] as i64);
            pixel = b.add(pixel, r.position);
        }
        let zero = b.index(0);
        out.store(b, pixel, zero, Tile { rows: 1, vecs: 1 }, self.ty.lanes as usize, &[result]);
    }

    /// Elements of a window that count for a mean, at least 1.
    fn count(&self, b: &mut Builder, ranges: &[Range], include_pad: bool) -> Val {
        let mut count = b.index(1);
        let zero = b.index(0);
        for (axis, r) in ranges.iter().enumerate() {
            let here = if include_pad {
                let end = b.index(self.s.input[axis] + self.s.after[axis]);
                let left = b.sub(end, r.start);
                let to = self.ceil_div(b, left, self.s.dilations[axis]);
                let kernel = b.index(self.s.kernel[axis]);
                b.bin(Bin::MinS, to, kernel)
            } else {
                let n = b.sub(r.to, r.from);
                b.bin(Bin::MaxS, n, zero)
            };
            count = b.mul(count, here);
        }
        let one = b.index(1);
        b.bin(Bin::MaxS, count, one)
    }

    /// The elements of a window from axis `axis` on; `index` counts the elements of the input in the order that results use.
    fn taps(&self, b: &mut Builder, axis: usize, at: Val, index: Val, ranges: &[Range], acc: Vec<Val>) -> Vec<Val> {
        let s = self.s;
        if axis == ranges.len() {
            return self.tap(b, at, index, &acc);
        }
        let r = &ranges[axis];
        let step = (s.dilations[axis] * self.stride(axis) * self.from.bytes()) as i64;
        let index_stride = match s.pool {
            Pool::ArgMax { column_major: true } => s.input[..axis].iter().product::<usize>(),
            _ => self.stride(axis),
        };
        b.for_range(r.from, r.to, 1, &acc, |b, k, acc| {
            let element = b.mul_int(k, s.dilations[axis] as i64);
            let element = b.add(element, r.start);
            let index_here = b.mul_int(element, index_stride as i64);
            let index = b.add(index, index_here);
            let first = b.element(at, r.start, self.stride(axis) * self.from.bytes());
            let moved = b.mul_int(k, step);
            let at = b.offset(first, moved);
            self.taps(b, axis + 1, at, index, ranges, acc.to_vec())
        })
    }

    fn tap(&self, b: &mut Builder, at: Val, index: Val, acc: &[Val]) -> Vec<Val> {
        let x = self.mac.load(b, self.ty.lanes, at, 0, self.ty.lanes as usize);
        match self.s.pool {
            Pool::Mean { .. } => vec![b.add(acc[0], x)],
            Pool::Max if self.ty.elem.is_float() => vec![math::max(b, acc[0], x)],
            Pool::Max => vec![b.bin(if self.is_unsigned() { Bin::MaxU } else { Bin::MaxS }, acc[0], x)],
            Pool::ArgMax { .. } => {
                // Taken when it is the first, or larger, or the first NaN: `!(x <= best)` holds for the last two unless best is a NaN.
                let zero = b.index(0);
                let first = b.cmp(Cmp::Lt, acc[1], zero);
                let take = |_: &mut Builder| vec![x, index];
                b.branch(first, take, |b| {
                    let le = if self.is_unsigned() { Cmp::LeU } else { Cmp::Le };
                    let keeps = b.cmp(le, x, acc[0]);
                    let keep = |_: &mut Builder| acc.to_vec();
                    b.branch(keeps, keep, |b| {
                        let known = b.cmp(Cmp::Ne, acc[0], acc[0]);
                        b.branch(known, keep, take)
                    })
                })
            }
        }
    }

    fn is_unsigned(&self) -> bool {
        matches!(self.from, Type::U32 | Type::U64)
    }

    /// The least number of the type.
    fn lowest(&self, b: &mut Builder) -> Val {
        if self.ty.elem.is_float() {
            return b.number(self.ty, f64::NEG_INFINITY);
        }
        let lowest = match self.from {
            Type::I8 => i64::from(i8::MIN),
            Type::I16 => i64::from(i16::MIN),
            Type::I32 => i64::from(i32::MIN),
            Type::I64 => i64::MIN,
            _ => 0,
        };
        b.int(self.ty, lowest)
    }
}
