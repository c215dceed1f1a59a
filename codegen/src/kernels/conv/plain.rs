//! Convolution of images of any rank and type: rows of weights times panels of pixels.
//!
//! A padded input is first copied between zeros, so that no read needs a check. Each panel of pixels is gathered once and used for all output
//! channels: the reduction then runs over contiguous weights and a contiguous panel.

use super::shape::Shape;
use crate::expr::memory;
use crate::kernels::lib::gemm::{self, KBlock, Mac, Nest, Pointers, Source};
use crate::kernels::lib::loops::{self, Memory};
use crate::kernels::lib::store::{self, Channel, Output};
use crate::schedule::{self, Tile};
use crate::unit::{Arg, Lowered, LoweredCall, Unit};
use dnnc_kir::{Bin, Builder, Cmp, Ty, Val};

/// Predicted nanoseconds: pixels are gathered for the outputs of a group, which are a register full or fewer.
pub fn predicted_ns(unit: &Unit, s: &Shape) -> f64 {
    /// Share of the peak that a register full of outputs reaches.
    const EFFICIENCY: f64 = 0.12;
    let lanes = schedule::lanes(&unit.target.vector, 4) as f64;
    let efficiency = EFFICIENCY * (s.group_outputs as f64 / lanes).clamp(0.1, 1.0);
    unit.work() / (unit.target.peak_macs() / 1e9 * efficiency)
}

pub fn lower(unit: &Unit) -> Result<Lowered, String> {
    let s = &Shape::new(unit);
    let (x_ty, w_ty) = (unit.inputs[0].ty.ty, unit.inputs[1].ty.ty);
    let mac = Mac::new(w_ty, unit.target)?;
    let steps = s.group_channels * s.kernel.iter().product::<usize>();
    let (pixels, batches) = (s.pixels(), s.batch * s.groups);
    let work = (s.batch * s.outputs * pixels) as u64 * steps as u64;
    let parts = schedule::tasks(unit.options, work, usize::MAX);
    let batch_parts = parts.min(batches);
    // Rows of weights are read straight through for each panel: blocks of them would gather panels again. Tasks share no panel.
    let mut nest =
        Nest::new(mac, unit.target, s.group_outputs, pixels, gemm::straight(steps, w_ty.bytes() as i64), 0, 1).packed_at_runtime();
    nest.panel_parts = (parts / batch_parts).clamp(1, nest.groups.iter().map(|g| g.0.panels).max().unwrap_or(1));
    let high = nest.groups.iter().map(|(_, r)| r.high).max().unwrap_or(1);
    loops::reachable(high * pixels, store::widest_element(unit))?;
    loops::reachable(high * steps, w_ty.bytes())?;

    let mut lowered = Lowered::default();
    let padded = (0..s.input.len()).any(|axis| s.is_padded(axis));
    let mut args = vec![Arg::Input(0), Arg::Input(1)];
    let mut sizes = s.input.clone();
    if padded {
        sizes = (0..s.input.len()).map(|axis| s.extent(axis)).collect();
        lowered.scratch.push(s.batch * s.channels * sizes.iter().product::<usize>() * x_ty.bytes());
        lowered.calls.push(pad(unit, s, &sizes));
        args[0] = Arg::Scratch(0);
    }
    let bias = unit.inputs.get(2).map(|_| args.push(Arg::Input(2)));
    let out_at = args.len();
    args.extend(Output::args(unit));
    let tasks = batch_parts * nest.tasks();
    let panel_bytes = nest.groups.iter().map(|(g, _)| nest.one_panel_bytes(g)).max().unwrap_or(0);
    let mut memory = Memory::default();
    let panel = memory.add(&mut lowered, &mut args, panel_bytes, tasks);

    let loads = Mac::new(x_ty, unit.target)?;
    let bias_loads = unit.inputs.get(2).map(|x| Mac::new(x.ty.ty, unit.target)).transpose()?;
    let mut builder = Builder::new("conv", args.len());
    let b = &mut builder;
    let task = b.task();
    let (batch_part, part) = loops::divmod(b, task, nest.tasks());
    let (from, to) = loops::part_range(b, batch_part, batch_parts, batches);
    loops::for_some(b, from, to, batches, |b, batch| {
        let (_, group) = loops::divmod(b, batch, s.groups);
        let panel = memory.piece(b, panel, task).unwrap_or(task);
        let mut out = Output::new(b, unit, out_at, mac.lanes(), pixels);
        out.base = b.mul_int(batch, (s.group_outputs * pixels) as i64);
        let first_channel = b.mul_int(group, s.group_outputs as i64);
        out.channel = (Channel::Row, first_channel);
        let (x, w) = (b.param(0), b.param(1));
        let x = b.element(x, batch, s.group_channels * sizes.iter().product::<usize>() * x_ty.bytes());
        let w = b.element(w, group, s.group_outputs * steps * w_ty.bytes());
        let bias = bias.map(|()| {
            let bias = b.param(2);
            b.element(bias, first_channel, unit.inputs[2].ty.ty.bytes())
        });
        let sides = Sides { s, nest: &nest, sizes: &sizes, loads, steps, x, w, panel, bias: bias.zip(bias_loads) };
        nest.emit(b, part, &sides, &out, None);
    });
    lowered.calls.push(LoweredCall { func: builder.finish(), args, tasks });
    Ok(lowered)
}

