//! The `dnnc` program.

mod cli;

/// Ends the program with a sentence and status 1 where memory is exhausted.
#[global_allocator]
static ALLOCATOR: dnnc::runtime::memory::OomExitAllocator = dnnc::runtime::memory::OomExitAllocator;

fn main() -> std::process::ExitCode {
    dnnc::runtime::memory::free_large_blocks_at_once();
    cli::main()
}
