//! Files are written as a whole or not at all.

use crate::Error;
use std::path::{Path, PathBuf};

/// Writes a file as a whole or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_all(&[(path, bytes)])
}

/// Writes all files or none: each beside its place first, then all into their places.
pub fn write_all(files: &[(&Path, &[u8])]) -> Result<(), Error> {
    let mut beside: Vec<(PathBuf, &Path)> = vec![];
    let done = files.iter().try_for_each(|&(path, bytes)| {
        let failed = |e| Error::file(path, e);
        // What is no plain file (a pipe, `/dev/stdout`) is written to as it is; a folder says that it is one.
        if path.metadata().is_ok_and(|m| !m.is_file()) {
            return std::fs::write(path, bytes).map_err(failed);
        }
        let mut part = path.to_path_buf().into_os_string();
        part.push(format!(".{}.part", std::process::id()));
        beside.push((part.into(), path));
        std::fs::write(&beside[beside.len() - 1].0, bytes).map_err(failed)
    });
    let done =
        done.and_then(|()| beside.iter().try_for_each(|(part, path)| std::fs::rename(part, path).map_err(|e| Error::file(*path, e))));
    if done.is_err() {
        for (part, _) in &beside {
            let _ = std::fs::remove_file(part);
        }
    }
    done
}
