//! What one process knows of all streams: their state, deadlines, usage and keys, and where their records are. The
//! memory engine and the durable one stand on it; they differ in who keeps the records, and in what happens between
//! giving a record its place and showing it.

mod append;
mod deadlines;
mod keys;
mod list;
mod restore;
mod runs;
mod stream;
mod usage;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

pub(super) use self::{
    append::Behind,
    restore::{Restoring, Stored},
    stream::{Shelf, Stream, Stretch},
    usage::Sums,
};
use self::{
    deadlines::Deadlines,
    keys::{KeyStore, Put},
    usage::Ledger,
};
use super::{EngineError, Key, KeyEntry, ReadLimit, StreamState, Watch, Watcher};
use crate::{
    clock::{Clock, Timestamp},
    event::{BUCKETS, Epoch, Offset, Position, RunId, StreamKey},
    run::{Book, Effect, RUN_MEMORY, Run},
    telemetry::Metrics,
};

/// Bounds of what one process holds.
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
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// How many calls of `maintain` visit every bucket once.
const SWEEP_TURNS: usize = 8;

/// What one process knows, in fixed buckets under a lock each.
pub(super) struct Local {
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) epoch: Epoch,
    /// When the epoch began, if there was another before it.
    epoch_since: Option<Timestamp>,
    /// Whether records are kept here.
    keeps_records: bool,
    /// The newest offset given out that may be told. One counter for all streams: an evicted stream that comes back
    /// never uses an offset again.
    newest: AtomicU64,
    bytes: AtomicUsize,
    streams: AtomicUsize,
    shelves: AtomicU64,
    pub(super) dedupe_ids: AtomicUsize,
    pub(super) usage_series: AtomicUsize,
    /// As many as have a deadline.
    open_runs: AtomicUsize,
    watchers: AtomicU64,
    turn: AtomicUsize,
    buckets: Vec<Mutex<Bucket>>,
    /// When the first run of each bucket is due, so that an idle second costs no locks; milliseconds.
    earliest: Vec<AtomicU64>,
    keys: KeyStore,
}

/// The streams of one bucket.
#[derive(Default)]
pub(super) struct Bucket {
    /// Boxed, so that a table's empty places take little.
    pub(super) streams: HashMap<StreamKey, Box<Stream>>,
    /// The highest offset of any record that an evicted stream of this bucket held. A resume from below it may miss
    /// something.
    pub(super) evicted: Offset,
    deadlines: Deadlines,
    usage: Ledger,
}

/// What a sweep took away, for an engine that keeps records elsewhere.
#[derive(Default)]
pub(super) struct Swept {
    /// The shelves of streams of which records were trimmed.
    pub(super) trimmed: Vec<Shelf>,
    /// Streams that are gone: each with its shelf, and the highest offset that its bucket now lacks.
    pub(super) evicted: Vec<(StreamKey, Shelf, Offset)>,
    /// Keys that have expired.
    pub(super) expired: Vec<Key>,
}

/// What an append did to its runs, where the watchdog must know.
type Effects = Vec<(RunId, Effect)>;

