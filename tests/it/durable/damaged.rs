//! Damaged directories: a start refuses them and leaves them as they are, or has a prefix and says so; and an inspection
//! says which, what is damaged, and what can be read, without changing anything.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use emitter::{
    clock::Entropy,
    engine::{
        Engine, Key,
        durable::{Inspection, NextStart, OpenError, inspect, renew_epoch, take_over},
    },
};

use super::{as_killed, clock, open, page};
use crate::{
    processes::tools::files,
    support::events::{START, append, ids, notes, stream},
};

const TTL: Duration = Duration::from_secs(1_000);

/// Writes the notes `note-0` … to `u`, and after each the number of notes under a key. Then it is closed.
pub(super) async fn written(directory: &Path, count: usize) {
    let engine = open(directory, &clock(), 1).unwrap();
    more(&*engine, 0..count).await;
    engine.close().await;
}

async fn more(engine: &dyn Engine, numbers: Range<usize>) {
    let user = stream("u");
    for n in numbers {
        append(engine, &user, notes(&user, &[&format!("note-{n}")], START)).await;
        let (key, value) = (Key::Acks(user.clone()), |n: usize| {
            Bytes::from(n.to_string())
        });
        if engine
            .put_if_absent(&key, value(n + 1), TTL)
            .await
            .unwrap()
            .is_some()
        {
            let there = value(n);
            let set = engine.compare_and_set(&key, &there, value(n + 1), TTL);
            assert_eq!(set.await, Ok(true));
        }
    }
}

/// Writes one more, and closes it.
pub(super) async fn another(engine: &dyn Engine) {
    let user = stream("u");
    append(engine, &user, notes(&user, &["another"], START)).await;
    engine.close().await;
}

/// How many notes there are, which must be the first ones, and what is under the key.
pub(super) async fn found(engine: &dyn Engine) -> (usize, Option<usize>) {
    let user = stream("u");
    let notes = ids(&page(engine, &user).await.records);
    let want: Vec<_> = (0..notes.len()).map(|n| format!("note-{n}")).collect();
    assert_eq!(notes, want);
    let entry = engine.get(&Key::Acks(user)).await.unwrap();
    let number = |value: Bytes| std::str::from_utf8(&value).unwrap().parse().unwrap();
    (notes.len(), entry.map(|entry| number(entry.value)))
}

/// Every file below `directory` with its content.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let name = |file: &Path| file.strip_prefix(directory).unwrap().display().to_string();
    let all = files(directory).into_iter();
    all.map(|file| (name(&file), fs::read(&file).unwrap()))
        .collect()
}

/// Everything is as it was `before`; but for the lists of tables, and which of them holds: the store's threads may have
/// moved tables that were whole before it was noticed that another one is not.
fn same(directory: &Path, before: &BTreeMap<String, Vec<u8>>, when: &str) {
    let kept = |files: BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
        let moved = ["/v", "/current", "/.tmp"];
        let kept = files.into_iter();
        kept.filter(|(name, _)| !moved.iter().any(|moved| name.contains(moved)))
            .collect()
    };
    let (now, before) = (kept(contents(directory)), kept(before.clone()));
    assert!(
        now.keys().eq(before.keys()),
        "{:?}, {:?} before: {when}",
        now.keys(),
        before.keys()
    );
    for (name, content) in &now {
        assert!(*content == before[name], "{name} has changed: {when}");
    }
}

/// Where the batches of a journal begin, and where the last one ends.
pub(super) fn batches(journal: &[u8]) -> Vec<usize> {
    let ends = journal.windows(4).enumerate();
    let ends = ends.filter(|(_, bytes)| bytes == b"FJL\x03");
    std::iter::once(0)
        .chain(ends.map(|(at, _)| at + 4))
        .collect()
}

fn refused(directory: &Path) -> String {
    match open(directory, &clock(), 3) {
        Ok(_) => panic!("it was opened"),
        Err(error @ (OpenError::Damaged(_) | OpenError::Partly(_))) => error.to_string(),
        Err(error) => panic!("{error}"),
    }
}

/// What helps only where the journal is damaged, or the lock.
const WAY_ON: &str = "--into";
const TAKEN: [&str; 4] = ["journal ", "its journal ", "0.jnl", "lock"];

/// The next start cuts the journal off at `byte`, and begins a new epoch.
pub(super) fn cut_off_at(directory: &Path, byte: usize) {
    let told = inspect(directory, &clock()).unwrap();
    assert_eq!(told.cut_off, Some(("0.jnl".to_owned(), byte as u64)));
    let is_new = matches!(told.next_start, NextStart::NewEpoch(_));
    assert!(is_new, "{told:?}");
}

