//! Winograd's short convolutions: F(m, r) makes m×m pixels of an r×r kernel with (m + r − 1)² multiplications a channel instead of m²·r².
//!
//! Tiles of n = m + r − 1 pixels square, m apart, are transformed to n² numbers a channel; for each of the n² *points*, transformed tiles times
//! transformed weights is a product of its own; its n² numbers an output channel are transformed back to m×m pixels. All three transforms
//! evaluate or interpolate polynomials at a form's numbers ([`Form`]); the weights are transformed at compile time. A stride of 2 makes the even and the
//! odd pixels along an axis two convolutions of stride 1 with every other weight: each has its own points.
//!
//! Blocks of tiles go through all of it while they are in the second-level cache; where the weights are too large to be read again for every
//! block, all tiles are transformed by a kernel of their own, and the products run through the weights once ([`schedule::winograd`]).
//!
//! (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015; the numbers of a form decide how it rounds: Barabasz et al., "Error
//! Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2018.)

mod forms;
mod transform;

use forms::Matrices;
use transform::apply;

use super::shape::Shape;
use crate::kernels::lib::gemm::{KBlock, KSegment, Mac, Nest, Pointers, Source, UnrolledSteps};
use crate::kernels::lib::loops::{self, Memory};
use crate::kernels::lib::store::{self, Channel, Output};
use crate::schedule::{self, Tile, Winograd};
use crate::unit::{Arg, Lowered, LoweredCall, Unit};
use dnnc_ir::Type;
use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Ty, Val};
pub use forms::{FORMS, Form};

/// Places along the width whose tiles hang over the edge of the image in different ways; more are not worth their code.
const EDGES: usize = 5;

/// Whether a convolution that the direct kernel takes can be done in a form.
pub fn fits(unit: &Unit, s: &Shape, form: &Form) -> bool {
    !unit.options.precise
        && s.groups == 1
        && s.block > 1
        && s.kernel == form.axes.map(|a| a.kernel)
        && s.strides == form.axes.map(|a| a.stride)
        && s.dilations == [1, 1]
        && edges(s, form).len() <= EDGES
}

/// Runs of tiles along the width: the end of each, and the pixels of its tiles that lie in the image.
fn edges(s: &Shape, form: &Form) -> Vec<(usize, (usize, usize))> {
    let mut runs: Vec<(usize, (usize, usize))> = vec![];
    let axis = &form.axes[1];
    for tile in 0..s.output[1].div_ceil(axis.out) {
        let place = |column: usize| (column + s.before[1]).saturating_sub(tile * axis.step()).min(axis.inner());
        let inside = (place(0), place(s.input[1]));
        match runs.last_mut().filter(|run| run.1 == inside) {
            Some(run) => run.0 = tile + 1,
            None => runs.push((tile + 1, inside)),
        }
    }
    runs
}

/// How it would be cut, and the time that it is predicted to take on one core.
pub fn plan(unit: &Unit, s: &Shape, form: &Form) -> Winograd {
    let tiles = s.batch * form.tiles(&s.output).iter().product::<usize>();
    schedule::winograd(unit.target, unit.options, form.inner(), form.out(), tiles, s.channels, s.outputs)
}

