use super::{Link, Plan, lower};
use crate::kernels::testing::{After, Random, close, interpret, targets};
use crate::schedule;
use crate::unit::{Operand, Options, Unit};
use dnnc_ir::{Attr, Kind, Op, Tensor, TensorType, Type};
use dnnc_targets::Target;

/// A member: what it is, kernel, stride, padding, channels of the result (of a convolution), and which epilogue it has.
#[derive(Clone, Copy, Debug)]
enum Layer {
    Conv { kernel: usize, stride: usize, pad: usize, outputs: usize, after: Option<usize> },
    Depthwise { kernel: usize, stride: usize, pad: usize, after: Option<usize> },
    Pool { kind: Kind, kernel: usize, stride: usize, pad: usize },
}
use Layer::*;

fn conv(kernel: usize, stride: usize, outputs: usize) -> Layer {
    Conv { kernel, stride, pad: kernel / 2, outputs, after: Some(2) }
}

fn depthwise(kernel: usize, stride: usize) -> Layer {
    Depthwise { kernel, stride, pad: kernel / 2, after: Some(2) }
}

/// A member with its data.
struct Made {
    op: Op,
    /// The operands behind the first.
    constants: Vec<Tensor>,
    after: Option<After>,
    result: TensorType,
}

impl Layer {
    fn made(self, r: &mut Random, x: &TensorType, channels: usize, block: usize, last: bool) -> (Made, usize) {
        let square = |n: usize, axes: usize| Attr::from(&vec![n; axes][..]);
        let (kind, [kernel, stride, pad], outputs, groups, which) = match self {
            Conv { kernel, stride, pad, outputs, after } => (Kind::Conv, [kernel, stride, pad], outputs, 1, after),
            Depthwise { kernel, stride, pad, after } => (Kind::Conv, [kernel, stride, pad], channels, channels, after),
            Pool { kind, kernel, stride, pad } => (kind, [kernel, stride, pad], channels, 1, None),
        };
        let mut attrs = vec![("strides", square(stride, 2)), ("pads", square(pad, 4)), ("dilations", square(1, 2))];
        attrs.push(("block", Attr::from(block as i64)));
        let mut constants = vec![];
        if kind == Kind::Conv {
            attrs.push(("groups", Attr::from(groups as i64)));
            constants.push(r.tensor(Type::F32, [outputs, channels / groups, kernel, kernel]));
            constants.push(r.tensor(Type::F32, [outputs]));
        } else {
            attrs.push(("kernel", square(kernel, 2)));
            if kind == Kind::AvgPool {
                attrs.push(("extra", square(0, 2)));
            }
        }
        let op = Op::new(kind, attrs).expect("attributes");
        let types: Vec<TensorType> = [x.clone()].into_iter().chain(constants.iter().map(|c| c.ty().clone())).collect();
        let result = (op.def.infer)(&op.attrs, &types).expect("a window that fits").remove(0);
        // An operand as large as the result is only for the last.
        let which = if last { which.map(|_| 0) } else { which };
        let after = which.map(|which| After::new(which, &op, &result));
        (Made { op, constants, after, result }, outputs)
    }
}

/// Compares a chain with its members' references, on every machine, for one and three threads.
fn check(layers: &[Layer], [batch, channels, height, width]: [usize; 4], plain: bool) {
    for target in targets() {
        for threads in [1, 3] {
            run(layers, [batch, channels, height, width], plain, &target, threads)
                .unwrap_or_else(|e| panic!("{layers:?} of {batch}x{channels}x{height}x{width} on {}, {threads} threads: {e}", target.name));
        }
    }
}

