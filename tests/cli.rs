//! The command line: help texts, messages, exit statuses.

mod common;

use std::path::Path;
use std::process::{Command, Output};

fn dnnc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dnnc")).args(args).env("COLUMNS", "110").output().expect("the binary was built")
}

fn model(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name).join("model.onnx").display().to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A temporary folder.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// The path of a file in a folder.
fn file(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

#[test]
fn help() {
    let mut all = text(&dnnc(&["--help"]).stdout);
    let commands =
        all.split_once("Commands:").and_then(|(_, rest)| rest.split_once("Arguments:")).expect("a list of commands").0.to_string();
    // A row of the list begins with two spaces and the name; a continued description with more spaces.
    let name =
        |row: &str| row.strip_prefix("  ").and_then(|r| r.split(' ').next()).filter(|n| !n.is_empty() && *n != "help").map(str::to_string);
    for command in commands.lines().filter_map(name) {
        all += &format!("\n──── {command}\n{}", text(&dnnc(&[&command, "--help"]).stdout));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn the_bare_form_compiles() {
    let dir = folder();
    let object = file(&dir, "m.o");
    let out = dnnc(&[&model("fm-mobilenetv2"), "--target", "aarch64", "-o", &object]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let bytes = std::fs::read(&object).expect("the object was written");
    assert_eq!(bytes[..4], *b"\x7fELF");
    assert_eq!(bytes[18], 183, "the ELF machine is AArch64");
    let header = std::fs::read_to_string(file(&dir, "m.h")).expect("the header was written");
    assert!(header.contains("_ARENA_BYTES") && header.contains("model_run("), "{header}");
}

#[test]
fn errors_are_one_sentence_and_status_1() {
    let dir = folder();
    let broken = file(&dir, "broken.onnx");
    std::fs::write(&broken, b"this is no model").expect("written");
    for args in [
        vec!["run", broken.as_str()],
        vec!["no-such-file.onnx", "-o", "x.o"],
        vec![&model("lenet-5")],
        vec!["inspect", &model("fastgrnn-loop")],
        vec!["run", &model("lenet-5"), "nothing.npy"],
        vec!["bench", &model("lenet-5"), "--dim", "bath=2"],
    ] {
        let out = dnnc(&args);
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        let message = text(&out.stderr);
        assert!(message.starts_with("error: ") && !message.contains("panicked"), "{args:?}: {message}");
    }
    assert!(!Path::new("x.o").exists(), "nothing is written when there is an error");
}

#[test]
fn run_writes_results() {
    let dir = folder();
    let input = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lenet-5/test_data_set_0/input_0.pb");
    let out = dnnc(&["run", "--output-dir", &file(&dir, "out"), &model("lenet-5"), &input.display().to_string()]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let got = dnnc::tensors::read(Path::new(&file(&dir, "out/output_0.pb")), &dnnc::Limits::default()).expect("a tensor");
    let want = common::numbered(input.parent().expect("a folder"), "output_");
    dnnc::compare::compare(&got, &want[0], dnnc::compare::Tolerance { rtol: 1e-4, atol: 1e-4 }).expect("the reference");
}

#[test]
fn check_ends_with_a_verdict() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lenet-5");
    let out = dnnc(&["check", &dir.display().to_string()]);
    assert_eq!(text(&out.stdout).trim(), "PASS lenet-5");
    assert_eq!(out.status.code(), Some(0));
}

#[test]
fn bench_prints_a_latency() {
    let out = dnnc(&["bench", &model("lenet-5"), "--seconds", "0.05", "--layers", "--predicted"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let printed = text(&out.stdout);
    let latency: f64 = printed.lines().next().and_then(|l| l.strip_prefix("latency_ms: ")).and_then(|v| v.parse().ok()).expect("a latency");
    assert!(latency > 0.0 && printed.contains("conv"), "{printed}");
    assert!(printed.lines().any(|l| l.trim_start().starts_with("all steps")), "{printed}");
}

#[test]
fn names_of_the_last_version_are_understood() {
    let out = dnnc(&["explain", &model("lenet-5"), "--plain"]);
    assert!(text(&out.stdout).starts_with("no rewrites (--no-rewrites)"), "{}", text(&out.stderr));
    let out = dnnc(&["hunt", "--from", "0", "--to", "1"]);
    assert!(out.status.success() && text(&out.stdout).starts_with("@ begin 0"), "{}", text(&out.stderr));
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lenet-5");
    let out = dnnc(&["check", &dir.display().to_string(), "--via", "evaluator"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
}

/// Compares a file with what it should hold; with DNNC_BLESS set, writes it.
fn holds(path: &str, want: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("DNNC_BLESS").is_some() {
        std::fs::write(&path, want).expect("the file can be written");
    }
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(held == want, "{} is not what `dnnc ops` prints: run this test with DNNC_BLESS=1", path.display());
}

#[test]
fn operators_are_documented_as_they_are() {
    let print = |args: &[&str]| text(&dnnc(args).stdout);
    let intro = "# Operators\n\nOpset versions 7 to 28 of ONNX, and the older ones that files still use. `dnnc ops Resize` lists the versions of an operator and the element \
                 types that each takes. Of element types, `floats` are f16, bf16, f32 and f64, `ints` and `uints` those of 8 to 64 bits, `f8` the four signed types of 8 bits.\n\n";
    let overview = "## By element type\n\nWritten by `dnnc ops --compact`: the element types of the first type variable of the newest version. A star: `dnnc ops` says what is not \
                    supported.\n\n";
    let all =
        "\n## By name\n\nWritten by `dnnc ops --markdown`: opset versions, and element types by type variable of the newest version.\n\n";
    let (compact, full) = (print(&["ops", "--compact"]), print(&["ops", "--markdown"]));
    holds("docs/operators.md", &format!("{intro}{overview}{compact}{all}{full}"));
}

#[test]
fn operators_are_listed_by_name_and_version() {
    let printed = text(&dnnc(&["ops", "hardswish", "--markdown"]).stdout);
    assert_eq!(
        printed,
        "| operator | opset | element types | note |\n|---|---|---|---|\n| HardSwish | 14 | f16 f32 f64 |  |\n| HardSwish | 22 | floats |  |\n"
    );
    let out = dnnc(&["ops", "Mystery"]);
    assert_eq!((out.status.code(), text(&out.stderr).contains("Mystery")), (Some(1), true));
}

#[test]
fn json_is_json() {
    for args in [
        vec!["targets", "--json"],
        vec!["ops", "--json"],
        vec!["inspect", "--json", &model("lenet-5")],
        vec!["explain", "--json", &model("lenet-5")],
        vec!["bench", "--json", "--seconds", "0.01", &model("lenet-5")],
    ] {
        let out = dnnc(&args);
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"));
    }
}

#[test]
fn bad_models_are_refused_by_name() {
    let Some(root) = common::shared("bad-models") else { return };
    let manifest = std::fs::read_to_string(root.join("manifest.jsonl")).expect("the manifest");
    for line in manifest.lines() {
        let case: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        if case["expect"] != "error" || case["stage"] != "compile" {
            continue;
        }
        let file = root.join(case["file"].as_str().expect("a file")).display().to_string();
        let out = dnnc(&["run", &file]);
        assert_eq!(out.status.code(), Some(1), "{file}: {}", text(&out.stderr));
        let names: Vec<&str> = case["names"].as_array().map(|a| a.iter().filter_map(|v| v.as_str()).collect()).unwrap_or_default();
        let message = text(&out.stderr).to_lowercase();
        assert!(names.is_empty() || names.iter().any(|n| message.contains(&n.to_lowercase())), "{file}: {message}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_panic() {
    use std::process::Stdio;
    let mut child = Command::new(env!("CARGO_BIN_EXE_dnnc"))
        .arg("ops")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    drop(child.stdout.take()); // closes the pipe before anything is read
    let out = child.wait_with_output().expect("the end");
    assert!(!text(&out.stderr).contains("panicked"), "{}", text(&out.stderr));
}

/// The operators of a model, in order.
fn operators(path: &str) -> Vec<String> {
    let draft = dnnc::frontend::Draft::load(Path::new(path), &dnnc::Limits::default()).expect("a model");
    draft.operators().into_iter().map(str::to_string).collect()
}

#[test]
fn reduce_shrinks_by_a_command() {
    // "Fails" where the file holds a convolution: the name of the operator stands in it.
    let dir = folder();
    let small = file(&dir, "small.onnx");
    let out = dnnc(&["reduce", &model("lenet-5"), "-o", &small, "--command", "if grep -q Conv {}; then exit 3; fi"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(operators(&small), ["Conv"]);
    let printed = text(&out.stdout);
    assert!(printed.contains("status 3 of the command") && printed.contains("1 now (Conv)"), "{printed}");
    assert!(!Path::new(&file(&dir, "small.input_0.pb")).exists(), "made-up inputs do");
    let run = dnnc(&["run", &small]);
    assert!(run.status.success(), "the smaller model is valid: {}", text(&run.stderr));
}

#[test]
fn reduce_keeps_a_refusal() {
    // An operator that nobody knows, among others that are known.
    let dir = folder();
    let (whole, small) = (file(&dir, "whole.onnx"), file(&dir, "small.onnx"));
    let bytes = std::fs::read(model("lenet-5")).expect("the model");
    let pools: Vec<usize> = (0..bytes.len() - 7).filter(|&i| bytes[i..i + 7] == *b"MaxPool").collect();
    let mut strange = bytes.clone();
    let last = *pools.last().expect("a pooling");
    strange[last..last + 7].copy_from_slice(b"MaxFool");
    std::fs::write(&whole, strange).expect("written");
    let out = dnnc(&["reduce", &whole, "-o", &small, "--json"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert!(report["failure"].as_str().is_some_and(|f| f.contains("refusal") && f.contains("MaxFool")), "{report}");
    assert_eq!(report["nodes"], 1);
    assert_eq!(operators(&small), ["MaxFool"]);
}

#[test]
fn reduce_says_when_there_is_nothing_to_do() {
    let out = dnnc(&["reduce", &model("lenet-5")]);
    assert_eq!(out.status.code(), Some(1));
    let message = text(&out.stderr);
    assert!(message.starts_with("error: ") && message.contains("does not fail: its results agree with the evaluator's"), "{message}");
    let out = dnnc(&["reduce", &model("lenet-5"), "--command", "true {}"]);
    assert!(text(&out.stderr).contains("does not fail: the command ends with status 0"), "{}", text(&out.stderr));
}

#[test]
fn check_says_what_is_wrong_first() {
    // Reference data of another answer: no step is wrong, the evaluator says the same.
    let dir = folder();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lenet-5");
    let set = dir.path().join("test_data_set_0");
    std::fs::create_dir_all(&set).expect("a folder");
    std::fs::copy(from.join("model.onnx"), dir.path().join("model.onnx")).expect("copied");
    std::fs::copy(from.join("test_data_set_0/input_0.pb"), set.join("input_0.pb")).expect("copied");
    let wrong = common::numbered(&from.join("test_data_set_0"), "output_")[0].clone();
    let wrong = dnnc::Tensor::new(wrong.shape(), &vec![7f32; wrong.len()]);
    dnnc::tensors::write(&set.join("output_0.pb"), "y", &wrong).expect("written");
    let out = dnnc(&["check", &dir.path().display().to_string()]);
    assert_eq!(out.status.code(), Some(1));
    let printed = text(&out.stdout);
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines[0].starts_with("no step is wrong: the reference evaluator has the same result"), "{printed}");
    assert!(lines[1].starts_with("FAIL "), "{printed}");
    let quiet = dnnc(&["check", "--no-bisect", &dir.path().display().to_string()]);
    assert_eq!(text(&quiet.stdout).lines().count(), 1);
}
