//! Objects of several specialisations: linked, run for each of them, and refusing all other dimensions.

mod common;

use dnnc::{Footprint, InputShapes, Limits, Model, Options, Tensor, Variants};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `driver SIZE… < inputs > results`: a line of facts on standard error, then status and results of the serial and of the parallel entry.
/// Memory is exactly what the functions of the header ask for.
const DRIVER: &str = r#"
#include "net.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static void backwards(void *pool, size_t n, void (*body)(void *ctx, size_t i), void *ctx) {
    (void)pool;
    while (n) body(ctx, --n);
}
int main(int argc, char **argv) {
    size_t sizes[sizeof(net_dims) / sizeof(size_t)];
    net_dims dims;
    if ((size_t)argc != 1 + sizeof sizes / sizeof *sizes) return 90;
    for (int i = 1; i < argc; i++) sizes[i - 1] = strtoull(argv[i], NULL, 10);
    memcpy(&dims, sizes, sizeof dims);
    int32_t variant = net_variant(&dims);
    fprintf(stderr, "%d %zu", (int)variant, net_arena_bytes(&dims));
    void *in[NET_INPUTS + 1], *out[NET_OUTPUTS + 1];
    for (size_t i = 0; i <= NET_INPUTS; i++) fprintf(stderr, " %zu", net_input_bytes(&dims, i));
    for (size_t i = 0; i <= NET_OUTPUTS; i++) fprintf(stderr, " %zu", net_output_bytes(&dims, i));
    if (variant < 0) {
        /* Nothing may be touched. */
        int32_t status = net_run(&dims, NULL, NULL, NULL), parallel = net_run_parallel(&dims, NULL, NULL, NULL, NULL, NULL);
        fprintf(stderr, " refused %d %d", (int)(status == NET_BAD_DIMS), (int)(parallel == NET_BAD_DIMS));
        return 0;
    }
    for (size_t i = 0; i < NET_INPUTS; i++) {
        size_t bytes = net_input_bytes(&dims, i);
        if (bytes > NET_INPUT_0_BYTES && i == 0) return 91;
        in[i] = malloc(bytes + 1);
        if (fread(in[i], 1, bytes, stdin) != bytes) return 92;
    }
    for (size_t i = 0; i < NET_OUTPUTS; i++) out[i] = malloc(net_output_bytes(&dims, i) + 1);
    if (net_arena_bytes(&dims) > NET_ARENA_BYTES) return 93;
    void *arena = aligned_alloc(NET_ARENA_ALIGN, (net_arena_bytes(&dims) + NET_ARENA_ALIGN - 1) / NET_ARENA_ALIGN * NET_ARENA_ALIGN);
    for (int parallel = 0; parallel < 2; parallel++) {
        int32_t status = parallel ? net_run_parallel(&dims, (const void *const *)in, out, arena, NULL, backwards)
                                  : net_run(&dims, (const void *const *)in, out, arena);
        fwrite(&status, 4, 1, stdout);
        for (size_t i = 0; i < NET_OUTPUTS; i++) fwrite(out[i], 1, net_output_bytes(&dims, i), stdout);
    }
    return 0;
}
"#;

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name).join("model.onnx")
}

fn options(target: &str) -> Options {
    let target = if target == "native" { dnnc::targets::native() } else { dnnc::targets::find(target).expect("a known target") };
    Options { target, threads: 2, ..Options::default() }
}

fn compiled(name: &str, dims: &[(&str, &str)], target: &str) -> (InputShapes, Variants, Vec<Footprint>) {
    let options = options(target);
    let source = dnnc::frontend::Model::load(&model(name), &Limits::default()).expect("a model of the repository");
    let dims: BTreeMap<_, _> = dims.iter().map(|(n, s)| (n.to_string(), dnnc::parse_dim_values(s).expect("values"))).collect();
    let inputs = dnnc::combinations(source.inputs(), &dims, &options).expect("the dimensions fit");
    let mut own = vec![];
    let object = dnnc::object_variants(&source, &inputs, "net", &options, |_, _, built| {
        let weights = built.program.constants.iter().map(Vec::len).sum();
        own.push(Footprint { code: 0, weights, arena: built.program.arena_bytes });
        Ok(())
    });
    (inputs, object.expect("an object"), own)
}

fn run(command: &mut Command) -> std::process::Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    output
}

/// Links an object with the driver; gives how to start it.
fn linked(dir: &Path, object: &Variants, compiler: &[&str], runner: &[&str]) -> Vec<String> {
    std::fs::write(dir.join("net.o"), &object.bytes).expect("written");
    std::fs::write(dir.join("net.h"), &object.header).expect("written");
    std::fs::write(dir.join("main.c"), DRIVER).expect("written");
    let undefined = run(Command::new("nm").arg("-u").arg(dir.join("net.o"))).stdout;
    assert!(undefined.trim_ascii().is_empty(), "undefined symbols: {}", String::from_utf8_lossy(&undefined));
    run(Command::new(compiler[0])
        .args(&compiler[1..])
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-o", "net", "main.c", "net.o"])
        .current_dir(dir));
    runner.iter().map(|s| s.to_string()).chain([dir.join("net").display().to_string()]).collect()
}

