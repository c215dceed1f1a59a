//! Matmul, Gemm and Einsum.

use super::expr::v;
use super::helpers::{Outputs, count, one};
use super::row::{OpImport, onnx};
use crate::build::{Build, Node, Result, invalid};
use dnnc_ir::{Kind, Type, Value, broadcast};

pub(super) const OPS: &[OpImport] = &[
    onnx("MatMul", |b, n| one(matmul(b, n.input(0)?, n.input(1)?))),
    onnx("Gemm", |b, n| one(gemm_product(b, n))),
    onnx("Einsum", einsum),
    onnx("Det", |b, n| one(b.unary(Kind::Det, n.input(0)?))),
];

/// NumPy's matmul: vectors count as a row on the left, as a column on the right.
pub(super) fn matmul(b: &mut Build, x: Value, y: Value) -> Result<Value> {
    let (row, column) = (b.rank(x) == 1, b.rank(y) == 1);
    if b.rank(x) == 0 || b.rank(y) == 0 {
        return invalid!("matmul of {} and {}", b.ty(x), b.ty(y));
    }
    let x = if row { b.unsqueeze(x, &[0])? } else { x };
    let y = if column { b.unsqueeze(y, &[1])? } else { y };
    let z = b.matmul(x, y)?;
    let mut shape = b.shape(z);
    if column {
        shape.pop();
    }
    if row {
        shape.remove(shape.len() - if column { 1 } else { 2 });
    }
    b.reshape(z, &shape)
}

/// alpha · A·B + beta · C.
pub(super) fn gemm_product(b: &mut Build, n: &Node) -> Result<Value> {
    let (x, w) = (n.input(0)?, n.input(1)?);
    let (alpha, beta) = (n.num("alpha", 1.0)?, n.num("beta", 1.0)?);
    if b.rank(x) != 2 || b.rank(w) != 2 {
        return invalid!("Gemm of {} and {}: both must be matrices", b.ty(x), b.ty(w));
    }
    let (trans_a, trans_b) = (n.flag("transA", false)?, n.flag("transB", false)?);
    let product = b.op(Kind::MatMul, [("trans_a", trans_a.into()), ("trans_b", trans_b.into())], &[x, w])?;
    let mut y = v(product);
    if alpha != 1.0 {
        y = y * alpha;
    }
    if let Some(bias) = n.opt(2).filter(|_| beta != 0.0) {
        let shape = b.shape(product);
        if broadcast(&shape, &b.shape(bias)).as_ref() != Some(&shape) {
            return invalid!("{} does not broadcast to {shape:?}", b.ty(bias));
        }
        y = y + if beta != 1.0 { v(bias) * beta } else { v(bias) };
    }
    b.emit(y)
}

/// A label of an axis: a letter, or a position of the ellipsis counted from its end.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Label {
    Letter(char),
    Ellipsis(usize),
}

/// A tensor whose axes have labels, each at most once.
struct Labelled {
    value: Value,
    labels: Vec<Label>,
}

