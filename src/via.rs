//! The ways a graph can be run. One model, every way, one answer: the slow ways are the meaning of the fast one.

use crate::pipeline::{Options, program};
use crate::{Error, object_of};
use dnnc_emit::jit::{Arena, Jit};
use dnnc_ir::{Graph, Tensor};
use dnnc_kir::program::Program;
use dnnc_runtime::constants::ConstantPool;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A way to run a graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// The reference evaluator on the graph as it was read.
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

impl Via {
    /// All ways, slowest first.
    pub const ALL: [Via; 5] = [Via::Evaluator, Via::Kir, Via::Jit, Via::Object, Via::Aarch64];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Via::Evaluator => "evaluator",
            Via::Kir => "kir",
            Via::Jit => "jit",
            Via::Object => "object",
            Via::Aarch64 => "aarch64",
        }
    }
}

impl clap::ValueEnum for Via {
    fn value_variants<'a>() -> &'a [Via] {
        &Via::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        let help = match self {
            Via::Evaluator => "the reference evaluator, on the graph as it was read",
            Via::Kir => "the interpreter of the kernel IR",
            Via::Jit => "machine code in this process",
            Via::Object => "an object file, linked with cc and run",
            Via::Aarch64 => "an AArch64 object, linked with aarch64-linux-gnu-gcc and run under qemu-aarch64",
        };
        Some(clap::builder::PossibleValue::new(self.name()).help(help))
    }
}

/// A graph that can be run.
pub trait Executor: Send + Sync {
    /// Runs on inputs of the graph's types.
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error>;

    /// Bytes of memory that it holds, beside constants in a pool.
    fn bytes(&self) -> usize;
}

/// Prepares a graph to be run in one of the ways.
pub fn executor(graph: Graph, via: Via, options: &Options) -> Result<Box<dyn Executor>, Error> {
    executor_on(&ConstantPool::default(), graph, via, options)
}

/// Prepares a graph to be run in one of the ways; the JIT stores constants in `pool`.
pub(crate) fn executor_on(pool: &ConstantPool, graph: Graph, via: Via, options: &Options) -> Result<Box<dyn Executor>, Error> {
    Ok(match via {
        Via::Evaluator => Box::new(Evaluated(graph)),
        Via::Kir => Box::new(Interpreted(program(graph, options)?)),
        Via::Jit => Box::new(Jitted::new(graph, options, pool)?),
        Via::Object => Box::new(Linked::new(&graph, options, &["cc"], &[])?),
        Via::Aarch64 => {
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
        // The constants are the model's own as far as nothing was folded.
        0
    }
}

struct Interpreted(Program);

impl Executor for Interpreted {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        let bytes: Vec<&[u8]> = inputs.iter().map(|t| t.bytes()).collect();
        let results = dnnc_kir::interpret::run(&self.0, &bytes).map_err(Error::Run)?;
        gather(&self.0, results)
    }

    fn bytes(&self) -> usize {
        self.0.constants.iter().map(Vec::len).sum::<usize>() + self.0.arena_bytes
    }
}

/// Machine code in this process, with the memory of one run at a time.
pub(crate) struct Jitted {
    pub(crate) jit: Jit,
    arena: Mutex<Arena>,
}

impl Jitted {
    pub(crate) fn new(graph: Graph, options: &Options, pool: &ConstantPool) -> Result<Jitted, Error> {
        let jit = Jit::with_constants(program(graph, options)?, options.target, options.threads, pool).map_err(Error::Internal)?;
        let arena = Mutex::new(jit.arena());
        Ok(Jitted { jit, arena })
    }
}

impl Executor for Jitted {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        let bytes: Vec<&[u8]> = inputs.iter().map(|t| t.bytes()).collect();
        let mut results: Vec<Vec<u8>> = self.jit.program().outputs.iter().map(|(_, t)| vec![0; t.bytes()]).collect();
        let mut slices: Vec<&mut [u8]> = results.iter_mut().map(|r| r.as_mut_slice()).collect();
        let mut arena = self.arena.lock().unwrap_or_else(|e| e.into_inner());
        self.jit.run(&bytes, &mut slices, &mut arena).map_err(|s| Error::Run(s.to_string()))?;
        gather(self.jit.program(), results)
    }

    fn bytes(&self) -> usize {
        self.jit.code_bytes() + self.arena.lock().unwrap_or_else(|e| e.into_inner()).bytes()
    }
}

