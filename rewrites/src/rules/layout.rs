//! Packed layouts: [N, C, H, W] as [N, C/b, H, W, b], b lanes of a vector register, for convolutions and what stands between them.
//!
//! Lanes past C in the last block are dead: whatever is finite may stand there, since convolutions never read them (their weights are 0
//! there) and unpacking drops them. So every rule here must keep them finite, and no other rule makes packed values.

use super::moving::node;
use super::table::{Check, Make, named, rules};
use crate::fact::Classes;
use crate::language::Build;
use crate::mismatch::{Mismatch, near_miss, no_match};
use crate::pattern::Arg;
use crate::term::OpRef;
use dnnc_ir::{Attr, Kind, Op};
use egg::Id;

named! { #[doc = "Conditions."] CHECK: Check; images, planar, inverse, whole_groups, spatial_axes, keepdims, spatial_axis, list, lines, column, few }
named! {
    #[doc = "Helpers."]
    MAKE: Make;
    packed, unpacked, blocked, on_blocks, concat_blocks, slice_blocks, pad_blocks, kept_axes, flat, flat_pack, replaced, row, row_of, lines_of, sum_of_few, turned, lying, upright
}

rules! {
    #[doc = "Packed layouts: unpacking moves outwards until it meets packing."]
    LAYOUT;
    "packed convolution"      : (conv[p] x w ..b)                   => (unpacked p w (conv[blocked(p)] (packed x) w ..b))   if planar(p), images(x), f32(x, w), whole_groups(p, w)
    "packed maximum"          : (max_pool[p] x)                     => (unpacked p x (max_pool[blocked(p)] (packed x)))     if planar(p), images(x), f32(x)
    "packed average"          : (avg_pool[p] x)                     => (unpacked p x (avg_pool[blocked(p)] (packed x)))     if planar(p), images(x), f32(x)
    "pack of unpack"          : (pack[p] (unpack[u] x))             => x                                                    if inverse(p, u, x)
    "element-wise on blocks"  : (map[f] ..xs)                       => (on_blocks f xs)
    "sum over places"         : (reduce_sum[r] (unpack[u] x))       => (unpack[u] (reduce_sum[r] x))                        if spatial_axes(r, u), keepdims(r)
    "mean over places"        : (reduce_mean[r] (unpack[u] x))      => (unpack[u] (reduce_mean[r] x))                       if spatial_axes(r, u), keepdims(r)
    "maximum over places"     : (reduce_max[r] (unpack[u] x))       => (unpack[u] (reduce_max[r] x))                        if spatial_axes(r, u), keepdims(r)
    "mean, then drop axes"    : (reduce_mean[r] (unpack[u] x))      => (kept_axes r u x)                                    if spatial_axes(r, u)
    "maximum, then drop axes" : (reduce_max[r] (unpack[u] x))       => (kept_axes r u x)                                    if spatial_axes(r, u)
    "norm over places"        : (norm[r] (unpack[u] x))             => (unpack[u] (norm[r] x))                              if spatial_axes(r, u)
    "resample places"         : (resample[r] (unpack[u] x) i w)     => (unpack[u] (resample[r] x i w))                      if spatial_axis(r, u)
    "gather places"           : (gather[r] (unpack[u] x) i)         => (unpack[u] (gather[r] x i))                          if spatial_axis(r, u), list(i)
    "concat of blocks"        : (concat[c] ..xs)                    => (concat_blocks c xs)
    "slice of blocks"         : (slice[s] (unpack[u] x))            => (slice_blocks s u x)
    "pad of blocks"           : (pad[q] (unpack[u] x) z)            => (pad_blocks q u x z)
    "places in another order" : (reshape[a] (transpose[t] (reshape[b] (unpack[u] x)))) => (replaced a t b u x)
    "unpack of single places" : (unpack[u] x)                       => (flat u x)
    "pack of single places"   : (pack[p] x)                         => (flat_pack p x)
}

rules! {
    #[doc = "One spatial axis as the second of two: so that lines, too, are packed."]
    LINES;
    "mean of a few as sum"    : (avg_pool[p] x)                     => (sum_of_few p x)                                     if few(p), loose()
    "column of convolution"   : (conv[p] x w ..b)                   => (upright p (conv[turned(p)] (lying x) (lying w) ..b)) if column(p, x, w)
    "column of maximum"       : (max_pool[p] x)                     => (upright p (max_pool[turned(p)] (lying x)))          if column(p, x)
    "column of average"       : (avg_pool[p] x)                     => (upright p (avg_pool[turned(p)] (lying x)))          if column(p, x)
    "convolution of lines"    : (conv[p] x w ..b)                   => (lines_of p (conv[row(p)] (row_of x) (row_of w) ..b)) if lines(p, x)
    "maximum of lines"        : (max_pool[p] x)                     => (lines_of p (max_pool[row(p)] (row_of x)))    if lines(p, x)
    "average of lines"        : (avg_pool[p] x)                     => (lines_of p (avg_pool[row(p)] (row_of x)))    if lines(p, x)
}

fn images(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args.iter().all(|a| g.shape(a.id()).len() == 4) { Ok(()) } else { Err(no_match("the input is not [N, C, H, W]")) }
}

fn planar(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let attrs = &args[0].op().attrs;
    if attrs.int("block") == 0 && attrs.ints("strides").len() == 2 {
        Ok(())
    } else {
        Err(no_match("the operator is packed, or not of two spatial axes"))
    }
}

/// Blocks of channels lie within one group: there is one, or each has one channel, or whole blocks.
fn whole_groups(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let (groups, w, b) = (args[0].op().attrs.size("groups"), g.shape(args[1].id()), g.analysis.block);
    let depthwise = w[1] == 1 && w[0] == groups;
    let whole = w[1].is_multiple_of(b) && (w[0] / groups).is_multiple_of(b);
    if groups == 1 || depthwise || whole { Ok(()) } else { Err(near_miss("a block of channels would lie in two groups")) }
}

fn inverse(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let (p, u) = (&args[0].op().attrs, &args[1].op().attrs);
    if p.int("axis") == u.int("axis") && p.int("block") == u.int("block") { Ok(()) } else { Err(no_match("the blocks differ")) }
}

/// Whether `u` unpacks the channels of images.
fn of_channels(u: &OpRef) -> Result<(), Mismatch> {
    if u.attrs.int("axis") == 1 { Ok(()) } else { Err(no_match("other axes than channels are packed")) }
}

fn spatial_axes(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    of_channels(args[1].op())?;
    if args[0].op().attrs.ints("axes").iter().all(|&a| a == 2 || a == 3) {
        Ok(())
    } else {
        Err(no_match("channels or images are reduced too"))
    }
}

fn spatial_axis(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    of_channels(args[1].op())?;
    if (2..4).contains(&args[0].op().attrs.int("axis")) { Ok(()) } else { Err(no_match("the axis is not spatial")) }
}

fn list(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if g.shape(args[0].id()).len() == 1 { Ok(()) } else { Err(no_match("the indices are no list")) }
}

fn keepdims(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args[0].op().attrs.flag("keepdims") { Ok(()) } else { Err(no_match("the reduction drops its axes")) }
}

fn lines(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let attrs = &args[0].op().attrs;
    let one = attrs.int("block") == 0 && g.shape(args[1].id()).len() == 3;
    if one { Ok(()) } else { Err(no_match("the input is not [N, C, L]")) }
}

fn pack_op(block: usize) -> OpRef {
    OpRef::new(Op::new(Kind::Pack, [("axis", Attr::Int(1)), ("block", Attr::Int(block as i64))]).expect("the row of `pack`"))
}

fn unpack_op(block: usize, size: usize) -> OpRef {
    let attrs = [("axis", Attr::Int(1)), ("block", Attr::Int(block as i64)), ("size", Attr::Int(size as i64))];
    OpRef::new(Op::new(Kind::Unpack, attrs).expect("the row of `unpack`"))
}

fn packed(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let block = g.analysis.block;
    Ok(Arg::Value(to_blocks(g, args[0].id(), block)?))
}

/// The packed form of an image: what was unpacked to it, or a packing.
fn to_blocks(g: &mut Classes, x: Id, block: usize) -> Result<Id, Mismatch> {
    match from_blocks(g, x) {
        Some((u, inner)) if u.attrs.size("block") == block => Ok(inner),
        _ => g.apply(&pack_op(block), &[x]),
    }
}

/// How and from what an image was unpacked.
fn from_blocks(g: &Classes, x: Id) -> Option<(OpRef, Id)> {
    let term = node(g, x, Kind::Unpack)?;
    let op = term.op()?.clone();
    (op.attrs.int("axis") == 1 && g.shape(term.children[0]).len() == 5).then_some((op, term.children[0]))
}

/// The unpacked result of a packed operator; `args[1]` are the weights of a convolution, else the input.
fn unpacked(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let shape = g.shape(args[1].id());
    let channels = if args[0].op().kind() == Kind::Conv { shape[0] } else { shape[1] };
    let op = unpack_op(g.analysis.block, channels);
    Ok(Arg::Value(g.apply(&op, &[args[2].id()])?))
}

fn blocked(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    Ok(Arg::Op(args[0].op().with("block", g.analysis.block as i64)))
}

/// Operators whose results are finite where their operands are.
fn keeps_finite(kind: Kind) -> bool {
    use Kind::*;
    matches!(
        kind,
        Neg | Abs
            | Sign
            | Floor
            | Ceil
            | Round
            | Trunc
            | Sin
            | Cos
            | Atan
            | Tanh
            | Erf
            | Sigmoid
            | Softplus
            | Relu
            | Gelu
            | GeluTanh
            | Silu
            | HardSwish
            | Not
            | Clamp
            | Add
            | Sub
            | Mul
            | Min
            | Max
            | And
            | Or
            | Xor
            | Eq
            | Lt
            | Le
            | Select
    )
}

/// An element-wise operator computed on blocks: when an operand is unpacked already, the others are packed.
fn on_blocks(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (f, xs) = (args[0].op(), args[1].ids().to_vec());
    let (u, _) = xs.iter().find_map(|&x| from_blocks(g, x)).ok_or(no_match("no operand is unpacked"))?;
    let (block, channels) = (u.attrs.size("block"), u.attrs.size("size"));
    if !channels.is_multiple_of(block) && !keeps_finite(f.kind()) {
        return Err(near_miss("dead lanes might become infinite"));
    }
    let mut operands = Vec::with_capacity(xs.len());
    for x in xs {
        let shape = g.shape(x).to_vec();
        if shape.len() > 4 {
            return Err(near_miss("an operand has more axes than an image"));
        }
        if shape.iter().product::<usize>() == 1 {
            operands.push(g.reshape(x, &[])?);
            continue;
        }
        let mut image = vec![1; 4 - shape.len()];
        image.extend(shape);
        operands.push(if image[1] == channels {
            let x = g.reshape(x, &image)?;
            to_blocks(g, x, block)?
        } else if image[1] == 1 {
            image.push(1);
            g.reshape(x, &image)?
        } else {
            return Err(near_miss("the operands broadcast along channels"));
        });
    }
    let result = g.apply(f, &operands)?;
    Ok(Arg::Value(g.apply(&u, &[result])?))
}

/// A reduction over places that drops its axes: reduced on blocks, unpacked, then the axes dropped.
fn kept_axes(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (r, u, x) = (args[0].op(), args[1].op(), args[2].id());
    if r.attrs.flag("keepdims") {
        return Err(no_match("the reduction keeps its axes"));
    }
    let reduced = g.apply(&r.with("keepdims", true), &[x])?;
    let image = g.apply(u, &[reduced])?;
    let axes = r.attrs.sizes("axes");
    let shape: Vec<usize> = g.shape(image).iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, &s)| s).collect();
    Ok(Arg::Value(g.reshape(image, &shape)?))
}

