//! One order per user: decides what becomes of each event and drives the engine.
//!
//! Each active user has a lane. Whoever puts events into an idle lane drives it; what arrives meanwhile waits and goes
//! into the next append together.

mod claims;
mod content_key;
mod decide;
mod drive;
mod lane;
mod lease;
mod missed;
mod outage;
mod own;
mod refused_sources;
mod uncounted;
mod watchdog;

pub use decide::{Claim, Decision, Group, Mode, Rules, Verdict};
use outage::OutageBook;
pub use own::{PARENT_ENDED, STALLED, cancelled_by_operator};
pub use refused_sources::{RefusedSource, RefusedSources};

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::oneshot, time::Instant};

use self::{
    content_key::Known,
    lane::{Answers, Counted, Counts, Job, Lane},
    lease::Leases,
    missed::Unheard,
    watchdog::Sweeps,
};
use crate::{
    clock::{Clock, Entropy, Timestamp},
    engine::{Condition, Engine},
    event::{Event, Receipt, RunId, StreamKey},
    reason::{Reason, Refusal},
    telemetry::Metrics,
};

/// Bounds of the sequencer.
#[derive(Clone, Debug)]
pub struct Config {
    /// What decisions go by.
    pub rules: Rules,
    /// How many ids of one user are remembered.
    pub dedupe_ids_per_user: usize,
    /// How many events of one user may wait; beyond that calls are refused as `ENGINE_UNAVAILABLE`.
    pub queue_events: usize,
    /// How many bytes of all users' events may wait; beyond that calls are refused as `ENGINE_UNAVAILABLE`.
    pub queue_bytes: usize,
    /// How many users' states are kept at hand; beyond that the one used least recently is dropped and loaded again
    /// when it is needed.
    pub lanes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            dedupe_ids_per_user: 100_000,
            queue_events: 4_096,
            queue_bytes: 256 << 20,
            lanes: 20_000,
        }
    }
}

const SHARDS: usize = 64;

/// How long a lane is kept after it was last driven.
const IDLE: Duration = Duration::from_secs(30);

/// One order per user.
pub struct Sequencer {
    engine: Arc<dyn Engine>,
    clock: Clock,
    entropy: Entropy,
    config: Config,
    metrics: Arc<Metrics>,
    shards: Vec<Mutex<HashMap<StreamKey, Arc<Lane>>>>,
    counts: Arc<Counts>,
    outages: Mutex<OutageBook>,
    unheard: Mutex<Unheard>,
    leases: tokio::sync::Mutex<Leases>,
    sweeps: Mutex<Sweeps>,
    /// Since when events can be stored through this node.
    began_at: Timestamp,
    refused_sources: RefusedSources,
    content_key: Mutex<Option<Known>>,
}

