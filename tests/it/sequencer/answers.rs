//! What callers are told: the truth about what is stored.

use std::{sync::Arc, time::Duration};

use emitter::{engine::memory, event::Kind, sequencer::Config};
use tokio::time::Instant;

use crate::support::{
    events::{custom, event, note, sized, stream},
    rig::{Rig, observing, until, words},
};

#[tokio::test(start_paused = true)]
async fn a_receipt_says_what_is_stored() {
    let rig = Rig::new();
    let user = stream("u");
    let batch = [
        event(&user, "e1", Some("r"), Kind::AgentStarted),
        event(&user, "e2", Some("r"), Kind::AgentThinking),
        event(&user, "e3", None, custom("note")),
    ];
    let answers = rig.emit(&user, batch).await;
    let stored = rig.stored(&user).await;
    assert_eq!(stored.len(), 3);
    for (answer, record) in answers.iter().zip(&stored) {
        assert_eq!(answer.as_ref(), Ok(&record.receipt(false)));
    }
    let sequences: Vec<u64> = stored.iter().map(|r| r.draft.run_sequence.0).collect();
    assert_eq!(sequences, [1, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_gets_the_first_receipt() {
    let rig = Rig::new();
    let user = stream("u");
    let batch = || {
        [
            event(&user, "e1", Some("r"), Kind::AgentStarted),
            event(&user, "e2", Some("r"), Kind::AgentThinking),
        ]
    };
    let first = rig.emit(&user, batch()).await;
    let retry = rig.emit(&user, batch()).await;
    assert_eq!(words(&retry), ["duplicate", "duplicate"]);
    for (first, retry) in first.into_iter().zip(retry) {
        let mut want = first.unwrap();
        want.duplicate = true;
        assert_eq!(retry, Ok(want));
    }
    assert_eq!(rig.stored_ids(&user).await, ["e1", "e2"]);
    // The same id with other content is refused, and not swallowed.
    let reused = event(&user, "e1", Some("r"), Kind::AgentCompleted);
    let answers = rig.emit(&user, [reused]).await;
    assert_eq!(words(&answers), ["EVENT_ID_REUSED"]);
    // Another user's ids are its own.
    let other = stream("other");
    let answers = rig
        .emit(&other, [event(&other, "e1", None, custom("n"))])
        .await;
    assert_eq!(words(&answers), ["stored"]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_the_window_is_another_event() {
    let rig = Rig::new();
    let user = stream("u");
    let note = || event(&user, "e1", None, custom("n"));
    rig.emit(&user, [note()]).await;
    rig.clock.advance(Duration::from_millis(599_999));
    assert_eq!(words(&rig.emit(&user, [note()]).await), ["duplicate"]);
    rig.clock.advance(Duration::from_millis(1));
    assert_eq!(words(&rig.emit(&user, [note()]).await), ["stored"]);
    assert_eq!(words(&rig.emit(&user, [note()]).await), ["duplicate"]);
    assert_eq!(rig.stored_ids(&user).await, ["e1", "e1"]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_known_after_its_record_was_trimmed() {
    let bounds = memory::Config {
        retention_records: 1,
        ..memory::Config::default()
    };
    let rig = Rig::with(observing(), bounds, 1);
    let user = stream("u");
    let note = |id: &str| event(&user, id, None, custom("n"));
    let first = rig.emit(&user, [note("e1")]).await.remove(0).unwrap();
    rig.emit(&user, [note("e2")]).await;
    assert_eq!(rig.stored_ids(&user).await, ["e2"]);
    let retry = rig.emit(&user, [note("e1")]).await.remove(0).unwrap();
    assert_eq!((retry.duplicate, retry.position), (true, first.position));
    assert_eq!(rig.stored_ids(&user).await, ["e2"]);
}

#[tokio::test(start_paused = true)]
async fn what_has_not_begun_when_the_deadline_passes_is_not_stored() {
    let rig = Rig::new();
    let user = stream("u");
    let submit = |id: &str, deadline| {
        let (sequencer, user, events) =
            (rig.sequencer.clone(), user.clone(), vec![note(&user, id)]);
        tokio::spawn(async move { sequencer.submit(user, events, deadline).await })
    };
    let now = Instant::now();
    let passed = submit("passed", Some(now)).await.unwrap();
    assert_eq!(words(&passed), ["DEADLINE_EXCEEDED"]);
    assert_eq!(rig.engine.appends(), 0);

    rig.engine.hold();
    let soon = Some(now + Duration::from_secs(1));
    let under_way = submit("under way", soon);
    until("the first append", || rig.engine.waiting() == 1).await;
    let (short, long, none) = (
        submit("short", soon),
        submit("long", Some(now + Duration::from_secs(9))),
        submit("none", None),
    );
    until("all wait", || rig.sequencer.in_flight() == 4).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    rig.engine.release();
    assert_eq!(words(&under_way.await.unwrap()), ["stored"]);
    assert_eq!(words(&short.await.unwrap()), ["DEADLINE_EXCEEDED"]);
    assert_eq!(words(&long.await.unwrap()), ["stored"]);
    assert_eq!(words(&none.await.unwrap()), ["stored"]);
    assert_eq!(rig.stored_ids(&user).await, ["under way", "long", "none"]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_finds_its_event_when_it_comes_back() {
    let rig = Rig::new();
    let user = stream("u");
    rig.engine.hold();
    let events = vec![note(&user, "e1"), note(&user, "e2")];
    let call = tokio::spawn({
        let (sequencer, user, events) = (rig.sequencer.clone(), user.clone(), events.clone());
        async move { sequencer.submit(user, events, None).await }
    });
    until("the append", || rig.engine.waiting() == 1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    rig.engine.release();
    let retry = rig.sequencer.submit(user.clone(), events, None).await;
    let stored = rig.stored(&user).await;
    let want: Vec<_> = stored.iter().map(|r| Ok(r.receipt(true))).collect();
    assert_eq!(retry, want);
    assert_eq!(stored.len(), 2);
    until("nothing in flight", || rig.sequencer.in_flight() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_user_whose_queue_is_full_is_refused_alone() {
    let config = Config {
        queue_events: 4,
        ..observing()
    };
    let rig = Rig::with(config, memory::Config::default(), 1);
    let user = stream("u");
    rig.engine.hold();
    let submit = |user: &emitter::event::StreamKey, ids: &[&str]| {
        let events = ids.iter().map(|id| note(user, id)).collect();
        let (sequencer, user) = (rig.sequencer.clone(), user.clone());
        tokio::spawn(async move { sequencer.submit(user, events, None).await })
    };
    let driving = submit(&user, &["a"]);
    until("the append", || rig.engine.waiting() == 1).await;
    let waits = submit(&user, &["b", "c", "d"]);
    until("three wait", || rig.sequencer.in_flight() == 4).await;
    let refused = submit(&user, &["e", "f"]).await.unwrap();
    assert_eq!(words(&refused), ["ENGINE_UNAVAILABLE"; 2]);
    let fits = submit(&user, &["g"]);
    let other = submit(&stream("other"), &["x"]);
    until("the rest waits", || rig.sequencer.in_flight() == 6).await;
    rig.engine.release();
    for (call, count) in [(driving, 1), (waits, 3), (fits, 1), (other, 1)] {
        assert_eq!(words(&call.await.unwrap()), vec!["stored"; count]);
    }
    assert_eq!(rig.stored_ids(&user).await, ["a", "b", "c", "d", "g"]);
    until("nothing in flight", || rig.sequencer.in_flight() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_of_all_users_is_bounded_in_bytes() {
    for body in [0, 2_000] {
        let config = Config {
            queue_bytes: 50_000,
            ..observing()
        };
        let rig = Rig::with(config, memory::Config::default(), 1);
        rig.engine.hold();
        let mut calls = Vec::new();
        for n in 0..2_000 {
            let user = stream(&format!("u{n}"));
            let events = vec![Arc::new(sized(&user, "e", None, custom("n"), body))];
            let sequencer = rig.sequencer.clone();
            calls.push(tokio::spawn(async move {
                sequencer.submit(user, events, None).await
            }));
        }
        until("some are refused", || {
            calls.iter().any(|call| call.is_finished())
        })
        .await;
        until("the rest waits", || {
            rig.sequencer.in_flight() + calls.iter().filter(|call| call.is_finished()).count()
                == calls.len()
        })
        .await;
        let waiting = rig.sequencer.in_flight();
        assert!(
            (1..=300).contains(&waiting),
            "{waiting} with a body of {body}"
        );
        rig.engine.release();
        let mut stored = 0;
        for call in calls {
            match words(&call.await.unwrap())[..] {
                ["stored"] => stored += 1,
                ["ENGINE_UNAVAILABLE"] => {}
                ref other => panic!("{other:?}"),
            }
        }
        assert_eq!(stored, waiting);
        until("nothing in flight", || rig.sequencer.in_flight() == 0).await;
    }
}
