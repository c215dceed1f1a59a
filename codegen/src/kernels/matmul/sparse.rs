//! Products with a constant matrix that has zeros.

use super::Shape;
use crate::kernels::product::{self, Chunk, Mac, Memory, Pointers, Source};
use crate::kernels::sparse::Matrix;
use crate::kernels::sparse::listed::{Listed, Tables};
use crate::kernels::sparse::scattered::{self, Scattered};
use crate::kernels::sparse::spread::{self, Spread};
use crate::kernels::store::{self, Output};
use crate::kernels::{Algorithm, Arg, Lowered, LoweredCall, Unit};
use crate::kir::{Builder, Val};
use crate::schedule;
use dnnc_ir::Type;

/// Share of inputs that are taken not to be 0 where nothing is known of them: most come out of an activation.
const FILLED: f64 = 0.75;
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
    Listed(Listed),
    Spread(Spread),
    Scattered(Scattered),
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
    let listed = Listed::new(mac, unit.target, s.rows, true, m, s.columns, s.depth * 4, parts);
    let mut forms = vec![(listed.name(), listed.ns, Form::Listed(listed))];
    if s.rows >= mac.lanes() {
        let blocks = s.depth.div_ceil(mac.lanes());
        let spread = Spread::new(mac, unit.target, s.rows, m, s.columns, blocks, s.depth * 4, parts);
        forms.push((spread.name(), spread.ns, Form::Spread(spread)));
    }
    if s.rows <= FEW {
        let scattered = Scattered::new(mac, unit.target, m, parts);
        // Lists are no better when a part of the inputs is 0.
        forms.retain(|form| form.1 < scattered.ns * s.rows as f64 * FILLED);
        forms.push((scattered.name(), scattered.ns * s.rows as f64, Form::Scattered(scattered)));
    }
    Ok(forms)
}

/// Makes the kernel.
fn lower(unit: &Unit, s: &Shape, m: &Matrix, form: &Form) -> Result<Lowered, String> {
    let mac = Mac::new(Type::F32, unit.target)?;
    let row_bytes = s.depth * 4;
    product::reachable(s.columns.max(s.depth) * 64, store::widest_element(unit).max(4))?;
    let blocks = s.depth.div_ceil(mac.lanes());
    let (constants, tasks, scratch) = match form {
        Form::Listed(listed) => (listed.constants(m, |step| step * 4), listed.tasks(), 0),
        Form::Spread(spread) => {
            product::reachable(spread.scratch_bytes(), 1)?;
            let places: Vec<usize> = (0..blocks).map(|i| i * mac.ty.bytes()).collect();
            (spread.constants(m, &places, |step| step), spread.tasks(), spread.scratch_bytes())
        }
        Form::Scattered(scattered) => (scattered.constants(m), scattered.tasks(), scattered.scratch_bytes()),
    };
    let mut args = vec![Arg::Input(0)];
    args.extend((0..constants.len()).map(Arg::Const));
    let tables = args.len() - 1;
    let mut lowered = Lowered { constants, ..Lowered::default() };
    let out_at = args.len();
    args.extend(Output::args(unit));
    let mut memory = Memory::default();
    let scratch = memory.add(&mut lowered, &mut args, scratch, tasks);
    let mut builder = Builder::new("matmul", args.len());
    let b = &mut builder;
    let task = b.task();
    let scratch = memory.piece(b, scratch, task);
    let out = Output::new(b, unit, out_at, mac.lanes(), s.columns);
    let x = b.param(0);
    let tables: Vec<Val> = (1..=tables).map(|i| b.param(i)).collect();
    let left = Left { x, row_bytes };
    match form {
        Form::Listed(listed) => listed.emit(b, task, &left, &Tables { params: [tables[0], tables[1], tables[2]] }, &out),
        Form::Spread(spread) => {
            let scratch = scratch.expect("memory for the lines of a tile");
            let last_block = s.depth - (blocks - 1) * mac.lanes();
            let given = spread::Given { tables: [tables[0], tables[1], tables[2], tables[3]], scratch, bias: None, last_block };
            spread.emit(b, task, &left, &given, &out);
        }
        Form::Scattered(scattered) => {
            let given = scattered::Given { tables: [tables[0], tables[1], tables[2]], sums: scratch.expect("memory for sums") };
            b.each(s.rows, |b, row| {
                let x = b.element(x, row, row_bytes);
                scattered.emit(b, task, x, row, &given, &out);
            });
        }
    }
    lowered.calls.push(LoweredCall { func: builder.finish(), args, tasks });
    Ok(lowered)
}

/// The left side: rows that lie one after the other.
struct Left {
    x: Val,
    row_bytes: usize,
}

impl Source for Left {
    fn block(&self, _: &mut Builder, _: Val, _: Val, _: Option<Chunk>) -> Val {
        self.x
    }

    fn rows(&self, b: &mut Builder, x: Val, first: Val, _: usize) -> Pointers {
        Pointers::Even(b.element(x, first, self.row_bytes), self.row_bytes as i64)
    }

    fn panel(&self, _: &mut Builder, _: usize, _: Val, _: Val) -> (Val, i64) {
        unreachable!("lists have no panels")
    }
}
