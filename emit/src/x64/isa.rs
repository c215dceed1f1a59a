//! What the emitter has to know about the instruction set and the kernel before it starts.

use dnnc_kir::Func;
use dnnc_targets::{Arch, Feature, Target};

/// What the machine has, where the way to write an operation depends on it.
#[derive(Clone, Copy, Debug)]
pub struct IsaFeatures {
    /// Bytes of the widest vector register that the kernel needs; wider values take several registers.
    pub bytes: usize,
    /// Number of vector registers. With 32 of them there are EVEX forms of every width.
    pub registers: usize,
    /// `vpdpbusd` and `vpdpwssd` in their EVEX forms.
    pub vnni: bool,
    /// `vpdpbusd` and `vpdpwssd` in their VEX forms.
    pub avx_vnni: bool,
    /// `vpdpbssd`, at 256 bits.
    pub avx_vnni_int8: bool,
    /// Permutations of bytes across a register of 512 bits.
    pub vbmi: bool,
}

impl IsaFeatures {
    /// What a target has for a kernel.
    pub fn of(target: &Target, func: &Func) -> Result<IsaFeatures, String> {
        let has = |feature: Feature| target.features.has(feature);
        if target.arch() != Arch::X86_64 || !has(Feature::Avx2) || !has(Feature::Fma) {
            return Err(format!("{} has no 256-bit vectors with fused multiply-add", target.name));
        }
        let wide = target.features.has_all(&[Feature::Avx512f, Feature::Avx512bw, Feature::Avx512dq, Feature::Avx512vl]);
        Ok(IsaFeatures {
            // Registers of 512 bits lower the clock, so they are for kernels that ask for them.
            bytes: if wide && func.widest() > 32 { 64 } else { 32 },
            registers: if wide { 32 } else { 16 },
            vnni: wide && has(Feature::Avx512vnni),
            avx_vnni: has(Feature::AvxVnni),
            avx_vnni_int8: has(Feature::AvxVnniInt8),
            vbmi: wide && has(Feature::Avx512vbmi),
        })
    }

    /// What the start of a function should be aligned to, so that its loops and constants are.
    pub fn align(&self) -> usize {
        self.bytes
    }

    /// Vector registers that a loop may fill with its values and hoisted constants; the others are for steps of longer operations.
    pub fn hoist_limit(&self) -> usize {
        self.registers - 2
    }
}
