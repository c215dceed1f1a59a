//! The node being imported, as an importer sees it.

use crate::element::element_type;
use crate::fail::{Fail, Result, invalid};
use dnnc_ir::{Tensor, Type, Value};

/// An attribute of a node, decoded.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Attribute {
    Int(i64),
    Float(f32),
    Text(Vec<u8>),
    Tensor(Tensor),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Texts(Vec<Vec<u8>>),
    /// A kind that no importer reads: sparse tensors, types, lists of tensors.
    Other(&'static str),
}

impl Attribute {
    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Attribute::Int(_) => "an integer",
            Attribute::Float(_) => "a number",
            Attribute::Text(_) => "a string",
            Attribute::Tensor(_) => "a tensor",
            Attribute::Ints(_) => "integers",
            Attribute::Floats(_) => "numbers",
            Attribute::Texts(_) => "strings",
            Attribute::Other(what) => what,
        }
    }
}

/// The node being imported.
pub(crate) struct Node<'a> {
    /// Version of its domain's opset in force.
    pub opset: i64,
    /// Attributes by name.
    pub attributes: &'a [(String, Attribute)],
    /// Inputs; `None` where an optional one is left out.
    pub inputs: Vec<Option<Value>>,
    /// For each output, whether it has a name.
    pub outputs: Vec<bool>,
}

impl Node<'_> {
    /// Input `i`, which must be there.
    pub fn input(&self, i: usize) -> Result<Value> {
        self.opt(i).ok_or_else(|| Fail::Invalid(format!("input {i} is missing")))
    }

    /// Input `i`, if it is given.
    pub fn opt(&self, i: usize) -> Option<Value> {
        self.inputs.get(i).copied().flatten()
    }

    /// All inputs of an operator that takes any number of them.
    pub fn all_inputs(&self) -> Result<Vec<Value>> {
        (0..self.inputs.len()).map(|i| self.input(i)).collect()
    }

    /// Number of outputs listed.
    pub fn n_outputs(&self) -> usize {
        self.outputs.len()
    }

    /// Whether output `i` is listed and has a name.
    pub fn wants_output(&self, i: usize) -> bool {
        self.outputs.get(i) == Some(&true)
    }

    fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, a)| a)
    }

    /// Whether the attribute is given.
    pub fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    fn wrong<T>(&self, name: &str, want: &str, got: &Attribute) -> Result<T> {
        invalid!("attribute `{name}` is {}, not {want}", got.kind())
    }

    fn absent(name: &str) -> Fail {
        Fail::Invalid(format!("attribute `{name}` is missing"))
    }

    /// An integer that may be left out.
    pub fn opt_int(&self, name: &str) -> Result<Option<i64>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Int(v)) => Ok(Some(*v)),
            Some(other) => self.wrong(name, "an integer", other),
        }
    }

    /// An integer, or its default.
    pub fn int(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.opt_int(name)?.unwrap_or(default))
    }

    /// An integer that must be there.
    pub fn req_int(&self, name: &str) -> Result<i64> {
        self.opt_int(name)?.ok_or_else(|| Self::absent(name))
    }

    /// A switch, on at 1, or its default.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.int(name, default.into())? == 1)
    }

    /// A number that may be left out.
    pub fn opt_float(&self, name: &str) -> Result<Option<f32>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Float(v)) => Ok(Some(*v)),
            Some(other) => self.wrong(name, "a number", other),
        }
    }

    /// A list of integers that may be left out.
    pub fn ints(&self, name: &str) -> Result<Option<Vec<i64>>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Ints(v)) => Ok(Some(v.clone())),
            // A list written without its type and without elements is any empty list.
            Some(Attribute::Floats(v)) if v.is_empty() => Ok(Some(vec![])),
            Some(other) => self.wrong(name, "integers", other),
        }
    }

    /// A list of integers that must be there.
    pub fn req_ints(&self, name: &str) -> Result<Vec<i64>> {
        self.ints(name)?.ok_or_else(|| Self::absent(name))
    }

    /// A list of numbers that may be left out.
    pub fn floats(&self, name: &str) -> Result<Option<Vec<f32>>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Floats(v)) => Ok(Some(v.clone())),
            Some(Attribute::Ints(v)) if v.is_empty() => Ok(Some(vec![])),
            Some(other) => self.wrong(name, "numbers", other),
        }
    }

    /// A string that may be left out.
    pub fn opt_string(&self, name: &str) -> Result<Option<&str>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Text(v)) => match std::str::from_utf8(v) {
                Ok(text) => Ok(Some(text)),
                Err(_) => invalid!("attribute `{name}` is not UTF-8"),
            },
            Some(other) => self.wrong(name, "a string", other),
        }
    }

    /// A string, or its default.
    pub fn string<'s>(&'s self, name: &str, default: &'s str) -> Result<&'s str> {
        Ok(self.opt_string(name)?.unwrap_or(default))
    }

    /// A list of strings that may be left out.
    pub fn strings(&self, name: &str) -> Result<Option<Vec<&str>>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Texts(v)) => match v.iter().map(|t| std::str::from_utf8(t)).collect() {
                Ok(texts) => Ok(Some(texts)),
                Err(_) => invalid!("attribute `{name}` is not UTF-8"),
            },
            Some(other) => self.wrong(name, "strings", other),
        }
    }

    /// A tensor that may be left out.
    pub fn tensor(&self, name: &str) -> Result<Option<Tensor>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Tensor(t)) => Ok(Some(t.clone())),
            Some(other) => self.wrong(name, "a tensor", other),
        }
    }

    /// The element type that an integer attribute stands for.
    pub fn dtype(&self, name: &str) -> Result<Option<Type>> {
        self.opt_int(name)?
            .map(|code| element_type(code).map_err(|what| Fail::Unsupported(format!("attribute `{name}`: {what}"))))
            .transpose()
    }
}
