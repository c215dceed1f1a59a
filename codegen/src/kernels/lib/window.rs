//! Windows that slide over packed images, channel by channel: depthwise convolution and pooling.
//!
//! A tile is a few rows and a few pixels of the result in registers; each pixel of the input under it is read once and goes to all windows that
//! contain it. Rows outside of the image are read from a row of padding that is given; columns outside are left out where the code is written.

use super::image::Lines;
use super::loops;
use super::store::Output;
use crate::schedule::{self, Tile};
use crate::unit::Options;
use dnnc_kir::{Builder, Cmp, Conv, Elem, Ty, Val};
use dnnc_targets::{Target, Vector};

/// The way of a window over images of two axes.
#[derive(Clone)]
pub struct Window {
    /// Sizes of an image.
    pub input: [usize; 2],
    /// Sizes of its result.
    pub output: [usize; 2],
    /// Sizes of the window.
    pub kernel: [usize; 2],
    /// From a window to the next.
    pub strides: [usize; 2],
    /// From an element of a window to the next.
    pub dilations: [usize; 2],
    /// Padding before the image.
    pub before: [usize; 2],
    /// What is read from memory at once: the channels of a block.
    pub ty: Ty,
}

/// What is done with the elements of a window.
pub trait Work {
    /// Before the first element.
    fn init(&self, b: &mut Builder) -> Val;

    /// With the element at row `ky`, column `kx` of the window.
    fn tap(&self, b: &mut Builder, acc: Val, x: Val, ky: usize, kx: usize) -> Val;

    /// After the last. `y` is the row of the result; the column, when it is given, where the window may leave the image.
    fn finish(&self, _b: &mut Builder, acc: Val, _y: Val, _column: Option<usize>) -> Val {
        acc
    }
}

impl Window {
    /// Whether rows outside of the image are read.
    pub fn leaves_rows(&self) -> bool {
        self.before[0] > 0 || self.reach(0, self.output[0] - 1) >= self.input[0] as i64
    }

    /// The last element of an axis that the window at a position reads.
    fn reach(&self, axis: usize, position: usize) -> i64 {
        self.first(axis, position) + ((self.kernel[axis] - 1) * self.dilations[axis]) as i64
    }

    /// The first element.
    fn first(&self, axis: usize, position: usize) -> i64 {
        (position * self.strides[axis]) as i64 - self.before[axis] as i64
    }

    /// The columns of the result whose windows lie wholly between the first and the last column of the image.
    fn whole_columns(&self) -> (usize, usize) {
        let width = self.output[1];
        let whole = |x: &usize| self.first(1, *x) >= 0 && self.reach(1, *x) < self.input[1] as i64;
        let from = (0..width).find(whole).unwrap_or(width);
        let to = (from..width).find(|x| !whole(x)).unwrap_or(width);
        (from, to)
    }

    /// Rows of the image that so many rows of the result read.
    pub fn rows_read(&self, rows: usize) -> usize {
        (rows - 1) * self.strides[0] + (self.kernel[0] - 1) * self.dilations[0] + 1
    }

    /// Predicted cycles of `rows` rows of a block of channels: arithmetic of so many multiply-adds an element of a window, or loads, whichever takes
    /// longer, where tiles have `together` rows.
    pub fn cycles(&self, v: &Vector, rows: usize, together: usize, operations: f64) -> f64 {
        let of_rows = |n: usize| {
            let taps =
                (n * self.output[1] * self.kernel[0] * self.kernel[1]) as f64 * operations / (v.fma_per_cycle as f64 * v.code.sustained);
            let loads = (self.rows_read(n) * self.output[1] * self.strides[1].min(self.kernel[1])) as f64 / v.loads;
            taps.max(loads) + v.code.window_rows
        };
        let rest = if !rows.is_multiple_of(together) { of_rows(rows % together) } else { 0.0 };
        (rows / together) as f64 * of_rows(together) + rest
    }

