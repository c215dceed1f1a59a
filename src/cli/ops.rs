//! `dnnc ops`: the ONNX operators that can be compiled.

use super::output::{outln, print_json, table};
use clap::Args;
use dnnc::Error;
use dnnc::frontend::{Operator, Version, in_words, operators};
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// List the ONNX operators that dnnc can compile, with opset versions and element types
///
/// Example: dnnc ops conv
#[derive(Args)]
pub struct Ops {
    /// Only operators whose names contain one of these, with a row for each opset version
    names: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print a Markdown table
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print a Markdown table with a row for each set of element types
    #[arg(long, conflicts_with_all = ["json", "markdown"])]
    compact: bool,
}

impl Ops {
    pub fn run(self) -> Result<ExitCode, Error> {
        let mut all = operators();
        if !self.names.is_empty() {
            let wanted: Vec<String> = self.names.iter().map(|n| n.to_lowercase()).collect();
            all.retain(|o| wanted.iter().any(|w| qualified(o).to_lowercase().contains(w)));
            if all.is_empty() {
                return Err(Error::Usage(format!("no operator that dnnc can compile has {} in its name", self.names.join(" or "))));
            }
        }
        if self.json {
            print_json(&all.iter().map(OperatorReport::new).collect::<Vec<_>>());
        } else if self.compact {
            compact(&all);
        } else {
            const HEAD: [&str; 4] = ["operator", "opset", "element types", "note"];
            let rows: Vec<[String; 4]> = all.iter().flat_map(|o| rows(o, !self.names.is_empty())).collect();
            if self.markdown {
                outln!("| {} |\n|---|---|---|---|", HEAD.join(" | "));
                rows.iter().for_each(|row| outln!("| {} |", row.join(" | ")));
            } else {
                let mut out = table(&HEAD);
                rows.into_iter().for_each(|row| {
                    out.add_row(row);
                });
                outln!("{out}");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn qualified(o: &Operator) -> String {
    if o.domain.is_empty() { o.name.to_string() } else { format!("{}.{}", o.domain, o.name) }
}

/// One row with the types of the newest version, or one row per version.
fn rows(o: &Operator, each: bool) -> Vec<[String; 4]> {
    if each {
        return o.versions.iter().map(|v| [qualified(o), v.since.to_string(), types(v), o.note.clone()]).collect();
    }
    let since: Vec<String> = o.versions.iter().map(|v| v.since.to_string()).collect();
    let newest = o.versions.last().map(types).unwrap_or_default();
    vec![[qualified(o), since.join(" "), newest, o.note.clone()]]
}

/// Element types of each type variable, with its name where there are several.
fn types(v: &Version) -> String {
    match &v.types[..] {
        [(_, types)] => in_words(types),
        many => many.iter().map(|(name, types)| format!("{name}: {}", in_words(types))).collect::<Vec<_>>().join("; "),
    }
}

/// One operator.
#[derive(Serialize)]
struct OperatorReport {
    domain: &'static str,
    operator: &'static str,
    versions: Vec<VersionReport>,
    note: String,
}

/// One version of an operator, with the element types of each type variable.
#[derive(Serialize)]
struct VersionReport {
    since: i64,
    types: BTreeMap<&'static str, Vec<&'static str>>,
}

impl OperatorReport {
    fn new(o: &Operator) -> OperatorReport {
        let version = |v: &Version| {
            let types = v.types.iter().map(|(name, types)| (*name, types.iter().map(|t| t.name()).collect())).collect();
            VersionReport { since: v.since, types }
        };
        OperatorReport { domain: o.domain, operator: o.name, versions: o.versions.iter().map(version).collect(), note: o.note.clone() }
    }
}

/// Operators of ONNX by the element types of the first type variable of their newest version, then those of other domains.
fn compact(all: &[Operator]) {
    let mut by_types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut others: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for o in all {
        let name = if o.note.is_empty() { o.name.to_string() } else { format!("{}*", o.name) };
        match o.versions.last().and_then(|v| v.types.first()) {
            Some((_, types)) => by_types.entry(in_words(types)).or_default().push(name),
            None => others.entry(if o.domain.is_empty() { "experiments of ONNX" } else { o.domain }).or_default().push(name),
        }
    }
    let mut rows: Vec<(String, Vec<String>)> = by_types.into_iter().collect();
    rows.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    outln!("| element types | operators |\n|---|---|");
    for (types, names) in rows.into_iter().chain(others.into_iter().map(|(domain, names)| (domain.to_string(), names))) {
        outln!("| {types} | {} |", names.join(", "));
    }
}
