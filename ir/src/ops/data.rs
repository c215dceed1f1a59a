//! How the reference evaluator reads and writes elements: floats as `f64`, integers and bools as `i128`, boxes of elements row by row.

use crate::float8;
use crate::tensor::Tensor;
use crate::types::{TensorType, Type};
use bytemuck::Pod;

/// What a reference answers.
pub type Results = Result<Vec<Tensor>, String>;

/// Elements in a type wide enough for all of their kind.
pub enum Numbers {
    /// Elements of a float type.
    Reals(Vec<f64>),
    /// Elements of an integer type, or bools as 0 and 1.
    Ints(Vec<i128>),
}

/// Runs the body with `$T` as the Rust type that holds an integer or bool of type `$ty`.
macro_rules! with_int {
    ($ty:expr, $T:ident => $body:expr) => {{
        use crate::types::Type;
        match $ty {
            Type::I2 | Type::I4 | Type::I8 => {
                type $T = i8;
                $body
            }
            Type::I16 => {
                type $T = i16;
                $body
            }
            Type::I32 => {
                type $T = i32;
                $body
            }
            Type::I64 => {
                type $T = i64;
                $body
            }
            Type::Bool | Type::U2 | Type::U4 | Type::U8 => {
                type $T = u8;
                $body
            }
            Type::U16 => {
                type $T = u16;
                $body
            }
            Type::U32 => {
                type $T = u32;
                $body
            }
            Type::U64 => {
                type $T = u64;
                $body
            }
            other => unreachable!("{other} is not an integer"),
        }
    }};
}
pub(super) use with_int;

/// Runs the body with `$T` as an unsigned Rust type of the width of elements of `$ty`: for elements that are only moved.
macro_rules! with_bits {
    ($ty:expr, $T:ident => $body:expr) => {
        match $ty.bytes() {
            1 => {
                type $T = u8;
                $body
            }
            2 => {
                type $T = u16;
                $body
            }
            4 => {
                type $T = u32;
                $body
            }
            _ => {
                type $T = u64;
                $body
            }
        }
    };
}
pub(super) use with_bits;

/// A tensor of the float type `ty` from f16 on, each value rounded once.
pub fn from_reals(ty: &TensorType, values: &[f64]) -> Tensor {
    match ty.ty {
        Type::F64 => Tensor::with_type(ty.clone(), values),
        Type::F32 => Tensor::with_type(ty.clone(), &values.iter().map(|&v| v as f32).collect::<Vec<_>>()),
        small => Tensor::with_type(ty.clone(), &values.iter().map(|&v| float8::encode(small, v, false) as u16).collect::<Vec<_>>()),
    }
}

/// The elements of a tensor of an integer type, or bools as 0 and 1.
pub fn ints(x: &Tensor) -> Vec<i128> {
    with_int!(x.ty().ty, T => x.values::<T>().iter().map(|&v| v as i128).collect())
}

/// A tensor of the integer type `ty` of at least 8 bits, or of bools; values wrap.
pub fn from_ints(ty: &TensorType, values: &[i128]) -> Tensor {
    with_int!(ty.ty, T => Tensor::with_type(ty.clone(), &values.iter().map(|&v| v as T).collect::<Vec<_>>()))
}

/// The elements of a tensor.
pub fn numbers(x: &Tensor) -> Numbers {
    if x.ty().ty.is_float() { Numbers::Reals(x.to_f64s()) } else { Numbers::Ints(ints(x)) }
}

/// The elements of a tensor of i64, as indices of other tensors are.
pub fn i64s(x: &Tensor) -> &[i64] {
    x.values::<i64>()
}

/// The elements of a tensor of bools.
pub fn bools(x: &Tensor) -> impl Iterator<Item = bool> {
    x.values::<u8>().iter().map(|&v| v != 0)
}

/// Floats and integers, as far as the reference treats them alike.
pub trait Number: Copy + PartialOrd + 'static {
    /// The neutral element of addition.
    const ZERO: Self;
    /// The neutral element of multiplication.
    const ONE: Self;
    /// Sum; integers wrap.
    fn plus(self, other: Self) -> Self;
    /// Product; integers wrap.
    fn times(self, other: Self) -> Self;
    /// Whether it is no number.
    fn nan(self) -> bool;
    /// The least value of an element type: what a maximum starts with.
    fn lowest(ty: Type) -> Self;
    /// The largest value of an element type.
    fn highest(ty: Type) -> Self;

    /// The larger one; NaN if one is.
    fn larger(self, other: Self) -> Self {
        if self.nan() || self > other { self } else { other }
    }

    /// The smaller one; NaN if one is.
    fn smaller(self, other: Self) -> Self {
        if self.nan() || self < other { self } else { other }
    }
}

impl Number for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    fn plus(self, other: f64) -> f64 {
        self + other
    }
    fn times(self, other: f64) -> f64 {
        self * other
    }
    fn nan(self) -> bool {
        self.is_nan()
    }
    fn lowest(_: Type) -> f64 {
        f64::NEG_INFINITY
    }
    fn highest(_: Type) -> f64 {
        f64::INFINITY
    }
}

