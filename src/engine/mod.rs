//! Stores and orders, never decides: one ordered log per user, and a small key store beside it.
//!
//! Every engine passes the conformance suite in `tests/it/engine_conformance`.

mod bounded;
pub mod claim;
mod dedupe;
pub mod durable;
mod local;
pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;
mod runs;
mod state;
pub mod stored;

pub use bounded::Bounded;
pub use dedupe::{DedupeEntry, DedupeWindow, Forgot};
pub use runs::{KnownRun, RunList, RunPlace, RunQuery};
pub use state::{Change, StreamState};

use std::{any::Any, ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    clock::Timestamp,
    event::{Draft, Offset, Position, Record, RunId, StreamKey, Tenant, UsageTotals},
    run::Run,
    usage::{Series, UsageQuery},
};

/// An ordered log per user and a key store.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// What it is, and how far what it stored is safe.
    fn describe(&self) -> Description;

    /// How it fares at this moment, as far as it knows by itself. It returns at once.
    fn condition(&self) -> Condition {
        Condition::Well
    }

    /// What an operator has to mend so that it serves all users; empty if there is nothing. It returns at once.
    fn problems(&self) -> Vec<String> {
        Vec::new()
    }

    /// What a sequencer must know of a stream to decide on its next event. A stream that does not exist has a head
    /// and nothing else.
    async fn load(&self, stream: &StreamKey) -> Result<StreamState, EngineError>;

    /// What the stream knows of one run.
    async fn run(&self, stream: &StreamKey, run_id: &RunId) -> Result<Option<Run>, EngineError>;

    /// The head of the stream, and the runs that are open there, in no order.
    async fn open_runs(&self, stream: &StreamKey) -> Result<OpenRuns, EngineError>;

    /// The first runs, of all streams, that answer `query`: ordered by `RunPlace`, strictly after its `after`, at most
    /// `limit`. A run that is known throughout the call and answers the query throughout is among them if it stands
    /// before the last of them, or if they are fewer than `limit`; one that starts, ends or is forgotten meanwhile may
    /// be. For an operator: it may look at everything there is, but neither holds up appends for long nor holds more
    /// than `limit` runs, and one.
    async fn runs(&self, query: &RunQuery) -> Result<Vec<KnownRun>, EngineError>;

    /// At most `limit` open runs of the streams in `buckets` that a watchdog is to look at by `now`: a run at its
    /// deadline as of its start, or as of the last `look_again`. A run to which something happens while it waits, and
    /// those above it and above one that ends, are due no later than their own deadlines.
    async fn due(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, EngineError>;

    /// The same, where a part of `buckets` may be away: what is due in the others, and which could not be asked.
    async fn due_in_reach(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> DueInReach {
        match self.due(buckets.clone(), now, limit).await {
            Ok(due) => DueInReach {
                due,
                out_of_reach: Vec::new(),
            },
            Err(_) => DueInReach::none(buckets),
        }
    }

    /// Moves when these open runs are due, if `head` is still the head of the stream.
    async fn look_again(
        &self,
        stream: &StreamKey,
        head: Position,
        runs: &[(RunId, Timestamp)],
    ) -> Result<(), EngineError>;

    /// Stores all of `commit` at the head of the stream, or nothing. It is stored, to the level that the engine
    /// states, when this returns; readers see it no earlier. `decided_on` is the state that the commit was decided on:
    /// the epoch *and* the offset of its head are compared, and where they are those of the stream, an engine may take
    /// the runs in it for the stream's.
    ///
    /// Offsets within a commit are consecutive.
    async fn append(
        &self,
        stream: &StreamKey,
        decided_on: &StreamState,
        commit: Commit,
    ) -> Result<Appended, AppendError>;

    /// Makes what the stream holds as safe as what `append` has acknowledged, while its epoch is that of `head`: an
    /// append whose outcome is unknown may have left less. Only an engine whose appends wait for others has to.
    async fn confirm(&self, _stream: &StreamKey, _head: Position) -> Result<(), EngineError> {
        Ok(())
    }

    /// The records after `after` (exclusive), oldest first. An empty page means that there is none.
    async fn read(
        &self,
        stream: &StreamKey,
        after: Offset,
        limit: ReadLimit,
    ) -> Result<Page, EngineError>;

    /// Tells `watcher` of every append to the stream from now until the returned guard is dropped, and keeps the
    /// stream from being evicted for as long.
    async fn watch(
        &self,
        stream: &StreamKey,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Watch, EngineError>;

    /// What was consumed: for each series that `query` asks for, the sum of the usage of every draft that was appended,
    /// each counted once. In no order; a series may come in several parts.
    ///
    /// An engine may fold series that are too many: into one without user and thread, at need also without model
    /// ([`Model::other`](crate::usage::Model::other)). Sums by tenant and day stay whole. It may forget a day a while
    /// after its end.
    async fn usage(&self, query: &UsageQuery) -> Result<Vec<(Series, UsageTotals)>, EngineError>;

    /// What is under `key`.
    async fn get(&self, key: &Key) -> Result<Option<KeyEntry>, EngineError>;

    /// Puts `value` under `key` for `ttl` and returns `None`; if something is there, returns that and leaves it.
    async fn put_if_absent(
        &self,
        key: &Key,
        value: Bytes,
        ttl: Duration,
    ) -> Result<Option<KeyEntry>, EngineError>;

    /// Replaces the value under `key` if it equals `expected`, for `ttl` from now. Whether it did.
    async fn compare_and_set(
        &self,
        key: &Key,
        expected: &Bytes,
        value: Bytes,
        ttl: Duration,
    ) -> Result<bool, EngineError>;

    /// Gives back what retention and expiry no longer cover. Called about once a second.
    async fn maintain(&self);

    /// Makes what was stored as safe as it gets, and lets go of what is held outside. The last thing that is asked.
    async fn close(&self);
}

/// Hears of appends. A hint only: it may be lost, and a reader that finds a hole reads from the engine.
pub trait Watcher: Send + Sync {
    /// `records` were appended, in this order. Called in the order of the appends, possibly under the engine's lock:
    /// it returns at once and does not call the engine.
    fn appended(&self, records: &[Arc<Record>]);

    /// The stream's head is `head`, or was a moment ago: whoever has not heard of everything up to there has missed
    /// a hint. Called where hints can be lost, from time to time. It returns at once and does not call the engine.
    fn stands_at(&self, head: Position);
}

/// What an engine is, as operators are told at start and at `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The kind, such as `memory`.
    pub kind: &'static str,
    /// How far an acknowledged event is safe: `process` means until this process ends.
    pub level: &'static str,
    /// What of the acknowledged events is lost, and by what.
    pub loses: String,
}

/// How an engine fares, as operators are told at `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It stores.
    Well,
    /// It stores nothing, and will again by itself. Why.
    Refusing(&'static str),
    /// It stores nothing from here, though other nodes may, until something about this node is set right. Why.
    Unfit(&'static str),
    /// It stores nothing until the service is started again. Why.
    Failed(&'static str),
}

/// A watch on a stream; dropping it ends the watch.
pub struct Watch {
    /// The stream's head when the watch began: every later record is told to the watcher.
    pub head: Position,
    /// Ends the watch when dropped.
    pub guard: Box<dyn Any + Send + Sync>,
}

/// What one append stores. Run states and dedupe entries follow from the drafts.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// In order. Not empty.
    pub drafts: Vec<Draft>,
}

/// Where a commit was stored.
#[derive(Clone, Debug)]
pub struct Appended {
    /// One record for each draft, in order.
    pub records: Vec<Arc<Record>>,
}

/// A stretch of a log.
#[derive(Clone, Debug)]
pub struct Page {
    /// In order.
    pub records: Vec<Arc<Record>>,
    /// The head when this was read.
    pub head: Position,
    /// Everything up to and with this offset may be gone: a cursor below it missed something.
    pub trimmed: Offset,
}

/// How much a page may hold: it ends before the record that would pass either bound, but holds at least one.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimit {
    /// Records.
    pub records: usize,
    /// Bytes by `Draft::weight`.
    pub bytes: usize,
}

/// The open runs of a stream.
#[derive(Clone, Debug)]
pub struct OpenRuns {
    /// The head as of which they are open.
    pub head: Position,
    /// In no order.
    pub runs: Vec<(RunId, Run)>,
}

/// A run that a watchdog is to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Whose it is.
    pub stream: StreamKey,
    /// The run.
    pub run_id: RunId,
}

