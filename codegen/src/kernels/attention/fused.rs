//! One kernel: for a block of queries the product with all keys, softmax and the product with the values.
//!
//! Keys and values of a head are packed into panels once, as those of any product. The scores of a block of queries lie in memory of the
//! task that stays in the caches. Softmax takes two passes over them: the maximum (with scale and masks), then exponentials and their
//! sum; rows are divided by their sum on the registers of the last product.
//!
//! Many keys are taken a block at a time: maxima, sums and results so far are kept and scaled down whenever a maximum rises. Blocks that
//! no query of the block may see are left out.

use super::views::Views;
use crate::expr::{Access, Epilogue, Expr, ExprNode, Extra, What};
use crate::kernels::lib::gemm::{self, KBlock, Mac, Nest, Pointers, Source};
use crate::kernels::lib::loops::{self, Memory};
use crate::kernels::lib::pack::{self, MatrixStrides};
use crate::kernels::lib::store::{Channel, Output};
use crate::kernels::lib::view::View;
use crate::unit::{Arg, Lowered, LoweredCall, Unit};
use crate::{math, schedule};
use dnnc_ir::{Kind, Op, TensorType};
use dnnc_kir::{Bin, Builder, Cmp, Elem, Fold, Ty, Val};

/// How the matrices of an operand lie: elements from a row to the next and from a column to the next.
#[derive(Clone, Copy)]
struct Matrix {
    row: usize,
    column: usize,
}

/// Where the batches of an operand lie: element of the first, and elements along each axis of the batch.
fn place(ty: &TensorType, view: &Option<View>, lead: &[usize]) -> Result<(usize, Vec<usize>, Matrix), String> {
    let dense = View::dense(&ty.shape);
    let view = view.as_ref().unwrap_or(&dense);
    let strides: Vec<usize> =
        view.strides.iter().map(|&s| usize::try_from(s)).collect::<Result<_, _>>().map_err(|_| "a view runs backwards")?;
    let (outer, matrix) = strides.split_at(ty.rank() - 2);
    let missing = lead.len() - outer.len();
    let along = |axis: usize| if axis < missing || ty.shape[axis - missing] == 1 { 0 } else { outer[axis - missing] };
    Ok((view.offset, (0..lead.len()).map(along).collect(), Matrix { row: matrix[0], column: matrix[1] }))
}

/// A mask: what is added to the scores. Elements from a query to the next; whether keys have one each or all the same.
struct Mask {
    param: usize,
    query: i64,
    each_key: bool,
    /// Which of the batch's offsets it has, if any, and the element of query 0 and key 0.
    offset: Option<usize>,
    first: i64,
}

/// Operands and result, in the order of the kernel's first pointers.
const Q: usize = 0;
const K: usize = 1;
const V: usize = 2;
const OUT: usize = 3;

struct Kernel {
    mac: Mac,
    /// Queries of a block.
    rows: usize,
    /// Elements from the scores of a query to those of the next.
    pitch: usize,
    /// Columns of the result.
    columns: usize,
    scale: f64,
    masks: Vec<Mask>,
}

/// A block of keys: its products with queries and with values.
struct Keys {
    count: usize,
    scores: Nest,
    values: Nest,
    /// Parameter of what bounds the last vector of scores: −∞ where there is no key, else ∞.
    tail: Option<usize>,
}

/// What is known of the queries of a block after some of the keys: a number each, and rows of results.
#[derive(Clone, Copy)]
struct SoFar {
    maxima: Val,
    factors: Val,
    results: Val,
}

