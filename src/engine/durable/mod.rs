//! The engine that keeps everything in a directory of one machine, through the end of its process and, as asked, of
//! the machine.
//!
//! All writes go through one thread (`writer`): it takes what waits, checks and places it, writes it in one batch,
//! syncs once, and only then shows it and answers. Records are read from the store; states, deadlines, usage and keys
//! are in memory as in the memory engine, and are made anew from the directory at start (`recover`).

mod format;
mod group;
mod health;
mod housekeeping;
mod journal;
mod panics;
mod recover;
mod repair;
mod scratch;
mod space;
mod store;
mod sync;
mod tables;
mod totals;
mod witness;
mod writer;

pub use repair::{Inspection, NextStart, Readable, inspect, renew_epoch, take_over};
pub use store::FILES;
pub use sync::{Sync, SyncError};

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
    time::{self, Instant},
};

use self::{
    health::Told,
    panics::contained,
    store::{Store, StoreError},
    totals::Totals,
    witness::Witness,
    writer::{Change, Changed, Request, Writer},
};
use super::{
    AppendError, Appended, Commit, Condition, Description, Due, Engine, EngineError, Key, KeyEntry,
    KnownRun, OpenRuns, Page, ReadLimit, RunQuery, StreamState, Watch, Watcher,
    local::{self, Local, Shelf},
    stored::{self, Corrupt},
};
use crate::{
    clock::{Clock, Entropy, Timestamp},
    event::{Epoch, Offset, Position, Record, RunId, StreamKey, UsageTotals},
    run::Run,
    telemetry::Metrics,
    usage::{Series, UsageQuery},
};

/// Where the durable engine keeps what it holds, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory; made if it is not there.
    pub directory: PathBuf,
    /// When what is written is made safe.
    pub sync: Sync,
    /// The bounds of what it holds.
    pub bounds: local::Config,
}

/// A directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("another process uses it")]
    InUse,
    /// Nothing was ever stored in it; no reason to refuse a start.
    #[error("it is empty: no data directory of emitter yet")]
    Empty,
    /// It holds something else.
    #[error("it is not empty, and not a data directory of emitter")]
    Foreign,
    /// Another version wrote it.
    #[error("its format is {found:?}; this version reads {:?}", format::FORMAT)]
    Format {
        /// What it says of itself.
        found: String,
    },
    /// What is in it is not what was once written.
    #[error(
        "it is damaged: {0}; restore a backup, or move it away and begin anew: readers are told by a gap"
    )]
    Damaged(String),
    /// Some of it is not what was once written; the rest can be taken to a new directory.
    #[error(
        "it is damaged: {0}; restore a backup, or take what can be read to a new directory (`emitter repair DIR --into \
         NEW`), or move it away and begin anew: readers are told by a gap"
    )]
    Partly(String),
    /// A panic in this program, whatever is in the directory.
    #[error(
        "{0}: that is a fault of the program and says nothing of the directory; please report it"
    )]
    Fault(String),
    /// It cannot be read or written.
    #[error("{0}{remedy}", remedy = format::remedy(.0))]
    Io(#[from] io::Error),
}

impl From<fjall::Error> for OpenError {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Locked => Self::InUse,
            fjall::Error::Io(error) => Self::Io(error),
            error => Self::Damaged(format!("{error:?}")),
        }
    }
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fjall(error) => error.into(),
            StoreError::Corrupt(corrupt) => corrupt.into(),
        }
    }
}

impl From<Corrupt> for OpenError {
    fn from(corrupt: Corrupt) -> Self {
        Self::Damaged(corrupt.to_string())
    }
}

/// The store while it is open: closed and opened anew when a write has failed.
type Slot = Arc<RwLock<Option<Store>>>;

/// Everything in a directory.
pub struct DurableEngine {
    local: Arc<Local>,
    store: Slot,
    requests: mpsc::Sender<Request>,
    sync: Sync,
    told: Arc<Told>,
}

/// How often a page is read of which records are removed meanwhile.
const READ_ATTEMPTS: usize = 8;

/// How long a read waits for the store to be opened anew.
const OPENING: Duration = Duration::from_secs(2);

/// How many requests may wait for the writer; more wait for their turn to wait.
const WAITING: usize = 1_024;

