//! Facts of machines. A target is a record; nothing asks "is this x86?", everything asks how wide, how many, how much.

mod aarch64;
mod x86_64;

/// Vector unit of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vector {
    /// Width of a register in bits.
    pub bits: usize,
    /// Number of vector registers.
    pub registers: usize,
    /// Fused multiply-add in one instruction.
    pub fma: bool,
    /// Multiply-add by an element of a vector register (`fmla v, v, v.s[n]`).
    pub by_element: bool,
    /// Four-way dot product of bytes into 32 bits, in one instruction.
    pub dot: bool,
    /// Multiply-adds that a core starts a cycle.
    pub fma_per_cycle: usize,
}

/// What the compiler knows of a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The name `--target` takes.
    pub name: &'static str,
    /// Other names it answers to.
    pub aliases: &'static [&'static str],
    /// Triple of the object file.
    pub triple: &'static str,
    /// Instruction-set features beyond the architecture's base, by Cranelift's names.
    pub features: &'static [&'static str],
    /// Vector unit.
    pub vector: Vector,
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
    /// Main-memory bandwidth of one core, MB/s, for predictions only.
    pub memory_mb_s: usize,
    /// Where the facts come from.
    pub source: &'static str,
}

/// Every machine known by name.
pub fn all() -> Vec<&'static Target> {
    x86_64::ALL.iter().chain(aarch64::ALL).copied().collect()
}

/// The target of a name, an alias or a triple.
pub fn find(name: &str) -> Option<&'static Target> {
    all().into_iter().find(|t| t.name == name || t.aliases.contains(&name)).or_else(|| all().into_iter().find(|t| t.triple == name))
}

/// The best record for the machine this runs on.
pub fn native() -> &'static Target {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
        let v2 = std::arch::is_x86_feature_detected!("sse4.2");
        if avx2 {
            &x86_64::X86_64_V3
        } else if v2 {
            &x86_64::X86_64_V2
        } else {
            &x86_64::X86_64
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        &aarch64::GENERIC
    }
}

impl Target {
    /// Multiply-adds of f32 that one core can do a second.
    pub fn peak_macs(&self) -> f64 {
        self.mhz as f64 * 1e6 * (self.vector.fma_per_cycle * self.vector.bits / 32) as f64
    }
}

const fn kib(n: usize) -> usize {
    n * 1024
}
