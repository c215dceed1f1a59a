//! Models as text, so that a case is a line.
//!
//! Statements are separated by `;`. The first is `inputs -> outputs`; the others are nodes, `[name:] Op{attribute=value, …} inputs -> outputs`,
//! and constants, `name:type[sizes] = elements`. `_` is an input left out, `opset=N` and `domain:opset=N` set versions, and a graph as the value of an
//! attribute stands in parentheses. A constant without elements counts up from 0.

use crate::hostile::proto::*;
use dnnc::{Tensor, TensorType, Type};

/// The model of a text.
pub fn model(text: &str) -> ModelProto {
    let (mut opset_import, mut rest) = (vec![], vec![]);
    for statement in split(text, ';') {
        match statement.split_once("opset=") {
            Some((domain, version)) if domain.is_empty() || domain.ends_with(':') => {
                let version = version.parse().expect("a number");
                opset_import.push(OperatorSetIdProto { domain: domain.trim_end_matches(':').into(), version });
            }
            _ => rest.push(statement),
        }
    }
    if !opset_import.iter().any(|o| o.domain.is_empty()) {
        opset_import.push(OperatorSetIdProto { domain: String::new(), version: 21 });
    }
    ModelProto { ir_version: Some(10), graph: Some(graph(&rest.join(";"))), opset_import, ..Default::default() }
}

/// The graph of a text without versions.
pub fn graph(text: &str) -> GraphProto {
    let mut statements = split(text, ';').into_iter();
    let head = statements.next().expect("`inputs -> outputs`");
    let (inputs, outputs) = head.split_once("->").unwrap_or_else(|| panic!("no `->` in `{head}`"));
    let ports = |text: &str| text.split_whitespace().map(port).collect();
    let mut g = GraphProto { name: "g".into(), input: ports(inputs), output: ports(outputs), ..Default::default() };
    for s in statements {
        if s.contains("->") { g.node.push(node(s)) } else { g.initializer.push(constant(s)) }
    }
    g
}

/// Parts of a text between separators that are in no bracket or string; those that are empty are left out.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut depth, mut quoted, mut start) = (vec![], 0, false, 0);
    for (i, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' | '[' | '{' if !quoted => depth += 1,
            ')' | ']' | '}' if !quoted => depth -= 1,
            c if c == separator && depth == 0 && !quoted => {
                parts.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|p| !p.is_empty());
    parts
}

/// `x`, `x:f32[2,n,?]` or `x:f32` for a type without sizes.
fn port(text: &str) -> ValueInfoProto {
    let Some((name, ty)) = text.rsplit_once(':') else { return ValueInfoProto { name: text.into(), r#type: None } };
    let (elem, dims) = ty.split_once('[').map_or((ty, None), |(e, d)| (e, Some(d.trim_end_matches(']'))));
    let dim = |d: &str| match (d.parse(), d) {
        (Ok(n), _) => DimensionProto { dim_value: Some(n), dim_param: None },
        (_, "?") => DimensionProto::default(),
        _ => DimensionProto { dim_value: None, dim_param: Some(d.into()) },
    };
    let shape = dims.map(|dims| TensorShapeProto { dim: dims.split(',').filter(|d| !d.is_empty()).map(dim).collect() });
    let tensor = TensorTypeProto { elem_type: code(elem), shape };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor: Some(tensor), ..Default::default() }) }
}

/// The number of an element type by its name here, or the number itself.
fn code(elem: &str) -> i32 {
    let names = ["f32", "u8", "i8", "u16", "i16", "i32", "i64", "string", "bool", "f16", "f64", "u32", "u64", "c64", "c128", "bf16"];
    let narrow = ["f8e4m3fn", "f8e4m3fnuz", "f8e5m2", "f8e5m2fnuz", "u4", "i4", "f4e2m1", "f8e8m0", "u2", "i2"];
    match names.iter().chain(&narrow).position(|n| *n == elem) {
        Some(i) => i as i32 + 1,
        None => elem.parse().unwrap_or_else(|_| panic!("no element type `{elem}`")),
    }
}

fn node(text: &str) -> NodeProto {
    let (left, outputs) = {
        let at = text.rfind("->").expect("a node has `->`");
        (text[..at].trim(), &text[at + 2..])
    };
    let attributes_at = left.find('{');
    let colon = left.find(':').filter(|c| attributes_at.is_none_or(|a| *c < a) && left[*c..].starts_with(": "));
    let (name, left) = colon.map_or(("", left), |c| (&left[..c], left[c + 1..].trim()));
    let end = left.find(['{', ' ']).unwrap_or(left.len());
    let (op, rest) = left.split_at(end);
    let (domain, op_type) = op.rsplit_once('.').unwrap_or(("", op));
    let (attributes, inputs) = match rest.strip_prefix('{') {
        Some(rest) => {
            let close = closing(rest);
            (&rest[..close], &rest[close + 1..])
        }
        None => ("", rest),
    };
    let names = |text: &str| text.split_whitespace().map(|n| if n == "_" { String::new() } else { n.to_string() }).collect();
    NodeProto {
        name: name.into(),
        op_type: op_type.into(),
        domain: domain.into(),
        input: names(inputs),
        output: names(outputs),
        attribute: split(attributes, ',').into_iter().map(attribute).collect(),
        ..Default::default()
    }
}

/// Where the brace ends that was opened before `text`.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return i,
            '}' => depth -= 1,
            _ => {}
        }
    }
    panic!("no closing brace in `{text}`")
}

