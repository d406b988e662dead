//! gRPC in: authenticates the caller, validates and redacts each event, and hands it to the sequencer.
//!
//! An event passes through here in this order:
//!
//! 1. `server` admits the call by its headers, collects its body (`crate::calls`), and `wire` splits the body into events that
//!    are still encoded. What one call may cost is bounded here: 4 MiB could hold two million empty events, which
//!    decoded take more than a gigabyte.
//! 2. `validate` decodes one event at a time, checks its fields (`payload` those of its arm, `check` and `json` the
//!    rules that refuse an event, `adjust`, `context`, `usage` and `fit` those that change a value), takes its content
//!    hash, fills in what was left to the server, and encodes what is stored. `canonical` gives a tool call's arguments
//!    the form that their hash is taken of.
//! 3. `redact` hides the values of secrets in a tool call's parameters.
//! 4. `service` hands the events to the sequencer, one group per user, and `answer` writes the receipts and refusals.

mod adjust;
mod answer;
mod canonical;
mod check;
mod context;
mod fit;
mod json;
mod path;
mod payload;
mod redact;
mod server;
mod service;
mod usage;
mod validate;
mod wire;

#[cfg(test)]
mod tests;

pub(crate) use json::normalised as normalised_json;
pub use server::EmitterServer;
pub use service::EmitterService;

/// The bounds of what comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The largest event, in bytes on the wire.
    pub event_bytes: usize,
    /// How deep structs, values and JSON texts may nest: an outermost object or array is at depth 1. Above 32, stock
    /// protobuf decoders fail for readers.
    pub depth: usize,
    /// The most events of one batch.
    pub batch_events: usize,
    /// The largest batch, in bytes on the wire.
    pub batch_bytes: usize,
    /// What is hidden before an event is stored.
    pub redaction: Redaction,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            event_bytes: 64 * 1024,
            depth: 32,
            batch_events: 1000,
            batch_bytes: 4 * 1024 * 1024,
            redaction: Redaction::default(),
        }
    }
}

/// Which values in the parameters of a tool call are stored as `[redacted]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    /// Whether any are.
    pub enabled: bool,
    /// Words that mark a key as a secret's name, whatever its value looks like. A key is split into words at everything that is no letter or digit,
    /// at the humps of camel case, and between letters and digits; case does not count. A listed word matches one
    /// word of the key, or two neighbours together: `apikey` matches `apikey`, `api_key` and `ApiKey`.
    pub words: Vec<String>,
}

impl Default for Redaction {
    fn default() -> Self {
        Self {
            enabled: true,
            words: redact::WORDS
                .iter()
                .map(|word| (*word).to_owned())
                .collect(),
        }
    }
}
