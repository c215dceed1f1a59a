//! kir to x86-64 with AVX2, FMA, F16C and BMI2: 256-bit vectors through `regalloc2` and `iced-x86`.
//!
//! A kernel is read once for facts (`facts`), lowered to instructions over virtual registers (`lower` and what stands beside it),
//! given registers, and encoded (`encode`). Lowering is free to compute what it may not need: what stays unused is
//! dropped before registers are given. The result is one run of bytes, code and then constants, that needs no relocation;
//! it wants to lie at a multiple of [`ALIGN`] but does not have to.

mod address;
mod control;
mod convert;
mod encode;
mod facts;
mod lower;
mod mach;
mod memory;
mod scalar;
mod shuffle;
mod vector;

use dnnc_kir::Func;
use dnnc_targets::Target;
use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};

/// What the start of a function should be aligned to, so that its loops and constants are.
pub const ALIGN: usize = 32;

/// The machine code of a kernel, position-independent, System V ABI: `fn(ptr × n, task: i64) -> i32`.
///
/// Errors say what of the kernel has no meaning, or that the target is not one with 256-bit vectors.
pub fn emit(func: &Func, target: &Target) -> Result<Vec<u8>, String> {
    if !target.triple.starts_with("x86_64") || target.vector.bits < 256 || !target.vector.fma {
        return Err(format!("{} has no 256-bit vectors with fused multiply-add", target.name));
    }
    let flow = lower::lower(func)?.finish();
    encode::encode(&flow)
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
