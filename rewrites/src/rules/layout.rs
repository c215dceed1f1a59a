//! NCHWc (blocked) layouts: [N, C, H, W] as [N, C/b, H, W, b], with b lanes of a vector register, for convolutions and the operators between them.
//!
//! Lanes past C in the last block are padding lanes, which may hold any finite number: convolutions multiply them by weights of 0 and unpacking
//! drops them. So every rule here keeps them finite, and no other rule makes packed values.

use super::movement::node;
use super::table::{Check, Make, named, rules};
use crate::fact::{Classes, Integers};
use crate::language::Build;
use crate::mismatch::{Mismatch, near_miss, no_match};
use crate::pattern::Arg;
use crate::term::OpRef;
use dnnc_ir::{Attr, Kind, Op, Type};
use egg::Id;

named! { #[doc = "Conditions."] CHECK: Check; images, in_vectors, two_spatial_axes, inverse, block_aligned_groups, spatial_axes, spatial_axis, one_spatial_axis, single_column, small_window }
named! {
    #[doc = "Helpers."]
    MAKE: Make;
    packed, unpacked, blocked, elementwise_blocks, concat_blocks, slice_blocks, pad_blocks, reduce_blocks, unpack_as_reshape, pack_as_reshape, reorder_pixels, as_row, to_2d, to_1d, sum_of_slices, hw_swapped, swap_hw, unswap_hw
}

rules! {
    #[doc = "NCHWc layouts: unpacking moves outwards until it meets packing."]
    LAYOUT;
    "convolution in NCHWc"                       : (conv[p] x w ..b)                                      => (unpacked p w (conv[blocked(p)] (packed x) w ..b)) if two_spatial_axes(p), images(x), in_vectors(p, x, w), block_aligned_groups(p, w)
    "max pool in NCHWc"                          : (max_pool[p] x)                                        => (unpacked p x (max_pool[blocked(p)] (packed x)))   if two_spatial_axes(p), images(x), f32(x)
    "average pool in NCHWc"                      : (avg_pool[p] x)                                        => (unpacked p x (avg_pool[blocked(p)] (packed x)))   if two_spatial_axes(p), images(x), f32(x)
    "pack of unpack"                             : (pack[p] (unpack[u] x))                                => x                                                  if inverse(p, u, x)
    "element-wise in NCHWc"                      : (elementwise[f] ..xs)                                  => (elementwise_blocks f xs)
    "spatial sum in NCHWc"                       : (reduce_sum[r] (unpack[u] x))                          => (unpack[u] (reduce_sum[r] x))                      if spatial_axes(r, u), keeps_axes(r)
    "global average pool in NCHWc"               : (reduce_mean[r] (unpack[u] x))                         => (unpack[u] (reduce_mean[r] x))                     if spatial_axes(r, u), keeps_axes(r)
    "spatial maximum in NCHWc"                   : (reduce_max[r] (unpack[u] x))                          => (unpack[u] (reduce_max[r] x))                      if spatial_axes(r, u), keeps_axes(r)
    "global average pool in NCHWc, axes dropped" : (reduce_mean[r] (unpack[u] x))                         => (reduce_blocks r u x)                              if spatial_axes(r, u)
    "spatial maximum in NCHWc, axes dropped"     : (reduce_max[r] (unpack[u] x))                          => (reduce_blocks r u x)                              if spatial_axes(r, u)
    "spatial norm in NCHWc"                      : (norm[r] (unpack[u] x))                                => (unpack[u] (norm[r] x))                            if spatial_axes(r, u)
    "spatial resample in NCHWc"                  : (resample[r] (unpack[u] x) i w)                        => (unpack[u] (resample[r] x i w))                    if spatial_axis(r, u)
    "spatial gather in NCHWc"                    : (gather[r] (unpack[u] x) i)                            => (unpack[u] (gather[r] x i))                        if spatial_axis(r, u), is_vector(i)
    "concat in NCHWc"                            : (concat[c] ..xs)                                       => (concat_blocks c xs)
    "slice in NCHWc"                             : (slice[s] (unpack[u] x))                               => (slice_blocks s u x)
    "pad in NCHWc"                               : (pad[q] (unpack[u] x) z)                               => (pad_blocks q u x z)
    "pixel reordering in NCHWc"                  : (reshape[a] (transpose[t] (reshape[b] (unpack[u] x)))) => (reorder_pixels a t b u x)
    "unpack of 1×1 maps"                         : (unpack[u] x)                                          => (unpack_as_reshape u x)
    "pack of 1×1 maps"                           : (pack[p] x)                                            => (pack_as_reshape p x)
}

rules! {
    #[doc = "One spatial axis as the second of two, so that 1-D operators are packed, too."]
    LINES;
    "small average pool as sum of slices" : (avg_pool[p] x)   => (sum_of_slices p x)                                 if small_window(p), reassociation()
    "H×1 convolution as 1×H"              : (conv[p] x w ..b) => (unswap_hw p (conv[hw_swapped(p)] (swap_hw x) (swap_hw w) ..b)) if single_column(p, x, w)
    "H×1 max pool as 1×H"                 : (max_pool[p] x)   => (unswap_hw p (max_pool[hw_swapped(p)] (swap_hw x))) if single_column(p, x)
    "H×1 average pool as 1×H"             : (avg_pool[p] x)   => (unswap_hw p (avg_pool[hw_swapped(p)] (swap_hw x))) if single_column(p, x)
    "1-D convolution as 2-D"              : (conv[p] x w ..b) => (to_1d p (conv[as_row(p)] (to_2d x) (to_2d w) ..b)) if one_spatial_axis(p, x)
    "1-D max pool as 2-D"                 : (max_pool[p] x)   => (to_1d p (max_pool[as_row(p)] (to_2d x)))           if one_spatial_axis(p, x)
    "1-D average pool as 2-D"             : (avg_pool[p] x)   => (to_1d p (avg_pool[as_row(p)] (to_2d x)))           if one_spatial_axis(p, x)
}

fn images(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args.iter().all(|a| g.shape(a.id()).len() == 4) { Ok(()) } else { Err(no_match("the input is not [N, C, H, W]")) }
}

/// Operands that kernels of packed images multiply: f32, or integers of the machine's own products.
fn in_vectors(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let (x, w) = (g.elem(args[1].id()), g.elem(args[2].id()));
    let depthwise = g.shape(args[2].id())[1] == 1 && args[0].op().attrs.int("groups") > 1;
    let integers = match g.analysis.integers {
        Integers::Bytes(ty) => x == ty && w == Type::I8,
        Integers::Words => x == Type::I16 && w == Type::I16,
        Integers::None => false,
    };
    let fits = (x, w) == (Type::F32, Type::F32) || integers && !depthwise;
    if fits { Ok(()) } else { Err(no_match("the elements are not multiplied in vectors")) }
}

fn two_spatial_axes(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let attrs = &args[0].op().attrs;
    if attrs.int("block") == 0 && attrs.ints("strides").len() == 2 {
        Ok(())
    } else {
        Err(no_match("the operator is packed, or not of two spatial axes"))
    }
}

/// No block of channels spans two groups: there is one group, or each has one channel, or a multiple of the block.
fn block_aligned_groups(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let (groups, w, b) = (args[0].op().attrs.size("groups"), g.shape(args[1].id()), g.analysis.block);
    let depthwise = w[1] == 1 && w[0] == groups;
    let aligned = w[1].is_multiple_of(b) && (w[0] / groups).is_multiple_of(b);
    if groups == 1 || depthwise || aligned { Ok(()) } else { Err(near_miss("a block of channels would span two groups")) }
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

fn one_spatial_axis(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
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
fn elementwise_blocks(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (f, xs) = (args[0].op(), args[1].ids().to_vec());
    let (u, _) = xs.iter().find_map(|&x| from_blocks(g, x)).ok_or(no_match("no operand is unpacked"))?;
    let (block, channels) = (u.attrs.size("block"), u.attrs.size("size"));
    if !channels.is_multiple_of(block) && !keeps_finite(f.kind()) {
        return Err(near_miss("padding lanes might become infinite"));
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

/// A spatial reduction that drops its axes: reduced in NCHWc, unpacked, then the axes dropped.
fn reduce_blocks(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
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
    let joined = g.apply(c, &parts)?;
    Ok(Arg::Value(g.apply(&unpack_op(block, size), &[joined])?))
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
    // Channels are padded by complete blocks, except perhaps the last: then no padding lane becomes a channel.
    if padded != size && (!constant || front[1] % block != 0 || size % block != 0) {
        return Err(near_miss("channels are padded by a fraction of a block"));
    }
    if padded % block != 0 && constant && !g.splat(z).is_some_and(f64::is_finite) {
        return Err(near_miss("padding lanes might become infinite"));
    }
    let of_blocks = |pads: &[i64], channels: i64| [&[pads[0], channels], &pads[2..], &[0]].concat();
    let wide = [of_blocks(front, front[1] / block), of_blocks(back, (back[1] + block - 1) / block)].concat();
    let inner = g.apply(&q.with("pads", wide), &[x, z])?;
    Ok(Arg::Value(g.apply(&unpack_op(block as usize, padded as usize), &[inner])?))
}

/// Pixels, or complete blocks of channels, reordered by a reshape to more axes and a transpose: the same in NCHWc.
fn reorder_pixels(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    const NOT: Mismatch = no_match("it does not reorder pixels of images");
    let (to, perm, split) = (args[0].op().attrs.sizes("shape"), args[1].op().attrs.sizes("perm"), args[2].op().attrs.sizes("shape"));
    let (u, x) = (args[3].op(), args[4].id());
    of_channels(u)?;
    let (block, channels) = (u.attrs.size("block"), u.attrs.size("size"));
    let shape = g.shape(x).to_vec();
    if shape.len() != 5 || to.len() != 4 || shape.contains(&0) {
        return Err(NOT);
    }
    // The axes that channels are split into; the last is a multiple of the block, unless it is all channels.
    let product = |v: &[usize]| v.iter().product::<usize>();
    let first = (0..split.len()).rev().find(|&i| product(&split[..i]) == shape[0]).ok_or(NOT)?;
    let last = (first..split.len()).find(|&i| product(&split[first..=i]) == channels).ok_or(NOT)?;
    let aligned = split[last] == channels || split[last].is_multiple_of(block);
    // The last of them must be the last of the new channels.
    let ordered: Vec<usize> = perm.iter().map(|&i| split[i]).collect();
    let place = perm.iter().position(|&i| i == last).ok_or(NOT)?;
    let ends = product(&ordered[..=place]) == to[0] * to[1];
    if !aligned || !ends || !to[1].is_multiple_of(split[last]) || split[last] != to[1] && !split[last].is_multiple_of(block) {
        return Err(near_miss("a block of channels would be split"));
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

/// Maps of 1×1 pixels and complete blocks: the elements keep their order.
fn unpack_as_reshape(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (u, x) = (args[0].op(), args[1].id());
    let shape = g.shape(x).to_vec();
    let (size, block) = (u.attrs.size("size"), u.attrs.size("block"));
    if of_channels(u).is_err() || shape.len() != 5 || shape[2] * shape[3] != 1 || !size.is_multiple_of(block) {
        return Err(no_match("there is more than one pixel, or an incomplete block"));
    }
    Ok(Arg::Value(g.reshape(x, &[shape[0], size, 1, 1])?))
}

fn pack_as_reshape(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, x) = (args[0].op(), args[1].id());
    let (shape, block) = (g.shape(x).to_vec(), p.attrs.size("block"));
    if p.attrs.int("axis") != 1 || shape.len() != 4 || shape[2] * shape[3] != 1 || !shape[1].is_multiple_of(block) {
        return Err(no_match("there is more than one pixel, or an incomplete block"));
    }
    Ok(Arg::Value(g.reshape(x, &[shape[0], shape[1] / block, 1, 1, block])?))
}

/// The 1-D operator as a 2-D one: a unit axis before the spatial axis.
fn as_row(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
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
fn to_2d(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let x = args[0].id();
    let shape = g.shape(x).to_vec();
    Ok(Arg::Value(g.reshape(x, &[shape[0], shape[1], 1, shape[2]])?))
}

/// [A, B, 1, L] as [A, B, L].
fn to_1d(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let y = args[1].id();
    let shape = g.shape(y).to_vec();
    Ok(Arg::Value(g.reshape(y, &[shape[0], shape[1], shape[3]])?))
}

/// An average of a few neighbours along one axis, of stride 1.
fn small_window(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let attrs = &args[0].op().attrs;
    let bare = attrs.ints("pads").iter().all(|&p| p == 0);
    let long: Vec<i64> = attrs.ints("kernel").iter().copied().filter(|&k| k != 1).collect();
    let one = |name| attrs.ints(name).iter().all(|&v| v == 1);
    let counted = (bare || attrs.flag("include_pad")) && attrs.ints("extra").iter().all(|&e| e == 0);
    let fits = matches!(long.as_slice(), [2..=9]) && one("strides") && counted && attrs.int("block") == 0;
    if fits { Ok(()) } else { Err(no_match("the window is not a few neighbours along one axis")) }
}

/// An average of neighbours as the sum of shifted slices, which is one element-wise kernel.
fn sum_of_slices(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
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

/// Images, and kernels, of one column: kernels are faster along rows.
fn single_column(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let attrs = &args[0].op().attrs;
    let narrow = args[1..].iter().all(|a| matches!(g.shape(a.id()), [_, _, h, 1] if *h > 1 || args.len() == 3));
    let (pads, kernel) = (attrs.ints("pads"), if args.len() == 2 { attrs.ints("kernel")[attrs.ints("kernel").len() - 1] } else { 1 });
    let still = pads.len() == 4 && pads[1] == 0 && pads[3] == 0 && kernel == 1 && attrs.int("block") == 0;
    if narrow && still && g.shape(args[1].id())[2] > 1 { Ok(()) } else { Err(no_match("the images have more than one column")) }
}

/// The operator with H and W exchanged.
fn hw_swapped(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
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
fn swap_hw(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let x = args[0].id();
    let shape = g.shape(x).to_vec();
    Ok(Arg::Value(g.reshape(x, &[shape[0], shape[1], shape[3], shape[2]])?))
}

/// [A, B, 1, H] as [A, B, H, 1].
fn unswap_hw(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let y = args[1].id();
    let shape = g.shape(y).to_vec();
    if shape[2] != 1 {
        return Err(no_match("the images have more than one column"));
    }
    Ok(Arg::Value(g.reshape(y, &[shape[0], shape[1], shape[3], 1])?))
}