fn concat_blocks(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (c, xs) = (args[0].op(), args[1].ids().to_vec());
    let (u, _) = xs.iter().find_map(|&x| from_blocks(g, x)).ok_or(no_match("no part is unpacked"))?;
    let block = u.attrs.size("block");
    let channels = |g: &Classes, x: Id| g.shape(x)[1];
    let along = c.attrs.int("axis") == 1;
    let (last, others) = xs.split_last().ok_or(near_miss("there are no parts"))?;
    if along && others.iter().any(|&x| !channels(g, x).is_multiple_of(block)) {
        return Err(near_miss("a part ends inside a block"));
    }
    let size = if along { xs.iter().map(|&x| channels(g, x)).sum() } else { channels(g, *last) };
    let mut parts = Vec::with_capacity(xs.len());
    for x in xs {
        parts.push(to_blocks(g, x, block)?);
    }
    let whole = g.apply(c, &parts)?;
    Ok(Arg::Value(g.apply(&unpack_op(block, size), &[whole])?))
}

fn slice_blocks(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (s, u, x) = (&args[0].op().attrs, args[1].op(), args[2].id());
    of_channels(u)?;
    let block = u.attrs.int("block");
    let with = |name: &'static str, channels: i64, lanes: i64| {
        let mut v = s.ints(name).to_vec();
        v[1] = channels;
        v.push(lanes);
        (name, Attr::from(v))
    };
    let (start, size, step) = (s.ints("starts")[1], s.ints("sizes")[1], s.ints("steps")[1]);
    if start % block != 0 || size == 0 || step != 1 && size > 1 {
        return Err(near_miss("the slice does not begin with a block"));
    }
    let blocks = (size + block - 1) / block;
    let attrs = [with("starts", start / block, 0), with("sizes", blocks, block), with("steps", 1, 1)];
    let slice = g.op(Kind::Slice, attrs, &[x])?;
    Ok(Arg::Value(g.apply(&unpack_op(block as usize, size as usize), &[slice])?))
}

