//! `dnnc targets`: the machines that dnnc has records of.

use super::output::{bytes, outln, print_json, table};
use clap::Args;
use dnnc::Error;
use serde::Serialize;
use std::process::ExitCode;

/// List the machines that dnnc can compile for
#[derive(Args)]
pub struct Targets {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One machine.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    aliases: &'static [&'static str],
    triple: &'static str,
    native: bool,
    vector_bits: usize,
    vector_registers: usize,
    fma: bool,
    l1d_bytes: usize,
    l2_bytes: usize,
    l3_bytes: usize,
    peak_gmacs: f64,
}

impl Targets {
    pub fn run(self) -> Result<ExitCode, Error> {
        let native = dnnc::targets::native();
        let row = |t: &&'static dnnc::Target| Row {
            name: t.name,
            aliases: t.aliases,
            triple: t.triple,
            native: t.name == native.name,
            vector_bits: t.vector.bits,
            vector_registers: t.vector.registers,
            fma: t.vector.fma,
            l1d_bytes: t.l1d,
            l2_bytes: t.l2,
            l3_bytes: t.l3,
            peak_gmacs: t.peak_macs() / 1e9,
        };
        let rows: Vec<Row> = dnnc::targets::all().iter().map(row).collect();
        if self.json {
            print_json(&rows);
            return Ok(ExitCode::SUCCESS);
        }
        let mut out = table(&["target", "triple", "vectors", "L1d", "L2", "L3", "also called"]);
        for r in rows {
            out.add_row([
                format!("{}{}", r.name, if r.native { " (this machine)" } else { "" }),
                r.triple.to_string(),
                format!("{} × {} bits{}", r.vector_registers, r.vector_bits, if r.fma { ", fma" } else { "" }),
                bytes(r.l1d_bytes),
                bytes(r.l2_bytes),
                bytes(r.l3_bytes),
                r.aliases.join(", "),
            ]);
        }
        outln!("{out}");
        Ok(ExitCode::SUCCESS)
    }
}
