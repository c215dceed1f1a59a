//! The command line of dnnc.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
