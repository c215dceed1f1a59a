//! Normalisation along axes: each row is read a few times while it is in the cache.

use super::lib::view::View;
use crate::expr::{Access, Epilogue, register, round_to};
use crate::kernels::lib::rows::{Row, Rows, Stream};
use crate::unit::{Arg, Family, Lowered, LoweredCall, Unit};
use crate::{estimate, math};
use dnnc_ir::{Kind, Type};
use dnnc_kir::{Builder, Tuning, Ty, Un, Val};

/// The family.
pub const FAMILY: Family = Family {
    name: "norm",
    kinds: &[Kind::Softmax, Kind::LogSoftmax, Kind::Norm, Kind::RmsNorm],
    lower,
    forecast: |unit| estimate::rows(unit, if unit.op.kind() == Kind::Softmax { EXPONENTIALS } else { 1.0 }).with_epilogue(),
    // The epilogue must have vectors where the rows have them.
    epilogue: |_, results| crate::unit::last_axis(results),
};

/// Cycles a register of each operation of a softmax: maxima and sums of a row are chains.
const EXPONENTIALS: f64 = 3.0;

fn lower(unit: &Unit) -> Result<Lowered, String> {
    let (op, ty, shape) = (unit.op, &unit.inputs[0].ty, &unit.results[0].shape);
    if ty.is_empty() {
        return Ok(Lowered::default());
    }
    let axes = match op.kind() {
        Kind::Softmax | Kind::LogSoftmax => vec![op.attrs.size("axis")],
        _ => op.attrs.sizes("axes"),
    };
    let reduced: Vec<bool> = (0..shape.len()).map(|a| axes.contains(&a)).collect();
    let mut streams = vec![Stream { ty: ty.ty, view: View::dense(shape) }, Stream { ty: unit.stored.ty, view: View::dense(shape) }];
    let mut args = vec![Arg::Input(0), Arg::Output(0)];
    for (i, extra) in unit.epilogue.iter().flat_map(|e| &e.operands).enumerate() {
        let view = match extra.access {
            Access::Full => View::dense(shape),
            Access::Scalar => View { offset: 0, strides: vec![0; shape.len()] },
            Access::Channel => View { offset: 0, strides: (0..shape.len()).map(|a| isize::from(a + 1 == shape.len())).collect() },
        };
        streams.push(Stream { ty: extra.ty, view });
        args.push(Arg::Extra(i));
    }
    let bits = unit.target.vector.bits;
    let own = (bits / (8 * register(ty.ty).bytes())) as u8;
    let lanes = unit.epilogue.map_or(own, |e| e.expr.lanes(bits).min(own));
    // Beside the exponentials of a longer row its end costs little: above 128 elements of f32 rows one by one were 5 % faster.
    let exponentials = matches!(op.kind(), Kind::Softmax | Kind::LogSoftmax);
    let cache = if exponentials { unit.target.l1d.min(4096) } else { unit.target.l1d };
    let rows = Rows::new(shape, &reduced, &streams, lanes, 24, unit.options.threads, cache);
    let mut b = Builder::new(op.kind().name(), streams.len());
    b.tune(Tuning::Optimise);
    let reg = Ty { elem: register(ty.ty), lanes };
    let length: usize = axes.iter().map(|&a| shape[a]).product();
    rows.each(&mut b, &mut |b, row| {
        let kernel = Kernel { row, ty: ty.ty, reg, epilogue: unit.epilogue, length };
        match op.kind() {
            Kind::Softmax => {
                kernel.softmax(b, ty.ty == Type::F32 && unit.stored.ty == Type::F32 || ty.ty == Type::F64 && unit.stored.ty == Type::F64)
            }
            Kind::LogSoftmax => kernel.log_softmax(b),
            Kind::Norm => kernel.norm(b, op.attrs.float("eps")),
            _ => kernel.rms_norm(b, op.attrs.float("eps")),
        }
    });
    Ok(Lowered { calls: vec![LoweredCall { func: b.finish(), args, tasks: rows.tasks() }], ..Lowered::default() })
}

const X: usize = 0;
const Y: usize = 1;
const EXTRA: usize = 2;

struct Kernel<'a> {
    row: &'a Row<'a>,
    /// Of the result before the epilogue.
    ty: Type,
    reg: Ty,
    epilogue: Option<&'a Epilogue>,
    /// Elements of a row.
    length: usize,
}

