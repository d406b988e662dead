//! What goes into a batch beside what was asked for: retention's removals, checkpoints of runs, sums of usage.
//!
//! A record's run is known from the records themselves, until retention is about to remove one that no row has: then
//! the rows of all runs that have changed are written, in the same batch. So most runs are written once.

mod taken;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use prost::Message;

use self::taken::Taken;
use super::{
    group::{Group, is_within},
    recover::OnDisk,
    store::{self, Batch, Store, StoreError, Tag, key_name, place, run_key, series_key},
    totals::Totals,
    writer::Writer,
};
use crate::{
    engine::{
        DedupeEntry, Key,
        local::{Local, Shelf, Stream, Sums, Swept},
        stored,
    },
    event::{Offset, Position, Record, RunId, StreamKey},
    proto::stored as proto,
    run::Book,
};

/// About how many records one batch removes; the rest waits for the next. A stream that goes goes as a whole.
const REMOVALS: usize = 4_096;

/// How often sums of usage are written that have changed.
const SUMS_EVERY: Duration = Duration::from_secs(1);

/// How often days are looked for whose usage is no longer kept.
const DAYS_EVERY: Duration = Duration::from_secs(60 * 60);

/// How long the end may take for what the next start can do as well.
const CLOSING: Duration = Duration::from_secs(1);

/// The fewest removed records that are worth compacting for.
const COMPACT_AT: u64 = 20_000;

/// A stream in the directory.
pub(super) struct Shelved {
    pub(super) key: StreamKey,
    pub(super) on_disk: OnDisk,
    /// Runs that have a row.
    pub(super) rows: HashSet<RunId>,
    /// Runs whose rows are not as the last record left them.
    pub(super) changed: HashSet<RunId>,
    /// No id has a row before this offset: what was removed there is not looked through again.
    ids_from: Offset,
    /// It waits to be trimmed.
    waits: bool,
}

impl Shelved {
    /// What it takes in memory. Its runs are known anyway, or named by records, and counted with them.
    const WEIGHT: usize = 2 * size_of::<(Shelf, Self)>();

    /// A stream with rows of these runs.
    pub(super) fn new(key: StreamKey, on_disk: OnDisk, rows: HashSet<RunId>) -> Self {
        Self {
            key,
            on_disk,
            rows,
            changed: HashSet::new(),
            ids_from: Offset(0),
            waits: false,
        }
    }
}

/// What is to be done beside what is asked for.
pub(super) struct Chores {
    local: Arc<Local>,
    streams: HashMap<Shelf, Shelved>,
    trims: VecDeque<Shelf>,
    evictions: VecDeque<(StreamKey, Shelf, Offset)>,
    expired: Vec<Key>,
    sums_at: Instant,
    days_at: Option<Instant>,
    /// What the batch under way does: taken back if it is not stored.
    taken: Taken,
    /// Records removed since the last compaction.
    removed: u64,
    compacting: Option<JoinHandle<()>>,
}

impl Chores {
    /// What is to be done for `local` where there are `streams`, of which those on the shelves `trims` have records to
    /// remove.
    pub(super) fn new(
        local: Arc<Local>,
        streams: HashMap<Shelf, Shelved>,
        trims: Vec<Shelf>,
        evictions: Vec<(StreamKey, Shelf, Offset)>,
    ) -> Self {
        local.grow(streams.len() * Shelved::WEIGHT, 0);
        let mut chores = Self {
            local,
            streams,
            trims: VecDeque::new(),
            evictions: evictions.into(),
            expired: Vec::new(),
            sums_at: Instant::now(),
            days_at: None,
            taken: Taken::default(),
            removed: 0,
            compacting: None,
        };
        for shelf in trims {
            chores.trim_soon(shelf);
        }
        chores
    }

    /// Takes note of what memory no longer has.
    pub(super) fn note(&mut self, swept: Swept) {
        for shelf in swept.trimmed {
            self.trim_soon(shelf);
        }
        self.evictions.extend(swept.evicted);
        self.expired.extend(swept.expired);
    }

