//! Packs: several models compiled into one file, which `dnnc_runtime::pack` maps and runs.

use crate::pipeline::{Options, build};
use crate::{Error, Tensor, TensorType, Type, files, samples};
use dnnc_emit::object::Pack as Programs;
use dnnc_emit::{header, image};
use dnnc_frontend::{Model, Stage};
use dnnc_kir::program::{Program, calls};
use dnnc_runtime::pack::file::{Arena, Pack, PackError};
use dnnc_runtime::pack::format::{self, Contents, Entry, PAGE, Port, Rating};
use dnnc_runtime::pool::Pool;
use dnnc_targets::Target;
use serde::Deserialize;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A model to be packed.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its file.
    pub path: PathBuf,
    /// Its name in the pack.
    pub name: String,
    /// The name that all variants of a model share.
    pub model: String,
    /// What a catalogue says of it.
    pub rating: Option<Rating>,
}

/// A catalogue as JSON: `{"variants": [{"file": "a.onnx", "model": "dogs", "accuracy": 0.8, "ms": 4.1}, …]}`, files relative to it.
#[derive(Deserialize)]
struct Catalogue {
    variants: Vec<CatalogueRow>,
}

#[derive(Deserialize)]
struct CatalogueRow {
    file: PathBuf,
    model: String,
    #[serde(flatten)]
    rating: Rating,
}

/// Names for model files: that of the file, or of its folder where the file is only called `model`; a number is added to those that are there already.
pub fn sources(paths: &[PathBuf], catalogue: Option<&Path>) -> Result<Vec<Source>, Error> {
    let mut rows: Vec<(PathBuf, Option<String>, Option<Rating>)> = paths.iter().map(|p| (p.clone(), None, None)).collect();
    if let Some(path) = catalogue {
        let text = std::fs::read(path).map_err(|e| Error::file(path, e))?;
        let read: Catalogue = serde_json::from_slice(&text).map_err(|e| Error::Usage(format!("{}: {e}", path.display())))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for row in read.variants {
            let r = row.rating;
            if ![r.ms, r.joules].iter().all(|n| (0.0..f64::INFINITY).contains(n)) || !(0.0..=1.0).contains(&r.accuracy) {
                let file = row.file.display();
                return Err(Error::Usage(format!("{}: `{file}`: accuracy is 0 to 1, ms and joules are not negative", path.display())));
            }
            rows.push((folder.join(row.file), Some(row.model), Some(r)));
        }
    }
    let mut taken = HashSet::new();
    let mut out = vec![];
    for (path, model, rating) in rows {
        let stem = |p: &Path| p.file_stem().map(|s| s.to_string_lossy().into_owned());
        let folder = || path.parent().and_then(|p| p.file_name()).map(|s| s.to_string_lossy().into_owned());
        let plain = stem(&path).filter(|s| s != "model").or_else(folder).unwrap_or_else(|| "model".into());
        let mut name = plain.clone();
        for n in 2.. {
            if taken.insert(name.clone()) {
                break;
            }
            name = format!("{plain}-{n}");
        }
        out.push(Source { path, model: model.unwrap_or_else(|| name.clone()), name, rating });
    }
    Ok(out)
}

/// A pack as it was made.
pub struct Packed {
    /// The file: a pack, or an object.
    pub bytes: Vec<u8>,
    /// The C header of an object; empty for a pack.
    pub header: String,
    /// Name, bytes of constants and arena of each model.
    pub models: Vec<(String, usize, usize)>,
    /// Bytes of the constants of all models, equal ones counted as often as they are used.
    pub constants: usize,
    /// Bytes of constants that are stored.
    pub stored: usize,
    /// Bytes of machine code.
    pub code: usize,
}

