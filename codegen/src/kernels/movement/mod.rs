//! Operators that only move elements, to places known beforehand: each is one copy or a few between strided views.

use super::lib::view::View;
use super::map::{self, Source};
use crate::schedule;
use crate::unit::{Arg, Family, Forecast, Lowered, LoweredCall, Unit};
use dnnc_ir::{Kind, TensorType, Type};

/// The family.
pub const FAMILY: Family = Family {
    name: "movement",
    kinds: &[Kind::Reshape, Kind::Transpose, Kind::Expand, Kind::Slice, Kind::Concat, Kind::Pad, Kind::Pack, Kind::Unpack],
    lower,
    forecast,
    epilogue: |_, _| None,
};

/// Traffic, more where neighbours are torn apart.
fn forecast(unit: &Unit) -> Forecast {
    let (op, from) = (unit.op, &unit.inputs[0].ty);
    let traffic = schedule::stream_ns(unit.target, unit.traffic());
    match op.kind() {
        Kind::Reshape => Forecast::NOTHING,
        Kind::Slice if run_of_bytes(op, from).is_some() => Forecast::NOTHING,
        // Parts that are not made in place are copied.
        Kind::Concat if concat_is_outermost(op, &unit.results[0]) => Forecast { ns: 0.1 * traffic, epilogue: false, in_place: true },
        Kind::Transpose => Forecast::kernel(unit.target, 3.0 * traffic),
        Kind::Pack | Kind::Unpack => Forecast::kernel(unit.target, 1.5 * traffic),
        _ => Forecast::kernel(unit.target, traffic),
    }
}

fn lower(unit: &Unit) -> Result<Lowered, String> {
    let copies = match unit.op.kind() {
        Kind::Concat => concat(unit),
        Kind::Pad if unit.op.attrs.word("mode") == "constant" => pad_constant(unit),
        Kind::Pad => pad_mapped(unit),
        Kind::Pack => pack(unit),
        Kind::Unpack => unpack(unit),
        _ => vec![Copy::whole(unit, view(unit).ok_or_else(|| format!("`{}` is no view", unit.op.kind().name()))?)],
    };
    let calls = copies.into_iter().filter_map(|copy| copy.call(unit)).collect();
    Ok(Lowered { calls, ..Lowered::default() })
}

/// Bytes from the first of an operand of that type to the first of a slice of it that is one run of its bytes.
pub fn run_of_bytes(slice: &dnnc_ir::Op, from: &TensorType) -> Option<usize> {
    let (starts, sizes, steps) = (slice.attrs.ints("starts"), slice.attrs.ints("sizes"), slice.attrs.ints("steps"));
    if sizes.contains(&0) {
        return Some(0);
    }
    let strides = from.strides();
    let mut partial = false; // an axis outside has more than one element
    for axis in 0..from.rank() {
        let complete = sizes[axis] as usize == from.shape[axis];
        if (steps[axis] != 1 && sizes[axis] > 1) || (partial && !complete) {
            return None;
        }
        partial |= sizes[axis] != 1;
    }
    let elements: usize = (0..from.rank()).map(|a| starts[a] as usize * strides[a]).sum();
    Some(elements * from.ty.bytes())
}

/// Whether the operands of a concatenation follow each other in its result, so that they can be made there.
pub fn concat_is_outermost(concat: &dnnc_ir::Op, result: &TensorType) -> bool {
    result.shape[..concat.attrs.size("axis")].iter().product::<usize>() == 1
}

/// How the first operand lies over the result, for the operators that are nothing more: an element-wise kernel may read it so itself.
fn view(unit: &Unit) -> Option<View> {
    view_of(unit.op, &unit.inputs[0].ty.shape, &unit.results[0].shape)
}

/// How an operand of shape `from` lies over the result `to` of a reshape, transpose, expand or slice; `None` for other operators.
pub fn view_of(op: &dnnc_ir::Op, from: &[usize], to: &[usize]) -> Option<View> {
    match op.kind() {
        // A dense operand has strides even where a size is 0.
        Kind::Reshape => Some(View::dense(to)),
        _ => view_through(op, &View::dense(from), from, to),
    }
}