    fn trim_soon(&mut self, shelf: Shelf) {
        if let Some(shelved) = self.streams.get_mut(&shelf)
            && !std::mem::replace(&mut shelved.waits, true)
        {
            self.trims.push_back(shelf);
        }
    }

    /// A stream is about to have records: it gets its row, if it has none.
    pub(super) fn begin(
        &mut self,
        batch: &mut Batch<'_>,
        (key, shelf): (&StreamKey, Shelf),
        trimmed: Offset,
    ) {
        if self.streams.contains_key(&shelf) {
            return;
        }
        let on_disk = OnDisk {
            trimmed,
            checkpoint: Offset(0),
        };
        put_stream(batch, (key, shelf), on_disk, Offset(0));
        let shelved = Shelved::new(key.clone(), on_disk, HashSet::new());
        self.streams.insert(shelf, shelved);
        self.local.grow(Shelved::WEIGHT, 0);
        self.taken.touched.push(shelf);
    }

    /// Records of a stream are shown.
    pub(super) fn shown(&mut self, stream: &Stream, records: &[Arc<Record>]) {
        let Some(shelved) = self.streams.get_mut(&stream.shelf) else {
            return;
        };
        for draft in records.iter().map(|record| &record.draft) {
            let runs = [&draft.event.run_id, &draft.parent_run_id];
            shelved.changed.extend(runs.into_iter().flatten().cloned());
        }
        if stream.trimmed > shelved.on_disk.trimmed {
            self.trim_soon(stream.shelf);
        }
    }

    /// The batch was written.
    pub(super) fn written(&mut self) {
        for (_, shelf, _) in std::mem::take(&mut self.taken).evictions {
            self.forget(shelf);
        }
    }

    fn forget(&mut self, shelf: Shelf) {
        if self.streams.remove(&shelf).is_some() {
            self.local.grow(0, Shelved::WEIGHT);
        }
    }

    /// Gives space back, if much was removed.
    pub(super) fn compact(&mut self, store: &Store, totals: &Totals) {
        if self.is_compacting() || self.removed < COMPACT_AT.max(totals.records) {
            return;
        }
        self.removed = 0;
        let store = store.clone();
        let compacting = std::thread::Builder::new()
            .name("emitter-compact".into())
            .spawn(move || {
                if let Err(error) = store.compact() {
                    tracing::warn!(?error, "space could not be given back");
                }
            });
        self.compacting = compacting.ok();
    }

    /// Whether another thread uses the store.
    pub(super) fn is_compacting(&self) -> bool {
        let busy = self.compacting.as_ref();
        busy.is_some_and(|compacting| !compacting.is_finished())
    }

    /// Waits until no other thread uses the store.
    pub(super) fn end_compacting(&mut self) {
        if let Some(compacting) = self.compacting.take() {
            // If it failed, it is over as well.
            let _failed = compacting.join();
        }
    }

    fn are_done(&self) -> bool {
        self.trims.is_empty() && self.evictions.is_empty() && self.expired.is_empty()
    }
}

