//! What an earlier process left in a directory: taken in whole, or refused. A hole in a stream ends it there, under a
//! new epoch; everything else that does not fit together is damage.

use std::{collections::HashMap, iter::Peekable, sync::Arc};

use bytes::Bytes;
use prost::Message;

use super::{
    OpenError,
    group::SAFEST,
    housekeeping::Shelved,
    store::{self, Store, StoreError, Tag},
    totals::{Totals, mixed},
    witness::Testimony,
};
use crate::{
    clock::{Clock, Entropy, Timestamp},
    engine::{
        KeyEntry,
        local::{Local, Restoring, Shelf, Stored, Sums},
        stored::{self, Corrupt},
    },
    event::{Epoch, Offset, Position, Record, StreamKey, Tenant, UserId},
    proto::stored as proto,
};

/// A stream in the directory, as its writer knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OnDisk {
    /// Every record up to here was removed.
    pub(super) trimmed: Offset,
    /// The runs' rows are as the record at this offset left them.
    pub(super) checkpoint: Offset,
}

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    /// Streams by their shelves.
    pub(super) streams: HashMap<Shelf, Shelved>,
    /// How many records.
    pub(super) records: u64,
    /// Their fingerprint.
    pub(super) fingerprint: u64,
    /// The newest offset of a record.
    pub(super) newest: Offset,
    /// The shelves of streams with records that retention does not cover.
    pub(super) trims: Vec<Shelf>,
    /// Streams whose removal was not finished: each with its shelf, and the highest offset that it had.
    pub(super) left: Vec<(StreamKey, Shelf, Offset)>,
    /// Sums of usage that their rows do not have yet.
    pub(super) sums: Sums,
    /// Where streams end before their last records, because those between are missing.
    pub(super) holes: Vec<Hole>,
}

/// Records are missing from a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    /// Where its records lie.
    pub(super) shelf: Shelf,
    /// The last record before the hole.
    pub(super) after: Offset,
    /// The newest record behind it.
    pub(super) until: Offset,
}

impl Found {
    /// Counts a record in.
    fn count(&mut self, offset: Offset) {
        self.records += 1;
        self.fingerprint = self.fingerprint.wrapping_add(mixed(offset));
        self.newest = self.newest.max(offset);
    }
}

/// Takes everything into `local`, which has the epoch that is to be told. `totals` are those that the directory states.
pub(super) fn take_in(store: &Store, local: &Local, totals: &Totals) -> Result<Found, OpenError> {
    let mut found = Found::default();
    for row in store.rows(Tag::Evicted, b"") {
        let (key, value) = row?;
        let (Shelf(bucket), _) = store::read_shelf(&key)?;
        let (Shelf(offset), _) = store::read_shelf(&value)?;
        local.restore_evicted(
            usize::try_from(bucket).unwrap_or(usize::MAX),
            Offset(offset),
        );
    }
    for row in store.rows(Tag::Usage, b"") {
        let (key, value) = row?;
        let (bucket, series) = store::read_series(&key)?;
        local.restore_sum(bucket, series, stored::decode_sum(value)?);
    }
    for row in store.rows(Tag::Key, b"") {
        let (key, value) = row?;
        let entry = proto::KeyEntry::decode(value).map_err(Corrupt::from)?;
        let expires_at = Timestamp::from_millis(entry.expires_at);
        let put = KeyEntry {
            value: entry.value,
            put_at: Timestamp::from_millis(entry.put_at),
        };
        local.restore_key(&store::read_key_name(&key)?, put, expires_at);
    }
    let newest = newest_shelves(store)?;
    let mut records = store.all_records().peekable();
    for row in store.rows(Tag::Stream, b"") {
        let (key, value) = row?;
        let (shelf, _) = store::read_shelf(&key)?;
        let row = proto::Stream::decode(value).map_err(Corrupt::from)?;
        let key = stream_key(&row)?;
        if newest.get(&key) != Some(&shelf) {
            // It was evicted, and its user came back, before its removal was written.
            let mut reached = Offset(row.last.max(row.trimmed));
            while let Some(next) = records.next_if(is_of(shelf)) {
                let (_, offset, _) = next?;
                found.count(offset);
                reached = reached.max(offset);
            }
            found.left.push((key, shelf, reached));
            continue;
        }
        let stream = take_in_stream(store, local, (shelf, key, row), &mut found)?;
        take_in_records(local, totals, (shelf, stream), &mut records, &mut found)?;
    }
    if let Some(stray) = records.next() {
        let (shelf, ..) = stray?;
        return Err(damaged(&format!(
            "shelf {} has records and no stream",
            shelf.0
        )));
    }
    local.reached(totals.newest.max(found.newest));
    Ok(found)
}

