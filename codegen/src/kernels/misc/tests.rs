//! Against the reference.

use crate::kernels::testing::{Random, check};
use dnnc_ir::{Attr, Kind, Tensor, Type};

#[test]
fn determinants() {
    let mut random = Random::new(1);
    for n in [1, 2, 3, 5, 8] {
        for ty in [Type::F32, Type::F64] {
            check(Kind::Det, &[], &[(random.tensor(ty, [3, n, n]), false)]);
        }
    }
    check(Kind::Det, &[], &[(Tensor::new([2, 2], &[0.0f32, 0.0, 1.0, 2.0]), false)]);
    check(Kind::Det, &[], &[(Tensor::new([2, 2], &[0.0f32, 2.0, 3.0, 0.0]), false)]);
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
