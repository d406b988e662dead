//! The engine on Redis: any number of nodes share it.
//!
//! What must happen at once happens in one function within the server (`functions/`); what follows from a commit is
//! worked out here. Everything of a user lies in one hash slot.

mod append;
mod call;
mod cause;
mod changes;
mod channel;
mod clocks;
mod config;
mod due;
mod hints;
mod link;
mod list;
mod names;
mod problems;
mod push;
mod servers;
mod shards;
mod slots;
mod state;
mod store;
mod usage;
mod watch;

pub use config::{Bounds, Config, Mode, Url};

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;

use self::{
    call::CallError, clocks::Clocks, due::Deadlines, hints::Registry, link::Keeper, names::Names,
    shards::Shards,
};
use super::{
    AppendError, Appended, Commit, Condition, Description, Due, DueInReach, Engine, EngineError,
    Key, KeyEntry, KnownRun, OpenRuns, Page, ReadLimit, RunQuery, StreamState, Watch, Watcher,
};
use crate::{
    clock::{Clock, Entropy, Timestamp},
    event::{BUCKETS, Epoch, Offset, Position, RunId, StreamKey, UsageTotals},
    run::Run,
    telemetry::{LogLimit, Metrics},
    usage::{Series, UsageQuery},
};

/// How many calls of `maintain` visit every bucket once.
const SWEEP_TURNS: usize = 64;

/// How many streams a sweep of a bucket looks at in one call, and in how many calls at most.
const SWEPT: usize = 64;
const SWEEPS: usize = 16;

/// How long a stream that holds nothing stays.
const IDLE: Duration = Duration::from_secs(60);

/// Everything in Redis.
pub struct RedisEngine {
    inner: Arc<Inner>,
    _keepers: Vec<Keeper>,
}

struct Inner {
    config: Arc<Config>,
    clock: Clock,
    entropy: Entropy,
    metrics: Arc<Metrics>,
    names: Names,
    shards: Arc<Shards>,
    hints: Arc<Registry>,
    due: Deadlines,
    clocks: Clocks,
    /// Whether the last append was refused because too few replicas are connected.
    lacks_replicas: AtomicBool,
    /// The epoch that each bucket was last seen with.
    known: Vec<Mutex<Option<Epoch>>>,
    turn: AtomicUsize,
    /// When the watched streams were last kept from being evicted; milliseconds.
    pinned_at: AtomicU64,
}

impl RedisEngine {
    /// An engine as `config` says. It connects in the background, and again whenever the connection is lost; until then
    /// it is unavailable. Needs a running tokio runtime.
    pub fn new(config: Config, clock: Clock, entropy: Entropy, metrics: Arc<Metrics>) -> Arc<Self> {
        let config = Arc::new(config);
        let hints = Registry::new(metrics.clone());
        let shards = Shards::new(
            config.clone(),
            entropy.clone(),
            metrics.clone(),
            hints.clone(),
        );
        let inner = Arc::new(Inner {
            names: Names::new(&config.prefix),
            config,
            clock,
            entropy,
            metrics,
            shards,
            hints,
            due: Deadlines::new(),
            clocks: Clocks::default(),
            lacks_replicas: AtomicBool::new(false),
            known: (0..BUCKETS).map(|_| Mutex::default()).collect(),
            turn: AtomicUsize::new(0),
            pinned_at: AtomicU64::new(0),
        });
        let mut keepers = vec![
            Keeper::of(inner.clone().hear_always()),
            Keeper::of(inner.clone().compare_clocks_always()),
        ];
        if inner.shards.are_a_cluster() {
            keepers.push(Keeper::of(inner.shards.clone().follow()));
        }
        Arc::new(Self {
            inner,
            _keepers: keepers,
        })
    }

    /// How many calls of `maintain` visit everything once.
    pub const fn turns() -> usize {
        SWEEP_TURNS
    }
}

impl Inner {
    /// The epoch that this node has last seen the bucket with.
    fn known(&self, bucket: usize) -> Option<Epoch> {
        self.known.get(bucket).and_then(|known| *known.lock())
    }

    fn note_known(&self, bucket: usize, epoch: Epoch) {
        if let Some(known) = self.known.get(bucket) {
            *known.lock() = Some(epoch);
        }
    }

    /// Whether the server that has the bucket is connected to.
    fn is_in_reach(&self, bucket: usize) -> bool {
        self.shards.is_live(&self.names.bucket(bucket))
    }

    fn condition(&self) -> Condition {
        if self.check_clock().is_err() {
            return match self.clocks.are_known() {
                true => Condition::Unfit("the clock is not that of Redis"),
                false => Condition::Unfit("Redis was not reached yet"),
            };
        }
        if !self.shards.any_is_live() {
            return Condition::Refusing("Redis cannot be reached");
        }
        match self.lacks_replicas.load(Ordering::Relaxed) {
            true => Condition::Refusing("too few replicas are connected"),
            false => Condition::Well,
        }
    }

    /// Counts a call that failed.
    fn count(&self, error: CallError) -> CallError {
        static LOGGED: LogLimit = LogLimit::new();
        self.metrics.redis_errors.increment(1);
        if let CallError::Unknown(why) = &error
            && let Some(left_out) = LOGGED.admit()
        {
            tracing::warn!(
                why,
                left_out,
                "a call of Redis failed, and may have had an effect"
            );
        }
        error
    }

