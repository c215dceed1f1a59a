//! Matrix products.
//!
//! A constant right side is packed into panels at compile time; another one panel by panel at run time, or read where it lies when
//! few rows would not pay for packing. Products whose reduction is contiguous on both sides and that have few rows or columns
//! are dot products along the reduction.

mod dot;
mod shape;
mod sparse;
#[cfg(test)]
mod tests;

use self::shape::Shape;
use crate::choice::{self, Algorithm, choose};
use crate::kernels::lib::gemm::{self, KBlock, Mac, Nest, Pointers, ProductType, Source};
use crate::kernels::lib::loops::{self, Memory};
use crate::kernels::lib::pack::{self, MatrixStrides};
use crate::kernels::lib::store::{self, Output};
use crate::schedule;
use crate::unit::{Arg, Family, Forecast, Lowered, LoweredCall, Unit};
use dnnc_ir::Kind;
use dnnc_kir::{Builder, Val};

/// The family.
pub const FAMILY: Family =
    Family { name: "matmul", kinds: &[Kind::MatMul], lower, forecast, epilogue: |_, results| crate::unit::last_axis(results) };

fn lower(unit: &Unit) -> Result<Lowered, String> {
    let shape = Shape::new(unit);
    if unit.results[0].is_empty() {
        return Ok(Lowered::default());
    }
    let mut algorithms = vec![Algorithm::new("direct", dense_ns(unit, &shape), || direct(unit, &shape))];
    let matrix = sparse::matrix(unit, &shape).filter(|m| m.worth_leaving_out(unit.options));
    if let Some(m) = matrix {
        algorithms.extend(sparse::algorithms(unit, &shape, m)?);
    }
    let lowered = choose(unit, algorithms)?;
    Ok(lowered.with_density(matrix.map(|m| m.densities())))
}

/// The dense kernel; what leaves out zeros needs the constant itself.
fn forecast(unit: &Unit) -> Forecast {
    if unit.results[0].is_empty() {
        return Forecast::NOTHING;
    }
    let s = Shape::new(unit);
    let ns = match sparse::matrix(unit, &s).filter(|m| m.worth_leaving_out(unit.options)) {
        Some(m) => {
            let mut all = vec![Algorithm::new("direct", dense_ns(unit, &s), || direct(unit, &s))];
            all.extend(sparse::algorithms(unit, &s, m).unwrap_or_default());
            choice::predicted_ns(&all)
        }
        None => dense_ns(unit, &s),
    };
    Forecast::kernel(unit.target, ns).with_epilogue()
}

/// The product type: of several elements a step where those are contiguous on the left.
fn product_type(unit: &Unit, shape: &Shape) -> Result<Mac, String> {
    let (lhs, rhs) = (unit.inputs[0].ty.ty, unit.inputs[1].ty.ty);
    let best = ProductType::best(lhs, rhs, unit.target).filter(|p| p.k_step > 1 && !shape.trans_a && shape.depth > 0);
    best.map_or_else(|| Mac::new(lhs, unit.target), |product| Ok(Mac::of(product, lhs, unit.target)))
}

fn direct(unit: &Unit, shape: &Shape) -> Result<Lowered, String> {
    let panels = product_type(unit, shape)?.k_step() > 1 && unit.inputs[1].constant.is_some();
    match if panels { None } else { dot::lower(unit, shape)? } {
        Some(lowered) => Ok(lowered),
        None => tiled(unit, shape),
    }
}

/// Predicted nanoseconds of the dense kernel: few rows wait for the weights.
fn dense_ns(unit: &Unit, s: &Shape) -> f64 {
    let mac = product_type(unit, s).ok().filter(|mac| !mac.ty.elem.is_float());
    let k_step = mac.map_or(1, |mac| mac.k_step());
    let steps = s.depth.div_ceil(k_step);
    let weights = steps * s.columns * 4;
    let cycles = weights as f64 / schedule::bytes_per_cycle(unit.target, weights);
    let one = match mac {
        Some(mac) => mac.product_ns(unit.target, s.rows, s.columns, steps),
        None => schedule::product_ns(unit.target, schedule::lanes(&unit.target.vector, 4), s.rows, s.columns, s.depth),
    };
    let arithmetic = one * s.batches as f64;
    arithmetic.max(cycles / unit.target.ghz())
}

/// How the right side is read.
enum Right {
    /// Packed at compile time; bytes from one matrix of the batch to the next.
    Packed,
    /// Packed panel by panel.
    Panels,
    /// Read where it lies: rows of columns are contiguous.
    InPlace,
}

