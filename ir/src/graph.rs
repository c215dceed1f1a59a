//! A network: nodes in order, each a use of an operator on values made before it.

use crate::op::{Attr, Kind, Op};
use crate::tensor::Tensor;
use crate::types::TensorType;

/// A result of a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Value {
    /// Index of the node.
    pub node: u32,
    /// Which of its results.
    pub index: u32,
}

/// A use of an operator.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Node {
    /// Operator and attributes.
    pub op: Op,
    /// Operands, all of earlier nodes.
    pub inputs: Vec<Value>,
    /// Types of the results.
    pub types: Vec<TensorType>,
    /// The name a person knows it by: that of the ONNX node or value it came from; may be empty.
    pub name: String,
}

/// A typed graph in single-assignment form; nodes stand in an order in which they can run.
///
/// Every size is a number: symbols are bound where a model is specialised, at the reader's door.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Graph {
    nodes: Vec<Node>,
    inputs: Vec<Value>,
    input_names: Vec<String>,
    outputs: Vec<(String, Value)>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// Adds an input; inputs are numbered in the order of these calls.
    pub fn input(&mut self, name: &str, ty: TensorType) -> Value {
        let op = Op::new(Kind::Input, [("index", Attr::Int(self.inputs.len() as i64))]).expect("the row of `input`");
        let value = self.push(op, vec![], vec![ty], name);
        self.inputs.push(value);
        self.input_names.push(name.to_string());
        value
    }

    /// Adds a constant.
    pub fn constant(&mut self, tensor: Tensor) -> Value {
        let ty = tensor.ty().clone();
        let op = Op::new(Kind::Const, [("value", Attr::Tensor(tensor))]).expect("the row of `const`");
        self.push(op, vec![], vec![ty], "")
    }

    /// Adds a use of an operator and checks its inputs; a sentence says what does not fit.
    pub fn add(&mut self, op: Op, inputs: Vec<Value>, name: &str) -> Result<Value, String> {
        let kind = op.kind().name();
        if !op.def.inputs.admits(inputs.len()) {
            return Err(format!("`{kind}` cannot take {} inputs", inputs.len()));
        }
        let types: Vec<TensorType> = inputs.iter().map(|v| self.ty(*v).clone()).collect();
        let results = (op.def.infer)(&op.attrs, &types).map_err(|e| format!("`{kind}`: {e}"))?;
        Ok(self.push(op, inputs, results, name))
    }

    /// Adds a use of operator `kind` with these attributes.
    pub fn apply(&mut self, kind: Kind, attrs: impl IntoIterator<Item = (&'static str, Attr)>, inputs: &[Value]) -> Result<Value, String> {
        self.add(Op::new(kind, attrs)?, inputs.to_vec(), "")
    }

    /// Names a result of the graph; results are numbered in the order of these calls.
    pub fn output(&mut self, name: &str, value: Value) {
        self.outputs.push((name.to_string(), value));
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node that makes `value`.
    pub fn node(&self, value: Value) -> &Node {
        &self.nodes[value.node as usize]
    }

    /// Names a node, for errors and reports.
    pub fn set_name(&mut self, value: Value, name: &str) {
        self.nodes[value.node as usize].name = name.to_string();
    }

    /// Type of a value.
    pub fn ty(&self, value: Value) -> &TensorType {
        &self.node(value).types[value.index as usize]
    }

    /// The constant behind a value, if it is one.
    pub fn const_of(&self, value: Value) -> Option<&Tensor> {
        let node = self.node(value);
        (node.op.kind() == Kind::Const).then(|| node.op.attrs.tensor("value"))
    }

    /// Lets go of the data of a constant that nobody reads any more: from now on it is empty. Its type stays.
    pub fn forget(&mut self, value: Value) {
        let node = &mut self.nodes[value.node as usize];
        if node.op.kind() == Kind::Const {
            let nothing = Tensor::zeros(TensorType::new(node.types[0].ty, [0]));
            node.op = Op::new(Kind::Const, [("value", Attr::Tensor(nothing))]).expect("a constant has a value and nothing else");
        }
    }

    /// The inputs, in order.
    pub fn inputs(&self) -> &[Value] {
        &self.inputs
    }

    /// Names of the inputs, in order.
    pub fn input_names(&self) -> &[String] {
        &self.input_names
    }

    /// Names and values of the results, in order.
    pub fn outputs(&self) -> &[(String, Value)] {
        &self.outputs
    }

    /// All values of the graph and the index of the node that makes each, in order.
    pub fn values(&self) -> impl Iterator<Item = (Value, &TensorType)> {
        self.nodes
            .iter()
            .enumerate()
            .flat_map(|(n, node)| node.types.iter().enumerate().map(move |(i, ty)| (Value { node: n as u32, index: i as u32 }, ty)))
    }

    /// How often each result of each node is read, by nodes and as a result of the graph; nodes that serve no result do not count.
    pub fn uses(&self) -> Vec<Vec<u32>> {
        let mut uses: Vec<Vec<u32>> = self.nodes.iter().map(|node| vec![0; node.types.len()]).collect();
        let live = self.live();
        let operands = self.nodes.iter().zip(&live).filter(|(_, live)| **live).flat_map(|(node, _)| &node.inputs);
        for v in operands.chain(self.outputs.iter().map(|(_, v)| v)) {
            uses[v.node as usize][v.index as usize] += 1;
        }
        uses
    }

    /// Of each node, whether a result of the graph depends on it.
    pub fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        for (_, v) in &self.outputs {
            live[v.node as usize] = true;
        }
        for n in (0..self.nodes.len()).rev() {
            if live[n] {
                self.nodes[n].inputs.iter().for_each(|v| live[v.node as usize] = true);
            }
        }
        live
    }

    /// The graph with these values as its results, called `y0`, `y1`, …, without the nodes that serve none of them; inputs stay.
    pub fn with_outputs(&self, values: &[Value]) -> Graph {
        let outputs = values.iter().enumerate().map(|(i, v)| (format!("y{i}"), *v)).collect();
        Graph { outputs, ..self.clone() }.remove_dead()
    }

    /// The graph without the nodes that serve no result; inputs stay.
    pub fn remove_dead(&self) -> Graph {
        let live = self.live();
        let mut moved = vec![0; self.nodes.len()];
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let at = |moved: &[u32], v: &Value| Value { node: moved[v.node as usize], index: v.index };
        for (n, node) in self.nodes.iter().enumerate().filter(|(n, node)| live[*n] || node.op.kind() == Kind::Input) {
            moved[n] = nodes.len() as u32;
            let inputs = node.inputs.iter().map(|v| at(&moved, v)).collect();
            nodes.push(Node { inputs, ..node.clone() });
        }
        Graph {
            nodes,
            inputs: self.inputs.iter().map(|v| at(&moved, v)).collect(),
            input_names: self.input_names.clone(),
            outputs: self.outputs.iter().map(|(name, v)| (name.clone(), at(&moved, v))).collect(),
        }
    }

    /// Checks what building a graph guarantees: operands stand before their readers and every type is the one its rule gives. The
    /// error names the node.
    pub fn validate(&self) -> Result<(), String> {
        let exists = |v: &Value, before: usize| (v.node as usize) < before && self.nodes[v.node as usize].types.len() > v.index as usize;
        for (n, node) in self.nodes.iter().enumerate() {
            let kind = node.op.kind();
            let fail = |reason: String| Err(format!("node {n} (`{}`): {reason}", kind.name()));
            if let Some(v) = node.inputs.iter().find(|v| !exists(v, n)) {
                return fail(format!("operand {v:?} is not made before it"));
            }
            if kind == Kind::Input {
                if self.inputs.get(node.op.attrs.size("index")) != Some(&Value { node: n as u32, index: 0 }) {
                    return fail("it is not the input of its number".into());
                }
                continue;
            }
            if !node.op.def.inputs.admits(node.inputs.len()) {
                return fail(format!("it cannot take {} inputs", node.inputs.len()));
            }
            let types: Vec<TensorType> = node.inputs.iter().map(|v| self.ty(*v).clone()).collect();
            match (node.op.def.infer)(&node.op.attrs, &types) {
                Ok(types) if types == node.types => {}
                Ok(types) => return fail(format!("its results are {:?}, but should be {types:?}", node.types)),
                Err(reason) => return fail(reason),
            }
            let bodies = node.op.attrs.iter().filter_map(|(name, attr)| match attr {
                crate::Attr::Graph(body) => Some((name, body)),
                _ => None,
            });
            for (name, body) in bodies {
                body.validate().or_else(|reason| fail(format!("in `{name}`: {reason}")))?;
            }
        }
        match self.outputs.iter().find(|(_, v)| !exists(v, self.nodes.len())) {
            Some((name, _)) => Err(format!("result `{name}` is not a value of the graph")),
            None => Ok(()),
        }
    }

    fn push(&mut self, op: Op, inputs: Vec<Value>, types: Vec<TensorType>, name: &str) -> Value {
        self.nodes.push(Node { op, inputs, types, name: name.to_string() });
        Value { node: self.nodes.len() as u32 - 1, index: 0 }
    }
}