/// The shelf of each stream that was made last.
fn newest_shelves(store: &Store) -> Result<HashMap<StreamKey, Shelf>, OpenError> {
    let mut newest = HashMap::new();
    for row in store.rows(Tag::Stream, b"") {
        let (key, value) = row?;
        let (shelf, _) = store::read_shelf(&key)?;
        let row = proto::Stream::decode(value).map_err(Corrupt::from)?;
        // They come in the order of their shelves.
        newest.insert(stream_key(&row)?, shelf);
    }
    Ok(newest)
}

fn stream_key(row: &proto::Stream) -> Result<StreamKey, Corrupt> {
    let (tenant, user) = (Tenant::new(&row.tenant)?, UserId::new(&row.user_id)?);
    Ok(StreamKey::new(tenant, user))
}

/// A record as it is read from the store.
type Read = Result<(Shelf, Offset, Bytes), StoreError>;

/// Whether the next record is of `shelf`, or of one before it, or cannot be read.
fn is_of(shelf: Shelf) -> impl Fn(&Read) -> bool {
    move |next| next.as_ref().map_or(true, |(of, ..)| *of <= shelf)
}

/// Takes in a stream's row and what belongs to it.
fn take_in_stream(
    store: &Store,
    local: &Local,
    (shelf, key, row): (Shelf, StreamKey, proto::Stream),
    found: &mut Found,
) -> Result<Restoring, OpenError> {
    let prefix = shelf.0.to_be_bytes();
    let mut runs = Vec::new();
    for row in store.rows(Tag::Run, &prefix) {
        let (key, value) = row?;
        let (_, run_id) = store::read_shelf(&key)?;
        let run_id = std::str::from_utf8(run_id).map_err(|_| damaged("a run's id is no text"))?;
        let run_id = crate::event::RunId::new(run_id).map_err(Corrupt::from)?;
        runs.push((run_id, stored::decode_run(value)?));
    }
    let mut ids = Vec::new();
    for row in store.rows(Tag::Id, &prefix) {
        let (key, value) = row?;
        let (_, offset) = store::read_place(&key)?;
        ids.push(stored::decode_id(
            Position::new(local.epoch, offset),
            value,
        )?);
    }
    let on_disk = OnDisk {
        trimmed: Offset(row.trimmed),
        checkpoint: Offset(row.checkpoint),
    };
    let stored = Stored {
        trimmed: on_disk.trimmed,
        last: Offset(row.last),
        checkpoint: on_disk.checkpoint,
        runs,
        ids,
    };
    let rows = stored.runs.iter().map(|(run_id, _)| run_id.clone());
    let shelved = Shelved::new(key.clone(), on_disk, rows.collect());
    found.streams.insert(shelf, shelved);
    Ok(local.begin_restoring(key, shelf, stored))
}

/// Takes in the records of one shelf, up to the first hole.
fn take_in_records(
    local: &Local,
    totals: &Totals,
    (shelf, mut stream): (Shelf, Restoring),
    records: &mut Peekable<impl Iterator<Item = Read>>,
    found: &mut Found,
) -> Result<(), OpenError> {
    let mut hole: Option<Hole> = None;
    while let Some(next) = records.next_if(is_of(shelf)) {
        let (of, offset, bytes) = next?;
        if of != shelf {
            return Err(damaged(&format!(
                "shelf {} has records and no stream",
                of.0
            )));
        }
        found.count(offset);
        if let Some(hole) = &mut hole {
            hole.until = offset;
            continue;
        }
        let position = Position::new(local.epoch, offset);
        let record: Record = stored::decode_record(stream.key(), position, bytes)?;
        match follows(&stream, &record) {
            Follows::Directly => {}
            Follows::WhatWasTrimmed => stream.trimmed(record.prev),
            Follows::AHole => {
                hole = Some(Hole {
                    shelf,
                    after: stream.reach(),
                    until: offset,
                });
                continue;
            }
        }
        let record = Arc::new(record);
        stream.take_in(&record);
        if offset > stream.runs_up_to()
            && let Some(shelved) = found.streams.get_mut(&shelf)
        {
            let runs = [&record.draft.event.run_id, &record.draft.parent_run_id];
            shelved.changed.extend(runs.into_iter().flatten().cloned());
        }
        if offset > totals.usage_up_to {
            local.restore_usage(stream.key(), record, &mut found.sums);
        }
    }
    if stream.runs_up_to() > stream.reach() {
        return Err(damaged(&format!(
            "a stream of shelf {} lacks records that its runs are known from",
            shelf.0
        )));
    }
    found.holes.extend(hole);
    if local.finish_restoring(stream) {
        found.trims.push(shelf);
    }
    Ok(())
}

