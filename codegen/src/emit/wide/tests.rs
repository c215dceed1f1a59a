//! Kernels run as machine code.

use super::{ALIGN, disassemble, emit};
use crate::kir::{Builder, Elem, Func, Ty, Val};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module};
use dnnc_targets::Target;
use std::time::Instant;

/// Machine code that can be called; the module keeps its memory.
struct Runner {
    _module: JITModule,
    code: *const u8,
    pointers: usize,
}

impl Runner {
    fn new(func: &Func) -> Runner {
        let bytes = emit(func, avx2()).unwrap_or_else(|e| panic!("{}: {e}", func.name));
        Runner::from_bytes(&bytes, func.pointers)
    }

    fn from_bytes(bytes: &[u8], pointers: usize) -> Runner {
        let mut module = JITModule::new(JITBuilder::new(cranelift_module::default_libcall_names()).expect("this machine"));
        let signature = module.make_signature();
        let id = module.declare_function("kernel", Linkage::Local, &signature).expect("a fresh module");
        module.define_function_bytes(id, ALIGN as u64, bytes, &[]).expect("bytes");
        module.finalize_definitions().expect("memory");
        let code = module.get_finalized_function(id);
        Runner { _module: module, code, pointers }
    }

    /// Calls the kernel on these buffers.
    #[allow(unsafe_code)] // A test has to call the code it made; the buffers outlive the call.
    fn call(&self, buffers: &mut [Vec<u8>], task: i64) -> i32 {
        assert_eq!(buffers.len(), self.pointers);
        let p: Vec<*mut u8> = buffers.iter_mut().map(|b| b.as_mut_ptr()).collect();
        type P = *mut u8;
        unsafe {
            match *p.as_slice() {
                [a] => std::mem::transmute::<*const u8, extern "sysv64" fn(P, i64) -> i32>(self.code)(a, task),
                [a, b] => std::mem::transmute::<*const u8, extern "sysv64" fn(P, P, i64) -> i32>(self.code)(a, b, task),
                [a, b, c] => std::mem::transmute::<*const u8, extern "sysv64" fn(P, P, P, i64) -> i32>(self.code)(a, b, c, task),
                [a, b, c, d, e, f, g, h] => std::mem::transmute::<*const u8, extern "sysv64" fn(P, P, P, P, P, P, P, P, i64) -> i32>(
                    self.code,
                )(a, b, c, d, e, f, g, h, task),
                _ => panic!("{} pointers", p.len()),
            }
        }
    }
}

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
    assert_eq!(Runner::new(&f).call(&mut buffers, 0), 0);
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
        let t = Instant::now();
        let mut bytes = vec![];
        for _ in 0..100 {
            bytes = emit(&f, avx2()).expect("a tile");
        }
        let micros = t.elapsed().as_secs_f64() * 1e4;
        if (rows, unroll) == (6, 1) {
            println!("{}", disassemble(&bytes));
        }
        let tile = Runner::from_bytes(&bytes, 3);
        let peak = Runner::from_bytes(&peak_loop(), 1);
        let mut buffers = vec![vec![0; rows * k * 4 + 64], vec![0; k * vectors * 32 + 64], vec![0; rows * vectors * 32 + 64]];
        let fmas = (rows * vectors * k) as f64;
        let (mut best, mut best_peak) = (f64::MAX, f64::MAX);
        for _ in 0..50 {
            let t = Instant::now();
            (0..200).for_each(|_| assert_eq!(tile.call(&mut buffers, 0), 0));
            best = best.min(t.elapsed().as_secs_f64() / 200.0 / fmas);
            let t = Instant::now();
            peak.call(&mut buffers[..1], 20_000);
            best_peak = best_peak.min(t.elapsed().as_secs_f64() / 20_000.0 / 12.0);
        }
        let share = best_peak / best * 100.0;
        println!("{rows}×{} unroll {unroll}: {share:.1} % of peak, {} bytes, emitted in {micros:.0} µs", vectors * 8, bytes.len());
    }
}

/// `fn(_, n)`: n times 12 multiply-adds of registers.
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
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        for r in ymm {
            a.vfmadd231ps(r, ymm14, ymm15)?;
        }
        a.dec(rsi)?;
        a.jne(top)?;
        a.xor(eax, eax)?;
        a.vzeroupper()?;
        a.ret()?;
        a.assemble(0)
    };
    write().expect("the loop")
}
