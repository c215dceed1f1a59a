//! The command line with wrong options, wrong places to write to and wrong files of inputs: status 1 (2 from the parser of options), one error, and
//! nothing written.

use crate::text;
use prost::Message;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A temporary folder with a small model `m.onnx`.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Scratch {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("m.onnx"), text::model("x:f32[n,2] -> y; Tanh x -> y").encode_to_vec()).expect("written");
        Scratch(dir)
    }

    fn run(&self, args: &[&str]) -> Output {
        let limits = "ulimit -v 2097152; ulimit -t 20; ulimit -c 0; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", limits, env!("CARGO_BIN_EXE_dnnc")]).args(args).current_dir(self.0.path());
        command.output().expect("sh runs")
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = std::fs::read_dir(self.0.path()).expect("it is there").map(|e| e.expect("an entry").path()).collect();
        all.sort();
        all
    }
}

impl std::ops::Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        self.0.path()
    }
}

fn message(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// `.npy` bytes with this header.
fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let len = header.len() as u16;
    [&b"\x93NUMPY\x01\0"[..], &len.to_le_bytes(), header.as_bytes(), data].concat()
}

fn header(descr: &str, fortran: &str, shape: &str) -> String {
    format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n")
}

#[test]
fn wrong_options_write_nothing() {
    let dir = Scratch::new();
    std::fs::write(dir.join("bad.onnx"), b"no model").expect("written");
    std::fs::create_dir_all(dir.join("folder.o")).expect("a folder");
    let before = dir.files();
    for args in [
        &["m.onnx", "-o", "x.o", "--dim", "n=18446744073709551615"][..],
        &["m.onnx", "-o", "x.o", "--dim", "n=18446744073709551616"],
        &["m.onnx", "-o", "x.o", "--dim", "n=4611686018427387904"],
        &["m.onnx", "-o", "x.o", "--dim", "n=1000000000"],
        &["m.onnx", "-o", "x.o", "--dim", "n=-1"],
        &["m.onnx", "-o", "x.o", "--dim", "n"],
        &["m.onnx", "-o", "x.o", "--dim", "=3"],
        &["m.onnx", "-o", "x.o", "--dim", "m=3"],
        &["m.onnx", "-o", "x.o", "--target", "pdp11"],
        &["m.onnx", "-o", "x.o", "--name", "1 2"],
        &["m.onnx", "-o", "x.o", "--max-tensor", "4"],
        &["m.onnx", "-o", "x.o", "--max-nodes", "0"],
        &["m.onnx", "-o", "x.o", "--max-file", "3"],
        &["m.onnx", "-o", "nowhere/x.o"],
        &["m.onnx", "-o", "folder.o"],
        &["m.onnx", "-o", "m.onnx/x.o"],
        &["m.onnx", "-o", ""],
        &["m.onnx", "-o", "m.onnx"],
        &["bad.onnx", "-o", "x.o"],
        &["folder.o", "-o", "x.o"],
        &["/dev/zero", "-o", "x.o"],
        &["missing.onnx", "-o", "x.o"],
        &["inspect", "bad.onnx"],
        &["explain", "bad.onnx"],
        &["bench", "bad.onnx"],
        &["run", "bad.onnx"],
        &["run", "m.onnx", "--dim", "n=99999999999999999999"],
        &["run", "m.onnx", "x=missing.npy"],
        &["run", "m.onnx", "z=m.onnx"],
        &["run", "m.onnx", "m.onnx"],
        &["run", "m.onnx", "/dev/zero"],
    ] {
        let out = dir.run(args);
        assert!(matches!(out.status.code(), Some(1 | 2)), "{args:?}: {:?} {}", out.status, message(&out));
        assert!(message(&out).contains("error: "), "{args:?}: {}", message(&out));
        assert_eq!(dir.files(), before, "{args:?}");
    }
    let model = std::fs::read(dir.join("m.onnx")).expect("the model");
    assert_eq!(model, text::model("x:f32[n,2] -> y; Tanh x -> y").encode_to_vec(), "the model is as it was");
}

#[test]
fn sizes_of_0_are_sizes() {
    let dir = Scratch::new();
    let out = dir.run(&["m.onnx", "-o", "x.o", "--dim", "n=0"]);
    assert!(out.status.success(), "{}", message(&out));
}

