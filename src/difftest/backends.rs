//! Backends: the ways to run a graph. The slow ones define what the fast ones must compute.

use crate::executor::{Executor, Jitted, to_tensors};
use crate::pipeline::{Options, program};
use crate::{Error, Model, object_of};
use dnnc_ir::{Graph, Tensor};
use dnnc_kir::program::Program;
use dnnc_runtime::constants::ConstantPool;
use std::process::Command;
use tempfile::TempDir;

/// A way to run a graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// The reference evaluator, on the graph as it was imported.
    Evaluator,
    /// The interpreter of the kernel IR, on the compiled program.
    Kir,
    /// Machine code in this process.
    Jit,
    /// An object file, linked with the C compiler into a program of its own.
    Object,
    /// The same for AArch64, run under qemu-aarch64.
    Aarch64,
}

impl Backend {
    /// All backends, slowest first.
    pub const ALL: [Backend; 5] = [Backend::Evaluator, Backend::Kir, Backend::Jit, Backend::Object, Backend::Aarch64];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Evaluator => "evaluator",
            Backend::Kir => "kir",
            Backend::Jit => "jit",
            Backend::Object => "object",
            Backend::Aarch64 => "aarch64",
        }
    }

    /// What it is, in one sentence.
    pub fn description(self) -> &'static str {
        match self {
            Backend::Evaluator => "the reference evaluator, on the graph as it was imported",
            Backend::Kir => "the interpreter of the kernel IR",
            Backend::Jit => "machine code in this process",
            Backend::Object => "an object file, linked with cc and run as a process",
            Backend::Aarch64 => "an AArch64 object, linked with aarch64-linux-gnu-gcc and run under qemu-aarch64",
        }
    }
}

/// Prepares a graph to be run on a backend.
pub fn executor(graph: Graph, backend: Backend, options: &Options) -> Result<Box<dyn Executor>, Error> {
    prepare(&ConstantPool::default(), graph, backend, options)
}

impl Model {
    /// The same model on a backend. The JIT needs the target to be this machine.
    pub fn with_backend(self, backend: Backend) -> Model {
        match backend {
            Backend::Jit => self.on(None),
            other => self.on(Some(Box::new(move |pool, graph, options| prepare(pool, graph, other, options)))),
        }
    }
}

fn prepare(pool: &ConstantPool, graph: Graph, backend: Backend, options: &Options) -> Result<Box<dyn Executor>, Error> {
    Ok(match backend {
        Backend::Evaluator => Box::new(Evaluated(graph)),
        Backend::Kir => Box::new(Interpreted(program(graph, options)?)),
        Backend::Jit => Box::new(Jitted::new(graph, options, pool)?),
        Backend::Object => Box::new(Linked::new(&graph, options, &["cc"], &[])?),
        Backend::Aarch64 => {
            let target = if options.target.triple.starts_with("aarch64") {
                options.target
            } else {
                dnnc_targets::find("aarch64").expect("the record of generic AArch64")
            };
            let options = Options { target, ..options.clone() };
            Box::new(Linked::new(&graph, &options, &["aarch64-linux-gnu-gcc", "-static"], &["qemu-aarch64"])?)
        }
    })
}

struct Evaluated(Graph);

impl Executor for Evaluated {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        dnnc_ir::eval::eval(&self.0, inputs).map_err(|e| Error::Run(e.to_string()))
    }

    fn bytes(&self) -> usize {
        // The constants are shared with the imported model.
        0
    }
}

struct Interpreted(Program);

impl Executor for Interpreted {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        let bytes: Vec<&[u8]> = inputs.iter().map(|t| t.bytes()).collect();
        let results = dnnc_kir::interpret::run(&self.0, &bytes).map_err(Error::Run)?;
        to_tensors(&self.0, results)
    }

    fn bytes(&self) -> usize {
        self.0.constants.iter().map(Vec::len).sum::<usize>() + self.0.arena_bytes
    }
}

/// An object linked into a program that reads its inputs from raw files and writes its results to raw files.
struct Linked {
    folder: TempDir,
    outputs: Vec<(String, dnnc_ir::TensorType)>,
    runner: Vec<String>,
}

