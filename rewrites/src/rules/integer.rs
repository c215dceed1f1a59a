//! Integer products: matrices and images of bytes less their zero points as products of the bytes, with the zero points taken off the sums.
//!
//! (x − a)·(w − b) = x·w − a·Σw − b·Σx + K·a·b, where a and b are constant along the reduction of length K. What a machine multiplies best
//! ([`Integers`]) decides how the bytes are brought: 16-bit differences need no correction, bytes of another sign are moved by 128 and so is
//! their zero point. All of it is exact in wrapping 32-bit integers.

use super::table::{Check, Make, named, rules};
use crate::fact::{Classes, Integers, exact_f64s};
use crate::language::Build;
use crate::mismatch::{Mismatch, near_miss, no_match};
use crate::pattern::Arg;
use crate::term::{OpRef, Term};
use dnnc_ir::{Attr, Kind, Type};
use egg::Id;

named! { #[doc = "Conditions."] CHECK: Check; integers }
named! {
    #[doc = "Helpers."]
    MAKE: Make;
    integer_matmul, integer_conv, dequantised_matmul, dequantised_conv, in_floats
}

rules! {
    #[doc = "Integer products, and products of dequantised values as such."]
    INTEGER;
    "integer matmul"                : (matmul[p] x w)                 => (integer_matmul p x w)              if integers(x, w)
    "integer convolution"           : (conv[p] x w ..b)               => (integer_conv p x w b)              if integers(x, w)
    "matmul of dequantised"         : (matmul[p] (mul x s) (mul w t)) => (dequantised_matmul p x s w t)      if reassociation()
    "convolution of dequantised"    : (conv[p] (mul x s) (mul w t) ..b) => (dequantised_conv p x s w t b)    if reassociation()
    "depthwise integers in floats"  : (conv[p] x w ..b)               => (in_floats p x w b)                 if integers(x, w), depthwise(p, w)
}

/// Operands that are integers, not yet as the machine multiplies them.
fn integers(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let types = [args[0].id(), args[1].id()].map(|x| g.elem(x));
    let small = |t: &Type| matches!(t, Type::I8 | Type::U8 | Type::I16 | Type::I32);
    if types.iter().all(small) { Ok(()) } else { Err(no_match("the operands are not integers")) }
}

/// Least and greatest value of a class of integers, as far as its terms tell.
fn range(g: &Classes, id: Id, depth: usize) -> Option<[i64; 2]> {
    let fact = &g[id].data;
    if let Some(v) = fact.splat {
        return (v.fract() == 0.0).then_some([v as i64; 2]);
    }
    let of_type = || match fact.ty().ty {
        Type::I8 => Some([-128, 127]),
        Type::U8 => Some([0, 255]),
        Type::I16 => Some([-32768, 32767]),
        Type::U16 => Some([0, 65535]),
        Type::Bool => Some([0, 1]),
        _ => None,
    };
    if let Some(values) = fact.value.as_ref().and_then(exact_f64s) {
        let ends = values.iter().fold([i64::MAX, i64::MIN], |[lo, hi], &v| [lo.min(v as i64), hi.max(v as i64)]);
        return (!values.is_empty() && values.iter().all(|v| v.fract() == 0.0)).then_some(ends);
    }
    if depth == 0 {
        return of_type();
    }
    let through = g[id].nodes.iter().find_map(|t| {
        let child = |i: usize| range(g, t.children[i], depth - 1);
        match t.kind()? {
            Kind::Const => literal(t.op()?),
            Kind::Cast if g.elem(t.children[0]).is_int() => {
                let [lo, hi] = child(0)?;
                fact.ty().ty.range().is_some_and(|[least, most]| i128::from(lo) >= least && i128::from(hi) <= most).then_some([lo, hi])
            }
            Kind::Sub => {
                let ([a, b], [c, d]) = (child(0)?, child(1)?);
                wrapped(fact.ty().ty, [a - d, b - c])
            }
            Kind::Add => {
                let ([a, b], [c, d]) = (child(0)?, child(1)?);
                wrapped(fact.ty().ty, [a + c, b + d])
            }
            Kind::Reshape | Kind::Transpose | Kind::Expand | Kind::Slice => child(0),
            _ => None,
        }
    });
    match (through, of_type()) {
        (Some([a, b]), Some([c, d])) => Some([a.max(c), b.min(d)]),
        (one, other) => one.or(other),
    }
}

/// The ends of the values of a literal of bytes.
fn literal(op: &OpRef) -> Option<[i64; 2]> {
    fn ends<T: Copy + Ord + Into<i64>>(values: &[T]) -> Option<[i64; 2]> {
        Some([(*values.iter().min()?).into(), (*values.iter().max()?).into()])
    }
    let tensor = op.attrs.tensor("value");
    match tensor.ty().ty {
        Type::I8 => ends(tensor.values::<i8>()),
        Type::U8 => ends(tensor.values::<u8>()),
        Type::I16 => ends(tensor.values::<i16>()),
        _ => None,
    }
}

/// The range, if no value of it wraps around in a type.
fn wrapped(ty: Type, [lo, hi]: [i64; 2]) -> Option<[i64; 2]> {
    let bits = 8 * ty.bytes() as u32;
    let fits = bits < 63 && lo >= -(1 << (bits - 1)) && hi < 1 << (bits - 1);
    fits.then_some([lo, hi])
}

fn within(range: [i64; 2], [lo, hi]: [i64; 2]) -> bool {
    range[0] >= lo && range[1] <= hi
}

/// Depth of terms that ranges are looked for in.
const DEPTH: usize = 5;

/// Bytes and what is taken off each of them, if anything.
struct Centred {
    bytes: Id,
    zero: Option<Id>,
}

/// A class of integers as bytes less a zero point.
fn centred(g: &Classes, x: Id) -> Option<Centred> {
    let is_byte = |x: Id| matches!(g.elem(x), Type::I8 | Type::U8);
    if is_byte(x) {
        return Some(Centred { bytes: x, zero: None });
    }
    if g.elem(x) != Type::I32 {
        return None;
    }
    let widened = |x: Id| {
        let bytes = |t: &Term| (t.kind() == Some(Kind::Cast) && is_byte(t.children[0])).then(|| t.children[0]);
        g[x].nodes.iter().find_map(bytes)
    };
    if let Some(bytes) = widened(x) {
        return Some(Centred { bytes, zero: None });
    }
    g[x].nodes.iter().find_map(|t| {
        let bytes = (t.kind() == Some(Kind::Sub)).then(|| widened(t.children[0])).flatten()?;
        (g.shape(bytes) == g.shape(x)).then_some(Centred { bytes, zero: Some(t.children[1]) })
    })
}

fn cast(g: &mut Classes, x: Id, to: Type) -> Result<Id, Mismatch> {
    if g.elem(x) == to {
        return Ok(x);
    }
    g.op(Kind::Cast, [("to", Attr::Type(to))], &[x])
}

/// Whether sums of so many products of such values stay below `most` in magnitude.
fn sums_fit(depth: usize, x: [i64; 2], w: [i64; 2], most: i64) -> bool {
    let far = |r: [i64; 2]| r[0].abs().max(r[1].abs());
    i64::try_from(depth).ok().and_then(|k| k.checked_mul(far(x))?.checked_mul(far(w))).is_some_and(|sum| sum < most)
}

/// The ends of signed or of unsigned bytes.
fn byte_limits(ty: Type) -> [i64; 2] {
    if ty == Type::I8 { [-128, 127] } else { [0, 255] }
}

/// An operand as signed or unsigned bytes, and the zero point of those in i32.
fn bytes_of(g: &mut Classes, x: Id, ty: Type) -> Result<Centred, Mismatch> {
    let values = range(g, x, DEPTH);
    if values.is_some_and(|r| within(r, byte_limits(ty))) {
        let exact = centred(g, x).filter(|c| c.zero.is_none() && g.elem(c.bytes) == ty);
        let bytes = match exact {
            Some(c) => c.bytes,
            None => cast(g, x, ty)?,
        };
        return Ok(Centred { bytes, zero: None });
    }
    let Centred { bytes, zero } = centred(g, x).ok_or(no_match("the values are not bytes"))?;
    if g.elem(bytes) == ty {
        return Ok(Centred { bytes, zero });
    }
    // The other sign: all values move by 128, and the zero point with them.
    let from = g.elem(bytes);
    let top = g.number(from, if from == Type::U8 { 128.0 } else { -128.0 })?;
    let flipped = g.op(Kind::Xor, [], &[bytes, top])?;
    let moved = g.op(Kind::Bitcast, [("to", Attr::Type(ty))], &[flipped])?;
    let by = g.number(Type::I32, if ty == Type::I8 { -128.0 } else { 128.0 })?;
    let zero = match zero {
        Some(zero) => g.sum(zero, by)?,
        None => by,
    };
    Ok(Centred { bytes: moved, zero: Some(zero) })
}

/// Sums over axes, in i32.
fn sums(g: &mut Classes, x: Id, axes: Vec<i64>, keepdims: bool) -> Result<Id, Mismatch> {
    let wide = cast(g, x, Type::I32)?;
    g.op(Kind::ReduceSum, [("axes", Attr::from(axes)), ("keepdims", Attr::from(keepdims))], &[wide])
}

/// The zero point, where it is one and not 0.
fn nonzero(g: &Classes, zero: Option<Id>) -> Option<Id> {
    zero.filter(|&z| g.splat(z) != Some(0.0))
}

fn integer_matmul(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    matmul(g, args[0].op(), args[1].id(), args[2].id()).map(Arg::Value)
}

/// A matrix product of integers on operands of the machine's types.
fn matmul(g: &mut Classes, p: &OpRef, x: Id, w: Id) -> Result<Id, Mismatch> {
    let (a, b) = (g.shape(x).to_vec(), g.shape(w).to_vec());
    let (rank, trans_b) = (a.len(), p.attrs.flag("trans_b"));
    if p.attrs.flag("trans_a") {
        return Err(near_miss("rows of the left side are not contiguous"));
    }
    let depth = a[rank - 1];
    match g.analysis.integers {
        Integers::None => Err(near_miss("the machine multiplies no small integers")),
        Integers::Words => {
            let [x, w] = words(g, x, w, depth)?;
            g.apply(p, &[x, w])
        }
        Integers::Bytes(ty) => {
            let (x, w) = (bytes_of(g, x, ty)?, bytes_of(g, w, Type::I8)?);
            let (a, b_zero) = (nonzero(g, x.zero), nonzero(g, w.zero));
            // Constant along the reduction.
            let even = |z: Option<Id>, along: usize| z.is_none_or(|z| g.shape(z).iter().rev().nth(along).is_none_or(|&n| n == 1));
            let plain = |z: Option<Id>| z.is_none_or(|z| g.shape(z).iter().all(|&n| n == 1));
            if !even(a, 0) || !even(b_zero, usize::from(!trans_b)) || trans_b && (!plain(b_zero) || b.len() != 2) {
                return Err(near_miss("the zero points vary along the reduction"));
            }
            let mut y = g.apply(p, &[x.bytes, w.bytes])?;
            if let Some(a) = a {
                let axis = if trans_b { 1 } else { b.len() as i64 - 2 };
                let columns = sums(g, w.bytes, vec![axis], !trans_b)?;
                let off = g.mul(columns, a)?;
                y = g.op(Kind::Sub, [], &[y, off])?;
            }
            if let Some(b_zero) = b_zero {
                let rows = sums(g, x.bytes, vec![rank as i64 - 1], true)?;
                let mut rest = rows;
                if let Some(a) = a {
                    let k = g.number(Type::I32, depth as f64)?;
                    let all = g.mul(k, a)?;
                    rest = g.op(Kind::Sub, [], &[rows, all])?;
                }
                let off = g.mul(rest, b_zero)?;
                y = g.op(Kind::Sub, [], &[y, off])?;
            }
            Ok(y)
        }
    }
}

/// Both operands as 16-bit integers, where their products sum up in 32 bits.
fn words(g: &mut Classes, x: Id, w: Id, depth: usize) -> Result<[Id; 2], Mismatch> {
    let small = near_miss("the values are not known to be small");
    let (a, b) = (range(g, x, DEPTH).ok_or(small)?, range(g, w, DEPTH).ok_or(small)?);
    let limits = [i64::from(i16::MIN), i64::from(i16::MAX)];
    if !within(a, limits) || !within(b, limits) || !sums_fit(depth, a, b, 1 << 31) {
        return Err(small);
    }
    Ok([cast(g, x, Type::I16)?, cast(g, w, Type::I16)?])
}

fn integer_conv(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    conv(g, args[0].op(), args[1].id(), args[2].id(), args[3].ids()).map(Arg::Value)
}

/// A convolution of integers on operands of the machine's types.
fn conv(g: &mut Classes, p: &OpRef, x: Id, w: Id, bias: &[Id]) -> Result<Id, Mismatch> {
    let taps = g.shape(w).to_vec();
    let depth: usize = taps[1..].iter().product();
    if p.attrs.int("block") > 0 {
        return Err(no_match("the images are packed"));
    }
    if taps[1] == 1 && p.attrs.size("groups") > 1 {
        return Err(near_miss("a depthwise convolution has no sums of several channels"));
    }
    let on = |g: &mut Classes, p: &OpRef, x: Id, w: Id| g.apply(p, &[&[x, w], bias].concat());
    match g.analysis.integers {
        Integers::None => Err(near_miss("the machine multiplies no small integers")),
        Integers::Words => {
            let [x, w] = words(g, x, w, depth)?;
            on(g, p, x, w)
        }
        Integers::Bytes(ty) => {
            let (x, w) = (bytes_of(g, x, ty)?, bytes_of(g, w, Type::I8)?);
            if nonzero(g, w.zero).is_some() {
                return Err(near_miss("weights less their zero point are no signed bytes"));
            }
            let Some(zero) = nonzero(g, x.zero) else { return on(g, p, x.bytes, w.bytes) };
            if g.shape(zero).iter().any(|&n| n != 1) {
                return Err(near_miss("the zero points vary along the reduction"));
            }
            let zero = g.reshape(zero, &[])?;
            let mut image = x.bytes;
            let pads = p.attrs.ints("pads").to_vec();
            let mut op = p.clone();
            if pads.iter().any(|&n| n != 0) {
                // What stands for 0 outside the image.
                if !range(g, zero, DEPTH).is_some_and(|r| within(r, byte_limits(ty))) {
                    return Err(near_miss("the zero point is no byte, so that padding cannot be it"));
                }
                let (before, after) = pads.split_at(pads.len() / 2);
                let all = [&[0, 0], before, &[0, 0], after].concat();
                let blank = cast(g, zero, ty)?;
                image = g.op(Kind::Pad, [("pads", Attr::from(all))], &[image, blank])?;
                op = op.with("pads", vec![0i64; pads.len()]);
            }
            let y = on(g, &op, image, w.bytes)?;
            let axes = (1..taps.len() as i64).collect();
            let outputs = sums(g, w.bytes, axes, false)?;
            let off = g.mul(outputs, zero)?;
            let channels = [vec![taps[0]], vec![1; taps.len() - 2]].concat();
            let off = g.reshape(off, &channels)?;
            g.op(Kind::Sub, [], &[y, off])
        }
    }
}

/// The integers that an f32 class was cast from.
fn integers_under(g: &Classes, x: Id) -> Option<Id> {
    let from = |t: &Term| (t.kind() == Some(Kind::Cast)).then(|| t.children[0]);
    let small = |&x: &Id| matches!(g.elem(x), Type::I8 | Type::U8 | Type::I32 | Type::I16);
    g[x].nodes.iter().filter_map(from).find(small)
}

/// Integers and scale of a dequantised operand.
fn dequantised(g: &Classes, [x, s]: [Id; 2]) -> Result<(Id, Id), Mismatch> {
    let integers = integers_under(g, x).filter(|_| g.constant(s));
    integers.map(|q| (q, s)).ok_or(no_match("the operands are not dequantised"))
}

/// The factor of each result: both scales, the second spread over `shape`.
fn factor(g: &mut Classes, s: Id, t: Id, shape: &[usize]) -> Result<Id, Mismatch> {
    let t = g.reshape(t, shape)?;
    let s = g.reshape(s, &[])?;
    g.mul(t, s)
}

fn dequantised_matmul(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let p = args[0].op().clone();
    let (x, s) = dequantised(g, [args[1].id(), args[2].id()])?;
    let (w, t) = dequantised(g, [args[3].id(), args[4].id()])?;
    if g.shape(s).iter().any(|&n| n != 1) {
        return Err(near_miss("the scales of the left side vary"));
    }
    let (shape, scales) = (g.shape(w).to_vec(), g.shape(t).to_vec());
    let columns = shape[shape.len() - if p.attrs.flag("trans_b") { 2 } else { 1 }];
    let along = if p.attrs.flag("trans_b") { 1 } else { 0 };
    let count: usize = scales.iter().product();
    let fits = count == 1 || count == columns && scales.iter().rev().nth(along) == Some(&columns);
    if !fits {
        return Err(near_miss("the scales of the right side vary along the reduction"));
    }
    if !sums_fit(shape.iter().product::<usize>() / columns.max(1), limits(g, x)?, limits(g, w)?, 1 << 31) {
        return Err(near_miss("sums might not fit 32 bits"));
    }
    let y = matmul(g, &p, x, w)?;
    let y = cast(g, y, Type::F32)?;
    let factor = factor(g, s, t, &if count == 1 { vec![] } else { vec![columns] })?;
    Ok(Arg::Value(g.mul(y, factor)?))
}

fn limits(g: &Classes, x: Id) -> Result<[i64; 2], Mismatch> {
    range(g, x, DEPTH).ok_or(near_miss("the values are not known to be small"))
}

fn dequantised_conv(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let p = args[0].op().clone();
    let (x, s) = dequantised(g, [args[1].id(), args[2].id()])?;
    let (w, t) = dequantised(g, [args[3].id(), args[4].id()])?;
    if g.shape(s).iter().any(|&n| n != 1) {
        return Err(near_miss("the scales of the image vary"));
    }
    let (taps, scales) = (g.shape(w).to_vec(), g.shape(t).to_vec());
    let count: usize = scales.iter().product();
    let per_output = scales.len() == taps.len() && scales[0] == taps[0] && count == taps[0];
    if count != 1 && !per_output {
        return Err(near_miss("the scales of the weights are not one an output"));
    }
    if !sums_fit(taps[1..].iter().product(), limits(g, x)?, limits(g, w)?, 1 << 31) {
        return Err(near_miss("sums might not fit 32 bits"));
    }
    let ones = vec![1; taps.len() - 2];
    let y = conv(g, &p, x, w, &[])?;
    let y = cast(g, y, Type::F32)?;
    let shape = if count == 1 { vec![] } else { [vec![taps[0]], ones.clone()].concat() };
    let factor = factor(g, s, t, &shape)?;
    let mut y = g.mul(y, factor)?;
    if let Some(&b) = args[5].ids().first() {
        let b = g.reshape(b, &[vec![taps[0]], ones].concat())?;
        y = g.sum(y, b)?;
    }
    Ok(Arg::Value(y))
}

/// A depthwise convolution of small integers in f32, whose sums of a few products are exact.
fn in_floats(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (p, x, w) = (args[0].op().clone(), args[1].id(), args[2].id());
    let taps: usize = g.shape(w)[1..].iter().product();
    // Of one channel it might be done by Winograd's algorithm, which rounds.
    if p.attrs.size("groups") < 2 || !sums_fit(taps, limits(g, x)?, limits(g, w)?, 1 << 24) {
        return Err(near_miss("sums might not be exact in f32"));
    }
    let (x, w) = (cast(g, x, Type::F32)?, cast(g, w, Type::F32)?);
    let y = g.apply(&p, &[x, w])?;
    let mut y = cast(g, y, Type::I32)?;
    if let Some(&b) = args[3].ids().first() {
        let shape = [vec![g.shape(b)[0]], vec![1; g.shape(y).len() - 2]].concat();
        let b = g.reshape(b, &shape)?;
        y = g.sum(y, b)?;
    }
    Ok(Arg::Value(y))
}
