//! AArch64: Arm's 64-bit cores.

use crate::{Target, Vector, kib};

/// Any Armv8.0-A core.
pub const GENERIC: Target = Target {
    name: "aarch64",
    aliases: &["arm64", "armv8-a"],
    triple: "aarch64-unknown-linux-gnu",
    features: &[],
    vector: Vector { bits: 128, registers: 32, fma: true, by_element: true, dot: false, fma_per_cycle: 1 },
    l1d: kib(32),
    l2: kib(512),
    l3: 0,
    line: 64,
    cores: 4,
    mhz: 1500,
    memory_mb_s: 4000,
    source: "the smallest of the cores below",
};

/// Cortex-A55: in-order, 64-bit FMA pipes.
pub const CORTEX_A55: Target = Target {
    name: "cortex-a55",
    aliases: &[],
    features: &["has_lse", "has_fp16", "has_dotprod"],
    vector: Vector { dot: true, ..GENERIC.vector },
    l2: kib(128),
    l3: kib(1024),
    mhz: 1800,
    source: "Arm Cortex-A55 software optimization guide",
    ..GENERIC
};

/// Cortex-A72.
pub const CORTEX_A72: Target = Target {
    name: "cortex-a72",
    aliases: &["raspberry-pi-4"],
    l2: kib(1024),
    mhz: 1500,
    source: "Arm Cortex-A72 software optimization guide; Raspberry Pi 4",
    ..GENERIC
};

/// Neoverse-N1: servers.
pub const NEOVERSE_N1: Target = Target {
    name: "neoverse-n1",
    aliases: &["graviton2"],
    features: &["has_lse", "has_fp16", "has_dotprod"],
    vector: Vector { dot: true, fma_per_cycle: 2, ..GENERIC.vector },
    l1d: kib(64),
    l2: kib(1024),
    l3: kib(32768),
    mhz: 2600,
    memory_mb_s: 20000,
    source: "Arm Neoverse N1 software optimization guide",
    ..GENERIC
};

/// Apple's macOS on its own cores: Mach-O objects.
pub const APPLE: Target = Target {
    name: "aarch64-apple-darwin",
    aliases: &["apple-m1"],
    triple: "aarch64-apple-darwin",
    features: &["has_lse", "has_fp16", "has_dotprod"],
    vector: Vector { dot: true, fma_per_cycle: 4, ..GENERIC.vector },
    l1d: kib(128),
    l2: kib(12288),
    mhz: 3200,
    memory_mb_s: 50000,
    source: "sysctl hw of an M1",
    ..GENERIC
};

pub const ALL: &[&Target] = &[&GENERIC, &CORTEX_A55, &CORTEX_A72, &NEOVERSE_N1, &APPLE];
