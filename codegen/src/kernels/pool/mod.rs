//! Pooling: maxima and means of windows.
//!
//! Small windows over packed f32 images are written out ([`packed`]); every other type, rank and layout goes through loops ([`any`]).

mod any;
mod packed;
#[cfg(test)]
mod tests;

use crate::kernels::lib::window::Window;
use crate::unit::{Family, Lowered, Unit};
use dnnc_ir::Kind;
use dnnc_kir::{Elem, Ty};

pub use packed::Strip;

/// The family.
pub const FAMILY: Family =
    Family { name: "pool", kinds: &[Kind::MaxPool, Kind::AvgPool, Kind::ArgMaxPool], lower, epilogue: crate::unit::channel_axes };

/// What is made of a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pool {
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
struct Shape {
    pool: Pool,
    /// Images × channels, or × blocks of channels.
    planes: usize,
    input: Vec<usize>,
    kernel: Vec<usize>,
    output: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    before: Vec<usize>,
    /// Padding behind the image that may count.
    after: Vec<usize>,
    /// Channels in a block; 0 when the images are plain.
    block: usize,
    /// Planes of an image.
    channels: usize,
}

impl Shape {
    fn new(unit: &Unit) -> Shape {
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
    fn window(&self) -> Window {
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
    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    fn pixels(&self) -> usize {
        self.output.iter().product()
    }

    /// Elements of the window at a position of an axis that count for a mean.
    fn counted(&self, axis: usize, position: usize) -> usize {
        let (before, after) = match self.pool {
            Pool::Mean { include_pad: true } => (self.before[axis] as i64, self.after[axis] as i64),
            _ => (0, 0),
        };
        let first = (position * self.strides[axis]) as i64 - self.before[axis] as i64;
        let range = -before..self.input[axis] as i64 + after;
        (0..self.kernel[axis]).filter(|k| range.contains(&(first + (k * self.dilations[axis]) as i64))).count()
    }
}

/// The windows of a pooling that [`Strip`] does; `None` for others.
pub fn window(unit: &Unit) -> Option<Window> {
    let shape = Shape::new(unit);
    packed::fits(unit, &shape).then(|| shape.window())
}

fn lower(unit: &Unit) -> Result<Lowered, String> {
    let shape = Shape::new(unit);
    if unit.results[0].is_empty() {
        return Ok(Lowered::default());
    }
    if packed::fits(unit, &shape) { packed::lower(unit, &shape) } else { any::lower(unit, &shape) }
}
