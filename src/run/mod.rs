//! What the service knows of a run, and how that changes. Pure: events and times come in, states go out.
//!
//! [`settle`] says what an event means for its run, or which rule it breaks; [`record`] is the one place where a run
//! changes, for the sequencer that decides and for the engine that stores alike; [`deadline`] says until when a run
//! may stay silent.

#[cfg(feature = "bench")]
mod bare;
mod family;
mod life;
mod state;

#[cfg(test)]
mod tests;

pub use family::{Book, Effect, deadline, open_ancestors, open_descendants, record};
pub use life::{Defaults, SourceRefusal, Violation, next_sequence, observed, recovered, settle};
pub use state::Run;

pub use crate::event::RunState;

use std::time::Duration;

use crate::clock::Timestamp;

/// How long a run is remembered after its end, at least.
pub const RUN_MEMORY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a run may be silent where neither it nor the settings say so.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// How long a run may wait for a person where neither it nor the settings say so.
pub const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// How many waits for a person may be open in one run.
pub const OPEN_WAITS: usize = 16;

/// Whether the claim on a run's id is to be put or renewed for an event recorded `now`, where `before` is when the
/// event before it was recorded: once in each half of `memory`, and when the run begins to wait, as `waits` says.
pub fn claim_is_due(
    before: Option<Timestamp>,
    waits: bool,
    memory: Duration,
    now: Timestamp,
) -> bool {
    let half = u64::try_from(memory.as_millis() / 2)
        .unwrap_or(u64::MAX)
        .max(1);
    let slot = |at: Timestamp| at.as_millis() / half;
    waits || before.is_none_or(|before| slot(before) != slot(now))
}

/// How long a claim lives that is put `now` for `run`: as long as the run may stay silent, at least until
/// `waits_until`, and then twice as long as an ended run is remembered. With [`claim_is_due`] it outlives what is known
/// of the run.
pub fn claim_ttl(
    book: &impl Book,
    run: &Run,
    waits_until: Timestamp,
    memory: Duration,
    now: Timestamp,
) -> Duration {
    let until = deadline(book, run).max(waits_until);
    until.since(now) + 2 * memory
}