    /// Gives back what is over in one bucket.
    async fn sweep(&self, bucket: usize) -> Result<(), CallError> {
        self.check_clock()?;
        let (bounds, now) = (&self.config.bounds, self.clock.age_now());
        for _ in 0..SWEEPS {
            let mut call = self.call("sweep", bucket);
            call.arg(now.as_millis());
            for age in [
                bounds.retention_age,
                bounds.dedupe_window,
                bounds.run_memory,
                IDLE,
                bounds.usage_age,
            ] {
                call.arg(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            }
            call.arg(SWEPT);
            let mut answer = call.on(&self.shards).await?.into_iter();
            let _ok = call::next(&mut answer)?;
            let more = call::number(call::next(&mut answer)?)? == 1;
            let trimmed = call::number(call::next(&mut answer)?)?;
            self.metrics.trimmed.increment(trimmed);
            let mistyped = call::array(call::next(&mut answer)?)?;
            if !mistyped.is_empty() {
                let problem = call::problem_of(mistyped)?;
                self.shards.problems.note(&problem);
            }
            if !more {
                break;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Engine for RedisEngine {
    fn describe(&self) -> Description {
        let config = &self.inner.config;
        let mut loses = "what Redis loses: with `appendfsync everysec` about the last second when a server dies, \
                         without persistence everything"
            .to_owned();
        match config.wait_replicas {
            0 => loses += "; on a failover what the new master had not received",
            count => {
                loses += &format!(
                    "; on a failover what the new master had not received, though {count} had acknowledged it"
                );
            }
        }
        loses += "; a new epoch tells readers of it";
        Description {
            kind: "redis",
            level: if config.wait_replicas == 0 {
                "redis"
            } else {
                "redis and its replicas"
            },
            loses,
        }
    }

    fn condition(&self) -> Condition {
        self.inner.condition()
    }

    fn problems(&self) -> Vec<String> {
        self.inner.shards.problems.all()
    }

    async fn load(&self, stream: &StreamKey) -> Result<StreamState, EngineError> {
        Ok(self.inner.load(stream).await?)
    }

    async fn run(&self, stream: &StreamKey, run_id: &RunId) -> Result<Option<Run>, EngineError> {
        Ok(self.inner.run(stream, run_id).await?)
    }

    async fn open_runs(&self, stream: &StreamKey) -> Result<OpenRuns, EngineError> {
        self.inner.open_runs(stream).await
    }

    async fn runs(&self, query: &RunQuery) -> Result<Vec<KnownRun>, EngineError> {
        Ok(self.inner.list(query).await?)
    }

    async fn due(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, EngineError> {
        let found = self.inner.due_in_reach(buckets, now, limit).await;
        match found.out_of_reach.first() {
            None => Ok(found.due),
            Some(bucket) => {
                let error = format!("bucket {bucket} cannot be asked");
                Err(EngineError::Unavailable(error))
            }
        }
    }

    async fn due_in_reach(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> DueInReach {
        self.inner.due_in_reach(buckets, now, limit).await
    }

    async fn look_again(
        &self,
        stream: &StreamKey,
        head: Position,
        runs: &[(RunId, Timestamp)],
    ) -> Result<(), EngineError> {
        self.inner.look_again(stream, head, runs).await
    }

    async fn append(
        &self,
        stream: &StreamKey,
        decided_on: &StreamState,
        commit: Commit,
    ) -> Result<Appended, AppendError> {
        self.inner.append(stream, decided_on, commit).await
    }

    async fn confirm(&self, stream: &StreamKey, head: Position) -> Result<(), EngineError> {
        Ok(self.inner.confirm(stream, head).await?)
    }

    async fn read(
        &self,
        stream: &StreamKey,
        after: Offset,
        limit: ReadLimit,
    ) -> Result<Page, EngineError> {
        self.inner.read(stream, after, limit).await
    }

    async fn watch(
        &self,
        stream: &StreamKey,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Watch, EngineError> {
        self.inner.watch(stream, watcher).await
    }

    async fn usage(&self, query: &UsageQuery) -> Result<Vec<(Series, UsageTotals)>, EngineError> {
        Ok(self.inner.usage(query).await?)
    }

    async fn get(&self, key: &Key) -> Result<Option<KeyEntry>, EngineError> {
        Ok(self.inner.get(key).await?)
    }

    async fn put_if_absent(
        &self,
        key: &Key,
        value: Bytes,
        ttl: Duration,
    ) -> Result<Option<KeyEntry>, EngineError> {
        Ok(self.inner.put_if_absent(key, &value, ttl).await?)
    }

    async fn compare_and_set(
        &self,
        key: &Key,
        expected: &Bytes,
        value: Bytes,
        ttl: Duration,
    ) -> Result<bool, EngineError> {
        Ok(self
            .inner
            .compare_and_set(key, expected, &value, ttl)
            .await?)
    }

    async fn maintain(&self) {
        let (inner, now) = (&self.inner, self.inner.clock.now());
        // What waits for its turn behind this should not wait for Redis.
        if !inner.shards.any_is_live() {
            return;
        }
        let pinned_at = Timestamp::from_millis(inner.pinned_at.load(Ordering::Relaxed));
        if pinned_at > now || pinned_at + watch::RENEWED <= now {
            inner.pinned_at.store(now.as_millis(), Ordering::Relaxed);
            inner.pin_watched().await;
        }
        let turn = inner.turn.fetch_add(1, Ordering::Relaxed);
        let buckets = (turn % SWEEP_TURNS..BUCKETS).step_by(SWEEP_TURNS);
        let buckets = buckets.filter(|bucket| inner.is_in_reach(*bucket));
        let sweeps = stream::iter(buckets).map(|bucket| inner.sweep(bucket));
        let mut sweeps = sweeps.buffer_unordered(SWEEP_TURNS);
        while let Some(swept) = sweeps.next().await {
            if let Err(error) = swept {
                tracing::debug!(?error, "a bucket was not swept");
            }
        }
    }

    async fn close(&self) {
        // What was acknowledged is with Redis, and the connections end with this.
    }
}