impl Number for i128 {
    const ZERO: i128 = 0;
    const ONE: i128 = 1;
    fn plus(self, other: i128) -> i128 {
        self.wrapping_add(other)
    }
    fn times(self, other: i128) -> i128 {
        self.wrapping_mul(other)
    }
    fn nan(self) -> bool {
        false
    }
    fn lowest(ty: Type) -> i128 {
        ty.range().expect("integers have a range")[0]
    }
    fn highest(ty: Type) -> i128 {
        ty.range().expect("integers have a range")[1]
    }
}

/// Integers of at most 64 bits, wrapped: for sums of products, of which only the low bits are kept.
impl Number for i64 {
    const ZERO: i64 = 0;
    const ONE: i64 = 1;
    fn plus(self, other: i64) -> i64 {
        self.wrapping_add(other)
    }
    fn times(self, other: i64) -> i64 {
        self.wrapping_mul(other)
    }
    fn nan(self) -> bool {
        false
    }
    fn lowest(_: Type) -> i64 {
        i64::MIN
    }
    fn highest(_: Type) -> i64 {
        i64::MAX
    }
}

/// Applies one of two functions to the elements of `x`: to keep floats and integers apart in one line.
pub fn map(x: &Tensor, ty: &TensorType, real: impl Fn(f64) -> f64, int: impl Fn(i128) -> i128) -> Tensor {
    match numbers(x) {
        Numbers::Reals(mut v) => {
            v.iter_mut().for_each(|v| *v = real(*v));
            from_reals(ty, &v)
        }
        Numbers::Ints(mut v) => {
            v.iter_mut().for_each(|v| *v = int(*v));
            from_ints(ty, &v)
        }
    }
}

/// Iteration over a box of elements of `N` arrays at once: sizes, and strides of each array.
pub struct Rows<const N: usize> {
    /// Outer axes with their strides, outermost first.
    outer: Vec<(usize, [isize; N])>,
    count: usize,
    steps: [isize; N],
}

impl<const N: usize> Rows<N> {
    /// Iteration over a box of `shape`; axes that are contiguous in all arrays are merged, so that rows are long.
    pub fn new(shape: &[usize], strides: [&[isize]; N]) -> Rows<N> {
        let mut outer: Vec<(usize, [isize; N])> = Vec::with_capacity(shape.len());
        for (axis, &size) in shape.iter().enumerate().filter(|&(_, &size)| size != 1) {
            let step = strides.map(|s| s[axis]);
            match outer.last_mut() {
                Some((n, last)) if (0..N).all(|i| last[i] == step[i].wrapping_mul(size as isize)) => (*n, *last) = (*n * size, step),
                _ => outer.push((size, step)),
            }
        }
        let (count, steps) = outer.pop().unwrap_or((1, [1; N]));
        Rows { outer, count, steps }
    }

    /// Calls `visit` with the offsets of the first element, the steps and the number of elements of each row, in row-major order.
    pub fn each(&self, starts: [isize; N], visit: &mut impl FnMut([isize; N], [isize; N], usize)) {
        if self.count > 0 && self.outer.iter().all(|&(n, _)| n > 0) {
            self.visit(&self.outer, starts, visit);
        }
    }

    fn visit(&self, axes: &[(usize, [isize; N])], mut at: [isize; N], visit: &mut impl FnMut([isize; N], [isize; N], usize)) {
        let Some(((size, steps), inner)) = axes.split_first() else { return visit(at, self.steps, self.count) };
        for _ in 0..*size {
            self.visit(inner, at, visit);
            for i in 0..N {
                at[i] += steps[i];
            }
        }
    }
}

/// Row-major strides of a shape.
pub fn strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis] as isize;
    }
    strides
}

/// Strides of an array of `shape` seen as one of the shape `out` that it broadcasts to.
pub fn broadcast_strides(shape: &[usize], out: &[usize]) -> Vec<isize> {
    let mut seen = vec![0; out.len()];
    let skip = out.len() - shape.len();
    for (axis, stride) in strides(shape).into_iter().enumerate() {
        seen[skip + axis] = if shape[axis] == 1 { 0 } else { stride };
    }
    seen
}

/// The elements of a strided box of `x`, row-major.
pub fn collect<T: Copy>(x: &[T], shape: &[usize], strides: &[isize], start: isize) -> Vec<T> {
    let mut out = Vec::with_capacity(shape.iter().product());
    Rows::new(shape, [strides]).each([start], &mut |[at], [step], n| {
        out.extend((0..n as isize).map(|k| x[(at + k * step) as usize]));
    });
    out
}