/// How what lies so over `from` lies over the result `to` of a reshape, transpose, expand or slice, if it does with even strides.
pub fn view_through(op: &dnnc_ir::Op, view: &View, from: &[usize], to: &[usize]) -> Option<View> {
    Some(match op.kind() {
        Kind::Reshape => View { offset: view.offset, strides: reshaped(&view.strides, from, to)? },
        Kind::Transpose => View { offset: view.offset, strides: op.attrs.ints("perm").iter().map(|&p| view.strides[p as usize]).collect() },
        Kind::Expand => {
            let missing = to.len() - from.len();
            let kept = |a: usize| if a < missing || from[a - missing] != to[a] { 0 } else { view.strides[a - missing] };
            View { offset: view.offset, strides: (0..to.len()).map(kept).collect() }
        }
        Kind::Slice => {
            // The start of no elements and the step of one say nothing: they may be any numbers.
            if to.contains(&0) {
                return Some(View::dense(to));
            }
            let (starts, steps) = (op.attrs.ints("starts"), op.attrs.ints("steps"));
            let offset = starts.iter().zip(&view.strides).map(|(&start, &stride)| start as isize * stride).sum::<isize>();
            let stride = |a: usize| if to[a] == 1 { 0 } else { steps[a] as isize * view.strides[a] };
            View { offset: view.offset.checked_add_signed(offset)?, strides: (0..to.len()).map(stride).collect() }
        }
        _ => return None,
    })
}

/// Strides over `to` of what has `strides` over `from`, a reshape of it; `None` where axes would have to be merged that do not follow each other evenly.
pub fn reshaped(strides: &[isize], from: &[usize], to: &[usize]) -> Option<Vec<isize>> {
    if from.contains(&0) {
        return None;
    }
    let mut old = from.iter().zip(strides).filter(|(n, _)| **n != 1).map(|(&n, &s)| (n, s)).rev().peekable();
    let mut out = vec![0; to.len()];
    // From the innermost axis on: `left` elements, `stride` apart, of the old axis are still to be covered.
    let (mut left, mut stride) = (1, 1);
    for (axis, &size) in to.iter().enumerate().rev() {
        if size == 1 {
            continue;
        }
        if left == 1 {
            (left, stride) = old.next()?;
        }
        while left % size != 0 {
            let (n, outer) = old.next()?;
            if outer != left as isize * stride {
                return None;
            }
            left *= n;
        }
        out[axis] = stride;
        (left, stride) = (left / size, stride * size as isize);
    }
    Some(out)
}

/// A copy between views.
struct Copy {
    shape: Vec<usize>,
    from: View,
    to: View,
    /// Operand that is read.
    input: usize,
    valid: Option<usize>,
}

impl Copy {
    /// Of all of the first operand to a dense result.
    fn whole(unit: &Unit, from: View) -> Copy {
        let shape = unit.results[0].shape.clone();
        Copy { to: View::dense(&shape), shape, from, input: 0, valid: None }
    }

    fn call(self, unit: &Unit) -> Option<LoweredCall> {
        let (ty, copy) = self.widened(map::moved_as(unit.results[0].ty));
        let source = Source { valid: copy.valid, ..Source::new(Arg::Input(copy.input), ty, copy.from) };
        let mut call = map::call(&map::identity(ty), &[source], &copy.shape, &copy.to, unit.target, unit.options)?;
        call.func.name = unit.op.kind().name().into();
        Some(call)
    }

