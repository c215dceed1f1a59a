use crate::kernels::testing::{Random, check};
use dnnc_ir::{Attr, Kind, Type};

struct Case {
    kind: Kind,
    ty: Type,
    planes: [usize; 2],
    input: Vec<usize>,
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<usize>,
    extra: Vec<usize>,
    include_pad: bool,
    column_major: bool,
    block: usize,
}

impl Case {
    fn random(r: &mut Random, kind: Kind, rank: usize, block: usize) -> Case {
        let kernel: Vec<usize> = (0..rank).map(|_| r.size(1, 4)).collect();
        let dilations: Vec<usize> = (0..rank).map(|_| r.size(1, 2)).collect();
        Case {
            kind,
            ty: Type::F32,
            planes: [r.size(1, 2), r.size(1, 3)],
            input: (0..rank).map(|i| r.size((kernel[i] - 1) * dilations[i] + 1, 12)).collect(),
            strides: (0..rank).map(|_| r.size(1, 3)).collect(),
            pads: (0..2 * rank).map(|_| r.size(0, 2)).collect(),
            extra: (0..rank).map(|_| r.size(0, 1)).collect(),
            kernel,
            dilations,
            include_pad: r.size(0, 1) == 1,
            column_major: r.size(0, 1) == 1,
            block,
        }
    }

    fn check(&self, r: &mut Random) {
        let tail: &[usize] = if self.block > 0 { &[self.block] } else { &[] };
        let x = r.tensor(self.ty, [&self.planes[..], &self.input, tail].concat());
        let sizes = |v: &Vec<usize>| Attr::from(&v[..]);
        let mut attrs = vec![
            ("kernel", sizes(&self.kernel)),
            ("strides", sizes(&self.strides)),
            ("pads", sizes(&self.pads)),
            ("dilations", sizes(&self.dilations)),
        ];
        match self.kind {
            Kind::ArgMaxPool => attrs.push(("column_major", Attr::from(self.column_major))),
            Kind::AvgPool => {
                attrs.extend([("include_pad", Attr::from(self.include_pad)), ("extra", sizes(&self.extra))]);
                attrs.push(("block", Attr::from(self.block as i64)));
            }
            _ => attrs.push(("block", Attr::from(self.block as i64))),
        }
        check(self.kind, &attrs, &[(x, false)]);
    }
}

#[test]
fn random_windows() {
    let r = &mut Random::new(7);
    for _ in 0..30 {
        for kind in [Kind::MaxPool, Kind::AvgPool] {
            let rank = r.size(1, 3);
            let block = [0, 4, 8, 8, 3][r.size(0, 4)];
            Case::random(r, kind, rank, block).check(r);
        }
        let rank = r.size(1, 3);
        Case::random(r, Kind::ArgMaxPool, rank, 0).check(r);
    }
}

#[test]
fn every_type() {
    use Type::*;
    let r = &mut Random::new(8);
    for ty in [F64, F16, BF16, I8, U8, I32, U32, I64, U64] {
        for kind in [Kind::MaxPool, Kind::AvgPool, Kind::ArgMaxPool] {
            if kind == Kind::AvgPool && !ty.is_float() {
                continue;
            }
            for block in [0, 8] {
                let block = if kind == Kind::ArgMaxPool { 0 } else { block };
                Case { ty, ..Case::random(r, kind, 2, block) }.check(r);
            }
        }
    }
}

#[test]
fn places_of_maxima() {
    let mut random = Random::new(2);
    for round in 0..24 {
        let axes = 1 + round % 3;
        let size: Vec<usize> = (0..axes).map(|_| random.size(5, 8)).collect();
        let pick =
            |random: &mut Random, low: usize, high: usize, n: usize| Attr::Ints((0..n).map(|_| random.size(low, high) as i64).collect());
        let attrs = [
            ("kernel", pick(&mut random, 2, 3, axes)),
            ("strides", pick(&mut random, 1, 2, axes)),
            ("pads", pick(&mut random, 0, 1, 2 * axes)),
            ("dilations", pick(&mut random, 1, 1 + round % 2, axes)),
            ("column_major", Attr::Int(round as i64 % 2)),
        ];
        let ty = [Type::F32, Type::F64, Type::I8, Type::U8][round % 4];
        check(Kind::ArgMaxPool, &attrs, &[(random.tensor(ty, [&[2, 2], &size[..]].concat()), false)]);
    }
}
