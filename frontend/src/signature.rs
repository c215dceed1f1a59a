//! Inputs and outputs of a model, as its file declares them.

use dnnc_ir::Type;
use std::fmt;

/// A size of an input or output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Dim {
    /// A number.
    Known(usize),
    /// A symbol: the same number in every use.
    Symbol(String),
    /// Not declared.
    Unknown,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(n) => write!(f, "{n}"),
            Dim::Symbol(s) => f.write_str(s),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// An input or output of a model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Element type; `None` for an output whose type the file leaves out.
    pub ty: Option<Type>,
    /// Sizes; `None` where the file does not declare the number of axes.
    pub dims: Option<Vec<Dim>>,
}
