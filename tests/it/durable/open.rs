//! Opening: what is refused, and when a directory goes on under its old epoch.

use std::{fs, path::Path};

use emitter::{
    clock::Entropy,
    engine::{
        Engine,
        durable::{NextStart, OpenError, inspect, renew_epoch},
    },
    event::{Epoch, StreamKey},
};

use tempfile::TempDir;

use super::{as_killed, clock, open, page};
use crate::support::events::{START, append, ids, notes, stream};

/// A directory in which `u` has the notes `a`, `b` and `c`, and its epoch.
async fn written(directory: &Path) -> Epoch {
    let engine = open(directory, &clock(), 1).unwrap();
    let epoch = write(&*engine, &stream("u"), &["a", "b", "c"]).await;
    engine.close().await;
    epoch
}

async fn write(engine: &dyn Engine, user: &StreamKey, names: &[&str]) -> Epoch {
    let mut epoch = None;
    for name in names {
        let appended = append(engine, user, notes(user, &[name], START)).await;
        epoch = Some(appended.records[0].position.epoch);
    }
    epoch.unwrap()
}

/// Opens `directory` and returns the epoch, and which notes `u` has.
async fn found(directory: &Path) -> (Epoch, Vec<String>) {
    let engine = open(directory, &clock(), 2).unwrap();
    let page = page(&*engine, &stream("u")).await;
    engine.close().await;
    (page.head.epoch, ids(&page.records))
}

fn refusal(directory: &Path) -> OpenError {
    match open(directory, &clock(), 3) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn what_was_closed_or_killed_goes_on_under_its_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let epoch = written(directory.path()).await;
    for _ in 0..2 {
        let (now, notes) = found(directory.path()).await;
        assert_eq!((now, notes.join("")), (epoch, "abc".to_owned()));
    }
    let engine = open(directory.path(), &clock(), 2).unwrap();
    write(&*engine, &stream("u"), &["d"]).await;
    let killed = tempfile::tempdir().unwrap();
    as_killed(directory.path(), killed.path());
    let (now, notes) = found(killed.path()).await;
    assert_eq!((now, notes.join("")), (epoch, "abcd".to_owned()));
    engine.close().await;
}

/// A copy of `directory`, in which nothing proves that it is whole.
fn copied(directory: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    as_killed(directory, copy.path());
    let witness = copy.path().join("witness");
    fs::remove_file(&witness).unwrap();
    fs::copy(directory.join("witness"), &witness).unwrap();
    copy
}

#[tokio::test]
async fn a_copy_begins_a_new_epoch_and_keeps_its_offsets() {
    let directory = tempfile::tempdir().unwrap();
    let epoch = written(directory.path()).await;
    let copy = copied(directory.path());
    let engine = open(copy.path(), &clock(), 2).unwrap();
    let state = engine.load(&stream("u")).await.unwrap();
    assert_ne!(state.head.epoch, epoch);
    assert_eq!((state.head.offset.0, state.epoch_since), (3, Some(START)));
    engine.close().await;
    // Once is enough.
    let (again, notes) = found(copy.path()).await;
    assert_eq!(
        (again, notes.join("")),
        (state.head.epoch, "abc".to_owned())
    );
}

#[tokio::test]
async fn what_was_acknowledged_and_is_missing_makes_a_new_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let epoch = written(directory.path()).await;
    let engine = open(directory.path(), &clock(), 2).unwrap();
    let before = tempfile::tempdir().unwrap();
    as_killed(directory.path(), before.path());
    write(&*engine, &stream("u"), &["d"]).await;
    // The witness of both knows of `d`, the older files do not.
    let (now, notes) = found(before.path()).await;
    assert_ne!(now, epoch);
    assert_eq!(notes.join(""), "abc");
    engine.close().await;
}

#[tokio::test]
async fn without_its_witness_it_begins_a_new_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let epoch = written(directory.path()).await;
    fs::remove_file(directory.path().join("witness")).unwrap();
    let told = inspect(directory.path(), &clock()).unwrap();
    assert!(
        matches!(told.next_start, NextStart::NewEpoch(_)),
        "{told:?}"
    );
    assert_eq!(told.readable.unwrap().epoch, epoch);
    assert_ne!(found(directory.path()).await.0, epoch);
}

#[tokio::test]
async fn one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), &clock(), 1).unwrap();
    assert!(matches!(refusal(directory.path()), OpenError::InUse));
    let inspected = inspect(directory.path(), &clock());
    assert!(matches!(inspected, Err(OpenError::InUse)), "{inspected:?}");
    engine.close().await;
    open(directory.path(), &clock(), 2).unwrap().close().await;
}

#[tokio::test]
async fn what_another_version_or_somebody_else_wrote_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path()).await;
    fs::write(directory.path().join("FORMAT"), "emitter-data 2\n").unwrap();
    let refused = refusal(directory.path());
    assert!(
        matches!(&refused, OpenError::Format { found } if found == "emitter-data 2"),
        "{refused}"
    );

    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("thesis.txt"), "draft").unwrap();
    let refused = refusal(foreign.path());
    assert!(matches!(refused, OpenError::Foreign), "{refused}");
    assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn repair_says_what_is_there_and_gives_a_new_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let epoch = written(directory.path()).await;
    let told = inspect(directory.path(), &clock()).unwrap();
    assert_eq!((told.next_start, told.cut_off), (NextStart::GoesOn, None));
    let told = told.readable.unwrap();
    assert_eq!(
        (told.epoch, told.streams, told.records, told.records_counted),
        (epoch, 1, 3, 3)
    );
    assert_eq!((told.newest.0, told.holes, told.missing_groups), (3, 0, 0));
    let renewed = renew_epoch(directory.path(), &clock(), &Entropy::seeded(5)).unwrap();
    assert_ne!(renewed, epoch);
    let (now, notes) = found(directory.path()).await;
    assert_eq!((now, notes.join("")), (renewed, "abc".to_owned()));
    let nowhere = inspect(&directory.path().join("nowhere"), &clock());
    assert!(matches!(nowhere, Err(OpenError::Io(_))), "{nowhere:?}");
}

/// The epoch of a copy is that of the repair, whatever becomes of the processes after it.
#[tokio::test]
async fn a_new_epoch_is_given_once_though_nobody_closes_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let epoch = written(directory.path()).await;
    let copy = copied(directory.path());
    let renewed = renew_epoch(copy.path(), &clock(), &Entropy::seeded(5)).unwrap();
    let (mut held, mut at) = (Vec::new(), copy);
    for (process, note) in ["d", "e"].iter().enumerate() {
        let engine = open(at.path(), &clock(), 10 + process as u64).unwrap();
        assert_eq!(write(&*engine, &stream("u"), &[note]).await, renewed);
        let killed = tempfile::tempdir().unwrap();
        as_killed(at.path(), killed.path());
        // Its end would be told in the witness that both have.
        held.push((engine, std::mem::replace(&mut at, killed)));
    }
    let (now, notes) = found(at.path()).await;
    assert_eq!((now, notes.join("")), (renewed, "abcde".to_owned()));
    assert_ne!(now, epoch);
}
