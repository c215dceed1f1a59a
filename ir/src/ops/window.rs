//! Pooling, and the arithmetic of windows that slide over axes.

use super::check::{self, Types, ensure};
use super::data::{self, Number, Numbers, Results, Rows};
use crate::graph::{Attrs, OpDef};
use crate::kind::{Arity, AttrKind, Class, Kind};
use crate::tensor::Tensor;
use crate::types::{TensorType, Type};

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    OpDef {
        kind: Kind::MaxPool,
        doc: "Largest of each window of x [N, C, S…]; padding is −∞ (the lowest integer). `block` = b: x and result are packed [N, C/b, S…, b].",
        inputs: Arity::Exactly(1),
        attrs: &[
            ("kernel", AttrKind::Ints),
            ("strides", AttrKind::Ints),
            ("pads", AttrKind::Ints),
            ("dilations", AttrKind::Ints),
            ("block", AttrKind::Int(0)),
        ],
        class: Class::Compute,
        infer: |attrs, x| {
            check::number("the input", &x[0])?;
            pool(attrs, &x[0], x[0].ty, check::size(attrs, "block", 0)?, false)
        },
        eval: eval_max_pool,
        work: window_work,
    },
    OpDef {
        kind: Kind::ArgMaxPool,
        doc: "Where max_pool finds its maxima (the first of equals): indices (i64) into all of x [N, C, S…], counted row-major, or with the \
              spatial axes `column_major`.",
        inputs: Arity::Exactly(1),
        attrs: &[
            ("kernel", AttrKind::Ints),
            ("strides", AttrKind::Ints),
            ("pads", AttrKind::Ints),
            ("dilations", AttrKind::Ints),
            ("column_major", AttrKind::Int(0)),
        ],
        class: Class::Compute,
        infer: |attrs, x| {
            check::number("the input", &x[0])?;
            pool(attrs, &x[0], Type::I64, 0, false)
        },
        eval: eval_arg_max_pool,
        work: window_work,
    },
    OpDef {
        kind: Kind::AvgPool,
        doc: "Mean of each window of x [N, C, S…], over the elements of x only, or over `pads` too if `include_pad`. `extra`: more padding at \
              the end of each axis that is never counted; a window of nothing gives 0. `block` as max_pool.",
        inputs: Arity::Exactly(1),
        attrs: &[
            ("kernel", AttrKind::Ints),
            ("strides", AttrKind::Ints),
            ("pads", AttrKind::Ints),
            ("dilations", AttrKind::Ints),
            ("include_pad", AttrKind::Int(0)),
            ("extra", AttrKind::Ints),
            ("block", AttrKind::Int(0)),
        ],
        class: Class::Compute,
        infer: |attrs, x| {
            check::real("the input", &x[0])?;
            pool(attrs, &x[0], x[0].ty, check::size(attrs, "block", 0)?, true)
        },
        eval: eval_avg_pool,
        work: window_work,
    },
];

fn window_work(attrs: &Attrs, _: &[TensorType], y: &[TensorType]) -> u64 {
    attrs.ints("kernel").iter().fold(y[0].len() as u64, |n, &k| n.saturating_mul(k as u64))
}

/// The spatial sizes of x [N, C, S…], or of x [N, C/block, S…, block] when `block` is not 0.
pub fn spatial(x: &TensorType, block: usize) -> Result<&[usize], String> {
    let packed = usize::from(block > 0);
    check::rank_at_least("the input", x, 3 + packed)?;
    let end = x.rank() - packed;
    ensure(block == 0 || x.shape[end] == block, || format!("the last axis of {x} is not the block of {block}"))?;
    Ok(&x.shape[2..end])
}

/// Elements of the largest window that is pooled: more than any image has, few enough to be listed.
const LARGEST_WINDOW: i64 = 1 << 24;

/// How many positions a window takes along each axis; `strides`, `pads` and `dilations` are attributes, `extra` more padding at the ends.
pub fn positions(attrs: &Attrs, sizes: &[usize], kernel: &[i64], extra: Option<&[i64]>) -> Result<Vec<usize>, String> {
    let axes = sizes.len();
    let strides = check::small_sizes(attrs, "strides", axes, 1)?;
    let pads = check::small_sizes(attrs, "pads", 2 * axes, 0)?;
    let dilations = check::small_sizes(attrs, "dilations", axes, 1)?;
    let mut counts = Vec::with_capacity(axes);
    for i in 0..axes {
        let window = i128::from(kernel[i] - 1) * i128::from(dilations[i]) + 1;
        let size = check::small_size("an axis", sizes[i])? + pads[i] + pads[axes + i] + extra.map_or(0, |e| e[i]);
        let room = i128::from(size) - window;
        ensure(room >= 0, || format!("a window of {window} does not fit the {size} elements of spatial axis {i} with its padding"))?;
        counts.push((room / i128::from(strides[i])) as usize + 1);
    }
    Ok(counts)
}