pub(super) fn lower(unit: &Unit, views: &Views) -> Result<Lowered, String> {
    let result = &unit.results[0];
    let (lead, matrix) = result.shape.split_at(result.rank() - 2);
    let (queries, columns) = (matrix[0], matrix[1]);
    let [keys, width] = [2, 1].map(|i| unit.inputs[1].ty.shape[unit.inputs[1].ty.rank() - i]);
    let mac = Mac::new(result.ty, unit.target)?;
    let (bytes, lanes) = (mac.bytes(), mac.lanes());
    let mut offsets = vec![];
    let mut strides = vec![];
    let mut matrices = vec![];
    let operands = unit.inputs[..3].iter().map(|i| &i.ty).zip(&views.operands).chain([(result, &views.result)]);
    for (ty, view) in operands {
        let (offset, along, matrix) = place(ty, view, lead)?;
        offsets.push(offset);
        strides.push(along);
        matrices.push(matrix);
    }
    assert!(matrices[OUT].column == 1 || columns == 1, "columns of the result lie side by side");

    // Masks: that of the operator, and a staircase of which each query sees a later piece.
    let mut lowered = Lowered::default();
    let mut args = vec![Arg::Input(0), Arg::Input(1), Arg::Input(2), Arg::Output(0)];
    let mut masks = vec![];
    if let Some(mask) = unit.inputs.get(3) {
        let whole: Vec<usize> = [lead, &[queries, keys]].concat();
        let along = View::broadcast(&mask.ty.shape, &whole).strides;
        let (outer, inner) = along.split_at(lead.len());
        masks.push(Mask { param: args.len(), query: inner[0] as i64, each_key: inner[1] != 0, offset: Some(strides.len()), first: 0 });
        strides.push(outer.iter().map(|&s| s as usize).collect());
        args.push(Arg::Input(3));
    }
    let constant = |lowered: &mut Lowered, args: &mut Vec<Arg>, inside: f64, seen: usize, all: usize| {
        let number = |i: usize| if i < seen { inside } else { f64::NEG_INFINITY };
        let data =
            (0..all).flat_map(|i| if bytes == 4 { (number(i) as f32).to_le_bytes().to_vec() } else { number(i).to_le_bytes().to_vec() });
        lowered.constants.push(data.collect());
        args.push(Arg::Const(lowered.constants.len() - 1));
        args.len() - 1
    };
    let causal = unit.op.attrs.flag("causal");
    if causal {
        let param = constant(&mut lowered, &mut args, 0.0, queries, queries + keys);
        masks.push(Mask { param, query: -1, each_key: true, offset: None, first: queries as i64 - 1 });
    }
    let (axes, strides) = loops::merge_axes(lead, &strides);
    let batches: usize = axes.iter().product();
    let work = (batches * queries) as u64 * (keys * (width + columns)) as u64;
    let parts = schedule::tasks(unit.options, work, usize::MAX);
    let batch_parts = parts.min(batches);
    let (rows, block) = schedule::attention(unit.target, (queries, keys), (width + columns) * bytes, bytes, causal, parts / batch_parts);
    let blocks = queries.div_ceil(rows);
    let row_parts = (parts / batch_parts).clamp(1, blocks);
    let tasks = batch_parts * row_parts;
    // Whole blocks of keys, and the last.
    let full = (keys - 1) / block;
    let longest = if full > 0 { block } else { keys };
    // Rows that are a power of two apart would meet in few sets of the first-level cache.
    let line = unit.target.line / bytes;
    let pitch = longest.next_multiple_of(lanes);
    let pitch = if (pitch * bytes).is_multiple_of(8 * unit.target.line) { pitch + line } else { pitch };
    let nest = |columns: usize, depth: usize, step: usize, row_bytes: usize| {
        Nest::new(mac, unit.target, rows, columns, gemm::straight(depth, (step * bytes) as i64), row_bytes, 1).packed_at_runtime()
    };
    let mut of = |count: usize| Keys {
        count,
        scores: nest(count, width, matrices[Q].column, width * bytes),
        values: nest(columns, count, 1, pitch * bytes),
        tail: (!count.is_multiple_of(lanes)).then(|| constant(&mut lowered, &mut args, f64::INFINITY, count % lanes, lanes)),
    };
    let whole = (full > 0).then(|| of(block));
    let last = of(keys - full * block);
    // Values that only one tile of queries reads stay where they are, unless a whole vector could reach beyond the last.
    let beyond = columns % lanes > 0 && matrices[V].row != columns;
    let once = full == 0 && last.values.groups.iter().all(|(_, r)| r.tiles * blocks <= 1);
    let pack_values = matrices[V].column != 1 || beyond || !once;
    let [of_keys, of_values] = [|k: &Keys| k.scores.panel_bytes(), |k: &Keys| k.values.panel_bytes()];
    let all = |of: fn(&Keys) -> usize| whole.as_ref().map_or(0, |w| full * of(w)) + of(&last);
    let results = columns.next_multiple_of(lanes);
    let mut memory = Memory::default();
    let key_panels = memory.add(&mut lowered, &mut args, all(of_keys), tasks);
    let value_panels = memory.add(&mut lowered, &mut args, if pack_values { all(of_values) } else { 0 }, tasks);
    let score_rows = memory.add(&mut lowered, &mut args, rows * pitch * bytes, tasks);
    let sums = memory.add(&mut lowered, &mut args, rows * bytes, tasks);
    let kept = if full > 0 { rows * bytes } else { 0 };
    let so_far = [kept, kept, kept * results].map(|bytes| memory.add(&mut lowered, &mut args, bytes, tasks));
    let highest = |nest: &Nest| nest.groups.iter().map(|(_, r)| r.high).max().unwrap_or(1);
    loops::reachable(highest(&last.scores) * matrices[Q].row + width * matrices[Q].column, bytes)?;
    loops::reachable(highest(&last.values) * matrices[OUT].row.max(pitch), bytes)?;
    loops::reachable(lanes * matrices[K].row.max(matrices[K].column), bytes)?;
    loops::reachable(lanes * matrices[V].row.max(matrices[V].column).max(schedule::WIDEST * lanes), bytes)?;

    let scale = unit.op.attrs.float("scale");
    let kernel = Kernel { mac, rows, pitch, columns, scale, masks };
    let (by_sum, onto) = (kernel.by_sum(), kernel.onto());
    let mut builder = Builder::new("attention", args.len());
    let b = &mut builder;
    let task = b.task();
    let piece = |b: &mut Builder, buffer: usize| memory.piece(b, buffer, task);
    let [key_panels, value_panels, score_rows, sums] = [key_panels, value_panels, score_rows, sums].map(|buffer| piece(b, buffer));
    let [key_panels, score_rows, sums] = [key_panels, score_rows, sums].map(|p| p.expect("there are keys, queries and columns"));
    let so_far = match so_far.map(|buffer| piece(b, buffer)) {
        [Some(maxima), Some(factors), Some(results)] => Some(SoFar { maxima, factors, results }),
        _ => None,
    };
    let (batch_part, row_part) = loops::divmod(b, task, row_parts);
    let (from, to) = loops::part_range(b, batch_part, batch_parts, batches);
    let (first_block, end_block) = loops::part_range(b, row_part, row_parts, blocks);
    loops::for_some(b, from, to, batches, |b, batch| {
        let along = loops::batch_offsets(b, batch, &axes, &strides);
        let base = |b: &mut Builder, i: usize| {
            let ptr = b.param(i);
            let ptr = b.offset_int(ptr, (offsets[i] * bytes) as i64);
            b.element(ptr, along[i], bytes)
        };
        let [q, k, v, out] = [Q, K, V, OUT].map(|i| base(b, i));
        let lies = |column: usize, step: usize| MatrixStrides { column: column * bytes, step: step * bytes };
        let pack = |b: &mut Builder, part: &Keys, number: Val| {
            let from = b.element(k, number, block * matrices[K].row * bytes);
            let to = b.element(key_panels, number, whole.as_ref().map_or(0, of_keys));
            kernel.pack(b, &part.scores, from, lies(matrices[K].row, matrices[K].column), width, to);
            if let Some(panels) = value_panels {
                let from = b.element(v, number, block * matrices[V].row * bytes);
                let to = b.element(panels, number, whole.as_ref().map_or(0, of_values));
                kernel.pack(b, &part.values, from, lies(matrices[V].column, matrices[V].row), part.count, to);
            }
        };
        if let Some(whole) = &whole {
            b.each(full, |b, number| pack(b, whole, number));
        }
        let (zero, number) = (b.index(0), b.index(full));
        pack(b, &last, number);
        loops::for_some(b, first_block, end_block, blocks, |b, at| {
            // The last block begins where it ends with the last query.
            let first = b.mul_int(at, rows as i64);
            let most = b.index(queries - rows);
            let first = b.bin(Bin::MinS, first, most);
            let row = matrices[Q].row * bytes;
            let queries = b.element(q, first, row);
            let out = b.element(out, first, matrices[OUT].row * bytes);
            let step = |b: &mut Builder, part: &Keys, number: Val| {
                let panels = b.element(key_panels, number, whole.as_ref().map_or(0, of_keys));
                let side = Side { nest: &part.scores, rows: queries, row_bytes: row, right: Right::Panels(panels) };
                let to_scores = kernel.output(score_rows, vec![], pitch, None, zero);
                part.scores.emit(b, zero, &side, &to_scores, None);
                let key = b.mul_int(number, block as i64);
                kernel.softmax(b, part, score_rows, sums, first, key, &along, so_far);
                let right = match value_panels {
                    Some(panels) => Right::Panels(b.element(panels, number, whole.as_ref().map_or(0, of_values))),
                    None => Right::InPlace { first: v, step: matrices[V].row * bytes },
                };
                let side = Side { nest: &part.values, rows: score_rows, row_bytes: pitch * bytes, right };
                let to = match so_far {
                    None => kernel.output(out, vec![sums], matrices[OUT].row, Some(&by_sum), zero),
                    Some(s) => kernel.output(s.results, vec![s.results, s.factors], results, Some(&onto), zero),
                };
                part.values.emit(b, zero, &side, &to, None);
            };
            let (Some(whole), Some(so_far)) = (&whole, so_far) else { return step(b, &last, zero) };
            kernel.begin(b, so_far, sums, results);
            let number = b.index(full);
            if causal {
                // Up to the block that the last of these queries sees.
                let seen = b.add_int(first, (rows - 1) as i64);
                let (of, one) = (b.index(block), b.index(1));
                let seen = b.bin(Bin::DivU, seen, of);
                let end = b.add(seen, one);
                let end = b.bin(Bin::MinS, end, number);
                loops::for_some(b, zero, end, full + 1, |b, number| step(b, whole, number));
                let sees = b.cmp(Cmp::Ge, seen, number);
                b.when(sees, |b| step(b, &last, number));
            } else {
                b.each(full, |b, number| step(b, whole, number));
                step(b, &last, number);
            }
            kernel.end(b, so_far, sums, results, out, matrices[OUT].row);
        });
    });
    lowered.calls.push(LoweredCall { func: builder.finish(), args, tasks });
    Ok(lowered)
}

