//! A model as it is read from a file: checked, with symbolic sizes.

use crate::import::{Stage, State};
use crate::net::{self, Net};
use crate::order::initialised;
use crate::proto::{ModelProto, TypeProto, ValueInfoProto};
use crate::refusal::{Refusal, RefusalKind, Refusals};
use crate::tensor_file::read_file;
use crate::wire::check_parts;
use crate::{Limits, build::element_type};
use dnnc_ir::{Tensor, TensorType, Type};
use prost::Message;
use prost::bytes::Bytes;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The newest version of the file format that is known.
const NEWEST_IR: i64 = 14;

/// A size of an input or output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Dim {
    /// A number.
    Known(usize),
    /// A symbol: the same number wherever it stands.
    Symbol(String),
    /// Not said.
    Unknown,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(n) => write!(f, "{n}"),
            Dim::Symbol(s) => f.write_str(s),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// An input or output of a model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Element type; `None` for an output whose type the file leaves out.
    pub ty: Option<Type>,
    /// Sizes; `None` where the file does not even say how many there are.
    pub dims: Option<Vec<Dim>>,
}

/// A checked ONNX model. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Model(Arc<Checked>);

#[derive(Debug)]
pub(crate) struct Checked {
    pub name: String,
    pub producer: String,
    pub net: Net,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub limits: Limits,
}

impl Checked {
    pub fn refuse(&self, list: Vec<Refusal>) -> Refusals {
        Refusals { model: self.name.clone(), list }
    }
}

impl Model {
    /// Reads and checks a model file. The error holds every reason why it cannot be compiled.
    pub fn load(path: &Path, limits: &Limits) -> Result<Model, Refusals> {
        let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
        match read_file(path, limits) {
            Ok(bytes) => Model::parse(name, bytes, path.parent(), limits),
            Err(reason) => Err(Refusals { model: name, list: vec![Refusal::new(RefusalKind::Invalid, "model", "", reason)] }),
        }
    }

    /// Checks a model in memory; data outside the file is looked for in `folder`.
    pub fn from_bytes(bytes: &[u8], folder: Option<&Path>, limits: &Limits) -> Result<Model, Refusals> {
        Model::parse("the model".to_string(), Bytes::copy_from_slice(bytes), folder, limits)
    }

    fn parse(name: String, bytes: Bytes, folder: Option<&Path>, limits: &Limits) -> Result<Model, Refusals> {
        let mut refusals = vec![];
        let checked = check(name.clone(), bytes, folder, limits, &mut refusals);
        match checked {
            Some(checked) if refusals.is_empty() => Ok(Model(Arc::new(checked))),
            _ => Err(Refusals { model: name, list: refusals }),
        }
    }

    /// Name of the file, for messages.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The program that wrote the file, as it calls itself; may be empty.
    pub fn producer(&self) -> &str {
        &self.0.producer
    }

    /// The inputs; those that have a default value in the file are constants and not among them.
    pub fn inputs(&self) -> &[Port] {
        &self.0.inputs
    }

    /// The outputs.
    pub fn outputs(&self) -> &[Port] {
        &self.0.outputs
    }

    /// Operator types with the number of their nodes, bodies of control flow included, functions inlined.
    pub fn operators(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        let mut nets = vec![&self.0.net];
        while let Some(net) = nets.pop() {
            for node in &net.nodes {
                *counts.entry(node.op_type.clone()).or_insert(0) += 1;
                nets.extend(node.bodies.iter().map(|b| &**b));
            }
        }
        counts
    }

    /// The symbols of the inputs, in order of appearance.
    pub fn symbols(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        let dims = self.0.inputs.iter().flat_map(|p| p.dims.iter().flatten());
        let names = dims.filter_map(|d| if let Dim::Symbol(s) = d { Some(s.as_str()) } else { None });
        names.filter(|s| seen.insert(*s)).collect()
    }

