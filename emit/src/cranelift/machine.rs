//! Cranelift's view of a machine, and what it has where the way to write an operation depends on it.

use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{AbiParam, Signature};
use cranelift_codegen::isa::{self, CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use dnnc_targets::{Feature, Target};
use target_lexicon::{Architecture, Triple};

/// What the machine has, where the way to write an operation depends on it.
#[derive(Clone, Copy, Debug)]
pub struct IsaFeatures {
    /// Fused multiply-add.
    pub fma: bool,
    /// Any permutation of bytes in an instruction.
    pub permute: bool,
    /// Rounding of floats to integral floats.
    pub round: bool,
    /// Truncation of lanes by taking every second of two registers.
    pub unzip: bool,
    /// Narrowing 32-bit lanes to 16 bits with unsigned saturation.
    pub pack_unsigned: bool,
    /// Selection between scalar floats costs a branch; between lanes it does not.
    pub select_lanes: bool,
    /// Multiplication of bytes.
    pub byte_mul: bool,
    /// A vector operand in memory may lie anywhere.
    pub unaligned_operands: bool,
    /// Pairs of 16-bit products summed in one instruction.
    pub pair_products: bool,
    /// A factor of a multiply-add may be one lane of a register.
    pub by_element: bool,
}

impl IsaFeatures {
    /// What a machine has.
    pub fn of(target: &Target, isa: &dyn isa::TargetIsa) -> IsaFeatures {
        let x64 = isa.triple().architecture == Architecture::X86_64;
        let has = |feature: Feature| !x64 || target.features.has(feature);
        IsaFeatures {
            fma: has(Feature::Fma),
            permute: has(Feature::Ssse3),
            round: has(Feature::Sse41),
            unzip: !x64,
            pack_unsigned: has(Feature::Sse41),
            select_lanes: x64,
            byte_mul: !x64,
            unaligned_operands: has(Feature::Avx),
            pair_products: x64,
            by_element: target.vector.by_element,
        }
    }
}

/// An instruction set with the flags we compile with.
pub fn isa(target: &Target, opt_level: &str, pic: bool) -> Result<OwnedTargetIsa, String> {
    let mut flags = settings::builder();
    let verifier = if cfg!(debug_assertions) { "true" } else { "false" };
    for (name, value) in [
        ("opt_level", opt_level),
        ("is_pic", if pic { "true" } else { "false" }),
        ("enable_verifier", verifier),
        ("enable_probestack", "false"),
        ("unwind_info", "false"),
    ] {
        flags.set(name, value).map_err(|e| format!("Cranelift's flag {name}: {e}"))?;
    }
    let triple: Triple = target.triple.parse().map_err(|e| format!("target {}: {e}", target.name))?;
    let mut builder = isa::lookup(triple).map_err(|e| format!("target {}: {e}", target.name))?;
    for feature in target.features.iter().filter_map(Feature::cranelift) {
        builder.enable(feature).map_err(|e| format!("target {}: feature {feature}: {e}", target.name))?;
    }
    builder.finish(settings::Flags::new(flags)).map_err(|e| format!("target {}: {e}", target.name))
}

/// Parameters and results of a kernel with so many pointers.
pub fn signature(pointers: usize) -> Signature {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params = vec![AbiParam::new(I64); pointers + 1];
    signature.returns = vec![AbiParam::new(I32)];
    signature
}
