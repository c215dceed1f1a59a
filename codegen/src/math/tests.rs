//! The errors of all functions, measured through the emitters of this machine.
//!
//! f32 functions are compared with f64 ones on a stride through all bit patterns and around the places where they change their way;
//! `DNNC_EXHAUSTIVE=1` makes the stride 1, another number that number. f64 functions are compared at random numbers with those of the C library, whose own errors
//! are part of the bounds. `--nocapture` prints what was measured.

use super::*;
use crate::kernels::testing::Random;
use dnnc_emit::jit::Jit;
use dnnc_emit::testing;
use dnnc_ir::{Kind, Op as IrOp, Tensor, TensorType, Type};
use dnnc_kir::interpret;
use dnnc_kir::program::{Call, Loc, Program, Step};
use dnnc_kir::{Builder, Elem, Ty, Val};
use std::sync::atomic::{AtomicUsize, Ordering};

type Function = fn(&mut Builder, Val) -> Val;

/// A function of one number, with what its documentation promises.
struct Row {
    name: &'static str,
    emit: Function,
    reference: fn(f64) -> f64,
    /// Largest errors in ulp: f32 and f64. Those of f64 have the error of the reference in them: 1 of the C library's functions, up to 6 of the
    /// series of erf.
    bounds: [f64; 2],
    /// In ulp of what these are, given the argument and the result.
    of: fn(f64, f64) -> f64,
    /// Results below so many times the smallest normal number need not have digits.
    least: f64,
    /// Whether −0 stays −0 where it should.
    keeps_minus_zero: bool,
}

const fn row(name: &'static str, emit: Function, reference: fn(f64) -> f64, bounds: [f64; 2]) -> Row {
    Row { name, emit, reference, bounds, of: of_result, least: 1.0, keeps_minus_zero: true }
}

fn of_result(_: f64, y: f64) -> f64 {
    y
}

/// Of the result from −1 on, below of the argument: what is left of 1 + erf and its like has the error of 1.
fn of_gate(x: f64, y: f64) -> f64 {
    if x < -1.0 { x } else { y }
}

const ROWS: &[Row] = &[
    Row { least: 2.0, ..row("exp", exp, f64::exp, [2.0, 2.0]) },
    row("expm1", expm1, f64::exp_m1, [2.5, 2.5]),
    row("sigmoid", sigmoid, |x| 1.0 / (1.0 + (-x).exp()), [3.2, 3.2]),
    // Where 1 + e⁻ˣ overflows, at −88.7, the result is 22 times the smallest normal number.
    Row { least: 24.0, ..row("silu", silu, |x| x / (1.0 + (-x).exp()), [4.0, 4.0]) },
    Row { of: of_gate, least: 24.0, ..row("gelu_tanh", gelu_tanh, gelu_tanh_f64, [5.0, 6.0]) },
    Row { of: of_gate, keeps_minus_zero: false, ..row("gelu", gelu, |x| library(Kind::Gelu, x), [6.0, 9.0]) },
    row("erf", erf, |x| library(Kind::Erf, x), [5.3, 9.0]),
    row("sinh", sinh, f64::sinh, [3.0, 3.0]),
    row("cosh", cosh, f64::cosh, [3.0, 3.0]),
    row("tanh", tanh, f64::tanh, [5.0, 3.0]),
    row("log", log, f64::ln, [1.0, 2.0]),
    row("log1p", log1p, f64::ln_1p, [2.0, 2.0]),
    Row { least: 2.0, ..row("softplus", softplus, |x| x.max(0.0) + (-x.abs()).exp().ln_1p(), [3.0, 3.0]) },
    row("asinh", asinh, asinh_f64, [3.0, 3.0]),
    row("acosh", acosh, acosh_f64, [4.0, 4.0]),
    row("atanh", atanh, |x| ((2.0 * x.abs() / (1.0 - x.abs())).ln_1p() / 2.0).copysign(x), [3.0, 3.0]),
    row("sin", sin, f64::sin, [2.0, 2.0]),
    row("cos", cos, f64::cos, [2.0, 2.0]),
    row("tan", tan, f64::tan, [4.0, 4.0]),
    row("asin", asin, f64::asin, [3.0, 3.0]),
    row("acos", acos, f64::acos, [2.0, 3.0]),
    row("atan", atan, f64::atan, [3.0, 3.0]),
    row("recip", recip, f64::recip, [0.5, 0.5]),
    Row { of: of_gate, ..row("hard_swish", hard_swish, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0), [3.0, 3.0]) },
];

