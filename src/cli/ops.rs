use super::{print_json, table};
use clap::Args;
use dnnc::Error;

/// List the ONNX operators that dnnc compiles
#[derive(Args)]
pub struct Ops {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print a Markdown table
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

impl Ops {
    pub fn run(self) -> Result<(), Error> {
        let rows: Vec<_> = dnnc::frontend::operators().collect();
        if self.json {
            let rows: Vec<serde_json::Value> = rows
                .iter()
                .map(|r| serde_json::json!({"domain": r.domain, "operator": r.name, "since": r.since, "note": r.note}))
                .collect();
            print_json(&rows.into());
        } else if self.markdown {
            say!("| operator | from opset | note |\n|---|---|---|");
            for r in rows {
                say!("| {} | {} | {} |", qualified(r.domain, r.name), r.since, r.note);
            }
        } else {
            let mut out = table(&["operator", "from opset", "note"]);
            for r in rows {
                out.add_row([qualified(r.domain, r.name), r.since.to_string(), r.note.to_string()]);
            }
            say!("{out}");
        }
        Ok(())
    }
}

fn qualified(domain: &str, name: &str) -> String {
    if domain.is_empty() { name.to_string() } else { format!("{domain}.{name}") }
}
