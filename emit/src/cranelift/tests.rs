//! Kernels as Cranelift compiles them.

use super::emitter::Cranelift;
use super::folding::reciprocal;
use dnnc_kir::Builder;
use dnnc_kir::testing::{Case, every_op, random};
use dnnc_kir::{Bin, Elem, Func, Ty, Val};

#[cfg(target_arch = "x86_64")]
fn check(target: &str, cases: impl Iterator<Item = Case>) {
    let target = dnnc_targets::find(target).expect("a target of the table");
    let emitter = Cranelift::new(target).unwrap();
    for case in cases {
        crate::testing::check(&case, emitter.features.fma, &|func| emitter.emit(func));
    }
}

/// The native machine has to have what the target says; these run on any x86-64 with AVX2.
#[cfg(target_arch = "x86_64")]
#[test]
fn every_operation_means_what_the_interpreter_says() {
    for target in ["x86-64-v3", "x86-64-v2", "x86-64"] {
        check(target, every_op(64).into_iter());
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn random_kernels_mean_what_the_interpreter_says() {
    for (i, target) in ["x86-64-v3", "x86-64-v2", "x86-64"].into_iter().enumerate() {
        check(target, (0..300).map(|seed| random(1000 * i as u64 + seed, [16, 32, 64][seed as usize % 3])));
    }
}

#[test]
fn reciprocals_divide() {
    let near = |n: u64| [n.wrapping_sub(1), n, n.wrapping_add(1)];
    let divisors = (3..200).chain((7..64).flat_map(|bits| near(1 << bits))).chain([u64::MAX, u64::MAX / 3]);
    for by in divisors.filter(|by| !by.is_power_of_two()) {
        let (factor, bits, carries) = reciprocal(by);
        let most = u64::MAX / by;
        for x in [0, 1, most / 2, most].into_iter().flat_map(|q| near(q * by)) {
            let high = (u128::from(x) * u128::from(factor)) >> 64;
            let sum = if carries { high + u128::from(x) } else { high };
            assert_eq!((sum >> bits) as u64, x / by, "{x} / {by}");
        }
    }
}

/// Integers and constants in all places: what is known beforehand is as the interpreter has it.
#[cfg(target_arch = "x86_64")]
#[test]
fn known_integers_are_folded_rightly() {
    let constants = [0, 1, 2, 3, 5, 7, 8, 10, 96, 641, 1 << 20, (1 << 33) + 1, i64::MAX, i64::MIN, -1, -2];
    let numbers: Vec<i64> = constants.iter().flat_map(|c: &i64| [c.wrapping_sub(1), *c, c.wrapping_mul(3)]).collect();
    let ops = [Bin::Add, Bin::Sub, Bin::Mul, Bin::DivU, Bin::RemU, Bin::DivS, Bin::RemS, Bin::MinS, Bin::Shl, Bin::ShrU];
    for op in ops {
        let mut b = Builder::new("known", 2);
        let (from, to) = (b.param(0), b.param(1));
        let mut at = 0;
        let mut keep = |b: &mut Builder, v: Val| {
            b.store(v, to, at);
            at += 8;
        };
        for (i, c) in constants.into_iter().enumerate() {
            let known = b.int(Ty::I64, c);
            for n in 0..numbers.len() {
                let x = b.load(Ty::I64, from, 8 * n as i32);
                let (left, right) = (b.bin(op, x, known), b.bin(op, known, x));
                keep(&mut b, left);
                keep(&mut b, right);
            }
            let other = b.int(Ty::I64, constants[(i + 1) % constants.len()]);
            let both = b.bin(op, known, other);
            keep(&mut b, both);
        }
        let buffers = vec![numbers.iter().flat_map(|n| n.to_le_bytes()).collect(), vec![0; at as usize]];
        check("x86-64", [Case { func: b.finish(), buffers, tasks: 1, floats: vec![] }].into_iter());
    }
}

#[test]
fn constant_factors_share_registers_on_aarch64() {
    let v = Ty::vector(Elem::F32, 4);
    let mut b = Builder::new("factors", 2);
    let (from, to) = (b.param(0), b.param(1));
    let x = b.load(v, from, 0);
    let sum = (2..10).fold(x, |sum, factor| {
        let factor = b.number(v, f64::from(factor) / 3.0);
        b.fma(factor, x, sum)
    });
    b.store(sum, to, 0);
    let text = Cranelift::new(dnnc_targets::find("aarch64").unwrap()).unwrap().listing(&b.finish()).unwrap();
    let count = |word: &str| text.lines().filter(|l| l.contains(word)).count();
    assert_eq!(count("fmla "), 8, "{text}");
    assert_eq!(count("ldr q"), 1 + 2, "{text}");
}

/// C += A·B as kernels of products write it: rows read as vectors of four steps, whose lanes are factors.
fn tile(rows: usize, vectors: usize) -> Func {
    let v = Ty::vector(Elem::F32, 4);
    let mut b = Builder::new(format!("tile {rows}x{vectors}"), 3);
    let zero = b.number(v, 0.0);
    let init: Vec<Val> = [b.param(0), b.param(1)].into_iter().chain(vec![zero; rows * vectors]).collect();
    let out = b.for_count(64, &init, |b, _, carried| {
        let mut acc = carried[2..].to_vec();
        let a: Vec<Val> = (0..rows).map(|i| b.load(v, carried[0], (i * 1024) as i32)).collect();
        for step in 0..4 {
            let w: Vec<Val> = (0..vectors).map(|j| b.load(v, carried[1], ((step * vectors + j) * 16) as i32)).collect();
            for i in 0..rows {
                let x = b.shuffle(a[i], a[i], &[step as u8; 4]);
                for j in 0..vectors {
                    acc[i * vectors + j] = b.fma(x, w[j], acc[i * vectors + j]);
                }
            }
        }
        let next = [b.offset_int(carried[0], 16), b.offset_int(carried[1], (64 * vectors) as i64)];
        next.into_iter().chain(acc).collect()
    });
    for (i, x) in out[2..].iter().enumerate() {
        b.store(*x, b.param(2), 16 * i as i32);
    }
    b.finish()
}

#[test]
fn tiles_of_multiply_adds_spill_nothing_on_aarch64() {
    let emitter = Cranelift::new(dnnc_targets::find("aarch64").unwrap()).unwrap();
    for (rows, vectors) in [(8, 2), (4, 4), (6, 3), (7, 3), (5, 4)] {
        let text = emitter.listing(&tile(rows, vectors)).unwrap();
        let count = |word: &str| text.lines().filter(|l| l.contains(word)).count();
        assert_eq!(count("fmla "), 4 * rows * vectors, "{rows}x{vectors}: {text}");
        assert_eq!(count("ldr q") + count("ldp q"), rows + 4 * vectors, "{text}");
    }
}
