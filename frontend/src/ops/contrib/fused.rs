//! Operators that stand for a few of ONNX's own.

use crate::build::{Build, Node, Result, invalid, unsupported};
use crate::ops::conv::convolution;
use crate::ops::expr::{Expr, v};
use crate::ops::helpers::{Outputs, channels_first, count, one, positive};
use crate::ops::linear::{gemm_product, matmul};
use crate::ops::norm::{layer_norm_of, rms_norm_of};
use crate::ops::row::{OpImport, microsoft};
use crate::ops::{movement, reduce};
use dnnc_ir::{Kind, Type, Value};

pub(crate) const OPS: &[OpImport] = &[
    microsoft("FusedConv", fused_conv),
    microsoft("NhwcConv", nhwc_conv),
    microsoft("NhwcFusedConv", nhwc_conv),
    microsoft("FusedGemm", fused_gemm),
    microsoft("FusedMatMul", |b, n| one(fused_matmul(b, n))),
    microsoft("TransposeMatMul", |b, n| one(fused_matmul(b, n))),
    microsoft("FusedMatMulActivation", |b, n| {
        let y = fused_matmul(b, n)?;
        one(activated(b, n, y))
    }),
    microsoft("GemmFastGelu", |b, n| {
        let y = matmul(b, n.input(0)?, n.input(1)?)?;
        one(biased(b, y, n.opt(2), |x| x.gelu_tanh()))
    }),
    microsoft("Gelu", |b, n| one(biased(b, n.input(0)?, None, |x| x.gelu()))),
    microsoft("BiasGelu", |b, n| one(biased(b, n.input(0)?, Some(n.input(1)?), |x| x.gelu()))),
    microsoft("FastGelu", |b, n| one(biased(b, n.input(0)?, n.opt(1), |x| x.gelu_tanh()))),
    microsoft("QuickGelu", |b, n| {
        let alpha = n.num("alpha", 1.702)?;
        one(biased(b, n.input(0)?, None, |x| x.clone() * (x * alpha).sigmoid()))
    }),
    microsoft("BiasSplitGelu", bias_split_gelu),
    microsoft("BiasAdd", |b, n| {
        let sum = b.emit(v(n.input(0)?) + n.input(1)?)?;
        one(b.emit(v(sum) + n.input(2)?))
    }),
    microsoft("BiasSoftmax", bias_softmax),
    microsoft("LayerNormalization", |b, n| layer_norm_of(b, n, n.input(0)?, n.input(1)?, n.opt(2), 1e-5)),
    // ONNX Runtime writes this one into ONNX's own domain.
    OpImport {
        domain: "",
        name: "SimplifiedLayerNormalization",
        since: 1,
        until: None,
        import: simplified_layer_norm,
        note: "of ONNX Runtime",
    },
    microsoft("SimplifiedLayerNormalization", simplified_layer_norm),
    microsoft("SkipLayerNormalization", |b, n| skip_layer_norm(b, n, true)),
    microsoft("SkipSimplifiedLayerNormalization", |b, n| skip_layer_norm(b, n, false)),
    microsoft("EmbedLayerNormalization", embed_layer_norm),
    microsoft("GroupNorm", |b, n| group_norm(b, n, n.input(0)?)),
    microsoft("SkipGroupNorm", skip_group_norm),
    microsoft("ExpandDims", |b, n| {
        let x = n.input(0)?;
        let axis = crate::build::axis(b.need_i64(n.input(1)?)?, b.rank(x) + 1)?;
        one(b.unsqueeze(x, &[axis]))
    }),
    microsoft("Trilu", movement::trilu),
    microsoft("Pad", movement::pad),
    microsoft("Range", movement::range),
    microsoft("ReduceSumInteger", |b, n| {
        let x = b.cast(n.input(0)?, Type::I32)?;
        let axes = crate::build::axes(&n.req_ints("axes")?, b.rank(x))?;
        one(b.reduce(Kind::ReduceSum, x, &axes, n.flag("keepdims", true)?))
    }),
    microsoft("IsAllFinite", is_all_finite),
    microsoft("CDist", cdist),
    microsoft("ComplexMul", |b, n| complex_mul(b, n, 1.0)),
    microsoft("ComplexMulConj", |b, n| complex_mul(b, n, -1.0)),
];

/// What the fused forms of a normalisation add to the variance, unless they say otherwise.
const SKIP_EPSILON: f64 = 1e-12;

/// A formula of `x + bias`, computed in f32 when that is narrower.
fn biased(b: &mut Build, x: Value, bias: Option<Value>, f: impl FnOnce(Expr) -> Expr) -> Result<Value> {
    let ty = b.elem(x);
    let mut wide = b.wide(x)?;
    if let Some(bias) = bias {
        let bias = b.cast(bias, b.elem(wide))?;
        wide = b.emit(v(wide) + bias)?;
    }
    let y = b.emit(f(v(wide)))?;
    b.cast(y, ty)
}

