//! Taking in what an earlier process left behind, before anything is asked or appended.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Local, Shelf, Stream, Sums, deadlines::Deadlines, keys::Put};
use crate::{
    clock::Timestamp,
    engine::{DedupeEntry, Key, KeyEntry, StreamState},
    event::{EventId, Offset, Record, RunId, StreamKey, UsageTotals},
    run::Run,
    usage::Series,
};

/// A stream that is being taken in, record by record.
pub(in crate::engine) struct Restoring {
    key: StreamKey,
    stream: Box<Stream>,
    /// The runs are known as the record at this offset left them.
    runs_up_to: Offset,
}

/// What is stored of a stream beside its records.
pub(in crate::engine) struct Stored {
    /// Everything up to here may be gone.
    pub(in crate::engine) trimmed: Offset,
    /// The newest record that was ever there, when this was written.
    pub(in crate::engine) last: Offset,
    /// The runs are as the record at this offset left them.
    pub(in crate::engine) checkpoint: Offset,
    /// The runs, in any order.
    pub(in crate::engine) runs: Vec<(RunId, Run)>,
    /// The ids whose records are gone, oldest first.
    pub(in crate::engine) ids: Vec<(EventId, DedupeEntry)>,
}

impl Local {
    /// Begins to take in a stream.
    pub(in crate::engine) fn begin_restoring(
        &self,
        key: StreamKey,
        shelf: Shelf,
        stored: Stored,
    ) -> Restoring {
        let head = crate::event::Position::new(self.epoch, stored.last);
        let mut state = StreamState::restored(head, stored.runs, stored.ids);
        state.epoch_since = self.epoch_since;
        let now = self.clock.now();
        let mut stream = Stream::new(shelf, state, stored.trimmed, now, self.keeps_records);
        stream.last = stored.last;
        Restoring {
            key,
            stream: Box::new(stream),
            runs_up_to: stored.checkpoint,
        }
    }

    /// Puts the stream in its place. Whether it had records that retention does not cover.
    pub(in crate::engine) fn finish_restoring(&self, restoring: Restoring) -> bool {
        let reach = restoring.reach();
        let Restoring {
            key, mut stream, ..
        } = restoring;
        // Where the newest records are missing, the stream ends before them.
        stream.state.head.offset = reach;
        stream.last = reach;
        let is_trimmed = self.trim(&mut stream, self.clock.now()) > 0;
        let mut taken = Stream::WEIGHT + stream.log_bytes() + stream.state.dedupe.weigh();
        let mut bucket = self.bucket(&key).lock();
        for (run_id, run) in stream.state.runs() {
            taken += run.weight(run_id);
            if run.state.is_open() && bucket.deadlines.arm(&key, run_id, run.own_deadline()) {
                self.open_runs.fetch_add(1, Ordering::Relaxed);
                taken += Deadlines::WEIGHT;
            }
        }
        self.note_earliest(key.bucket(), &bucket.deadlines);
        self.grow(taken, 0);
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.dedupe_ids
            .fetch_add(stream.state.dedupe.len(), Ordering::Relaxed);
        self.shelves.fetch_max(stream.shelf.0, Ordering::Relaxed);
        bucket.streams.insert(key, stream);
        is_trimmed
    }

    /// Takes in how far a bucket's evicted streams reached.
    pub(in crate::engine) fn restore_evicted(&self, bucket: usize, evicted: Offset) {
        if let Some(bucket) = self.buckets.get(bucket) {
            let mut bucket = bucket.lock();
            bucket.evicted = bucket.evicted.max(evicted);
        }
    }

    /// Takes in an entry of the key store.
    pub(in crate::engine) fn restore_key(&self, key: &Key, entry: KeyEntry, expires_at: Timestamp) {
        let ttl: Duration = expires_at.since(entry.put_at);
        let put = self
            .keys
            .put_if_absent(key, entry.value, entry.put_at, ttl, usize::MAX);
        if let Put::Done(change) = put {
            self.grow(change.taken, change.freed);
        }
    }

    /// Takes in a sum of usage.
    pub(in crate::engine) fn restore_sum(&self, bucket: usize, series: Series, sum: UsageTotals) {
        if let Some(bucket) = self.buckets.get(bucket) {
            let taken = bucket.lock().usage.restore(series, sum);
            self.usage_series.fetch_add(1, Ordering::Relaxed);
            self.grow(taken, 0);
        }
    }

    /// Adds up the usage of a record that the stored sums do not have. Those that change are put into `sums`.
    pub(in crate::engine) fn restore_usage(
        &self,
        key: &StreamKey,
        record: Arc<Record>,
        sums: &mut Sums,
    ) {
        self.account(&mut self.bucket(key).lock(), key, &[record], Some(sums));
    }
}

impl Restoring {
    /// Whose stream it is.
    pub(in crate::engine) fn key(&self) -> &StreamKey {
        &self.key
    }

    /// Everything up to here is known to be gone, or is there.
    pub(in crate::engine) fn reach(&self) -> Offset {
        self.stream.newest_kept().unwrap_or(self.stream.trimmed)
    }

    /// Whether it has no records yet.
    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.stream.newest_kept().is_none()
    }

    /// Says that everything up to `offset` may be gone.
    pub(in crate::engine) fn trimmed(&mut self, offset: Offset) {
        self.stream.trimmed = offset;
    }

    /// The runs are known as the record at this offset left them, or a later one.
    pub(in crate::engine) fn runs_up_to(&self) -> Offset {
        self.runs_up_to
    }

    /// Takes in the next record.
    pub(in crate::engine) fn take_in(&mut self, record: &Arc<Record>) {
        if record.position.offset > self.runs_up_to {
            self.stream.state.apply(record);
        } else {
            self.stream.state.remember(record);
        }
        self.stream.push(record);
    }
}
