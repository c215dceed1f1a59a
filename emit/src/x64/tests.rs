//! Kernels run as machine code.

use super::{disassemble, emit};
use crate::code::Code;
use crate::loaded::Kernel;
use dnnc_kir::{Bin, Builder, Elem, Func, Ty, Val, testing};
use dnnc_targets::Target;
use std::time::Instant;

fn avx2() -> &'static Target {
    dnnc_targets::find("x86-64-v3").expect("a known target")
}

/// C += A·B for `rows` rows and `vectors` vectors of columns, `k` steps, unrolled.
pub fn tile(lanes: u8, rows: usize, vectors: usize, k: usize, unroll: usize) -> Func {
    let mut b = Builder::new("tile", 3);
    let (f, bytes) = (Ty::vector(Elem::F32, lanes), usize::from(lanes) * 4);
    let (a, w, c) = (b.param(0), b.param(1), b.param(2));
    let zero = b.number(f, 0.0);
    let mut init = vec![a, w];
    init.extend(vec![zero; rows * vectors]);
    let out = b.for_count(k / unroll, &init, |b, _, carried| {
        let (a, w) = (carried[0], carried[1]);
        let mut acc: Vec<Val> = carried[2..].to_vec();
        for u in 0..unroll {
            let weights: Vec<Val> = (0..vectors).map(|j| b.load(f, w, ((u * vectors + j) * bytes) as i32)).collect();
            for i in 0..rows {
                let x = b.load_splat(f, a, ((i * k + u) * 4) as i32);
                for j in 0..vectors {
                    acc[i * vectors + j] = b.fma(x, weights[j], acc[i * vectors + j]);
                }
            }
        }
        let (da, dw) = (b.index(unroll * 4), b.index(unroll * vectors * bytes));
        let mut next = vec![b.offset(a, da), b.offset(w, dw)];
        next.extend(acc);
        next
    });
    for i in 0..rows {
        for j in 0..vectors {
            b.store(out[2 + i * vectors + j], c, ((i * vectors + j) * bytes) as i32);
        }
    }
    b.finish()
}

