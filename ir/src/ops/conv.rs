//! Convolutions.

use super::check::{self, Types, ensure};
use super::data::{self, Number, Results};
use super::linear::{from_low_bits, low_bits, product_type};
use super::window::{positions, spatial, taps, way};
use super::work::product;
use crate::graph::{Attrs, OpDef};
use crate::kind::{Arity, AttrKind, Class, Kind};
use crate::tensor::Tensor;
use crate::types::TensorType;

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    OpDef {
        kind: Kind::Conv,
        doc: "Convolution of x [N, C, S…] with w [O, C/groups, K…], plus bias [O] → [N, O, …]. i8, u8, i16 and i32 (also mixed) give i32. \
              `block` = b: x and result are packed [N, C/b, S…, b], w stays as it is.",
        inputs: Arity::Between(2, 3),
        attrs: &[
            ("strides", AttrKind::Ints),
            ("pads", AttrKind::Ints),
            ("dilations", AttrKind::Ints),
            ("groups", AttrKind::Int(1)),
            ("block", AttrKind::Int(0)),
        ],
        class: Class::Compute,
        infer: conv,
        eval: eval_conv,
        work: |_, x, y| product(&[y[0].len()]).saturating_mul(product(&x[1].shape[1..])),
    },
    OpDef {
        kind: Kind::ConvTranspose,
        doc: "Transposed convolution: element i of x [N, C, S…] adds w [C, O/groups, K…] to the result at i·stride + k·dilation − pad, \
              plus bias [O] → [N, O, …].",
        inputs: Arity::Between(2, 3),
        attrs: &[
            ("strides", AttrKind::Ints),
            ("pads", AttrKind::Ints),
            ("dilations", AttrKind::Ints),
            ("output_padding", AttrKind::Ints),
            ("groups", AttrKind::Int(1)),
        ],
        class: Class::Compute,
        infer: conv_transpose,
        eval: eval_conv_transpose,
        work: |_, x, _| product(&[x[0].len()]).saturating_mul(product(&x[1].shape[1..])),
    },
];

/// The kernel sizes of weights `w`, checked.
fn kernel(w: &TensorType, axes: usize) -> Result<Vec<i64>, String> {
    check::rank("the weights", w, axes + 2)?;
    ensure(!w.is_empty(), || format!("the weights {w} are empty"))?;
    w.shape[2..].iter().map(|&k| check::small_size("a kernel", k)).collect()
}

fn bias(x: &[TensorType], result: &TensorType, channels: usize) -> Result<(), String> {
    x.get(2).map_or(Ok(()), |b| check::is_exactly("the bias", b, result.ty, &[channels]))
}

fn conv(attrs: &Attrs, inputs: &[TensorType]) -> Types {
    let [x, w] = [&inputs[0], &inputs[1]];
    let ty = product_type(x, w)?;
    let block = check::size(attrs, "block", 0)?;
    let groups = check::size(attrs, "groups", 1)?;
    let sizes = spatial(x, block)?;
    let kernel = kernel(w, sizes.len())?;
    let channels = w.shape[1].checked_mul(groups);
    let fits = channels.is_some_and(|c| x.shape[1] == if block > 0 { c.div_ceil(block) } else { c });
    ensure(fits, || format!("the channels of {x} are not the {} of {w} times {groups} groups", w.shape[1]))?;
    let outputs = w.shape[0];
    ensure(outputs.is_multiple_of(groups), || format!("the {outputs} outputs of {w} do not divide into {groups} groups"))?;
    let counts = positions(attrs, sizes, &kernel, None)?;
    let mut shape = x.shape.clone();
    shape[1] = if block > 0 { outputs.div_ceil(block) } else { outputs };
    shape[2..2 + counts.len()].copy_from_slice(&counts);
    let y = TensorType::checked(ty, shape)?;
    bias(inputs, &y, outputs)?;
    Ok(vec![y])
}

