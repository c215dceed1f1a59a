//! Object files for a target, and the C header that declares their entry points.

use crate::pipeline::{Built, build};
use crate::shapes::InputShapes;
use crate::{Error, Options};
use dnnc_emit::object::{self, Pack};
use dnnc_emit::{header, variants};
use dnnc_frontend::{Model, Stage};
use dnnc_ir::Graph;
use dnnc_kir::program::Program;

/// A network compiled to an object file.
pub struct Object {
    /// The object file.
    pub bytes: Vec<u8>,
    /// The C header.
    pub header: String,
    /// What was compiled.
    pub built: Built,
    code: usize,
}

/// Memory that a compiled network needs, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    /// Machine code.
    pub code: usize,
    /// Constants.
    pub weights: usize,
    /// Working memory that the caller provides.
    pub arena: usize,
}

/// Compiles a model for these shapes of its inputs; `name` becomes the prefix of the symbols. A model in which a shape depends on data
/// cannot be an object.
pub fn object(model: &Model, shapes: &[Vec<usize>], name: &str, options: &Options) -> Result<Object, Error> {
    object_of(&single_stage(model, shapes)?, name, options)
}

/// Compiles a graph to an object.
pub fn object_of(graph: &Graph, name: &str, options: &Options) -> Result<Object, Error> {
    let built = build(graph, name, options)?;
    let made = object::emit(&built.program, options.target).map_err(Error::Internal)?;
    let header = header::write(&built.program, options.target);
    Ok(Object { bytes: made.bytes, header, built, code: made.code_bytes })
}

/// The graph of a model that needs no later stage.
fn single_stage(model: &Model, shapes: &[Vec<usize>]) -> Result<Graph, Error> {
    let Stage { graph, cut: None, .. } = model.specialise(shapes)? else {
        return Err(Error::Usage(
            "a shape depends on data, so no object of fixed memory can be made; `dnnc run` and the Rust API compile such a model in stages"
                .into(),
        ));
    };
    Ok(graph)
}

impl Object {
    /// Bytes of code, weights and arena.
    pub fn footprint(&self) -> Footprint {
        let program = &self.built.program;
        Footprint { code: self.code, weights: program.constants.iter().map(Vec::len).sum(), arena: program.arena_bytes }
    }
}

/// A network compiled for several shapes of its inputs to one object file.
pub struct Variants {
    /// The object file.
    pub bytes: Vec<u8>,
    /// The C header.
    pub header: String,
    /// Memory of all variants together: equal constants are stored once, and the arena is that of the largest.
    pub footprint: Footprint,
}

/// Compiles a model for every combination of `inputs` into one object, whose entries select one at run time and refuse other dimensions with the status
/// [`abi::DIMS`](dnnc_runtime::abi::DIMS). `each` is called with every imported graph and what was built from it, before they are dropped.
pub fn object_variants(
    model: &Model,
    inputs: &InputShapes,
    name: &str,
    options: &Options,
    mut each: impl FnMut(usize, &Graph, &Built) -> Result<(), Error>,
) -> Result<Variants, Error> {
    let mut pack = Pack::new(options.target);
    let mut programs: Vec<Program> = vec![];
    for (variant, shapes) in inputs.shapes.iter().enumerate() {
        let graph = single_stage(model, shapes)?;
        let mut built = build(&graph, name, options)?;
        each(variant, &graph, &built)?;
        pack.add(&built.program).map_err(Error::Internal)?;
        // The pack holds its own form of these: dropping them keeps the memory of many variants near that of one.
        built.program.kernels.clear();
        built.program.constants.clear();
        programs.push(built.program);
    }
    let programs: Vec<&Program> = programs.iter().collect();
    let made = pack.finish(name, &inputs.open, &programs).map_err(Error::Internal)?;
    let header = header::write_variants(name, &inputs.open, &programs, made.weight_bytes, options.target);
    let arena = programs.iter().map(|p| p.arena_bytes).max().unwrap_or(0);
    debug_assert_eq!(variants::count(&inputs.open), Some(programs.len()));
    Ok(Variants { bytes: made.bytes, header, footprint: Footprint { code: made.code_bytes, weights: made.weight_bytes, arena } })
}
