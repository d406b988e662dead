//! Looking into a directory, giving one that was restored its new epoch, and taking what can be read of a damaged one to
//! a new one.

use std::{fs, fs::File, io, path::Path, sync::Arc};

use super::{
    NOTHING_OF_ITSELF, OpenError, contained, format,
    journal::Journals,
    open_store, recover,
    recover::damaged,
    scratch::{self, Scratch, Tables},
    space,
    store::{Store, Tag},
    tables,
    totals::Totals,
    witness::{Testimony, Witness},
};
use crate::{
    clock::{Clock, Entropy, Timestamp},
    engine::local::{self, Local},
    event::{Epoch, Offset},
    telemetry::Metrics,
};

/// What is in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// What can be read; `None`: nothing.
    pub readable: Option<Readable>,
    /// What a start cuts off at the end of the journals, if anything: the first one's name, and the first byte of it.
    pub cut_off: Option<(String, u64)>,
    /// What the next start does.
    pub next_start: NextStart,
    /// Bytes on disk.
    pub disk_space: u64,
}

/// What can be read of a directory. Of a damaged one: up to the damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readable {
    /// The epoch of its streams.
    pub epoch: Epoch,
    /// When it began, if there was another before it.
    pub epoch_since: Option<Timestamp>,
    /// The newest offset.
    pub newest: Offset,
    /// Groups of events that were acknowledged after the last one that can be read, as far as that is known.
    pub missing_groups: u64,
    /// Streams.
    pub streams: usize,
    /// Records that can be read.
    pub records: u64,
    /// Records that there should be, as of the last group that can be read.
    pub records_counted: u64,
    /// Open runs; `None`: the records do not fit together.
    pub open_runs: Option<usize>,
    /// Streams that end before their last records, because some between are missing.
    pub holes: usize,
}

/// What the next start does with a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStart {
    /// It goes on under the same epoch.
    GoesOn,
    /// It begins a new epoch, and why.
    NewEpoch(&'static str),
    /// It refuses the directory, for this damage.
    Refuses(String),
}

/// Looks into `directory`, which no process may have open, and leaves it as it is.
///
/// # Errors
/// When it is no data directory of this version, when a process uses it, or when it cannot be looked into.
pub fn inspect(directory: &Path, clock: &Clock) -> Result<Inspection, OpenError> {
    let held = Held::new(directory)?;
    let disk_space = space::taken(directory);
    let looked = match (Scratch::of(directory, &held.journals), held.damage) {
        // What is not there cannot be copied.
        (Err(_), Some(damage)) => (None, NextStart::Refuses(damage)),
        (Err(error), None) => return Err(error.into()),
        (Ok(scratch), damage) => {
            let looked = contained(|| look(scratch.path(), directory, clock));
            verdict(directory, looked, damage)?
        }
    };
    let (readable, next_start) = looked;
    Ok(Inspection {
        readable,
        cut_off: held.journals.torn.into_iter().next(),
        next_start,
        disk_space,
    })
}

/// What was found in a copy of `directory`.
type Look = (Readable, Result<NextStart, OpenError>);

/// What the next start does, where `damage` is known before the store is opened, and what can be read.
fn verdict(
    directory: &Path,
    looked: Result<Look, OpenError>,
    damage: Option<String>,
) -> Result<(Option<Readable>, NextStart), OpenError> {
    let (readable, next_start) = match looked {
        Ok((readable, next_start)) => (Some(readable), next_start),
        Err(error) => (None, Err(error)),
    };
    let next_start = match (damage, next_start) {
        (Some(damage), _) => NextStart::Refuses(damage),
        (None, Ok(next_start)) => next_start,
        (None, Err(error)) => match tables::named(directory, error) {
            OpenError::Damaged(damage) | OpenError::Partly(damage) => NextStart::Refuses(damage),
            error => return Err(error),
        },
    };
    Ok((readable, next_start))
}

/// Gives `directory` a new epoch, so that no reader takes what is in it for what it has read before.
///
/// # Errors
/// When it cannot be used, as a start would say.
pub fn renew_epoch(directory: &Path, clock: &Clock, entropy: &Entropy) -> Result<Epoch, OpenError> {
    format::check(directory)?;
    format::prepare(directory)?;
    contained(|| begin_anew(directory, clock, entropy))
}

