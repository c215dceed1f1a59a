//! Products with a constant matrix that has zeros.

use super::shape::Shape;
use crate::choice::Algorithm;
use crate::kernels::lib::gemm::{KBlock, Mac, Pointers, Source};
use crate::kernels::lib::loops::{self, Memory};
use crate::kernels::lib::store::{self, Output};
use crate::kernels::sparse::block_sparse::{BlockSparse, Tables};
use crate::kernels::sparse::csc_rows::{self, CscRows};
use crate::kernels::sparse::gather::{self, GatherSpmv};
use crate::kernels::sparse::scatter::{self, ScatterSpmv};
use crate::kernels::sparse::{Matrix, SparsityPattern};
use crate::schedule::{self, Tile};
use crate::unit::{Arg, Lowered, LoweredCall, Unit};
use dnnc_ir::Type;
use dnnc_kir::{Builder, Cmp, Conv, Ty, Val};
use std::rc::Rc;

/// Share of inputs that are taken not to be 0 where nothing is known of them: most come out of an activation.
const FILLED: f64 = 0.7;
/// Share of inputs that are not 0 where many are.
const SPARSE_ROW: f64 = 0.35;
/// Name of the algorithm that takes one of two by what the row holds.
const EITHER: &str = "sparse 1x1, gather or scatter";
/// Nanoseconds to bring a result to its place.
const GATHER_NS: f64 = 1.0;
/// Rows up to which they are scattered one by one.
const FEW: usize = 4;

/// The right side, when it is one known matrix of f32.
pub fn matrix<'a>(unit: &Unit<'a>, s: &Shape) -> Option<Matrix<'a>> {
    let constant = unit.inputs[1].constant?;
    let f32s = [&unit.inputs[0].ty, &unit.inputs[1].ty].iter().all(|t| t.ty == Type::F32);
    let one = s.batches == 1 && !s.trans_a && constant.len() == s.depth * s.columns && s.depth > 0;
    let (step, column) = if s.trans_b { (1, s.depth) } else { (s.columns, 1) };
    (f32s && one).then(|| Matrix { data: constant.values::<f32>(), steps: s.depth, columns: s.columns, step, column })
}

/// A form of the matrix without its zeros.
enum Form {
    BlockSparse(BlockSparse),
    /// With the columns in another order.
    Grouped(BlockSparse),
    CscRows(CscRows),
    ScatterSpmv(Rc<ScatterSpmv>),
    GatherSpmv(Rc<GatherSpmv>),
    /// Both, and which is used is settled by how many elements of the row are 0.
    Either(Rc<GatherSpmv>, Rc<ScatterSpmv>),
}

/// The algorithms that leave zeros out.
pub fn algorithms<'a>(unit: &'a Unit, s: &'a Shape, m: Matrix<'a>) -> Result<Vec<Algorithm<'a>>, String> {
    let forms = forms(unit, s, &m)?.into_iter();
    Ok(forms.map(|(name, ns, form)| Algorithm::new(name, ns, move || lower(unit, s, &m, &form))).collect())
}

/// The forms that come into question, each with its name and predicted time.
fn forms(unit: &Unit, s: &Shape, m: &Matrix) -> Result<Vec<(String, f64, Form)>, String> {
    let mac = Mac::new(Type::F32, unit.target)?;
    let work = (m.density() * (s.rows * s.depth * s.columns) as f64) as u64;
    let parts = schedule::tasks(unit.options, work, usize::MAX);
    let support = SparsityPattern::of(m);
    let block_sparse = |support: &SparsityPattern| BlockSparse::new(mac, unit.target, s.rows, true, support, s.columns, s.depth * 4, parts);
    let plain = block_sparse(&support);
    let mut forms = vec![];
    if s.rows <= FEW {
        let grouped = block_sparse(&support.grouped());
        let ns = grouped.ns + (s.rows * s.columns) as f64 * GATHER_NS;
        if ns < 0.95 * plain.ns {
            forms.push((format!("{}, reordered", grouped.name()), ns, Form::Grouped(grouped)));
        }
    }
    forms.push((plain.name(), plain.ns, Form::BlockSparse(plain)));
    if s.rows >= mac.lanes() {
        let blocks = s.depth.div_ceil(mac.lanes());
        let csc_rows = CscRows::new(mac, unit.target, s.rows, &support, s.columns, blocks, s.depth * 4, parts);
        forms.push((csc_rows.name(), csc_rows.ns, Form::CscRows(csc_rows)));
    }
    if s.rows <= FEW {
        let rows = s.rows as f64;
        let scatter = Rc::new(ScatterSpmv::new(mac, unit.target, m, &support, parts));
        let gather = Rc::new(GatherSpmv::new(mac, unit.target, m, &support, parts));
        let (by_step, by_column) = (scatter.ns * rows, gather.ns * rows);
        forms.push((scatter.name(), by_step * FILLED, Form::ScatterSpmv(scatter.clone())));
        forms.push((gather.name(), by_column, Form::GatherSpmv(gather.clone())));
        // Both together where each may be much faster than the other, and they are still far smaller than the matrix.
        let mixed = (by_step * SPARSE_ROW).min(by_column) < 0.8 * by_column && by_column < 0.8 * by_step;
        if mixed && gather.bytes() + scatter.bytes() < s.depth * s.columns * 4 / 2 {
            let ns = by_column.min(by_step * FILLED) * 0.9;
            forms.push((EITHER.into(), ns, Form::Either(gather, scatter)));
        }
    }
    Ok(forms)
}

