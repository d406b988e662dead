//! The memory engine's key store.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    clock::Timestamp,
    engine::{Change, Key, KeyEntry},
};

const SHARDS: usize = 64;

/// Keys with values that expire.
pub(in crate::engine) struct KeyStore {
    shards: Vec<Mutex<HashMap<Key, Stored>>>,
    hasher: RandomState,
}

struct Stored {
    entry: KeyEntry,
    expires_at: Timestamp,
}

/// What putting a key came to.
pub(in crate::engine) enum Put {
    /// It was put.
    Done(Change),
    /// This is there.
    There(KeyEntry),
    /// There is no room for it.
    Full,
}

impl KeyStore {
    pub(in crate::engine) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// About how many bytes a key takes.
    pub(in crate::engine) fn weight(key: &Key, value: &Bytes) -> usize {
        const MAP: usize = 16; // what a map adds to an entry at its usual load
        const OWNER: usize = 96; // a stream's key, and what the allocator adds
        let held = match key {
            Key::RunClaim(_, run_id) => run_id.as_str().len(),
            Key::Acks(stream) => {
                OWNER + stream.tenant().as_str().len() + stream.user().as_str().len()
            }
            Key::Lease(_) | Key::Missed(_) | Key::ContentSecret => 0,
        };
        held + value.len() + size_of::<(Key, Stored)>() + MAP
    }

    /// What is under `key` at `now`.
    pub(in crate::engine) fn get(&self, key: &Key, now: Timestamp) -> Option<KeyEntry> {
        let shard = self.shard(key).lock();
        let stored = shard.get(key).filter(|stored| stored.expires_at > now);
        stored.map(|stored| stored.entry.clone())
    }

    /// Puts `value` if nothing is there and it takes no more than `room` bytes.
    pub(in crate::engine) fn put_if_absent(
        &self,
        key: &Key,
        value: Bytes,
        now: Timestamp,
        ttl: Duration,
        room: usize,
    ) -> Put {
        let taken = Self::weight(key, &value);
        let stored = Stored {
            entry: KeyEntry { value, put_at: now },
            expires_at: now + ttl,
        };
        match self.shard(key).lock().entry(key.clone()) {
            Entry::Occupied(mut there) => {
                if there.get().expires_at > now {
                    return Put::There(there.get().entry.clone());
                }
                let freed = Self::weight(key, &there.get().entry.value);
                if taken > room + freed {
                    return Put::Full;
                }
                there.insert(stored);
                Put::Done(Change {
                    taken,
                    freed,
                    ..Change::default()
                })
            }
            Entry::Vacant(_) if taken > room => Put::Full,
            Entry::Vacant(place) => {
                place.insert(stored);
                Put::Done(Change {
                    taken,
                    ..Change::default()
                })
            }
        }
    }

    /// Puts `value`, whatever is there. Returns the bytes taken and given back.
    pub(in crate::engine) fn set(
        &self,
        key: &Key,
        value: Bytes,
        now: Timestamp,
        ttl: Duration,
    ) -> Change {
        let taken = Self::weight(key, &value);
        let stored = Stored {
            entry: KeyEntry { value, put_at: now },
            expires_at: now + ttl,
        };
        let before = self.shard(key).lock().insert(key.clone(), stored);
        Change {
            taken,
            freed: before.map_or(0, |before| Self::weight(key, &before.entry.value)),
            ..Change::default()
        }
    }

    pub(in crate::engine) fn compare_and_set(
        &self,
        key: &Key,
        expected: &Bytes,
        value: Bytes,
        now: Timestamp,
        ttl: Duration,
    ) -> bool {
        match self.shard(key).lock().get_mut(key) {
            Some(stored) if stored.expires_at > now && stored.entry.value == *expected => {
                stored.entry = KeyEntry { value, put_at: now };
                stored.expires_at = now + ttl;
                true
            }
            _ => false,
        }
    }

    /// Drops what has expired in the `turn`th part of the store, and adds its keys to `expired`. Returns the bytes given
    /// back.
    pub(in crate::engine) fn expire(
        &self,
        turn: usize,
        now: Timestamp,
        expired: &mut Vec<Key>,
    ) -> usize {
        let mut freed = 0;
        if let Some(shard) = self.shards.get(turn % SHARDS) {
            let mut shard = shard.lock();
            shard.retain(|key, stored| {
                let keep = stored.expires_at > now;
                if !keep {
                    freed += Self::weight(key, &stored.entry.value);
                    expired.push(key.clone());
                }
                keep
            });
            if shard.capacity() > 64 && shard.len() < shard.capacity() / 4 {
                shard.shrink_to_fit();
            }
        }
        freed
    }

    /// How many turns make a round.
    pub(in crate::engine) const fn turns() -> usize {
        SHARDS
    }

    fn shard(&self, key: &Key) -> &Mutex<HashMap<Key, Stored>> {
        let hash = self.hasher.hash_one(key) as usize;
        &self.shards[hash % SHARDS]
    }
}
