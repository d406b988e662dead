//! The command `emitter`.

use std::process::ExitCode;

fn main() -> ExitCode {
    emitter::cli::run(std::env::args_os(), std::env::vars_os())
}
