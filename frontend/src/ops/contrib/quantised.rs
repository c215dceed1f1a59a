//! Operators on quantised numbers: those that have no exact integer form dequantise, compute and quantise again.

use crate::build::{Build, Node, Result, axis, invalid, unsupported};
use crate::ops::expr::v;
use crate::ops::helpers::{Outputs, channels_first, count, one, positive};
use crate::ops::quant::{dequantize, integer_matmul, quantize, quantize_dynamically, requantize, spread};
use crate::ops::row::{OpImport, microsoft};
use crate::ops::{pool, quant, recurrent};
use dnnc_ir::{Kind, Tensor, TensorType, Type, Value};

pub(crate) const OPS: &[OpImport] = &[
    microsoft("QuantizeLinear", quant::quantize_linear),
    microsoft("DequantizeLinear", quant::dequantize_linear),
    microsoft("QLinearConv", qlinear_conv),
    microsoft("QLinearAdd", |b, n| arithmetic(b, n, Kind::Add)),
    microsoft("QLinearMul", |b, n| arithmetic(b, n, Kind::Mul)),
    microsoft("QLinearAveragePool", |b, n| pooled(b, n, |b, x| pool::average_pool(b, n, x))),
    microsoft("QLinearGlobalAveragePool", |b, n| pooled(b, n, |b, x| pool::global(b, x, Kind::ReduceMean))),
    microsoft("QLinearLeakyRelu", |b, n| {
        let alpha = n.num("alpha", 0.01)?;
        unary(b, n, |b, x| b.emit(v(x).lt(0.0).select(v(x) * alpha, x)))
    }),
    microsoft("QLinearSigmoid", |b, n| unary(b, n, |b, x| b.emit(v(x).sigmoid()))),
    microsoft("QLinearSoftmax", qlinear_softmax),
    microsoft("QLinearReduceMean", qlinear_reduce_mean),
    microsoft("QLinearConcat", qlinear_concat),
    microsoft("QLinearWhere", qlinear_where),
    microsoft("QGemm", qgemm),
    microsoft("MulInteger", mul_integer),
    microsoft("MatMulInteger16", |b, n| {
        let (x, w) = (b.cast(n.input(0)?, Type::I32)?, b.cast(n.input(1)?, Type::I32)?);
        one(crate::ops::linear::matmul(b, x, w))
    }),
    microsoft("MatMulIntegerToFloat", matmul_integer_to_float),
    microsoft("DynamicQuantizeMatMul", dynamic_quantize_matmul),
    microsoft("MatMulNBits", matmul_nbits),
    OpImport { note: "in floats, on dequantised weights", ..microsoft("DynamicQuantizeLSTM", dynamic_quantize_lstm) },
    microsoft("GatherBlockQuantized", gather_block_quantized),
    microsoft("MatMulBnb4", matmul_bnb4),
    microsoft("NhwcMaxPool", |b, n| one(channels_first(b, n.input(0)?, true, |b, x| pool::max_pool_of(b, n, x)))),
    microsoft("QEmbedLayerNormalization", q_embed_layer_norm),
];

/// A quantised tensor: numbers, scale and zero point, each one for all.
struct Quantised {
    value: Value,
    scale: Value,
    zero: Option<Value>,
}

impl Quantised {
    /// Inputs `i`, `i + 1` and `i + 2` of a node.
    fn read(b: &mut Build, n: &Node, i: usize) -> Result<Quantised> {
        let value = n.input(i)?;
        let scale = b.scalar_of(n.input(i + 1)?)?;
        let zero = n.opt(i + 2).map(|z| b.scalar_of(z)).transpose()?;
        Ok(Quantised { value, scale, zero })
    }

    fn float(&self, b: &mut Build) -> Result<Value> {
        dequantize(b, self.value, self.scale, self.zero)
    }
}

