//! Small windows over packed f32 images of one or two axes.

use super::shape::{Pool, Shape};
use crate::kernels::lib::image::{Frame, Layout, Lines};
use crate::kernels::lib::loops;
use crate::kernels::lib::store::Output;
use crate::kernels::lib::window::{self, Window, Work};
use crate::schedule::Tile;
use crate::unit::{Arg, Lowered, LoweredCall, Unit};
use crate::{math, schedule};
use dnnc_ir::Type;
use dnnc_kir::{Builder, Val};

/// Elements that a window may have here: its code is written out.
const MOST_TAPS: usize = 49;

/// Whether this pooling is done here.
pub fn fits(unit: &Unit, s: &Shape) -> bool {
    s.block > 0
        && s.block == schedule::lanes(&unit.target.vector, 4)
        && unit.inputs[0].ty.ty == Type::F32
        && (1..=2).contains(&s.kernel.len())
        && s.taps() <= MOST_TAPS
}

pub fn lower(unit: &Unit, s: &Shape) -> Result<Lowered, String> {
    let mut frame = Frame::default();
    frame.arg(Arg::Input(0));
    let strip = Strip::new(&mut frame, unit);
    let out_at = frame.output(unit);
    let tasks = schedule::tasks(unit.options, (s.planes * s.block * s.pixels() * s.taps()) as u64, s.planes);
    let layout = Layout::whole(strip.window.input, s.block);

    let mut builder = Builder::new("pool", frame.args.len());
    let b = &mut builder;
    window::for_images(b, tasks, s.planes, |b, image| {
        let (_, block) = loops::divmod(b, image, s.channels);
        let mut out = Output::new(b, unit, out_at, s.block, s.block);
        out.base = b.mul_int(image, (s.pixels() * s.block) as i64);
        out.channel.1 = b.mul_int(block, s.block as i64);
        let x = b.param(0);
        let x = Lines { layout, at: b.element(x, image, layout.block) };
        let first = b.index(0);
        strip.emit(b, x, (first, strip.window.output[0]), &out);
    });
    frame.lowered.calls.push(LoweredCall { func: builder.finish(), args: frame.args, tasks });
    Ok(frame.lowered)
}

/// A pooling whose rows can be made in any portions.
pub struct Strip {
    /// The way of its windows.
    pub window: Window,
    /// Blocks of channels.
    pub blocks: usize,
    s: Shape,
    tile: Tile,
    /// Rows of a window that count where that is the same for all; else a pointer to a table of them.
    rows: usize,
    row_counts: Option<usize>,
    /// Pointer to a row of padding.
    outside: Option<usize>,
}

impl Strip {
    /// Prepares a pooling that fits.
    pub fn new(frame: &mut Frame, unit: &Unit) -> Strip {
        let s = Shape::new(unit);
        let window = s.window();
        let padding = if s.pool == Pool::Max { f32::NEG_INFINITY } else { 0.0 };
        let outside = window.leaves_rows().then(|| frame.floats(vec![padding; window.input[1] * s.block]));
        // Rows of each window that count: the columns are known where the code is written.
        let rows: Vec<usize> = (0..window.output[0]).map(|y| if s.kernel.len() == 2 { s.counted(0, y) } else { 1 }).collect();
        let uneven = s.pool != Pool::Max && rows.iter().any(|n| *n != rows[0]);
        let row_counts = uneven.then(|| frame.floats(rows.iter().map(|&n| n as f32)));
        let tile = schedule::window_tile(&unit.target.vector, 0).tile;
        Strip { window, blocks: s.channels, tile, rows: rows[0], row_counts, outside, s }
    }

    /// Emits `rows` (the first and their number) of a block of channels, whose input is at `x`.
    pub fn emit(&self, b: &mut Builder, x: Lines, rows: (Val, usize), out: &Output) {
        let outside = self.outside.map(|param| b.param(param));
        let row_counts = self.row_counts.map(|param| b.param(param));
        let work = Combine { s: &self.s, w: &self.window, rows: self.rows, row_counts };
        self.window.emit(b, self.tile, x, rows, outside, &work, out);
    }
}

struct Combine<'a> {
    s: &'a Shape,
    w: &'a Window,
    /// Rows of a window that count where that is the same for all; else a table of them.
    rows: usize,
    row_counts: Option<Val>,
}

impl Work for Combine<'_> {
    fn init(&self, b: &mut Builder) -> Val {
        b.number(self.w.ty, if self.s.pool == Pool::Max { f64::NEG_INFINITY } else { 0.0 })
    }

    fn tap(&self, b: &mut Builder, acc: Val, x: Val, _ky: usize, _kx: usize) -> Val {
        if self.s.pool == Pool::Max { math::max(b, acc, x) } else { b.add(acc, x) }
    }

    fn finish(&self, b: &mut Builder, acc: Val, y: Val, column: Option<usize>) -> Val {
        if self.s.pool == Pool::Max {
            return acc;
        }
        let columns = column.map_or(self.w.kernel[1], |x| self.s.counted(self.s.kernel.len() - 1, x));
        let Some(table) = self.row_counts else {
            let count = self.rows * columns;
            return match count {
                0 => b.int(self.w.ty, 0),
                n if n.is_power_of_two() => {
                    let factor = b.number(self.w.ty, 1.0 / n as f64);
                    b.mul(acc, factor)
                }
                n => {
                    let count = b.number(self.w.ty, n as f64);
                    b.div(acc, count)
                }
            };
        };
        let at = b.element(table, y, 4);
        let rows = b.load_splat(self.w.ty, at, 0);
        let columns = b.number(self.w.ty, columns as f64);
        let count = b.mul(rows, columns);
        // A window of nothing is 0, not 0/0.
        let one = b.number(self.w.ty, 1.0);
        let count = b.max(count, one);
        b.div(acc, count)
    }
}
