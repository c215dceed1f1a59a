//! What the subcommands print: lines, tables, JSON, and numbers for people.

use serde::Serialize;

/// Prints a line; ends the program quietly when the reader of its output has closed the pipe (`dnnc ops | head`).
macro_rules! outln {
    ($($arg:tt)*) => {{
        use std::io::Write;
        if writeln!(std::io::stdout(), $($arg)*).is_err() {
            std::process::exit(0);
        }
    }};
}

pub(super) use outln;

/// Prints a report as JSON.
pub fn print_json(report: &impl Serialize) {
    outln!("{}", serde_json::to_string_pretty(report).expect("a report has a JSON form"));
}

/// An empty table with a header.
pub fn table(header: &[&str]) -> comfy_table::Table {
    let mut t = comfy_table::Table::new();
    t.load_preset(comfy_table::presets::NOTHING).set_header(header.iter().copied());
    t
}

/// Bytes for a person: `12.3 kB`.
pub fn bytes(n: usize) -> String {
    match n {
        0..=9_999 => format!("{n} B"),
        10_000..=9_999_999 => format!("{:.1} kB", n as f64 / 1e3),
        _ => format!("{:.1} MB", n as f64 / 1e6),
    }
}

/// A count for a person: `12.5 M`.
pub fn count(n: u64) -> String {
    match n {
        0..=9_999 => format!("{n}"),
        10_000..=9_999_999 => format!("{:.1} k", n as f64 / 1e3),
        _ => format!("{:.1} M", n as f64 / 1e6),
    }
}
