//! The reader: from the bytes of a file to the resolved model. Collects every reason why a model cannot be compiled.

mod attributes;
mod functions;
mod graphs;
mod loader;

use crate::compact::expanded;
use crate::element::element_type;
use crate::encoded_size::check_parts;
use crate::limits::Limits;
use crate::proto::{ModelProto, TypeProto, ValueInfoProto};
use crate::refusal::{Refusal, RefusalKind};
use crate::resolved::ResolvedModel;
use crate::signature::{Dim, Port};
use crate::topological_sort::initialised;
use prost::Message;
use prost::bytes::Bytes;
use std::collections::HashSet;
use std::path::Path;

/// The newest version of the file format that is known.
const NEWEST_IR: i64 = 14;

pub(crate) fn read(
    name: String,
    bytes: Bytes,
    folder: Option<&Path>,
    limits: &Limits,
    refusals: &mut Vec<Refusal>,
) -> Option<ResolvedModel> {
    let refuse = |list: &mut Vec<Refusal>, kind, reason: String| list.push(Refusal::new(kind, "model", "", reason));
    let bytes = match expanded(bytes, limits) {
        Ok(bytes) => bytes,
        Err(reason) => {
            refuse(refusals, RefusalKind::Invalid, reason);
            return None;
        }
    };
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
    let resolved = graphs::read(&proto, graph, folder, limits, refusals);
    let defaults: HashSet<&str> = initialised(graph).collect();
    let inputs = graph.input.iter().filter(|i| !defaults.contains(i.name.as_str())).map(|i| port(i, "input", refusals)).collect();
    let outputs = graph.output.iter().map(|o| port(o, "output", refusals)).collect();
    if graph.output.is_empty() {
        refuse(refusals, RefusalKind::Invalid, "the graph has no output".into());
    }
    Some(ResolvedModel { name, producer: proto.producer_name.clone(), graph: resolved, inputs, outputs, limits: *limits })
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
