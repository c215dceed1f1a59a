//! Pooling.

use super::conv::{Window, spatial};
use super::expr::v;
use super::helpers::{Outputs, count, one, positive};
use super::row::{OpImport, onnx};
use crate::build::{Build, Node, Result, invalid};
use dnnc_ir::{Attr, Kind, Value};

pub(super) const OPS: &[OpImport] = &[
    onnx("MaxPool", max_pool),
    onnx("AveragePool", |b, n| one(average_pool(b, n, n.input(0)?))),
    onnx("LpPool", lp_pool),
    onnx("GlobalAveragePool", |b, n| one(global(b, n.input(0)?, Kind::ReduceMean))),
    onnx("GlobalMaxPool", |b, n| one(global(b, n.input(0)?, Kind::ReduceMax))),
    onnx("GlobalLpPool", global_lp_pool),
    onnx("MaxUnpool", max_unpool),
];

fn window(b: &Build, n: &Node, x: Value) -> Result<Window> {
    let kernel = n.req_ints("kernel_shape")?.iter().map(|&k| positive("a kernel size", k)).collect::<Result<Vec<usize>>>()?;
    Window::read(n, &spatial(b, x)?, kernel, n.flag("ceil_mode", false)?)
}

/// Pools over windows; one spatial axis becomes two, so that the kernels for images serve it.
fn pool(b: &mut Build, kind: Kind, x: Value, window: Window, mut more: Vec<(&'static str, Attr)>) -> Result<Value> {
    if window.kernel.len() == 1 {
        let x = b.unsqueeze(x, &[2])?;
        let y = pool(b, kind, x, window.unsqueezed(), more)?;
        return b.squeeze(y, &[2]);
    }
    let mut window = window;
    if kind == Kind::AvgPool {
        more.push(("extra", window.extra.as_slice().into()));
    } else {
        let rank = window.kernel.len();
        (0..rank).for_each(|a| window.pads[rank + a] += window.extra[a]);
    }
    more.push(("kernel", window.kernel.as_slice().into()));
    more.extend(window.attrs());
    b.op(kind, more, &[x])
}

/// The largest element of each window of `x`.
pub(super) fn max_pool_of(b: &mut Build, n: &Node, x: Value) -> Result<Value> {
    let window = window(b, n, x)?;
    pool(b, Kind::MaxPool, x, window, vec![])
}

fn max_pool(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let window = window(b, n, x)?;
    let y = pool(b, Kind::MaxPool, x, window.clone(), vec![])?;
    if !n.wants_output(1) {
        return Ok(vec![y]);
    }
    let column_major = n.flag("storage_order", false)?;
    Ok(vec![y, pool(b, Kind::ArgMaxPool, x, window, vec![("column_major", column_major.into())])?])
}

pub(super) fn average_pool(b: &mut Build, n: &Node, x: Value) -> Result<Value> {
    let include = n.flag("count_include_pad", false)?;
    let window = window(b, n, x)?;
    pool(b, Kind::AvgPool, x, window, vec![("include_pad", include.into())])
}

/// (Σ |x|ᵖ)^(1/p): the mean of the padded powers times the size of the window.
fn lp_pool(b: &mut Build, n: &Node) -> Outputs {
    let x = n.input(0)?;
    let p = norm_order(n)?;
    let mut window = window(b, n, x)?;
    let wide = b.wide(x)?;
    let powers = b.emit(v(wide).abs().pow(p))?;
    let rank = window.kernel.len();
    let pads: Vec<usize> = [0, 0]
        .into_iter()
        .chain(window.pads[..rank].iter().copied())
        .chain([0, 0])
        .chain((0..rank).map(|a| window.pads[rank + a] + window.extra[a]))
        .collect();
    let zero = b.scalar(b.elem(wide), 0.0);
    let padded = b.pad(powers, &pads, zero)?;
    (window.pads, window.extra) = (vec![0; 2 * rank], vec![0; rank]);
    let size = count(&window.kernel)? as f64;
    let mean = pool(b, Kind::AvgPool, padded, window, vec![])?;
    let y = b.emit((v(mean) * size).pow(1.0 / p))?;
    one(b.cast(y, b.elem(x)))
}

/// The attribute `p`: a number in opset 1, an integer since.
fn norm_order(n: &Node) -> Result<f64> {
    let p = if n.opset < 2 { n.num("p", 2.0)? } else { n.int("p", 2)? as f64 };
    if p > 0.0 { Ok(p) } else { invalid!("attribute `p` is {p}") }
}

pub(super) fn global(b: &mut Build, x: Value, kind: Kind) -> Result<Value> {
    spatial(b, x)?;
    let axes: Vec<usize> = (2..b.rank(x)).collect();
    b.reduce(kind, x, &axes, true)
}

fn global_lp_pool(b: &mut Build, n: &Node) -> Outputs {
    let (x, p) = (n.input(0)?, norm_order(n)?);
    let wide = b.wide(x)?;
    let powers = b.emit(v(wide).abs().pow(p))?;
    let sum = global(b, powers, Kind::ReduceSum)?;
    let y = b.emit(v(sum).pow(1.0 / p))?;
    one(b.cast(y, b.elem(x)))
}

/// Puts each element where its index in the (flat) unpooled tensor says, zeros elsewhere.
fn max_unpool(b: &mut Build, n: &Node) -> Outputs {
    let (x, indices) = (n.input(0)?, n.input(1)?);
    let (shape, sizes) = (b.shape(x), spatial(b, x)?);
    let rank = sizes.len();
    let list = |name: &str, default: usize, len: usize| -> Result<Vec<usize>> {
        match n.ints(name)? {
            None => Ok(vec![default; len]),
            Some(list) if list.len() == len => super::helpers::sizes(&list),
            Some(list) => invalid!("attribute `{name}` has {} numbers, not {len}", list.len()),
        }
    };
    let (kernel, strides, pads) = (list("kernel_shape", 1, rank)?, list("strides", 1, rank)?, list("pads", 0, 2 * rank)?);
    let mut natural = shape[..2].to_vec();
    for a in 0..rank {
        let size = count(&[sizes[a].saturating_sub(1), strides[a]])? + kernel[a];
        let Some(size) = size.checked_sub(pads[a] + pads[rank + a]) else { return invalid!("the padding is larger than the result") };
        natural.push(size);
    }
    let wanted = match n.opt(2) {
        Some(given) => super::helpers::sizes(&b.need_i64s(given)?)?,
        None => natural.clone(),
    };
    if wanted.len() != natural.len() {
        return invalid!("an output shape {wanted:?} for an input {}", b.ty(x));
    }
    // The indices refer to the natural shape, which is the corner of a larger requested shape.
    let len = count(&shape)?;
    let flat = b.full(&[count(&natural)?], b.elem(x), 0.0)?;
    let (at, updates) = (b.reshape(indices, &[len])?, b.reshape(x, &[len])?);
    let at = b.cast(at, dnnc_ir::Type::I64)?;
    let y = b.op(Kind::ScatterElements, [("axis", Attr::Int(0))], &[flat, at, updates])?;
    let y = b.reshape(y, &natural)?;
    if wanted == natural {
        return Ok(vec![y]);
    }
    let Some(ends) = wanted.iter().zip(&natural).map(|(w, n)| w.checked_sub(*n)).collect::<Option<Vec<usize>>>() else {
        return invalid!("an output shape {wanted:?} is smaller than {natural:?}");
    };
    let pads = [vec![0; ends.len()], ends].concat();
    let zero = b.scalar(b.elem(x), 0.0);
    one(b.pad(y, &pads, zero))
}