impl Local {
    /// Nothing, under `epoch`.
    pub(super) fn new(
        config: Config,
        clock: Clock,
        metrics: Arc<Metrics>,
        epoch: Epoch,
        epoch_since: Option<Timestamp>,
        keeps_records: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            clock,
            metrics,
            epoch,
            epoch_since,
            keeps_records,
            newest: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            shelves: AtomicU64::new(0),
            dedupe_ids: AtomicUsize::new(0),
            usage_series: AtomicUsize::new(0),
            open_runs: AtomicUsize::new(0),
            watchers: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            buckets: (0..BUCKETS).map(|_| Mutex::default()).collect(),
            earliest: (0..BUCKETS).map(|_| AtomicU64::new(u64::MAX)).collect(),
            keys: KeyStore::new(),
        })
    }

    /// About how many bytes it holds: the gauge `emitter_engine_bytes`.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many runs have not ended.
    pub(super) fn open_runs_in_all(&self) -> usize {
        self.open_runs.load(Ordering::Relaxed)
    }

    /// How many streams it holds.
    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// How many calls of `maintain` visit everything once.
    pub(super) const fn turns() -> usize {
        if SWEEP_TURNS > KeyStore::turns() {
            SWEEP_TURNS
        } else {
            KeyStore::turns()
        }
    }

    /// What a sequencer must know of a stream.
    pub(super) fn load(&self, key: &StreamKey) -> StreamState {
        let bucket = self.bucket(key).lock();
        match bucket.streams.get(key) {
            Some(stream) => stream.state.clone(),
            None => self.nothing(self.absent_head()),
        }
    }

    /// What there is after `after`, oldest first, within `limit`, and where it is kept.
    pub(super) fn stretch(
        &self,
        key: &StreamKey,
        after: Offset,
        limit: ReadLimit,
    ) -> (Shelf, Stretch) {
        let bucket = self.bucket(key).lock();
        match bucket.streams.get(key) {
            Some(stream) => (stream.shelf, stream.stretch(after, limit)),
            None => {
                let absent = Stretch {
                    last: None,
                    records: Vec::new(),
                    head: self.absent_head(),
                    trimmed: bucket.evicted,
                };
                (Shelf::default(), absent)
            }
        }
    }

    /// What the stream knows of one run.
    pub(super) fn run(&self, key: &StreamKey, run_id: &RunId) -> Option<Run> {
        let bucket = self.bucket(key).lock();
        let stream = bucket.streams.get(key);
        stream.and_then(|stream| stream.state.run(run_id).cloned())
    }

    /// Tells `watcher` of every append from the returned head on.
    pub(super) fn watch(self: &Arc<Self>, key: &StreamKey, watcher: Arc<dyn Watcher>) -> Watch {
        let id = self.watchers.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        let mut bucket = self.bucket(key).lock();
        let head = self.absent_head();
        let watched = self.stream(&mut bucket, key, head, now);
        watched.watchers.push((id, watcher));
        Watch {
            head: watched.state.head,
            guard: Box::new(WatchGuard {
                local: self.clone(),
                stream: key.clone(),
                id,
            }),
        }
    }

    /// What is under `key`.
    pub(super) fn get(&self, key: &Key) -> Option<KeyEntry> {
        self.keys.get(key, self.clock.now())
    }

    /// Puts `value` under `key` for `ttl`, if nothing is there.
    pub(super) fn put_if_absent(
        &self,
        key: &Key,
        value: Bytes,
        ttl: Duration,
    ) -> Result<Option<KeyEntry>, EngineError> {
        let now = self.clock.now();
        let room = self.config.total_bytes.saturating_sub(self.bytes());
        match self.keys.put_if_absent(key, value, now, ttl, room) {
            Put::Done(change) => {
                self.grow(change.taken, change.freed);
                Ok(None)
            }
            Put::There(there) => Ok(Some(there)),
            Put::Full => Err(EngineError::Full),
        }
    }

    /// Whether there is room for `value` under `key`.
    pub(super) fn has_room(&self, key: &Key, value: &Bytes) -> bool {
        self.bytes() + KeyStore::weight(key, value) <= self.config.total_bytes
    }

    /// Puts `value` under `key` for `ttl`, whatever is there: it was decided before.
    pub(super) fn set(&self, key: &Key, value: Bytes, ttl: Duration) {
        let change = self.keys.set(key, value, self.clock.now(), ttl);
        self.grow(change.taken, change.freed);
    }

    /// Replaces the value under `key` if it equals `expected`. Whether it did.
    pub(super) fn compare_and_set(
        &self,
        key: &Key,
        expected: &Bytes,
        value: Bytes,
        ttl: Duration,
    ) -> bool {
        let now = self.clock.now();
        let (before, after) = (expected.len(), value.len());
        let set = self.keys.compare_and_set(key, expected, value, now, ttl);
        if set {
            self.grow(after, before);
        }
        set
    }

    /// Gives back what retention and expiry no longer cover in a part of the buckets, and tells the gauges.
    pub(super) async fn maintain(&self) -> Swept {
        let now = self.clock.age_now();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut swept = Swept::default();
        for bucket in self
            .buckets
            .iter()
            .skip(turn % SWEEP_TURNS)
            .step_by(SWEEP_TURNS)
        {
            self.sweep(&mut bucket.lock(), now, &mut swept);
            // A sweep of everything at once would hold up a single-threaded runtime.
            tokio::task::consume_budget().await;
        }
        self.grow(0, self.keys.expire(turn, now, &mut swept.expired));
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed) as f64;
        let metrics = &self.metrics;
        metrics.engine_bytes.set(of(&self.bytes));
        metrics.engine_streams.set(of(&self.streams));
        metrics.open_runs.set(of(&self.open_runs));
        metrics.dedupe_ids.set(of(&self.dedupe_ids));
        metrics.usage_series.set(of(&self.usage_series));
        swept
    }

    pub(super) fn bucket(&self, stream: &StreamKey) -> &Mutex<Bucket> {
        &self.buckets[stream.bucket()]
    }

    /// A stream without records.
    fn nothing(&self, head: Position) -> StreamState {
        let mut state = StreamState::empty(head);
        state.epoch_since = self.epoch_since;
        state
    }

    /// The head of a stream that does not exist.
    pub(super) fn absent_head(&self) -> Position {
        Position::new(self.epoch, Offset(self.newest.load(Ordering::Acquire)))
    }

    pub(super) fn grow(&self, taken: usize, freed: usize) {
        self.bytes.fetch_add(taken, Ordering::Relaxed);
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
    }

    /// The stream, made if it does not exist.
    pub(super) fn stream<'a>(
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
                let shelf = Shelf(self.shelves.fetch_add(1, Ordering::Relaxed) + 1);
                let state = self.nothing(head);
                let stream = Stream::new(shelf, state, evicted, now, self.keeps_records);
                place.insert(Box::new(stream))
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
    fn sweep(&self, bucket: &mut Bucket, now: Timestamp, swept: &mut Swept) {
        let Bucket {
            streams,
            evicted,
            usage,
            ..
        } = bucket;
        self.grow(0, self.forget_usage(usage, now));
        streams.retain(|key, stream| {
            let trimmed = self.trim(stream, now);
            if trimmed > 0 {
                swept.trimmed.push(stream.shelf);
            }
            let mut freed = trimmed
                + self.forget_ids(stream, now, 0)
                + stream.state.forget_runs(now, self.config.run_memory);
            let keep = !stream.is_idle() || stream.touched_at + IDLE > now;
            if !keep {
                *evicted = (*evicted).max(stream.last).max(stream.trimmed);
                swept.evicted.push((key.clone(), stream.shelf, *evicted));
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

/// Ends a watch when dropped.
struct WatchGuard {
    local: Arc<Local>,
    stream: StreamKey,
    id: u64,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.local.unwatch(&self.stream, self.id);
    }
}