impl Sequencer {
    /// A sequencer that stores in `engine`, which is to answer in time ([`Bounded`](crate::engine::Bounded)).
    pub fn new(
        engine: Arc<dyn Engine>,
        clock: Clock,
        entropy: Entropy,
        config: Config,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            engine,
            leases: Leases::new(&entropy).into(),
            sweeps: Mutex::default(),
            began_at: clock.now(),
            clock,
            entropy,
            config,
            metrics,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            counts: Arc::default(),
            outages: Mutex::default(),
            unheard: Mutex::default(),
            refused_sources: RefusedSources::default(),
            content_key: Mutex::default(),
        })
    }

    /// Stores `events`, all of the stream `stream`, in their order, unless they are refused. Answers are aligned with
    /// `events`. What is under way when the returned future is dropped is finished all the same; what has not begun
    /// when `deadline` passes is refused.
    pub async fn submit(
        self: &Arc<Self>,
        stream: StreamKey,
        events: Vec<Arc<Event>>,
        deadline: Option<Instant>,
    ) -> Vec<Result<Receipt, Refusal>> {
        let count = events.len();
        let answered = self.enqueue_new(stream.clone(), events, Vec::new(), deadline);
        let answers = match answered.await {
            Ok(answers) => answers,
            // The driver ended before its time.
            Err(_) => {
                self.note_not_stored(&stream);
                vec![Err(drive::unknown("the server failed")); count]
            }
        };
        let duplicates = answers.iter().flatten().filter(|receipt| receipt.duplicate);
        self.metrics.duplicates.increment(duplicates.count() as u64);
        answers
    }

    /// Lets go of idle lanes. Called about once a second.
    pub fn maintain(&self) {
        let now = self.clock.now();
        let mut lanes = 0;
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.retain(|_, lane| lane.idle_since().is_none_or(|since| since + IDLE > now));
            if shard.capacity() > 64 && shard.len() < shard.capacity() / 4 {
                shard.shrink_to_fit();
            }
            lanes += shard.len();
        }
        self.metrics.lanes.set(lanes as f64);
        self.metrics.queued.set(self.in_flight() as f64);
    }

    /// How many events are being stored or wait to be.
    pub fn in_flight(&self) -> usize {
        self.counts.events.load(Ordering::Relaxed)
    }

    /// Which sources were refused because another owned the run.
    pub fn refused_sources(&self) -> &RefusedSources {
        &self.refused_sources
    }

    /// Puts work in its user's lane, to be answered by what is returned.
    fn enqueue_new(
        self: &Arc<Self>,
        stream: StreamKey,
        events: Vec<Arc<Event>>,
        judged: Vec<RunId>,
        deadline: Option<Instant>,
    ) -> oneshot::Receiver<Answers> {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            // Counted before it can be driven.
            _counted: Counted::new(self.counts.clone(), &events),
            events,
            judged,
            entered_at: Instant::now(),
            deadline,
            answer,
        };
        self.enqueue(stream, job);
        answered
    }

    /// Puts `job` in its user's lane, and drives the lane if nobody does.
    fn enqueue(self: &Arc<Self>, stream: StreamKey, job: Job) {
        if self.counts.bytes.load(Ordering::Relaxed) > self.config.queue_bytes {
            return self.refuse_overfull(&stream, job);
        }
        match self.push(stream.clone(), job) {
            Ok(lane) => self.start(&lane),
            Err(job) => self.refuse_overfull(&stream, job),
        }
    }

    /// Too much waits already. That is no silence of the user's runs.
    fn refuse_overfull(&self, stream: &StreamKey, job: Job) {
        if !job.events.is_empty() {
            self.note_not_stored(stream);
        }
        job.refuse(&overfull());
    }

    /// Pushed under the shard's lock: a lane with something in its queue is never let go, so a user never has two.
    fn push(&self, stream: StreamKey, job: Job) -> Result<Arc<Lane>, Job> {
        let mut shard = self.shards[stream.bucket() % SHARDS].lock();
        if let Some(lane) = shard.get(&stream) {
            lane.push(job, self.config.queue_events)?;
            return Ok(lane.clone());
        }
        if shard.len() >= self.config.lanes.div_ceil(SHARDS) {
            self.evict_one(&mut shard);
        }
        let lane = Arc::new(Lane::new(stream.clone(), self.clock.now()));
        lane.push(job, self.config.queue_events)?;
        shard.insert(stream, lane.clone());
        Ok(lane)
    }

    /// Drives the lane here if the engine answers at once, else in a task of its own: the driving never depends on
    /// the caller, who may go away.
    fn start(self: &Arc<Self>, lane: &Arc<Lane>) {
        if let Some(driving) = lane.take_over() {
            let mut driver = Box::pin(self.clone().drive(driving));
            if (&mut driver).now_or_never().is_none() {
                tokio::spawn(driver);
            }
        }
    }

    /// Where outages are noted that this node has itself.
    fn outages(&self) -> MutexGuard<'_, OutageBook> {
        let is_unfit = matches!(self.engine.condition(), Condition::Unfit(_));
        let mut outages = self.outages.lock();
        outages.set_timeless(is_unfit);
        outages
    }

    fn evict_one(&self, shard: &mut HashMap<StreamKey, Arc<Lane>>) {
        let idle = |lane: &Arc<Lane>| lane.idle_since();
        let oldest: Option<(Timestamp, StreamKey)> = shard
            .iter()
            .filter_map(|(stream, lane)| Some((idle(lane)?, stream.clone())))
            .min();
        if let Some((_, stream)) = oldest {
            shard.remove(&stream);
            self.metrics.lanes_evicted.increment(1);
        }
    }
}

fn overfull() -> Refusal {
    Refusal::new(
        Reason::EngineUnavailable,
        "too many events wait to be stored",
    )
}
