//! The text form of a graph: what `Display` prints, [`parse`] reads back exactly.
//!
//! ```text
//! graph(x: f32[1,3,8,8], k: i64[]) {
//!   %2 = const f32[8,3,3,3] splat 0.5
//!   %3: f32[1,8,8,8] = conv(%x, %2) {strides=[1,1], pads=[1,1,1,1], dilations=[1,1]}   ; the name of the node
//!   %4: f32[1,8,8,2], i64[1,8,8,2] = top_k(%3) {axis=3, k=2}
//!   return values = %4, indices = %4.1
//! }
//! ```
//!
//! Attributes that have their default value are left out. Constants are a short list, a `splat` of one value, or their bytes as hex;
//! numbers read back bit by bit. In text written by hand values may have any name and types of results may be left out.

use crate::float8::{self, Round};
use crate::graph::{Graph, Node, Value};
use crate::op::{Attr, AttrKind, Kind, Op};
use crate::tensor::Tensor;
use crate::types::{TensorType, Type};
use indexmap::IndexMap;
use std::fmt::{self, Write};
use std::sync::Arc;

/// Constants of up to so many elements are written as a list.
const SHORT: usize = 16;
/// Bodies of control flow may be nested so deep in a text.
const DEEPEST: usize = 64;

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
fn is_bare(name: &str) -> bool {
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
fn float_bits(ty: Type, text: &str) -> Option<u64> {
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

/// Whole numbers without their ".0".
fn short(value: f64, long: impl Fn() -> String) -> String {
    if value.fract() == 0.0 && value.abs() < 1e7 { value.to_string() } else { long() }
}

/// Why a text is no graph.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What does not fit.
    pub reason: String,
}

/// The graph of a text.
pub fn parse(text: &str) -> Result<Graph, ParseError> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    let parsed = parser.graph().and_then(|graph| {
        parser.skip_space();
        if parser.at < text.len() { Err("the text goes on after the graph".into()) } else { Ok(graph) }
    });
    parsed.map_err(|reason| {
        let before = &text[..parser.at];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        ParseError { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1, reason }
    })
}

/// Reads the text from left to right; an error is where it stands.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

