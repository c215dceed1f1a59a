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

use super::shape::Shape;
use crate::kernels::lib::product::{self, Chunk, Mac, Memory, Nest, Pointers, Run, Source, Stretch};
use crate::kernels::lib::store::{self, Channel, Output};
use crate::schedule::{self, Tile, Winograd};
use crate::unit::{Arg, Lowered, LoweredCall, Unit};
use dnnc_ir::Type;
use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Ty, Val};

/// A form of the algorithm: what it does along the height and along the width.
#[derive(Debug)]
pub struct Form {
    /// Name, as in reports.
    pub name: &'static str,
    /// Of rows, of columns.
    pub axes: [Axis; 2],
    /// How much shorter the others must be predicted: what memory and error are worth.
    pub worth: f64,
}

/// A form along an axis.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// Pixels of the result that a tile has.
    pub out: usize,
    /// Extent of the kernel.
    pub kernel: usize,
    /// From a window to the next.
    pub stride: usize,
    /// The numbers at which polynomials are evaluated, opposites side by side; infinity comes last and is not listed.
    at: &'static [f64],
}

/// Kernels of one element have no points.
const ONE: Axis = Axis { out: 1, kernel: 1, stride: 1, at: &[] };

const fn axis(out: usize, kernel: usize, stride: usize, at: &'static [f64]) -> Axis {
    Axis { out, kernel, stride, at }
}

const F2_3: Axis = axis(2, 3, 1, &[0.0, 1.0, -1.0]);
const F4_3: Axis = axis(4, 3, 1, SIX);
const F6_3: Axis = axis(6, 3, 1, EIGHT);
const F2_5: Axis = axis(2, 5, 1, SIX);
const F4_5: Axis = axis(4, 5, 1, EIGHT);
const F2_7: Axis = axis(2, 7, 1, EIGHT);
const SIX: &[f64] = &[0.0, 0.75, -0.75, 1.5, -1.5];
const EIGHT: &[f64] = &[0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5];

/// All forms.
#[rustfmt::skip]
pub const FORMS: &[Form] = &[
    Form { name: "winograd F(2,3)",   axes: [F2_3; 2], worth: 1.05 },
    Form { name: "winograd F(4,3)",   axes: [F4_3; 2], worth: 1.08 },
    Form { name: "winograd F(6,3)",   axes: [F6_3; 2], worth: 1.2  },
    Form { name: "winograd F(2,5)",   axes: [F2_5; 2], worth: 1.08 },
    Form { name: "winograd F(4,5)",   axes: [F4_5; 2], worth: 1.2  },
    Form { name: "winograd F(2,7)",   axes: [F2_7; 2], worth: 1.2  },
    Form { name: "winograd F(2,3)/2", axes: [axis(2, 3, 2, &[1.0, -1.0]); 2],              worth: 1.05 },
    Form { name: "winograd F(3,3)/2", axes: [axis(3, 3, 2, &[0.0, 1.0, -1.0]); 2],         worth: 1.08 },
    Form { name: "winograd F(4,3)/2", axes: [axis(4, 3, 2, &[0.5, -0.5, 1.25, -1.25]); 2], worth: 1.1  },
    Form { name: "winograd F(2,3) of rows",    axes: [ONE, F2_3], worth: 1.05 },
    Form { name: "winograd F(4,3) of rows",    axes: [ONE, F4_3], worth: 1.08 },
    Form { name: "winograd F(6,3) of rows",    axes: [ONE, F6_3], worth: 1.15 },
    Form { name: "winograd F(2,5) of rows",    axes: [ONE, F2_5], worth: 1.08 },
    Form { name: "winograd F(4,5) of rows",    axes: [ONE, F4_5], worth: 1.15 },
    Form { name: "winograd F(2,7) of rows",    axes: [ONE, F2_7], worth: 1.15 },
    Form { name: "winograd F(2,3) of columns", axes: [F2_3, ONE], worth: 1.05 },
    Form { name: "winograd F(4,3) of columns", axes: [F4_3, ONE], worth: 1.08 },
    Form { name: "winograd F(6,3) of columns", axes: [F6_3, ONE], worth: 1.15 },
    Form { name: "winograd F(2,5) of columns", axes: [F2_5, ONE], worth: 1.08 },
    Form { name: "winograd F(4,5) of columns", axes: [F4_5, ONE], worth: 1.15 },
    Form { name: "winograd F(2,7) of columns", axes: [F2_7, ONE], worth: 1.15 },
];