/// `x` quantised with the scale and zero point at inputs `i` and `i + 1`.
fn quantised(b: &mut Build, n: &Node, x: Value, i: usize, otherwise: Type) -> Result<Value> {
    let scale = b.scalar_of(n.input(i)?)?;
    let zero = n.opt(i + 1).map(|z| b.scalar_of(z)).transpose()?;
    let to = zero.map_or(otherwise, |z| b.elem(z));
    quantize(b, x, scale, zero, to, true)
}

fn arithmetic(b: &mut Build, n: &Node, kind: Kind) -> Outputs {
    let (x, y) = (Quantised::read(b, n, 0)?, Quantised::read(b, n, 3)?);
    let ty = b.elem(x.value);
    let (x, y) = (x.float(b)?, y.float(b)?);
    let z = b.binary(kind, x, y)?;
    one(quantised(b, n, z, 6, ty))
}

fn unary(b: &mut Build, n: &Node, f: impl FnOnce(&mut Build, Value) -> Result<Value>) -> Outputs {
    let x = Quantised::read(b, n, 0)?;
    let ty = b.elem(x.value);
    let x = x.float(b)?;
    let y = f(b, x)?;
    one(quantised(b, n, y, 3, ty))
}

/// A pool over [N, C, …], or over [N, …, C] if the node says so.
fn pooled(b: &mut Build, n: &Node, f: impl FnOnce(&mut Build, Value) -> Result<Value>) -> Outputs {
    let last = n.flag("channels_last", false)?;
    unary(b, n, |b, x| channels_first(b, x, last, f))
}

fn qlinear_conv(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let last = n.flag("channels_last", false)?;
    one(channels_first(b, x, last, |b, x| quant::qlinear_conv_of(b, n, x)))
}

fn qlinear_softmax(b: &mut Build, n: &Node) -> Outputs {
    let (opset, at) = (n.int("opset", 13)?, n.int("axis", -1)?);
    unary(b, n, |b, x| {
        let shape = b.shape(x);
        let at = axis(at, shape.len())?;
        if opset >= 13 {
            return b.on_axis(Kind::Softmax, x, at);
        }
        let flat = b.reshape(x, &[count(&shape[..at])?, count(&shape[at..])?])?;
        let y = b.on_axis(Kind::Softmax, flat, 1)?;
        b.reshape(y, &shape)
    })
}

fn qlinear_reduce_mean(b: &mut Build, n: &Node) -> Outputs {
    let keep = n.flag("keepdims", true)?;
    let list = n.ints("axes")?.unwrap_or_default();
    unary(b, n, |b, x| {
        let over = if list.is_empty() { (0..b.rank(x)).collect() } else { crate::build::axes(&list, b.rank(x))? };
        b.reduce(Kind::ReduceMean, x, &over, keep)
    })
}

/// Scale and zero point of the result, then three inputs per part.
fn qlinear_concat(b: &mut Build, n: &Node) -> Outputs {
    if n.inputs.len() < 5 || n.inputs.len() % 3 != 2 {
        return invalid!("{} inputs", n.inputs.len());
    }
    let mut parts = Vec::new();
    for i in (2..n.inputs.len()).step_by(3) {
        let part = Quantised::read(b, n, i)?;
        // A part that has the scale of the result stays as it is.
        let same = [(part.scale, n.input(0)?), (part.zero.unwrap_or(part.scale), n.input(1)?)];
        let same = same.iter().all(|&(p, q)| b.known(p).zip(b.known(q)).is_some_and(|(p, q)| p.bytes() == q.bytes()));
        let ty = b.elem(part.value);
        parts.push(if same && part.zero.is_some() {
            part.value
        } else {
            let x = part.float(b)?;
            quantised(b, n, x, 0, ty)?
        });
    }
    let at = n.axis("axis", 0, b.rank(parts[0]))?;
    one(b.concat(&parts, at))
}

fn qlinear_where(b: &mut Build, n: &Node) -> Outputs {
    let (x, y) = (Quantised::read(b, n, 1)?, Quantised::read(b, n, 4)?);
    let ty = b.elem(x.value);
    let (x, y) = (x.float(b)?, y.float(b)?);
    let z = b.select(n.input(0)?, x, y)?;
    one(quantised(b, n, z, 7, ty))
}

