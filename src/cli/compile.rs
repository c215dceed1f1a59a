use super::{Building, bytes, identifier, print_json};
use clap::{Args, ValueEnum};
use dnnc::Error;
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
        let (model, shapes) = self.building.bound(path, &options)?;
        let object = super::progress::while_doing("compiling", || dnnc::object(&model, &shapes, &name, &options))?;
        // Everything is made before anything is written: nothing is left half done.
        let mut files: Vec<(Option<PathBuf>, Vec<u8>)> = vec![];
        for kind in wanted {
            let (extension, data) = match kind {
                Emit::Obj => ("", object.bytes.clone()),
                Emit::Header => ("h", object.header.clone().into_bytes()),
                Emit::Asm => ("s", object.assembly(&options)?.into_bytes()),
                Emit::Clif => ("clif", object.clif(&options)?.into_bytes()),
                Emit::Kir => ("kir", object.kir().into_bytes()),
                Emit::Ir => ("ir", object.built.graph.to_string().into_bytes()),
                Emit::Dot => ("dot", object.dot().into_bytes()),
            };
            let path = self.output.as_ref().map(|o| if extension.is_empty() { o.clone() } else { o.with_extension(extension) });
            files.push((path, data));
        }
        let named: Vec<(&Path, &[u8])> = files.iter().filter_map(|(path, data)| Some((path.as_deref()?, &data[..]))).collect();
        if let Some((path, _)) = named.iter().find(|(p, _)| same_file(p, path)) {
            return Err(Error::Usage(format!("{}: the model itself would be written over", path.display())));
        }
        dnnc::files::write_all(&named)?;
        files.iter().filter(|(path, _)| path.is_none()).for_each(|(_, data)| say!("{}", String::from_utf8_lossy(data).trim_end()));
        let Some(output) = &self.output else { return Ok(()) };
        let sizes = object.sizes();
        if self.json {
            print_json(&serde_json::json!({
                "object": output, "header": output.with_extension("h"), "name": name, "target": options.target.name,
                "object_bytes": object.bytes.len(), "code_bytes": sizes.code, "weight_bytes": sizes.weights, "arena_bytes": sizes.arena,
            }));
        } else {
            say!(
                "{} ({}) for {}: code {}, weights {}, arena {}",
                output.display(),
                bytes(object.bytes.len()),
                options.target.name,
                bytes(sizes.code),
                bytes(sizes.weights),
                bytes(sizes.arena)
            );
        }
        Ok(())
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