/// How the right side of one of the products is read.
#[derive(Clone, Copy)]
enum Right {
    Panels(Val),
    /// Rows of columns, and bytes from one to the next.
    InPlace {
        first: Val,
        step: usize,
    },
}

/// The operands of one of the products.
struct Side<'a> {
    nest: &'a Nest,
    rows: Val,
    row_bytes: usize,
    right: Right,
}

impl Source for Side<'_> {
    fn block(&self, _: &mut Builder, _first: Val, _end: Val, _chunk: Option<KBlock>) -> Val {
        self.rows
    }

    fn rows(&self, b: &mut Builder, block: Val, first: Val, _count: usize) -> Pointers {
        Pointers::Even(b.element(block, first, self.row_bytes), self.row_bytes as i64)
    }

    fn panel(&self, b: &mut Builder, group: usize, index: Val, column: Val) -> (Val, i64) {
        match self.right {
            Right::Panels(panels) => {
                let g = &self.nest.groups[group].0;
                let first = b.offset_int(panels, self.nest.panel_offset(group) as i64);
                (b.element(first, index, self.nest.one_panel_bytes(g)), (g.vecs * self.nest.mac.ty.bytes()) as i64)
            }
            Right::InPlace { first, step } => (b.element(first, column, self.nest.mac.bytes()), step as i64),
        }
    }
}