/// Operand by operand: diagonals, then a matmul over the labels that nothing later mentions.
fn einsum(b: &mut Build, n: &Node) -> Outputs {
    let Some(equation) = n.opt_string("equation")? else { return invalid!("attribute `equation` is missing") };
    let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match text.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (text.as_str(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    let inputs = n.all_inputs()?;
    if terms.len() != inputs.len() {
        return invalid!("the equation `{equation}` has {} terms for {} inputs", terms.len(), inputs.len());
    }
    let mut operands = Vec::with_capacity(inputs.len());
    let ty = inputs.first().map(|&x| b.elem(x));
    for (term, &x) in terms.iter().zip(&inputs) {
        let labels = labels(term, Some(b.rank(x)))?;
        // Narrow integers wrap at the end as they would on the way.
        let narrow = b.elem(x).is_int() && b.elem(x).bytes() < 4;
        let x = if narrow { b.cast(x, Type::I32)? } else { x };
        operands.push(diagonal(b, Labelled { value: x, labels })?);
    }
    let dots = operands
        .iter()
        .flat_map(|o| &o.labels)
        .filter_map(|l| if let Label::Ellipsis(i) = l { Some(i + 1) } else { None })
        .max()
        .unwrap_or(0);
    let output = match right {
        Some(right) => {
            let letters = right.replace("...", "").len();
            labels(right, Some(letters + if right.contains("...") { dots } else { 0 }))?
        }
        None => implicit_output(left, dots),
    };
    if (0..output.len()).any(|i| output[..i].contains(&output[i])) {
        return invalid!("the equation `{equation}` names a label of the result twice");
    }
    let mut rest = operands.into_iter();
    let Some(mut acc) = rest.next() else { return invalid!("there is no input") };
    while let Some(next) = rest.next() {
        let later: Vec<Label> = rest.as_slice().iter().flat_map(|o| o.labels.iter().copied()).chain(output.iter().copied()).collect();
        acc = contract(b, acc, next, &later)?;
    }
    let acc = sum_out(b, acc, &output)?;
    let Some(perm) = output.iter().map(|l| acc.labels.iter().position(|m| m == l)).collect::<Option<Vec<usize>>>() else {
        return invalid!("the equation `{equation}` has a label in its result that no input has");
    };
    let y = b.transpose(acc.value, &perm)?;
    one(b.cast(y, ty.unwrap_or(b.elem(y))))
}

fn labels(term: &str, rank: Option<usize>) -> Result<Vec<Label>> {
    let letter = |c: char| if c.is_ascii_alphabetic() { Ok(Label::Letter(c)) } else { invalid!("`{c}` in an equation") };
    let letters = |part: &str| part.chars().map(letter).collect::<Result<Vec<Label>>>();
    let found = match term.split_once("...") {
        None => letters(term)?,
        Some((before, after)) => {
            let (before, after) = (letters(before)?, letters(after)?);
            let Some(dots) = rank.and_then(|r| r.checked_sub(before.len() + after.len())) else {
                return invalid!("the term `{term}` has more labels than its tensor has axes");
            };
            before.into_iter().chain((0..dots).rev().map(Label::Ellipsis)).chain(after).collect()
        }
    };
    match rank {
        Some(rank) if rank != found.len() => invalid!("the term `{term}` stands for a tensor with {rank} axes"),
        _ => Ok(found),
    }
}

/// The ellipsis, then the letters that come once, in the order of the alphabet.
fn implicit_output(left: &str, dots: usize) -> Vec<Label> {
    let mut letters: Vec<char> = left.chars().filter(char::is_ascii_alphabetic).collect();
    letters.sort_unstable();
    let once = |c: &&char| letters.iter().filter(|d| d == c).count() == 1;
    (0..dots).rev().map(Label::Ellipsis).chain(letters.iter().filter(once).map(|&c| Label::Letter(c))).collect()
}

/// Axes with the same label become one: the diagonal.
fn diagonal(b: &mut Build, mut x: Labelled) -> Result<Labelled> {
    while let Some((i, j)) = (0..x.labels.len()).find_map(|j| x.labels[..j].iter().position(|l| *l == x.labels[j]).map(|i| (i, j))) {
        let shape = b.shape(x.value);
        let (rank, size) = (shape.len(), shape[i]);
        if shape[j] != size {
            return invalid!("axes of size {size} and {} have the same label", shape[j]);
        }
        let moved = b.transpose(x.value, &super::helpers::moved_last(rank, &[i, j]))?;
        let mut flat: Vec<usize> = b.shape(moved)[..rank - 2].to_vec();
        flat.push(size * size);
        let moved = b.reshape(moved, &flat)?;
        let (starts, mut steps) = (vec![0; rank - 1], vec![1; rank - 1]);
        flat[rank - 2] = size;
        steps[rank - 2] = size as i64 + 1;
        x.value = b.slice(moved, &starts, &flat, &steps)?;
        let label = x.labels.remove(j);
        x.labels.remove(i);
        x.labels.push(label);
    }
    Ok(x)
}

/// Sums over the axes whose labels are not in `kept`.
fn sum_out(b: &mut Build, x: Labelled, kept: &[Label]) -> Result<Labelled> {
    let gone: Vec<usize> = (0..x.labels.len()).filter(|&i| !kept.contains(&x.labels[i])).collect();
    if gone.is_empty() {
        return Ok(x);
    }
    let value = b.reduce(Kind::ReduceSum, x.value, &gone, false)?;
    Ok(Labelled { value, labels: x.labels.into_iter().filter(|l| kept.contains(l)).collect() })
}

/// The product of two tensors summed over the labels that neither `later` nor only one of them has.
fn contract(b: &mut Build, x: Labelled, y: Labelled, later: &[Label]) -> Result<Labelled> {
    let keep = |other: &Labelled| other.labels.iter().chain(later).copied().collect::<Vec<Label>>();
    let (for_x, for_y) = (keep(&y), keep(&x));
    let (x, y) = (sum_out(b, x, &for_x)?, sum_out(b, y, &for_y)?);
    let shared = |l: &&Label| y.labels.contains(l);
    let batch: Vec<Label> = x.labels.iter().filter(shared).filter(|l| later.contains(l)).copied().collect();
    let summed: Vec<Label> = x.labels.iter().filter(shared).filter(|l| !later.contains(l)).copied().collect();
    let own = |t: &Labelled| t.labels.iter().filter(|l| !batch.contains(l) && !summed.contains(l)).copied().collect::<Vec<Label>>();
    let (left, right) = (own(&x), own(&y));
    let size_of = |b: &Build, l: &Label| {
        let of = |t: &Labelled| t.labels.iter().position(|m| m == l).map_or(1, |i| b.shape(t.value)[i]);
        (of(&x), of(&y))
    };
    let mut shared_sizes = Vec::new();
    for l in batch.iter().chain(&summed) {
        match size_of(b, l) {
            (p, q) if p == q || q == 1 => shared_sizes.push(p),
            (1, q) => shared_sizes.push(q),
            (p, q) => return invalid!("axes of size {p} and {q} have the same label"),
        }
    }
    let (batch_sizes, sum_sizes) = shared_sizes.split_at(batch.len());
    let left_sizes: Vec<usize> = left.iter().map(|l| size_of(b, l).0).collect();
    let right_sizes: Vec<usize> = right.iter().map(|l| size_of(b, l).1).collect();
    let (m, k, n) = (count(&left_sizes)?, count(sum_sizes)?, count(&right_sizes)?);
    let p = arrange(b, &x, &[&batch[..], &left, &summed], &[batch_sizes, &left_sizes, sum_sizes], &[m, k], batch.len())?;
    let q = arrange(b, &y, &[&batch[..], &summed, &right], &[batch_sizes, sum_sizes, &right_sizes], &[k, n], batch.len())?;
    let z = b.matmul(p, q)?;
    let shape = [batch_sizes, &left_sizes, &right_sizes].concat();
    Ok(Labelled { value: b.reshape(z, &shape)?, labels: [batch, left, right].concat() })
}

/// `x` with its axes in the order of `groups`, broadcast to their sizes, those after the first `batch` joined into a matrix.
fn arrange(b: &mut Build, x: &Labelled, groups: &[&[Label]], sizes: &[&[usize]], matrix: &[usize], batch: usize) -> Result<Value> {
    let perm: Vec<usize> = groups.iter().flat_map(|g| g.iter()).filter_map(|l| x.labels.iter().position(|m| m == l)).collect();
    let moved = b.transpose(x.value, &perm)?;
    let full = sizes.concat();
    let moved = b.expand(moved, &full)?;
    let shape: Vec<usize> = full[..batch].iter().chain(matrix).copied().collect();
    b.reshape(moved, &shape)
}
