//! Sparsity: the positions of non-zeros of constants, a fact about their class that is known long before their values are computed.

use crate::term::OpRef;
use dnnc_ir::eval::eval_op;
use dnnc_ir::{Kind, Tensor, TensorType, Type};
use std::sync::{Arc, OnceLock};

/// Constants of a greater density count as dense.
const DENSE: f64 = 0.8;
/// Elements of a literal that are sampled before all are read.
const SAMPLE: usize = 4096;

/// The positions of non-zeros of an f32 constant.
#[derive(Clone, Debug)]
pub struct SparsityPattern(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// 1 where the element is not 0.
    mask: Tensor,
    density: f64,
    rows: OnceLock<f64>,
    columns: OnceLock<f64>,
}

impl SparsityPattern {
    /// The pattern of a literal; none if it is dense.
    pub fn of(value: &Tensor) -> Option<SparsityPattern> {
        let ty = value.ty();
        if ty.ty != Type::F32 || ty.rank() < 2 {
            return None;
        }
        let values = value.values::<f32>();
        let few = values.iter().step_by((values.len() / SAMPLE) | 1);
        if few.clone().filter(|&&v| v != 0.0).count() as f64 > DENSE * few.len() as f64 {
            return None;
        }
        let mask: Vec<u8> = values.iter().map(|&v| u8::from(v != 0.0)).collect();
        SparsityPattern::new(Tensor::new(ty.shape.clone(), &mask))
    }

    /// The pattern of an operator's result, from those of its operands (of the others only the types are given); none if it is dense or not known.
    pub fn through(
        op: &OpRef,
        inputs: &[(&TensorType, Option<&SparsityPattern>, Option<&Tensor>)],
        result: &TensorType,
    ) -> Option<SparsityPattern> {
        if result.ty != Type::F32 || result.rank() < 2 {
            return None;
        }
        let has_zeros = |i: usize| inputs[i].1.is_some();
        let moves = match op.kind() {
            Kind::Reshape | Kind::Transpose | Kind::Slice | Kind::Gather => has_zeros(0),
            Kind::Pad => inputs[1].2.is_some_and(|v| v.values::<f32>() == [0.0]) && op.attrs.word("mode") == "constant",
            Kind::Concat | Kind::Mul => (0..inputs.len()).any(has_zeros),
            _ => false,
        };
        if !moves {
            return None;
        }
        let mask = |(ty, filled, value): &(&TensorType, Option<&SparsityPattern>, Option<&Tensor>)| match (filled, value) {
            (Some(filled), _) => Some(filled.0.mask.clone()),
            // Indices, and padding values.
            (None, Some(value)) if ty.ty != Type::F32 => Some((*value).clone()),
            (None, Some(value)) if ty.rank() == 0 => Some(Tensor::scalar(u8::from(value.values::<f32>() != [0.0]))),
            (None, _) if ty.ty == Type::F32 => Some(Tensor::new(ty.shape.clone(), &vec![1u8; ty.len()])),
            _ => None,
        };
        let masks: Option<Vec<Tensor>> = inputs.iter().map(mask).collect();
        SparsityPattern::new(eval_op(op, &masks?).ok()?.pop()?)
    }

    fn new(mask: Tensor) -> Option<SparsityPattern> {
        let filled = mask.values::<u8>().iter().map(|&v| usize::from(v)).sum::<usize>();
        let density = filled as f64 / mask.len().max(1) as f64;
        (density <= DENSE).then(|| SparsityPattern(Arc::new(Inner { mask, density, rows: OnceLock::new(), columns: OnceLock::new() })))
    }

    /// Share of non-zeros.
    pub fn density(&self) -> f64 {
        self.0.density
    }

    /// Share of blocks of `width` elements along the first axis that have a non-zero. `width` must be the same in every call: that of the machine.
    pub fn rows(&self, width: usize) -> f64 {
        *self.0.rows.get_or_init(|| {
            let rows = self.0.mask.ty().shape[0];
            blocks(self.0.mask.values::<u8>(), rows, self.0.mask.len() / rows.max(1), width)
        })
    }

