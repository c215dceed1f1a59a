//! Errors, as sentences for a person who knows the model and not the compiler.

use dnnc_codegen::lower::LowerError;
use dnnc_frontend::Refusals;
use std::path::PathBuf;

/// An error of dnnc.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model cannot be compiled: it is damaged, or uses an unsupported feature.
    #[error("{0}")]
    Refused(#[from] Refusals),
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Inputs, dimensions or options that do not fit the model.
    #[error("{0}")]
    Usage(String),
    /// A node cannot be lowered.
    #[error("{0}")]
    Lower(#[from] LowerError),
    /// A defect of the compiler.
    #[error("{0}; please report this model")]
    Internal(String),
    /// The network stopped at run time because of its data.
    #[error("{0}")]
    Run(String),
}

impl Error {
    /// A file error.
    pub(crate) fn file(path: impl Into<PathBuf>, source: std::io::Error) -> Error {
        Error::File { path: path.into(), source }
    }
}