fn pad_blocks(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (q, u, x, z) = (args[0].op(), args[1].op(), args[2].id(), args[3].id());
    of_channels(u)?;
    let (pads, block, size) = (q.attrs.ints("pads"), u.attrs.int("block"), u.attrs.int("size"));
    let constant = q.attrs.word("mode") == "constant";
    let (front, back) = pads.split_at(pads.len() / 2);
    let padded = size + front[1] + back[1];
    // Channels are padded by whole blocks, the last one perhaps in part; then no dead lane comes alive.
    if padded != size && (!constant || front[1] % block != 0 || size % block != 0) {
        return Err(near_miss("channels are padded by a part of a block"));
    }
    if padded % block != 0 && constant && !g.splat(z).is_some_and(f64::is_finite) {
        return Err(near_miss("dead lanes might become infinite"));
    }
    let of_blocks = |pads: &[i64], channels: i64| [&[pads[0], channels], &pads[2..], &[0]].concat();
    let wide = [of_blocks(front, front[1] / block), of_blocks(back, (back[1] + block - 1) / block)].concat();
    let inner = g.apply(&q.with("pads", wide), &[x, z])?;
    Ok(Arg::Value(g.apply(&unpack_op(block as usize, padded as usize), &[inner])?))
}

/// Images whose pixels, or whole blocks of channels, are put elsewhere by way of more axes: the same with blocks.
fn replaced(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    const NOT: Mismatch = no_match("no images are reordered by way of more axes");
    let (to, perm, split) = (args[0].op().attrs.sizes("shape"), args[1].op().attrs.sizes("perm"), args[2].op().attrs.sizes("shape"));
    let (u, x) = (args[3].op(), args[4].id());
    of_channels(u)?;
    let (block, channels) = (u.attrs.size("block"), u.attrs.size("size"));
    let shape = g.shape(x).to_vec();
    if shape.len() != 5 || to.len() != 4 || shape.contains(&0) {
        return Err(NOT);
    }
    // The axes that channels are split into, of which the last has whole blocks unless it is all of them.
    let product = |v: &[usize]| v.iter().product::<usize>();
    let first = (0..split.len()).rev().find(|&i| product(&split[..i]) == shape[0]).ok_or(NOT)?;
    let last = (first..split.len()).find(|&i| product(&split[first..=i]) == channels).ok_or(NOT)?;
    let whole = split[last] == channels || split[last].is_multiple_of(block);
    // Where the last of them ends up: at the end of the new channels.
    let ordered: Vec<usize> = perm.iter().map(|&i| split[i]).collect();
    let place = perm.iter().position(|&i| i == last).ok_or(NOT)?;
    let ends = product(&ordered[..=place]) == to[0] * to[1];
    if !whole || !ends || !to[1].is_multiple_of(split[last]) || split[last] != to[1] && !split[last].is_multiple_of(block) {
        return Err(near_miss("a block of channels would be torn"));
    }
    let in_blocks = |axes: &[usize], at: usize| -> Vec<usize> {
        axes.iter().enumerate().map(|(i, &n)| if i == at { n.div_ceil(block) } else { n }).chain([block]).collect()
    };
    let y = g.reshape(x, &in_blocks(&split, last))?;
    let perm: Vec<usize> = perm.iter().copied().chain([perm.len()]).collect();
    let y = g.transpose(y, &perm)?;
    let y = g.reshape(y, &[to[0], to[1].div_ceil(block), to[2], to[3], block])?;
    Ok(Arg::Value(g.apply(&unpack_op(block, to[1]), &[y])?))
}

