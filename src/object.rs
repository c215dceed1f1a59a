//! Objects for other machines: the network as bytes to be linked, and the C header that says how to call it.

use crate::pipeline::{Built, build};
use crate::{Error, Options, Sizes};
use dnnc_emit::object::{self, Pack};
use dnnc_emit::{header, variants};
use dnnc_frontend::{Model, Stage};
use dnnc_ir::Graph;
use dnnc_kir::program::Program;

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

/// What a compiled network takes, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
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
    object_of(&whole(model, shapes)?, name, options)
}

/// Compiles a graph to an object.
pub fn object_of(graph: &Graph, name: &str, options: &Options) -> Result<Object, Error> {
    let built = build(graph, name, options)?;
    let made = object::emit(&built.program, options.target).map_err(Error::Internal)?;
    let header = header::write(&built.program, options.target);
    Ok(Object { bytes: made.bytes, header, built, code: made.code_bytes })
}

/// The graph of a model, which must be one without a cut.
fn whole(model: &Model, shapes: &[Vec<usize>]) -> Result<Graph, Error> {
    let Stage { graph, cut: None, .. } = model.specialise(shapes)? else {
        return Err(Error::Usage(
            "a size depends on data, so no object of fixed memory can be made; `dnnc run` and the Rust API compile such a model in stages"
                .into(),
        ));
    };
    Ok(graph)
}

impl Object {
    /// How much code, weights and memory.
    pub fn footprint(&self) -> Footprint {
        let program = &self.built.program;
        Footprint { code: self.code, weights: program.constants.iter().map(Vec::len).sum(), arena: program.arena_bytes }
    }
}

/// A network compiled for several sizes, as files.
pub struct Variants {
    /// The object file.
    pub bytes: Vec<u8>,
    /// The C header.
    pub header: String,
    /// What all variants take together: constants that are equal are there once, and the arena is the largest.
    pub footprint: Footprint,
}

/// Compiles a model for every combination of `sizes` into one object, whose entries pick one at run time and refuse other sizes with the status
/// [`abi::DIMS`](dnnc_runtime::abi::DIMS). `each` sees every graph as it was read, and what was made of it, before it is let go of.
pub fn object_variants(
    model: &Model,
    sizes: &Sizes,
    name: &str,
    options: &Options,
    mut each: impl FnMut(usize, &Graph, &Built) -> Result<(), Error>,
) -> Result<Variants, Error> {
    let mut pack = Pack::new(options.target);
    let mut programs: Vec<Program> = vec![];
    for (variant, shapes) in sizes.shapes.iter().enumerate() {
        let graph = whole(model, shapes)?;
        let mut built = build(&graph, name, options)?;
        each(variant, &graph, &built)?;
        pack.add(&built.program).map_err(Error::Internal)?;
        // What the pack has taken up is let go of: so many sizes need hardly more memory than one.
        built.program.kernels.clear();
        built.program.constants.clear();
        programs.push(built.program);
    }
    let programs: Vec<&Program> = programs.iter().collect();
    let made = pack.finish(name, &sizes.open, &programs).map_err(Error::Internal)?;
    let header = header::write_variants(name, &sizes.open, &programs, made.weight_bytes, options.target);
    let arena = programs.iter().map(|p| p.arena_bytes).max().unwrap_or(0);
    debug_assert_eq!(variants::count(&sizes.open), Some(programs.len()));
    Ok(Variants { bytes: made.bytes, header, footprint: Footprint { code: made.code_bytes, weights: made.weight_bytes, arena } })
}