fn gelu_tanh_f64(x: f64) -> f64 {
    x / (1.0 + (-2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).exp())
}

/// log(1 + near), or by the double where its square would overflow.
fn asinh_f64(x: f64) -> f64 {
    let a = x.abs();
    let y = if a > 1e9 { a.ln() + std::f64::consts::LN_2 } else { (a + a * a / (1.0 + (a * a + 1.0).sqrt())).ln_1p() };
    y.copysign(x)
}

fn acosh_f64(x: f64) -> f64 {
    let t = x - 1.0;
    if x < 1.0 {
        return f64::NAN;
    }
    if x > 1e9 { x.ln() + std::f64::consts::LN_2 } else { (t + (t * (t + 2.0)).sqrt()).ln_1p() }
}

/// By the reference evaluator.
fn library(kind: Kind, x: f64) -> f64 {
    let op = IrOp::new(kind, []).expect("no attributes");
    dnnc_ir::eval_op(&op, &[Tensor::new([1], &[x])]).expect("an answer")[0].values::<f64>()[0]
}

/// The function on so many elements, in vectors of this machine or another.
fn kernel(name: &str, emit: Function, elem: Elem, count: usize, bits: usize) -> dnnc_kir::Func {
    let ty = Ty::vector(elem, (bits / 8 / elem.bytes()) as u8);
    let mut b = Builder::new(name, 2);
    let (start, end) = (b.index(0), b.index(count));
    b.for_range(start, end, i64::from(ty.lanes), &[], |b, i, _| {
        let (from, to) = (b.element(b.param(0), i, elem.bytes()), b.element(b.param(1), i, elem.bytes()));
        let x = b.load(ty, from, 0);
        let y = emit(b, x);
        b.store(y, to, 0);
        vec![]
    });
    b.finish()
}

/// Functions of one input each, to one result each.
fn program(rows: &[Row], ty: Type, count: usize, bits: usize) -> Program {
    let elem = if ty == Type::F64 { Elem::F64 } else { Elem::F32 };
    let call = |i: usize| Call { kernel: i, args: vec![Loc::Input(0, 0), Loc::Output(i, 0)], tasks: 1, ..Call::default() };
    let port = || (String::new(), TensorType::new(ty, [count]));
    Program {
        name: "net".into(),
        kernels: rows.iter().map(|r| kernel(r.name, r.emit, elem, count, bits)).collect(),
        constants: vec![],
        steps: (0..rows.len()).map(|i| Step::Call(call(i))).collect(),
        inputs: vec![port()],
        outputs: rows.iter().map(|_| port()).collect(),
        arena_bytes: 0,
    }
}

/// Bits of the mantissa, least exponent and largest number of a float type.
#[derive(Clone, Copy)]
struct Format {
    mantissa: i32,
    least: i32,
    max: f64,
}

const SINGLE: Format = Format { mantissa: 23, least: -126, max: f32::MAX as f64 };
const DOUBLE: Format = Format { mantissa: 52, least: -1022, max: f64::MAX };