/// alpha · a_scale · b_scale · (A·B + C), all integers, then quantised if a scale is given.
fn qgemm(b: &mut Build, n: &Node) -> Outputs {
    let (x, w) = (n.input(0)?, n.input(3)?);
    let turn = |b: &mut Build, t: Value, name: &str| -> Result<Value> {
        match (n.flag(name, false)?, b.rank(t)) {
            (true, 2) => b.transpose(t, &[1, 0]),
            (false, 2) => Ok(t),
            _ => invalid!("{} is no matrix", b.ty(t)),
        }
    };
    let (x, w) = (turn(b, x, "transA")?, turn(b, w, "transB")?);
    let mut acc = integer_matmul(b, x, w, n.opt(2), n.opt(5))?;
    if let Some(bias) = n.opt(6) {
        acc = b.emit(v(acc) + bias)?;
    }
    let alpha = n.num("alpha", 1.0)?;
    let x_scale = b.scalar_of(n.input(1)?)?;
    let w_scale = spread(b, acc, n.input(4)?, 1, 0)?;
    let mut factor = b.emit(v(x_scale) * alpha * w_scale)?;
    let Some(y_scale) = n.opt(7) else { return one(b.emit(v(acc).cast(Type::F32) * factor)) };
    let y_scale = b.scalar_of(y_scale)?;
    factor = b.emit(v(factor) / y_scale)?;
    let zero = n.opt(8).map(|z| b.scalar_of(z)).transpose()?;
    let to = zero.map_or(b.elem(x), |z| b.elem(z));
    let real = b.emit(v(acc).cast(Type::F32) * factor)?;
    one(requantize(b, real, zero, to, true))
}

fn mul_integer(b: &mut Build, n: &Node) -> Outputs {
    let mut parts = Vec::new();
    for (x, zero) in [(n.input(0)?, n.opt(1)), (n.input(2)?, n.opt(3))] {
        let x = b.cast(x, Type::I32)?;
        parts.push(match zero {
            Some(zero) => {
                let zero = b.scalar_of(zero)?;
                let zero = b.cast(zero, Type::I32)?;
                b.emit(v(x) - zero)?
            }
            None => x,
        });
    }
    one(b.binary(Kind::Mul, parts[0], parts[1]))
}

/// The product in i32 times both scales, plus a bias.
fn scaled_matmul(b: &mut Build, x: [Value; 3], w: Value, w_scale: Value, w_zero: Option<Value>, bias: Option<Value>) -> Result<Value> {
    let [x, x_scale, x_zero] = x;
    let acc = integer_matmul(b, x, w, Some(x_zero), w_zero)?;
    let w_scale = if count(&b.shape(w_scale))? == 1 { b.scalar_of(w_scale)? } else { w_scale };
    let mut y = b.emit(v(acc).cast(b.elem(x_scale)) * (v(x_scale) * w_scale))?;
    if let Some(bias) = bias {
        y = b.emit(v(y) + bias)?;
    }
    Ok(y)
}

fn matmul_integer_to_float(b: &mut Build, n: &Node) -> Outputs {
    let (x, w) = (n.input(0)?, n.input(1)?);
    let (x_scale, w_scale) = (b.scalar_of(n.input(2)?)?, n.input(3)?);
    let x_zero = match n.opt(4) {
        Some(zero) => zero,
        None => b.scalar(b.elem(x), 0.0),
    };
    one(scaled_matmul(b, [x, x_scale, x_zero], w, w_scale, n.opt(5), n.opt(6)))
}

fn dynamic_quantize_matmul(b: &mut Build, n: &Node) -> Outputs {
    let [x, scale, zero] = quantize_dynamically(b, n.input(0)?)?;
    one(scaled_matmul(b, [x, scale, zero], n.input(1)?, n.input(2)?, n.opt(3), n.opt(4)))
}