/// Lowers a convolution that fits.
pub fn lower(unit: &Unit, s: &Shape, form: &Form, plan: &Winograd) -> Result<Lowered, String> {
    let mac = Mac::new(Type::F32, unit.target)?;
    let (lanes, vector) = (mac.lanes(), mac.ty.bytes());
    let blocks = s.channels.div_ceil(lanes);
    let columns = s.outputs.next_multiple_of(lanes);
    let (points, count) = (form.points(), plan.tiles);
    let [down, across] = form.tiles(&s.output);
    let all = s.batch * across * down;
    let units = all.div_ceil(count);

    let mut parts: Vec<Part> = vec![];
    let mut weights = 0;
    let width = plan.columns.min(columns);
    for (first, width, number) in [(0, width, columns / width), (columns / width * width, columns % width, 1)] {
        if width > 0 {
            let nest = Nest::new(mac, unit.target, count, width, depth(s.channels, lanes, count * vector), 0, 1);
            let nest = nest.panels_exceed_l2(points * columns * s.channels * 4 > unit.target.l2 / 2);
            parts.push(Part { first, width, number, weights, nest });
            weights += number * points * parts[parts.len() - 1].nest.panel_bytes();
        }
    }
    let work = Work {
        s,
        form,
        matrices: form.axes.map(|a| a.matrices()),
        joint: 3 * form.inner().into_iter().max().unwrap_or(0) + 6 <= unit.target.vector.registers,
        ty: mac.ty,
        blocks,
        across,
        down,
        // Transformed tiles lie [point][block][tile][lane]. Planes of points do not all begin in the same set of a cache.
        plane: blocks * count * vector + GAP,
        products_plane: width / lanes * count * vector + GAP,
        count,
    };
    loops::reachable(points * work.plane.max(work.products_plane), 1)?;
    loops::reachable(columns * s.pixels(), store::widest_element(unit))?;

    let mut lowered =
        Lowered { constants: vec![vec![0; form.inner()[1] * vector], work.pack(unit, &parts, weights)], ..Lowered::default() };
    let macs = (all * points) as u64 * (s.channels * s.outputs) as u64;
    let tasks = schedule::tasks(unit.options, macs, usize::MAX);
    let (unit_tasks, column_tasks) = if plan.apart { (1, tasks.min(parts[0].number)) } else { (tasks.min(units), 1) };
    let input = [Arg::Input(0), Arg::Const(0)];
    // Both kernels have the transformed tiles as their first parameter.
    let mut args = vec![];
    let mut shared = Memory::default();
    let v = shared.add(&mut lowered, &mut args, points * work.plane, unit_tasks);
    if plan.apart {
        let mut args = [&args[..], &input].concat();
        let mut own = Memory::default();
        let tasks = tasks.min(blocks);
        let temp = own.add(&mut lowered, &mut args, points * vector, tasks);
        let mut builder = Builder::new("winograd_input_transform", args.len());
        let b = &mut builder;
        let task = b.task();
        let some = loops::part_range(b, task, tasks, blocks);
        let temp = own.piece(b, temp, task).expect("it is not empty");
        let (first, here) = (b.index(0), b.index(all));
        work.input_transform(b, &InputTransform { x: b.param(1), nothing: b.param(2), v: b.param(0), temp }, some, first, here);
        lowered.calls.push(LoweredCall { func: builder.finish(), args, tasks });
    }
    let w_at = args.len();
    args.push(Arg::Const(1));
    let bias = unit.inputs.get(2).map(|x| {
        let mut data = x.constant.expect("the direct kernel's fits() asked for it").bytes().to_vec();
        data.resize(columns * 4, 0);
        lowered.constants.push(data);
        args.push(Arg::Const(2));
        args.len() - 1
    });
    let out_at = args.len();
    args.extend(Output::args(unit));
    let in_at = args.len();
    if !plan.apart {
        args.extend(input);
    }
    let tasks = unit_tasks * column_tasks;
    let mut own = Memory::default();
    let products = own.add(&mut lowered, &mut args, points * work.products_plane, tasks);
    let temp = own.add(&mut lowered, &mut args, points * vector, tasks);
    let mut builder = Builder::new("winograd", args.len());
    let b = &mut builder;
    let task = b.task();
    let [products, temp] = [products, temp].map(|m| own.piece(b, m, task).expect("it is not empty"));
    let (unit_task, column_task) = loops::divmod(b, task, column_tasks);
    let v = shared.piece(b, v, unit_task).expect("it is not empty");
    let (from, to) = loops::part_range(b, unit_task, unit_tasks, units);
    loops::for_some(b, from, to, units, |b, number| {
        let first = b.mul_int(number, count as i64);
        let (end, most) = (b.index(all), b.index(count));
        let here = b.sub(end, first);
        let here = if units == 1 { most } else { b.bin(Bin::MinS, here, most) };
        if !plan.apart {
            let input_transform = InputTransform { x: b.param(in_at), nothing: b.param(in_at + 1), v, temp };
            let all = (b.index(0), b.index(blocks));
            work.input_transform(b, &input_transform, all, first, here);
        }
        for part in &parts {
            let (from, to) = loops::part_range(b, column_task, column_tasks, part.number);
            loops::for_some(b, from, to, part.number, |b, number| {
                let w = b.param(w_at);
                let w = b.offset_int(w, part.weights as i64);
                let w = b.element(w, number, points * part.nest.panel_bytes());
                work.products(b, part, v, w, products);
                let column = b.mul_int(number, part.width as i64);
                let column = b.add_int(column, part.first as i64);
                let bias = bias.map(|param| b.param(param));
                let out = Output::new(b, unit, out_at, lanes, lanes);
                work.output_transform(b, OutputTransform { products, temp, bias, columns, column, width: part.width }, first, here, out);
            });
        }
    });
    lowered.calls.push(LoweredCall { func: builder.finish(), args, tasks });
    Ok(lowered)
}

