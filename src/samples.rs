//! Made-up input values, for measurements and tests without data.

use dnnc_ir::eval::eval_op;
use dnnc_ir::random::Rng;
use dnnc_ir::{Kind, Op, Tensor, TensorType, Type};

/// Values of a type: uniform in −1…1 for floats, small non-negative integers, all true; the same every time.
pub fn sample(ty: &TensorType, seed: u64) -> Tensor {
    let mut rng = Rng::new(seed);
    let unit: Vec<f64> = (0..ty.len()).map(|_| rng.unit()).collect();
    let numbers = Tensor::new(ty.shape.clone(), &unit);
    let numbers = match ty.ty {
        t if t.is_float() => numbers,
        Type::Bool => Tensor::new(ty.shape.clone(), &vec![1.0; ty.len()]),
        _ => Tensor::new(ty.shape.clone(), &unit.iter().map(|v| ((v + 1.0) * 2.0).floor()).collect::<Vec<f64>>()),
    };
    let cast = Op::new(Kind::Cast, [("to", ty.ty.into())]).expect("the row of `cast`");
    let mut cast = eval_op(&cast, &[numbers]).expect("a cast of finite numbers");
    cast.swap_remove(0)
}
