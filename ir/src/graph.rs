//! A network: nodes in order, each a use of an operator on values made before it; operators, their attributes and their definitions.
//!
//! An operator is one row ([`OpDef`]): name, arity, attributes, shape rule, work and reference stand together in `ops/<family>.rs`. Printer,
//! parser, evaluator, e-graph, rule fuzzing and help read that row. An attribute may be a graph (a body of control flow), which is why
//! graphs and operators are defined together. `build.rs` makes operators and graphs from names.

use crate::kind::{Arity, AttrKind, Class, Kind};
use crate::tensor::Tensor;
use crate::types::{TensorType, Type};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The value of an attribute.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Attr {
    /// An integer; a switch is 0 or 1.
    Int(i64),
    /// A number, by its bits: so that attributes can be compared and hashed.
    Float(u64),
    /// Integers, often one per axis.
    Ints(Vec<i64>),
    /// One of a few words.
    Word(&'static str),
    /// An element type.
    Type(Type),
    /// Constant data.
    Tensor(Tensor),
    /// A body of control flow.
    Graph(Arc<Graph>),
}

impl From<i64> for Attr {
    fn from(v: i64) -> Attr {
        Attr::Int(v)
    }
}
impl From<bool> for Attr {
    fn from(v: bool) -> Attr {
        Attr::Int(v.into())
    }
}
impl From<f64> for Attr {
    fn from(v: f64) -> Attr {
        Attr::Float(v.to_bits())
    }
}
impl From<Vec<i64>> for Attr {
    fn from(v: Vec<i64>) -> Attr {
        Attr::Ints(v)
    }
}
impl From<&[usize]> for Attr {
    fn from(v: &[usize]) -> Attr {
        Attr::Ints(v.iter().map(|&i| i as i64).collect())
    }
}
impl From<&'static str> for Attr {
    fn from(v: &'static str) -> Attr {
        Attr::Word(v)
    }
}
impl From<Type> for Attr {
    fn from(v: Type) -> Attr {
        Attr::Type(v)
    }
}
impl From<Tensor> for Attr {
    fn from(v: Tensor) -> Attr {
        Attr::Tensor(v)
    }
}
impl From<Graph> for Attr {
    fn from(v: Graph) -> Attr {
        Attr::Graph(Arc::new(v))
    }
}

/// Shape rule: attributes and input types to result types, or a sentence that says what does not fit.
pub type Infer = fn(&Attrs, &[TensorType]) -> Result<Vec<TensorType>, String>;
/// Reference: attributes and inputs to results. Errors are those of the data (an index out of range).
pub type Eval = fn(&Attrs, &[Tensor]) -> Result<Vec<Tensor>, String>;

/// One operator: everything that the rest of the compiler derives from.
pub struct OpDef {
    /// Which one.
    pub kind: Kind,
    /// Meaning, with the shapes of inputs and results.
    pub doc: &'static str,
    /// Number of inputs.
    pub inputs: Arity,
    /// Attributes in the order of the text form.
    pub attrs: &'static [(&'static str, AttrKind)],
    /// How data is accessed.
    pub class: Class,
    /// Shape rule.
    pub infer: Infer,
    /// The reference implementation.
    pub eval: Eval,
    /// Multiply-accumulates, or scalar operations where there are none, from attributes, input and result types.
    pub work: fn(&Attrs, &[TensorType], &[TensorType]) -> u64,
}

/// Attributes of one operator, in the order of its definition, defaults filled in.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Attrs(pub(crate) Vec<(&'static str, Attr)>);

