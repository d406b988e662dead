//! Retention gives disk space back, and what is written takes no more of it than is said.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use emitter::engine::{Commit, Engine, durable::DurableEngine};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{bounds, clock, page};
use crate::{
    processes::tools::until_within,
    support::{
        events::{append, custom, draft, durable, event, stream},
        seed::cases,
    },
};

/// A note of 1 KiB that nothing makes smaller.
fn note(rng: &mut StdRng, id: usize) -> emitter::event::Event {
    sized_note(rng, id, 1024)
}

/// A note of so many bytes that nothing makes smaller.
fn sized_note(rng: &mut StdRng, id: usize, bytes: usize) -> emitter::event::Event {
    let mut body = vec![0; bytes];
    rng.fill(&mut body[..]);
    emitter::event::Event {
        body: body.into(),
        ..event(&stream("u"), &format!("n{id}"), None, custom("note"))
    }
}

#[tokio::test]
async fn what_retention_removes_leaves_the_disk() {
    const EVENTS: usize = 40_000;
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let bounds = emitter::engine::memory::Config {
        retention_records: EVENTS,
        retention_bytes: 1 << 30,
        dedupe_window: Duration::from_secs(1),
        ..bounds()
    };
    let engine = durable(directory.path(), bounds.clone(), &clock, 1).unwrap();
    let user = stream("u");
    let mut rng = StdRng::seed_from_u64(1);
    for from in (0..EVENTS).step_by(1_000) {
        let drafts = (from..from + 1_000).map(|id| draft(note(&mut rng, id), 0, clock.now()));
        append(
            &*engine,
            &user,
            Commit {
                drafts: drafts.collect(),
            },
        )
        .await;
    }
    let full = tables(directory.path());
    assert!(full > 20 << 20, "{full} bytes");
    assert_eq!(page(&*engine, &user).await.records.len(), EVENTS);
    clock.advance(bounds.retention_age);
    // Removing takes several batches, compaction a thread of its own.
    until_within(
        Duration::from_secs(300),
        "a quarter of the disk space is taken",
        async || {
            maintain(&engine).await;
            let left = tables(directory.path());
            println!("{left} of {full} bytes are left");
            left < full / 4
        },
    )
    .await;
    // Compaction may still be at work: the directory is let go when it is over.
    engine.close().await;
    let engine = durable(directory.path(), bounds, &clock, 2).unwrap();
    assert_eq!(page(&*engine, &user).await.records.len(), 0);
    engine.close().await;
}

/// However much is written, and though most of what fills it is of records and next to nothing of other rows.
#[tokio::test]
async fn the_journal_keeps_its_bound_soak() {
    const BOUND: u64 = 128 << 20;
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let engine = durable(directory.path(), bounds(), &clock, 1).unwrap();
    let user = stream("u");
    let mut rng = StdRng::seed_from_u64(1);
    let (mut most, mut written) = (0, 0_u64);
    for mebibytes in 0..cases(320, 4_000) {
        let drafts = (0..16).map(|n| {
            let id = usize::try_from(mebibytes).unwrap() * 16 + n;
            draft(sized_note(&mut rng, id, 64 << 10), 0, clock.now())
        });
        let commit = Commit {
            drafts: drafts.collect(),
        };
        append(&*engine, &user, commit).await;
        let journal = journal(directory.path());
        most = most.max(journal);
        written += 1 << 20;
        assert!(journal <= BOUND, "{journal} bytes after {written}");
    }
    println!("{most} bytes at most, of {written}");
    engine.close().await;
}

/// Bytes that the journal takes in `directory`.
fn journal(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).unwrap().flatten();
    let journals = files.filter(|entry| entry.path().extension().is_some_and(|of| of == "jnl"));
    // One that is no longer needed may be gone.
    let taken = journals.map(|entry| entry.metadata().map_or(0, |facts| facts.blocks() * 512));
    taken.sum()
}

/// Bytes of the tables in `directory`. The journal comes on top, at most 128 MiB.
fn tables(directory: &Path) -> u64 {
    let mut bytes = 0;
    let mut left = vec![directory.join("keyspaces")];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            // Compaction may have taken it away.
            match entry.metadata() {
                Ok(facts) if facts.is_dir() => left.push(entry.path()),
                facts => bytes += facts.map_or(0, |facts| facts.len()),
            }
        }
    }
    bytes
}

async fn maintain(engine: &DurableEngine) {
    for _ in 0..DurableEngine::turns() {
        engine.maintain().await;
    }
}
