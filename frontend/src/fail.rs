//! Why an importer cannot build a node.

use dnnc_ir::Value;

/// Why a node is not imported (now).
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Fail {
    /// A legal node that dnnc cannot compile.
    Unsupported(String),
    /// A node that breaks the rules of its operator.
    Invalid(String),
    /// A size depends on the value of this tensor: import goes on when it is known.
    NeedsValue(Value),
}

/// What importers return.
pub(crate) type Result<T, E = Fail> = std::result::Result<T, E>;

/// `Err(Fail::Invalid(…))` with a formatted sentence.
macro_rules! invalid {
    ($($arg:tt)*) => { Err($crate::fail::Fail::Invalid(format!($($arg)*))) };
}
/// `Err(Fail::Unsupported(…))` with a formatted sentence.
macro_rules! unsupported {
    ($($arg:tt)*) => { Err($crate::fail::Fail::Unsupported(format!($($arg)*))) };
}
pub(crate) use {invalid, unsupported};
