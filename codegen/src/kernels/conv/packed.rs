//! Convolution of packed images: pixels times panels of output channels.
//!
//! A row of the product is a pixel of the result; its reduction runs over blocks of input channels, the kernel's rows and columns, and the
//! channels of a block. Tiles of pixels cross the rows of the image, so that no row leaves a rest. Where the kernel reads padding, the
//! rows of the image that a block of tiles needs are first copied between zeros; the copy stays in the second-level cache.
//! Channels that only fill up the last block are skipped: they cost nothing.

use super::shape::Shape;
use crate::kernels::lib::gemm::{KBlock, KSegment, Mac, Nest, Pointers, ProductType, Source, UnrolledSteps};
use crate::kernels::lib::image::{Layout, Lines};
use crate::kernels::lib::loops::{self, Memory};
use crate::kernels::lib::store::{self, Output};
use crate::kernels::sparse::block_sparse::{BlockSparse, Tables};
use crate::kernels::sparse::csc_rows::{self, CscRows};
use crate::kernels::sparse::{Matrix, SparsityPattern};
use crate::schedule::{self, Tile};
use crate::unit::{Arg, Lowered, LoweredCall, Unit};
use dnnc_ir::{Tensor, Type};
use dnnc_kir::{Builder, Cmp, Ty, Val};

/// Whether this convolution of packed f32 images of two axes is done here.
pub fn fits(unit: &Unit, s: &Shape) -> bool {
    unit.inputs.iter().all(|x| x.ty.ty == Type::F32) && fits_blocks(unit, s)
}

/// The product type of a convolution of packed images of two axes that is done here: of f32, or of integers of which a multiply-add
/// takes several.
pub fn product_type(unit: &Unit, s: &Shape) -> Option<Mac> {
    if fits(unit, s) {
        return Mac::new(Type::F32, unit.target).ok();
    }
    let (x, w) = (unit.inputs[0].ty.ty, unit.inputs[1].ty.ty);
    let product = ProductType::best(x, w, unit.target).filter(|p| p.k_step > 1 && s.block.is_multiple_of(p.k_step))?;
    fits_blocks(unit, s).then(|| Mac::of(product, x, unit.target))
}

fn fits_blocks(unit: &Unit, s: &Shape) -> bool {
    let whole = s.groups == 1 || (s.group_channels.is_multiple_of(s.block) && s.group_outputs.is_multiple_of(s.block));
    s.block == schedule::lanes(&unit.target.vector, 4)
        && unit.inputs[1..].iter().all(|x| x.constant.is_some())
        && s.kernel.iter().all(|&k| k > 0)
        && s.channels > 0
        && whole
}

/// Steps that a body may have: more would not fit the cache of decoded instructions.
const BODY: usize = 32;
/// Bytes between steps that one pointer still reaches together.
const NEAR: i64 = 1 << 22;

/// Where the pixels are read.
#[derive(Clone, Copy)]
pub struct Image {
    /// Bytes from a pixel to the next, from a row to the next, from a block of channels to the next.
    pub pixel: usize,
    pub row: usize,
    pub block: usize,
    /// Rows of the copy between zeros, when there is one.
    pub copied_rows: Option<usize>,
}

