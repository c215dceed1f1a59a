//! The C header beside an object: how to call the network, and what memory it needs.

use crate::variants::{self, OpenDim};
use dnnc_ir::{TensorType, Type};
use dnnc_kir::program::{ALIGN, Program};
use dnnc_runtime::abi;
use dnnc_targets::Target;
use std::fmt::Write;

/// Writes the header of a program.
pub fn write(program: &Program, target: &Target) -> String {
    let name = &program.name;
    let upper = name.to_ascii_uppercase();
    let weights: usize = program.constants.iter().map(Vec::len).sum();
    let mut out = Header::open(name, target);
    for (kind, ports) in [("input ", &program.inputs), ("output", &program.outputs)] {
        for (i, (port, ty)) in ports.iter().enumerate() {
            out.line(format!(" * {kind} {i}  {}  {ty}", comment(port)));
        }
    }
    out.begin(&upper);
    out.line("/* Memory. */");
    out.line(format!("#define {upper}_ARENA_BYTES {}", program.arena_bytes.max(1)));
    out.line(format!("#define {upper}_ARENA_ALIGN {ALIGN}"));
    out.line(format!("#define {upper}_WEIGHT_BYTES {weights}\n"));
    for (kind, ports) in [("INPUT", &program.inputs), ("OUTPUT", &program.outputs)] {
        out.line(format!("#define {upper}_{kind}S {}", ports.len()));
        for (i, (port, ty)) in ports.iter().enumerate() {
            out.line(format!("#define {upper}_{kind}_{i}_NAME \"{}\"", escaped(port)));
            out.line(format!("#define {upper}_{kind}_{i}_TYPE {} /* {} */", c_type(ty.ty), ty.ty));
            out.shape(&format!("{upper}_{kind}_{i}"), ty);
        }
        out.line("");
    }
    out.statuses(&upper, |status| status != abi::DIMS);
    out.line("/* One inference. inputs: pointers to the inputs in order; outputs: pointers to memory for the outputs in order;");
    out.line(format!(" * arena: {upper}_ARENA_BYTES bytes, aligned to {upper}_ARENA_ALIGN. */"));
    out.line(format!("int32_t {name}_run(const void *const *inputs, void *const *outputs, void *arena);\n"));
    out.line(PARALLEL);
    out.line(format!("int32_t {name}_run_parallel(const void *const *inputs, void *const *outputs, void *arena, void *pool,"));
    out.line(PARALLEL_FOR);
    out.close()
}

/// Writes the header of an object that holds several networks: that of each, and the memory that they can share.
pub fn write_pack(name: &str, programs: &[&Program], weights: usize, target: &Target) -> String {
    let guard =
        format!("{}_PACK", name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect::<String>());
    let arena = programs.iter().map(|p| p.arena_bytes.max(1)).max().unwrap_or(1);
    let mut out = format!("#ifndef DNNC_{guard}\n#define DNNC_{guard}\n\n");
    out += &format!("/* One arena, aligned to {ALIGN}, serves all networks of the object, one run at a time. */\n");
    out += &format!("#define DNNC_{guard}_ARENA_BYTES {arena}\n/* Constants of all networks, equal ones once. */\n");
    out += &format!("#define DNNC_{guard}_WEIGHT_BYTES {weights}\n\n");
    for program in programs {
        out += &write(program, target);
        out.push('\n');
    }
    out + "#endif\n"
}

