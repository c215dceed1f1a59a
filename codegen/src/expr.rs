//! Element-wise expressions: what fusion makes of trees of `Class::Map` operators.

use dnnc_ir::{Op, Tensor, Type};

/// A tree (or DAG) of element-wise operators. Operands are numbered; the last node is the result.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Expr {
    /// Nodes in an order in which they can be computed.
    pub nodes: Vec<ExprNode>,
}

/// A node of an expression.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ExprNode {
    /// What is computed.
    pub what: What,
    /// Type of the element.
    pub ty: Type,
}

/// What a node of an expression is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum What {
    /// The element of operand `n`.
    Operand(usize),
    /// A constant of one element.
    Const(Tensor),
    /// An operator of `Class::Map` on earlier nodes.
    Apply(Op, Vec<usize>),
}

/// An expression computed on the result of another kernel before it is stored. Operand 0 is that result; operand `i + 1` is `operands[i]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Epilogue {
    /// The expression; its result has the shape of operand 0, perhaps another element type.
    pub expr: Expr,
    /// The further operands.
    pub operands: Vec<Extra>,
}

/// A further operand of an epilogue.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Extra {
    /// Element type in memory.
    pub ty: Type,
    /// How it is spread over the result.
    pub access: Access,
}

/// How an operand of an epilogue is spread over the result it is combined with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// One element for each of the result, at the same offset.
    Full,
    /// One element a channel: axis 1 of a plain convolution or pooling result; the channel `block·b + lane` of a packed one;
    /// the last axis of a matmul, norm or softmax result. Stored densely, padded to whole blocks for packed results.
    Channel,
    /// One element in all.
    Scalar,
}