/// How the weights are kept.
#[derive(Clone, Copy)]
pub enum Form<'a> {
    /// Panels of every channel.
    Dense,
    /// Panels of the channels that are not 0.
    BlockSparse(Matrix<'a>),
    /// Lists of the weights that are not 0.
    CscRows(Matrix<'a>),
}

/// Weights in their form.
enum Weights<'a> {
    Dense(Nest),
    BlockSparse(BlockSparse, Matrix<'a>),
    CscRows(CscRows, Matrix<'a>),
}

impl Weights<'_> {
    fn tasks(&self) -> usize {
        match self {
            Weights::Dense(nest) => nest.tasks(),
            Weights::BlockSparse(block_sparse, _) => block_sparse.tasks(),
            Weights::CscRows(csc_rows, _) => csc_rows.tasks(),
        }
    }

    /// Most rows of a block.
    fn block_rows(&self) -> usize {
        match self {
            Weights::Dense(nest) => nest.block_rows(),
            Weights::BlockSparse(block_sparse, _) => block_sparse.block_rows(),
            Weights::CscRows(csc_rows, _) => csc_rows.block_rows(),
        }
    }

    /// Blocks of channels that a copy of rows holds at most: all, or those of a part of the reduction and the last one when it is not whole.
    fn copied_blocks(&self, s: &Shape) -> usize {
        let (full, rest) = (s.group_channels / s.block, s.group_channels % s.block);
        let chunk = if let Weights::Dense(nest) = self { nest.k_block() } else { None };
        chunk.unwrap_or(full).min(full) + usize::from(rest > 0)
    }

    fn partial_bytes(&self) -> usize {
        if let Weights::Dense(nest) = self { nest.partial_bytes() } else { 0 }
    }
}

/// The weights of a convolution without groups as a matrix of taps × outputs.
pub fn matrix<'a>(unit: &Unit<'a>, s: &Shape) -> Option<Matrix<'a>> {
    let known = |w: &&Tensor| w.len() == unit.inputs[1].ty.len() && w.ty().ty == Type::F32;
    let data = unit.inputs[1].constant.filter(known)?.values::<f32>();
    let steps = s.group_channels * s.kernel.iter().product::<usize>();
    (s.groups == 1).then_some(Matrix { data, steps, columns: s.outputs, step: 1, column: steps })
}

/// Predicted nanoseconds with panels of every channel.
pub fn dense_ns(unit: &Unit, s: &Shape, mac: &Mac) -> f64 {
    let steps = s.group_channels.div_ceil(mac.k_step()) * s.kernel.iter().product::<usize>();
    let work = mac.product_ns(unit.target, s.pixels(), s.group_outputs, steps) * (s.batch * s.groups) as f64;
    let images = unit.inputs[0].ty.bytes() + unit.stored.bytes();
    schedule::fed_ns(unit.target, unit.options, work, unit.inputs[1].ty.bytes(), images)
}

/// Tasks that a product with so many multiply-adds is cut into, for one image.
fn parts(unit: &Unit, s: &Shape, m: &Matrix) -> usize {
    let work = (s.batch * s.pixels()) as u64 * (m.density() * (m.steps * m.columns) as f64) as u64;
    schedule::tasks(unit.options, work, usize::MAX).div_ceil(s.batch)
}

/// The panels of channels that are not 0, and with them the predicted time of an image.
pub fn block_sparse(unit: &Unit, s: &Shape, m: &Matrix) -> Result<BlockSparse, String> {
    let mac = Mac::new(Type::F32, unit.target)?;
    let row = if s.is_padded(0) || s.is_padded(1) { s.extent(1) } else { s.input[1] };
    let even = s.output[0] == 1 || s.strides[0] * row == s.output[1] * s.strides[1];
    // Lanes that only fill up the last block are stored, too.
    let columns = s.outputs.next_multiple_of(s.block);
    Ok(BlockSparse::new(mac, unit.target, s.pixels(), even, &SparsityPattern::of(m), columns, row_bytes(s, mac), parts(unit, s, m)))
}

/// The lists of weights that are not 0, and with them the predicted time of an image.
pub fn csc_rows(unit: &Unit, s: &Shape, m: &Matrix) -> Result<CscRows, String> {
    let mac = Mac::new(Type::F32, unit.target)?;
    let columns = s.outputs.next_multiple_of(s.block);
    let blocks = s.channels.div_ceil(s.block) * s.kernel[0] * s.kernel[1];
    Ok(CscRows::new(mac, unit.target, s.pixels(), &SparsityPattern::of(m), columns, blocks, row_bytes(s, mac), parts(unit, s, m)))
}

/// What a pixel of the result adds to the input that is read.
fn row_bytes(s: &Shape, mac: Mac) -> usize {
    let taps: usize = s.strides.iter().zip(&s.kernel).map(|(s, k)| s.min(k)).product();
    s.group_channels.div_ceil(mac.lanes()) * mac.lanes() * mac.lhs.bytes() * taps
}

