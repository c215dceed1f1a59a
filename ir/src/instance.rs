//! Random valid uses of every operator, for tests of operators, rules, kernels and text, and for fuzzing.

use crate::eval;
use crate::graph::{Attr, Op};
use crate::graph::{Graph, Value};
use crate::kind::{AttrKind, Kind};
use crate::ops::def;
use crate::random::{MOST_ELEMENTS, Rng};
use crate::tensor::Tensor;
use crate::types::{TensorType, Type};

/// Preferences for a random use of an operator.
#[derive(Clone, Default, Debug)]
pub struct Preferences {
    /// Type of the first operand, where the operator can have it.
    pub like: Option<TensorType>,
    /// Whether channels, images and matrices may be so large that every kernel is reached.
    pub large: bool,
}

impl Preferences {
    /// A size from 1 to `small`, or to `large` if large sizes are preferred.
    fn size(&self, rng: &mut Rng, small: usize, large: usize) -> usize {
        if self.large { 1 + rng.below(large) } else { rng.size(small) }
    }

    /// The preferred sizes, if their number is one of `ranks`.
    fn shape(&self, ranks: std::ops::RangeInclusive<usize>) -> Option<&[usize]> {
        self.like.as_ref().map(|ty| ty.shape.as_slice()).filter(|shape| ranks.contains(&shape.len()))
    }
}

/// A valid use of operator `kind` and data for it that gives no error; `None` for `input`, which has no value of its own.
pub fn generate(kind: Kind, rng: &mut Rng) -> Option<(Op, Vec<Tensor>)> {
    if kind == Kind::Input {
        return None;
    }
    // Most proposals fit; the others are repeated.
    let random = (0..10_000).find_map(|_| attempt(kind, rng, &Preferences::default()));
    Some(random.unwrap_or_else(|| unreachable!("no proposal for `{}` fits", kind.name())))
}

/// As [`generate`], with preferences; `None` if no attempt fits.
pub fn generate_like(kind: Kind, rng: &mut Rng, preferences: &Preferences) -> Option<(Op, Vec<Tensor>)> {
    if kind == Kind::Input { None } else { (0..12).find_map(|_| attempt(kind, rng, preferences)) }
}

fn attempt(kind: Kind, rng: &mut Rng, preferences: &Preferences) -> Option<(Op, Vec<Tensor>)> {
    let (attrs, inputs) = propose(kind, rng, preferences);
    let op = Op::new(kind, attrs).expect("proposals name the attributes of the row");
    let types: Vec<TensorType> = inputs.iter().map(|x| x.ty().clone()).collect();
    let results = (def(kind).infer)(&op.attrs, &types).ok()?;
    let small = (op.def.work)(&op.attrs, &types, &results) < MOST_WORK && results.iter().chain(&types).all(|ty| ty.len() < MOST_ELEMENTS);
    (small && eval::eval_op(&op, &inputs).is_ok()).then_some((op, inputs))
}

/// A graph of one use of operator `kind` whose operands are inputs, and data for it.
pub fn generate_graph(kind: Kind, rng: &mut Rng) -> Option<(Graph, Vec<Tensor>)> {
    let (op, inputs) = generate(kind, rng)?;
    let mut graph = Graph::new();
    let operands: Vec<Value> = inputs.iter().enumerate().map(|(i, x)| graph.input(&format!("x{i}"), x.ty().clone())).collect();
    let first = graph.add(op, operands, "").expect("the shape rule has held");
    for i in 0..graph.node(first).types.len() as u32 {
        graph.output(&format!("y{i}"), first.result(i));
    }
    Some((graph, inputs))
}

/// Operations of one use at most: the reference evaluator is slow.
const MOST_WORK: u64 = 1 << 22;

