//! The shapes of a batch of matmuls.

use crate::kernels::lib::loops;
use crate::unit::Unit;
use dnnc_ir::TensorType;

/// A batch of products [rows, depth] · [depth, columns].
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) depth: usize,
    /// Number of products.
    pub(super) batches: usize,
    /// Sizes of the batch axes and, for each side, elements from one matrix to the next.
    pub(super) axes: Vec<usize>,
    pub(super) strides: Vec<Vec<usize>>,
    pub(super) trans_a: bool,
    pub(super) trans_b: bool,
}

impl Shape {
    pub(super) fn new(unit: &Unit) -> Shape {
        let [trans_a, trans_b] = ["trans_a", "trans_b"].map(|t| unit.op.attrs.flag(t));
        let (a, b, y) = (&unit.inputs[0].ty, &unit.inputs[1].ty, &unit.results[0]);
        let (lead, matrix) = y.shape.split_at(y.rank() - 2);
        let (rows, columns) = (matrix[0], matrix[1]);
        let depth = a.shape[a.rank() - if trans_a { 2 } else { 1 }];
        let strides = [a, b].map(|x| broadcast_strides(x, lead)).to_vec();
        let (axes, strides) = loops::merge_axes(lead, &strides);
        let mut shape = Shape { rows, columns, depth, batches: axes.iter().product(), axes, strides, trans_a, trans_b };
        // One matrix on the right for all on the left: more rows.
        if !trans_a && shape.axes.len() == 1 && shape.strides[0] == [rows * depth] && shape.strides[1] == [0] {
            shape.rows *= shape.batches;
            (shape.batches, shape.axes, shape.strides) = (1, vec![], vec![vec![]; 2]);
        }
        shape
    }
}

/// Elements from one matrix of `x` to the next along each batch axis of the result; 0 where it is broadcast.
pub(super) fn broadcast_strides(x: &TensorType, lead: &[usize]) -> Vec<usize> {
    let (strides, missing) = (x.strides(), lead.len() + 2 - x.rank());
    (0..lead.len()).map(|axis| if axis < missing || x.shape[axis - missing] == 1 { 0 } else { strides[axis - missing] }).collect()
}