/// Writes the header of an object that holds a program for each combination of sizes of some dimensions.
pub fn write_variants(name: &str, dims: &[OpenDim], programs: &[&Program], weights: usize, target: &Target) -> String {
    let upper = name.to_ascii_uppercase();
    let arena = programs.iter().map(|p| p.arena_bytes.max(1)).max().unwrap_or(1);
    let sides =
        [("input", programs.iter().map(|p| &p.inputs).collect::<Vec<_>>()), ("output", programs.iter().map(|p| &p.outputs).collect())];
    let mut out = Header::open(name, target);
    for (kind, ports) in &sides {
        for i in 0..ports[0].len() {
            let types: Vec<&TensorType> = ports.iter().map(|p| &p[i].1).collect();
            out.line(format!(" * {kind:6} {i}  {}  {}", comment(&ports[0][i].0), range(&types)));
        }
    }
    out.line(" *");
    out.line(format!(
        " * The code is made for certain sizes. Each combination of them is a variant, numbered from 0 to {}; the functions pick",
        programs.len() - 1
    ));
    out.line(format!(" * one by the sizes in {name}_dims, and refuse all others with {upper}_BAD_DIMS before they touch anything else."));
    out.begin(&upper);
    out.line("/* The sizes of an inference. */");
    out.line(format!("typedef struct {name}_dims {{"));
    for dim in dims {
        let list = dim.sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let called = if dim.name == dim.field { String::new() } else { format!("{}: ", comment(&dim.name)) };
        out.line(format!("    size_t {}; /* {called}{list} */", dim.field));
    }
    out.line(format!("}} {name}_dims;\n"));
    out.line("/* Memory: the arena of the variant that needs most serves all. */");
    out.line(format!("#define {upper}_ARENA_BYTES {arena}"));
    out.line(format!("#define {upper}_ARENA_ALIGN {ALIGN}"));
    out.line(format!("#define {upper}_WEIGHT_BYTES {weights} /* of all variants; equal ones are stored once */\n"));
    out.line("/* Inputs and outputs; BYTES is enough for every variant. */");
    for (kind, ports) in &sides {
        let kind = kind.to_ascii_uppercase();
        out.line(format!("#define {upper}_{kind}S {}", ports[0].len()));
        for (i, (port, ty)) in ports[0].iter().enumerate() {
            let most = ports.iter().map(|p| p[i].1.bytes()).max().unwrap_or(0);
            out.line(format!("#define {upper}_{kind}_{i}_NAME \"{}\"", escaped(port)));
            out.line(format!("#define {upper}_{kind}_{i}_TYPE {} /* {} */", c_type(ty.ty), ty.ty));
            out.line(format!("#define {upper}_{kind}_{i}_BYTES {most}"));
        }
        out.line("");
    }
    out.line("/* Variants. DIMS initialises the structure above. */");
    out.line(format!("#define {upper}_VARIANTS {}", programs.len()));
    for (v, program) in programs.iter().enumerate() {
        let prefix = format!("{upper}_VARIANT_{v}");
        let sizes: Vec<String> = variants::sizes(dims, v).iter().map(usize::to_string).collect();
        out.line(format!("#define {prefix}_DIMS {{ {} }}", sizes.join(", ")));
        out.line(format!("#define {prefix}_ARENA_BYTES {}", program.arena_bytes.max(1)));
        for (kind, ports) in [("INPUT", &program.inputs), ("OUTPUT", &program.outputs)] {
            for (i, (_, ty)) in ports.iter().enumerate() {
                out.shape(&format!("{prefix}_{kind}_{i}"), ty);
            }
        }
    }
    out.line("");
    out.statuses(&upper, |_| true);
    out.line("/* The number of the variant for these sizes, or -1 when there is none. */");
    out.line(format!("int32_t {name}_variant(const {name}_dims *dims);\n"));
    out.line(
        "/* Bytes that these sizes need: the arena, and each input and output by its number. 0 when there is no such variant or number. */",
    );
    out.line(format!("size_t {name}_arena_bytes(const {name}_dims *dims);"));
    out.line(format!("size_t {name}_input_bytes(const {name}_dims *dims, size_t input);"));
    out.line(format!("size_t {name}_output_bytes(const {name}_dims *dims, size_t output);\n"));
    out.line(
        "/* One inference. dims: its sizes; inputs: pointers to the inputs in order; outputs: pointers to memory for the outputs in order;",
    );
    out.line(format!(" * arena: {name}_arena_bytes(dims) bytes or more, aligned to {upper}_ARENA_ALIGN. */"));
    out.line(format!("int32_t {name}_run(const {name}_dims *dims, const void *const *inputs, void *const *outputs, void *arena);\n"));
    out.line(PARALLEL);
    out.line(format!(
        "int32_t {name}_run_parallel(const {name}_dims *dims, const void *const *inputs, void *const *outputs, void *arena, void *pool,"
    ));
    out.line(PARALLEL_FOR);
    out.close()
}

const PARALLEL: &str =
    "/* The same on the caller's threads: parallel_for must call body(ctx, i) for every i below n, in any order, and return
 * when all are done. */";
const PARALLEL_FOR: &str = "    void (*parallel_for)(void *pool, size_t n, void (*body)(void *ctx, size_t i), void *ctx));\n";

/// The text so far.
struct Header(String);

impl Header {
    fn open(name: &str, target: &Target) -> Header {
        Header(format!("/* {name}: a neural network compiled by dnnc for {} ({}).\n *\n", target.name, target.triple))
    }

    fn line(&mut self, text: impl AsRef<str>) {
        self.0.push_str(text.as_ref());
        self.0.push('\n');
    }

    /// What is true of all networks, and the end of the opening comment.
    fn begin(&mut self, upper: &str) {
        self.line(" *");
        self.line(
            " * Tensors are dense, row-major, the last axis contiguous. The functions are re-entrant and use no heap: all they write",
        );
        self.line(" * is the outputs and the arena, which the caller provides and need not clear. They return 0, or a status below. */");
        self.line(format!("#ifndef {upper}_H\n#define {upper}_H\n"));
        self.line("#include <stddef.h>\n#include <stdint.h>\n");
        self.line("#ifdef __cplusplus\nextern \"C\" {\n#endif\n");
    }

    fn shape(&mut self, prefix: &str, ty: &TensorType) {
        self.line(format!("#define {prefix}_RANK {}", ty.rank()));
        self.line(format!("#define {prefix}_SHAPE {{ {} }}", sizes(ty)));
        self.line(format!("#define {prefix}_BYTES {}", ty.bytes()));
    }

    fn statuses(&mut self, upper: &str, wanted: impl Fn(i32) -> bool) {
        self.line("/* Statuses. */");
        for (status, macro_name, text) in abi::STATUSES.iter().filter(|s| wanted(s.0)) {
            self.line(format!("#define {upper}_{macro_name} {status} /* {text} */"));
        }
        self.line("");
    }

    fn close(mut self) -> String {
        self.line("#ifdef __cplusplus\n}\n#endif\n");
        self.line("#endif");
        self.0
    }
}

/// A type of which some sizes differ: `f32[1|4,3,16]`.
fn range(types: &[&TensorType]) -> String {
    if types.iter().any(|t| t.rank() != types[0].rank()) {
        return format!("{}[...]", types[0].ty);
    }
    let axis = |axis: usize| {
        let mut all: Vec<usize> = types.iter().map(|t| t.shape[axis]).collect();
        all.sort_unstable();
        all.dedup();
        all.iter().map(usize::to_string).collect::<Vec<_>>().join("|")
    };
    format!("{}[{}]", types[0].ty, (0..types[0].rank()).map(axis).collect::<Vec<_>>().join(","))
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
