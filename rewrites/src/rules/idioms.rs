//! Idiom recognition: composites that exporters write, as the operators that they are.

use super::table::{Check, Make, named, rules};
use crate::fact::Classes;
use crate::language::Build;
use crate::mismatch::{Mismatch, near_miss, no_match};
use crate::pattern::Arg;
use crate::term::OpRef;
use dnnc_ir::{Attr, Kind, Op};

named! { #[doc = "Conditions."] CHECK: Check; is_clamp, same_axes, untransposed, queries_untransposed, last_axis }
named! { #[doc = "Helpers."] MAKE: Make; mean_of, mean_of_over, norm_over, rms_over, norm_like, over_axis, log_of, exp_of, keys, scaled, divided, times, over }

rules! {
    #[doc = "Idiom recognition: composites that exporters write, as the operators that they are."]
    IDIOMS;
    "sigmoid"                  : (recip (add (exp (neg x)) 1))                              => (sigmoid x)                              if reassociation()
    "sigmoid by division"      : (div a (add (exp (neg x)) 1))                              => (mul a (sigmoid x))                      if reassociation()
    "sigmoid by tanh"          : (mul (add (tanh (mul x 0.5)) 1) 0.5)                       => (sigmoid x)                              if reassociation()
    "hard swish, /6"           : (mul (mul x (clamp[p] (add x 3))) 0.16666666666666666)     => (hard_swish x)                           if is_clamp(p, 0, 6), reassociation()
    "hard swish, gate /6"      : (mul x (mul (clamp[p] (add x 3)) 0.16666666666666666))     => (hard_swish x)                           if is_clamp(p, 0, 6), reassociation()
    "hard swish, x/6"          : (mul (mul x 0.16666666666666666) (clamp[p] (add x 3)))     => (hard_swish x)                           if is_clamp(p, 0, 6), reassociation()
    "hard swish, hard sigmoid" : (mul x (clamp[p] (add (mul x 0.16666666666666666) 0.5)))   => (hard_swish x)                           if is_clamp(p, 0, 1), reassociation()
    "silu"                     : (mul x (sigmoid x))                                        => (silu x)
    "softplus"                 : (log (add (exp x) 1))                                      => (softplus x)                             if reassociation()
    "softplus by log1p"        : (log1p (exp x))                                            => (softplus x)                             if reassociation()
    "gelu, half of x first"    : (mul (mul x 0.5) (add (erf (mul x 0.7071067811865476)) 1)) => (gelu x)                                 if reassociation()
    "gelu, half last"          : (mul (mul x (add (erf (mul x 0.7071067811865476)) 1)) 0.5) => (gelu x)                                 if reassociation()
    "gelu, half of gate"       : (mul x (mul (add (erf (mul x 0.7071067811865476)) 1) 0.5)) => (gelu x)                                 if reassociation()
    "gelu, half inside"        : (mul x (add (mul (erf (mul x 0.7071067811865476)) 0.5) 0.5)) => (gelu x)                                 if reassociation()
    "tanh gelu, half of x"     : (mul (mul x 0.5) (add (tanh (mul (add x (mul (mul (mul x x) x) 0.044715)) 0.7978845608028654)) 1)) => (gelu_tanh x)                            if reassociation()
    "tanh gelu, half last"     : (mul (mul x (add (tanh (mul (add x (mul (mul (mul x x) x) 0.044715)) 0.7978845608028654)) 1)) 0.5) => (gelu_tanh x)                            if reassociation()
    "tanh gelu, half of gate"  : (mul x (mul (add (tanh (mul (add x (mul (mul (mul x x) x) 0.044715)) 0.7978845608028654)) 1) 0.5)) => (gelu_tanh x)                            if reassociation()
    "tanh gelu, x²"            : (mul (mul x 0.5) (add (tanh (mul (mul x 0.7978845608028654) (add (mul (mul x x) 0.044715) 1))) 1)) => (gelu_tanh x)                            if reassociation()
    "tanh gelu, x² last"       : (mul (mul x 0.5) (add (tanh (mul x (mul (add (mul (mul x x) 0.044715) 1) 0.7978845608028654))) 1)) => (gelu_tanh x)                            if reassociation()
    "tanh gelu, x·x first"     : (mul (mul x 0.5) (add (tanh (mul (add x (mul (mul (mul x 0.044715) x) x)) 0.7978845608028654)) 1)) => (gelu_tanh x)                            if reassociation()
    "tanh gelu, nested"        : (mul x (mul (add (tanh (mul (add x (mul x (mul x (mul x 0.044715)))) 0.7978845608028654)) 1) 0.5)) => (gelu_tanh x)                            if reassociation()
    "tanh gelu by sigmoid"     : (mul x (sigmoid (mul (add x (mul (mul (mul x x) x) 0.044715)) 1.5957691216057308))) => (gelu_tanh x)                            if reassociation()
    "mean as sum"              : (mul (reduce_sum[p] x) c)                                  => (mean_of p x c)                          if splat(c), real(x), reassociation()
    "mean as sum, divided"     : (div (reduce_sum[p] x) c)                                  => (mean_of_over p x c)                     if splat(c), real(x), reassociation()
    "variance"                 : (sub (reduce_mean[p] (mul x x)) (mul (reduce_mean[p] x) (reduce_mean[p] x))) => (reduce_mean[p] (mul (sub x (reduce_mean[p] x)) (sub x (reduce_mean[p] x)))) if keeps_axes(p), real(x), reassociation()
    "mean of squares is ≥ 0"   : (relu (reduce_mean[p] (mul x x)))                          => (reduce_mean[p] (mul x x))
    "norm"                     : (div (sub x (reduce_mean[p] x)) (sqrt (add (reduce_mean[p] (mul (sub x (reduce_mean[p] x)) (sub x (reduce_mean[p] x)))) e))) => (norm[norm_over(p, e)] x)                if keeps_axes(p), reassociation()
    "norm by 1/√"              : (mul (sub x (reduce_mean[p] x)) (recip (sqrt (add (reduce_mean[p] (mul (sub x (reduce_mean[p] x)) (sub x (reduce_mean[p] x)))) e)))) => (norm[norm_over(p, e)] x)                if keeps_axes(p), reassociation()
    "rms norm"                 : (div x (sqrt (add (reduce_mean[p] (mul x x)) e)))          => (rms_norm[rms_over(p, e)] x)             if keeps_axes(p), reassociation()
    "rms norm by 1/√"          : (mul x (recip (sqrt (add (reduce_mean[p] (mul x x)) e))))  => (rms_norm[rms_over(p, e)] x)             if keeps_axes(p), reassociation()
    "norm of centred input"    : (rms_norm[q] (sub x (reduce_mean[p] x)))                   => (norm[norm_like(q)] x)                   if same_axes(p, q), keeps_axes(p), reassociation()
    "softmax"                  : (div (exp (sub x (reduce_max[p] x))) (reduce_sum[q] (exp (sub x (reduce_max[p] x))))) => (softmax[over_axis(p)] x)                if same_axes(p, q), keeps_axes(p), keeps_axes(q), reassociation()
    "softmax without maximum"  : (div (exp x) (reduce_sum[p] (exp x)))                      => (softmax[over_axis(p)] x)                if keeps_axes(p), reassociation()
    "log softmax"              : (log (softmax[p] x))                                       => (log_softmax[log_of(p)] x)               if reassociation()
    "exp of log softmax"       : (exp (log_softmax[p] x))                                   => (softmax[exp_of(p)] x)                   if reassociation()
    "attention"                : (matmul[q] (softmax[p] (matmul[s] a b)) v)                 => (attention[scaled(1)] a (keys s b) v)    if untransposed(q), queries_untransposed(s), last_axis(p, a, b), reassociation()
    "attention, scale"         : (matmul[q] (softmax[p] (mul (matmul[s] a b) c)) v)         => (attention[scaled(c)] a (keys s b) v)    if untransposed(q), queries_untransposed(s), last_axis(p, a, b), splat(c), reassociation()
    "attention, divisor"       : (matmul[q] (softmax[p] (div (matmul[s] a b) c)) v)         => (attention[divided(c)] a (keys s b) v)   if untransposed(q), queries_untransposed(s), last_axis(p, a, b), splat(c), reassociation()
    "attention, mask"          : (matmul[q] (softmax[p] (add (matmul[s] a b) m)) v)         => (attention[scaled(1)] a (keys s b) v m)  if untransposed(q), queries_untransposed(s), last_axis(p, a, b), reassociation()
    "attention, scale, mask"   : (matmul[q] (softmax[p] (add (mul (matmul[s] a b) c) m)) v) => (attention[scaled(c)] a (keys s b) v m)  if untransposed(q), queries_untransposed(s), last_axis(p, a, b), splat(c), reassociation()
    "attention, divisor, mask" : (matmul[q] (softmax[p] (add (div (matmul[s] a b) c) m)) v) => (attention[divided(c)] a (keys s b) v m) if untransposed(q), queries_untransposed(s), last_axis(p, a, b), splat(c), reassociation()
    "scale of queries"         : (attention[p] (mul q c) k v ..m)                           => (attention[times(p, c)] q k v ..m)       if splat(c), reassociation()
    "scale of keys"            : (attention[p] q (mul k c) v ..m)                           => (attention[times(p, c)] q k v ..m)       if splat(c), reassociation()
    "divisor of queries"       : (attention[p] (div q c) k v ..m)                           => (attention[over(p, c)] q k v ..m)        if splat(c), reassociation()
    "divisor of keys"          : (attention[p] q (div k c) v ..m)                           => (attention[over(p, c)] q k v ..m)        if splat(c), reassociation()
}

fn is_clamp(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let attrs = &args[0].op().attrs;
    let bound_is = |name, v: f64| (attrs.float(name) - v).abs() < 1e-9;
    if bound_is("lo", args[1].number()) && bound_is("hi", args[2].number()) { Ok(()) } else { Err(no_match("the range is another")) }
}

fn same_axes(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args[0].op().attrs.ints("axes") == args[1].op().attrs.ints("axes") { Ok(()) } else { Err(no_match("the axes differ")) }
}

/// A matmul without transposed operands.
pub fn untransposed(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let attrs = &args[0].op().attrs;
    if !attrs.flag("trans_a") && !attrs.flag("trans_b") { Ok(()) } else { Err(no_match("an operand is transposed")) }
}

fn queries_untransposed(_: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    if args[0].op().attrs.flag("trans_a") { Err(no_match("the queries are transposed")) } else { Ok(()) }
}

/// Softmax `args[0]` runs along the last axis of the matmul of the other two.
fn last_axis(g: &Classes, args: &[Arg]) -> Result<(), Mismatch> {
    let rank = args[1..].iter().map(|a| g.shape(a.id()).len()).max().unwrap_or(0);
    if args[0].op().attrs.size("axis") + 1 == rank { Ok(()) } else { Err(no_match("softmax is not along the last axis")) }
}

fn made(kind: Kind, attrs: impl IntoIterator<Item = (&'static str, Attr)>) -> Result<Arg, Mismatch> {
    Ok(Arg::Op(OpRef::new(Op::new(kind, attrs).map_err(|_| near_miss("an attribute would be wrong"))?)))
}

fn over_axes(g: &Classes, kind: Kind, args: &[Arg]) -> Result<Arg, Mismatch> {
    let eps = g.splat(args[1].id()).ok_or(near_miss("epsilon is not one constant number"))?;
    made(kind, [("axes", args[0].op().attrs.get("axes").clone()), ("eps", Attr::from(eps))])
}

/// A sum times one over the number of its terms.
fn mean(g: &mut Classes, r: &Arg, x: &Arg, factor: f64) -> Result<Arg, Mismatch> {
    let (r, x) = (r.op(), x.id());
    let count: usize = r.attrs.sizes("axes").iter().map(|&a| g.shape(x)[a]).product();
    if count == 0 || (factor * count as f64 - 1.0).abs() > 1e-6 {
        return Err(no_match("the sum is not divided by the number of its terms"));
    }
    let attrs = [("axes", r.attrs.get("axes").clone()), ("keepdims", r.attrs.get("keepdims").clone())];
    Ok(Arg::Value(g.op(Kind::ReduceMean, attrs, &[x])?))
}

fn mean_of(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let factor = number(g, &args[2])?;
    mean(g, &args[0], &args[1], factor)
}

fn mean_of_over(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let factor = 1.0 / number(g, &args[2])?;
    mean(g, &args[0], &args[1], factor)
}

fn norm_over(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    over_axes(g, Kind::Norm, args)
}

fn rms_over(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    over_axes(g, Kind::RmsNorm, args)
}

fn norm_like(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let attrs = &args[0].op().attrs;
    made(Kind::Norm, [("axes", attrs.get("axes").clone()), ("eps", attrs.get("eps").clone())])
}

fn over_axis(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    match args[0].op().attrs.ints("axes") {
        [axis] => made(Kind::Softmax, [("axis", Attr::Int(*axis))]),
        _ => Err(near_miss("there is more than one axis")),
    }
}

fn log_of(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    made(Kind::LogSoftmax, [("axis", args[0].op().attrs.get("axis").clone())])
}

fn exp_of(_: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    made(Kind::Softmax, [("axis", args[0].op().attrs.get("axis").clone())])
}

/// The keys [.., S, D] of a product with queries, which has them as [.., D, S] unless its attributes say otherwise.
fn keys(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    let k = args[1].id();
    if args[0].op().attrs.flag("trans_b") {
        return Ok(Arg::Value(k));
    }
    let mut perm: Vec<usize> = (0..g.shape(k).len()).collect();
    let last = perm.len().checked_sub(2).ok_or(near_miss("the keys are no matrix"))?;
    perm.swap(last, last + 1);
    Ok(Arg::Value(g.transpose(k, &perm)?))
}

fn number(g: &Classes, arg: &Arg) -> Result<f64, Mismatch> {
    match arg {
        Arg::Number(v) => Ok(*v),
        other => g.splat(other.id()).ok_or(near_miss("the scale is not one constant number")),
    }
}

fn attention(scale: f64) -> Result<Arg, Mismatch> {
    if !scale.is_finite() {
        return Err(near_miss("the scale is not finite"));
    }
    made(Kind::Attention, [("scale", Attr::from(scale))])
}

fn scaled(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    attention(number(g, &args[0])?)
}

fn divided(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    attention(1.0 / number(g, &args[0])?)
}

fn rescaled(op: &OpRef, factor: f64) -> Result<Arg, Mismatch> {
    let scale = op.attrs.float("scale") * factor;
    if scale.is_finite() { Ok(Arg::Op(op.with("scale", scale))) } else { Err(near_miss("the scale is not finite")) }
}

fn times(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    rescaled(args[0].op(), number(g, &args[1])?)
}

fn over(g: &mut Classes, args: &[Arg]) -> Result<Arg, Mismatch> {
    rescaled(args[0].op(), 1.0 / number(g, &args[1])?)
}