fn run(layers: &[Layer], [batch, channels, height, width]: [usize; 4], plain: bool, target: &Target, threads: usize) -> Result<(), String> {
    let r = &mut Random::new((height * 31 + width + channels) as u64);
    let block = schedule::lanes(&target.vector, 4);
    let image = r.tensor(Type::F32, [batch, channels, height, width]);
    let pack = Op::new(Kind::Pack, [("axis", Attr::from(1)), ("block", Attr::from(block as i64))])?;
    let packed = dnnc_ir::eval_op(&pack, std::slice::from_ref(&image)).map_err(|e| e.to_string())?.remove(0);
    let (mut types, mut made, mut now) = (vec![packed.ty().clone()], vec![], channels);
    for (i, layer) in layers.iter().enumerate() {
        let (m, outputs) = layer.made(r, &types[i], now, block, i + 1 == layers.len());
        types.push(m.result.clone());
        made.push(m);
        now = outputs;
    }
    let mut want = packed.clone();
    for m in &made {
        let operands: Vec<Tensor> = [want].into_iter().chain(m.constants.iter().cloned()).collect();
        want = dnnc_ir::eval_op(&m.op, &operands).map_err(|e| e.to_string())?.remove(0);
        if let Some(after) = &m.after {
            want = after.reference(&want);
        }
    }
    let options = Options { threads, ..Options::default() };
    let x = if plain { &image } else { &packed };
    let units: Vec<Unit> = made
        .iter()
        .enumerate()
        .map(|(i, m)| {
            let ty = if i == 0 { x.ty().clone() } else { types[i].clone() };
            let known = m.constants.iter().map(|c| Operand { ty: c.ty().clone(), constant: Some(c) });
            let inputs = [Operand { ty, constant: None }].into_iter().chain(known).collect();
            let (results, stored) = (vec![m.result.clone()], m.result.clone());
            Unit { op: &m.op, inputs, results, epilogue: m.after.as_ref().map(|a| &a.epilogue), stored, target, options: &options }
        })
        .collect();
    let links: Vec<Link> = units.iter().map(Link::new).collect::<Option<_>>().ok_or("no links")?;
    let links: Vec<&Link> = links.iter().collect();
    let lowered = lower(&links, Plan::new(&links).ok_or("no strips")?)?;
    let extras: Vec<&[u8]> = made.iter().flat_map(|m| &m.after).flat_map(|a| &a.operands).map(|t| t.bytes()).collect();
    let mut got = interpret(&lowered, &[x.bytes()], &extras, &[want.bytes().len()])?;
    let got = Tensor::from_bytes(want.ty().clone(), &got.remove(0)).expect("bytes of the result");
    close(&got, &want)
}

#[test]
fn expand_slide_project() {
    for (stride, size) in [(1, [9, 11]), (2, [9, 11]), (2, [12, 8]), (1, [1, 5]), (1, [5, 1])] {
        check(&[conv(1, 1, 24), depthwise(3, stride), conv(1, 1, 11)], [2, 10, size[0], size[1]], false);
    }
    check(&[conv(1, 1, 20), depthwise(5, 1), conv(1, 1, 8)], [1, 8, 14, 9], false);
    check(&[depthwise(3, 2), conv(1, 1, 19)], [2, 17, 13, 10], false);
}

#[test]
fn first_layers_read_plain_images() {
    for channels in [1, 3] {
        check(&[conv(3, 2, 8)], [2, channels, 13, 12], true);
        check(&[conv(3, 1, 20)], [1, channels, 6, 25], true);
        check(&[conv(3, 2, 16), depthwise(3, 1), conv(1, 1, 8)], [2, channels, 17, 14], true);
        check(&[conv(7, 2, 12), Pool { kind: Kind::MaxPool, kernel: 3, stride: 2, pad: 1 }], [1, channels, 20, 22], true);
    }
    check(&[conv(1, 1, 9)], [1, 3, 5, 5], true);
}

#[test]
fn windows_after_windows() {
    let max = Pool { kind: Kind::MaxPool, kernel: 2, stride: 2, pad: 0 };
    let mean = Pool { kind: Kind::AvgPool, kernel: 3, stride: 1, pad: 1 };
    check(&[depthwise(3, 1), conv(1, 1, 16), depthwise(3, 2), conv(1, 1, 9)], [2, 12, 15, 9], false);
    check(&[conv(3, 1, 4), conv(3, 1, 9), max], [1, 3, 10, 10], false);
    check(&[mean, conv(3, 2, 8), max], [2, 4, 16, 11], false);
    check(&[depthwise(3, 1), depthwise(5, 2), mean], [1, 9, 19, 8], false);
}

#[test]
fn random_chains() {
    let r = &mut Random::new(8);
    for _ in 0..25 {
        let channels = r.size(1, 18);
        let mut now = channels;
        let layers: Vec<Layer> = (0..r.size(1, 4))
            .map(|_| {
                let (kernel, stride, after) = (r.size(1, 3), r.size(1, 2), [None, Some(2)][r.size(0, 1)]);
                let pad = r.size(0, kernel - 1);
                let outputs = [r.size(1, 20), r.size(1, 4)][r.size(0, 1)];
                match r.size(0, 4) {
                    0 => Pool { kind: Kind::MaxPool, kernel, stride, pad: pad.min(kernel / 2) },
                    1 | 2 => Depthwise { kernel, stride, pad, after },
                    // Windows over many channels are done in other ways.
                    3 if now <= 4 => {
                        now = outputs;
                        Conv { kernel, stride, pad, outputs, after }
                    }
                    _ => {
                        now = outputs;
                        Conv { kernel: 1, stride: 1, pad: 0, outputs, after }
                    }
                }
            })
            .collect();
        check(&layers, [r.size(1, 2), channels, r.size(18, 30), r.size(17, 24)], false);
    }
}
