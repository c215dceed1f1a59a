//! The C header beside an object: how to call the network, and what memory it needs.

use crate::program::{ALIGN, Program};
use dnnc_ir::{TensorType, Type};
use dnnc_targets::Target;
use std::fmt::Write;

/// Writes the header of a program.
pub fn write(program: &Program, target: &Target) -> String {
    let name = &program.name;
    let upper = name.to_ascii_uppercase();
    let weights: usize = program.constants.iter().map(Vec::len).sum();
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("/* {name}: a neural network compiled by dnnc for {} ({}).", target.name, target.triple));
    line(" *".into());
    for (kind, ports) in [("input ", &program.inputs), ("output", &program.outputs)] {
        for (i, (port, ty)) in ports.iter().enumerate() {
            line(format!(" * {kind} {i}  {}  {ty}", comment(port)));
        }
    }
    line(" *".into());
    line(" * Tensors are dense, row-major, the last axis contiguous. The functions are re-entrant and use no heap: all they write".into());
    line(" * is the outputs and the arena, which the caller provides and need not clear. They return 0, or a status below. */".into());
    line(format!("#ifndef {upper}_H\n#define {upper}_H\n"));
    line("#include <stddef.h>\n#include <stdint.h>\n".into());
    line("#ifdef __cplusplus\nextern \"C\" {\n#endif\n".into());
    line("/* Memory. */".into());
    line(format!("#define {upper}_ARENA_BYTES {}", program.arena_bytes.max(1)));
    line(format!("#define {upper}_ARENA_ALIGN {ALIGN}"));
    line(format!("#define {upper}_WEIGHT_BYTES {weights}\n"));
    for (kind, ports) in [("INPUT", &program.inputs), ("OUTPUT", &program.outputs)] {
        line(format!("#define {upper}_{kind}S {}", ports.len()));
        for (i, (port, ty)) in ports.iter().enumerate() {
            line(format!("#define {upper}_{kind}_{i}_NAME \"{}\"", escaped(port)));
            line(format!("#define {upper}_{kind}_{i}_TYPE {} /* {} */", c_type(ty.ty), ty.ty));
            line(format!("#define {upper}_{kind}_{i}_RANK {}", ty.rank()));
            line(format!("#define {upper}_{kind}_{i}_SHAPE {{ {} }}", sizes(ty)));
            line(format!("#define {upper}_{kind}_{i}_BYTES {}", ty.bytes()));
        }
        line(String::new());
    }
    line("/* Statuses. */".into());
    for (status, macro_name, text) in dnnc_runtime::abi::STATUSES {
        line(format!("#define {upper}_{macro_name} {status} /* {text} */"));
    }
    line(String::new());
    line("/* One inference. inputs: pointers to the inputs in order; outputs: pointers to memory for the outputs in order;".into());
    line(format!(" * arena: {upper}_ARENA_BYTES bytes, aligned to {upper}_ARENA_ALIGN. */"));
    line(format!("int32_t {name}_run(const void *const *inputs, void *const *outputs, void *arena);\n"));
    line("/* The same on the caller's threads: parallel_for must call body(ctx, i) for every i below n, in any order, and return".into());
    line(" * when all are done. */".into());
    line(format!("int32_t {name}_run_parallel(const void *const *inputs, void *const *outputs, void *arena, void *pool,"));
    line("    void (*parallel_for)(void *pool, size_t n, void (*body)(void *ctx, size_t i), void *ctx));\n".into());
    line("#ifdef __cplusplus\n}\n#endif\n".into());
    line("#endif".into());
    out
}

fn sizes(ty: &TensorType) -> String {
    let mut out = String::new();
    for (i, s) in ty.shape.iter().enumerate() {
        write!(out, "{}{s}", if i > 0 { ", " } else { "" }).expect("a string takes text");
    }
    if out.is_empty() { "1".into() } else { out }
}

/// The C type that holds an element; types that C lacks are held as their bits.
fn c_type(ty: Type) -> &'static str {
    use Type::*;
    match ty {
        F32 => "float",
        F64 => "double",
        I64 => "int64_t",
        I32 => "int32_t",
        I16 => "int16_t",
        I8 | I4 | I2 => "int8_t",
        U64 => "uint64_t",
        U32 => "uint32_t",
        U16 | F16 | BF16 => "uint16_t",
        Bool | U8 | U4 | U2 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F4E2M1 => "uint8_t",
    }
}

fn escaped(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ' { c } else { '_' }).collect()
}

fn comment(text: &str) -> String {
    escaped(text).replace("*/", "* /")
}