/// Numbers of `bits` bits, the lowest first in each byte, unpacked to one per byte: [.., n] bytes as [.., n·8/bits].
pub(super) fn unpacked(b: &mut Build, x: Value, bits: usize) -> Result<Value> {
    let mut shape = b.shape(x);
    if bits == 8 || shape.is_empty() {
        return Ok(x);
    }
    if b.elem(x) != Type::U8 {
        return invalid!("numbers of {bits} bits are packed in u8, not in {}", b.ty(x));
    }
    let per = 8 / bits;
    let last = shape.len() - 1;
    if let Some(t) = b.known(x) {
        // Weights stay narrow in the graph: the type says how far their numbers go.
        let mask = (1u8 << bits) - 1;
        let numbers: Vec<u8> = t.bytes().iter().flat_map(|byte| (0..per).map(move |i| byte >> (i * bits) & mask)).collect();
        shape[last] *= per;
        let ty = if bits == 4 { Type::U4 } else { Type::U2 };
        return Ok(b.constant(Tensor::with_type(TensorType::new(ty, shape), &numbers)));
    }
    let column = b.unsqueeze(x, &[last + 1])?;
    let shifts: Vec<u8> = (0..per as u8).map(|i| i * bits as u8).collect();
    let shifts = b.constant(Tensor::new([per], &shifts));
    let moved = b.binary(Kind::Shr, column, shifts)?;
    let mask = b.scalar(Type::U8, f64::from((1u32 << bits) - 1));
    let low = b.binary(Kind::And, moved, mask)?;
    shape[last] *= per;
    b.reshape(low, &shape)
}

/// A · Wᵀ for W [N, K] in blocks of `block_size` along K, each with a scale and a zero point.
fn matmul_nbits(b: &mut Build, n: &Node) -> Outputs {
    let (x, w, scales) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let (bits, block) = (n.int("bits", 4)?, positive("attribute `block_size`", n.req_int("block_size")?)?);
    let (k, rows) = (positive("attribute `K`", n.req_int("K")?)?, positive("attribute `N`", n.req_int("N")?)?);
    if !matches!(bits, 2 | 4 | 8) {
        return unsupported!("MatMulNBits with bits={bits}: 2, 4 and 8 are supported");
    }
    let (bits, blocks) = (bits as usize, k.div_ceil(block));
    let narrow = unpacked(b, w, bits)?;
    if count(&b.shape(narrow))? != count(&[rows, blocks, block])? {
        return invalid!("weights {} for {rows} rows of {blocks} blocks of {block}", b.ty(w));
    }
    let narrow = b.reshape(narrow, &[rows, blocks, block])?;
    let scales = b.reshape(scales, &[rows, blocks, 1])?;
    let zeros = match n.opt(3) {
        Some(zeros) if b.elem(zeros).is_float() => b.reshape(zeros, &[rows, blocks, 1])?,
        Some(zeros) => {
            let flat = b.reshape(zeros, &[rows, count(&b.shape(zeros))? / rows])?;
            let numbers = unpacked(b, flat, bits)?;
            let numbers = b.slice_axis(numbers, 1, 0, blocks)?;
            b.reshape(numbers, &[rows, blocks, 1])?
        }
        // In the middle of the range.
        None => b.scalar(Type::U8, f64::from(1u32 << (bits - 1))),
    };
    // Which block's scale and zero point a column has, where that is not the block that it stands in.
    let (narrow, scales, zeros) = match n.opt(4) {
        None => (narrow, scales, zeros),
        Some(groups) => {
            let groups = b.cast(groups, Type::I64)?;
            let groups = b.slice_axis(groups, 0, 0, k)?;
            let flat = b.reshape(narrow, &[rows, blocks * block])?;
            let flat = b.slice_axis(flat, 1, 0, k)?;
            let flat = b.reshape(flat, &[rows, k, 1])?;
            let zeros = if b.rank(zeros) == 0 { zeros } else { b.gather(zeros, groups, 1)? };
            (flat, b.gather(scales, groups, 1)?, zeros)
        }
    };
    let weights = if b.elem(zeros).is_float() {
        let (wide, scales) = (b.cast(narrow, b.elem(scales))?, scales);
        b.emit((v(wide) - zeros) * scales)?
    } else {
        dequantize(b, narrow, scales, Some(zeros))?
    };
    let weights = b.reshape(weights, &[rows, count(&b.shape(narrow))? / rows])?;
    let weights = b.slice_axis(weights, 1, 0, k)?;
    let weights = b.cast(weights, b.elem(x))?;
    let y = if b.rank(x) < 2 {
        let turned = b.transpose(weights, &[1, 0])?;
        crate::ops::linear::matmul(b, x, turned)?
    } else {
        b.op(Kind::MatMul, [("trans_b", true.into())], &[x, weights])?
    };
    one(match n.opt(5) {
        Some(bias) => b.emit(v(y) + bias),
        None => Ok(y),
    })
}

