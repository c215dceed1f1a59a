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

#[test]
fn grid_sample() {
    let mut random = Random::new(5);
    for round in 0..36 {
        let axes = 2 + round / 18;
        let shape: Vec<usize> = [2, 3].into_iter().chain((0..axes).map(|_| random.size(1, 5))).collect();
        let outputs: Vec<usize> = (0..axes).map(|_| random.size(1, 3)).collect();
        let ty = [Type::F32, Type::F64][random.size(0, 1)];
        // Places beyond the image too.
        let n: usize = 2 * outputs.iter().product::<usize>() * axes;
        let of_grid = [vec![2], outputs, vec![axes]].concat();
        let grid = match ty {
            Type::F32 => Tensor::new(of_grid, &(0..n).map(|_| random.unit() as f32 * 2.5).collect::<Vec<_>>()),
            _ => Tensor::new(of_grid, &(0..n).map(|_| random.unit() * 2.5).collect::<Vec<_>>()),
        };
        let attrs = [
            ("mode", Attr::Word(["linear", "nearest", "cubic"][round % 3])),
            ("padding", Attr::Word(["zeros", "border", "reflection"][round / 3 % 3])),
            ("align_corners", Attr::Int(round as i64 / 9 % 2)),
        ];
        check(Kind::GridSample, &attrs, &[(random.tensor(ty, shape), false), (grid, false)]);
    }
}

#[test]
fn roi_align() {
    let mut random = Random::new(6);
    for round in 0..16 {
        let (channels, boxes) = ([1, 3, 8, 11][round % 4], 3);
        let corners: Vec<f32> = (0..boxes)
            .flat_map(|_| {
                let [x, y] = [random.unit() as f32 * 6.0 + 2.0, random.unit() as f32 * 5.0 + 2.0];
                [x, y, x + random.size(0, 7) as f32 + 0.3, y + random.size(0, 5) as f32 + 0.6]
            })
            .collect();
        let batch: Vec<i64> = (0..boxes).map(|_| random.size(0, 1) as i64).collect();
        let attrs = [
            ("mode", Attr::Word(["avg", "max"][round % 2])),
            ("out_h", Attr::Int(2)),
            ("out_w", Attr::Int(3)),
            ("ratio", Attr::Int([0, 2][round / 2 % 2])),
            ("scale", Attr::from([1.0, 0.5][round / 4 % 2])),
            ("half_pixel", Attr::Int(round as i64 / 8 % 2)),
        ];
        let x = random.tensor(Type::F32, [2, channels, 6, 7]);
        check(Kind::RoiAlign, &attrs, &[(x, false), (Tensor::new([boxes, 4], &corners), false), (Tensor::new([boxes], &batch), false)]);
    }
}

/// Few different numbers, many zeros.
fn coarse(random: &mut Random, ty: Type, shape: Vec<usize>) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|_| random.size(0, 4) as f64 - 2.0).collect();
    let cast = dnnc_ir::Op::new(Kind::Cast, [("to", ty.into())]).expect("attributes");
    dnnc_ir::eval_op(&cast, &[Tensor::new(shape, &values)]).expect("a cast").remove(0)
}

#[test]
fn found_elements() {
    let mut random = Random::new(7);
    for round in 0..30 {
        let rank = random.size(1, 3);
        let shape = shape(&mut random, rank);
        let ty = [Type::F32, Type::I64, Type::Bool, Type::U8, Type::F64, Type::F16][round % 6];
        let x = coarse(&mut random, ty, shape.clone());
        let zero = |i: usize| x.bytes()[i * ty.bytes()..(i + 1) * ty.bytes()].iter().all(|b| *b == 0);
        let count = (0..x.len()).filter(|&i| !zero(i)).count() as i64;
        check(Kind::NonZero, &[("count", count.into())], &[(x.clone(), false)]);
        let axis = random.size(0, rank - 1);
        let n = random.size(1, shape[axis]);
        let cond = random.tensor(Type::Bool, [n]);
        let count = cond.bytes().iter().filter(|b| **b != 0).count() as i64;
        check(Kind::Compress, &[("axis", (axis as i64).into()), ("count", count.into())], &[(x.clone(), false), (cond, false)]);
        // The number of different ones, from the reference.
        let axis = random.size(0, rank) as i64 - 1;
        for sorted in [0, 1] {
            let open = [("axis", axis.into()), ("sorted", sorted.into()), ("count", Attr::Int(-1))];
            check(Kind::Unique, &open, &[(x.clone(), false)]);
            let op = dnnc_ir::Op::new(Kind::Unique, open.clone()).expect("attributes");
            let found = dnnc_ir::eval_op(&op, std::slice::from_ref(&x)).expect("results")[4].values::<i64>()[0];
            let attrs = [("axis", axis.into()), ("sorted", sorted.into()), ("count", found.into())];
            check(Kind::Unique, &attrs, &[(x.clone(), false)]);
        }
    }
}

#[test]
fn suppression() {
    let mut random = Random::new(8);
    for round in 0..20 {
        let (images, classes, boxes) = (random.size(1, 2), random.size(1, 3), random.size(1, 20));
        let corners: Vec<f32> = (0..images * boxes)
            .flat_map(|_| {
                let [y, x] = [random.size(0, 6) as f32, random.size(0, 6) as f32];
                [y, x, y + random.size(1, 5) as f32, x + random.size(1, 5) as f32]
            })
            .collect();
        let scores: Vec<f32> = (0..images * classes * boxes).map(|_| random.size(0, 12) as f32 / 10.0).collect();
        let inputs = [
            (Tensor::new([images, boxes, 4], &corners), false),
            (Tensor::new([images, classes, boxes], &scores), false),
            (Tensor::scalar([0i64, 2, 100][round % 3]), false),
            (Tensor::scalar([0.3f32, 0.0, 0.6][round / 3 % 3]), false),
            (Tensor::scalar(0.35f32), false),
        ];
        let center = ("center", Attr::Int(round as i64 % 2));
        let open = [center.clone(), ("count", Attr::Int(-1))];
        check(Kind::NonMaxSuppression, &open, &inputs);
        let op = dnnc_ir::Op::new(Kind::NonMaxSuppression, open).expect("attributes");
        let tensors: Vec<Tensor> = inputs.iter().map(|i| i.0.clone()).collect();
        let found = dnnc_ir::eval_op(&op, &tensors).expect("results")[1].values::<i64>()[0];
        check(Kind::NonMaxSuppression, &[center, ("count", found.into())], &inputs);
    }
}

#[test]
fn another_number_than_promised() {
    let x = Tensor::new([4], &[1.0f32, 0.0, 2.0, 3.0]);
    for count in [1, 2, 4] {
        let end = crate::kernels::testing::failure(Kind::NonZero, &[("count", Attr::Int(count))], &[(x.clone(), false)]);
        assert!(end.ends_with("status 2"), "{end}");
    }
}
