//! Model editing: smaller models made from parts of a model.

use crate::compact::{Encoded, contain, expanded};
use crate::element::type_code;
use crate::encoded_size::check_parts;
use crate::limits::Limits;
use crate::proto::{
    DimensionProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
    ValueInfoProto,
};
use crate::tensor_file::{dense, encode_tensor, read_file};
use crate::topological_sort::{initialised, uses};
use dnnc_ir::{Tensor, TensorType};
use prost::Message;
use prost::bytes::Bytes;
use std::collections::HashSet;
use std::path::Path;

/// A model file in memory, with no data outside; it need not be a valid model.
#[derive(Clone, Debug)]
pub struct Draft {
    pub(crate) model: ModelProto,
    pub(crate) graph: GraphProto,
}

impl Draft {
    /// Reads a file and its external data. An error is a sentence.
    pub fn load(path: &Path, limits: &Limits) -> Result<Draft, String> {
        let bytes = read_file(path, limits)?;
        let mut draft = expanded(bytes, limits).and_then(Draft::decode).map_err(|e| format!("{}: {e}", path.display()))?;
        for tensor in draft.graph.initializer.iter_mut().filter(|t| t.data_location == 1) {
            let name = tensor.name.clone();
            let data = dense(tensor, path.parent(), limits).map_err(|e| format!("{}: tensor \"{name}\" {e}", path.display()))?;
            *tensor = constant(&name, &data);
        }
        Ok(draft)
    }