/// Takes what can be read of `directory` to `into`, which must not be there, under a new epoch. `directory` stays as it is.
///
/// # Errors
/// When nothing can be read or what can be read does not fit together, when `into` is there, or when it cannot be
/// written.
pub fn take_over(
    directory: &Path,
    into: &Path,
    clock: &Clock,
    entropy: &Entropy,
) -> Result<Epoch, OpenError> {
    let held = Held::new(directory)?;
    if into.exists() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
    }
    format::make(into)?;
    let copied = scratch::copy(directory, into, &held.journals, Tables::Copied);
    let begun = match copied {
        Ok(()) => contained(|| begin_anew(into, clock, entropy)),
        Err(error) => Err(error.into()),
    };
    if begun.is_err() {
        // Half of it would look like a directory that is damaged.
        let _stays = fs::remove_dir_all(into);
    }
    begun
}

/// A directory that no other process can use.
struct Held {
    journals: Journals,
    /// Why a start refuses it, as far as that is known before the store is opened.
    damage: Option<String>,
    _lock: Option<File>,
}

impl Held {
    fn new(directory: &Path) -> Result<Self, OpenError> {
        format::check(directory)?;
        let _lock = match format::lock(directory) {
            // Then nobody has it.
            Err(OpenError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            lock => Some(lock?),
        };
        let journals = Journals::read(directory)?;
        let damage = format::missing(directory)
            .or_else(|| format::missing_lock(directory))
            .or_else(|| tables::damaged_list(directory))
            .or_else(|| journals.fault.clone());
        Ok(Self {
            journals,
            damage,
            _lock,
        })
    }
}

/// What the store at `copy` has, which was copied from `directory`.
fn look(copy: &Path, directory: &Path, clock: &Clock) -> Result<Look, OpenError> {
    let store = open_store(copy)?;
    let witness = Witness::read(directory);
    let Some(totals) = Totals::read(&store)? else {
        return Err(match Witness::is_there(directory) {
            true => damaged(NOTHING_OF_ITSELF),
            false => OpenError::Empty,
        });
    };
    let local = empty(clock, totals.epoch);
    let mut readable = Readable::of(&totals, witness);
    let next_start = match recover::take_in(&store, &local, &totals) {
        Ok(found) => {
            readable.newest = totals.newest.max(found.newest);
            readable.streams = found.streams.len();
            readable.records = found.records;
            readable.holes = found.holes.len();
            readable.open_runs = Some(local.open_runs_in_all());
            let next = totals.why_new(&found, witness);
            Ok(next.map_or(NextStart::GoesOn, NextStart::NewEpoch))
        }
        Err(error) => {
            readable.count(&store);
            Err(error)
        }
    };
    Ok((readable, next_start))
}

impl Readable {
    fn of(totals: &Totals, witness: Option<Testimony>) -> Self {
        let acknowledged = witness.map_or(0, |told| told.group);
        Self {
            epoch: totals.epoch,
            epoch_since: totals.epoch_since,
            newest: Offset(0),
            missing_groups: acknowledged.saturating_sub(totals.group),
            streams: 0,
            records: 0,
            records_counted: totals.records,
            open_runs: None,
            holes: 0,
        }
    }

    /// Counts what can be read up to the first thing that cannot.
    fn count(&mut self, store: &Store) {
        let streams = store.rows(Tag::Stream, b"");
        self.streams = streams.map_while(Result::ok).count();
        for (_, offset, _) in store.all_records().map_while(Result::ok) {
            self.records += 1;
            self.newest = self.newest.max(offset);
        }
    }
}

/// Begins a new epoch in the store at `directory`, with all that it has but what lies behind holes.
fn begin_anew(directory: &Path, clock: &Clock, entropy: &Entropy) -> Result<Epoch, OpenError> {
    let store = open_store(directory)?;
    if Totals::read(&store)?.is_none() {
        return Err(damaged(NOTHING_OF_ITSELF));
    }
    let make = |epoch, _| empty(clock, epoch);
    let opened = recover::open(&store, None, &make, clock, entropy)?;
    format::write(directory)?;
    // So that the next start takes it for whole, and begins no other.
    let group = opened.totals.group;
    Witness::begin(directory, group)?.close(group)?;
    Ok(opened.totals.epoch)
}

fn empty(clock: &Clock, epoch: Epoch) -> Arc<Local> {
    let bounds = local::Config {
        total_bytes: usize::MAX,
        ..local::Config::default()
    };
    let metrics = Arc::new(Metrics::new().0);
    Local::new(bounds, clock.clone(), metrics, epoch, None, false)
}
