//! Malformed models: each is refused with a message that names the defect, or accepted where it is only unusual; nothing panics, hangs or takes
//! much memory.

mod attempt;
mod cases;
mod commands;
mod files;
#[path = "../../fuzz/src/hostile.rs"]
#[allow(dead_code)]
mod hostile;
mod sweep;
mod text;
