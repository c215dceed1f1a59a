//! Convolutions.
//!
//! Packed images with constant weights are products of pixels and panels of output channels (`packed`), many of 3, 5 and 7 rows or columns by
//! Winograd's algorithm (`winograd`); everything else, of any rank and type, is a product of the weights and panels of pixels that are
//! gathered at run time (`plain`).

mod packed;
mod plain;
pub mod shape;
mod strip;
#[cfg(test)]
mod tests;
mod winograd;

use super::sparse::Matrix;
use crate::choice::{self, Algorithm, choose};
use crate::kernels::depthwise;
use crate::kernels::lib::gemm::Mac;
use crate::kernels::lib::repack;
use crate::unit::{Family, Forecast, Lowered, Unit};
use dnnc_ir::Kind;
use packed::Form;
use shape::Shape;

pub use strip::{Cut, Strip};

/// The family.
pub const FAMILY: Family = Family { name: "conv", kinds: &[Kind::Conv], lower, forecast, epilogue: crate::unit::channel_axes };

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
        if let Some(mac) = packed::product_type(unit, &image) {
            return planar(unit, &image, mac);
        }
    }
    if shape.block > 0 { repack::around(unit, shape.channels, plain::lower) } else { plain::lower(unit) }
}

/// The same dispatch as that of [`lower`].
fn forecast(unit: &Unit) -> Forecast {
    let shape = Shape::new(unit);
    if unit.results[0].is_empty() {
        return Forecast::NOTHING;
    }
    let image = (shape.block > 0 && shape.input.len() <= 2).then(|| shape.clone().image());
    let ns = match image {
        Some(s) if depthwise::fits(unit, &s) => depthwise::predicted_ns(unit, &s),
        Some(s) => match packed::product_type(unit, &s) {
            Some(mac) => {
                let matrix = packed::matrix(unit, &s).filter(|m| m.worth_leaving_out(unit.options));
                algorithms(unit, &s, mac, matrix).map_or(f64::INFINITY, |all| choice::predicted_ns(&all))
            }
            None => plain::predicted_ns(unit, &shape),
        },
        None => plain::predicted_ns(unit, &shape),
    };
    Forecast::kernel(unit.target, ns).with_epilogue()
}

/// A convolution of packed images, by the algorithm that is predicted to be fastest.
fn planar(unit: &Unit, s: &Shape, mac: Mac) -> Result<Lowered, String> {
    let matrix = packed::matrix(unit, s).filter(|m| m.worth_leaving_out(unit.options));
    let lowered = choose(unit, algorithms(unit, s, mac, matrix)?)?;
    Ok(lowered.with_density(matrix.map(|m| m.densities())))
}

/// The algorithms for packed images; those that leave out zeros where the weights are given as a matrix that is worth it.
fn algorithms<'a>(unit: &'a Unit, s: &'a Shape, mac: Mac, matrix: Option<Matrix<'a>>) -> Result<Vec<Algorithm<'a>>, String> {
    let mut algorithms = vec![Algorithm::new("direct", packed::dense_ns(unit, s, &mac), move || packed::lower(unit, s, mac, Form::Dense))];
    let real = mac.ty.elem.is_float();
    for form in winograd::FORMS.iter().filter(|form| real && winograd::fits(unit, s, form)) {
        let plan = winograd::plan(unit, s, form);
        algorithms.push(Algorithm::new(form.name, plan.ns, move || winograd::lower(unit, s, form, &plan)).handicapped(form.worth));
    }
    if let Some(m) = matrix {
        let (block_sparse, csc_rows) = (packed::block_sparse(unit, s, &m)?, packed::csc_rows(unit, s, &m)?);
        // Windows that Winograd takes too: its prediction is up to a third too high where all weights stay in a cache (128→128 at 28×28: 779 µs
        // predicted, 585 measured; sparse 695 and 728). A near tie is its.
        let tie = if algorithms.len() > 1 { 1.25 } else { 1.0 };
        let batch = s.batch as f64;
        let lists = Algorithm::new(block_sparse.name(), block_sparse.ns * batch, move || packed::lower(unit, s, mac, Form::BlockSparse(m)))
            .handicapped(tie);
        let lanes =
            Algorithm::new(csc_rows.name(), csc_rows.ns * batch, move || packed::lower(unit, s, mac, Form::CscRows(m))).handicapped(tie);
        algorithms.extend([lists, lanes]);
    }
    Ok(algorithms)
}