impl DurableEngine {
    /// Opens the directory, and takes in what is there. Blocks for as long as that takes: about a second for each
    /// million records.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn open(
        config: Config,
        clock: Clock,
        entropy: &Entropy,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, OpenError> {
        let directory = config.directory.clone();
        format::prepare(&directory)?;
        let opened = contained(|| Self::open_here(config, clock, entropy, metrics));
        opened.map_err(|error| match error {
            // Only then all tables are read once more: it takes as long as they are large.
            OpenError::Damaged(what) if what.contains("ChecksumMismatch") => {
                tables::named(&directory, OpenError::Damaged(what))
            }
            error => error,
        })
    }

    fn open_here(
        config: Config,
        clock: Clock,
        entropy: &Entropy,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, OpenError> {
        let directory = &config.directory;
        let store = open_store(directory)?;
        scratch::clear(directory);
        format::write(directory)?;
        // Read under the store's lock: another process could still have been writing it.
        let witness = Witness::read(directory);
        if Witness::is_there(directory) && Totals::read(&store)?.is_none() {
            return Err(recover::damaged(NOTHING_OF_ITSELF));
        }
        let make = |epoch, since| {
            let (bounds, clock) = (config.bounds.clone(), clock.clone());
            Local::new(bounds, clock, metrics.clone(), epoch, since, false)
        };
        let opened = recover::open(&store, witness, &make, &clock, entropy)?;
        if let Some(why) = &opened.new_epoch {
            tracing::warn!(directory = %directory.display(), why, "the directory begins a new epoch");
        }
        let local = opened.local.clone();
        let slot: Slot = Arc::new(RwLock::new(Some(store)));
        let (requests, waiting) = mpsc::channel(WAITING);
        let told = Told::new(metrics);
        let writer = Writer::new(config.clone(), slot.clone(), opened, told.clone())?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        std::thread::Builder::new()
            .name("emitter-writer".into())
            .spawn(move || writer.run(&runtime, waiting))?;
        Ok(Arc::new(Self {
            local,
            store: slot,
            requests,
            sync: config.sync,
            told,
        }))
    }

    /// How many calls of `maintain` visit everything once.
    pub const fn turns() -> usize {
        Local::turns()
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Waits while the store is opened anew, as far as that takes no long time.
    async fn opened(&self) {
        let until = Instant::now() + OPENING;
        while self.store.read().is_none() && Instant::now() < until {
            time::sleep(OPENING / 100).await;
        }
    }

    /// The records of `shelf` within `span`, as far as they are there.
    async fn records(
        &self,
        key: &StreamKey,
        shelf: Shelf,
        span: (Offset, Offset),
    ) -> Result<Vec<Arc<Record>>, EngineError> {
        self.opened().await;
        let (slot, key, epoch) = (self.store.clone(), key.clone(), self.local.epoch);
        let unavailable = |why: String| Err(EngineError::Unavailable(why));
        let reading = tokio::task::spawn_blocking(move || match &*slot.read() {
            Some(store) => read_records(store, &key, shelf, epoch, span)
                .or_else(|error| unavailable(error.to_string())),
            None => unavailable("the directory is being opened".into()),
        });
        let read = reading.await;
        read.unwrap_or_else(|error| unavailable(error.to_string()))
    }

    async fn change(&self, change: Change) -> Result<Changed, EngineError> {
        let answered = self.ask(|answer| Request::Key { change, answer }).await;
        answered.unwrap_or_else(|| Err(stopped()))
    }
}

fn stopped() -> EngineError {
    EngineError::Unavailable("the directory is closed".into())
}

/// What the totals are missing for.
const NOTHING_OF_ITSELF: &str = "it says nothing of itself";

fn open_store(directory: &Path) -> Result<Store, OpenError> {
    let store = Store::open(directory)?;
    if store.is_beyond_reason() {
        return Err(recover::damaged(
            "a number of the store is beyond all reason",
        ));
    }
    Ok(store)
}

/// The records of `shelf` after `after` and up to `last`.
fn read_records(
    store: &Store,
    key: &StreamKey,
    shelf: Shelf,
    epoch: Epoch,
    (after, last): (Offset, Offset),
) -> Result<Vec<Arc<Record>>, StoreError> {
    let records = store.records(shelf, after.0 + 1..=last.0).map(|record| {
        let (offset, bytes) = record?;
        let record = stored::decode_record(key, Position::new(epoch, offset), bytes)?;
        Ok(Arc::new(record))
    });
    records.collect()
}

#[async_trait]
impl Engine for DurableEngine {
    fn describe(&self) -> Description {
        Description {
            kind: "durable",
            level: self.sync.level(),
            loses: self.sync.loses(),
        }
    }

    fn condition(&self) -> Condition {
        self.told.condition()
    }

    async fn load(&self, stream: &StreamKey) -> Result<StreamState, EngineError> {
        Ok(self.local.load(stream))
    }

    async fn run(&self, stream: &StreamKey, run_id: &RunId) -> Result<Option<Run>, EngineError> {
        Ok(self.local.run(stream, run_id))
    }

    async fn open_runs(&self, stream: &StreamKey) -> Result<OpenRuns, EngineError> {
        Ok(self.local.open_runs(stream))
    }

    async fn runs(&self, query: &RunQuery) -> Result<Vec<KnownRun>, EngineError> {
        Ok(self.local.list(query).await)
    }

    async fn due(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, EngineError> {
        Ok(self.local.due(buckets, now, limit))
    }

    async fn look_again(
        &self,
        stream: &StreamKey,
        head: Position,
        runs: &[(RunId, Timestamp)],
    ) -> Result<(), EngineError> {
        self.local.look_again(stream, head, runs);
        Ok(())
    }

    async fn append(
        &self,
        stream: &StreamKey,
        decided_on: &StreamState,
        commit: Commit,
    ) -> Result<Appended, AppendError> {
        let request = |answer| Request::Append {
            key: stream.clone(),
            expected: decided_on.head,
            commit,
            answer,
        };
        let (answer, answered) = oneshot::channel();
        if self.requests.send(request(answer)).await.is_err() {
            return Err(AppendError::Unavailable("the directory is closed".into()));
        }
        answered
            .await
            .unwrap_or_else(|_| Err(AppendError::Unknown("the writer ended".into())))
    }

    async fn read(
        &self,
        stream: &StreamKey,
        after: Offset,
        limit: ReadLimit,
    ) -> Result<Page, EngineError> {
        for _ in 0..READ_ATTEMPTS {
            let (shelf, stretch) = self.local.stretch(stream, after, limit);
            let mut page = Page {
                records: Vec::new(),
                head: stretch.head,
                trimmed: stretch.trimmed,
            };
            let Some(last) = stretch.last else {
                return Ok(page);
            };
            let span = (after.max(stretch.trimmed), last);
            page.records = self.records(stream, shelf, span).await?;
            let reached = page.records.last().map(|record| record.position.offset);
            if reached == Some(last) {
                return Ok(page);
            }
            // They were removed meanwhile: what there is now begins later, and says so.
        }
        let missing = "records are missing, or go faster than they are read";
        Err(EngineError::Unavailable(missing.into()))
    }

    async fn watch(
        &self,
        stream: &StreamKey,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Watch, EngineError> {
        Ok(self.local.watch(stream, watcher))
    }

    async fn usage(&self, query: &UsageQuery) -> Result<Vec<(Series, UsageTotals)>, EngineError> {
        Ok(self.local.usage(query).await)
    }

    async fn get(&self, key: &Key) -> Result<Option<KeyEntry>, EngineError> {
        Ok(self.local.get(key))
    }

    async fn put_if_absent(
        &self,
        key: &Key,
        value: Bytes,
        ttl: Duration,
    ) -> Result<Option<KeyEntry>, EngineError> {
        // What is there is safe already.
        if let Some(there) = self.local.get(key) {
            return Ok(Some(there));
        }
        let change = Change {
            key: key.clone(),
            expected: None,
            value,
            ttl,
        };
        Ok(match self.change(change).await? {
            Changed::Done => None,
            Changed::Not(there) => there,
        })
    }

    async fn compare_and_set(
        &self,
        key: &Key,
        expected: &Bytes,
        value: Bytes,
        ttl: Duration,
    ) -> Result<bool, EngineError> {
        let change = Change {
            key: key.clone(),
            expected: Some(expected.clone()),
            value,
            ttl,
        };
        Ok(matches!(self.change(change).await?, Changed::Done))
    }

    async fn maintain(&self) {
        // The gauges say it too, though nobody asks.
        self.told.condition();
        let swept = self.local.maintain().await;
        // A writer that is gone has nothing to give back.
        let _gone = self.requests.send(Request::Swept(swept)).await;
    }

    async fn close(&self) {
        self.ask(Request::Close).await;
    }
}