/// The runs that a watchdog is to look at, as far as an engine can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueInReach {
    /// As `Engine::due` has them.
    pub due: Vec<Due>,
    /// The buckets that could not be asked.
    pub out_of_reach: Vec<usize>,
}

impl DueInReach {
    /// None of `buckets` could be asked.
    pub fn none(buckets: Range<usize>) -> Self {
        Self {
            due: Vec::new(),
            out_of_reach: buckets.collect(),
        }
    }
}

/// Where a value of the key store lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Which user a run belongs to, as `claim` has it.
    RunClaim(Tenant, RunId),
    /// What a user's clients acknowledged.
    Acks(StreamKey),
    /// Which node watches over the runs of a range of buckets, by the range's number.
    Lease(usize),
    /// What nodes could not store of a range of buckets, by its first bucket.
    Missed(usize),
    /// The secret of the store that the key of content hashes follows from.
    ContentSecret,
}

/// A value of the key store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// The value.
    pub value: Bytes,
    /// When it was put or last replaced.
    pub put_at: Timestamp,
}

/// An engine did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// It cannot be reached.
    #[error("engine unavailable: {0}")]
    Unavailable(String),
    /// There is no room for a key.
    #[error("no room")]
    Full,
}

/// Why an append stored nothing, or may have stored something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The head is elsewhere in the same epoch: these records came first, at most `CONFLICT_RECORDS`.
    #[error("other records came first")]
    Conflict(Vec<Arc<Record>>),
    /// The epoch changed, or too much happened: load again.
    #[error("the stream must be loaded again")]
    Reload,
    /// There is no room. Nothing was stored.
    #[error("no room")]
    Full,
    /// The engine cannot be reached. Nothing was stored.
    #[error("engine unavailable: {0}")]
    Unavailable(String),
    /// The engine did not say whether it stored the commit: load again before the next append.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

/// The most records that a conflict carries.
pub const CONFLICT_RECORDS: usize = 256;
