//! Models that are wrong: each is refused with a sentence that names what is wrong, or accepted where it is only odd; nothing panics, hangs or takes
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
