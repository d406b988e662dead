//! Directories as faults and people leave them.

use std::{fs, path::Path};

use emitter::{
    engine::{
        Engine, ReadLimit,
        durable::{OpenError, Readable, inspect},
    },
    event::Offset,
};
use fjall::{Database, KeyspaceCreateOptions, PersistMode};

use super::{clock, first_version::copy, open, page};
use crate::support::events::{START, append, ids, notes, stream};

/// Writes the notes `n0` … to `u` in `directory`, and closes it.
async fn written(directory: &Path, count: usize) {
    let engine = open(directory, &clock(), 1).unwrap();
    let user = stream("u");
    for n in 0..count {
        append(&*engine, &user, notes(&user, &[&format!("n{n}")], START)).await;
    }
    engine.close().await;
}

/// Takes the records of the first shelf at `offsets` away, as damage in the store's files would.
fn lose(directory: &Path, offsets: impl IntoIterator<Item = u64>) {
    let store = Database::builder(directory).open().unwrap();
    let records = store
        .keyspace("records", KeyspaceCreateOptions::default)
        .unwrap();
    for offset in offsets {
        let key = [1u64.to_be_bytes(), offset.to_be_bytes()].concat();
        assert!(records.contains_key(&key).unwrap(), "{offset}");
        records.remove(key).unwrap();
    }
    store.persist(PersistMode::SyncAll).unwrap();
}

#[tokio::test]
async fn a_backup_that_is_put_back_begins_a_new_epoch() {
    let user = stream("u");
    for in_place in [true, false] {
        let base = tempfile::tempdir().unwrap();
        let (data, backup) = (base.path().join("data"), base.path().join("backup"));
        written(&data, 1).await;
        copy(&data, &backup);
        let engine = open(&data, &clock(), 2).unwrap();
        let told = append(&*engine, &user, notes(&user, &["told"], START)).await;
        engine.close().await;
        if !in_place {
            fs::remove_dir_all(&data).unwrap();
        }
        copy(&backup, &data);
        let engine = open(&data, &clock(), 3).unwrap();
        let other = append(&*engine, &user, notes(&user, &["other"], START)).await;
        engine.close().await;
        let (told, other) = (told.records[0].position, other.records[0].position);
        assert_ne!(told, other, "in place: {in_place}");
        assert_ne!(told.epoch, other.epoch, "in place: {in_place}");
    }
}

#[tokio::test]
async fn a_first_start_that_was_cut_short_is_begun_again() {
    let files = ["lock", "keyspaces", "0.jnl", "version"];
    for count in 0..=files.len() {
        let directory = tempfile::tempdir().unwrap();
        for name in &files[..count] {
            let path = directory.path().join(name);
            if *name == "keyspaces" {
                fs::create_dir(path).unwrap();
            } else {
                fs::write(path, "").unwrap();
            }
        }
        written(directory.path(), 1).await;
    }
    // Once something may have been acknowledged, nothing is begun again.
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), 1).await;
    fs::remove_file(directory.path().join("FORMAT")).unwrap();
    let refused = open(directory.path(), &clock(), 2).err();
    assert!(matches!(refused, Some(OpenError::Foreign)), "{refused:?}");
}

fn readable(directory: &Path) -> Readable {
    inspect(directory, &clock()).unwrap().readable.unwrap()
}

#[tokio::test]
async fn a_stream_ends_before_a_hole_and_goes_on_under_a_new_epoch() {
    // In the middle, at the end, and more than retention has left of the rest.
    for lost in [vec![7], vec![9, 10], vec![3, 4, 8]] {
        let directory = tempfile::tempdir().unwrap();
        written(directory.path(), 10).await;
        let before = readable(directory.path());
        lose(directory.path(), lost.clone());
        let told = readable(directory.path());
        let left = 10 - lost.len() as u64;
        assert_eq!((told.records, told.records_counted), (left, 10));
        let engine = open(directory.path(), &clock(), 2).unwrap();
        let user = stream("u");
        let page = page(&*engine, &user).await;
        let want: Vec<_> = (0..lost[0] - 1).map(|n| format!("n{n}")).collect();
        assert_eq!(ids(&page.records), want, "lost {lost:?}");
        assert_ne!(page.head.epoch, before.epoch);
        // It goes on, and whatever lay behind the hole does not come back.
        let next = append(&*engine, &user, notes(&user, &["next"], START)).await;
        assert_eq!(next.records[0].prev.0, lost[0] - 1);
        engine.close().await;
        let engine = open(directory.path(), &clock(), 3).unwrap();
        let again = super::page(&*engine, &user).await;
        assert_eq!(
            (again.records.len(), again.head.epoch),
            (want.len() + 1, page.head.epoch)
        );
        engine.close().await;
    }
}

#[tokio::test]
async fn a_stream_whose_rows_know_more_than_its_records_is_refused() {
    // Beyond 20 records retention writes down what is known of runs: as of the last one.
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), 30).await;
    lose(directory.path(), 15..=30);
    let refused = open(directory.path(), &clock(), 2).err();
    assert!(
        matches!(&refused, Some(OpenError::Damaged(_))),
        "{refused:?}"
    );
    let text = refused.map(|error| error.to_string()).unwrap_or_default();
    assert!(text.contains("restore a backup"), "{text}");
}

#[test]
fn what_is_trimmed_while_it_is_read_is_told() {
    // One thread for blocking work: the read waits behind what is let go only after the trimming.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path(), &clock(), 1).unwrap();
        let user = stream("u");
        for n in 0..20 {
            append(&*engine, &user, notes(&user, &[&format!("n{n}")], START)).await;
        }
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let blocker = tokio::task::spawn_blocking(move || wait.recv());
        let limit = ReadLimit {
            records: 5,
            bytes: usize::MAX,
        };
        let mut reading = Box::pin(engine.read(&user, Offset(0), limit));
        // It has looked at what there is, and waits.
        assert!(futures_util::poll!(&mut reading).is_pending());
        for n in 20..40 {
            append(&*engine, &user, notes(&user, &[&format!("n{n}")], START)).await;
        }
        // What was trimmed is removed with the next group.
        append(&*engine, &user, notes(&user, &["last"], START)).await;
        go.send(()).unwrap();
        let page = reading.await.unwrap();
        blocker.await.unwrap().unwrap();
        assert!(page.trimmed >= Offset(20), "{page:?}");
        assert_eq!(page.records.len(), 5);
        engine.close().await;
    });
}
