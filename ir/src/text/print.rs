//! Printing: from a graph to its text.

use crate::float8::{self, Round};
use crate::graph::{Attr, Graph, Node, Value};
use crate::kind::{AttrKind, Kind};
use crate::tensor::Tensor;
use crate::types::Type;
use std::fmt::{self, Write};

/// Constants of up to so many elements are written as a list.
pub const SHORT: usize = 16;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_graph(f, self, "", false)
    }
}

/// A graph printed for people: large constants are a digest of their contents, so that the text cannot be parsed.
pub struct Brief<'a>(&'a Graph);

impl Graph {
    /// The graph for people and snapshots: large constants are printed as a digest.
    pub fn brief(&self) -> Brief<'_> {
        Brief(self)
    }
}

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_graph(f, self.0, "", true)
    }
}

/// Whether a name needs no quotes.
pub fn is_bare(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_') && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn write_name(f: &mut impl Write, name: &str) -> fmt::Result {
    if is_bare(name) {
        return f.write_str(name);
    }
    f.write_char('"')?;
    for c in name.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            c if c.is_control() => write!(f, "\\u{{{:x}}}", c as u32)?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// The inputs that the head of the text declares: those that stand before all other nodes and bear their own name.
fn head(graph: &Graph) -> usize {
    let is_plain =
        |n: &usize| graph.nodes().get(*n).is_some_and(|node| node.op.kind() == Kind::Input && node.name == graph.input_names()[*n]);
    (0..graph.inputs().len()).take_while(is_plain).count()
}

fn write_graph(f: &mut fmt::Formatter<'_>, graph: &Graph, indent: &str, brief: bool) -> fmt::Result {
    let head = head(graph);
    // An input goes by its name if that is a word of its own, every other value by the number of its node.
    let names: Vec<Option<&str>> = graph.input_names()[..head]
        .iter()
        .map(|name| (is_bare(name) && graph.input_names()[..head].iter().filter(|n| *n == name).count() == 1).then_some(name.as_str()))
        .collect();
    let value = |v: &Value| {
        let name = names.get(v.node as usize).copied().flatten().map_or_else(|| v.node.to_string(), str::to_string);
        if v.index == 0 { format!("%{name}") } else { format!("%{name}.{}", v.index) }
    };
    f.write_str("graph(")?;
    for (i, (name, v)) in graph.input_names()[..head].iter().zip(graph.inputs()).enumerate() {
        f.write_str(if i > 0 { ", " } else { "" })?;
        write_name(f, name)?;
        write!(f, ": {}", graph.ty(*v))?;
    }
    f.write_str(") {\n")?;
    for (n, node) in graph.nodes().iter().enumerate().skip(head) {
        write!(f, "{indent}  %{n}")?;
        match node.op.kind() {
            Kind::Input => {
                write!(f, ": {} = input(", node.types[0])?;
                write_name(f, &graph.input_names()[node.op.attrs.size("index")])?;
                f.write_char(')')?;
            }
            Kind::Const => {
                write!(f, " = const ")?;
                write_tensor(f, node.op.attrs.tensor("value"), brief)?;
            }
            _ => {
                let types: Vec<String> = node.types.iter().map(|t| t.to_string()).collect();
                let inputs: Vec<String> = node.inputs.iter().map(value).collect();
                let colon = if types.is_empty() { "" } else { ": " };
                write!(f, "{colon}{} = {}({})", types.join(", "), node.op.kind().name(), inputs.join(", "))?;
                write_attrs(f, node, indent, brief)?;
            }
        }
        write_comment(f, &node.name)?;
        f.write_char('\n')?;
    }
    write!(f, "{indent}  return")?;
    for (i, (name, v)) in graph.outputs().iter().enumerate() {
        f.write_str(if i > 0 { ", " } else { " " })?;
        write_name(f, name)?;
        write!(f, " = {}", value(v))?;
    }
    write!(f, "\n{indent}}}")
}

fn write_comment(f: &mut impl Write, name: &str) -> fmt::Result {
    let plain = name.trim() == name && !name.starts_with('"') && !name.chars().any(char::is_control);
    match name {
        "" => Ok(()),
        _ if plain => write!(f, " ; {name}"),
        _ => {
            f.write_str(" ; ")?;
            write_name(f, name)
        }
    }
}

fn is_default(kind: AttrKind, attr: &Attr) -> bool {
    match (kind, attr) {
        (AttrKind::Int(d), Attr::Int(v)) => d == *v,
        (AttrKind::Float(d), Attr::Float(bits)) => d.to_bits() == *bits,
        (AttrKind::Word(words), Attr::Word(w)) => words[0] == *w,
        _ => false,
    }
}

fn write_attrs(f: &mut fmt::Formatter<'_>, node: &Node, indent: &str, brief: bool) -> fmt::Result {
    let attrs = node.op.def.attrs.iter().zip(node.op.attrs.iter()).filter(|((_, kind), (_, attr))| !is_default(*kind, attr));
    let mut separator = " {";
    for (_, (name, attr)) in attrs {
        write!(f, "{separator}{name}=")?;
        separator = ", ";
        match attr {
            Attr::Int(v) => write!(f, "{v}")?,
            Attr::Float(bits) => write_number(f, Type::F64, *bits)?,
            Attr::Ints(v) => write!(f, "[{}]", v.iter().map(i64::to_string).collect::<Vec<_>>().join(","))?,
            Attr::Word(w) => f.write_str(w)?,
            Attr::Type(t) => write!(f, "{t}")?,
            Attr::Tensor(t) => write_tensor(f, t, brief)?,
            Attr::Graph(g) => write_graph(f, g, &format!("{indent}  "), brief)?,
        }
    }
    f.write_str(if separator == ", " { "}" } else { "" })
}

fn write_tensor(f: &mut fmt::Formatter<'_>, t: &Tensor, brief: bool) -> fmt::Result {
    let ty = t.ty().ty;
    write!(f, "{} ", t.ty())?;
    let elements = t.bytes().chunks(ty.bytes());
    let bits = |b: &[u8]| b.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
    let first = elements.clone().next();
    match first {
        Some(first) if t.len() > 1 && elements.clone().all(|e| e == first) => {
            f.write_str("splat ")?;
            write_number(f, ty, bits(first))
        }
        _ if t.len() <= SHORT => {
            for (i, element) in elements.enumerate() {
                f.write_str(if i > 0 { ", " } else { "[" })?;
                write_number(f, ty, bits(element))?;
            }
            f.write_str(if t.is_empty() { "[]" } else { "]" })
        }
        _ if brief => write!(f, "#{:016x}", t.digest()),
        _ => {
            let digit = |d: u8| char::from_digit(d.into(), 16).expect("four bits");
            let hex: String = t.bytes().iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect();
            write!(f, "\"{hex}\"")
        }
    }
}

/// The bits of a float of type `ty` nearest to a value, as [`write_number`] has it.
pub fn float_bits(ty: Type, text: &str) -> Option<u64> {
    Some(match ty {
        Type::F32 => text.parse::<f32>().ok()?.to_bits().into(),
        Type::F64 => text.parse::<f64>().ok()?.to_bits(),
        Type::F8E8M0 => float8::encode_e8m0(text.parse().ok()?, false, Round::Nearest).into(),
        small => float8::encode(small, text.parse().ok()?, false).into(),
    })
}

/// The decimal form of an element, or its bits in hex where no decimal number has just these.
fn write_number(f: &mut impl Write, ty: Type, bits: u64) -> fmt::Result {
    if ty == Type::Bool && bits < 2 {
        return f.write_str(if bits == 1 { "true" } else { "false" });
    }
    let text = match ty {
        Type::F32 => short(f32::from_bits(bits as u32).into(), || format!("{:?}", f32::from_bits(bits as u32))),
        Type::F64 => short(f64::from_bits(bits), || format!("{:?}", f64::from_bits(bits))),
        _ if ty.is_float() => short(float8::decode(ty, bits as u32), || format!("{:?}", float8::decode(ty, bits as u32))),
        _ if ty.is_signed() => {
            let unused = 64 - 8 * ty.bytes() as u32;
            ((bits << unused) as i64 >> unused).to_string()
        }
        _ => bits.to_string(),
    };
    if ty.is_float() && float_bits(ty, &text) != Some(bits) || ty == Type::Bool {
        return write!(f, "{bits:#x}");
    }
    f.write_str(&text)
}

/// Integers without their ".0".
fn short(value: f64, long: impl Fn() -> String) -> String {
    if value.fract() == 0.0 && value.abs() < 1e7 { value.to_string() } else { long() }
}