fn pool(attrs: &Attrs, x: &TensorType, ty: Type, block: usize, has_extra: bool) -> Types {
    let sizes = spatial(x, block)?;
    let kernel = check::small_sizes(attrs, "kernel", sizes.len(), 1)?;
    let elements = kernel.iter().try_fold(1i64, |n, &k| n.checked_mul(k).filter(|&n| n <= LARGEST_WINDOW));
    ensure(elements.is_some(), || format!("a window of {kernel:?} is too large"))?;
    let extra = if has_extra { Some(check::small_sizes(attrs, "extra", sizes.len(), 0)?) } else { None };
    let counts = positions(attrs, sizes, kernel, extra)?;
    let mut shape = x.shape.clone();
    shape[2..2 + counts.len()].copy_from_slice(&counts);
    check::one(ty, shape)
}

/// An element of a kernel, and the box of window positions at which it meets an element rather than padding.
pub struct Tap {
    /// Number of positions along each axis.
    pub shape: Vec<usize>,
    /// The first position of the box.
    pub position: Vec<usize>,
    /// The element met there.
    pub element: Vec<usize>,
}

/// The taps of a kernel in row-major order. Position o of a window meets element o·stride + k·dilation − begin of `sizes`.
pub fn taps(kernel: &[usize], counts: &[usize], sizes: &[usize], strides: &[i64], begins: &[i64], dilations: &[i64]) -> Vec<Tap> {
    let axes = kernel.len();
    let mut taps = Vec::new();
    let mut k = vec![0; axes];
    for _ in 0..kernel.iter().product() {
        let mut tap = Tap { shape: vec![0; axes], position: vec![0; axes], element: vec![0; axes] };
        for i in 0..axes {
            let offset = k[i] as i64 * dilations[i] - begins[i];
            let first = (-offset).max(0).div_euclid(strides[i]) + i64::from((-offset).max(0) % strides[i] != 0);
            let last = (sizes[i] as i64 - 1 - offset).div_euclid(strides[i]).min(counts[i] as i64 - 1);
            tap.shape[i] = (last - first + 1).max(0) as usize;
            if tap.shape[i] > 0 {
                (tap.position[i], tap.element[i]) = (first as usize, (first * strides[i] + offset) as usize);
            }
        }
        taps.push(tap);
        // The next element of the kernel, row-major.
        for i in (0..axes).rev() {
            k[i] += 1;
            if k[i] < kernel[i] {
                break;
            }
            k[i] = 0;
        }
    }
    taps
}

/// A tap as a way through the positions and the elements it meets, with the offsets of the first ones.
pub fn way(tap: &Tap, positions: &[isize], elements: &[isize], strides: &[i64]) -> (Rows<2>, [isize; 2]) {
    let offset = |at: &[usize], steps: &[isize]| at.iter().zip(steps).map(|(&i, s)| i as isize * s).sum();
    let steps: Vec<isize> = elements.iter().zip(strides).map(|(e, &s)| e.wrapping_mul(s as isize)).collect();
    (Rows::new(&tap.shape, [positions, &steps]), [offset(&tap.position, positions), offset(&tap.element, elements)])
}

/// Pools each channel: `f` combines the result at a position with the element (by its offset) of each tap.
fn pool_planes<R: Copy>(attrs: &Attrs, x: &Tensor, shape: &[usize], block: usize, first: R, mut f: impl FnMut(R, usize) -> R) -> Vec<R> {
    let axes = attrs.ints("kernel").len();
    let [sizes, counts] = [&x.shape()[2..2 + axes], &shape[2..2 + axes]];
    let [from, to] = [data::strides(x.shape()), data::strides(shape)].map(|s| s[2..2 + axes].to_vec());
    let [strides, dilations] = [attrs.ints("strides"), attrs.ints("dilations")];
    let taps = taps(&attrs.sizes("kernel"), counts, sizes, strides, &attrs.ints("pads")[..axes], dilations);
    let ways: Vec<_> = taps.iter().map(|tap| way(tap, &to, &from, strides)).collect();
    let lanes = block.max(1);
    let [plane_in, plane_out]: [usize; 2] = [sizes, counts].map(|s| s.iter().product::<usize>() * lanes);
    let mut out = vec![first; shape.iter().product()];
    for plane in 0..x.shape()[0] * x.shape()[1] {
        for lane in 0..lanes {
            let [in0, out0] = [plane * plane_in + lane, plane * plane_out + lane];
            for (rows, [o, i]) in &ways {
                rows.each([out0 as isize + o, in0 as isize + i], &mut |[o, i], [step_o, step_i], n| {
                    for k in 0..n as isize {
                        let at = (o + k * step_o) as usize;
                        out[at] = f(out[at], (i + k * step_i) as usize);
                    }
                });
            }
        }
    }
    out
}

