//! Panels made at run time: a matrix that strides in any even way, in the order in which the tiles of a product read it.

use super::gemm::Mac;
use crate::expr::memory;
use crate::kernels::lib::transpose::transpose;
use dnnc_ir::Type;
use dnnc_kir::{Builder, Conv, Elem, Ty, Val};

/// How a matrix strides: bytes from a column to the next, and from a step of the reduction to the next.
#[derive(Clone, Copy)]
pub struct MatrixStrides {
    /// Between columns.
    pub column: usize,
    /// Between steps.
    pub step: usize,
}

/// Packs `depth` steps of `vecs` vectors of columns from `from` to `to`; `last` lanes of the last vector exist, the others become 0.
/// Elements are read as `loads` says. Where steps lie side by side, squares are transposed in registers.
pub fn panel(b: &mut Builder, loads: Mac, (vecs, last): (usize, usize), depth: usize, strides: MatrixStrides, from: Val, to: Val) {
    let (ty, lanes, size) = (loads.ty, loads.lanes(), loads.lhs.bytes());
    let packed = vecs * ty.bytes();
    let MatrixStrides { column, step } = strides;
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
            if !depth.is_multiple_of(lanes) {
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

/// The same for a product that takes several elements of the reduction a step: they are side by side in the panel. `from` holds elements
/// of type `rhs`.
pub fn steps(
    b: &mut Builder,
    mac: &Mac,
    rhs: Type,
    (vecs, last): (usize, usize),
    depth: usize,
    strides: MatrixStrides,
    from: Val,
    to: Val,
) {
    let (panel, k_step, size) = (mac.panel(), mac.k_step(), rhs.bytes());
    let MatrixStrides { column, step } = strides;
    let vector = |b: &mut Builder, at: &[Val], j: usize, exist: usize| {
        let lanes = if j + 1 == vecs { last } else { mac.lanes() };
        let to = (j * panel.bytes()) as i32;
        if step == size {
            return columns(b, mac, rhs, lanes, exist, column, (at[0], (j * mac.lanes() * column) as i32), (at[1], to));
        }
        // Rows of elements, interleaved.
        let row = Ty::vector(panel.elem, mac.ty.lanes);
        let mut rows: Vec<Val> = (0..k_step)
            .map(|k| match k < exist {
                true => {
                    let disp = (k * step + j * mac.lanes() * size) as i32;
                    let v = b.load_part(row.of(memory(rhs)), at[0], disp, lanes);
                    widened(b, v, rhs, panel.elem)
                }
                false => b.int(row, 0),
            })
            .collect();
        while rows.len() > 1 {
            rows = rows.chunks(2).map(|pair| b.join(pair[0], pair[1])).collect();
        }
        let order: Vec<u8> = (0..panel.lanes as usize).map(|i| (i % k_step * mac.lanes() + i / k_step) as u8).collect();
        let v = b.shuffle(rows[0], rows[0], &order);
        b.store(v, at[1], to);
    };
    let at = b.for_count(depth / k_step, &[from, to], |b, _, at| {
        (0..vecs).for_each(|j| vector(b, at, j, k_step));
        vec![b.offset_int(at[0], (k_step * step) as i64), b.offset_int(at[1], (vecs * panel.bytes()) as i64)]
    });
    if !depth.is_multiple_of(k_step) {
        (0..vecs).for_each(|j| vector(b, &at, j, depth % k_step));
    }
}

/// A vector of a panel whose columns hold the elements of a step side by side in memory: `lanes` columns and `exist` elements are there.
fn columns(
    b: &mut Builder,
    mac: &Mac,
    rhs: Type,
    lanes: usize,
    exist: usize,
    column: usize,
    (from, disp): (Val, i32),
    (to, at): (Val, i32),
) {
    let (panel, k_step) = (mac.panel().elem, mac.k_step());
    let as_is = memory(rhs) == panel && exist == k_step;
    for l in 0..mac.lanes() {
        let (disp, at) = (disp + (l * column) as i32, at + (l * mac.bytes()) as i32);
        let v = match l < lanes {
            true if as_is => b.load(Ty::scalar(mac.ty.elem), from, disp),
            true => {
                let v = b.load_part(Ty::vector(memory(rhs), k_step as u8), from, disp, exist);
                widened(b, v, rhs, panel)
            }
            false => b.int(Ty::scalar(mac.ty.elem), 0),
        };
        b.store(v, to, at);
    }
}

fn widened(b: &mut Builder, v: Val, from: Type, to: Elem) -> Val {
    if b.ty(v).elem == to {
        return v;
    }
    b.conv(if from.is_signed() { Conv::Sext } else { Conv::Zext }, v, to)
}