/// It is refused, twice, for `what`, and as it was; an inspection says the same. Returns that.
pub(super) fn refused_as_it_is(directory: &Path, what: &str) -> Inspection {
    let before = contents(directory);
    for _ in 0..2 {
        let refused = refused(directory);
        assert!(refused.contains(what), "{refused}");
        let helps = TAKEN.iter().any(|damage| what.starts_with(damage));
        assert_eq!(refused.contains(WAY_ON), helps, "{refused}");
        same(directory, &before, &refused);
    }
    let found = inspect(directory, &clock()).unwrap();
    same(directory, &before, "inspected");
    match &found.next_start {
        NextStart::Refuses(damage) => assert!(damage.contains(what), "{damage}"),
        other => panic!("{other:?}"),
    }
    found
}

/// In the midst of the journal: what is before it can be read, and taken to a new directory.
#[tokio::test]
async fn what_is_before_the_damage_can_be_read_and_taken_to_a_new_directory() {
    let base = tempfile::tempdir().unwrap();
    let (directory, into) = (base.path().join("data"), base.path().join("new"));
    written(&directory, 8).await;
    let before = inspect(&directory, &clock()).unwrap().readable.unwrap();
    let path = directory.join("0.jnl");
    let mut journal = fs::read(&path).unwrap();
    let id = journal
        .windows(6)
        .position(|bytes| bytes == b"note-5")
        .unwrap();
    journal[id] ^= 1;
    fs::write(&path, &journal).unwrap();
    let batch = batches(&journal).into_iter().rfind(|start| *start < id);
    let what = format!(
        "journal 0.jnl, byte {}: a batch's checksum is wrong",
        batch.unwrap()
    );
    let found_there = refused_as_it_is(&directory, &what).readable.unwrap();
    assert_eq!((found_there.records, found_there.records_counted), (5, 5));
    assert_eq!((found_there.newest.0, found_there.streams), (5, 1));
    assert_eq!(found_there.epoch, before.epoch);
    // Three notes and three numbers, and what retention and the end wrote beside.
    assert!(found_there.missing_groups >= 6, "{found_there:?}");

    let untouched = contents(&directory);
    let epoch = take_over(&directory, &into, &clock(), &Entropy::seeded(7)).unwrap();
    same(&directory, &untouched, "taken over");
    assert_ne!(epoch, before.epoch);
    let taken = inspect(&into, &clock()).unwrap();
    assert_eq!(taken.next_start, NextStart::GoesOn);
    let engine = open(&into, &clock(), 2).unwrap();
    assert_eq!(found(&*engine).await, (5, Some(5)));
    assert_eq!(page(&*engine, &stream("u")).await.head.epoch, epoch);
    more(&*engine, 5..6).await;
    engine.close().await;
    let again = take_over(&directory, &into, &clock(), &Entropy::seeded(8));
    assert!(matches!(again, Err(OpenError::Io(_))), "{again:?}");
}

#[tokio::test]
async fn what_is_missing_is_not_made_anew() {
    let files = [
        "0.jnl",
        "lock",
        "version",
        "keyspaces/0/current",
        "keyspaces/1/current",
        "keyspaces/2/current",
    ];
    for file in files {
        let directory = tempfile::tempdir().unwrap();
        written(directory.path(), 3).await;
        fs::remove_file(directory.path().join(file)).unwrap();
        let told = refused_as_it_is(directory.path(), file);
        let records = told
            .readable
            .map(|readable| (readable.records, readable.records_counted));
        let want = match file {
            "lock" => Some((3, 3)),
            _ => None,
        };
        assert_eq!(records, want, "{file}");
        let into = directory.path().with_extension("new");
        let taken = take_over(directory.path(), &into, &clock(), &Entropy::seeded(7));
        match file {
            "lock" => {
                taken.unwrap();
                fs::remove_dir_all(into).unwrap();
            }
            _ => {
                assert!(
                    matches!(taken, Err(OpenError::Damaged(_))),
                    "{file}: {taken:?}"
                );
                assert!(!into.exists(), "{file}");
            }
        }
    }
    // An empty journal is not the one that was there.
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), 3).await;
    fs::write(directory.path().join("0.jnl"), "").unwrap();
    let told = refused_as_it_is(directory.path(), "it says nothing of itself");
    assert_eq!(told.readable, None);
}

/// What was in files of its own when the journal went can still be read, and so can the journals before a missing one.
#[tokio::test]
async fn without_its_journal_what_is_in_tables_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    flushed(directory).await;
    // Behind a missing one, a journal is of no use.
    fs::copy(directory.join("0.jnl"), directory.join("2.jnl")).unwrap();
    let told = refused_as_it_is(directory, "its journal 1.jnl is missing")
        .readable
        .unwrap();
    assert_eq!((told.records, told.records_counted), (5, 5));
    for journal in ["0.jnl", "2.jnl"] {
        fs::remove_file(directory.join(journal)).unwrap();
    }
    let told = refused_as_it_is(directory, "its journal is missing")
        .readable
        .unwrap();
    assert_eq!((told.records, told.records_counted), (3, 3));
    assert!(told.missing_groups >= 4, "{told:?}");
}

