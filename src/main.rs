//! The command line of dnnc.

mod cli;

fn main() -> std::process::ExitCode {
    dnnc::codegen::jit::free_large_blocks_at_once();
    cli::main()
}
