//! The end of a tile: epilogue on registers, change of type, store.

use super::{Arg, Unit};
use crate::expr::{Access, Epilogue};
use crate::kir::{Bin, Builder, Conv, Elem, Ty, Val};
use crate::schedule::Tile;
use dnnc_ir::Type;

/// Which index of a tile is the channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// Columns: the vectors of a tile are consecutive channels.
    Column,
    /// Rows: a row of a tile is one channel.
    Row,
}

/// Where the tiles of a result go, and what is computed on them before. Strides are in elements.
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

    /// Stores a tile at a row and a column; `last` lanes of its last vectors exist.
    pub fn store(&self, b: &mut Builder, row: Val, column: Val, tile: Tile, last: usize, acc: &[Val]) {
        let at_row = b.mul_int(row, self.row as i64);
        let at_column = b.mul_int(column, self.column as i64);
        let at = b.add(at_row, at_column);
        let at = b.add(self.base, at);
        let full = |b: &mut Builder, ptr: Val, ty: Type| b.element(ptr, at, ty.bytes());
        let out = full(b, self.out, self.stored);
        let lanes = b.ty(acc[0]).lanes as usize;
        for i in 0..tile.rows {
            for j in 0..tile.vecs {
                let count = if j + 1 == tile.vecs { last } else { lanes };
                let offset = i * self.row + j * self.vector;
                let value = narrowed(b, acc[i * tile.vecs + j], self.stored);
                b.store_part(value, out, (offset * self.stored.bytes()) as i32, count);
            }
        }
    }
}

/// A sum as it is stored in type `ty`.
fn narrowed(b: &mut Builder, value: Val, ty: Type) -> Val {
    match ty {
        Type::F16 => b.conv(Conv::FloatToHalf, value, Elem::I16),
        Type::BF16 => {
            // To nearest even by adding half of what is dropped; a NaN stays one because its quiet bit is among those kept.
            let ints = b.ty(value).of(Elem::I32);
            let bits = b.conv(Conv::Bits, value, Elem::I32);
            let sixteen = b.int(ints, 16);
            let high = b.bin(Bin::ShrU, bits, sixteen);
            let one = b.int(ints, 1);
            let odd = b.bin(Bin::And, high, one);
            let half = b.int(ints, 0x7fff);
            let up = b.add(odd, half);
            let up = b.add(bits, up);
            let near = b.bin(Bin::ShrU, up, sixteen);
            let nan = b.cmp(crate::kir::Cmp::Ne, value, value);
            let quiet = b.int(ints, 0x40);
            let kept = b.bin(Bin::Or, high, quiet);
            let near = b.select(nan, kept, near);
            b.conv(Conv::Wrap, near, Elem::I16)
        }
        _ => value,
    }
}

/// The integer of as many bits as an element: what is loaded and stored where only bits move.
pub fn bits_type(ty: Type) -> Ty {
    Ty::scalar(match ty.bytes() {
        1 => Elem::I8,
        2 => Elem::I16,
        4 => Elem::I32,
        _ => Elem::I64,
    })
}
