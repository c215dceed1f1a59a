//! Graphs and nodes of a model: names resolved to slots, nodes sorted, every operator looked up.

use super::attributes::constant_value;
use super::loader::{Attr, Bindings, Frame, Loader, Opsets, UnfinishedGraph, domain};
use crate::element::element_type;
use crate::limits::Limits;
use crate::node::Attribute;
use crate::ops;
use crate::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use crate::refusal::{Refusal, RefusalKind};
use crate::resolved::{Import, ResolvedGraph, ResolvedNode, qualified};
use crate::schema::{self, Known};
use crate::tensor_file::{dense, sparse};
use crate::topological_sort::{initialised, order};
use dnnc_ir::Tensor;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

const NO_OPSET: &str = "no opset version is given for its domain";

/// Checks a model's graph and turns it into a graph; what is wrong is added to `refusals`. The first part of the inputs, those without
/// initializer, are the inputs of the graph.
pub(super) fn read<'p>(
    model: &'p ModelProto,
    graph: &'p GraphProto,
    folder: Option<&'p Path>,
    limits: &'p Limits,
    refusals: &mut Vec<Refusal>,
) -> ResolvedGraph {
    let mut functions = HashMap::new();
    for f in &model.functions {
        if functions.insert((domain(&f.domain), f.name.as_str(), f.overload.as_str()), f).is_some() {
            refusals.push(Refusal::new(RefusalKind::Invalid, "function", &f.name, "duplicate definition"));
        }
    }
    let mut loader =
        Loader { functions, folder, limits, refusals, open_graphs: vec![], frames: vec![], calls: vec![], nodes: 0, full: false };
    loader.check_calls(&model.functions);
    let opsets = loader.opsets(&model.opset_import, "model", "");
    loader.graph(graph, &opsets, &Bindings::new())
}

