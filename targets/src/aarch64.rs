//! AArch64: Arm's 64-bit cores, and Apple's.

use crate::feature::Feature::*;
use crate::feature::Features;
use crate::target::{Bandwidth, Code, Dot, Overheads, Target, Vector, kib};

const V8_2: Features = Features::of(&[Lse, FullFp16, Dotprod]);
const V8_4: Features = V8_2.and(&[I8mm, Bf16, Sve]);

/// Fitted on a Zen 3.
const CODE: Code = Code { tile: 30.0, transform: 1.3, exposed: 0.35, sustained: 1.0, window_rows: 60.0 };

/// Any Armv8.0-A core.
pub const GENERIC: Target = Target {
    name: "aarch64",
    aliases: &["arm64", "armv8-a"],
    triple: "aarch64-unknown-linux-gnu",
    features: Features::NONE,
    vector: Vector {
        bits: 128,
        registers: 32,
        masks: 0,
        fma: true,
        by_element: true,
        dot: Dot { u8s8: false, s8s8: false, i16: false },
        pairs: false,
        fma_per_cycle: 1,
        latency: 4,
        loads: 2.0,
        clock: 1.0,
        code: CODE,
    },
    fma_per_cycle: 1,
    wide_fma_per_cycle: 1,
    wide_clock: 1.0,
    latency: 4,
    loads: 2.0,
    l1d: kib(32),
    l2: kib(512),
    l3: 0,
    line: 64,
    cores: 4,
    mhz: 1500,
    bandwidth: Bandwidth { l1: 64.0, l2: 24.0, l3: 20.0, l3_beside: 16.0, round_trip: 24.0, stream: [16.0, 8.0, 4.0] },
    memory_mb_s: 4000,
    overheads: Overheads { call: 50.0, share: 600.0, wake: 25_000.0, awake: 40_000.0 },
    code: CODE,
    source: "the smallest of the cores below; bandwidths, overheads and costs of code are those of x86-64-v3, not measured",
};

/// Cortex-A53: in-order, 64-bit pipes.
pub const CORTEX_A53: Target = Target {
    name: "cortex-a53",
    aliases: &["raspberry-pi-3"],
    mhz: 1200,
    memory_mb_s: 2000,
    source: "Arm Cortex-A53 technical reference manual; Raspberry Pi 3; the rest as aarch64",
    ..GENERIC
}
.derived();

/// Cortex-A55: in-order, 64-bit FMA pipes.
pub const CORTEX_A55: Target = Target {
    name: "cortex-a55",
    aliases: &[],
    features: V8_2,
    l2: kib(128),
    l3: kib(1024),
    mhz: 1800,
    source: "Arm Cortex-A55 software optimization guide; the rest as aarch64",
    ..GENERIC
}
.derived();

/// Cortex-A72.
pub const CORTEX_A72: Target = Target {
    name: "cortex-a72",
    aliases: &["raspberry-pi-4"],
    l2: kib(1024),
    mhz: 1500,
    source: "Arm Cortex-A72 software optimization guide; Raspberry Pi 4; the rest as aarch64",
    ..GENERIC
}
.derived();

/// Cortex-A76.
pub const CORTEX_A76: Target = Target {
    name: "cortex-a76",
    aliases: &["raspberry-pi-5"],
    features: V8_2,
    fma_per_cycle: 2,
    l1d: kib(64),
    l3: kib(2048),
    mhz: 2400,
    memory_mb_s: 10000,
    source: "Arm Cortex-A76 software optimization guide; Raspberry Pi 5; the rest as aarch64",
    ..GENERIC
}
.derived();

/// Cortex-A78.
pub const CORTEX_A78: Target = Target {
    name: "cortex-a78",
    aliases: &[],
    l3: kib(4096),
    memory_mb_s: 15000,
    source: "Arm Cortex-A78 software optimization guide; the rest as cortex-a76",
    ..CORTEX_A76
}
.derived();