    /// Predicted nanoseconds of whole images of so many blocks of channels, which are read from and written to where they are stored.
    pub fn images_ns(&self, target: &Target, blocks: usize, operations: f64) -> f64 {
        let together = schedule::window_tile(&target.vector, self.kernel[0] * self.kernel[1]).tile.rows;
        let cycles = blocks as f64 * self.cycles(&target.vector, self.output[0], together, operations);
        let elements: usize = [self.input, self.output].iter().map(|s| s[0] * s[1]).sum();
        schedule::fed_ns(target, &Options::default(), cycles / target.ghz(), 0, blocks * elements * self.ty.bytes())
    }

    /// Emits the windows of `count` rows of the result from row `first`, of one block of channels; `outside` is a row of padding, at least as
    /// long as one of the image.
    pub fn emit(
        &self,
        b: &mut Builder,
        tile: Tile,
        x: Lines,
        (first, count): (Val, usize),
        outside: Option<Val>,
        work: &dyn Work,
        out: &Output,
    ) {
        let rows = tile.rows.min(count);
        let groups = count / rows;
        let end = if first == b.index(0) { b.index(groups * rows) } else { b.add_int(first, (groups * rows) as i64) };
        let pass = Pass { w: self, x, outside, work, out };
        // Fewer rows leave registers for more pixels.
        let pixels = tile.rows * tile.vecs / rows;
        if groups == 1 {
            pass.rows(b, first, rows, pixels);
        } else {
            b.for_range(first, end, rows as i64, &[], |b, y, _| {
                pass.rows(b, y, rows, pixels);
                vec![]
            });
        }
        if count % rows > 0 {
            pass.rows(b, end, count % rows, tile.rows * tile.vecs / (count % rows));
        }
    }
}

struct Pass<'a> {
    w: &'a Window,
    x: Lines,
    outside: Option<Val>,
    work: &'a dyn Work,
    out: &'a Output<'a>,
}

/// Some pixels of some rows of the result.
struct Piece {
    rows: usize,
    pixels: usize,
    /// The first pixel, when it is known: then columns outside of the image are left out.
    at: Option<usize>,
}

