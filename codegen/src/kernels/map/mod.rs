//! Element-wise expressions over strided views: also the engine of every operator that only moves elements.
//!
//! The axes of the result are merged where every view allows. The last axis that remains is computed in vectors; where a view has its elements
//! side by side along another axis only, that axis and the last one are walked in square tiles that are transposed in registers.

pub(crate) mod tile;

use crate::expr::{Expr, What, load_element, load_element_splat, store_element};
use crate::kernels::lib::nest::{self, Axis, Index, Part, place, walk};
use crate::kernels::lib::view::View;
use crate::unit::{Arg, Lowered, LoweredCall, Operand, Options};
use dnnc_ir::{TensorType, Type};
use dnnc_kir::{Builder, Op, Ty, Val};
use dnnc_targets::Target;

/// An operand of a nest.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where its pointer points.
    pub arg: Arg,
    /// Element type in memory.
    pub ty: Type,
    /// How it lies over the result.
    pub view: View,
    /// Elements of the last axis that exist, where not all do; the others are 0.
    pub valid: Option<usize>,
}

impl Source {
    /// All elements exist.
    pub fn new(arg: Arg, ty: Type, view: View) -> Source {
        Source { arg, ty, view, valid: None }
    }
}

/// The kernel of an expression over dense operands that broadcast to the result. Where an operand has the shape of the result and elements of
/// the same width, both may be the same memory.
pub fn lower(expr: &Expr, operands: &[Operand], result: &TensorType, target: &Target, options: &Options) -> Result<Lowered, String> {
    let views = vec![None; operands.len()];
    lower_views(expr, operands, &views, result, target, options)
}

/// As [`lower`], with operands that lie in some other way over the result where a view is given: a transposed, sliced or expanded tensor.
pub fn lower_views(
    expr: &Expr,
    operands: &[Operand],
    views: &[Option<View>],
    result: &TensorType,
    target: &Target,
    options: &Options,
) -> Result<Lowered, String> {
    let sources: Vec<Source> = operands
        .iter()
        .zip(views)
        .enumerate()
        .map(|(i, (operand, view))| {
            let view = view.clone().unwrap_or_else(|| View::broadcast(&operand.ty.shape, &result.shape));
            Source::new(Arg::Input(i), operand.ty.ty, view)
        })
        .collect();
    let calls = call(expr, &sources, &result.shape, &View::dense(&result.shape), target, options).into_iter().collect();
    Ok(Lowered { calls, ..Lowered::default() })
}

/// The call that computes an expression over the axes of `shape` and writes it where `out` says; none where there are no elements.
pub fn call(expr: &Expr, sources: &[Source], shape: &[usize], out: &View, target: &Target, options: &Options) -> Option<LoweredCall> {
    if shape.contains(&0) {
        return None;
    }
    let mut streams: Vec<Stream> = sources.iter().map(|s| Stream::new(s.ty, &s.view, s.valid)).collect();
    streams.push(Stream::new(expr.ty(), out, None));
    let axes = collapse(shape, &streams);
    let mut b = Builder::new(name(expr), streams.len());
    let weight = weight(expr);
    if weight >= 16 {
        b.tune(dnnc_kir::Tuning::Optimise);
    }
    let lanes = expr.lanes(target.vector.bits).max(1);
    let plan = Plan::new(&axes, &streams, lanes, weight, options);
    let generator = Generator { expr, streams: &streams, lanes, unroll: plan.unroll };
    let pointers: Vec<Val> = (0..streams.len()).map(|i| b.param(i)).collect();
    let pointers: Vec<Val> = pointers.iter().zip(&streams).map(|(&p, s)| b.offset_int(p, s.offset)).collect();
    generator.nest(&mut b, &plan, &axes, &pointers);
    let args = sources.iter().map(|s| s.arg).chain([Arg::Output(0)]).collect();
    Some(LoweredCall { func: b.finish(), args, tasks: plan.tasks })
}

/// `map_` and the operators.
fn name(expr: &Expr) -> String {
    let kinds: Vec<&str> = expr
        .nodes
        .iter()
        .filter_map(|n| match &n.what {
            What::Apply(op, _) => Some(op.kind().name()),
            _ => None,
        })
        .collect();
    if kinds.is_empty() { "copy".into() } else { format!("map_{}", kinds.join("_")) }
}

/// About how many instructions a vector of the expression takes.
fn weight(expr: &Expr) -> u64 {
    let one = TensorType::new(Type::F32, []);
    expr.nodes
        .iter()
        .map(|n| match &n.what {
            What::Apply(op, args) => (op.def.work)(&op.attrs, &vec![one.clone(); args.len()], std::slice::from_ref(&one)),
            _ => 0,
        })
        .sum()
}

/// An operand or the result, in bytes.
#[derive(Clone)]
struct Stream {
    ty: Type,
    offset: i64,
    strides: Vec<i64>,
    valid: Option<usize>,
}