impl Kernel {
    fn output<'e>(&self, out: Val, extras: Vec<Val>, row: usize, epilogue: Option<&'e Epilogue>, zero: Val) -> Output<'e> {
        let (ty, vector) = (self.mac.lhs, self.mac.lanes());
        Output { ty, epilogue, stored: ty, out, extras, base: zero, row, column: 1, vector, channel: (Channel::Row, zero) }
    }

    /// The result times a number of its row.
    fn by_sum(&self) -> Epilogue {
        self.epilogue(&[Access::Channel], &[(Kind::Mul, [0, 1])])
    }

    /// The result plus a number of its own times one of its row.
    fn onto(&self) -> Epilogue {
        self.epilogue(&[Access::Full, Access::Channel], &[(Kind::Mul, [1, 2]), (Kind::Add, [0, 3])])
    }

    fn epilogue(&self, operands: &[Access], steps: &[(Kind, [usize; 2])]) -> Epilogue {
        let ty = self.mac.lhs;
        let operator = |kind| Op::new(kind, []).expect("the row of an operator");
        let values = (0..=operands.len()).map(What::Operand);
        let applied = steps.iter().map(|(kind, args)| What::Apply(operator(*kind), args.to_vec()));
        let nodes = values.chain(applied).map(|what| ExprNode { what, ty }).collect();
        Epilogue { expr: Expr { nodes }, operands: operands.iter().map(|&access| Extra { ty, access }).collect() }
    }

    /// Nothing is known of the queries of a block.
    fn begin(&self, b: &mut Builder, so_far: SoFar, sums: Val, results: usize) {
        let (ty, bytes) = (self.mac.ty, self.mac.bytes());
        let scalar = Ty::scalar(ty.elem);
        // The lowest number, not −∞: no difference of infinities is taken.
        let lowest = if ty.elem == Elem::F32 { f64::from(f32::MIN) } else { f64::MIN };
        let (lowest, zero, zeros) = (b.number(scalar, lowest), b.number(scalar, 0.0), b.number(ty, 0.0));
        let row = results * bytes;
        b.for_count(self.rows, &[so_far.maxima, sums, so_far.results], |b, _, at| {
            b.store(lowest, at[0], 0);
            b.store(zero, at[1], 0);
            (0..row / ty.bytes()).for_each(|j| b.store(zeros, at[2], (j * ty.bytes()) as i32));
            [bytes, bytes, row].into_iter().zip(at).map(|(n, p)| b.offset_int(*p, n as i64)).collect()
        });
    }

    /// Leaves the results of a block, each row divided by its sum.
    fn end(&self, b: &mut Builder, so_far: SoFar, sums: Val, results: usize, out: Val, row: usize) {
        let (ty, bytes) = (self.mac.ty, self.mac.bytes());
        let one = b.number(ty, 1.0);
        b.for_count(self.rows, &[sums, so_far.results, out], |b, _, at| {
            let sum = b.load_splat(ty, at[0], 0);
            let inverse = b.div(one, sum);
            for j in 0..results * bytes / ty.bytes() {
                let disp = (j * ty.bytes()) as i32;
                let v = b.load(ty, at[1], disp);
                let v = b.mul(v, inverse);
                b.store_part(v, at[2], disp, (self.columns - j * self.mac.lanes()).min(self.mac.lanes()));
            }
            [1, results, row].into_iter().zip(at).map(|(n, p)| b.offset_int(*p, (n * bytes) as i64)).collect()
        });
    }

    /// Packs a matrix into the panels of a product.
    fn pack(&self, b: &mut Builder, nest: &Nest, from: Val, lies: MatrixStrides, depth: usize, panels: Val) {
        let columns = |vecs: usize| (vecs * self.mac.lanes() * lies.column) as i64;
        for (index, (g, _)) in nest.groups.iter().enumerate() {
            let to = b.offset_int(panels, nest.panel_offset(index) as i64);
            let from = b.offset_int(from, (g.first * lies.column) as i64);
            b.for_count(g.panels, &[from, to], |b, _, at| {
                pack::panel(b, self.mac, (g.vecs, g.last), depth, lies, at[0], at[1]);
                vec![b.offset_int(at[0], columns(g.vecs)), b.offset_int(at[1], nest.one_panel_bytes(g) as i64)]
            });
        }
    }

    /// e^(scale·score + masks − maximum) in place of the scores of a block, and one over the sum of each row; where there are more keys, the sum
    /// so far, and the factor by which what was summed before is too large. `first` and `key` are the first query and the first key.
    fn softmax(&self, b: &mut Builder, keys: &Keys, scores: Val, sums: Val, first: Val, key: Val, along: &[Val], so_far: Option<SoFar>) {
        let (ty, bytes) = (self.mac.ty, self.mac.bytes());
        let scalar = Ty::scalar(ty.elem);
        let mut init = vec![scores, sums];
        for mask in &self.masks {
            let ptr = b.param(mask.param);
            let ptr = b.offset_int(ptr, mask.first * bytes as i64);
            let ptr = match mask.offset {
                Some(i) => b.element(ptr, along[i], bytes),
                None => ptr,
            };
            let rows = b.mul_int(first, mask.query * bytes as i64);
            let ptr = b.offset(ptr, rows);
            init.push(if mask.each_key { b.element(ptr, key, bytes) } else { ptr });
        }
        let masks = init.len();
        init.extend(so_far.iter().flat_map(|s| [s.maxima, s.factors]));
        let (scale, tail) = (b.number(ty, self.scale), keys.tail.map(|tail| b.param(tail)));
        b.for_count(self.rows, &init, |b, _, at| {
            let (row, sum, kept, masks) = (at[0], at[1], &at[masks..], &at[2..masks]);
            let mut walk = vec![row];
            walk.extend(self.masks.iter().zip(masks).filter(|(m, _)| m.each_key).map(|(_, &p)| p));
            // The same for all keys of the row.
            let even: Vec<Val> = self.masks.iter().zip(masks).filter(|(m, _)| !m.each_key).map(|(_, &p)| b.load_splat(ty, p, 0)).collect();
            let lowest = b.number(ty, f64::NEG_INFINITY);
            let scaled = self.masks.is_empty();
            let max = self.fold(b, keys.count, &walk, lowest, Fold::Max, &mut |b, at, i, count| {
                let disp = (i * ty.bytes()) as i32;
                let v = b.load_part(ty, at[0], disp, count);
                let mut v = match (even.first(), at.get(1)) {
                    (Some(&m), _) => b.fma(v, scale, m),
                    (None, Some(&m)) => {
                        let m = b.load_part(ty, m, disp, count);
                        b.fma(v, scale, m)
                    }
                    (None, None) => b.mul(v, scale),
                };
                for &m in even.iter().skip(1) {
                    v = b.add(v, m);
                }
                for &m in &at[if even.is_empty() { 2.min(at.len()) } else { 1 }..] {
                    let m = b.load_part(ty, m, disp, count);
                    v = b.add(v, m);
                }
                let v = self.without_tail(b, v, tail, count);
                if !scaled {
                    b.store(v, at[0], disp);
                }
                v
            });
            // Of what was summed before, under another maximum.
            let (max, factor) = match kept {
                [maxima, factors] => {
                    let before = b.load(scalar, *maxima, 0);
                    let max = b.max(max, before);
                    let lower = b.sub(before, max);
                    let factor = math::exp_nonpositive(b, lower);
                    b.store(max, *maxima, 0);
                    b.store(factor, *factors, 0);
                    (max, Some(factor))
                }
                _ => (max, None),
            };
            let max = b.splat(max, ty.lanes);
            let zero = b.number(ty, 0.0);
            let total = self.fold(b, keys.count, &[row], zero, Fold::Add, &mut |b, at, i, count| {
                let disp = (i * ty.bytes()) as i32;
                let v = b.load_part(ty, at[0], disp, count);
                let v = if scaled { b.mul(v, scale) } else { v };
                let v = b.sub(v, max);
                let v = self.without_tail(b, v, tail, count);
                let e = math::exp_nonpositive(b, v);
                b.store(e, at[0], disp);
                e
            });
            let left = match factor {
                Some(factor) => {
                    let before = b.load(scalar, sum, 0);
                    b.fma(before, factor, total)
                }
                None => {
                    let one = b.number(scalar, 1.0);
                    b.div(one, total)
                }
            };
            b.store(left, sum, 0);
            let mut next = vec![b.offset_int(row, (self.pitch * bytes) as i64), b.offset_int(sum, bytes as i64)];
            next.extend(self.masks.iter().zip(masks).map(|(m, &p)| b.offset_int(p, m.query * bytes as i64)));
            next.extend(kept.iter().map(|&p| b.offset_int(p, bytes as i64)));
            next
        });
    }

    /// −∞ where a vector has no key.
    fn without_tail(&self, b: &mut Builder, v: Val, tail: Option<Val>, count: usize) -> Val {
        match tail {
            Some(tail) if count < self.mac.lanes() => {
                let none = b.load(self.mac.ty, tail, 0);
                b.min(none, v)
            }
            _ => v,
        }
    }

    /// Folds the vectors of a row: `body` is given pointers, the number of the vector behind them and how many of its keys exist.
    fn fold(
        &self,
        b: &mut Builder,
        keys: usize,
        pointers: &[Val],
        init: Val,
        fold: Fold,
        body: &mut dyn FnMut(&mut Builder, &[Val], usize, usize) -> Val,
    ) -> Val {
        /// Independent sums: an addition takes four cycles.
        const CHAINS: usize = 4;
        let (lanes, bytes) = (self.mac.lanes(), self.mac.ty.bytes());
        let (full, last) = (keys / lanes, keys % lanes);
        let join = |b: &mut Builder, acc: Val, v: Val| if fold == Fold::Max { b.max(v, acc) } else { b.add(acc, v) };
        let mut state = pointers.to_vec();
        let loops = full / CHAINS;
        let chains = if loops > 0 { CHAINS } else { 1 };
        state.extend(vec![init; chains]);
        if loops > 0 {
            state = b.for_count(loops, &state, |b, _, now| {
                let (at, acc) = now.split_at(pointers.len());
                let acc: Vec<Val> = (0..CHAINS)
                    .map(|i| {
                        let v = body(b, at, i, lanes);
                        join(b, acc[i], v)
                    })
                    .collect();
                at.iter().map(|p| b.offset_int(*p, (CHAINS * bytes) as i64)).chain(acc).collect()
            });
        }
        let (at, acc) = state.split_at(pointers.len());
        let mut acc = acc.to_vec();
        for i in 0..full - loops * CHAINS + usize::from(last > 0) {
            let count = if i == full - loops * CHAINS { last } else { lanes };
            let v = body(b, at, i, count);
            acc[i % chains] = join(b, acc[i % chains], v);
        }
        let all = acc.into_iter().reduce(|x, y| join(b, x, y)).expect("a chain");
        b.reduce(fold, all)
    }
}
