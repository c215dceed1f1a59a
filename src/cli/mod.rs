//! One subcommand, one file, one clap struct: its doc comment is its help.

/// Prints a line; ends the program quietly when nobody reads on (`dnnc ops | head`).
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write;
        if writeln!(std::io::stdout(), $($arg)*).is_err() {
            std::process::exit(0);
        }
    }};
}

mod bench;
mod check;
mod compile;
mod explain;
mod hunt;
mod inspect;
mod ops;
mod progress;
mod reduce;
mod run;
mod targets;

use clap::{Args, Parser, Subcommand};
use dnnc::codegen::tuner::Tuner;
use dnnc::{Error, Limits, Model, Options, Port, Sizes, Target, TuneCache};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Compile a trained neural network (ONNX) to specialised native code
#[derive(Parser)]
#[command(name = "dnnc", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, max_term_width = 110)]
#[command(after_help = "Examples:
  dnnc model.onnx -o model.o                     an object file and model.h for this machine
  dnnc model.onnx --target aarch64 -o model.o    the same for Arm, 64 bits
  dnnc run model.onnx image.npy                  compile in memory and run
  dnnc bench model.onnx --layers                 how fast, and where the time goes")]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    compile: compile::Compile,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
    Reduce(reduce::Reduce),
    Bench(bench::Bench),
    Inspect(inspect::Inspect),
    Explain(explain::Explain),
    #[command(hide = true)]
    Hunt(hunt::Hunt),
    Targets(targets::Targets),
    Ops(ops::Ops),
}

/// Parses the command line and does what it says; errors are one sentence on standard error and exit status 1.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Run(c)) => c.run(),
        Some(Command::Check(c)) => return c.run(),
        Some(Command::Reduce(c)) => c.run(),
        Some(Command::Bench(c)) => c.run(),
        Some(Command::Inspect(c)) => c.run(),
        Some(Command::Explain(c)) => c.run(),
        Some(Command::Hunt(c)) => return c.run(),
        Some(Command::Targets(c)) => c.run(),
        Some(Command::Ops(c)) => c.run(),
        None => cli.compile.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is done with zeros of weights.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq)]
enum Sparse {
    Auto,
    Off,
}

/// Options that say what is compiled and for which machine.
#[derive(Args, Clone)]
struct Building {
    /// Machine to compile for: a name or a triple from `dnnc targets`
    #[arg(long, default_value = "native", value_parser = target)]
    target: &'static Target,
    /// Size of a symbolic dimension, e.g. `batch=4`; may be given several times. An object may hold several sizes: `seq=16,32,64` or `seq=1..8`
    #[arg(long = "dim", value_name = "NAME=SIZE", value_parser = dim)]
    dims: Vec<(String, Vec<usize>)>,
    /// Keep the network's order of operations: no Winograd, no reassociation of constants
    #[arg(long)]
    precise: bool,
    /// Allow rewrites that hold for finite numbers only, and multiply by rounded reciprocals instead of dividing
    #[arg(long, conflicts_with = "precise")]
    relaxed: bool,
    /// Skip the e-graph: compile the graph as it was read
    #[arg(long)]
    plain: bool,
    /// Where an operator can be computed in several ways, run them on this machine and take the fastest, instead of predicting it
    #[arg(long)]
    tune: bool,
    /// Where --tune remembers what it measured [default: dnnc in the user's cache directory]
    #[arg(long, value_name = "DIR", requires = "tune")]
    tune_cache: Option<PathBuf>,
    /// Leave out zeros of weights where that is predicted to be faster, or compute them like all other numbers
    #[arg(long, value_enum, default_value_t = Sparse::Auto)]
    sparse: Sparse,
    /// Largest arena that a model may need, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = Options::default().max_arena)]
    max_arena: usize,
    /// Largest tensor that a model may hold or make, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().tensor_bytes)]
    max_tensor: usize,
    /// Most nodes that a model may have when its functions are written out, and most operators that it may become
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().nodes)]
    max_nodes: usize,
    /// Most nodes that loops may add which must be written out
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().unrolled)]
    max_unrolled: usize,
    /// Most iterations of a loop that data ends
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().iterations)]
    max_iterations: i64,
    /// Most parts that sizes which depend on data may cut a model into
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().stages)]
    max_stages: usize,
    /// How deep graphs and functions may lie inside one another
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().depth)]
    max_depth: usize,
    /// Largest constant of a model, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().constant_bytes)]
    max_constant: usize,
    /// Largest model file, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().file_bytes)]
    max_file: u64,
    /// Most combinations of sizes that one object may hold
    #[arg(long, value_name = "COUNT", default_value_t = Options::default().max_variants)]
    max_variants: usize,
    /// Bytes of code, constants and arenas kept for shapes that were met while running; the least recently used goes first
    #[arg(long, value_name = "BYTES", default_value_t = Options::default().cache_bytes)]
    cache_bytes: usize,
}

impl Building {
    fn options(&self, threads: usize) -> Result<Options, Error> {
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
        let tuner = if self.tune { Some(self.tuner()?) } else { None };
        let sparse = self.sparse == Sparse::Auto;
        let (target, precise, relaxed, plain) = (self.target, self.precise, self.relaxed, self.plain);
        let (max_arena, max_variants, cache_bytes) = (self.max_arena, self.max_variants, self.cache_bytes);
        Ok(Options { target, threads, precise, relaxed, plain, limits, tuner, sparse, max_arena, max_variants, cache_bytes })
    }

