use super::{Matrix, SparsityPattern, Steps};
use crate::kernels::family;
use crate::kernels::testing::{Random, check, check_by};
use crate::tuner::{Trial, Tuner};
use crate::unit::{Operand, Options, Unit};
use dnnc_ir::{Attr, Kind, Op, Tensor, TensorType, Type};
use dnnc_targets::find;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Sets elements to 0: blocks of `block` rows (of the first axis) × one element, so that about a share of `density` is left.
fn thinned(r: &mut Random, w: &Tensor, block: usize, density: f64) -> Tensor {
    let shape = w.ty().shape.clone();
    let columns = w.len() / shape[0];
    let kept: Vec<bool> = (0..shape[0].div_ceil(block) * columns).map(|_| r.unit() * 0.5 + 0.5 < density).collect();
    let values = w.values::<f32>().iter().enumerate();
    let values: Vec<f32> = values.map(|(i, &v)| if kept[i / columns / block * columns + i % columns] { v } else { 0.0 }).collect();
    Tensor::new(shape, &values)
}

fn conv(r: &mut Random, block: usize, channels: [usize; 2], image: [usize; 2], kernel: [usize; 2], stride: usize, w: &Tensor) {
    let x = r.tensor(Type::F32, [1 + stride % 2, channels[0].div_ceil(block), image[0], image[1], block]);
    let mut inputs = vec![(x, false), (w.clone(), true)];
    if stride == 1 {
        inputs.push((r.tensor(Type::F32, [channels[1]]), true));
    }
    let pads: Vec<usize> = kernel.iter().chain(&kernel).map(|k| k / 2).collect();
    let attrs = [
        ("strides", Attr::from(&[stride; 2][..])),
        ("pads", Attr::from(&pads[..])),
        ("dilations", Attr::from(&[1usize; 2][..])),
        ("groups", Attr::from(1i64)),
        ("block", Attr::from(block as i64)),
    ];
    check(Kind::Conv, &attrs, &inputs);
}

#[test]
fn convolutions_of_every_density() {
    let r = &mut Random::new(11);
    for (i, density) in [0.0, 0.05, 0.2, 0.4, 0.7, 1.0].into_iter().enumerate() {
        for block in [4, 8] {
            let channels = [r.size(5, 40), r.size(9, 60)];
            let image = [r.size(1, 9), r.size(3, 12)];
            let w = r.tensor(Type::F32, [channels[1], channels[0], 1, 1]);
            let w = thinned(r, &w, [8, 4, 1][i % 3], density);
            conv(r, block, channels, image, [1, 1], 1 + i % 2, &w);
        }
    }
}

#[test]
fn windows_with_zeros() {
    let r = &mut Random::new(12);
    for (block, kernel) in [(4, [3, 3]), (8, [3, 3]), (8, [1, 5])] {
        for stride in [1, 2] {
            let channels = [r.size(3, 12), r.size(9, 30)];
            let w = r.tensor(Type::F32, [channels[1], channels[0], kernel[0], kernel[1]]);
            let w = thinned(r, &w, 8, 0.2);
            conv(r, block, channels, [8, 9], kernel, stride, &w);
        }
    }
}

#[test]
fn groups_that_are_no_whole_blocks() {
    let r = &mut Random::new(13);
    let (groups, inputs, outputs) = (4, 7, 9);
    let w = r.tensor(Type::F32, [groups * outputs, groups * inputs, 1, 1]);
    let mut values = w.values::<f32>().to_vec();
    for (i, v) in values.iter_mut().enumerate() {
        // The channels of a group lie `groups` apart, as behind a shuffle.
        let (o, c) = (i / (groups * inputs), i % (groups * inputs));
        if o / outputs != c % groups {
            *v = 0.0;
        }
    }
    let w = Tensor::new(w.ty().shape.clone(), &values);
    for block in [4, 8] {
        conv(r, block, [groups * inputs, groups * outputs], [5, 6], [1, 1], 1, &w);
    }
}

#[test]
fn matrices_of_every_density() {
    let r = &mut Random::new(14);
    for (i, rows) in [1, 1, 2, 5, 9, 20, 33].into_iter().enumerate() {
        for (j, density) in [0.0, 0.04, 0.15, 0.3].into_iter().enumerate() {
            let (depth, columns) = (r.size(1, 70), r.size(1, 60));
            let known = r.tensor(Type::F32, [columns, depth]);
            let known = thinned(r, &known, [1, 8, 4][(i + j) % 3], density);
            let trans_b = (i + j) % 2 == 0;
            let known = match trans_b {
                true => known,
                false => {
                    let op = dnnc_ir::Op::new(Kind::Transpose, [("perm", Attr::from(vec![1i64, 0]))]).expect("transpose");
                    dnnc_ir::eval_op(&op, &[known]).expect("a matrix").remove(0)
                }
            };
            // Elements of the left side may be 0, too.
            let x = r.tensor(Type::F32, [rows, depth]);
            let x = thinned(r, &x, 1, 0.6);
            check(
                Kind::MatMul,
                &[("trans_a", Attr::from(0i64)), ("trans_b", Attr::from(i64::from(trans_b)))],
                &[(x, false), (known, true)],
            );
        }
    }
}

