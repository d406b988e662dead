//! Storing: all of a commit or nothing, at the head that it was decided on.

use std::sync::{Arc, atomic::Ordering};

use super::{Effects, Inner, stream::Stream};
use crate::{
    clock::Timestamp,
    engine::{AppendError, Appended, CONFLICT_RECORDS, Commit},
    event::{Offset, Position, Record, StreamKey},
};

impl Inner {
    pub(super) fn append(
        &self,
        key: &StreamKey,
        expected: Position,
        commit: Commit,
    ) -> Result<Appended, AppendError> {
        let now = self.clock.now();
        let mut bucket = self.bucket(key).lock();
        let evicted = bucket.evicted;
        match bucket.streams.get(key) {
            Some(stream) => check_head(stream, expected)?,
            // What was evicted after `expected` is not known any more.
            None if expected.epoch != self.epoch || expected.offset < evicted => {
                return Err(AppendError::Reload);
            }
            None => {}
        }
        if expected.offset > self.absent_head().offset {
            return Err(AppendError::Reload);
        }
        self.check_room(bucket.streams.get(key).map(Box::as_ref), &commit, now)?;
        let stream = self.stream(&mut bucket, key, expected, now);
        let (appended, effects) = self.store(stream, commit, now);
        self.account(&mut bucket, key, &appended.records);
        self.watch_over(&mut bucket, key, &effects);
        Ok(appended)
    }

    /// Whether the commit fits, once retention has made what room it can.
    fn check_room(
        &self,
        stream: Option<&Stream>,
        commit: &Commit,
        now: Timestamp,
    ) -> Result<(), AppendError> {
        let weight: usize = commit.drafts.iter().map(|draft| draft.weight()).sum();
        let surplus = stream
            .map(|stream| stream.surplus(&self.config, now, commit.drafts.len(), weight))
            .unwrap_or_default();
        let held = self.bytes.load(Ordering::Relaxed);
        if held.saturating_sub(surplus.bytes) + weight > self.config.total_bytes {
            return Err(AppendError::Full);
        }
        Ok(())
    }

    /// Gives the drafts their places, stores them, and tells the watchers, all under the bucket's lock: readers learn
    /// of records in the order of their offsets.
    fn store(&self, stream: &mut Stream, commit: Commit, now: Timestamp) -> (Appended, Effects) {
        let count = commit.drafts.len();
        let base = self.newest.fetch_add(count as u64, Ordering::AcqRel);
        let (mut taken, mut freed) = (0, 0);
        let ids_before = stream.state.dedupe.len();
        let mut records = Vec::with_capacity(count);
        let mut effects = Vec::new();
        for (offset, draft) in (base + 1..).zip(commit.drafts) {
            let record = Arc::new(Record {
                position: Position::new(self.epoch, Offset(offset)),
                prev: stream.last,
                draft,
            });
            let change = stream.state.apply(&record);
            taken += change.taken + record.draft.weight();
            freed += change.freed;
            let forgotten = change.runs_forgotten as u64;
            self.metrics.runs_forgotten_early.increment(forgotten);
            if let Some(run_id) = &record.draft.event.run_id
                && change.effect.concerns_watchdog()
            {
                effects.push((run_id.clone(), change.effect));
            }
            stream.push(record.clone());
            records.push(record);
        }
        let inserted = stream.state.dedupe.len() - ids_before;
        self.dedupe_ids.fetch_add(inserted, Ordering::Relaxed);
        freed += self.trim(stream, now);
        freed += self.forget_ids(stream, now, count);
        stream.touched_at = now;
        self.grow(taken, freed);
        for (_, watcher) in &stream.watchers {
            watcher.appended(&records);
        }
        (Appended { records }, effects)
    }
}

/// Whether nothing was recorded after `expected`.
fn check_head(stream: &Stream, expected: Position) -> Result<(), AppendError> {
    let head = stream.state.head;
    if expected.epoch != head.epoch || expected.offset < stream.trimmed {
        return Err(AppendError::Reload);
    }
    // A stream without records has had no order to lose since any earlier head.
    if expected.offset == stream.last || stream.last == Offset(0) {
        return Ok(());
    }
    if expected.offset > stream.last {
        return Err(AppendError::Reload);
    }
    let delta = stream.after(expected.offset);
    if delta.len() > CONFLICT_RECORDS {
        return Err(AppendError::Reload);
    }
    Err(AppendError::Conflict(delta.cloned().collect()))
}
