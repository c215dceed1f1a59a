//! Identities of element-wise operators.

use super::conditions::clamp;
use super::table::{Check, Make, named, rules};
use crate::fact::Classes;
use crate::language::Build;
use crate::mismatch::{Mismatch, near_miss, no_match};
use crate::pattern::Arg;
use crate::term::Term;
use dnnc_ir::{Kind, Type};
use egg::Id;

named! { #[doc = "Helpers."] MAKE: Make; at_least, at_most, meet, above_zero_first, above_zero_last }
named! { #[doc = "Conditions."] CHECK: Check; is_zero, no_const_addend, no_const_factor, unbounded, is_relu, integral_bounds, same_type, widens, keeps }

rules! {
    #[doc = "Identities of element-wise operators. A sum with 0 forgets the sign of zero."]
    ALGEBRA;
    "x + 0 = x"                     : (add x 0)                           => x
    "x − 0 = x"                     : (sub x 0)                           => x
    "0 − x = −x"                    : (sub 0 x)                           => (neg x)
    "x · 1 = x"                     : (mul x 1)                           => x
    "x / 1 = x"                     : (div x 1)                           => x
    "x · −1 = −x"                   : (mul x -1)                          => (neg x)
    "x · 0 = 0"                     : (mul x z)                           => z                              if is_zero(z), finite_math()
    "x ^ 1 = x"                     : (pow x 1)                           => x
    "x² = x · x"                    : (pow x 2)                           => (mul x x)
    "x³ = x · x · x"                : (pow x 3)                           => (mul (mul x x) x)              if real(x)
    "√ as power"                    : (pow x 0.5)                         => (sqrt x)                       if reassociation()
    "x ^ ¾"                         : (pow x 0.75)                        => (mul (sqrt x) (sqrt (sqrt x))) if reassociation()
    "x ^ ¼"                         : (pow x 0.25)                        => (sqrt (sqrt x))                if reassociation()
    "x ^ −1"                        : (pow x -1)                          => (recip x)
    "1 / x"                         : (div 1 x)                           => (recip x)
    "a · 1/x = a / x"               : (mul a (recip x))                   => (div a x)                      if reassociation()
    "a / (1/x) = a · x"             : (div a (recip x))                   => (mul a x)                      if reassociation()
    "x / c = x · 1/c"               : (div x c)                           => (mul x (recip c))              if constant(c), real(x), exact_reciprocal(c)
    "−(−x) = x"                     : (neg (neg x))                       => x
    "x + −y = x − y"                : (add x (neg y))                     => (sub x y)
    "x − −y = x + y"                : (sub x (neg y))                     => (add x y)
    "−(x − y) = y − x"              : (neg (sub x y))                     => (sub y x)
    "−x · −y = x · y"               : (mul (neg x) (neg y))               => (mul x y)
    "(x · c) · d = x · cd"          : (mul (mul x c) d)                   => (mul x (mul c d))              if constant(c, d), no_const_factor(x), real(x), reassociation()
    "(x + c) + d = x + cd"          : (add (add x c) d)                   => (add x (add c d))              if constant(c, d), no_const_addend(x), real(x), reassociation()
    "(x − c) + d = x + dc"          : (add (sub x c) d)                   => (add x (sub d c))              if constant(c, d), no_const_addend(x), real(x), reassociation()
    "(x + c) − d = x + cd"          : (sub (add x c) d)                   => (add x (sub c d))              if constant(c, d), no_const_addend(x), real(x), reassociation()
    "(x + c) · d = xd + cd"         : (mul (add x c) d)                   => (add (mul x d) (mul c d))      if constant(c, d), no_const_addend(x), real(x), reassociation()
    "x − c = x + −c"                : (sub x c)                           => (add x (neg c))                if constant(c), non_constant(x), real(x)
    "a · (x · c) = (a·x) · c"       : (mul a (mul x c))                   => (mul (mul a x) c)              if constant(c), non_constant(a, x), real(x), reassociation()
    "exp·exp"                       : (mul (exp x) (exp y))               => (exp (add x y))                if reassociation()
    "exp of log"                    : (exp (log x))                       => x                              if finite_math()
    "log of exp"                    : (log (exp x))                       => x                              if finite_math()
    "|−x| = |x|"                    : (abs (neg x))                       => (abs x)                        if real(x)
    "|x · x| = x · x"               : (abs (mul x x))                     => (mul x x)                      if real(x)
    "||x|| = |x|"                   : (abs (abs x))                       => (abs x)
    "not not"                       : (not (not x))                       => x
    "x and x"                       : (and x x)                           => x
    "x or x"                        : (or x x)                            => x
    "max(x, x) = x"                 : (max x x)                           => x
    "min(x, x) = x"                 : (min x x)                           => x
    "select(c, x, x) = x"           : (select c x x)                      => x
    "select(true, x, y)"            : (select 1 x y)                      => x
    "select(false, x, y)"           : (select 0 x y)                      => y
    "select(not c, x, y)"           : (select (not c) x y)                => (select c y x)
    "max with a number"             : (max x c)                           => (clamp[at_least(c)] x)         if splat(c), non_constant(x)
    "min with a number"             : (min x c)                           => (clamp[at_most(c)] x)          if splat(c), non_constant(x)
    "clamp of clamp"                : (clamp[p] (clamp[q] x))             => (clamp[meet(p, q)] x)          if integral_bounds(x, p, q)
    "clamp to everything"           : (clamp[p] x)                        => x                              if unbounded(p)
    "clamp to ≥ 0"                  : (clamp[p] x)                        => (relu x)                       if is_relu(p), real(x)
    "clamp of relu"                 : (clamp[p] (relu x))                 => (clamp[above_zero_first(p)] x) if integral_bounds(x, p)
    "relu of clamp"                 : (relu (clamp[p] x))                 => (clamp[above_zero_last(p)] x)  if integral_bounds(x, p)
    "relu of relu"                  : (relu (relu x))                     => (relu x)
    "relu of sigmoid"               : (relu (sigmoid x))                  => (sigmoid x)
    "relu of exp"                   : (relu (exp x))                      => (exp x)
    "relu of |x|"                   : (relu (abs x))                      => (abs x)                        if real(x)
    "x > 0 ? x : 0"                 : (select (lt 0 x) x 0)               => (relu x)                       if finite_math()
    "floor of floor"                : (floor (floor x))                   => (floor x)
    "ceil of ceil"                  : (ceil (ceil x))                     => (ceil x)
    "round of round"                : (round (round x))                   => (round x)
    "cast to its own type"          : (cast[p] x)                         => x                              if same_type(p, x)
    "cast to a wider type and back" : (cast[p] (cast[q] x))               => x                              if widens(p, q, x)
    "cast through a wider type"     : (cast[p] (cast[q] x))               => (cast[p] x)                    if keeps(p, q, x)
    "tanh by sigmoid"               : (sub (mul (sigmoid (mul x 2)) 2) 1) => (tanh x)                       if reassociation()
    "log(1 + x)"                    : (log (add x 1))                     => (log1p x)                      if reassociation()
    "exp(x) − 1"                    : (sub (exp x) 1)                     => (expm1 x)                      if reassociation()
}

fn is_zero(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if g.splat(args[0].id()) == Some(0.0) { Ok(()) } else { Err(no_match("the operand is not 0")) }
}

/// No constant is added to the value yet: constants are combined once, not in every order.
fn no_const_addend(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    without_constant(g, args[0].id(), &[Kind::Add, Kind::Sub])
}

/// The value is not multiplied by a constant yet.
fn no_const_factor(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    without_constant(g, args[0].id(), &[Kind::Mul])
}

fn without_constant(g: &Classes, x: Id, kinds: &[Kind]) -> Result<(), Mismatch> {
    let gathered = |t: &Term| t.kind().is_some_and(|k| kinds.contains(&k)) && t.children.iter().any(|&c| g.constant(c));
    if g.constant(x) || g[x].nodes.iter().any(gathered) { Err(no_match("its constants are combined already")) } else { Ok(()) }
}

fn unbounded(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if bounds(&args[0])? == (f64::NEG_INFINITY, f64::INFINITY) { Ok(()) } else { Err(no_match("there are bounds")) }
}

fn bounds(clamp: &Arg) -> Result<(f64, f64), Mismatch> {
    let (lo, hi) = (clamp.op().attrs.float("lo"), clamp.op().attrs.float("hi"));
    if lo <= hi { Ok((lo, hi)) } else { Err(near_miss("the range is empty")) }
}

fn is_relu(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if bounds(&args[0])? == (0.0, f64::INFINITY) { Ok(()) } else { Err(no_match("the range is not 0…∞")) }
}

/// Bounds of integers are integers: rounding a bound would not commute with the other clamp.
fn integral_bounds(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let whole =
        |clamp: &Arg| ["lo", "hi"].iter().all(|n| clamp.op().attrs.float(n).is_infinite() || clamp.op().attrs.float(n).fract() == 0.0);
    if g.elem(args[0].id()).is_real() || args[1..].iter().all(whole) { Ok(()) } else { Err(near_miss("a bound is no integer")) }
}

fn at_least(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    match g.splat(args[0].id()) {
        Some(v) if !v.is_nan() => clamp(v, f64::INFINITY),
        _ => Err(no_match("the bound is not one number")),
    }
}

fn at_most(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    match g.splat(args[0].id()) {
        Some(v) if !v.is_nan() => clamp(f64::NEG_INFINITY, v),
        _ => Err(no_match("the bound is not one number")),
    }
}

/// The first clamp applied to the second.
fn meet(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let ((lo, hi), (a, b)) = (bounds(&args[0])?, bounds(&args[1])?);
    clamp(a.clamp(lo, hi), b.clamp(lo, hi))
}

fn above_zero_first(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (lo, hi) = bounds(&args[0])?;
    clamp(0f64.clamp(lo, hi), hi)
}

fn above_zero_last(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let (lo, hi) = bounds(&args[0])?;
    clamp(lo.max(0.0), hi.max(0.0))
}

fn same_type(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args[0].op().attrs.ty("to") == g.elem(args[1].id()) { Ok(()) } else { Err(no_match("the type changes")) }
}

/// Whether `wide` has every value of `narrow`.
fn holds(wide: Type, narrow: Type) -> bool {
    use Type::*;
    let float = |t: Type| match t {
        BF16 => Some((8, 8)),
        F16 => Some((11, 5)),
        F32 => Some((24, 8)),
        F64 => Some((53, 11)),
        _ => None,
    };
    let int = |t: Type| match t {
        Bool => Some((1, 0)),
        I8 => Some((7, 1)),
        I16 => Some((15, 1)),
        I32 => Some((31, 1)),
        I64 => Some((63, 1)),
        U8 => Some((8, 0)),
        U16 => Some((16, 0)),
        U32 => Some((32, 0)),
        U64 => Some((64, 0)),
        _ => None,
    };
    if wide == Bool {
        return narrow == Bool;
    }
    match (float(wide), float(narrow), int(wide), int(narrow)) {
        (Some((p, e)), Some((q, f)), ..) => p >= q && e >= f,
        (Some((p, _)), None, None, Some((bits, _))) => p >= bits && wide != F16,
        (None, None, Some((p, s)), Some((q, t))) => p >= q && s >= t,
        _ => false,
    }
}

fn widens(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    same_type(g, &[args[0].clone(), args[2].clone()])?;
    keeps(g, args)
}

fn keeps(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let (to, between, from) = (args[0].op().attrs.ty("to"), args[1].op().attrs.ty("to"), g.elem(args[2].id()));
    if !holds(between, from) {
        return Err(no_match("the type in between loses values"));
    }
    // Floats saturate where integers wrap.
    if between.is_float() && !from.is_float() && to.is_int() && !holds(to, from) {
        return Err(no_match("a float in between saturates"));
    }
    Ok(())
}
