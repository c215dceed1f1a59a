//! kir to x86-64 with AVX2, FMA, F16C and BMI2, and with AVX-512 where the target has it, through `regalloc2` and `iced-x86`.
//!
//! A kernel is read once for the liveness of its values (`liveness`), lowered to instructions over virtual registers (`lower` and what stands
//! beside it), given registers, and encoded (`encode`, which picks VEX or EVEX from the table in `forms`). Lowering is free to compute what
//! it may not need: what stays unused is dropped before registers are given. The result is one run of bytes, code and then constants, that
//! needs no relocation.

mod address;
mod control;
mod convert;
mod dot;
mod encode;
mod forms;
mod isa;
mod lanes;
mod liveness;
mod lower;
mod mach;
mod mask;
mod memory;
mod scalar;
mod shuffle;
mod shuffle64;
mod sym;
mod vector;
mod view;

use crate::code::Code;
use dnnc_kir::Func;
use dnnc_targets::Target;
use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};

/// The machine code of a kernel, position-independent, System V ABI: `fn(ptr × n, task: i64) -> i32`.
///
/// Errors say what of the kernel has no meaning, or that the target is not one with 256-bit vectors.
pub fn emit(func: &Func, target: &Target) -> Result<Code, String> {
    let isa = isa::IsaFeatures::of(target, func)?;
    let flow = lower::lower(func, isa)?.finish(isa);
    Ok(Code { bytes: encode::encode(&flow)?, align: isa.align() as u64 })
}

/// Machine code as text, one instruction a line; stops where constants begin.
pub fn disassemble(bytes: &[u8]) -> String {
    let mut decoder = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE);
    let mut formatter = IntelFormatter::new();
    let mut text = String::new();
    // Constants follow the last return, so the code ends before the lowest address that an instruction reads relative to itself.
    let mut end = bytes.len() as u64;
    while decoder.can_decode() && decoder.ip() < end {
        let inst = decoder.decode();
        if inst.is_ip_rel_memory_operand() {
            end = end.min(inst.ip_rel_memory_address());
        }
        text.push_str(&format!("{:6x}  ", inst.ip()));
        formatter.format(&inst, &mut text);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests_512;
