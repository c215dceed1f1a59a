//! x86-64: the levels of its psABI, and cores by the names that compilers use.

use crate::feature::Feature::*;
use crate::feature::Features;
use crate::target::{Bandwidth, Code, Overheads, Target, Vector, kib};

const V2: Features = Features::of(&[Sse42, Popcnt]);
const V3: Features = V2.and(&[Avx2, Fma, Bmi, Bmi2, Lzcnt, F16c]);
const V4: Features = V3.and(&[Avx512f, Avx512cd, Avx512bw, Avx512dq, Avx512vl]);
const ICELAKE: Features = V4.and(&[Avx512vnni, Avx512vbmi, Avx512bitalg]);
const SAPPHIRERAPIDS: Features = ICELAKE.and(&[AvxVnni, Avx512bf16, Avx512fp16, AmxTile, AmxInt8, AmxBf16]);

/// Fitted on a Zen 3.
const CODE: Code = Code { tile: 30.0, transform: 1.3, exposed: 0.35, sustained: 1.0, window_rows: 60.0 };

/// Any x86-64 with SSE2: no fused multiply-add.
pub const X86_64: Target = Target {
    name: "x86-64",
    aliases: &["x86_64", "x86-64-v1"],
    triple: "x86_64-unknown-linux-gnu",
    features: Features::NONE,
    vector: Vector {
        bits: 128,
        registers: 16,
        masks: 0,
        fma: false,
        by_element: false,
        dot: crate::target::Dot { u8s8: false, s8s8: false, i16: false },
        pairs: true,
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
    l2: kib(256),
    l3: kib(4096),
    line: 64,
    cores: 2,
    mhz: 2500,
    bandwidth: Bandwidth { l1: 64.0, l2: 24.0, l3: 20.0, l3_beside: 16.0, round_trip: 24.0, stream: [32.0, 16.0, 8.0] },
    memory_mb_s: 8000,
    overheads: Overheads { call: 50.0, share: 600.0, wake: 25_000.0, awake: 40_000.0 },
    code: CODE,
    source: "conservative: the smallest caches of desktop parts since 2010",
};

/// SSE4.2.
pub const X86_64_V2: Target = Target { name: "x86-64-v2", aliases: &[], features: V2, ..X86_64 }.derived();

/// AVX2 and FMA: a Zen 3 at the clock of a virtual machine.
pub const X86_64_V3: Target = Target {
    name: "x86-64-v3",
    aliases: &["avx2", "haswell"],
    features: V3,
    fma_per_cycle: 2,
    l2: kib(512),
    l3: kib(32768),
    mhz: 3240,
    memory_mb_s: 20000,
    source: "lscpu and a register-only FMA loop on a Zen 3: 103.6 GFLOP/s a core; overheads, bandwidths and code fitted there: sharing of an \
             awake thread took 300 ns, waking 15 to 100 µs in virtual machines",
    ..X86_64
}
.derived();

/// AVX-512 with all that compilers assume of the level: the smallest caches of servers that have it.
pub const X86_64_V4: Target = Target {
    name: "x86-64-v4",
    aliases: &["avx512"],
    features: V4,
    source: "x86-64 psABI; the caches and the clock of skylake-avx512",
    ..SKYLAKE_AVX512
}
.derived();

/// Skylake of servers.
pub const SKYLAKE_AVX512: Target = Target {
    name: "skylake-avx512",
    aliases: &["skx"],
    features: V4,
    wide_fma_per_cycle: 2,
    wide_clock: 0.8,
    l2: kib(1024),
    l3: kib(25344),
    mhz: 2800,
    memory_mb_s: 12000,
    source: "Intel 64 optimization manual, Skylake server; Xeon Gold 6148: 2.8 GHz with AVX2 on few cores, 2.2 with AVX-512 on all; costs of code as x86-64-v3",
    ..X86_64_V3
}
.derived();

/// Cascade Lake: with dot products of bytes.
pub const CASCADELAKE: Target = Target {
    name: "cascadelake",
    aliases: &[],
    features: V4.and(&[Avx512vnni]),
    source: "Intel 64 optimization manual; as skylake-avx512, with VNNI",
    ..SKYLAKE_AVX512
}
.derived();

/// Ice Lake of servers.
pub const ICELAKE_SERVER: Target = Target {
    name: "icelake-server",
    aliases: &[],
    features: ICELAKE,
    wide_clock: 0.95,
    l1d: kib(48),
    l2: kib(1280),
    l3: kib(49152),
    mhz: 3100,
    source: "Intel 64 optimization manual, Ice Lake client and server; Xeon Gold 6338 and 8352; costs of code as x86-64-v3",
    ..SKYLAKE_AVX512
}
.derived();

/// Sapphire and Emerald Rapids.
pub const SAPPHIRE_RAPIDS: Target = Target {
    name: "sapphirerapids",
    aliases: &["emeraldrapids"],
    features: SAPPHIRERAPIDS,
    wide_clock: 0.93,
    l2: kib(2048),
    l3: kib(107520),
    mhz: 3390,
    bandwidth: Bandwidth { l1: 78.0, l2: 38.0, l3: 6.0, l3_beside: 8.0, round_trip: 16.0, stream: [32.0, 20.0, 8.0] },
    memory_mb_s: 12000,
    code: Code { transform: 2.6, sustained: 0.84, window_rows: 40.0, ..CODE },
    source: "measured on a Xeon of this kind: clock and rates of register-only loops (3.39 GHz beside 256 bits, 3.17 beside 512), reads of 24 KiB \
             to 1.5 GiB; costs of code fitted to the steps of 15 networks there (docs/forecast.md); Intel 64 optimization manual",
    ..ICELAKE_SERVER
}
.derived();

/// Granite Rapids.
pub const GRANITE_RAPIDS: Target = Target {
    name: "graniterapids",
    aliases: &[],
    features: SAPPHIRERAPIDS.and(&[AmxFp16]),
    l3: kib(491520),
    source: "as sapphirerapids, with f16 in matrix registers; last-level cache of a Xeon 6900P",
    ..SAPPHIRE_RAPIDS
}
.derived();

/// Alder Lake and later cores of desktops without AVX-512.
pub const ALDERLAKE: Target = Target {
    name: "alderlake",
    aliases: &["raptorlake"],
    features: V3.and(&[AvxVnni]),
    loads: 3.0,
    l1d: kib(48),
    l2: kib(1280),
    l3: kib(30720),
    mhz: 4900,
    memory_mb_s: 30000,
    source: "Intel 64 optimization manual, Golden Cove: three 256-bit loads a cycle; Core i9-12900K; costs of code as x86-64-v3",
    ..X86_64_V3
}
.derived();

/// Zen: 128-bit units, so that a 256-bit multiply-add takes both halves of its two pipes.
pub const ZNVER1: Target = Target {
    name: "znver1",
    aliases: &["zen"],
    fma_per_cycle: 1,
    latency: 5,
    l3: kib(8192),
    mhz: 3600,
    source: "AMD family 17h software optimization guide; Ryzen 7 1800X; costs of code as x86-64-v3",
    ..X86_64_V3
}
.derived();

/// Zen 2.
pub const ZNVER2: Target = Target {
    name: "znver2",
    aliases: &["zen2"],
    latency: 5,
    l3: kib(16384),
    mhz: 3400,
    source: "AMD family 17h models 30h and later software optimization guide; EPYC 7002; costs of code as x86-64-v3",
    ..X86_64_V3
}
.derived();

/// Zen 3.
pub const ZNVER3: Target = Target { name: "znver3", aliases: &["zen3"], ..X86_64_V3 }.derived();

/// Zen 4: 512-bit vectors in two halves.
pub const ZNVER4: Target = Target {
    name: "znver4",
    aliases: &["zen4"],
    features: ICELAKE.and(&[Avx512bf16]),
    wide_fma_per_cycle: 1,
    wide_clock: 1.0,
    l2: kib(1024),
    mhz: 3700,
    source: "AMD family 19h models 10h and later software optimization guide; EPYC 9004; costs of code as x86-64-v3",
    ..X86_64_V3
}
.derived();

/// Zen 5: servers and desktops, whose units have 512 bits.
pub const ZNVER5: Target = Target {
    name: "znver5",
    aliases: &["zen5"],
    features: ICELAKE.and(&[Avx512bf16, AvxVnni]),
    wide_fma_per_cycle: 2,
    l1d: kib(48),
    mhz: 4000,
    source: "AMD family 1Ah software optimization guide; EPYC 9005; costs of code as x86-64-v3",
    ..ZNVER4
}
.derived();

pub const ALL: &[&Target] = &[
    &X86_64,
    &X86_64_V2,
    &X86_64_V3,
    &X86_64_V4,
    &SKYLAKE_AVX512,
    &CASCADELAKE,
    &ICELAKE_SERVER,
    &SAPPHIRE_RAPIDS,
    &GRANITE_RAPIDS,
    &ALDERLAKE,
    &ZNVER1,
    &ZNVER2,
    &ZNVER3,
    &ZNVER4,
    &ZNVER5,
];
