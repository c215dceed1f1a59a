//! Linear operators folded into the weights of convolutions and matmuls: scales, addends, padding, residuals, 1×1 convolutions.

use super::table::{Check, Make, named, rules};
use crate::fact::Classes;
use crate::language::Build;
use crate::mismatch::{Mismatch, near_miss, no_match};
use crate::pattern::Arg;
use crate::term::{OpRef, Term};
use dnnc_ir::{Attr, Kind, Tensor, Type};
use egg::Id;

named! { #[doc = "Conditions."] CHECK: Check; no_linear_result, zero, lowest, spatial_pad, unpadded, pointwise, dense, matrix, matrices, unpadded_windows }
named! {
    #[doc = "Helpers."]
    MAKE: Make;
    scale_outputs, scale_bias, add_to_bias, scale_inputs, add_inputs_to_bias, scale_columns, scale_rows, row_of_addend, padded, padded_mean,
    merged_weights, merged_bias, composed_weights, composed_bias, with_identity, with_scale
}

rules! {
    #[doc = "Linear operators become part of weights, which are computed after extraction has chosen them."]
    FOLD;
    "scale into convolution weights"            : (mul (conv[p] x w ..b) s)                 => (conv[p] x (scale_outputs p w s) ..(scale_bias p w b s))   if constant(w, b, s), reassociation()
    "addend into convolution bias"              : (add (conv[p] x w ..b) s)                 => (conv[p] x w ..(add_to_bias p w b s))                      if constant(b, s), reassociation()
    "input scale into convolution weights"      : (conv[p] (mul x s) w ..b)                 => (conv[p] x (scale_inputs p w s) ..b)                       if constant(w, s), no_linear_result(x), reassociation()
    "input addend into convolution bias"        : (conv[p] (add x s) w ..b)                 => (conv[p] x w ..(add_inputs_to_bias p w b s))               if constant(w, b, s), unpadded(p), no_linear_result(x), reassociation()
    "scale into transposed convolution weights" : (mul (conv_transpose[p] x w ..b) s)       => (conv_transpose[p] x (scale_outputs p w s) ..(scale_bias p w b s)) if constant(w, b, s), reassociation()
    "addend into transposed convolution bias"   : (add (conv_transpose[p] x w ..b) s)       => (conv_transpose[p] x w ..(add_to_bias p w b s))            if constant(b, s), reassociation()
    "padding into convolution"                  : (conv[p] (pad[q] x z) w ..b)              => (conv[padded(p, q)] x w ..b)                               if zero(z), spatial_pad(q)
    "padding into average pool"                 : (avg_pool[p] (pad[q] x z))                => (avg_pool[padded_mean(p, q)] x)                            if zero(z), spatial_pad(q)
    "padding into max pool"                     : (max_pool[p] (pad[q] x z))                => (max_pool[padded(p, q)] x)                                 if lowest(z), spatial_pad(q)
    "1×1 convolution into convolution weights"  : (conv[p] (conv[q] x w ..b) v ..c)         => (conv[q] x (composed_weights v w) ..(composed_bias v b c)) if constant(w, b, v, c), pointwise(p, v), dense(p, q), reassociation()
    "sum of convolutions of one input"          : (add (conv[p] x w ..b) (conv[q] x v ..c)) => (conv[p] x (merged_weights p q w v) ..(merged_bias b c))   if constant(w, b, v, c), reassociation()
    "addend of a sum into convolution bias"     : (add (conv[p] x w ..b) (add y s))         => (add (conv[p] x w ..(add_to_bias p w b s)) y)              if constant(b, s), non_constant(y), reassociation()
    "residual into convolution weights"         : (add (conv[p] x w ..b) x)                 => (conv[p] x (with_identity p w) ..b)                        if constant(w), reassociation()
    "scaled residual into convolution weights"  : (add (conv[p] x w ..b) (mul x s))         => (conv[p] x (with_scale p w s) ..b)                         if constant(w, s), reassociation()
    "average pool before 1×1 convolution"       : (avg_pool[q] (conv[p] x w ..b))           => (conv[p] (avg_pool[q] x) w ..b)                            if pointwise(p, w), unpadded_windows(q), reassociation()
    "scale into matmul weights"                 : (mul (matmul[p] x w) s)                   => (matmul[p] x (scale_columns p w s))                        if constant(w, s), non_constant(x), reassociation()
    "input scale into matmul weights"           : (matmul[p] (mul x s) w)                   => (matmul[p] x (scale_rows p w s))                           if constant(w, s), non_constant(x), no_linear_result(x), reassociation()
    "input addend after matmul"                 : (matmul[p] (add x s) w)                   => (add (matmul[p] x w) (row_of_addend p w s))                if constant(w, s), non_constant(x), matrix(w), no_linear_result(x), reassociation()
    "two constant matmuls as one"               : (matmul[p] (matmul[p] x v) w)             => (matmul[p] x (matmul[p] v w))                              if constant(v, w), matrices(p, v, w), reassociation()
}

/// The value is not the result of constant weights: those would absorb the operator, for all readers of the value.
fn no_linear_result(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let linear = |t: &Term| matches!(t.kind(), Some(Kind::Conv | Kind::ConvTranspose | Kind::MatMul)) && g.constant(t.children[1]);
    if g[args[0].id()].nodes.iter().any(linear) { Err(no_match("the weights before it absorb it")) } else { Ok(()) }
}

fn zero(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if g.splat(args[0].id()) == Some(0.0) { Ok(()) } else { Err(no_match("the padding is not 0")) }
}

fn lowest(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if g.splat(args[0].id()) == Some(f64::NEG_INFINITY) { Ok(()) } else { Err(no_match("the padding is not −∞")) }
}

/// Constant padding of spatial axes only.
fn spatial_pad(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let attrs = &args[0].op().attrs;
    let pads = attrs.ints("pads");
    let rank = pads.len() / 2;
    let elsewhere = rank < 3 || [0, 1, rank, rank + 1].iter().any(|&i| pads[i] != 0);
    if attrs.word("mode") != "constant" || elsewhere { Err(no_match("the padding is not constant, of spatial axes")) } else { Ok(()) }
}

fn unpadded(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args[0].op().attrs.ints("pads").iter().all(|&p| p == 0) { Ok(()) } else { Err(near_miss("there is padding")) }
}

/// A dense convolution of 1×1 with stride 1 and without padding, whose result has the pixels of its input.
fn pointwise(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let attrs = &args[0].op().attrs;
    let one = attrs.ints("strides").iter().all(|&s| s == 1)
        && attrs.ints("pads").iter().all(|&p| p == 0)
        && g.shape(args[1].id())[2..].iter().all(|&k| k == 1);
    if one && attrs.int("block") == 0 { Ok(()) } else { Err(no_match("the convolution is not pointwise")) }
}

pub fn dense(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let plain = |a: &Arg| a.op().attrs.int("groups") == 1 && a.op().attrs.int("block") == 0;
    if args.iter().all(plain) { Ok(()) } else { Err(no_match("a convolution has groups")) }
}

fn matrix(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args.iter().all(|a| g.shape(a.id()).len() == 2) { Ok(()) } else { Err(no_match("an operand is not one matrix")) }
}

fn matrices(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    super::idioms::untransposed(g, args)?;
    matrix(g, &args[1..])
}

/// No window of the pool reads padding: the mean of a bias is the bias.
fn unpadded_windows(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let attrs = &args[0].op().attrs;
    let none = |name| attrs.ints(name).iter().all(|&p| p == 0);
    if none("pads") && none("extra") && attrs.int("block") == 0 { Ok(()) } else { Err(near_miss("the pool has padding")) }
}

/// `pads` of a window with those of a `pad` of all axes added.
fn sum_of_pads(p: &OpRef, q: &OpRef) -> Vec<i64> {
    let (own, more) = (p.attrs.ints("pads"), q.attrs.ints("pads"));
    let (axes, rank) = (own.len() / 2, more.len() / 2);
    (0..own.len()).map(|i| own[i] + if i < axes { more[2 + i] } else { more[rank + 2 + i - axes] }).collect()
}

fn padded(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, q) = (args[0].op(), args[1].op());
    if p.attrs.int("block") != 0 {
        return Err(no_match("the layout is packed"));
    }
    Ok(Arg::Op(p.with("pads", sum_of_pads(p, q))))
}