fn bytes_of(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn a_tile_multiplies() {
    let (rows, vectors, k) = (6, 2, 64);
    let f = tile(8, rows, vectors, k, 4);
    let a: Vec<f32> = (0..rows * k).map(|i| (i % 13) as f32 - 6.0).collect();
    let w: Vec<f32> = (0..k * vectors * 8).map(|i| (i % 7) as f32 - 3.0).collect();
    let mut buffers = vec![bytes_of(&a), bytes_of(&w), vec![0; rows * vectors * 32]];
    let kernel = Kernel::new(&emit(&f, avx2()).expect("a tile"), 3).expect("memory");
    run(&kernel, &mut buffers, 1);
    for (i, chunk) in buffers[2].chunks(4).enumerate() {
        let (row, column) = (i / (vectors * 8), i % (vectors * 8));
        let expected: f32 = (0..k).map(|p| a[row * k + p] * w[p * vectors * 8 + column]).sum();
        assert_eq!(f32::from_le_bytes(chunk.try_into().expect("four bytes")), expected, "{row} {column}");
    }
}

/// An index and the range it lies in.
type Index = (Val, i64, i64);

/// A random sum of multiples of indices, small enough to stay in memory, by way of numbers that may be large.
fn sum(b: &mut Builder, r: &mut testing::Random, leaves: &[Index], depth: usize) -> Index {
    let (v, lo, hi) = if depth == 0 { leaves[r.below(leaves.len())] } else { sum(b, r, leaves, depth - 1) };
    match r.below(8) {
        0 => {
            let by = r.pick(&[1, 2, 3, 4, 5, 8, -1, -4]);
            let (x, y) = (lo * by, hi * by);
            (b.mul_int(v, by), x.min(y), x.max(y))
        }
        1 => {
            let n = r.below(4) as i64;
            let count = b.int(Ty::I64, n);
            (b.bin(Bin::Shl, v, count), lo << n, hi << n)
        }
        2 | 3 => {
            let by = r.pick(&[1, 4, -32, 100, i64::from(i32::MAX) - 40, i64::from(i32::MAX), 1 << 33, -(1 << 40)]);
            (b.add_int(v, by), lo + by, hi + by)
        }
        4 => {
            let by = r.pick(&[1, 16, i64::from(i32::MIN), 1 << 36]);
            let by_value = b.int(Ty::I64, by);
            (b.sub(v, by_value), lo - by, hi - by)
        }
        5 | 6 if depth > 0 => {
            let (w, wlo, whi) = sum(b, r, leaves, depth - 1);
            (b.add(v, w), lo + wlo, hi + whi)
        }
        _ => (v, lo, hi),
    }
}

/// Stores whose addresses are sums of indices of several loops, and pointers that are carried.
#[test]
fn addresses_are_what_they_say() {
    for seed in 0..100 {
        let mut r = testing::Random::new(seed);
        let r = &mut r;
        let mut b = Builder::new(format!("addresses {seed}"), 2);
        let mut size = 0;
        let mut access = |b: &mut Builder, r: &mut testing::Random, p: Val, leaves: &[Index]| {
            let depth = r.below(4);
            let (x, lo, hi) = sum(b, r, leaves, depth);
            // Brought back to the start of the buffer before, after or in between.
            let at = match r.below(3) {
                0 => {
                    let x = b.add_int(x, -lo);
                    b.offset(p, x)
                }
                1 => {
                    let q = b.offset(p, x);
                    b.offset_int(q, -lo)
                }
                _ => {
                    let q = b.offset_int(p, -lo);
                    b.offset(q, x)
                }
            };
            size = size.max((hi - lo) as usize);
            let (ty, disp) = (r.pick(&[Ty::I32, Ty::vector(Elem::I32, 8), Ty::scalar(Elem::I8)]), r.below(16) as i32);
            let old = b.load(ty, at, disp);
            let one = b.int(ty, 1 + r.below(100) as i64);
            let new = b.add(old, one);
            b.prefetch(at, disp);
            b.store(new, at, disp);
        };
        let (memory, task) = (b.param(1), b.task());
        let seven = b.int(Ty::I64, 7);
        let small = b.bin(Bin::And, task, seven);
        let outer = [(small, 0, 7), (b.index(3), 3, 3)];
        access(&mut b, r, memory, &outer);
        let (zero, four, step) = (b.index(0), b.index(4), 1 + r.below(2) as i64);
        let end = if r.below(2) == 0 { four } else { b.add_int(small, 1) };
        b.for_range(zero, end, step, &[memory], |b, i, carried| {
            let leaves = [outer[0], (i, 0, 7), (i, 0, 7)];
            access(b, r, memory, &leaves);
            access(b, r, carried[0], &leaves);
            let (k, klo, _) = sum(b, r, &outer[1..], 1);
            let k = b.add_int(k, -klo);
            let q = b.offset(carried[0], k);
            b.for_count(3, &[q], |b, j, inner| {
                let leaves = [(i, 0, 7), (j, 0, 2), (j, 0, 2)];
                access(b, r, memory, &leaves);
                access(b, r, inner[0], &leaves);
                access(b, r, q, &leaves);
                vec![b.offset_int(inner[0], 4)]
            });
            vec![b.offset_int(q, 8)]
        });
        let buffers = vec![vec![], (0..size + 1024).map(|i| i as u8).collect()];
        check(&testing::Case { func: b.finish(), buffers, tasks: 8, floats: vec![] });
    }
}

/// `cargo test --release -p dnnc-emit tile_speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn tile_speed() {
    for (rows, vectors, unroll) in [(6, 2, 1), (6, 2, 4), (6, 2, 8), (4, 3, 4), (5, 2, 4), (3, 4, 4)] {
        let k = 256;
        let f = tile(8, rows, vectors, k, unroll);
        let bytes = emit(&f, avx2()).expect("a tile").bytes;
        let micros = (0..300).map(|_| {
            let t = Instant::now();
            emit(&f, avx2()).expect("a tile");
            t.elapsed().as_secs_f64() * 1e6
        });
        let micros = micros.fold(f64::MAX, f64::min);
        if (rows, unroll) == (6, 1) {
            println!("{}", disassemble(&bytes));
        }
        let tile = Kernel::new(&code(bytes.clone()), 3).expect("memory");
        let peak = Kernel::new(&code(peak_loop()), 0).expect("memory");
        let mut buffers = vec![vec![0; rows * k * 4 + 64], vec![0; k * vectors * 32 + 64], vec![0; rows * vectors * 32 + 64]];
        let fmas = (rows * vectors * k) as f64;
        let (mut best, mut best_peak) = (f64::MAX, f64::MAX);
        for _ in 0..50 {
            let t = Instant::now();
            run(&tile, &mut buffers, 200);
            best = best.min(t.elapsed().as_secs_f64() / 200.0 / fmas);
            let t = Instant::now();
            run(&peak, &mut [], 1);
            best_peak = best_peak.min(t.elapsed().as_secs_f64() / 20_000.0 / 12.0);
        }
        let share = best_peak / best * 100.0;
        println!("{rows}×{} unroll {unroll}: {share:.1} % of peak, {} bytes, emitted in {micros:.0} µs", vectors * 8, bytes.len());
    }
}

