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
    if stage.cut.is_some() {
        return Err(Error::Usage(
            "a size depends on data, so no object of fixed memory can be made; `dnnc run` and the Rust API compile such a model in stages"
                .into(),
        ));
    }
    object_of(&stage.graph, name, options)
}

/// Compiles a graph to an object.
pub fn object_of(graph: &Graph, name: &str, options: &Options) -> Result<Object, Error> {
    let built = build(graph, name, options)?;
    let made = object::emit(&built.program, options.target).map_err(Error::Internal)?;
    let header = header::write(&built.program, options.target);
    Ok(Object { bytes: made.bytes, header, built, code: made.code_bytes })
}

impl Object {
    /// How much code, weights and memory.
    pub fn sizes(&self) -> Sizes {
        Sizes { code: self.code, weights: self.built.program.constants.iter().map(Vec::len).sum(), arena: self.built.program.arena_bytes }
    }

    /// Disassembly of the kernels.
    pub fn assembly(&self, options: &Options) -> Result<String, Error> {
        let text = |k| dnnc_codegen::emit::assembly(k, options.target).map_err(Error::Internal);
        self.built.program.kernels.iter().map(text).collect::<Result<Vec<_>, _>>().map(|t| t.join("\n"))
    }

    /// Cranelift's input for the kernels that it compiles.
    pub fn clif(&self, options: &Options) -> Result<String, Error> {
        let text = |k| dnnc_codegen::emit::clif_text(k, options.target).map_err(Error::Internal);
        self.built.program.kernels.iter().map(text).collect::<Result<Vec<_>, _>>().map(|t| t.join("\n"))
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
