//! Atomic writes: a file is written completely or not at all.

use crate::Error;
use std::io::Write;
use std::path::Path;
use tempfile::NamedTempFile;

/// Writes a file completely or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_all(&[(path, bytes)])
}

/// Writes all files or none: each to a temporary file in its folder first; then all are renamed.
pub fn write_all(files: &[(&Path, &[u8])]) -> Result<(), Error> {
    let mut written: Vec<(NamedTempFile, &Path)> = vec![];
    for &(path, bytes) in files {
        let failed = |e| Error::file(path, e);
        // A pipe or `/dev/stdout` is written to directly; for a folder this gives the error that it is one.
        if path.metadata().is_ok_and(|m| !m.is_file()) {
            std::fs::write(path, bytes).map_err(failed)?;
            continue;
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = temporary().tempfile_in(folder).map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        written.push((file, path));
    }
    written.into_iter().try_for_each(|(file, path)| file.persist(path).map(|_| ()).map_err(|e| Error::file(path, e.error)))
}

/// Temporary files with the permissions of ordinary ones: the process's umask decides.
fn temporary() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_written_or_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        write(&path("a"), b"old").expect("written");
        let missing = path("missing/b");
        let error = write_all(&[(&path("a"), b"new"), (&missing, b"new")]).expect_err("the folder is missing");
        assert!(error.to_string().starts_with(&missing.display().to_string()), "{error}");
        assert_eq!(std::fs::read(path("a")).expect("it is there"), b"old");
        write_all(&[(&path("a"), b"new"), (&path("b"), b"new")]).expect("written");
        assert_eq!(std::fs::read(path("b")).expect("it is there"), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 2, "no temporary file is left");
    }
}
