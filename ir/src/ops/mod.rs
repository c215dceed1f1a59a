//! The table of operators, a family a file.

mod binary;
mod cast;
mod check;
mod control;
mod conv;
mod data;
mod dynamic;
mod gather;
mod linear;
mod movement;
mod norm;
mod recurrent;
mod reduce;
mod sample;
mod source;
mod unary;
mod window;
mod work;

use crate::graph::OpDef;
use crate::kind::Kind;
use std::sync::LazyLock;

/// Every operator.
pub const ALL: &[&[OpDef]] = &[
    source::ROWS,
    unary::ROWS,
    cast::ROWS,
    binary::ROWS,
    reduce::ROWS,
    linear::ROWS,
    conv::ROWS,
    window::ROWS,
    norm::ROWS,
    movement::ROWS,
    gather::ROWS,
    sample::ROWS,
    dynamic::ROWS,
    recurrent::ROWS,
    control::ROWS,
];

static BY_KIND: LazyLock<Vec<&'static OpDef>> = LazyLock::new(|| {
    let row = |kind: &Kind| ALL.iter().flat_map(|family| family.iter()).find(|d| d.kind == *kind);
    Kind::ALL.iter().map(|kind| row(kind).unwrap_or_else(|| panic!("`{}` has no row", kind.name()))).collect()
});

/// The row of an operator.
pub fn def(kind: Kind) -> &'static OpDef {
    BY_KIND[kind as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_exactly_one_row() {
        for kind in Kind::ALL {
            let rows = ALL.iter().flat_map(|family| family.iter()).filter(|d| d.kind == *kind).count();
            assert_eq!(rows, 1, "`{}`", kind.name());
            assert_eq!(def(*kind).kind, *kind);
        }
    }
}
