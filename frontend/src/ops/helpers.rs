//! Helpers of importers: checked sizes, and small compositions.

use super::expr::v;
use crate::build::{Build, Fail, Node, Result, axis, invalid};
use dnnc_ir::{Attr, Kind, Tensor, Type, Value};

/// Sizes and offsets beyond this are refused: no tensor that fits a machine needs them, and sums of a few of them stay in range.
const MOST: i64 = 1 << 40;

/// What an importer returns: one value per output.
pub(super) type Outputs = Result<Vec<Value>>;

/// The single output of a node.
pub(super) fn one(y: Result<Value>) -> Outputs {
    y.map(|y| vec![y])
}

/// A size that a tensor can have.
pub(super) fn size(n: i64) -> Result<usize> {
    if (0..=MOST).contains(&n) { Ok(n as usize) } else { invalid!("{n} is no size of a tensor") }
}

/// Sizes that tensors can have.
pub(super) fn sizes(list: &[i64]) -> Result<Vec<usize>> {
    list.iter().map(|&n| size(n)).collect()
}

/// A count that must be at least one.
pub(super) fn positive(what: &str, n: i64) -> Result<usize> {
    if (1..=MOST).contains(&n) { Ok(n as usize) } else { invalid!("{what} is {n}") }
}

/// Number of elements of a shape.
pub(super) fn count(shape: &[usize]) -> Result<usize> {
    let n = shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s)).filter(|&n| n as i64 <= MOST && n as i64 >= 0);
    n.ok_or_else(|| Fail::Invalid("a tensor has too many elements".into()))
}

/// The permutation that moves the axes `last`, in this order, after all others.
pub(super) fn moved_last(rank: usize, last: &[usize]) -> Vec<usize> {
    (0..rank).filter(|a| !last.contains(a)).chain(last.iter().copied()).collect()
}

/// The permutation that undoes `perm`.
pub(super) fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut back = vec![0; perm.len()];
    for (i, &p) in perm.iter().enumerate() {
        back[p] = i;
    }
    back
}

pub(super) fn channels_first(b: &mut Build, x: Value, last: bool, f: impl FnOnce(&mut Build, Value) -> Result<Value>) -> Result<Value> {
    let rank = b.rank(x);
    if !last || rank < 3 {
        return f(b, x);
    }
    let perm: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    let x = b.transpose(x, &perm)?;
    let y = f(b, x)?;
    b.transpose(y, &inverse(&perm))
}

impl Node<'_> {
    /// An axis given as an attribute.
    pub(super) fn axis(&self, name: &str, default: i64, rank: usize) -> Result<usize> {
        axis(self.int(name, default)?, rank)
    }

    /// A number given as an attribute, widened.
    pub(super) fn num(&self, name: &str, default: f64) -> Result<f64> {
        Ok(self.opt_float(name)?.map_or(default, f64::from))
    }

    /// An element type given as an attribute, where 0 stands for none.
    pub(super) fn dtype_if_set(&self, name: &str) -> Result<Option<Type>> {
        if self.int(name, 0)? == 0 { Ok(None) } else { self.dtype(name) }
    }

    /// A list of integers that is an attribute (`name`) in old opsets and input `i`, needed now, in newer ones.
    pub(super) fn ints_or_input(&self, b: &mut Build, name: &str, i: usize) -> Result<Option<Vec<i64>>> {
        match self.opt(i) {
            Some(x) => b.need_i64s(x).map(Some),
            None => self.ints(name),
        }
    }
}

impl Build {
    /// The rank-0 number that a tensor of one element holds.
    pub(super) fn scalar_of(&mut self, x: Value) -> Result<Value> {
        match count(&self.shape(x))? {
            1 => self.reshape(x, &[]),
            n => invalid!("one number was expected, {n} are there"),
        }
    }

    /// The element of a tensor of one element, if it is known.
    pub(super) fn known_f64(&mut self, x: Value) -> Option<f64> {
        match self.known(x)?.to_f64s()[..] {
            [n] => Some(n),
            _ => None,
        }
    }

    /// Whether every element is known to be zero.
    pub(super) fn is_zero(&mut self, x: Value) -> bool {
        self.known(x).is_some_and(|t| t.bytes().iter().all(|&b| b == 0))
    }

    /// A vector reshaped to broadcast along `axis` of a tensor of `rank` axes.
    pub(super) fn along(&mut self, x: Value, axis: usize, rank: usize) -> Result<Value> {
        let n = count(&self.shape(x))?;
        let shape: Vec<usize> = (0..rank).map(|a| if a == axis { n } else { 1 }).collect();
        self.reshape(x, &shape)
    }

    /// A vector of one element per channel (axis 1), checked and reshaped to broadcast along that axis of `x`.
    pub(super) fn channels(&mut self, x: Value, vector: Value) -> Result<Value> {
        let (shape, given) = (self.shape(x), self.shape(vector));
        match shape.get(1) {
            Some(c) if count(&given)? == *c => self.along(vector, 1, shape.len()),
            _ => invalid!("shape {given:?} is not one number per channel of {shape:?}"),
        }
    }

    /// Constant padding; `pads` are begins, then ends.
    pub(super) fn pad(&mut self, x: Value, pads: &[usize], value: Value) -> Result<Value> {
        if pads.iter().all(|&p| p == 0) {
            return Ok(x);
        }
        self.op(Kind::Pad, [("pads", pads.into()), ("mode", "constant".into())], &[x, value])
    }

    /// The i64 constants 0, 1, … n−1.
    pub(super) fn iota(&mut self, n: usize) -> Result<Value> {
        self.check_size(&dnnc_ir::TensorType::new(Type::I64, [n]))?;
        let list: Vec<i64> = (0..n as i64).collect();
        Ok(self.i64s(&list))
    }

    /// A constant of f64 numbers rounded to `ty`.
    pub(super) fn table(&mut self, ty: Type, shape: &[usize], numbers: &[f64]) -> Result<Value> {
        match crate::build::rounded(Tensor::new(shape, numbers), ty) {
            Some(t) => Ok(self.constant(t)),
            None => invalid!("no cast to {ty}"),
        }
    }

    /// f16 and bf16 as f32, the width in which kernels compute them; other types as they are.
    pub(super) fn wide(&mut self, x: Value) -> Result<Value> {
        match self.elem(x) {
            Type::F16 | Type::BF16 => self.cast(x, Type::F32),
            _ => Ok(x),
        }
    }

    /// A float tensor for an operator on floats that also takes integers: f64 for wide integers, else at least f32.
    pub(super) fn float(&mut self, x: Value) -> Result<Value> {
        match self.elem(x) {
            Type::F64 | Type::F32 => Ok(x),
            Type::I64 | Type::U64 | Type::I32 | Type::U32 => self.cast(x, Type::F64),
            _ => self.cast(x, Type::F32),
        }
    }

    /// i64 indices along an axis of `n`, negative ones counted from the end.
    pub(super) fn index(&mut self, idx: Value, n: usize) -> Result<Value> {
        let idx = self.cast(idx, Type::I64)?;
        self.emit(v(idx).lt(0.0).select(v(idx) + n as f64, idx))
    }

    /// The axis attribute of operators that take one.
    pub(super) fn on_axis(&mut self, kind: Kind, x: Value, axis: usize) -> Result<Value> {
        self.op(kind, [("axis", Attr::Int(axis as i64))], &[x])
    }
}
