//! From the log to its readers: one tail per user with readers here, and one cursor per reader. And what is known of
//! the readers themselves: who they are, and what their clients acknowledged.

mod acks;
mod filter;
mod hub;
mod open_runs;
mod pending;
mod readers;
mod subscription;
mod tail;

pub use acks::{Ack, Acks, CLIENTS};
pub use filter::{FILTER_TYPES, Filter};
pub use hub::{Config, Hub};
pub use open_runs::{OPEN_RUNS, OPEN_TOOL_CALLS, OpenRun};
#[cfg(test)]
pub(crate) use open_runs::{bound_waits, fixtures::open_run};
pub use readers::{Connection, Identity, Parting, Reader, Readers, Transport};
pub use subscription::{Delivery, Gap, GapReason, Start, Subscription};
pub use tail::Entry;

use bytes::Bytes;

use crate::event::Record;

/// How many encodings a record can hold at once.
pub const SLOTS: usize = 3;

/// Turns a record into the bytes that a kind of reader gets.
pub trait Encode: Send + Sync {
    /// Where the bytes are kept with the record while it is in the tail; below `SLOTS`. Encoders with the same slot
    /// yield the same bytes.
    fn slot(&self) -> usize;

    /// The bytes.
    fn encode(&self, record: &Record) -> Bytes;
}
