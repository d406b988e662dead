//! The channel of a stream that is watched on this node, its listeners, and what they hear.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::sync::watch;

use crate::{
    engine::{Watcher, stored},
    event::{Offset, Position, Record, StreamKey},
};

/// The most records that wait for a watch to begin; beyond that the head is read again.
const WAITING: usize = 1_024;

/// The channel of a stream that is watched here.
pub(super) struct Channel {
    pub(super) stream: StreamKey,
    pub(super) listeners: Vec<Listener>,
    /// The shard that was asked last to publish it here: the only one that is heard. 0 is none.
    pub(super) shard: u64,
    pub(super) subscribed: watch::Sender<bool>,
    /// The newest head that the listeners were told of.
    pub(super) told: Option<Position>,
}

/// One who watches a stream.
pub(super) struct Listener {
    pub(super) id: u64,
    watcher: Arc<dyn Watcher>,
    stage: Stage,
}

/// How far a watch is.
enum Stage {
    /// Its head is not known yet: what came in since, and whether that was too much.
    Begins(Vec<Arc<Record>>, bool),
    /// It hears of everything after this.
    Goes(Position),
}

/// What an append published.
pub(super) struct Hint {
    pub(super) head: Position,
    /// All that were appended, or none because they are too large.
    pub(super) records: Vec<Arc<Record>>,
}

impl Channel {
    /// One without listeners, of which nobody was asked.
    pub(super) fn of(stream: StreamKey) -> Self {
        Self {
            stream,
            listeners: Vec::new(),
            shard: 0,
            subscribed: watch::Sender::new(false),
            told: None,
        }
    }

    pub(super) fn is_subscribed(&self) -> bool {
        *self.subscribed.borrow()
    }

    pub(super) fn is_behind(&self, head: Position) -> bool {
        self.told
            .is_none_or(|told| told.epoch != head.epoch || told.offset < head.offset)
    }

    pub(super) fn hear(&mut self, hint: &Hint) {
        if hint.records.is_empty() {
            return self.stand_at(hint.head);
        }
        self.told = Some(hint.head);
        for listener in &mut self.listeners {
            listener.hear(&hint.records);
        }
    }

    pub(super) fn stand_at(&mut self, head: Position) {
        self.told = Some(head);
        for listener in &mut self.listeners {
            listener.stand_at(head);
        }
    }
}

impl Listener {
    pub(super) fn new(id: u64, watcher: Arc<dyn Watcher>) -> Self {
        Self {
            id,
            watcher,
            stage: Stage::Begins(Vec::new(), false),
        }
    }

    /// Begins at `head` with what came since. Whether it could; else that was too much.
    pub(super) fn begin(&mut self, head: Position) -> bool {
        let Stage::Begins(waiting, too_many) = &mut self.stage else {
            return true;
        };
        let waiting = std::mem::take(waiting);
        if std::mem::take(too_many) {
            return false;
        }
        self.stage = Stage::Goes(head);
        self.hear(&waiting);
        true
    }

    /// The stream stands at `head`.
    pub(super) fn stand_at(&mut self, head: Position) {
        match &mut self.stage {
            Stage::Begins(_, too_many) => *too_many = true,
            Stage::Goes(_) => self.watcher.stands_at(head),
        }
    }

    /// These were appended.
    pub(super) fn hear(&mut self, records: &[Arc<Record>]) {
        let after = match &mut self.stage {
            Stage::Begins(waiting, too_many) => {
                waiting.extend_from_slice(records);
                if waiting.len() > WAITING {
                    waiting.clear();
                    *too_many = true;
                }
                return;
            }
            Stage::Goes(after) => *after,
        };
        let is_new = |record: &Arc<Record>| {
            record.position.epoch != after.epoch || record.position.offset > after.offset
        };
        // Records of one epoch come in order.
        let from = records.iter().position(is_new).unwrap_or(records.len());
        let new = records.get(from..).unwrap_or_default();
        if let Some(last) = new.last() {
            self.stage = Stage::Goes(last.position);
            self.watcher.appended(new);
        }
    }
}

impl Hint {
    /// Epoch, first and last offset, and the records, each after its length.
    pub(super) fn read(stream: &StreamKey, mut payload: Bytes) -> Option<Self> {
        if payload.len() < 32 {
            return None;
        }
        let epoch = str::from_utf8(&payload.split_to(16)).ok()?.parse().ok()?;
        let (first, last) = (payload.get_u64(), payload.get_u64());
        let mut records = Vec::new();
        while payload.has_remaining() {
            let length = usize::try_from(payload.try_get_u32().ok()?).ok()?;
            if length > payload.len() {
                return None;
            }
            let offset = Offset(first.checked_add(records.len() as u64)?);
            let position = Position::new(epoch, offset);
            let record = stored::decode_record(stream, position, payload.split_to(length)).ok()?;
            records.push(Arc::new(record));
        }
        Some(Self {
            head: Position::new(epoch, Offset(last)),
            records,
        })
    }
}
