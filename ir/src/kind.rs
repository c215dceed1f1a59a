//! The names of all operators, and what of an operator does not depend on its attributes.
//!
//! Adding an operator begins here; its row ([`OpDef`](crate::graph::OpDef)) stands in `ops/<family>.rs`.

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
    // data movement
    Reshape "reshape", Transpose "transpose", Expand "expand", Slice "slice", Concat "concat", Pad "pad",
    Pack "pack", Unpack "unpack",
    Gather "gather", GatherElements "gather_elements", GatherNd "gather_nd", ScatterElements "scatter_elements", ScatterNd "scatter_nd",
    Resample "resample", GridSample "grid_sample", RoiAlign "roi_align",
    NonZero "non_zero", Compress "compress", Unique "unique", NonMaxSuppression "non_max_suppression",
    // recurrence and control flow
    Lstm "lstm", Gru "gru", Rnn "rnn", If "if", Loop "loop",
}

/// How an operator accesses its data, as fusion, layout and memory planning need to know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// `input` and `const`.
    Source,
    /// Element `i` of the result needs element `i` of each (broadcast) input only.
    Elementwise,
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

/// What an attribute may hold.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum AttrKind {
    /// An integer, with its default.
    Int(i64),
    /// A number, with its default.
    Float(f64),
    /// Integers, always given.
    Ints,
    /// A word, one of these, the first being the default.
    Word(&'static [&'static str]),
    /// An element type, always given.
    Type,
    /// Constant data, always given.
    Tensor,
    /// A body of control flow, always given.
    Graph,
}