fn padded_mean(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let p = args[0].op();
    let bare = p.attrs.ints("pads").iter().chain(p.attrs.ints("extra")).all(|&v| v == 0);
    if !bare && !p.attrs.flag("include_pad") {
        return Err(near_miss("the pool does not count its own padding"));
    }
    let Arg::Op(op) = padded(g, args)? else { return Err(near_miss("no operator")) };
    Ok(Arg::Op(op.with("include_pad", true)))
}

/// How many channels convolution `p` with weights `w` has as its result.
fn outputs(g: &Classes, p: &OpRef, w: Id) -> usize {
    let shape = g.shape(w);
    if p.kind() == Kind::ConvTranspose { shape[1] * p.attrs.size("groups") } else { shape[0] }
}

/// `s`, broadcast along all but axis 1 of a tensor of `rank` axes, as a vector of `channels`.
fn per_channel(g: &mut Classes, s: Id, rank: usize, channels: usize) -> Result<Id, Mismatch> {
    let shape = g.shape(s).to_vec();
    let axis = |i: usize| (i + rank).checked_sub(shape.len());
    let only_channels = shape.len() <= rank && (0..shape.len()).all(|i| shape[i] == 1 || axis(i) == Some(1));
    if !only_channels {
        return Err(near_miss("the operand is not one number per channel"));
    }
    if shape.iter().product::<usize>() == 1 {
        let one = g.reshape(s, &[1])?;
        return g.op(Kind::Expand, [("shape", Attr::from(&[channels][..]))], &[one]);
    }
    if shape.iter().product::<usize>() != channels {
        return Err(near_miss("the operand is not one number per channel"));
    }
    g.reshape(s, &[channels])
}

