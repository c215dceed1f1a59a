//! The IR inside the e-graph: terms, and the way in from a graph.
//!
//! A term is an operator with its attributes on classes. An operator of several results is one term; [`Head::Result`] picks one.
//! Constants are leaves that share their tensor. Bodies of control flow are attributes: opaque here, optimised on their own.

use crate::fact::Facts;
use dnnc_ir::{Attr, Graph, Kind, Op, Tensor, Type, Value};
use egg::{Id, Language};
use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The e-graph: classes of equal terms and what is known of each class.
pub type Classes = egg::EGraph<Term, Facts>;

/// Why a rule does not hold at a place where its left side was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Why {
    /// Completes "did not apply: …".
    pub says: &'static str,
    /// Whether the place is one the rule aims at, so that a person may want to know.
    pub near: bool,
}

/// The rule aims at such a place, but something stands in the way.
pub const fn near(says: &'static str) -> Why {
    Why { says, near: true }
}

/// The place is another than the rule aims at.
pub const fn other(says: &'static str) -> Why {
    Why { says, near: false }
}

/// An operator with attributes, shared, with its hash at hand.
#[derive(Clone)]
pub struct OpRef(Arc<(u64, Op)>);

impl OpRef {
    /// Shares an operator.
    pub fn new(op: Op) -> OpRef {
        let mut hasher = DefaultHasher::new();
        op.hash(&mut hasher);
        OpRef(Arc::new((hasher.finish(), op)))
    }

    /// A hash of operator and attributes.
    pub fn hash(&self) -> u64 {
        self.0.0
    }

    /// The same operator with one attribute changed.
    pub fn with(&self, name: &'static str, value: impl Into<Attr>) -> OpRef {
        OpRef::new(self.0.1.with(name, value))
    }
}

impl std::ops::Deref for OpRef {
    type Target = Op;
    fn deref(&self) -> &Op {
        &self.0.1
    }
}

impl std::fmt::Debug for OpRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.1.fmt(f)
    }
}

impl PartialEq for OpRef {
    fn eq(&self, other: &OpRef) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.0 == other.0.0 && self.0.1 == other.0.1
    }
}

impl Eq for OpRef {}

impl Hash for OpRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.0);
    }
}

impl PartialOrd for OpRef {
    fn partial_cmp(&self, other: &OpRef) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OpRef {
    fn cmp(&self, other: &OpRef) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.1.cmp(&other.0.1) }
    }
}

/// What a term does with its operands.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Head {
    /// Applies an operator.
    Op(OpRef),
    /// Picks a result of an operator that has several.
    Result(u32),
}

/// A node of the e-graph.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Term {
    /// What it does.
    pub head: Head,
    /// Classes of its operands.
    pub children: Vec<Id>,
}

impl Term {
    /// The operator, unless the term picks a result.
    pub fn op(&self) -> Option<&OpRef> {
        match &self.head {
            Head::Op(op) => Some(op),
            Head::Result(_) => None,
        }
    }

    /// Which operator, unless the term picks a result.
    pub fn kind(&self) -> Option<Kind> {
        self.op().map(|op| op.kind())
    }
}

impl Language for Term {
    type Discriminant = Option<Kind>;

    fn discriminant(&self) -> Option<Kind> {
        self.kind()
    }

    fn matches(&self, other: &Term) -> bool {
        self.head == other.head && self.children.len() == other.children.len()
    }

