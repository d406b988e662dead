//! The places of an engine: a part of them may be away, and nodes may put keys by clocks of their own.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex},
};

use emitter::{
    clock::{Clock, Timestamp},
    engine::{DueInReach, EngineError, Key, KeyEntry},
};

/// When keys were put, by the clocks of the nodes that put them.
pub(crate) type PutAt = Arc<Mutex<HashMap<Key, Timestamp>>>;

#[derive(Default)]
pub(crate) struct Places {
    away: Mutex<Away>,
    hung: Mutex<Away>,
    stamps: Mutex<Option<(Clock, PutAt)>>,
}

/// What cannot be reached.
#[derive(Clone, Default)]
struct Away {
    buckets: Range<usize>,
    leases: Range<usize>,
}

impl Places {
    /// What is in `buckets` cannot be reached from now on, nor can the `leases` of these numbers.
    pub(crate) fn set_away(&self, buckets: Range<usize>, leases: Range<usize>) {
        *self.away.lock().unwrap() = Away { buckets, leases };
    }

    /// Calls about the keys in `buckets`, and about these `leases`, are never answered from now on.
    pub(crate) fn hang(&self, buckets: Range<usize>, leases: Range<usize>) {
        *self.hung.lock().unwrap() = Away { buckets, leases };
    }

    /// For ever, if `key` is in a place that hangs.
    pub(super) async fn hang_of(&self, key: &Key) {
        let hung = self.hung.lock().unwrap().clone();
        let hangs = match key {
            Key::Lease(range) => hung.leases.contains(range),
            Key::Acks(stream) => hung.buckets.contains(&stream.bucket()),
            Key::Missed(bucket) => hung.buckets.contains(bucket),
            Key::RunClaim(..) | Key::ContentSecret => false,
        };
        if hangs {
            std::future::pending().await
        }
    }

    /// Keys are put by `clock` from now on; `put_at` is what the nodes share.
    pub(crate) fn stamp_by(&self, clock: &Clock, put_at: &PutAt) {
        *self.stamps.lock().unwrap() = Some((clock.clone(), put_at.clone()));
    }

    pub(super) fn reach(&self, bucket: usize) -> Result<(), EngineError> {
        reached(!self.away.lock().unwrap().buckets.contains(&bucket))
    }

    pub(super) fn reach_key(&self, key: &Key) -> Result<(), EngineError> {
        match key {
            Key::Lease(range) => reached(!self.away.lock().unwrap().leases.contains(range)),
            Key::Acks(stream) => self.reach(stream.bucket()),
            Key::Missed(bucket) => self.reach(*bucket),
            Key::RunClaim(..) | Key::ContentSecret => Ok(()),
        }
    }

    /// What of `found` in `buckets` can be reached.
    pub(super) fn in_reach(&self, mut found: DueInReach, buckets: Range<usize>) -> DueInReach {
        let is_away = |bucket: usize| self.reach(bucket).is_err();
        found.due.retain(|due| !is_away(due.stream.bucket()));
        found
            .out_of_reach
            .extend(buckets.filter(|bucket| is_away(*bucket)));
        found
    }

    /// `key` was put just now.
    pub(super) fn stamp(&self, key: &Key) {
        if let Some((clock, put_at)) = &*self.stamps.lock().unwrap() {
            put_at.lock().unwrap().insert(key.clone(), clock.now());
        }
    }

    /// `entry`, as who put it says when that was.
    pub(super) fn read_stamp(&self, key: &Key, entry: KeyEntry) -> KeyEntry {
        let stamps = self.stamps.lock().unwrap();
        let stamped = stamps
            .as_ref()
            .and_then(|(_, put_at)| put_at.lock().unwrap().get(key).copied());
        let put_at: Timestamp = stamped.unwrap_or(entry.put_at);
        KeyEntry { put_at, ..entry }
    }
}

fn reached(is_there: bool) -> Result<(), EngineError> {
    match is_there {
        true => Ok(()),
        false => Err(EngineError::Unavailable("away".into())),
    }
}
