//! Operators: what one is, and the table of all of them.
//!
//! An operator is one row ([`OpDef`]): name, arity, attributes, shape rule, work and reference stand together in
//! `ops/<family>.rs`. Printer, parser, evaluator, e-graph, rule fuzzing and help read that row.

use crate::graph::Graph;
use crate::tensor::Tensor;
use crate::types::{TensorType, Type};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

macro_rules! kinds {
    ($($kind:ident $name:literal),* $(,)?) => {
        /// The operators by name. A row of [`ALL`](crate::ops::ALL) says what each is.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[allow(missing_docs)] // each is documented by its row
        pub enum Kind { $($kind),* }

        impl Kind {
            /// Every operator, in the order of the enum.
            pub const ALL: &[Kind] = &[$(Kind::$kind),*];

            /// The name in the text form.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name),* }
            }
        }
    };
}

kinds! {
    // graph
    Input "input", Const "const",
    // element-wise, one input
    Neg "neg", Abs "abs", Sign "sign", Floor "floor", Ceil "ceil", Round "round", Trunc "trunc", Sqrt "sqrt", Recip "recip",
    Exp "exp", Log "log", Log1p "log1p", Expm1 "expm1", Sin "sin", Cos "cos", Tan "tan", Asin "asin", Acos "acos", Atan "atan", Sinh "sinh", Cosh "cosh",
    Asinh "asinh", Acosh "acosh", Atanh "atanh", Tanh "tanh", Erf "erf", Sigmoid "sigmoid", Softplus "softplus", Relu "relu",
    Gelu "gelu", GeluTanh "gelu_tanh", Silu "silu", HardSwish "hard_swish", Not "not", BitNot "bit_not", IsNan "is_nan", IsInf "is_inf",
    Clamp "clamp", Cast "cast", Bitcast "bitcast",
    // element-wise, two and three inputs
    Add "add", Sub "sub", Mul "mul", Div "div", Mod "mod", Pow "pow", Min "min", Max "max",
    And "and", Or "or", Xor "xor", Shl "shl", Shr "shr", Eq "eq", Lt "lt", Le "le", Select "select",
    // reductions and scans
    ReduceSum "reduce_sum", ReduceProd "reduce_prod", ReduceMax "reduce_max", ReduceMin "reduce_min", ReduceMean "reduce_mean",
    ArgMax "arg_max", ArgMin "arg_min", CumSum "cum_sum", CumProd "cum_prod", TopK "top_k",
    // linear algebra
    MatMul "matmul", Conv "conv", ConvTranspose "conv_transpose", Attention "attention", Det "det",
    // windows
    MaxPool "max_pool", ArgMaxPool "arg_max_pool", AvgPool "avg_pool",
    // normalisation
    Softmax "softmax", LogSoftmax "log_softmax", Norm "norm", RmsNorm "rms_norm",
    // moving data
    Reshape "reshape", Transpose "transpose", Expand "expand", Slice "slice", Concat "concat", Pad "pad",
    Pack "pack", Unpack "unpack",
    Gather "gather", GatherElements "gather_elements", GatherNd "gather_nd", ScatterElements "scatter_elements", ScatterNd "scatter_nd",
    Resample "resample", GridSample "grid_sample", RoiAlign "roi_align",
    NonZero "non_zero", Compress "compress", Unique "unique", NonMaxSuppression "non_max_suppression",
    // recurrence and control flow
    Lstm "lstm", Gru "gru", Rnn "rnn", If "if", Loop "loop",
}

/// How an operator touches its data: what fusion, layout and memory planning need to know of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// `input` and `const`.
    Source,
    /// Element `i` of the result needs element `i` of each (broadcast) input only.
    Map,
    /// The result is the first input's bytes in the same order (`reshape`).
    View,
    /// Elements move and are not changed.
    Move,
    /// Anything else.
    Compute,
    /// Runs other graphs.
    Control,
}

