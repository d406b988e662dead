//! The engine that keeps everything in memory: fast, bounded, and empty after a restart, which a new epoch tells.

mod append;
mod deadlines;
mod keys;
mod list;
mod runs;
mod stream;
mod usage;

use std::{
    collections::{HashMap, hash_map::Entry},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use self::{
    deadlines::Deadlines,
    keys::{KeyStore, Put},
    stream::Stream,
    usage::Ledger,
};
use super::{
    AppendError, Appended, Commit, Description, Due, Engine, EngineError, Key, KeyEntry, KnownRun,
    OpenRuns, Page, ReadLimit, RunQuery, StreamState, Watch, Watcher,
};
use crate::{
    clock::{Clock, Entropy, Timestamp},
    event::{BUCKETS, Epoch, Offset, Position, RunId, StreamKey},
    run::{Book, Effect, RUN_MEMORY, Run},
    telemetry::Metrics,
    usage::{Series, Sum, UsageQuery},
};

/// Bounds of the memory engine.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a record is retained.
    pub retention_age: Duration,
    /// How many records of one user are retained.
    pub retention_records: usize,
    /// How many bytes of records of one user are retained.
    pub retention_bytes: usize,
    /// How long a run is remembered after its end.
    pub run_memory: Duration,
    /// How many bytes are held in all; beyond that appends are refused as full.
    pub total_bytes: usize,
    /// How long an event id is remembered.
    pub dedupe_window: Duration,
    /// How many ids of one user are remembered.
    pub dedupe_ids_per_user: usize,
    /// How many ids are remembered in all; beyond that an appending user forgets its own oldest ones.
    pub dedupe_ids_per_node: usize,
    /// How long the usage of a day is kept after its end.
    pub usage_age: Duration,
    /// How many series of usage are told apart by user and thread; beyond that new ones are folded.
    pub usage_series: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retention_age: Duration::from_secs(24 * 60 * 60),
            retention_records: 10_000,
            retention_bytes: 16 << 20,
            run_memory: RUN_MEMORY,
            total_bytes: 1 << 30,
            dedupe_window: Duration::from_secs(600),
            dedupe_ids_per_user: 100_000,
            dedupe_ids_per_node: 2_000_000,
            usage_age: Duration::from_secs(31 * 24 * 60 * 60),
            usage_series: 100_000,
        }
    }
}

/// How long a stream that holds nothing stays.
const IDLE: Duration = Duration::from_secs(60);

/// How many calls of `maintain` visit every bucket once.
const SWEEP_TURNS: usize = 8;

/// Everything in memory, in fixed buckets under a lock each.
pub struct MemoryEngine(Arc<Inner>);

struct Inner {
    config: Config,
    clock: Clock,
    metrics: Arc<Metrics>,
    epoch: Epoch,
    /// The newest offset given out. One counter for all streams: an evicted stream that comes back never uses an
    /// offset again.
    newest: AtomicU64,
    bytes: AtomicUsize,
    streams: AtomicUsize,
    dedupe_ids: AtomicUsize,
    usage_series: AtomicUsize,
    /// As many as have a deadline.
    open_runs: AtomicUsize,
    watchers: AtomicU64,
    turn: AtomicUsize,
    buckets: Vec<Mutex<Bucket>>,
    /// When the first run of each bucket is due, so that an idle second costs no locks; milliseconds.
    earliest: Vec<AtomicU64>,
    keys: KeyStore,
}

#[derive(Default)]
struct Bucket {
    /// Boxed, so that a table's empty places take little.
    streams: HashMap<StreamKey, Box<Stream>>,
    /// The highest offset of any record that an evicted stream of this bucket held. A resume from below it may miss
    /// something.
    evicted: Offset,
    deadlines: Deadlines,
    usage: Ledger,
}

/// What an append did to its runs, where the watchdog must know.
type Effects = Vec<(RunId, Effect)>;

impl MemoryEngine {
    /// An empty engine with an epoch of its own.
    pub fn new(
        config: Config,
        clock: Clock,
        entropy: &Entropy,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self(Arc::new(Inner {
            config,
            clock,
            metrics,
            epoch: Epoch::new(entropy.bits()),
            newest: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            dedupe_ids: AtomicUsize::new(0),
            usage_series: AtomicUsize::new(0),
            open_runs: AtomicUsize::new(0),
            watchers: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            buckets: (0..BUCKETS).map(|_| Mutex::default()).collect(),
            earliest: (0..BUCKETS).map(|_| AtomicU64::new(u64::MAX)).collect(),
            keys: KeyStore::new(),
        })))
    }

    /// About how many bytes it holds: the gauge `emitter_engine_bytes`.
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// How many streams it holds.
    pub fn streams(&self) -> usize {
        self.0.streams.load(Ordering::Relaxed)
    }

    /// How many calls of `maintain` visit everything once.
    pub const fn turns() -> usize {
        if SWEEP_TURNS > KeyStore::turns() {
            SWEEP_TURNS
        } else {
            KeyStore::turns()
        }
    }
}