/// A directory with three notes in tables, and two more in the journal.
async fn flushed(directory: &Path) {
    let killed = tempfile::tempdir().unwrap();
    let engine = open(killed.path(), &clock(), 1).unwrap();
    more(&*engine, 0..3).await;
    as_killed(killed.path(), directory);
    engine.close().await;
    // Nobody knows how it ended: it is written anew.
    let engine = open(directory, &clock(), 2).unwrap();
    more(&*engine, 3..5).await;
    engine.close().await;
}

/// A table that is damaged: what can be read before it is counted, or nothing, and no start has it.
#[tokio::test]
async fn a_damaged_table_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    flushed(directory).await;
    let tables = files(&directory.join("keyspaces/1/tables"));
    let table = tables.first().expect("a table of records");
    let whole = fs::read(table).unwrap();
    let name = table.strip_prefix(directory).unwrap().display();
    let damaged = format!("its table {name} is damaged (");
    fs::write(table, &whole[..whole.len() / 2]).unwrap();
    // Which one it is takes reading all of them: a start does so only where a checksum is wrong.
    let refused = refused(directory);
    assert!(!refused.contains(&damaged), "{refused}");
    let told = inspect(directory, &clock()).unwrap();
    assert_eq!(told.readable, None);
    assert!(
        matches!(&told.next_start, NextStart::Refuses(why) if why.starts_with(&damaged)),
        "{told:?}"
    );
    let renewed = renew_epoch(directory, &clock(), &Entropy::seeded(7));
    assert!(
        matches!(&renewed, Err(OpenError::Damaged(why)) if why.starts_with(&damaged)),
        "{renewed:?}"
    );
    let mut flipped = whole;
    flipped[40] ^= 1;
    fs::write(table, flipped).unwrap();
    let told = refused_as_it_is(directory, &damaged);
    let told = told.readable.unwrap();
    assert_eq!(
        (told.records, told.records_counted, told.streams),
        (0, 5, 1)
    );
    let into = tempfile::tempdir().unwrap().path().join("new");
    let taken = take_over(directory, &into, &clock(), &Entropy::seeded(7));
    assert!(matches!(taken, Err(OpenError::Damaged(_))), "{taken:?}");
    assert!(!into.exists() && !into.with_extension("part").exists());
}

/// The store makes room for as many sections as a table says it has, before it looks whether that is so: 4 billion of
/// them end the process.
#[tokio::test]
async fn a_table_that_claims_too_much_is_refused_before_the_store_believes_it() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    flushed(directory).await;
    for keyspace in 0..3 {
        for table in files(&directory.join(format!("keyspaces/{keyspace}/tables"))) {
            let whole = fs::read(&table).unwrap();
            let list = whole[whole.len() - 16..].first_chunk().unwrap();
            let list = usize::try_from(u64::from_le_bytes(*list)).unwrap();
            let name = table.strip_prefix(directory).unwrap().display();
            for bit in 0..32 {
                let mut flipped = whole.clone();
                flipped[list + 4 + bit / 8] ^= 1 << (bit % 8);
                fs::write(&table, &flipped).unwrap();
                let refused = refused(directory);
                assert!(
                    refused.contains("damaged"),
                    "bit {bit} of {name}: {refused}"
                );
                if bit >= 6 {
                    assert!(
                        refused.contains(&format!("its table {name} is damaged")),
                        "bit {bit}: {refused}"
                    );
                }
            }
            fs::write(&table, &whole).unwrap();
        }
    }
    let engine = open(directory, &clock(), 2).unwrap();
    assert_eq!(found(&*engine).await.0, 5);
    engine.close().await;
}

/// Where the machine ends while it writes, the end of a batch may be there and its midst not.
#[tokio::test]
async fn a_last_batch_without_its_midst_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    written(directory, 3).await;
    let path = directory.join("0.jnl");
    let mut journal = fs::read(&path).unwrap();
    let batches = batches(&journal);
    let last = batches[batches.len() - 2];
    journal[last + 36..last + 44].fill(0);
    fs::write(&path, &journal).unwrap();
    cut_off_at(directory, last);
    let engine = open(directory, &clock(), 2).unwrap();
    assert_eq!(found(&*engine).await.0, 3);
    engine.close().await;
}

