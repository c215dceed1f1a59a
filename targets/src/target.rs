//! The record of a machine, and what follows from it.

use crate::feature::{Arch, Feature, Features};

/// The widest vectors that the emitters make code for, in bits; the records state what the machines have.
pub const EMITTED_BITS: usize = 512;

/// Dot products of pairs of elements added to a sum in one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Dot {
    /// Four unsigned bytes by four signed bytes into 32 bits.
    pub u8s8: bool,
    /// Four signed bytes by four signed bytes into 32 bits.
    pub s8s8: bool,
    /// Two 16-bit integers by two into 32 bits.
    pub i16: bool,
}

/// Vector unit of a core.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vector {
    /// Width of a register in bits.
    pub bits: usize,
    /// Number of vector registers.
    pub registers: usize,
    /// Number of mask registers (0: none).
    pub masks: usize,
    /// Fused multiply-add in one instruction.
    pub fma: bool,
    /// Multiply-add by an element of a vector register (`fmla v, v, v.s[n]`).
    pub by_element: bool,
    /// Dot products in one instruction.
    pub dot: Dot,
    /// Pairs of 16-bit products summed into 32 bits in one instruction, without what they are added to (`pmaddwd`).
    pub pairs: bool,
    /// Multiply-adds that a core starts a cycle.
    pub fma_per_cycle: usize,
    /// Cycles from a multiply-add to one that adds to its result.
    pub latency: usize,
    /// Vector loads that a core starts a cycle.
    pub loads: f64,
    /// Share of the clock that is left while vectors of this width are in use.
    pub clock: f64,
    /// Costs of code.
    pub code: Code,
}

/// Matrix registers, of which one instruction multiplies two and adds the product to a third.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// Number of registers.
    pub registers: usize,
    /// Rows of a register.
    pub rows: usize,
    /// Bytes of a row.
    pub bytes: usize,
    /// Bytes into 32-bit integers.
    pub int8: bool,
    /// bf16 into f32.
    pub bf16: bool,
    /// f16 into f32.
    pub fp16: bool,
    /// Cycles from the start of a product to that of the next.
    pub cycles: usize,
}

/// What a product multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// f64 into f64.
    F64,
    /// f32 into f32.
    F32,
    /// f16 into f16.
    F16,
    /// 32-bit integers, low half of the product.
    I32,
    /// Pairs of 16-bit integers into 32 bits.
    I16,
    /// Unsigned by signed bytes into 32 bits.
    U8S8,
    /// Signed bytes into 32 bits.
    S8S8,
}

/// Bytes that a core moves a cycle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandwidth {
    /// Read from the first-level cache, one after the other.
    pub l1: f64,
    /// Read from the second level.
    pub l2: f64,
    /// Read from the last level.
    pub l3: f64,
    /// Read from the last level beside multiply-adds.
    pub l3_beside: f64,
    /// Written beyond the second level and read again.
    pub round_trip: f64,
    /// Read and written by element-wise code whose operands lie in the caches of levels 1 to 3.
    pub stream: [f64; 3],
}

/// What it takes to start code and to share it with other threads, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overheads {
    /// A call of a kernel that does nothing.
    pub call: f64,
    /// To share a step with workers that are awake, and to wait for the last of them.
    pub share: f64,
    /// Until a sleeping worker helps.
    pub wake: f64,
    /// For which workers stay awake after a shared step.
    pub awake: f64,
}

/// Costs of code as dnnc emits it, in cycles; fitted to measurements (see `docs/forecast.md`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Code {
    /// Around the inner loop of a tile of a product: start, epilogue, stores.
    pub tile: f64,
    /// To load or store a vector in a transform of Winograd's algorithm, arithmetic beside it included, where two multiply-adds start a cycle.
    pub transform: f64,
    /// Share of the shorter of multiply-adds and fetches ahead of them that is not hidden by the longer.
    pub exposed: f64,
    /// Share of the rate of multiply-adds that inner loops sustain.
    pub sustained: f64,
    /// Around the tiles of two rows of a window: pointers, weights, columns at the border.
    pub window_rows: f64,
}

/// What the compiler knows about a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The name `--target` takes: that of compilers' `-mcpu` and `-march`.
    pub name: &'static str,
    /// Other names it answers to.
    pub aliases: &'static [&'static str],
    /// Triple of the object file.
    pub triple: &'static str,
    /// Instruction-set features beyond the architecture's base.
    pub features: Features,
    /// Vector unit that code is made for: the widest of the machine that the emitters know ([`EMITTED_BITS`]). Follows from the features.
    pub vector: Vector,
    /// Multiply-adds a cycle with vectors of at most 256 bits.
    pub fma_per_cycle: usize,
    /// Multiply-adds a cycle with vectors of 512 bits.
    pub wide_fma_per_cycle: usize,
    /// Share of the clock that is left beside vectors of 512 bits.
    pub wide_clock: f64,
    /// Cycles from a multiply-add to one that adds to its result.
    pub latency: usize,
    /// Vector loads that a core starts a cycle.
    pub loads: f64,
    /// First-level data cache of a core, bytes.
    pub l1d: usize,
    /// Second-level cache of a core, bytes.
    pub l2: usize,
    /// Last-level cache, bytes (0: none).
    pub l3: usize,
    /// Bytes of a cache line.
    pub line: usize,
    /// Cores.
    pub cores: usize,
    /// Clock in MHz, for predictions only.
    pub mhz: usize,
    /// Bytes a cycle from the caches, for predictions only.
    pub bandwidth: Bandwidth,
    /// Main-memory bandwidth of one core, MB/s, for predictions only.
    pub memory_mb_s: usize,
    /// Starting and sharing of code.
    pub overheads: Overheads,
    /// Costs of emitted code.
    pub code: Code,
    /// Where the facts come from.
    pub source: &'static str,
}