impl Value {
    /// Result `index` of the same node.
    pub fn result(self, index: u32) -> Value {
        Value { node: self.node, index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::parse;

    fn graph() -> Graph {
        let text = "graph(x: f32[4], unused: f32[1]) {
            %dead = exp(%x)
            %top = top_k(%x) {k=2}
            %twice = add(%top, %top)
            %deader = neg(%dead)
            return y = %twice, i = %top.1 }";
        parse(text).expect("a graph")
    }

    #[test]
    fn readers_are_counted() {
        assert_eq!(graph().live(), [true, false, false, true, true, false]);
        assert_eq!(graph().uses(), [vec![1], vec![0], vec![0], vec![2, 1], vec![1], vec![0]]);
    }

    #[test]
    fn dead_nodes_go_and_inputs_stay() {
        let expected = "graph(x: f32[4], unused: f32[1]) {
  %2: f32[2], i64[2] = top_k(%x) {k=2}
  %3: f32[2] = add(%2, %2)
  return y = %3, i = %2.1
}";
        let cleaned = graph().remove_dead();
        assert_eq!(cleaned.to_string(), expected);
        assert_eq!(cleaned.validate(), Ok(()));
        assert_eq!(cleaned.remove_dead(), cleaned);
    }

    #[test]
    fn other_results_need_other_nodes() {
        let y = graph().outputs()[1].1;
        let expected = "graph(x: f32[4], unused: f32[1]) {\n  %2: f32[2], i64[2] = top_k(%x) {k=2}\n  return y0 = %2.1\n}";
        assert_eq!(graph().with_outputs(&[y]).to_string(), expected);
    }

    #[test]
    fn what_does_not_fit_is_found() {
        let mut wrong = graph();
        wrong.nodes[4].types[0].shape[0] = 3;
        assert_eq!(wrong.validate().unwrap_err(), "node 4 (`add`): its results are [f32[3]], but should be [f32[2]]");
        let mut wrong = graph();
        wrong.nodes[4].inputs[1].node = 5;
        assert!(wrong.validate().unwrap_err().contains("is not made before it"));
        let mut wrong = graph();
        wrong.outputs[0].1.index = 1;
        assert_eq!(wrong.validate().unwrap_err(), "result `y` is not a value of the graph");
        assert_eq!(graph().apply(Kind::Add, [], &[]).unwrap_err(), "`add` cannot take 0 inputs");
    }
}
