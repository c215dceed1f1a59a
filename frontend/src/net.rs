//! A model's graphs, checked: names resolved to slots, nodes in an order in which they can run, constants decoded, functions inlined.

use crate::Limits;
use crate::build::{Attribute, element_type};
use crate::import::qualified;
use crate::ops::{self, OpImport};
use crate::order::{initialised, order, sort};
use crate::proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, ValueInfoProto, attribute_kind};
use crate::refusal::{Refusal, RefusalKind};
use crate::schema::{self, Known, Schema};
use crate::tensor_file::{dense, sparse};
use dnnc_ir::{Tensor, Type};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// Number of a value within its [`Net`].
pub(crate) type Slot = u32;

/// A graph whose values are numbered.
#[derive(Debug, Default)]
pub(crate) struct Net {
    pub inputs: Vec<Slot>,
    pub outputs: Vec<Slot>,
    pub nodes: Vec<Arc<NetNode>>,
    /// Slot, name, data.
    pub constants: Vec<(Slot, String, Tensor)>,
    /// Values of the enclosing net that are used here: slot there, slot here.
    pub captures: Vec<(Slot, Slot)>,
    /// Number of slots.
    pub slots: u32,
}

/// A use of an operator in a [`Net`].
#[derive(Debug)]
pub(crate) struct NetNode {
    pub op_type: String,
    pub domain: String,
    /// Its name; of its first output where it has none.
    pub name: String,
    pub opset: i64,
    pub attributes: Vec<(String, Attribute)>,
    pub inputs: Vec<Option<Slot>>,
    pub outputs: Vec<Option<Slot>>,
    /// Element types that the file declares of the outputs.
    pub declared: Vec<Option<Type>>,
    /// `then_branch` and `else_branch`, or `body`.
    pub bodies: Vec<Arc<Net>>,
    pub import: Import,
    /// What the standard says of it; `None` for operators of other domains.
    pub schema: Option<&'static Schema>,
}

/// How a node is imported.
#[derive(Clone, Copy)]
pub(crate) enum Import {
    Op(&'static OpImport),
    If,
    Loop,
    Scan,
}

impl std::fmt::Debug for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Import::Op(row) => row.name,
            Import::If => "If",
            Import::Loop => "Loop",
            Import::Scan => "Scan",
        })
    }
}

/// The newest opset version of each domain whose meaning dnnc knows.
pub(crate) const NEWEST_OPSET: &[(&str, i64)] = &[("", 28), ("ai.onnx.ml", 5), ("com.microsoft", 1)];

type Opsets<'p> = BTreeMap<&'p str, i64>;
/// Attributes that a function was called with.
type Bindings<'p> = HashMap<String, Attr<'p>>;

/// An attribute of a node, decoded, or the graph that it holds.
#[derive(Clone)]
enum Attr<'p> {
    Plain(Attribute),
    Graph(&'p GraphProto),
}

fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

/// Checks a model's graph and turns it into a net; what is wrong is added to `refusals`. The first part of the inputs, those without
/// initializer, are the inputs of the net.
pub(crate) fn check<'p>(
    model: &'p ModelProto,
    graph: &'p GraphProto,
    folder: Option<&'p Path>,
    limits: &'p Limits,
    refusals: &mut Vec<Refusal>,
) -> Net {
    let mut functions = HashMap::new();
    for f in &model.functions {
        if functions.insert((domain(&f.domain), f.name.as_str(), f.overload.as_str()), f).is_some() {
            refusals.push(Refusal::new(RefusalKind::Invalid, "function", &f.name, "duplicate definition"));
        }
    }
    let mut loader = Loader { functions, folder, limits, refusals, nets: vec![], frames: vec![], calls: vec![], nodes: 0, full: false };
    loader.check_calls(&model.functions);
    let opsets = loader.opsets(&model.opset_import, "model", "");
    loader.graph(graph, &opsets, &Bindings::new())
}

/// Names of one graph or function body.
struct Frame<'p> {
    /// `None`: an optional input of a function that was left out.
    names: HashMap<String, Option<Slot>>,
    /// Which net its slots belong to.
    net: usize,
    /// Whether names outside are hidden: a function.
    closed: bool,
    /// Names of its nodes, which must differ.
    nodes: HashSet<&'p str>,
    /// Element types that the file declares.
    declared: HashMap<&'p str, Type>,
}

/// A net being made.
#[derive(Default)]
struct Draft {
    net: Net,
    nodes: Vec<NetNode>,
    captured: HashMap<Slot, Slot>,
    lacking: Vec<Lacking>,
}

