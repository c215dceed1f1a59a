//! Convolution of packed images whose rows are made in any portions.

use super::packed::{self, Image, Pixels, Start};
use super::shape::Shape;
use crate::kernels::lib::gemm::{Mac, Nest};
use crate::kernels::lib::image::{Frame, Layout, Lines};
use crate::kernels::lib::loops::Memory;
use crate::kernels::lib::store::Output;
use crate::unit::Unit;
use dnnc_ir::Type;
use dnnc_kir::{Builder, Val};

/// How a convolution makes a fixed number of rows of its result.
pub struct Cut {
    /// The convolution of the rows that one nest makes: all of them, or a single one.
    s: Shape,
    nest: Nest,
    image: Image,
    /// Blocks of channels of the input.
    blocks: usize,
    rows: usize,
    l1d: usize,
}

impl Cut {
    /// For `rows` rows of the result of a convolution of one group whose input lies as `from` says. Rows that a nest cannot read as they lie
    /// (between zeros, in a ring) are copied.
    pub fn new(unit: &Unit, shape: &Shape, rows: usize, from: Layout) -> Result<Cut, String> {
        let mac = Mac::new(Type::F32, unit.target)?;
        let (pixel, width) = (from.pixel(), shape.output[1]);
        let copies = shape.is_padded(0) || shape.is_padded(1) || from.ring.is_some();
        let read = (rows - 1) * shape.strides[0] + (shape.kernel[0] - 1) * shape.dilations[0] + 1;
        let row = shape.extent(1) * pixel;
        let image = match copies {
            true => Image { pixel, row, block: read * row, copied_rows: Some(read) },
            false => Image { pixel, row: from.row, block: from.block, copied_rows: None },
        };
        let columns = shape.outputs.next_multiple_of(mac.lanes());
        let cut = |at_once: usize| {
            let s = Shape { output: vec![at_once, width], ..shape.clone() };
            let depth = packed::depth(&s, &mac, from.lanes, image);
            let nest = Nest::new(mac, unit.target, at_once * width, columns, depth, 0, 1).at_once();
            Cut { s, nest, image, blocks: shape.channels.div_ceil(from.lanes), rows, l1d: unit.target.l1d }
        };
        // Within a row the pixels are evenly spaced: one pointer instead of one for each. Where tiles cross rows they fill the registers better.
        let (single, all) = (cut(1), cut(rows));
        let gap = shape.strides[0] * image.row != width * shape.strides[1] * pixel;
        let pointers = all.nest.groups.iter().map(|(_, r)| r.high).max().unwrap_or(1);
        let worth = if pointers > POINTERS { 2.0 } else { 1.02 };
        let small = single.nest.panel_bytes() <= unit.target.l1d / 2;
        Ok(if gap && small && single.cycles(1) <= all.cycles(1) * worth { single } else { all })
    }

    /// Cycles for the rows, by estimate, when all panels pass `passes` times.
    pub fn cycles(&self, passes: usize) -> f64 {
        /// Bytes a cycle of panels that do not stay in the first-level cache: fitted to chains of mobilenets on Zen 3.
        const PANELS: f64 = 8.0;
        let elements = self.image.copied_rows.map_or(0, |_| self.copied_bytes() / 4);
        let streamed = self.panel_bytes().saturating_sub(self.l1d / 2) as f64 / PANELS;
        let nests = self.nests() as f64;
        self.nest.cycles() * nests + streamed * nests.max(passes as f64) + (elements / self.nest.mac.lanes()) as f64
    }

    /// Bytes of the panels.
    pub fn panel_bytes(&self) -> usize {
        self.nest.panel_bytes()
    }

    /// Bytes of the copy of the rows that are read.
    pub fn copied_bytes(&self) -> usize {
        self.image.copied_rows.map_or(0, |_| self.blocks * self.image.block)
    }

    fn nests(&self) -> usize {
        self.rows / self.s.output[0]
    }
}

/// Pointers of a tile beyond which they do not stay in the registers for addresses (15 on x86-64, of which some are taken).
const POINTERS: usize = 8;

/// A convolution of one group, ready to be emitted.
pub struct Strip {
    cut: Cut,
    from: Layout,
    /// Pointers to the weights and the biases; the number of the copy in the memory of the kernel.
    weights: usize,
    bias: Option<usize>,
    copy: usize,
}

impl Strip {
    /// Packs the constants of a convolution; its input lies as `from` says.
    pub fn new(frame: &mut Frame, memory: &mut Memory, unit: &Unit, cut: Cut, from: Layout, tasks: usize) -> Strip {
        let weights = frame.constant(packed::pack(unit, &cut.s, &cut.nest, from.lanes));
        let bias = unit.inputs.get(2).map(|x| {
            let mut data = x.constant.expect("fits() asked for it").bytes().to_vec();
            data.resize(cut.s.outputs.next_multiple_of(cut.nest.mac.lanes()) * 4, 0);
            frame.constant(data)
        });
        let copy = memory.add(&mut frame.lowered, &mut frame.args, cut.copied_bytes(), tasks);
        Strip { cut, from, weights, bias, copy }
    }

    /// Emits the rows from row `y` of the result of an image at `x`; `out` is where row `y` goes, `task` the number of the task.
    pub fn emit(&self, b: &mut Builder, memory: &Memory, x: Lines, y: Val, task: Val, out: &Output) {
        let Cut { s, nest, image, .. } = &self.cut;
        let top = b.mul_int(y, s.strides[0] as i64);
        let at = match memory.piece(b, self.copy, task) {
            None => x.line(b, top),
            Some(copy) => {
                let rows = b.index(image.copied_rows.expect("a copy has rows"));
                b.each(self.cut.blocks, |b, block| {
                    let from = x.block(b, block);
                    let to = b.element(copy, block, image.block);
                    packed::copy_rows(b, s, nest.mac.ty, from, to, top, rows);
                });
                copy
            }
        };
        debug_assert_eq!(x.layout, self.from);
        b.each(self.cut.nests(), |b, r| {
            let mut out = out.clone();
            let made = b.mul_int(r, (s.output[1] * out.row) as i64);
            out.base = b.add(out.base, made);
            let at = b.element(at, r, s.strides[0] * image.row);
            let (w, bias) = (b.param(self.weights), self.bias.map(|param| b.param(param)));
            let pixels =
                Pixels { s, mac: nest.mac, panels: Some((nest, w)), image: *image, blocks: self.cut.blocks, start: Start::At(at), bias };
            let part = b.index(0);
            nest.emit(b, part, &pixels, &out, None);
        });
    }
}