/// Copies the input between zeros: one task an image.
fn pad(unit: &Unit, s: &Shape, sizes: &[usize]) -> LoweredCall {
    let bytes = unit.inputs[0].ty.ty.bytes();
    let ty = Ty::vector(memory(unit.inputs[0].ty.ty), schedule::lanes(&unit.target.vector, bytes) as u8);
    let mut builder = Builder::new("pad", 2);
    let b = &mut builder;
    let task = b.task();
    let [from, to] = [(0, &s.input[..]), (1, sizes)].map(|(param, sizes)| {
        let p = b.param(param);
        b.element(p, task, s.channels * sizes.iter().product::<usize>() * bytes)
    });
    b.each(s.channels, |b, channel| {
        let [from, to] =
            [(from, &s.input[..]), (to, sizes)].map(|(p, sizes)| b.element(p, channel, sizes.iter().product::<usize>() * bytes));
        pad_axes(b, ty, from, to, &s.input, sizes, &s.before);
    });
    LoweredCall { func: builder.finish(), args: vec![Arg::Input(0), Arg::Scratch(0)], tasks: s.batch }
}

fn pad_axes(b: &mut Builder, ty: Ty, from: Val, to: Val, input: &[usize], sizes: &[usize], before: &[usize]) {
    let zero = b.int(ty, 0);
    let bytes = ty.elem.bytes();
    let fill = |b: &mut Builder, to: Val, count: usize| {
        loops::each_element(b, &[to], count, ty, |b, at, i, n| b.store_part(zero, at[0], (i * bytes) as i32, n));
    };
    let left = before[0].min(sizes[0]);
    let inside = input[0].min(sizes[0] - left);
    if let ([_], [size]) = (input, sizes) {
        fill(b, to, left);
        let to = b.offset_int(to, (left * bytes) as i64);
        loops::each_element(b, &[from, to], inside, ty, |b, at, i, n| {
            let v = b.load_part(ty, at[0], (i * bytes) as i32, n);
            b.store_part(v, at[1], (i * bytes) as i32, n);
        });
        let to = b.offset_int(to, (inside * bytes) as i64);
        return fill(b, to, size - left - inside);
    }
    let [inner_from, inner_to] = [input, sizes].map(|s| s[1..].iter().product::<usize>());
    fill(b, to, left * inner_to);
    let middle = b.offset_int(to, (left * inner_to * bytes) as i64);
    b.each(inside, |b, i| {
        let from = b.element(from, i, inner_from * bytes);
        let to = b.element(middle, i, inner_to * bytes);
        pad_axes(b, ty, from, to, &input[1..], &sizes[1..], &before[1..]);
    });
    let to = b.offset_int(middle, (inside * inner_to * bytes) as i64);
    fill(b, to, (sizes[0] - left - inside) * inner_to);
}

/// Weights as rows, pixels as columns.
struct Sides<'a> {
    s: &'a Shape,
    nest: &'a Nest,
    /// Spatial sizes of the input, padding included.
    sizes: &'a [usize],
    /// How the input is read.
    loads: Mac,
    steps: usize,
    x: Val,
    w: Val,
    /// The task's memory for a panel.
    panel: Val,
    bias: Option<(Val, Mac)>,
}

