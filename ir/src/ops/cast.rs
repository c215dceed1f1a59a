//! Changes of element type.

use super::check;
use super::{not_yet, nothing, per_output};
use crate::op::{Arity, AttrKind, Attrs, Class, Kind, OpDef};
use crate::types::{TensorType, Type};

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    OpDef {
        kind: Kind::Cast,
        doc: "x as type `to`. Floats become integers by truncation towards 0 and saturate, NaN becomes 0; integers wrap; to bool is x ≠ 0; \
              floats round to nearest even. `saturate` decides whether floats beyond an 8-bit type become its largest value or \
              infinity/NaN; `round` is the direction for f8e8m0.",
        inputs: Arity::Exactly(1),
        attrs: &[("to", AttrKind::Type), ("saturate", AttrKind::Int(1)), ("round", AttrKind::Word(&["up", "down", "nearest"]))],
        class: Class::Map,
        infer: |attrs, x| check::one(attrs.ty("to"), x[0].shape.as_slice()),
        eval: not_yet,
        work: per_output::<1>,
    },
    OpDef {
        kind: Kind::Bitcast,
        doc: "The bits of x read as type `to` of the same width.",
        inputs: Arity::Exactly(1),
        attrs: &[("to", AttrKind::Type)],
        class: Class::Map,
        infer: bitcast,
        eval: not_yet,
        work: nothing,
    },
];

/// Bits of an element; unlike [`Type::bytes`] it tells the types apart that fill a byte only in part.
fn bits(ty: Type) -> usize {
    match ty {
        Type::Bool => 1,
        Type::I2 | Type::U2 => 2,
        Type::I4 | Type::U4 | Type::F4E2M1 => 4,
        wide => 8 * wide.bytes(),
    }
}

fn bitcast(attrs: &Attrs, x: &[TensorType]) -> check::Types {
    let to = attrs.ty("to");
    check::ensure(bits(to) == bits(x[0].ty), || format!("the bits of {} do not fill {to}", x[0].ty))?;
    check::one(to, x[0].shape.as_slice())
}
