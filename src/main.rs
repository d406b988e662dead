//! The command `emitter`.

use std::process::ExitCode;

use rustix::{fs::Mode, process::umask};

fn main() -> ExitCode {
    // Whatever the process creates is private to its user: directories 0700, files 0600. The store creates its files
    // itself, so a mode for each file that this code creates would not be enough.
    umask(Mode::RWXG | Mode::RWXO);
    emitter::cli::run(std::env::args_os(), std::env::vars_os())
}
