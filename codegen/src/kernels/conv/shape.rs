//! The sizes of a convolution.

use crate::kernels::lib::window::Window;
use crate::unit::Unit;
use dnnc_kir::{Elem, Ty};

/// Sizes of a convolution; the vectors have an entry a spatial axis.
#[derive(Clone)]
pub struct Shape {
    /// Images.
    pub batch: usize,
    /// Channels of the input.
    pub channels: usize,
    /// Channels of the result.
    pub outputs: usize,
    /// Channels of the input in a group.
    pub group_channels: usize,
    /// Channels of the result in a group.
    pub group_outputs: usize,
    /// Groups of channels that do not mix.
    pub groups: usize,
    /// Sizes of the input.
    pub input: Vec<usize>,
    /// Sizes of the kernel.
    pub kernel: Vec<usize>,
    /// Sizes of the result.
    pub output: Vec<usize>,
    /// From a window to the next.
    pub strides: Vec<usize>,
    /// From an element of a window to the next.
    pub dilations: Vec<usize>,
    /// Zeros before the input.
    pub before: Vec<usize>,
    /// Channels in a block; 0 when the images are plain.
    pub block: usize,
}

impl Shape {
    /// The sizes of a unit's convolution.
    pub fn new(unit: &Unit) -> Shape {
        let (attrs, x, w, y) = (&unit.op.attrs, &unit.inputs[0].ty, &unit.inputs[1].ty, &unit.results[0]);
        let spatial = w.rank() - 2;
        let groups = attrs.size("groups");
        Shape {
            batch: x.shape[0],
            channels: w.shape[1] * groups,
            outputs: w.shape[0],
            group_channels: w.shape[1],
            group_outputs: w.shape[0] / groups.max(1),
            groups,
            input: x.shape[2..2 + spatial].to_vec(),
            kernel: w.shape[2..].to_vec(),
            output: y.shape[2..2 + spatial].to_vec(),
            strides: attrs.sizes("strides"),
            dilations: attrs.sizes("dilations"),
            before: attrs.sizes("pads")[..spatial].to_vec(),
            block: attrs.size("block"),
        }
    }

    /// Pixels of the result.
    pub fn pixels(&self) -> usize {
        self.output.iter().product()
    }

    /// Extent of the input that is read along an axis, padding included.
    pub fn extent(&self, axis: usize) -> usize {
        self.output[axis].saturating_sub(1) * self.strides[axis] + (self.kernel[axis].max(1) - 1) * self.dilations[axis] + 1
    }

    /// Whether anything outside the input is read along an axis.
    pub fn is_padded(&self, axis: usize) -> bool {
        self.before[axis] > 0 || self.extent(axis) > self.input[axis]
    }

    /// The windows over images of two axes whose channels come in vectors of `lanes`.
    pub fn window(&self, lanes: usize) -> Window {
        let pair = |v: &[usize]| [v[0], v[1]];
        Window {
            input: pair(&self.input),
            output: pair(&self.output),
            kernel: pair(&self.kernel),
            strides: pair(&self.strides),
            dilations: pair(&self.dilations),
            before: pair(&self.before),
            ty: Ty::vector(Elem::F32, lanes as u8),
        }
    }

    /// The same with one more axis of size 1 in front: a signal as an image of one row.
    pub fn image(mut self) -> Shape {
        if self.input.len() == 1 {
            for sizes in [&mut self.input, &mut self.kernel, &mut self.output, &mut self.strides, &mut self.dilations] {
                sizes.insert(0, 1);
            }
            self.before.insert(0, 0);
        }
        self
    }
}