    /// The same copy of wider elements, where bytes or pairs of bytes always move by fours.
    fn widened(mut self, ty: Type) -> (Type, Copy) {
        let k = 4 / ty.bytes().min(4);
        let Some(last) = self.shape.len().checked_sub(1) else { return (ty, self) };
        let by_k = |v: &View| v.strides[last] == 1 && v.offset.is_multiple_of(k) && v.strides[..last].iter().all(|s| s % k as isize == 0);
        if k == 1 || self.valid.is_some() || !self.shape[last].is_multiple_of(k) || !by_k(&self.from) || !by_k(&self.to) {
            return (ty, self);
        }
        self.shape[last] /= k;
        for v in [&mut self.from, &mut self.to] {
            v.offset /= k;
            v.strides[..last].iter_mut().for_each(|s| *s /= k as isize);
        }
        (Type::F32, self)
    }
}

fn concat(unit: &Unit) -> Vec<Copy> {
    let axis = unit.op.attrs.size("axis");
    let mut to = View::dense(&unit.results[0].shape);
    let mut copies = vec![];
    for (input, operand) in unit.inputs.iter().enumerate() {
        let shape = operand.ty.shape.clone();
        let next = to.offset + shape[axis] * to.strides[axis] as usize;
        copies.push(Copy { from: View::dense(&shape), shape, to: to.clone(), input, valid: None });
        to.offset = next;
    }
    copies
}

/// Sizes of the padding before and after each axis.
fn pads(unit: &Unit) -> Vec<(usize, usize)> {
    let pads = unit.op.attrs.sizes("pads");
    let rank = unit.inputs[0].ty.rank();
    (0..rank).map(|a| (pads[a], pads[rank + a])).collect()
}

/// The interior, and for each axis the two slabs beside it: inside along the axes before, whole along those after.
fn pad_constant(unit: &Unit) -> Vec<Copy> {
    let (from, to) = (&unit.inputs[0].ty.shape, &unit.results[0].shape);
    let (pads, dense) = (pads(unit), View::dense(to));
    let rank = from.len();
    let at = |start: &dyn Fn(usize) -> usize| (0..rank).map(|a| start(a) * dense.strides[a] as usize).sum::<usize>();
    let inside = View { offset: at(&|a| pads[a].0), ..dense.clone() };
    let mut copies = vec![Copy { shape: from.clone(), from: View::dense(from), to: inside, input: 0, valid: None }];
    for axis in 0..rank {
        for (start, size) in [(0, pads[axis].0), (pads[axis].0 + from[axis], pads[axis].1)] {
            let shape = (0..rank)
                .map(|a| match a.cmp(&axis) {
                    std::cmp::Ordering::Less => from[a],
                    std::cmp::Ordering::Equal => size,
                    std::cmp::Ordering::Greater => to[a],
                })
                .collect();
            let first = |a: usize| match a.cmp(&axis) {
                std::cmp::Ordering::Less => pads[a].0,
                std::cmp::Ordering::Equal => start,
                std::cmp::Ordering::Greater => 0,
            };
            let to = View { offset: at(&first), ..dense.clone() };
            copies.push(Copy { shape, from: View { offset: 0, strides: vec![0; rank] }, to, input: 1, valid: None });
        }
    }
    copies
}

/// A stretch of an axis of the result that is read in even steps.
#[derive(Clone, Copy, Debug)]
struct Run {
    to: usize,
    size: usize,
    from: usize,
    step: isize,
}

/// The stretches of an axis of `size` elements under `begin` and `end` more, after the padding mode.
fn runs(mode: &str, size: usize, (begin, end): (usize, usize)) -> Vec<Run> {
    let source = |i: isize| -> usize {
        let n = size as isize;
        match mode {
            "edge" => i.clamp(0, n - 1) as usize,
            "wrap" => i.rem_euclid(n) as usize,
            _ if n == 1 => 0,
            _ => {
                let i = i.rem_euclid(2 * n - 2);
                (if i < n { i } else { 2 * n - 2 - i }) as usize
            }
        }
    };
    let mut runs: Vec<Run> = vec![];
    for to in 0..begin + size + end {
        let from = source(to as isize - begin as isize);
        if let Some(run) = runs.last_mut() {
            let step = from as isize - (run.from as isize + run.step * (run.size as isize - 1));
            if run.size == 1 || step == run.step {
                (run.step, run.size) = (step, run.size + 1);
                continue;
            }
        }
        runs.push(Run { to, size: 1, from, step: 0 });
    }
    runs
}

