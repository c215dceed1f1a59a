//! The C examples: linked with and without threads, for this machine and for AArch64.

mod common;

use std::path::Path;
use std::process::Command;

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Compiles the network for a target, links an example with it and runs it; returns its output.
fn example(source: &str, dims: &[&str], target: &str, compiler: &[&str], flags: &[&str], runner: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let object = dir.path().join("garment.o");
    run(Command::new(env!("CARGO_BIN_EXE_dnnc"))
        .arg(root.join("tests/data/fm-mobilenetv2/model.onnx"))
        .args(["--name", "garment", "--target", target])
        .args(dims)
        .arg("-o")
        .arg(&object));
    let symbols = run(Command::new("nm").arg("-u").arg(&object));
    assert!(symbols.trim().is_empty(), "undefined symbols: {symbols}");
    let program = dir.path().join("classify");
    run(Command::new(compiler[0])
        .args(&compiler[1..])
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-I"])
        .arg(dir.path())
        .arg(root.join("examples/c").join(source))
        .arg(&object)
        .args(flags)
        .arg("-o")
        .arg(&program));
    match runner.split_first() {
        None => run(&mut Command::new(&program)),
        Some((first, rest)) => run(Command::new(first).args(rest).arg(&program)),
    }
}

#[test]
fn it_links_and_runs() {
    let alone = example("classify.c", &[], "native", &["cc"], &[], &[]);
    assert!(alone.starts_with("trousers"), "{alone}");
    let threads = example("classify.c", &[], "native", &["cc"], &["-DTHREADS=2", "-lpthread"], &[]);
    assert_eq!(alone, threads);
}

#[test]
fn it_links_into_a_shared_library() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let object = dir.path().join("m.o");
    run(Command::new(env!("CARGO_BIN_EXE_dnnc")).arg(root.join("tests/data/protonn/model.onnx")).arg("-o").arg(&object));
    run(Command::new("cc").args(["-shared", "-Wl,--no-undefined", "-o"]).arg(dir.path().join("libm.so")).arg(&object));
}

#[test]
fn it_links_and_runs_on_arm() {
    if common::aarch64_runs() {
        let arm = example("classify.c", &[], "aarch64", &["aarch64-linux-gnu-gcc", "-static"], &[], &["qemu-aarch64"]);
        assert!(arm.starts_with("trousers"), "{arm}");
    }
}

#[test]
fn several_batch_sizes_link_and_run() {
    let dims = ["--dim", "batch=1,4"];
    let here = example("batches.c", &dims, "native", &["cc"], &[], &[]);
    let lines: Vec<&str> = here.lines().collect();
    assert!(lines[0].starts_with("4 at once") && lines[1].starts_with("1 at once") && lines[2].starts_with("1 at once"), "{here}");
    assert!(lines[3].starts_with("trousers") && lines.len() == 9, "{here}");
    assert_eq!(lines[3], lines[7], "a garment looks the same alone and among others");
    if common::aarch64_runs() {
        let arm = example("batches.c", &dims, "aarch64", &["aarch64-linux-gnu-gcc", "-static"], &[], &["qemu-aarch64"]);
        assert!(arm.lines().nth(3).is_some_and(|l| l.starts_with("trousers")), "{arm}");
    }
}