/// Error of `got` in ulp of `of`; infinite where it is of the wrong kind. The results of f32 functions are given more exactly than f32 is.
fn error(row: &Row, f: Format, x: f64, got: f64, want: f64) -> f64 {
    if want.is_nan() || got.is_nan() {
        return if want.is_nan() && got.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if want == 0.0 {
        let same = got.to_bits() == want.to_bits() || got == 0.0 && !row.keeps_minus_zero;
        return if same { 0.0 } else { f64::INFINITY };
    }
    // What rounds to infinity is the power of two that would come after the largest number.
    let top = if f.mantissa == 23 { f64::powi(2.0, 128) } else { f.max };
    let (got, want) = (got.clamp(-top, top), want.clamp(-top, top));
    let of = (row.of)(x, want).abs().min(f.max);
    let exponent = (((of.to_bits() >> 52) as i32) - 1023).max(f.least);
    let apart = (got - want).abs();
    if want.abs() < row.least * f64::powi(2.0, f.least) && got.abs() <= row.least * f64::powi(2.0, f.least) {
        return 0.0;
    }
    apart / f64::powi(2.0, exponent) * f64::powi(2.0, f.mantissa)
}

/// The largest error of each function on numbers, and where it is.
struct Worst(Vec<(f64, f64)>);

impl Worst {
    fn note(&mut self, rows: &[Row], f: Format, x: &[f64], y: &[Vec<f64>]) {
        for (worst, (row, y)) in self.0.iter_mut().zip(rows.iter().zip(y)) {
            for (&x, &y) in x.iter().zip(y) {
                let e = error(row, f, x, y, (row.reference)(x));
                if e > worst.0 {
                    *worst = (e, x);
                }
            }
        }
    }

    fn check(&self, rows: &[Row], which: usize) {
        for (row, (e, x)) in rows.iter().zip(&self.0) {
            println!("{:12} {e:8.3} ulp at {x:e}", row.name);
        }
        for (row, (e, x)) in rows.iter().zip(&self.0) {
            assert!(*e <= row.bounds[which], "{}: {e} ulp at {x:e}, not at most {}", row.name, row.bounds[which]);
        }
    }
}

/// Whether functions reach their bounds here.
fn has_fma() -> bool {
    let has = dnnc_targets::native().vector.fma;
    if !has {
        eprintln!("NOT TESTED: this machine has no fused multiply-add");
    }
    has
}

/// Places where functions change their way, and what is around them.
fn edges() -> Vec<u32> {
    const PLACES: [f32; 30] = [
        0.0,
        1e-38,
        1e-30,
        1e-8,
        3e-4,
        0.1,
        0.125,
        0.173,
        0.25,
        0.3466,
        0.41421356,
        0.5,
        0.70710677,
        1.0,
        std::f32::consts::SQRT_2,
        2.0,
        2.4142137,
        3.93,
        4.0,
        8.9,
        17.33,
        40.0,
        87.34,
        88.03,
        88.723,
        89.4,
        6000.0,
        268435456.0,
        1e19,
        f32::MAX,
    ];
    let around = |p: f32| (-300..300).map(move |d| p.to_bits().saturating_add_signed(d));
    PLACES.into_iter().flat_map(around).chain([f32::INFINITY.to_bits(), f32::NAN.to_bits()]).flat_map(|b| [b, b | 1 << 31]).collect()
}

#[test]
fn single_precision_keeps_its_bounds() {
    if !has_fma() {
        return;
    }
    const COUNT: usize = 1 << 14;
    let edges = edges();
    // A prime, so that all lowest bits occur.
    let stride = std::env::var("DNNC_EXHAUSTIVE").map_or(4093, |n| n.parse::<u64>().expect("DNNC_EXHAUSTIVE is a stride").max(1));
    let patterns = |i: usize| edges.get(i).copied().unwrap_or_else(|| ((i - edges.len()) as u64 * stride).min(u64::from(u32::MAX)) as u32);
    let chunks = (edges.len() + (1usize << 32).div_ceil(stride as usize)).div_ceil(COUNT);
    let jit = Jit::new(program(ROWS, Type::F32, COUNT, dnnc_targets::native().vector.bits), dnnc_targets::native(), 1).unwrap();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut worst = Worst(vec![(0.0, 0.0); ROWS.len()]);
        let mut arena = jit.arena();
        let mut results = vec![vec![0u8; 4 * COUNT]; ROWS.len()];
        loop {
            let chunk = next.fetch_add(1, Ordering::Relaxed);
            if chunk >= chunks {
                return worst;
            }
            let bits: Vec<u32> = (0..COUNT).map(|i| patterns(chunk * COUNT + i)).collect();
            let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
            let mut outputs: Vec<&mut [u8]> = results.iter_mut().map(|r| r.as_mut_slice()).collect();
            jit.run(&[&bytes], &mut outputs, &mut arena).unwrap();
            let x: Vec<f64> = bits.iter().map(|&b| f32::from_bits(b).into()).collect();
            worst.note(ROWS, SINGLE, &x, &results.iter().map(|r| singles(r)).collect::<Vec<_>>());
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let all = std::thread::scope(|s| {
        let helpers: Vec<_> = (0..threads).map(|_| s.spawn(work)).collect();
        helpers.into_iter().map(|h| h.join().expect("a thread")).collect::<Vec<_>>()
    });
    let pick = |i: usize| all.iter().map(|w| w.0[i]).max_by(|a, b| a.0.total_cmp(&b.0)).expect("a thread");
    Worst((0..ROWS.len()).map(pick).collect()).check(ROWS, 0);
}

fn singles(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().expect("4 bytes")).into()).collect()
}

