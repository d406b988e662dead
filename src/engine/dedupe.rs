//! The ids that a stream remembers, so that a retry is answered and not stored again.

use std::{collections::VecDeque, time::Duration};

use crate::{
    clock::Timestamp,
    event::{Adjustments, ContentHash, EventId, IdMap, Position, Receipt, Record, RunSequence},
};

/// What is remembered of an id: enough to tell a retry from a reuse, and to answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DedupeEntry {
    /// The content that was stored under the id.
    pub content: ContentHash,
    /// Where.
    pub position: Position,
    /// Its number in its run.
    pub run_sequence: RunSequence,
    /// When.
    pub recorded_at: Timestamp,
    /// The adjustments of the event.
    pub adjustments: Adjustments,
}

impl DedupeEntry {
    /// What is remembered of `record`.
    pub fn of(record: &Record) -> Self {
        Self {
            content: record.draft.event.content,
            position: record.position,
            run_sequence: record.draft.run_sequence,
            recorded_at: record.draft.recorded_at,
            adjustments: record.draft.event.adjustments.clone(),
        }
    }

    /// The first receipt, for a retry of `event_id`.
    pub fn receipt(&self, event_id: EventId) -> Receipt {
        Receipt {
            event_id,
            position: self.position,
            run_sequence: self.run_sequence,
            recorded_at: self.recorded_at,
            duplicate: true,
            adjustments: self.adjustments.clone(),
        }
    }
}

/// The ids of one stream, oldest first, bounded by age and number. Retention of the log does not touch it.
#[derive(Clone, Debug, Default)]
pub struct DedupeWindow {
    entries: IdMap<EventId, DedupeEntry>,
    order: VecDeque<EventId>,
}

/// What forgetting came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgot {
    /// Ids.
    pub count: usize,
    /// Of these, those forgotten before the window was over.
    pub early: usize,
    /// Bytes given back.
    pub bytes: usize,
}

/// About how many bytes an id takes besides its text: two handles, the entry, what map and allocator add.
const ENTRY_OVERHEAD: usize = 2 * size_of::<EventId>() + size_of::<DedupeEntry>() + 48;

impl DedupeWindow {
    /// What is known of `event_id`.
    pub fn get(&self, event_id: &EventId) -> Option<&DedupeEntry> {
        self.entries.get(event_id)
    }

    /// How many ids are remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// When the oldest id was recorded.
    pub fn oldest(&self) -> Option<Timestamp> {
        let id = self.order.front()?;
        self.entries.get(id).map(|entry| entry.recorded_at)
    }

    /// Remembers the id of `record`. Returns the bytes that this takes, and those that it gives back.
    pub fn insert(&mut self, record: &Record) -> (usize, usize) {
        let id = record.draft.event.event_id.clone();
        self.restore(id, DedupeEntry::of(record))
    }

    /// Remembers `id`, which is the newest. Returns the bytes that this takes, and those that it gives back.
    pub(super) fn restore(&mut self, id: EventId, entry: DedupeEntry) -> (usize, usize) {
        let taken = Self::weight(&id, &entry);
        let known = self.entries.insert(id.clone(), entry);
        // An id that is used again after its window is the newest now; what has expired stands in front.
        let freed = known.as_ref().map_or(0, |known| Self::weight(&id, known));
        let before = known.and_then(|_| self.order.iter().position(|held| *held == id));
        if let Some(before) = before {
            self.order.remove(before);
        }
        self.order.push_back(id);
        (taken, freed)
    }

    /// The ids and what is known of each, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&EventId, &DedupeEntry)> {
        let entry = |id| self.entries.get(id).map(|entry| (id, entry));
        self.order.iter().filter_map(entry)
    }

    /// Forgets ids that are `window` old at `now`, and the oldest while there are more than `limit`.
    pub fn forget(&mut self, now: Timestamp, window: Duration, limit: usize) -> Forgot {
        let mut forgot = Forgot::default();
        while let Some(id) = self.order.front() {
            let expired = self
                .entries
                .get(id)
                .is_none_or(|entry| entry.recorded_at + window <= now);
            if !expired && self.order.len() <= limit {
                break;
            }
            forgot.count += 1;
            forgot.early += usize::from(!expired);
            if let Some(entry) = self.entries.remove(id) {
                forgot.bytes += Self::weight(id, &entry);
            }
            self.order.pop_front();
        }
        if self.order.capacity() > 64 && self.order.len() < self.order.capacity() / 4 {
            self.order.shrink_to_fit();
            self.entries.shrink_to_fit();
        }
        forgot
    }

    /// About how many bytes all of it takes.
    pub(super) fn weigh(&self) -> usize {
        self.iter().map(|(id, entry)| Self::weight(id, entry)).sum()
    }

    fn weight(id: &EventId, entry: &DedupeEntry) -> usize {
        id.as_str().len() + ENTRY_OVERHEAD + entry.adjustments.weight()
    }
}
