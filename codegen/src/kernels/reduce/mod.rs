//! Reductions, scans and rankings along axes.

mod arg;
mod monoid;
mod scan;
mod top_k;

pub(super) use top_k::order_key;

use self::monoid::Monoid;
use super::lib::view::View;
use super::map::{self, Source};
use crate::estimate;
use crate::expr::{Expr, ExprNode, What, register};
use crate::kernels::lib::rows::{Rows, Stream};
use crate::unit::{Arg, Family, Lowered, LoweredCall, Unit};
use dnnc_ir::{Kind, Tensor, TensorType, Type};
use dnnc_kir::{Bin, Builder, Conv, Elem, Ty, Val};

/// The family.
pub const FAMILY: Family = Family {
    name: "reduce",
    kinds: &[
        Kind::ReduceSum,
        Kind::ReduceProd,
        Kind::ReduceMax,
        Kind::ReduceMin,
        Kind::ReduceMean,
        Kind::ArgMax,
        Kind::ArgMin,
        Kind::CumSum,
        Kind::CumProd,
        Kind::TopK,
    ],
    lower,
    forecast: |unit| estimate::rows(unit, 2.0),
    epilogue: |_, _| None,
};

fn lower(unit: &Unit) -> Result<Lowered, String> {
    if unit.results.iter().all(TensorType::is_empty) {
        return Ok(Lowered::default());
    }
    let calls = match unit.op.kind() {
        Kind::ArgMax | Kind::ArgMin => vec![arg::lower(unit)],
        Kind::CumSum | Kind::CumProd => vec![scan::lower(unit)],
        Kind::TopK => vec![top_k::lower(unit)],
        _ => reduce(unit)?,
    };
    Ok(Lowered { calls, ..Lowered::default() })
}

/// How the result of a reduction lies over the axes of what is reduced.
fn view_of_result(shape: &[usize], reduced: &[bool]) -> View {
    let kept: Vec<usize> = (0..shape.len()).map(|a| if reduced[a] { 1 } else { shape[a] }).collect();
    let dense = View::dense(&kept);
    View { offset: 0, strides: (0..shape.len()).map(|a| if reduced[a] { 0 } else { dense.strides[a] }).collect() }
}

fn reduce(unit: &Unit) -> Result<Vec<LoweredCall>, String> {
    let (kind, x) = (unit.op.kind(), &unit.inputs[0].ty);
    let axes = unit.op.attrs.sizes("axes");
    let reduced: Vec<bool> = (0..x.rank()).map(|a| axes.contains(&a)).collect();
    let count: usize = axes.iter().map(|&a| x.shape[a]).product();
    if x.is_empty() {
        return Ok(fill(unit, kind, x.ty).into_iter().collect());
    }
    let streams = [Stream { ty: x.ty, view: View::dense(&x.shape) }, Stream { ty: x.ty, view: view_of_result(&x.shape, &reduced) }];
    // A mean of integers must not wrap on its way: it is summed in 64 bits.
    let wide = kind == Kind::ReduceMean && !x.ty.is_float();
    let elem = if wide { Elem::I64 } else { register(x.ty) };
    let lanes = if elem == Elem::I64 { 1 } else { (unit.target.vector.bits / (8 * elem.bytes())) as u8 };
    let rows = Rows::new(&x.shape, &reduced, &streams, lanes, 1, unit.options.threads, unit.target.l1d);
    let mut b = Builder::new(kind.name(), streams.len());
    let (reg, monoid) = (Ty { elem, lanes }, Monoid { kind, ty: x.ty });
    rows.each(&mut b, &mut |b, row| {
        let identity = monoid.identity(b, reg);
        let mut sums = row.fold(
            b,
            identity,
            &mut |b, at| {
                let v = at.load(b, 0);
                if b.ty(v).elem == elem { v } else { b.conv(if x.ty.is_signed() { Conv::Sext } else { Conv::Zext }, v, elem) }
            },
            &mut |b, x, y| monoid.combine(b, x, y),
        );
        if kind == Kind::ReduceMean {
            for s in &mut sums {
                *s = mean(b, *s, count, x.ty);
            }
        }
        row.store_result(b, 1, &sums);
    });
    Ok(vec![LoweredCall { func: b.finish(), args: vec![Arg::Input(0), Arg::Output(0)], tasks: rows.tasks() }])
}

fn mean(b: &mut Builder, sum: Val, count: usize, ty: Type) -> Val {
    let reg = b.ty(sum);
    if reg.elem.is_float() {
        let part = b.number(reg, 1.0 / count as f64);
        return b.mul(sum, part);
    }
    let n = b.int(reg, count as i64);
    let mean = b.bin(if ty == Type::U64 { Bin::DivU } else { Bin::DivS }, sum, n);
    if register(ty) == Elem::I64 { mean } else { b.conv(Conv::Wrap, mean, register(ty)) }
}

/// The result over nothing.
fn fill(unit: &Unit, kind: Kind, ty: Type) -> Option<LoweredCall> {
    let real = |v: f64| v;
    let value = match kind {
        Kind::ReduceProd => real(1.0),
        Kind::ReduceMean => real(f64::NAN),
        Kind::ReduceMax => real(f64::NEG_INFINITY),
        Kind::ReduceMin => real(f64::INFINITY),
        _ => real(0.0),
    };
    let op = |kind, attrs: Vec<(&'static str, dnnc_ir::Attr)>| dnnc_ir::Op::new(kind, attrs).expect("the row of the operator");
    // Infinities saturate to the limits of an integer type; a bool is whether the limit is the upper one.
    let element = match ty {
        Type::Bool => Tensor::with_type(TensorType::new(ty, []), &[u8::from(value == f64::INFINITY)]),
        _ => dnnc_ir::eval_op(&op(Kind::Cast, vec![("to", ty.into())]), &[Tensor::scalar(value)]).ok()?.remove(0),
    };
    let expr = Expr { nodes: vec![ExprNode { what: What::Const(element), ty }] };
    let shape = &unit.results[0].shape;
    let none: [Source; 0] = [];
    map::call(&expr, &none, shape, &View::dense(shape), unit.target, unit.options)
}

#[cfg(test)]
mod tests;
