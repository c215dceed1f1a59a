//! The end of a tile: epilogue on registers, change of type, store.

use crate::expr::{Access, Epilogue, load_element, load_element_splat, register, round_to, store_element};
use crate::schedule::Tile;
use crate::unit::{Arg, Unit};
use dnnc_ir::Type;
use dnnc_kir::{Builder, Val};
use std::collections::BTreeMap;

/// Which index of a tile is the channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// Columns: the vectors of a tile are consecutive channels.
    Column,
    /// Rows: a row of a tile is one channel.
    Row,
}

/// Where the tiles of a result go, and what is computed on them before. Strides are in elements.
#[derive(Clone)]
pub struct Output<'a> {
    /// Type of the result before the epilogue.
    pub ty: Type,
    /// What is computed on it.
    pub epilogue: Option<&'a Epilogue>,
    /// Element type in memory.
    pub stored: Type,
    /// Address of the result, and of the operands of the epilogue.
    pub out: Val,
    /// Addresses of the operands of the epilogue.
    pub extras: Vec<Val>,
    /// Index of the element at row 0, column 0.
    pub base: Val,
    /// From a row to the next.
    pub row: usize,
    /// From a column to the next; between the first columns of vectors.
    pub column: usize,
    /// From a vector of columns to the next.
    pub vector: usize,
    /// What counts channels, and the channel of row 0, column 0.
    pub channel: (Channel, Val),
}

impl<'a> Output<'a> {
    /// The pointers that storing the result of a unit needs: result first, then the operands of the epilogue.
    pub fn args(unit: &Unit) -> Vec<Arg> {
        let extras = unit.epilogue.map_or(0, |e| e.operands.len());
        [Arg::Output(0)].into_iter().chain((0..extras).map(Arg::Extra)).collect()
    }

    /// A result of rows of `row` elements, whose pointers begin at parameter `first`.
    pub fn new(b: &mut Builder, unit: &'a Unit, first: usize, lanes: usize, row: usize) -> Output<'a> {
        let extras = unit.epilogue.map_or(0, |e| e.operands.len());
        let zero = b.index(0);
        Output {
            ty: unit.results[0].ty,
            epilogue: unit.epilogue,
            stored: unit.stored.ty,
            out: b.param(first),
            extras: (0..extras).map(|i| b.param(first + 1 + i)).collect(),
            base: zero,
            row,
            column: 1,
            vector: lanes,
            channel: (Channel::Column, zero),
        }
    }

    /// A result of f32 in rows of `row` elements, stored as it is at parameter `out`.
    pub fn bare(b: &mut Builder, out: usize, lanes: usize, row: usize) -> Output<'a> {
        let (ty, zero) = (Type::F32, b.index(0));
        let channel = (Channel::Column, zero);
        Output { ty, epilogue: None, stored: ty, out: b.param(out), extras: vec![], base: zero, row, column: 1, vector: lanes, channel }
    }

    /// Stores a tile at a row and a column; `last` lanes of its last vectors exist.
    pub fn store(&self, b: &mut Builder, row: Val, column: Val, tile: Tile, last: usize, acc: &[Val]) {
        let at_row = b.mul_int(row, self.row as i64);
        let at_column = b.mul_int(column, self.column as i64);
        let at = b.add(at_row, at_column);
        let at = b.add(self.base, at);
        let full = |b: &mut Builder, ptr: Val, ty: Type| b.element(ptr, at, ty.bytes());
        let out = full(b, self.out, self.stored);
        let lanes = b.ty(acc[0]).lanes as usize;
        let (by, first) = self.channel;
        let operands = self.epilogue.map_or(&[][..], |e| &e.operands);
        let pointers: Vec<Val> = operands
            .iter()
            .zip(&self.extras)
            .map(|(extra, &ptr)| match extra.access {
                Access::Full => full(b, ptr, extra.ty),
                Access::Channel => {
                    let channel = b.add(first, if by == Channel::Row { row } else { column });
                    b.element(ptr, channel, extra.ty.bytes())
                }
                Access::Scalar => ptr,
            })
            .collect();
        // Operands that rows or vectors have in common are read once.
        let mut shared: BTreeMap<(usize, usize), Val> = BTreeMap::new();
        for i in 0..tile.rows {
            for j in 0..tile.vecs {
                let count = if j + 1 == tile.vecs { last } else { lanes };
                let offset = i * self.row + j * self.vector;
                let disp = |ty: Type| (offset * ty.bytes()) as i32;
                let value = acc[i * tile.vecs + j];
                let Some(epilogue) = self.epilogue else {
                    store_element(b, self.stored, value, out, disp(self.stored), count);
                    continue;
                };
                let value = round_to(b, value, self.ty);
                // An expression with an operator that has no vector form is computed lane by lane.
                let at_once = if epilogue.expr.lanes(lanes * register(self.ty).bytes() * 8) as usize >= lanes { lanes } else { 1 };
                for part in 0..if at_once == lanes { 1 } else { count } {
                    let piece = if at_once == lanes { value } else { b.extract(value, part as u8) };
                    let n = if at_once == lanes { count } else { 1 };
                    let result = epilogue.apply(b, piece, &mut |b, k| {
                        let (ty, ptr) = (operands[k].ty, pointers[k]);
                        let lane = (part * ty.bytes()) as i32;
                        let mut once = |b: &mut Builder, index: usize, load: &dyn Fn(&mut Builder) -> Val| match at_once == lanes {
                            true => *shared.entry((k, index)).or_insert_with(|| load(b)),
                            false => load(b),
                        };
                        match (operands[k].access, by) {
                            (Access::Full, _) => load_element(b, ty, ptr, disp(ty) + lane, at_once as u8, n),
                            (Access::Channel, Channel::Column) => once(b, j, &|b| {
                                let at = (j * lanes * ty.bytes()) as i32 + lane;
                                load_element(b, ty, ptr, at, at_once as u8, n)
                            }),
                            (Access::Channel, Channel::Row) => {
                                once(b, i, &|b| load_element_splat(b, ty, ptr, (i * ty.bytes()) as i32, at_once as u8))
                            }
                            (Access::Scalar, _) => once(b, 0, &|b| load_element_splat(b, ty, ptr, 0, at_once as u8)),
                        }
                    });
                    let at = disp(self.stored) + (part * self.stored.bytes()) as i32;
                    store_element(b, self.stored, result, out, at, n);
                }
            }
        }
    }
}

/// Bytes that an element of the result or of an operand of the epilogue has at most.
pub fn widest_element(unit: &Unit) -> usize {
    let extras = unit.epilogue.map_or(&[][..], |e| &e.operands);
    extras.iter().map(|e| e.ty.bytes()).chain([unit.stored.ty.bytes()]).max().expect("the result is there")
}