type Proposal = (Vec<(&'static str, Attr)>, Vec<Tensor>);

fn ints(values: impl IntoIterator<Item = i64>) -> Attr {
    Attr::Ints(values.into_iter().collect())
}

fn propose(kind: Kind, rng: &mut Rng, preferences: &Preferences) -> Proposal {
    use Kind::*;
    let (rank, shape, any) = match &preferences.like {
        Some(ty) => (ty.rank(), ty.shape.clone(), ty.ty),
        None => {
            let rank = rng.rank();
            (rank, rng.shape(rank), rng.pick(Type::ALL))
        }
    };
    let real =
        if preferences.like.is_some() && any.is_real() { any } else { rng.pick(&[Type::F32, Type::F32, Type::F64, Type::F16, Type::BF16]) };
    let some = |rng: &mut Rng, ty, shape: &[usize]| rng.tensor(&TensorType::new(ty, shape));
    let axis = rng.below(rank.max(1)) as i64;
    match kind {
        Input => unreachable!("inputs are not generated"),
        Const => (vec![("value", rng.tensor(&TensorType::new(any, shape)).into())], vec![]),
        Clamp => {
            let lo = rng.unit() * 2.0;
            (vec![("lo", lo.into()), ("hi", (lo + 2.0).into())], vec![some(rng, any, &shape)])
        }
        Cast | Bitcast => {
            let x = if kind == Cast { any } else { rng.pick(&[Type::F32, Type::I32, Type::F16, Type::I64, Type::U8]) };
            (vec![("to", rng.pick(Type::ALL).into())], vec![some(rng, x, &shape)])
        }
        IsInf => (vec![("positive", rng.flip().into()), ("negative", rng.flip().into())], vec![some(rng, real, &shape)]),
        Add | Sub | Mul | Div | Mod | Pow | Min | Max | And | Or | Xor | Shl | Shr | Eq | Lt | Le => {
            // One side may miss leading axes, and have 1 in place of others.
            let cut = rng.below(rank + 1);
            let mut other: Vec<usize> = shape[cut..].iter().map(|&s| if rng.below(3) == 0 { 1 } else { s }).collect();
            let mut one = shape;
            if rng.flip() {
                std::mem::swap(&mut one, &mut other);
            }
            let second = if kind == Pow && rng.flip() { rng.pick(Type::ALL) } else { any };
            let attrs = if kind == Mod { vec![("trunc", rng.flip().into())] } else { vec![] };
            (attrs, vec![some(rng, any, &one), some(rng, second, &other)])
        }
        Select => {
            let cut = rng.below(rank + 1);
            (vec![], vec![some(rng, Type::Bool, &shape), some(rng, any, &shape[cut..]), some(rng, any, &shape)])
        }
        ReduceSum | ReduceProd | ReduceMax | ReduceMin | ReduceMean | Norm | RmsNorm => {
            let axes = ints((0..rank as i64).filter(|_| rng.flip()));
            let eps = matches!(kind, Norm | RmsNorm);
            let second = if eps { ("eps", 0.125.into()) } else { ("keepdims", rng.flip().into()) };
            (vec![("axes", axes), second], vec![some(rng, if eps { real } else { any }, &shape)])
        }
        ArgMax | ArgMin => {
            (vec![("axis", axis.into()), ("keepdims", rng.flip().into()), ("last", rng.flip().into())], vec![some(rng, any, &shape)])
        }
        CumSum | CumProd => {
            (vec![("axis", axis.into()), ("exclusive", rng.flip().into()), ("reverse", rng.flip().into())], vec![some(rng, any, &shape)])
        }
        TopK => {
            let k = rng.below(4) as i64;
            (vec![("axis", axis.into()), ("k", k.into()), ("largest", rng.flip().into())], vec![some(rng, any, &shape)])
        }
        Softmax | LogSoftmax => (vec![("axis", axis.into())], vec![some(rng, real, &shape)]),
        MatMul => {
            let random_lead = rng.lead(&shape);
            let [ta, tb] = [rng.flip(), rng.flip()];
            let (lead, m, k) = match preferences.shape(2..=8) {
                Some([lead @ .., m, k]) => (lead, if ta { *k } else { *m }, if ta { *m } else { *k }),
                _ => (&random_lead[..], preferences.size(rng, 4, 40), preferences.size(rng, 5, 70)),
            };
            let n = preferences.size(rng, 4, 70);
            let a = [lead, &if ta { [k, m] } else { [m, k] }].concat();
            let b = [&lead[rng.below(lead.len() + 1)..], &if tb { [n, k] } else { [k, n] }].concat();
            let types = match any {
                ty if preferences.like.is_some() && (ty.is_real() || matches!(ty, Type::I32 | Type::I64)) => (ty, ty),
                ty @ (Type::I8 | Type::U8) if preferences.like.is_some() => (ty, rng.pick(&[Type::I8, Type::U8])),
                _ => rng.pick(&[(real, real), (Type::I8, Type::U8), (Type::I32, Type::I32), (Type::I64, Type::I64)]),
            };
            (vec![("trans_a", ta.into()), ("trans_b", tb.into())], vec![some(rng, types.0, &a), some(rng, types.1, &b)])
        }
        Attention => {
            let random_lead = rng.lead(&shape);
            let (lead, l, d) = match preferences.shape(2..=4) {
                Some([lead @ .., l, d]) => (lead, *l, *d),
                _ => (&random_lead[..], preferences.size(rng, 4, 40), preferences.size(rng, 4, 24)),
            };
            let [s, e] = [preferences.size(rng, 4, 80), preferences.size(rng, 4, 24)];
            let mut x = [[l, d], [s, d], [s, e]].map(|m| some(rng, real, &[lead, &m].concat())).to_vec();
            if rng.flip() {
                x.push(some(rng, real, &[l, s]));
            }
            (vec![("scale", 0.5.into()), ("causal", rng.flip().into())], x)
        }
        Det => {
            let random_lead = rng.lead(&shape);
            let n = rng.size(4);
            let square = preferences.shape(2..=8).filter(|s| s[rank - 1] == s[rank - 2]);
            let shape = square.map_or_else(|| [&random_lead[..], &[n, n]].concat(), <[usize]>::to_vec);
            (vec![], vec![some(rng, real, &shape)])
        }
        Conv | ConvTranspose | MaxPool | AvgPool | ArgMaxPool => windows(kind, rng, real, preferences),
        Reshape => {
            let mut turned: Vec<i64> = shape.iter().map(|&s| s as i64).collect();
            turned.rotate_left(rank / 2);
            turned.insert(rng.below(rank + 1), 1);
            (vec![("shape", ints(turned))], vec![some(rng, any, &shape)])
        }
        Transpose => {
            let mut perm: Vec<i64> = (0..rank as i64).collect();
            (0..rank).for_each(|i| perm.swap(i, rng.below(rank)));
            (vec![("perm", ints(perm))], vec![some(rng, any, &shape)])
        }
        Expand => {
            let from: Vec<usize> = shape[rng.below(rank + 1)..].iter().map(|&s| if rng.flip() { 1 } else { s }).collect();
            (vec![("shape", shape.as_slice().into())], vec![some(rng, any, &from)])
        }
        Slice => {
            let one = |rng: &mut Rng, size: usize| (rng.below(size.max(1)) as i64, rng.below(size + 1) as i64, rng.within(-2, 2));
            let each: Vec<_> = shape.iter().map(|&size| one(rng, size)).collect();
            let attrs = vec![
                ("starts", ints(each.iter().map(|e| e.0))),
                ("sizes", ints(each.iter().map(|e| e.1))),
                ("steps", ints(each.iter().map(|e| e.2))),
            ];
            (attrs, vec![some(rng, any, &shape)])
        }
        Concat => {
            let mut parts = vec![some(rng, any, &shape)];
            for _ in 0..rng.below(3) {
                let mut part = shape.clone();
                if let Some(size) = part.get_mut(axis as usize) {
                    *size = rng.below(4);
                }
                parts.push(some(rng, any, &part));
            }
            (vec![("axis", axis.into())], parts)
        }
        Pad => {
            let pads = ints((0..2 * rank).map(|_| rng.below(4) as i64).collect::<Vec<_>>());
            let mode = rng.pick(&["constant", "reflect", "edge", "wrap"]);
            (vec![("pads", pads), ("mode", mode.into())], vec![some(rng, any, &shape), some(rng, any, &[])])
        }
        Pack => (vec![("axis", axis.into()), ("block", (1 + rng.below(4) as i64).into())], vec![some(rng, any, &shape)]),
        Unpack => {
            let (block, size) = (1 + rng.below(4), rng.below(6));
            let mut packed = [&shape[..], &[block]].concat();
            packed[(axis as usize).min(rank)] = if rank > 0 { size.div_ceil(block) } else { block };
            let attrs = vec![("axis", axis.into()), ("block", (block as i64).into()), ("size", (size as i64).into())];
            (attrs, vec![some(rng, any, &packed)])
        }
        Gather => {
            let size = shape.get(axis as usize).copied().unwrap_or(1).max(1);
            let of_indices = rng.shape(rank % 3);
            (vec![("axis", axis.into())], vec![some(rng, any, &shape), rng.indices(&of_indices, size)])
        }
        GatherElements | ScatterElements => {
            let mut of_indices = shape.clone();
            let size = shape.get(axis as usize).copied().unwrap_or(1).max(1);
            if let Some(n) = of_indices.get_mut(axis as usize) {
                *n = rng.below(6);
            }
            let mut inputs = vec![some(rng, any, &shape), rng.indices(&of_indices, size)];
            let mut attrs = vec![("axis", axis.into())];
            if kind == ScatterElements {
                inputs.push(some(rng, any, &of_indices));
                attrs.push(("reduction", rng.pick(&["none", "add", "mul", "min", "max"]).into()));
            }
            (attrs, inputs)
        }
        GatherNd | ScatterNd => {
            let batch = if kind == GatherNd { rng.below(rank.max(1)) } else { 0 };
            let depth = rng.below(rank - batch.min(rank) + 1);
            let least = shape[batch.min(rank)..].iter().copied().min().unwrap_or(1).max(1);
            let rows = [&shape[..batch], &rng.shape(1)].concat();
            let mut inputs = vec![some(rng, any, &shape), rng.indices(&[&rows[..], &[depth]].concat(), least)];
            if kind == GatherNd {
                return (vec![("batch_dims", (batch as i64).into())], inputs);
            }
            inputs.push(some(rng, any, &[&rows[..], &shape[depth..]].concat()));
            (vec![("reduction", rng.pick(&["none", "add", "mul", "min", "max"]).into())], inputs)
        }
        Resample => {
            let size = shape.get(axis as usize).copied().unwrap_or(1).max(1) as i64;
            let [outputs, taps] = [rng.size(5), rng.size(3)];
            let indices: Vec<i64> = (0..outputs * taps).map(|_| rng.within(0, size - 1)).collect();
            let inputs = vec![some(rng, real, &shape), Tensor::new([outputs, taps], &indices), some(rng, real, &[outputs, taps])];
            (vec![("axis", axis.into())], inputs)
        }
        GridSample => {
            let axes = 2 + rng.below(2);
            let [random, out] = [rng.shape(2 + axes), rng.shape(axes)];
            let x = preferences.shape(2 + axes..=2 + axes).map_or(random, <[usize]>::to_vec);
            let grid = [&x[..1], &out, &[axes]].concat();
            let attrs = vec![
                ("mode", rng.pick(&["linear", "nearest", "cubic"]).into()),
                ("padding", rng.pick(&["zeros", "border", "reflection"]).into()),
                ("align_corners", rng.flip().into()),
            ];
            (attrs, vec![some(rng, real, &x), some(rng, rng.clone().pick(&[real, Type::F32]), &grid)])
        }
        RoiAlign => {
            let random: Vec<usize> = (0..4).map(|_| rng.size(6)).collect();
            let x = preferences.shape(4..=4).map_or(random, <[usize]>::to_vec);
            let rois = rng.size(3);
            let images: Vec<i64> = (0..rois).map(|_| rng.below(x[0].max(1)) as i64).collect();
            let attrs = vec![
                ("mode", rng.pick(&["avg", "max"]).into()),
                ("out_h", rng.within(1, 3).into()),
                ("out_w", rng.within(1, 3).into()),
                ("ratio", rng.within(0, 2).into()),
                ("half_pixel", rng.flip().into()),
            ];
            (attrs, vec![some(rng, real, &x), some(rng, real, &[rois, 4]), Tensor::new([rois], &images)])
        }
        NonZero => {
            let x = some(rng, any, &shape);
            let bool = Op::new(Cast, [("to", Type::Bool.into())]).expect("the row of `cast`");
            let holds = eval::eval_op(&bool, std::slice::from_ref(&x)).expect("every type casts to bool");
            let count: i64 = holds[0].values::<u8>().iter().map(|&b| i64::from(b)).sum();
            (vec![("count", count.into())], vec![x])
        }
        Compress => {
            let size = shape.get(axis as usize).copied().unwrap_or(1);
            let cond = some(rng, Type::Bool, &[rng.clone().below(size + 1)]);
            let count: i64 = cond.values::<u8>().iter().map(|&b| i64::from(b)).sum();
            (vec![("axis", axis.into()), ("count", count.into())], vec![some(rng, any, &shape), cond])
        }
        Unique => (vec![("axis", rng.within(-1, rank as i64).into()), ("sorted", rng.flip().into())], vec![some(rng, any, &shape)]),
        NonMaxSuppression => {
            let [n, c, b] = [rng.size(2), rng.size(2), rng.below(6)];
            let scalars = [Tensor::scalar(rng.within(0, 4)), Tensor::scalar(0.3f32), Tensor::scalar(-1.0f32)];
            let inputs = [&[some(rng, Type::F32, &[n, b, 4]), some(rng, Type::F32, &[n, c, b])], &scalars[..]].concat();
            (vec![("center", rng.flip().into())], inputs)
        }
        Lstm | Gru | Rnn => layers(kind, rng, real, preferences),
        If => {
            let ty = TensorType::new(real, shape);
            let branch = |rng: &mut Rng| {
                let mut g = Graph::new();
                let mut values = ["x", "w"].map(|name| g.input(name, ty.clone())).to_vec();
                steps(&mut g, &mut values, rng);
                g.output("y", values[values.len() - 1]);
                g.output("x", rng.pick(&values));
                Attr::from(g)
            };
            let attrs = vec![("then", branch(rng)), ("else", branch(rng))];
            (attrs, vec![some(rng, Type::Bool, &[]), rng.tensor(&ty), rng.tensor(&ty)])
        }
        Loop => {
            // Adds a captured value, and more, until one of a row of bools says no, and lists the sums.
            let ty = TensorType::new(real, shape);
            let mut body = Graph::new();
            let i = body.input("i", TensorType::new(Type::I64, []));
            body.input("cond", TensorType::new(Type::Bool, []));
            let [sum, step] = ["sum", "step"].map(|name| body.input(name, ty.clone()));
            let stops = body.input("stops", TensorType::new(Type::Bool, [8]));
            let go = body.apply(Gather, [], &[stops, i]).expect("an element of a row");
            let mut values = vec![step, sum];
            steps(&mut body, &mut values, rng);
            let next = body.apply(Add, [], &[values[values.len() - 1], step]).expect("one type");
            for (name, v) in [("go", go), ("sum", next), ("sums", next), ("before", rng.pick(&values))] {
                body.output(name, v);
            }
            let most = rng.within(0, 8);
            let attrs = vec![("body", body.into()), ("carried", 1.into()), ("max_trip", most.into())];
            let trip = Tensor::scalar(rng.within(-1, most));
            let go = Tensor::with_type(TensorType::new(Type::Bool, []), &[1u8]);
            (attrs, vec![trip, go, rng.tensor(&ty), rng.tensor(&ty), some(rng, Type::Bool, &[8])])
        }
        // The functions of one input without attributes.
        _ => (vec![], vec![some(rng, any, &shape)]),
    }
}

/// A few operators on values of one type of floats, in the body of a branch or a loop. They move elements and take maxima: none rounds.
fn steps(g: &mut Graph, values: &mut Vec<Value>, rng: &mut Rng) {
    let shape = g.ty(values[0]).shape.clone();
    let rank = shape.len();
    let back = |g: &mut Graph, v: Value| g.apply(Kind::Reshape, [("shape", shape.as_slice().into())], &[v]);
    for _ in 0..rng.below(5) {
        let (x, other) = (values[values.len() - 1], rng.pick(values));
        let axis = rng.below(rank.max(1));
        let made = match rng.below(6) {
            0 => g.apply(rng.pick(&[Kind::Relu, Kind::Neg, Kind::Abs]), [], &[x]),
            1 => g.apply(rng.pick(&[Kind::Max, Kind::Min]), [], &[x, other]),
            2 if rank > 0 && shape[axis] > 0 => {
                let most = g.apply(Kind::ReduceMax, [("axes", ints([axis as i64])), ("keepdims", 1.into())], &[x]).expect("floats");
                g.apply(Kind::Min, [], &[most, other])
            }
            3 if rank > 0 && shape[axis] > 1 => {
                let cut = 1 + rng.below(shape[axis] - 1);
                let mut part = |start: usize, size: usize| {
                    let with = |of: i64, others: &dyn Fn(usize) -> i64| ints((0..rank).map(|a| if a == axis { of } else { others(a) }));
                    let attrs = [
                        ("starts", with(start as i64, &|_| 0)),
                        ("sizes", with(size as i64, &|a| shape[a] as i64)),
                        ("steps", with(1, &|_| 1)),
                    ];
                    g.apply(Kind::Slice, attrs, &[x]).expect("a part of it")
                };
                let parts = [part(cut, shape[axis] - cut), part(0, cut)];
                g.apply(Kind::Concat, [("axis", (axis as i64).into())], &parts)
            }
            4 if rank > 1 => {
                let turned = g.apply(Kind::Transpose, [("perm", ints((0..rank as i64).rev()))], &[x]).expect("its axes");
                back(g, turned)
            }
            _ => {
                let count: usize = shape.iter().product();
                let flat = g.apply(Kind::Reshape, [("shape", ints([count as i64]))], &[x]).expect("its elements");
                let flat = if rng.flip() { g.apply(Kind::Neg, [], &[flat]).expect("floats") } else { flat };
                back(g, flat)
            }
        };
        values.push(made.expect("operands of one type"));
    }
}

fn windows(kind: Kind, rng: &mut Rng, real: Type, preferences: &Preferences) -> Proposal {
    let packed = rng.below(3) == 0 && !matches!(kind, Kind::ArgMaxPool | Kind::ConvTranspose);
    let given = preferences.shape(if packed { 4..=6 } else { 3..=5 });
    let axes = given.map_or_else(|| 1 + rng.below(3), |shape| shape.len() - 2 - usize::from(packed));
    let mut list = |n: usize, low: i64, high: i64| ints((0..n).map(|_| rng.within(low, high)).collect::<Vec<_>>());
    let mut attrs = vec![("strides", list(axes, 1, 3)), ("pads", list(2 * axes, 0, 2)), ("dilations", list(axes, 1, 2))];
    if preferences.large && rng.flip() {
        // What most layers of networks are: the faster algorithms want it.
        (attrs[0].1, attrs[2].1) = (ints(vec![1 + rng.below(5) as i64 / 4; axes]), ints(vec![1; axes]));
    }
    let mut kernel: Vec<usize> = (0..axes).map(|_| 1 + rng.below(3)).collect();
    if preferences.large && rng.flip() {
        kernel = vec![rng.pick(&[1, 3, 3, 5]); axes];
    }
    let largest = [40, 20, 6][axes - 1];
    let spatial: Vec<usize> =
        given.map_or_else(|| (0..axes).map(|_| preferences.size(rng, 6, largest)).collect(), |shape| shape[2..2 + axes].to_vec());
    let images = given.map_or_else(|| rng.size(2), |shape| shape[0]);
    let block = match given {
        Some(shape) if packed => shape[shape.len() - 1].max(1),
        _ if packed => rng.pick(&[2, 3, 4, 8]),
        _ => 0,
    };
    if matches!(kind, Kind::MaxPool | Kind::AvgPool | Kind::ArgMaxPool) {
        attrs.push(("kernel", kernel.as_slice().into()));
        match kind {
            Kind::ArgMaxPool => attrs.push(("column_major", rng.flip().into())),
            Kind::AvgPool => {
                attrs.push(("include_pad", rng.flip().into()));
                attrs.push(("extra", ints((0..axes).map(|_| rng.within(0, 1)).collect::<Vec<_>>())));
            }
            _ => {}
        }
    }
    let given_channels = given.map(|shape| if packed { shape[1] * block } else { shape[1] });
    let channels = given_channels.unwrap_or_else(|| (1 + rng.below(2)) * preferences.size(rng, 3, 40));
    let groups = match rng.below(4) {
        0 if channels.is_multiple_of(2) => 2,
        1 => channels.max(1),
        _ => 1,
    };
    let per_group = channels / groups;
    let outs = if groups == channels { 1 + rng.below(2) } else { preferences.size(rng, 3, 40) };
    let shape = |channels: usize| {
        if packed {
            [&[images, channels.div_ceil(block)], &spatial[..], &[block]].concat()
        } else {
            [&[images, channels], &spatial[..]].concat()
        }
    };
    if packed {
        attrs.push(("block", (block as i64).into()));
    }
    let quantised = rng.below(4);
    let mut some = |ty: Type, shape: &[usize]| rng.tensor(&TensorType::new(ty, shape));
    match kind {
        Kind::MaxPool | Kind::AvgPool | Kind::ArgMaxPool => (attrs, vec![some(real, &shape(channels))]),
        Kind::Conv => {
            attrs.push(("groups", (groups as i64).into()));
            let like = preferences.like.as_ref().map(|ty| ty.ty);
            let x = match (like, quantised) {
                (Some(ty @ (Type::I8 | Type::U8)), _) => (ty, Type::I8),
                (None, 0) => (Type::I8, Type::I8),
                (None, 1) => (Type::U8, Type::I8),
                _ => (real, real),
            };
            let mut inputs = vec![some(x.0, &shape(channels)), some(x.1, &[&[groups * outs, per_group], &kernel[..]].concat())];
            if outs > 1 {
                inputs.push(some(if x.0 == real { real } else { Type::I32 }, &[groups * outs]));
            }
            (attrs, inputs)
        }
        _ => {
            attrs.push(("groups", (groups as i64).into()));
            attrs.push(("output_padding", ints(kernel.iter().map(|&k| k as i64 / 3))));
            let mut inputs = vec![some(real, &shape(channels)), some(real, &[&[channels, outs], &kernel[..]].concat())];
            if outs > 1 {
                inputs.push(some(real, &[groups * outs]));
            }
            (attrs, inputs)
        }
    }
}

fn layers(kind: Kind, rng: &mut Rng, real: Type, preferences: &Preferences) -> Proposal {
    let gates = match kind {
        Kind::Lstm => 4,
        Kind::Gru => 3,
        _ => 1,
    };
    let [steps, batch, hidden] = match preferences.shape(3..=3) {
        Some(&[steps, batch, width]) if width % gates == 0 => [steps, batch, width / gates],
        _ => [rng.size(4), rng.size(3), preferences.size(rng, 4, 40)],
    };
    let mut attrs = vec![("hidden", (hidden as i64).into()), ("reverse", rng.flip().into()), ("clip", rng.pick(&[0.0, 1.5]).into())];
    let mut some = |shape: &[usize]| rng.tensor(&TensorType::new(real, shape));
    let mut inputs = vec![some(&[steps, batch, gates * hidden]), some(&[gates * hidden, hidden]), some(&[batch, hidden])];
    let more = [some(&[batch, hidden]), some(&[3 * hidden])];
    let lens: Vec<i64> = (0..batch).map(|_| rng.within(0, steps as i64)).collect();
    for &(name, kind) in def(kind).attrs {
        match kind {
            AttrKind::Word(words) if name.starts_with("act") && rng.below(3) == 0 => attrs.push((name, rng.pick(words).into())),
            _ => {}
        }
    }
    let [has_lens, other] = [rng.flip(), rng.flip()];
    attrs.push(("has_lens", has_lens.into()));
    let lens = has_lens.then(|| Tensor::new([batch], &lens));
    match kind {
        Kind::Lstm => {
            inputs.push(more[0].clone());
            inputs.extend(lens);
            attrs.extend([("has_peepholes", other.into()), ("input_forget", rng.flip().into())]);
            inputs.extend(other.then(|| more[1].clone()));
        }
        Kind::Gru => {
            attrs.extend([("has_bias", other.into()), ("linear_before_reset", rng.flip().into())]);
            inputs.extend(other.then(|| more[1].clone()));
            inputs.extend(lens);
        }
        _ => inputs.extend(lens),
    }
    (attrs, inputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Arity;
    use crate::text;

    fn seeds(kind: Kind) -> impl Iterator<Item = Rng> {
        (0..120).map(move |seed| if seed % 2 == 0 { Rng::new } else { Rng::odd }(seed * 1000 + kind as u64))
    }

    #[test]
    fn every_operator_gives_what_its_rule_says() {
        for &kind in Kind::ALL {
            for mut rng in seeds(kind) {
                let Some((op, inputs)) = generate(kind, &mut rng) else { continue };
                let types: Vec<TensorType> = inputs.iter().map(|x| x.ty().clone()).collect();
                let expected = (op.def.infer)(&op.attrs, &types).expect("generated uses fit");
                let results = (op.def.eval)(&op.attrs, &inputs).expect("generated uses give no error");
                assert!(results.iter().map(Tensor::ty).eq(&expected), "{op:?} {types:?} gives {results:?}, not {expected:?}");
                (op.def.work)(&op.attrs, &types, &expected);
            }
        }
    }

    #[test]
    fn every_operator_reads_back() {
        for &kind in Kind::ALL {
            for mut rng in seeds(kind) {
                let Some((graph, inputs)) = generate_graph(kind, &mut rng) else { continue };
                let printed = graph.to_string();
                let parsed = text::parse(&printed).unwrap_or_else(|e| panic!("{e} in\n{printed}"));
                assert_eq!(parsed, graph, "{printed}");
                assert_eq!(parsed.to_string(), printed);
                graph.validate().unwrap_or_else(|e| panic!("{e} in\n{printed}"));
                assert_eq!(eval::eval(&parsed, &inputs), eval::eval(&graph, &inputs));
            }
        }
    }

    /// Sizes that overflow whatever is not careful, and sizes that fit.
    fn hostile_int(rng: &mut Rng) -> i64 {
        match rng.below(6) {
            0 => rng.pick(&[i64::MIN, i64::MAX, i32::MAX as i64, i32::MIN as i64, 1 << 40, 1 << 62]),
            1 => -1 - rng.below(4) as i64,
            _ => rng.below(5) as i64,
        }
    }

    /// Infinities, NaN and the ends of the integers.
    fn hostile_data(ty: &TensorType, rng: &mut Rng) -> Tensor {
        let floats = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e30, -1e30, 0.0, -0.0, 1e-300];
        let bits = |rng: &mut Rng| match (ty.ty, ty.ty.range()) {
            (_, Some([least, most])) => rng.pick(&[least, most, 0, 1, -1]).clamp(least, most) as u64,
            (Type::F32, _) => (rng.pick(&floats) as f32).to_bits().into(),
            (Type::F64, _) => rng.pick(&floats).to_bits(),
            _ => rng.bits(),
        };
        let bytes: Vec<u8> = (0..ty.len()).flat_map(|_| bits(rng).to_le_bytes().into_iter().take(ty.ty.bytes())).collect();
        Tensor::from_bytes(ty.clone(), &bytes).expect("as many bytes as the type has")
    }

    #[test]
    fn no_use_of_an_operator_panics() {
        for &kind in Kind::ALL {
            let mut rng = Rng::new(kind as u64 + 77);
            for round in 0..4000 {
                // Start from a good use or from nothing, then spoil it.
                let random = if round % 2 == 0 { generate(kind, &mut rng) } else { None };
                let mut inputs = random.as_ref().map_or(vec![], |(_, x)| x.clone());
                let mut attrs: Vec<(&'static str, Attr)> =
                    random.map_or(vec![], |(op, _)| op.attrs.iter().map(|(name, a)| (name, a.clone())).collect());
                for &(name, attr_kind) in def(kind).attrs {
                    if !attrs.is_empty() && rng.below(4) > 0 && attrs.iter().any(|(n, _)| *n == name) {
                        continue;
                    }
                    let attr = match attr_kind {
                        AttrKind::Int(_) => Attr::Int(hostile_int(&mut rng)),
                        AttrKind::Float(_) => rng.pick(&[0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 0.5]).into(),
                        AttrKind::Ints => ints((0..rng.below(7)).map(|_| hostile_int(&mut rng)).collect::<Vec<_>>()),
                        AttrKind::Word(words) => Attr::Word(rng.pick(words)),
                        AttrKind::Type => Attr::Type(rng.pick(Type::ALL)),
                        AttrKind::Tensor => Tensor::scalar(1f32).into(),
                        AttrKind::Graph => Graph::new().into(),
                    };
                    attrs.retain(|(n, _)| *n != name);
                    attrs.push((name, attr));
                }
                let op = Op::new(kind, attrs).expect("attributes of the row");
                let count = match def(kind).inputs {
                    Arity::Exactly(n) => n,
                    Arity::Between(least, most) => rng.within(least as i64, most as i64) as usize,
                    Arity::AtLeast(n) => n + rng.below(3),
                };
                let small = |rng: &mut Rng| {
                    let (ty, rank) = (rng.pick(&[Type::F32, Type::I64, Type::Bool, Type::I8]), rng.below(5));
                    let ty = TensorType::new(ty, rng.shape(rank));
                    rng.tensor(&ty)
                };
                inputs.resize_with(count, || small(&mut rng));
                if rng.flip() && count > 0 {
                    let i = rng.below(count);
                    inputs[i] = small(&mut rng);
                }
                if rng.flip() && count > 0 {
                    let i = rng.below(count);
                    inputs[i] = hostile_data(inputs[i].ty(), &mut rng);
                }
                let mut types: Vec<TensorType> = inputs.iter().map(|x| x.ty().clone()).collect();
                if let Ok(results) = (op.def.infer)(&op.attrs, &types) {
                    let elements: usize = results.iter().map(|t| t.bytes().min(1 << 40)).sum();
                    // What is small is run; an error is an answer.
                    if elements < 1 << 16 && (op.def.work)(&op.attrs, &types, &results) < 1 << 20 {
                        let _ = eval::eval_op(&op, &inputs);
                    }
                }
                // Types of tensors that fit no memory.
                for ty in &mut types {
                    for size in &mut ty.shape {
                        *size = if rng.flip() { hostile_int(&mut rng).unsigned_abs() as usize } else { *size };
                    }
                    if TensorType::checked(ty.ty, ty.shape.as_slice()).is_err() {
                        ty.shape.clear();
                    }
                }
                if let Ok(results) = (op.def.infer)(&op.attrs, &types) {
                    for ty in &results {
                        assert!(TensorType::checked(ty.ty, ty.shape.as_slice()).is_ok(), "{op:?} {types:?} gives {ty}");
                    }
                    (op.def.work)(&op.attrs, &types, &results);
                }
            }
        }
    }
}
