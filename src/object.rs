//! Objects for other machines: the network as bytes to be linked, and the C header that says how to call it.

use crate::pipeline::{Built, build};
use crate::{Error, Options};
use dnnc_codegen::{header, object};
use dnnc_frontend::Model;
use dnnc_ir::Graph;

/// A compiled network as files.
pub struct Object {
    /// The object file.
    pub bytes: Vec<u8>,
    /// The C header.
    pub header: String,
    /// What was compiled.
    pub built: Built,
    code: usize,
    kernels: Vec<object::KernelCode>,
}

/// Sizes of a compiled network in bytes.
pub struct Sizes {
    /// Machine code.
    pub code: usize,
    /// Constants.
    pub weights: usize,
    /// Memory that the caller provides.
    pub arena: usize,
}

/// Compiles a model for these shapes of its inputs; `name` becomes the prefix of the symbols. A model in which a size depends on data
/// cannot be an object.
pub fn object(model: &Model, shapes: &[Vec<usize>], name: &str, options: &Options) -> Result<Object, Error> {
    let stage = model.specialise(shapes)?;
    if let Some(cut) = &stage.cut {
        return Err(Error::Usage(format!(
            "a size depends on data ({}), so there is no object of fixed memory; `dnnc run` and the Rust API compile in stages",
            cut.reason()
        )));
    }
    object_of(&stage.graph, name, options)
}

/// Compiles a graph to an object.
pub fn object_of(graph: &Graph, name: &str, options: &Options) -> Result<Object, Error> {
    let built = build(graph, name, options)?;
    let made = object::emit(&built.program, options.target).map_err(Error::Internal)?;
    let header = header::write(&built.program, options.target);
    Ok(Object { bytes: made.bytes, header, built, code: made.code_bytes, kernels: made.kernels })
}

impl Object {
    /// How much code, weights and memory.
    pub fn sizes(&self) -> Sizes {
        Sizes { code: self.code, weights: self.built.program.constants.iter().map(Vec::len).sum(), arena: self.built.program.arena_bytes }
    }

    /// Disassembly of the kernels.
    pub fn assembly(&self) -> Result<String, Error> {
        object::disassemble(&self.kernels).map_err(Error::Usage)
    }

    /// Cranelift's input for the kernels that it compiles.
    pub fn clif(&self, options: &Options) -> Result<String, Error> {
        self.built
            .program
            .kernels
            .iter()
            .map(|k| dnnc_codegen::emit::clif_text(k, options.target).map_err(Error::Internal))
            .collect::<Result<Vec<_>, _>>()
            .map(|t| t.join("\n"))
    }

    /// The kernels in the kernel IR.
    pub fn kir(&self) -> String {
        self.built.program.kernels.iter().map(|k| format!("{k}\n")).collect()
    }

    /// The rewritten graph for Graphviz.
    pub fn dot(&self) -> String {
        let graph = &self.built.graph;
        let mut out = String::from("digraph model {\n  node [shape=box, fontname=\"monospace\"];\n");
        for (n, node) in graph.nodes().iter().enumerate() {
            let types: Vec<String> = node.types.iter().map(|t| t.to_string()).collect();
            if node.op.kind() == dnnc_ir::Kind::Const && node.types[0].rank() == 0 {
                continue;
            }
            out += &format!("  n{n} [label=\"{}\\n{}\"];\n", node.op.kind().name(), types.join(", "));
            for v in &node.inputs {
                out += &format!("  n{} -> n{n};\n", v.node);
            }
        }
        for (i, (name, v)) in graph.outputs().iter().enumerate() {
            out += &format!("  out{i} [label=\"{}\", shape=ellipse];\n  n{} -> out{i};\n", name.replace('"', "'"), v.node);
        }
        out + "}\n"
    }
}
