//! Where the rows of images in blocks of channels lie, and the pointers of kernels that read them.

use super::loops::divmod;
use super::store::Output;
use crate::unit::{Arg, Lowered, Unit};
use dnnc_kir::{Builder, Val};

/// How rows lie in memory, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Channels of a block.
    pub lanes: usize,
    /// Bytes of an element.
    pub element: usize,
    /// From a row to the next.
    pub row: usize,
    /// From a block of channels to the next.
    pub block: usize,
    /// Rows that are kept, when that is not all: row `y` lies at place `y mod ring`.
    pub ring: Option<usize>,
}

impl Layout {
    /// Blocks of `lanes` channels of complete f32 images.
    pub fn whole(size: [usize; 2], lanes: usize) -> Layout {
        Layout::of(size, lanes, 4)
    }

    /// Blocks of `lanes` channels of complete images of elements of so many bytes.
    pub fn of([height, width]: [usize; 2], lanes: usize, element: usize) -> Layout {
        let row = width * lanes * element;
        Layout { lanes, element, row, block: height * row, ring: None }
    }

    /// From a pixel to the next.
    pub fn pixel(&self) -> usize {
        self.lanes * self.element
    }
}

/// Rows of an image.
#[derive(Clone, Copy)]
pub struct Lines {
    /// How they lie.
    pub layout: Layout,
    /// Address of row 0 of the first block of channels.
    pub at: Val,
}

impl Lines {
    /// The same from block `number` of channels on.
    pub fn block(self, b: &mut Builder, number: Val) -> Lines {
        Lines { at: b.element(self.at, number, self.layout.block), ..self }
    }

    /// Address of row `y`.
    pub fn line(self, b: &mut Builder, y: Val) -> Val {
        let place = match self.layout.ring {
            Some(rows) => divmod(b, y, rows).1,
            None => y,
        };
        b.element(self.at, place, self.layout.row)
    }
}

/// A kernel in the making: its pointers, and the constants they point to.
#[derive(Default)]
pub struct Frame {
    /// Constants and scratch memory so far.
    pub lowered: Lowered,
    /// The pointers.
    pub args: Vec<Arg>,
}

impl Frame {
    /// Adds a pointer; answers its number.
    pub fn arg(&mut self, arg: Arg) -> usize {
        self.args.push(arg);
        self.args.len() - 1
    }

    /// Adds a constant; answers the number of the pointer to it.
    pub fn constant(&mut self, data: Vec<u8>) -> usize {
        self.lowered.constants.push(data);
        self.arg(Arg::Const(self.lowered.constants.len() - 1))
    }

    /// Adds a constant of floats.
    pub fn floats(&mut self, values: impl IntoIterator<Item = f32>) -> usize {
        let mut data = vec![];
        values.into_iter().for_each(|v| data.extend_from_slice(&v.to_le_bytes()));
        self.constant(data)
    }

    /// Adds the pointers that storing the result of a unit needs; answers the number of the first.
    pub fn output(&mut self, unit: &Unit) -> usize {
        self.args.extend(Output::args(unit));
        self.args.len() - Output::args(unit).len()
    }
}