/// Compiles models into a pack of native code, or into an object with a header for all of them. `shapes` binds the dimensions of a model; `each` is told the name of a model before it is
/// compiled.
pub fn pack(
    sources: &[Source],
    options: &Options,
    ram: u64,
    as_object: Option<&str>,
    shapes: impl Fn(&Model) -> Result<Vec<Vec<usize>>, Error>,
    each: impl Fn(&str),
) -> Result<Packed, Error> {
    let mut programs = Programs::new(options.target);
    let (mut kept, mut names, mut all): (Vec<Program>, Vec<String>, usize) = Default::default();
    let mut models = vec![];
    for (i, source) in sources.iter().enumerate() {
        each(&source.name);
        let named = |e: Error| Error::Usage(format!("{}: {e}", source.path.display()));
        let model = Model::load(&source.path, &options.limits)?;
        let Stage { graph, cut: None, .. } = model.specialise(&shapes(&model).map_err(named)?)? else {
            return Err(Error::Usage(format!("{}: a shape depends on data: such a model cannot be in a pack", source.path.display())));
        };
        drop(model);
        let symbol = if as_object.is_some() { identifier(&source.name) } else { format!("m{i}") };
        let mut program = build(&graph, &symbol, options).map_err(named)?.program;
        programs.add_model(&program, PAGE).map_err(Error::Internal)?;
        let weights: usize = program.constants.iter().map(Vec::len).sum();
        all += weights;
        models.push((source.name.clone(), weights, program.arena_bytes));
        if names.contains(&symbol) {
            return Err(Error::Usage(format!("two models of the pack have the C name `{symbol}`; rename a file")));
        }
        names.push(symbol);
        program.kernels.clear();
        program.constants = vec![];
        kept.push(program);
    }
    let list: Vec<&Program> = kept.iter().collect();
    let linkable = programs.finish_models(&names, &list).map_err(Error::Internal)?;
    if let Some(name) = as_object {
        let header = header::write_pack(name, &list, linkable.weight_bytes, options.target);
        let (stored, code) = (linkable.weight_bytes, linkable.code_bytes);
        return Ok(Packed { bytes: linkable.object, header, models, constants: all, stored, code });
    }
    let image = image::link(&linkable, PAGE, PAGE).map_err(Error::Usage)?;
    let data_at = (PAGE + image.text.len()).next_multiple_of(PAGE);
    let entries = sources.iter().zip(&kept).zip(&image.entries).map(|((source, program), entry)| Entry {
        name: source.name.clone(),
        model: source.model.clone(),
        run: PAGE + entry.run,
        parallel: PAGE + entry.parallel,
        arena: program.arena_bytes,
        inputs: program.inputs.iter().map(port).collect(),
        outputs: program.outputs.iter().map(port).collect(),
        constants: ranges(&entry.constants, data_at),
        ns: calls(&program.steps).iter().map(|c| c.ns).sum(),
        rating: source.rating,
    });
    let contents = Contents {
        target: options.target.triple.to_string(),
        features: options.target.features.iter().map(|f| f.name().to_string()).collect(),
        ram,
        models: entries.collect(),
        groups: vec![],
    };
    let bytes = format::write(contents, &image.text, &image.data);
    Ok(Packed { bytes, header: String::new(), models, constants: all, stored: linkable.weight_bytes, code: image.text.len() })
}

/// A C identifier.
fn identifier(name: &str) -> String {
    let mut out: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if out.is_empty() || out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert_str(0, "model_");
    }
    out
}

fn port((name, ty): &(String, TensorType)) -> Port {
    Port { name: name.clone(), ty: ty.ty.name().to_string(), shape: ty.shape.clone(), bytes: ty.bytes() }
}

/// Pieces of data as few ranges of the file: those less than a page apart are one.
fn ranges(constants: &[(usize, usize)], data_at: usize) -> Vec<(usize, usize)> {
    let mut pieces: Vec<(usize, usize)> = constants.iter().map(|&(at, len)| (data_at + at, data_at + at + len)).collect();
    pieces.sort_unstable();
    let mut out: Vec<(usize, usize)> = vec![];
    for (a, b) in pieces {
        match out.last_mut() {
            Some(last) if a < last.1 + PAGE => last.1 = last.1.max(b),
            _ => out.push((a, b)),
        }
    }
    out
}

impl From<PackError> for Error {
    fn from(e: PackError) -> Error {
        match e {
            PackError::Status(_) => Error::Run(e.to_string()),
            PackError::Refused(text) | PackError::Usage(text) => Error::Usage(text),
        }
    }
}

