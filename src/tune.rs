//! The tuner: measured times of algorithms, kept in a cache directory from one compilation to the next.

use crate::{Error, files};
use dnnc_codegen::tuner::{Trial, Tuner};
use dnnc_emit::jit::Jit;
use dnnc_ir::{TensorType, Type};
use dnnc_kir::program::Program;
use dnnc_targets::Target;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Nanoseconds by algorithm.
type Times = BTreeMap<String, f64>;

/// A tuner that keeps its measurements in `tune.json` of a directory.
#[derive(Debug)]
pub struct TuneCache {
    file: PathBuf,
    known: Mutex<BTreeMap<String, Times>>,
}

impl TuneCache {
    /// Opens the cache of a directory, which is created when something is first measured; an error when its file is damaged.
    pub fn open(directory: &Path) -> Result<TuneCache, Error> {
        let file = directory.join("tune.json");
        let known = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| Error::Usage(format!("{} is damaged ({e}); delete it to measure anew", file.display())))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(Error::file(&file, e)),
        };
        Ok(TuneCache { file, known: Mutex::new(known) })
    }

    /// The directory used by default: `dnnc` in `$XDG_CACHE_HOME` or `~/.cache`.
    pub fn default_directory() -> Option<PathBuf> {
        let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))).map(|d| d.join("dnnc"))
    }

    fn save(&self, known: &BTreeMap<String, Times>) -> Result<(), Error> {
        if let Some(directory) = self.file.parent() {
            std::fs::create_dir_all(directory).map_err(|e| Error::file(directory, e))?;
        }
        let json = serde_json::to_vec_pretty(known).expect("a map of numbers has a JSON form");
        files::write(&self.file, &json)
    }
}

impl Tuner for TuneCache {
    fn times(&self, trial: &mut Trial) -> Result<Vec<f64>, String> {
        let mut known = self.known.lock().map_err(|_| "another measurement failed")?;
        let times = known.entry(trial.key.to_string()).or_default();
        let before = times.len();
        let mut out = vec![];
        for (i, name) in trial.names.iter().enumerate() {
            let ns = match times.get(*name) {
                Some(&ns) => ns,
                None => measure((trial.program)(i)?, trial.target, trial.threads)?,
            };
            times.insert(name.to_string(), ns);
            out.push(ns);
        }
        if times.len() > before {
            self.save(&known).map_err(|e| e.to_string())?;
        }
        Ok(out)
    }
}

/// The shortest time of many runs of a program in nanoseconds, on inputs that are not zero (zeros for other types than f32).
fn measure(program: Program, target: &Target, threads: usize) -> Result<f64, String> {
    const ENOUGH: Duration = Duration::from_millis(30);
    let fill = |ty: &TensorType| match ty.ty {
        Type::F32 => (0..ty.len()).flat_map(|i| (0.1 * (i % 17) as f32 - 0.85).to_le_bytes()).collect(),
        _ => vec![0u8; ty.bytes()],
    };
    let buffers = |ports: &[(String, TensorType)]| ports.iter().map(|(_, ty)| fill(ty)).collect::<Vec<Vec<u8>>>();
    let (inputs, mut outputs) = (buffers(&program.inputs), buffers(&program.outputs));
    let jit = Jit::new(program, target, threads)?;
    let mut arena = jit.arena();
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let mut outputs: Vec<&mut [u8]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    let mut best = f64::INFINITY;
    let (begin, mut runs) = (Instant::now(), 0);
    while runs < 3 || begin.elapsed() < ENOUGH {
        let start = Instant::now();
        jit.run(&inputs, &mut outputs, &mut arena).map_err(|s| s.to_string())?;
        best = best.min(start.elapsed().as_secs_f64() * 1e9);
        runs += 1;
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Program {
        Program { name: "empty".into(), kernels: vec![], constants: vec![], steps: vec![], inputs: vec![], outputs: vec![], arena_bytes: 0 }
    }

    #[test]
    fn measures_once_and_remembers_across_openings() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let directory = folder.path().join("tune");
        let (mut measured, mut times) = (vec![], vec![]);
        for _ in 0..2 {
            let cache = TuneCache::open(&directory).expect("a new or a good file");
            let mut program = |i: usize| {
                measured.push(i);
                Ok(empty())
            };
            let (names, target) = (["direct", "winograd"], dnnc_targets::native());
            let mut trial = Trial { key: "conv", names: &names, program: &mut program, target, threads: 1 };
            times.push(cache.times(&mut trial).expect("nothing can be run everywhere"));
        }
        assert_eq!(measured, [0, 1]);
        assert_eq!(times[0], times[1]);
        std::fs::write(directory.join("tune.json"), "{").expect("a file in the new directory");
        let error = TuneCache::open(&directory).expect_err("the file is damaged").to_string();
        assert!(error.contains("tune.json is damaged"), "{error}");
    }
}