/// How many inputs an operator takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arity {
    /// Exactly so many.
    Exactly(usize),
    /// From the first to the second number.
    Between(usize, usize),
    /// So many or more.
    AtLeast(usize),
}

impl Arity {
    /// Whether `n` inputs are right.
    pub fn admits(self, n: usize) -> bool {
        match self {
            Arity::Exactly(k) => n == k,
            Arity::Between(a, b) => (a..=b).contains(&n),
            Arity::AtLeast(k) => n >= k,
        }
    }
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Attr {
    /// A whole number; a switch is 0 or 1.
    Int(i64),
    /// A number, by its bits: so that attributes can be compared and hashed.
    Float(u64),
    /// Whole numbers, often one an axis.
    Ints(Vec<i64>),
    /// One of a few words.
    Word(&'static str),
    /// An element type.
    Type(Type),
    /// Constant data.
    Tensor(Tensor),
    /// A body of control flow.
    Graph(Arc<Graph>),
}

impl From<i64> for Attr {
    fn from(v: i64) -> Attr {
        Attr::Int(v)
    }
}
impl From<bool> for Attr {
    fn from(v: bool) -> Attr {
        Attr::Int(v.into())
    }
}
impl From<f64> for Attr {
    fn from(v: f64) -> Attr {
        Attr::Float(v.to_bits())
    }
}
impl From<Vec<i64>> for Attr {
    fn from(v: Vec<i64>) -> Attr {
        Attr::Ints(v)
    }
}
impl From<&[usize]> for Attr {
    fn from(v: &[usize]) -> Attr {
        Attr::Ints(v.iter().map(|&i| i as i64).collect())
    }
}
impl From<&'static str> for Attr {
    fn from(v: &'static str) -> Attr {
        Attr::Word(v)
    }
}
impl From<Type> for Attr {
    fn from(v: Type) -> Attr {
        Attr::Type(v)
    }
}
impl From<Tensor> for Attr {
    fn from(v: Tensor) -> Attr {
        Attr::Tensor(v)
    }
}
impl From<Graph> for Attr {
    fn from(v: Graph) -> Attr {
        Attr::Graph(Arc::new(v))
    }
}

/// What an attribute may hold.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum AttrKind {
    /// [`Attr::Int`], with its default.
    Int(i64),
    /// [`Attr::Float`], with its default.
    Float(f64),
    /// [`Attr::Ints`], always given.
    Ints,
    /// [`Attr::Word`], one of these, the first being the default.
    Word(&'static [&'static str]),
    /// [`Attr::Type`], always given.
    Type,
    /// [`Attr::Tensor`], always given.
    Tensor,
    /// [`Attr::Graph`], always given.
    Graph,
}

/// Shape rule: attributes and input types to result types, or a sentence that says what does not fit.
pub type Infer = fn(&Attrs, &[TensorType]) -> Result<Vec<TensorType>, String>;
/// Reference: attributes and inputs to results. Errors are those of the data (an index out of range).
pub type Eval = fn(&Attrs, &[Tensor]) -> Result<Vec<Tensor>, String>;

/// One operator: everything that the rest of the compiler derives from.
pub struct OpDef {
    /// Which one.
    pub kind: Kind,
    /// Meaning, with the shapes of inputs and results.
    pub doc: &'static str,
    /// Number of inputs.
    pub inputs: Arity,
    /// Attributes in the order of the text form.
    pub attrs: &'static [(&'static str, AttrKind)],
    /// How data is touched.
    pub class: Class,
    /// Shape rule.
    pub infer: Infer,
    /// The obvious implementation.
    pub eval: Eval,
    /// Multiply-accumulates, or scalar operations where there are none, from attributes, input and result types.
    pub work: fn(&Attrs, &[TensorType], &[TensorType]) -> u64,
}

/// Attributes of one operator, in the order of its definition, defaults filled in.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Attrs(Vec<(&'static str, Attr)>);

