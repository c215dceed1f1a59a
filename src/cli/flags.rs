//! Flags that several subcommands share: a flag is a field of a struct here and a field of [`Options`] (or [`Limits`]).

use clap::Args;
use dnnc::codegen::tuner::Tuner;
use dnnc::{Error, InputShapes, Limits, Options, Port, Target, TuneCache};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whether kernels may skip zeros of weights.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq)]
enum Sparse {
    Auto,
    Off,
}

/// Flags that say what is compiled, and for which machine.
#[derive(Args, Clone)]
pub struct CompileFlags {
    /// Machine to compile for: a name or a triple from `dnnc targets`
    #[arg(long, default_value = "native", value_parser = target)]
    target: &'static Target,
    /// Instruction-set features that the machine has beside those of its record, or lacks, e.g. `+avx512vnni,-amx`
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    features: Option<String>,
    /// Value of a symbolic dimension, e.g. `batch=4`; may be given several times. An object may hold several values: `seq=16,32,64` or `seq=1..8`
    #[arg(long = "dim", value_name = "NAME=VALUE", value_parser = dim)]
    dims: Vec<(String, Vec<usize>)>,
    /// Threads to partition work for. The JIT starts them; for an object file, the application supplies the pool
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Keep the network's order of operations: no Winograd, no reassociation of constants
    #[arg(long)]
    precise: bool,
    /// Allow rewrites that hold for finite numbers only, and multiply by rounded reciprocals instead of dividing
    #[arg(long, conflicts_with = "precise")]
    relaxed: bool,
    /// Compile the graph as it was imported, without the rewrite rules of the e-graph
    #[arg(long, alias = "plain")] // `--plain` was its name up to 0.1
    no_rewrites: bool,
    /// Where an operator has several algorithms, measure them on this machine and choose the fastest, instead of predicting it
    #[arg(long)]
    tune: bool,
    /// Where --tune keeps its measurements [default: dnnc in the user's cache directory]
    #[arg(long, value_name = "DIR", requires = "tune")]
    tune_cache: Option<PathBuf>,
    /// Skip zeros of weights where that is predicted to be faster (auto), or compute with them as with all numbers (off)
    #[arg(long, value_enum, default_value_t = Sparse::Auto, hide_possible_values = true)]
    sparse: Sparse,
    /// Largest arena (working memory) of a compiled model
    #[arg(long, value_name = "BYTES", default_value_t = Options::default().max_arena, help_heading = LIMITS)]
    max_arena: usize,
    /// Largest tensor
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().tensor_bytes, help_heading = LIMITS)]
    max_tensor: usize,
    /// Most nodes after functions are inlined, and most operators after import
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().nodes, help_heading = LIMITS)]
    max_nodes: usize,
    /// Most nodes that unrolled loops may add
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().unrolled, help_heading = LIMITS)]
    max_unrolled: usize,
    /// Most iterations of a loop whose trip count depends on data
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().iterations, help_heading = LIMITS)]
    max_iterations: i64,
    /// Most stages of a model whose shapes depend on data
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().stages, help_heading = LIMITS)]
    max_stages: usize,
    /// Deepest nesting of graphs and functions
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().depth, help_heading = LIMITS)]
    max_depth: usize,
    /// Largest constant
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().constant_bytes, help_heading = LIMITS)]
    max_constant: usize,
    /// Largest model file
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().file_bytes, help_heading = LIMITS)]
    max_file: u64,
    /// Most combinations of dimensions in one object
    #[arg(long, value_name = "COUNT", default_value_t = Options::default().max_variants, help_heading = LIMITS)]
    max_variants: usize,
    /// Memory for the code, constants and arenas of all shapes that a running model has met; the least recently used shape is evicted first
    #[arg(long, value_name = "BYTES", default_value_t = Options::default().cache_bytes, help_heading = LIMITS)]
    cache_bytes: usize,
}

/// The heading of flags that bound what a model may ask for.
const LIMITS: &str = "Limits";

impl CompileFlags {
    /// The options of the compilation.
    pub fn options(&self) -> Result<Options, Error> {
        let limits = Limits {
            file_bytes: self.max_file,
            constant_bytes: self.max_constant,
            tensor_bytes: self.max_tensor,
            nodes: self.max_nodes,
            unrolled: self.max_unrolled,
            depth: self.max_depth,
            stages: self.max_stages,
            iterations: self.max_iterations,
        };
        Ok(Options {
            target: self.machine()?,
            threads: self.threads,
            precise: self.precise,
            relaxed: self.relaxed,
            rewrites: !self.no_rewrites,
            limits,
            tuner: if self.tune { Some(self.tuner()?) } else { None },
            sparse: self.sparse == Sparse::Auto,
            max_arena: self.max_arena,
            cache_bytes: self.cache_bytes,
            max_variants: self.max_variants,
        })
    }

