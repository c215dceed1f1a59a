//! Copies of random shapes and types against the reference.

use crate::kernels::testing::{Random, check};
use dnnc_ir::{Attr, Kind, Type};

const TYPES: [Type; 6] = [Type::F32, Type::F64, Type::U8, Type::F16, Type::I64, Type::Bool];

/// Sizes around those of vectors and tiles, now and then none at all.
fn shape(random: &mut Random, rank: usize) -> Vec<usize> {
    (0..rank)
        .map(|_| match random.size(0, 20) {
            0 => 0,
            1..=4 => 1,
            5..=8 => [8, 16, 17, 24][random.size(0, 3)],
            _ => random.size(2, 11),
        })
        .collect()
}

fn each(kind: Kind, seed: u64, make: impl Fn(&mut Random, Vec<usize>) -> Option<Vec<(&'static str, Attr)>>) {
    let mut random = Random::new(seed);
    for _ in 0..60 {
        let rank = random.size(1, 4);
        let shape = shape(&mut random, rank);
        let ty = TYPES[random.size(0, 5)];
        let Some(attrs) = make(&mut random, shape.clone()) else { continue };
        let mut inputs = vec![(random.tensor(ty, shape), false)];
        if kind == Kind::Pad {
            inputs.push((random.tensor(ty, []), false));
        }
        check(kind, &attrs, &inputs);
    }
}

fn ints(values: impl IntoIterator<Item = usize>) -> Attr {
    Attr::Ints(values.into_iter().map(|v| v as i64).collect())
}

#[test]
fn transpose() {
    each(Kind::Transpose, 1, |random, shape| {
        let mut perm: Vec<usize> = (0..shape.len()).collect();
        for i in (1..perm.len()).rev() {
            perm.swap(i, random.size(0, i));
        }
        Some(vec![("perm", ints(perm))])
    });
}

#[test]
fn expand() {
    each(Kind::Expand, 2, |random, shape| {
        let mut to: Vec<usize> = shape.iter().map(|&s| if s == 1 { random.size(1, 9) } else { s }).collect();
        if random.size(0, 1) == 0 {
            to.insert(0, random.size(1, 3));
        }
        Some(vec![("shape", ints(to))])
    });
}

#[test]
fn slice() {
    each(Kind::Slice, 3, |random, shape| {
        let mut attrs = [vec![], vec![], vec![]];
        for &n in &shape {
            let step = [1, 1, 2, 3, -1, -2][random.size(0, 5)];
            let start = if n == 0 { 0 } else { random.size(0, n - 1) as i64 };
            let room = if n == 0 {
                0
            } else if step > 0 {
                (n as i64 - 1 - start) / step + 1
            } else {
                start / -step + 1
            };
            let size = if random.size(0, 2) == 0 { random.size(0, room as usize) as i64 } else { room };
            for (list, v) in attrs.iter_mut().zip([start, size, step]) {
                list.push(v);
            }
        }
        let [starts, sizes, steps] = attrs;
        Some(vec![("starts", starts.into()), ("sizes", sizes.into()), ("steps", steps.into())])
    });
}

#[test]
fn pad() {
    for (seed, mode) in ["constant", "reflect", "edge", "wrap"].into_iter().enumerate() {
        each(Kind::Pad, 10 + seed as u64, |random, shape| {
            let pads: Vec<usize> = (0..2 * shape.len()).map(|_| if random.size(0, 1) == 0 { 0 } else { random.size(0, 5) }).collect();
            let fits = mode == "constant" || (0..shape.len()).all(|a| shape[a] > 0 || pads[a] + pads[shape.len() + a] == 0);
            fits.then(|| vec![("pads", ints(pads)), ("mode", Attr::Word(mode))])
        });
    }
}

#[test]
fn pack_and_unpack() {
    for block in [4, 8, 16] {
        each(Kind::Pack, 20 + block as u64, |random, shape| {
            Some(vec![("axis", Attr::Int(random.size(0, shape.len() - 1) as i64)), ("block", Attr::Int(block))])
        });
    }
    let mut random = Random::new(30);
    for _ in 0..60 {
        let (rank, block) = (random.size(1, 4), [4, 8][random.size(0, 1)]);
        let mut shape = shape(&mut random, rank);
        let axis = random.size(0, rank - 1);
        let size = shape[axis];
        shape[axis] = size.div_ceil(block);
        shape.push(block);
        let attrs = [("axis", Attr::Int(axis as i64)), ("block", Attr::Int(block as i64)), ("size", Attr::Int(size as i64))];
        let ty = TYPES[random.size(0, 5)];
        check(Kind::Unpack, &attrs, &[(random.tensor(ty, shape), false)]);
    }
}

#[test]
fn concat() {
    let mut random = Random::new(40);
    for _ in 0..60 {
        let rank = random.size(1, 4);
        let (shape, axis, ty) = (shape(&mut random, rank), random.size(0, rank - 1), TYPES[random.size(0, 5)]);
        let inputs: Vec<_> = (0..random.size(1, 4))
            .map(|_| {
                let mut shape = shape.clone();
                shape[axis] = random.size(0, 9);
                (random.tensor(ty, shape), false)
            })
            .collect();
        check(Kind::Concat, &[("axis", Attr::Int(axis as i64))], &inputs);
    }
}

#[test]
fn large_copies_are_cut_into_tasks() {
    let mut random = Random::new(50);
    for (shape, perm) in [(vec![300, 301], vec![1, 0]), (vec![2, 64, 40, 41], vec![0, 2, 3, 1]), (vec![90_001], vec![0])] {
        check(Kind::Transpose, &[("perm", Attr::Ints(perm))], &[(random.tensor(Type::F32, shape), false)]);
    }
}
