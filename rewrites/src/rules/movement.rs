//! Data movement: transposes, reshapes, slices and concatenations are cancelled, combined, and moved outwards until they meet.

use super::table::{Check, Make, named, rules};
use crate::fact::Classes;
use crate::language::{Build, Range, full_ranges};
use crate::mismatch::{Mismatch, near_miss, no_match};
use crate::pattern::Arg;
use crate::term::{OpRef, Term};
use dnnc_ir::{Attr, Kind, Op};
use egg::Id;

named! { #[doc = "Conditions."] CHECK: Check; same_rank, identity_order, only_unit_axes_move, only_last_axes, no_padding, constant_pads, copies_all }
named! {
    #[doc = "Helpers."]
    MAKE: Make;
    on_parts, transposed_vector, pad_of_reshape, reshaped, composed_order, transposed, reduced, on_axis, flip_a, flip_b, pads_before, slice_before, dropped, reshaped_as, slice_of_slice, slice_of_concat, joined_slices, flattened, padded_twice,
    of_transposed, slice_of_gather, unchanged
}

rules! {
    #[doc = "Data movement: transposes, reshapes, slices and concatenations are cancelled, combined, and moved outwards until they meet."]
    MOVEMENT;
    "transpose to the same order"            : (transpose[p] x)                                   => x                                                         if identity_order(p)
    "transpose of transpose"                 : (transpose[p] (transpose[q] x))                    => (transpose[composed_order(p, q)] x)
    "transpose of unit axes as reshape"      : (transpose[p] x)                                   => (reshaped_as p x)                                         if only_unit_axes_move(p, x)
    "reshape to the same shape"              : (reshape[p] x)                                     => (unchanged p x)
    "reshape of reshape"                     : (reshape[p] (reshape x))                           => (reshape[p] x)
    "expand to the same shape"               : (expand[p] x)                                      => (unchanged p x)
    "expand of expand"                       : (expand[p] (expand x))                             => (expand[p] x)
    "implicit broadcast, left operand"       : (elementwise[f] (expand x) y)                      => (elementwise[f] x y)
    "implicit broadcast, right operand"      : (elementwise[f] x (expand y))                      => (elementwise[f] x y)
    "implicit broadcast, condition"          : (select (expand c) x y)                            => (select c x y)
    "implicit broadcast, first choice"       : (select c (expand x) y)                            => (select c x y)
    "implicit broadcast, second choice"      : (select c x (expand y))                            => (select c x y)
    "element-wise of transpose"              : (elementwise[f] (transpose[p] x))                  => (transpose[p] (elementwise[f] x))
    "element-wise of two transposes"         : (elementwise[f] (transpose[p] x) (transpose[p] y)) => (transpose[p] (elementwise[f] x y))                       if same_rank(x, y)
    "element-wise of transpose and constant" : (elementwise[f] (transpose[p] x) c)                => (transpose[p] (elementwise[f] x (transposed p c)))        if constant(c), non_constant(x)
    "element-wise of constant and transpose" : (elementwise[f] c (transpose[p] x))                => (transpose[p] (elementwise[f] (transposed p c) x))        if constant(c), non_constant(x)
    "element-wise of transpose and vector"   : (elementwise[f] (transpose[p] x) y)                => (transpose[p] (elementwise[f] x (transposed_vector p y))) if non_constant(x, y)
    "element-wise of vector and transpose"   : (elementwise[f] y (transpose[p] x))                => (transpose[p] (elementwise[f] (transposed_vector p y) x)) if non_constant(x, y)
    "reshape of pad"                         : (reshape[p] (pad[q] x z))                          => (pad_of_reshape p q x z)
    "element-wise of reshape"                : (elementwise[f] (reshape[p] x))                    => (reshape[p] (elementwise[f] x))
    "element-wise of two reshapes"           : (elementwise[f] (reshape[p] x) (reshape[p] y))     => (reshape[p] (elementwise[f] x y))                         if same(x, y)
    "element-wise of reshape and constant"   : (elementwise[f] (reshape[p] x) c)                  => (reshape[p] (elementwise[f] x (reshaped p x c)))          if constant(c), non_constant(x)
    "element-wise of constant and reshape"   : (elementwise[f] c (reshape[p] x))                  => (reshape[p] (elementwise[f] (reshaped p x c) x))          if constant(c), non_constant(x)
    "sum of transpose"                       : (reduce_sum[r] (transpose[p] x))                   => (reduced r p x)
    "mean of transpose"                      : (reduce_mean[r] (transpose[p] x))                  => (reduced r p x)
    "maximum of transpose"                   : (reduce_max[r] (transpose[p] x))                   => (reduced r p x)
    "minimum of transpose"                   : (reduce_min[r] (transpose[p] x))                   => (reduced r p x)
    "softmax of transpose"                   : (softmax[s] (transpose[p] x))                      => (transpose[p] (softmax[on_axis(s, p)] x))
    "sum that drops axes"                    : (reduce_sum[r] x)                                  => (dropped r x)
    "mean that drops axes"                   : (reduce_mean[r] x)                                 => (dropped r x)
    "maximum that drops axes"                : (reduce_max[r] x)                                  => (dropped r x)
    "minimum that drops axes"                : (reduce_min[r] x)                                  => (dropped r x)
    "resample of transpose"                  : (resample[r] (transpose[p] x) i w)                 => (transpose[p] (resample[on_axis(r, p)] x i w))
    "pad of transpose"                       : (pad[q] (transpose[p] x) z)                        => (transpose[p] (pad[pads_before(q, p)] x z))
    "slice of transpose"                     : (slice[s] (transpose[p] x))                        => (transpose[p] (slice[slice_before(s, p)] x))
    "concat of transposes"                   : (concat[c] ..xs)                                   => (of_transposed c xs)
    "transpose into left matmul operand"     : (matmul[p] (transpose[q] a) b)                     => (matmul[flip_a(p)] a b)                                   if only_last_axes(q)
    "transpose into right matmul operand"    : (matmul[p] a (transpose[q] b))                     => (matmul[flip_b(p)] a b)                                   if only_last_axes(q)
    "element-wise of concat"                 : (elementwise[f] (concat[c] ..xs))                  => (on_parts f c xs)
    "full slice"                             : (slice[p] x)                                       => x                                                         if copies_all(p, x)
    "slice of slice"                         : (slice[p] (slice[q] x))                            => (slice[slice_of_slice(p, q)] x)
    "slice of concat"                        : (slice[p] (concat[q] ..xs))                        => (slice_of_concat p q xs)
    "concat of adjacent slices"              : (concat[p] ..xs)                                   => (joined_slices p xs)
    "nested concat"                          : (concat[p] ..xs)                                   => (flattened p xs)
    "pad of zero width"                      : (pad[p] x z)                                       => x                                                         if no_padding(p)
    "pad of pad"                             : (pad[p] (pad[q] x z) z)                            => (pad[padded_twice(p, q)] x z)                             if constant_pads(p, q)
    "gather of a range as slice"             : (gather[p] x i)                                    => (slice_of_gather p x i)                                   if constant(i)
}

fn identity_order(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let perm = args[0].op().attrs.ints("perm");
    if perm.iter().enumerate().all(|(i, &p)| i as i64 == p) { Ok(()) } else { Err(no_match("the order changes")) }
}

fn same_rank(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if g.shape(args[0].id()).len() == g.shape(args[1].id()).len() { Ok(()) } else { Err(no_match("the numbers of axes differ")) }
}

fn only_unit_axes_move(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let shape = g.shape(args[1].id());
    let kept: Vec<i64> = args[0].op().attrs.ints("perm").iter().copied().filter(|&p| shape[p as usize] != 1).collect();
    if kept.is_sorted() { Ok(()) } else { Err(no_match("an axis longer than 1 moves")) }
}

fn only_last_axes(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let perm = args[0].op().attrs.sizes("perm");
    let n = perm.len();
    let swaps = n >= 2 && perm[n - 2..] == [n - 1, n - 2] && perm[..n - 2].iter().enumerate().all(|(i, &p)| i == p);
    if swaps { Ok(()) } else { Err(no_match("the transpose does more than swap the last two axes")) }
}

fn no_padding(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args[0].op().attrs.ints("pads").iter().all(|&p| p == 0) { Ok(()) } else { Err(no_match("there is padding")) }
}

fn constant_pads(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args.iter().all(|a| a.op().attrs.word("mode") == "constant") { Ok(()) } else { Err(no_match("the padding is not constant")) }
}

fn copies_all(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let (attrs, shape) = (&args[0].op().attrs, g.shape(args[1].id()));
    let all = attrs.sizes("sizes") == shape && attrs.ints("steps").iter().zip(shape).all(|(&s, &n)| s == 1 || n <= 1);
    if all { Ok(()) } else { Err(no_match("something is left out")) }
}

fn made(kind: Kind, attrs: impl IntoIterator<Item = (&'static str, Attr)>) -> Result<Arg, Mismatch> {
    Ok(Arg::Op(OpRef::new(Op::new(kind, attrs).map_err(|_| near_miss("an attribute would be wrong"))?)))
}

/// Transpose `p` of transpose `q`.
fn composed_order(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, q) = (args[0].op().attrs.ints("perm"), args[1].op().attrs.ints("perm"));
    made(Kind::Transpose, [("perm", Attr::from(p.iter().map(|&i| q[i as usize]).collect::<Vec<_>>()))])
}

/// `x` under the shape that operator `p` gives it: for operators that only change the shape.
fn reshaped_as(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, x) = (args[0].op(), args[1].id());
    let shape: Vec<usize> = p.attrs.sizes("perm").iter().map(|&i| g.shape(x)[i]).collect();
    Ok(Arg::Value(g.reshape(x, &shape)?))
}

