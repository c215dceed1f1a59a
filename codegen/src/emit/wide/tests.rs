//! Kernels run as machine code.

use super::{ALIGN, disassemble, emit};
use crate::emit::Code;
use crate::kir::{Builder, Elem, Func, Ty, Val, testing};
use crate::loaded::Kernel;
use dnnc_targets::Target;
use std::time::Instant;

fn avx2() -> &'static Target {
    dnnc_targets::find("x86-64-v3").expect("a known target")
}

/// C += A·B for `rows` rows and `vectors` vectors of columns, `k` steps, unrolled.
fn tile(rows: usize, vectors: usize, k: usize, unroll: usize) -> Func {
    let mut b = Builder::new("tile", 3);
    let f = Ty::vector(Elem::F32, 8);
    let (a, w, c) = (b.param(0), b.param(1), b.param(2));
    let zero = b.number(f, 0.0);
    let mut init = vec![a, w];
    init.extend(vec![zero; rows * vectors]);
    let out = b.for_count(k / unroll, &init, |b, _, carried| {
        let (a, w) = (carried[0], carried[1]);
        let mut acc: Vec<Val> = carried[2..].to_vec();
        for u in 0..unroll {
            let weights: Vec<Val> = (0..vectors).map(|j| b.load(f, w, ((u * vectors + j) * 32) as i32)).collect();
            for i in 0..rows {
                let x = b.load_splat(f, a, ((i * k + u) * 4) as i32);
                for j in 0..vectors {
                    acc[i * vectors + j] = b.fma(x, weights[j], acc[i * vectors + j]);
                }
            }
        }
        let (da, dw) = (b.index(unroll * 4), b.index(unroll * vectors * 32));
        let mut next = vec![b.offset(a, da), b.offset(w, dw)];
        next.extend(acc);
        next
    });
    for i in 0..rows {
        for j in 0..vectors {
            b.store(out[2 + i * vectors + j], c, ((i * vectors + j) * 32) as i32);
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
    let f = tile(rows, vectors, k, 4);
    let a: Vec<f32> = (0..rows * k).map(|i| (i % 13) as f32 - 6.0).collect();
    let w: Vec<f32> = (0..k * vectors * 8).map(|i| (i % 7) as f32 - 3.0).collect();
    let mut buffers = vec![bytes_of(&a), bytes_of(&w), vec![0; rows * vectors * 32]];
    let kernel = Kernel::new(&code(emit(&f, avx2()).expect("a tile")), 3).expect("memory");
    run(&kernel, &mut buffers, 1);
    for (i, chunk) in buffers[2].chunks(4).enumerate() {
        let (row, column) = (i / (vectors * 8), i % (vectors * 8));
        let expected: f32 = (0..k).map(|p| a[row * k + p] * w[p * vectors * 8 + column]).sum();
        assert_eq!(f32::from_le_bytes(chunk.try_into().expect("four bytes")), expected, "{row} {column}");
    }
}

/// `cargo test --release -p dnnc-codegen tile_speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn tile_speed() {
    for (rows, vectors, unroll) in [(6, 2, 1), (6, 2, 4), (6, 2, 8), (4, 3, 4), (5, 2, 4), (3, 4, 4)] {
        let k = 256;
        let f = tile(rows, vectors, k, unroll);
        let bytes = emit(&f, avx2()).expect("a tile");
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
    case.check(true, &|func| emit(func, avx2()).map(code));
}

fn code(bytes: Vec<u8>) -> Code {
    Code { bytes, align: ALIGN as u64 }
}

/// Runs a kernel that stays inside its buffers.
#[allow(unsafe_code)] // A measurement has to call the code it made.
fn run(kernel: &Kernel, buffers: &mut [Vec<u8>], tasks: usize) {
    assert_eq!(unsafe { kernel.run(buffers, tasks) }, 0);
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
