//! Retention: what goes, what is said about it, and what stays.

use std::{sync::Arc, time::Duration};

use emitter::{
    clock::Clock,
    engine::{Commit, Engine, Page, Watcher},
    event::{Kind, Offset, Position, Record, StreamKey},
};

use super::{AGE, BYTES, IDS, RECORDS, WINDOW, pass_a_day};
use crate::support::events::{
    ALL, START, append, custom, draft, event, event_id, ids, maintain_all, note, notes, offsets,
    sized, stream,
};

async fn page(engine: &dyn Engine, user: &StreamKey) -> Page {
    engine.read(user, Offset(0), ALL).await.unwrap()
}

/// Appends `count` notes, one by one, with ids `n0` …
async fn fill(engine: &dyn Engine, user: &StreamKey, count: usize) -> Vec<Arc<Record>> {
    let mut records = Vec::new();
    for n in 0..count {
        let id = format!("n{n}");
        records.extend(
            append(engine, user, notes(user, &[&id], START))
                .await
                .records,
        );
    }
    records
}

pub(crate) async fn the_oldest_records_go_beyond_the_number(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    let written = fill(&*engine, &user, RECORDS + 7).await;
    let page = page(&*engine, &user).await;
    assert_eq!(ids(&page.records), ids(&written[7..]));
    assert_eq!(page.trimmed, written[6].position.offset);
    assert_eq!(page.records[0].prev, page.trimmed);
    // One commit that is larger than the retention.
    let drafts = (0..RECORDS + 1)
        .map(|n| draft(note(&user, &format!("m{n}")), 0, START))
        .collect();
    let large = append(&*engine, &user, Commit { drafts }).await;
    let after = engine.read(&user, Offset(0), ALL).await.unwrap();
    assert_eq!(offsets(&after.records), offsets(&large.records[1..]));
    assert_eq!(after.trimmed, large.records[0].position.offset);
}

pub(crate) async fn the_oldest_records_go_beyond_the_bytes(engine: Arc<dyn Engine>, _clock: Clock) {
    let user = stream("u");
    let large = |id: &str| draft(sized(&user, id, None, custom("n"), BYTES / 4), 0, START);
    let fit = BYTES / large("n0").weight();
    let mut written = Vec::new();
    for n in 0..fit + 2 {
        let drafts = vec![large(&format!("n{n}"))];
        written.extend(append(&*engine, &user, Commit { drafts }).await.records);
    }
    let page = page(&*engine, &user).await;
    assert_eq!(ids(&page.records), ids(&written[2..]), "{fit} fit");
    assert_eq!(page.trimmed, written[1].position.offset);
}

pub(crate) async fn records_go_by_age(engine: Arc<dyn Engine>, clock: Clock) {
    let user = stream("u");
    let first = append(&*engine, &user, notes(&user, &["a", "b"], START)).await;
    clock.advance(AGE / 2);
    append(&*engine, &user, notes(&user, &["c"], clock.now())).await;
    clock.advance(AGE / 2 - Duration::from_millis(1));
    maintain_all(&*engine).await;
    assert_eq!(ids(&page(&*engine, &user).await.records), ["a", "b", "c"]);
    clock.advance(Duration::from_millis(1));
    maintain_all(&*engine).await;
    let after = page(&*engine, &user).await;
    assert_eq!(ids(&after.records), ["c"]);
    assert_eq!(after.trimmed, first.records[1].position.offset);
    clock.advance(AGE);
    maintain_all(&*engine).await;
    let empty = page(&*engine, &user).await;
    assert_eq!(ids(&empty.records), [""; 0]);
    assert_eq!(empty.trimmed, empty.head.offset);
}

pub(crate) async fn ids_are_remembered_longer_than_records(engine: Arc<dyn Engine>, clock: Clock) {
    let user = stream("u");
    append(&*engine, &user, notes(&user, &["a"], START)).await;
    clock.advance(WINDOW - Duration::from_millis(1));
    maintain_all(&*engine).await;
    assert_eq!(ids(&page(&*engine, &user).await.records), [""; 0]);
    let state = engine.load(&user).await.unwrap();
    assert!(state.dedupe.get(&event_id("a")).is_some(), "{state:?}");
    // By number too: more records than are retained, and every id is known.
    fill(&*engine, &user, RECORDS + 50).await;
    let state = engine.load(&user).await.unwrap();
    assert_eq!(state.dedupe.len(), RECORDS + 51);
}

pub(crate) async fn ids_are_forgotten_by_age(engine: Arc<dyn Engine>, clock: Clock) {
    let user = stream("u");
    append(&*engine, &user, notes(&user, &["a"], START)).await;
    clock.advance(WINDOW / 2);
    append(&*engine, &user, notes(&user, &["b"], clock.now())).await;
    clock.advance(WINDOW / 2);
    maintain_all(&*engine).await;
    let state = engine.load(&user).await.unwrap();
    assert!(state.dedupe.get(&event_id("a")).is_none(), "{state:?}");
    assert!(state.dedupe.get(&event_id("b")).is_some(), "{state:?}");
    assert_eq!(state.dedupe.oldest(), Some(START + WINDOW / 2));
}

