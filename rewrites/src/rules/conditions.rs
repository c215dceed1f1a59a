//! Conditions and helpers that rules of several topics use.

use super::table::{Check, named};
use crate::fact::Classes;
use crate::fact::exact_f64s;
use crate::language::Build;
use crate::mismatch::{Mismatch, near_miss, no_match};
use crate::pattern::Arg;
use crate::term::OpRef;
use dnnc_ir::{Attr, Kind, Op};

named! { #[doc = "Conditions."] CHECK: Check; constant, non_constant, real, finite_math, reassociation, exact_reciprocal, same, positive, splat, f32, keeps_axes, is_vector }

/// Every argument is known when the model is compiled.
fn constant(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args.iter().flat_map(Arg::ids).all(|&x| g.constant(x)) { Ok(()) } else { Err(no_match("an operand is not constant")) }
}

/// No argument is constant: for rules that would not terminate on constants.
fn non_constant(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args.iter().flat_map(Arg::ids).any(|&x| g.constant(x)) { Err(no_match("an operand is constant")) } else { Ok(()) }
}

/// Values are f16, bf16, f32 or f64.
fn real(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args.iter().all(|x| g.elem(x.id()).is_real()) { Ok(()) } else { Err(no_match("the elements are not real numbers")) }
}

/// Values are f32.
fn f32(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args.iter().all(|x| g.elem(x.id()) == dnnc_ir::Type::F32) { Ok(()) } else { Err(no_match("the elements are not f32")) }
}

/// The user allows rules that hold for finite numbers only.
fn finite_math(g: &Classes, _: &[Arg]) -> Result<(), Mismatch> {
    if g.analysis.options.finite_math() { Ok(()) } else { Err(near_miss("it holds for finite numbers only: needs `--relaxed`")) }
}

/// Floating-point reassociation is allowed: results may be rounded differently than the model as written.
fn reassociation(g: &Classes, _: &[Arg]) -> Result<(), Mismatch> {
    if g.analysis.options.precise { Err(near_miss("it rounds differently, which `--precise` forbids")) } else { Ok(()) }
}

/// Every element is one known number.
fn splat(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args.iter().all(|x| g.splat(x.id()).is_some()) { Ok(()) } else { Err(no_match("an operand is not one constant number")) }
}

/// 1/x is a float for every element, without rounding: all are powers of two.
fn exact_reciprocal(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let fact = &g[args[0].id()].data;
    let values = match (&fact.value, fact.splat) {
        (_, Some(v)) => vec![v],
        (Some(t), _) => exact_f64s(t).ok_or(near_miss("the elements are not real numbers"))?,
        _ => return Err(near_miss("the divisor is not a known constant")),
    };
    let exact = |v: &f64| v.is_normal() && v.to_bits() << 12 == 0 && v.abs() < 1e30 && v.abs() > 1e-30;
    if g.analysis.options.finite_math() || values.iter().all(exact) {
        Ok(())
    } else {
        Err(near_miss("the reciprocal of the divisor is rounded: needs `--relaxed`"))
    }
}

/// Both values have the same type and shape.
fn same(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if g[args[0].id()].data.types == g[args[1].id()].data.types { Ok(()) } else { Err(no_match("the shapes differ")) }
}

/// A known number above 0.
fn positive(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args.iter().all(|x| g.splat(x.id()).is_some_and(|v| v > 0.0)) { Ok(()) } else { Err(no_match("an operand is not a number above 0")) }
}

/// The reduction keeps its axes, with one element each.
fn keeps_axes(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args[0].op().attrs.flag("keepdims") { Ok(()) } else { Err(no_match("the reduction drops its axes")) }
}

/// The values have one axis.
fn is_vector(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args.iter().all(|a| g.shape(a.id()).len() == 1) { Ok(()) } else { Err(no_match("the indices have more than one axis")) }
}

/// The operator that clamps to a range.
pub fn clamp(lo: f64, hi: f64) -> Result<Arg, Mismatch> {
    let op = Op::new(Kind::Clamp, [("lo", Attr::from(lo)), ("hi", Attr::from(hi))]).map_err(|_| near_miss("the range is none"))?;
    Ok(Arg::Op(OpRef::new(op)))
}