impl Pass<'_> {
    fn pixel_bytes(&self) -> i64 {
        self.w.ty.bytes() as i64
    }

    /// `count` rows of the result from row `y`, in tiles of `pixels`.
    fn rows(&self, b: &mut Builder, y: Val, count: usize, pixels: usize) {
        let w = self.w;
        let mut lines: Vec<usize> = (0..count).flat_map(|r| (0..w.kernel[0]).map(move |k| r * w.strides[0] + k * w.dilations[0])).collect();
        lines.sort();
        lines.dedup();
        let top = b.mul_int(y, w.strides[0] as i64);
        let pointers: Vec<Val> = lines.iter().map(|&line| self.line(b, top, line as i64 - w.before[0] as i64)).collect();
        // Tiles of about the same width, of which those at the borders are written out for their columns.
        let width = w.output[1];
        let (from, to) = w.whole_columns();
        let tiles = width.div_ceil(pixels);
        let spare = tiles * pixels - width;
        let first = if from == 0 { 0 } else { (pixels - spare / 2).min(pixels).max(1) };
        let columns = (first.max(from).min(width), to);
        let written = |b: &mut Builder, from: usize, to: usize| {
            for at in (from..to).step_by(pixels) {
                let piece = Piece { rows: count, pixels: pixels.min(to - at), at: Some(at) };
                let x = b.index(at);
                self.piece(b, &piece, y, x, &lines, &pointers, w.first(1, at) * self.pixel_bytes());
            }
        };
        let (from, to) = columns;
        written(b, 0, from);
        let tiles = to.saturating_sub(from) / pixels;
        if tiles > 0 {
            let (start, end) = (b.index(from), b.index(from + tiles * pixels));
            let first = w.first(1, from) * self.pixel_bytes();
            let moved: Vec<Val> = pointers.iter().map(|p| b.offset_int(*p, first)).collect();
            let piece = Piece { rows: count, pixels, at: None };
            b.for_range(start, end, pixels as i64, &moved, |b, x, at| {
                self.piece(b, &piece, y, x, &lines, at, 0);
                let step = (pixels * w.strides[1]) as i64 * self.pixel_bytes();
                at.iter().map(|p| b.offset_int(*p, step)).collect()
            });
        }
        written(b, from + tiles * pixels, width);
    }

    /// Address of the row `top + more` of the image.
    fn line(&self, b: &mut Builder, top: Val, more: i64) -> Val {
        let w = self.w;
        let y = b.add_int(top, more);
        let inside = self.x.line(b, y);
        let Some(outside) = self.outside else {
            return inside;
        };
        // One comparison: as unsigned numbers, rows before the first are behind the last.
        let height = b.index(w.input[0]);
        let exists = b.cmp(Cmp::LtU, y, height);
        let [inside, outside] = [inside, outside].map(|p| b.conv(Conv::Bits, p, Elem::I64));
        let at = b.select(exists, inside, outside);
        b.conv(Conv::Bits, at, Elem::Ptr)
    }

    fn piece(&self, b: &mut Builder, piece: &Piece, y: Val, x: Val, lines: &[usize], pointers: &[Val], disp: i64) {
        let w = self.w;
        let inside = |column: usize| match piece.at {
            Some(at) => (0..w.input[1] as i64).contains(&(w.first(1, at) + column as i64)),
            None => true,
        };
        let mut acc: Vec<Option<Val>> = vec![None; piece.rows * piece.pixels];
        let last = (piece.pixels - 1) * w.strides[1] + (w.kernel[1] - 1) * w.dilations[1];
        for (line, pointer) in lines.iter().zip(pointers) {
            for column in (0..=last).filter(|&c| inside(c)) {
                // The windows that contain this element, and where in them it is.
                let rows: Vec<(usize, usize)> = places(*line, piece.rows, w.strides[0], w.kernel[0], w.dilations[0]);
                let columns: Vec<(usize, usize)> = places(column, piece.pixels, w.strides[1], w.kernel[1], w.dilations[1]);
                if rows.is_empty() || columns.is_empty() {
                    continue;
                }
                let element = b.load(w.ty, *pointer, (disp + column as i64 * self.pixel_bytes()) as i32);
                for &(r, ky) in &rows {
                    for &(p, kx) in &columns {
                        let slot = &mut acc[r * piece.pixels + p];
                        let before = slot.unwrap_or_else(|| self.work.init(b));
                        *slot = Some(self.work.tap(b, before, element, ky, kx));
                    }
                }
            }
        }
        let zero = b.index(0);
        for r in 0..piece.rows {
            let row = b.add_int(y, r as i64);
            let line = b.mul_int(row, w.output[1] as i64);
            let pixel = b.add(line, x);
            let mut values = vec![];
            for p in 0..piece.pixels {
                let sum = acc[r * piece.pixels + p].unwrap_or_else(|| self.work.init(b));
                values.push(self.work.finish(b, sum, row, piece.at.map(|at| at + p)));
            }
            self.out.store(b, pixel, zero, Tile { rows: piece.pixels, vecs: 1 }, w.ty.lanes as usize, &values);
        }
    }
}

/// The windows of a tile that contain element `at` of an axis, each with the element's place in it.
fn places(at: usize, windows: usize, stride: usize, kernel: usize, dilation: usize) -> Vec<(usize, usize)> {
    let place = |i: usize| {
        let within = at.checked_sub(i * stride)?;
        (within % dilation == 0 && within / dilation < kernel).then_some((i, within / dilation))
    };
    (0..windows).filter_map(place).collect()
}

/// Splits images over tasks and emits `image` for each of the task's.
pub fn for_images(b: &mut Builder, parts: usize, images: usize, image: impl FnOnce(&mut Builder, Val)) {
    let task = b.task();
    let (from, to) = loops::part_range(b, task, parts, images);
    loops::for_some(b, from, to, images, image);
}
