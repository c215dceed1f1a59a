//! Layers of a draft: nodes as a tool sees them that changes weights.

use crate::limits::Limits;
use crate::model_editing::{Draft, constant};
use crate::proto::attribute_kind;
use crate::tensor_file::dense;
use dnnc_ir::Tensor;
use std::collections::BTreeMap;

/// A node of the graph; those of bodies and functions are not shown.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The operator.
    pub op: String,
    /// The name of the node; may be empty.
    pub name: String,
    /// Names of what it reads; empty where an input is left out.
    pub inputs: Vec<String>,
    /// Names of what it makes.
    pub outputs: Vec<String>,
    /// Attributes that are integers, or lists of them.
    pub ints: BTreeMap<String, Vec<i64>>,
    /// Attributes that are one float.
    pub floats: BTreeMap<String, f32>,
    /// Attributes that are one string.
    pub strings: BTreeMap<String, String>,
}

impl NodeView {
    /// An integer attribute, or what it is when it is left out.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.ints.get(name).and_then(|v| v.first()).copied().unwrap_or(default)
    }

    /// The name of the node, or of its first result where it has none.
    pub fn shown(&self) -> &str {
        if self.name.is_empty() { self.outputs.first().map_or(&self.op, |o| o) } else { &self.name }
    }
}

impl Draft {
    /// The nodes, in the order of the file.
    pub fn views(&self) -> Vec<NodeView> {
        let view = |n: &crate::proto::NodeProto| {
            let (mut ints, mut floats, mut strings) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
            for a in &n.attribute {
                match a.kind {
                    attribute_kind::INT => drop(ints.insert(a.name.clone(), vec![a.i.unwrap_or(0)])),
                    attribute_kind::INTS => drop(ints.insert(a.name.clone(), a.ints.clone())),
                    attribute_kind::FLOAT => drop(floats.insert(a.name.clone(), a.f.unwrap_or(0.0))),
                    attribute_kind::STRING => {
                        let text = String::from_utf8_lossy(a.s.as_deref().unwrap_or_default()).into_owned();
                        strings.insert(a.name.clone(), text);
                    }
                    _ => {}
                }
            }
            NodeView {
                op: n.op_type.clone(),
                name: n.name.clone(),
                inputs: n.input.clone(),
                outputs: n.output.clone(),
                ints,
                floats,
                strings,
            }
        };
        self.graph.node.iter().map(view).collect()
    }

    /// The constant of a name in the graph, or `None`: it is no constant, or too large.
    pub fn value(&self, name: &str, limits: &Limits) -> Option<Tensor> {
        let tensor = self.graph.initializer.iter().find(|t| t.name == name)?;
        dense(tensor, None, limits).ok()
    }

    /// Gives a constant of the graph another value of the same shape.
    pub fn set_value(&mut self, name: &str, value: &Tensor) {
        for tensor in self.graph.initializer.iter_mut().filter(|t| t.name == name) {
            *tensor = constant(name, value);
        }
    }

    /// Adds results to the outputs, after those that there are.
    pub fn with_more_outputs(&self, names: &[String]) -> Draft {
        let mut all = self.outputs();
        all.extend(names.iter().filter(|n| !self.graph.output.iter().any(|o| o.name == **n)).cloned());
        self.with_outputs(&all)
    }
}
