//! Appending: one order, compare before storing, all or nothing.

use std::sync::Arc;

use emitter::{
    clock::Clock,
    engine::{AppendError, Commit, Engine},
    event::{Epoch, Offset, Position, Record},
};

use super::{at, watch::Heard};
use crate::support::events::{START, all, append, draft, ids, note, notes, offsets, sized, stream};

pub(crate) async fn records_come_back_in_order_and_offsets_strictly_increase(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    for id in ["a", "b", "c"] {
        append(&*engine, &user, notes(&user, &[id], START)).await;
        // Other users' records in between: offsets need not be dense.
        let other = stream("other");
        append(&*engine, &other, notes(&other, &[id], START)).await;
    }
    let records = all(&*engine, &user).await;
    assert_eq!(ids(&records), ["a", "b", "c"]);
    let offsets = offsets(&records);
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
    assert!(offsets[0] > 0, "{offsets:?}");
}

pub(crate) async fn offsets_within_a_commit_are_consecutive(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    let appended = append(&*engine, &user, notes(&user, &["a", "b", "c"], START)).await;
    let got = offsets(&appended.records);
    assert_eq!(got, [got[0], got[0] + 1, got[0] + 2]);
    assert_eq!(ids(&appended.records), ["a", "b", "c"]);
    assert_eq!(offsets(&all(&*engine, &user).await), got);
}

pub(crate) async fn each_record_carries_the_offset_before_it(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    append(&*engine, &user, notes(&user, &["a", "b"], START)).await;
    let other = stream("other");
    append(&*engine, &other, notes(&other, &["x"], START)).await;
    append(&*engine, &user, notes(&user, &["c"], START)).await;
    let records = all(&*engine, &user).await;
    let prev: Vec<u64> = records.iter().map(|record| record.prev.0).collect();
    let offsets = offsets(&records);
    assert_eq!(prev, [0, offsets[0], offsets[1]], "offsets {offsets:?}");
}

pub(crate) async fn a_commit_decided_on_an_older_head_is_told_exactly_what_it_missed(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    let first = append(&*engine, &user, notes(&user, &["a", "b"], START)).await;
    let missed = append(&*engine, &user, notes(&user, &["c", "d"], START)).await;
    for (expected, want) in [
        (first.records[1].position, &["c", "d"][..]),
        (first.records[0].position, &["b", "c", "d"]),
        (missed.records[0].position, &["d"]),
    ] {
        let late = engine
            .append(&user, &at(expected), notes(&user, &["late"], START))
            .await;
        match late {
            Err(AppendError::Conflict(delta)) => {
                assert_eq!(ids(&delta), want, "expected {expected}");
                let same = |r: &&Arc<Record>| r.position.offset > expected.offset;
                let stored = all(&*engine, &user).await;
                let stored: Vec<_> = stored.iter().filter(same).map(|r| r.position).collect();
                let told: Vec<_> = delta.iter().map(|r| r.position).collect();
                assert_eq!(told, stored, "expected {expected}");
            }
            other => panic!("expected {expected}: {other:?}"),
        }
    }
    assert_eq!(ids(&all(&*engine, &user).await), ["a", "b", "c", "d"]);
}

pub(crate) async fn the_expected_epoch_is_compared_too(engine: Arc<dyn Engine>, _clock: Clock) {
    let user = stream("u");
    let other_epoch = |offset| Position::new(Epoch::new(0x0dd), offset);
    // Both for a stream that does not exist, and for one that does.
    for id in ["a", "b"] {
        let head = engine.load(&user).await.unwrap().head;
        let foreign = engine
            .append(
                &user,
                &at(other_epoch(head.offset)),
                notes(&user, &["bad"], START),
            )
            .await;
        assert!(matches!(foreign, Err(AppendError::Reload)), "{foreign:?}");
        engine
            .append(&user, &at(head), notes(&user, &[id], START))
            .await
            .unwrap();
    }
    assert_eq!(ids(&all(&*engine, &user).await), ["a", "b"]);
}

