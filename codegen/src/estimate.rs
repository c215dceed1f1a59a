//! Arithmetic of predictions that families share.

use crate::schedule::{lanes_ns, stream_ns};
use crate::unit::{Forecast, Unit};

/// Operators that go over rows: traffic, or so many registers a cycle for each operation, whichever takes longer.
pub fn rows(unit: &Unit, cycles: f64) -> Forecast {
    let ns = stream_ns(unit.target, unit.traffic()).max(cycles * lanes_ns(unit.target, unit.work()));
    Forecast::kernel(unit.target, ns)
}
