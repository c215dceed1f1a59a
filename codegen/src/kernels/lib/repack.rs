//! Operators on packed images by way of plain ones: unpack, compute, pack.
//!
//! The slow path of what has no generator of its own for blocks of channels: correct for every type, block and shape.

use super::gemm::Mac;
use super::loops;
use super::store::Output;
use crate::expr::memory;
use crate::schedule::Tile;
use crate::unit::{Arg, Lowered, LoweredCall, Operand, Unit};
use dnnc_ir::TensorType;
use dnnc_kir::{Builder, Cmp, Ty};

/// Lowers a unit with attribute `block` through `plain`, which lowers the same operator on plain images. `channels` of the input exist.
pub fn around(unit: &Unit, channels: usize, plain: fn(&Unit) -> Result<Lowered, String>) -> Result<Lowered, String> {
    let block = unit.op.attrs.size("block");
    let unpacked = |ty: &TensorType, channels: usize| {
        let mut shape = ty.shape[..ty.rank() - 1].to_vec();
        shape[1] = channels;
        TensorType::new(ty.ty, shape)
    };
    // A convolution has as many result channels as weights; a window as many as its input.
    let outputs = unit.inputs.get(1).map_or(channels, |w| w.ty.shape[0]);
    let (x, y) = (unpacked(&unit.inputs[0].ty, channels), unpacked(&unit.results[0], outputs));
    let op = unit.op.with("block", 0);
    let mut inputs = unit.inputs.clone();
    inputs[0] = Operand { ty: x.clone(), constant: None };
    let inner =
        Unit { op: &op, inputs, results: vec![y.clone()], epilogue: None, stored: y.clone(), target: unit.target, options: unit.options };
    let mut lowered = plain(&inner)?;
    let (x_at, y_at) = (lowered.scratch.len(), lowered.scratch.len() + 1);
    lowered.scratch.extend([x.bytes(), y.bytes()]);
    for arg in lowered.calls.iter_mut().flat_map(|call| &mut call.args) {
        *arg = match *arg {
            Arg::Input(0) => Arg::Scratch(x_at),
            Arg::Output(0) => Arg::Scratch(y_at),
            other => other,
        };
    }
    lowered.calls.insert(0, unpack(&x, block, Arg::Scratch(x_at)));
    lowered.calls.push(pack(unit, &y, block, Arg::Scratch(y_at))?);
    Ok(lowered)
}

/// Images, channels and pixels of plain images.
fn sizes(plain: &TensorType) -> (usize, usize, usize) {
    (plain.shape[0], plain.shape[1], plain.shape[2..].iter().product())
}

fn unpack(plain: &TensorType, block: usize, to: Arg) -> LoweredCall {
    let (batch, channels, pixels) = sizes(plain);
    let bytes = plain.ty.bytes();
    let ty = Ty::scalar(memory(plain.ty));
    let mut builder = Builder::new("unpack", 2);
    let b = &mut builder;
    let image = b.task();
    let (from, to_ptr) = (b.param(0), b.param(1));
    let from = b.element(from, image, channels.div_ceil(block) * block * pixels * bytes);
    let to_ptr = b.element(to_ptr, image, channels * pixels * bytes);
    b.each(channels, |b, channel| {
        let (number, lane) = loops::divmod(b, channel, block);
        let from = b.element(from, number, pixels * block * bytes);
        let from = b.element(from, lane, bytes);
        let to = b.element(to_ptr, channel, pixels * bytes);
        b.for_count(pixels, &[from, to], |b, _, at| {
            let v = b.load(ty, at[0], 0);
            b.store(v, at[1], 0);
            vec![b.offset_int(at[0], (block * bytes) as i64), b.offset_int(at[1], bytes as i64)]
        });
    });
    LoweredCall { func: builder.finish(), args: vec![Arg::Input(0), to], tasks: batch }
}

/// Packs the plain result and computes the epilogue on it.
fn pack(unit: &Unit, plain: &TensorType, block: usize, from: Arg) -> Result<LoweredCall, String> {
    let (batch, channels, pixels) = sizes(plain);
    let mac = Mac::new(plain.ty, unit.target)?;
    let lanes = if block.is_multiple_of(mac.lanes()) { mac.lanes() } else { 1 };
    let bytes = plain.ty.bytes();
    let mut args = vec![from];
    args.extend(Output::args(unit));
    let mut builder = Builder::new("pack", args.len());
    let b = &mut builder;
    let image = b.task();
    let from = b.param(0);
    let from = b.element(from, image, channels * pixels * bytes);
    let blocks = channels.div_ceil(block);
    let zero = b.index(0);
    b.each(blocks, |b, number| {
        let first = b.mul_int(number, block as i64);
        b.each(pixels, |b, pixel| {
            b.each(block / lanes, |b, part| {
                let lane = b.mul_int(part, lanes as i64);
                let channel = b.add(first, lane);
                let from = b.element(from, pixel, bytes);
                let mut vector = b.int(Ty::vector(mac.ty.elem, lanes as u8), 0);
                // Channels that only fill up the block are 0.
                for i in 0..lanes {
                    let one = b.add_int(channel, i as i64);
                    let end = b.index(channels);
                    let exists = b.cmp(Cmp::Lt, one, end);
                    let x = b.branch(
                        exists,
                        |b| {
                            let from = b.element(from, one, pixels * bytes);
                            vec![mac.load(b, 1, from, 0, 1)]
                        },
                        |b| vec![b.int(Ty::scalar(mac.ty.elem), 0)],
                    )[0];
                    vector = if lanes == 1 { x } else { b.insert(vector, x, i as u8) };
                }
                let mut out = Output::new(b, unit, 1, lanes, block);
                let base = b.mul_int(image, (blocks * block * pixels) as i64);
                let offset = b.mul_int(number, (block * pixels) as i64);
                let base = b.add(base, offset);
                out.base = b.add(base, lane);
                out.channel.1 = channel;
                out.store(b, pixel, zero, Tile { rows: 1, vecs: 1 }, lanes, &[vector]);
            });
        });
    });
    Ok(LoweredCall { func: builder.finish(), args, tasks: batch })
}