impl Writer {
    /// Puts what is to be done into the batch, as much as one bears. `written` are keys that the batch writes.
    pub(super) fn do_chores(
        &mut self,
        store: &Store,
        (batch, written): (&mut Batch<'_>, &HashSet<Key>),
        totals: &mut Totals,
    ) -> Result<(), StoreError> {
        // More than the group adds, so that removing never falls behind.
        let added = totals.records.saturating_sub(self.totals.records);
        let most = REMOVALS.max(2 * usize::try_from(added).unwrap_or(REMOVALS));
        let mut removed = 0;
        let done = self.remove_what_is_over(store, batch, totals, (most, &mut removed));
        for key in std::mem::take(&mut self.chores.expired) {
            if !written.contains(&key) && self.local.get(&key).is_none() {
                batch.remove(Tag::Key, &key_name(&key));
            }
            self.chores.taken.expired.push(key);
        }
        self.chores.removed += removed as u64;
        // Also where something could not be read: what sums were made of may be in the batch, and go.
        self.write_sums(store, batch, totals, removed > 0)?;
        done
    }

    /// Removes about so many records, and counts them. What cannot be read stays to be done.
    fn remove_what_is_over(
        &mut self,
        store: &Store,
        batch: &mut Batch<'_>,
        totals: &mut Totals,
        (most, removed): (usize, &mut usize),
    ) -> Result<(), StoreError> {
        while *removed < most
            && let Some(shelf) = self.chores.trims.pop_front()
        {
            let room = most - *removed;
            match self.trim(store, batch, totals, shelf, room) {
                Ok(count) => *removed += count,
                Err(error) => {
                    self.chores.trim_soon(shelf);
                    return Err(error);
                }
            }
        }
        while *removed < most
            && let Some((key, shelf, evicted)) = self.chores.evictions.pop_front()
        {
            match remove_stream(store, batch, totals, shelf) {
                Ok(count) => *removed += count,
                Err(error) => {
                    self.chores.evictions.push_front((key, shelf, evicted));
                    return Err(error);
                }
            }
            let bucket = (key.bucket() as u64).to_be_bytes();
            batch.put(Tag::Evicted, &bucket, &evicted.0.to_be_bytes());
            self.chores.taken.evictions.push((key, shelf, evicted));
        }
        Ok(())
    }

    /// Does what is to be done, as far as it takes no long time; the rest is for the next start.
    pub(super) fn settle_all_chores(&mut self) {
        self.chores.sums_at = Instant::now() - SUMS_EVERY;
        let until = Instant::now() + CLOSING;
        while Instant::now() < until {
            self.settle(Group::new());
            if self.chores.are_done() {
                return;
            }
        }
    }

    /// Removes the records of one stream that were trimmed, at most about `room`. Returns how many.
    fn trim(
        &mut self,
        store: &Store,
        batch: &mut Batch<'_>,
        totals: &mut Totals,
        shelf: Shelf,
        room: usize,
    ) -> Result<usize, StoreError> {
        let local = self.local.clone();
        let now = local.clock.age_now();
        let Some(shelved) = self.chores.streams.get_mut(&shelf) else {
            return Ok(0);
        };
        shelved.waits = false;
        self.chores.taken.touched.push(shelf);
        let mut bucket = local.bucket(&shelved.key).lock();
        let stream = bucket.streams.get_mut(&shelved.key);
        let Some(stream) = stream.filter(|stream| stream.shelf == shelf) else {
            return Ok(0); // it is evicted
        };
        let (trimmed, last) = (stream.trimmed, stream.last);
        drop(bucket);
        // Read first: what cannot be read leaves the batch as it is.
        let mut going = Vec::new();
        for record in store.records(shelf, shelved.on_disk.trimmed.0 + 1..=trimmed.0) {
            let (offset, bytes) = record?;
            let position = Position::new(local.epoch, offset);
            going.push(stored::decode_record(&shelved.key, position, bytes)?);
            if going.len() == room {
                break;
            }
        }
        if let Some(stream) = local.bucket(&shelved.key).lock().streams.get(&shelved.key)
            && stream.shelf == shelf
            && trimmed > shelved.on_disk.checkpoint
        {
            checkpoint(batch, shelved, stream);
        }
        for record in &going {
            let offset = record.position.offset;
            let window = local.config.dedupe_window;
            if is_within(record.draft.recorded_at, window, now) {
                let id = stored::encode_id(&record.draft.event.event_id, &DedupeEntry::of(record));
                batch.put(Tag::Id, &place(shelf, offset.0), &id);
            }
            batch.remove_record(shelf, offset);
            totals.remove(offset);
        }
        let removed = going.len();
        let reached = going
            .last()
            .map_or(trimmed, |record| record.position.offset);
        let is_done = removed < room;
        shelved.on_disk.trimmed = if is_done { trimmed } else { reached };
        put_stream(batch, (&shelved.key, shelf), shelved.on_disk, last);
        for id in store.ids(shelf, shelved.ids_from) {
            let (offset, value) = id?;
            let (_, entry) = stored::decode_id(Position::new(local.epoch, offset), value)?;
            if is_within(entry.recorded_at, local.config.dedupe_window, now) {
                break;
            }
            batch.remove(Tag::Id, &place(shelf, offset.0));
            shelved.ids_from = Offset(offset.0 + 1);
        }
        if !is_done {
            self.chores.trim_soon(shelf);
        }
        Ok(removed)
    }

    /// Writes the sums that have changed, if it is time to, or if records go that they were made from.
    fn write_sums(
        &mut self,
        store: &Store,
        batch: &mut Batch<'_>,
        totals: &mut Totals,
        is_trimming: bool,
    ) -> Result<(), StoreError> {
        let chores = &mut self.chores;
        if chores.days_at.is_none_or(|at| at.elapsed() >= DAYS_EVERY) {
            chores.days_at = Some(Instant::now());
            remove_days(store, batch, &self.local)?;
        }
        let is_due = is_trimming || chores.sums_at.elapsed() >= SUMS_EVERY;
        if !is_due || self.sums.is_empty() {
            return Ok(());
        }
        chores.sums_at = Instant::now();
        for ((bucket, series), sum) in self.sums.drain() {
            let key = series_key(bucket, &series);
            batch.put(Tag::Usage, &key, &stored::encode_sum(&sum));
            chores.taken.sums.insert((bucket, series), sum);
        }
        totals.usage_up_to = self.local.absent_head().offset;
        Ok(())
    }
}

/// Writes the rows of the runs that have changed, and removes those of runs that are forgotten.
fn checkpoint(batch: &mut Batch<'_>, shelved: &mut Shelved, stream: &Stream) {
    let shelf = stream.shelf;
    for run_id in std::mem::take(&mut shelved.changed) {
        if let Some(run) = stream.state.run(&run_id) {
            batch.put(Tag::Run, &run_key(shelf, &run_id), &stored::encode_run(run));
            shelved.rows.insert(run_id);
        }
    }
    shelved.rows.retain(|run_id| {
        let is_known = stream.state.run(run_id).is_some();
        if !is_known {
            batch.remove(Tag::Run, &run_key(shelf, run_id));
        }
        is_known
    });
    shelved.on_disk.checkpoint = stream.last;
}

fn put_stream(
    batch: &mut Batch<'_>,
    (key, shelf): (&StreamKey, Shelf),
    on_disk: OnDisk,
    last: Offset,
) {
    let row = proto::Stream {
        tenant: key.tenant().as_str().to_owned(),
        user_id: key.user().as_str().to_owned(),
        trimmed: on_disk.trimmed.0,
        last: last.0,
        checkpoint: on_disk.checkpoint.0,
    };
    batch.put(Tag::Stream, &shelf.0.to_be_bytes(), &row.encode_to_vec());
}

/// Removes everything of a shelf. Returns how many records there were.
pub(super) fn remove_stream(
    store: &Store,
    batch: &mut Batch<'_>,
    totals: &mut Totals,
    shelf: Shelf,
) -> Result<usize, StoreError> {
    // Read first: what cannot be read leaves the batch as it is.
    let records: Vec<Offset> = store
        .records(shelf, 0..=u64::MAX)
        .map(|record| Ok(record?.0))
        .collect::<Result<_, StoreError>>()?;
    let prefix = shelf.0.to_be_bytes();
    let rows = |tag| store.rows(tag, &prefix).map(|row| Ok(row?.0));
    let runs: Vec<_> = rows(Tag::Run).collect::<Result<_, StoreError>>()?;
    let ids: Vec<_> = rows(Tag::Id).collect::<Result<_, StoreError>>()?;
    for offset in &records {
        batch.remove_record(shelf, *offset);
        totals.remove(*offset);
    }
    for (tag, keys) in [(Tag::Run, runs), (Tag::Id, ids)] {
        for key in keys {
            batch.remove(tag, &key);
        }
    }
    batch.remove(Tag::Stream, &prefix);
    Ok(records.len())
}

/// Removes the sums of days that are no longer kept.
fn remove_days(store: &Store, batch: &mut Batch<'_>, local: &Local) -> Result<(), StoreError> {
    for row in store.rows(Tag::Usage, b"") {
        let (key, _) = row?;
        let (_, series) = store::read_series(&key)?;
        if !local.is_over(series.day) {
            break;
        }
        batch.remove(Tag::Usage, &key);
    }
    Ok(())
}