fn eval_max_pool(attrs: &Attrs, x: &[Tensor]) -> Results {
    let block = attrs.size("block");
    let (x, ty) = (&x[0], pool(attrs, x[0].ty(), x[0].ty().ty, block, false)?.remove(0));
    Ok(vec![match data::numbers(x) {
        Numbers::Reals(v) => {
            data::from_reals(&ty, &pool_planes(attrs, x, &ty.shape, block, f64::lowest(ty.ty), |most, i| most.larger(v[i])))
        }
        Numbers::Ints(v) => {
            data::from_ints(&ty, &pool_planes(attrs, x, &ty.shape, block, i128::lowest(ty.ty), |most, i| most.larger(v[i])))
        }
    }])
}

fn eval_arg_max_pool(attrs: &Attrs, x: &[Tensor]) -> Results {
    let (x, ty) = (&x[0], pool(attrs, x[0].ty(), Type::I64, 0, false)?.remove(0));
    fn positions<N: Number>(attrs: &Attrs, x: &Tensor, shape: &[usize], values: &[N]) -> Vec<Option<usize>> {
        pool_planes(attrs, x, shape, 0, None, |best: Option<usize>, i| match best {
            Some(b) if values[b].nan() || !(values[i] > values[b] || values[i].nan()) => best,
            _ => Some(i),
        })
    }
    let found = match data::numbers(x) {
        Numbers::Reals(v) => positions(attrs, x, &ty.shape, &v),
        Numbers::Ints(v) => positions(attrs, x, &ty.shape, &v),
    };
    let sizes = &x.shape()[2..];
    let plane: usize = sizes.iter().product();
    let in_columns = |i: usize| {
        // Coordinates of the plane from the last axis on; the first axis then is the fastest.
        let (mut rest, mut coordinates) = (i % plane, vec![0; sizes.len()]);
        for axis in (0..sizes.len()).rev() {
            (coordinates[axis], rest) = (rest % sizes[axis], rest / sizes[axis]);
        }
        i / plane * plane + coordinates.iter().zip(sizes).rev().fold(0, |at, (&c, &size)| at * size + c)
    };
    let column_major = attrs.flag("column_major");
    // A window of padding only has no maximum: −1.
    let index = |i: Option<usize>| i.map_or(-1, |i| if column_major { in_columns(i) as i64 } else { i as i64 });
    Ok(vec![Tensor::with_type(ty, &found.into_iter().map(index).collect::<Vec<_>>())])
}

