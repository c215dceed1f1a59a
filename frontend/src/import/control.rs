//! What branches, loops and scans share: values that a body captures, bodies as graphs of their own.

use super::state::{State, Stop};
use crate::build::{Fail, invalid};
use crate::resolved::{ResolvedGraph, ResolvedNode, Slot};
use dnnc_ir::{Attr, Graph, Kind, Tensor, TensorType, Type, Value};
use indexmap::IndexSet;
use std::collections::HashMap;
use std::sync::Arc;

/// A body as a graph of its own.
pub(super) struct Body {
    pub graph: Graph,
    /// Values outside that it reads, its last inputs.
    pub captures: Vec<Value>,
    /// Types of the outputs without those that are not wanted.
    pub types: Vec<TensorType>,
    /// Whether the condition that it gives is constantly true.
    pub endless: bool,
}

impl Body {
    pub fn new(sub: &State, values: Vec<Value>, captures: &[Value], endless: bool) -> Body {
        let types = values.iter().map(|&v| sub.build.ty(v)).collect();
        let named: Vec<(String, Value)> = values.into_iter().enumerate().map(|(i, v)| (format!("out_{i}"), v)).collect();
        Body { graph: sub.build.finish(&named), captures: captures.to_vec(), types, endless }
    }
}

impl State {
    pub(super) fn node_values(&self, node: &ResolvedNode, base: Slot) -> Result<Vec<Option<Value>>, Stop> {
        node.inputs.iter().map(|slot| slot.map(|s| self.value(base + s)).transpose()).collect()
    }

    /// A value of one element as rank 0.
    pub(super) fn one_element(&mut self, v: Value, ty: Type, what: &str) -> Result<Value, Fail> {
        let got = self.build.ty(v);
        if got.ty != ty || got.len() != 1 {
            return invalid!("{what} must be one element of type {ty}, not {got}");
        }
        self.build.reshape(v, &[])
    }

    /// The values of captures that depend on inputs of the model, each once.
    pub(super) fn captured(&self, graphs: &[Arc<ResolvedGraph>], base: Slot) -> Result<Vec<Value>, Stop> {
        let mut values = IndexSet::new();
        for (outer, _) in graphs.iter().flat_map(|n| &n.captures) {
            let v = self.value(base + outer)?;
            if !self.build.is_constant(v) {
                values.insert(v);
            }
        }
        Ok(values.into_iter().collect())
    }

    /// An import of `graph` as a graph of its own whose captures are the next inputs; `inputs` are in that import's graph.
    pub(super) fn enter_body(
        &self,
        sub: &mut State,
        graph: &ResolvedGraph,
        base: Slot,
        captures: &[Value],
        inputs: &[Value],
    ) -> HashMap<Value, Value> {
        let mut map = HashMap::new();
        for &v in captures {
            map.insert(v, sub.build.input(self.build.name(v), self.build.ty(v)));
        }
        sub.enter(graph, inputs);
        for (outer, inner) in &graph.captures {
            if let Ok(v) = self.value(base + outer) {
                let v = self.build.replay(v, &mut sub.build, &mut map);
                sub.bound.insert(*inner, Some(v));
            }
        }
        map
    }

    pub(super) fn bind_carried(&mut self, node: &ResolvedNode, base: Slot, values: &[Value]) {
        for (slot, &v) in node.outputs.iter().zip(values) {
            slot.iter().for_each(|slot| self.set(base + slot, Some(v)));
        }
    }

    /// Applies `loop`; its results.
    pub(super) fn run_body(&mut self, body: Body, max_trip: i64, trip: Value, cond: Value, carried: &[Value]) -> Result<Vec<Value>, Fail> {
        let mut inputs = vec![trip, cond];
        inputs.extend(carried);
        inputs.extend(&body.captures);
        let attrs = [("body", body.graph.into()), ("carried", Attr::Int(carried.len() as i64)), ("max_trip", Attr::Int(max_trip))];
        let first = self.build.op(Kind::Loop, attrs, &inputs)?;
        Ok((0..self.build.results(first)).map(|i| first.result(i)).collect())
    }
}

/// The boolean `true`.
pub(super) fn truth() -> Tensor {
    Tensor::with_type(TensorType::new(Type::Bool, []), &[1u8])
}
