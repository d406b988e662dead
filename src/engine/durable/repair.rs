//! Looking into a directory, giving one that was restored its new epoch, and taking what can be read of a damaged one to
//! a new one.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    NOTHING_OF_ITSELF, OpenError, format,
    journal::Journals,
    open_store,
    panics::contained,
    recover::{self, damaged},
    scratch::{self, Purpose, Scratch},
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
    /// What can be read; `None`: nothing for certain.
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
    let (readable, next_start) = match held.misleading {
        Some(damage) => (None, NextStart::Refuses(damage)),
        None => {
            let scratch = Scratch::of(directory, &held.journals)?;
            let looked = contained(|| look(scratch.path(), directory, clock));
            verdict(directory, looked, held.damage)?
        }
    };
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
        Err(error @ OpenError::Fault(_)) => return Err(error),
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
    let begun = contained(|| begin_anew(directory, clock, entropy));
    let (epoch, group) = begun.map_err(|error| tables::named(directory, error))?;
    closed_after(directory, group)?;
    Ok(epoch)
}

/// Takes what can be read of `directory` to `into`, under a new epoch. Neither `into` nor `into` with `.part` behind its
/// name, where it is made, may be there. `directory` stays as it is.
///
/// # Errors
/// When nothing can be read for certain, when what can be read does not fit together, when one of the two is there, or
/// when it cannot be written.
pub fn take_over(
    directory: &Path,
    into: &Path,
    clock: &Clock,
    entropy: &Entropy,
) -> Result<Epoch, OpenError> {
    // Of two directories, it has to be said which cannot be read.
    let held = Held::new(directory).map_err(|error| match error {
        OpenError::Io(error) => scratch::of_file(directory)(error).into(),
        error => error,
    })?;
    if let Some(damage) = held.misleading {
        return Err(damaged(&damage));
    }
    let part = part_of(into)?;
    for path in [into, &part] {
        if path.exists() {
            return Err(scratch::of_file(path)(io::ErrorKind::AlreadyExists.into()).into());
        }
    }
    let above = above(into);
    format::make(above).map_err(scratch::of_file(above))?;
    if fs::canonicalize(above)?.starts_with(fs::canonicalize(directory)?) {
        let what = format!("{} lies in the directory itself", into.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what).into());
    }
    format::create_private(&part).map_err(scratch::of_file(&part))?;
    let made = make_whole(directory, &part, &held.journals, clock, entropy).and_then(|epoch| {
        fs::rename(&part, into).map_err(scratch::of_file(into))?;
        File::open(above)?.sync_all()?;
        Ok(epoch)
    });
    if made.is_err() {
        // Where it stays, the next attempt says so.
        let _stays = fs::remove_dir_all(&part);
    }
    made.map_err(|error| tables::named(directory, error))
}

fn part_of(into: &Path) -> io::Result<PathBuf> {
    let name = into.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut name = name.to_owned();
    name.push(".part");
    Ok(into.with_file_name(name))
}

fn above(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    }
}

/// Makes a directory of the empty one `part` that a start takes for whole: with what can be read of `directory`.
fn make_whole(
    directory: &Path,
    part: &Path,
    journals: &Journals,
    clock: &Clock,
    entropy: &Entropy,
) -> Result<Epoch, OpenError> {
    scratch::copy(directory, part, journals, Purpose::TakingOver)?;
    let (epoch, group) = contained(|| begin_anew(part, clock, entropy))?;
    let lock = format::lock(part)?;
    let wrong = misleading(part).or(Journals::read(part)?.fault);
    if let Some(wrong) = wrong {
        return Err(damaged(&format!(
            "what can be read makes no sense: {wrong}"
        )));
    }
    drop(lock);
    format::write(part)?;
    closed_after(part, group)?;
    belong_as(directory, part)?;
    // A new owner is a change of the file that says how it was closed.
    closed_after(part, group)?;
    Ok(epoch)
}

/// Gives `to` and all that is in it the owner of `from`, where that is allowed.
fn belong_as(from: &Path, to: &Path) -> io::Result<()> {
    let facts = fs::metadata(from)?;
    if let Err(error) = owned_by(to, facts.uid(), facts.gid()) {
        tracing::warn!(%error, directory = %to.display(), "it keeps the owner that made it");
    }
    Ok(())
}

fn owned_by(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    chown(path, Some(uid), Some(gid))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            owned_by(&entry?.path(), uid, gid)?;
        }
    }
    Ok(())
}

/// A directory that no other process can use.
struct Held {
    journals: Journals,
    /// Why a start refuses it, as far as that is known before the store is opened.
    damage: Option<String>,
    /// The part of that for which nothing that the store shows is certain.
    misleading: Option<String>,
    _lock: Option<format::Lock>,
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
        let misleading = misleading(directory);
        let damage = misleading
            .clone()
            .or_else(|| format::missing_lock(directory))
            .or_else(|| journals.fault.clone());
        Ok(Self {
            journals,
            damage,
            misleading,
            _lock,
        })
    }
}

/// What the store would not notice, and make something else of.
fn misleading(directory: &Path) -> Option<String> {
    format::missing(directory).or_else(|| tables::damaged_list(directory))
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

/// Begins a new epoch in the store at `directory`, with all that it has but what lies behind holes. Returns also the
/// number of the last group.
fn begin_anew(
    directory: &Path,
    clock: &Clock,
    entropy: &Entropy,
) -> Result<(Epoch, u64), OpenError> {
    let store = open_store(directory)?;
    if Totals::read(&store)?.is_none() {
        return Err(damaged(NOTHING_OF_ITSELF));
    }
    let make = |epoch, _| empty(clock, epoch);
    let totals = recover::open(&store, None, &make, clock, entropy)?.totals;
    Ok((totals.epoch, totals.group))
}

/// Says that `directory` was closed after `group`: the next start takes it for whole, and begins no other epoch.
fn closed_after(directory: &Path, group: u64) -> io::Result<()> {
    Witness::begin(directory, group)?.close(group)
}

fn empty(clock: &Clock, epoch: Epoch) -> Arc<Local> {
    let bounds = local::Config {
        total_bytes: usize::MAX,
        ..local::Config::default()
    };
    let metrics = Arc::new(Metrics::new().0);
    Local::new(bounds, clock.clone(), metrics, epoch, None, false)
}
