//! Which values lie in the bytes of others: views, and slices that are one run of bytes.

use crate::kernels::movement;
use dnnc_ir::{Class, Graph, Kind, Value};

/// The value whose bytes a chain of views shows whole.
pub(crate) fn through_views(graph: &Graph, mut value: Value) -> Value {
    while graph.node(value).op.def.class == Class::View {
        value = graph.node(value).inputs[0];
    }
    value
}

/// The value in whose bytes `value` lies, through views and slices that are views.
pub(crate) fn memory_of(graph: &Graph, mut value: Value) -> Value {
    while graph.node(value).op.def.class == Class::View || slice_is_view(graph, value) {
        value = graph.node(value).inputs[0];
    }
    value
}

/// Whether a value is a slice that is one run of its operand's bytes.
pub(crate) fn slice_is_view(graph: &Graph, value: Value) -> bool {
    view_offset(graph, value).is_some()
}

/// Bytes from the operand's first to the slice's first, when the slice is one run of bytes.
pub(crate) fn view_offset(graph: &Graph, value: Value) -> Option<usize> {
    let node = graph.node(value);
    if node.op.kind() != Kind::Slice {
        return None;
    }
    movement::run_of_bytes(&node.op, graph.ty(node.inputs[0]))
}
