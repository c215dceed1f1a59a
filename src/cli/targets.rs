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
    features: Vec<&'static str>,
    vector_bits: usize,
    /// The widest vectors that the machine has; code is made for those of `vector_bits`.
    widest_bits: usize,
    mask_registers: usize,
    vector_registers: usize,
    fma: bool,
    dot_u8s8: bool,
    dot_s8s8: bool,
    fp16: bool,
    tile_rows: usize,
    tile_bytes: usize,
    l1d_bytes: usize,
    l2_bytes: usize,
    l3_bytes: usize,
    peak_gmacs: f64,
    mhz: usize,
    memory_mb_s: usize,
    source: &'static str,
}

impl Row {
    /// The vectors that code is made for, and what the machine has beyond them.
    fn vectors(&self) -> String {
        let mut text = format!("{} × {} bits", self.vector_registers, self.vector_bits);
        let facts =
            [(self.fma, "fma"), (self.dot_u8s8, "u8·s8"), (self.dot_s8s8, "s8·s8"), (self.fp16, "f16"), (self.tile_rows > 0, "tiles")];
        if self.widest_bits > self.vector_bits {
            text += &format!(" of {}", self.widest_bits);
        }
        facts.iter().filter(|f| f.0).for_each(|f| text += &format!(", {}", f.1));
        text
    }
}

impl Targets {
    pub fn run(self) -> Result<ExitCode, Error> {
        let native = dnnc::targets::native();
        let row = |t: &'static dnnc::Target| Row {
            name: t.name,
            aliases: t.aliases,
            triple: t.triple,
            native: t.name == native.name,
            features: t.features.iter().map(|f| f.name()).collect(),
            vector_bits: t.vector.bits,
            widest_bits: t.widest().bits,
            mask_registers: t.widest().masks,
            vector_registers: t.vector.registers,
            fma: t.vector.fma,
            dot_u8s8: t.widest().dot.u8s8,
            dot_s8s8: t.widest().dot.s8s8,
            fp16: t.fp16(),
            tile_rows: t.tiles().map_or(0, |x| x.rows),
            tile_bytes: t.tiles().map_or(0, |x| x.bytes),
            l1d_bytes: t.l1d,
            l2_bytes: t.l2,
            l3_bytes: t.l3,
            peak_gmacs: t.peak_macs() / 1e9,
            mhz: t.mhz,
            memory_mb_s: t.memory_mb_s,
            source: t.source,
        };
        let rows: Vec<Row> = std::iter::once(native).chain(dnnc::targets::all()).map(row).collect();
        if self.json {
            print_json(&rows);
            return Ok(ExitCode::SUCCESS);
        }
        let mut out = table(&["target", "triple", "vectors", "L1d", "L2", "L3", "also called"]);
        for r in &rows {
            out.add_row([
                r.name.to_string(),
                r.triple.to_string(),
                r.vectors(),
                bytes(r.l1d_bytes),
                bytes(r.l2_bytes),
                bytes(r.l3_bytes),
                r.aliases.join(", "),
            ]);
        }
        outln!("{out}");
        outln!("native: {}; {} cores\nfeatures: {}", native.source, native.cores, native.features);
        Ok(ExitCode::SUCCESS)
    }
}