#[test]
fn blocks_whose_columns_are_mixed_are_found() {
    let r = &mut Random::new(15);
    for (depth, columns) in [(64, 48), (50, 45)] {
        let w = r.tensor(Type::F32, [columns, depth]);
        let w = thinned(r, &w, 8, 0.1);
        // Column i comes from place 7·i: neighbours are of different blocks.
        let values: Vec<f32> = (0..columns * depth).map(|i| w.values::<f32>()[i / depth * 7 % columns * depth + i % depth]).collect();
        let m = Matrix { data: &values, steps: depth, columns, step: 1, column: depth };
        let support = SparsityPattern::of(&m);
        let filled = |s: &SparsityPattern| s.blocks(8).iter().map(Steps::len).sum::<usize>();
        assert!(filled(&support.grouped()) * 2 < filled(&support), "{} of {}", filled(&support.grouped()), filled(&support));
        let known = Tensor::new([columns, depth], &values);
        for rows in [1, 3] {
            let x = r.tensor(Type::F32, [rows, depth]);
            check(Kind::MatMul, &[("trans_a", Attr::from(0i64)), ("trans_b", Attr::from(1i64))], &[(x, false), (known.clone(), true)]);
        }
    }
}

/// Says that the algorithm whose name ends in a word is much faster than all others, and counts how often there is one.
#[derive(Debug)]
struct Prefers(&'static str, AtomicUsize);

impl Tuner for Prefers {
    fn times(&self, trial: &mut Trial) -> Result<Vec<f64>, String> {
        let names = trial.names;
        let wanted = |name: &str| name.rsplit(", ").next() == Some(self.0);
        self.1.fetch_add(names.iter().filter(|name| wanted(name)).count(), Ordering::Relaxed);
        Ok(names.iter().map(|name| if wanted(name) { 0.0 } else { 1.0 }).collect())
    }
}

#[test]
fn every_form_for_few_rows() {
    let r = &mut Random::new(17);
    let shapes = [
        ("gather", [1, 90, 61], 0.1),
        ("gather", [3, 130, 40], 0.05),
        ("scatter", [1, 40, 403], 0.1),
        ("scatter", [2, 33, 320], 0.08),
        ("gather or scatter", [1, 301, 1001], 0.03),
        ("gather or scatter", [2, 280, 903], 0.03),
    ];
    for (form, [rows, depth, columns], density) in shapes {
        let w = r.tensor(Type::F32, [columns, depth]);
        let w = thinned(r, &w, 1, density);
        let prefers = Arc::new(Prefers(form, AtomicUsize::new(0)));
        let lower = |unit: &Unit| {
            let options = Options { tuner: Some(prefers.clone()), ..unit.options.clone() };
            let (inputs, results, stored) = (unit.inputs.clone(), unit.results.clone(), unit.stored.clone());
            let unit = Unit { op: unit.op, inputs, results, epilogue: unit.epilogue, stored, target: unit.target, options: &options };
            (family(Kind::MatMul).expect("a family").lower)(&unit)
        };
        // Rows with few zeros, with many, and with nothing else.
        for filled in [0.9, 0.2, 0.0] {
            let x = r.tensor(Type::F32, [rows, depth]);
            let x = thinned(r, &x, 1, filled);
            let attrs = [("trans_a", Attr::from(0i64)), ("trans_b", Attr::from(1i64))];
            check_by(&lower, 1.0, Kind::MatMul, &attrs, &[(x, false), (w.clone(), true)]);
        }
        assert!(prefers.1.load(Ordering::Relaxed) > 0, "{form} never came into question for {rows} rows");
    }
}

#[test]
fn every_form_is_computed_where_it_is_fastest() {
    let name = |shape: [usize; 3], block: usize, density: f64| {
        let r = &mut Random::new(16);
        let [rows, depth, columns] = shape;
        let w = r.tensor(Type::F32, [columns, depth]);
        let w = thinned(r, &w, block, density);
        let op = Op::new(Kind::MatMul, [("trans_b", Attr::from(1i64))]).expect("attributes");
        let types = [TensorType::new(Type::F32, [rows, depth]), w.ty().clone()];
        let result = TensorType::new(Type::F32, [rows, columns]);
        let options = Options::default();
        let unit = Unit {
            op: &op,
            inputs: vec![Operand { ty: types[0].clone(), constant: None }, Operand { ty: types[1].clone(), constant: Some(&w) }],
            results: vec![result.clone()],
            epilogue: None,
            stored: result,
            target: find("x86-64-v3").expect("a target"),
            options: &options,
        };
        let lowered = (family(Kind::MatMul).expect("a family").lower)(&unit).expect("it can be lowered");
        lowered.choice.expect("several ways").name
    };
    assert_eq!(name([128, 256, 256], 1, 0.1), "sparse 1x1, rows in lanes");
    assert_eq!(name([128, 256, 256], 1, 1.0), "direct");
}
