//! Attributes of nodes, decoded, and the values of `Constant` nodes.

use super::loader::{Attr, Bindings, Loader};
use crate::node::Attribute;
use crate::proto::{AttributeProto, NodeProto, attribute_kind};
use crate::refusal::RefusalKind;
use crate::tensor_file::{dense, sparse};
use dnnc_ir::Tensor;
use std::collections::HashSet;

impl<'p> Loader<'p, '_> {
    pub(super) fn attributes(&mut self, node: &'p NodeProto, opset: i64, bindings: &Bindings<'p>) -> Vec<(String, Attr<'p>)> {
        let mut all: Vec<(String, Attr<'p>)> = Vec::with_capacity(node.attribute.len());
        let mut seen = HashSet::new();
        for attribute in &node.attribute {
            if attribute.name.is_empty() || !seen.insert(&attribute.name) {
                let reason = if attribute.name.is_empty() {
                    "an attribute without a name".into()
                } else {
                    format!("duplicate attribute `{}`", attribute.name)
                };
                self.refuse_node(RefusalKind::Invalid, node, opset, reason, "");
                continue;
            }
            let value = if attribute.ref_attr_name.is_empty() {
                self.attribute(attribute).map(Some)
            } else if self.calls.is_empty() {
                Err("refers to an attribute of a function, outside of one".to_string())
            } else {
                match bindings.get(&attribute.ref_attr_name) {
                    Some(Attr::Graph(_)) => Err("a graph that is given to a function is not supported".to_string()),
                    value => Ok(value.cloned()),
                }
            };
            match value {
                Ok(Some(value)) => all.push((attribute.name.clone(), value)),
                Ok(None) => {}
                Err(reason) => self.refuse_node(RefusalKind::Invalid, node, opset, format!("attribute `{}`: {reason}", attribute.name), ""),
            }
        }
        all
    }

    pub(super) fn attribute(&self, a: &'p AttributeProto) -> Result<Attr<'p>, String> {
        use attribute_kind::*;
        let kind = match a.kind {
            // Files of IR version 1 do not say.
            UNDEFINED if a.f.is_some() => FLOAT,
            UNDEFINED if a.i.is_some() => INT,
            UNDEFINED if a.s.is_some() => STRING,
            UNDEFINED if a.t.is_some() => TENSOR,
            UNDEFINED if a.g.is_some() => GRAPH,
            UNDEFINED if !a.floats.is_empty() => FLOATS,
            UNDEFINED if !a.strings.is_empty() => STRINGS,
            UNDEFINED if a.sparse_tensor.is_some() => SPARSE_TENSOR,
            UNDEFINED => INTS,
            kind => kind,
        };
        Ok(Attr::Plain(match kind {
            FLOAT => Attribute::Float(a.f.unwrap_or(0.0)),
            INT => Attribute::Int(a.i.unwrap_or(0)),
            STRING => Attribute::Text(a.s.as_ref().map(|s| s.to_vec()).unwrap_or_default()),
            FLOATS => Attribute::Floats(a.floats.clone()),
            INTS => Attribute::Ints(a.ints.clone()),
            STRINGS => Attribute::Texts(a.strings.iter().map(|s| s.to_vec()).collect()),
            TENSOR => match &a.t {
                Some(t) if t.data_type == 8 => Attribute::Other("a tensor of strings"),
                Some(t) => Attribute::Tensor(dense(t, self.folder, self.limits)?),
                None => return Err("a tensor is missing".into()),
            },
            SPARSE_TENSOR => match &a.sparse_tensor {
                Some(t) => Attribute::Tensor(sparse(t, self.folder, self.limits)?),
                None => return Err("a sparse tensor is missing".into()),
            },
            GRAPH => match &a.g {
                Some(g) => return Ok(Attr::Graph(g)),
                None => return Err("a graph is missing".into()),
            },
            TENSORS => Attribute::Other("a list of tensors"),
            GRAPHS => Attribute::Other("a list of graphs"),
            SPARSE_TENSORS => Attribute::Other("a list of sparse tensors"),
            TYPE_PROTO => Attribute::Other("a type"),
            TYPE_PROTOS => Attribute::Other("a list of types"),
            other => return Err(format!("{other} is no attribute type")),
        }))
    }
}

/// The value of a `Constant` node.
pub(super) fn constant_value(node: &NodeProto, attributes: &[(String, Attr)], opset: i64) -> Result<Tensor, (RefusalKind, String)> {
    let invalid = |reason: &str| Err((RefusalKind::Invalid, reason.to_string()));
    match &node.output[..] {
        [name] if !name.is_empty() && node.input.is_empty() => {}
        _ => return invalid("it must have no input and one output"),
    }
    if opset == 0 {
        return invalid("no opset version is given for its domain");
    }
    let [(name, Attr::Plain(value))] = attributes else {
        return invalid("it must have exactly one attribute, the value");
    };
    Ok(match (name.as_str(), value) {
        ("value" | "sparse_value", Attribute::Tensor(t)) => t.clone(),
        ("value_float", Attribute::Float(v)) => Tensor::scalar(*v),
        ("value_int", Attribute::Int(v)) => Tensor::scalar(*v),
        ("value_floats", Attribute::Floats(v)) => Tensor::new([v.len()], v),
        ("value_ints", Attribute::Ints(v)) => Tensor::new([v.len()], v),
        // An empty list does not say of what it is a list.
        ("value_floats", Attribute::Ints(v)) if v.is_empty() => Tensor::new::<f32>([0], &[]),
        ("value_string" | "value_strings", _) | ("value", Attribute::Other(_)) => {
            return Err((RefusalKind::Unsupported, "strings are not supported".into()));
        }
        (name, _) => return invalid(&format!("attribute `{name}` does not hold a value")),
    })
}