/// Makes the kernel.
fn lower(unit: &Unit, s: &Shape, m: &Matrix, form: &Form) -> Result<Lowered, String> {
    let mac = Mac::new(Type::F32, unit.target)?;
    let row_bytes = s.depth * 4;
    loops::reachable(s.columns.max(s.depth) * 64, store::widest_element(unit).max(4))?;
    let blocks = s.depth.div_ceil(mac.lanes());
    let (constants, tasks, scratch) = match form {
        Form::BlockSparse(block_sparse) | Form::Grouped(block_sparse) => {
            (block_sparse.constants(m, |step| step * 4), block_sparse.tasks(), 0)
        }
        Form::CscRows(csc_rows) => {
            loops::reachable(csc_rows.scratch_bytes(), 1)?;
            let places: Vec<usize> = (0..blocks).map(|i| i * mac.ty.bytes()).collect();
            (csc_rows.constants(m, &places, |step| step), csc_rows.tasks(), csc_rows.scratch_bytes())
        }
        Form::ScatterSpmv(scatter) => (scatter.constants(m), scatter.tasks(), scatter.scratch_bytes()),
        Form::GatherSpmv(gather) => (gather.constants(m), gather.tasks(), gather.scratch_bytes()),
        Form::Either(gather, scatter) => {
            let constants = [gather.constants(m), scatter.constants(m)].concat();
            (constants, gather.tasks(), gather.scratch_bytes().next_multiple_of(mac.ty.bytes()) + scatter.scratch_bytes())
        }
    };
    let mut lowered = Lowered { constants, ..Lowered::default() };
    let mut args = vec![Arg::Input(0)];
    args.extend((0..lowered.constants.len()).map(Arg::Const));
    let out_at = args.len();
    let mut memory = Memory::default();
    let sums = match form {
        Form::Grouped(_) => {
            lowered.scratch.push(s.rows * s.columns * 4);
            args.push(Arg::Scratch(0));
            Some(Arg::Scratch(0))
        }
        _ => {
            args.extend(Output::args(unit));
            None
        }
    };
    let scratch = memory.add(&mut lowered, &mut args, scratch, tasks);
    let mut builder = Builder::new("matmul", args.len());
    let b = &mut builder;
    let task = b.task();
    let scratch = memory.piece(b, scratch, task);
    let out = match form {
        Form::Grouped(_) => Output::bare(b, out_at, mac.lanes(), s.columns),
        _ => Output::new(b, unit, out_at, mac.lanes(), s.columns),
    };
    let x = b.param(0);
    let tables: Vec<Val> = (1..out_at).map(|i| b.param(i)).collect();
    let left = Left { x, row_bytes };
    match form {
        Form::BlockSparse(block_sparse) | Form::Grouped(block_sparse) => {
            block_sparse.emit(b, task, &left, &Tables { params: [tables[0], tables[1], tables[2]] }, &out);
        }
        Form::CscRows(csc_rows) => {
            let scratch = scratch.expect("memory for the lines of a tile");
            let last_block = s.depth - (blocks - 1) * mac.lanes();
            let given = csc_rows::Given { tables: [tables[0], tables[1], tables[2], tables[3]], scratch, bias: None, last_block };
            csc_rows.emit(b, task, &left, &given, &out);
        }
        Form::ScatterSpmv(scatter) => {
            let given = scatter::Given { tables: [tables[0], tables[1], tables[2]], scratch: scratch.expect("memory for sums") };
            b.each(s.rows, |b, row| {
                let x = b.element(x, row, row_bytes);
                let active = scatter.active(b, x, &given);
                scatter.emit(b, task, x, active, row, &given, &out);
            });
        }
        Form::GatherSpmv(gather) => {
            let given = gather::Given { tables: [tables[0], tables[1], tables[2]], copy: scratch.expect("memory for a row") };
            b.each(s.rows, |b, row| {
                let x = b.element(x, row, row_bytes);
                gather.emit(b, task, x, row, &given, &out);
            });
        }
        Form::Either(gather, scatter) => {
            let copy = scratch.expect("memory for a row");
            let sums = b.offset_int(copy, gather.scratch_bytes().next_multiple_of(mac.ty.bytes()) as i64);
            let by_column = gather::Given { tables: [tables[0], tables[1], tables[2]], copy };
            let by_step = scatter::Given { tables: [tables[3], tables[4], tables[5]], scratch: sums };
            // As many steps as take as long one way as the other.
            let few = b.index((s.depth as f64 * gather.ns / scatter.ns) as usize);
            b.each(s.rows, |b, row| {
                let x = b.element(x, row, row_bytes);
                let active = scatter.active(b, x, &by_step);
                let is_sparse = b.cmp(Cmp::LtU, active, few);
                b.branch(
                    is_sparse,
                    |b| {
                        scatter.emit(b, task, x, active, row, &by_step, &out);
                        vec![]
                    },
                    |b| {
                        gather.emit(b, task, x, row, &by_column, &out);
                        vec![]
                    },
                );
            });
        }
    }
    lowered.calls.push(LoweredCall { func: builder.finish(), args, tasks });
    if let (Form::Grouped(block_sparse), Some(sums)) = (form, sums) {
        in_order(unit, s, mac, block_sparse, sums, &mut lowered);
    }
    Ok(lowered)
}