/// `x` itself if it has the shape already.
fn unchanged(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    if args[0].op().attrs.sizes("shape") == g.shape(args[1].id()) { Ok(args[1].clone()) } else { Err(no_match("the shape changes")) }
}

/// An element-wise operator of a concatenation as one of each part, which may then be fused into the kernel that makes the part.
fn on_parts(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let mut parts = Vec::new();
    for &x in args[2].ids() {
        parts.push(g.apply(args[0].op(), &[x])?);
    }
    Ok(Arg::Value(g.apply(args[1].op(), &parts)?))
}

/// As [`transposed`], for a value of which at most one axis is longer than 1: its elements keep their order.
fn transposed_vector(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    if g.shape(args[1].id()).iter().filter(|&&n| n != 1).count() > 1 {
        return Err(no_match("the other operand would have to be transposed"));
    }
    transposed(g, args)
}

/// A reshape of a padded value that only adds or removes unit axes, as padding of the reshaped value.
fn pad_of_reshape(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    const NOT: Mismatch = no_match("the reshape does more than add or remove unit axes");
    let (to, q, x, z) = (args[0].op().attrs.sizes("shape"), args[1].op(), args[2].id(), args[3].id());
    let from = g.shape(x).to_vec();
    let pads = q.attrs.ints("pads");
    let rank = from.len();
    let mut axes = (0..rank).filter(|&i| from[i] as i64 + pads[i] + pads[rank + i] != 1);
    let (mut shape, mut begins, mut ends) = (vec![1; to.len()], vec![0; to.len()], vec![0; to.len()]);
    for (i, &size) in to.iter().enumerate().filter(|(_, n)| **n != 1) {
        let axis = axes.next().ok_or(NOT)?;
        (shape[i], begins[i], ends[i]) = (from[axis], pads[axis], pads[rank + axis]);
        if from[axis] as i64 + pads[axis] + pads[rank + axis] != size as i64 {
            return Err(NOT);
        }
    }
    if axes.next().is_some() || shape.iter().product::<usize>() != from.iter().product() {
        return Err(NOT);
    }
    let x = g.reshape(x, &shape)?;
    Ok(Arg::Value(g.apply(&q.with("pads", [begins, ends].concat()), &[x, z])?))
}

