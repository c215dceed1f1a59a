//! ONNX operators as compositions of IR operators: a table of rows, one file per family of operators.

mod attention;
mod contrib;
mod conv;
mod detection;
mod elementwise;
mod expr;
mod gather;
mod helpers;
mod linear;
mod loss;
mod movement;
mod norm;
mod pool;
mod quant;
pub(crate) mod recurrent;
mod reduce;
mod resize;
mod row;
mod signal;

pub(crate) use row::OpImport;

/// Every importer, one slice per family.
pub(crate) const TABLE: &[&[OpImport]] = &[
    elementwise::OPS,
    quant::OPS,
    linear::OPS,
    conv::OPS,
    pool::OPS,
    norm::OPS,
    reduce::OPS,
    movement::OPS,
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

/// Operators that the reader or the importer of control flow knows itself, and what of them is supported.
pub(crate) const WITHOUT_ROW: &[(&str, &str)] = &[
    ("Constant", "not: strings"),
    ("If", "tensors only"),
    ("Loop", "tensors only"),
    ("Scan", "tensors only; opset 8: sequences of one length"),
];

/// The row of an operator at an opset version.
pub(crate) fn find(domain: &str, name: &str, opset: i64) -> Option<&'static OpImport> {
    rows(domain, name).find(|row| row.since <= opset && row.until.is_none_or(|last| opset <= last))
}

/// The rows of an operator at any opset version.
pub(crate) fn rows(domain: &str, name: &str) -> impl Iterator<Item = &'static OpImport> {
    TABLE.iter().copied().flatten().filter(move |row| row.name == name && row.domain == domain)
}
