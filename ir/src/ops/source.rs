//! Sources of values: inputs and constants.

use super::check;
use super::work::nothing;
use crate::graph::OpDef;
use crate::kind::{Arity, AttrKind, Class, Kind};

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    OpDef {
        kind: Kind::Input,
        doc: "Input number `index` of the graph.",
        inputs: Arity::Exactly(0),
        attrs: &[("index", AttrKind::Int(0))],
        class: Class::Source,
        infer: |_, _| Err("an input has the type it was declared with".into()),
        eval: |_, _| Err("an input has no value of its own".into()),
        work: nothing,
    },
    OpDef {
        kind: Kind::Const,
        doc: "The tensor `value`.",
        inputs: Arity::Exactly(0),
        attrs: &[("value", AttrKind::Tensor)],
        class: Class::Source,
        infer: |attrs, _| check::same(attrs.tensor("value").ty()),
        eval: |attrs, _| Ok(vec![attrs.tensor("value").clone()]),
        work: nothing,
    },
];
