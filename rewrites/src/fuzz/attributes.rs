//! Random attributes of operators.

use super::instance::{BLOCK, Instance, Made};
use dnnc_ir::random::Rng;
use dnnc_ir::{Attr, Kind, Op, TensorType, Type};

impl Instance<'_> {
    /// Random attributes of an operator on these operands.
    pub(super) fn attributes(
        &mut self,
        kind: Kind,
        slot: Option<usize>,
        x: &[TensorType],
        perm: &[i64],
        (trans_a, trans_b): (bool, bool),
    ) -> Made<Op> {
        let rank = x.first().map_or(0, |t| t.rank());
        let shape: Vec<i64> = x.first().map_or(vec![], |t| t.shape.iter().map(|&s| s as i64).collect());
        let window = matches!(kind, Kind::Conv | Kind::ConvTranspose | Kind::MaxPool | Kind::AvgPool);
        if window && x.iter().take(2).any(|t| t.rank() < 3 || t.rank() != rank) || kind == Kind::Unpack && rank != 5 {
            return Err("the operands are no images".into());
        }
        let range = slot.and_then(|s| self.condition("is_clamp", s));
        let relu = slot.is_some_and(|s| self.condition("is_relu", s).is_some());
        let pointwise = slot.is_some_and(|s| self.condition("pointwise", s).is_some());
        let unpadded = slot.is_some_and(|s| self.condition("unpadded", s).is_some() || self.condition("unpadded_windows", s).is_some());
        let spatial = slot.is_some_and(|s| self.condition("spatial_axes", s).is_some());
        let kept = slot.is_some_and(|s| self.condition("keeps_axes", s).is_some() || self.condition("keeps_axes", s).is_some());
        let asks = |name: &str| self.rule.conditions.iter().any(|(n, ..)| *n == name);
        let widened = self.of_bytes();
        let (whole, quantised) = (asks("is_integral"), asks("lowest_of") || asks("lowest_zero"));
        let shuffles = self.rule.name == "channel shuffle as gather";
        let reorders = self.rule.name == "pixel reordering in NCHWc";
        let unbounded = slot.is_some_and(|s| self.condition("unbounded", s).is_some());
        let r = &mut *self.random;
        let axes = |r: &mut Rng| -> Vec<i64> {
            if spatial {
                return r.pick(&[vec![2, 3], vec![2], vec![3]]);
            }
            match r.below(3) {
                0 if rank > 0 => vec![rank as i64 - 1],
                1 if rank == 4 => vec![2, 3],
                _ => (0..rank as i64).filter(|_| r.chance(50)).collect(),
            }
        };
        let axis = |r: &mut Rng| -> Attr {
            Attr::Int(if rank == 0 {
                0
            } else if r.chance(50) {
                rank as i64 - 1
            } else {
                r.below(rank) as i64
            })
        };
        let each =
            |r: &mut Rng, n: usize, most: usize| -> Attr { Attr::from((0..n).map(|_| r.below(most + 1) as i64).collect::<Vec<_>>()) };
        let spatial_rank = rank.saturating_sub(2);
        let attrs: Vec<(&'static str, Attr)> = match kind {
            Kind::Clamp => match range {
                Some(range) => vec![("lo", Attr::from(range[0])), ("hi", Attr::from(range[1]))],
                None if relu => vec![("lo", Attr::from(0.0))],
                None if unbounded => vec![],
                None => {
                    let lo = r.below(5) as f64 / 2.0 - 1.5;
                    vec![("lo", Attr::from(lo)), ("hi", Attr::from(lo + r.below(4) as f64 / 2.0))]
                }
            },
            Kind::Cast if widened.is_some() => vec![("to", Attr::Type(widened.expect("just seen")))],
            Kind::Cast if whole => vec![("to", Attr::Type(Type::F32))],
            Kind::Cast if quantised => vec![("to", Attr::Type(r.pick(&[Type::I8, Type::U8])))],
            Kind::Cast => vec![("to", Attr::Type(r.pick(&[x[0].ty, Type::F32, Type::F16, Type::I32, Type::I8, Type::Bool, Type::F64])))],
            Kind::Bitcast => vec![("to", Attr::Type(x[0].ty))],
            Kind::ReduceSum | Kind::ReduceProd | Kind::ReduceMax | Kind::ReduceMin | Kind::ReduceMean => {
                vec![("axes", Attr::from(axes(r))), ("keepdims", Attr::from(kept || r.chance(50)))]
            }
            Kind::Gather if asks("spatial_axis") => vec![("axis", Attr::Int(2 + r.below(2) as i64))],
            Kind::Gather if rank >= 3 => vec![("axis", Attr::Int(1))],
            Kind::Softmax | Kind::LogSoftmax | Kind::Concat | Kind::Gather | Kind::Resample => {
                let along = if spatial || kind == Kind::Resample { Attr::Int(2 + r.below(2) as i64) } else { axis(r) };
                vec![("axis", if kind == Kind::Concat && rank == 4 && r.chance(50) { Attr::Int(1) } else { along })]
            }
            Kind::Norm | Kind::RmsNorm => vec![("axes", Attr::from(axes(r))), ("eps", Attr::from(1e-3))],
            Kind::MatMul => vec![("trans_a", Attr::from(trans_a)), ("trans_b", Attr::from(trans_b))],
            Kind::Attention => vec![("scale", Attr::from(0.5 + r.below(3) as f64 / 4.0))],
            Kind::Conv | Kind::ConvTranspose => {
                let groups = if kind == Kind::Conv { shape[1] as usize / x[1].shape[1].max(1) } else { r.pick(&[1, 1, x[0].shape[1]]) };
                let same = !pointwise && !unpadded && r.chance(40);
                let one = Attr::from(vec![1; spatial_rank]);
                let strides = if pointwise || same || r.chance(40) {
                    one.clone()
                } else {
                    Attr::from((0..spatial_rank).map(|_| 1 + r.below(2) as i64).collect::<Vec<_>>())
                };
                let dilations = if pointwise || same || r.chance(60) { one } else { Attr::from(vec![2; spatial_rank]) };
                let pads = if pointwise || unpadded {
                    Attr::from(vec![0; 2 * spatial_rank])
                } else if same {
                    let half: Vec<i64> = x[1].shape[2..].iter().map(|&k| (k as i64 - 1) / 2).collect();
                    Attr::from([half.clone(), half].concat())
                } else {
                    let mut pads: Vec<i64> = (0..2 * spatial_rank).map(|_| r.below(3) as i64).collect();
                    if asks("single_column") {
                        pads.iter_mut().skip(1).step_by(2).for_each(|p| *p = 0);
                    }
                    Attr::from(pads)
                };
                let mut attrs = vec![("strides", strides), ("pads", pads), ("dilations", dilations), ("groups", Attr::Int(groups as i64))];
                if kind == Kind::ConvTranspose {
                    attrs.push(("output_padding", Attr::from(vec![0; spatial_rank])));
                }
                attrs
            }
            Kind::MaxPool | Kind::AvgPool => {
                let mut kernel: Vec<i64> = (0..spatial_rank).map(|_| 1 + r.below(3) as i64).collect();
                let few = asks("small_window");
                if few || asks("single_column") {
                    kernel[1..].fill(1);
                }
                let bare = unpadded || r.chance(40);
                let pads: Vec<i64> =
                    [&kernel[..], &kernel[..]].concat().iter().map(|&k| if bare { 0 } else { r.below(k as usize) as i64 }).collect();
                let mut attrs = vec![
                    ("kernel", Attr::from(kernel)),
                    ("strides", Attr::from((0..spatial_rank).map(|_| if few { 1 } else { 1 + r.below(2) as i64 }).collect::<Vec<_>>())),
                    ("pads", Attr::from(pads)),
                    ("dilations", Attr::from(vec![1; spatial_rank])),
                ];
                if kind == Kind::AvgPool {
                    let extra = if bare { Attr::from(vec![0; spatial_rank]) } else { each(r, spatial_rank, 1) };
                    attrs.extend([("include_pad", Attr::from(r.chance(50))), ("extra", extra)]);
                }
                attrs
            }
            Kind::Reshape if reorders && rank == 4 => {
                let [n, c, h, w] = [0, 1, 2, 3].map(|i| shape[i]);
                let grids = [vec![n, c, h / 2, 2, w / 2, 2], vec![n / 4, 2, 2, c, h, w], vec![n, 2, 2, c / 4, h, w]];
                vec![("shape", Attr::from(r.pick(&grids)))]
            }
            Kind::Transpose if reorders && rank == 6 => {
                vec![("perm", Attr::from(r.pick(&[vec![0, 3, 5, 1, 2, 4], vec![0, 3, 4, 1, 5, 2]])))]
            }
            Kind::Reshape if reorders && rank == 6 => {
                let [a, b, c, d, e, f] = [0, 1, 2, 3, 4, 5].map(|i| shape[i]);
                vec![("shape", Attr::from(r.pick(&[vec![a * b * c, d, e, f], vec![a, b, c * d, e * f]])))]
            }
            Kind::Transpose if !shuffles => {
                vec![("perm", Attr::from(if perm.len() == rank { perm.to_vec() } else { self.permutation(rank) }))]
            }
            Kind::Reshape if shuffles && rank == 4 && shape[1] % 2 == 0 => {
                vec![("shape", Attr::from(vec![shape[0], 2, shape[1] / 2, shape[2], shape[3]]))]
            }
            Kind::Reshape if shuffles && rank == 5 => vec![("shape", Attr::from(vec![shape[0], shape[1] * shape[2], shape[3], shape[4]]))],
            Kind::Transpose if shuffles && rank == 5 => vec![("perm", Attr::from(vec![0, 2, 1, 3, 4]))],
            Kind::Reshape => {
                let n: i64 = shape.iter().product();
                let mut squeezed: Vec<i64> = shape.iter().copied().filter(|&s| s != 1).collect();
                let options = match r.below(5) {
                    0 => vec![n],
                    1 => vec![1, n, 1],
                    2 => shape.clone(),
                    3 => {
                        if r.chance(50) {
                            squeezed.push(1);
                        }
                        squeezed
                    }
                    _ if n % 2 == 0 => vec![2, n / 2],
                    _ => vec![n, 1],
                };
                vec![("shape", Attr::from(options))]
            }
            Kind::Expand => {
                let mut to: Vec<i64> = shape.iter().map(|&s| if s == 1 && r.chance(70) { 1 + r.below(3) as i64 } else { s }).collect();
                if r.chance(20) {
                    to.insert(0, 2);
                }
                vec![("shape", Attr::from(to))]
            }
            Kind::Slice => {
                let (mut starts, mut sizes, mut steps) = (vec![], vec![], vec![]);
                let whole = r.chance(30);
                for &n in &shape {
                    let all = whole || r.chance(50);
                    let anywhere = r.below(n.max(1) as usize) as i64;
                    let start = if all { 0 } else { r.pick(&[0, n / 2, anywhere]) };
                    let size = if all { n } else { 1 + r.below((n - start) as usize) as i64 };
                    let backwards = !whole && size == 1 && r.chance(10);
                    starts.push(start);
                    sizes.push(size);
                    steps.push(if backwards { -1 } else { 1 });
                }
                vec![("starts", Attr::from(starts)), ("sizes", Attr::from(sizes)), ("steps", Attr::from(steps))]
            }
            Kind::Pad => {
                let none = r.chance(20);
                let spatial_only = r.chance(80);
                let pads: Vec<i64> =
                    (0..2 * rank).map(|i| if none || spatial_only && rank >= 3 && i % rank < 2 { 0 } else { r.below(3) as i64 }).collect();
                vec![("pads", Attr::from(pads)), ("mode", Attr::Word(r.pick(&["constant", "constant", "edge"])))]
            }
            Kind::Pack => vec![("axis", Attr::Int(1)), ("block", Attr::Int(BLOCK as i64))],
            Kind::Unpack => {
                let size = shape[1] * BLOCK as i64 - if r.chance(60) { 0 } else { r.below(BLOCK) as i64 };
                vec![("axis", Attr::Int(1)), ("block", Attr::Int(BLOCK as i64)), ("size", Attr::Int(size))]
            }
            _ => vec![],
        };
        Op::new(kind, attrs)
    }
}