fn conv_transpose(attrs: &Attrs, inputs: &[TensorType]) -> Types {
    let [x, w] = [&inputs[0], &inputs[1]];
    check::real("the input", x)?;
    check::same_type(x, w)?;
    let groups = check::size(attrs, "groups", 1)?;
    let sizes = spatial(x, 0)?;
    let axes = sizes.len();
    let kernel = kernel(w, axes)?;
    ensure(w.shape[0] == x.shape[1], || format!("the channels of {x} are not the {} of {w}", w.shape[0]))?;
    ensure(x.shape[1].is_multiple_of(groups), || format!("the channels of {x} do not divide into {groups} groups"))?;
    let outputs = w.shape[1].checked_mul(groups).ok_or_else(|| format!("{groups} groups of {w} are too many"))?;
    let strides = check::small_sizes(attrs, "strides", axes, 1)?;
    let pads = check::small_sizes(attrs, "pads", 2 * axes, 0)?;
    let dilations = check::small_sizes(attrs, "dilations", axes, 1)?;
    let extra = check::small_sizes(attrs, "output_padding", axes, 0)?;
    let mut shape = x.shape.clone();
    shape[1] = outputs;
    for i in 0..axes {
        let size = check::small_size("an axis", sizes[i])?;
        ensure(size > 0, || format!("spatial axis {i} of {x} is empty"))?;
        let full = i128::from(size - 1) * i128::from(strides[i]) + i128::from(kernel[i] - 1) * i128::from(dilations[i]) + 1;
        let kept = full + i128::from(extra[i]) - i128::from(pads[i] + pads[axes + i]);
        ensure(kept >= 0, || format!("the padding of spatial axis {i} is larger than its {full} elements"))?;
        shape[2 + i] = usize::try_from(kept).map_err(|_| format!("spatial axis {i} would be too large"))?;
    }
    let y = TensorType::checked(x.ty, shape)?;
    bias(inputs, &y, outputs)?;
    Ok(vec![y])
}

/// What element (plane p, channel of its block) of a tensor packed in blocks of `block` starts at: the planes of a channel.
fn plane_start(channel: usize, channels_or_blocks: usize, image: usize, plane: usize, block: usize) -> isize {
    let lanes = block.max(1);
    (((image * channels_or_blocks + channel / lanes) * plane) * lanes + channel % lanes) as isize
}

/// The sums of products of a convolution, whose result has `shape`.
fn convolve<N: Number>(attrs: &Attrs, x: &Tensor, w: &Tensor, shape: &[usize], values: &[N], weights: &[N], bias: Option<&[N]>) -> Vec<N> {
    let [block, groups] = [attrs.size("block"), attrs.size("groups")];
    let axes = w.shape().len() - 2;
    let kernel = &w.shape()[2..];
    let [sizes, counts] = [&x.shape()[2..2 + axes], &shape[2..2 + axes]];
    let [from, to] = [data::strides(x.shape()), data::strides(shape)].map(|s| s[2..2 + axes].to_vec());
    let strides = attrs.ints("strides");
    let taps = taps(kernel, counts, sizes, strides, &attrs.ints("pads")[..axes], attrs.ints("dilations"));
    let ways: Vec<_> = taps.iter().map(|tap| way(tap, &to, &from, strides)).collect();
    let [plane_in, plane_out]: [usize; 2] = [sizes, counts].map(|s| s.iter().product());
    let [outputs, channels] = [w.shape()[0], w.shape()[1]];
    let mut out = vec![N::ZERO; shape.iter().product()];
    for image in 0..x.shape()[0] {
        for o in 0..outputs {
            let out0 = plane_start(o, shape[1], image, plane_out, block);
            if let Some(bias) = bias {
                let lanes = block.max(1);
                (0..plane_out).for_each(|i| out[out0 as usize + i * lanes] = bias[o]);
            }
            for c in 0..channels {
                let in0 = plane_start(o / (outputs / groups) * channels + c, x.shape()[1], image, plane_in, block);
                let kernel = &weights[(o * channels + c) * ways.len()..];
                for ((rows, [first_out, first_in]), &weight) in ways.iter().zip(kernel) {
                    rows.each([out0 + first_out, in0 + first_in], &mut |at, steps, n| add_scaled(&mut out, values, weight, at, steps, n));
                }
            }
        }
    }
    out
}

