//! A kernel to machine code through Cranelift, with or without its optimiser.

use super::machine::{IsaFeatures, isa};
use super::translator::translate;
use crate::code::Code;
use cranelift_codegen::Context;
use cranelift_codegen::isa::OwnedTargetIsa;
use dnnc_kir::{Func, Tuning};
use dnnc_targets::Target;

/// Cranelift for one machine, with and without its optimiser.
pub struct Cranelift {
    as_written: OwnedTargetIsa,
    optimise: OwnedTargetIsa,
    pub(super) features: IsaFeatures,
}

impl Cranelift {
    /// Cranelift for a machine; fails when its triple or a feature is unknown.
    pub fn new(target: &Target) -> Result<Cranelift, String> {
        let optimise = isa(target, "speed", true)?;
        let features = IsaFeatures::of(target, optimise.as_ref());
        Ok(Cranelift { as_written: isa(target, "none", true)?, optimise, features })
    }

    /// Emits a kernel.
    pub fn emit(&self, func: &Func) -> Result<Code, String> {
        self.compile(func, false).map(|(code, _)| code)
    }

    /// The instructions of a kernel before encoding, for people and for tests that count spills.
    pub fn listing(&self, func: &Func) -> Result<String, String> {
        self.compile(func, true).map(|(_, text)| text)
    }

    fn compile(&self, func: &Func, listing: bool) -> Result<(Code, String), String> {
        let isa = match func.tuning {
            Tuning::AsWritten => &self.as_written,
            Tuning::Optimise => &self.optimise,
        };
        let mut context = Context::for_function(translate(func, self.features, isa.as_ref()));
        context.set_disasm(listing);
        let compiled =
            context.compile(isa.as_ref(), &mut Default::default()).map_err(|e| format!("kernel {}: {:?}", func.name, e.inner))?;
        if let Some(reloc) = compiled.buffer.relocs().first() {
            return Err(format!("kernel {}: the machine code refers to {:?}", func.name, reloc.target));
        }
        let code = Code { bytes: compiled.code_buffer().to_vec(), align: u64::from(compiled.buffer.alignment).max(16) };
        Ok((code, compiled.vcode.clone().unwrap_or_default()))
    }
}