/// The matrices of a form along an axis.
struct Matrices {
    /// n × n: pixels of the input to points.
    forth: Vec<Vec<f64>>,
    /// n × r: weights to points.
    weights: Vec<Vec<f64>>,
    /// m × n: points to pixels of the result.
    back: Vec<Vec<f64>>,
}

impl Form {
    /// Sizes of a tile of the input.
    pub fn inner(&self) -> [usize; 2] {
        self.axes.map(|a| a.inner())
    }

    /// Sizes of a tile of the result.
    pub fn out(&self) -> [usize; 2] {
        self.axes.map(|a| a.out)
    }

    /// Products.
    pub fn points(&self) -> usize {
        self.inner().iter().product()
    }

    /// Tiles down and across an image of the result.
    pub fn tiles(&self, output: &[usize]) -> [usize; 2] {
        [0, 1].map(|i| output[i].div_ceil(self.axes[i].out))
    }
}

impl Axis {
    fn inner(&self) -> usize {
        (self.out - 1) * self.stride + self.kernel
    }

    /// Pixels of the input from a tile to the next.
    fn step(&self) -> usize {
        self.out * self.stride
    }

    fn matrices(&self) -> Matrices {
        let n = self.inner();
        let zeros = |columns: usize| vec![vec![0.0; columns]; n];
        let mut all = Matrices { forth: zeros(n), weights: zeros(self.kernel), back: vec![vec![0.0; n]; self.out] };
        let mut first = 0;
        for phase in 0..self.stride {
            let taps = (self.kernel - phase).div_ceil(self.stride);
            // One weight needs no points: the transforms are identities.
            let one = if taps == 1 { Matrices::identity(self.out) } else { Matrices::at(self.at, self.out, taps) };
            let place = |column: usize| phase + column * self.stride;
            for (i, row) in one.forth.iter().enumerate() {
                row.iter().enumerate().for_each(|(x, v)| all.forth[first + i][place(x)] = *v);
                one.weights[i].iter().enumerate().for_each(|(x, v)| all.weights[first + i][place(x)] = *v);
                one.back.iter().enumerate().for_each(|(y, row)| all.back[y][first + i] = row[i]);
            }
            first += one.forth.len();
        }
        assert_eq!(first, n, "points of {self:?}");
        all
    }
}

impl Matrices {
    /// Those of one weight.
    fn identity(n: usize) -> Matrices {
        let unit: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
        Matrices { forth: unit.clone(), weights: vec![vec![1.0]; n], back: unit }
    }

