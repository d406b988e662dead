//! The newest records of a user with readers on this node, and the encodings that were made of them.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, futures::Notified};

use super::{Config, Encode, SLOTS};
use crate::{
    clock::Timestamp,
    engine::Watcher,
    event::{Epoch, Offset, Position, Record},
};

/// A record on its way to readers, with the encodings that were made of it so far.
#[derive(Debug)]
pub struct Entry {
    /// The record.
    pub record: Arc<Record>,
    encoded: [OnceLock<Bytes>; SLOTS],
}

impl Entry {
    /// An entry without encodings.
    pub fn new(record: Arc<Record>) -> Self {
        Self {
            record,
            encoded: Default::default(),
        }
    }

    /// The bytes that `encoder` makes of the record: made once, shared from then on.
    pub fn encoded(&self, encoder: &dyn Encode) -> Bytes {
        match self.encoded.get(encoder.slot()) {
            Some(slot) => slot.get_or_init(|| encoder.encode(&self.record)).clone(),
            None => encoder.encode(&self.record),
        }
    }

    /// About how many bytes it takes in the tail, with its encodings.
    fn weight(&self) -> usize {
        2 * self.record.draft.weight()
    }
}

/// The newest records of one user: complete after its floor, bounded in number, bytes and age.
pub(super) struct Tail {
    inner: Mutex<Inner>,
    changed: Notify,
    config: Config,
    /// Bytes in all tails of the hub.
    total: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Inner {
    /// `None` until the first head or record is known.
    reach: Option<Reach>,
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
}

/// What stretch of the stream the tail speaks for.
struct Reach {
    epoch: Epoch,
    /// Every record after this is in `entries`.
    floor: Offset,
    /// The newest position heard of.
    head: Offset,
}

/// What the tail has for a cursor.
pub(super) enum Ahead {
    /// Records after the cursor, and how many there are in all.
    Entries(Vec<Arc<Entry>>, usize),
    /// Nothing yet.
    Nothing,
    /// The tail does not reach back to the cursor: the engine knows.
    AskEngine,
}

impl Tail {
    pub(super) fn new(config: Config, total: Arc<AtomicUsize>) -> Self {
        Self {
            inner: Mutex::default(),
            changed: Notify::new(),
            config,
            total,
        }
    }

    /// Tells the tail where the stream stood when the watch began. A record may have come first.
    pub(super) fn begin(&self, head: Position) {
        self.inner.lock().reach.get_or_insert(Reach {
            epoch: head.epoch,
            floor: head.offset,
            head: head.offset,
        });
    }

    /// Tells the tail a head that the engine named. One of another epoch than the tail's own is news: the tail begins
    /// anew there, and readers of the old epoch look again.
    pub(super) fn saw(&self, head: Position) {
        let inner = self.inner.lock();
        let reach = inner.reach.as_ref();
        if reach.is_some_and(|reach| reach.epoch == head.epoch) {
            return;
        }
        self.begin_anew(inner, head);
    }

    /// Forgets everything up to `head` and lets the readers look again.
    fn begin_anew(&self, mut inner: MutexGuard<'_, Inner>, head: Position) {
        self.clear(&mut inner);
        inner.reach = Some(Reach {
            epoch: head.epoch,
            floor: head.offset,
            head: head.offset,
        });
        drop(inner);
        self.changed.notify_waiters();
    }

    /// What is there for `cursor`: at most `records`, and of at most about `bytes`, but at least one.
    pub(super) fn ahead_of(&self, cursor: Position, records: usize, bytes: usize) -> Ahead {
        let inner = self.inner.lock();
        match &inner.reach {
            Some(reach) if reach.epoch == cursor.epoch && reach.floor <= cursor.offset => {}
            _ => return Ahead::AskEngine,
        }
        let from = inner
            .entries
            .partition_point(|entry| entry.record.position.offset <= cursor.offset);
        let behind = inner.entries.len() - from;
        if behind == 0 {
            return Ahead::Nothing;
        }
        let mut left = bytes;
        let mut entries = Vec::with_capacity(behind.min(records));
        for entry in inner.entries.range(from..).take(records.max(1)) {
            let weight = entry.record.draft.weight();
            if weight > left && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(weight);
            entries.push(entry.clone());
        }
        Ahead::Entries(entries, behind)
    }

    /// Resolves when records come after this call.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Drops what is older than the bound at `now`.
    pub(super) fn age_out(&self, now: Timestamp) {
        let mut inner = self.inner.lock();
        let age = self.config.tail_age;
        while let Some(entry) = inner.entries.front() {
            if entry.record.draft.recorded_at + age > now {
                break;
            }
            self.drop_oldest(&mut inner);
        }
        if inner.entries.is_empty() && inner.entries.capacity() > 0 {
            inner.entries.shrink_to_fit();
        }
    }

    fn push(&self, inner: &mut Inner, record: &Arc<Record>) {
        let Position { epoch, offset } = record.position;
        let reach = inner.reach.get_or_insert(Reach {
            epoch,
            floor: record.prev,
            head: record.prev,
        });
        let hole = reach.epoch != epoch || record.prev > reach.head;
        if !hole && offset <= reach.head {
            return; // heard of before
        }
        *reach = Reach {
            epoch,
            floor: if hole { record.prev } else { reach.floor },
            head: offset,
        };
        if hole {
            self.clear(inner);
        }
        let entry = Arc::new(Entry::new(record.clone()));
        inner.bytes += entry.weight();
        self.total.fetch_add(entry.weight(), Ordering::Relaxed);
        inner.entries.push_back(entry);
    }

    fn clear(&self, inner: &mut Inner) {
        self.total.fetch_sub(inner.bytes, Ordering::Relaxed);
        inner.entries.clear();
        inner.bytes = 0;
    }

    fn drop_oldest(&self, inner: &mut Inner) {
        if let Some(entry) = inner.entries.pop_front() {
            inner.bytes -= entry.weight();
            self.total.fetch_sub(entry.weight(), Ordering::Relaxed);
            if let Some(reach) = &mut inner.reach {
                reach.floor = entry.record.position.offset;
            }
        }
    }

    /// Whether the tail must give up its oldest record. Readers that need it read the engine.
    fn is_over(&self, inner: &Inner) -> bool {
        inner.entries.len() > self.config.tail_records
            || inner.bytes > self.config.tail_bytes
            || self.total.load(Ordering::Relaxed) > self.config.tail_total_bytes
    }
}

impl Watcher for Tail {
    fn stands_at(&self, head: Position) {
        let inner = self.inner.lock();
        let knows = |reach: &Reach| reach.epoch == head.epoch && reach.head >= head.offset;
        if inner.reach.as_ref().is_some_and(knows) {
            return;
        }
        // What was missed is read from the engine.
        self.begin_anew(inner, head);
    }

    fn appended(&self, records: &[Arc<Record>]) {
        {
            let mut inner = self.inner.lock();
            for record in records {
                self.push(&mut inner, record);
                while !inner.entries.is_empty() && self.is_over(&inner) {
                    self.drop_oldest(&mut inner);
                }
            }
        }
        self.changed.notify_waiters();
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.total
            .fetch_sub(self.inner.get_mut().bytes, Ordering::Relaxed);
    }
}
