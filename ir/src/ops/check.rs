//! Checks that shape rules make of attributes and types; every error is a sentence.

use crate::graph::Attrs;
use crate::types::{TensorType, Type, broadcast};

/// What a shape rule answers.
pub type Types = Result<Vec<TensorType>, String>;

/// No size, stride or padding of a window may be larger: sums and products of a few of them stay far below `i64::MAX`.
const LARGEST: i64 = i32::MAX as i64;

/// One result of this type and shape.
pub fn one(ty: Type, shape: impl Into<Vec<usize>>) -> Types {
    Ok(vec![TensorType::checked(ty, shape)?])
}

/// One result of the type and shape of `x`.
pub fn same(x: &TensorType) -> Types {
    Ok(vec![x.clone()])
}

/// Fails with the sentence unless the condition holds.
pub fn ensure(holds: bool, sentence: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(sentence()) }
}

/// `x` must be a float that is computed with.
pub fn real(what: &str, x: &TensorType) -> Result<(), String> {
    ensure(x.ty.is_real(), || format!("{what} is {x}, but must be f16, bf16, f32 or f64"))
}

/// `x` must be a number that is computed with.
pub fn number(what: &str, x: &TensorType) -> Result<(), String> {
    ensure(x.ty.is_number(), || format!("{what} is {x}, but must be a float from f16 on or an integer of at least 8 bits"))
}

/// `x` must be of element type `ty`.
pub fn is_type(what: &str, x: &TensorType, ty: Type) -> Result<(), String> {
    ensure(x.ty == ty, || format!("{what} is {x}, but must be {ty}"))
}

/// `x` must be of element type `ty` and have these sizes.
pub fn is_exactly(what: &str, x: &TensorType, ty: Type, shape: &[usize]) -> Result<(), String> {
    ensure(x.ty == ty && x.shape == shape, || format!("{what} is {x}, but must be {}", TensorType::new(ty, shape)))
}

/// `x` must be one element of type `ty`.
pub fn scalar(what: &str, x: &TensorType, ty: Type) -> Result<(), String> {
    ensure(x.ty == ty && x.len() == 1, || format!("{what} is {x}, but must be one {ty}"))
}

/// `a` and `b` must have the same element type.
pub fn same_type(a: &TensorType, b: &TensorType) -> Result<(), String> {
    ensure(a.ty == b.ty, || format!("the types of {a} and {b} differ"))
}

/// `x` must have so many axes.
pub fn rank(what: &str, x: &TensorType, rank: usize) -> Result<(), String> {
    ensure(x.rank() == rank, || format!("{what} is {x}, but must have {rank} axes"))
}

/// `x` must have so many axes or more.
pub fn rank_at_least(what: &str, x: &TensorType, rank: usize) -> Result<(), String> {
    ensure(x.rank() >= rank, || format!("{what} is {x}, but must have at least {rank} axes"))
}

/// The shape that both broadcast to.
pub fn broadcast_of(a: &TensorType, b: &TensorType) -> Result<Vec<usize>, String> {
    // The common case costs one allocation.
    if a.shape == b.shape {
        return Ok(a.shape.clone());
    }
    broadcast(&a.shape, &b.shape).ok_or_else(|| format!("{a} and {b} do not broadcast"))
}

/// The attribute `axis`, one of `rank`.
pub fn axis(attrs: &Attrs, rank: usize) -> Result<usize, String> {
    let axis = attrs.int("axis");
    usize::try_from(axis).ok().filter(|&a| a < rank).ok_or_else(|| format!("there is no axis {axis} among {rank} axes"))
}

/// The attribute `axes`: ascending, each one of `rank`.
pub fn axes(attrs: &Attrs, rank: usize) -> Result<&[i64], String> {
    let axes = attrs.ints("axes");
    let fits = axes.iter().all(|&a| a >= 0 && (a as usize) < rank) && axes.windows(2).all(|w| w[0] < w[1]);
    ensure(fits, || format!("axes {axes:?} are not ascending and among {rank} axes"))?;
    Ok(axes)
}

/// Attribute `name` as a size from `least` on.
pub fn size(attrs: &Attrs, name: &str, least: i64) -> Result<usize, String> {
    let value = attrs.int(name);
    ensure(value >= least, || format!("`{name}` is {value}, but must be at least {least}"))?;
    usize::try_from(value).map_err(|_| format!("`{name}` is {value}, which is too large"))
}

/// Attribute `name` as `count` integers from `least` on.
pub fn sizes<'a>(attrs: &'a Attrs, name: &str, count: usize, least: i64) -> Result<&'a [i64], String> {
    let values = attrs.ints(name);
    ensure(values.len() == count, || format!("`{name}` has {} numbers, but must have {count}", values.len()))?;
    ensure(values.iter().all(|&v| v >= least), || format!("`{name}` is {values:?}, but its numbers must be at least {least}"))?;
    Ok(values)
}

/// As [`sizes`], each small enough that sums and products of a few cannot overflow.
pub fn small_sizes<'a>(attrs: &'a Attrs, name: &str, count: usize, least: i64) -> Result<&'a [i64], String> {
    let values = sizes(attrs, name, count, least)?;
    ensure(values.iter().all(|&v| v <= LARGEST), || format!("`{name}` is {values:?}, which is too large"))?;
    Ok(values)
}

/// As [`size`], small enough for window arithmetic.
pub fn small_size(what: &str, size: usize) -> Result<i64, String> {
    i64::try_from(size).ok().filter(|&s| s <= LARGEST).ok_or_else(|| format!("{what} of {size} is too large"))
}