/// A constant combined with a value reshaped by `p`, reshaped to be combined with the value before: if `p` only adds or removes unit axes.
fn reshaped(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (shape, from, c) = (args[0].op().attrs.sizes("shape"), g.shape(args[1].id()).to_vec(), args[2].id());
    let own = g.shape(c).to_vec();
    if own.iter().product::<usize>() == 1 {
        return Ok(Arg::Value(g.reshape(c, &[])?));
    }
    let long = |s: &[usize]| s.iter().copied().filter(|&n| n != 1).collect::<Vec<_>>();
    if own.len() > shape.len() || long(&shape) != long(&from) {
        return Err(no_match("the reshape does more than add or remove unit axes"));
    }
    let missing = shape.len() - own.len();
    let mut sizes = (0..shape.len()).filter(|&i| shape[i] != 1).map(|i| if i < missing { 1 } else { own[i - missing] });
    let new: Vec<usize> = from.iter().map(|&n| if n == 1 { 1 } else { sizes.next().unwrap_or(1) }).collect();
    if new.iter().product::<usize>() != own.iter().product::<usize>() {
        return Err(no_match("the constant is longer than what it is combined with"));
    }
    Ok(Arg::Value(g.reshape(c, &new)?))
}

fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; perm.len()];
    perm.iter().enumerate().for_each(|(i, &p)| inverse[p] = i);
    inverse
}