/// A copy for every combination of stretches.
fn pad_mapped(unit: &Unit) -> Vec<Copy> {
    let (from, to) = (&unit.inputs[0].ty.shape, &unit.results[0].shape);
    let (source, dense) = (View::dense(from), View::dense(to));
    let pads = pads(unit);
    let start = View { offset: 0, strides: vec![] };
    let mut copies = vec![Copy { shape: vec![], from: start.clone(), to: start, input: 0, valid: None }];
    for axis in 0..from.len() {
        let runs = runs(unit.op.attrs.word("mode"), from[axis], pads[axis]);
        copies = copies
            .iter()
            .flat_map(|copy| {
                runs.iter().map(|run| Copy {
                    shape: [&copy.shape[..], &[run.size]].concat(),
                    from: further(&copy.from, run.from, source.strides[axis], run.step),
                    to: further(&copy.to, run.to, dense.strides[axis], 1),
                    input: 0,
                    valid: None,
                })
            })
            .collect();
    }
    copies
}

/// A view with one axis more, that starts at index `first` and goes in steps.
fn further(view: &View, first: usize, stride: isize, step: isize) -> View {
    View { offset: view.offset + first * stride as usize, strides: [&view.strides[..], &[stride * step]].concat() }
}

/// The whole blocks, then the block that is partly there.
fn pack(unit: &Unit) -> Vec<Copy> {
    let (axis, block) = (unit.op.attrs.size("axis"), unit.op.attrs.size("block"));
    let (from, to) = (&unit.inputs[0].ty.shape, &unit.results[0].shape);
    let (source, dense) = (View::dense(from), View::dense(to));
    let channel = source.strides[axis];
    let whole = from[axis] / block;
    let part = |first: usize, blocks: usize, valid: Option<usize>| {
        let mut shape = to.clone();
        shape[axis] = blocks;
        let mut strides = source.strides.clone();
        strides[axis] = channel * block as isize;
        strides.push(channel);
        Copy {
            shape,
            from: View { offset: first * block * channel as usize, strides },
            to: View { offset: first * dense.strides[axis] as usize, ..dense.clone() },
            input: 0,
            valid,
        }
    };
    let mut copies = vec![part(0, whole, None)];
    if whole < to[axis] {
        copies.push(part(whole, 1, Some(from[axis] % block)));
    }
    copies
}

/// The whole blocks, then the elements of the last one that are kept.
fn unpack(unit: &Unit) -> Vec<Copy> {
    let (axis, block) = (unit.op.attrs.size("axis"), unit.op.attrs.size("block"));
    let (from, to) = (&unit.inputs[0].ty.shape, &unit.results[0].shape);
    let (source, dense) = (View::dense(from), View::dense(to));
    let rank = to.len();
    let whole = to[axis] / block;
    // Axes of the copy: those of the result with the axis as blocks and elements of a block.
    let part = |first: usize, blocks: usize, kept: usize| {
        let insert = |outer: &[isize], at_block: isize, at_element: isize| -> Vec<isize> {
            [&outer[..axis], &[at_block, at_element], &outer[axis + 1..rank]].concat()
        };
        let channel = dense.strides[axis];
        Copy {
            shape: [&to[..axis], &[blocks, kept], &to[axis + 1..]].concat(),
            from: View { offset: first * source.strides[axis] as usize, strides: insert(&source.strides, source.strides[axis], 1) },
            to: View { offset: first * block * channel as usize, strides: insert(&dense.strides, channel * block as isize, channel) },
            input: 0,
            valid: None,
        }
    };
    vec![part(0, whole, block), part(whole, 1, to[axis] % block)]
}

#[cfg(test)]
mod tests;