/// One place and whole blocks: the bytes are the same.
fn flat(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (u, x) = (args[0].op(), args[1].id());
    let shape = g.shape(x).to_vec();
    let (size, block) = (u.attrs.size("size"), u.attrs.size("block"));
    if of_channels(u).is_err() || shape.len() != 5 || shape[2] * shape[3] != 1 || !size.is_multiple_of(block) {
        return Err(no_match("there is more than one place, or a part of a block"));
    }
    Ok(Arg::Value(g.reshape(x, &[shape[0], size, 1, 1])?))
}

fn flat_pack(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, x) = (args[0].op(), args[1].id());
    let (shape, block) = (g.shape(x).to_vec(), p.attrs.size("block"));
    if p.attrs.int("axis") != 1 || shape.len() != 4 || shape[2] * shape[3] != 1 || !shape[1].is_multiple_of(block) {
        return Err(no_match("there is more than one place, or a part of a block"));
    }
    Ok(Arg::Value(g.reshape(x, &[shape[0], shape[1] / block, 1, 1, block])?))
}

/// The same operator on rows of images: an axis of size 1 before the one there is.
fn row(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let op = args[0].op();
    let before = |name: &str, first: i64| vec![first, op.attrs.ints(name)[0]];
    let pads = op.attrs.ints("pads");
    let mut made =
        op.with("strides", before("strides", 1)).with("dilations", before("dilations", 1)).with("pads", vec![0, pads[0], 0, pads[1]]);
    if op.kind() != Kind::Conv {
        made = made.with("kernel", before("kernel", 1));
    }
    if op.kind() == Kind::AvgPool {
        made = made.with("extra", before("extra", 0));
    }
    Ok(Arg::Op(made))
}