/// out[o + k·step] += weight · values[i + k·step], for k < n.
fn add_scaled<N: Number>(out: &mut [N], values: &[N], weight: N, [o, i]: [isize; 2], [step_o, step_i]: [isize; 2], n: usize) {
    if step_o == 1 && step_i == 1 {
        let row = &mut out[o as usize..o as usize + n];
        return row.iter_mut().zip(&values[i as usize..]).for_each(|(y, &v)| *y = y.plus(weight.times(v)));
    }
    for k in 0..n as isize {
        let y = &mut out[(o + k * step_o) as usize];
        *y = y.plus(weight.times(values[(i + k * step_i) as usize]));
    }
}

fn eval_conv(attrs: &Attrs, inputs: &[Tensor]) -> Results {
    let types: Vec<TensorType> = inputs.iter().map(|x| x.ty().clone()).collect();
    let ty = conv(attrs, &types)?.remove(0);
    let [x, w] = [&inputs[0], &inputs[1]];
    Ok(vec![match ty.ty.is_float() {
        true => {
            let bias = inputs.get(2).map(Tensor::to_f64s);
            data::from_reals(&ty, &convolve(attrs, x, w, &ty.shape, &x.to_f64s(), &w.to_f64s(), bias.as_deref()))
        }
        false => {
            let bias = inputs.get(2).map(low_bits);
            from_low_bits(&ty, &convolve(attrs, x, w, &ty.shape, &low_bits(x), &low_bits(w), bias.as_deref()))
        }
    }])
}