/// Makes the kernel with the weights in a form.
pub fn lower(unit: &Unit, s: &Shape, mac: Mac, form: Form) -> Result<Lowered, String> {
    let lanes = mac.lanes();
    let pixels = s.pixels();
    let blocks = s.group_channels.div_ceil(lanes);
    let columns = s.group_outputs.next_multiple_of(lanes);
    let pixel = lanes * mac.lhs.bytes();
    let copies = s.is_padded(0) || s.is_padded(1);
    let work = (s.batch * s.outputs * pixels) as u64 * (s.group_channels * s.kernel[0] * s.kernel[1]) as u64;
    let parts = schedule::tasks(unit.options, work, usize::MAX);
    let batches = s.batch * s.groups;
    let batch_parts = parts.min(batches);
    let cut = |image: Image| match form {
        Form::BlockSparse(m) => block_sparse(unit, s, &m).map(|l| Weights::BlockSparse(l, m)),
        Form::CscRows(m) => csc_rows(unit, s, &m).map(|l| Weights::CscRows(l, m)),
        Form::Dense => {
            let depth = depth(s, &mac, lanes, image);
            Ok(Weights::Dense(Nest::new(mac, unit.target, pixels, columns, depth, row_bytes(s, mac), parts / batch_parts)))
        }
    };
    let in_place = Image { pixel, row: s.input[1] * pixel, block: s.input[0] * s.input[1] * pixel, copied_rows: None };
    let mut image = in_place;
    let mut weights = cut(image)?;
    if copies {
        let rows = (weights.block_rows().saturating_sub(1).div_ceil(s.output[1]) + 1).min(s.output[0]);
        let rows = (rows - 1) * s.strides[0] + (s.kernel[0] - 1) * s.dilations[0] + 1;
        let row = s.extent(1) * pixel;
        image = Image { pixel, row, block: rows * row, copied_rows: Some(rows) };
        if let Weights::Dense(_) = weights {
            weights = cut(image)?;
        }
    }
    loops::reachable(columns * pixels, store::widest_element(unit))?;
    loops::reachable(image.row * s.kernel[0] * s.dilations[0], 1)?;

    let constants = match &weights {
        Weights::Dense(nest) => vec![pack(unit, s, nest, lanes)],
        Weights::BlockSparse(block_sparse, m) => {
            loops::reachable(blocks * image.block, 1)?;
            block_sparse.constants(m, |step| place(s, image, step))
        }
        Weights::CscRows(csc_rows, m) => {
            loops::reachable(blocks * image.block, 1)?;
            loops::reachable(csc_rows.scratch_bytes(), 1)?;
            let taps = s.kernel[0] * s.kernel[1];
            let places: Vec<usize> = (0..blocks * taps).map(|i| place(s, image, i / taps * lanes * taps + i % taps)).collect();
            csc_rows.constants(m, &places, |step| (step / taps / lanes * taps + step % taps) * lanes + step / taps % lanes)
        }
    };
    let mut args = vec![Arg::Input(0)];
    args.extend((0..constants.len()).map(Arg::Const));
    let mut lowered = Lowered { constants, ..Lowered::default() };
    let bias = unit.inputs.get(2).map(|x| {
        let mut data = x.constant.expect("fits() asked for it").bytes().to_vec();
        data.resize(s.outputs.next_multiple_of(lanes) * 4, 0);
        args.push(Arg::Const(lowered.constants.len()));
        lowered.constants.push(data);
        args.len() - 1
    });
    let out_at = args.len();
    args.extend(Output::args(unit));
    let tasks = batch_parts * weights.tasks();
    let mut memory = Memory::default();
    let copy = memory.add(&mut lowered, &mut args, image.copied_rows.map_or(0, |_| weights.copied_blocks(s) * image.block), tasks);
    let partial = memory.add(&mut lowered, &mut args, weights.partial_bytes(), batch_parts);
    let lines = if let Weights::CscRows(csc_rows, _) = &weights { csc_rows.scratch_bytes() } else { 0 };
    let lines = memory.add(&mut lowered, &mut args, lines, tasks);

    let mut builder = Builder::new("conv", args.len());
    let b = &mut builder;
    let task = b.task();
    let (batch_part, part) = loops::divmod(b, task, weights.tasks());
    let copy = memory.piece(b, copy, task);
    let partial = memory.piece(b, partial, batch_part);
    let lines = memory.piece(b, lines, task);
    let (from, to) = loops::part_range(b, batch_part, batch_parts, batches);
    loops::for_some(b, from, to, batches, |b, batch| {
        let (_, group) = loops::divmod(b, batch, s.groups);
        let mut out = Output::new(b, unit, out_at, lanes, lanes);
        (out.column, out.vector) = (pixels, pixels * lanes);
        out.base = b.mul_int(batch, (pixels * columns) as i64);
        let first_channel = b.mul_int(group, s.group_outputs as i64);
        out.channel.1 = first_channel;
        let (x, w) = (b.param(0), b.param(1));
        let x = b.element(x, batch, blocks * in_place.block);
        let bias = bias.map(|param| {
            let bias = b.param(param);
            b.element(bias, first_channel, 4)
        });
        let start = Start::Blocks(Lines { layout: Layout::of([s.input[0], s.input[1]], lanes, mac.lhs.bytes()), at: x }, copy);
        match &weights {
            Weights::Dense(nest) => {
                let w = b.element(w, group, nest.panel_bytes());
                let pixels = Pixels { s, mac, panels: Some((nest, w)), image, blocks, start, bias };
                nest.emit(b, part, &pixels, &out, partial);
            }
            Weights::BlockSparse(block_sparse, _) => {
                let tables = Tables { params: [1, 2, 3].map(|i| b.param(i)) };
                let pixels = Pixels { s, mac, panels: None, image, blocks, start, bias };
                block_sparse.emit(b, part, &pixels, &tables, &out);
            }
            Weights::CscRows(csc_rows, _) => {
                let scratch = lines.expect("memory for the lines of a tile");
                let given = csc_rows::Given { tables: [1, 2, 3, 4].map(|i| b.param(i)), scratch, bias, last_block: lanes };
                let pixels = Pixels { s, mac, panels: None, image, blocks, start, bias };
                csc_rows.emit(b, part, &pixels, &given, &out);
            }
        }
    });
    lowered.calls.push(LoweredCall { func: builder.finish(), args, tasks });
    Ok(lowered)
}