    /// The same from bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Draft, String> {
        Draft::decode(Bytes::copy_from_slice(bytes))
    }

    fn decode(bytes: Bytes) -> Result<Draft, String> {
        check_parts(&bytes)?;
        let mut model = ModelProto::decode(bytes).map_err(|e| format!("not an ONNX model: {e}"))?;
        let graph = model.graph.take().ok_or("not an ONNX model: there is no graph in it")?;
        Ok(Draft { model, graph })
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> Vec<u8> {
        ModelProto { graph: Some(self.graph.clone()), ..self.model.clone() }.encode_to_vec()
    }

    /// The bytes of the file as a compact container, and how its constants are kept.
    pub fn container(&self) -> (Vec<u8>, Vec<Encoded>) {
        contain(ModelProto { graph: Some(self.graph.clone()), ..self.model.clone() })
    }

    /// Number of nodes, those of bodies and functions included.
    pub fn nodes(&self) -> usize {
        fn of(nodes: &[NodeProto]) -> usize {
            let bodies = |n: &NodeProto| n.attribute.iter().filter_map(|a| a.g.as_ref()).map(|g| of(&g.node)).sum::<usize>();
            nodes.iter().map(|n| 1 + bodies(n)).sum()
        }
        of(&self.graph.node) + self.model.functions.iter().map(|f| of(&f.node)).sum::<usize>()
    }

    /// Bytes of the constants.
    pub fn constant_bytes(&self) -> usize {
        self.graph.initializer.iter().map(TensorProto::encoded_len).sum()
    }

    /// The operators of the nodes, in the order of the file, bodies left out.
    pub fn operators(&self) -> Vec<&str> {
        self.graph.node.iter().map(|n| n.op_type.as_str()).collect()
    }

    /// The names of what each node makes, in the order of the file, bodies left out.
    pub fn made(&self) -> Vec<Vec<String>> {
        self.graph.node.iter().map(|n| n.output.iter().filter(|o| !o.is_empty()).cloned().collect()).collect()
    }

    /// The names of what each node reads, in the order of the file; what bodies capture included.
    pub fn read(&self) -> Vec<Vec<String>> {
        let of = |node| {
            let mut names = HashSet::new();
            uses(node, &mut names);
            let mut names: Vec<String> = names.into_iter().map(str::to_string).collect();
            names.sort();
            names
        };
        self.graph.node.iter().map(of).collect()
    }

    /// The names of the inputs that have no value of their own.
    pub fn inputs(&self) -> Vec<String> {
        let known: HashSet<&str> = initialised(&self.graph).collect();
        self.graph.input.iter().map(|i| i.name.clone()).filter(|n| !known.contains(n.as_str())).collect()
    }

    /// The names of the outputs.
    pub fn outputs(&self) -> Vec<String> {
        self.graph.output.iter().map(|o| o.name.clone()).collect()
    }

    /// The model with other outputs, and without what they do not need.
    pub fn with_outputs(&self, names: &[String]) -> Draft {
        let mut draft = self.clone();
        let known = |name: &String| {
            let mut infos = self.graph.output.iter().chain(&self.graph.value_info).chain(&self.graph.input);
            infos.find(|i| i.name == *name).cloned().unwrap_or_else(|| ValueInfoProto { name: name.clone(), r#type: None })
        };
        draft.graph.output = names.iter().map(known).collect();
        draft.tidied()
    }

    /// The model with values that become inputs, and without what they make unnecessary.
    pub fn with_inputs(&self, values: &[(String, TensorType)]) -> Draft {
        let mut draft = self.clone();
        for (name, ty) in values {
            draft.forget(name);
            draft.graph.input.push(info(name, ty));
        }
        draft.tidied()
    }

    /// The model with a value that is known.
    pub fn with_constant(&self, name: &str, tensor: &Tensor) -> Draft {
        let mut draft = self.clone();
        draft.forget(name);
        draft.graph.initializer.push(constant(name, tensor));
        draft.tidied()
    }

    /// The model with `name` read wherever `old` was.
    pub fn with_alias(&self, old: &str, name: &str) -> Draft {
        fn rename(nodes: &mut [NodeProto], old: &str, name: &str) {
            for node in nodes {
                node.input.iter_mut().filter(|i| *i == old).for_each(|i| *i = name.to_string());
                for body in node.attribute.iter_mut().filter_map(|a| a.g.as_mut()) {
                    rename(&mut body.node, old, name);
                    body.output.iter_mut().filter(|o| o.name == old).for_each(|o| o.name = name.to_string());
                }
            }
        }
        let mut draft = self.clone();
        rename(&mut draft.graph.node, old, name);
        for output in draft.graph.output.iter_mut().filter(|o| o.name == old) {
            *output = ValueInfoProto { name: name.to_string(), r#type: None };
        }
        draft.tidied()
    }

    /// The model with types written to outputs that have none.
    pub fn with_types(&self, types: &[(String, TensorType)]) -> Draft {
        let mut draft = self.clone();
        for output in draft.graph.output.iter_mut().filter(|o| o.r#type.is_none()) {
            if let Some((name, ty)) = types.iter().find(|(n, _)| *n == output.name) {
                *output = info(name, ty);
            }
        }
        draft
    }

    /// Removes a name from the node or constant that makes it; a node keeps its other results.
    fn forget(&mut self, name: &str) {
        let g = &mut self.graph;
        g.node.iter_mut().flat_map(|n| &mut n.output).filter(|o| *o == name).for_each(String::clear);
        g.initializer.retain(|t| t.name != name);
        g.sparse_initializer.retain(|t| t.values.as_ref().is_none_or(|v| v.name != name));
        g.input.retain(|i| i.name != name);
    }

    /// The model without nodes, constants, inputs and functions that no output needs.
    fn tidied(mut self) -> Draft {
        let g = &mut self.graph;
        let mut needed: HashSet<String> = g.output.iter().map(|o| o.name.clone()).collect();
        let mut kept = vec![false; g.node.len()];
        // Nodes may be in any order.
        let mut progress = true;
        while progress {
            progress = false;
            for (node, kept) in g.node.iter().zip(&mut kept).rev() {
                if !*kept && node.output.iter().any(|o| needed.contains(o)) {
                    (*kept, progress) = (true, true);
                    let mut names = HashSet::new();
                    uses(node, &mut names);
                    needed.extend(names.into_iter().map(str::to_string));
                }
            }
        }
        let mut keep = kept.iter();
        g.node.retain(|_| *keep.next().expect("one for each node"));
        g.initializer.retain(|t| needed.contains(&t.name));
        g.sparse_initializer.retain(|t| t.values.as_ref().is_some_and(|v| needed.contains(&v.name)));
        g.input.retain(|i| needed.contains(&i.name));
        let made: HashSet<&str> = g.node.iter().flat_map(|n| &n.output).map(String::as_str).collect();
        g.value_info.retain(|v| made.contains(v.name.as_str()));
        let mut called = HashSet::new();
        calls(&g.node, &mut called);
        loop {
            let before = called.len();
            let is_called = |f: &FunctionProto, called: &HashSet<String>| called.contains(&f.name);
            for f in self.model.functions.iter().filter(|f| is_called(f, &called)).cloned().collect::<Vec<_>>() {
                calls(&f.node, &mut called);
            }
            if called.len() == before {
                break;
            }
        }
        self.model.functions.retain(|f| called.contains(&f.name));
        self
    }
}

/// The operators that nodes use.
fn calls(nodes: &[NodeProto], called: &mut HashSet<String>) {
    for node in nodes {
        called.insert(node.op_type.clone());
        node.attribute.iter().filter_map(|a| a.g.as_ref()).for_each(|g| calls(&g.node, called));
    }
}

pub(crate) fn constant(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto::decode(Bytes::from(encode_tensor(name, tensor))).expect("what was just written can be read")
}

pub(crate) fn info(name: &str, ty: &TensorType) -> ValueInfoProto {
    let dim = ty.shape.iter().map(|&n| DimensionProto { dim_value: Some(n as i64), dim_param: None }).collect();
    let tensor = TensorTypeProto { elem_type: type_code(ty.ty), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.to_string(), r#type: Some(TypeProto { tensor: Some(tensor), ..Default::default() }) }
}
