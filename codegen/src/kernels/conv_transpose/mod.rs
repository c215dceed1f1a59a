//! Transposed convolution as a convolution: the input is spread out with zeros between its elements, the weights are turned round.
//!
//! Correct for every rank, type, stride and group. Work on the zeros is wasted: the product of the strides too much.

#[cfg(test)]
mod tests;

use super::{Arg, Family, Lowered, LoweredCall, Operand, Unit, conv, moving};
use crate::expr::memory;
use crate::kir::{Builder, Elem, Ty, Val};
use dnnc_ir::{Kind, Op, Tensor, TensorType, Type};

/// The family.
pub const FAMILY: Family = Family { name: "conv_transpose", kinds: &[Kind::ConvTranspose], lower, epilogue: |_, _, _| false };

fn lower(unit: &Unit) -> Result<Lowered, String> {
    let result = &unit.results[0];
    if result.is_empty() {
        return Ok(Lowered::default());
    }
    let attrs = &unit.op.attrs;
    let (x, w) = (&unit.inputs[0].ty, &unit.inputs[1].ty);
    let spatial = x.rank() - 2;
    let (strides, dilations, groups) = (attrs.sizes("strides"), attrs.sizes("dilations"), attrs.size("groups"));
    let pads = attrs.ints("pads");
    // Element i of an axis goes to i·stride + reach − pad, where `reach` is how far the turned kernel looks back.
    let begins: Vec<i64> = (0..spatial).map(|d| (dilations[d] * (w.shape[2 + d] - 1)) as i64 - pads[d]).collect();
    let spread_sizes: Vec<usize> = (0..spatial).map(|d| result.shape[2 + d] + dilations[d] * (w.shape[2 + d] - 1)).collect();
    let spread = TensorType::new(x.ty, [&x.shape[..2], &spread_sizes[..]].concat());
    let turned_type = {
        let (channels, outputs) = (x.shape[1], result.shape[1]);
        TensorType::new(w.ty, [&[outputs, channels / groups], &w.shape[2..]].concat())
    };
    let mut out = Lowered { scratch: vec![spread.bytes()], ..Lowered::default() };
    out.calls.push(LoweredCall {
        func: spread_kernel(x, &spread, &strides, &begins, unit.target.vector.bits),
        args: vec![Arg::Input(0), Arg::Scratch(0)],
        tasks: x.shape[0] * x.shape[1],
    });
    let turned = unit.inputs[1].constant.map(|w| turn(w, &turned_type, groups));
    let weights = match &turned {
        Some(_) => Arg::Input(1), // packed by the convolution: not read
        None => {
            out.scratch.push(turned_type.bytes());
            out.calls.push(LoweredCall {
                func: turn_kernel(w, &turned_type, groups),
                args: vec![Arg::Input(1), Arg::Scratch(1)],
                tasks: 1,
            });
            Arg::Scratch(1)
        }
    };
    if let Some(t) = &turned {
        // A convolution that does not pack its weights reads them as they are here.
        out.constants.push(t.bytes().to_vec());
    }
    let weights = if turned.is_some() { Arg::Const(0) } else { weights };
    let block = unit.target.vector.bits / 32;
    // Small groups have no packed kernel: lanes would be idle.
    let packed = x.ty == Type::F32 && spatial == 2 && groups == 1;
    let ones = vec![1i64; spatial];
    let op = |block: usize| {
        Op::new(
            Kind::Conv,
            [
                ("strides", ones.clone().into()),
                ("pads", vec![0i64; 2 * spatial].into()),
                ("dilations", dilations[..].into()),
                ("groups", (groups as i64).into()),
                ("block", (block as i64).into()),
            ],
        )
        .expect("the row of `conv`")
    };
    let mut inputs = vec![Operand { ty: spread.clone(), constant: None }, Operand { ty: turned_type, constant: turned.as_ref() }];
    inputs.extend(unit.inputs.get(2).cloned());
    if !packed {
        let op = op(0);
        let part = Unit {
            op: &op,
            inputs,
            results: vec![result.clone()],
            epilogue: None,
            stored: result.clone(),
            target: unit.target,
            options: unit.options,
        };
        out.append((conv::FAMILY.lower)(&part)?, &[Arg::Scratch(0), weights, Arg::Input(2)], Arg::Output(0));
        return Ok(out);
    }
    let blocks = |ty: &TensorType| {
        let mut shape = ty.shape.clone();
        shape[1] = shape[1].div_ceil(block);
        shape.push(block);
        TensorType::new(ty.ty, shape)
    };
    let (spread_packed, result_packed) = (blocks(&spread), blocks(result));
    let (from, to) = (Arg::Scratch(out.scratch.len()), Arg::Scratch(out.scratch.len() + 1));
    out.scratch.extend([spread_packed.bytes(), result_packed.bytes()]);
    let moved = |op: &Op, from: &TensorType, to: &TensorType| {
        let part = Unit {
            op,
            inputs: vec![Operand { ty: from.clone(), constant: None }],
            results: vec![to.clone()],
            epilogue: None,
            stored: to.clone(),
            target: unit.target,
            options: unit.options,
        };
        (moving::FAMILY.lower)(&part)
    };
    let axis = || [("axis", 1i64.into()), ("block", (block as i64).into())];
    let pack = Op::new(Kind::Pack, axis()).expect("the row of `pack`");
    out.append(moved(&pack, &spread, &spread_packed)?, &[Arg::Scratch(0)], from);
    let op = op(block);
    inputs[0].ty = spread_packed;
    let part = Unit {
        op: &op,
        inputs,
        results: vec![result_packed.clone()],
        epilogue: None,
        stored: result_packed.clone(),
        target: unit.target,
        options: unit.options,
    };
    out.append((conv::FAMILY.lower)(&part)?, &[from, weights, Arg::Input(2)], to);
    let unpack = axis().into_iter().chain([("size", (result.shape[1] as i64).into())]);
    let unpack = Op::new(Kind::Unpack, unpack).expect("the row of `unpack`");
    out.append(moved(&unpack, &result_packed, result)?, &[to], Arg::Output(0));
    Ok(out)
}