fn tiled(unit: &Unit, shape: &Shape) -> Result<Lowered, String> {
    let (a_ty, b_ty) = (unit.inputs[0].ty.ty, unit.inputs[1].ty.ty);
    let mac = product_type(unit, shape)?;
    let a_bytes = a_ty.bytes();
    let (row_stride, step) = if shape.trans_a { (1, shape.rows) } else { (shape.depth, 1) };
    let depth = match mac.k_step() {
        1 => gemm::straight(shape.depth, (step * a_bytes) as i64),
        _ => gemm::contiguous(shape.depth, &mac),
    };
    let work = (shape.batches * shape.rows * shape.columns) as u64 * shape.depth as u64;
    let parts = schedule::tasks(unit.options, work, usize::MAX);
    let batch_parts = parts.min(shape.batches);
    let mut nest = Nest::new(mac, unit.target, shape.rows, shape.columns, depth, shape.depth * a_bytes, parts / batch_parts);
    let most_rows = nest.groups.iter().map(|(_, r)| r.high).max().unwrap_or(1);
    loops::reachable(most_rows * row_stride, a_bytes)?;
    loops::reachable(most_rows * shape.columns, store::widest_element(unit))?;
    loops::reachable(shape.columns.max(shape.depth) * schedule::WIDEST * mac.lanes(), b_ty.bytes())?;

    let few = nest.groups.iter().all(|(_, r)| r.tiles <= 1);
    let right = match unit.inputs[1].constant {
        Some(_) => Right::Packed,
        None if few && !shape.trans_b && b_ty == a_ty && mac.k_step() == 1 && b_ty.bytes() == mac.bytes() => Right::InPlace,
        None => Right::Panels,
    };
    nest = match right {
        Right::Packed => nest.streamed(),
        Right::Panels => nest.packed_at_runtime(),
        Right::InPlace => nest,
    };
    let mut lowered = Lowered::default();
    let mut args = vec![Arg::Input(0)];
    match right {
        Right::Packed => {
            let constant = unit.inputs[1].constant.expect("checked above");
            let data = mac.panel_constant(constant);
            let (matrix, n, k) = (shape.depth * shape.columns, shape.columns, shape.depth);
            let mut packed = vec![];
            for first in (0..constant.len()).step_by(matrix.max(1)) {
                let at = |step: usize, column: usize| {
                    (step < k).then(|| first + if shape.trans_b { column * k + step } else { step * n + column })
                };
                let one = nest.pack(&data, at);
                // A single matrix is not copied: it may be most of the memory that the compilation needs.
                if packed.is_empty() { packed = one } else { packed.extend(one) }
            }
            lowered.constants.push(packed);
            args.push(Arg::Const(0));
        }
        _ => args.push(Arg::Input(1)),
    }
    let out_at = args.len();
    args.extend(Output::args(unit));
    let tasks = batch_parts * nest.tasks();
    let panel_bytes = match right {
        // Where the reduction is over nothing a panel is empty, but it is stored somewhere.
        Right::Panels => nest.groups.iter().map(|(g, _)| nest.one_panel_bytes(g)).max().unwrap_or(0).max(1),
        _ => 0,
    };
    let mut memory = Memory::default();
    let panel = memory.add(&mut lowered, &mut args, panel_bytes, tasks);
    let partial = memory.add(&mut lowered, &mut args, nest.partial_bytes(), batch_parts);

    let loads = Mac::new(b_ty, unit.target)?;
    let mut builder = Builder::new("matmul", args.len());
    let b = &mut builder;
    let task = b.task();
    let (batch_part, part) = loops::divmod(b, task, nest.tasks());
    let panel = memory.piece(b, panel, task);
    let partial = memory.piece(b, partial, batch_part);
    let (from, to) = loops::part_range(b, batch_part, batch_parts, shape.batches);
    loops::for_some(b, from, to, shape.batches, |b, batch| {
        let offsets = loops::batch_offsets(b, batch, &shape.axes, &shape.strides);
        let mut out = Output::new(b, unit, out_at, mac.lanes(), shape.columns);
        out.base = b.mul_int(batch, (shape.rows * shape.columns) as i64);
        let (a, w) = (b.param(0), b.param(1));
        let a = b.element(a, offsets[0], a_bytes);
        let w = match right {
            Right::Packed => {
                let (number, _) = loops::divmod(b, offsets[1], (shape.depth * shape.columns).max(1));
                b.element(w, number, nest.panel_bytes())
            }
            _ => b.element(w, offsets[1], b_ty.bytes()),
        };
        let sides = Sides { nest: &nest, shape, a, row_bytes: row_stride * a_bytes, w, right: &right, panel, loads };
        nest.emit(b, part, &sides, &out, partial);
    });
    lowered.calls.push(LoweredCall { func: builder.finish(), args, tasks });
    Ok(lowered)
}

struct Sides<'a> {
    nest: &'a Nest,
    shape: &'a Shape,
    /// Left matrix, and bytes from a row to the next.
    a: Val,
    row_bytes: usize,
    /// Right matrix or its panels.
    w: Val,
    right: &'a Right,
    /// The task's memory for a panel.
    panel: Option<Val>,
    /// How elements of the right matrix are read.
    loads: Mac,
}

impl Source for Sides<'_> {
    fn block(&self, b: &mut Builder, _first: Val, _end: Val, chunk: Option<KBlock>) -> Val {
        chunk.map_or(self.a, |chunk| chunk.skip(b, self.a))
    }

    fn rows(&self, b: &mut Builder, a: Val, first: Val, _count: usize) -> Pointers {
        Pointers::Even(b.element(a, first, self.row_bytes), self.row_bytes as i64)
    }

    fn panel(&self, b: &mut Builder, group: usize, index: Val, column: Val) -> (Val, i64) {
        let g = &self.nest.groups[group].0;
        let bytes = self.loads.lhs.bytes();
        let packed = (g.vecs * self.nest.mac.panel().bytes()) as i64;
        match self.right {
            Right::Packed => {
                let first = b.offset_int(self.w, self.nest.panel_offset(group) as i64);
                (b.element(first, index, self.nest.one_panel_bytes(g)), packed)
            }
            Right::InPlace => (b.element(self.w, column, bytes), (self.shape.columns * bytes) as i64),
            Right::Panels => {
                let panel = self.panel.expect("memory where panels are packed at run time");
                let (step, across) = if self.shape.trans_b { (1, self.shape.depth) } else { (self.shape.columns, 1) };
                let from = b.element(self.w, column, across * bytes);
                let strides = MatrixStrides { column: across * bytes, step: step * bytes };
                match self.nest.mac.k_step() {
                    1 => pack::panel(b, self.loads, (g.vecs, g.last), self.shape.depth, strides, from, panel),
                    _ => pack::steps(b, &self.nest.mac, self.loads.lhs, (g.vecs, g.last), self.shape.depth, strides, from, panel),
                }
                (panel, packed)
            }
        }
    }
}