impl Inner {
    fn bucket(&self, stream: &StreamKey) -> &Mutex<Bucket> {
        &self.buckets[stream.bucket()]
    }

    /// The head of a stream that does not exist.
    fn absent_head(&self) -> Position {
        Position::new(self.epoch, Offset(self.newest.load(Ordering::Acquire)))
    }

    fn grow(&self, taken: usize, freed: usize) {
        self.bytes.fetch_add(taken, Ordering::Relaxed);
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
    }

    /// The stream, made if it does not exist.
    fn stream<'a>(
        &self,
        bucket: &'a mut Bucket,
        key: &StreamKey,
        head: Position,
        now: Timestamp,
    ) -> &'a mut Stream {
        let evicted = bucket.evicted;
        match bucket.streams.entry(key.clone()) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => {
                self.streams.fetch_add(1, Ordering::Relaxed);
                self.grow(Stream::WEIGHT, 0);
                place.insert(Box::new(Stream::new(head, evicted, now)))
            }
        }
    }

    fn trim(&self, stream: &mut Stream, now: Timestamp) -> usize {
        let trim = stream.surplus(&self.config, now, 0, 0);
        if trim.records > 0 {
            stream.trim(trim);
            self.metrics.trimmed.increment(trim.records as u64);
        }
        trim.bytes
    }

    /// Forgets ids by age and number; `keep` of the newest stay in any case.
    fn forget_ids(&self, stream: &mut Stream, now: Timestamp, keep: usize) -> usize {
        let held = self.dedupe_ids.load(Ordering::Relaxed);
        let over = held.saturating_sub(self.config.dedupe_ids_per_node);
        let ids = &mut stream.state.dedupe;
        let limit = self
            .config
            .dedupe_ids_per_user
            .min(ids.len().saturating_sub(over))
            .max(keep);
        let forgot = ids.forget(now, self.config.dedupe_window, limit);
        self.dedupe_ids.fetch_sub(forgot.count, Ordering::Relaxed);
        self.metrics.dedupe_evicted.increment(forgot.early as u64);
        forgot.bytes
    }

    /// Gives back what is over in one bucket.
    fn sweep(&self, bucket: &mut Bucket, now: Timestamp) {
        let Bucket {
            streams,
            evicted,
            usage,
            ..
        } = bucket;
        self.grow(0, self.forget_usage(usage, now));
        streams.retain(|_, stream| {
            let mut freed = self.trim(stream, now)
                + self.forget_ids(stream, now, 0)
                + stream.state.forget_runs(now, self.config.run_memory);
            let keep = !stream.is_idle() || stream.touched_at + IDLE > now;
            if !keep {
                *evicted = (*evicted).max(stream.last).max(stream.trimmed);
                freed += Stream::WEIGHT;
                self.streams.fetch_sub(1, Ordering::Relaxed);
            }
            self.grow(0, freed);
            keep
        });
        if streams.capacity() > 64 && streams.len() < streams.capacity() / 4 {
            streams.shrink_to_fit();
        }
    }

    fn unwatch(&self, key: &StreamKey, id: u64) {
        if let Some(stream) = self.bucket(key).lock().streams.get_mut(key) {
            stream.watchers.retain(|(watcher, _)| *watcher != id);
            stream.touched_at = self.clock.now();
        }
    }
}

#[async_trait]
impl Engine for MemoryEngine {
    fn describe(&self) -> Description {
        Description {
            kind: "memory",
            level: "process",
            loses: "everything, when the process ends".into(),
        }
    }

    async fn load(&self, stream: &StreamKey) -> Result<StreamState, EngineError> {
        let bucket = self.0.bucket(stream).lock();
        Ok(match bucket.streams.get(stream) {
            Some(stream) => stream.state.clone(),
            None => StreamState::empty(self.0.absent_head()),
        })
    }

    async fn run(&self, stream: &StreamKey, run_id: &RunId) -> Result<Option<Run>, EngineError> {
        let bucket = self.0.bucket(stream).lock();
        let stream = bucket.streams.get(stream);
        Ok(stream.and_then(|stream| stream.state.run(run_id).cloned()))
    }

    async fn open_runs(&self, stream: &StreamKey) -> Result<OpenRuns, EngineError> {
        Ok(self.0.open_runs(stream))
    }

