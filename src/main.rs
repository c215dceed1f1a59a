//! The command line of dnnc.

mod cli;

#[global_allocator]
static ALLOCATOR: dnnc::codegen::jit::Frugal = dnnc::codegen::jit::Frugal;

fn main() -> std::process::ExitCode {
    dnnc::codegen::jit::free_large_blocks_at_once();
    cli::main()
}