impl Stream {
    fn new(ty: Type, view: &View, valid: Option<usize>) -> Stream {
        let width = ty.bytes() as i64;
        Stream { ty, offset: view.offset as i64 * width, strides: view.strides.iter().map(|&s| s as i64 * width).collect(), valid }
    }

    fn width(&self) -> i64 {
        self.ty.bytes() as i64
    }
}

/// The axes that are left when those of size 1 are dropped and neighbours merged; at least one.
fn collapse(shape: &[usize], streams: &[Stream]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = vec![];
    for (a, &size) in shape.iter().enumerate() {
        if size == 1 {
            continue;
        }
        let strides: Vec<i64> = streams.iter().map(|s| s.strides[a]).collect();
        let keep = a + 1 == shape.len() && streams.iter().any(|s| s.valid.is_some());
        match axes.last_mut() {
            Some(outer) if !keep && outer.strides.iter().zip(&strides).all(|(&o, &s)| o == s * size as i64) => {
                *outer = Axis { size: outer.size * size, strides };
            }
            _ => axes.push(Axis { size, strides }),
        }
    }
    if axes.is_empty() {
        axes.push(Axis { size: 1, strides: streams.iter().map(Stream::width).collect() });
    }
    axes
}

/// How a nest is cut.
struct Plan {
    /// Vectors of the innermost loop.
    unroll: usize,
    /// Axis that is split into tasks.
    split: usize,
    /// Indices of that axis a task.
    chunk: usize,
    tasks: usize,
    /// Axis that is walked in tiles together with the last.
    across: Option<usize>,
}

impl Plan {
    fn new(axes: &[Axis], streams: &[Stream], lanes: u8, weight: u64, options: &Options) -> Plan {
        let last = axes.len() - 1;
        let unroll = match weight {
            _ if lanes == 1 => 1,
            0..=6 => 4,
            7..=15 => 2,
            _ => 1,
        };
        let across = tile::across(axes, streams, lanes);
        let total: usize = axes.iter().map(|a| a.size).product();
        let wanted = nest::tasks(total, weight as usize, options.threads);
        // Whole steps of the axes that are walked in vectors or tiles.
        let grain = |a: usize| match a {
            _ if across == Some(a) => lanes as usize,
            a if a == last && across.is_some() => lanes as usize,
            a if a == last => lanes as usize * unroll,
            _ => 1,
        };
        let steps = |a: usize| if a == last && streams.iter().any(|s| s.valid.is_some()) { 1 } else { axes[a].size.div_ceil(grain(a)) };
        let split = (0..=last).find(|&a| steps(a) >= wanted).unwrap_or_else(|| (0..=last).max_by_key(|&a| steps(a)).expect("an axis"));
        let chunk = steps(split).div_ceil(wanted) * grain(split);
        let chunk = if wanted == 1 { axes[split].size } else { chunk };
        Plan { unroll, split, chunk, tasks: axes[split].size.div_ceil(chunk), across }
    }
}

struct Generator<'a> {
    expr: &'a Expr,
    streams: &'a [Stream],
    lanes: u8,
    unroll: usize,
}