/// Cortex-X1: four vector pipes.
pub const CORTEX_X1: Target = Target {
    name: "cortex-x1",
    aliases: &[],
    fma_per_cycle: 4,
    l2: kib(1024),
    l3: kib(8192),
    mhz: 2900,
    memory_mb_s: 20000,
    source: "Arm Cortex-X1 software optimization guide; the rest as cortex-a76",
    ..CORTEX_A76
}
.derived();

/// Neoverse-N1: servers.
pub const NEOVERSE_N1: Target = Target {
    name: "neoverse-n1",
    aliases: &["graviton2"],
    features: V8_2,
    fma_per_cycle: 2,
    l1d: kib(64),
    l2: kib(1024),
    l3: kib(32768),
    mhz: 2600,
    memory_mb_s: 20000,
    source: "Arm Neoverse N1 software optimization guide; the rest as aarch64",
    ..GENERIC
}
.derived();

/// Neoverse-V1: four vector pipes of 128 bits, two of 256 with SVE.
pub const NEOVERSE_V1: Target = Target {
    name: "neoverse-v1",
    aliases: &["graviton3"],
    features: V8_4,
    fma_per_cycle: 4,
    source: "Arm Neoverse V1 software optimization guide; the rest as neoverse-n1",
    ..NEOVERSE_N1
}
.derived();

/// Neoverse-N2.
pub const NEOVERSE_N2: Target = Target {
    name: "neoverse-n2",
    aliases: &[],
    features: V8_4.and(&[Sve2]),
    mhz: 2700,
    source: "Arm Neoverse N2 software optimization guide; the rest as neoverse-n1",
    ..NEOVERSE_N1
}
.derived();

/// Neoverse-V2.
pub const NEOVERSE_V2: Target = Target {
    name: "neoverse-v2",
    aliases: &["graviton4", "grace"],
    features: V8_4.and(&[Sve2]),
    fma_per_cycle: 4,
    l2: kib(2048),
    l3: kib(36864),
    mhz: 2800,
    source: "Arm Neoverse V2 software optimization guide; Graviton 4; the rest as neoverse-n1",
    ..NEOVERSE_N1
}
.derived();

/// Apple's macOS on its own cores: Mach-O objects.
pub const APPLE_M1: Target = Target {
    name: "aarch64-apple-darwin",
    aliases: &["apple-m1"],
    triple: "aarch64-apple-darwin",
    features: V8_2,
    fma_per_cycle: 4,
    l1d: kib(128),
    l2: kib(12288),
    mhz: 3200,
    memory_mb_s: 50000,
    source: "sysctl hw of an M1; the rest as aarch64",
    ..GENERIC
}
.derived();

/// Apple M2.
pub const APPLE_M2: Target = Target {
    name: "apple-m2",
    aliases: &[],
    features: V8_2.and(&[I8mm, Bf16]),
    l2: kib(16384),
    mhz: 3500,
    source: "LLVM's features of apple-m2; caches and clock as published by its makers; the rest as apple-m1",
    ..APPLE_M1
}
.derived();

/// Apple M3.
pub const APPLE_M3: Target = Target {
    name: "apple-m3",
    mhz: 4050,
    source: "LLVM's features of apple-m3; caches and clock as published by its makers; the rest as apple-m1",
    ..APPLE_M2
}
.derived();

/// Apple M4.
pub const APPLE_M4: Target = Target {
    name: "apple-m4",
    mhz: 4400,
    memory_mb_s: 80000,
    source: "LLVM's features of apple-m4 without its matrix unit; caches and clock as published by its makers; the rest as apple-m1",
    ..APPLE_M2
}
.derived();

pub const ALL: &[&Target] = &[
    &GENERIC,
    &CORTEX_A53,
    &CORTEX_A55,
    &CORTEX_A72,
    &CORTEX_A76,
    &CORTEX_A78,
    &CORTEX_X1,
    &NEOVERSE_N1,
    &NEOVERSE_V1,
    &NEOVERSE_N2,
    &NEOVERSE_V2,
    &APPLE_M1,
    &APPLE_M2,
    &APPLE_M3,
    &APPLE_M4,
];
