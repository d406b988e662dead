//! Storing in two steps: a commit is checked and given its places, and later shown, all of it or nothing. What lies
//! between is the engine's: the durable one writes and syncs there.

use std::sync::{Arc, atomic::Ordering};

use super::{Bucket, Effects, Local, Sums, stream::Stream};
use crate::{
    clock::Timestamp,
    engine::{CONFLICT_RECORDS, Commit},
    event::{Offset, Position, Record, StreamKey},
};

/// Why a commit cannot be stored at the head that it was decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Behind {
    /// That many records came first.
    Records(usize),
    /// Too much happened, or something else: load again.
    Reload,
    /// There is no room.
    Full,
}

impl Local {
    /// Whether `commit` can be stored at `expected`, and fits.
    pub(in crate::engine) fn check(
        &self,
        bucket: &Bucket,
        key: &StreamKey,
        expected: Position,
        commit: &Commit,
        now: Timestamp,
    ) -> Result<(), Behind> {
        let stream = bucket.streams.get(key).map(Box::as_ref);
        match stream {
            Some(stream) => check_head(stream, expected)?,
            // What was evicted after `expected` is not known any more.
            None if expected.epoch != self.epoch || expected.offset < bucket.evicted => {
                return Err(Behind::Reload);
            }
            None => {}
        }
        if expected.offset > self.absent_head().offset {
            return Err(Behind::Reload);
        }
        self.check_room(stream, commit, now)
    }

    /// Whether the commit fits, once retention has made what room it can.
    fn check_room(
        &self,
        stream: Option<&Stream>,
        commit: &Commit,
        now: Timestamp,
    ) -> Result<(), Behind> {
        let weight: usize = commit.drafts.iter().map(|draft| draft.weight()).sum();
        let surplus = stream
            .map(|stream| stream.surplus(&self.config, now, commit.drafts.len(), weight))
            .unwrap_or_default();
        if self.bytes().saturating_sub(surplus.bytes) + weight > self.config.total_bytes {
            return Err(Behind::Full);
        }
        Ok(())
    }

    /// Takes the next `count` offsets, to be shown at once. Returns the one before them.
    pub(in crate::engine) fn take_offsets(&self, count: usize) -> Offset {
        Offset(self.newest.fetch_add(count as u64, Ordering::AcqRel))
    }

    /// Lets `newest` and everything before it be told.
    pub(in crate::engine) fn reached(&self, newest: Offset) {
        self.newest.fetch_max(newest.0, Ordering::AcqRel);
    }

    /// The records that the drafts of `commit` become, the first one behind `base`.
    pub(in crate::engine) fn placed(
        &self,
        stream: &Stream,
        base: Offset,
        commit: Commit,
    ) -> Vec<Arc<Record>> {
        let mut prev = stream.last;
        let placed = (base.0 + 1..).zip(commit.drafts).map(|(offset, draft)| {
            let position = Position::new(self.epoch, Offset(offset));
            let before = std::mem::replace(&mut prev, position.offset);
            Arc::new(Record {
                position,
                prev: before,
                draft,
            })
        });
        placed.collect()
    }

    /// Shows `records`, placed before: takes them into the stream and tells the watchers, all under the bucket's lock:
    /// readers learn of records in the order of their offsets. The sums of usage that changed are put into `sums`.
    pub(in crate::engine) fn show(
        &self,
        bucket: &mut Bucket,
        key: &StreamKey,
        records: &[Arc<Record>],
        sums: Option<&mut Sums>,
    ) {
        let now = self.clock.age_now();
        let head = self.absent_head();
        let stream = self.stream(bucket, key, head, now);
        let effects = self.take_in(stream, records, now);
        for (_, watcher) in &stream.watchers {
            watcher.appended(records);
        }
        self.account(bucket, key, records, sums);
        self.watch_over(bucket, key, &effects);
    }

    /// Takes `records` into the stream.
    fn take_in(&self, stream: &mut Stream, records: &[Arc<Record>], now: Timestamp) -> Effects {
        let (mut taken, mut freed) = (0, 0);
        let ids_before = stream.state.dedupe.len();
        let mut effects = Vec::new();
        for record in records {
            let change = stream.state.apply(record);
            taken += change.taken + record.draft.weight();
            freed += change.freed;
            let forgotten = change.runs_forgotten as u64;
            self.metrics.runs_forgotten_early.increment(forgotten);
            if let Some(run_id) = &record.draft.event.run_id
                && change.effect.concerns_watchdog()
            {
                effects.push((run_id.clone(), change.effect));
            }
            stream.push(record);
        }
        let inserted = stream.state.dedupe.len() - ids_before;
        self.dedupe_ids.fetch_add(inserted, Ordering::Relaxed);
        freed += self.trim(stream, now);
        freed += self.forget_ids(stream, now, records.len());
        stream.touched_at = now;
        self.grow(taken, freed);
        effects
    }
}

/// Whether nothing was recorded after `expected`.
fn check_head(stream: &Stream, expected: Position) -> Result<(), Behind> {
    let head = stream.state.head;
    if expected.epoch != head.epoch || expected.offset < stream.trimmed {
        return Err(Behind::Reload);
    }
    // A stream without records has had no order to lose since any earlier head.
    if expected.offset == stream.last || stream.last == Offset(0) {
        return Ok(());
    }
    if expected.offset > stream.last {
        return Err(Behind::Reload);
    }
    match stream.count_after(expected.offset) {
        missed if missed > CONFLICT_RECORDS => Err(Behind::Reload),
        missed => Err(Behind::Records(missed)),
    }
}