fn gather(program: &Program, results: Vec<Vec<u8>>) -> Result<Vec<Tensor>, Error> {
    program
        .outputs
        .iter()
        .zip(results)
        .map(|((name, ty), bytes)| {
            Tensor::from_bytes(ty.clone(), &bytes)
                .ok_or_else(|| Error::Internal(format!("result `{name}` has {} bytes for {ty}", bytes.len())))
        })
        .collect()
}

/// An object linked into a program that reads inputs and writes results as raw files.
struct Linked {
    folder: Folder,
    outputs: Vec<(String, dnnc_ir::TensorType)>,
    runner: Vec<String>,
}

/// A temporary folder, removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("dnnc-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).map_err(|e| Error::file(&path, e))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // a folder that stays behind is no error
    }
}

impl Linked {
    fn new(graph: &Graph, options: &Options, compiler: &[&str], runner: &[&str]) -> Result<Linked, Error> {
        let object = object_of(graph, "model", options)?;
        let folder = Folder::new()?;
        let put = |name: &str, data: &[u8]| {
            let path = folder.0.join(name);
            std::fs::write(&path, data).map_err(|e| Error::file(path, e))
        };
        put("model.o", &object.bytes)?;
        put("model.h", object.header.as_bytes())?;
        put("main.c", main_c(&object.built.program).as_bytes())?;
        let mut command = Command::new(compiler[0]);
        command.args(&compiler[1..]).args(["-O1", "-o", "model", "main.c", "model.o"]).current_dir(&folder.0);
        run(&mut command, compiler[0])?;
        Ok(Linked { folder, outputs: object.built.program.outputs, runner: runner.iter().map(|s| s.to_string()).collect() })
    }
}

/// The program around the object: files `in_N` to files `out_N`.
fn main_c(program: &Program) -> String {
    let sizes = |ports: &[(String, dnnc_ir::TensorType)]| ports.iter().map(|(_, t)| t.bytes().to_string()).collect::<Vec<_>>().join(", ");
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
        ins = sizes(&program.inputs) + if program.inputs.is_empty() { "" } else { ", " },
        outs = sizes(&program.outputs) + if program.outputs.is_empty() { "" } else { ", " },
        n_in = program.inputs.len(),
        n_out = program.outputs.len(),
    )
}

impl Executor for Linked {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        for (i, t) in inputs.iter().enumerate() {
            let path = self.folder.0.join(format!("in_{i}"));
            std::fs::write(&path, t.bytes()).map_err(|e| Error::file(path, e))?;
        }
        let program = self.folder.0.join("model");
        let mut command = match self.runner.split_first() {
            Some((first, rest)) => {
                let mut c = Command::new(first);
                c.args(rest).arg(&program);
                c
            }
            None => Command::new(&program),
        };
        run(command.current_dir(&self.folder.0), self.runner.first().map(String::as_str).unwrap_or("the linked program"))?;
        self.outputs
            .iter()
            .enumerate()
            .map(|(i, (name, ty))| {
                let path = self.folder.0.join(format!("out_{i}"));
                let bytes = std::fs::read(&path).map_err(|e| Error::file(&path, e))?;
                Tensor::from_bytes(ty.clone(), &bytes).ok_or_else(|| Error::Internal(format!("result `{name}` has {} bytes", bytes.len())))
            })
            .collect()
    }

    fn bytes(&self) -> usize {
        // All is in files.
        0
    }
}

/// Runs a command to its end; a failure is an error with what it printed.
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