    /// Those of polynomials evaluated at some numbers and infinity (Cook and Toom).
    fn at(at: &[f64], out: usize, taps: usize) -> Matrices {
        let n = out + taps - 1;
        let powers = |p: f64, count: usize| (0..count).map(move |k| p.powi(k as i32));
        // Coefficients of the product of (x − q) for all numbers but one.
        let product = |but: usize| {
            let mut poly = vec![1.0];
            for (_, q) in at.iter().enumerate().filter(|(j, _)| *j != but) {
                let times_x = [0.0].into_iter().chain(poly.iter().copied());
                poly = times_x.zip(poly.iter().copied().chain([0.0])).map(|(a, c): (f64, f64)| a - q * c).collect();
            }
            poly.resize(n, 0.0);
            poly
        };
        let scale = |i: usize| (0..at.len()).filter(|&j| j != i).map(|j| at[i] - at[j]).product::<f64>();
        let last = |len: usize| (0..len).map(|k| f64::from(u8::from(k + 1 == len))).collect::<Vec<f64>>();
        Matrices {
            forth: (0..n).map(product).collect(),
            weights: (0..at.len()).map(|i| powers(at[i], taps).map(|v| v / scale(i)).collect()).chain([last(taps)]).collect(),
            back: (0..out).map(|k| at.iter().map(|p| p.powi(k as i32)).chain([last(out)[k]]).collect()).collect(),
        }
    }
}

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
            let nest = nest.far(points * columns * s.channels * 4 > unit.target.l2 / 2);
            parts.push(Part { first, width, number, weights, nest });
            weights += number * points * parts[parts.len() - 1].nest.panel_bytes();
        }
    }
    let work = Work {
        s,
        form,
        matrices: form.axes.map(|a| a.matrices()),
        abreast: 3 * form.inner().into_iter().max().unwrap_or(0) + 6 <= unit.target.vector.registers,
        ty: mac.ty,
        blocks,
        across,
        down,
        // Transformed tiles lie [point][block][tile][lane]. Planes of points do not all begin in the same set of a cache.
        plane: blocks * count * vector + GAP,
        products_plane: width / lanes * count * vector + GAP,
        count,
    };
    product::reachable(points * work.plane.max(work.products_plane), 1)?;
    product::reachable(columns * s.pixels(), store::widest_element(unit))?;

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
        let mut builder = Builder::new("winograd_forth", args.len());
        let b = &mut builder;
        let task = b.task();
        let some = product::part_range(b, task, tasks, blocks);
        let temp = own.piece(b, temp, task).expect("it is not empty");
        let (first, here) = (b.index(0), b.index(all));
        work.forth(b, &Forth { x: b.param(1), nothing: b.param(2), v: b.param(0), temp }, some, first, here);
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
    let (unit_task, column_task) = product::divmod(b, task, column_tasks);
    let v = shared.piece(b, v, unit_task).expect("it is not empty");
    let (from, to) = product::part_range(b, unit_task, unit_tasks, units);
    product::for_some(b, from, to, units, |b, number| {
        let first = b.mul_int(number, count as i64);
        let (end, most) = (b.index(all), b.index(count));
        let here = b.sub(end, first);
        let here = if units == 1 { most } else { b.bin(Bin::MinS, here, most) };
        if !plan.apart {
            let forth = Forth { x: b.param(in_at), nothing: b.param(in_at + 1), v, temp };
            let all = (b.index(0), b.index(blocks));
            work.forth(b, &forth, all, first, here);
        }
        for part in &parts {
            let (from, to) = product::part_range(b, column_task, column_tasks, part.number);
            product::for_some(b, from, to, part.number, |b, number| {
                let w = b.param(w_at);
                let w = b.offset_int(w, part.weights as i64);
                let w = b.element(w, number, points * part.nest.panel_bytes());
                work.products(b, part, v, w, products);
                let column = b.mul_int(number, part.width as i64);
                let column = b.add_int(column, part.first as i64);
                let bias = bias.map(|param| b.param(param));
                let out = Output::new(b, unit, out_at, lanes, lanes);
                work.back(b, Back { products, temp, bias, columns, column, width: part.width }, first, here, out);
            });
        }
    });
    lowered.calls.push(LoweredCall { func: builder.finish(), args, tasks });
    Ok(lowered)
}

/// Bytes between the planes of points.
const GAP: usize = 64;