/// An LSTM whose weights [D, I, 4H] are quantised, one scale per direction or per column.
fn dynamic_quantize_lstm(b: &mut Build, n: &Node) -> Outputs {
    let mut weights = |w: usize, scale: usize| -> Result<Value> {
        let (w, scale, zero) = (n.input(w)?, n.input(scale)?, n.opt(scale + 1));
        let shape = b.shape(w);
        let lay = |b: &mut Build, p: Value| -> Result<Value> {
            let given = b.shape(p);
            match (shape.len(), given.len()) {
                (3, 1) if given == shape[..1] => b.reshape(p, &[shape[0], 1, 1]),
                (3, 2) if given == [shape[0], shape[2]] => b.reshape(p, &[shape[0], 1, shape[2]]),
                _ if count(&given)? == 1 => b.scalar_of(p),
                _ => invalid!("scales {} for weights {}", b.ty(p), b.ty(w)),
            }
        };
        let scale = lay(b, scale)?;
        let zero = zero.map(|z| lay(b, z)).transpose()?;
        if shape.len() != 3 {
            return invalid!("weights {}", b.ty(w));
        }
        let real = dequantize(b, w, scale, zero)?;
        b.transpose(real, &[0, 2, 1])
    };
    let (w, r) = (weights(1, 8)?, weights(2, 10)?);
    recurrent::lstm_of(b, n, w, r)
}

/// Rows of a matrix in blocks, dequantised after they are gathered.
fn gather_block_quantized(b: &mut Build, n: &Node) -> Outputs {
    let (data, idx, scales, zeros) = (n.input(0)?, n.input(1)?, n.input(2)?, n.opt(3));
    let (block, bits) = (positive("attribute `block_size`", n.int("block_size", 128)?)?, n.int("bits", 4)?);
    if !matches!(bits, 2 | 4 | 8) {
        return unsupported!("GatherBlockQuantized with bits={bits}: 2, 4 and 8 are supported");
    }
    let (bytes, bits) = (b.elem(data) == Type::U8, bits as usize);
    let data = if bytes { unpacked(b, data, bits)? } else { data };
    let rank = b.rank(data);
    let (gather, quantise) = (n.axis("gather_axis", 0, rank)?, n.axis("quantize_axis", 1, rank)?);
    let idx = b.index(idx, b.shape(data)[gather])?;
    let y = b.gather(data, idx, gather)?;
    // Along the axis of the blocks, an element has the scale of its block.
    let block_idx = if gather == quantise { b.emit(v(idx) / block as f64)? } else { idx };
    let scale = b.gather(scales, block_idx, gather)?;
    let zero = match zeros {
        Some(zeros) => {
            let mut zeros = if bytes { unpacked(b, zeros, bits)? } else { zeros };
            // An odd number of blocks leaves a part of the last byte over.
            if b.shape(zeros).last() > b.shape(scales).last() {
                zeros = b.slice_axis(zeros, b.rank(zeros) - 1, 0, b.shape(scales)[b.rank(scales) - 1])?;
            }
            Some(b.gather(zeros, block_idx, gather)?)
        }
        None if bytes => Some(b.scalar(Type::U8, f64::from(1u32 << (bits - 1)))),
        None => None,
    };
    if gather == quantise {
        return one(dequantize(b, y, scale, zero));
    }
    // The axes of the indices take the place of the gathered axis.
    let at = if quantise > gather { quantise + b.rank(idx) - 1 } else { quantise } as i64;
    let scale = spread(b, y, scale, at, block as i64)?;
    let zero = zero.map(|z| if b.rank(z) == 0 { Ok(z) } else { spread(b, y, z, at, block as i64) }).transpose()?;
    one(dequantize(b, y, scale, zero))
}