/// The attribute `activation` applied; its parameters are named attributes or a list.
fn activated(b: &mut Build, n: &Node, x: Value) -> Result<Value> {
    let list = n.floats("activation_params")?.unwrap_or_default();
    let parameter = |i: usize, name: &str, default: f64| match list.get(i) {
        Some(&p) => Ok(p.into()),
        None => n.num(name, default),
    };
    let (alpha, beta) = ("activation_alpha", "activation_beta");
    let y = match n.string("activation", "")? {
        "" => return Ok(x),
        "Relu" => v(x).relu(),
        "Tanh" => v(x).tanh(),
        "Sigmoid" => v(x).sigmoid(),
        "Softplus" => v(x).softplus(),
        "Softsign" => v(x) / (v(x).abs() + 1.0),
        "HardSwish" => Expr::Op(Kind::HardSwish, vec![], vec![v(x)]),
        "LeakyRelu" => v(x).lt(0.0).select(v(x) * parameter(0, alpha, 0.01)?, x),
        "ThresholdedRelu" => Expr::from(parameter(0, alpha, 1.0)?).lt(x).select(x, 0.0),
        "Elu" => v(x).lt(0.0).select(v(x).expm1() * parameter(0, alpha, 1.0)?, x),
        "HardSigmoid" => (v(x) * parameter(0, alpha, 0.2)? + parameter(1, beta, 0.5)?).clamp(0.0, 1.0),
        "Clip" => v(x).clamp(parameter(0, alpha, f64::NEG_INFINITY)?, parameter(1, beta, f64::INFINITY)?),
        other => return unsupported!("the activation `{other}`"),
    };
    b.emit(y)
}

fn fused_conv(b: &mut Build, n: &Node) -> Outputs {
    let mut y = convolution(b, n, n.input(0)?, n.input(1)?, n.opt(2))?;
    if let Some(sum) = n.opt(3) {
        y = b.emit(v(y) + sum)?;
    }
    one(activated(b, n, y))
}

/// As `FusedConv` on images whose channels come last; the weights are as always.
fn nhwc_conv(b: &mut Build, n: &Node) -> Outputs {
    let y = channels_first(b, n.input(0)?, true, |b, x| convolution(b, n, x, n.input(1)?, n.opt(2)))?;
    let y = match n.opt(3) {
        Some(sum) => b.emit(v(y) + sum)?,
        None => y,
    };
    one(activated(b, n, y))
}

fn fused_gemm(b: &mut Build, n: &Node) -> Outputs {
    let y = gemm_product(b, n)?;
    one(activated(b, n, y))
}

/// alpha · A·B, either one transposed in its last two axes (`trans`) or with its first axis moved before the last (`transBatch`).
fn fused_matmul(b: &mut Build, n: &Node) -> Result<Value> {
    let mut flags = [false; 2];
    let mut operands = [n.input(0)?, n.input(1)?];
    for (i, (batch, plain)) in [("transBatchA", "transA"), ("transBatchB", "transB")].into_iter().enumerate() {
        let rank = b.rank(operands[i]);
        if n.flag(batch, false)? && rank > 2 {
            let perm: Vec<usize> = (1..rank - 1).chain([0, rank - 1]).collect();
            operands[i] = b.transpose(operands[i], &perm)?;
        }
        flags[i] = n.flag(plain, false)? && rank > 1;
    }
    let [x, y] = operands;
    let z = if b.rank(x) < 2 || b.rank(y) < 2 {
        let turn = |b: &mut Build, t: Value, flag: bool| {
            let mut perm: Vec<usize> = (0..b.rank(t)).collect();
            if flag {
                let last = perm.len() - 1;
                perm.swap(last - 1, last);
            }
            b.transpose(t, &perm)
        };
        let (x, y) = (turn(b, x, flags[0])?, turn(b, y, flags[1])?);
        matmul(b, x, y)?
    } else {
        b.op(Kind::MatMul, [("trans_a", flags[0].into()), ("trans_b", flags[1].into())], &[x, y])?
    };
    match n.num("alpha", 1.0)? {
        1.0 => Ok(z),
        alpha => b.emit(v(z) * alpha),
    }
}

fn bias_split_gelu(b: &mut Build, n: &Node) -> Outputs {
    let sum = b.emit(v(n.input(0)?) + n.input(1)?)?;
    let last = b.rank(sum) - 1;
    let half = b.shape(sum)[last] / 2;
    let (left, right) = (b.slice_axis(sum, last, 0, half)?, b.slice_axis(sum, last, half, half)?);
    let gate = biased(b, right, None, |x| x.gelu())?;
    one(b.emit(v(left) * gate))
}