/// The reduction over channels: whole blocks, `block` bytes apart, then the channels of the last.
fn depth(channels: usize, lanes: usize, block: usize) -> Vec<Stretch> {
    let (full, rest) = (channels / lanes, channels % lanes);
    let part = |start: usize, blocks: usize, len: usize| Stretch {
        start: start as i64,
        loops: vec![(blocks, block as i64)],
        runs: vec![Run { disp: 0, len, step: 4 }],
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
struct Forth {
    x: Val,
    nothing: Val,
    v: Val,
    temp: Val,
}

/// Where the way of the result leads.
struct Back {
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
    abreast: bool,
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
        let (rest, x) = product::divmod(b, first, self.across);
        let (image, y) = product::divmod(b, rest, self.down);
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
    fn forth(&self, b: &mut Builder, way: &Forth, blocks: (Val, Val), first: Val, here: Val) {
        let (s, form, [n, m], bytes) = (self.s, self.form, self.form.inner(), self.ty.bytes());
        let line = s.input[1] * bytes;
        let [height, top, left] = [s.input[0], s.before[0], s.before[1]];
        product::for_some(b, blocks.0, blocks.1, self.blocks, |b, block| {
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
                self.each_line(b, n, &self.matrices[1].forth, load, |b, row, x, v| b.store(v, to, ((row * m + x) * self.plane) as i32));
            });
        });
    }

    /// The first pass of a tile, whose pixels outside the image are zeros: down each column, or along the row where it has a single one. With one
    /// column or row it is the only pass, and goes to the points at `to`.
    fn first_pass(&self, b: &mut Builder, runs: &[(usize, (usize, usize))], tx: Val, rows: &[Val], temp: Val, to: Val) {
        let ([n, m], bytes) = (self.form.inner(), self.ty.bytes());
        let [down, across] = [0, 1].map(|i| &self.matrices[i].forth);
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
            if self.abreast && i + 1 < lines {
                x = load(b, i + 1);
            }
            made.into_iter().enumerate().for_each(|(j, v)| store(b, i, j, v));
            if !self.abreast && i + 1 < lines {
                x = load(b, i + 1);
            }
        }
    }

    fn apply(&self, b: &mut Builder, matrix: &[Vec<f64>], x: &[Option<Val>]) -> Vec<Val> {
        apply(b, self.ty, matrix, x, self.abreast)
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
    fn back(&self, b: &mut Builder, way: Back, first: Val, here: Val, mut out: Output) {
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
                    self.each_line(b, width, &self.matrices[0].back, load, store);
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
                    let mut pixels = self.apply(b, &self.matrices[1].back, &d);
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
    fn block(&self, _b: &mut Builder, _first: Val, _end: Val, _chunk: Option<Chunk>) -> Val {
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

/// A matrix of constants times vectors; `None` is a zero. Rows or columns that are equal but for the signs of some of their elements share the
/// sums of the elements that are equal and of those that are opposite. `abreast`: all sums at once, where there are registers for them.
fn apply(b: &mut Builder, ty: Ty, matrix: &[Vec<f64>], x: &[Option<Val>], abreast: bool) -> Vec<Val> {
    // Columns, each with what it is multiplied by.
    let mut terms: Vec<(Vec<f64>, Val)> = vec![];
    let mut column = 0;
    let of = |column: usize| matrix.iter().map(|row| row[column]).collect::<Vec<f64>>();
    while column < x.len() {
        let next = (column + 1 < x.len()).then(|| (of(column), of(column + 1))).filter(|(a, c)| mirrored(a, c));
        if let (Some((left, right)), Some(u), Some(v)) = (next, x[column], x.get(column + 1).copied().flatten()) {
            let equal = |wanted: bool| left.iter().zip(&right).map(|(a, c)| if (a == c) == wanted { *a } else { 0.0 }).collect();
            terms.push((equal(true), b.add(u, v)));
            terms.push((equal(false), b.sub(u, v)));
            column += 2;
        } else {
            terms.extend(x[column].map(|v| (of(column), v)));
            column += 1;
        }
    }
    let rows: Vec<Vec<f64>> = (0..matrix.len()).map(|row| terms.iter().map(|t| t.0[row]).collect()).collect();
    let values: Vec<Val> = terms.iter().map(|t| t.1).collect();
    // Sums of terms, and those that make a row, or the sum and the difference that make two.
    let (mut sums, mut made) = (vec![], vec![]);
    let mut rest = rows.as_slice();
    while let [row, after @ ..] = rest {
        let Some(next) = after.first().filter(|next| mirrored(row, next)) else {
            made.push((sums.len(), None));
            sums.push(row.clone());
            rest = after;
            continue;
        };
        let equal =
            |wanted: bool, by: f64| row.iter().zip(next).map(|(a, c)| if (a == c) == wanted { *a / by } else { 0.0 }).collect::<Vec<f64>>();
        // The opposite part over its last coefficient: a multiplication less.
        let by = equal(false, 1.0).into_iter().rfind(|v| *v != 0.0).unwrap_or(1.0);
        made.push((sums.len(), Some(by)));
        sums.extend([equal(true, 1.0), equal(false, by)]);
        rest = &after[1..];
    }
    let all = if abreast { combine(b, &sums, &values) } else { vec![] };
    let mut out = vec![];
    for (first, by) in made {
        let sum = |b: &mut Builder, i: usize| if abreast { all[i] } else { combine(b, &sums[i..=i], &values)[0] };
        let even = sum(b, first);
        let Some(by) = by else {
            out.push(even);
            continue;
        };
        let odd = sum(b, first + 1);
        out.extend([by, -by].map(|by| match even.zip(odd) {
            Some((even, odd)) => Some(add_scaled(b, ty, even, by, odd)),
            None => even.or(odd.map(|odd| scaled(b, ty, by, odd))),
        }));
    }
    out.into_iter().map(|v| v.unwrap_or_else(|| b.int(ty, 0))).collect()
}

/// Whether two rows are equal but for the signs of some elements.
fn mirrored(a: &[f64], c: &[f64]) -> bool {
    let pairs = || a.iter().zip(c).filter(|(a, _)| **a != 0.0);
    a.iter().zip(c).all(|(a, c)| a.abs() == c.abs()) && pairs().any(|(a, c)| a == c) && pairs().any(|(a, c)| a != c)
}

/// Σ c·x for each list of factors, a term of each in turn; `None` is a zero.
fn combine(b: &mut Builder, sums: &[Vec<f64>], x: &[Val]) -> Vec<Option<Val>> {
    let terms = sums.iter().map(|factors| {
        let mut terms: Vec<(f64, Val)> = factors.iter().copied().zip(x.iter().copied()).filter(|t| t.0 != 0.0).collect();
        // Begin with one that needs no multiplication.
        terms.sort_by_key(|t| t.0 != 1.0);
        terms
    });
    let terms: Vec<Vec<(f64, Val)>> = terms.collect();
    let mut made: Vec<Option<Val>> = vec![None; sums.len()];
    for round in 0..x.len() {
        for (made, terms) in made.iter_mut().zip(&terms) {
            let Some(&(factor, x)) = terms.get(round) else { continue };
            let ty = b.ty(x);
            *made = Some(match *made {
                Some(sum) => add_scaled(b, ty, sum, factor, x),
                None => scaled(b, ty, factor, x),
            });
        }
    }
    made
}

/// factor · x.
fn scaled(b: &mut Builder, ty: Ty, factor: f64, x: Val) -> Val {
    if factor == 1.0 {
        return x;
    }
    let factor = b.number(ty, factor);
    b.mul(factor, x)
}

/// sum + factor · x.
fn add_scaled(b: &mut Builder, ty: Ty, sum: Val, factor: f64, x: Val) -> Val {
    match factor {
        1.0 => b.add(sum, x),
        -1.0 => b.sub(sum, x),
        _ => {
            let factor = b.number(ty, factor);
            b.fma(factor, x, sum)
        }
    }
}