/// Clears the spread image of a channel and writes the elements of the input to their places; a task is one channel of one image.
fn spread_kernel(x: &TensorType, spread: &TensorType, strides: &[usize], begins: &[i64], bits: usize) -> crate::kir::Func {
    let mut builder = Builder::new("spread", 2);
    let b = &mut builder;
    let bytes = x.ty.bytes();
    let (from_len, to_len): (usize, usize) = (x.shape[2..].iter().product(), spread.shape[2..].iter().product());
    let task = b.task();
    let (from, to) = (b.param(0), b.param(1));
    let (from, to) = (b.element(from, task, from_len * bytes), b.element(to, task, to_len * bytes));
    clear(b, to, to_len * bytes, bits);
    // Elements of each axis whose place is inside.
    let ranges: Vec<(usize, usize)> = (0..strides.len())
        .map(|d| {
            let (stride, size) = (strides[d] as i64, spread.shape[2 + d] as i64);
            let first = (-begins[d]).max(0).div_euclid(stride) + i64::from((-begins[d]).max(0) % stride != 0);
            let end = ((size - begins[d]).max(0) + stride - 1).div_euclid(stride);
            (first as usize, end.clamp(first, x.shape[2 + d] as i64).max(first) as usize)
        })
        .collect();
    if ranges.iter().any(|(first, end)| first >= end) {
        return builder.finish();
    }
    let (from_strides, to_strides) = (x.strides(), spread.strides());
    let first_to: i64 = (0..strides.len()).map(|d| (ranges[d].0 as i64 * strides[d] as i64 + begins[d]) * to_strides[2 + d] as i64).sum();
    let first_from: usize = (0..strides.len()).map(|d| ranges[d].0 * from_strides[2 + d]).sum();
    let (from, to) = (b.offset_int(from, (first_from * bytes) as i64), b.offset_int(to, first_to * bytes as i64));
    let axes: Vec<Axis> = (0..strides.len())
        .map(|d| Axis { count: ranges[d].1 - ranges[d].0, from: from_strides[2 + d] * bytes, to: to_strides[2 + d] * strides[d] * bytes })
        .collect();
    copy(b, &axes, Ty::scalar(memory(x.ty)), from, to);
    builder.finish()
}

