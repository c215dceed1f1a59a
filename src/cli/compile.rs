use super::{Building, bytes, identifier, print_json};
use clap::{Args, ValueEnum};
use dnnc::{Built, Error, Footprint, Options, Sizes};
use std::path::{Path, PathBuf};

/// Compile a model to an object file, a C header beside it
#[derive(Args)]
pub struct Compile {
    /// The model
    #[arg(required = true)]
    model: Option<PathBuf>, // absent when there is a subcommand
    /// The object file; the header lies beside it with the extension .h
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Prefix of the symbols [default: the name of the model's file]
    #[arg(long)]
    name: Option<String>,
    /// What to write; `obj` and `header` are the default, the others go beside the object file, or to standard output without -o
    #[arg(long, value_enum, value_delimiter = ',')]
    emit: Vec<Emit>,
    /// Threads that work is cut for; the caller brings them
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    building: Building,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Emit {
    /// The object file
    Obj,
    /// The C header
    Header,
    /// Disassembly of the kernels
    Asm,
    /// Cranelift's input of the kernels that it compiles
    Clif,
    /// The kernels in the kernel IR
    Kir,
    /// The graph after rewriting
    Ir,
    /// The graph after rewriting, for Graphviz
    Dot,
}

impl Compile {
    pub fn run(self) -> Result<(), Error> {
        let options = self.building.options(self.threads)?;
        let Some(path) = &self.model else { return Err(Error::Usage("MODEL is missing".into())) };
        let name = match &self.name {
            Some(name) if identifier(Path::new(name)) == *name => name.clone(),
            Some(name) => return Err(Error::Usage(format!("--name {name}: not a C identifier"))),
            None => identifier(path),
        };
        let wanted = if self.emit.is_empty() { vec![Emit::Obj, Emit::Header] } else { self.emit.clone() };
        if self.output.is_none() && wanted.iter().any(|e| matches!(e, Emit::Obj | Emit::Header)) {
            return Err(Error::Usage(format!("-o FILE is missing: where to write the object file, e.g. -o {name}.o")));
        }
        let (model, sizes) = self.building.bound(path, &options)?;
        let made = super::progress::while_doing("compiling", || Made::new(&model, &sizes, &name, &options, &wanted))?;
        // Everything is made before anything is written: nothing is left half done.
        let mut files: Vec<(Option<PathBuf>, &[u8])> = vec![];
        for (kind, data) in wanted.iter().zip(&made.files) {
            let path = self.output.as_ref().map(|o| kind.extension().map_or_else(|| o.clone(), |e| o.with_extension(e)));
            files.push((path, data));
        }
        let named: Vec<(&Path, &[u8])> = files.iter().filter_map(|(path, data)| Some((path.as_deref()?, &data[..]))).collect();
        if let Some((path, _)) = named.iter().find(|(p, _)| same_file(p, path)) {
            return Err(Error::Usage(format!("{}: the model itself would be written over", path.display())));
        }
        dnnc::files::write_all(&named)?;
        files.iter().filter(|(path, _)| path.is_none()).for_each(|(_, data)| say!("{}", String::from_utf8_lossy(data).trim_end()));
        let Some(output) = &self.output else { return Ok(()) };
        let Footprint { code, weights, arena } = made.footprint;
        if self.json {
            print_json(&serde_json::json!({
                "object": output, "header": output.with_extension("h"), "name": name, "target": options.target.name,
                "object_bytes": made.object_bytes, "code_bytes": code, "weight_bytes": weights, "arena_bytes": arena,
                "variants": made.variants,
            }));
        } else {
            let (variants, largest) = match made.variants.len() {
                0 => (String::new(), ""),
                n => (format!(", {n} combinations of sizes"), " at most"),
            };
            say!(
                "{} ({}) for {}{variants}: code {}, weights {}, arena {}{largest}",
                output.display(),
                bytes(made.object_bytes),
                options.target.name,
                bytes(code),
                bytes(weights),
                bytes(arena)
            );
        }
        Ok(())
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// What was compiled, before anything of it is written.
struct Made {
    /// Contents of the files that are wanted, in their order.
    files: Vec<Vec<u8>>,
    object_bytes: usize,
    footprint: Footprint,
    /// What each combination of sizes takes; nothing when there is only one.
    variants: Vec<serde_json::Value>,
}

impl Made {
    fn new(model: &dnnc::frontend::Model, sizes: &Sizes, name: &str, options: &Options, wanted: &[Emit]) -> Result<Made, Error> {
        let mut files: Vec<Vec<u8>> = vec![vec![]; wanted.len()];
        if sizes.open.is_empty() {
            let object = dnnc::object(model, &sizes.shapes[0], name, options)?;
            let footprint = object.footprint();
            for (kind, file) in wanted.iter().zip(&mut files) {
                *file = match kind {
                    Emit::Obj => object.bytes.clone(),
                    Emit::Header => object.header.clone().into_bytes(),
                    inside => inside.text(&object.built, options)?.into_bytes(),
                };
            }
            return Ok(Made { files, object_bytes: object.bytes.len(), footprint, variants: vec![] });
        }
        let mut variants = vec![];
        let object = dnnc::object_variants(model, sizes, name, options, |variant, _, built| {
            variants.push(serde_json::json!({
                "dims": sizes.of(variant), "shapes": sizes.shapes[variant], "arena_bytes": built.program.arena_bytes,
            }));
            for (kind, file) in wanted.iter().zip(&mut files) {
                if !matches!(kind, Emit::Obj | Emit::Header) {
                    let text = kind.text(built, options)?;
                    file.extend(format!("{} {}\n{text}\n", kind.comment(), sizes.label(variant)).into_bytes());
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
        Ok(Made { files, object_bytes: object.bytes.len(), footprint: object.footprint, variants })
    }
}

impl Emit {
    /// Of the file; the object has the name that the user gave.
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

    /// What begins a line that is no part of the text.
    fn comment(self) -> &'static str {
        match self {
            Emit::Dot => "//",
            Emit::Asm => "#",
            _ => ";",
        }
    }

    /// The network from inside.
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
