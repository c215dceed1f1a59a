use crate::kernels::testing::{Random, check};
use dnnc_ir::{Attr, Kind, Type};

struct Case {
    ty: Type,
    x: Vec<usize>,
    outputs: usize,
    kernel: Vec<usize>,
    strides: Vec<i64>,
    pads: Vec<i64>,
    dilations: Vec<i64>,
    extra: Vec<i64>,
    groups: usize,
    known: bool,
    bias: bool,
}

fn run(seed: u64, c: Case) {
    let r = &mut Random::new(seed);
    let w = [&[c.x[1], c.outputs / c.groups], &c.kernel[..]].concat();
    let mut inputs = vec![(r.tensor(c.ty, c.x), false), (r.tensor(c.ty, w), c.known)];
    if c.bias {
        inputs.push((r.tensor(c.ty, [c.outputs]), true));
    }
    let attrs: Vec<(&'static str, Attr)> = vec![
        ("strides", c.strides.into()),
        ("pads", c.pads.into()),
        ("dilations", c.dilations.into()),
        ("output_padding", c.extra.into()),
        ("groups", (c.groups as i64).into()),
    ];
    check(Kind::ConvTranspose, &attrs, &inputs);
}

#[test]
fn transposed_convolutions_give_the_reference() {
    let plain = |ty, known| Case {
        ty,
        x: vec![1, 3, 4, 5],
        outputs: 10,
        kernel: vec![3, 3],
        strides: vec![2, 2],
        pads: vec![1, 1, 1, 1],
        dilations: vec![1, 1],
        extra: vec![1, 0],
        groups: 1,
        known,
        bias: true,
    };
    run(1, plain(Type::F32, true));
    run(2, plain(Type::F32, false));
    run(3, plain(Type::F64, true));
    run(4, Case { kernel: vec![2, 2], pads: vec![0; 4], extra: vec![0, 0], bias: false, ..plain(Type::F32, true) });
    run(5, Case { groups: 3, outputs: 6, dilations: vec![2, 1], ..plain(Type::F32, true) });
    run(6, Case { groups: 3, outputs: 6, ..plain(Type::F32, false) });
    // More is cut away than the kernel reaches.
    run(7, Case { kernel: vec![1, 2], strides: vec![3, 2], pads: vec![2, 1, 1, 2], extra: vec![0, 0], ..plain(Type::F32, true) });
    run(
        8,
        Case {
            x: vec![2, 4, 7],
            kernel: vec![4],
            strides: vec![3],
            pads: vec![1, 2],
            dilations: vec![1],
            extra: vec![0],
            ..plain(Type::F32, true)
        },
    );
    run(
        9,
        Case {
            x: vec![1, 2, 3, 2, 3],
            kernel: vec![2, 1, 2],
            strides: vec![1, 2, 2],
            pads: vec![0; 6],
            dilations: vec![1; 3],
            extra: vec![0; 3],
            ..plain(Type::F32, true)
        },
    );
}

#[test]
fn random_sizes() {
    let r = &mut Random::new(11);
    for seed in 0..30 {
        let rank = [1, 2, 2, 2, 3][r.size(0, 4)];
        let sizes = |r: &mut Random, low, high| -> Vec<usize> { (0..rank).map(|_| r.size(low, high)).collect() };
        let ints = |v: &[usize]| v.iter().map(|&n| n as i64).collect::<Vec<i64>>();
        let (kernel, strides, dilations) = (sizes(r, 1, 4), sizes(r, 1, 3), sizes(r, 1, 2));
        let input = sizes(r, 1, if rank == 3 { 4 } else { 7 });
        let full: Vec<usize> = (0..rank).map(|i| (input[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i]).collect();
        let pads: Vec<usize> = (0..2 * rank).map(|i| r.size(0, 2).min(full[i % rank] / 2)).collect();
        let extra: Vec<usize> = (0..rank).map(|i| r.size(0, strides[i] - 1)).collect();
        let groups = [1, 1, 2, 3][r.size(0, 3)];
        let case = Case {
            ty: [Type::F32, Type::F32, Type::F16, Type::BF16][r.size(0, 3)],
            x: [vec![r.size(1, 2), r.size(1, 5) * groups], input].concat(),
            outputs: r.size(1, 6) * groups,
            kernel,
            strides: ints(&strides),
            pads: ints(&pads),
            dilations: ints(&dilations),
            extra: ints(&extra),
            groups,
            known: r.size(0, 1) == 1,
            bias: r.size(0, 1) == 1,
        };
        run(seed, case);
    }
}
