//! Small windows over packed f32 images of one or two axes.

use super::{Pool, Shape};
use crate::kernels::store::Output;
use crate::kernels::window::{self, Window, Work};
use crate::kernels::{Arg, Lowered, LoweredCall, Unit, product};
use crate::kir::{Builder, Elem, Ty, Val};
use crate::{math, schedule};
use dnnc_ir::Type;

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
    let ty = Ty::vector(Elem::F32, s.block as u8);
    // A signal is an image of one row.
    let pair = |v: &[usize], one: usize| if v.len() == 1 { [one, v[0]] } else { [v[0], v[1]] };
    let w = Window {
        input: pair(&s.input, 1),
        output: pair(&s.output, 1),
        kernel: pair(&s.kernel, 1),
        strides: pair(&s.strides, 1),
        dilations: pair(&s.dilations, 1),
        before: pair(&s.before, 0),
        ty,
    };
    let row_axis = s.kernel.len() - 1;
    let tasks = schedule::tasks(unit.options, (s.planes * s.block * s.pixels() * s.taps()) as u64, s.planes);
    let mut lowered = Lowered::default();
    let mut args = vec![Arg::Input(0)];
    let mut constant = |values: &[f32], args: &mut Vec<Arg>| {
        args.push(Arg::Const(lowered.constants.len()));
        lowered.constants.push(values.iter().flat_map(|v| v.to_le_bytes()).collect());
        args.len() - 1
    };
    let padding = if s.pool == Pool::Max { f32::NEG_INFINITY } else { 0.0 };
    let outside = w.leaves_rows().then(|| constant(&vec![padding; w.input[1] * s.block], &mut args));
    // Rows of each window that count: the columns are known where the code is written.
    let rows: Vec<usize> = (0..w.output[0]).map(|y| if row_axis == 1 { s.counted(0, y) } else { 1 }).collect();
    let uneven = s.pool != Pool::Max && rows.iter().any(|n| *n != rows[0]);
    let row_counts = uneven.then(|| constant(&rows.iter().map(|&n| n as f32).collect::<Vec<_>>(), &mut args));
    let out_at = args.len();
    args.extend(Output::args(unit));

    let mut builder = Builder::new("pool", args.len());
    let b = &mut builder;
    let image_bytes = w.input[0] * w.input[1] * ty.bytes();
    window::for_images(b, tasks, s.planes, |b, image| {
        let (_, block) = product::divmod(b, image, s.channels);
        let mut out = Output::new(b, unit, out_at, s.block, s.block);
        out.base = b.mul_int(image, (s.pixels() * s.block) as i64);
        out.channel.1 = b.mul_int(block, s.block as i64);
        let x = b.param(0);
        let x = b.element(x, image, image_bytes);
        let outside = outside.map(|param| b.param(param));
        let row_counts = row_counts.map(|param| b.param(param));
        let work = Combine { s, w: &w, rows: rows[0], row_counts };
        w.emit(b, schedule::window_tile(&unit.target.vector, 0).tile, x, outside, &work, &out);
    });
    lowered.calls.push(LoweredCall { func: builder.finish(), args, tasks });
    Ok(lowered)
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
