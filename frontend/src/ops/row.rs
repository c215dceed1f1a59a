//! A row of the table of operators.

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
    pub import: Importer,
    /// What of it is supported; empty: all.
    pub note: &'static str,
}

/// Builds a node; one value for each output.
pub(crate) type Importer = fn(&mut Build, &Node) -> Result<Vec<Value>>;

/// A row for an operator of ONNX's own domain whose importer knows every opset version.
pub(super) const fn onnx(name: &'static str, import: Importer) -> OpImport {
    OpImport { domain: "", name, since: 1, until: None, import, note: "" }
}

/// A row for an operator of ONNX Runtime.
pub(super) const fn microsoft(name: &'static str, import: Importer) -> OpImport {
    OpImport { domain: "com.microsoft", name, since: 1, until: None, import, note: "" }
}