/// [A, B, L] as [A, B, 1, L].
fn row_of(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let x = args[0].id();
    let shape = g.shape(x).to_vec();
    Ok(Arg::Value(g.reshape(x, &[shape[0], shape[1], 1, shape[2]])?))
}

/// [A, B, 1, L] as [A, B, L].
fn lines_of(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let y = args[1].id();
    let shape = g.shape(y).to_vec();
    Ok(Arg::Value(g.reshape(y, &[shape[0], shape[1], shape[3]])?))
}

/// A mean of a few neighbours along one axis, in steps of one.
fn few(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let attrs = &args[0].op().attrs;
    let bare = attrs.ints("pads").iter().all(|&p| p == 0);
    let long: Vec<i64> = attrs.ints("kernel").iter().copied().filter(|&k| k != 1).collect();
    let one = |name| attrs.ints(name).iter().all(|&v| v == 1);
    let counted = (bare || attrs.flag("include_pad")) && attrs.ints("extra").iter().all(|&e| e == 0);
    let fits = matches!(long.as_slice(), [2..=9]) && one("strides") && counted && attrs.int("block") == 0;
    if fits { Ok(()) } else { Err(no_match("the window is not a few neighbours along one axis")) }
}

/// A mean of neighbours as the sum of shifted slices, which is one element-wise kernel.
fn sum_of_few(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, x) = (&args[0].op().attrs, args[1].id());
    let pads = p.ints("pads");
    let axes = pads.len() / 2;
    let x = g.pad(x, 0.0, [&[0, 0], &pads[..axes], &[0, 0], &pads[axes..]].concat())?;
    let along = p.ints("kernel").iter().position(|&k| k != 1).ok_or(no_match("the window is one element"))?;
    let (k, d) = (p.sizes("kernel")[along], p.sizes("dilations")[along]);
    let size = g.shape(x)[2 + along] - (k - 1) * d;
    let mut sum = None;
    for t in 0..k {
        let slice = g.slice_axis(x, 2 + along, t * d, size)?;
        sum = Some(match sum {
            Some(sum) => g.sum(sum, slice)?,
            None => slice,
        });
    }
    let factor = g.number(g.elem(x), 1.0 / k as f64)?;
    let sum = sum.ok_or(no_match("the window is empty"))?;
    Ok(Arg::Value(g.mul(sum, factor)?))
}

