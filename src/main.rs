//! The command line of dnnc.

mod cli;

#[global_allocator]
static ALLOCATOR: dnnc::runtime::memory::Frugal = dnnc::runtime::memory::Frugal;

fn main() -> std::process::ExitCode {
    dnnc::runtime::memory::free_large_blocks_at_once();
    cli::main()
}