/// Bytes from the beginning of a pixel's window to what a step of the reduction reads: steps are channels, then taps.
fn place(s: &Shape, image: Image, step: usize) -> usize {
    let taps = s.kernel[0] * s.kernel[1];
    let (channel, tap) = (step / taps, step % taps);
    let (y, x) = (tap / s.kernel[1] * s.dilations[0], tap % s.kernel[1] * s.dilations[1]);
    channel / s.block * image.block + y * image.row + x * image.pixel + channel % s.block * 4
}

/// The reduction of a pixel: whole blocks of `lanes` channels, then the channels of the last.
pub fn depth(s: &Shape, mac: &Mac, lanes: usize, image: Image) -> Vec<KSegment> {
    let (full, rest) = (s.group_channels / lanes, s.group_channels % lanes);
    let part = |start: i64, blocks: usize, channels: usize| {
        let mut loops = vec![(blocks, image.block as i64), (s.kernel[0], (s.dilations[0] * image.row) as i64)];
        // What fills up a block is there in memory, and its weights are 0.
        let steps = channels.div_ceil(mac.k_step());
        let mut runs = vec![UnrolledSteps { disp: 0, len: steps, step: mac.step_bytes() as i64, part: None }];
        let mut unroll = |count: usize, stride: i64, loops: &mut Vec<(usize, i64)>| match count * runs.iter().map(|r| r.len).sum::<usize>()
            <= BODY
            && stride < NEAR
        {
            true => {
                runs = (0..count).flat_map(|i| runs.iter().map(move |r| UnrolledSteps { disp: r.disp + i as i64 * stride, ..*r })).collect()
            }
            false => loops.push((count, stride)),
        };
        unroll(s.kernel[1], (s.dilations[1] * image.pixel) as i64, &mut loops);
        // The kernel's rows, then the blocks.
        for left in [1, 0] {
            if loops.len() == left + 1 {
                let (count, stride) = loops.pop().expect("as many as compared");
                unroll(count, stride, &mut loops);
            }
        }
        KSegment { start, loops, unrolled: runs, streams: 1 }
    };
    let mut out = vec![];
    if full > 0 {
        out.push(part(0, full, lanes));
    }
    if rest > 0 {
        out.push(part((full * image.block) as i64, 1, rest));
    }
    out
}