    async fn runs(&self, query: &RunQuery) -> Result<Vec<KnownRun>, EngineError> {
        Ok(self.0.list(query).await)
    }

    async fn due(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, EngineError> {
        Ok(self.0.due(buckets, now, limit))
    }

    async fn look_again(
        &self,
        stream: &StreamKey,
        head: Position,
        runs: &[(RunId, Timestamp)],
    ) -> Result<(), EngineError> {
        self.0.look_again(stream, head, runs);
        Ok(())
    }

    async fn append(
        &self,
        stream: &StreamKey,
        decided_on: &StreamState,
        commit: Commit,
    ) -> Result<Appended, AppendError> {
        self.0.append(stream, decided_on.head, commit)
    }

    async fn read(
        &self,
        stream: &StreamKey,
        after: Offset,
        limit: ReadLimit,
    ) -> Result<Page, EngineError> {
        let bucket = self.0.bucket(stream).lock();
        Ok(match bucket.streams.get(stream) {
            Some(stream) => stream.page(after, limit),
            None => Page {
                records: Vec::new(),
                head: self.0.absent_head(),
                trimmed: bucket.evicted,
            },
        })
    }

    async fn watch(
        &self,
        stream: &StreamKey,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Watch, EngineError> {
        let id = self.0.watchers.fetch_add(1, Ordering::Relaxed);
        let now = self.0.clock.now();
        let mut bucket = self.0.bucket(stream).lock();
        let head = self.0.absent_head();
        let watched = self.0.stream(&mut bucket, stream, head, now);
        watched.watchers.push((id, watcher));
        Ok(Watch {
            head: watched.state.head,
            guard: Box::new(WatchGuard {
                inner: self.0.clone(),
                stream: stream.clone(),
                id,
            }),
        })
    }

    async fn usage(&self, query: &UsageQuery) -> Result<Vec<(Series, Sum)>, EngineError> {
        Ok(self.0.usage(query).await)
    }

    async fn get(&self, key: &Key) -> Result<Option<KeyEntry>, EngineError> {
        Ok(self.0.keys.get(key, self.0.clock.now()))
    }

    async fn put_if_absent(
        &self,
        key: &Key,
        value: Bytes,
        ttl: Duration,
    ) -> Result<Option<KeyEntry>, EngineError> {
        let now = self.0.clock.now();
        let held = self.0.bytes.load(Ordering::Relaxed);
        let room = self.0.config.total_bytes.saturating_sub(held);
        match self.0.keys.put_if_absent(key, value, now, ttl, room) {
            Put::Done(change) => {
                self.0.grow(change.taken, change.freed);
                Ok(None)
            }
            Put::There(there) => Ok(Some(there)),
            Put::Full => Err(EngineError::Full),
        }
    }

    async fn compare_and_set(
        &self,
        key: &Key,
        expected: &Bytes,
        value: Bytes,
        ttl: Duration,
    ) -> Result<bool, EngineError> {
        let now = self.0.clock.now();
        let (before, after) = (expected.len(), value.len());
        let set = self.0.keys.compare_and_set(key, expected, value, now, ttl);
        if set {
            self.0.grow(after, before);
        }
        Ok(set)
    }

    async fn maintain(&self) {
        let inner = &self.0;
        let now = inner.clock.now();
        let turn = inner.turn.fetch_add(1, Ordering::Relaxed);
        for bucket in inner
            .buckets
            .iter()
            .skip(turn % SWEEP_TURNS)
            .step_by(SWEEP_TURNS)
        {
            inner.sweep(&mut bucket.lock(), now);
            // A sweep of everything at once would hold up a single-threaded runtime.
            tokio::task::consume_budget().await;
        }
        inner.grow(0, inner.keys.expire(turn, now));
        let metrics = &inner.metrics;
        metrics
            .engine_bytes
            .set(inner.bytes.load(Ordering::Relaxed) as f64);
        metrics
            .engine_streams
            .set(inner.streams.load(Ordering::Relaxed) as f64);
        metrics
            .open_runs
            .set(inner.open_runs.load(Ordering::Relaxed) as f64);
        metrics
            .dedupe_ids
            .set(inner.dedupe_ids.load(Ordering::Relaxed) as f64);
        metrics
            .usage_series
            .set(inner.usage_series.load(Ordering::Relaxed) as f64);
    }
}

/// Ends a watch when dropped.
struct WatchGuard {
    inner: Arc<Inner>,
    stream: StreamKey,
    id: u64,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.inner.unwatch(&self.stream, self.id);
    }
}

#[cfg(test)]
mod tests;