impl Attrs {
    /// Attribute `name`; panics when the operator has none of that name: the table and its readers disagree.
    pub fn get(&self, name: &str) -> &Attr {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, a)| a).unwrap_or_else(|| panic!("no attribute `{name}`"))
    }

    /// An integer.
    pub fn int(&self, name: &str) -> i64 {
        match self.get(name) {
            Attr::Int(v) => *v,
            other => panic!("attribute `{name}` is {other:?}, not an integer"),
        }
    }

    /// A size or an axis that the shape rule has checked not to be negative.
    pub fn size(&self, name: &str) -> usize {
        usize::try_from(self.int(name)).unwrap_or_else(|_| panic!("attribute `{name}` is negative"))
    }

    /// A switch.
    pub fn flag(&self, name: &str) -> bool {
        self.int(name) != 0
    }

    /// A number.
    pub fn float(&self, name: &str) -> f64 {
        match self.get(name) {
            Attr::Float(bits) => f64::from_bits(*bits),
            other => panic!("attribute `{name}` is {other:?}, not a number"),
        }
    }

    /// Integers.
    pub fn ints(&self, name: &str) -> &[i64] {
        match self.get(name) {
            Attr::Ints(v) => v,
            other => panic!("attribute `{name}` is {other:?}, not integers"),
        }
    }

    /// Integers that the shape rule has checked not to be negative.
    pub fn sizes(&self, name: &str) -> Vec<usize> {
        self.ints(name).iter().map(|&v| usize::try_from(v).unwrap_or_else(|_| panic!("attribute `{name}` is negative"))).collect()
    }

    /// A word.
    pub fn word(&self, name: &str) -> &'static str {
        match self.get(name) {
            Attr::Word(v) => v,
            other => panic!("attribute `{name}` is {other:?}, not a word"),
        }
    }

    /// An element type.
    pub fn ty(&self, name: &str) -> Type {
        match self.get(name) {
            Attr::Type(v) => *v,
            other => panic!("attribute `{name}` is {other:?}, not a type"),
        }
    }

    /// Constant data.
    pub fn tensor(&self, name: &str) -> &Tensor {
        match self.get(name) {
            Attr::Tensor(v) => v,
            other => panic!("attribute `{name}` is {other:?}, not a tensor"),
        }
    }

    /// A body.
    pub fn graph(&self, name: &str) -> &Arc<Graph> {
        match self.get(name) {
            Attr::Graph(v) => v,
            other => panic!("attribute `{name}` is {other:?}, not a graph"),
        }
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Attr)> {
        self.0.iter().map(|(n, a)| (*n, a))
    }
}

/// An operator with its attributes.
#[derive(Clone)]
pub struct Op {
    /// Its row in the table.
    pub def: &'static OpDef,
    /// Its attributes.
    pub attrs: Attrs,
}

impl Op {
    /// Which operator.
    pub fn kind(&self) -> Kind {
        self.def.kind
    }

    /// The same operator with attribute `name` changed.
    pub fn with(&self, name: &'static str, value: impl Into<Attr>) -> Op {
        let mut op = self.clone();
        let slot = op.attrs.0.iter_mut().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no attribute `{name}`"));
        slot.1 = value.into();
        op
    }
}

impl PartialEq for Op {
    fn eq(&self, other: &Op) -> bool {
        self.kind() == other.kind() && self.attrs == other.attrs
    }
}
impl Eq for Op {}
impl Hash for Op {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind().hash(state);
        self.attrs.hash(state);
    }
}
impl PartialOrd for Op {
    fn partial_cmp(&self, other: &Op) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Op {
    fn cmp(&self, other: &Op) -> std::cmp::Ordering {
        (self.kind(), &self.attrs).cmp(&(other.kind(), &other.attrs))
    }
}
impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.kind().name(), self.attrs)
    }
}

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
/// Every size is a number: symbolic dimensions are bound when a model is specialised, before the graph is built.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) inputs: Vec<Value>,
    pub(crate) input_names: Vec<String>,
    outputs: Vec<(String, Value)>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph::default()
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
                Attr::Graph(body) => Some((name, body)),
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

    pub(crate) fn push(&mut self, op: Op, inputs: Vec<Value>, types: Vec<TensorType>, name: &str) -> Value {
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