/// A constant combined with a value transposed by `p`, transposed to be combined with the value before.
fn transposed(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, c) = (args[0].op(), args[1].id());
    let perm = p.attrs.sizes("perm");
    let shape = g.shape(c).to_vec();
    if shape.iter().product::<usize>() == 1 {
        return Ok(Arg::Value(g.reshape(c, &[])?));
    }
    if shape.len() > perm.len() {
        return Err(near_miss("the constant has more axes"));
    }
    let mut full = vec![1; perm.len() - shape.len()];
    full.extend(shape);
    let c = g.reshape(c, &full)?;
    Ok(Arg::Value(g.transpose(c, &inverse(&perm))?))
}

/// Reduction `r` of transpose `p` of x: the reduction first, then a transpose of the axes that are left.
fn reduced(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (r, perm, x) = (args[0].op(), args[1].op().attrs.sizes("perm"), args[2].id());
    let mut axes: Vec<i64> = r.attrs.sizes("axes").iter().map(|&a| perm[a] as i64).collect();
    axes.sort_unstable();
    let inner = g.apply(&r.with("axes", axes.clone()), &[x])?;
    let order: Vec<usize> = if r.attrs.flag("keepdims") {
        perm
    } else {
        let left: Vec<usize> = (0..perm.len()).filter(|&a| !axes.contains(&(a as i64))).collect();
        perm.iter().filter_map(|&p| left.iter().position(|&l| l == p)).collect()
    };
    Ok(Arg::Value(g.transpose(inner, &order)?))
}

/// The operator along the axis that transpose `args[1]` moves to the operator's axis.
fn on_axis(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (s, perm) = (args[0].op(), args[1].op().attrs.ints("perm"));
    Ok(Arg::Op(s.with("axis", perm[s.attrs.size("axis")])))
}

/// A reduction that drops its axes, as one that keeps them: reshapes move outwards, and often meet another.
fn dropped(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (r, x) = (args[0].op(), args[1].id());
    if r.attrs.flag("keepdims") {
        return Err(no_match("the axes are kept"));
    }
    let axes = r.attrs.sizes("axes");
    let kept = g.apply(&r.with("keepdims", true), &[x])?;
    let shape: Vec<usize> = g.shape(x).iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, &n)| n).collect();
    Ok(Arg::Value(g.reshape(kept, &shape)?))
}

/// One number per axis of the result of transpose `perm`, reordered for the axes of its operand.
fn before(values: &[i64], perm: &[usize]) -> Vec<i64> {
    let mut source = vec![0; perm.len()];
    perm.iter().zip(values).for_each(|(&p, &v)| source[p] = v);
    source
}

fn pads_before(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (q, perm) = (args[0].op(), args[1].op().attrs.sizes("perm"));
    let (begins, ends) = q.attrs.ints("pads").split_at(perm.len());
    Ok(Arg::Op(q.with("pads", [before(begins, &perm), before(ends, &perm)].concat())))
}