impl Source for Sides<'_> {
    fn block(&self, b: &mut Builder, _first: Val, _end: Val, chunk: Option<KBlock>) -> Val {
        chunk.map_or(self.w, |chunk| chunk.skip(b, self.w))
    }

    fn rows(&self, b: &mut Builder, w: Val, first: Val, _count: usize) -> Pointers {
        let stride = self.steps * self.nest.mac.lhs.bytes();
        Pointers::Even(b.element(w, first, stride), stride as i64)
    }

    fn panel(&self, b: &mut Builder, group: usize, _index: Val, column: Val) -> (Val, i64) {
        let g = &self.nest.groups[group].0;
        let ty = self.nest.mac.ty;
        let step = g.vecs * ty.bytes();
        for j in 0..g.vecs {
            let first = b.add_int(column, (j * ty.lanes as usize) as i64);
            let to = b.offset_int(self.panel, (j * ty.bytes()) as i64);
            self.gather(b, first, to, step);
        }
        (self.panel, step as i64)
    }

    fn bias(&self, b: &mut Builder, row: Val, _column: Val, tile: Tile, _last: usize) -> Option<Vec<Val>> {
        let (bias, loads) = self.bias?;
        let bytes = loads.lhs.bytes();
        let bias = b.element(bias, row, bytes);
        let rows: Vec<Val> = (0..tile.rows).map(|i| loads.splat(b, self.nest.mac.ty, bias, (i * bytes) as i32)).collect();
        Some(rows.into_iter().flat_map(|v| (0..tile.vecs).map(move |_| v)).collect())
    }
}

impl Sides<'_> {
    /// Writes what the windows of one vector of pixels from pixel `first` read, `step` bytes from an element of the window to the next.
    fn gather(&self, b: &mut Builder, first: Val, to: Val, step: usize) {
        let (lanes, s) = (self.nest.mac.lanes(), self.s);
        let width = *s.output.last().expect("a spatial axis");
        let one_by_one = |b: &mut Builder| {
            b.each(lanes, |b, lane| {
                let pixel = b.add(first, lane);
                // Pixels behind the last are read again and not stored.
                let last = b.index(s.pixels() - 1);
                let pixel = b.bin(Bin::MinS, pixel, last);
                let from = self.window(b, pixel);
                let to = b.element(to, lane, self.nest.mac.bytes());
                self.walk(b, from, to, 1, step);
            });
        };
        if *s.strides.last().expect("a spatial axis") != 1 || lanes == 1 || width < lanes {
            return one_by_one(b);
        }
        let (_, x) = loops::divmod(b, first, width);
        let [last_x, last] = [width, s.pixels()].map(|n| b.index(n - lanes));
        let same_row = b.cmp(Cmp::Le, x, last_x);
        let exist = b.cmp(Cmp::Le, first, last);
        let together = b.bin(Bin::And, same_row, exist);
        b.branch(
            together,
            |b| {
                let from = self.window(b, first);
                self.walk(b, from, to, lanes, step);
                vec![]
            },
            |b| {
                one_by_one(b);
                vec![]
            },
        );
    }

    /// Address of the first element of the window of a pixel.
    fn window(&self, b: &mut Builder, pixel: Val) -> Val {
        let s = self.s;
        let (mut rest, mut at, mut stride) = (pixel, b.index(0), self.loads.lhs.bytes());
        for axis in (0..self.sizes.len()).rev() {
            let (outer, i) = if axis == 0 { (rest, rest) } else { loops::divmod(b, rest, s.output[axis]) };
            let step = b.mul_int(i, (s.strides[axis] * stride) as i64);
            at = b.add(at, step);
            (rest, stride) = (outer, stride * self.sizes[axis]);
        }
        b.offset(self.x, at)
    }

    /// Copies windows of `lanes` neighbouring pixels to a panel.
    fn walk(&self, b: &mut Builder, from: Val, to: Val, lanes: usize, step: usize) {
        let mut strides = vec![self.loads.lhs.bytes()];
        for size in self.sizes.iter().rev() {
            strides.insert(0, strides[0] * size);
        }
        let mut loops = vec![(self.s.group_channels, strides[0])];
        for axis in 0..self.sizes.len() {
            loops.push((self.s.kernel[axis], self.s.dilations[axis] * strides[axis + 1]));
        }
        self.walk_loops(b, from, to, &loops, lanes, step);
    }

    fn walk_loops(&self, b: &mut Builder, from: Val, to: Val, loops: &[(usize, usize)], lanes: usize, step: usize) -> Val {
        let Some((&(count, stride), inner)) = loops.split_first() else {
            let v = self.loads.load(b, lanes as u8, from, 0, lanes);
            b.store(v, to, 0);
            return b.offset_int(to, step as i64);
        };
        b.for_count(count, &[from, to], |b, _, at| {
            let to = self.walk_loops(b, at[0], at[1], inner, lanes, step);
            vec![b.offset_int(at[0], stride as i64), to]
        })[1]
    }
}
