//! The house itself: which room may know which.

use std::path::Path;

#[test]
fn rooms_know_only_what_the_plan_allows() {
    let plan: [(&str, &[&str]); 8] = [
        ("targets", &[]),
        ("runtime", &[]),
        ("ir", &[]),
        ("frontend", &["dnnc-ir"]),
        ("rewrites", &["dnnc-ir", "dnnc-targets"]),
        ("kir", &["dnnc-ir", "dnnc-runtime"]),
        ("codegen", &["dnnc-ir", "dnnc-targets", "dnnc-kir", "dnnc-runtime"]),
        ("emit", &["dnnc-ir", "dnnc-targets", "dnnc-kir", "dnnc-runtime"]),
    ];
    for (room, allowed) in plan {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(room).join("Cargo.toml");
        let text = std::fs::read_to_string(&path).expect("every room has a Cargo.toml");
        let section = text.split("[dependencies]").nth(1).unwrap_or("").split("\n[").next().unwrap_or("");
        let used: Vec<&str> = section.lines().filter_map(|l| l.split(['.', ' ', '=']).next()).filter(|n| n.starts_with("dnnc-")).collect();
        for name in used {
            assert!(allowed.contains(&name), "{room} must not know {name}");
        }
    }
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![];
    for room in ["frontend", "ir", "rewrites", "targets", "kir", "codegen", "emit", "src"] {
        visit(&root.join(room), &mut |path, text| {
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
            if code.lines().any(|l| !l.trim_start().starts_with("//") && l.contains("unsafe ")) {
                found.push(path.strip_prefix(root).expect("inside the repository").display().to_string());
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