/// The weights as panels, a group after the other, where the input has blocks of `lanes` channels.
pub fn pack(unit: &Unit, s: &Shape, nest: &Nest, lanes: usize) -> Vec<u8> {
    let data = nest.mac.panel_constant(unit.inputs[1].constant.expect("fits() asked for it"));
    let taps = s.kernel[0] * s.kernel[1];
    let (full, rest) = (s.group_channels / lanes, s.group_channels % lanes);
    let pack = |group: usize| {
        nest.pack(&data, |step, column| {
            let (block, within, channels) = match step / (taps * lanes) {
                block if block < full => (block, step % (taps * lanes), lanes),
                _ => (full, step - full * taps * lanes, rest.next_multiple_of(nest.mac.k_step())),
            };
            let (tap, channel) = (within / channels, block * lanes + within % channels);
            (column < s.group_outputs && channel < s.group_channels)
                .then(|| ((group * s.group_outputs + column) * s.group_channels + channel) * taps + tap)
        })
    };
    (0..s.groups).flat_map(pack).collect()
}

/// The image as rows of a product, the weights as its panels.
pub struct Pixels<'a> {
    pub s: &'a Shape,
    pub mac: Mac,
    /// The nest that asks for panels, and where they begin.
    pub panels: Option<(&'a Nest, Val)>,
    pub image: Image,
    /// Blocks of channels.
    pub blocks: usize,
    pub start: Start,
    pub bias: Option<Val>,
}

/// Where the first pixel's window is.
pub enum Start {
    /// In these rows, or where those of each block of tiles are copied to.
    Blocks(Lines, Option<Val>),
    /// Here.
    At(Val),
}

impl Source for Pixels<'_> {
    fn block(&self, b: &mut Builder, first: Val, end: Val, chunk: Option<KBlock>) -> Val {
        let (from, copy) = match self.start {
            Start::Blocks(from, Some(copy)) => (from, copy),
            Start::Blocks(Lines { at, .. }, None) | Start::At(at) => return chunk.map_or(at, |chunk| chunk.skip(b, at)),
        };
        let s = self.s;
        let last = b.add_int(end, -1);
        let ((y0, _), (y1, _)) = (loops::divmod(b, first, s.output[1]), loops::divmod(b, last, s.output[1]));
        let top = b.mul_int(y0, s.strides[0] as i64);
        let bottom = b.mul_int(y1, s.strides[0] as i64);
        let rows = b.sub(bottom, top);
        let rows = b.add_int(rows, ((s.kernel[0] - 1) * s.dilations[0] + 1) as i64);
        self.copy_rows(b, from, copy, top, rows, chunk);
        // Rows are found as if the copy began with the first row of the image.
        let skipped = b.mul_int(top, -(self.image.row as i64));
        b.offset(copy, skipped)
    }

    fn rows(&self, b: &mut Builder, block: Val, first: Val, count: usize) -> Pointers {
        let (s, image) = (self.s, self.image);
        let width = s.output[1];
        let step = s.strides[1] * image.pixel;
        // From behind the last pixel of a row to the first of the next.
        let gap = (s.strides[0] * image.row) as i64 - (width * step) as i64;
        if gap == 0 || s.output[0] == 1 {
            return Pointers::Even(b.element(block, first, step), step as i64);
        }
        let zero = b.index(0);
        let (y, x) = loops::divmod(b, first, width);
        let across = b.mul_int(first, step as i64);
        let down = b.mul_int(y, gap);
        let at = b.add(across, down);
        let at = b.offset(block, at);
        let pointers = (0..count).map(|i| {
            if i == 0 {
                return at;
            }
            let even = b.offset_int(at, (i * step) as i64);
            let skipped = if width >= count {
                let end = b.index(width - i.min(width));
                let over = b.cmp(Cmp::Ge, x, end);
                let gap = b.int(Ty::I64, gap);
                b.select(over, gap, zero)
            } else {
                let here = b.add_int(x, i as i64);
                let (rows, _) = loops::divmod(b, here, width);
                b.mul_int(rows, gap)
            };
            b.offset(even, skipped)
        });
        Pointers::Each(pointers.collect())
    }

    fn panel(&self, b: &mut Builder, group: usize, index: Val, _column: Val) -> (Val, i64) {
        let (nest, w) = self.panels.expect("lists have no panels");
        nest.packed_panel(b, w, group, index)
    }

    fn bias(&self, b: &mut Builder, _row: Val, column: Val, tile: Tile, _last: usize) -> Option<Vec<Val>> {
        let bias = b.element(self.bias?, column, 4);
        let ty = self.mac.ty;
        let vectors: Vec<Val> = (0..tile.vecs).map(|j| b.load(ty, bias, (j * ty.bytes()) as i32)).collect();
        Some((0..tile.rows).flat_map(|_| vectors.iter().copied()).collect())
    }
}

