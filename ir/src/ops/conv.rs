//! Convolutions.

use super::check::{self, Types, ensure};
use super::linear::product_type;
use super::window::{positions, spatial};
use super::{not_yet, product};
use crate::op::{Arity, AttrKind, Attrs, Class, Kind, OpDef};
use crate::types::TensorType;

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    OpDef {
        kind: Kind::Conv,
        doc: "Convolution of x [N, C, S…] with w [O, C/groups, K…], plus bias [O] → [N, O, …]. i8, u8 and i32 (also mixed) give i32. \
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
        eval: not_yet,
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
        eval: not_yet,
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