    fn children(&self) -> &[Id] {
        &self.children
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}

/// Building and asking, as rules need it.
pub trait Build {
    /// Adds an operator with these attributes on classes; fails where its shape rule does.
    fn op(&mut self, kind: Kind, attrs: impl IntoIterator<Item = (&'static str, Attr)>, inputs: &[Id]) -> Result<Id, Why>;
    /// Adds an operator on classes; fails where its shape rule does.
    fn apply(&mut self, op: &OpRef, inputs: &[Id]) -> Result<Id, Why>;
    /// Picks a result of an operator that has several.
    fn result(&mut self, tuple: Id, index: u32) -> Id;
    /// A constant.
    fn tensor(&mut self, tensor: Tensor) -> Id;
    /// A constant of rank 0.
    fn number(&mut self, ty: Type, value: f64) -> Result<Id, Why>;
    /// `x` under another shape; itself when it has that shape already.
    fn reshape(&mut self, x: Id, shape: &[usize]) -> Result<Id, Why>;
    /// `a` times `b`.
    fn mul(&mut self, a: Id, b: Id) -> Result<Id, Why> {
        self.op(Kind::Mul, [], &[a, b])
    }
    /// `a` plus `b`.
    fn sum(&mut self, a: Id, b: Id) -> Result<Id, Why> {
        self.op(Kind::Add, [], &[a, b])
    }
    /// Sizes of a value.
    fn shape(&self, x: Id) -> &[usize];
    /// Element type of a value.
    fn elem(&self, x: Id) -> Type;
    /// Whether the value is known when the model is compiled.
    fn constant(&self, x: Id) -> bool;
    /// The number that every element is, if it is one and known.
    fn splat(&self, x: Id) -> Option<f64>;
}

impl Build for Classes {
    fn op(&mut self, kind: Kind, attrs: impl IntoIterator<Item = (&'static str, Attr)>, inputs: &[Id]) -> Result<Id, Why> {
        let op = Op::new(kind, attrs).map_err(|_| other("an attribute would be wrong"))?;
        self.apply(&OpRef::new(op), inputs)
    }

    fn apply(&mut self, op: &OpRef, inputs: &[Id]) -> Result<Id, Why> {
        let term = Term { head: Head::Op(op.clone()), children: inputs.to_vec() };
        if let Some(id) = self.lookup(term.clone()) {
            return Ok(id);
        }
        if !op.def.inputs.admits(inputs.len()) {
            return Err(other("the number of operands would be wrong"));
        }
        let types: Vec<_> = inputs.iter().map(|&i| self[i].data.ty().clone()).collect();
        let results = (op.def.infer)(&op.attrs, &types).map_err(|_| other("the shapes would not fit"))?;
        self.analysis.inferred = Some(results);
        Ok(self.add(term))
    }

    fn result(&mut self, tuple: Id, index: u32) -> Id {
        self.add(Term { head: Head::Result(index), children: vec![tuple] })
    }

    fn tensor(&mut self, tensor: Tensor) -> Id {
        let op = Op::new(Kind::Const, [("value", Attr::Tensor(tensor))]).expect("the row of `const`");
        self.add(Term { head: Head::Op(OpRef::new(op)), children: vec![] })
    }

    fn number(&mut self, ty: Type, value: f64) -> Result<Id, Why> {
        let tensor = crate::fact::number(ty, value).ok_or(other("the number is not one of the type"))?;
        Ok(self.tensor(tensor))
    }

    fn reshape(&mut self, x: Id, shape: &[usize]) -> Result<Id, Why> {
        if Build::shape(self, x) == shape {
            return Ok(x);
        }
        self.op(Kind::Reshape, [("shape", Attr::from(shape))], &[x])
    }

    fn shape(&self, x: Id) -> &[usize] {
        &self[x].data.ty().shape
    }

    fn elem(&self, x: Id) -> Type {
        self[x].data.ty().ty
    }

    fn constant(&self, x: Id) -> bool {
        self[x].data.constant
    }

    fn splat(&self, x: Id) -> Option<f64> {
        self[x].data.splat
    }
}

/// A graph inside the e-graph.
pub struct Imported {
    /// The classes.
    pub classes: Classes,
    /// Classes of the graph's results.
    pub roots: Vec<Id>,
    /// The term that each class came in as: the program as it was written.
    pub written: Vec<(Id, Term)>,
}

/// Puts a graph into a new e-graph.
pub fn import(graph: &Graph, facts: Facts) -> Imported {
    let mut classes = Classes::new(facts);
    classes.analysis.inputs = graph.inputs().iter().map(|&v| graph.ty(v).clone()).collect();
    let mut nodes: Vec<Id> = Vec::with_capacity(graph.nodes().len());
    let mut written = Vec::new();
    for node in graph.nodes() {
        let mut children = Vec::with_capacity(node.inputs.len());
        for v in &node.inputs {
            let class = class_of(&mut classes, graph, &nodes, *v);
            if graph.nodes()[v.node as usize].types.len() != 1 {
                written.push((class, Term { head: Head::Result(v.index), children: vec![nodes[v.node as usize]] }));
            }
            children.push(class);
        }
        let term = Term { head: Head::Op(OpRef::new(node.op.clone())), children };
        classes.analysis.inferred = Some(node.types.clone());
        classes.analysis.origin = if node.name.is_empty() { vec![] } else { vec![(node.op.kind(), node.name.as_str().into())] };
        let id = classes.add(term.clone());
        classes.analysis.inferred = None;
        nodes.push(id);
        written.push((id, term));
    }
    classes.analysis.origin.clear();
    let mut roots = Vec::new();
    for (_, v) in graph.outputs() {
        let class = class_of(&mut classes, graph, &nodes, *v);
        if graph.nodes()[v.node as usize].types.len() != 1 {
            written.push((class, Term { head: Head::Result(v.index), children: vec![nodes[v.node as usize]] }));
        }
        roots.push(class);
    }
    classes.rebuild();
    let mut uses: std::collections::HashMap<Id, usize> = std::collections::HashMap::new();
    let children = written.iter().flat_map(|(_, t)| &t.children).chain(&roots);
    children.for_each(|&c| *uses.entry(classes.find(c)).or_default() += 1);
    classes.classes_mut().for_each(|c| c.data.shared = uses.get(&c.id).is_some_and(|&n| n > 1));
    Imported { classes, roots, written }
}

fn class_of(classes: &mut Classes, graph: &Graph, nodes: &[Id], value: Value) -> Id {
    let id = nodes[value.node as usize];
    if graph.nodes()[value.node as usize].types.len() == 1 { id } else { classes.result(id, value.index) }
}
