//! Convolutions.
//!
//! Packed images with constant weights are products of pixels and panels of output channels ([`packed`]), many of 3, 5 and 7 rows or columns by
//! Winograd's algorithm ([`winograd`]); everything else, of any rank and type, is a product of the weights and panels of pixels that are
//! gathered at run time ([`plain`]).

mod packed;
mod plain;
mod strip;
#[cfg(test)]
mod tests;
mod winograd;

use super::sparse::Matrix;
use super::window::Window;
use super::{Algorithm, Family, Lowered, Unit, choose, depthwise, repack};
use crate::kir::{Elem, Ty};
use dnnc_ir::Kind;
use packed::Form;

pub use strip::{Cut, Strip};

/// The family.
pub const FAMILY: Family = Family { name: "conv", kinds: &[Kind::Conv], lower, epilogue: super::channel_axes };

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
    fn new(unit: &Unit) -> Shape {
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
    fn image(mut self) -> Shape {
        if self.input.len() == 1 {
            for sizes in [&mut self.input, &mut self.kernel, &mut self.output, &mut self.strides, &mut self.dilations] {
                sizes.insert(0, 1);
            }
            self.before.insert(0, 0);
        }
        self
    }
}

/// The sizes, as an image of two axes, of a convolution of packed images that [`Strip`] does (or [`depthwise::Strip`]); `None` for others, also
/// where another algorithm may be faster: weights with zeros, windows over many channels.
pub fn rows(unit: &Unit) -> Option<Shape> {
    /// Channels of an image beside which the taps of a window are few.
    const FEW: usize = 4;
    let shape = Shape::new(unit);
    if shape.block == 0 || shape.input.len() > 2 || unit.results[0].is_empty() {
        return None;
    }
    let shape = shape.image();
    if depthwise::fits(unit, &shape) {
        return Some(shape);
    }
    let few = shape.kernel.iter().product::<usize>() == 1 || shape.channels <= FEW;
    let dense = |m: Matrix| !m.worth_leaving_out(unit.options);
    (shape.groups == 1 && packed::fits(unit, &shape) && few && packed::matrix(unit, &shape).is_some_and(dense)).then_some(shape)
}

fn lower(unit: &Unit) -> Result<Lowered, String> {
    let shape = Shape::new(unit);
    if unit.results[0].is_empty() {
        return Ok(Lowered::default());
    }
    if shape.block > 0 && shape.input.len() <= 2 {
        let image = Shape::new(unit).image();
        if depthwise::fits(unit, &image) {
            return depthwise::lower(unit, &image);
        }
        if packed::fits(unit, &image) {
            return planar(unit, &image);
        }
    }
    if shape.block > 0 { repack::around(unit, shape.channels, plain::lower) } else { plain::lower(unit) }
}

/// A convolution of packed images, by the algorithm that is predicted to be fastest.
fn planar(unit: &Unit, s: &Shape) -> Result<Lowered, String> {
    let mut algorithms = vec![Algorithm::new("direct", packed::dense_ns(unit, s), || packed::lower(unit, s, Form::Dense))];
    for form in winograd::FORMS.iter().filter(|form| winograd::fits(unit, s, form)) {
        let plan = winograd::plan(unit, s, form);
        algorithms.push(Algorithm::new(form.name, plan.ns * form.worth, move || winograd::lower(unit, s, form, &plan)));
    }
    let matrix = packed::matrix(unit, s).filter(|m| m.worth_leaving_out(unit.options));
    if let Some(m) = matrix {
        let (listed, spread) = (packed::listed(unit, s, &m)?, packed::spread(unit, s, &m)?);
        // Windows that Winograd takes too: its prediction is up to a third too high where all weights stay in a cache (128→128 at 28×28: 779 µs
        // predicted, 585 measured; sparse 695 and 728). A near tie is its.
        let tie = if algorithms.len() > 1 { 1.25 } else { 1.0 };
        let batch = s.batch as f64 * tie;
        let lists = Algorithm::new(listed.name(), listed.ns * batch, move || packed::lower(unit, s, Form::Listed(m)));
        let lanes = Algorithm::new(spread.name(), spread.ns * batch, move || packed::lower(unit, s, Form::Spread(m)));
        algorithms.extend([lists, lanes]);
    }
    let lowered = choose(unit, algorithms)?;
    Ok(lowered.with_density(matrix))
}