impl Pixels<'_> {
    /// Copies `rows` rows from row `top` of the padded image, of every block of channels that is wanted.
    fn copy_rows(&self, b: &mut Builder, from: Lines, copy: Val, top: Val, rows: Val, chunk: Option<KBlock>) {
        let s = self.s;
        let (first, mut end) = chunk.map_or((b.index(0), b.index(self.blocks)), |chunk| (chunk.at, chunk.to));
        let full = s.group_channels / s.block;
        if chunk.is_some() && full < self.blocks {
            // The last part takes the block that is not whole along.
            let (whole, all) = (b.index(full), b.index(self.blocks));
            let last = b.cmp(Cmp::Eq, end, whole);
            end = b.select(last, all, end);
        }
        loops::for_some(b, first, end, self.blocks, |b, block| {
            let from = from.block(b, block);
            let number = b.sub(block, first);
            let to = b.element(copy, number, self.image.block);
            copy_rows(b, s, self.mac.row_vector(), from, to, top, rows);
        });
    }
}

/// Copies `rows` rows from row `top` of the padded image of a block of channels: those that exist between zeros, the others as zeros.
pub fn copy_rows(b: &mut Builder, s: &Shape, ty: Ty, from: Lines, to: Val, top: Val, rows: Val) {
    let zero = b.index(0);
    let nothing = b.int(ty, 0);
    let (height, width) = (s.input[0], s.input[1]);
    let (pixel, lanes, bytes) = (from.layout.pixel(), from.layout.lanes, ty.elem.bytes());
    let left = s.before[1].min(s.extent(1));
    let inside = width.min(s.extent(1) - left);
    let right = s.extent(1) - left - inside;
    let blank = |b: &mut Builder, to: Val, count: usize| {
        loops::each_element(b, &[to], count * lanes, ty, |b, at, i, n| b.store_part(nothing, at[0], (i * bytes) as i32, n));
    };
    b.for_range(zero, rows, 1, &[], |b, r, _| {
        let y = b.add(top, r);
        let y = b.add_int(y, -(s.before[0] as i64));
        let to = b.element(to, r, s.extent(1) * pixel);
        // One comparison: as unsigned numbers, rows before the first are behind the last.
        let end = b.index(height);
        let exists = b.cmp(Cmp::LtU, y, end);
        b.branch(
            exists,
            |b| {
                let from = from.line(b, y);
                blank(b, to, left);
                let inner = b.offset_int(to, (left * pixel) as i64);
                loops::each_element(b, &[from, inner], inside * lanes, ty, |b, at, i, n| {
                    let v = b.load_part(ty, at[0], (i * bytes) as i32, n);
                    b.store_part(v, at[1], (i * bytes) as i32, n);
                });
                let outer = b.offset_int(to, ((left + inside) * pixel) as i64);
                blank(b, outer, right);
                vec![]
            },
            |b| {
                blank(b, to, s.extent(1));
                vec![]
            },
        );
        vec![]
    });
}