/// A loop of a copy: how often, and bytes between its elements on both sides.
struct Axis {
    count: usize,
    from: usize,
    to: usize,
}

fn copy(b: &mut Builder, axes: &[Axis], ty: Ty, from: Val, to: Val) {
    let Some((axis, rest)) = axes.split_first() else {
        let v = b.load(ty, from, 0);
        b.store(v, to, 0);
        return;
    };
    b.each(axis.count, |b, i| {
        let (from, to) = (b.element(from, i, axis.from), b.element(to, i, axis.to));
        copy(b, rest, ty, from, to);
    });
}

/// Writes zeros.
fn clear(b: &mut Builder, to: Val, bytes: usize, bits: usize) {
    let mut done = 0;
    for ty in [Ty::vector(Elem::I32, (bits / 32) as u8), Ty::scalar(Elem::I8)] {
        let width = ty.bytes();
        let count = (bytes - done) / width;
        if count > 0 {
            let start = b.offset_int(to, done as i64);
            let zero = b.int(ty, 0);
            b.each(count, |b, i| {
                let at = b.element(start, i, width);
                b.store(zero, at, 0);
            });
            done += count * width;
        }
    }
}

/// Where element (output, channel of its group, place) of the turned weights comes from.
fn source(w: &[usize], turned: &[usize], groups: usize, index: usize) -> usize {
    let places: usize = turned[2..].iter().product();
    let (place, rest) = (index % places, index / places);
    let (channel, output) = (rest % turned[1], rest / turned[1]);
    let per_group = turned[0] / groups;
    let (group, within) = (output / per_group, output % per_group);
    ((group * turned[1] + channel) * w[1] + within) * places + (places - 1 - place)
}

/// Weights [C, O/g, K…] as those of the convolution, [O, C/g, K…] with every kernel turned round.
fn turn(w: &Tensor, to: &TensorType, groups: usize) -> Tensor {
    let bytes = to.ty.bytes();
    let mut data = Vec::with_capacity(to.bytes());
    for i in 0..to.len() {
        let at = source(w.shape(), &to.shape, groups, i) * bytes;
        data.extend_from_slice(&w.bytes()[at..at + bytes]);
    }
    Tensor::from_bytes(to.clone(), &data).expect("as many bytes as the weights have")
}

/// The same at run time.
fn turn_kernel(w: &TensorType, to: &TensorType, groups: usize) -> crate::kir::Func {
    let mut builder = Builder::new("turn", 2);
    let b = &mut builder;
    let (bytes, ty) = (w.ty.bytes(), Ty::scalar(memory(w.ty)));
    let places: usize = to.shape[2..].iter().product();
    let (per_group, channels) = (to.shape[0] / groups, to.shape[1]);
    let (from, target) = (b.param(0), b.param(1));
    b.each(groups, |b, group| {
        b.each(per_group, |b, within| {
            b.each(channels, |b, channel| {
                b.each(places, |b, place| {
                    let row = b.mul_int(group, channels as i64);
                    let row = b.add(row, channel);
                    let row = b.mul_int(row, w.shape[1] as i64);
                    let row = b.add(row, within);
                    let row = b.mul_int(row, places as i64);
                    let row = b.add_int(row, places as i64 - 1);
                    let at = b.sub(row, place);
                    let at = b.element(from, at, bytes);
                    let v = b.load(ty, at, 0);
                    let row = b.mul_int(group, per_group as i64);
                    let row = b.add(row, within);
                    let row = b.mul_int(row, channels as i64);
                    let row = b.add(row, channel);
                    let row = b.mul_int(row, places as i64);
                    let at = b.add(row, place);
                    let at = b.element(target, at, bytes);
                    b.store(v, at, 0);
                });
            });
        });
    });
    builder.finish()
}