    /// Builds the graph for these input shapes, up to the first size that depends on data.
    pub fn specialise(&self, shapes: &[Vec<usize>]) -> Result<Stage, Refusals> {
        let types = self.bind(shapes).map_err(|list| self.0.refuse(list))?;
        State::new(self.0.clone(), &types).stage()
    }

    /// Checks number and element types of inputs.
    pub(crate) fn check_types(&self, inputs: &[Tensor]) -> Result<(), Refusals> {
        let wrong = |(port, t): (&Port, &Tensor)| {
            let want = port.ty.filter(|want| *want != t.ty().ty)?;
            let reason = format!("element type {} is given; the model wants {want}", t.ty().ty);
            Some(Refusal::new(RefusalKind::Invalid, "input", &port.name, reason))
        };
        let list: Vec<Refusal> = self.0.inputs.iter().zip(inputs).filter_map(wrong).collect();
        if list.is_empty() { Ok(()) } else { Err(self.0.refuse(list)) }
    }

    /// The types of the inputs at these shapes; an error for each that does not fit.
    fn bind(&self, shapes: &[Vec<usize>]) -> Result<Vec<TensorType>, Vec<Refusal>> {
        let ports = &self.0.inputs;
        if shapes.len() != ports.len() {
            let reason = format!("{} input shapes are given; the model has {} inputs", shapes.len(), ports.len());
            return Err(vec![Refusal::new(RefusalKind::Invalid, "model", "", reason)]);
        }
        let (mut refusals, mut symbols, mut types) = (vec![], BTreeMap::new(), vec![]);
        for (port, shape) in ports.iter().zip(shapes) {
            let mut refuse = |kind, reason: String| refusals.push(Refusal::new(kind, "input", &port.name, reason));
            if let Some(dims) = &port.dims {
                let shown: Vec<String> = dims.iter().map(Dim::to_string).collect();
                let shown = shown.join(",");
                if dims.len() != shape.len() {
                    refuse(RefusalKind::Invalid, format!("shape {shape:?} is given; the model wants [{shown}]"));
                }
                for (dim, &size) in dims.iter().zip(shape) {
                    match dim {
                        Dim::Known(n) if *n != size => {
                            refuse(RefusalKind::Invalid, format!("shape {shape:?} is given; the model wants [{shown}]"))
                        }
                        Dim::Symbol(s) if *symbols.entry(s.as_str()).or_insert(size) != size => {
                            refuse(
                                RefusalKind::Invalid,
                                format!("shape {shape:?} is given, but dimension {s} is {} elsewhere", symbols[s.as_str()]),
                            );
                        }
                        _ => {}
                    }
                }
            }
            let ty = port.ty.unwrap_or(Type::F32);
            let bytes = shape.iter().try_fold(ty.bytes(), |n, &d| n.checked_mul(d.max(1)));
            if bytes.is_none_or(|n| n > self.0.limits.tensor_bytes) {
                refuse(
                    RefusalKind::TooLarge,
                    format!("shape {shape:?} is too large: the limit is {} bytes (--max-tensor)", self.0.limits.tensor_bytes),
                );
            }
            types.push(TensorType::new(ty, shape.clone()));
        }
        if refusals.is_empty() { Ok(types) } else { Err(refusals) }
    }
}