/// The shape with `size` on `axis` and 1 elsewhere.
fn along(axis: usize, size: usize, rank: usize) -> Vec<usize> {
    (0..rank).map(|i| if i == axis { size } else { 1 }).collect()
}

fn plain_layout(p: &OpRef) -> Result<(), Mismatch> {
    if p.kind() == Kind::Conv && p.attrs.int("block") != 0 { Err(no_match("the layout is packed")) } else { Ok(()) }
}

/// Weights as wide as the sums of their products: what is added to narrower ones, or multiplied with them, wraps around sooner.
fn full_width(g: &Classes, w: Id) -> Result<(), Mismatch> {
    let narrow = matches!(g.elem(w), Type::I8 | Type::U8 | Type::I16);
    if narrow { Err(no_match("the weights are narrower than their sums")) } else { Ok(()) }
}

/// Weights with each output channel scaled.
fn scale_outputs(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, w, s) = (args[0].op(), args[1].id(), args[2].id());
    plain_layout(p)?;
    let shape = g.shape(w).to_vec();
    let channels = outputs(g, p, w);
    let s = per_channel(g, s, shape.len(), channels)?;
    if p.kind() == Kind::Conv {
        let s = g.reshape(s, &along(0, channels, shape.len()))?;
        return Ok(Arg::Value(g.mul(w, s)?));
    }
    // [C, O/groups, K…] as [groups, C/groups, O/groups, K…]: output o of group k is channel k·O/groups + o.
    let groups = p.attrs.size("groups");
    let mut split = vec![groups, shape[0] / groups];
    split.extend(&shape[1..]);
    let mut factor = vec![1; split.len()];
    (factor[0], factor[2]) = (groups, shape[1]);
    let (wide, s) = (g.reshape(w, &split)?, g.reshape(s, &factor)?);
    let scaled = g.mul(wide, s)?;
    Ok(Arg::Value(g.reshape(scaled, &shape)?))
}

/// The bias, if there is one, scaled with its channels.
fn scale_bias(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, w, s) = (args[0].op(), args[1].id(), args[3].id());
    let Some(&b) = args[2].ids().first() else { return Ok(Arg::Values(vec![])) };
    let (rank, channels) = (g.shape(w).len(), outputs(g, p, w));
    let s = per_channel(g, s, rank, channels)?;
    Ok(Arg::Values(vec![g.mul(b, s)?]))
}

/// The bias, 0 if there is none, plus one addend per channel.
fn add_to_bias(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, w, s) = (args[0].op(), args[1].id(), args[3].id());
    plain_layout(p)?;
    let (rank, channels) = (g.shape(w).len(), outputs(g, p, w));
    let s = per_channel(g, s, rank, channels)?;
    Ok(Arg::Values(vec![match args[2].ids().first() {
        Some(&b) => g.sum(b, s)?,
        None => s,
    }]))
}

/// Weights [O, C/groups, K…] as [groups, O/groups, C/groups, K…], and one factor per input channel.
fn by_input(g: &mut Classes, p: &OpRef, w: Id, s: Id) -> Result<(Id, Id), Mismatch> {
    plain_layout(p)?;
    let shape = g.shape(w).to_vec();
    let groups = p.attrs.size("groups");
    let s = per_channel(g, s, shape.len(), shape[1] * groups)?;
    let mut split = vec![groups, shape[0] / groups];
    split.extend(&shape[1..]);
    let mut factor = vec![1; split.len()];
    (factor[0], factor[2]) = (groups, shape[1]);
    Ok((g.reshape(w, &split)?, g.reshape(s, &factor)?))
}