/// Bytes between the planes of points.
const GAP: usize = 64;

/// The reduction over channels: whole blocks, `block` bytes apart, then the channels of the last.
fn depth(channels: usize, lanes: usize, block: usize) -> Vec<KSegment> {
    let (full, rest) = (channels / lanes, channels % lanes);
    let part = |start: usize, blocks: usize, len: usize| KSegment {
        start: start as i64,
        loops: vec![(blocks, block as i64)],
        unrolled: vec![UnrolledSteps { disp: 0, len, step: 4, part: None }],
        streams: 1,
    };
    let whole = (full > 0).then(|| part(0, full, lanes));
    whole.into_iter().chain((rest > 0).then(|| part(full * block, 1, rest))).collect()
}

/// Columns of the result that are computed for all points before they are transformed back.
struct Part {
    first: usize,
    width: usize,
    /// So many parts, side by side.
    number: usize,
    /// Bytes before the weights of the first.
    weights: usize,
    /// The product of a point.
    nest: Nest,
}

/// Where the way of the input leads: image, a row of zeros, points, and memory for a tile.
struct InputTransform {
    x: Val,
    nothing: Val,
    v: Val,
    temp: Val,
}

/// Where the way of the result leads.
struct OutputTransform {
    products: Val,
    temp: Val,
    bias: Option<Val>,
    /// Of the whole result; the first here, and how many.
    columns: usize,
    column: Val,
    width: usize,
}

/// A convolution in a form.
struct Work<'a> {
    s: &'a Shape,
    form: &'a Form,
    matrices: [Matrices; 2],
    /// Whether all sums of a transform have registers: terms, sums, the terms of the next line, and six for factors.
    joint: bool,
    ty: Ty,
    /// Blocks of input channels.
    blocks: usize,
    /// Tiles of an image.
    across: usize,
    down: usize,
    /// Bytes from a point to the next, of the transformed input and of the products.
    plane: usize,
    products_plane: usize,
    /// Tiles of a block.
    count: usize,
}