fn slice_before(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (s, perm) = (args[0].op(), args[1].op().attrs.sizes("perm"));
    let moved = |name: &'static str| (name, Attr::from(before(s.attrs.ints(name), &perm)));
    made(Kind::Slice, [moved("starts"), moved("sizes"), moved("steps")])
}

fn flip_a(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let p = args[0].op();
    Ok(Arg::Op(p.with("trans_a", !p.attrs.flag("trans_a"))))
}

fn flip_b(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let p = args[0].op();
    Ok(Arg::Op(p.with("trans_b", !p.attrs.flag("trans_b"))))
}

fn slice_of_slice(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, q) = (&args[0].op().attrs, &args[1].op().attrs);
    let sizes = p.ints("sizes");
    let each = |f: &dyn Fn(usize) -> i64| (0..sizes.len()).map(f).collect::<Vec<i64>>();
    // The start of an empty slice and the step of one element mean nothing: neither is multiplied.
    let starts = each(&|i| if sizes[i] == 0 { 0 } else { q.ints("starts")[i] + p.ints("starts")[i] * q.ints("steps")[i] });
    let steps = each(&|i| if sizes[i] < 2 { 1 } else { p.ints("steps")[i] * q.ints("steps")[i] });
    made(Kind::Slice, [("starts", Attr::from(starts)), ("sizes", p.get("sizes").clone()), ("steps", Attr::from(steps))])
}

/// A slice inside one part of a concatenation, or of consecutive complete parts.
fn slice_of_concat(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, axis) = (args[0].op(), args[1].op().attrs.size("axis"));
    let (start, size, step) = (p.attrs.ints("starts")[axis], p.attrs.ints("sizes")[axis], p.attrs.ints("steps")[axis]);
    if step != 1 || size == 0 {
        return Err(no_match("the slice is not a range"));
    }
    let mut begin = 0;
    for (i, &x) in args[2].ids().iter().enumerate() {
        let length = g.shape(x)[axis] as i64;
        if start >= begin && start + size <= begin + length {
            let mut starts = p.attrs.ints("starts").to_vec();
            starts[axis] = start - begin;
            return Ok(Arg::Value(g.apply(&p.with("starts", starts), &[x])?));
        }
        if start == begin {
            // Complete parts from here on?
            let mut end = begin;
            let parts: Vec<Id> = args[2].ids()[i..]
                .iter()
                .copied()
                .take_while(|&x| {
                    end += g.shape(x)[axis] as i64;
                    end <= start + size
                })
                .collect();
            let covered: i64 = parts.iter().map(|&x| g.shape(x)[axis] as i64).sum();
            if covered != size {
                return Err(no_match("the slice cuts a part"));
            }
            let joined = g.apply(args[1].op(), &parts)?;
            let mut starts = p.attrs.ints("starts").to_vec();
            starts[axis] = 0;
            return Ok(Arg::Value(g.apply(&p.with("starts", starts), &[joined])?));
        }
        begin += length;
    }
    Err(no_match("the slice crosses parts"))
}

/// The term of a class that is an operator of this kind.
pub fn node(g: &Classes, x: Id, kind: Kind) -> Option<&Term> {
    g[x].nodes.iter().find(|t| t.kind() == Some(kind))
}

/// Adjacent slices of one value joined again.
fn joined_slices(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, xs) = (args[0].op(), args[1].ids());
    let axis = p.attrs.size("axis");
    if let [x] = xs {
        return Ok(Arg::Value(*x));
    }
    let mut parts: Vec<Id> = Vec::new();
    for &x in xs {
        let join = parts.last().copied().and_then(|last| adjacent(g, last, x, axis));
        match join {
            Some((source, op)) => *parts.last_mut().expect("there is a last") = g.apply(&op, &[source])?,
            None => parts.push(x),
        }
    }
    if parts.len() == xs.len() {
        return Err(no_match("no two parts are adjacent in one value"));
    }
    match parts.as_slice() {
        [one] => Ok(Arg::Value(*one)),
        _ => Ok(Arg::Value(g.apply(p, &parts)?)),
    }
}

