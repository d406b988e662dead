//! Retention gives disk space back.

use std::{fs, path::Path, time::Duration};

use emitter::engine::{Commit, Engine, durable::DurableEngine};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{bounds, clock, page};
use crate::{
    processes::tools::until,
    support::events::{append, custom, draft, durable, event, stream},
};

/// A note of 1 KiB that nothing makes smaller.
fn note(rng: &mut StdRng, id: usize) -> emitter::event::Event {
    let mut body = vec![0; 1024];
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
    until("a quarter of the disk space is taken", async || {
        maintain(&engine).await;
        let left = tables(directory.path());
        println!("{left} of {full} bytes are left");
        left < full / 4
    })
    .await;
    // Compaction may still be at work: the directory is let go when it is over.
    engine.close().await;
    let engine = durable(directory.path(), bounds, &clock, 2).unwrap();
    assert_eq!(page(&*engine, &user).await.records.len(), 0);
    engine.close().await;
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
