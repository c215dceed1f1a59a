//! The command line. A subcommand is a file with a clap struct, whose doc comment is its help, and its two lines here: `mod` and a row of
//! `subcommands!`. Flags that several subcommands share are in `flags`.

mod bench;
#[cfg(feature = "dev")]
mod check;
mod compile;
mod compress;
mod explain;
mod flags;
#[cfg(feature = "dev")]
mod fuzz;
mod inspect;
mod ops;
mod output;
mod pack;
mod progress;
mod quantize;
#[cfg(feature = "dev")]
mod reduce;
mod run;
mod samples;
mod serve;
mod targets;

use clap::{Parser, Subcommand};
use dnnc::Error;
use std::process::ExitCode;

/// Compile a trained neural network (ONNX) to specialised native code
///
/// With no command, MODEL is compiled to an object file and a C header that declares its functions; the object needs no runtime library. The commands run,
/// measure and explain a model in this process.
#[derive(Parser)]
#[command(name = "dnnc", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, max_term_width = 110)]
#[command(after_help = "Examples:
  dnnc model.onnx -o model.o                     an object file and model.h for this machine
  dnnc model.onnx --target aarch64 -o model.o    the same for 64-bit Arm
  dnnc run model.onnx image.npy                  compile in memory and run
  dnnc bench model.onnx --layers                 latency, and the time of each step")]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    compile: compile::Compile,
}

/// The subcommands, in the order of the help text.
macro_rules! subcommands {
    ($($(#[$cfg:meta])* $name:ident($args:ty),)*) => {
        #[derive(Subcommand)]
        enum Command {
            $($(#[$cfg])* $name($args),)*
        }

        impl Command {
            fn run(self) -> Result<ExitCode, Error> {
                match self {
                    $($(#[$cfg])* Command::$name(args) => args.run(),)*
                }
            }
        }
    };
}

subcommands! {
    Run(run::Run),
    Bench(bench::Bench),
    Inspect(inspect::Inspect),
    Explain(explain::Explain),
    Compress(compress::Compress),
    Quantize(quantize::Quantize),
    #[cfg(feature = "dev")]
    Check(check::Check),
    #[cfg(feature = "dev")]
    Reduce(reduce::Reduce),
    #[cfg(feature = "dev")]
    Fuzz(fuzz::Fuzz),
    Targets(targets::Targets),
    Pack(pack::Pack),
    Serve(serve::Serve),
    Ops(ops::Ops),
}

/// Parses the command line and runs the command; an error is one sentence on standard error, with exit status 1.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(command) => command.run(),
        None => cli.compile.run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
