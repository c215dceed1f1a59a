//! Operators by kind and attributes, and graphs made of them: what needs the table of all operators.

use crate::graph::{Attr, Attrs, Graph, Op, Value};
use crate::kind::{AttrKind, Kind};
use crate::ops::def;
use crate::tensor::Tensor;
use crate::types::TensorType;

impl Op {
    /// Operator `kind` with the attributes given; the others take their defaults. An error names what is unknown, missing or of
    /// the wrong kind.
    pub fn new(kind: Kind, given: impl IntoIterator<Item = (&'static str, Attr)>) -> Result<Op, String> {
        let def = def(kind);
        let mut given: Vec<(&'static str, Attr)> = given.into_iter().collect();
        let mut attrs = Vec::with_capacity(def.attrs.len());
        for &(name, attr_kind) in def.attrs {
            let value = given.iter().position(|(n, _)| *n == name).map(|i| given.swap_remove(i).1);
            let value = match (attr_kind, value) {
                (AttrKind::Int(_), Some(v @ Attr::Int(_))) => v,
                (AttrKind::Int(d), None) => Attr::Int(d),
                (AttrKind::Float(_), Some(v @ Attr::Float(_))) => v,
                (AttrKind::Float(d), None) => Attr::from(d),
                (AttrKind::Ints, Some(v @ Attr::Ints(_))) => v,
                (AttrKind::Word(words), Some(Attr::Word(w))) if words.contains(&w) => Attr::Word(w),
                (AttrKind::Word(words), None) => Attr::Word(words[0]),
                (AttrKind::Type, Some(v @ Attr::Type(_))) => v,
                (AttrKind::Tensor, Some(v @ Attr::Tensor(_))) => v,
                (AttrKind::Graph, Some(v @ Attr::Graph(_))) => v,
                (_, None) => return Err(format!("`{}` needs attribute `{name}`", kind.name())),
                (_, Some(v)) => return Err(format!("attribute `{name}` of `{}` cannot be {v:?}", kind.name())),
            };
            attrs.push((name, value));
        }
        match given.first() {
            Some((name, _)) => Err(format!("`{}` has no attribute `{name}`", kind.name())),
            None => Ok(Op { def, attrs: Attrs(attrs) }),
        }
    }
}

impl Graph {
    /// Adds an input; inputs are numbered in the order of these calls.
    pub fn input(&mut self, name: &str, ty: TensorType) -> Value {
        let op = Op::new(Kind::Input, [("index", Attr::Int(self.inputs.len() as i64))]).expect("the row of `input`");
        let value = self.push(op, vec![], vec![ty], name);
        self.inputs.push(value);
        self.input_names.push(name.to_string());
        value
    }

    /// Adds a constant.
    pub fn constant(&mut self, tensor: Tensor) -> Value {
        let ty = tensor.ty().clone();
        let op = Op::new(Kind::Const, [("value", Attr::Tensor(tensor))]).expect("the row of `const`");
        self.push(op, vec![], vec![ty], "")
    }

    /// Adds a use of operator `kind` with these attributes.
    pub fn apply(&mut self, kind: Kind, attrs: impl IntoIterator<Item = (&'static str, Attr)>, inputs: &[Value]) -> Result<Value, String> {
        self.add(Op::new(kind, attrs)?, inputs.to_vec(), "")
    }

    /// Drops the data of a constant that nobody reads any more: from now on it is empty. Its type stays.
    pub fn forget(&mut self, value: Value) {
        let node = &mut self.nodes[value.node as usize];
        if node.op.kind() == Kind::Const {
            let nothing = Tensor::zeros(TensorType::new(node.types[0].ty, [0]));
            node.op = Op::new(Kind::Const, [("value", Attr::Tensor(nothing))]).expect("a constant has a value and nothing else");
        }
    }
}