    /// The machine, with single features added or removed.
    fn machine(&self) -> Result<&'static Target, Error> {
        let Some(list) = &self.features else { return Ok(self.target) };
        let changed = self.target.with_features(list).map_err(|e| Error::Usage(format!("--features: {e}")))?;
        let name = format!("{} {list}", self.target.name);
        // Once a run of the command line: targets live as long as the program.
        Ok(Box::leak(Box::new(Target { name: Box::leak(name.into_boxed_str()), ..changed })))
    }

    fn tuner(&self) -> Result<Arc<dyn Tuner>, Error> {
        let (target, native) = (self.machine()?, dnnc::targets::native());
        if target.triple != native.triple || !native.runs(target) {
            return Err(Error::Usage(format!("--tune measures kernels, and those for {} do not run on this machine", target.name)));
        }
        let directory = self.tune_cache.clone().or_else(TuneCache::default_directory);
        let directory = directory.ok_or_else(|| Error::Usage("there is no cache directory: give one with --tune-cache".into()))?;
        Ok(Arc::new(TuneCache::open(&directory)?))
    }

    fn dims(&self) -> Result<BTreeMap<String, Vec<usize>>, Error> {
        let mut dims = BTreeMap::new();
        for (name, values) in &self.dims {
            if dims.insert(name.clone(), values.clone()).is_some() {
                return Err(Error::Usage(format!("--dim {name} is given twice; several values are written --dim {name}=1,4")));
            }
        }
        Ok(dims)
    }

    /// The shapes of the inputs for one value of each dimension, and the dimensions that were set to 1; `what` is what takes one combination only.
    pub fn single_shapes(&self, ports: &[Port], options: &Options, what: &str) -> Result<(Vec<Vec<usize>>, Vec<String>), Error> {
        let mut inputs = dnnc::combinations(ports, &self.dims()?, options)?;
        match inputs.open.first() {
            Some(dim) => Err(Error::Usage(format!("--dim {}: {what} one combination of dimensions; give one value", dim.name))),
            None => Ok((inputs.shapes.remove(0), inputs.assumed)),
        }
    }

    /// Reads a model and binds the dimensions of its inputs; notes those that were set to 1 on standard error.
    pub fn load(&self, path: &Path, options: &Options) -> Result<(dnnc::frontend::Model, InputShapes), Error> {
        let model = dnnc::frontend::Model::load(path, &options.limits)?;
        let inputs = dnnc::combinations(model.inputs(), &self.dims()?, options)?;
        for name in &inputs.assumed {
            eprintln!("note: dimension {name} is not given; compiled for 1 (--dim sets it)");
        }
        Ok((model, inputs))
    }
}

fn target(name: &str) -> Result<&'static Target, String> {
    if name == "native" {
        return Ok(dnnc::targets::native());
    }
    dnnc::targets::find(name).ok_or_else(|| {
        let names: Vec<&str> = dnnc::targets::all().iter().map(|t| t.name).collect();
        format!("no target `{name}`; there are native, {}", names.join(", "))
    })
}

fn dim(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, values) = text.rsplit_once('=').ok_or("write NAME=VALUE, e.g. batch=4")?;
    Ok((name.to_string(), dnnc::parse_dim_values(values)?))
}

/// Flags of the commands that test the compiler.
#[cfg(feature = "dev")]
#[derive(Args, Clone)]
pub struct BackendFlags {
    /// Backend that runs the model
    #[arg(long, visible_alias = "via", default_value = "jit", value_parser = backends())]
    pub backend: dnnc::difftest::Backend,
}

#[cfg(feature = "dev")]
fn backends() -> impl clap::builder::TypedValueParser<Value = dnnc::difftest::Backend> {
    use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
    use dnnc::difftest::Backend;
    let values = Backend::ALL.map(|b| PossibleValue::new(b.name()).help(b.description()));
    PossibleValuesParser::new(values).map(|name| Backend::ALL.into_iter().find(|b| b.name() == name).expect("one of the possible values"))
}