/// Lists of tables have numbers in them that no checksum of the store covers.
#[tokio::test]
async fn a_damaged_list_of_tables_is_refused_before_anything_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    flushed(directory).await;
    let lists = [0, 1, 2].into_iter().flat_map(|keyspace| {
        let current = directory.join(format!("keyspaces/{keyspace}/current"));
        let id = u64::from_le_bytes(*fs::read(&current).unwrap().first_chunk().unwrap());
        [current.with_file_name(format!("v{id}")), current]
    });
    for list in lists {
        let whole = fs::read(&list).unwrap();
        let is_current = list.ends_with("current");
        // What follows the name of the list and its checksum in `current` is not looked at.
        let bytes = if is_current { 24 } else { whole.len() };
        for at in 0..bytes {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&list, flipped).unwrap();
            let before = contents(directory);
            let refused = refused(directory);
            assert!(refused.contains("its file keyspaces/"), "{refused}");
            assert!(contents(directory) == before, "byte {at} of {list:?}");
        }
        fs::write(&list, whole).unwrap();
    }
    let table = files(&directory.join("keyspaces/1/tables")).remove(0);
    fs::remove_file(&table).unwrap();
    // What the store shows without it may not be what was written.
    let told = refused_as_it_is(directory, "its table keyspaces/1/tables/");
    assert_eq!(told.readable, None);
    let into = directory.with_extension("new");
    let taken = take_over(directory, &into, &clock(), &Entropy::seeded(7));
    assert!(matches!(taken, Err(OpenError::Damaged(_))), "{taken:?}");
    assert!(!into.exists() && !into.with_extension("new.part").exists());
}

/// What is taken over is made beside its place, and elsewhere than what it is taken from.
#[tokio::test]
async fn what_is_taken_over_is_whole_or_not_there() {
    let base = tempfile::tempdir().unwrap();
    let (directory, into) = (base.path().join("data"), base.path().join("new"));
    written(&directory, 3).await;
    let before = contents(&directory);
    let taken = |into: &Path| take_over(&directory, into, &clock(), &Entropy::seeded(7));
    let within = directory.join("deep/new");
    let refused = taken(&within).unwrap_err().to_string();
    assert!(
        refused.contains("lies in the directory itself"),
        "{refused}"
    );
    assert_eq!(contents(&directory), before);
    let part = base.path().join("new.part");
    fs::create_dir(&part).unwrap();
    let refused = taken(&into).unwrap_err().to_string();
    assert!(refused.contains("new.part: "), "{refused}");
    assert!(part.exists() && !into.exists());
    fs::remove_dir(&part).unwrap();
    taken(&into).unwrap();
    assert!(!part.exists());
    let found = inspect(&into, &clock()).unwrap();
    assert_eq!(found.next_start, NextStart::GoesOn);
}

/// The service has to read what an administrator has made.
#[tokio::test]
async fn what_is_taken_over_belongs_to_whom_the_directory_belongs() {
    const OTHER: u32 = 12_345;
    let base = tempfile::tempdir().unwrap();
    let (directory, into) = (base.path().join("data"), base.path().join("new"));
    written(&directory, 3).await;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o710)).unwrap();
    // Only root may give it away.
    let is_other = chown(&directory, Some(OTHER), Some(OTHER)).is_ok();
    take_over(&directory, &into, &clock(), &Entropy::seeded(7)).unwrap();
    assert_eq!(fs::metadata(&into).unwrap().mode() & 0o777, 0o700);
    let owner = fs::metadata(&directory).unwrap().uid();
    assert_eq!(owner == OTHER, is_other);
    for path in files(&into).iter().chain([&into, &into.join("keyspaces")]) {
        assert_eq!(fs::metadata(path).unwrap().uid(), owner, "{path:?}");
    }
    let found = inspect(&into, &clock()).unwrap();
    assert_eq!(found.next_start, NextStart::GoesOn);
}

/// Where damaged files make the store panic, that is told with its words and its place.
#[tokio::test]
async fn what_the_store_says_when_it_panics_is_told() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), 3).await;
    fs::create_dir(directory.path().join("stray.jnl")).unwrap();
    let refused = refused(directory.path());
    let what = "the store cannot make sense of its files: assertion failed";
    assert!(
        refused.contains(what) && refused.contains("recovery.rs:"),
        "{refused}"
    );
}

/// What an inspection left that was killed goes with the next start.
#[tokio::test]
async fn what_an_inspection_left_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), 1).await;
    let left = directory.path().join("inspection");
    for by in ["inspection", "start"] {
        fs::create_dir_all(left.join("keyspaces/0")).unwrap();
        if by == "start" {
            another(&*open(directory.path(), &clock(), 2).unwrap()).await;
        } else {
            inspect(directory.path(), &clock()).unwrap();
        }
        assert!(!left.exists(), "{by}");
    }
}