#[test]
fn files_that_are_no_inputs_are_refused() {
    let dir = Scratch::new();
    let good = npy(&header("'<f4'", "False", "(2, 2)"), &[0; 16]);
    let deep = |open: &str, n: usize| header("'<f4'", "False", &open.repeat(n));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("text", b"hello".to_vec()),
        ("magic only", good[..6].to_vec()),
        ("no header", good[..10].to_vec()),
        ("half a header", good[..30].to_vec()),
        ("no data", good[..good.len() - 16].to_vec()),
        ("half the data", good[..good.len() - 7].to_vec()),
        ("version 9", [&b"\x93NUMPY\x09\0"[..], &good[8..]].concat()),
        ("header of 4 GiB", b"\x93NUMPY\x02\0\xff\xff\xff\xff{".to_vec()),
        ("header is no dictionary", npy("[1, 2]\n", &[])),
        ("header without shape", npy("{'descr': '<f4', 'fortran_order': False}\n", &[])),
        ("deep brackets", npy(&deep("(", 20_000), &[])),
        ("deep lists", npy(&deep("[", 20_000), &[])),
        ("negative size", npy(&header("'<f4'", "False", "(-2, 2)"), &[0; 16])),
        ("huge size", npy(&header("'<f4'", "False", "(1099511627776, 2)"), &[0; 16])),
        ("size of 2^64", npy(&header("'<f4'", "False", "(18446744073709551616,)"), &[0; 16])),
        ("product of sizes", npy(&header("'<f4'", "False", "(4294967296, 4294967296)"), &[0; 16])),
        ("product of sizes with 0", npy(&header("'<f4'", "False", "(0, 9223372036854775807, 9223372036854775807)"), &[])),
        ("gigabyte that is not there", npy(&header("'<f4'", "False", "(134217728, 2)"), &[0; 16])),
        ("objects", npy(&header("'|O'", "False", "(2, 2)"), &[0; 16])),
        ("text of 4", npy(&header("'<U1'", "False", "(2, 2)"), &[0; 16])),
        ("record", npy(&header("[('a', '<f4')]", "False", "(2, 2)"), &[0; 16])),
        ("complex", npy(&header("'<c8'", "False", "(2, 1)"), &[0; 16])),
        ("type nonsense", npy(&header("'<z4'", "False", "(2, 2)"), &[0; 16])),
        ("type of no width", npy(&header("'<f0'", "False", "(2, 2)"), &[])),
        ("type of huge width", npy(&header("'<V9223372036854775807'", "False", "(2, 2)"), &[])),
        ("wrong type", npy(&header("'<i8'", "False", "(2, 2)"), &[0; 32])),
        ("wrong rank", npy(&header("'<f4'", "False", "(4,)"), &[0; 16])),
        ("Fortran order", npy(&header("'<f4'", "True", "(2, 2)"), &[0; 16])),
    ];
    for (name, bytes) in &cases {
        std::fs::write(dir.join("x.npy"), bytes).expect("written");
        let out = dir.run(&["run", "m.onnx", "x.npy", "--output-dir", "out"]);
        assert_eq!(out.status.code(), Some(1), "{name}: {}", message(&out));
        assert!(message(&out).starts_with("error: "), "{name}: {}", message(&out));
        assert!(!dir.join("out").exists(), "{name}");
    }
    for (name, bytes) in [("pb", &b"\x08\xff\xff\xff"[..]), ("pb", b""), ("npz", b"PK\x03\x04"), ("npz", b""), ("txt", b"1 2")] {
        let file = format!("x.{name}");
        std::fs::write(dir.join(&file), bytes).expect("written");
        let out = dir.run(&["run", "m.onnx", &file, "--output-dir", "out"]);
        assert_eq!(out.status.code(), Some(1), "{name}: {}", message(&out));
        assert!(message(&out).starts_with("error: ") && !Path::new("out").exists(), "{name}: {}", message(&out));
    }
    let big_endian: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_be_bytes()).collect();
    for (name, bytes) in [("good", good), ("big-endian", npy(&header("'>f4'", "False", "(2, 2)"), &big_endian))] {
        std::fs::write(dir.join("x.npy"), bytes).expect("written");
        let out = dir.run(&["run", "m.onnx", "x.npy"]);
        assert!(out.status.success(), "{name}: {}", message(&out));
    }
}

/// Results that memory does not hold end with a sentence, not with the death of the program.
#[test]
fn memory_that_ends_is_said() {
    let dir = Scratch::new();
    let model = text::model("x:f32[] -> y; s:i64[2] = 16384 16384; Expand x s -> y");
    std::fs::write(dir.join("large.onnx"), model.encode_to_vec()).expect("written");
    std::fs::write(dir.join("x.npy"), npy(&header("'<f4'", "False", "()"), &[0; 4])).expect("written");
    let limits = "ulimit -v 1000000; ulimit -c 0; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", limits, env!("CARGO_BIN_EXE_dnnc"), "run", "large.onnx", "x.npy"]).current_dir(&*dir);
    let out = command.output().expect("sh runs");
    assert_eq!(out.status.code(), Some(1), "{}", message(&out));
    assert!(message(&out).contains("error: out of memory"), "{}", message(&out));
}
