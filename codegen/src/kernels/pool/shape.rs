//! The shapes of a pooling.

use crate::kernels::lib::window::Window;
use crate::unit::Unit;
use dnnc_ir::Kind;
use dnnc_kir::{Elem, Ty};

/// What is made of a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pool {
    Max,
    /// The index of the maximum, counted along the columns first when set.
    ArgMax {
        column_major: bool,
    },
    /// The mean; padding counts when set.
    Mean {
        include_pad: bool,
    },
}

/// Sizes of a pooling; the vectors have an entry a spatial axis.
pub(super) struct Shape {
    pub(super) pool: Pool,
    /// Images × channels, or × blocks of channels.
    pub(super) planes: usize,
    pub(super) input: Vec<usize>,
    pub(super) kernel: Vec<usize>,
    pub(super) output: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilations: Vec<usize>,
    pub(super) before: Vec<usize>,
    /// Padding behind the image that may count.
    pub(super) after: Vec<usize>,
    /// Channels in a block; 0 when the images are plain.
    pub(super) block: usize,
    /// Planes of an image.
    pub(super) channels: usize,
}

impl Shape {
    pub(super) fn new(unit: &Unit) -> Shape {
        let (attrs, x, y) = (&unit.op.attrs, &unit.inputs[0].ty, &unit.results[0]);
        let pool = match unit.op.kind() {
            Kind::MaxPool => Pool::Max,
            Kind::ArgMaxPool => Pool::ArgMax { column_major: attrs.flag("column_major") },
            _ => Pool::Mean { include_pad: attrs.flag("include_pad") },
        };
        let kernel = attrs.sizes("kernel");
        let axes = kernel.len();
        let pads = attrs.sizes("pads");
        Shape {
            pool,
            planes: x.shape[0] * x.shape[1],
            input: x.shape[2..2 + axes].to_vec(),
            kernel,
            output: y.shape[2..2 + axes].to_vec(),
            strides: attrs.sizes("strides"),
            dilations: attrs.sizes("dilations"),
            before: pads[..axes].to_vec(),
            after: pads[axes..].to_vec(),
            block: if let Pool::ArgMax { .. } = pool { 0 } else { attrs.size("block") },
            channels: x.shape[1],
        }
    }

    /// The windows over packed f32 images of one or two axes; a signal is an image of one row.
    pub(super) fn window(&self) -> Window {
        let pair = |v: &[usize], one: usize| if v.len() == 1 { [one, v[0]] } else { [v[0], v[1]] };
        Window {
            input: pair(&self.input, 1),
            output: pair(&self.output, 1),
            kernel: pair(&self.kernel, 1),
            strides: pair(&self.strides, 1),
            dilations: pair(&self.dilations, 1),
            before: pair(&self.before, 0),
            ty: Ty::vector(Elem::F32, self.block as u8),
        }
    }

    /// Elements of a window.
    pub(super) fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    pub(super) fn pixels(&self) -> usize {
        self.output.iter().product()
    }

    /// Elements of the window at a position of an axis that count for a mean.
    pub(super) fn counted(&self, axis: usize, position: usize) -> usize {
        let (before, after) = match self.pool {
            Pool::Mean { include_pad: true } => (self.before[axis] as i64, self.after[axis] as i64),
            _ => (0, 0),
        };
        let first = (position * self.strides[axis]) as i64 - self.before[axis] as i64;
        let range = -before..self.input[axis] as i64 + after;
        (0..self.kernel[axis]).filter(|k| range.contains(&(first + (k * self.dilations[axis]) as i64))).count()
    }
}
