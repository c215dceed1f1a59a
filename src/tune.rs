//! Measured times of algorithms, remembered in a cache directory from one compilation to the next.

use crate::Error;
use dnnc_codegen::choice::Tuner;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Nanoseconds by algorithm.
type Times = BTreeMap<String, f64>;

/// A tuner whose measurements lie in `tune.json` of a directory.
#[derive(Debug)]
pub struct TuneCache {
    file: PathBuf,
    known: Mutex<BTreeMap<String, Times>>,
}

impl TuneCache {
    /// Opens the cache of a directory, which is made when something is first measured; an error when its file is not one of ours.
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

    /// Where measurements are kept when the user names no place: `dnnc` in `$XDG_CACHE_HOME` or `~/.cache`.
    pub fn default_directory() -> Option<PathBuf> {
        let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))).map(|d| d.join("dnnc"))
    }

    /// Writes beside the file and renames: a reader sees the old or the new one.
    fn save(&self, known: &BTreeMap<String, Times>) -> std::io::Result<()> {
        if let Some(directory) = self.file.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let beside = self.file.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&beside, serde_json::to_vec_pretty(known)?)?;
        std::fs::rename(&beside, &self.file)
    }
}

impl Tuner for TuneCache {
    fn times(&self, key: &str, names: &[&str], measure: &mut dyn FnMut(usize) -> Result<f64, String>) -> Result<Vec<f64>, String> {
        let mut known = self.known.lock().map_err(|_| "another measurement failed")?;
        let times = known.entry(key.to_string()).or_default();
        let before = times.len();
        let mut out = vec![];
        for (i, name) in names.iter().enumerate() {
            let ns = match times.get(*name) {
                Some(&ns) => ns,
                None => measure(i)?,
            };
            times.insert(name.to_string(), ns);
            out.push(ns);
        }
        if times.len() > before {
            self.save(&known).map_err(|e| format!("{}: {e}", self.file.display()))?;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_once_and_remembers_across_openings() {
        let directory = std::env::temp_dir().join(format!("dnnc-tune-{}", std::process::id()));
        let mut measured = vec![];
        for _ in 0..2 {
            let cache = TuneCache::open(&directory).expect("a new or a good file");
            let times = cache.times("conv", &["direct", "winograd"], &mut |i| {
                measured.push(i);
                Ok([2.0, 1.0][i])
            });
            assert_eq!(times, Ok(vec![2.0, 1.0]));
        }
        assert_eq!(measured, [0, 1]);
        std::fs::write(directory.join("tune.json"), "{").expect("a file in the new directory");
        let error = TuneCache::open(&directory).expect_err("the file is damaged").to_string();
        assert!(error.contains("tune.json is damaged"), "{error}");
        std::fs::remove_dir_all(&directory).expect("the directory is ours");
    }
}
