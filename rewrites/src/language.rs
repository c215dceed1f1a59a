//! The IR inside the e-graph: building and querying terms, as rules do, and the import of a graph.

use crate::fact::{Classes, Facts};
use crate::mismatch::{Mismatch, no_match};
use crate::term::{Head, OpRef, Term};
use dnnc_ir::{Attr, Graph, Kind, Op, Tensor, Type, Value};
use egg::Id;

/// What a slice takes of one axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// Index of the first element.
    pub start: usize,
    /// Number of elements.
    pub size: usize,
    /// From one element to the next; may be negative.
    pub step: i64,
}

impl Range {
    /// All of an axis of `n` elements.
    pub fn all(n: usize) -> Range {
        Range { start: 0, size: n, step: 1 }
    }
}

/// All of every axis of a shape.
pub fn full_ranges(shape: &[usize]) -> Vec<Range> {
    shape.iter().map(|&n| Range::all(n)).collect()
}

/// Attributes of the slice that takes one range per axis.
pub fn slice_attrs(ranges: &[Range]) -> [(&'static str, Attr); 3] {
    let list = |of: fn(&Range) -> i64| Attr::from(ranges.iter().map(of).collect::<Vec<i64>>());
    [("starts", list(|r| r.start as i64)), ("sizes", list(|r| r.size as i64)), ("steps", list(|r| r.step))]
}

/// Building and querying terms, as rules need it.
pub trait Build {
    /// Adds an operator with these attributes on classes; fails where its shape rule does.
    fn op(&mut self, kind: Kind, attrs: impl IntoIterator<Item = (&'static str, Attr)>, inputs: &[Id]) -> Result<Id, Mismatch>;
    /// Adds an operator on classes; fails where its shape rule does.
    fn apply(&mut self, op: &OpRef, inputs: &[Id]) -> Result<Id, Mismatch>;
    /// Picks a result of an operator that has several.
    fn result(&mut self, tuple: Id, index: u32) -> Id;
    /// A constant.
    fn tensor(&mut self, tensor: Tensor) -> Id;
    /// A constant of rank 0.
    fn number(&mut self, ty: Type, value: f64) -> Result<Id, Mismatch>;
    /// `x` under another shape; itself when it has that shape already.
    fn reshape(&mut self, x: Id, shape: &[usize]) -> Result<Id, Mismatch>;
    /// `a` times `b`.
    fn mul(&mut self, a: Id, b: Id) -> Result<Id, Mismatch> {
        self.op(Kind::Mul, [], &[a, b])
    }
    /// `a` plus `b`.
    fn sum(&mut self, a: Id, b: Id) -> Result<Id, Mismatch> {
        self.op(Kind::Add, [], &[a, b])
    }
    /// The part of `x` that one range per axis leaves; itself when that is everything.
    fn slice(&mut self, x: Id, ranges: &[Range]) -> Result<Id, Mismatch> {
        if ranges.iter().zip(self.shape(x)).all(|(r, &n)| *r == Range::all(n)) {
            return Ok(x);
        }
        self.op(Kind::Slice, slice_attrs(ranges), &[x])
    }
    /// `size` elements of one axis from `start` on.
    fn slice_axis(&mut self, x: Id, axis: usize, start: usize, size: usize) -> Result<Id, Mismatch> {
        let mut ranges = full_ranges(self.shape(x));
        ranges[axis] = Range { start, size, step: 1 };
        self.slice(x, &ranges)
    }
    /// `x` with its axes in the order `perm`.
    fn transpose(&mut self, x: Id, perm: &[usize]) -> Result<Id, Mismatch> {
        self.op(Kind::Transpose, [("perm", Attr::from(perm))], &[x])
    }
    /// The parts one after the other along an axis; a single part is itself.
    fn concat(&mut self, axis: usize, parts: &[Id]) -> Result<Id, Mismatch> {
        if let [one] = parts { Ok(*one) } else { self.op(Kind::Concat, [("axis", Attr::Int(axis as i64))], parts) }
    }
    /// `x` with so many elements of `value` before each axis, then after each axis; itself when there are none.
    fn pad(&mut self, x: Id, value: f64, pads: Vec<i64>) -> Result<Id, Mismatch> {
        if pads.iter().all(|&n| n == 0) {
            return Ok(x);
        }
        let value = self.number(self.elem(x), value)?;
        self.op(Kind::Pad, [("pads", Attr::from(pads))], &[x, value])
    }
    /// The elements of `x` at `indices` along an axis.
    fn gather(&mut self, x: Id, indices: Id, axis: usize) -> Result<Id, Mismatch> {
        self.op(Kind::Gather, [("axis", Attr::Int(axis as i64))], &[x, indices])
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
    fn op(&mut self, kind: Kind, attrs: impl IntoIterator<Item = (&'static str, Attr)>, inputs: &[Id]) -> Result<Id, Mismatch> {
        let op = Op::new(kind, attrs).map_err(|_| no_match("an attribute would be wrong"))?;
        self.apply(&OpRef::new(op), inputs)
    }

    fn apply(&mut self, op: &OpRef, inputs: &[Id]) -> Result<Id, Mismatch> {
        let term = Term { head: Head::Op(op.clone()), children: inputs.to_vec() };
        if let Some(id) = self.lookup(term.clone()) {
            return Ok(id);
        }
        if !op.def.inputs.admits(inputs.len()) {
            return Err(no_match("the number of operands would be wrong"));
        }
        let types: Vec<_> = inputs.iter().map(|&i| self[i].data.ty().clone()).collect();
        let results = (op.def.infer)(&op.attrs, &types).map_err(|_| no_match("the shapes would not fit"))?;
        self.analysis.inferred = Some(results);
        Ok(self.add(term))
    }

    fn result(&mut self, tuple: Id, index: u32) -> Id {
        self.add(Term { head: Head::Result(index), children: vec![tuple] })
    }

    fn tensor(&mut self, tensor: Tensor) -> Id {
        self.add(Term::constant(tensor))
    }

    fn number(&mut self, ty: Type, value: f64) -> Result<Id, Mismatch> {
        let tensor = crate::fact::number(ty, value).ok_or(no_match("the number is not one of the type"))?;
        Ok(self.tensor(tensor))
    }

    fn reshape(&mut self, x: Id, shape: &[usize]) -> Result<Id, Mismatch> {
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
    /// The terms of the original graph, with their classes.
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
