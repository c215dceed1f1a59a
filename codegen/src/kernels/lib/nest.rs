//! Loops over axes with a pointer a stream: what all strided kernels walk with.

use dnnc_kir::{Bin, Builder, Ty, Val};

/// An axis of a nest: its size and the bytes from one index to the next, a stream each.
#[derive(Clone, Debug)]
pub struct Axis {
    /// Number of indices.
    pub size: usize,
    /// Bytes a stream.
    pub strides: Vec<i64>,
}

/// Part of an axis that a task walks: all of it, or so many indices from a multiple of them on.
#[derive(Clone, Copy)]
pub enum Part {
    /// Every index.
    All,
    /// As many as this, from the task's number times this.
    Chunk(usize),
}

impl Part {
    /// First index and bound of the part, where `size` indices are walked.
    pub fn bounds(self, size: usize) -> (Index, Index) {
        match self {
            Part::All => (Index::Known(0), Index::Known(size)),
            Part::Chunk(chunk) => (Index::TimesTask(chunk), Index::EndOfTask(chunk, size)),
        }
    }
}

/// An index of an axis.
#[derive(Clone, Copy)]
pub enum Index {
    /// This one.
    Known(usize),
    /// The task's number times this.
    TimesTask(usize),
    /// The first index of the next task by chunks of the first number, at most the second.
    EndOfTask(usize, usize),
}

impl Index {
    /// The index times `unit`.
    fn scaled(self, b: &mut Builder, unit: i64) -> Val {
        match self {
            Index::Known(n) => b.int(Ty::I64, n as i64 * unit),
            Index::TimesTask(chunk) => {
                let task = b.task();
                b.mul_int(task, chunk as i64 * unit)
            }
            Index::EndOfTask(chunk, size) => {
                let task = b.task();
                let next = b.add_int(task, 1);
                let end = b.mul_int(next, chunk as i64 * unit);
                let size = b.int(Ty::I64, size as i64 * unit);
                b.bin(Bin::MinS, end, size)
            }
        }
    }
}

/// Calls `body` with the pointers at every `step`th index of an axis, and with values that it carries on; gives their last ones. The counter
/// counts bytes of the densest stream, so that most addresses are a pointer plus the counter.
pub fn walk(
    b: &mut Builder,
    axis: &Axis,
    (start, end): (Index, Index),
    step: usize,
    pointers: &[Val],
    carried: &[Val],
    body: &mut dyn FnMut(&mut Builder, &[Val], &[Val]) -> Vec<Val>,
) -> Vec<Val> {
    if let (Index::Known(first), Index::Known(last)) = (start, end)
        && last.saturating_sub(first) <= step
    {
        if last <= first {
            return carried.to_vec();
        }
        let p = at(b, axis, pointers, first);
        return body(b, &p, carried);
    }
    let least = axis.strides.iter().map(|s| s.abs()).filter(|&s| s > 0).min().unwrap_or(1);
    let unit = if axis.strides.iter().all(|s| s % least == 0) { least } else { 1 };
    let (start, end) = (start.scaled(b, unit), end.scaled(b, unit));
    b.for_range(start, end, step as i64 * unit, carried, |b, iv, carried| {
        let mut made: Vec<(i64, Val)> = vec![(1, iv)];
        let p: Vec<Val> = pointers
            .iter()
            .zip(&axis.strides)
            .map(|(&p, stride)| {
                let ratio = stride / unit;
                if ratio == 0 {
                    return p;
                }
                let offset = match made.iter().find(|(r, _)| *r == ratio) {
                    Some(&(_, v)) => v,
                    None => {
                        let v = b.mul_int(iv, ratio);
                        made.push((ratio, v));
                        v
                    }
                };
                b.offset(p, offset)
            })
            .collect();
        body(b, &p, carried)
    })
}

/// The pointers at a known index of an axis.
pub fn at(b: &mut Builder, axis: &Axis, pointers: &[Val], index: usize) -> Vec<Val> {
    pointers.iter().zip(&axis.strides).map(|(&p, &s)| b.offset_int(p, s * index as i64)).collect()
}

/// Loops over axes one index at a time, the first outermost.
pub fn nest(b: &mut Builder, axes: &[(&Axis, Part)], pointers: &[Val], leaf: &mut dyn FnMut(&mut Builder, &[Val])) {
    match axes.split_first() {
        None => leaf(b, pointers),
        Some((&(axis, part), rest)) => {
            walk(b, axis, part.bounds(axis.size), 1, pointers, &[], &mut |b, p, _| {
                nest(b, rest, p, leaf);
                vec![]
            });
        }
    }
}

/// A pointer and a displacement that are `bytes` further.
pub fn place(b: &mut Builder, ptr: Val, bytes: i64) -> (Val, i32) {
    match i32::try_from(bytes) {
        Ok(disp) => (ptr, disp),
        Err(_) => (b.offset_int(ptr, bytes), 0),
    }
}

/// Runs `rest` in the task that has the last indices of an axis of `size`.
pub fn in_last_task(b: &mut Builder, part: Part, size: usize, rest: impl FnOnce(&mut Builder)) {
    match part {
        Part::All => rest(b),
        Part::Chunk(chunk) => {
            let (task, last) = (b.task(), b.index(size.div_ceil(chunk) - 1));
            let is_last = b.cmp(dnnc_kir::Cmp::Eq, task, last);
            b.when(is_last, rest);
        }
    }
}

/// Elements a task should have at least, each of about one instruction of a vector: some microseconds of work.
const TASK: usize = 16384;

/// Number of tasks for so many elements of so many instructions.
pub fn tasks(elements: usize, weight: usize, threads: usize) -> usize {
    if threads > 1 { (elements.saturating_mul(1 + weight / 8) / TASK).clamp(1, 4 * threads) } else { 1 }
}

/// How axes of so many indices are cut into about so many tasks: the first axis that has enough, else the longest. Gives the part of each axis
/// that a task walks and the number of tasks.
pub fn cut(sizes: &[usize], wanted: usize) -> (Vec<Part>, usize) {
    let mut parts = vec![Part::All; sizes.len()];
    let axis = (0..sizes.len()).find(|&a| sizes[a] >= wanted).or_else(|| (0..sizes.len()).max_by_key(|&a| sizes[a]));
    match axis {
        Some(a) if wanted > 1 && sizes[a] > 1 => {
            let chunk = sizes[a].div_ceil(wanted);
            parts[a] = Part::Chunk(chunk);
            (parts, sizes[a].div_ceil(chunk))
        }
        _ => (parts, 1),
    }
}
