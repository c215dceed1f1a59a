//! Panels made at run time: a matrix that lies in any even way, in the order in which the tiles of a product read it.

use super::product::Mac;
use crate::kernels::lib::transpose::transpose;
use dnnc_kir::{Builder, Ty, Val};

/// How a matrix lies: bytes from a column to the next, and from a step of the reduction to the next.
#[derive(Clone, Copy)]
pub struct Lies {
    /// Between columns.
    pub column: usize,
    /// Between steps.
    pub step: usize,
}

/// Packs `depth` steps of `vecs` vectors of columns from `from` to `to`; `last` lanes of the last vector exist, the others become 0.
/// Elements are read as `loads` says. Where steps lie side by side, squares are transposed in registers.
pub fn panel(b: &mut Builder, loads: Mac, (vecs, last): (usize, usize), depth: usize, lies: Lies, from: Val, to: Val) {
    let (ty, lanes, size) = (loads.ty, loads.lanes(), loads.rows.bytes());
    let packed = vecs * ty.bytes();
    let Lies { column, step } = lies;
    let each = |b: &mut Builder, steps: usize, from: Val, to: Val, n: usize, body: &dyn Fn(&mut Builder, &[Val])| {
        b.for_count(n, &[from, to], |b, _, at| {
            body(b, at);
            vec![b.offset_int(at[0], (steps * step) as i64), b.offset_int(at[1], (steps * packed) as i64)]
        })
    };
    if column == size {
        // Whole rows of a panel at once: they share cache lines.
        each(b, 1, from, to, depth, &|b, at| {
            for j in 0..vecs {
                let v = loads.load(b, ty.lanes, at[0], (j * lanes * size) as i32, if j + 1 == vecs { last } else { lanes });
                b.store(v, at[1], (j * ty.bytes()) as i32);
            }
        });
        return;
    }
    for j in 0..vecs {
        let count = if j + 1 == vecs { last } else { lanes };
        let from = b.offset_int(from, (j * lanes * column) as i64);
        let to = b.offset_int(to, (j * ty.bytes()) as i64);
        if step == size && lanes > 1 {
            let square = |b: &mut Builder, at: &[Val], steps: usize| {
                let rows = (0..lanes)
                    .map(|l| match l < count {
                        true => loads.load(b, ty.lanes, at[0], (l * column) as i32, steps),
                        false => b.int(ty, 0),
                    })
                    .collect();
                let turned = transpose(b, rows);
                turned.into_iter().take(steps).enumerate().for_each(|(s, v)| b.store(v, at[1], (s * packed) as i32));
            };
            let end = each(b, lanes, from, to, depth / lanes, &|b, at| square(b, at, lanes));
            if depth % lanes > 0 {
                square(b, &end, depth % lanes);
            }
            continue;
        }
        each(b, 1, from, to, depth, &|b, at| {
            for l in 0..lanes {
                let x = match l < count {
                    true => loads.load(b, 1, at[0], (l * column) as i32, 1),
                    false => b.int(Ty::scalar(ty.elem), 0),
                };
                b.store(x, at[1], (l * ty.elem.bytes()) as i32);
            }
        });
    }
}
