//! What can go wrong, as sentences for a person who knows the model and not our code.

use dnnc_codegen::lower::LowerError;
use dnnc_frontend::Refusals;
use std::path::PathBuf;

/// An error of dnnc.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model cannot be compiled: it is damaged, or uses what is not supported.
    #[error("{0}")]
    Refused(#[from] Refusals),
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Inputs, sizes or options that do not fit the model.
    #[error("{0}")]
    Usage(String),
    /// No code can be made for a node.
    #[error("{0}")]
    Lower(#[from] LowerError),
    /// Something between the graph and machine code failed; a defect of dnnc.
    #[error("{0}; please report this model")]
    Internal(String),
    /// The network ran and met data it cannot take.
    #[error("{0}")]
    Run(String),
}

impl Error {
    /// A file error.
    pub(crate) fn file(path: impl Into<PathBuf>, source: std::io::Error) -> Error {
        Error::File { path: path.into(), source }
    }
}
