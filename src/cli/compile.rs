//! The command without a name: a model to an object file and a C header.

use super::flags::CompileFlags;
use super::output::{bytes, outln, print_json};
use super::progress;
use clap::{Args, ValueEnum};
use dnnc::{Built, Error, Footprint, InputShapes, Options};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Compile a model to an object file and a C header
#[derive(Args)]
pub struct Compile {
    /// The model
    #[arg(required = true)]
    model: Option<PathBuf>, // absent when there is a subcommand
    /// The object file; the header is written next to it, with the extension .h
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Prefix of the symbols [default: the name of the model's file]
    #[arg(long)]
    name: Option<String>,
    /// What to write: by default `obj` and `header`. Files get the name of the object file; without -o, text is printed
    #[arg(long, value_enum, value_delimiter = ',')]
    emit: Vec<Emit>,
    /// Print a summary as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileFlags,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Emit {
    /// The object file
    Obj,
    /// The C header
    Header,
    /// Disassembly of the kernels
    Asm,
    /// Cranelift IR of the kernels that Cranelift compiles
    Clif,
    /// The kernels in dnnc's kernel IR
    Kir,
    /// The graph after rewriting
    Ir,
    /// The graph after rewriting, for Graphviz
    Dot,
}

impl Compile {
    pub fn run(self) -> Result<ExitCode, Error> {
        let options = self.compile.options()?;
        let Some(path) = &self.model else { return Err(Error::Usage("MODEL is missing".into())) };
        let name = match &self.name {
            Some(name) if identifier(Path::new(name)) == *name => name.clone(),
            Some(name) => return Err(Error::Usage(format!("--name {name}: not a C identifier"))),
            None => identifier(path),
        };
        let wanted = if self.emit.is_empty() { vec![Emit::Obj, Emit::Header] } else { self.emit.clone() };
        if self.output.is_none() && wanted.iter().any(|e| matches!(e, Emit::Obj | Emit::Header)) {
            return Err(Error::Usage(format!("-o FILE is missing: the object file to write, e.g. -o {name}.o")));
        }
        let (model, inputs) = self.compile.load(path, &options)?;
        let made = progress::with_spinner("compiling", || Compiled::new(&model, &inputs, &name, &options, &wanted))?;
        let mut files: Vec<(Option<PathBuf>, &[u8])> = vec![];
        for (kind, data) in wanted.iter().zip(&made.files) {
            let path = self.output.as_ref().map(|o| kind.extension().map_or_else(|| o.clone(), |e| o.with_extension(e)));
            files.push((path, data));
        }
        let named: Vec<(&Path, &[u8])> = files.iter().filter_map(|(path, data)| Some((path.as_deref()?, &data[..]))).collect();
        if let Some((path, _)) = named.iter().find(|(p, _)| same_file(p, path)) {
            return Err(Error::Usage(format!("{}: the model itself would be overwritten", path.display())));
        }
        dnnc::files::write_all(&named)?;
        files.iter().filter(|(path, _)| path.is_none()).for_each(|(_, data)| outln!("{}", String::from_utf8_lossy(data).trim_end()));
        let Some(output) = self.output else { return Ok(ExitCode::SUCCESS) };
        let Footprint { code, weights, arena } = made.footprint;
        let report = Report {
            header: output.with_extension("h"),
            object: output,
            name,
            target: options.target.name,
            object_bytes: made.object_bytes,
            code_bytes: code,
            weight_bytes: weights,
            arena_bytes: arena,
            variants: made.variants,
        };
        if self.json {
            print_json(&report);
        } else {
            report.print();
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What was written.
#[derive(Serialize)]
struct Report {
    object: PathBuf,
    header: PathBuf,
    name: String,
    target: &'static str,
    object_bytes: usize,
    code_bytes: usize,
    weight_bytes: usize,
    arena_bytes: usize,
    variants: Vec<Variant>,
}

/// One combination of dimensions in an object of several.
#[derive(Serialize)]
struct Variant {
    dims: BTreeMap<String, usize>,
    shapes: Vec<Vec<usize>>,
    arena_bytes: usize,
}

impl Report {
    fn print(&self) {
        let (variants, largest) = match self.variants.len() {
            0 => (String::new(), ""),
            n => (format!(", {n} combinations of dimensions"), " at most"),
        };
        outln!(
            "{} ({}) for {}{variants}: code {}, weights {}, arena {}{largest}",
            self.object.display(),
            bytes(self.object_bytes),
            self.target,
            bytes(self.code_bytes),
            bytes(self.weight_bytes),
            bytes(self.arena_bytes)
        );
    }
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

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// What was compiled, before it is written.
struct Compiled {
    /// Contents of the wanted files, in their order.
    files: Vec<Vec<u8>>,
    object_bytes: usize,
    footprint: Footprint,
    /// The combinations of dimensions; none when there is only one.
    variants: Vec<Variant>,
}

impl Compiled {
    fn new(model: &dnnc::frontend::Model, inputs: &InputShapes, name: &str, options: &Options, wanted: &[Emit]) -> Result<Compiled, Error> {
        let mut files: Vec<Vec<u8>> = vec![vec![]; wanted.len()];
        if inputs.open.is_empty() {
            let object = dnnc::object(model, &inputs.shapes[0], name, options)?;
            let footprint = object.footprint();
            for (kind, file) in wanted.iter().zip(&mut files) {
                *file = match kind {
                    Emit::Obj => object.bytes.clone(),
                    Emit::Header => object.header.clone().into_bytes(),
                    inside => inside.text(&object.built, options)?.into_bytes(),
                };
            }
            return Ok(Compiled { files, object_bytes: object.bytes.len(), footprint, variants: vec![] });
        }
        let mut variants = vec![];
        let object = dnnc::object_variants(model, inputs, name, options, |variant, _, built| {
            let dims = inputs.dims(variant).into_iter().map(|(name, value)| (name.to_string(), value)).collect();
            variants.push(Variant { dims, shapes: inputs.shapes[variant].clone(), arena_bytes: built.program.arena_bytes });
            for (kind, file) in wanted.iter().zip(&mut files) {
                if !matches!(kind, Emit::Obj | Emit::Header) {
                    let text = kind.text(built, options)?;
                    file.extend(format!("{} {}\n{text}\n", kind.comment(), inputs.label(variant)).into_bytes());
                }
            }
            Ok(())
        })?;
        for (kind, file) in wanted.iter().zip(&mut files) {
            match kind {
                Emit::Obj => *file = object.bytes.clone(),
                Emit::Header => *file = object.header.clone().into_bytes(),
                _ => {}
            }
        }
        Ok(Compiled { files, object_bytes: object.bytes.len(), footprint: object.footprint, variants })
    }
}

impl Emit {
    /// The extension of the file; the object has the name that the user gave.
    fn extension(self) -> Option<&'static str> {
        match self {
            Emit::Obj => None,
            Emit::Header => Some("h"),
            Emit::Asm => Some("s"),
            Emit::Clif => Some("clif"),
            Emit::Kir => Some("kir"),
            Emit::Ir => Some("ir"),
            Emit::Dot => Some("dot"),
        }
    }

    /// What begins a comment in the text.
    fn comment(self) -> &'static str {
        match self {
            Emit::Dot => "//",
            Emit::Asm => "#",
            _ => ";",
        }
    }

    /// The text of a stage of the compiler.
    fn text(self, built: &Built, options: &Options) -> Result<String, Error> {
        Ok(match self {
            Emit::Obj | Emit::Header => String::new(),
            Emit::Asm => built.assembly(options.target)?,
            Emit::Clif => built.clif(options.target)?,
            Emit::Kir => built.kir(),
            Emit::Ir => built.graph.to_string(),
            Emit::Dot => built.dot(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_identifiers() {
        assert_eq!(identifier(Path::new("/a/kws-dscnn.int8.onnx")), "kws_dscnn_int8");
        assert_eq!(identifier(Path::new("3d.onnx")), "model_3d");
    }
}