impl<'p> Loader<'p, '_> {
    pub(super) fn graph(&mut self, graph: &'p GraphProto, opsets: &Opsets<'p>, bindings: &Bindings<'p>) -> ResolvedGraph {
        if self.open_graphs.len() >= self.limits.depth {
            self.refuse(
                RefusalKind::TooLarge,
                "model",
                "",
                format!("graphs inside one another, deeper than {} (--max-depth)", self.limits.depth),
            );
            return ResolvedGraph::default();
        }
        let main = self.open_graphs.is_empty();
        self.open_graphs.push(UnfinishedGraph::default());
        self.frames.push(Frame {
            names: HashMap::new(),
            graph: self.open_graphs.len() - 1,
            closed: false,
            nodes: HashSet::new(),
            declared: HashMap::new(),
        });
        let with_default: HashSet<&str> = if main { initialised(graph).collect() } else { HashSet::new() };
        let mut seen = HashSet::new();
        for input in &graph.input {
            if input.name.is_empty() {
                self.refuse(RefusalKind::Invalid, "input", "", "an input of the graph has no name");
            }
            if !seen.insert(input.name.as_str()) {
                self.refuse(RefusalKind::Invalid, "input", &input.name, "duplicate name: two inputs are called so");
            } else if !with_default.contains(input.name.as_str()) {
                let slot = self.fresh();
                self.define(&input.name, slot);
                self.innermost().graph.inputs.push(slot);
            }
        }
        let inputs: HashMap<&str, &ValueInfoProto> = graph.input.iter().map(|i| (i.name.as_str(), i)).collect();
        for tensor in &graph.initializer {
            if tensor.name.is_empty() {
                self.refuse(RefusalKind::Invalid, "tensor", "", "an initializer has no name");
            }
            match dense(tensor, self.folder, self.limits) {
                Ok(t) => {
                    if let Some(reason) = inputs.get(tensor.name.as_str()).and_then(|i| contradiction(i, &t)) {
                        self.refuse(RefusalKind::Invalid, "tensor", &tensor.name, reason);
                    }
                    self.constant(&tensor.name, t);
                }
                // Strings and complex numbers.
                Err(reason) if matches!(tensor.data_type, 8 | 14 | 15) => {
                    self.report_missing(
                        Refusal::new(RefusalKind::Unsupported, "tensor", &tensor.name, reason),
                        false,
                        vec![],
                        &[&tensor.name],
                    );
                }
                Err(reason) => {
                    self.refuse(RefusalKind::Invalid, "tensor", &tensor.name, reason);
                    self.constant(&tensor.name, Tensor::scalar(0f32));
                }
            }
        }
        for tensor in &graph.sparse_initializer {
            let name = tensor.values.as_ref().map_or("", |v| &v.name);
            match sparse(tensor, self.folder, self.limits) {
                Ok(t) => self.constant(name, t),
                Err(reason) => self.refuse(RefusalKind::Invalid, "tensor", name, reason),
            }
        }
        for info in &graph.value_info {
            if let Some(Ok(ty)) = info.r#type.as_ref().and_then(|t| t.tensor.as_ref()).map(|t| element_type(t.elem_type.into())) {
                self.frames.last_mut().expect("pushed above").declared.insert(&info.name, ty);
            }
        }
        self.nodes(&graph.node, opsets, bindings);
        for output in &graph.output {
            if !main && !self.frames.last().expect("pushed above").names.contains_key(&output.name) && self.lookup(&output.name).is_some() {
                self.refuse(RefusalKind::Invalid, "output", &output.name, "a body gives a value of the graph around it as its own output");
            }
            match self.lookup(&output.name) {
                Some(Some(slot)) => self.innermost().graph.outputs.push(slot),
                _ => self.refuse(RefusalKind::Invalid, "output", &output.name, "no node makes this output of the graph"),
            }
        }
        self.frames.pop();
        let unfinished = self.open_graphs.pop().expect("pushed above");
        for refusal in unfinished.needed_but_missing() {
            if self.should_report(refusal.kind) {
                self.refusals.push(refusal);
            }
        }
        ResolvedGraph { nodes: unfinished.nodes.into_iter().map(Arc::new).collect(), ..unfinished.graph }
    }

    /// Adds the nodes of a graph or function body, sorted where the file's order does not do.
    pub(super) fn nodes(&mut self, nodes: &'p [NodeProto], opsets: &Opsets<'p>, bindings: &Bindings<'p>) {
        let order = match order(nodes) {
            Ok(order) => order,
            Err(cycle) => {
                let names: Vec<String> = cycle.iter().map(|&i| format!("\"{}\"", self.node_name(&nodes[i]))).collect();
                let first = cycle[0];
                self.refuse_node(RefusalKind::Invalid, &nodes[first], 0, format!("a cycle of nodes: {}", names.join(" → ")), "");
                return;
            }
        };
        for i in order {
            if self.full {
                return;
            }
            if self.nodes >= self.limits.nodes {
                self.refuse(
                    RefusalKind::TooLarge,
                    "model",
                    "",
                    format!("more than {} nodes after functions are expanded (--max-nodes)", self.limits.nodes),
                );
                return;
            }
            self.nodes += 1;
            self.node(&nodes[i], opsets, bindings);
        }
    }

    pub(super) fn node(&mut self, node: &'p NodeProto, opsets: &Opsets<'p>, bindings: &Bindings<'p>) {
        let domain = domain(&node.domain);
        let opset = opsets.get(domain).copied().unwrap_or(0);
        if node.op_type.is_empty() {
            self.refuse_node(RefusalKind::Invalid, node, opset, "a node without an operator type", "");
        }
        if !node.name.is_empty() && !self.frames.last_mut().expect("a frame is open").nodes.insert(&node.name) {
            self.refuse_node(RefusalKind::Invalid, node, opset, "duplicate name: two nodes are called so", "");
        }
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            let slot = if name.is_empty() { Some(None) } else { self.lookup(name) };
            if slot.is_none() {
                self.refuse_node(RefusalKind::Invalid, node, opset, format!("input \"{name}\" is not defined"), "");
            }
            inputs.push(slot.flatten());
        }
        let attributes = self.attributes(node, opset, bindings);
        let key = (domain, node.op_type.as_str(), node.overload.as_str());
        if let Some(&function) = self.functions.get(&key) {
            if opset == 0 {
                self.refuse_node(RefusalKind::Invalid, node, opset, NO_OPSET, "");
            }
            self.call(node, function, &inputs, attributes, opset);
            return;
        }
        if domain.is_empty() && node.op_type == "Constant" {
            match constant_value(node, &attributes, opset) {
                Ok(tensor) => self.constant(&node.output[0], tensor),
                Err((RefusalKind::Unsupported, reason)) => {
                    let refusal = Refusal::new(RefusalKind::Unsupported, "node", &self.node_name(node), reason);
                    self.report_missing(Refusal { op: node.op_type.clone(), opset, ..refusal }, false, vec![], &[&node.output[0]]);
                }
                Err((kind, reason)) => {
                    self.refuse_node(kind, node, opset, reason, "");
                    node.output.iter().for_each(|name| self.constant(name, Tensor::scalar(0f32)));
                }
            }
            return;
        }
        let bodies_of: &[&str] = match (domain, node.op_type.as_str()) {
            ("", "If") => &["then_branch", "else_branch"],
            ("", "Loop" | "Scan") => &["body"],
            _ => &[],
        };
        let mut bodies = vec![];
        for &name in bodies_of {
            match attributes.iter().find(|(n, _)| n == name) {
                Some((_, Attr::Graph(body))) => bodies.push(Arc::new(self.graph(body, opsets, bindings))),
                Some(_) => self.refuse_node(RefusalKind::Invalid, node, opset, format!("attribute `{name}` is not a graph"), ""),
                // The schema says so below.
                None => {}
            }
        }
        let import = match (domain, node.op_type.as_str()) {
            _ if opset == 0 => Err(NO_OPSET.to_string()),
            ("", "If") => Ok(Import::If),
            ("", "Loop") => Ok(Import::Loop),
            ("", "Scan") => Ok(Import::Scan),
            (domain, op) => ops::find(domain, op, opset).map(Import::Op).ok_or_else(|| missing(domain, op)),
        };
        let known = schema::find(domain, &node.op_type, opset);
        let (schema, import) = match known {
            _ if opset == 0 => (None, import),
            Known::Version(schema) => (Some(schema), import),
            Known::Later(since) => (None, Err(format!("not in this opset version; it came with {since}"))),
            // ONNX Runtime writes some operators of its own into ONNX's domain.
            Known::No => (None, import.map_err(|_| "there is no such operator in ONNX".to_string())),
            Known::Foreign => (None, import),
        };
        let given = attributes.iter().map(|(name, a)| match a {
            Attr::Plain(a) => (name.as_str(), a),
            Attr::Graph(_) => (name.as_str(), &Attribute::Other("a graph")),
        });
        if let (Some(schema), Ok(_)) = (schema, &import) {
            let named = |names: &[String]| names.iter().map(|n| !n.is_empty()).collect::<Vec<bool>>();
            for reason in schema.check_node(&named(&node.input), &named(&node.output), given) {
                self.refuse_node(RefusalKind::Invalid, node, opset, reason, "");
            }
        }
        let import = match import {
            Ok(import) => import,
            Err(reason) => {
                let (kind, help) = match opset {
                    0 => (RefusalKind::Invalid, ""),
                    _ => (RefusalKind::Unsupported, "`dnnc ops` lists the operators that can be compiled"),
                };
                let refusal = Refusal::new(kind, "node", &self.node_name(node), reason);
                let always = opset == 0 || matches!(known, Known::No | Known::Later(_));
                let names: Vec<&str> = node.output.iter().map(String::as_str).collect();
                self.report_missing(
                    Refusal { op: qualified(domain, &node.op_type), opset, help: help.into(), ..refusal },
                    always,
                    inputs,
                    &names,
                );
                return;
            }
        };
        let mut outputs = Vec::with_capacity(node.output.len());
        for name in &node.output {
            outputs.push((!name.is_empty()).then(|| self.fresh()));
            if let Some(&Some(slot)) = outputs.last()
                && !self.define(name, slot)
            {
                self.refuse_node(RefusalKind::Invalid, node, opset, format!("duplicate name: \"{name}\" is made twice"), "");
            }
        }
        let plain = |(name, a)| match a {
            Attr::Plain(a) => (name, a),
            Attr::Graph(_) => (name, Attribute::Other("a graph")),
        };
        let attributes = attributes.into_iter().map(plain).collect();
        let name = self.node_name(node);
        let types = &self.frames.last().expect("a frame is open").declared;
        let declared = if types.is_empty() { vec![] } else { node.output.iter().map(|name| types.get(name.as_str()).copied()).collect() };
        let (op_type, domain) = (node.op_type.clone(), domain.to_string());
        let node = ResolvedNode { op_type, domain, name, opset, attributes, inputs, outputs, declared, bodies, import, schema };
        self.innermost().nodes.push(node);
    }
}