/// 20,000 times 12 multiply-adds of registers.
fn peak_loop() -> Vec<u8> {
    use iced_x86::code_asm::*;
    let mut a = CodeAssembler::new(64).expect("64 bits");
    let mut write = || -> Result<Vec<u8>, iced_x86::IcedError> {
        let ymm = [ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11];
        for r in ymm {
            a.vxorps(r, r, r)?;
        }
        a.vxorps(ymm14, ymm14, ymm14)?;
        a.vxorps(ymm15, ymm15, ymm15)?;
        a.mov(ecx, 20_000)?;
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        for r in ymm {
            a.vfmadd231ps(r, ymm14, ymm15)?;
        }
        a.dec(ecx)?;
        a.jne(top)?;
        a.xor(eax, eax)?;
        a.vzeroupper()?;
        a.ret()?;
        a.assemble(0)
    };
    write().expect("the loop")
}

fn check(case: &testing::Case) {
    crate::testing::check(case, true, &|func| emit(func, avx2()));
}

fn code(bytes: Vec<u8>) -> Code {
    Code { bytes, align: 32 }
}

/// Runs a kernel that stays inside its buffers.
#[allow(unsafe_code)] // A measurement has to call the code it made.
pub fn run(kernel: &Kernel, buffers: &mut [Vec<u8>], tasks: usize) {
    assert_eq!(unsafe { kernel.run(buffers, tasks) }, 0);
}

/// A double whose halves are the same bits is still eight bytes in a register.
#[test]
fn doubles_of_equal_halves_are_constants() {
    let mut b = Builder::new("halves", 2);
    let x = b.load(Ty::F64, b.param(0), 0);
    let c = b.bits(Ty::F64, 0x3ff5_5555_3ff5_5555);
    let y = b.div(c, x);
    b.store(y, b.param(1), 0);
    // As wide as the emitter is asked for.
    let wide = b.load(Ty::vector(Elem::F32, 8), b.param(0), 8);
    b.store(wide, b.param(1), 8);
    check(&testing::Case { func: b.finish(), buffers: vec![2f64.to_le_bytes().repeat(5), vec![0; 40]], tasks: 1, floats: vec![] });
}

#[test]
fn every_operation_does_what_the_interpreter_does() {
    testing::every_op(64).iter().for_each(check);
}

/// `FUZZ=20000` tries so many.
#[test]
fn random_kernels_do_what_the_interpreter_does() {
    let count = std::env::var("FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(600);
    (0..count).for_each(|seed| check(&testing::random(seed, [16, 32, 64][seed as usize % 3])));
}

/// More of everything than there are registers, in a loop: pointers on the stack, spilled integers, spilled vectors.
#[test]
fn what_does_not_fit_is_spilled() {
    for (vectors, ints) in [(1, 1), (14, 12), (15, 20), (24, 4), (40, 30)] {
        let mut b = Builder::new("many", 8);
        let ty = Ty::vector(Elem::I32, 8);
        let values: Vec<Val> = (0..vectors).map(|i| b.load(ty, b.param(i % 7), (i / 7 * 32) as i32)).collect();
        let numbers: Vec<Val> = (0..ints).map(|i| b.load(Ty::I64, b.param(i % 7), (i * 8) as i32)).collect();
        let trips = b.add_int(b.task(), 2);
        let zero = b.index(0);
        let init: Vec<Val> = values.iter().chain(&numbers).copied().collect();
        let out = b.for_range(zero, trips, 1, &init, |b, i, v| {
            let three = b.int(ty, 3);
            let turned: Vec<Val> = (0..vectors).map(|k| v[(k + 1) % vectors]).collect();
            let mut next: Vec<Val> = turned
                .iter()
                .zip(v)
                .map(|(&t, &x)| {
                    let t = b.mul(t, three);
                    b.add(t, x)
                })
                .collect();
            next.extend((0..ints).map(|k| {
                let x = b.mul(v[vectors + k], i);
                b.add(x, v[vectors + (k + 1) % ints])
            }));
            next
        });
        for (i, &v) in out.iter().enumerate() {
            b.store(v, b.param(7), i as i32 * 32);
        }
        let buffers: Vec<Vec<u8>> = (0..8u32).map(|p| (0..2400u32).map(|i| (i * 7 + p * 31 + i / 64) as u8).collect()).collect();
        check(&testing::Case { func: b.finish(), buffers, tasks: 2, floats: vec![] });
    }
}
