//! Logs, on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::Log;

/// What the store says of its everyday work is of no use to operators; a level of its own overrides this.
const QUIET: &str = "fjall=warn,lsm_tree=warn";

/// Sends logs to standard error from here on: readable, or as JSON lines.
pub(super) fn begin(log: &Log) {
    // A level that does not parse was refused with the settings.
    let filter = EnvFilter::try_new(format!("{QUIET},{}", log.level)).unwrap_or_default();
    let logs = fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // Where the log cannot be written, such as on a full disk, saying so would fail too, and panic.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    // Logs that were begun before, by whoever embeds this, stay as they are.
    let _begun_before = if log.json {
        logs.json().flatten_event(true).try_init()
    } else {
        logs.try_init()
    };
}