/// Combines elements of `a` and `b`, each with its strides in the box `shape`.
pub fn zip<A: Copy, B: Copy, R>(shape: &[usize], a: (&[A], &[isize]), b: (&[B], &[isize]), mut f: impl FnMut(A, B) -> R) -> Vec<R> {
    let mut out = Vec::with_capacity(shape.iter().product());
    Rows::new(shape, [a.1, b.1]).each([0, 0], &mut |[i, j], [di, dj], n| {
        out.extend((0..n as isize).map(|k| f(a.0[(i + k * di) as usize], b.0[(j + k * dj) as usize])));
    });
    out
}

/// An axis of a row-major array as three loops: element (o, i, k) is stored at (o·size + i)·inner + k.
#[derive(Clone, Copy)]
pub struct Lanes {
    pub outer: usize,
    pub size: usize,
    pub inner: usize,
}

impl Lanes {
    pub fn new(shape: &[usize], axis: usize) -> Lanes {
        Lanes { outer: shape[..axis].iter().product(), size: shape[axis], inner: shape[axis + 1..].iter().product() }
    }

    /// For each lane along the axis, in order, the position of its first element; the others follow in steps of `inner`.
    pub fn starts(self) -> impl Iterator<Item = usize> {
        (0..self.outer).flat_map(move |o| (0..self.inner).map(move |k| o * self.size * self.inner + k))
    }
}

/// The slices `indices` of `x` along `axis`, in that order.
pub fn take(x: &Tensor, axis: usize, indices: &[usize]) -> Tensor {
    let lanes = Lanes::new(x.shape(), axis);
    let mut shape = x.shape().to_vec();
    shape[axis] = indices.len();
    let ty = TensorType::new(x.ty().ty, shape);
    with_bits!(x.ty().ty, T => {
        let from = x.values::<T>();
        let mut to: Vec<T> = Vec::with_capacity(ty.len());
        for o in 0..lanes.outer {
            for &i in indices {
                let at = (o * lanes.size + i) * lanes.inner;
                to.extend_from_slice(&from[at..at + lanes.inner]);
            }
        }
        Tensor::with_type(ty, &to)
    })
}

/// A checked index into `size` elements; a negative one counts from the end.
pub fn index(i: i64, size: usize) -> Result<usize, String> {
    let from_start = if i < 0 { i128::from(i) + size as i128 } else { i128::from(i) };
    usize::try_from(from_start).ok().filter(|&i| i < size).ok_or_else(|| format!("index {i} is out of range for {size} elements"))
}

/// Copies the box `x` of `shape` into `out` at `start` with `strides`.
pub fn copy_box<T: Pod>(out: &mut [T], strides_out: &[isize], start: isize, x: &[T], strides_x: &[isize], shape: &[usize]) {
    Rows::new(shape, [strides_out, strides_x]).each([start, 0], &mut |[o, i], [step_o, step_i], n| {
        for k in 0..n as isize {
            out[(o + k * step_o) as usize] = x[(i + k * step_i) as usize];
        }
    });
}

/// Tensors one after the other along an axis.
pub fn join(parts: &[Tensor], axis: usize) -> Tensor {
    let mut shape = parts[0].shape().to_vec();
    shape[axis] = parts.iter().map(|x| x.shape()[axis]).sum();
    let to = strides(&shape);
    let ty = TensorType::new(parts[0].ty().ty, shape);
    with_bits!(ty.ty, T => {
        let mut out = vec![T::default(); ty.len()];
        let mut start = 0;
        for part in parts {
            copy_box(&mut out, &to, start, part.values::<T>(), &strides(part.shape()), part.shape());
            start += part.shape()[axis] as isize * to[axis];
        }
        Tensor::with_type(ty, &out)
    })
}

/// Elements of `x` at `indices` of `shape` along `axis`, the other coordinates being their own.
pub fn take_elements(x: &Tensor, shape: &[usize], indices: &[i64], axis: usize) -> Result<Tensor, String> {
    let offsets = element_offsets(x.shape(), shape, indices, axis)?;
    let ty = TensorType::new(x.ty().ty, shape);
    with_bits!(x.ty().ty, T => {
        let from = x.values::<T>();
        let elements: Vec<T> = offsets.into_iter().map(|p| from[p]).collect();
        Ok(Tensor::with_type(ty, &elements))
    })
}

/// Offsets in a tensor of shape `size` of the elements whose coordinate along `axis` is given by `indices` of `shape`.
pub fn element_offsets(size: &[usize], shape: &[usize], indices: &[i64], axis: usize) -> Result<Vec<usize>, String> {
    let mut steps = strides(size);
    let stride = std::mem::replace(&mut steps[axis], 0) as usize;
    offsets(shape, &steps).into_iter().zip(indices).map(|(at, &i)| Ok(index(i, size[axis])? * stride + at)).collect()
}

/// Offsets of the elements of a box, row-major; strides must not be negative.
pub fn offsets(shape: &[usize], strides: &[isize]) -> Vec<usize> {
    let mut offsets = Vec::with_capacity(shape.iter().product());
    Rows::new(shape, [strides]).each([0], &mut |[at], [step], n| offsets.extend((0..n as isize).map(|k| (at + k * step) as usize)));
    offsets
}
