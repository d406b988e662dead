//! Logs, on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{
    EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{config::Log, telemetry::CallsiteLimits};

/// What the store says of its everyday work is of no use to operators; a level of its own overrides this.
const QUIET: &str = "fjall=warn,lsm_tree=warn";

/// Sends logs to standard error from here on: readable, or as JSON lines.
pub(super) fn begin(log: &Log) {
    // A level that does not parse was refused with the settings.
    let filter = EnvFilter::try_new(format!("{QUIET},{}", log.level)).unwrap_or_default();
    let lines = fmt::layer()
        .with_writer(io::stderr)
        // Where the log cannot be written, such as on a full disk, saying so would fail too, and panic.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    // Logs that were begun before, by whoever embeds this, stay as they are.
    let lines = match log.json {
        true => lines.json().flatten_event(true).boxed(),
        false => lines.boxed(),
    };
    let _begun_before = tracing_subscriber::registry()
        .with(filter)
        .with(CallsiteLimits::default())
        .with(lines)
        .try_init();
}
