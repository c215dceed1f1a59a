//! Reductions of random shapes and types against the reference.

use crate::kernels::testing::{Random, check};
use dnnc_ir::{Attr, Kind, Tensor, Type};

const TYPES: [Type; 10] = [Type::F32, Type::F64, Type::F16, Type::BF16, Type::I8, Type::U8, Type::I32, Type::U32, Type::I64, Type::U64];

fn shape(random: &mut Random, rank: usize) -> Vec<usize> {
    let least = usize::from(random.size(0, 4) > 0);
    (0..rank).map(|_| [0, 1, 2, 3, 7, 8, 9, 16, 35][random.size(least, 8)]).collect()
}

#[test]
fn reductions() {
    let kinds = [Kind::ReduceSum, Kind::ReduceProd, Kind::ReduceMax, Kind::ReduceMin, Kind::ReduceMean];
    let mut random = Random::new(3);
    for round in 0..120 {
        let kind = kinds[round % 5];
        let rank = random.size(0, 4);
        let shape = shape(&mut random, rank);
        let ty = match TYPES[random.size(0, 9)] {
            Type::U64 if matches!(kind, Kind::ReduceMax | Kind::ReduceMin) => Type::Bool,
            ty => ty,
        };
        let axes: Vec<i64> = (0..rank as i64).filter(|_| random.size(0, 1) == 0).collect();
        if kind == Kind::ReduceMean && !ty.is_float() && axes.iter().any(|&a| shape[a as usize] == 0) {
            continue;
        }
        // A product of thousands of halves says nothing.
        if kind == Kind::ReduceProd && axes.iter().map(|&a| shape[a as usize]).product::<usize>() > 40 {
            continue;
        }
        let keep = random.size(0, 1) as i64;
        check(kind, &[("axes", axes.into()), ("keepdims", keep.into())], &[(random.tensor(ty, shape), false)]);
    }
}

#[test]
fn long_reductions_keep_their_precision() {
    let mut random = Random::new(4);
    for (shape, axes) in [(vec![20_003], vec![0]), (vec![2, 9_011], vec![1]), (vec![1500, 11], vec![0]), (vec![5, 10, 300], vec![0, 2])] {
        for kind in [Kind::ReduceSum, Kind::ReduceMean, Kind::ReduceMax] {
            check(kind, &[("axes", Attr::Ints(axes.clone()))], &[(random.tensor(Type::F32, shape.clone()), false)]);
        }
    }
}

#[test]
fn nan_passes_on() {
    for at in [0, 3, 8, 20, 36] {
        let mut values = [1.0f32; 37];
        values[at] = f32::NAN;
        values[(at + 5) % 37] = 9.0;
        for kind in [Kind::ReduceMax, Kind::ReduceMin] {
            check(kind, &[("axes", Attr::Ints(vec![0]))], &[(Tensor::new([37], &values), false)]);
        }
        for (kind, last) in [(Kind::ArgMax, 0), (Kind::ArgMin, 0), (Kind::ArgMax, 1), (Kind::ArgMin, 1)] {
            check(kind, &[("axis", 0.into()), ("last", last.into())], &[(Tensor::new([37], &values), false)]);
        }
        let top = [("axis", Attr::Int(0)), ("k", Attr::Int(5)), ("largest", Attr::Int(at as i64 % 2))];
        check(Kind::TopK, &top, &[(Tensor::new([37], &values), false)]);
    }
}

/// Few different numbers, so that there are equals.
fn coarse(random: &mut Random, ty: Type, shape: Vec<usize>) -> Tensor {
    let n: usize = shape.iter().product();
    match ty {
        Type::F32 => Tensor::new(shape, &(0..n).map(|_| random.size(0, 6) as f32 - 3.0).collect::<Vec<_>>()),
        Type::F64 => Tensor::new(shape, &(0..n).map(|_| random.size(0, 6) as f64 - 3.0).collect::<Vec<_>>()),
        Type::I32 => Tensor::new(shape, &(0..n).map(|_| random.size(0, 6) as i32 - 3).collect::<Vec<_>>()),
        ty => random.tensor(ty, shape),
    }
}

#[test]
fn places_of_extremes() {
    let mut random = Random::new(5);
    for round in 0..80 {
        let kind = [Kind::ArgMax, Kind::ArgMin][round % 2];
        let rank = random.size(1, 3);
        let mut shape: Vec<usize> = shape(&mut random, rank);
        let axis = random.size(0, rank - 1);
        shape[axis] = [1, 5, 40, 77][random.size(0, 3)];
        let x = coarse(&mut random, [Type::F32, Type::F32, Type::F64, Type::I32, Type::U8, Type::I64, Type::F16][round % 7], shape);
        let attrs = [("axis", (axis as i64).into()), ("last", (round as i64 / 2 % 2).into()), ("keepdims", (round as i64 % 3 / 2).into())];
        check(kind, &attrs, &[(x, false)]);
    }
}

#[test]
fn scans() {
    let mut random = Random::new(6);
    for round in 0..60 {
        let kind = [Kind::CumSum, Kind::CumProd][round % 2];
        let rank = random.size(1, 3);
        let shape = shape(&mut random, rank);
        let axis = random.size(0, rank - 1) as i64;
        let attrs = [("axis", axis.into()), ("exclusive", (round as i64 / 2 % 2).into()), ("reverse", (round as i64 / 4 % 2).into())];
        check(kind, &attrs, &[(random.tensor([Type::F32, Type::F64, Type::I32, Type::I64][round % 4], shape), false)]);
    }
}

#[test]
fn rankings() {
    let mut random = Random::new(7);
    for round in 0..60 {
        let rank = random.size(1, 3);
        let mut shape: Vec<usize> = shape(&mut random, rank);
        let axis = random.size(0, rank - 1);
        shape[axis] = [1, 2, 5, 30][random.size(0, 3)];
        let k = random.size(0, shape[axis]) as i64;
        let x = coarse(&mut random, [Type::F32, Type::F64, Type::I32, Type::U32, Type::I64, Type::F16][round % 6], shape);
        check(Kind::TopK, &[("axis", (axis as i64).into()), ("k", k.into()), ("largest", (round as i64 % 2).into())], &[(x, false)]);
    }
}
