//! A model as it is read from a file: checked, with symbolic sizes.

use crate::import::{Stage, first_stage};
use crate::limits::Limits;
use crate::reader;
use crate::refusal::{Refusal, RefusalKind, Refusals};
use crate::resolved::ResolvedModel;
use crate::signature::{Dim, Port};
use crate::tensor_file::read_file;
use dnnc_ir::{Tensor, TensorType, Type};
use prost::bytes::Bytes;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// A checked ONNX model. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Model(Arc<ResolvedModel>);

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
        let resolved = reader::read(name.clone(), bytes, folder, limits, &mut refusals);
        match resolved {
            Some(resolved) if refusals.is_empty() => Ok(Model(Arc::new(resolved))),
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
        let mut graphs = vec![&self.0.graph];
        while let Some(graph) = graphs.pop() {
            for node in &graph.nodes {
                *counts.entry(node.op_type.clone()).or_insert(0) += 1;
                graphs.extend(node.bodies.iter().map(|b| &**b));
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
        first_stage(self.0.clone(), &types)
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
