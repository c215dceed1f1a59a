//! The structure of the repository: which crate may depend on which, imports between files, the length of files, and where `unsafe` is.

mod imports;

use std::path::{Path, PathBuf};

/// The crates of the workspace, with the crates of the workspace that each may depend on.
const CRATES: [(&str, &[&str]); 10] = [
    ("targets", &[]),
    ("runtime", &[]),
    ("ir", &[]),
    ("encodings", &[]),
    ("frontend", &["dnnc-ir", "dnnc-encodings"]),
    ("compress", &["dnnc-ir", "dnnc-frontend"]),
    ("rewrites", &["dnnc-ir", "dnnc-targets"]),
    ("kir", &["dnnc-ir", "dnnc-runtime"]),
    ("codegen", &["dnnc-ir", "dnnc-targets", "dnnc-kir", "dnnc-runtime"]),
    ("emit", &["dnnc-ir", "dnnc-targets", "dnnc-kir", "dnnc-runtime"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn crates_depend_in_one_direction() {
    for (name, allowed) in CRATES {
        let text = std::fs::read_to_string(root().join(name).join("Cargo.toml")).expect("every crate has a Cargo.toml");
        let section = text.split("\n[dependencies]").nth(1).unwrap_or("").split("\n[").next().unwrap_or("");
        let used: Vec<&str> = section.lines().filter_map(|l| l.split(['.', ' ', '=']).next()).filter(|n| n.starts_with("dnnc-")).collect();
        for other in used {
            assert!(allowed.contains(&other), "{name} must not depend on {other}");
        }
    }
}

#[test]
fn files_import_in_one_direction() {
    let sources = std::iter::once(PathBuf::from("src")).chain(CRATES.iter().map(|(name, _)| Path::new(name).join("src")));
    let mut found = vec![];
    for src in sources {
        let imports = imports::imports(&root().join(&src));
        let cycles = imports::cycles(&imports);
        found.extend(cycles.into_iter().map(|cycle| format!("{}: {cycle}", src.display())));
    }
    assert!(found.is_empty(), "{} cycles:\n{}", found.len(), found.join("\n"));
}

/// Files of more than [`LONGEST`] lines, each with its reason.
const LONG: &[(&str, &str)] = &[];

const LONGEST: usize = 700;

#[test]
fn files_are_short_or_one_table() {
    let mut long = vec![];
    for name in CRATES.map(|(name, _)| name).into_iter().chain(["src", "tests", "fuzz/src", "fuzz/fuzz_targets", "examples"]) {
        visit(&root().join(name), &mut |path, text| {
            if text.lines().count() > LONGEST {
                long.push(path.strip_prefix(root()).expect("inside the repository").display().to_string());
            }
        });
    }
    long.sort();
    let listed: Vec<&str> = LONG.iter().map(|(file, _)| *file).collect();
    assert_eq!(long, listed, "files of more than {LONGEST} lines, and those listed with a reason");
}

#[test]
fn unsafe_code_is_in_few_files() {
    let mut found = vec![];
    for name in ["encodings", "frontend", "ir", "compress", "rewrites", "targets", "kir", "codegen", "emit", "src"] {
        visit(&root().join(name), &mut |path, text| {
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
            if code.lines().any(|l| !l.trim_start().starts_with("//") && l.contains("unsafe ")) {
                found.push(path.strip_prefix(root()).expect("inside the repository").display().to_string());
            }
        });
    }
    found.sort();
    insta::assert_snapshot!(found.join("\n"));
}

fn visit(dir: &Path, each: &mut impl FnMut(&Path, &str)) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for path in entries.filter_map(|e| e.ok()).map(|e| e.path()) {
        if path.is_dir() && path.file_name().is_some_and(|n| n != "target") {
            visit(&path, each);
        } else if path.extension().is_some_and(|e| e == "rs") {
            each(&path, &std::fs::read_to_string(&path).expect("source is text"));
        }
    }
}
