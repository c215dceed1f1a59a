//! The table of operators, a family a file.

use crate::op::{Kind, OpDef};

/// Every operator.
pub const ALL: &[&[OpDef]] = &[];

/// The row of an operator.
pub fn def(kind: Kind) -> &'static OpDef {
    ALL.iter().flat_map(|family| family.iter()).find(|d| d.kind == kind).unwrap_or_else(|| panic!("`{}` has no row", kind.name()))
}