/// What cannot be compiled, and need not be if no output depends on it.
struct Lacking {
    refusal: Refusal,
    /// Whether it is wrong even where nothing depends on it.
    always: bool,
    /// How many nodes stand before it.
    at: usize,
    inputs: Vec<Option<Slot>>,
    outputs: Vec<Slot>,
}

struct Loader<'p, 'r> {
    functions: HashMap<(&'p str, &'p str, &'p str), &'p FunctionProto>,
    folder: Option<&'p Path>,
    limits: &'p Limits,
    refusals: &'r mut Vec<Refusal>,
    nets: Vec<Draft>,
    frames: Vec<Frame<'p>>,
    /// Functions being inlined, with the prefix of their nodes' names.
    calls: Vec<((&'p str, &'p str, &'p str), String)>,
    nodes: usize,
    /// Whether a limit was met: nothing more is expanded.
    full: bool,
}

impl<'p> Loader<'p, '_> {
    fn refuse(&mut self, kind: RefusalKind, what: &'static str, name: &str, reason: impl Into<String>) {
        if self.says_more(kind) {
            self.refusals.push(Refusal::new(kind, what, name, reason));
        }
    }

    /// Whether another refusal is of use: a broken file may have very many, of which the first thousand are enough, and what is missing because a
    /// limit was met is no fault of its own.
    fn says_more(&mut self, kind: RefusalKind) -> bool {
        let more = !self.full && self.refusals.len() < 1000;
        self.full |= kind == RefusalKind::TooLarge;
        more
    }

    /// Puts off the refusal of what has these outputs until it is known whether they are needed.
    fn lack(&mut self, refusal: Refusal, always: bool, inputs: Vec<Option<Slot>>, names: &[&str]) {
        let mut outputs = vec![];
        for name in names.iter().filter(|n| !n.is_empty()) {
            let slot = self.fresh();
            if !self.define(name, slot) {
                self.refuse(RefusalKind::Invalid, "tensor", name, "duplicate name: two values are called so");
            }
            outputs.push(slot);
        }
        let draft = self.draft();
        draft.lacking.push(Lacking { refusal, always, at: draft.nodes.len(), inputs, outputs });
    }

    /// Refuses functions that call one another in a circle, used or not.
    fn check_calls(&mut self, functions: &'p [FunctionProto]) {
        let index: HashMap<_, usize> =
            functions.iter().enumerate().map(|(i, f)| ((domain(&f.domain), f.name.as_str(), f.overload.as_str()), i)).collect();
        let mut callees = vec![];
        for f in functions {
            let mut called = BTreeSet::new();
            let mut nodes: Vec<&NodeProto> = f.node.iter().collect();
            while let Some(n) = nodes.pop() {
                called.extend(index.get(&(domain(&n.domain), n.op_type.as_str(), n.overload.as_str())));
                nodes.extend(n.attribute.iter().filter_map(|a| a.g.as_deref()).flat_map(|g| &g.node));
            }
            callees.push(called.into_iter().collect());
        }
        if let Err(cycle) = sort(&callees) {
            let names: Vec<&str> = cycle.iter().rev().map(|&i| functions[i].name.as_str()).collect();
            self.refuse(RefusalKind::Invalid, "function", names[0], format!("a function that calls itself: {}", names.join(" → ")));
        }
    }

    fn refuse_node(&mut self, kind: RefusalKind, node: &NodeProto, opset: i64, reason: impl Into<String>, help: impl Into<String>) {
        let name = self.node_name(node);
        let refusal = Refusal::new(kind, "node", &name, reason);
        if self.says_more(kind) {
            self.refusals.push(Refusal { op: qualified(domain(&node.domain), &node.op_type), opset, help: help.into(), ..refusal });
        }
    }

    fn node_name(&self, node: &NodeProto) -> String {
        let own = if node.name.is_empty() { node.output.iter().find(|o| !o.is_empty()).map_or("", |o| o) } else { &node.name };
        self.calls.last().map_or(own.to_string(), |(_, prefix)| format!("{prefix}/{own}"))
    }

    fn opsets(&mut self, imports: &'p [crate::proto::OperatorSetIdProto], what: &'static str, name: &str) -> Opsets<'p> {
        let mut opsets = Opsets::new();
        for import in imports {
            let (domain, version) = (domain(&import.domain), import.version);
            let shown = if domain.is_empty() { "ai.onnx" } else { domain };
            if opsets.insert(domain, version).is_some_and(|other| other != version) {
                self.refuse(RefusalKind::Invalid, what, name, format!("two opset versions of domain {shown}"));
            }
            let newest = NEWEST_OPSET.iter().find(|(d, _)| *d == domain).map(|(_, v)| *v);
            match newest {
                Some(newest) if version > newest => {
                    self.refuse(
                        RefusalKind::Unsupported,
                        what,
                        name,
                        format!("opset version {version} of domain {shown}; the newest known is {newest}"),
                    );
                }
                _ if version < 1 => self.refuse(RefusalKind::Invalid, what, name, format!("opset version {version} of domain {shown}")),
                _ => {}
            }
        }
        if opsets.is_empty() {
            self.refuse(RefusalKind::Invalid, what, name, "no opset version is given (opset_import is missing)");
        }
        opsets
    }

    fn draft(&mut self) -> &mut Draft {
        self.nets.last_mut().expect("a net is being made")
    }

    fn fresh(&mut self) -> Slot {
        let net = &mut self.draft().net;
        net.slots += 1;
        net.slots - 1
    }

    /// Gives `name` a slot in the innermost frame; whether it was free.
    fn define(&mut self, name: &str, slot: Slot) -> bool {
        let frame = self.frames.last_mut().expect("a frame is open");
        frame.names.insert(name.to_string(), Some(slot)).is_none()
    }

    /// The slot of a name in the innermost net, captured through the nets between; `None` when there is no such name.
    fn lookup(&mut self, name: &str) -> Option<Option<Slot>> {
        let mut found = None;
        for frame in self.frames.iter().rev() {
            if let Some(slot) = frame.names.get(name) {
                found = Some((frame.net, *slot));
                break;
            }
            if frame.closed {
                break;
            }
        }
        let (home, slot) = found?;
        let Some(mut slot) = slot else { return Some(None) };
        for draft in &mut self.nets[home + 1..] {
            let Draft { net, captured, .. } = draft;
            slot = *captured.entry(slot).or_insert_with(|| {
                net.slots += 1;
                net.captures.push((slot, net.slots - 1));
                net.slots - 1
            });
        }
        Some(Some(slot))
    }

    fn constant(&mut self, name: &str, tensor: Tensor) {
        let slot = self.fresh();
        if !self.define(name, slot) {
            self.refuse(RefusalKind::Invalid, "tensor", name, "duplicate name: two values are called so");
        }
        self.draft().net.constants.push((slot, name.to_string(), tensor));
    }

    fn graph(&mut self, graph: &'p GraphProto, opsets: &Opsets<'p>, bindings: &Bindings<'p>) -> Net {
        if self.nets.len() >= self.limits.depth {
            self.refuse(
                RefusalKind::TooLarge,
                "model",
                "",
                format!("graphs inside one another, deeper than {} (--max-depth)", self.limits.depth),
            );
            return Net::default();
        }
        let main = self.nets.is_empty();
        self.nets.push(Draft::default());
        self.frames.push(Frame {
            names: HashMap::new(),
            net: self.nets.len() - 1,
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
                self.draft().net.inputs.push(slot);
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
                    self.lack(Refusal::new(RefusalKind::Unsupported, "tensor", &tensor.name, reason), false, vec![], &[&tensor.name]);
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
                Some(Some(slot)) => self.draft().net.outputs.push(slot),
                _ => self.refuse(RefusalKind::Invalid, "output", &output.name, "no node makes this output of the graph"),
            }
        }
        self.frames.pop();
        let draft = self.nets.pop().expect("pushed above");
        for refusal in draft.needed_but_lacking() {
            if self.says_more(refusal.kind) {
                self.refusals.push(refusal);
            }
        }
        Net { nodes: draft.nodes.into_iter().map(Arc::new).collect(), ..draft.net }
    }

    /// Adds the nodes of a graph or function body, sorted where the file's order does not do.
    fn nodes(&mut self, nodes: &'p [NodeProto], opsets: &Opsets<'p>, bindings: &Bindings<'p>) {
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

    fn node(&mut self, node: &'p NodeProto, opsets: &Opsets<'p>, bindings: &Bindings<'p>) {
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
            match constant(node, &attributes, opset) {
                Ok(tensor) => self.constant(&node.output[0], tensor),
                Err((RefusalKind::Unsupported, reason)) => {
                    let refusal = Refusal::new(RefusalKind::Unsupported, "node", &self.node_name(node), reason);
                    self.lack(Refusal { op: node.op_type.clone(), opset, ..refusal }, false, vec![], &[&node.output[0]]);
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
                self.lack(Refusal { op: qualified(domain, &node.op_type), opset, help: help.into(), ..refusal }, always, inputs, &names);
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
        let node = NetNode { op_type, domain, name, opset, attributes, inputs, outputs, declared, bodies, import, schema };
        self.draft().nodes.push(node);
    }

    /// Puts the body of a function in the place of its call.
    fn call(&mut self, node: &'p NodeProto, f: &'p FunctionProto, inputs: &[Option<Slot>], given: Vec<(String, Attr<'p>)>, opset: i64) {
        let key = (domain(&f.domain), f.name.as_str(), f.overload.as_str());
        if self.calls.iter().any(|(k, _)| *k == key) {
            self.refuse_node(RefusalKind::Invalid, node, opset, "a function that calls itself", "");
            return;
        }
        if self.calls.len() >= self.limits.depth {
            self.refuse_node(
                RefusalKind::TooLarge,
                node,
                opset,
                format!("functions inside one another, deeper than {} (--max-depth)", self.limits.depth),
                "",
            );
            return;
        }
        if inputs.len() > f.input.len() || node.output.len() > f.output.len() {
            let (i, o) = (inputs.len(), node.output.len());
            let reason = format!("{i} inputs and {o} outputs; the function has {} and {}", f.input.len(), f.output.len());
            self.refuse_node(RefusalKind::Invalid, node, opset, reason, "");
            return;
        }
        let mut bindings: Bindings<'p> = given.into_iter().collect();
        for attribute in &f.attribute_proto {
            if !bindings.contains_key(&attribute.name) {
                match self.attribute(attribute) {
                    Ok(a) => drop(bindings.insert(attribute.name.clone(), a)),
                    Err(reason) => {
                        self.refuse(RefusalKind::Invalid, "function", &f.name, format!("attribute `{}`: {reason}", attribute.name))
                    }
                }
            }
        }
        let prefix = self.node_name(node);
        let opsets = self.opsets(&f.opset_import, "function", &f.name);
        let names = f.input.iter().enumerate().map(|(i, name)| (name.clone(), inputs.get(i).copied().flatten())).collect();
        self.frames.push(Frame { names, net: self.nets.len() - 1, closed: true, nodes: HashSet::new(), declared: HashMap::new() });
        self.calls.push((key, prefix));
        self.nodes(&f.node, &opsets, &bindings);
        let outputs: Vec<Option<Option<Slot>>> = f.output.iter().map(|name| self.lookup(name)).collect();
        self.calls.pop();
        self.frames.pop();
        for (i, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            match outputs.get(i).copied().flatten().flatten() {
                Some(slot) if self.define(name, slot) => {}
                Some(_) => self.refuse_node(RefusalKind::Invalid, node, opset, format!("duplicate name: \"{name}\" is made twice"), ""),
                None => {
                    self.refuse(RefusalKind::Invalid, "function", &f.name, format!("no node makes output \"{}\"", f.output[i]));
                    let slot = self.fresh();
                    self.define(name, slot);
                }
            }
        }
    }

    fn attributes(&mut self, node: &'p NodeProto, opset: i64, bindings: &Bindings<'p>) -> Vec<(String, Attr<'p>)> {
        let mut all: Vec<(String, Attr<'p>)> = Vec::with_capacity(node.attribute.len());
        let mut seen = HashSet::new();
        for attribute in &node.attribute {
            if attribute.name.is_empty() || !seen.insert(&attribute.name) {
                let reason = if attribute.name.is_empty() {
                    "an attribute without a name".into()
                } else {
                    format!("duplicate attribute `{}`", attribute.name)
                };
                self.refuse_node(RefusalKind::Invalid, node, opset, reason, "");
                continue;
            }
            let value = if attribute.ref_attr_name.is_empty() {
                self.attribute(attribute).map(Some)
            } else if self.calls.is_empty() {
                Err("refers to an attribute of a function, outside of one".to_string())
            } else {
                match bindings.get(&attribute.ref_attr_name) {
                    Some(Attr::Graph(_)) => Err("a graph that is given to a function is not supported".to_string()),
                    value => Ok(value.cloned()),
                }
            };
            match value {
                Ok(Some(value)) => all.push((attribute.name.clone(), value)),
                Ok(None) => {}
                Err(reason) => self.refuse_node(RefusalKind::Invalid, node, opset, format!("attribute `{}`: {reason}", attribute.name), ""),
            }
        }
        all
    }

    fn attribute(&self, a: &'p AttributeProto) -> Result<Attr<'p>, String> {
        use attribute_kind::*;
        let kind = match a.kind {
            // Files of IR version 1 do not say.
            UNDEFINED if a.f.is_some() => FLOAT,
            UNDEFINED if a.i.is_some() => INT,
            UNDEFINED if a.s.is_some() => STRING,
            UNDEFINED if a.t.is_some() => TENSOR,
            UNDEFINED if a.g.is_some() => GRAPH,
            UNDEFINED if !a.floats.is_empty() => FLOATS,
            UNDEFINED if !a.strings.is_empty() => STRINGS,
            UNDEFINED if a.sparse_tensor.is_some() => SPARSE_TENSOR,
            UNDEFINED => INTS,
            kind => kind,
        };
        Ok(Attr::Plain(match kind {
            FLOAT => Attribute::Float(a.f.unwrap_or(0.0)),
            INT => Attribute::Int(a.i.unwrap_or(0)),
            STRING => Attribute::Text(a.s.as_ref().map(|s| s.to_vec()).unwrap_or_default()),
            FLOATS => Attribute::Floats(a.floats.clone()),
            INTS => Attribute::Ints(a.ints.clone()),
            STRINGS => Attribute::Texts(a.strings.iter().map(|s| s.to_vec()).collect()),
            TENSOR => match &a.t {
                Some(t) if t.data_type == 8 => Attribute::Other("a tensor of strings"),
                Some(t) => Attribute::Tensor(dense(t, self.folder, self.limits)?),
                None => return Err("a tensor is missing".into()),
            },
            SPARSE_TENSOR => match &a.sparse_tensor {
                Some(t) => Attribute::Tensor(sparse(t, self.folder, self.limits)?),
                None => return Err("a sparse tensor is missing".into()),
            },
            GRAPH => match &a.g {
                Some(g) => return Ok(Attr::Graph(g)),
                None => return Err("a graph is missing".into()),
            },
            TENSORS => Attribute::Other("a list of tensors"),
            GRAPHS => Attribute::Other("a list of graphs"),
            SPARSE_TENSORS => Attribute::Other("a list of sparse tensors"),
            TYPE_PROTO => Attribute::Other("a type"),
            TYPE_PROTOS => Attribute::Other("a list of types"),
            other => return Err(format!("{other} is no attribute type")),
        }))
    }
}

impl Draft {
    /// The refusals of what an output of the net depends on, in order.
    fn needed_but_lacking(&self) -> Vec<Refusal> {
        let mut live: HashSet<Slot> = self.net.outputs.iter().copied().collect();
        let mut refusals = vec![];
        let mut lacking = self.lacking.iter().rev().peekable();
        for at in (0..=self.nodes.len()).rev() {
            while let Some(lack) = lacking.next_if(|l| l.at == at) {
                if lack.always || lack.outputs.iter().any(|s| live.contains(s)) {
                    live.extend(lack.inputs.iter().flatten());
                    refusals.push(lack.refusal.clone());
                }
            }
            if at > 0 && self.nodes[at - 1].outputs.iter().flatten().any(|s| live.contains(s)) {
                let node = &self.nodes[at - 1];
                live.extend(node.inputs.iter().flatten());
                live.extend(node.bodies.iter().flat_map(|b| b.captures.iter().map(|c| c.0)));
            }
        }
        refusals.reverse();
        refusals
    }
}

const NO_OPSET: &str = "no opset version is given for its domain";

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

/// The value of a `Constant` node.
fn constant(node: &NodeProto, attributes: &[(String, Attr)], opset: i64) -> Result<Tensor, (RefusalKind, String)> {
    let invalid = |reason: &str| Err((RefusalKind::Invalid, reason.to_string()));
    match &node.output[..] {
        [name] if !name.is_empty() && node.input.is_empty() => {}
        _ => return invalid("it must have no input and one output"),
    }
    if opset == 0 {
        return invalid("no opset version is given for its domain");
    }
    let [(name, Attr::Plain(value))] = attributes else {
        return invalid("it must have exactly one attribute, the value");
    };
    Ok(match (name.as_str(), value) {
        ("value" | "sparse_value", Attribute::Tensor(t)) => t.clone(),
        ("value_float", Attribute::Float(v)) => Tensor::scalar(*v),
        ("value_int", Attribute::Int(v)) => Tensor::scalar(*v),
        ("value_floats", Attribute::Floats(v)) => Tensor::new([v.len()], v),
        ("value_ints", Attribute::Ints(v)) => Tensor::new([v.len()], v),
        // An empty list does not say of what it is a list.
        ("value_floats", Attribute::Ints(v)) if v.is_empty() => Tensor::new::<f32>([0], &[]),
        ("value_string" | "value_strings", _) | ("value", Attribute::Other(_)) => {
            return Err((RefusalKind::Unsupported, "strings are not supported".into()));
        }
        (name, _) => return invalid(&format!("attribute `{name}` does not hold a value")),
    })
}
