//! Matrices: products, attention, determinants.

use super::check::{self, Types, ensure};
use super::data::{self, Number, Results};
use super::norm::softmax_lane;
use super::work::product;
use crate::graph::{Attrs, OpDef};
use crate::kind::{Arity, AttrKind, Class, Kind};
use crate::tensor::Tensor;
use crate::types::{TensorType, Type, broadcast};

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    OpDef {
        kind: Kind::MatMul,
        doc: "Matrix product of the last two axes, [.., M, K] · [.., K, N] → [.., M, N]; leading axes broadcast; `trans_a`/`trans_b`: that \
              input holds its matrices transposed. i8, u8, i16 and i32 (also mixed) give i32; integers wrap.",
        inputs: Arity::Exactly(2),
        attrs: &[("trans_a", AttrKind::Int(0)), ("trans_b", AttrKind::Int(0))],
        class: Class::Compute,
        infer: matmul,
        eval: eval_matmul,
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
        eval: eval_attention,
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
        eval: eval_det,
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
    let narrow = |t: Type| matches!(t, Type::I8 | Type::U8 | Type::I16 | Type::I32);
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

/// Strides of the leading axes of a stack of matrices of `size` elements, seen as `lead`.
fn batch_strides(x: &Tensor, lead: &[usize], size: usize) -> Vec<isize> {
    let mut strides = data::broadcast_strides(batch(x.ty()), lead);
    strides.iter_mut().for_each(|s| *s *= size as isize);
    strides
}

/// Adds the products of the matrices of `a` and `b`.
fn multiply<N: Number>(attrs: &Attrs, x: &[Tensor], shape: &[usize], a: &[N], b: &[N]) -> Vec<N> {
    let [trans_a, trans_b] = [attrs.flag("trans_a"), attrs.flag("trans_b")];
    let [m, k] = matrix(x[0].ty(), trans_a);
    let n = matrix(x[1].ty(), trans_b)[1];
    let lead = &shape[..shape.len() - 2];
    let (row_a, column_a) = if trans_a { (1, m) } else { (k, 1) };
    // With rows of b contiguous the innermost loop runs along two rows.
    let turned: Vec<N>;
    let b = if trans_b && !b.is_empty() {
        turned = b.chunks(n * k).flat_map(|b| (0..k).flat_map(move |p| (0..n).map(move |j| b[j * k + p]))).collect();
        &turned
    } else {
        b
    };
    let mut out = vec![N::ZERO; shape.iter().product()];
    let [sa, sb] = [batch_strides(&x[0], lead, m * k), batch_strides(&x[1], lead, k * n)];
    let so = data::strides(lead).iter().map(|s| s * (m * n) as isize).collect::<Vec<_>>();
    if out.is_empty() {
        return out;
    }
    data::Rows::new(lead, [&so, &sa, &sb]).each([0; 3], &mut |at, step, count| {
        for batch in 0..count as isize {
            let [o, a0, b0] = [0, 1, 2].map(|i| (at[i] + batch * step[i]) as usize);
            for i in 0..m {
                let row = &mut out[o + i * n..o + (i + 1) * n];
                for p in 0..k {
                    let factor = a[a0 + i * row_a + p * column_a];
                    row.iter_mut().zip(&b[b0 + p * n..]).for_each(|(y, &w)| *y = y.plus(factor.times(w)));
                }
            }
        }
    });
    out
}

/// The elements of an integer tensor in 64 bits; u64 wraps, and back.
pub fn low_bits(x: &Tensor) -> Vec<i64> {
    data::ints(x).into_iter().map(|v| v as i64).collect()
}

/// A tensor of the low bits of sums.
pub fn from_low_bits(ty: &TensorType, values: &[i64]) -> Tensor {
    data::from_ints(ty, &values.iter().map(|&v| v.into()).collect::<Vec<_>>())
}

fn eval_matmul(attrs: &Attrs, x: &[Tensor]) -> Results {
    let ty = matmul(attrs, &[x[0].ty().clone(), x[1].ty().clone()])?.remove(0);
    Ok(vec![match ty.ty.is_float() {
        true => data::from_reals(&ty, &multiply(attrs, x, &ty.shape, &x[0].to_f64s(), &x[1].to_f64s())),
        false => from_low_bits(&ty, &multiply(attrs, x, &ty.shape, &low_bits(&x[0]), &low_bits(&x[1]))),
    }])
}

fn eval_attention(attrs: &Attrs, x: &[Tensor]) -> Results {
    let types: Vec<TensorType> = x.iter().map(|x| x.ty().clone()).collect();
    let ty = attention(attrs, &types)?.remove(0);
    let [[l, d], [s, e]] = [matrix(x[0].ty(), false), matrix(x[2].ty(), false)];
    let lead = &ty.shape[..ty.rank() - 2];
    let values: Vec<Vec<f64>> = x.iter().map(Tensor::to_f64s).collect();
    let [q, k, v] = [&values[0], &values[1], &values[2]];
    let scores_shape = [lead, &[l, s]].concat();
    // Without a mask a single 0 is broadcast.
    let (mask, mask_shape) = values.get(3).map_or((vec![0.0], &[][..]), |m| (m.clone(), x[3].shape()));
    let mask_strides = data::broadcast_strides(mask_shape, &scores_shape);
    let (mask_lead, mask_matrix) = mask_strides.split_at(lead.len());
    let [sq, sk, sv] = [(0, l * d), (1, s * d), (2, s * e)].map(|(i, size)| batch_strides(&x[i], lead, size));
    let mut out = Vec::with_capacity(ty.len());
    if ty.is_empty() {
        return Ok(vec![Tensor::zeros(ty)]);
    }
    data::Rows::new(lead, [&sq, &sk, &sv, mask_lead]).each([0; 4], &mut |at, step, count| {
        for batch in 0..count as isize {
            let [q0, k0, v0, m0] = [0, 1, 2, 3].map(|i| (at[i] + batch * step[i]) as usize);
            for i in 0..l {
                let query = &q[q0 + i * d..q0 + (i + 1) * d];
                let mut scores: Vec<f64> = (0..s)
                    .map(|j| {
                        let key = &k[k0 + j * d..k0 + (j + 1) * d];
                        let dot: f64 = query.iter().zip(key).map(|(a, b)| a * b).sum();
                        let masked = mask[m0 + (i as isize * mask_matrix[0] + j as isize * mask_matrix[1]) as usize];
                        if attrs.flag("causal") && j > i { f64::NEG_INFINITY } else { dot * attrs.float("scale") + masked }
                    })
                    .collect();
                softmax_lane(&mut scores, false);
                out.extend((0..e).map(|c| scores.iter().enumerate().map(|(j, p)| p * v[v0 + j * e + c]).sum::<f64>()));
            }
        }
    });
    Ok(vec![data::from_reals(&ty, &out)])
}

fn eval_det(attrs: &Attrs, x: &[Tensor]) -> Results {
    let ty = det(attrs, &[x[0].ty().clone()])?.remove(0);
    let n = matrix(x[0].ty(), false)[0];
    if n == 0 {
        return Ok(vec![data::from_reals(&ty, &vec![1.0; ty.len()])]);
    }
    let determinants: Vec<f64> = x[0].to_f64s().chunks_mut(n * n).map(|m| determinant(m, n)).collect();
    Ok(vec![data::from_reals(&ty, &determinants)])
}

/// By Gaussian elimination; each step takes the row with the largest first element.
fn determinant(m: &mut [f64], n: usize) -> f64 {
    let mut det = 1.0;
    for step in 0..n {
        let largest = (step..n).max_by(|&a, &b| m[a * n + step].abs().total_cmp(&m[b * n + step].abs())).expect("a row is left");
        if largest != step {
            (0..n).for_each(|j| m.swap(step * n + j, largest * n + j));
            det = -det;
        }
        let pivot = m[step * n + step];
        det *= pivot;
        if pivot == 0.0 {
            return det;
        }
        for row in step + 1..n {
            let factor = m[row * n + step] / pivot;
            (step..n).for_each(|j| m[row * n + j] -= factor * m[step * n + j]);
        }
    }
    det
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;
    use crate::graph::Op;

    fn run(kind: Kind, attrs: &[(&'static str, Attr)], x: &[Tensor]) -> Tensor {
        crate::eval::eval_op(&Op::new(kind, attrs.to_vec()).expect("attributes"), x).expect("an answer").remove(0)
    }

    #[test]
    fn products_and_their_transposes() {
        let a = Tensor::new([2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let b = Tensor::new([3, 2], &[7f32, 8.0, 9.0, 10.0, 11.0, 12.0]);
        let expected = Tensor::new([2, 2], &[58f32, 64.0, 139.0, 154.0]);
        let turned = |x: &Tensor| run(Kind::Transpose, &[("perm", Attr::Ints(vec![1, 0]))], std::slice::from_ref(x));
        for (trans_a, trans_b) in [(false, false), (true, false), (false, true), (true, true)] {
            let a = if trans_a { turned(&a) } else { a.clone() };
            let b = if trans_b { turned(&b) } else { b.clone() };
            assert_eq!(run(Kind::MatMul, &[("trans_a", trans_a.into()), ("trans_b", trans_b.into())], &[a, b]), expected);
        }
    }

    #[test]
    fn stacks_of_matrices_broadcast() {
        let a = Tensor::new([2, 1, 1, 2], &[1i32, 2, 3, 4]);
        let b = Tensor::new([2, 2, 1], &[1i32, 10, 100, 1000]);
        assert_eq!(run(Kind::MatMul, &[], &[a, b]), Tensor::new([2, 2, 1, 1], &[21i32, 2100, 43, 4300]));
    }

    #[test]
    fn integer_products_have_32_bits() {
        let a = Tensor::new([1, 2], &[255u8, 255]);
        let y = run(Kind::MatMul, &[], &[a, Tensor::new([2, 1], &[-128i8, -128])]);
        assert_eq!(y, Tensor::new([1, 1], &[-65280i32]));
        let large = Tensor::new([1, 2], &[i32::MAX, 2]);
        assert_eq!(run(Kind::MatMul, &[], &[large, Tensor::new([2, 1], &[2i32, 3])]), Tensor::new([1, 1], &[4i32]));
        let no_sum = run(Kind::MatMul, &[], &[Tensor::new::<f32>([2, 0], &[]), Tensor::new::<f32>([0, 1], &[])]);
        assert_eq!(no_sum, Tensor::new([2, 1], &[0f32, 0.0]));
    }

    #[test]
    fn attention_weighs_values() {
        let q = Tensor::new([1, 2, 1], &[0f64, 1.0]);
        let k = Tensor::new([1, 2, 1], &[0f64, 2f64.ln()]);
        let v = Tensor::new([1, 2, 2], &[0f64, 3.0, 3.0, 0.0]);
        let close = |y: Tensor, expected: [f64; 4]| {
            assert!(
                y.values::<f64>().iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12),
                "{:?} is not {expected:?}",
                y.values::<f64>()
            );
        };
        let x = [q, k, v];
        close(run(Kind::Attention, &[], &x), [1.5, 1.5, 2.0, 1.0]);
        close(run(Kind::Attention, &[("scale", 2.0.into())], &x), [1.5, 1.5, 2.4, 0.6]);
        close(run(Kind::Attention, &[("causal", true.into())], &x), [0.0, 3.0, 2.0, 1.0]);
        let masked = [&x[..], &[Tensor::new([1, 2], &[0f64, f64::NEG_INFINITY])]].concat();
        close(run(Kind::Attention, &[], &masked), [0.0, 3.0, 0.0, 3.0]);
    }

    #[test]
    fn determinants() {
        let m = Tensor::new([2, 3, 3], &[0f64, 2.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 3.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0]);
        let y = run(Kind::Det, &[], &[m]);
        assert!(y.values::<f64>().iter().zip([-6.0, -3.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{:?}", y.values::<f64>());
    }
}
