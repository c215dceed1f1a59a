use super::{bytes, print_json, table};
use clap::Args;
use dnnc::Error;

/// List the machines that dnnc knows
#[derive(Args)]
pub struct Targets {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Targets {
    pub fn run(self) -> Result<(), Error> {
        let native = dnnc::targets::native();
        if self.json {
            let rows: Vec<serde_json::Value> = dnnc::targets::all()
                .iter()
                .map(|t| {
                    serde_json::json!({
                        "name": t.name, "aliases": t.aliases, "triple": t.triple, "native": t.name == native.name,
                        "vector_bits": t.vector.bits, "vector_registers": t.vector.registers, "fma": t.vector.fma,
                        "l1d_bytes": t.l1d, "l2_bytes": t.l2, "l3_bytes": t.l3, "peak_gmacs": t.peak_macs() / 1e9,
                    })
                })
                .collect();
            print_json(&rows.into());
            return Ok(());
        }
        let mut out = table(&["target", "triple", "vectors", "L1d", "L2", "L3", "also called"]);
        for t in dnnc::targets::all() {
            out.add_row([
                format!("{}{}", t.name, if t.name == native.name { " (this machine)" } else { "" }),
                t.triple.to_string(),
                format!("{} × {} bits{}", t.vector.registers, t.vector.bits, if t.vector.fma { ", fma" } else { "" }),
                bytes(t.l1d),
                bytes(t.l2),
                bytes(t.l3),
                t.aliases.join(", "),
            ]);
        }
        say!("{out}");
        Ok(())
    }
}
