//! Normalisation along axes.

use super::check::{self, Types};
use super::{not_yet, per_output};
use crate::op::{Arity, AttrKind, Attrs, Class, Kind, OpDef};
use crate::types::TensorType;

const AXES: &[(&str, AttrKind)] = &[("axes", AttrKind::Ints), ("eps", AttrKind::Float(1e-5))];

/// A row of the family: kind, meaning, attributes, shape rule, operations an element, reference.
macro_rules! norm {
    ($kind:ident, $doc:literal, $attrs:expr, $infer:expr, $work:literal, $eval:expr) => {
        OpDef {
            kind: Kind::$kind,
            doc: $doc,
            inputs: Arity::Exactly(1),
            attrs: $attrs,
            class: Class::Compute,
            infer: $infer,
            eval: $eval,
            work: per_output::<$work>,
        }
    };
}

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    norm!(Softmax, "eˣ / Σ eˣ along `axis`.", &[("axis", AttrKind::Int(0))], along_axis, 12, not_yet),
    norm!(LogSoftmax, "x − log Σ eˣ along `axis`.", &[("axis", AttrKind::Int(0))], along_axis, 12, not_yet),
    norm!(Norm, "(x − mean) / √(variance + `eps`) over `axes`.", AXES, along_axes, 6, not_yet),
    norm!(RmsNorm, "x / √(mean of x² + `eps`) over `axes`.", AXES, along_axes, 4, not_yet),
];

fn along_axis(attrs: &Attrs, x: &[TensorType]) -> Types {
    check::real("the input", &x[0])?;
    check::axis(attrs, x[0].rank())?;
    check::same(&x[0])
}

fn along_axes(attrs: &Attrs, x: &[TensorType]) -> Types {
    check::real("the input", &x[0])?;
    check::axes(attrs, x[0].rank())?;
    check::ensure(!attrs.float("eps").is_nan(), || "`eps` is not a number".into())?;
    check::same(&x[0])
}