    /// The same along the last axis of a matrix.
    pub fn columns(&self, width: usize) -> f64 {
        *self.0.columns.get_or_init(|| {
            let mask = self.0.mask.values::<u8>();
            let lines = mask.chunks(self.0.mask.ty().shape.last().copied().unwrap_or(1).max(1));
            let (mut all, mut some) = (0, 0);
            for block in lines.flat_map(|line| line.chunks(width)) {
                all += 1;
                some += usize::from(block.iter().any(|&v| v != 0));
            }
            some as f64 / f64::from(all.max(1))
        })
    }
}

/// Share of blocks of `width` elements of a column that have a non-zero.
fn blocks(mask: &[u8], rows: usize, columns: usize, width: usize) -> f64 {
    let mut some = 0usize;
    for block in mask.chunks((width * columns).max(1)) {
        let mut any = vec![0u8; columns];
        for row in block.chunks(columns.max(1)) {
            any.iter_mut().zip(row).for_each(|(a, &v)| *a |= v);
        }
        some += any.iter().map(|&v| usize::from(v)).sum::<usize>();
    }
    some as f64 / (rows.div_ceil(width) * columns).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use dnnc_ir::{Attr, Op};

    fn op(kind: Kind, attrs: Vec<(&'static str, Attr)>) -> OpRef {
        OpRef::new(Op::new(kind, attrs).expect("attributes"))
    }

    /// Weights of `groups` groups of `o` outputs and `c` inputs, as those of a dense convolution.
    fn spread(groups: usize, o: usize, c: usize) -> Tensor {
        let inside = |i: usize| i / (groups * c) / o == i % (groups * c) / c;
        let values: Vec<f32> = (0..groups * o * groups * c).map(|i| if inside(i) { 1.0 } else { 0.0 }).collect();
        Tensor::new([groups * o, groups * c, 1, 1], &values)
    }

    #[test]
    fn blocks_of_groups_are_counted() {
        assert!(SparsityPattern::of(&Tensor::new([4, 4], &[1.0f32; 16])).is_none());
        let filled = SparsityPattern::of(&spread(4, 16, 3)).expect("three quarters are 0");
        assert_eq!((filled.density(), filled.rows(8)), (0.25, 0.25));
        // 12 outputs a group: every third block of 8 has two groups.
        let filled = SparsityPattern::of(&spread(4, 12, 3)).expect("three quarters are 0");
        assert_eq!(filled.rows(8), 8.0 / 24.0);
    }

    #[test]
    fn an_order_of_inputs_keeps_blocks_and_one_of_outputs_does_not() {
        let w = spread(4, 16, 4);
        let filled = SparsityPattern::of(&w).expect("three quarters are 0");
        let gathered = |axis: i64, count: usize| {
            let order: Vec<i64> = (0..count).map(|i| (i % 4 * (count / 4) + i / 4) as i64).collect();
            let index = Tensor::new([count], &order);
            let inputs = [(w.ty(), Some(&filled), None), (index.ty(), None, Some(&index))];
            SparsityPattern::through(&op(Kind::Gather, vec![("axis", Attr::Int(axis))]), &inputs, w.ty()).expect("zeros are only moved")
        };
        assert_eq!(gathered(1, 16).rows(8), 0.25);
        assert_eq!(gathered(0, 64).rows(8), 1.0);
    }

    #[test]
    fn padding_makes_zeros_and_scaling_keeps_them() {
        let (w, zero, one) = (TensorType::new(Type::F32, [4, 2]), Tensor::scalar(0.0f32), Tensor::scalar(1.0f32));
        let pads = vec![("pads", Attr::from(vec![0i64, 0, 0, 6])), ("mode", Attr::Word("constant"))];
        let wide = TensorType::new(Type::F32, [4, 8]);
        let padded = |value: &Tensor| {
            SparsityPattern::through(&op(Kind::Pad, pads.clone()), &[(&w, None, None), (value.ty(), None, Some(value))], &wide)
        };
        assert!(padded(&one).is_none());
        let filled = padded(&zero).expect("three quarters are 0");
        assert_eq!((filled.density(), filled.columns(8)), (0.25, 1.0));
        let scale = TensorType::new(Type::F32, [4, 1]);
        let scaled = SparsityPattern::through(&op(Kind::Mul, vec![]), &[(&wide, Some(&filled), None), (&scale, None, None)], &wide);
        assert_eq!(scaled.expect("zeros stay").density(), 0.25);
    }
}