/// What a graph input says otherwise than its default value, if anything.
fn contradiction(input: &ValueInfoProto, value: &Tensor) -> Option<String> {
    let declared = input.r#type.as_ref()?.tensor.as_ref()?;
    let (ty, shape) = (value.ty().ty, value.shape());
    if element_type(declared.elem_type.into()).is_ok_and(|t| t != ty) {
        return Some(format!("element type {ty}, but the input of that name has another"));
    }
    let dims = &declared.shape.as_ref()?.dim;
    let fits = dims.iter().zip(shape).all(|(d, &size)| d.dim_value.is_none_or(|n| n < 0 || n == size as i64));
    (dims.len() != shape.len() || !fits).then(|| format!("shape {shape:?}, but the input of that name has another"))
}

/// Why an operator has no importer.
fn missing(domain: &str, op: &str) -> String {
    let mut versions = ops::rows(domain, op).peekable();
    if versions.peek().is_none() {
        return if domain.is_empty() { "not implemented".into() } else { format!("not implemented (domain {domain})") };
    }
    let ranges: Vec<String> =
        versions.map(|r| r.until.map_or(format!("{} and later", r.since), |last| format!("{} to {last}", r.since))).collect();
    format!("not implemented in this opset version; dnnc has it in {}", ranges.join(", "))
}
