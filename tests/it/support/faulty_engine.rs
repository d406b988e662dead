//! An engine that misbehaves as real ones do: by script, or by chance from a seed.

use std::{
    collections::{HashSet, VecDeque},
    ops::Range,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use emitter::{
    clock::Timestamp,
    engine::{
        AppendError, Appended, Commit, Condition, Description, Due, DueInReach, Engine,
        EngineError, Key, KeyEntry, KnownRun, OpenRuns, Page, ReadLimit, RunQuery, StreamState,
        Watch, Watcher,
    },
    event::{MAX_OFFSET, Offset, Position, RunId, StreamKey, UsageTotals},
    run::Run,
    usage::{Series, UsageQuery},
};
use tokio::sync::Semaphore;

use super::{
    chance::{Chance, Forgetful},
    gate::{Gate, Waiting},
    places::Places,
};

pub(crate) use super::chance::{Fault, Odds};

/// Wraps an engine.
pub(crate) struct FaultyEngine {
    inner: Arc<dyn Engine>,
    chance: Arc<Chance>,
    script: Mutex<VecDeque<Fault>>,
    appends_gate: Gate,
    calls_gate: Gate,
    broken: Mutex<HashSet<StreamKey>>,
    unconfirmed: AtomicBool,
    unfit: AtomicBool,
    pub(crate) places: Places,
    watchers: Mutex<Vec<(StreamKey, Weak<Forgetful>)>>,
    appends: AtomicUsize,
    waiting: AtomicUsize,
    /// One of these is held for each late append that is under way.
    late: Arc<()>,
    loads: AtomicUsize,
    reads: AtomicUsize,
    looks: AtomicUsize,
    upkeeps: AtomicUsize,
    read_time: Mutex<Duration>,
    failing_sets: AtomicUsize,
    behind_open_runs: Mutex<Option<Commit>>,
    open_runs_left: Semaphore,
}

impl FaultyEngine {
    /// `inner`, as it is until told otherwise.
    pub(crate) fn new(inner: Arc<dyn Engine>, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            inner,
            chance: Chance::new(seed),
            script: Mutex::default(),
            appends_gate: Gate::default(),
            calls_gate: Gate::default(),
            broken: Mutex::default(),
            unconfirmed: AtomicBool::new(false),
            unfit: AtomicBool::new(false),
            places: Places::default(),
            watchers: Mutex::default(),
            appends: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            late: Arc::default(),
            loads: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
            upkeeps: AtomicUsize::new(0),
            read_time: Mutex::default(),
            failing_sets: AtomicUsize::new(0),
            behind_open_runs: Mutex::default(),
            open_runs_left: Semaphore::new(Semaphore::MAX_PERMITS),
        })
    }

    /// How often things go wrong from now on.
    pub(crate) fn set_odds(&self, odds: Odds) {
        self.chance.set_odds(odds);
    }

    /// What becomes of the next appends.
    pub(crate) fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.script.lock().unwrap().extend(faults);
    }

    /// Whether it says that nothing is stored from here.
    pub(crate) fn set_unfit(&self, unfit: bool) {
        self.unfit.store(unfit, Ordering::Relaxed);
    }

    /// Holds appends up until `release`.
    pub(crate) fn hold(&self) {
        self.appends_gate.set_shut(true);
    }

    /// Lets appends go on.
    pub(crate) fn release(&self) {
        self.appends_gate.set_shut(false);
    }

    /// Holds every other call up, or no more.
    pub(crate) fn hold_calls(&self, held: bool) {
        self.calls_gate.set_shut(held);
    }

    /// What is stored is not as safe as it has to be, until it is again.
    pub(crate) fn confirm_nothing(&self, nothing: bool) {
        self.unconfirmed.store(nothing, Ordering::Release);
    }

    /// From now on nothing can be stored in `stream`.
    pub(crate) fn break_stream(&self, stream: &StreamKey) {
        self.broken.lock().unwrap().insert(stream.clone());
    }

    /// Tells every watcher where its stream stands, as an engine does from time to time where hints can be lost.
    pub(crate) async fn tell_heads(&self) {
        let watchers = {
            let mut watchers = self.watchers.lock().unwrap();
            watchers.retain(|(_, watcher)| watcher.strong_count() > 0);
            watchers.clone()
        };
        for (stream, watcher) in watchers {
            let limit = ReadLimit {
                records: 1,
                bytes: 1,
            };
            let page = self.inner.read(&stream, Offset(MAX_OFFSET), limit).await;
            if let (Ok(page), Some(watcher)) = (page, watcher.upgrade()) {
                watcher.stands_at(page.head);
            }
        }
    }

    /// How many appends are held up.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// How many late appends are under way.
    pub(crate) fn late(&self) -> usize {
        Arc::strong_count(&self.late) - 1
    }

    /// How often `append` was called.
    pub(crate) fn appends(&self) -> usize {
        self.appends.load(Ordering::Acquire)
    }

    /// How often `load` was called.
    pub(crate) fn loads(&self) -> usize {
        self.loads.load(Ordering::Acquire)
    }

    /// How often `read` was called.
    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::Acquire)
    }

    /// How often a key was asked for, put or replaced.
    pub(crate) fn looks(&self) -> usize {
        self.looks.load(Ordering::Acquire)
    }

    /// How often `maintain` was called.
    pub(crate) fn upkeeps(&self) -> usize {
        self.upkeeps.load(Ordering::Acquire)
    }

    /// How long a read takes from now on.
    pub(crate) fn set_read_time(&self, time: Duration) {
        *self.read_time.lock().unwrap() = time;
    }

    /// The next `compare_and_set` fails as if another writer came first.
    pub(crate) fn fail_next_set(&self) {
        self.failing_sets.fetch_add(1, Ordering::AcqRel);
    }

    /// Open runs can be read so many times more, and then not until more is allowed.
    pub(crate) fn allow_open_runs(&self, times: usize) {
        self.open_runs_left.forget_permits(Semaphore::MAX_PERMITS);
        self.open_runs_left.add_permits(times);
    }

    /// The next time that open runs are read, `commit` is stored just behind them.
    pub(crate) fn store_behind_open_runs(&self, commit: Commit) {
        *self.behind_open_runs.lock().unwrap() = Some(commit);
    }

    fn next_fault(&self) -> Fault {
        if let Some(fault) = self.script.lock().unwrap().pop_front() {
            return fault;
        }
        self.chance.fault()
    }

    async fn wait_while_held(&self) {
        let _waiting = Waiting::new(&self.waiting);
        self.appends_gate.pass().await;
    }

    async fn delay(&self) {
        if self.chance.happens(self.chance.odds().delay) {
            let millis = self.chance.below(20);
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }

    /// A call about what is in one place.
    async fn call_of(&self, stream: &StreamKey) -> Result<(), EngineError> {
        self.call().await?;
        self.places.reach(stream.bucket())
    }

    async fn call_key(&self, key: &Key) -> Result<(), EngineError> {
        self.looks.fetch_add(1, Ordering::AcqRel);
        self.call().await?;
        self.places.hang_of(key).await;
        self.places.reach_key(key)
    }

    /// A call other than an append.
    async fn call(&self) -> Result<(), EngineError> {
        self.calls_gate.pass().await;
        self.delay().await;
        match self.chance.happens(self.chance.odds().call) {
            true => Err(EngineError::Unavailable("by chance".into())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Engine for FaultyEngine {
    fn describe(&self) -> Description {
        self.inner.describe()
    }

    fn condition(&self) -> Condition {
        match self.unfit.load(Ordering::Relaxed) {
            true => Condition::Unfit("on purpose"),
            false => self.inner.condition(),
        }
    }

    async fn load(&self, stream: &StreamKey) -> Result<StreamState, EngineError> {
        self.loads.fetch_add(1, Ordering::AcqRel);
        self.call_of(stream).await?;
        self.inner.load(stream).await
    }

    async fn run(&self, stream: &StreamKey, run_id: &RunId) -> Result<Option<Run>, EngineError> {
        self.call_of(stream).await?;
        self.inner.run(stream, run_id).await
    }

    async fn runs(&self, query: &RunQuery) -> Result<Vec<KnownRun>, EngineError> {
        self.call().await?;
        self.inner.runs(query).await
    }

    async fn open_runs(&self, stream: &StreamKey) -> Result<OpenRuns, EngineError> {
        self.call_of(stream).await?;
        let left = self.open_runs_left.acquire().await;
        left.expect("open for ever").forget();
        let open = self.inner.open_runs(stream).await?;
        let behind = self.behind_open_runs.lock().unwrap().take();
        if let Some(behind) = behind {
            let mut state = self.inner.load(stream).await?;
            state.head = open.head;
            let stored = self.inner.append(stream, &state, behind).await;
            stored.expect("stored behind the open runs");
        }
        Ok(open)
    }

    async fn due(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, EngineError> {
        self.call().await?;
        buckets
            .clone()
            .try_for_each(|bucket| self.places.reach(bucket))?;
        self.inner.due(buckets, now, limit).await
    }

    async fn due_in_reach(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> DueInReach {
        if self.call().await.is_err() {
            return DueInReach::none(buckets);
        }
        let found = self.inner.due_in_reach(buckets.clone(), now, limit).await;
        self.places.in_reach(found, buckets)
    }

    async fn look_again(
        &self,
        stream: &StreamKey,
        head: Position,
        runs: &[(RunId, Timestamp)],
    ) -> Result<(), EngineError> {
        self.call_of(stream).await?;
        self.inner.look_again(stream, head, runs).await
    }

    async fn get(&self, key: &Key) -> Result<Option<KeyEntry>, EngineError> {
        self.call_key(key).await?;
        let entry = self.inner.get(key).await?;
        Ok(entry.map(|entry| self.places.read_stamp(key, entry)))
    }

    async fn append(
        &self,
        stream: &StreamKey,
        decided_on: &StreamState,
        commit: Commit,
    ) -> Result<Appended, AppendError> {
        self.appends.fetch_add(1, Ordering::AcqRel);
        self.wait_while_held().await;
        self.delay().await;
        let is_broken = self.broken.lock().unwrap().contains(stream);
        if is_broken || self.places.reach(stream.bucket()).is_err() {
            return Err(AppendError::Unavailable("broken".into()));
        }
        match self.next_fault() {
            Fault::None => {}
            Fault::Conflict => return Err(AppendError::Conflict(Vec::new())),
            Fault::Reload => return Err(AppendError::Reload),
            Fault::Unavailable => return Err(AppendError::Unavailable("scripted".into())),
            Fault::Full => return Err(AppendError::Full),
            Fault::UnknownBefore => return Err(AppendError::Unknown("before".into())),
            Fault::UnknownAfter => {
                let stored = self.inner.append(stream, decided_on, commit).await;
                self.delay().await;
                stored?;
                return Err(AppendError::Unknown("after".into()));
            }
            Fault::Late(delay) => {
                let (inner, stream) = (self.inner.clone(), stream.clone());
                let (decided_on, under_way) = (decided_on.clone(), self.late.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    // Where others came first meanwhile, it is not stored.
                    let _late = inner.append(&stream, &decided_on, commit).await;
                    drop(under_way);
                });
                return Err(AppendError::Unknown("late".into()));
            }
            Fault::Rival(rival) => {
                let state = self.inner.load(stream).await.expect("load");
                let stored = self.inner.append(stream, &state, rival).await;
                stored.expect("the rival's append");
            }
            Fault::Panic => panic!("a bug in the engine, on purpose"),
        }
        let appended = self.inner.append(stream, decided_on, commit).await;
        self.delay().await;
        appended
    }

    async fn confirm(&self, stream: &StreamKey, head: Position) -> Result<(), EngineError> {
        self.call().await?;
        if self.unconfirmed.load(Ordering::Acquire) {
            return Err(EngineError::Unavailable("not confirmed".into()));
        }
        self.inner.confirm(stream, head).await
    }

    async fn read(
        &self,
        stream: &StreamKey,
        after: Offset,
        limit: ReadLimit,
    ) -> Result<Page, EngineError> {
        self.reads.fetch_add(1, Ordering::AcqRel);
        let time = *self.read_time.lock().unwrap();
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        self.call_of(stream).await?;
        let page = self.inner.read(stream, after, limit).await;
        self.delay().await;
        page
    }

    async fn watch(
        &self,
        stream: &StreamKey,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Watch, EngineError> {
        self.call_of(stream).await?;
        let watcher = Forgetful::new(self.chance.clone(), watcher);
        let told = (stream.clone(), Arc::downgrade(&watcher));
        self.watchers.lock().unwrap().push(told);
        self.inner.watch(stream, watcher).await
    }

    async fn usage(&self, query: &UsageQuery) -> Result<Vec<(Series, UsageTotals)>, EngineError> {
        self.call().await?;
        self.inner.usage(query).await
    }

    async fn put_if_absent(
        &self,
        key: &Key,
        value: Bytes,
        ttl: Duration,
    ) -> Result<Option<KeyEntry>, EngineError> {
        self.call_key(key).await?;
        let there = self.inner.put_if_absent(key, value, ttl).await?;
        if there.is_none() {
            self.places.stamp(key);
        }
        Ok(there.map(|entry| self.places.read_stamp(key, entry)))
    }

    async fn compare_and_set(
        &self,
        key: &Key,
        expected: &Bytes,
        value: Bytes,
        ttl: Duration,
    ) -> Result<bool, EngineError> {
        self.call_key(key).await?;
        if self.failing_sets.load(Ordering::Acquire) > 0 {
            self.failing_sets.fetch_sub(1, Ordering::AcqRel);
            return Ok(false);
        }
        let set = self
            .inner
            .compare_and_set(key, expected, value, ttl)
            .await?;
        if set {
            self.places.stamp(key);
        }
        Ok(set)
    }

    async fn maintain(&self) {
        self.upkeeps.fetch_add(1, Ordering::AcqRel);
        self.inner.maintain().await;
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