fn eval_conv_transpose(attrs: &Attrs, inputs: &[Tensor]) -> Results {
    let types: Vec<TensorType> = inputs.iter().map(|x| x.ty().clone()).collect();
    let ty = conv_transpose(attrs, &types)?.remove(0);
    let [x, w] = [&inputs[0], &inputs[1]];
    let bias = inputs.get(2).map(Tensor::to_f64s);
    let (values, weights) = (x.to_f64s(), w.to_f64s());
    let axes = w.shape().len() - 2;
    let [sizes, counts] = [&x.shape()[2..], &ty.shape[2..]];
    let [from, to] = [data::strides(sizes), data::strides(counts)];
    let strides = attrs.ints("strides");
    // A convolution read backwards: elements of x are the positions, elements of the result are what the kernel meets.
    let taps = taps(&w.shape()[2..], sizes, counts, strides, &attrs.ints("pads")[..axes], attrs.ints("dilations"));
    let ways: Vec<_> = taps.iter().map(|tap| way(tap, &from, &to, strides)).collect();
    let [plane_in, plane_out]: [usize; 2] = [sizes, counts].map(|s| s.iter().product());
    let [channels, of_group, outputs] = [w.shape()[0], w.shape()[1], ty.shape[1]];
    let mut out = vec![0.0; ty.len()];
    for image in 0..x.shape()[0] {
        for o in 0..outputs {
            let out0 = (image * outputs + o) * plane_out;
            if let Some(bias) = &bias {
                out[out0..out0 + plane_out].fill(bias[o]);
            }
            let of_channel = channels / (outputs / of_group);
            for c in o / of_group * of_channel..(o / of_group + 1) * of_channel {
                let in0 = (image * channels + c) * plane_in;
                let kernel = &weights[(c * of_group + o % of_group) * ways.len()..];
                for ((rows, [first_in, first_out]), &weight) in ways.iter().zip(kernel) {
                    let starts = [in0 as isize + first_in, out0 as isize + first_out];
                    rows.each(starts, &mut |[i, o], [step_i, step_o], n| {
                        add_scaled(&mut out, &values, weight, [o, i], [step_o, step_i], n)
                    });
                }
            }
        }
    }
    Ok(vec![data::from_reals(&ty, &out)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;
    use crate::graph::Op;

    fn ints(v: &[i64]) -> Attr {
        Attr::Ints(v.to_vec())
    }

    fn run(kind: Kind, attrs: Vec<(&'static str, Attr)>, x: &[Tensor]) -> Tensor {
        crate::eval::eval_op(&Op::new(kind, attrs).expect("attributes"), x).expect("an answer").remove(0)
    }

    fn window(strides: &[i64], pads: &[i64], dilations: &[i64]) -> Vec<(&'static str, Attr)> {
        vec![("strides", ints(strides)), ("pads", ints(pads)), ("dilations", ints(dilations))]
    }

    fn count(shape: &[usize]) -> Tensor {
        Tensor::new(shape, &(0..shape.iter().product::<usize>()).map(|v| v as f32).collect::<Vec<_>>())
    }

    /// Small integers in no order.
    fn noise(shape: &[usize], seed: usize) -> Tensor {
        Tensor::new(shape, &(0..shape.iter().product::<usize>()).map(|v| ((v * 7919 + seed) % 23) as f32 - 11.0).collect::<Vec<_>>())
    }

    /// A convolution by its definition, a result at a time, for two spatial axes.
    fn by_definition(x: &Tensor, w: &Tensor, [stride, pad, dilation]: [usize; 3], groups: usize) -> Vec<f32> {
        let [n, c, h, wide] = [0, 1, 2, 3].map(|i| x.shape()[i]);
        let [o, cg, kh, kw] = [0, 1, 2, 3].map(|i| w.shape()[i]);
        let size = |s: usize, k: usize| (s + 2 * pad - ((k - 1) * dilation + 1)) / stride + 1;
        let mut y = vec![];
        for (image, out) in (0..n).flat_map(|i| (0..o).map(move |o| (i, o))) {
            for (row, column) in (0..size(h, kh)).flat_map(|r| (0..size(wide, kw)).map(move |c| (r, c))) {
                let mut sum = 0.0;
                for (ch, ky, kx) in (0..cg).flat_map(|c| (0..kh).flat_map(move |y| (0..kw).map(move |x| (c, y, x)))) {
                    let (iy, ix) = (row * stride + ky * dilation, column * stride + kx * dilation);
                    if iy >= pad && ix >= pad && iy - pad < h && ix - pad < wide {
                        let channel = out / (o / groups) * cg + ch;
                        sum += x.values::<f32>()[((image * c + channel) * h + iy - pad) * wide + ix - pad]
                            * w.values::<f32>()[((out * cg + ch) * kh + ky) * kw + kx];
                    }
                }
                y.push(sum);
            }
        }
        y
    }

    #[test]
    fn the_example_of_onnx() {
        // ONNX Conv, basic_conv_with_padding and conv_with_strides_no_padding: a kernel of ones.
        let ones = Tensor::new([1, 1, 3, 3], &[1f32; 9]);
        let y = run(Kind::Conv, window(&[1, 1], &[1; 4], &[1, 1]), &[count(&[1, 1, 5, 5]), ones.clone()]);
        assert_eq!(y.values::<f32>()[..10], [12.0, 21.0, 27.0, 33.0, 24.0, 33.0, 54.0, 63.0, 72.0, 51.0]);
        let y = run(Kind::Conv, window(&[2, 2], &[0; 4], &[1, 1]), &[count(&[1, 1, 7, 5]), ones]);
        assert_eq!(y, Tensor::new([1, 1, 3, 2], &[54f32, 72.0, 144.0, 162.0, 234.0, 252.0]));
    }

    #[test]
    fn agrees_with_its_definition() {
        for (groups, stride, pad, dilation) in [(1, 1, 1, 1), (2, 2, 0, 1), (4, 1, 2, 2), (1, 3, 1, 2)] {
            let (x, w) = (noise(&[2, 4, 7, 6], 3), noise(&[8, 4 / groups, 3, 2], 5));
            let [s, p, d] = [stride as i64, pad as i64, dilation as i64];
            let attrs = [window(&[s, s], &[p; 4], &[d, d]), vec![("groups", Attr::Int(groups as i64))]].concat();
            let y = run(Kind::Conv, attrs.clone(), &[x.clone(), w.clone()]);
            assert_eq!(y.values::<f32>(), by_definition(&x, &w, [stride, pad, dilation], groups), "groups {groups} stride {stride}");
            // And packed, in blocks that do not divide the channels.
            let axis = vec![("axis", Attr::Int(1)), ("block", Attr::Int(3))];
            let packed = run(Kind::Pack, axis.clone(), &[x]);
            let packed = run(Kind::Conv, [attrs, vec![("block", Attr::Int(3))]].concat(), &[packed, w]);
            assert_eq!(run(Kind::Unpack, [axis, vec![("size", Attr::Int(8))]].concat(), &[packed]), y);
        }
    }

    #[test]
    fn integers_and_bias() {
        let x = Tensor::new([1, 1, 3], &[255u8, 1, 2]);
        let w = Tensor::new([1, 1, 2], &[-128i8, 3]);
        let y = run(Kind::Conv, window(&[1], &[0, 0], &[1]), &[x, w, Tensor::new([1], &[1000i32])]);
        assert_eq!(y, Tensor::new([1, 1, 2], &[1000 - 255 * 128 + 3, 1000 - 128 + 6]));
    }

    #[test]
    fn a_kernel_may_be_larger_than_what_is_left() {
        let refused = Op::new(Kind::Conv, window(&[1], &[0, 0], &[1])).expect("attributes");
        let error = crate::eval::eval_op(&refused, &[count(&[1, 1, 2]), count(&[1, 1, 3])]).unwrap_err();
        assert_eq!(error, "a window of 3 does not fit the 2 elements of spatial axis 0 with its padding");
    }

    #[test]
    fn transposed() {
        // ONNX ConvTranspose, the first example and the one with strides, padding at the end and output padding.
        let ones = Tensor::new([1, 2, 3, 3], &[1f32; 18]);
        let attrs = |s: &[i64], p: &[i64], extra: &[i64]| [window(s, p, &[1, 1]), vec![("output_padding", ints(extra))]].concat();
        let y = run(Kind::ConvTranspose, attrs(&[1, 1], &[0; 4], &[0, 0]), &[count(&[1, 1, 3, 3]), ones.clone()]);
        assert_eq!(y.shape(), [1, 2, 5, 5]);
        assert_eq!(y.values::<f32>()[..10], [0.0, 1.0, 3.0, 3.0, 2.0, 3.0, 8.0, 15.0, 12.0, 7.0]);
        let y = run(Kind::ConvTranspose, attrs(&[3, 2], &[0; 4], &[1, 1]), &[count(&[1, 1, 3, 3]), ones.clone()]);
        assert_eq!(y.shape(), [1, 2, 10, 8]);
        assert_eq!(y.values::<f32>()[..8], [0.0, 0.0, 1.0, 1.0, 3.0, 2.0, 2.0, 0.0]);
        let y = run(Kind::ConvTranspose, attrs(&[3, 2], &[1, 2, 1, 2], &[0, 0]), &[count(&[1, 1, 3, 3]), ones]);
        assert_eq!(y.shape(), [1, 2, 7, 3]);
        assert_eq!(y.values::<f32>()[..6], [1.0, 1.0, 3.0, 1.0, 1.0, 3.0]);
        // Two groups: each channel of x reaches its own outputs only.
        let x = Tensor::new([1, 2, 1], &[1f32, 10.0]);
        let w = Tensor::new([2, 1, 2], &[1f32, 2.0, 3.0, 4.0]);
        let attrs = [window(&[1], &[0, 0], &[1]), vec![("output_padding", ints(&[0])), ("groups", Attr::Int(2))]].concat();
        let y = run(Kind::ConvTranspose, attrs, &[x, w, Tensor::new([2], &[0.5f32, 0.0])]);
        assert_eq!(y, Tensor::new([1, 2, 2], &[1.5f32, 2.5, 30.0, 40.0]));
    }
}
