//! Channel shuffles: reorderings of channels become part of convolution weights, where they cost nothing.

use super::table::{Check, Make, named, rules};
use crate::fact::Classes;
use crate::language::Build;
use crate::mismatch::{Mismatch, near_miss, no_match};
use crate::pattern::Arg;
use crate::term::OpRef;
use dnnc_ir::{Attr, Kind, Op, Tensor, Type};
use egg::Id;

named! { #[doc = "Conditions."] CHECK: Check; in_order, permutation, channels, depthwise, few_groups, narrow_groups }
named! { #[doc = "Helpers."] MAKE: Make; first_axis, shuffled, rows, list_rows, columns, rows_unordered, list_rows_unordered, ungrouped, dense_weights, wider, wider_weights }

rules! {
    #[doc = "Channel shuffles. Groups prevent a shuffle from moving and a layout from being packed; a dense convolution does not, at the price of \
             multiplications by zero."]
    SHUFFLE;
    "channel shuffle as gather"               : (reshape[a] (transpose[p] (reshape[b] x))) => (shuffled a p b x)
    "gather of gather"                        : (gather[p] (gather[p] x i) j)              => (gather[p] x (gather[first_axis()] i j))               if is_vector(i), is_vector(j), constant(i, j)
    "gather in order"                         : (gather[p] x i)                            => x                                                      if in_order(p, x, i)
    "channel gather of element-wise"          : (gather[p] (elementwise[f] x) i)           => (elementwise[f] (gather[p] x i))                       if channels(p, i)
    "channel gather into convolution weights" : (gather[p] (conv[q] x w ..b) i)            => (conv[q] x (rows w i) ..(list_rows b i))               if channels(p, i), dense(q), constant(w, b)
    "channel gather of depthwise convolution" : (gather[p] (conv[q] x w ..b) i)            => (conv[q] (gather[p] x i) (rows w i) ..(list_rows b i)) if channels(p, i), depthwise(q, w), permutation(i), constant(w, b)
    "convolution of channel gather"           : (conv[q] (gather[p] x i) w ..b)            => (conv[q] x (columns w i) ..b)                          if channels(p, i), dense(q), permutation(i), constant(w)
    "depthwise convolution of channel gather" : (conv[q] (gather[p] x i) w ..b)            => (gather[p] (conv[q] x (rows_unordered w i) ..(list_rows_unordered b i)) i) if channels(p, i), depthwise(q, w), permutation(i), constant(w, b)
    "grouped convolution as dense"            : (conv[p] x w ..b)                          => (conv[ungrouped(p)] x (dense_weights p w) ..b)         if few_groups(p, w), constant(w), reassociation()
    "narrow groups as wider groups"           : (conv[p] x w ..b)                          => (conv[wider(p, w)] x (wider_weights p w) ..b)          if narrow_groups(p, w), constant(w), reassociation()
}

/// Every index is its own position.
fn in_order(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let size = g.shape(args[1].id())[args[0].op().attrs.size("axis")];
    let order = order(g, args[2].id())?;
    if order.len() == size && order.is_sorted() { Ok(()) } else { Err(no_match("the order changes")) }
}

fn first_axis(_: &mut Classes, _: &[Arg]) -> Result<Arg, Mismatch> {
    Ok(Arg::Op(OpRef::new(Op::new(Kind::Gather, [("axis", Attr::Int(0))]).map_err(|_| near_miss("an attribute would be wrong"))?)))
}

/// The indices are each of 0…n−1 once.
fn permutation(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    order(g, args[0].id()).map(|_| ())
}

fn order(g: &Classes, i: Id) -> Result<Vec<usize>, Mismatch> {
    const NOT: Mismatch = no_match("the indices are not each channel once");
    let value = g[i].data.value.as_ref().filter(|t| t.ty().ty == Type::I64 && t.ty().rank() == 1).ok_or(NOT)?;
    let places: Vec<usize> = value.values::<i64>().iter().map(|&v| usize::try_from(v).unwrap_or(usize::MAX)).collect();
    let mut sorted = places.clone();
    sorted.sort_unstable();
    if sorted.iter().enumerate().all(|(a, &b)| a == b) { Ok(places) } else { Err(NOT) }
}

/// A gather of channels at constant indices.
fn channels(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let known = g[args[1].id()].data.value.as_ref().is_some_and(|t| t.ty().rank() == 1);
    if args[0].op().attrs.int("axis") == 1 && known { Ok(()) } else { Err(no_match("it is no gather of channels at constant indices")) }
}

fn depthwise(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let (attrs, w) = (&args[0].op().attrs, g.shape(args[1].id()));
    if w[1] == 1 && w[0] == attrs.size("groups") && attrs.int("block") == 0 {
        Ok(())
    } else {
        Err(no_match("the convolution is not depthwise"))
    }
}

/// A few groups of several channels: more would multiply the work too often.
fn few_groups(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let (attrs, w) = (&args[0].op().attrs, g.shape(args[1].id()));
    let few = (2..=8).contains(&attrs.int("groups")) && w[1] > 1 && attrs.int("block") == 0;
    if few { Ok(()) } else { Err(no_match("there are not a few groups of several channels")) }
}

/// Reshape, transpose and reshape back that only reorder channels, as a gather.
fn shuffled(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    const NOT: Mismatch = no_match("more than channels is reordered");
    let (a, perm, split) = (args[0].op().attrs.sizes("shape"), args[1].op().attrs.sizes("perm"), args[2].op().attrs.sizes("shape"));
    let x = args[3].id();
    let shape = g.shape(x).to_vec();
    let kept = shape.len().checked_sub(2).filter(|_| a == shape && shape.len() >= 3).ok_or(NOT)?;
    let parts = split.len().checked_sub(kept + 1).filter(|&n| n >= 2).ok_or(NOT)?;
    let fixed = |i: usize| i == 0 || i > parts;
    if split[0] != shape[0] || split[1 + parts..] != shape[2..] || perm.iter().enumerate().any(|(i, &p)| (fixed(i) || fixed(p)) && i != p) {
        return Err(NOT);
    }
    let sizes = &split[1..=parts];
    let mut strides = vec![1; parts];
    (0..parts - 1).rev().for_each(|i| strides[i] = strides[i + 1] * sizes[i + 1]);
    let mut places = vec![0i64];
    for &p in &perm[1..=parts] {
        places =
            places.iter().flat_map(|&at| (0..sizes[p - 1]).map(move |k| (at, k))).map(|(at, k)| at + (k * strides[p - 1]) as i64).collect();
    }
    let index = g.tensor(Tensor::new([places.len()], &places));
    Ok(Arg::Value(g.gather(x, index, 1)?))
}

/// The inverse of the order of `i`.
fn back(g: &mut Classes, i: Id) -> Result<Id, Mismatch> {
    let order = order(g, i)?;
    let mut inverse = vec![0i64; order.len()];
    order.iter().enumerate().for_each(|(a, &b)| inverse[b] = a as i64);
    Ok(g.tensor(Tensor::new([inverse.len()], &inverse)))
}

fn rows(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    Ok(Arg::Value(g.gather(args[0].id(), args[1].id(), 0)?))
}

fn list_rows(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let picked: Result<Vec<Id>, Mismatch> = args[0].ids().iter().map(|&b| g.gather(b, args[1].id(), 0)).collect();
    Ok(Arg::Values(picked?))
}

/// Weights for inputs in the order before gather `i`.
fn columns(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let inverse = back(g, args[1].id())?;
    Ok(Arg::Value(g.gather(args[0].id(), inverse, 1)?))
}

fn rows_unordered(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let inverse = back(g, args[1].id())?;
    Ok(Arg::Value(g.gather(args[0].id(), inverse, 0)?))
}

fn list_rows_unordered(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let inverse = back(g, args[1].id())?;
    list_rows(g, &[args[0].clone(), Arg::Value(inverse)])
}

fn ungrouped(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    Ok(Arg::Op(args[0].op().with("groups", 1i64)))
}

/// Weights [O, C/groups, …] as [O, C, …], 0 where a channel belongs to another group.
fn dense_weights(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let groups = args[0].op().attrs.size("groups");
    joined(g, args[1].id(), groups, groups)
}

/// How many adjacent groups together have a multiple of the block of channels: the fewest, and no more than a packed kernel is faster than a plain one.
fn neighbours(g: &Classes, p: &Arg, w: &Arg) -> Option<usize> {
    const MOST: usize = 4;
    let (attrs, shape, block) = (&p.op().attrs, g.shape(w.id()), g.analysis.block);
    let groups = attrs.size("groups");
    let outputs = shape[0] / groups.max(1);
    let whole = |n: usize| groups.is_multiple_of(n) && (n * shape[1]).is_multiple_of(block) && (n * outputs).is_multiple_of(block);
    let open = attrs.int("block") == 0 && groups > 1 && shape[1] > 1 && !shape.contains(&0);
    (2..=MOST).find(|&n| whole(n)).filter(|_| open && !whole(1))
}

/// Groups whose channels are no multiple of the block, while those of a few adjacent groups together are.
fn narrow_groups(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let found = neighbours(g, &args[0], &args[1]).map(|_| ());
    found.ok_or(no_match("the groups are multiples of the block already, or too many would have to be joined"))
}

fn wider(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let n = neighbours(g, &args[0], &args[1]).ok_or(no_match("the groups do not fit"))?;
    let groups = args[0].op().attrs.size("groups") / n;
    Ok(Arg::Op(args[0].op().with("groups", groups as i64)))
}

fn wider_weights(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let n = neighbours(g, &args[0], &args[1]).ok_or(no_match("the groups do not fit"))?;
    joined(g, args[1].id(), args[0].op().attrs.size("groups"), n)
}

/// Weights [O, C/groups, …] for `n` adjacent groups at a time: [O, n·C/groups, …], 0 where a channel belongs to another group.
fn joined(g: &mut Classes, w: Id, groups: usize, n: usize) -> Result<Arg, Mismatch> {
    let shape = g.shape(w).to_vec();
    let apart = [groups / n, n, shape[0] / groups, shape[1], shape[2..].iter().product()];
    let apart_w = g.reshape(w, &apart)?;
    let mut parts = Vec::with_capacity(n);
    for k in 0..n {
        let part = g.slice_axis(apart_w, 1, k, 1)?;
        let [before, after] = [k, n - 1 - k].map(|groups| (groups * shape[1]) as i64);
        parts.push(g.pad(part, 0.0, vec![0, 0, 0, before, 0, 0, 0, 0, after, 0])?);
    }
    let all = g.concat(1, &parts)?;
    let wide = [&[shape[0], n * shape[1]], &shape[2..]].concat();
    Ok(Arg::Value(g.reshape(all, &wide)?))
}
