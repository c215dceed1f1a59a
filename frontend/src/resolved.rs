//! The resolved model: its graphs with names resolved to slots, nodes in an order in which they can run, constants decoded, functions
//! inlined. The reader makes it from a file, the importer makes graphs of the IR from it.

use crate::limits::Limits;
use crate::node::Attribute;
use crate::ops::OpImport;
use crate::refusal::{Refusal, Refusals};
use crate::schema::Schema;
use crate::signature::Port;
use dnnc_ir::{Tensor, Type};
use std::sync::Arc;

/// A model that the reader has checked.
#[derive(Debug)]
pub(crate) struct ResolvedModel {
    pub name: String,
    pub producer: String,
    pub graph: ResolvedGraph,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub limits: Limits,
}

impl ResolvedModel {
    pub fn refuse(&self, list: Vec<Refusal>) -> Refusals {
        Refusals { model: self.name.clone(), list }
    }
}

/// Number of a value within its [`ResolvedGraph`].
pub(crate) type Slot = u32;

/// A graph whose values are numbered.
#[derive(Debug, Default)]
pub(crate) struct ResolvedGraph {
    pub inputs: Vec<Slot>,
    pub outputs: Vec<Slot>,
    pub nodes: Vec<Arc<ResolvedNode>>,
    /// Slot, name, data.
    pub constants: Vec<(Slot, String, Tensor)>,
    /// Values of the enclosing graph that are used here: slot there, slot here.
    pub captures: Vec<(Slot, Slot)>,
    /// Number of slots.
    pub slots: u32,
}

/// A use of an operator in a [`ResolvedGraph`].
#[derive(Debug)]
pub(crate) struct ResolvedNode {
    pub op_type: String,
    pub domain: String,
    /// Its name; of its first output where it has none.
    pub name: String,
    pub opset: i64,
    pub attributes: Vec<(String, Attribute)>,
    pub inputs: Vec<Option<Slot>>,
    pub outputs: Vec<Option<Slot>>,
    /// Element types that the file declares of the outputs.
    pub declared: Vec<Option<Type>>,
    /// `then_branch` and `else_branch`, or `body`.
    pub bodies: Vec<Arc<ResolvedGraph>>,
    pub import: Import,
    /// What the standard says of it; `None` for operators of other domains.
    pub schema: Option<&'static Schema>,
}

/// How a node is imported.
#[derive(Clone, Copy)]
pub(crate) enum Import {
    Op(&'static OpImport),
    If,
    Loop,
    Scan,
}

impl std::fmt::Debug for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Import::Op(row) => row.name,
            Import::If => "If",
            Import::Loop => "Loop",
            Import::Scan => "Scan",
        })
    }
}

/// An operator's name with its domain, unless that is ONNX's own.
pub(crate) fn qualified(domain: &str, op: &str) -> String {
    if domain.is_empty() { op.to_string() } else { format!("{domain}.{op}") }
}