/// Images of one column, and kernels too: rows are walked faster.
fn column(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let attrs = &args[0].op().attrs;
    let narrow = args[1..].iter().all(|a| matches!(g.shape(a.id()), [_, _, h, 1] if *h > 1 || args.len() == 3));
    let (pads, kernel) = (attrs.ints("pads"), if args.len() == 2 { attrs.ints("kernel")[attrs.ints("kernel").len() - 1] } else { 1 });
    let still = pads.len() == 4 && pads[1] == 0 && pads[3] == 0 && kernel == 1 && attrs.int("block") == 0;
    if narrow && still && g.shape(args[1].id())[2] > 1 { Ok(()) } else { Err(no_match("the images are no single columns")) }
}

/// The operator for rows and columns exchanged.
fn turned(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let op = args[0].op();
    let swapped = |name: &str| op.attrs.ints(name).iter().rev().copied().collect::<Vec<_>>();
    let pads = op.attrs.ints("pads");
    let mut made = op
        .with("strides", swapped("strides"))
        .with("dilations", swapped("dilations"))
        .with("pads", vec![pads[1], pads[0], pads[3], pads[2]]);
    if op.kind() != Kind::Conv {
        made = made.with("kernel", swapped("kernel"));
    }
    if op.kind() == Kind::AvgPool {
        made = made.with("extra", swapped("extra"));
    }
    Ok(Arg::Op(made))
}

/// [A, B, H, 1] as [A, B, 1, H].
fn lying(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let x = args[0].id();
    let shape = g.shape(x).to_vec();
    Ok(Arg::Value(g.reshape(x, &[shape[0], shape[1], shape[3], shape[2]])?))
}

/// [A, B, 1, H] as [A, B, H, 1].
fn upright(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let y = args[1].id();
    let shape = g.shape(y).to_vec();
    if shape[2] != 1 {
        return Err(no_match("the images are no single columns"));
    }
    Ok(Arg::Value(g.reshape(y, &[shape[0], shape[1], shape[3], 1])?))
}