/// A · Wᵀ for W [N, K] of 4-bit numbers in blocks with one factor each; the numbers are indices into a table (FP4 or NF4).
fn matmul_bnb4(b: &mut Build, n: &Node) -> Outputs {
    let (x, w, factors) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let block = positive("attribute `block_size`", n.req_int("block_size")?)?;
    let (k, rows) = (positive("attribute `K`", n.req_int("K")?)?, positive("attribute `N`", n.req_int("N")?)?);
    let table: [f32; 16] = match n.req_int("quant_type")? {
        0 => {
            let fp4 = [0.0, 0.005_208_333_5, 0.666_666_7, 1.0, 0.333_333_34, 0.5, 0.166_666_67, 0.25];
            std::array::from_fn(|i| if i < 8 { fp4[i] } else { -fp4[i - 8] })
        }
        1 => NF4,
        other => return invalid!("attribute `quant_type` is {other}"),
    };
    let total = count(&[rows, k])?;
    let numbers = unpacked(b, w, 4)?;
    // The first of two numbers is in the upper half of a byte.
    let pairs = count(&b.shape(numbers))? / 2;
    let numbers = b.reshape(numbers, &[pairs, 2])?;
    let numbers = b.slice(numbers, &[0, 1], &[pairs, 2], &[1, -1])?;
    let numbers = b.reshape(numbers, &[2 * pairs])?;
    let blocks = total.div_ceil(block);
    if 2 * pairs < total || b.shape(factors) != [blocks] {
        return invalid!("weights {} and factors {} for {rows} rows of {k}", b.ty(w), b.ty(factors));
    }
    let numbers = b.slice_axis(numbers, 0, 0, total)?;
    let indices = b.cast(numbers, Type::I64)?;
    let table = b.constant(Tensor::new([16], &table));
    let real = b.gather(table, indices, 0)?;
    let factors = b.reshape(factors, &[blocks, 1])?;
    let factors = b.expand(factors, &[blocks, block])?;
    let factors = b.reshape(factors, &[blocks * block])?;
    let factors = b.slice_axis(factors, 0, 0, total)?;
    let factors = b.cast(factors, Type::F32)?;
    let weights = b.emit(v(real) * factors)?;
    let weights = b.cast(weights, b.elem(x))?;
    if n.flag("transB", true)? {
        let weights = b.reshape(weights, &[rows, k])?;
        let turned = b.transpose(weights, &[1, 0])?;
        return one(crate::ops::linear::matmul(b, x, turned));
    }
    let weights = b.reshape(weights, &[rows, k])?;
    one(crate::ops::linear::matmul(b, x, weights))
}

/// Quantiles of a normal distribution, the values of the NF4 type (Dettmers and others, QLoRA, 2023).
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// As `EmbedLayerNormalization`, on quantised tables, scale and shift.
fn q_embed_layer_norm(b: &mut Build, n: &Node) -> Outputs {
    let mut tables = [None; 5];
    for (i, table) in tables.iter_mut().enumerate() {
        if let Some(q) = n.opt(2 + i) {
            let scale = b.scalar_of(n.input(8 + i)?)?;
            let zero = n.opt(13 + i).map(|z| b.scalar_of(z)).transpose()?;
            *table = Some(dequantize(b, q, scale, zero)?);
        }
    }
    let outputs = super::fused::embeddings(b, n, tables, n.opt(7), None)?;
    Ok(outputs[..2].to_vec())
}