impl Generator<'_> {
    fn nest(&self, b: &mut Builder, plan: &Plan, axes: &[Axis], pointers: &[Val]) {
        let part = |a: usize| if plan.tasks > 1 && plan.split == a { Part::Chunk(plan.chunk) } else { Part::All };
        let last = axes.len() - 1;
        let outer: Vec<usize> = (0..last).filter(|&a| plan.across != Some(a)).collect();
        let outer: Vec<(&Axis, Part)> = outer.into_iter().map(|a| (&axes[a], part(a))).collect();
        nest::nest(b, &outer, pointers, &mut |b, p| match plan.across {
            Some(across) => self.tiles(b, (&axes[across], part(across)), (&axes[last], part(last)), p),
            None => self.row(b, &axes[last], part(last), p),
        });
    }

    /// The last axis: unrolled vectors, single vectors, a part of a vector.
    fn row(&self, b: &mut Builder, axis: &Axis, part: Part, pointers: &[Val]) {
        let lanes = self.lanes as usize;
        if self.streams.iter().any(|s| s.valid.is_some()) {
            for start in (0..axis.size).step_by(lanes) {
                self.vectors(b, axis, pointers, start, 1, (axis.size - start).min(lanes), &[]);
            }
            return;
        }
        let splats = self.splats(b, axis, pointers);
        let block = lanes * self.unroll;
        let main = axis.size / block * block;
        walk(b, axis, part.bounds(main), block, pointers, &[], &mut |b, p, _| {
            self.vectors(b, axis, p, 0, self.unroll, lanes, &splats);
            vec![]
        });
        let single = axis.size / lanes * lanes;
        if main == axis.size {
            return;
        }
        nest::in_last_task(b, part, axis.size, |b| {
            walk(b, axis, (Index::Known(main), Index::Known(single)), lanes, pointers, &[], &mut |b, p, _| {
                self.vectors(b, axis, p, 0, 1, lanes, &splats);
                vec![]
            });
            if axis.size > single {
                let p = nest::at(b, axis, pointers, single);
                self.vectors(b, axis, &p, 0, 1, axis.size - single, &splats);
            }
        });
    }

    /// Operands that do not move along the last axis, read once.
    fn splats(&self, b: &mut Builder, axis: &Axis, pointers: &[Val]) -> Vec<Option<Val>> {
        let inputs = self.streams.len() - 1;
        (0..inputs).map(|i| (axis.strides[i] == 0).then(|| load_element_splat(b, self.streams[i].ty, pointers[i], 0, self.lanes))).collect()
    }

    /// `count` vectors from index `first` of the last axis on, of `used` elements each.
    fn vectors(&self, b: &mut Builder, axis: &Axis, pointers: &[Val], first: usize, count: usize, used: usize, splats: &[Option<Val>]) {
        let inputs = self.streams.len() - 1;
        let values: Vec<Val> = (0..count)
            .map(|u| {
                let at = first + u * self.lanes as usize;
                let operands: Vec<Val> = (0..inputs)
                    .map(|i| match splats.get(i) {
                        Some(Some(v)) => *v,
                        _ => self.load(b, i, pointers[i], axis.strides[i], at, used),
                    })
                    .collect();
                self.expr.emit(b, self.lanes, &operands)
            })
            .collect();
        for (u, v) in values.into_iter().enumerate() {
            let at = first + u * self.lanes as usize;
            self.store(b, v, pointers[inputs], axis.strides[inputs], at, used);
        }
    }

    /// `used` elements of operand `i`, `stride` bytes apart, from index `at` on.
    fn load(&self, b: &mut Builder, i: usize, ptr: Val, stride: i64, at: usize, used: usize) -> Val {
        let stream = &self.streams[i];
        let existing = stream.valid.map_or(used, |valid| valid.saturating_sub(at).min(used));
        if existing == 0 {
            let zero = Ty { elem: crate::expr::register(stream.ty), lanes: self.lanes };
            return b.bits(zero, 0);
        }
        let (ptr, disp) = place(b, ptr, stride * at as i64);
        if stride == stream.width() || self.lanes == 1 || existing == 1 {
            return load_element(b, stream.ty, ptr, disp, self.lanes, existing);
        }
        if stride == 0 {
            return load_element_splat(b, stream.ty, ptr, disp, self.lanes);
        }
        if stride == -stream.width() && existing == self.lanes as usize {
            let back: Vec<u8> = (0..self.lanes).rev().collect();
            let (ptr, disp) = place(b, ptr, i64::from(disp) + stride * (i64::from(self.lanes) - 1));
            let v = load_element(b, stream.ty, ptr, disp, self.lanes, existing);
            return b.shuffle(v, v, &back);
        }
        let elements: Vec<Val> = (0..self.lanes as usize)
            .map(|lane| {
                if lane >= existing {
                    return b.bits(Ty::scalar(crate::expr::register(stream.ty)), 0);
                }
                let (ptr, disp) = place(b, ptr, i64::from(disp) + stride * lane as i64);
                load_element(b, stream.ty, ptr, disp, 1, 1)
            })
            .collect();
        join(b, elements)
    }

    /// `used` elements of a value to the result, `stride` bytes apart, from index `at` on.
    fn store(&self, b: &mut Builder, v: Val, ptr: Val, stride: i64, at: usize, used: usize) {
        let ty = self.streams.last().expect("the result").ty;
        if stride == ty.bytes() as i64 || used == 1 {
            let (ptr, disp) = place(b, ptr, stride * at as i64);
            return store_element(b, ty, v, ptr, disp, used);
        }
        for lane in 0..used {
            let one = b.extract(v, lane as u8);
            let (ptr, disp) = place(b, ptr, stride * (at + lane) as i64);
            store_element(b, ty, one, ptr, disp, 1);
        }
    }
}

/// Scalars as a vector, pairwise.
fn join(b: &mut Builder, mut values: Vec<Val>) -> Val {
    while values.len() > 1 {
        values = values
            .chunks(2)
            .map(|pair| {
                let ty = b.ty(pair[0]);
                b.push(Ty { elem: ty.elem, lanes: 2 * ty.lanes }, Op::Join(pair[0], pair[1]))
            })
            .collect();
    }
    values[0]
}

/// Type as which elements are moved when nothing is computed with them: of the same width, with vectors.
pub fn moved_as(ty: Type) -> Type {
    match ty.bytes() {
        1 => Type::U8,
        2 => Type::U16,
        4 => Type::F32,
        _ => Type::F64,
    }
}

/// The expression that is its operand.
pub fn identity(ty: Type) -> Expr {
    Expr { nodes: vec![crate::expr::ExprNode { what: What::Operand(0), ty }] }
}

#[cfg(test)]
mod tests;
