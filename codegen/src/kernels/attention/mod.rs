//! Attention: softmax(scale·q·kᵀ + mask)·v.
//!
//! One kernel computes it a block of queries at a time, so that scores never leave the caches; operands and result may be strided views,
//! so that heads need not be moved to where they are wanted.

mod fused;
mod parts;
#[cfg(test)]
mod tests;
mod views;

pub use self::views::Views;
use crate::expr::register;
use crate::schedule;
use crate::unit::{Family, Forecast, Lowered, Unit};
use dnnc_ir::{Kind, TensorType, Type};
use dnnc_kir::Elem;

/// The family.
pub const FAMILY: Family = Family {
    name: "attention",
    kinds: &[Kind::Attention],
    lower: |unit| lower_views(unit, &Views::default()),
    forecast,
    epilogue: |_, _| None,
};

/// Two products for each head, and softmax between them.
fn forecast(unit: &Unit) -> Forecast {
    /// Operations an element of the scores: maximum, exponential, sum.
    const SOFTMAX: f64 = 12.0;
    let (result, k) = (&unit.results[0], &unit.inputs[1].ty);
    if result.is_empty() {
        return Forecast::NOTHING;
    }
    let (lead, matrix) = result.shape.split_at(result.rank() - 2);
    let (queries, columns) = (matrix[0], matrix[1]);
    let [keys, width] = [2, 1].map(|i| k.shape[k.rank() - i]);
    let lanes = schedule::lanes(&unit.target.vector, 4);
    let product = |columns, depth| schedule::product_ns(unit.target, lanes, queries, columns, depth);
    let seen = if unit.op.attrs.flag("causal") { 0.6 } else { 1.0 };
    let head = product(keys, width) + product(columns, keys) + schedule::lanes_ns(unit.target, (queries * keys) as f64 * SOFTMAX);
    Forecast::kernel(unit.target, seen * head * lead.iter().product::<usize>() as f64)
}

/// Whether operands may be views: numbers are computed as they are stored, and there is something to compute.
pub fn takes_views(q: &TensorType, k: &TensorType, result: &TensorType) -> bool {
    let as_stored = matches!((q.ty, register(q.ty)), (Type::F32, Elem::F32) | (Type::F64, Elem::F64));
    as_stored && ![q, k, result].iter().any(|t| t.is_empty())
}

/// As [`FAMILY`], for operands and a result that lie in some other way.
pub fn lower_views(unit: &Unit, views: &Views) -> Result<Lowered, String> {
    if unit.results[0].is_empty() {
        return Ok(Lowered::default());
    }
    let (q, k) = (&unit.inputs[0].ty, &unit.inputs[1].ty);
    if takes_views(q, k, &unit.results[0]) {
        return fused::lower(unit, views);
    }
    assert_eq!(*views, Views::default(), "views of a type that takes none");
    parts::lower(unit)
}
