//! Editing the nodes of a draft: for tools that put nodes between others.

use crate::limits::Limits;
use crate::model_editing::{Draft, constant};
use crate::proto::{AttributeProto, NodeProto, attribute_kind};
use crate::tensor_file::dense;
use dnnc_ir::Tensor;

/// A node to be added, of the default domain.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// The operator.
    pub op: &'static str,
    /// The name of the node.
    pub name: String,
    /// Names of what it reads.
    pub inputs: Vec<String>,
    /// The name of what it makes.
    pub output: String,
    /// Attributes that are integers.
    pub ints: Vec<(&'static str, i64)>,
}

impl Draft {
    /// The version of the default operator set; 0 where none is given.
    pub fn opset(&self) -> i64 {
        let sets = &self.model.opset_import;
        sets.iter().find(|s| s.domain.is_empty() || s.domain == "ai.onnx").map_or(0, |s| s.version)
    }

    /// Adds a constant to the graph.
    pub fn add_value(&mut self, name: &str, value: &Tensor) {
        self.graph.initializer.push(constant(name, value));
    }

    /// Lets input number `input` of a node be `name`; inputs before it that are missing are left out.
    pub fn set_input(&mut self, node: usize, input: usize, name: &str) {
        let inputs = &mut self.graph.node[node].input;
        inputs.resize(inputs.len().max(input + 1), String::new());
        inputs[input] = name.to_string();
    }

    /// Gives a node's first result another name; readers keep reading the old one.
    pub fn set_output(&mut self, node: usize, name: &str) {
        self.graph.node[node].output[0] = name.to_string();
    }

    /// Puts nodes behind others: each goes behind the node of its number in the file, or in front of all. Those of one place keep their order.
    pub fn insert(&mut self, nodes: Vec<(Option<usize>, NewNode)>) {
        let mut behind: Vec<Vec<NodeProto>> = vec![vec![]; self.graph.node.len() + 1];
        for (place, node) in nodes {
            let attribute = |(name, i): &(&str, i64)| AttributeProto {
                name: name.to_string(),
                kind: attribute_kind::INT,
                i: Some(*i),
                ..Default::default()
            };
            behind[place.map_or(0, |p| p + 1)].push(NodeProto {
                input: node.inputs,
                output: vec![node.output],
                name: node.name,
                op_type: node.op.to_string(),
                attribute: node.ints.iter().map(attribute).collect(),
                ..Default::default()
            });
        }
        let old = std::mem::take(&mut self.graph.node);
        let mut behind = behind.into_iter();
        self.graph.node = behind.next().unwrap_or_default();
        for (node, more) in old.into_iter().zip(behind) {
            self.graph.node.push(node);
            self.graph.node.extend(more);
        }
    }

    /// Removes nodes that say of themselves what they make (`Constant` with a tensor): they become constants of the graph.
    pub fn inline_constants(&mut self, limits: &Limits) {
        let is_constant = |n: &NodeProto| n.op_type == "Constant" && n.attribute.iter().any(|a| a.name == "value" && a.t.is_some());
        let (constants, nodes) = std::mem::take(&mut self.graph.node).into_iter().partition(is_constant);
        self.graph.node = nodes;
        let constants: Vec<NodeProto> = constants;
        for node in constants {
            let tensor = node.attribute.iter().find_map(|a| a.t.as_ref()).and_then(|t| dense(t, None, limits).ok());
            match (tensor, node.output.first()) {
                (Some(tensor), Some(name)) => self.add_value(name, &tensor),
                // What cannot be read stays as it is, in front: it reads nothing.
                _ => self.graph.node.insert(0, node),
            }
        }
    }

    /// Removes nodes by their numbers.
    pub fn remove(&mut self, nodes: &[usize]) {
        let mut number = 0..;
        self.graph.node.retain(|_| !nodes.contains(&number.next().expect("numbers do not end")));
    }
}