pub(crate) async fn an_expected_offset_beyond_the_head_is_not_taken(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    let other = stream("other");
    append(&*engine, &user, notes(&user, &["a"], START)).await;
    // Offsets up to here exist, but not in this stream.
    append(&*engine, &other, notes(&other, &["x", "y"], START)).await;
    let head = engine.load(&user).await.unwrap().head;
    for beyond in [1, 2, 3, 1_000_000] {
        let expected = Position::new(head.epoch, Offset(head.offset.0 + beyond));
        let ahead = engine
            .append(&user, &at(expected), notes(&user, &["bad"], START))
            .await;
        assert!(
            matches!(ahead, Err(AppendError::Reload)),
            "{beyond} beyond the head: {ahead:?}"
        );
    }
    assert_eq!(ids(&all(&*engine, &user).await), ["a"]);
}

pub(crate) async fn a_conflict_of_more_than_256_records_is_a_reload(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    let first = append(&*engine, &user, notes(&user, &["a"], START)).await;
    let expected = first.records[0].position;
    let late = || notes(&user, &["late"], START);
    let commit = |from: usize, count: usize| Commit {
        drafts: (from..from + count)
            .map(|n| draft(note(&user, &format!("n{n}")), 0, START))
            .collect(),
    };
    append(&*engine, &user, commit(0, 256)).await;
    match engine.append(&user, &at(expected), late()).await {
        Err(AppendError::Conflict(delta)) => assert_eq!(delta.len(), 256),
        other => panic!("256 missed: {other:?}"),
    }
    append(&*engine, &user, commit(256, 1)).await;
    let reload = engine.append(&user, &at(expected), late()).await;
    assert!(matches!(reload, Err(AppendError::Reload)), "{reload:?}");
}

pub(crate) async fn a_conflict_that_reaches_below_what_was_trimmed_is_a_reload(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    let first = append(&*engine, &user, notes(&user, &["a", "b"], START)).await;
    // Few records, but more bytes than are retained.
    for n in 0..3 {
        let large = sized(
            &user,
            &format!("large{n}"),
            None,
            crate::support::events::custom("large"),
            super::BYTES / 2,
        );
        let drafts = vec![draft(large, 0, START)];
        append(&*engine, &user, Commit { drafts }).await;
    }
    for record in &first.records {
        let late = engine
            .append(&user, &at(record.position), notes(&user, &["late"], START))
            .await;
        assert!(matches!(late, Err(AppendError::Reload)), "{late:?}");
    }
}

pub(crate) async fn a_refused_commit_leaves_nothing(engine: Arc<dyn Engine>, _clock: Clock) {
    let user = stream("u");
    let first = append(&*engine, &user, notes(&user, &["a"], START)).await;
    append(&*engine, &user, notes(&user, &["b"], START)).await;
    let before = engine.load(&user).await.unwrap();
    let heard = Arc::new(Heard::default());
    let _watch = engine.watch(&user, heard.clone()).await.unwrap();
    let refused = notes(&user, &["x", "y", "z"], START);
    for expected in [
        first.records[0].position,
        Position::new(Epoch::new(1), before.head.offset),
    ] {
        let answer = engine.append(&user, &at(expected), refused.clone()).await;
        assert!(answer.is_err(), "{answer:?}");
        let after = engine.load(&user).await.unwrap();
        assert_eq!(after.head, before.head);
        assert_eq!(after.dedupe.len(), before.dedupe.len());
        assert_eq!(ids(&heard.records()), [""; 0], "a watcher heard of it");
        assert_eq!(ids(&all(&*engine, &user).await), ["a", "b"]);
    }
    let next = append(&*engine, &user, notes(&user, &["c"], START)).await;
    assert_eq!(next.records[0].prev, before.head.offset);
}

pub(crate) async fn streams_do_not_see_each_other(engine: Arc<dyn Engine>, _clock: Clock) {
    let (mine, other) = (stream("u1"), stream("u2"));
    append(&*engine, &mine, notes(&mine, &["a"], START)).await;
    assert_eq!(ids(&all(&*engine, &other).await), [""; 0]);
    append(&*engine, &other, notes(&other, &["a"], START)).await;
    assert_eq!(ids(&all(&*engine, &mine).await), ["a"]);
    assert_eq!(ids(&all(&*engine, &other).await), ["a"]);
}