impl Attrs {
    /// Attribute `name`; panics when the operator has none of that name: the table and its readers disagree.
    pub fn get(&self, name: &str) -> &Attr {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, a)| a).unwrap_or_else(|| panic!("no attribute `{name}`"))
    }

    /// A whole number.
    pub fn int(&self, name: &str) -> i64 {
        match self.get(name) {
            Attr::Int(v) => *v,
            other => panic!("attribute `{name}` is {other:?}, not an integer"),
        }
    }

    /// A size or an axis that the shape rule has checked not to be negative.
    pub fn size(&self, name: &str) -> usize {
        usize::try_from(self.int(name)).unwrap_or_else(|_| panic!("attribute `{name}` is negative"))
    }

    /// A switch.
    pub fn flag(&self, name: &str) -> bool {
        self.int(name) != 0
    }

    /// A number.
    pub fn float(&self, name: &str) -> f64 {
        match self.get(name) {
            Attr::Float(bits) => f64::from_bits(*bits),
            other => panic!("attribute `{name}` is {other:?}, not a number"),
        }
    }

    /// Whole numbers.
    pub fn ints(&self, name: &str) -> &[i64] {
        match self.get(name) {
            Attr::Ints(v) => v,
            other => panic!("attribute `{name}` is {other:?}, not integers"),
        }
    }

    /// Whole numbers that the shape rule has checked not to be negative.
    pub fn sizes(&self, name: &str) -> Vec<usize> {
        self.ints(name).iter().map(|&v| usize::try_from(v).unwrap_or_else(|_| panic!("attribute `{name}` is negative"))).collect()
    }

    /// A word.
    pub fn word(&self, name: &str) -> &'static str {
        match self.get(name) {
            Attr::Word(v) => v,
            other => panic!("attribute `{name}` is {other:?}, not a word"),
        }
    }

    /// An element type.
    pub fn ty(&self, name: &str) -> Type {
        match self.get(name) {
            Attr::Type(v) => *v,
            other => panic!("attribute `{name}` is {other:?}, not a type"),
        }
    }

    /// Constant data.
    pub fn tensor(&self, name: &str) -> &Tensor {
        match self.get(name) {
            Attr::Tensor(v) => v,
            other => panic!("attribute `{name}` is {other:?}, not a tensor"),
        }
    }

    /// A body.
    pub fn graph(&self, name: &str) -> &Arc<Graph> {
        match self.get(name) {
            Attr::Graph(v) => v,
            other => panic!("attribute `{name}` is {other:?}, not a graph"),
        }
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Attr)> {
        self.0.iter().map(|(n, a)| (*n, a))
    }
}

/// An operator with its attributes.
#[derive(Clone)]
pub struct Op {
    /// Its row in the table.
    pub def: &'static OpDef,
    /// Its attributes.
    pub attrs: Attrs,
}

impl Op {
    /// Operator `kind` with the attributes given; the others take their defaults. An error names what is unknown, missing or of
    /// the wrong kind.
    pub fn new(kind: Kind, given: impl IntoIterator<Item = (&'static str, Attr)>) -> Result<Op, String> {
        let def = crate::ops::def(kind);
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

    /// Which operator.
    pub fn kind(&self) -> Kind {
        self.def.kind
    }

    /// The same operator with attribute `name` changed.
    pub fn with(&self, name: &'static str, value: impl Into<Attr>) -> Op {
        let mut op = self.clone();
        let slot = op.attrs.0.iter_mut().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no attribute `{name}`"));
        slot.1 = value.into();
        op
    }
}

impl PartialEq for Op {
    fn eq(&self, other: &Op) -> bool {
        self.kind() == other.kind() && self.attrs == other.attrs
    }
}
impl Eq for Op {}
impl Hash for Op {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind().hash(state);
        self.attrs.hash(state);
    }
}
impl PartialOrd for Op {
    fn partial_cmp(&self, other: &Op) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Op {
    fn cmp(&self, other: &Op) -> std::cmp::Ordering {
        (self.kind(), &self.attrs).cmp(&(other.kind(), &other.attrs))
    }
}
impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.kind().name(), self.attrs)
    }
}