impl Linked {
    fn new(graph: &Graph, options: &Options, compiler: &[&str], runner: &[&str]) -> Result<Linked, Error> {
        let object = object_of(graph, "model", options)?;
        let folder = tempfile::Builder::new().prefix("dnnc-").tempdir().map_err(|e| Error::file(std::env::temp_dir(), e))?;
        let put = |name: &str, data: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, data).map_err(|e| Error::file(path, e))
        };
        put("model.o", &object.bytes)?;
        put("model.h", object.header.as_bytes())?;
        put("main.c", main_c(&object.built.program).as_bytes())?;
        let mut command = Command::new(compiler[0]);
        command.args(&compiler[1..]).args(["-O1", "-o", "model", "main.c", "model.o"]).current_dir(folder.path());
        run(&mut command, compiler[0])?;
        Ok(Linked { folder, outputs: object.built.program.outputs, runner: runner.iter().map(|s| s.to_string()).collect() })
    }
}

/// The C program around the object: it reads files `in_N` and writes files `out_N`.
fn main_c(program: &Program) -> String {
    let bytes = |ports: &[(String, dnnc_ir::TensorType)]| ports.iter().map(|(_, t)| t.bytes().to_string()).collect::<Vec<_>>().join(", ");
    format!(
        r#"#include "model.h"
#include <stdio.h>
#include <stdlib.h>
static const size_t in_bytes[] = {{ {ins}0 }}, out_bytes[] = {{ {outs}0 }};
int main(void) {{
    void *in[{n_in} + 1], *out[{n_out} + 1];
    char name[64];
    for (size_t i = 0; i < {n_in}; i++) {{
        in[i] = malloc(in_bytes[i] + 1);
        snprintf(name, sizeof name, "in_%zu", i);
        FILE *f = fopen(name, "rb");
        if (!f || fread(in[i], 1, in_bytes[i], f) != in_bytes[i]) return 90;
        fclose(f);
    }}
    for (size_t i = 0; i < {n_out}; i++) out[i] = malloc(out_bytes[i] + 1);
    void *arena = aligned_alloc(64, (MODEL_ARENA_BYTES + 64) / 64 * 64);
    int32_t status = model_run((const void *const *)in, out, arena);
    if (status) {{ fprintf(stderr, "status %d\n", (int)status); return 91; }}
    for (size_t i = 0; i < {n_out}; i++) {{
        snprintf(name, sizeof name, "out_%zu", i);
        FILE *f = fopen(name, "wb");
        if (!f || fwrite(out[i], 1, out_bytes[i], f) != out_bytes[i]) return 92;
        fclose(f);
    }}
    return 0;
}}
"#,
        ins = bytes(&program.inputs) + if program.inputs.is_empty() { "" } else { ", " },
        outs = bytes(&program.outputs) + if program.outputs.is_empty() { "" } else { ", " },
        n_in = program.inputs.len(),
        n_out = program.outputs.len(),
    )
}

impl Executor for Linked {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        for (i, t) in inputs.iter().enumerate() {
            let path = self.folder.path().join(format!("in_{i}"));
            std::fs::write(&path, t.bytes()).map_err(|e| Error::file(path, e))?;
        }
        let program = self.folder.path().join("model");
        let mut command = match self.runner.split_first() {
            Some((first, rest)) => {
                let mut c = Command::new(first);
                c.args(rest).arg(&program);
                c
            }
            None => Command::new(&program),
        };
        run(command.current_dir(self.folder.path()), self.runner.first().map(String::as_str).unwrap_or("the linked program"))?;
        self.outputs
            .iter()
            .enumerate()
            .map(|(i, (name, ty))| {
                let path = self.folder.path().join(format!("out_{i}"));
                let bytes = std::fs::read(&path).map_err(|e| Error::file(&path, e))?;
                Tensor::from_bytes(ty.clone(), &bytes).ok_or_else(|| Error::Internal(format!("result `{name}` has {} bytes", bytes.len())))
            })
            .collect()
    }

    fn bytes(&self) -> usize {
        // The code is in a file.
        0
    }
}

/// Runs a command to its end; a failure is an error with the text that it printed.
fn run(command: &mut Command, what: &str) -> Result<(), Error> {
    let output = command.output().map_err(|e| Error::Usage(format!("cannot start {what}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let status = text.trim().strip_prefix("status ").and_then(|s| s.parse::<i32>().ok());
    Err(match status {
        Some(s) => Error::Run(dnnc_emit::jit::Status(s).to_string()),
        None => Error::Run(format!("{what}: {}: {}", output.status, text.trim())),
    })
}