    /// The options as they are given to another process.
    fn arguments(&self) -> Vec<String> {
        let numbers = [
            ("--max-arena", self.max_arena.to_string()),
            ("--max-tensor", self.max_tensor.to_string()),
            ("--max-nodes", self.max_nodes.to_string()),
            ("--max-unrolled", self.max_unrolled.to_string()),
            ("--max-iterations", self.max_iterations.to_string()),
            ("--max-stages", self.max_stages.to_string()),
            ("--max-depth", self.max_depth.to_string()),
            ("--max-constant", self.max_constant.to_string()),
            ("--max-file", self.max_file.to_string()),
        ];
        let mut all = vec!["--target".to_string(), self.target.name.to_string()];
        let list = |sizes: &[usize]| sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        all.extend(self.dims.iter().flat_map(|(name, sizes)| ["--dim".to_string(), format!("{name}={}", list(sizes))]));
        all.extend(numbers.iter().flat_map(|(name, n)| [name.to_string(), n.to_string()]));
        let flags = [
            ("--precise", self.precise),
            ("--relaxed", self.relaxed),
            ("--plain", self.plain),
            ("--sparse=off", self.sparse == Sparse::Off),
        ];
        all.extend(flags.iter().filter(|(_, on)| *on).map(|(flag, _)| flag.to_string()));
        all
    }

    fn tuner(&self) -> Result<Arc<dyn Tuner>, Error> {
        let native = dnnc::targets::native();
        if self.target.triple != native.triple || self.target.vector.bits > native.vector.bits {
            return Err(Error::Usage(format!("--tune runs kernels, and those for {} do not run on this machine", self.target.name)));
        }
        let directory = self.tune_cache.clone().or_else(TuneCache::default_directory);
        let directory = directory.ok_or_else(|| Error::Usage("there is no cache directory: name one with --tune-cache".into()))?;
        Ok(Arc::new(TuneCache::open(&directory)?))
    }

    fn dims(&self) -> Result<BTreeMap<String, Vec<usize>>, Error> {
        let mut dims = BTreeMap::new();
        for (name, sizes) in &self.dims {
            if dims.insert(name.clone(), sizes.clone()).is_some() {
                return Err(Error::Usage(format!("--dim {name} is given twice; several sizes are written --dim {name}=1,4")));
            }
        }
        Ok(dims)
    }

    /// One size for each dimension of the inputs, and the dimensions that were assumed; `what` is what can be done for one combination only.
    fn one(&self, ports: &[Port], options: &Options, what: &str) -> Result<(Vec<Vec<usize>>, Vec<String>), Error> {
        let mut sizes = dnnc::combinations(ports, &self.dims()?, options)?;
        match sizes.open.first() {
            Some(dim) => Err(Error::Usage(format!("--dim {}: {what} one combination of sizes; give one size", dim.name))),
            None => Ok((sizes.shapes.remove(0), sizes.assumed)),
        }
    }

    /// Reads a model and binds the sizes of its inputs; says which it assumed.
    fn bound(&self, path: &Path, options: &Options) -> Result<(dnnc::frontend::Model, Sizes), Error> {
        let model = dnnc::frontend::Model::load(path, &options.limits)?;
        let sizes = dnnc::combinations(model.inputs(), &self.dims()?, options)?;
        for name in &sizes.assumed {
            eprintln!("note: dimension {name} is not given; compiled for 1 (--dim sets it)");
        }
        Ok((model, sizes))
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
    let (name, sizes) = text.rsplit_once('=').ok_or("write NAME=SIZE, e.g. batch=4")?;
    Ok((name.to_string(), dnnc::parse_sizes(sizes)?))
}

/// A C identifier for a model: the stem of its file, other characters as `_`.
fn identifier(path: &Path) -> String {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let mut name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert_str(0, "model_");
    }
    name
}

/// Bytes for a person: `12.3 kB`.
fn bytes(n: usize) -> String {
    match n {
        0..=9_999 => format!("{n} B"),
        10_000..=9_999_999 => format!("{:.1} kB", n as f64 / 1e3),
        _ => format!("{:.1} MB", n as f64 / 1e6),
    }
}

/// A count for a person: `12.5 M`.
fn count(n: u64) -> String {
    match n {
        0..=9_999 => format!("{n}"),
        10_000..=9_999_999 => format!("{:.1} k", n as f64 / 1e3),
        _ => format!("{:.1} M", n as f64 / 1e6),
    }
}

fn print_json(value: &serde_json::Value) {
    say!("{}", serde_json::to_string_pretty(value).expect("a JSON value can be written"));
}

fn table(header: &[&str]) -> comfy_table::Table {
    let mut t = comfy_table::Table::new();
    t.load_preset(comfy_table::presets::NOTHING).set_header(header.iter().copied());
    t
}

/// Reads a model for the JIT, with a progress bar when it takes long.
fn jit_model(path: &Path, options: &Options) -> Result<Model, Error> {
    dnnc::compile(path, options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn names_become_identifiers() {
        assert_eq!(identifier(Path::new("/a/kws-dscnn.int8.onnx")), "kws_dscnn_int8");
        assert_eq!(identifier(Path::new("3d.onnx")), "model_3d");
    }
}
