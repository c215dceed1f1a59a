//! Pooling: maxima and means of windows.
//!
//! Small windows over packed f32 images are written out ([`packed`]); every other type, rank and layout goes through loops ([`any`]).

mod any;
mod packed;
mod shape;
#[cfg(test)]
mod tests;

use self::shape::Shape;
use crate::kernels::lib::window::Window;
use crate::unit::{Family, Lowered, Unit};
use dnnc_ir::Kind;

pub use packed::Strip;

/// The family.
pub const FAMILY: Family =
    Family { name: "pool", kinds: &[Kind::MaxPool, Kind::AvgPool, Kind::ArgMaxPool], lower, epilogue: crate::unit::channel_axes };

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