/// softmax(data + bias), the bias repeated along outer axes or along those before `axis`.
fn bias_softmax(b: &mut Build, n: &Node) -> Outputs {
    let (x, mut bias) = (n.input(0)?, n.input(1)?);
    let shape = b.shape(x);
    let axis = n.axis("axis", 1, shape.len())?;
    let inner = n.req_int("is_inner_broadcast")? != 0;
    let given = b.shape(bias);
    if given.len() != shape.len() {
        // The axes that the bias does not have are those just before the softmax, or the first ones.
        let missing = shape.len().saturating_sub(given.len());
        let at = if inner { axis.saturating_sub(missing) } else { 0 };
        let new: Vec<usize> = (at..at + missing).collect();
        bias = b.unsqueeze(bias, &new)?;
    }
    let sum = b.emit(v(x) + bias)?;
    if b.shape(sum) != shape {
        return invalid!("a bias {given:?} does not broadcast to {shape:?}");
    }
    let flat = b.reshape(sum, &[count(&shape[..axis])?, count(&shape[axis..])?])?;
    let y = b.on_axis(Kind::Softmax, flat, 1)?;
    one(b.reshape(y, &shape))
}

fn simplified_layer_norm(b: &mut Build, n: &Node) -> Outputs {
    one(rms_norm_of(b, n, n.input(0)?, n.input(1)?, 1e-5))
}

/// Normalises input + skip (+ bias), which is also the fourth result.
fn skip_layer_norm(b: &mut Build, n: &Node, centred: bool) -> Outputs {
    let (gamma, beta, bias) = (n.input(2)?, if centred { n.opt(3) } else { None }, if centred { n.opt(4) } else { n.opt(3) });
    let mut sum = b.emit(v(n.input(0)?) + n.input(1)?)?;
    if let Some(bias) = bias {
        sum = b.emit(v(sum) + bias)?;
    }
    if !centred {
        // The second and third result hold what training needs; nothing reads them at inference.
        let y = rms_norm_of(b, n, sum, gamma, SKIP_EPSILON)?;
        return Ok(vec![y, sum, sum, sum]);
    }
    let mut outputs = layer_norm_of(b, n, sum, gamma, beta, SKIP_EPSILON)?;
    outputs.resize(3, sum);
    outputs.push(sum);
    Ok(outputs)
}

fn embed_layer_norm(b: &mut Build, n: &Node) -> Outputs {
    let tables = std::array::from_fn(|i| n.opt(2 + i));
    embeddings(b, n, tables, n.opt(7), n.opt(8))
}

/// The sum of the embeddings of words, positions and segments, normalised: tables of the three, scale and bias.
pub(super) fn embeddings(b: &mut Build, n: &Node, tables: [Option<Value>; 5], mask: Option<Value>, at: Option<Value>) -> Outputs {
    let (ids, segments) = (n.input(0)?, n.opt(1));
    let [Some(words), Some(positions), segment_table, Some(gamma), Some(beta)] = tables else { return invalid!("a table is missing") };
    let [batch, len] = b.shape(ids)[..] else { return invalid!("ids {}: [batch, length] is expected", b.ty(ids)) };
    let look_up = |b: &mut Build, table: Value, ids: Value| -> Result<Value> {
        let ids = b.cast(ids, Type::I64)?;
        b.gather(table, ids, 0)
    };
    let word = look_up(b, words, ids)?;
    let at = match at {
        Some(at) => at,
        None => {
            let at = b.iota(len)?;
            b.reshape(at, &[1, len])?
        }
    };
    let position = look_up(b, positions, at)?;
    let mut sum = b.emit(v(word) + position)?;
    if let Some(table) = segment_table {
        // Without segments all tokens are of the first.
        let segments = segments.unwrap_or_else(|| b.i64(0));
        let segment = look_up(b, table, segments)?;
        sum = b.emit(v(sum) + segment)?;
    }
    let y = layer_norm_of(b, n, sum, gamma, Some(beta), SKIP_EPSILON)?[0];
    // The mask index is the number of tokens of each sequence.
    let index = match mask {
        Some(mask) => {
            let mask = b.cast(mask, Type::I32)?;
            b.reduce(Kind::ReduceSum, mask, &[1], false)?
        }
        None => b.full(&[batch], Type::I32, 0.0)?,
    };
    Ok(vec![y, index, sum])
}

