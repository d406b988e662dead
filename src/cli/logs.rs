//! Logs, on standard error.

use std::{
    io::{self, IsTerminal as _},
    panic, thread,
};

use tracing_subscriber::{EnvFilter, fmt};

use crate::{config::Log, engine::durable};

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

/// From here on a panic of the store is one line of the log: on damaged files it panics in places, and what follows from
/// that is told by itself.
pub(super) fn tell_of_panics_at_the_store() {
    let others = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| {
        let thread = thread::current();
        let name = thread.name().unwrap_or_default();
        if !durable::is_at_the_store(name) {
            return others(panicked);
        }
        let payload = panicked.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let what = text.or_else(|| payload.downcast_ref::<&str>().copied());
        let at = panicked.location().map(ToString::to_string);
        tracing::error!(thread = name, what, at, "the store failed");
    }));
}