/// Whether a file begins as a pack does.
pub fn is_pack(path: &Path) -> bool {
    use std::io::Read;
    let mut begin = [0u8; 8];
    path.is_file() && std::fs::File::open(path).and_then(|mut f| f.read_exact(&mut begin)).is_ok() && format::is_pack(&begin)
}

/// Opens a pack that this machine can run.
pub fn open(path: &Path) -> Result<Pack, Error> {
    let native = dnnc_targets::native();
    let supports = |triple: &str, features: &[String]| {
        let list: Vec<String> = features.iter().map(|f| format!("+{f}")).collect();
        let same = dnnc_targets::find(triple).is_some_and(|t: &Target| t.arch() == native.arch());
        if same && (list.is_empty() || native.with_features(&list.join(",")).is_ok_and(|t| t.features == native.features)) {
            return Ok(());
        }
        Err(format!("the pack was made for {triple} with {}; this machine is {}", features.join(" "), native.name))
    };
    Ok(Pack::open(path, supports)?)
}

/// The type of an input or result of a pack.
fn type_of(port: &Port) -> Result<TensorType, Error> {
    let ty = Type::parse(&port.ty).map(|ty| TensorType::new(ty, port.shape.clone())).filter(|t| t.bytes() == port.bytes);
    ty.ok_or_else(|| Error::Usage(format!("`{}` of the pack has a type that is not known: {}", port.name, port.ty)))
}

/// Made-up inputs of a model of a pack, those that [`sample_inputs`](crate::sample_inputs) gives for the model.
pub fn sample_inputs(entry: &Entry) -> Result<Vec<Tensor>, Error> {
    entry.inputs.iter().enumerate().map(|(i, p)| Ok(samples::sample(&type_of(p)?, i as u64 + 1))).collect()
}

/// The inputs of a model of a pack, as ports of a model.
pub fn ports(list: &[Port]) -> Result<Vec<crate::Port>, Error> {
    let port = |p: &Port| {
        let ty = type_of(p)?;
        let dims = Some(ty.shape.iter().map(|&n| crate::Dim::Known(n)).collect());
        Ok(crate::Port { name: p.name.clone(), ty: Some(ty.ty), dims })
    };
    list.iter().map(port).collect()
}

/// Runs a model of a pack.
pub fn run(pack: &Pack, number: usize, inputs: &[Tensor], arena: &mut Arena, pool: Option<&Pool>) -> Result<Vec<Tensor>, Error> {
    let entry = pack.model(number);
    let types: Vec<TensorType> = entry.inputs.iter().map(type_of).collect::<Result<_, _>>()?;
    if inputs.len() != types.len() || inputs.iter().zip(&types).any(|(t, ty)| t.ty() != ty) {
        let want: Vec<String> = entry.inputs.iter().zip(&types).map(|(p, t)| format!("`{}` ({t})", p.name)).collect();
        return Err(Error::Usage(format!("`{}` takes {}", entry.name, want.join(", "))));
    }
    let bytes: Vec<&[u8]> = inputs.iter().map(|t| t.bytes()).collect();
    let mut results: Vec<Vec<u8>> = entry.outputs.iter().map(|p| vec![0; p.bytes]).collect();
    let mut slices: Vec<&mut [u8]> = results.iter_mut().map(|r| r.as_mut_slice()).collect();
    pack.run(number, &bytes, &mut slices, arena, pool)?;
    let tensor = |(p, bytes): (&Port, &Vec<u8>)| {
        Tensor::from_bytes(type_of(p)?, bytes).ok_or_else(|| Error::Internal(format!("result `{}` has {} bytes", p.name, bytes.len())))
    };
    entry.outputs.iter().zip(&results).map(tensor).collect()
}

/// Writes a pack, or an object and its header, completely or not at all.
pub fn save(packed: &Packed, path: &Path) -> Result<(), Error> {
    if packed.header.is_empty() {
        return files::write(path, &packed.bytes);
    }
    files::write_all(&[(path, &packed.bytes), (&path.with_extension("h"), packed.header.as_bytes())])
}
