//! A group of requests: checked, placed, written in one batch, made safe, and only then shown and answered.

use std::{collections::HashSet, sync::Arc};

use fjall::PersistMode;
use prost::Message;
use tokio::sync::oneshot;

use super::{
    health::Health,
    read_records,
    store::{Batch, StoreError, Tag, key_name},
    totals::Totals,
    writer::{Change, Changed, Request, Writer},
};
use crate::{
    clock::Timestamp,
    engine::{
        AppendError, Appended, EngineError, Key,
        local::{Behind, Shelf},
        stored,
    },
    event::{Offset, Position, Record, StreamKey},
    proto::stored as proto,
};

/// Requests that may go into one batch: none depends on another.
pub(super) struct Group {
    requests: Vec<Request>,
    streams: HashSet<StreamKey>,
    keys: HashSet<Key>,
    bytes: usize,
}

/// An append that has its places and is not shown yet.
pub(super) struct Placed {
    pub(super) key: StreamKey,
    pub(super) shelf: Shelf,
    pub(super) records: Vec<Arc<Record>>,
    answer: oneshot::Sender<Result<Appended, AppendError>>,
}

/// A change of a key that is written and not shown yet.
struct Written {
    change: Change,
    answer: oneshot::Sender<Result<Changed, EngineError>>,
}