type Parsed<T> = Result<T, String>;

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Skips spaces and comments.
    fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            if !self.rest().starts_with(';') {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    /// Takes `token` if it is next; else stays where it was, since a comment may mean something to who reads next.
    fn take(&mut self, token: &str) -> bool {
        let before = self.at;
        self.skip_space();
        let found = self.rest().starts_with(token);
        self.at = if found { self.at + token.len() } else { before };
        found
    }

    fn expect(&mut self, token: &str) -> Parsed<()> {
        self.skip_space();
        if self.take(token) { Ok(()) } else { Err(format!("`{token}` is expected")) }
    }

    /// The longest run of characters that `holds` admits; may be empty.
    fn run(&mut self, holds: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !holds(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn word(&mut self) -> Parsed<&'a str> {
        self.skip_space();
        match self.run(|c| c.is_ascii_alphanumeric() || c == '_') {
            "" => Err("a word is expected".into()),
            word => Ok(word),
        }
    }

    /// A bare word or a quoted string.
    fn name(&mut self) -> Parsed<String> {
        if !self.take("\"") {
            return self.word().map(str::to_string);
        }
        let mut name = String::new();
        loop {
            name += self.run(|c| c != '"' && c != '\\' && c != '\n');
            if self.rest().starts_with('"') {
                self.at += 1;
                return Ok(name);
            }
            let mut escape = self.rest().strip_prefix('\\').ok_or("a string does not end")?.chars();
            match escape.next() {
                Some(c @ ('"' | '\\')) => {
                    name.push(c);
                    self.at += 2;
                }
                Some('u') => {
                    let code = escape.as_str().strip_prefix('{').and_then(|s| s.split_once('}')).map(|(code, _)| code);
                    let c = code.and_then(|code| char::from_u32(u32::from_str_radix(code, 16).ok()?));
                    name.push(c.ok_or("`\\u{…}` names no character")?);
                    self.at += 4 + code.map_or(0, str::len);
                }
                _ => return Err("an escape is `\\\"`, `\\\\` or `\\u{…}`".into()),
            }
        }
    }

    /// A list in brackets.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        self.expect("[")?;
        let mut items = vec![];
        while !self.take("]") {
            if !items.is_empty() {
                self.expect(",")?;
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// The characters of a number or a word such as `inf`.
    fn number_text(&mut self) -> Parsed<&'a str> {
        self.skip_space();
        match self.run(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')) {
            "" => Err("a number is expected".into()),
            text => Ok(text),
        }
    }

    fn int<T: std::str::FromStr>(&mut self) -> Parsed<T> {
        let text = self.number_text()?;
        text.parse().map_err(|_| format!("`{text}` is not a whole number that fits"))
    }

    /// The bits of an element.
    fn number(&mut self, ty: Type) -> Parsed<u64> {
        let text = self.number_text()?;
        let fits = |bits: u64| bits.checked_shr(8 * ty.bytes() as u32).unwrap_or(0) == 0;
        let whole = |text: &str| {
            let wide = text.parse::<i128>().ok()?;
            let width = 8 * ty.bytes() as u32;
            // Elements narrower than their byte may hold any byte.
            let [least, most] = if ty.is_signed() { [-1i128 << (width - 1), (1 << (width - 1)) - 1] } else { [0, (1 << width) - 1] };
            (least..=most).contains(&wide).then_some(wide as u64 & (u64::MAX >> (64 - width)))
        };
        let bits = match (text.strip_prefix("0x"), ty) {
            (Some(hex), _) => u64::from_str_radix(hex, 16).ok().filter(|&bits| fits(bits)),
            (_, Type::Bool) => ["false", "true"].iter().position(|&t| t == text).map(|i| i as u64),
            _ if ty.is_float() => float_bits(ty, text),
            _ => whole(text),
        };
        bits.ok_or_else(|| format!("`{text}` is no {ty}"))
    }

    fn ty(&mut self) -> Parsed<Type> {
        let word = self.word()?;
        Type::parse(word).ok_or_else(|| format!("`{word}` is no element type"))
    }

    fn tensor_type(&mut self) -> Parsed<TensorType> {
        let ty = self.ty()?;
        TensorType::checked(ty, self.list(Self::int::<usize>)?)
    }

    fn tensor(&mut self) -> Parsed<Tensor> {
        let ty = self.tensor_type()?;
        let width = ty.ty.bytes();
        let bytes = |bits: u64| bits.to_le_bytes().into_iter().take(width);
        self.skip_space();
        let data: Vec<u8> = if self.take("splat") {
            let bits = self.number(ty.ty)?;
            // What is short to write must not be huge to hold.
            let elements = if ty.bytes() <= 1 << 34 { ty.len() } else { return Err(format!("a constant {ty} is too large")) };
            (0..elements).flat_map(|_| bytes(bits)).collect()
        } else if self.take("\"") {
            let hex = self.run(|c| c.is_ascii_hexdigit()).as_bytes();
            self.expect("\"")?;
            let digit = |d: u8| char::from(d).to_digit(16).expect("only digits were taken") as u8;
            hex.chunks(2).map(|pair| pair.iter().fold(0, |n, &d| n << 4 | digit(d))).collect()
        } else if self.rest().starts_with('#') {
            return Err("the contents of this constant were left out".into());
        } else {
            self.list(|p| p.number(ty.ty))?.into_iter().flat_map(bytes).collect()
        };
        Tensor::from_bytes(ty.clone(), &data).ok_or_else(|| format!("{} bytes are not those of a {ty}", data.len()))
    }

    fn graph(&mut self) -> Parsed<Graph> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("graphs are nested deeper than {DEEPEST}"));
        }
        let mut graph = Graph::new();
        let mut names: Vec<(&str, Value)> = vec![];
        self.expect("graph")?;
        self.expect("(")?;
        while !self.take(")") {
            if !graph.inputs().is_empty() {
                self.expect(",")?;
            }
            self.skip_space();
            let start = self.at;
            let name = self.name()?;
            let written = &self.text[start..self.at];
            self.expect(":")?;
            let ty = self.tensor_type()?;
            let value = graph.input(&name, ty);
            names.push((written, value));
        }
        let head = graph.nodes().len();
        // Inputs whose name is no word, or not the only one, go by their number.
        let is_only = |name: &str| is_bare(name) && names.iter().filter(|(other, _)| *other == name).count() == 1;
        let mut values: IndexMap<&str, Value> = names.iter().copied().filter(|(name, _)| is_only(name)).collect();
        self.expect("{")?;
        while !self.take("return") {
            self.statement(&mut graph, &mut values, head)?;
        }
        let mut first = true;
        while !self.take("}") {
            if !std::mem::take(&mut first) {
                self.expect(",")?;
            }
            let name = self.name()?;
            self.expect("=")?;
            let value = self.value(&graph, &values, head)?;
            graph.output(&name, value);
        }
        self.depth -= 1;
        Ok(graph)
    }

    /// A value that was made before.
    fn value(&mut self, graph: &Graph, values: &IndexMap<&str, Value>, head: usize) -> Parsed<Value> {
        self.expect("%")?;
        let name = self.word()?;
        let input = name.parse::<usize>().ok().filter(|&n| n < head).map(|n| Value { node: n as u32, index: 0 });
        let value = values.get(name).copied().or(input).ok_or_else(|| format!("there is no value `%{name}` yet"))?;
        let index = if self.rest().starts_with('.') {
            self.at += 1;
            self.int::<u32>()?
        } else {
            0
        };
        let results = graph.node(value).types.len();
        if index as usize >= results {
            return Err(format!("`%{name}` has {results} results"));
        }
        Ok(value.result(index))
    }

    fn statement(&mut self, graph: &mut Graph, values: &mut IndexMap<&'a str, Value>, head: usize) -> Parsed<()> {
        self.expect("%")?;
        let result = self.word()?;
        if values.contains_key(result) || result.parse::<usize>().is_ok_and(|n| n < head) {
            return Err(format!("`%{result}` was made before"));
        }
        let mut types = vec![];
        if self.take(":") {
            types.push(self.tensor_type()?);
            while self.take(",") {
                types.push(self.tensor_type()?);
            }
        }
        self.expect("=")?;
        let start = self.at;
        let word = self.word()?;
        let kind = Kind::ALL.iter().copied().find(|k| k.name() == word).ok_or_else(|| format!("there is no operator `{word}`"))?;
        let value = match kind {
            Kind::Const => graph.constant(self.tensor()?),
            Kind::Input => {
                self.expect("(")?;
                let name = self.name()?;
                self.expect(")")?;
                let ty = if types.len() == 1 { types[0].clone() } else { return Err("an input has one type".into()) };
                let value = graph.input(&name, ty);
                graph.set_name(value, "");
                value
            }
            _ => {
                let mut inputs = vec![];
                self.expect("(")?;
                while !self.take(")") {
                    if !inputs.is_empty() {
                        self.expect(",")?;
                    }
                    inputs.push(self.value(graph, values, head)?);
                }
                let attrs = self.attrs(kind)?;
                let end = std::mem::replace(&mut self.at, start);
                let value = graph.add(Op::new(kind, attrs)?, inputs, "")?;
                self.at = end;
                value
            }
        };
        let made = &graph.node(value).types;
        if !types.is_empty() && types != *made {
            self.at = start;
            return Err(format!("`%{result}` is {made:?}, not {types:?}"));
        }
        values.insert(result, value);
        if let Some(name) = self.comment()? {
            graph.set_name(value, &name);
        }
        Ok(())
    }

    /// The comment that ends a line: the name of the node on it.
    fn comment(&mut self) -> Parsed<Option<String>> {
        self.run(|c| c == ' ' || c == '\t');
        if !self.rest().starts_with(';') {
            return Ok(None);
        }
        self.at += 1;
        self.run(|c| c == ' ' || c == '\t');
        if self.rest().starts_with('"') {
            return self.name().map(Some);
        }
        Ok(Some(self.run(|c| c != '\n').trim_end().to_string()))
    }

    fn attrs(&mut self, kind: Kind) -> Parsed<Vec<(&'static str, Attr)>> {
        let def = crate::ops::def(kind);
        let mut attrs = vec![];
        if !self.take("{") {
            return Ok(attrs);
        }
        while !self.take("}") {
            if !attrs.is_empty() {
                self.expect(",")?;
            }
            let word = self.word()?;
            let &(name, attr_kind) =
                def.attrs.iter().find(|(name, _)| *name == word).ok_or_else(|| format!("`{}` has no attribute `{word}`", kind.name()))?;
            self.expect("=")?;
            let attr = match attr_kind {
                AttrKind::Int(_) => Attr::Int(self.int()?),
                AttrKind::Float(_) => Attr::Float(self.number(Type::F64)?),
                AttrKind::Ints => Attr::Ints(self.list(Self::int::<i64>)?),
                AttrKind::Word(words) => {
                    let given = self.word()?;
                    let word = words.iter().copied().find(|w| *w == given);
                    Attr::Word(word.ok_or_else(|| format!("`{name}` is one of {words:?}, not `{given}`"))?)
                }
                AttrKind::Type => Attr::Type(self.ty()?),
                AttrKind::Tensor => Attr::Tensor(self.tensor()?),
                AttrKind::Graph => Attr::Graph(Arc::new(self.graph()?)),
            };
            attrs.push((name, attr));
        }
        Ok(attrs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of the graph of a text.
    fn again(text: &str) -> String {
        let graph = parse(text).unwrap_or_else(|e| panic!("{e} in\n{text}"));
        graph.validate().expect("a sound graph");
        let printed = graph.to_string();
        assert_eq!(parse(&printed).as_ref(), Ok(&graph), "{printed}");
        printed
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_network_reads_back() {
        let text = "graph(x: f32[1,3,8,8], \"odd: name\": i64[]) {
  %2 = const f32[8,3,3,3] splat 0.5 ; weights
  %3: f32[1,8,8,8] = conv(%x, %2) {strides=[1,1], pads=[1,1,1,1], dilations=[1,1]} ; features/conv 0; first
  %4: f32[1,8,8,2], i64[1,8,8,2] = top_k(%3) {axis=3, k=2}
  %5: i32[1,8,8,2] = cast(%4.1) {to=i32}
  %6: f32[1,8,8,2] = clamp(%4) {hi=6}
  %7: f32[4] = input(late)
  return y = %6, \"\" = %5, k = %1
}";
        assert_eq!(again(text), text);
    }

    #[test]
    fn bodies_are_nested() {
        let text = "graph(c: bool[], x: f32[2]) {
  %2: f32[2] = if(%c, %x) {then=graph(x: f32[2]) {
    return y = %x
  }, else=graph(x: f32[2]) {
    %1: f32[2] = neg(%x)
    return y = %1
  }}
  return y = %2
}";
        assert_eq!(again(text), text);
    }

    #[test]
    fn values_may_have_names_and_no_types() {
        let text = "; a comment
            graph(x: f32[2]) { %two = const f32[] [2]
              %y = mul(%x, %two)   return y = %y }";
        assert_eq!(again(text), "graph(x: f32[2]) {\n  %1 = const f32[] [2]\n  %2: f32[2] = mul(%x, %1)\n  return y = %2\n}");
    }

    #[test]
    fn numbers_keep_their_bits() {
        let constant = |t: Tensor| {
            let mut g = Graph::new();
            let c = g.constant(t);
            g.output("c", c);
            let text = g.to_string();
            assert_eq!(parse(&text).as_ref(), Ok(&g), "{text}");
            text.lines().nth(1).expect("a line").trim().to_string()
        };
        let floats = [0.1f32, -0.0, f32::NAN, f32::from_bits(0xffc0_0001), f32::INFINITY, f32::MIN_POSITIVE / 2.0, 1e30, 16777216.0, -3.0];
        assert_eq!(
            constant(Tensor::new([9], &floats)),
            "%0 = const f32[9] [0.1, -0, NaN, 0xffc00001, inf, 5.877472e-39, 1e30, 16777216.0, -3]"
        );
        assert_eq!(constant(Tensor::scalar(f64::MIN_POSITIVE)), "%0 = const f64[] [2.2250738585072014e-308]");
        assert_eq!(constant(Tensor::new([2], &[i64::MIN, -1])), "%0 = const i64[2] [-9223372036854775808, -1]");
        assert_eq!(constant(Tensor::new([1], &[u64::MAX])), "%0 = const u64[1] [18446744073709551615]");
        assert_eq!(constant(Tensor::new::<f32>([0, 3], &[])), "%0 = const f32[0,3] []");
        let bools = Tensor::with_type(TensorType::new(Type::Bool, [2]), &[1u8, 0]);
        assert_eq!(constant(bools), "%0 = const bool[2] [true, false]");
        // Every code of every small type.
        for ty in Type::ALL.iter().copied().filter(|ty| ty.bytes() == 1) {
            for first in (0..=255u8).step_by(SHORT) {
                let codes: Vec<u8> = (first..=first + (SHORT - 1) as u8).collect();
                constant(Tensor::with_type(TensorType::new(ty, [SHORT]), &codes));
            }
        }
        for ty in [Type::F16, Type::BF16] {
            for first in (0..=u16::MAX).step_by(SHORT) {
                let codes: Vec<u16> = (first..=first + (SHORT - 1) as u16).collect();
                constant(Tensor::with_type(TensorType::new(ty, [SHORT]), &codes));
            }
        }
        let long: Vec<i16> = (0..20).collect();
        assert!(constant(Tensor::new([20], &long)).starts_with("%0 = const i16[20] \"000001000200"));
    }

    #[test]
    fn large_constants_can_be_left_out() {
        let mut g = Graph::new();
        let c = g.constant(Tensor::new([20], &(0..20).collect::<Vec<i32>>()));
        g.output("c", c);
        let brief = g.brief().to_string();
        assert_eq!(
            brief.lines().nth(1),
            Some(format!("  %0 = const i32[20] #{:016x}", g.const_of(c).expect("a constant").digest()).as_str())
        );
        assert_eq!(error(&brief), "line 2, column 22: the contents of this constant were left out");
    }

    #[test]
    fn names_are_any_text() {
        let mut g = Graph::new();
        let x = g.input("a \"b\"\\\n\u{7f}é", TensorType::new(Type::F32, [1]));
        let twin = g.input("twin", TensorType::new(Type::F32, [1]));
        g.input("twin", TensorType::new(Type::F32, [1]));
        let y = g.add(Op::new(Kind::Add, []).expect("no attributes"), vec![x, twin], " \"quoted; and\nbroken").expect("types fit");
        g.output("\t", y);
        let z = g.add(Op::new(Kind::Neg, []).expect("no attributes"), vec![y], "plain; \"text\"").expect("types fit");
        g.output("z", z);
        let late = g.input("late", TensorType::new(Type::F32, [1]));
        g.set_name(late, "another name");
        let text = g.to_string();
        assert_eq!(parse(&text), Ok(g), "{text}");
    }

    #[test]
    fn errors_say_where() {
        let table = [
            ("graph(x: f32[2]) { return y = %z }", "line 1, column 33: there is no value `%z` yet"),
            ("graph(x: f33[2]) { return }", "line 1, column 13: `f33` is no element type"),
            ("graph(x: f32[2]) {\n  %1 = nag(%x)\n return }", "line 2, column 11: there is no operator `nag`"),
            ("graph(x: f32[2]) {\n  %1 = clamp(%x) {low=1}\n return }", "line 2, column 22: `clamp` has no attribute `low`"),
            ("graph(x: f32[2]) {\n  %1 = not(%x)\n return }", "line 2, column 7: `not`: the input is f32[2], but must be bool"),
            ("graph(x: f32[2]) {\n  %1: f32[3] = neg(%x)\n return }", "line 2, column 15: `%1` is [f32[2]], not [f32[3]]"),
            ("graph() { %0 = const i8[1] [128] return }", "line 1, column 32: `128` is no i8"),
            ("graph() { %0 = const i8[2] [1] return }", "line 1, column 31: 1 bytes are not those of a i8[2]"),
            ("graph() { return } x", "line 1, column 20: the text goes on after the graph"),
            ("graph(x: f32[9223372036854775807,9]) { return }", "line 1, column 36: a tensor f32[9223372036854775807,9] is too large"),
        ];
        for (text, expected) in table {
            assert_eq!(error(text), expected, "{text}");
        }
        let deep = "graph(c: bool[]) { %1 = if(%c) {then=".repeat(1000);
        assert!(error(&deep).contains("nested deeper"));
    }
}
