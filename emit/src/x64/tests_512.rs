//! Kernels with AVX-512. What this machine has is run; what it lacks is emitted and decoded, and the test says so.

use super::emit;
use super::tests::{run, tile};
use crate::code::Code;
use crate::loaded::Kernel;
use dnnc_kir::{Builder, Elem, Func, Ty, Val, testing};
use dnnc_targets::Target;
use iced_x86::{Decoder, DecoderOptions};

/// Targets of different extensions, and whether this machine has them.
fn targets() -> Vec<(Target, bool)> {
    let base = dnnc_targets::find("x86-64-v3").expect("a known target");
    let with = |name: &'static str, more: &str| {
        let target = Target { name, ..base.with_features(more).expect("known features") };
        (target, dnnc_targets::native().runs(&target))
    };
    vec![
        with("v4", "+avx512"),
        with("icelake", "+avx512,+avx512vnni,+avx512vbmi"),
        with("spr", "+avx512,+avx512vnni,+avx512vbmi,+avxvnni"),
        with("alderlake", "+avxvnni"),
    ]
}

/// Every instruction up to the constants is one that a decoder knows.
fn decodes(func: &Func, code: &Code) {
    let mut decoder = Decoder::with_ip(64, &code.bytes, 0, DecoderOptions::NONE);
    let mut end = code.bytes.len() as u64;
    while decoder.can_decode() && decoder.ip() < end {
        let inst = decoder.decode();
        assert!(!inst.is_invalid(), "at {:#x} of {func}", inst.ip());
        if inst.is_ip_rel_memory_operand() {
            end = end.min(inst.ip_rel_memory_address());
        }
    }
}

fn check(cases: impl Fn() -> Vec<testing::Case>) {
    for (target, runs) in targets() {
        if !runs {
            eprintln!("NOT EXECUTED: this machine is no {}; encodings are decoded instead", target.name);
        }
        for case in cases() {
            match runs {
                true => crate::testing::check(&case, true, &|func| emit(func, &target)),
                false => decodes(&case.func, &emit(&case.func, &target).unwrap_or_else(|e| panic!("{e}\n{}", case.func))),
            }
        }
    }
}

#[test]
fn every_operation_does_what_the_interpreter_does() {
    check(|| testing::every_op(64));
}

/// `FUZZ=20000` tries so many.
#[test]
fn random_kernels_do_what_the_interpreter_does() {
    let count = std::env::var("FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    check(|| (0..count).map(|seed| testing::random(70_000 + seed, [64, 64, 32][seed as usize % 3])).collect());
}

/// More vectors and masks in a loop than there are registers.
#[test]
fn what_does_not_fit_is_spilled() {
    for (vectors, masks) in [(20, 2), (34, 9), (60, 20)] {
        check(|| vec![crowded(vectors, masks)]);
    }
}

fn crowded(vectors: usize, masks: usize) -> testing::Case {
    let ty = Ty::vector(Elem::I32, 16);
    let mut b = Builder::new("crowded", 2);
    let values: Vec<Val> = (0..vectors).map(|i| b.load(ty, b.param(0), i as i32 * 64)).collect();
    let conditions: Vec<Val> = (0..masks).map(|i| b.cmp(dnnc_kir::Cmp::Lt, values[i % vectors], values[(i * 3 + 1) % vectors])).collect();
    let init: Vec<Val> = values.iter().chain(&conditions).copied().collect();
    let trips = b.add_int(b.task(), 2);
    let zero = b.index(0);
    let out = b.for_range(zero, trips, 1, &init, |b, _, v| {
        let mut next: Vec<Val> = (0..vectors)
            .map(|k| {
                let sum = b.add(v[k], v[(k + 1) % vectors]);
                b.select(v[vectors + k % masks], sum, v[k])
            })
            .collect();
        next.extend((0..masks).map(|k| b.bin(dnnc_kir::Bin::Xor, v[vectors + k], v[vectors + (k + 1) % masks])));
        next
    });
    for (i, v) in out[..vectors].iter().enumerate() {
        b.store(*v, b.param(1), i as i32 * 64);
    }
    let input = (0..vectors * 64).map(|i| (i * 37 + i / 64 * 11) as u8).collect();
    testing::Case { func: b.finish(), buffers: vec![input, vec![0; vectors * 64]], tasks: 2, floats: vec![] }
}

/// `cargo test --release -p dnnc-emit tiles_of_both_widths -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn tiles_of_both_widths() {
    let Some((target, _)) = targets().into_iter().find(|t| t.1) else { return eprintln!("NOT MEASURED: no AVX-512 here") };
    let k = 256;
    let mut tiles: Vec<(u8, usize, usize, Kernel, Vec<Vec<u8>>, f64)> = [(8u8, 6, 2), (8, 3, 4), (16, 14, 2), (16, 12, 2), (16, 6, 4)]
        .map(|(lanes, rows, vectors)| {
            let bytes = usize::from(lanes) * 4;
            let kernel = Kernel::new(&emit(&tile(lanes, rows, vectors, k, 4), &target).expect("a tile"), 3).expect("memory");
            let buffers = vec![vec![0; rows * k * 4 + 64], vec![0; k * vectors * bytes + 64], vec![0; rows * vectors * bytes + 64]];
            (lanes, rows, vectors, kernel, buffers, f64::MAX)
        })
        .into();
    for _ in 0..200 {
        for (_, _, _, kernel, buffers, best) in &mut tiles {
            let start = std::time::Instant::now();
            run(kernel, buffers, 200);
            *best = best.min(start.elapsed().as_secs_f64() / 200.0);
        }
    }
    for (lanes, rows, vectors, _, _, best) in tiles {
        let flops = (2 * rows * vectors * usize::from(lanes) * k) as f64;
        println!("{} bits, {rows}×{}: {:.0} GFLOP/s", u32::from(lanes) * 32, vectors * usize::from(lanes), flops / best / 1e9);
    }
}
