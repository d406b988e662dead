//! One user's log as one process knows it.

use std::{collections::VecDeque, sync::Arc};

use super::Config;
use crate::{
    clock::Timestamp,
    engine::{ReadLimit, StreamState, Watcher},
    event::{Offset, Position, Record},
};

/// Where an engine that keeps records elsewhere keeps those of one stream. Never used for another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::engine) struct Shelf(pub(in crate::engine) u64);

/// One user's log, its state, and who watches it.
pub(in crate::engine) struct Stream {
    pub(in crate::engine) state: StreamState,
    pub(in crate::engine) shelf: Shelf,
    /// The offset of the newest record of this incarnation; 0 if there was none.
    pub(in crate::engine) last: Offset,
    /// Everything up to here may be gone.
    pub(in crate::engine) trimmed: Offset,
    pub(in crate::engine) watchers: Vec<(u64, Arc<dyn Watcher>)>,
    pub(in crate::engine) touched_at: Timestamp,
    /// Records were placed and are not shown yet.
    pub(in crate::engine) is_pending: bool,
    log: VecDeque<Kept>,
    log_bytes: usize,
    keeps_records: bool,
}

/// A record of the log.
pub(in crate::engine) struct Kept {
    pub(in crate::engine) offset: Offset,
    weight: usize,
    recorded_at: Timestamp,
    /// The record, where it is kept here.
    record: Option<Arc<Record>>,
}

/// What trimming gives back.
#[derive(Clone, Copy, Default)]
pub(in crate::engine) struct Trim {
    pub(in crate::engine) records: usize,
    pub(in crate::engine) bytes: usize,
}

/// A stretch of a log: which records there are, and those of them that are kept here.
pub(in crate::engine) struct Stretch {
    /// The offset of the last of them; none without records.
    pub(in crate::engine) last: Option<Offset>,
    /// The records, where they are kept here.
    pub(in crate::engine) records: Vec<Arc<Record>>,
    /// The head.
    pub(in crate::engine) head: Position,
    /// Everything up to here may be gone.
    pub(in crate::engine) trimmed: Offset,
}

impl Stream {
    /// About how many bytes a stream takes besides its records, runs and ids.
    pub(in crate::engine) const WEIGHT: usize = size_of::<Self>() + 96;

    pub(in crate::engine) fn new(
        shelf: Shelf,
        state: StreamState,
        trimmed: Offset,
        now: Timestamp,
        keeps_records: bool,
    ) -> Self {
        Self {
            state,
            shelf,
            last: Offset(0),
            trimmed,
            watchers: Vec::new(),
            touched_at: now,
            is_pending: false,
            log: VecDeque::new(),
            log_bytes: 0,
            keeps_records,
        }
    }

    /// Whether nothing holds it in memory.
    pub(in crate::engine) fn is_idle(&self) -> bool {
        let holds_nothing = self.log.is_empty() && self.state.is_empty();
        holds_nothing && self.watchers.is_empty() && !self.is_pending
    }

    pub(in crate::engine) fn push(&mut self, record: &Arc<Record>) {
        let kept = Kept {
            offset: record.position.offset,
            weight: record.draft.weight(),
            recorded_at: record.draft.recorded_at,
            record: self.keeps_records.then(|| record.clone()),
        };
        self.last = kept.offset;
        self.log_bytes += kept.weight;
        self.log.push_back(kept);
    }

    /// What must go for `records` more of `bytes` in all to fit the retention by number and size, and what is too old
    /// at `now`.
    pub(in crate::engine) fn surplus(
        &self,
        config: &Config,
        now: Timestamp,
        records: usize,
        bytes: usize,
    ) -> Trim {
        let mut trim = Trim::default();
        for kept in &self.log {
            let left = self.log.len() - trim.records + records;
            let left_bytes = self.log_bytes - trim.bytes + bytes;
            let old = kept.recorded_at + config.retention_age <= now;
            let fits = left <= config.retention_records && left_bytes <= config.retention_bytes;
            if fits && !old {
                break;
            }
            trim.records += 1;
            trim.bytes += kept.weight;
        }
        trim
    }

    /// Drops the oldest records.
    pub(in crate::engine) fn trim(&mut self, trim: Trim) {
        for kept in self.log.drain(..trim.records) {
            self.trimmed = kept.offset;
        }
        self.log_bytes -= trim.bytes;
        if self.log.capacity() > 64 && self.log.len() < self.log.capacity() / 4 {
            self.log.shrink_to_fit();
        }
    }

    /// How many bytes of records there are.
    pub(in crate::engine) fn log_bytes(&self) -> usize {
        self.log_bytes
    }

    /// The offset of the newest record that is retained.
    pub(in crate::engine) fn newest_kept(&self) -> Option<Offset> {
        self.log.back().map(|kept| kept.offset)
    }

    /// How many records there are after `after`.
    pub(in crate::engine) fn count_after(&self, after: Offset) -> usize {
        self.after(after).len()
    }

    /// What there is after `after`, oldest first, within `limit`.
    pub(in crate::engine) fn stretch(&self, after: Offset, limit: ReadLimit) -> Stretch {
        let mut bytes = 0;
        let mut stretch = Stretch {
            last: None,
            records: Vec::new(),
            head: self.state.head,
            trimmed: self.trimmed,
        };
        for kept in self.after(after).take(limit.records.max(1)) {
            bytes += kept.weight;
            if bytes > limit.bytes && stretch.last.is_some() {
                break;
            }
            stretch.last = Some(kept.offset);
            stretch.records.extend(kept.record.clone());
        }
        stretch
    }

    fn after(&self, after: Offset) -> impl ExactSizeIterator<Item = &Kept> {
        let from = self.log.partition_point(|kept| kept.offset <= after);
        self.log.range(from..)
    }
}
