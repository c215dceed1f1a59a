//! Transforms of tiles in registers: products with small constant matrices, whose sums are shared.

use dnnc_kir::{Builder, Ty, Val};

/// A matrix of constants times vectors; `None` is a zero. Rows or columns that are equal but for the signs of some of their elements share the
/// sums of the elements that are equal and of those that are opposite. `joint`: all sums at once, where there are registers for them.
pub fn apply(b: &mut Builder, ty: Ty, matrix: &[Vec<f64>], x: &[Option<Val>], joint: bool) -> Vec<Val> {
    // Columns, each with what it is multiplied by.
    let mut terms: Vec<(Vec<f64>, Val)> = vec![];
    let mut column = 0;
    let of = |column: usize| matrix.iter().map(|row| row[column]).collect::<Vec<f64>>();
    while column < x.len() {
        let next = (column + 1 < x.len()).then(|| (of(column), of(column + 1))).filter(|(a, c)| mirrored(a, c));
        if let (Some((left, right)), Some(u), Some(v)) = (next, x[column], x.get(column + 1).copied().flatten()) {
            let equal = |wanted: bool| left.iter().zip(&right).map(|(a, c)| if (a == c) == wanted { *a } else { 0.0 }).collect();
            terms.push((equal(true), b.add(u, v)));
            terms.push((equal(false), b.sub(u, v)));
            column += 2;
        } else {
            terms.extend(x[column].map(|v| (of(column), v)));
            column += 1;
        }
    }
    let rows: Vec<Vec<f64>> = (0..matrix.len()).map(|row| terms.iter().map(|t| t.0[row]).collect()).collect();
    let values: Vec<Val> = terms.iter().map(|t| t.1).collect();
    // Sums of terms, and those that make a row, or the sum and the difference that make two.
    let (mut sums, mut made) = (vec![], vec![]);
    let mut rest = rows.as_slice();
    while let [row, after @ ..] = rest {
        let Some(next) = after.first().filter(|next| mirrored(row, next)) else {
            made.push((sums.len(), None));
            sums.push(row.clone());
            rest = after;
            continue;
        };
        let equal =
            |wanted: bool, by: f64| row.iter().zip(next).map(|(a, c)| if (a == c) == wanted { *a / by } else { 0.0 }).collect::<Vec<f64>>();
        // The opposite part over its last coefficient: a multiplication less.
        let by = equal(false, 1.0).into_iter().rfind(|v| *v != 0.0).unwrap_or(1.0);
        made.push((sums.len(), Some(by)));
        sums.extend([equal(true, 1.0), equal(false, by)]);
        rest = &after[1..];
    }
    let all = if joint { combine(b, &sums, &values) } else { vec![] };
    let mut out = vec![];
    for (first, by) in made {
        let sum = |b: &mut Builder, i: usize| if joint { all[i] } else { combine(b, &sums[i..=i], &values)[0] };
        let even = sum(b, first);
        let Some(by) = by else {
            out.push(even);
            continue;
        };
        let odd = sum(b, first + 1);
        out.extend([by, -by].map(|by| match even.zip(odd) {
            Some((even, odd)) => Some(add_scaled(b, ty, even, by, odd)),
            None => even.or(odd.map(|odd| scaled(b, ty, by, odd))),
        }));
    }
    out.into_iter().map(|v| v.unwrap_or_else(|| b.int(ty, 0))).collect()
}

/// Whether two rows are equal but for the signs of some elements.
pub fn mirrored(a: &[f64], c: &[f64]) -> bool {
    let pairs = || a.iter().zip(c).filter(|(a, _)| **a != 0.0);
    a.iter().zip(c).all(|(a, c)| a.abs() == c.abs()) && pairs().any(|(a, c)| a == c) && pairs().any(|(a, c)| a != c)
}

/// Σ c·x for each list of factors, a term of each in turn; `None` is a zero.
pub fn combine(b: &mut Builder, sums: &[Vec<f64>], x: &[Val]) -> Vec<Option<Val>> {
    let terms = sums.iter().map(|factors| {
        let mut terms: Vec<(f64, Val)> = factors.iter().copied().zip(x.iter().copied()).filter(|t| t.0 != 0.0).collect();
        // Begin with one that needs no multiplication.
        terms.sort_by_key(|t| t.0 != 1.0);
        terms
    });
    let terms: Vec<Vec<(f64, Val)>> = terms.collect();
    let mut made: Vec<Option<Val>> = vec![None; sums.len()];
    for round in 0..x.len() {
        for (made, terms) in made.iter_mut().zip(&terms) {
            let Some(&(factor, x)) = terms.get(round) else { continue };
            let ty = b.ty(x);
            *made = Some(match *made {
                Some(sum) => add_scaled(b, ty, sum, factor, x),
                None => scaled(b, ty, factor, x),
            });
        }
    }
    made
}

/// factor · x.
pub fn scaled(b: &mut Builder, ty: Ty, factor: f64, x: Val) -> Val {
    if factor == 1.0 {
        return x;
    }
    let factor = b.number(ty, factor);
    b.mul(factor, x)
}

/// sum + factor · x.
pub fn add_scaled(b: &mut Builder, ty: Ty, sum: Val, factor: f64, x: Val) -> Val {
    match factor {
        1.0 => b.add(sum, x),
        -1.0 => b.sub(sum, x),
        _ => {
            let factor = b.number(ty, factor);
            b.fma(factor, x, sum)
        }
    }
}
