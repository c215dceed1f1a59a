//! Types of random operands.

use super::instance::{BLOCK, Instance};
use dnnc_ir::random::Rng;
use dnnc_ir::{Kind, Op, TensorType, Type};

impl Instance<'_> {
    /// What operand `i` of an operator that is not element-wise should look like.
    pub(super) fn operand(
        &mut self,
        kind: Kind,
        i: usize,
        types: &[TensorType],
        want: Option<&TensorType>,
        perm: &[i64],
        (trans_a, trans_b): (bool, bool),
        before: Option<&Op>,
    ) -> Option<TensorType> {
        let elem = want.map_or(self.elem, |t| t.ty);
        let want_shape = want.map(|t| t.shape.clone());
        let base = self.base.clone();
        let shuffles = self.rule.name == "channel shuffle as gather";
        let reorders = self.rule.name == "pixel reordering in NCHWc";
        let asks = |name: &str| self.rule.conditions.iter().any(|(n, ..)| *n == name);
        let volumetric = asks("one_3d_image");
        let (dense, grouped, few) = (asks("dense"), asks("depthwise"), asks("few_groups"));
        let narrow = asks("narrow_groups");
        let r = &mut *self.random;
        let column = asks("single_column");
        let image = |r: &mut Rng| {
            if column {
                return vec![1 + r.below(2), 1 + r.below(4), 2 + r.below(5), 1];
            }
            if volumetric {
                return vec![1, 1 + r.below(3), 1 + r.below(5), 1 + r.below(4), 1 + r.below(4)];
            }
            let channels = if narrow { r.pick(&[8, 16]) } else { r.pick(&[1, 2, 3, 4, 6, 8]) };
            let mut shape = vec![1 + r.below(2), channels];
            let axes = if r.chance(20) { 1 } else { 2 };
            shape.extend((0..axes).map(|_| 1 + r.below(6)));
            shape
        };
        let swap = |mut s: Vec<usize>, yes: bool| {
            let n = s.len();
            if yes && n >= 2 {
                s.swap(n - 1, n - 2);
            }
            s
        };
        let shape = match (kind, i) {
            (Kind::Conv | Kind::ConvTranspose | Kind::MaxPool | Kind::AvgPool, 0) => want_shape.unwrap_or_else(|| image(r)),
            (Kind::Conv, 1) => {
                let x = &types[0].shape;
                if x.len() < 3 {
                    return None;
                }
                let groups = match before {
                    Some(op) => op.attrs.size("groups"),
                    None if dense => 1,
                    None if grouped => x[1],
                    None if few => 2,
                    None if narrow => 4,
                    None => r.pick(&[1, 1, 1, x[1], 2]),
                };
                let outputs = groups * if narrow || r.chance(50) { (x[1] / groups).max(1) } else { 1 + r.below(6) };
                let kernel = *[1, 1, 3, 3, 2].get(r.below(5)).unwrap_or(&1);
                let mut shape = vec![outputs, (x[1] / groups).max(1)];
                if column {
                    shape.extend([kernel, 1]);
                    return Some(TensorType::new(elem, shape));
                }
                shape.extend(x[2..].iter().map(|&s| if x.len() == 4 { kernel } else { kernel.min(s) }));
                shape
            }
            (Kind::ConvTranspose, 1) => {
                let x = &types[0].shape;
                if x.len() < 3 {
                    return None;
                }
                let mut shape = vec![x[1], 1 + r.below(3)];
                shape.extend(x[2..].iter().map(|_| 1 + r.below(3)));
                shape
            }
            (Kind::Conv | Kind::ConvTranspose, _) => vec![*types[1].shape.first()?],
            (Kind::MatMul, 0) => want_shape.filter(|s| s.len() >= 2).unwrap_or_else(|| {
                let mut shape = vec![1 + r.below(3); r.below(3)];
                shape.extend([1 + r.below(5), 1 + r.below(5)]);
                shape
            }),
            (Kind::MatMul, _) => {
                let a = swap(types[0].shape.clone(), trans_a);
                let k = *a.last()?;
                let mut shape = if r.chance(50) { vec![] } else { a[..a.len() - 2].to_vec() };
                let n = want_shape.and_then(|s| s.last().copied()).unwrap_or(1 + r.below(5));
                shape.extend(swap(vec![k, n], trans_b));
                shape
            }
            (Kind::Attention, 0) => vec![2, 1 + r.below(4), 1 + r.below(4)],
            (Kind::Attention, 1) => vec![2, 1 + r.below(4), *types[0].shape.last()?],
            (Kind::Attention, _) => vec![2, types[1].shape[1], 1 + r.below(4)],
            (Kind::Transpose, _) => match want_shape {
                Some(s) if s.len() == perm.len() => {
                    let mut source = vec![0; s.len()];
                    perm.iter().enumerate().for_each(|(i, &p)| source[p as usize] = s[i]);
                    source
                }
                _ => base,
            },
            (Kind::Pad, 0) => want_shape.unwrap_or_else(|| if r.chance(50) { image(r) } else { base }),
            (Kind::Pad, _) => vec![],
            (Kind::Unpack, _) if reorders => vec![r.pick(&[1, 4]), 1 + r.below(4), 2 * r.below(3), 2 + 2 * r.below(2), BLOCK],
            (Kind::Unpack, _) => {
                let mut shape = match want_shape.filter(|s| s.len() == 4) {
                    Some(s) => vec![s[0], s[1].div_ceil(BLOCK), s[2], s[3]],
                    None => vec![1 + r.below(2), 1 + r.below(2), 1 + r.below(4), 1 + r.below(4)],
                };
                if r.chance(20) {
                    (shape[2], shape[3]) = (1, 1);
                }
                shape.push(BLOCK);
                shape
            }
            (Kind::Pack, _) => image(r),
            (Kind::Gather, 1) if asks("spatial_axis") => return Some(TensorType::new(Type::I64, [1 + r.below(3)])),
            (Kind::Gather, 1) if types[0].rank() >= 3 => return Some(TensorType::new(Type::I64, [types[0].shape[1]])),
            (Kind::Gather, 1) => return Some(TensorType::new(Type::I64, vec![1 + r.below(3); r.below(2)])),
            (Kind::Resample, 1) => return Some(TensorType::new(Type::I64, [1 + r.below(4), 2])),
            (Kind::Resample, 2) => types[1].shape.clone(),
            (Kind::Concat, i) if i > 0 => types[0].shape.clone(),
            (Kind::Reshape, _) if shuffles => base,
            (Kind::Reshape, _) if want.is_some() => {
                let n: usize = want_shape.unwrap_or_default().iter().product();
                if r.chance(50) { vec![n] } else { vec![1, n, 1] }
            }
            (Kind::Cast, _) => {
                return Some(TensorType::new(r.pick(&[Type::F32, Type::F16, Type::I32, Type::I8, Type::Bool, Type::F64]), base));
            }
            _ => want_shape.unwrap_or(base),
        };
        Some(TensorType::new(elem, shape))
    }
}
