//! One user's log in memory.

use std::{collections::VecDeque, sync::Arc};

use super::Config;
use crate::{
    clock::Timestamp,
    engine::{Page, ReadLimit, StreamState, Watcher},
    event::{Offset, Position, Record},
};

/// One user's log, its state, and who watches it.
pub(super) struct Stream {
    pub(super) state: StreamState,
    /// The offset of the newest record of this incarnation; 0 if there was none.
    pub(super) last: Offset,
    /// Everything up to here may be gone.
    pub(super) trimmed: Offset,
    pub(super) watchers: Vec<(u64, Arc<dyn Watcher>)>,
    pub(super) touched_at: Timestamp,
    log: VecDeque<Arc<Record>>,
    log_bytes: usize,
}

/// What trimming gives back.
#[derive(Clone, Copy, Default)]
pub(super) struct Trim {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Stream {
    /// About how many bytes a stream takes besides its records, runs and ids.
    pub(super) const WEIGHT: usize = size_of::<Self>() + 96;

    pub(super) fn new(head: Position, trimmed: Offset, now: Timestamp) -> Self {
        Self {
            state: StreamState::empty(head),
            last: Offset(0),
            trimmed,
            watchers: Vec::new(),
            touched_at: now,
            log: VecDeque::new(),
            log_bytes: 0,
        }
    }

    /// Whether nothing holds it in memory.
    pub(super) fn is_idle(&self) -> bool {
        self.log.is_empty() && self.state.is_empty() && self.watchers.is_empty()
    }

    pub(super) fn push(&mut self, record: Arc<Record>) {
        self.last = record.position.offset;
        self.log_bytes += record.draft.weight();
        self.log.push_back(record);
    }

    /// What must go for `records` more of `bytes` in all to fit the retention by number and size, and what is too old
    /// at `now`.
    pub(super) fn surplus(
        &self,
        config: &Config,
        now: Timestamp,
        records: usize,
        bytes: usize,
    ) -> Trim {
        let mut trim = Trim::default();
        for record in &self.log {
            let left = self.log.len() - trim.records + records;
            let left_bytes = self.log_bytes - trim.bytes + bytes;
            let old = record.draft.recorded_at + config.retention_age <= now;
            let fits = left <= config.retention_records && left_bytes <= config.retention_bytes;
            if fits && !old {
                break;
            }
            trim.records += 1;
            trim.bytes += record.draft.weight();
        }
        trim
    }

    /// Drops the oldest records.
    pub(super) fn trim(&mut self, trim: Trim) {
        for record in self.log.drain(..trim.records) {
            self.trimmed = record.position.offset;
        }
        self.log_bytes -= trim.bytes;
        if self.log.capacity() > 64 && self.log.len() < self.log.capacity() / 4 {
            self.log.shrink_to_fit();
        }
    }

    /// The records after `after`, oldest first.
    pub(super) fn after(&self, after: Offset) -> impl ExactSizeIterator<Item = &Arc<Record>> {
        let from = self
            .log
            .partition_point(|record| record.position.offset <= after);
        self.log.range(from..)
    }

    pub(super) fn page(&self, after: Offset, limit: ReadLimit) -> Page {
        let mut bytes = 0;
        let records = self
            .after(after)
            .take(limit.records.max(1))
            .take_while(|record| {
                let first = bytes == 0;
                bytes += record.draft.weight();
                first || bytes <= limit.bytes
            })
            .cloned()
            .collect();
        Page {
            records,
            head: self.state.head,
            trimmed: self.trimmed,
        }
    }
}