fn group_norm(b: &mut Build, n: &Node, x: Value) -> Outputs {
    let last = n.flag("channels_last", true)?;
    let rank = b.rank(x);
    if rank < 3 {
        return invalid!("{} has no spatial axes", b.ty(x));
    }
    let to_first: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    let ty = b.elem(x);
    let wide = b.wide(x)?;
    let wide = if last { b.transpose(wide, &to_first)? } else { wide };
    let (shape, groups) = (b.shape(wide), positive("attribute `groups`", n.req_int("groups")?)?);
    if shape[1] % groups != 0 {
        return invalid!("{} channels in {groups} groups", shape[1]);
    }
    let split = b.reshape(wide, &[shape[0], groups, count(&shape[1..])? / groups])?;
    let y = b.op(Kind::Norm, [("axes", (&[2usize][..]).into()), ("eps", n.num("epsilon", 1e-5)?.into())], &[split])?;
    let y = b.reshape(y, &shape)?;
    let (gamma, beta) = (b.cast(n.input(1)?, b.elem(y))?, b.cast(n.input(2)?, b.elem(y))?);
    let (gamma, beta) = (b.channels(y, gamma)?, b.channels(y, beta)?);
    let scaled = v(y) * gamma + beta;
    let y = b.emit(match n.req_int("activation")? {
        0 => scaled,
        1 => scaled.silu(),
        other => return unsupported!("GroupNorm with activation={other}"),
    })?;
    let y = if last { b.transpose(y, &crate::ops::helpers::inverse(&to_first))? } else { y };
    one(b.cast(y, ty))
}

fn skip_group_norm(b: &mut Build, n: &Node) -> Outputs {
    let (x, mut skip) = (n.input(0)?, n.input(3)?);
    // The skip may hold one number per channel and sample.
    if let (&[batch, channels], 4) = (&b.shape(skip)[..], b.rank(x)) {
        skip = b.reshape(skip, &[batch, 1, 1, channels])?;
    }
    let mut sum = b.emit(v(x) + skip)?;
    if let Some(bias) = n.opt(4) {
        sum = b.emit(v(sum) + bias)?;
    }
    Ok(vec![group_norm(b, n, sum)?[0], sum])
}

fn is_all_finite(b: &mut Build, n: &Node) -> Outputs {
    let (no_inf, no_nan) = (n.flag("isinf_only", false)?, n.flag("isnan_only", false)?);
    let mut wrong = b.constant(dnnc_ir::Tensor::with_type(dnnc_ir::TensorType::new(Type::Bool, []), &[0u8]));
    for x in n.all_inputs()? {
        let here = match (no_inf, no_nan) {
            (true, _) => v(x).is_inf(),
            (_, true) => v(x).is_nan(),
            _ => Expr::Op(Kind::Or, vec![], vec![v(x).is_inf(), v(x).is_nan()]),
        };
        let here = b.emit(here)?;
        let found = reduce::how_many(b, here)?;
        let none = b.i64(0);
        wrong = b.emit(Expr::Op(Kind::Or, vec![], vec![v(wrong), v(none).lt(found)]))?;
    }
    one(b.emit(v(wrong).not()))
}

/// Distances between the rows of two matrices.
fn cdist(b: &mut Build, n: &Node) -> Outputs {
    let (x, y) = (n.input(0)?, n.input(1)?);
    if b.rank(x) != 2 || b.rank(y) != 2 {
        return invalid!("distances between {} and {}", b.ty(x), b.ty(y));
    }
    let (x, y) = (b.unsqueeze(x, &[1])?, b.unsqueeze(y, &[0])?);
    let square = b.emit((v(x) - y) * (v(x) - y))?;
    let sum = b.reduce(Kind::ReduceSum, square, &[2], false)?;
    match n.string("metric", "sqeuclidean")? {
        "sqeuclidean" => Ok(vec![sum]),
        "euclidean" => one(b.emit(v(sum).sqrt())),
        other => unsupported!("CDist with metric={other:?}"),
    }
}

/// Products of complex numbers, whose parts are the last axis; `sign` −1 conjugates the second.
fn complex_mul(b: &mut Build, n: &Node, sign: f64) -> Outputs {
    let mut parts = Vec::new();
    for x in [n.input(0)?, n.input(1)?] {
        let Some(last) = b.rank(x).checked_sub(1).filter(|&a| b.shape(x)[a] == 2) else {
            return invalid!("{} holds no complex numbers", b.ty(x));
        };
        parts.extend([b.slice_axis(x, last, 0, 1)?, b.slice_axis(x, last, 1, 1)?]);
    }
    let [a, c, d, e] = parts[..] else { return invalid!("two tensors are needed") };
    let real = b.emit(v(a) * d - v(c) * e * sign)?;
    let imaginary = b.emit(v(c) * d + v(a) * e * sign)?;
    let last = b.rank(real) - 1;
    one(b.concat(&[real, imaginary], last))
}
