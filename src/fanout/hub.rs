//! Which users have readers on this node.

use std::{
    any::Any,
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{Acks, Filter, Readers, Start, Subscription, tail::Tail};
use crate::{
    clock::Clock,
    engine::{Engine, EngineError},
    event::StreamKey,
    telemetry::Metrics,
};

/// Bounds of the fan-out.
#[derive(Clone, Debug)]
pub struct Config {
    /// The most records that a user's tail holds.
    pub tail_records: usize,
    /// The most bytes that a user's tail holds.
    pub tail_bytes: usize,
    /// The most bytes that all tails hold; beyond that they give up their oldest records and readers that need those
    /// read the engine.
    pub tail_total_bytes: usize,
    /// How long a record stays in the tail.
    pub tail_age: Duration,
    /// The most records in one delivery.
    pub page_records: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tail_records: 512,
            tail_bytes: 1 << 20,
            tail_total_bytes: 256 << 20,
            tail_age: Duration::from_secs(5),
            page_records: 512,
        }
    }
}

const SHARDS: usize = 64;

/// Which users have readers on this node. A user is here exactly as long as it has a reader.
pub struct Hub {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) config: Config,
    pub(super) metrics: Arc<Metrics>,
    clock: Clock,
    readers: Arc<Readers>,
    acks: Arc<Acks>,
    tail_bytes: Arc<AtomicUsize>,
    shards: Vec<Mutex<HashMap<StreamKey, Weak<Watched>>>>,
}

/// A user with readers: its tail, and the watch that feeds it. Dropped with the last reader.
pub(super) struct Watched {
    pub(super) tail: Arc<Tail>,
    pub(super) stream: StreamKey,
    pub(super) hub: Arc<Hub>,
    _watch: Box<dyn Any + Send + Sync>,
}

impl Hub {
    /// A hub over `engine`, which is to answer in time ([`Bounded`](crate::engine::Bounded)).
    pub fn new(
        engine: Arc<dyn Engine>,
        config: Config,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            readers: Readers::new(),
            acks: Acks::new(engine.clone(), clock.clone(), metrics.clone()),
            engine,
            config,
            metrics,
            clock,
            tail_bytes: Arc::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        })
    }

    /// Registers a reader of `stream` and sets its cursor to `start`. From then on every record after the cursor
    /// reaches the reader through [`Subscription::next`], or a gap says why not.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn subscribe(
        self: &Arc<Self>,
        stream: &StreamKey,
        start: Start,
        filter: Filter,
    ) -> Result<Subscription, EngineError> {
        // Registered first, so that nothing appended after the head is read can be missed.
        let watched = self.watched(stream).await?;
        Subscription::start(watched, start, filter).await
    }

    /// Who reads on this node.
    pub fn readers(&self) -> &Arc<Readers> {
        &self.readers
    }

    /// What clients acknowledged.
    pub fn acks(&self) -> &Arc<Acks> {
        &self.acks
    }

    /// Drops what has been in the tails for too long. Called about once a second.
    pub fn maintain(&self) {
        let now = self.clock.now();
        let mut users = 0;
        for shard in &self.shards {
            let watched: Vec<_> = shard.lock().values().filter_map(Weak::upgrade).collect();
            users += watched.len();
            for user in watched {
                user.tail.age_out(now);
            }
        }
        self.metrics.tails.set(users as f64);
        self.metrics
            .tail_bytes
            .set(self.tail_bytes.load(Ordering::Relaxed) as f64);
    }

    /// How many users have readers here.
    pub fn users(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    async fn watched(self: &Arc<Self>, stream: &StreamKey) -> Result<Arc<Watched>, EngineError> {
        let known = self
            .shard(stream)
            .lock()
            .get(stream)
            .and_then(Weak::upgrade);
        if let Some(watched) = known {
            return Ok(watched);
        }
        let tail = Arc::new(Tail::new(self.config.clone(), self.tail_bytes.clone()));
        let watch = self.engine.watch(stream, tail.clone()).await?;
        tail.begin(watch.head);
        let watched = Arc::new(Watched {
            tail,
            stream: stream.clone(),
            hub: self.clone(),
            _watch: watch.guard,
        });
        // Of two first readers at once, the later takes the earlier's. Its own is dropped after the lock.
        let mut shard = self.shard(stream).lock();
        let earlier = shard.get(stream).and_then(Weak::upgrade);
        if earlier.is_none() {
            shard.insert(stream.clone(), Arc::downgrade(&watched));
        }
        drop(shard);
        Ok(earlier.unwrap_or(watched))
    }

    fn shard(&self, stream: &StreamKey) -> &Mutex<HashMap<StreamKey, Weak<Watched>>> {
        &self.shards[stream.bucket() % SHARDS]
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut shard = self.hub.shard(&self.stream).lock();
        let gone = shard
            .get(&self.stream)
            .is_some_and(|weak| weak.strong_count() == 0);
        if gone {
            shard.remove(&self.stream);
            if shard.capacity() > 64 && shard.len() < shard.capacity() / 4 {
                shard.shrink_to_fit();
            }
        }
    }
}