fn scale_inputs(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let w = args[1].id();
    full_width(g, w)?;
    let shape = g.shape(w).to_vec();
    let (wide, s) = by_input(g, args[0].op(), w, args[2].id())?;
    let scaled = g.mul(wide, s)?;
    Ok(Arg::Value(g.reshape(scaled, &shape)?))
}

/// The bias plus what an addend of each input channel contributes through the weights.
fn add_inputs_to_bias(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, w, s) = (args[0].op(), args[1].id(), args[3].id());
    let channels = g.shape(w)[0];
    full_width(g, w)?;
    let (wide, s) = by_input(g, p, w, s)?;
    let product = g.mul(wide, s)?;
    let axes: Vec<i64> = (2..g.shape(product).len() as i64).collect();
    let sum = g.op(Kind::ReduceSum, [("axes", Attr::from(axes)), ("keepdims", Attr::from(false))], &[product])?;
    let sum = g.reshape(sum, &[channels])?;
    Ok(Arg::Values(vec![match args[2].ids().first() {
        Some(&b) => g.sum(b, sum)?,
        None => sum,
    }]))
}

/// `s`, a number or one number per element of a last axis of `size`, as a scalar or a vector.
fn per_last(g: &mut Classes, s: Id, size: usize) -> Result<Id, Mismatch> {
    let shape = g.shape(s).to_vec();
    match shape.split_last() {
        _ if shape.iter().product::<usize>() == 1 => g.reshape(s, &[]),
        Some((last, others)) if *last == size && others.iter().all(|&d| d == 1) => g.reshape(s, &[size]),
        _ => Err(no_match("the operand is not one number per column")),
    }
}

/// Sizes (k, n) of the right operand of a matmul.
fn right_sizes(g: &Classes, p: &OpRef, w: Id) -> Result<(usize, usize), Mismatch> {
    match (g.shape(w), p.attrs.flag("trans_b")) {
        ([.., k, n], false) | ([.., n, k], true) => Ok((*k, *n)),
        _ => Err(near_miss("an operand is no matrix")),
    }
}

/// A vector or a number that scales the rows (`true`) or the columns of the right operand of a matmul.
fn scale_right(g: &mut Classes, p: &OpRef, w: Id, s: Id, rows: bool) -> Result<Arg, Mismatch> {
    if rows && p.attrs.flag("trans_a") {
        return Err(near_miss("the left operand is transposed"));
    }
    let (k, n) = right_sizes(g, p, w)?;
    let size = if rows { k } else { n };
    let mut s = per_last(g, s, size)?;
    if !g.shape(s).is_empty() && rows != p.attrs.flag("trans_b") {
        s = g.reshape(s, &[size, 1])?;
    }
    Ok(Arg::Value(g.mul(w, s)?))
}

fn scale_columns(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    scale_right(g, args[0].op(), args[1].id(), args[2].id(), false)
}

fn scale_rows(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    full_width(g, args[1].id())?;
    scale_right(g, args[0].op(), args[1].id(), args[2].id(), true)
}

/// What an addend of each column of the left operand contributes to each row of the result.
fn row_of_addend(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, w) = (args[0].op(), args[1].id());
    full_width(g, w)?;
    if p.attrs.flag("trans_a") {
        return Err(near_miss("the left operand is transposed"));
    }
    let (k, n) = right_sizes(g, p, w)?;
    let s = per_last(g, args[2].id(), k)?;
    let row = match g.shape(s) {
        [] => g.op(Kind::Expand, [("shape", Attr::from(&[1, k][..]))], &[s])?,
        _ => g.reshape(s, &[1, k])?,
    };
    let product = g.apply(p, &[row, w])?;
    Ok(Arg::Value(g.reshape(product, &[n])?))
}

/// Weights of a convolution composed with those of a 1×1 convolution after it: v [O, M, 1…], w [M, C, K…] → [O, C, K…].
fn composed_weights(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (v, w) = (args[0].id(), args[1].id());
    let (o, shape) = (g.shape(v)[0], g.shape(w).to_vec());
    let m = shape[0];
    let (v, flat) = (g.reshape(v, &[o, m])?, g.reshape(w, &[m, shape[1..].iter().product()])?);
    let product = g.op(Kind::MatMul, [], &[v, flat])?;
    let mut result = shape;
    result[0] = o;
    Ok(Arg::Value(g.reshape(product, &result)?))
}