impl Kernel<'_> {
    /// e^(x − max) is kept in the result, if that has its precision, until the sum is known; else it is computed again.
    fn softmax(&self, b: &mut Builder, keep: bool) {
        let (max, sum) = self.exponentials(b, keep);
        let one = b.number(self.reg, 1.0);
        let scale = each_sum(b, &sum, |b, s| b.div(one, s));
        self.write(b, if keep { Y } else { X }, &mut |b, v, slot| {
            let e = if keep { v } else { exp_below(b, v, max[slot]) };
            b.mul(e, scale[slot])
        });
    }

    fn log_softmax(&self, b: &mut Builder) {
        let (max, sum) = self.exponentials(b, false);
        let log = each_sum(b, &sum, math::log);
        self.write(b, X, &mut |b, v, slot| {
            let v = b.sub(v, max[slot]);
            b.sub(v, log[slot])
        });
    }

    /// The maximum of the row and the sum of e^(x − max).
    fn exponentials(&self, b: &mut Builder, keep: bool) -> (Vec<Val>, Vec<Val>) {
        let (lowest, zero) = (b.number(self.reg, f64::NEG_INFINITY), b.number(self.reg, 0.0));
        // A NaN may be missed here: it is in the sum.
        let max = self.row.fold(b, lowest, &mut |b, at| at.load(b, X), &mut |b, acc, v| b.max(v, acc));
        let sum = self.row.fold(
            b,
            zero,
            &mut |b, at| {
                let v = at.load(b, X);
                let e = exp_below(b, v, max[at.slot]);
                if keep {
                    at.store(b, Y, e);
                }
                e
            },
            &mut |b, acc, v| b.add(acc, v),
        );
        (max, sum)
    }

    /// First the mean, then the variance of what is left: nothing cancels.
    fn norm(&self, b: &mut Builder, eps: f64) {
        let zero = b.number(self.reg, 0.0);
        let sum = self.row.fold(b, zero, &mut |b, at| at.load(b, X), &mut |b, acc, v| b.add(acc, v));
        let part = b.number(self.reg, 1.0 / self.length as f64);
        let mean = each_sum(b, &sum, |b, s| b.mul(s, part));
        let squares = self.row.fold(
            b,
            zero,
            &mut |b, at| {
                let v = at.load(b, X);
                let v = b.sub(v, mean[at.slot]);
                b.mul(v, v)
            },
            &mut |b, acc, v| b.add(acc, v),
        );
        let scale = self.inverse_root(b, &squares, part, eps);
        self.write(b, X, &mut |b, v, slot| {
            let v = b.sub(v, mean[slot]);
            b.mul(v, scale[slot])
        });
    }

    fn rms_norm(&self, b: &mut Builder, eps: f64) {
        let (zero, part) = (b.number(self.reg, 0.0), b.number(self.reg, 1.0 / self.length as f64));
        let squares = self.row.fold(
            b,
            zero,
            &mut |b, at| {
                let v = at.load(b, X);
                b.mul(v, v)
            },
            &mut |b, acc, v| b.add(acc, v),
        );
        let scale = self.inverse_root(b, &squares, part, eps);
        self.write(b, X, &mut |b, v, slot| b.mul(v, scale[slot]));
    }

    /// 1/√(sum·part + eps).
    fn inverse_root(&self, b: &mut Builder, sums: &[Val], part: Val, eps: f64) -> Vec<Val> {
        let (one, eps) = (b.number(self.reg, 1.0), b.number(self.reg, eps));
        each_sum(b, sums, |b, s| {
            let v = b.fma(s, part, eps);
            let root = b.un(Un::Sqrt, v);
            b.div(one, root)
        })
    }

    /// Computes each element of the result from that of a stream, and the epilogue on it.
    fn write(&self, b: &mut Builder, from: usize, f: &mut dyn FnMut(&mut Builder, Val, usize) -> Val) {
        let slots = vec![vec![]; self.row.width()];
        self.row.each(b, slots, &mut |b, at, _| {
            let v = at.load(b, from);
            let v = f(b, v, at.slot);
            let v = match self.epilogue {
                Some(e) => {
                    let v = round_to(b, v, self.ty);
                    e.apply(b, v, &mut |b, i| at.load(b, EXTRA + i))
                }
                None => v,
            };
            at.store(b, Y, v);
            vec![]
        });
    }
}

/// A function of the sum of each slot; where all slots are of one row their sums are one value, for which it is computed once.
fn each_sum(b: &mut Builder, sums: &[Val], mut f: impl FnMut(&mut Builder, Val) -> Val) -> Vec<Val> {
    let mut results: Vec<Val> = vec![];
    for (i, &sum) in sums.iter().enumerate() {
        let result = match sums[..i].iter().position(|&s| s == sum) {
            Some(same) => results[same],
            None => f(b, sum),
        };
        results.push(result);
    }
    results
}

/// e^(x − max).
fn exp_below(b: &mut Builder, x: Val, max: Val) -> Val {
    let d = b.sub(x, max);
    math::exp_nonpositive(b, d)
}

#[cfg(test)]
mod tests;
