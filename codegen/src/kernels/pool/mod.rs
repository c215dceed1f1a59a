//! Pooling: maxima and means of windows.
//!
//! Small windows over packed f32 images are written out (`packed`); every other type, rank and layout goes through loops (`any`).

mod any;
mod packed;
mod shape;
#[cfg(test)]
mod tests;

use self::shape::Shape;
use crate::kernels::lib::window::Window;
use crate::schedule;
use crate::unit::{Family, Forecast, Lowered, Unit};
use dnnc_ir::Kind;

pub use packed::Strip;

/// The family.
pub const FAMILY: Family =
    Family { name: "pool", kinds: &[Kind::MaxPool, Kind::AvgPool, Kind::ArgMaxPool], lower, forecast, epilogue: crate::unit::channel_axes };

/// The windows of a pooling that [`Strip`] does; `None` for others.
pub fn window(unit: &Unit) -> Option<Window> {
    let shape = Shape::new(unit);
    packed::fits(unit, &shape).then(|| shape.window())
}

fn forecast(unit: &Unit) -> Forecast {
    /// Multiply-adds' worth of a maximum that passes NaN: compare, select, maximum.
    const MAXIMUM: f64 = 4.0;
    /// Scalar steps an element of a window that is read through loops.
    const STEPS: f64 = 40.0;
    if unit.results[0].is_empty() {
        return Forecast::NOTHING;
    }
    let shape = Shape::new(unit);
    let ns = match packed::fits(unit, &shape) {
        true => shape.window().images_ns(unit.target, shape.planes, if shape.pool == shape::Pool::Max { MAXIMUM } else { 1.0 }),
        false => schedule::stream_ns(unit.target, unit.traffic()).max(STEPS * schedule::lanes_ns(unit.target, unit.work())),
    };
    Forecast::kernel(unit.target, ns).with_epilogue()
}

fn lower(unit: &Unit) -> Result<Lowered, String> {
    let shape = Shape::new(unit);
    if unit.results[0].is_empty() {
        return Ok(Lowered::default());
    }
    if packed::fits(unit, &shape) { packed::lower(unit, &shape) } else { any::lower(unit, &shape) }
}
