//! Strided views of operands.

use dnnc_ir::{TensorType, Type};

/// How elements lie over the axes of a result: element `i` of axis `a` is `strides[a]·i` elements further, from `offset` on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct View {
    /// Element at which it starts.
    pub offset: usize,
    /// Elements from one index to the next, an axis each; 0 where it is broadcast.
    pub strides: Vec<isize>,
}

impl View {
    /// Row-major, dense.
    pub fn dense(shape: &[usize]) -> View {
        View { offset: 0, strides: TensorType::new(Type::U8, shape).strides().into_iter().map(|s| s as isize).collect() }
    }

    /// A dense tensor of shape `from` broadcast to `to`.
    pub fn broadcast(from: &[usize], to: &[usize]) -> View {
        let missing = to.len() - from.len();
        let dense = View::dense(from);
        let strides = (0..to.len()).map(|a| if a < missing || from[a - missing] == 1 { 0 } else { dense.strides[a - missing] }).collect();
        View { offset: 0, strides }
    }
}