/// Brings columns that were computed in another order to their places.
fn in_order(unit: &Unit, s: &Shape, mac: Mac, block_sparse: &BlockSparse, sums: Arg, lowered: &mut Lowered) {
    let lanes = mac.lanes();
    let mut args = vec![sums, Arg::Const(lowered.constants.len())];
    lowered.constants.push(block_sparse.places().iter().flat_map(|&p| (p as u32).to_le_bytes()).collect());
    args.extend(Output::args(unit));
    let mut builder = Builder::new("in order", args.len());
    let b = &mut builder;
    let out = Output::new(b, unit, 2, lanes, s.columns);
    let (sums, places) = (b.param(0), b.param(1));
    let one = Ty::scalar(mac.ty.elem);
    b.each(s.rows, |b, row| {
        let sums = b.element(sums, row, s.columns * 4);
        let vector = |b: &mut Builder, column: Val, exist: usize| {
            let at = b.element(places, column, 4);
            let mut all = b.int(mac.ty, 0);
            for lane in 0..exist {
                let place = b.load(Ty::I32, at, 4 * lane as i32);
                let place = b.conv(Conv::Zext, place, Ty::I64.elem);
                let from = b.element(sums, place, 4);
                let sum = b.load(one, from, 0);
                all = b.insert(all, sum, lane as u8);
            }
            out.store(b, row, column, Tile { rows: 1, vecs: 1 }, exist, &[all]);
        };
        let (full, rest) = (s.columns / lanes, s.columns % lanes);
        let (zero, end) = (b.index(0), b.index(full * lanes));
        b.for_range(zero, end, lanes as i64, &[], |b, column, _| {
            vector(b, column, lanes);
            vec![]
        });
        if rest > 0 {
            vector(b, end, rest);
        }
    });
    lowered.calls.push(LoweredCall { func: builder.finish(), args, tasks: 1 });
}

/// The left side: rows that lie one after the other.
struct Left {
    x: Val,
    row_bytes: usize,
}

impl Source for Left {
    fn block(&self, _: &mut Builder, _: Val, _: Val, _: Option<KBlock>) -> Val {
        self.x
    }

    fn rows(&self, b: &mut Builder, x: Val, first: Val, _: usize) -> Pointers {
        Pointers::Even(b.element(x, first, self.row_bytes), self.row_bytes as i64)
    }

    fn panel(&self, _: &mut Builder, _: usize, _: Val, _: Val) -> (Val, i64) {
        unreachable!("lists have no panels")
    }
}
