//! ONNX operators as compositions of IR operators: a table of rows, a family a file.

mod attention;
mod contrib;
mod conv;
mod detection;
mod elementwise;
mod expr;
mod gather;
mod kit;
mod linear;
mod loss;
mod moving;
mod norm;
mod pool;
mod quant;
pub(crate) mod recurrent;
mod reduce;
mod resize;
mod signal;

use crate::build::{Build, Node, Result};
use dnnc_ir::Value;

/// How one ONNX operator, in a range of opset versions, becomes operators of the IR.
pub(crate) struct OpImport {
    /// Domain; empty is ONNX's own.
    pub domain: &'static str,
    /// Operator type.
    pub name: &'static str,
    /// First opset version with this meaning.
    pub since: i64,
    /// Last opset version with this meaning, if there is a later one that differs.
    pub until: Option<i64>,
    /// Builds the operator; one value for each output that the node has (trailing ones may be left out).
    pub import: fn(&mut Build, &Node) -> Result<Vec<Value>>,
    /// What of it is supported; empty: all.
    pub note: &'static str,
}

/// Every importer, a slice a family.
pub(crate) const TABLE: &[&[OpImport]] = &[
    crate::control::ROWS,
    elementwise::OPS,
    quant::OPS,
    linear::OPS,
    conv::OPS,
    pool::OPS,
    norm::OPS,
    reduce::OPS,
    moving::OPS,
    gather::OPS,
    resize::OPS,
    recurrent::OPS,
    signal::OPS,
    loss::OPS,
    detection::OPS,
    attention::OPS,
    contrib::fused::OPS,
    contrib::quantised::OPS,
    contrib::attention::OPS,
    contrib::experts::OPS,
    contrib::plain::OPS,
];

type Import = fn(&mut Build, &Node) -> Result<Vec<Value>>;

/// A row for an operator of ONNX's own domain whose importer knows every opset version.
const fn onnx(name: &'static str, import: Import) -> OpImport {
    OpImport { domain: "", name, since: 1, until: None, import, note: "" }
}

/// A row for an operator of ONNX Runtime.
const fn microsoft(name: &'static str, import: Import) -> OpImport {
    OpImport { domain: "com.microsoft", name, since: 1, until: None, import, note: "" }
}

/// The row of an operator at an opset version.
pub(crate) fn find(domain: &str, name: &str, opset: i64) -> Option<&'static OpImport> {
    rows(domain, name).find(|row| row.since <= opset && row.until.is_none_or(|last| opset <= last))
}

/// The rows of an operator at any opset version.
pub(crate) fn rows(domain: &str, name: &str) -> impl Iterator<Item = &'static OpImport> {
    TABLE.iter().copied().flatten().filter(move |row| row.name == name && row.domain == domain)
}