/// The slice that is slices `a` and `b` together, if they are adjacent along `axis` in one value.
fn adjacent(g: &Classes, a: Id, b: Id, axis: usize) -> Option<(Id, OpRef)> {
    let slices = |x: Id| g[x].nodes.iter().filter(|t| t.kind() == Some(Kind::Slice));
    for left in slices(a) {
        for right in slices(b) {
            let (l, r) = (left.op()?, right.op()?);
            let all = |name| (l.attrs.ints(name), r.attrs.ints(name));
            let ((s, t), (m, n), (u, v)) = (all("starts"), all("sizes"), all("steps"));
            let same_elsewhere = (0..s.len()).all(|i| i == axis || (s[i], m[i]) == (t[i], n[i]));
            if left.children == right.children && same_elsewhere && u == v && u[axis] == 1 && s[axis] + m[axis] == t[axis] {
                let mut sizes = m.to_vec();
                sizes[axis] += n[axis];
                return Some((left.children[0], l.with("sizes", sizes)));
            }
        }
    }
    None
}

/// Parts that are concatenations along the same axis, replaced by their own parts.
fn flattened(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, xs) = (args[0].op(), args[1].ids());
    // A part with other readers is computed anyway.
    let inner = |x: Id| {
        if g[x].data.shared {
            None
        } else {
            g[x].nodes.iter().find(|t| t.op() == Some(p) && t.children.len() > 1 && !t.children.contains(&x))
        }
    };
    if xs.iter().all(|&x| inner(x).is_none()) {
        return Err(no_match("no part is a concatenation"));
    }
    let parts: Vec<Id> = xs.iter().flat_map(|&x| inner(x).map_or(vec![x], |t| t.children.clone())).collect();
    if parts.len() > 256 {
        return Err(no_match("there are too many parts"));
    }
    Ok(Arg::Value(g.apply(p, &parts)?))
}

/// A concatenation of values that are all transposed in the same way.
fn of_transposed(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (c, xs) = (args[0].op(), args[1].ids());
    let first = node(g, xs[0], Kind::Transpose).and_then(Term::op).cloned().ok_or(no_match("a part is not transposed"))?;
    let source = |x: Id| g[x].nodes.iter().find(|t| t.op() == Some(&first)).map(|t| t.children[0]);
    let sources: Option<Vec<Id>> = xs.iter().map(|&x| source(x)).collect();
    let sources = sources.ok_or(no_match("the parts are not all transposed in the same way"))?;
    let inner = g.apply(&c.with("axis", first.attrs.ints("perm")[c.attrs.size("axis")]), &sources)?;
    Ok(Arg::Value(g.apply(&first, &[inner])?))
}

fn padded_twice(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, q) = (args[0].op(), args[1].op());
    let sum: Vec<i64> = p.attrs.ints("pads").iter().zip(q.attrs.ints("pads")).map(|(a, b)| a + b).collect();
    Ok(Arg::Op(p.with("pads", sum)))
}

/// A gather at known, evenly spaced indices is a slice.
fn slice_of_gather(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, x, i) = (args[0].op(), args[1].id(), args[2].id());
    let index = g[i].data.value.clone().filter(|t| t.ty().ty == dnnc_ir::Type::I64).ok_or(no_match("the indices are not known"))?;
    let (axis, shape) = (p.attrs.size("axis"), g.shape(x).to_vec());
    let size = shape[axis] as i64;
    let places: Vec<i64> = index.values::<i64>().iter().map(|&v| if v < 0 { v + size } else { v }).collect();
    if places.is_empty() || places.iter().any(|&v| v < 0 || v >= size) {
        return Err(no_match("an index is out of range"));
    }
    let step = if places.len() > 1 { places[1] - places[0] } else { 1 };
    if step == 0 || places.windows(2).any(|w| w[1] - w[0] != step) {
        return Err(no_match("the indices are not evenly spaced"));
    }
    let mut ranges = full_ranges(&shape);
    ranges[axis] = Range { start: places[0] as usize, size: places.len(), step };
    let slice = g.slice(x, &ranges)?;
    let result = [&shape[..axis], index.shape(), &shape[axis + 1..]].concat();
    Ok(Arg::Value(g.reshape(slice, &result)?))
}
