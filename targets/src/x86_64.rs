//! x86-64, by level of its psABI.

use crate::{Target, Vector, kib};

/// Any x86-64 with SSE2: no fused multiply-add.
pub const X86_64: Target = Target {
    name: "x86-64",
    aliases: &["x86_64", "x86-64-v1"],
    triple: "x86_64-unknown-linux-gnu",
    features: &[],
    vector: Vector { bits: 128, registers: 16, fma: false, by_element: false, dot: false, fma_per_cycle: 1 },
    l1d: kib(32),
    l2: kib(256),
    l3: kib(4096),
    line: 64,
    cores: 2,
    mhz: 2500,
    memory_mb_s: 8000,
    source: "conservative: the smallest caches of desktop parts since 2010",
};

/// SSE4.2.
pub const X86_64_V2: Target =
    Target { name: "x86-64-v2", aliases: &[], features: &["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt"], ..X86_64 };

/// AVX2 and FMA: the reference machine (Zen 3).
pub const X86_64_V3: Target = Target {
    name: "x86-64-v3",
    aliases: &["avx2", "zen3", "haswell"],
    features: &[
        "has_sse3",
        "has_ssse3",
        "has_sse41",
        "has_sse42",
        "has_popcnt",
        "has_avx",
        "has_avx2",
        "has_fma",
        "has_bmi1",
        "has_bmi2",
        "has_lzcnt",
    ],
    vector: Vector { bits: 256, registers: 16, fma: true, by_element: false, dot: false, fma_per_cycle: 2 },
    l2: kib(512),
    l3: kib(32768),
    mhz: 3240,
    memory_mb_s: 20000,
    source: "lscpu and a register-only FMA loop on the reference machine: 103.6 GFLOP/s a core",
    ..X86_64
};

pub const ALL: &[&Target] = &[&X86_64, &X86_64_V2, &X86_64_V3];