impl Target {
    /// The architecture.
    pub const fn arch(&self) -> Arch {
        if self.triple.as_bytes()[0] == b'x' { Arch::X86_64 } else { Arch::Aarch64 }
    }

    /// The widest vector unit of the machine, whether or not code is made for it.
    pub const fn widest(&self) -> Vector {
        self.vector_unit(usize::MAX)
    }

    /// The widest vector unit of at most so many bits, by the features.
    const fn vector_unit(&self, most: usize) -> Vector {
        use Feature::*;
        let f = self.features;
        let scalar = Vector {
            bits: 128,
            registers: 32,
            masks: 0,
            fma: true,
            by_element: true,
            dot: Dot { u8s8: f.has(I8mm), s8s8: f.has(Dotprod), i16: false },
            pairs: false,
            fma_per_cycle: self.fma_per_cycle,
            latency: self.latency,
            loads: self.loads,
            clock: 1.0,
            code: self.code,
        };
        if matches!(self.arch(), Arch::Aarch64) {
            return scalar;
        }
        let vnni = f.has(AvxVnni) || f.has_all(&[Avx512vnni, Avx512vl]);
        let dot = Dot { u8s8: vnni, s8s8: f.has(AvxVnniInt8), i16: vnni };
        let narrow = Vector { registers: 16, fma: f.has(Fma), by_element: false, dot, pairs: true, ..scalar };
        if f.has_all(&[Avx512f, Avx512bw, Avx512dq, Avx512vl]) && most >= 512 {
            let dot = Dot { u8s8: f.has(Avx512vnni), s8s8: false, i16: f.has(Avx512vnni) };
            let (fma_per_cycle, clock) = (self.wide_fma_per_cycle, self.wide_clock);
            Vector { bits: 512, registers: 32, masks: 8, dot, fma_per_cycle, clock, ..narrow }
        } else if f.has_all(&[Avx2, Fma]) && most >= 256 {
            Vector { bits: 256, ..narrow }
        } else {
            narrow
        }
    }

    /// The record with the vector unit that its features give.
    pub(crate) const fn derived(self) -> Target {
        Target { vector: self.vector_unit(EMITTED_BITS), ..self }
    }

    /// The machine with a list of features added and removed, such as `+avx512vnni,-amx`; an error names the features that there are.
    pub fn with_features(&self, list: &str) -> Result<Target, String> {
        Ok(Target { features: self.features.changed(self.arch(), list)?, ..*self }.derived())
    }

    /// Matrix registers, where the machine has them.
    pub fn tiles(&self) -> Option<Tiles> {
        let f = self.features;
        let (int8, bf16, fp16) = (f.has(Feature::AmxInt8), f.has(Feature::AmxBf16), f.has(Feature::AmxFp16));
        f.has(Feature::AmxTile).then_some(Tiles { registers: 8, rows: 16, bytes: 64, int8, bf16, fp16, cycles: 16 })
    }

    /// Whether the machine computes with vectors of f16.
    pub fn fp16(&self) -> bool {
        self.features.has(Feature::Avx512fp16) || self.features.has(Feature::FullFp16)
    }

    /// Multiply-adds that a core does a cycle with the vectors that code is made for, on registers alone; `None` where no instruction does them.
    pub fn rate(&self, product: Product) -> Option<f64> {
        let v = &self.vector;
        let each = |bits: usize, there: bool| there.then_some((v.fma_per_cycle * v.bits / bits) as f64);
        match product {
            Product::F32 => each(32, true),
            Product::F64 => each(64, true),
            Product::F16 => each(16, self.fp16()),
            // The low halves of 32-bit products take one of x86's two multipliers twice.
            Product::I32 => Some((v.bits / 32) as f64 * if v.by_element { 1.0 } else { 0.5 }),
            Product::I16 => each(16, v.dot.i16),
            Product::U8S8 => each(8, v.dot.u8s8),
            Product::S8S8 => each(8, v.dot.s8s8),
        }
    }

    /// Cycles a nanosecond while code of the target's vectors runs.
    pub fn ghz(&self) -> f64 {
        self.mhz as f64 * self.vector.clock / 1e3
    }

    /// Multiply-adds of f32 that one core can do a second.
    pub fn peak_macs(&self) -> f64 {
        self.mhz as f64 * 1e6 * self.vector.clock * (self.vector.fma_per_cycle * self.vector.bits / 32) as f64
    }

    /// Whether this machine runs code made for `other`.
    pub fn runs(&self, other: &Target) -> bool {
        self.arch() == other.arch() && other.features.is_subset(self.features)
    }
}

/// Bytes of so many KiB.
pub(crate) const fn kib(n: usize) -> usize {
    n * 1024
}
