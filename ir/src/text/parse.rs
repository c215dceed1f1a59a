//! Parsing: from a text to a graph, or to the position of an error in the text.

use super::print::{float_bits, is_bare};
use crate::graph::{Attr, Graph, Op, Value};
use crate::kind::{AttrKind, Kind};
use crate::ops::def;
use crate::tensor::Tensor;
use crate::types::{TensorType, Type};
use indexmap::IndexMap;
use std::sync::Arc;

/// Bodies of control flow may be nested so deep in a text.
const DEEPEST: usize = 64;

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

/// Reads the text from left to right; an error is reported at the current position.
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
        text.parse().map_err(|_| format!("`{text}` is not an integer that fits"))
    }

    /// The bits of an element.
    fn number(&mut self, ty: Type) -> Parsed<u64> {
        let text = self.number_text()?;
        let fits = |bits: u64| bits.checked_shr(8 * ty.bytes() as u32).unwrap_or(0) == 0;
        let integer = |text: &str| {
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
            _ => integer(text),
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
            // A short text must not make a huge tensor.
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
        let def = def(kind);
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