fn check(name: String, bytes: Bytes, folder: Option<&Path>, limits: &Limits, refusals: &mut Vec<Refusal>) -> Option<Checked> {
    let refuse = |list: &mut Vec<Refusal>, kind, reason: String| list.push(Refusal::new(kind, "model", "", reason));
    if let Err(reason) = check_parts(&bytes) {
        refuse(refusals, RefusalKind::TooLarge, reason);
        return None;
    }
    let proto = match ModelProto::decode(bytes) {
        Ok(proto) => proto,
        Err(e) => {
            // The path to what is wrong comes first, and may be long.
            let text = e.to_string();
            let parts: Vec<&str> = text.split(": ").collect();
            let (kind, reason) = match parts[..] {
                [.., "recursion limit reached"] => {
                    (RefusalKind::TooLarge, "graphs inside one another, deeper than a file can be read".into())
                }
                _ => (RefusalKind::Invalid, format!("not an ONNX model: {}", parts[parts.len().saturating_sub(3)..].join(": "))),
            };
            refuse(refusals, kind, reason);
            return None;
        }
    };
    let Some(graph) = &proto.graph else {
        refuse(refusals, RefusalKind::Invalid, "not an ONNX model: there is no graph in it".into());
        return None;
    };
    match proto.ir_version.unwrap_or(0) {
        version if version < 1 => refuse(refusals, RefusalKind::Invalid, "the version of the file format (ir_version) is missing".into()),
        version if version > NEWEST_IR => {
            refuse(
                refusals,
                RefusalKind::Unsupported,
                format!("version {version} of the file format (ir_version); the newest known is {NEWEST_IR}"),
            );
        }
        _ => {}
    }
    let net = net::check(&proto, graph, folder, limits, refusals);
    let defaults: HashSet<&str> = initialised(graph).collect();
    let inputs = graph.input.iter().filter(|i| !defaults.contains(i.name.as_str())).map(|i| port(i, "input", refusals)).collect();
    let outputs = graph.output.iter().map(|o| port(o, "output", refusals)).collect();
    if graph.output.is_empty() {
        refuse(refusals, RefusalKind::Invalid, "the graph has no output".into());
    }
    Some(Checked { name, producer: proto.producer_name.clone(), net, inputs, outputs, limits: *limits })
}

fn port(info: &ValueInfoProto, what: &'static str, refusals: &mut Vec<Refusal>) -> Port {
    let mut refuse = |kind, reason: String| refusals.push(Refusal::new(kind, what, &info.name, reason));
    let mut port = Port { name: info.name.clone(), ty: None, dims: None };
    let tensor = match &info.r#type {
        Some(TypeProto { tensor: Some(tensor), .. }) => tensor,
        Some(other) => {
            let kinds = [
                ("a sequence", other.sequence.is_some()),
                ("a map", other.map.is_some()),
                ("an optional value", other.optional.is_some()),
                ("a sparse tensor", other.sparse_tensor.is_some()),
                ("an opaque value", other.opaque.is_some()),
            ];
            match kinds.iter().find(|k| k.1) {
                Some((kind, _)) => refuse(RefusalKind::Unsupported, format!("its type is {kind}; only dense tensors are supported")),
                None if what == "input" => refuse(RefusalKind::Invalid, "its type is missing".into()),
                None => {}
            }
            return port;
        }
        None if what == "input" => {
            refuse(RefusalKind::Invalid, "its type is missing".into());
            return port;
        }
        None => return port,
    };
    match element_type(tensor.elem_type.into()) {
        Ok(ty) => port.ty = Some(ty),
        Err(_) if tensor.elem_type == 0 && what == "output" => {}
        Err(reason) => {
            refuse(if matches!(tensor.elem_type, 8 | 14 | 15) { RefusalKind::Unsupported } else { RefusalKind::Invalid }, reason)
        }
    }
    port.dims = tensor.shape.as_ref().map(|shape| {
        let dims = shape.dim.iter().map(|d| match (d.dim_value, &d.dim_param) {
            (Some(n), _) if n >= 0 => Dim::Known(n as usize),
            // Some writers say -1 for "any".
            (Some(-1), _) => Dim::Unknown,
            (Some(n), _) => {
                refuse(RefusalKind::Invalid, format!("negative dimension {n}"));
                Dim::Unknown
            }
            // Some writers give every size that they do not know this name.
            (None, Some(s)) if !s.is_empty() && s != "?" => Dim::Symbol(s.clone()),
            (None, _) => Dim::Unknown,
        });
        dims.collect()
    });
    port
}
