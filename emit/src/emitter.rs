//! From kir to machine code.
//!
//! [`crate::cranelift`] serves every machine with 128-bit vectors; [`crate::x64`] makes code of 256 and 512 bits for x86. Kernels are
//! position-independent bytes without relocations, so the same bytes serve the JIT and the object file.

use crate::code::Code;
use crate::{cranelift, x64};
use cranelift_codegen::isa::OwnedTargetIsa;
use dnnc_kir::{Func, Tuning};
use dnnc_targets::Target;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Emits kernels for one machine.
pub struct Emitter {
    cranelift: cranelift::Cranelift,
    target: Target,
}

impl Emitter {
    /// An emitter for a machine; fails when the machine's triple or a feature is unknown.
    pub fn new(target: &Target) -> Result<Emitter, String> {
        Ok(Emitter { cranelift: cranelift::Cranelift::new(target)?, target: *target })
    }

    /// Emits a kernel by the emitter that serves its vectors best.
    pub fn emit(&self, func: &Func) -> Result<Code, String> {
        if cfg!(debug_assertions) {
            dnnc_kir::verify(func)?;
        }
        if self.is_wide(func) {
            return x64::emit(func, &self.target);
        }
        self.cranelift.emit(func)
    }

    fn is_wide(&self, func: &Func) -> bool {
        self.target.vector.bits > 128 && func.types.iter().any(|t| t.is_vector() && t.bytes() > 16)
    }
}

/// Emits all kernels of a program, on all cores; the code does not depend on how many there are.
pub fn emit_all(kernels: &[Func], target: &Target) -> Result<Vec<Vec<u8>>, String> {
    let emitter = Emitter::new(target)?;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = vec![];
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(kernel) = kernels.get(i) else { return done };
            done.push((i, emitter.emit(kernel).map(|c| c.bytes).map_err(|e| format!("kernel {}: {e}", kernel.name))));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(kernels.len());
    let mut all = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        for helper in helpers {
            all.extend(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    });
    all.sort_by_key(|(i, _)| *i);
    all.into_iter().map(|(_, code)| code).collect()
}

/// Cranelift's view of a machine, for the functions around the kernels.
pub fn isa(target: &Target, tuning: Tuning, pic: bool) -> Result<OwnedTargetIsa, String> {
    cranelift::isa(target, if tuning == Tuning::Optimise { "speed" } else { "none" }, pic)
}

/// What is given to Cranelift for a kernel, as text.
pub fn clif_text(func: &Func, target: &Target) -> Result<String, String> {
    cranelift::Cranelift::new(target)?.listing(func)
}

/// Disassembly of a kernel.
pub fn assembly(func: &Func, target: &Target) -> Result<String, String> {
    let emitter = Emitter::new(target)?;
    let text = if emitter.is_wide(func) { x64::disassemble(&x64::emit(func, target)?.bytes) } else { emitter.cranelift.listing(func)? };
    Ok(format!("{}:\n{text}", func.name))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use dnnc_kir::testing::{every_op, random};

    /// Runs where the machine has AVX2: 256-bit vectors go through `x64`, the others through `cranelift`.
    #[test]
    fn kernels_mean_what_the_interpreter_says() {
        let target = dnnc_targets::native();
        if target.vector.bits < 256 {
            eprintln!("NOT TESTED: this machine has no 256-bit vectors");
            return;
        }
        let emitter = Emitter::new(target).unwrap();
        let cases = every_op(32).into_iter().chain((0..500).map(|seed| random(5000 + seed, 32)));
        cases.for_each(|case| crate::testing::check(&case, true, &|func| emitter.emit(func)));
    }
}