/// `axis=1`, `alpha=0.5`, `mode="linear"`, `pads=[1,2]`, `scales=[1.0]`, `value=f32[2] = 1 2`, `body=(graph)`, `to=$ref`.
pub fn attribute(text: &str) -> AttributeProto {
    use attribute_kind::*;
    let (name, value) = text.split_once('=').unwrap_or_else(|| panic!("no attribute: `{text}`"));
    let (name, value) = (name.trim(), value.trim());
    let mut a = AttributeProto { name: name.into(), ..Default::default() };
    let inner = |open: char, close: char| value.strip_prefix(open).and_then(|v| v.strip_suffix(close));
    if let Some(text) = inner('"', '"') {
        (a.kind, a.s) = (STRING, Some(text.as_bytes().to_vec().into()));
    } else if let Some(list) = inner('[', ']') {
        let parts = split(list, ',');
        if let Some(texts) =
            parts.iter().map(|p| p.strip_prefix('"')?.strip_suffix('"')).collect::<Option<Vec<&str>>>().filter(|t| !t.is_empty())
        {
            (a.kind, a.strings) = (STRINGS, texts.iter().map(|t| t.as_bytes().to_vec().into()).collect());
        } else if let Ok(ints) = parts.iter().map(|p| p.parse()).collect::<Result<Vec<i64>, _>>() {
            (a.kind, a.ints) = (INTS, ints);
        } else {
            (a.kind, a.floats) = (FLOATS, parts.iter().map(|p| p.parse().expect("a number")).collect());
        }
    } else if let Some(text) = inner('(', ')') {
        (a.kind, a.g) = (GRAPH, Some(Box::new(graph(text))));
    } else if let Some(of) = value.strip_prefix('$') {
        (a.kind, a.ref_attr_name) = (INT, of.into());
    } else if let Ok(i) = value.parse() {
        (a.kind, a.i) = (INT, Some(i));
    } else if let Ok(f) = value.parse() {
        (a.kind, a.f) = (FLOAT, Some(f));
    } else {
        (a.kind, a.t) = (TENSOR, Some(Box::new(constant(&format!(":{value}")))));
    }
    a
}

/// `w:f32[2] = 1 2`
pub fn constant(text: &str) -> TensorProto {
    let (head, values) = text.split_once('=').map_or((text, None), |(h, v)| (h, Some(v)));
    let (name, ty) = head.trim().split_once(':').unwrap_or_else(|| panic!("no constant: `{text}`"));
    let tensor = tensor(&format!("{ty}{}", values.map(|v| format!(" = {v}")).unwrap_or_default()));
    let mut proto = TensorProto::default();
    prost::Message::merge(&mut proto, &dnnc::frontend::encode_tensor(name, &tensor)[..]).expect("it was encoded just now");
    proto
}

/// `f32[2] = 1 2`, or without elements 0, 1, 2, …
pub fn tensor(text: &str) -> Tensor {
    let (ty, values) = text.split_once('=').map_or((text, None), |(t, v)| (t, Some(v)));
    let (elem, dims) = ty.trim().trim_end_matches(']').split_once('[').unwrap_or_else(|| panic!("no tensor: `{text}`"));
    let elem = Type::parse(elem).unwrap_or_else(|| panic!("no element type `{elem}`"));
    let shape: Vec<usize> = dims.split(',').filter(|d| !d.is_empty()).map(|d| d.parse().expect("a size")).collect();
    let ty = TensorType::new(elem, shape);
    let given: Option<Vec<&str>> = values.map(|v| v.split_whitespace().collect());
    // Through i64 where possible: f64 does not hold all of it.
    if let (Type::I64, Some(v)) = (elem, &given) {
        return Tensor::with_type(ty, &v.iter().map(|v| v.parse().expect("an integer")).collect::<Vec<i64>>());
    }
    let numbers: Vec<f64> = match given {
        Some(v) => v.iter().map(|v| v.parse().expect("a number")).collect(),
        None => (0..ty.len()).map(|i| i as f64).collect(),
    };
    let cast = dnnc::ir::Op::new(dnnc::ir::Kind::Cast, [("to", elem.into())]).expect("the row of `cast`");
    dnnc::ir::eval::eval_op(&cast, &[Tensor::new(ty.shape.clone(), &numbers)]).expect("numbers have a cast").swap_remove(0)
}