fn eval_avg_pool(attrs: &Attrs, x: &[Tensor]) -> Results {
    let block = attrs.size("block");
    let (x, ty) = (&x[0], pool(attrs, x[0].ty(), x[0].ty().ty, block, true)?.remove(0));
    let values = x.to_f64s();
    let mut sums = pool_planes(attrs, x, &ty.shape, block, (0.0, 0.0), |(sum, count), i| (sum + values[i], count + 1.0));
    if attrs.flag("include_pad") {
        // What counts are the positions inside of the padded axes: pool a tensor that is that large.
        let axes = attrs.ints("kernel").len();
        let sizes: Vec<usize> = (0..axes).map(|i| x.shape()[2 + i] + attrs.sizes("pads")[i] + attrs.sizes("pads")[axes + i]).collect();
        let counts = &ty.shape[2..2 + axes];
        let to = data::strides(counts);
        let mut counted = vec![0.0; counts.iter().product()];
        for tap in taps(&attrs.sizes("kernel"), counts, &sizes, attrs.ints("strides"), &vec![0; axes], attrs.ints("dilations")) {
            let (rows, [at, _]) = way(&tap, &to, &vec![0; axes], attrs.ints("strides"));
            rows.each([at, 0], &mut |[at, _], [step, _], n| (0..n as isize).for_each(|k| counted[(at + k * step) as usize] += 1.0));
        }
        let lanes = block.max(1);
        sums.iter_mut().enumerate().for_each(|(i, (_, count))| *count = counted[i / lanes % counted.len()]);
    }
    let means: Vec<f64> = sums.into_iter().map(|(sum, count)| if count > 0.0 { sum / count } else { 0.0 }).collect();
    Ok(vec![data::from_reals(&ty, &means)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;
    use crate::graph::Op;

    fn attrs(kernel: &[i64], strides: &[i64], pads: &[i64], dilations: &[i64]) -> Vec<(&'static str, Attr)> {
        let ints = |v: &[i64]| Attr::Ints(v.to_vec());
        vec![("kernel", ints(kernel)), ("strides", ints(strides)), ("pads", ints(pads)), ("dilations", ints(dilations))]
    }

    fn run(kind: Kind, attrs: Vec<(&'static str, Attr)>, x: &Tensor) -> Tensor {
        crate::eval::eval_op(&Op::new(kind, attrs).expect("attributes"), std::slice::from_ref(x)).expect("an answer").remove(0)
    }

    fn count(shape: &[usize]) -> Tensor {
        Tensor::new(shape, &(1..=shape.iter().product::<usize>()).map(|v| v as f32).collect::<Vec<_>>())
    }

    #[test]
    fn largest_of_each_window() {
        // From the examples of ONNX MaxPool: 5×5 with same padding, and 4×4 with dilations.
        let y = run(Kind::MaxPool, attrs(&[5, 5], &[1, 1], &[2, 2, 2, 2], &[1, 1]), &count(&[1, 1, 5, 5]));
        assert_eq!(y.values::<f32>()[..10], [13.0, 14.0, 15.0, 15.0, 15.0, 18.0, 19.0, 20.0, 20.0, 20.0]);
        let y = run(Kind::MaxPool, attrs(&[2, 2], &[1, 1], &[0; 4], &[2, 2]), &count(&[1, 1, 4, 4]));
        assert_eq!(y, Tensor::new([1, 1, 2, 2], &[11f32, 12.0, 15.0, 16.0]));
        let negative = Tensor::new([1, 1, 2], &[-5i8, -128]);
        let y = run(Kind::MaxPool, attrs(&[2], &[1], &[1, 1], &[1]), &negative);
        assert_eq!(y.values::<i8>(), [-5, -5, -128]);
    }

    #[test]
    fn where_the_largest_is() {
        let x = Tensor::new([1, 2, 2, 3], &[1f32, 9.0, 9.0, 4.0, 5.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 7.0]);
        let window = attrs(&[2, 2], &[1, 1], &[0; 4], &[1, 1]);
        let rows = run(Kind::ArgMaxPool, window.clone(), &x);
        assert_eq!(rows, Tensor::new([1, 2, 1, 2], &[1i64, 1, 6, 11]));
        // Position (0, 1) of a 2×3 plane is element 2 by columns, (1, 2) is 5.
        let columns = run(Kind::ArgMaxPool, [window, vec![("column_major", Attr::Int(1))]].concat(), &x);
        assert_eq!(columns.values::<i64>(), [2, 2, 6, 11]);
    }

    #[test]
    fn what_an_average_counts() {
        let x = Tensor::new([1, 1, 3], &[3f32, 6.0, 9.0]);
        let of = |include: i64, pads: &[i64], extra: i64, stride: i64| {
            let more = vec![("include_pad", Attr::Int(include)), ("extra", Attr::Ints(vec![extra]))];
            run(Kind::AvgPool, [attrs(&[2], &[stride], pads, &[1]), more].concat(), &x).values::<f32>().to_vec()
        };
        assert_eq!(of(0, &[1, 0], 0, 1), [3.0, 4.5, 7.5]);
        assert_eq!(of(1, &[1, 0], 0, 1), [1.5, 4.5, 7.5]);
        assert_eq!(of(1, &[0, 0], 1, 2), [4.5, 9.0]);
        assert_eq!(of(1, &[0, 1], 0, 2), [4.5, 4.5]);
        assert_eq!(of(0, &[0, 0], 3, 1), [4.5, 7.5, 9.0, 0.0, 0.0]);
    }

    #[test]
    fn packed_channels_are_pooled_alike() {
        let x = Tensor::new([1, 3, 4, 4], &(0..48).map(|v| (v * 7 % 13) as f32).collect::<Vec<_>>());
        let axis = [("axis", Attr::Int(1)), ("block", Attr::Int(2))];
        let packed = run(Kind::Pack, axis.to_vec(), &x);
        let extra = ("extra", Attr::Ints(vec![1, 0]));
        for (kind, more) in [(Kind::MaxPool, vec![]), (Kind::AvgPool, vec![extra, ("include_pad", Attr::Int(1))])] {
            let window = [attrs(&[3, 2], &[2, 1], &[1, 0, 1, 1], &[1, 2]), more].concat();
            let plain = run(kind, window.clone(), &x);
            let y = run(kind, [window, vec![("block", Attr::Int(2))]].concat(), &packed);
            let back = run(Kind::Unpack, [axis.to_vec(), vec![("size", Attr::Int(3))]].concat(), &y);
            assert_eq!(back, plain, "{}", kind.name());
        }
    }
}
