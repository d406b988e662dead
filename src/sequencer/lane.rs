//! One user's queue, and the driving of it: what waits goes into one append.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    clock::Timestamp,
    engine::StreamState,
    event::{Event, Receipt, RunId, StreamKey},
    reason::Refusal,
};

/// The answers to one job, aligned with its events.
pub(super) type Answers = Vec<Result<Receipt, Refusal>>;

/// Events of one call, to be stored in their order.
pub(super) struct Job {
    pub(super) events: Vec<Arc<Event>>,
    /// Open runs to be looked at by the watchdog, after the events.
    pub(super) judged: Vec<RunId>,
    pub(super) entered_at: Instant,
    pub(super) deadline: Option<Instant>,
    pub(super) answer: oneshot::Sender<Answers>,
    /// Its part in the counts, for as long as it lives.
    pub(super) _counted: Counted,
}

/// Events and bytes that wait or are being stored.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) events: AtomicUsize,
    pub(super) bytes: AtomicUsize,
}

/// A part in the counts, given back when dropped: whatever becomes of a job, the counts do not drift.
pub(super) struct Counted {
    counts: Arc<Counts>,
    events: usize,
    bytes: usize,
}

impl Counted {
    pub(super) fn new(counts: Arc<Counts>, events: &[Arc<Event>]) -> Self {
        let counted = Self {
            counts,
            events: events.len(),
            bytes: bytes_of(events),
        };
        let Counts { events, bytes } = &*counted.counts;
        events.fetch_add(counted.events, Ordering::Relaxed);
        bytes.fetch_add(counted.bytes, Ordering::Relaxed);
        counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Counts { events, bytes } = &*self.counts;
        events.fetch_sub(self.events, Ordering::Relaxed);
        bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// About how many bytes of memory `events` take.
fn bytes_of(events: &[Arc<Event>]) -> usize {
    let weight = |event: &Arc<Event>| size_of::<Event>() + event.body.len();
    events.iter().map(weight).sum()
}

impl Job {
    /// About how many bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        bytes_of(&self.events)
    }

    /// Answers every event with the same refusal; the watchdog gets no answer.
    pub(super) fn refuse(self, refusal: &Refusal) {
        if !self.judged.is_empty() {
            return;
        }
        let answers = vec![Err(refusal.clone()); self.events.len()];
        // The caller may be gone; then nobody needs the answer.
        let _gone = self.answer.send(answers);
    }
}

/// The most events that go into one append, unless a single call has more.
const GROUP_EVENTS: usize = 1_000;

/// The most bytes that go into one append, unless a single call has more.
const GROUP_BYTES: usize = 4 << 20;

/// One active user: what waits, and what is known of its stream while nobody drives it.
pub(super) struct Lane {
    pub(super) stream: StreamKey,
    inner: Mutex<Inner>,
}

struct Inner {
    waiting: VecDeque<Job>,
    waiting_events: usize,
    /// At most one task drives a lane; it holds the state for as long.
    driven: bool,
    state: Option<StreamState>,
    touched_at: Timestamp,
}

/// The state of a lane's stream: none if it must be loaded.
pub(super) type Known = Option<StreamState>;

impl Lane {
    pub(super) fn new(stream: StreamKey, now: Timestamp) -> Self {
        Self {
            stream,
            inner: Mutex::new(Inner {
                waiting: VecDeque::new(),
                waiting_events: 0,
                driven: false,
                state: None,
                touched_at: now,
            }),
        }
    }

    /// Puts `job` in the queue, or gives it back if `limit` events wait already.
    pub(super) fn push(&self, job: Job, limit: usize) -> Result<(), Job> {
        let mut inner = self.inner.lock();
        let waiting = inner.waiting_events + job.events.len();
        if waiting > limit && !inner.waiting.is_empty() {
            return Err(job);
        }
        inner.waiting_events = waiting;
        inner.waiting.push_back(job);
        Ok(())
    }

    /// Takes on the driving, if nobody does it and something waits.
    pub(super) fn take_over(self: &Arc<Self>) -> Option<Driving> {
        let mut inner = self.inner.lock();
        if inner.driven || inner.waiting.is_empty() {
            return None;
        }
        inner.driven = true;
        Some(Driving {
            state: inner.state.take(),
            lane: self.clone(),
            done: false,
        })
    }

    /// When it was last driven, if nobody drives it and nothing waits.
    pub(super) fn idle_since(&self) -> Option<Timestamp> {
        let inner = self.inner.lock();
        (!inner.driven && inner.waiting.is_empty()).then_some(inner.touched_at)
    }
}

/// The right and duty to drive a lane.
pub(super) struct Driving {
    /// What is known of the stream.
    pub(super) state: Known,
    pub(super) lane: Arc<Lane>,
    done: bool,
}

impl Driving {
    /// The jobs that go into the next append; none ends the driving.
    pub(super) fn next_group(&mut self, now: Timestamp) -> Vec<Job> {
        let mut inner = self.lane.inner.lock();
        let mut group = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        while let Some(job) = inner.waiting.front() {
            events += job.events.len();
            bytes += job.bytes();
            if !group.is_empty() && (events > GROUP_EVENTS || bytes > GROUP_BYTES) {
                break;
            }
            if let Some(job) = inner.waiting.pop_front() {
                inner.waiting_events -= job.events.len();
                group.push(job);
            }
        }
        if group.is_empty() {
            inner.driven = false;
            inner.state = self.state.take();
            inner.touched_at = now;
            self.done = true;
        }
        group
    }
}

impl Drop for Driving {
    /// A driver that ends before its time leaves nobody waiting: what waits is answered as unknown, and the state is
    /// loaded again.
    fn drop(&mut self) {
        if !self.done {
            let mut inner = self.lane.inner.lock();
            inner.driven = false;
            inner.waiting.clear();
            inner.waiting_events = 0;
        }
    }
}