fn composed_bias(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let v = args[0].id();
    let (o, m) = (g.shape(v)[0], g.shape(v)[1]);
    let Some(&b) = args[1].ids().first() else { return Ok(args[2].clone()) };
    let (v, b) = (g.reshape(v, &[o, m])?, g.reshape(b, &[m, 1])?);
    let product = g.op(Kind::MatMul, [], &[v, b])?;
    let product = g.reshape(product, &[o])?;
    Ok(Arg::Values(vec![match args[2].ids().first() {
        Some(&c) => g.sum(product, c)?,
        None => product,
    }]))
}

/// Weights of two convolutions of one input in one: the smaller kernel stands inside the larger.
fn merged_weights(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, q, w, v) = (args[0].op(), args[1].op(), args[2].id(), args[3].id());
    full_width(g, w)?;
    plain_layout(p)?;
    let same = |name| p.attrs.get(name) == q.attrs.get(name);
    let (large, small) = (g.shape(w).to_vec(), g.shape(v).to_vec());
    let axes = large.len() - 2;
    if !same("strides") || !same("groups") || !same("block") || large[..2] != small[..2] {
        return Err(no_match("the convolutions differ in more than their kernels"));
    }
    let (wide, narrow, dilations) = (p.attrs.ints("pads"), q.attrs.ints("pads"), p.attrs.ints("dilations"));
    let mut pads = vec![0; 2 * large.len()];
    for i in 0..axes {
        // Tap t of the small kernel reads at t·d' − narrow, tap T of the large one at T·d − wide.
        let begin = wide[i] - narrow[i];
        let d = dilations[i];
        let aligned = begin >= 0 && begin % d == 0 && (small[2 + i] == 1 || q.attrs.ints("dilations")[i] == d);
        let end = large[2 + i] as i64 - small[2 + i] as i64 - begin / d;
        // Equal at both ends: then both have the same output pixels.
        if !aligned || end < 0 || wide[axes + i] - narrow[axes + i] != end * d {
            return Err(no_match("the smaller kernel does not stand inside the larger"));
        }
        pads[2 + i] = begin / d;
        pads[large.len() + 2 + i] = end;
    }
    let framed = g.pad(v, 0.0, pads)?;
    Ok(Arg::Value(g.sum(w, framed)?))
}

fn merged_bias(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    Ok(Arg::Values(match (args[0].ids(), args[1].ids()) {
        ([b], [c]) => vec![g.sum(*b, *c)?],
        ([b], []) | ([], [b]) => vec![*b],
        _ => vec![],
    }))
}

/// Weights that copy each channel: 1 where the input pixel is the output pixel. For f32.
fn identity(g: &mut Classes, p: &OpRef, w: Id) -> Result<Id, Mismatch> {
    plain_layout(p)?;
    let shape = g.shape(w).to_vec();
    let groups = p.attrs.size("groups");
    if g.elem(w) != Type::F32 || shape[0] != shape[1] * groups || p.attrs.ints("strides").iter().any(|&s| s != 1) {
        return Err(no_match("the convolution cannot copy its input"));
    }
    let mut tap = 0;
    for (i, &k) in shape[2..].iter().enumerate() {
        let (pad, d) = (p.attrs.ints("pads")[i], p.attrs.ints("dilations")[i]);
        let end = p.attrs.ints("pads")[shape.len() - 2 + i];
        if pad % d != 0 || pad + end != d * (k as i64 - 1) {
            return Err(no_match("the convolution cannot copy its input"));
        }
        tap = tap * k + (pad / d) as usize;
    }
    let taps: usize = shape[2..].iter().product();
    let mut values = vec![0f32; shape.iter().product()];
    for o in 0..shape[0] {
        values[(o * shape[1] + o % shape[1]) * taps + tap] = 1.0;
    }
    Ok(g.tensor(Tensor::new(shape, &values)))
}

fn with_identity(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, w) = (args[0].op(), args[1].id());
    full_width(g, w)?;
    let one = identity(g, p, w)?;
    Ok(Arg::Value(g.sum(w, one)?))
}

fn with_scale(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, w) = (args[0].op(), args[1].id());
    full_width(g, w)?;
    let one = identity(g, p, w)?;
    let scaled = scale_inputs(g, &[args[0].clone(), Arg::Value(one), args[2].clone()])?;
    Ok(Arg::Value(g.sum(w, scaled.id())?))
}
