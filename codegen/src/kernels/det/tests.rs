//! Against the reference.

use crate::kernels::testing::{Random, check};
use dnnc_ir::{Kind, Tensor, Type};

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
    check(Kind::Det, &[], &[(Tensor::new([2, 2, 2], &[0.0f32, 1.0, 0.0, f32::NAN, 1.0, f32::NAN, 0.0, 2.0]), false)]);
}