/// What stands between a record and the one before it.
enum Follows {
    Directly,
    WhatWasTrimmed,
    AHole,
}

fn follows(stream: &Restoring, record: &Record) -> Follows {
    let reach = stream.reach();
    if record.prev == reach || (record.prev == Offset(0) && stream.is_empty()) {
        Follows::Directly
    } else if stream.is_empty() && record.prev < reach {
        // Removing was not finished.
        Follows::Directly
    } else if stream.is_empty() {
        Follows::WhatWasTrimmed
    } else {
        Follows::AHole
    }
}

pub(super) fn damaged(what: &str) -> OpenError {
    OpenError::Damaged(what.to_owned())
}

/// A directory that was taken in.
pub(super) struct Opened {
    pub(super) local: Arc<Local>,
    pub(super) totals: Totals,
    pub(super) streams: HashMap<Shelf, Shelved>,
    /// The shelves of streams with records that retention does not cover.
    pub(super) trims: Vec<Shelf>,
    /// Streams whose removal was not finished: each with its shelf, and the highest offset that it had.
    pub(super) left: Vec<(StreamKey, Shelf, Offset)>,
    /// Sums of usage that their rows do not have yet.
    pub(super) sums: Sums,
    /// Why it begins a new epoch, if it does.
    pub(super) new_epoch: Option<&'static str>,
}

/// Takes the directory in: under its old epoch if it is proved that nothing acknowledged is missing, else under a new
/// one. `make` makes what it is taken into. Nothing is written before all of it was taken in.
pub(super) fn open(
    store: &Store,
    witness: Option<Testimony>,
    make: &dyn Fn(Epoch, Option<Timestamp>) -> Arc<Local>,
    clock: &Clock,
    entropy: &Entropy,
) -> Result<Opened, OpenError> {
    let fresh = Epoch::new(entropy.bits());
    let Some(totals) = Totals::read(store)? else {
        let totals = Totals::new(fresh);
        let local = make(fresh, None);
        let found = take_in(store, &local, &totals)?;
        if !found.streams.is_empty() {
            return Err(damaged("it has streams and says nothing of itself"));
        }
        return begin((store, witness), (local, totals), found, None);
    };
    let new_epoch = totals.unproved(witness);
    if new_epoch.is_none() {
        let local = make(totals.epoch, totals.epoch_since);
        let found = take_in(store, &local, &totals)?;
        if totals.are_proved(&found) {
            return begin((store, witness), (local, totals), found, None);
        }
    }
    let why = new_epoch.unwrap_or("records are missing");
    let since = Some(clock.now());
    let local = make(fresh, since);
    let found = take_in(store, &local, &totals)?;
    let totals = Totals {
        epoch: fresh,
        epoch_since: since,
        newest: totals.newest.max(found.newest),
        records: found.records,
        fingerprint: found.fingerprint,
        ..totals
    };
    begin((store, witness), (local, totals), found, Some(why))
}

/// Writes under which epoch the directory goes on, without what lies behind holes.
fn begin(
    (store, witness): (&Store, Option<Testimony>),
    (local, mut totals): (Arc<Local>, Totals),
    found: Found,
    new_epoch: Option<&'static str>,
) -> Result<Opened, OpenError> {
    if !witness.is_some_and(|told| told.closed)
        && let Err(error) = store.flush()
    {
        // What a failed sync has left in the system's memory only goes to files of its own; where there is no room, it
        // will be tried with the next write.
        tracing::warn!(?error, "what was found could not be written anew");
    }
    let mut batch = store.batch();
    for hole in &found.holes {
        tracing::warn!(
            ?hole,
            "records are missing from a stream: it ends before them"
        );
        for record in store.records(hole.shelf, hole.after.0 + 1..=hole.until.0) {
            let (offset, _) = record?;
            batch.remove_record(hole.shelf, offset);
            totals.remove(offset);
        }
    }
    totals.group += 1;
    totals.write(&mut batch);
    batch.commit(SAFEST)?;
    Ok(Opened {
        local,
        totals,
        streams: found.streams,
        trims: found.trims,
        left: found.left,
        sums: found.sums,
        new_epoch,
    })
}