fn doubles(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(8).map(|c| f64::from_le_bytes(c.try_into().expect("8 bytes"))).collect()
}

/// Numbers of all sizes, most of them near 1, both signs.
fn random_doubles(random: &mut Random, count: usize) -> Vec<f64> {
    let one = |random: &mut Random| match random.size(0, 9) {
        0 => f64::from_bits(random.bits()),
        1 => [0.0, -0.0, 1.0, -1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 0.5][random.size(0, 7)],
        2 => random.unit() * 750.0,
        3 | 4 => random.unit() * 40.0,
        _ => random.unit() * f64::powi(2.0, random.size(0, 24) as i32 - 20),
    };
    (0..count).map(|_| one(random)).collect()
}

#[test]
fn double_precision_keeps_its_bounds() {
    if !has_fma() {
        return;
    }
    const COUNT: usize = 1 << 17;
    let jit = Jit::new(program(ROWS, Type::F64, COUNT, dnnc_targets::native().vector.bits), dnnc_targets::native(), 1).unwrap();
    let x = random_doubles(&mut Random::new(5), COUNT);
    let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut results = vec![vec![0u8; 8 * COUNT]; ROWS.len()];
    let mut outputs: Vec<&mut [u8]> = results.iter_mut().map(|r| r.as_mut_slice()).collect();
    jit.run(&[&bytes], &mut outputs, &mut jit.arena()).unwrap();
    let mut worst = Worst(vec![(0.0, 0.0); ROWS.len()]);
    worst.note(ROWS, DOUBLE, &x, &results.iter().map(|r| doubles(r)).collect::<Vec<_>>());
    worst.check(ROWS, 1);
}

/// Numbers at which the interpreter and the emitters of both kinds of machine are held together.
fn common(count: usize) -> Vec<u8> {
    let edges = edges();
    (0..count).map(|i| edges[i * 7919 % edges.len()]).flat_map(|b| b.to_le_bytes()).collect()
}

#[test]
fn every_emitter_gives_the_same_bits() {
    const COUNT: usize = 2048;
    let input = common(COUNT);
    let want = interpret::run(&program(ROWS, Type::F32, COUNT, 128), &[&input]).unwrap();
    let same = |what: &str, got: &[Vec<u8>]| {
        for (row, (got, want)) in ROWS.iter().zip(got.iter().zip(&want)) {
            for (i, (g, w)) in singles(got).into_iter().zip(singles(want)).enumerate() {
                let x = singles(&input)[i];
                assert!(g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan(), "{} {x:e} on {what} is {g:e}, not {w:e}", row.name);
            }
        }
    };
    let native = dnnc_targets::native();
    if has_fma() {
        for bits in [128, native.vector.bits] {
            let jit = Jit::new(program(ROWS, Type::F32, COUNT, bits), native, 1).unwrap();
            let mut results = vec![vec![0u8; 4 * COUNT]; ROWS.len()];
            let mut outputs: Vec<&mut [u8]> = results.iter_mut().map(|r| r.as_mut_slice()).collect();
            jit.run(&[&input], &mut outputs, &mut jit.arena()).unwrap();
            same(&format!("{} with {bits} bits", native.name), &results);
        }
    }
    if testing::exists("aarch64-linux-gnu-gcc") && testing::exists("qemu-aarch64") {
        let outputs = vec![vec![0u8; 4 * COUNT]; ROWS.len()];
        let program = program(ROWS, Type::F32, COUNT, 128);
        let runs = testing::linked(
            &program,
            "aarch64",
            &["aarch64-linux-gnu-gcc", "-static"],
            &["qemu-aarch64"],
            std::slice::from_ref(&input),
            &outputs,
        );
        for (status, results) in runs {
            assert_eq!(status, 0);
            same("aarch64", &results);
        }
    }
}
