//! Terms: operators with their attributes on classes of the e-graph.
//!
//! An operator of several results is one term; [`Head::Result`] picks one. Constants are leaves that share their tensor. Bodies of control
//! flow are attributes: opaque here, optimised on their own.

use dnnc_ir::{Attr, Kind, Op, Tensor};
use egg::{Id, Language};
use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

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
    /// A constant.
    pub fn constant(tensor: Tensor) -> Term {
        let op = Op::new(Kind::Const, [("value", Attr::Tensor(tensor))]).expect("the row of `const`");
        Term { head: Head::Op(OpRef::new(op)), children: vec![] }
    }

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
