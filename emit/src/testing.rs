//! For tests: kernels as machine code against the interpreter, and programs as linked objects.

use crate::code::Code;
use crate::loaded::Kernel;
use crate::object;
use dnnc_kir::program::Program;
use dnnc_kir::testing::Case;
use dnnc_kir::{Func, verify};
use std::path::PathBuf;
use std::process::Command;

/// Emits a kernel, runs it in this process and compares; panics with the kernel's text where it differs.
pub fn check(case: &Case, fused: bool, emit: &dyn Fn(&Func) -> Result<Code, String>) {
    verify(&case.func).unwrap_or_else(|e| panic!("{e}\n{}", case.func));
    let code = emit(&case.func).unwrap_or_else(|e| panic!("{e}\n{}", case.func));
    let kernel = Kernel::new(&code, case.func.pointers).expect("memory for the kernel");
    let mut buffers = case.buffers.clone();
    // SAFETY: `expected` panics when the kernel leaves its buffers.
    case.expected(fused);
    #[allow(unsafe_code)]
    let status = unsafe { kernel.run(&mut buffers, case.tasks) };
    if let Some(why) = case.differs(fused, status, buffers) {
        panic!("{why}");
    }
}

/// Reads sizes and contents of inputs and results, runs the network once serially and once with a pool, and writes the results of both.
const DRIVER: &str = r#"
#include "net.h"
#include <stdio.h>
#include <stdlib.h>
static uint64_t word(FILE *f) { uint64_t x; if (fread(&x, 8, 1, f) != 1) exit(101); return x; }
static void backwards(void *pool, size_t n, void (*body)(void *ctx, size_t i), void *ctx) {
    ++*(int *)pool;
    while (n) body(ctx, --n);
}
int main(int argc, char **argv) {
    if (argc != 3) return 102;
    for (int parallel = 0; parallel < 2; ++parallel) {
        FILE *f = fopen(argv[1], "rb");
        if (!f) return 103;
        uint64_t count[2]; count[0] = word(f); count[1] = word(f);
        void **at[2]; uint64_t *size[2];
        for (int k = 0; k < 2; ++k) {
            at[k] = calloc(count[k] + 1, sizeof(void *)); size[k] = calloc(count[k] + 1, 8);
            for (uint64_t i = 0; i < count[k]; ++i) {
                size[k][i] = word(f); at[k][i] = malloc(size[k][i] + 1);
                if (fread(at[k][i], 1, size[k][i], f) != size[k][i]) return 104;
            }
        }
        fclose(f);
        void *arena = aligned_alloc(NET_ARENA_ALIGN, (NET_ARENA_BYTES + 63) / 64 * 64);
        int loops = 0;
        int32_t status = parallel ? net_run_parallel((const void *const *)at[0], (void *const *)at[1], arena, &loops, backwards)
                                  : net_run((const void *const *)at[0], (void *const *)at[1], arena);
        if (parallel) printf("%d loops\n", loops);
        f = fopen(argv[2], parallel ? "ab" : "wb");
        fwrite(&status, 4, 1, f);
        for (uint64_t i = 0; i < count[1]; ++i) fwrite(at[1][i], 1, size[1][i], f);
        fclose(f);
    }
    return 0;
}
"#;

/// A folder that goes away with the value.
pub struct Folder(pub PathBuf);

impl Folder {
    /// A new folder for a test of that name.
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("dnnc-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // left over, it does no harm
    }
}

/// Whether a program can be started; says so aloud when it cannot.
pub fn exists(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").output().is_ok();
    if !there {
        eprintln!("NOT TESTED: {tool} is not on this machine");
    }
    there
}

/// Runs a command that must succeed: what it printed.
pub fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Status and results of a run.
pub type Outcome = (i32, Vec<Vec<u8>>);

/// Compiles, links with the driver and runs, first serially, then in parallel.
pub fn linked(program: &Program, target: &str, cc: &[&str], runner: &[&str], inputs: &[Vec<u8>], outputs: &[Vec<u8>]) -> [Outcome; 2] {
    let folder = Folder::new(&format!("{target}-{}-{}", cc.join(""), program.steps.len()).replace('/', "_"));
    let path = |name: &str| folder.0.join(name);
    let target = dnnc_targets::find(target).expect("a target of the table");
    std::fs::write(path("net.o"), object::emit(program, target).expect("an object").bytes).expect("a file");
    std::fs::write(path("net.h"), crate::header::write(program, target)).expect("a file");
    std::fs::write(path("main.c"), DRIVER).expect("a file");
    let mut data = vec![];
    data.extend((inputs.len() as u64).to_le_bytes());
    data.extend((outputs.len() as u64).to_le_bytes());
    for buffer in inputs.iter().chain(outputs) {
        data.extend((buffer.len() as u64).to_le_bytes());
        data.extend(buffer);
    }
    std::fs::write(path("in"), data).expect("a file");
    run(Command::new(cc[0]).args(["-std=c11", "-Wall", "-Werror", "-I"]).arg(&folder.0).args(&cc[1..]).arg("-o").args([
        path("main"),
        path("main.c"),
        path("net.o"),
    ]));
    let program = path("main");
    let command = [runner, &[program.to_str().expect("a plain path")]].concat();
    run(Command::new(command[0]).args(&command[1..]).args([path("in"), path("out")]));
    let out = std::fs::read(path("out")).expect("the driver wrote it");
    let (serial, parallel) = out.split_at(out.len() / 2);
    [serial, parallel].map(|out| {
        let (status, mut rest) = out.split_at(4);
        let results = outputs.iter().map(|o| {
            let (this, more) = rest.split_at(o.len());
            rest = more;
            this.to_vec()
        });
        (i32::from_le_bytes(status.try_into().expect("4 bytes")), results.collect())
    })
}
