//! `emitter check-config`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{Environment, Failure, Listen, Storage, say};
use crate::config::{REFERENCE, Resolved, Sources};

/// Check a config, and print what it comes to
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  emitter check-config --config emitter.toml
      what the file and the EMITTER_… variables come to, and where each value is
      from
  emitter check-config --print-defaults > emitter.toml
      every key with its default and what it means: a file to begin with

Exit code 64 if anything is wrong.")]
pub(super) struct CheckConfig {
    /// The TOML file
    #[arg(long, value_name = "FILE", env = "EMITTER_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    storage: Storage,
    /// Print every key with its default and its documentation, and check nothing
    #[arg(long)]
    print_defaults: bool,
}

impl CheckConfig {
    pub(super) fn run(self, environment: Environment) -> Result<ExitCode, Failure> {
        if self.print_defaults {
            say(REFERENCE.trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut sources = Sources {
            file: self.config,
            environment,
            flags: Vec::new(),
        };
        self.listen.add_to(&mut sources);
        self.storage.add_to(&mut sources)?;
        let resolved = Resolved::new(&sources);
        say(resolved.to_toml().trim_end())?;
        resolved.into_config()?;
        Ok(ExitCode::SUCCESS)
    }
}
