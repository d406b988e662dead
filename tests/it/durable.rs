//! What only the durable engine promises: what was acknowledged is there after it was opened anew, and what is not
//! there is told.

mod command;
mod damaged;
mod first_version;
mod held;
mod odd;
mod open;
mod reopen;
mod space;
mod torn;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use emitter::{
    clock::{Clock, Timestamp},
    engine::{
        Engine, Page, StreamState,
        durable::{DurableEngine, OpenError},
        memory::Config,
    },
    event::{Offset, StreamKey},
};

use crate::support::events::{ALL, START, durable};

/// Small, so that they are met.
fn bounds() -> Config {
    Config {
        retention_records: 20,
        retention_age: Duration::from_secs(3_600),
        dedupe_window: Duration::from_secs(600),
        dedupe_ids_per_user: 200,
        run_memory: Duration::from_secs(3_600),
        ..Config::default()
    }
}

/// Opens `directory`; what it draws is of `seed`.
fn open(directory: &Path, clock: &Clock, seed: u64) -> Result<Arc<DurableEngine>, OpenError> {
    durable(directory, bounds(), clock, seed)
}

fn clock() -> Clock {
    Clock::manual(START)
}

async fn page(engine: &dyn Engine, user: &StreamKey) -> Page {
    engine.read(user, Offset(0), ALL).await.unwrap()
}

/// Everything that a state says at `now`, in one order: what is over may be forgotten sooner or later.
fn facts(state: &StreamState, now: Timestamp) -> String {
    let bounds = bounds();
    let runs = state.runs();
    let runs = runs.filter(|(_, run)| !run.is_forgotten(bounds.run_memory, now));
    let mut runs: Vec<_> = runs.map(|run| format!("{run:?}")).collect();
    runs.sort();
    let ids = state.dedupe.iter();
    let ids = ids.filter(|(_, entry)| entry.recorded_at + bounds.dedupe_window > now);
    let ids: Vec<_> = ids.map(|id| format!("{id:?}")).collect();
    if runs.is_empty() && ids.is_empty() {
        return String::new();
    }
    format!("{} {runs:#?} {ids:#?}", state.head)
}

/// Writes the witness in `directory` anew with what it says, as the process would that is at work there: it holds.
pub(crate) fn witnessed_now(directory: &Path) {
    const BODY: usize = 57;
    let path = directory.join("witness");
    let mut bytes = fs::read(&path).unwrap();
    let facts = fs::metadata(&path).unwrap();
    let now = Clock::system().now().as_millis();
    for (at, number) in [(24, facts.ino()), (32, facts.dev()), (48, now)] {
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    bytes[BODY - 1] = 0;
    let hash = blake3::hash(&bytes[..BODY]);
    bytes.truncate(BODY);
    bytes.extend_from_slice(&hash.as_bytes()[..16]);
    fs::write(path, bytes).unwrap();
}

/// What is in `from` at this moment, as the end of its process would leave it: the witness stays the same file.
fn as_killed(from: &Path, to: &Path) {
    // First: what it says holds only for a while.
    fs::hard_link(from.join("witness"), to.join("witness")).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    // The store's threads may be moving its tables: what is copied meanwhile may be of two moments.
    loop {
        let before = looks(from);
        let copied = before.and_then(|before| {
            copy(from, to)?;
            Ok(before == looks(from)?)
        });
        match copied {
            Ok(true) => return,
            what => assert!(Instant::now() < until, "it does not hold still: {what:?}"),
        }
        clear(to);
    }
}

/// Removes all but the witness.
fn clear(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else if !path.ends_with("witness") {
            fs::remove_file(path).unwrap();
        }
    }
}

/// When each file below `directory` but the witness was written last, and how long it is.
fn looks(directory: &Path) -> io::Result<BTreeMap<PathBuf, (u64, SystemTime)>> {
    let mut looks = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let (path, facts) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
        if facts.is_dir() {
            looks.extend(self::looks(&path)?);
        } else if !path.ends_with("witness") {
            looks.insert(path, (facts.len(), facts.modified()?));
        }
    }
    Ok(looks)
}

/// Copies all but the witness.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            fs::create_dir(&copied)?;
            copy(&path, &copied)?;
        } else if entry.file_name() != "witness" {
            fs::copy(&path, &copied)?;
        }
    }
    Ok(())
}
