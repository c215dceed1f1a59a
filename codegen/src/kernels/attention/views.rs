//! Strided operands and results of attention.

use crate::kernels::lib::view::View;

/// How q, k, v and the result lie in memory where they are not dense: over the axes of each; strides are not negative.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Views {
    /// Of q, k and v.
    pub operands: [Option<View>; 3],
    /// Of the result, whose columns lie side by side.
    pub result: Option<View>,
}