impl Work<'_> {
    /// Transformed weights: [part][point][panel][channel][column].
    fn pack(&self, unit: &Unit, parts: &[Part], bytes: usize) -> Vec<u8> {
        let (s, [down, across]) = (self.s, [&self.matrices[0].weights, &self.matrices[1].weights]);
        let [height, width] = self.form.axes.map(|a| a.kernel);
        let w = unit.inputs[1].constant.expect("the direct kernel's fits() asked for it").values::<f32>();
        let lanes = self.ty.lanes as usize;
        let mut out = vec![0; bytes];
        let mut half = vec![0.0; self.form.inner()[0] * width];
        for part in parts {
            let point_bytes = part.nest.panel_bytes();
            for number in 0..part.number {
                let part_at = part.weights + number * self.form.points() * point_bytes;
                for (index, (group, _)) in part.nest.groups.iter().enumerate() {
                    let columns = group.vecs * lanes;
                    for panel in 0..group.panels {
                        let first = part.first + number * part.width + group.first + panel * columns;
                        let panel_at = part_at + part.nest.panel_offset(index) + panel * part.nest.one_panel_bytes(group);
                        for (channel, column) in (0..s.channels).flat_map(|c| (0..columns).map(move |o| (c, o))) {
                            let output = first + column;
                            if output >= s.outputs {
                                continue;
                            }
                            let taps = &w[(output * s.channels + channel) * height * width..][..height * width];
                            for (half, row) in half.chunks_exact_mut(width).zip(down) {
                                for (x, half) in half.iter_mut().enumerate() {
                                    *half = (0..height).map(|y| row[y] * f64::from(taps[y * width + x])).sum();
                                }
                            }
                            let mut at = panel_at + (channel * columns + column) * 4;
                            for half in half.chunks_exact(width) {
                                for row in across {
                                    let sum: f64 = half.iter().zip(row).map(|(a, b)| a * b).sum();
                                    out[at..at + 4].copy_from_slice(&(sum as f32).to_le_bytes());
                                    at += point_bytes;
                                }
                            }
                        }
                    }
                }
            }
        }
        out
    }

    /// `body` for `here` tiles from tile `first`: given the tile's number from there, its image, and its row and column among the tiles.
    fn each_tile(&self, b: &mut Builder, first: Val, here: Val, body: impl FnOnce(&mut Builder, Val, [Val; 3])) {
        let (rest, x) = loops::divmod(b, first, self.across);
        let (image, y) = loops::divmod(b, rest, self.down);
        let zero = b.index(0);
        b.for_range(zero, here, 1, &[image, y, x], |b, t, at| {
            let [image, y, x] = [at[0], at[1], at[2]];
            body(b, t, [if self.s.batch == 1 { zero } else { image }, y, x]);
            // What has reached its end begins again and moves the next on.
            let carry = |b: &mut Builder, inner: Val, end: usize, outer: Val| {
                let end = b.index(end);
                let over = b.cmp(Cmp::Eq, inner, end);
                let more = b.add_int(outer, 1);
                (b.select(over, zero, inner), b.select(over, more, outer))
            };
            let x = b.add_int(x, 1);
            let (x, y) = carry(b, x, self.across, y);
            let (y, image) = if self.s.batch == 1 { (y, image) } else { carry(b, y, self.down, image) };
            vec![image, y, x]
        });
    }

    /// Transforms `here` tiles from tile `first`, of some blocks of channels.
    fn input_transform(&self, b: &mut Builder, way: &InputTransform, blocks: (Val, Val), first: Val, here: Val) {
        let (s, form, [n, m], bytes) = (self.s, self.form, self.form.inner(), self.ty.bytes());
        let line = s.input[1] * bytes;
        let [height, top, left] = [s.input[0], s.before[0], s.before[1]];
        loops::for_some(b, blocks.0, blocks.1, self.blocks, |b, block| {
            let x = b.element(way.x, block, height * line);
            let v = b.element(way.v, block, self.count * bytes);
            self.each_tile(b, first, here, |b, t, [image, ty, tx]| {
                let y = b.mul_int(ty, form.axes[0].step() as i64);
                let y = b.add_int(y, -(top as i64));
                let at = b.element(x, image, self.blocks * height * line);
                let at = b.element(at, y, line);
                let at = b.element(at, tx, form.axes[1].step() * bytes);
                let at = b.offset_int(at, -((left * bytes) as i64));
                let end = b.index(height);
                let rows: Vec<Val> = (0..n)
                    .map(|i| {
                        // One comparison: as unsigned numbers, rows before the first are behind the last.
                        let row = b.add_int(y, i as i64);
                        let exists = b.cmp(Cmp::LtU, row, end);
                        let inside = b.offset_int(at, (i * line) as i64);
                        let [inside, outside] = [inside, way.nothing].map(|p| b.conv(Conv::Bits, p, Elem::I64));
                        let at = b.select(exists, inside, outside);
                        b.conv(Conv::Bits, at, Elem::Ptr)
                    })
                    .collect();
                let to = b.element(v, t, bytes);
                self.first_pass(b, &edges(s, form), tx, &rows, way.temp, to);
                if n == 1 || m == 1 {
                    return;
                }
                let load =
                    |b: &mut Builder, row: usize| (0..m).map(|x| Some(b.load(self.ty, way.temp, ((row * m + x) * bytes) as i32))).collect();
                self.each_line(b, n, &self.matrices[1].input_transform, load, |b, row, x, v| {
                    b.store(v, to, ((row * m + x) * self.plane) as i32)
                });
            });
        });
    }

    /// The first pass of a tile, whose pixels outside the image are zeros: down each column, or along the row where it has a single one. With one
    /// column or row it is the only pass, and goes to the points at `to`.
    fn first_pass(&self, b: &mut Builder, runs: &[(usize, (usize, usize))], tx: Val, rows: &[Val], temp: Val, to: Val) {
        let ([n, m], bytes) = (self.form.inner(), self.ty.bytes());
        let [down, across] = [0, 1].map(|i| &self.matrices[i].input_transform);
        let pass = |b: &mut Builder, (from, end): (usize, usize)| {
            let pixel = |b: &mut Builder, row: Val, x: usize| (from..end).contains(&x).then(|| b.load(self.ty, row, (x * bytes) as i32));
            if n == 1 {
                let load = |b: &mut Builder, _: usize| (0..m).map(|x| pixel(b, rows[0], x)).collect();
                return self.each_line(b, 1, across, load, |b, _, x, v| b.store(v, to, (x * self.plane) as i32));
            }
            let load = |b: &mut Builder, x: usize| rows.iter().map(|&row| pixel(b, row, x)).collect();
            self.each_line(b, m, down, load, |b, x, y, v| match m {
                1 => b.store(v, to, (y * self.plane) as i32),
                _ => b.store(v, temp, ((y * m + x) * bytes) as i32),
            });
        };
        let Some((&(end, inside), rest)) = runs.split_first() else { return };
        if rest.is_empty() {
            return pass(b, inside);
        }
        let end = b.index(end);
        let here = b.cmp(Cmp::Lt, tx, end);
        b.branch(
            here,
            |b| {
                pass(b, inside);
                vec![]
            },
            |b| {
                self.first_pass(b, rest, tx, rows, temp, to);
                vec![]
            },
        );
    }

    /// Transforms lines of a tile: what `load` gives of line `i`, into what `store` takes of it, by number.
    fn each_line(
        &self,
        b: &mut Builder,
        lines: usize,
        matrix: &[Vec<f64>],
        load: impl Fn(&mut Builder, usize) -> Vec<Option<Val>>,
        store: impl Fn(&mut Builder, usize, usize, Val),
    ) {
        let mut x = load(b, 0);
        for i in 0..lines {
            let made = self.apply(b, matrix, &x);
            // While the last results are on their way.
            if self.joint && i + 1 < lines {
                x = load(b, i + 1);
            }
            made.into_iter().enumerate().for_each(|(j, v)| store(b, i, j, v));
            if !self.joint && i + 1 < lines {
                x = load(b, i + 1);
            }
        }
    }

    fn apply(&self, b: &mut Builder, matrix: &[Vec<f64>], x: &[Option<Val>]) -> Vec<Val> {
        apply(b, self.ty, matrix, x, self.joint)
    }

    /// The products of all points.
    fn products(&self, b: &mut Builder, part: &Part, v: Val, w: Val, products: Val) {
        let lanes = self.ty.lanes as usize;
        let zero = b.index(0);
        b.each(self.form.points(), |b, point| {
            let rows = b.element(v, point, self.plane);
            let w = b.element(w, point, part.nest.panel_bytes());
            let out = Output {
                ty: Type::F32,
                epilogue: None,
                stored: Type::F32,
                out: b.element(products, point, self.products_plane),
                extras: vec![],
                base: zero,
                row: lanes,
                column: self.count,
                vector: self.count * lanes,
                channel: (Channel::Column, zero),
            };
            part.nest.emit(b, zero, &Points { nest: &part.nest, rows, w }, &out, None);
        });
    }

    /// Transforms the products of `here` tiles from tile `first` back, and stores them.
    fn output_transform(&self, b: &mut Builder, way: OutputTransform, first: Val, here: Val, mut out: Output) {
        let (s, [n, width], [high, m]) = (self.s, self.form.inner(), self.form.out());
        let (bytes, lanes) = (self.ty.bytes(), self.ty.lanes as usize);
        (out.column, out.vector) = (s.pixels(), s.pixels() * lanes);
        let zero = b.index(0);
        b.each(way.width / lanes, |b, j| {
            let lane = b.mul_int(j, lanes as i64);
            let column = b.add(way.column, lane);
            let bias = way.bias.map(|bias| {
                let bias = b.element(bias, column, 4);
                b.load(self.ty, bias, 0)
            });
            let from = b.element(way.products, j, self.count * bytes);
            self.each_tile(b, first, here, |b, t, [image, ty, tx]| {
                out.base = b.mul_int(image, (s.pixels() * way.columns) as i64);
                let from = b.element(from, t, bytes);
                let product =
                    |b: &mut Builder, y: usize, x: usize| Some(b.load(self.ty, from, ((y * width + x) * self.products_plane) as i32));
                if n > 1 {
                    let load = |b: &mut Builder, x: usize| (0..n).map(|y| product(b, y, x)).collect();
                    let store = |b: &mut Builder, x: usize, y: usize, v: Val| b.store(v, way.temp, ((y * width + x) * bytes) as i32);
                    self.each_line(b, width, &self.matrices[0].output_transform, load, store);
                }
                let (y0, x0) = (b.mul_int(ty, high as i64), b.mul_int(tx, m as i64));
                let (height, most) = (b.index(s.output[0]), b.index(high));
                let rows = b.sub(height, y0);
                let rows = b.bin(Bin::MinS, rows, most);
                b.for_range(zero, rows, 1, &[], |b, i, _| {
                    let d: Vec<Option<Val>> = if n == 1 {
                        (0..width).map(|x| product(b, 0, x)).collect()
                    } else {
                        let temp = b.element(way.temp, i, width * bytes);
                        (0..width).map(|x| Some(b.load(self.ty, temp, (x * bytes) as i32))).collect()
                    };
                    let mut pixels = self.apply(b, &self.matrices[1].output_transform, &d);
                    if let Some(bias) = bias {
                        pixels = pixels.into_iter().map(|v| b.add(v, bias)).collect();
                    }
                    let y = b.add(y0, i);
                    let pixel = b.mul_int(y, s.output[1] as i64);
                    let pixel = b.add(pixel, x0);
                    let store = |b: &mut Builder, n: usize| {
                        out.store(b, pixel, column, Tile { rows: n, vecs: 1 }, lanes, &pixels[..n]);
                        vec![]
                    };
                    let rest = s.output[1] % m;
                    if rest == 0 {
                        store(b, m);
                        return vec![];
                    }
                    let end = b.index(s.output[1] - rest);
                    let whole = b.cmp(Cmp::Lt, x0, end);
                    b.branch(whole, |b| store(b, m), |b| store(b, rest))
                });
            });
        });
    }
}

/// Transformed tiles of one point as rows, its weights as the panels.
struct Points<'a> {
    nest: &'a Nest,
    rows: Val,
    w: Val,
}

impl Source for Points<'_> {
    fn block(&self, _b: &mut Builder, _first: Val, _end: Val, _chunk: Option<KBlock>) -> Val {
        self.rows
    }

    fn rows(&self, b: &mut Builder, rows: Val, first: Val, _count: usize) -> Pointers {
        let vector = self.nest.mac.ty.bytes();
        Pointers::Even(b.element(rows, first, vector), vector as i64)
    }

    fn panel(&self, b: &mut Builder, group: usize, index: Val, _column: Val) -> (Val, i64) {
        self.nest.packed_panel(b, self.w, group, index)
    }
}