impl Group {
    pub(super) fn new() -> Self {
        Self {
            requests: Vec::new(),
            streams: HashSet::new(),
            keys: HashSet::new(),
            bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the request in, or gives it back if it depends on one that is in already.
    pub(super) fn admit(&mut self, request: Request) -> Option<Request> {
        let is_new = match &request {
            Request::Append { key, commit, .. } => {
                let weight = commit.drafts.iter().map(|draft| draft.weight());
                self.bytes += weight.sum::<usize>();
                self.streams.insert(key.clone())
            }
            Request::Key { change, .. } => self.keys.insert(change.key.clone()),
            Request::Swept(_) | Request::Close(_) => true,
        };
        if !is_new {
            return Some(request);
        }
        self.requests.push(request);
        None
    }
}

impl Writer {
    /// Stores the group, all of it or nothing, and answers.
    pub(super) fn settle(&mut self, group: Group) {
        if let Health::Broken(broken) = &self.health {
            for request in group.requests {
                broken.refuse(request);
            }
            return;
        }
        let slot = self.slot.clone();
        let slot = slot.read();
        let Some(store) = slot.as_ref() else {
            return;
        };
        let mut totals = self.totals;
        totals.group += 1;
        let mut batch = store.batch();
        let (mut placed, mut written) = (Vec::new(), Vec::new());
        for request in group.requests {
            match request {
                Request::Append {
                    key,
                    expected,
                    commit,
                    answer,
                } => {
                    let append = self.place(&mut batch, &mut totals, (key, expected), commit);
                    match append {
                        Ok((key, shelf, records)) => placed.push(Placed {
                            key,
                            shelf,
                            records,
                            answer,
                        }),
                        Err(error) => {
                            let _gone = answer.send(Err(error));
                        }
                    }
                }
                Request::Key { change, answer } => match self.check_key(&change) {
                    None if change.expected.is_none()
                        && !self.local.has_room(&change.key, &change.value) =>
                    {
                        let _gone = answer.send(Err(EngineError::Full));
                    }
                    None => {
                        self.write_key(&mut batch, &change);
                        written.push(Written { change, answer });
                    }
                    Some(there) => {
                        let _gone = answer.send(Ok(there));
                    }
                },
                Request::Swept(_) | Request::Close(_) => {}
            }
        }
        let keys = &group.keys;
        if let Err(error) = self.do_chores(store, (&mut batch, keys), &mut totals) {
            // What was asked for does not depend on it.
            tracing::warn!(%error, "retention could not read the directory");
        }
        let done = self.commit(batch, &mut totals);
        if done.is_ok() {
            self.chores.compact(store, &totals);
        }
        drop(slot);
        match done {
            Ok(()) => {
                self.totals = totals;
                self.chores.written();
                self.show(placed, written);
            }
            Err(error) => {
                for change in written {
                    let error = EngineError::Unavailable("the directory cannot be written".into());
                    let _gone = change.answer.send(Err(error));
                }
                self.fail(&error, placed);
            }
        }
    }

    /// Writes the batch and makes it as safe as is asked, and says so.
    fn commit(&mut self, mut batch: Batch<'_>, totals: &mut Totals) -> Result<(), StoreError> {
        if batch.len() == 0 {
            *totals = self.totals;
            return Ok(());
        }
        totals.write(&mut batch);
        let mode = self.mode();
        self.told.at_the_disk(|| batch.commit(mode))?;
        self.wrote();
        let acknowledged = self.witness.acknowledged(totals.group);
        Ok(acknowledged.map_err(fjall::Error::Io)?)
    }

    /// Checks an append and writes its records.
    fn place(
        &mut self,
        batch: &mut Batch<'_>,
        totals: &mut Totals,
        (key, expected): (StreamKey, Position),
        commit: crate::engine::Commit,
    ) -> Result<(StreamKey, Shelf, Vec<Arc<Record>>), AppendError> {
        let local = self.local.clone();
        let now = local.clock.age_now();
        let mut bucket = local.bucket(&key).lock();
        if let Err(behind) = local.check(&bucket, &key, expected, &commit, now) {
            drop(bucket);
            return Err(self.refusal(&key, expected, behind));
        }
        let base = totals.newest;
        totals.newest = Offset(base.0 + commit.drafts.len() as u64);
        let stream = local.stream(&mut bucket, &key, expected, now);
        stream.is_pending = true;
        let (shelf, trimmed) = (stream.shelf, stream.trimmed);
        let records = local.placed(stream, base, commit);
        drop(bucket);
        self.chores.begin(batch, (&key, shelf), trimmed);
        for record in &records {
            let offset = record.position.offset;
            batch.put_record(shelf, offset, &stored::encode_record(record));
            totals.add(offset);
        }
        Ok((key, shelf, records))
    }

    /// Why a commit is refused: with what came first, if that is little.
    fn refusal(&self, key: &StreamKey, expected: Position, behind: Behind) -> AppendError {
        let missed = match behind {
            Behind::Records(missed) => missed,
            Behind::Reload => return AppendError::Reload,
            Behind::Full => return AppendError::Full,
        };
        let limit = crate::engine::ReadLimit {
            records: missed,
            bytes: usize::MAX,
        };
        let (shelf, stretch) = self.local.stretch(key, expected.offset, limit);
        let (Some(last), Some(store)) = (stretch.last, &*self.slot.read()) else {
            return AppendError::Reload;
        };
        let span = (expected.offset, last);
        match read_records(store, key, shelf, self.local.epoch, span) {
            Ok(records) if records.len() == missed => AppendError::Conflict(records),
            Ok(_) => AppendError::Reload,
            Err(error) => AppendError::Unavailable(error.to_string()),
        }
    }

    /// What keeps a key from being changed.
    fn check_key(&self, change: &Change) -> Option<Changed> {
        let there = self.local.get(&change.key);
        let as_expected = match (&there, &change.expected) {
            (None, None) => true,
            (Some(there), Some(expected)) => there.value == *expected,
            _ => false,
        };
        (!as_expected).then_some(Changed::Not(there))
    }

    fn write_key(&self, batch: &mut Batch<'_>, change: &Change) {
        let now = self.local.clock.now();
        let entry = proto::KeyEntry {
            put_at: now.as_millis(),
            expires_at: (now + change.ttl).as_millis(),
            value: change.value.clone(),
        };
        batch.put(Tag::Key, &key_name(&change.key), &entry.encode_to_vec());
    }

    /// Shows what is stored, and answers.
    fn show(&mut self, placed: Vec<Placed>, written: Vec<Written>) {
        for Written { change, answer } in written {
            let Change {
                key, value, ttl, ..
            } = change;
            self.local.set(&key, value, ttl);
            let _gone = answer.send(Ok(Changed::Done));
        }
        for append in placed {
            self.show_one(&append);
            let Placed {
                records, answer, ..
            } = append;
            let _gone = answer.send(Ok(Appended { records }));
        }
    }

    /// Shows the records of one append.
    pub(super) fn show_one(&mut self, append: &Placed) {
        let Placed { key, records, .. } = append;
        let local = self.local.clone();
        let mut bucket = local.bucket(key).lock();
        if let Some(last) = records.last() {
            local.reached(last.position.offset);
        }
        local.show(&mut bucket, key, records, Some(&mut self.sums));
        if let Some(stream) = bucket.streams.get_mut(key) {
            stream.is_pending = false;
            self.chores.shown(stream, records);
        }
    }

    /// Lets an append go that was not stored.
    pub(super) fn let_go(&self, key: &StreamKey) {
        if let Some(stream) = self.local.bucket(key).lock().streams.get_mut(key) {
            stream.is_pending = false;
        }
    }
}

impl Placed {
    /// Answers that nobody knows, and keeps what is to be shown if it turns out to be stored.
    pub(super) fn in_doubt(self) -> Self {
        let (answer, _) = oneshot::channel();
        let Self {
            key,
            shelf,
            records,
            answer: asked,
        } = self;
        let _gone = asked.send(Err(AppendError::Unknown("writing failed".into())));
        Self {
            key,
            shelf,
            records,
            answer,
        }
    }
}

/// When something was recorded, for comparing with a window.
pub(super) fn is_within(
    recorded_at: Timestamp,
    window: std::time::Duration,
    now: Timestamp,
) -> bool {
    recorded_at + window > now
}

/// The mode that makes everything safe, names of files included.
pub(super) const SAFEST: PersistMode = PersistMode::SyncAll;
