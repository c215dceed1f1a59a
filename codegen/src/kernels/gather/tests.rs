//! Random places against the reference; places out of range end with a status.

use crate::kernels::testing::{Random, check};
use dnnc_ir::{Attr, Kind, Tensor, TensorType, Type};

const TYPES: [Type; 6] = [Type::F32, Type::F64, Type::U8, Type::F16, Type::I64, Type::I32];

fn shape(random: &mut Random, rank: usize) -> Vec<usize> {
    (0..rank).map(|_| [1, 2, 3, 4, 7, 9][random.size(0, 5)]).collect()
}

/// Indices into an axis of `size`, negative ones too.
fn indices(random: &mut Random, shape: Vec<usize>, size: usize) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<i64> = (0..n).map(|_| random.size(0, 2 * size - 1) as i64 - size as i64).collect();
    Tensor::new(shape, &values)
}

#[test]
fn gather() {
    let mut random = Random::new(1);
    for _ in 0..50 {
        let rank = random.size(1, 3);
        let (mut shape_x, axis) = (shape(&mut random, rank), random.size(0, rank - 1));
        if random.size(0, 3) == 0 {
            shape_x[rank - 1] = 45; // rows of more than a vector
        }
        let rank_idx = random.size(0, 2);
        let of_idx = shape(&mut random, rank_idx);
        let idx = indices(&mut random, of_idx, shape_x[axis]);
        let ty = TYPES[random.size(0, 5)];
        check(Kind::Gather, &[("axis", (axis as i64).into())], &[(random.tensor(ty, shape_x), false), (idx, false)]);
    }
}

#[test]
fn elements() {
    let mut random = Random::new(2);
    for _ in 0..40 {
        let rank = random.size(1, 3);
        let (x, axis) = (shape(&mut random, rank), random.size(0, rank - 1));
        let mut of_idx: Vec<usize> = x.iter().map(|&s| random.size(1, s)).collect();
        of_idx[axis] = random.size(0, 6);
        let idx = indices(&mut random, of_idx.clone(), x[axis]);
        let ty = TYPES[random.size(0, 5)];
        let axis = ("axis", Attr::Int(axis as i64));
        check(Kind::GatherElements, std::slice::from_ref(&axis), &[(random.tensor(ty, x.clone()), false), (idx.clone(), false)]);
        let reduction = ["none", "add", "mul", "min", "max"][random.size(0, 4)];
        let inputs = [(random.tensor(ty, x), false), (idx, false), (random.tensor(ty, of_idx), false)];
        check(Kind::ScatterElements, &[axis, ("reduction", Attr::Word(reduction))], &inputs);
    }
}

#[test]
fn slices() {
    let mut random = Random::new(3);
    for _ in 0..40 {
        let rank = random.size(1, 4);
        let x = shape(&mut random, rank);
        let batch = random.size(0, rank - 1);
        let depth = random.size(1, rank - batch);
        let ty = TYPES[random.size(0, 5)];
        // Every index must fit its own axis: draw them an axis at a time.
        let rows = |random: &mut Random, lead: Vec<usize>, first: usize, depth: usize| {
            let n: usize = lead.iter().product();
            let values: Vec<i64> = (0..n)
                .flat_map(|_| (0..depth).map(|d| random.size(0, 2 * x[first + d] - 1) as i64 - x[first + d] as i64).collect::<Vec<_>>())
                .collect();
            Tensor::new([lead, vec![depth]].concat(), &values)
        };
        let idx = rows(&mut random, [&x[..batch], &[3]].concat(), batch, depth);
        check(Kind::GatherNd, &[("batch_dims", (batch as i64).into())], &[(random.tensor(ty, x.clone()), false), (idx, false)]);
        let depth = random.size(1, rank);
        let lead = random.size(0, 4);
        let idx = rows(&mut random, vec![lead], 0, depth);
        let updates = random.tensor(ty, [&[lead], &x[depth..]].concat());
        let reduction = ["none", "add", "mul", "min", "max"][random.size(0, 4)];
        check(
            Kind::ScatterNd,
            &[("reduction", Attr::Word(reduction))],
            &[(random.tensor(ty, x.clone()), false), (idx, false), (updates, false)],
        );
    }
}

#[test]
fn resample() {
    let mut random = Random::new(4);
    for round in 0..40 {
        let rank = random.size(1, 4);
        let (mut x, axis) = (shape(&mut random, rank), random.size(0, rank - 1));
        if round % 3 == 0 {
            x[rank - 1] = 20;
        }
        let (outputs, taps) = (random.size(1, 9), [1, 2, 4, 11][random.size(0, 3)]);
        let idx: Vec<i64> = (0..outputs * taps).map(|_| random.size(0, x[axis] - 1) as i64).collect();
        let ty = [Type::F32, Type::F64, Type::F16][random.size(0, 2)];
        let inputs = [
            (random.tensor(ty, x), false),
            (Tensor::new([outputs, taps], &idx), false),
            (random.tensor([Type::F32, ty][round % 2], [outputs, taps]), false),
        ];
        check(Kind::Resample, &[("axis", (axis as i64).into())], &inputs);
    }
}

/// What a kernel ends with when it is given these indices.
fn status(kind: Kind, x: Tensor, idx: Tensor, more: Option<Tensor>) -> String {
    let inputs: Vec<(Tensor, bool)> = [Some(x), Some(idx), more].into_iter().flatten().map(|t| (t, false)).collect();
    crate::kernels::testing::failure(kind, &[("axis", Attr::Int(0))], &inputs)
}

#[test]
fn places_out_of_range() {
    let x = Tensor::zeros(TensorType::new(Type::F32, [3, 2]));
    for bad in [3i64, -4, i64::MAX, i64::MIN] {
        let idx = Tensor::new([1, 1], &[bad]);
        assert!(status(Kind::Gather, x.clone(), idx.clone(), None).ends_with("status 1"));
        assert!(status(Kind::GatherElements, x.clone(), idx.clone(), None).ends_with("status 1"));
        let weights = Tensor::new([1, 1], &[1.0f32]);
        assert!(status(Kind::ScatterElements, x.clone(), idx.clone(), Some(weights.clone())).ends_with("status 1"));
        assert!(status(Kind::Resample, x.clone(), idx, Some(weights)).ends_with("status 1"));
    }
}
