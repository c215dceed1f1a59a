//! Packs: several compiled models in one file that is mapped into memory ([`mod@file`]), and the executor that reads the constants of one model while
//! another computes ([`executor`]).

pub mod executor;
pub mod file;
pub mod format;