/// Runs the driver at these sizes: what it says on standard error, and its output.
fn at(start: &[String], sizes: &[usize], input: &[u8]) -> (String, Vec<u8>) {
    use std::io::Write;
    use std::process::Stdio;
    let mut command = Command::new(&start[0]);
    command.args(&start[1..]).args(sizes.iter().map(usize::to_string));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    let sent = input.to_vec();
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&sent))); // a driver that refuses reads nothing
    let output = child.wait_with_output().expect("it ends");
    feeder.join().expect("no panic");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    (said, output.stdout)
}

/// An object of all combinations gives at each what the JIT gives, and refuses the sizes of `others`.
fn every_size_runs(name: &str, dims: &[(&str, &str)], others: &[&[usize]], target: &str, compiler: &[&str], runner: &[&str]) {
    let (bound, object, own) = compiled(name, dims, target);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let start = linked(dir.path(), &object, compiler, runner);
    let jit = Model::load(&model(name), &Options::default()).expect("a model of the repository");
    for (variant, shapes) in bound.shapes.iter().enumerate() {
        let inputs = dnnc::sample_inputs(jit.inputs(), shapes);
        let want = jit.run(&inputs).expect("it runs");
        let bytes: Vec<u8> = inputs.iter().flat_map(|t| t.bytes().to_vec()).collect();
        let chosen = dnnc::emit::variants::sizes(&bound.open, variant);
        let (said, out) = at(&start, &chosen, &bytes);
        let list = |tensors: &[Tensor]| tensors.iter().map(|t| format!("{} ", t.bytes().len())).collect::<String>();
        let facts = format!("{variant} {} {}0 {}0", own[variant].arena.max(1), list(&inputs), list(&want));
        assert_eq!(said, facts, "{name} for {target} at {chosen:?}");
        let (serial, parallel) = out.split_at(out.len() / 2);
        assert!(serial == parallel, "{name} for {target} at {chosen:?}: the parallel entry differs");
        assert_eq!(serial[..4], [0; 4], "{name} for {target} at {chosen:?}: the status");
        let mut rest = &serial[4..];
        for want in &want {
            let (this, more) = rest.split_at(want.bytes().len());
            rest = more;
            let got = Tensor::from_bytes(want.ty().clone(), this).expect("as many bytes");
            dnnc::compare::compare(&got, want, dnnc::compare::Tolerance { rtol: 1e-5, atol: 1e-5 })
                .unwrap_or_else(|e| panic!("{name} for {target} at {chosen:?}: {e}"));
        }
    }
    for sizes in others {
        let (said, _) = at(&start, sizes, &[]);
        assert_eq!(said.split(" refused ").nth(1), Some("1 1"), "{name} for {target} at {sizes:?}: {said}");
        assert!(said.starts_with("-1 0 0 0"), "{name} for {target} at {sizes:?}: {said}");
    }
}

const MAX: usize = usize::MAX;

fn both(target: &str, compiler: &[&str], runner: &[&str]) {
    every_size_runs(
        "fastgrnn-loop",
        &[("batch", "1,3"), ("time", "1,7,28")],
        &[&[2, 7], &[1, 8], &[7, 1], &[0, 0], &[MAX, MAX]],
        target,
        compiler,
        runner,
    );
    let others: [&[usize]; 4] = [&[6], &[MAX], &[1 << 32], &[(1 << 32) + 1]];
    every_size_runs("lenet-300-100", &[("batch", "0..5")], &others, target, compiler, runner);
}

#[test]
fn every_size_runs_on_this_machine() {
    both("native", &["cc"], &[]);
}

#[test]
fn every_size_runs_on_older_machines() {
    every_size_runs("lenet-5", &[("batch", "1,2")], &[&[3]], "x86-64", &["cc", "-static"], &[]);
}

#[test]
fn every_size_runs_on_arm() {
    if common::aarch64_runs() {
        both("aarch64", &["aarch64-linux-gnu-gcc", "-static"], &["qemu-aarch64"]);
    }
}

#[test]
fn it_links_into_a_shared_library() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (_, object, _) = compiled("lenet-300-100", &[("batch", "1,4")], "native");
    std::fs::write(dir.path().join("net.o"), &object.bytes).expect("written");
    run(Command::new("cc")
        .args(["-shared", "-Wl,--no-undefined", "-Wl,-z,text,--fatal-warnings", "-o", "libnet.so", "net.o"])
        .current_dir(dir.path()));
}

#[test]
fn the_header() {
    let (_, object, _) = compiled("fastgrnn-loop", &[("batch", "1,3"), ("time", "7,28")], "aarch64");
    insta::assert_snapshot!(object.header);
}

#[test]
fn the_same_sizes_give_the_same_object() {
    let make = |sizes: &str| compiled("lenet-5", &[("batch", sizes)], "aarch64").1;
    let (one, two) = (make("1,4"), make("4,1,4"));
    assert!(one.bytes == two.bytes && one.header == two.header);
}

#[test]
fn equal_weights_are_stored_once() {
    let (_, object, own) = compiled("lenet-300-100", &[("batch", "8,16,24")], "x86-64-v3");
    let (sum, most) = (own.iter().map(|f| f.weights).sum::<usize>(), own.iter().map(|f| f.weights).max().expect("three"));
    assert!(object.footprint.weights < most + sum / 10, "{} bytes of weights, the variants alone have {own:?}", object.footprint.weights);
    assert!(object.bytes.len() < most + sum / 10 + 200_000);
}
