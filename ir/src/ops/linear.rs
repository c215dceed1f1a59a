//! Matrices: products, attention, determinants.

use super::check::{self, Types, ensure};
use super::{not_yet, product};
use crate::op::{Arity, AttrKind, Attrs, Class, Kind, OpDef};
use crate::types::{TensorType, Type, broadcast};

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    OpDef {
        kind: Kind::MatMul,
        doc: "Matrix product of the last two axes, [.., M, K] · [.., K, N] → [.., M, N]; leading axes broadcast; `trans_a`/`trans_b`: that \
              input holds its matrices transposed. i8, u8 and i32 (also mixed) give i32; integers wrap.",
        inputs: Arity::Exactly(2),
        attrs: &[("trans_a", AttrKind::Int(0)), ("trans_b", AttrKind::Int(0))],
        class: Class::Compute,
        infer: matmul,
        eval: not_yet,
        work: |attrs, x, y| {
            let [_, k] = matrix(&x[0], attrs.flag("trans_a"));
            product(&[y[0].len(), k])
        },
    },
    OpDef {
        kind: Kind::Attention,
        doc: "softmax(scale · q·kᵀ + mask)·v for q [.., L, D], k [.., S, D], v [.., S, E], mask (added, broadcast to [.., L, S]) → [.., L, E]; \
              leading axes broadcast; `causal`: row i sees columns ≤ i only.",
        inputs: Arity::Between(3, 4),
        attrs: &[("scale", AttrKind::Float(1.0)), ("causal", AttrKind::Int(0))],
        class: Class::Compute,
        infer: attention,
        eval: not_yet,
        work: |_, x, y| {
            // q·kᵀ, softmax and ·v, for each row of the result.
            let [s, d] = matrix(&x[1], false);
            let e = x[2].shape[x[2].rank() - 1];
            let rows = y[0].len() / e.max(1);
            product(&[rows, s, d.saturating_add(e).saturating_add(8)])
        },
    },
    OpDef {
        kind: Kind::Det,
        doc: "Determinant of the matrices [.., n, n] → [..].",
        inputs: Arity::Exactly(1),
        attrs: &[],
        class: Class::Compute,
        infer: det,
        eval: not_yet,
        work: |_, x, _| product(&[x[0].len(), x[0].shape[x[0].rank() - 1]]) / 3,
    },
];

/// Rows and columns of the matrices of `x`, which has at least two axes.
fn matrix(x: &TensorType, transposed: bool) -> [usize; 2] {
    let [rows, cols] = [x.shape[x.rank() - 2], x.shape[x.rank() - 1]];
    if transposed { [cols, rows] } else { [rows, cols] }
}

/// The axes before the matrices.
fn batch(x: &TensorType) -> &[usize] {
    &x.shape[..x.rank() - 2]
}

/// Type of sums of products of elements of `a` and `b`.
pub fn product_type(a: &TensorType, b: &TensorType) -> Result<Type, String> {
    let narrow = |t: Type| matches!(t, Type::I8 | Type::U8 | Type::I32);
    match (a.ty, b.ty) {
        (x, y) if narrow(x) && narrow(y) => Ok(Type::I32),
        (x, y) if x == y && (x.is_real() || matches!(x, Type::U32 | Type::I64 | Type::U64)) => Ok(x),
        _ => Err(format!("{a} and {b} cannot be multiplied")),
    }
}

fn matmul(attrs: &Attrs, x: &[TensorType]) -> Types {
    let [a, b] = [&x[0], &x[1]];
    let ty = product_type(a, b)?;
    check::rank_at_least("the first input", a, 2)?;
    check::rank_at_least("the second input", b, 2)?;
    let [m, k] = matrix(a, attrs.flag("trans_a"));
    let [k2, n] = matrix(b, attrs.flag("trans_b"));
    ensure(k == k2, || format!("the inner sizes {k} and {k2} of {a} and {b} differ"))?;
    let mut shape = broadcast(batch(a), batch(b)).ok_or_else(|| format!("the leading axes of {a} and {b} do not broadcast"))?;
    shape.extend([m, n]);
    check::one(ty, shape)
}

fn attention(attrs: &Attrs, x: &[TensorType]) -> Types {
    for (what, x) in ["q", "k", "v"].into_iter().zip(x) {
        check::real(what, x)?;
        check::rank_at_least(what, x, 2)?;
    }
    let [q, k, v] = [&x[0], &x[1], &x[2]];
    check::same_type(q, k)?;
    check::same_type(q, v)?;
    ensure(attrs.float("scale").is_finite(), || "the scale is not finite".into())?;
    let [[l, d], [s, d2], [s2, e]] = [matrix(q, false), matrix(k, false), matrix(v, false)];
    ensure(d == d2 && s == s2, || format!("q {q}, k {k} and v {v} do not fit together"))?;
    let lead = broadcast(batch(q), batch(k)).and_then(|lead| broadcast(&lead, batch(v)));
    let mut shape = lead.ok_or_else(|| format!("the leading axes of q {q}, k {k} and v {v} do not broadcast"))?;
    shape.extend([l, s]);
    if let Some(mask) = x.get(3) {
        check::same_type(q, mask)?;
        let fits = broadcast(&mask.shape, &shape).is_some_and(|both| both == shape);
        ensure(fits, || format!("the mask {mask} does not broadcast to {shape:?}"))?;
    }
    // The scores must be countable too.
    TensorType::checked(q.ty, shape.as_slice())?;
    *shape.last_mut().expect("two axes were pushed") = e;
    check::one(q.ty, shape)
}

fn det(_: &Attrs, x: &[TensorType]) -> Types {
    check::real("the input", &x[0])?;
    check::rank_at_least("the input", &x[0], 2)?;
    let [rows, cols] = matrix(&x[0], false);
    ensure(rows == cols, || format!("the matrices of {} are not square", x[0]))?;
    check::one(x[0].ty, batch(&x[0]))
}