pub(crate) async fn ids_are_forgotten_beyond_their_number(engine: Arc<dyn Engine>, _clock: Clock) {
    let user = stream("u");
    fill(&*engine, &user, IDS + 3).await;
    let state = engine.load(&user).await.unwrap();
    assert_eq!(state.dedupe.len(), IDS);
    for (id, known) in [("n0", false), ("n2", false), ("n3", true)] {
        assert_eq!(
            state.dedupe.get(&event_id(id)).is_some(),
            known,
            "{id} of {IDS} remembered"
        );
    }
}

pub(crate) async fn an_evicted_stream_never_uses_an_offset_again(
    engine: Arc<dyn Engine>,
    clock: Clock,
) {
    let user = stream("u");
    let mut seen = Vec::new();
    let mut epochs = Vec::new();
    for round in 0..4 {
        let now = clock.now();
        let ids = [format!("a{round}"), format!("b{round}")];
        let commit = notes(&user, &[&ids[0], &ids[1]], now);
        let appended = append(&*engine, &user, commit).await;
        seen.extend(offsets(&appended.records));
        epochs.extend(appended.records.iter().map(|r| r.position.epoch));
        pass_a_day(&*engine, &clock).await;
        let state = engine.load(&user).await.unwrap();
        assert!(state.is_empty(), "round {round}: {state:?}");
        assert!(state.head.offset.0 >= *seen.last().unwrap());
    }
    // Under one epoch offsets only grow; a new epoch would be another way to keep the promise.
    for n in 1..seen.len() {
        assert!(
            epochs[n] != epochs[n - 1] || seen[n] > seen[n - 1],
            "{seen:?} under {epochs:?}"
        );
    }
}

pub(crate) async fn a_resume_from_below_an_evicted_offset_sees_that_it_is_trimmed(
    engine: Arc<dyn Engine>,
    clock: Clock,
) {
    let user = stream("u");
    let old = append(&*engine, &user, notes(&user, &["a", "b", "c"], START)).await;
    let old: Vec<_> = old.records.iter().map(|r| r.position).collect();
    pass_a_day(&*engine, &clock).await;
    // Before and after the stream comes back.
    for comes_back in [false, true] {
        if comes_back {
            append(&*engine, &user, notes(&user, &["d"], clock.now())).await;
        }
        for missed in &old[..2] {
            let page = engine.read(&user, missed.offset, ALL).await.unwrap();
            assert!(
                page.head.epoch != missed.epoch || page.trimmed > missed.offset,
                "after {missed}, came back: {comes_back}: {page:?}"
            );
        }
        let page = engine.read(&user, old[2].offset, ALL).await.unwrap();
        assert!(
            page.trimmed <= old[2].offset,
            "nothing is missing after {}: {page:?}",
            old[2]
        );
        assert_eq!(page.records.len(), usize::from(comes_back));
    }
}

pub(crate) async fn an_open_run_keeps_its_stream(engine: Arc<dyn Engine>, clock: Clock) {
    let user = stream("u");
    let started = event(&user, "e1", Some("r1"), Kind::AgentStarted);
    let drafts = vec![draft(started, 1, START)];
    append(&*engine, &user, Commit { drafts }).await;
    clock.advance(Duration::from_secs(23 * 60 * 60));
    maintain_all(&*engine).await;
    maintain_all(&*engine).await;
    let state = engine.load(&user).await.unwrap();
    assert_eq!(state.open_runs(), 1, "{state:?}");
    pass_a_day(&*engine, &clock).await;
    let state = engine.load(&user).await.unwrap();
    assert_eq!(state.open_runs(), 1, "{state:?}");
    // Once it has ended it is forgotten in its time.
    let ended = event(&user, "e2", Some("r1"), Kind::AgentCompleted);
    let drafts = vec![draft(ended, 2, clock.now())];
    append(&*engine, &user, Commit { drafts }).await;
    pass_a_day(&*engine, &clock).await;
    let state = engine.load(&user).await.unwrap();
    assert!(state.is_empty(), "{state:?}");
}

pub(crate) async fn a_watcher_keeps_its_stream(engine: Arc<dyn Engine>, clock: Clock) {
    struct Deaf;
    impl Watcher for Deaf {
        fn appended(&self, _records: &[Arc<Record>]) {}
        fn stands_at(&self, _head: Position) {}
    }
    let user = stream("u");
    let last = append(&*engine, &user, notes(&user, &["a"], START)).await;
    let _watch = engine.watch(&user, Arc::new(Deaf)).await.unwrap();
    pass_a_day(&*engine, &clock).await;
    let state = engine.load(&user).await.unwrap();
    assert_eq!(state.head, last.records[0].position);
    let next = append(&*engine, &user, notes(&user, &["b"], clock.now())).await;
    assert_eq!(next.records[0].prev, last.records[0].position.offset);
}
