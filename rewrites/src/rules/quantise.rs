//! Quantisation as it is written in floats: operations that cancel exactly. Casts from floats to integers saturate.

use super::table::{Check, named, rules};
use crate::fact::Classes;
use crate::fact::exact_f64s;
use crate::language::Build;
use crate::mismatch::{Mismatch, no_match};
use crate::pattern::Arg;
use dnnc_ir::{Kind, Type};
use egg::Id;

named! { #[doc = "Conditions."] CHECK: Check; is_integral, usable_scale, lowest_of, lowest_zero }

rules! {
    #[doc = "Quantisation: q = cast(round(x / s) + z), x = (q − z) · s."]
    QUANTISE;
    "quantize of dequantize"             : (round (div (mul a s) s))                  => a                                   if is_integral(a), usable_scale(s)
    "relu before quantize"               : (cast[p] (add (round (div (relu x) s)) z)) => (cast[p] (add (round (div x s)) z)) if lowest_of(p, z), positive(s)
    "relu before quantize, zero point 0" : (cast[p] (round (div (relu x) s)))         => (cast[p] (round (div x s)))         if lowest_zero(p), positive(s)
    "round of integers"                  : (round a)                                  => a                                   if is_integral(a)
}

/// Values are integers of at most 17 bits: of an integer type, or sums and differences of such with constants.
fn is_integral(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if integral(g, args[0].id(), 3) { Ok(()) } else { Err(no_match("the values are not known to be integers")) }
}

fn integral(g: &Classes, x: Id, depth: usize) -> bool {
    let fact = &g[x].data;
    let small = |v: &f64| v.fract() == 0.0 && v.abs() <= 65536.0;
    if let Some(v) = fact.splat {
        return small(&v);
    }
    if let Some(values) = fact.value.as_ref().and_then(exact_f64s) {
        return values.iter().all(small);
    }
    depth > 0
        && g[x].nodes.iter().any(|t| match t.kind() {
            Some(Kind::Cast) => matches!(g.elem(t.children[0]), Type::I8 | Type::U8 | Type::I16 | Type::U16 | Type::Bool),
            Some(Kind::Sub | Kind::Add) => {
                t.children.iter().any(|&c| g.constant(c)) && t.children.iter().all(|&c| integral(g, c, depth - 1))
            }
            Some(Kind::Reshape | Kind::Transpose) => integral(g, t.children[0], depth - 1),
            _ => false,
        })
}

/// A scale whose products with small integers neither overflow nor underflow.
fn usable_scale(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let fact = &g[args[0].id()].data;
    let values = fact
        .splat
        .map(|v| vec![v])
        .or_else(|| fact.value.as_ref().and_then(exact_f64s))
        .ok_or(no_match("the scale is not a known constant"))?;
    let fits = fact.ty().ty == Type::F32 && values.iter().all(|v| v.abs() > 1e-30 && v.abs() < 1e30);
    if fits { Ok(()) } else { Err(no_match("the scale is too small or too large")) }
}

fn lowest_of(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let lowest = match args[0].op().attrs.ty("to") {
        Type::I8 => -128.0,
        Type::U8 | Type::U16 => 0.0,
        Type::I16 => -32768.0,
        _ => return Err(no_match("no quantised type has this range")),
    };
    if g.splat(args[1].id()) == Some(lowest) { Ok(()) } else { Err(no_match("the zero point is not the lowest value")) }
}

fn lowest_zero(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if matches!(args[0].op().attrs.ty("to"), Type::U8 | Type::U16) {
        Ok(())
    } else {
        Err(no_match("the zero point is not the lowest value"))
    }
}
