//! Open runs, and when a watchdog is to look at them.

use std::{sync::Arc, time::Duration};

use emitter::{
    clock::{Clock, Timestamp},
    engine::{Commit, Engine},
    event::{BUCKETS, Draft, Event, Kind, Position, Step, StreamKey},
};

use crate::support::events::{START, append, draft, event, run_id, stream};

const MINUTE: Duration = Duration::from_secs(60);

/// When a run without a timeout of its own is due.
const USUAL: Duration = Duration::from_secs(15 * 60);

/// The `sequence`th event of `run`, of `kind`.
fn next(user: &StreamKey, run: &str, sequence: u64, now: Timestamp, kind: Kind) -> Draft {
    let id = format!("{run}-{sequence}");
    draft(event(user, &id, Some(run), kind), sequence, now)
}

fn waits(user: &StreamKey, run: &str, sequence: u64, now: Timestamp, span: Duration) -> Draft {
    let mut draft = next(user, run, sequence, now, Kind::AgentWaiting);
    draft.step = Step::Wait {
        max_wait: Some(span),
    };
    draft
}

fn child(user: &StreamKey, run: &str, parent: &str, now: Timestamp) -> Draft {
    let started = Event {
        parent_run_id: Some(run_id(parent)),
        ..event(user, run, Some(run), Kind::AgentStarted)
    };
    draft(started, 1, now)
}

async fn store(engine: &dyn Engine, user: &StreamKey, draft: Draft) -> Position {
    let drafts = vec![draft];
    append(engine, user, Commit { drafts }).await.records[0].position
}

async fn due(engine: &dyn Engine, now: Timestamp) -> Vec<String> {
    let due = engine.due(0..BUCKETS, now, usize::MAX).await.unwrap();
    let mut runs: Vec<_> = due
        .into_iter()
        .map(|due| format!("{}/{}", due.stream.user().as_str(), due.run_id.as_str()))
        .collect();
    runs.sort_unstable();
    runs
}

const NONE: [String; 0] = [];

pub(crate) async fn a_run_is_due_at_its_deadline_until_it_ends(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let (u, v) = (stream("u"), stream("v"));
    for (user, run) in [(&u, "a"), (&u, "b"), (&v, "a2")] {
        let started = next(user, run, 1, START, Kind::AgentStarted);
        store(&*engine, user, started).await;
    }
    // Events do not move it: it is looked at, and then again.
    let later = START + 10 * MINUTE;
    store(&*engine, &u, next(&u, "a", 2, later, Kind::AgentThinking)).await;
    let just_before = START + (USUAL - Duration::from_millis(1));
    assert_eq!(due(&*engine, just_before).await, NONE);
    assert_eq!(due(&*engine, START + USUAL).await, ["u/a", "u/b", "v/a2"]);
    let two = engine.due(0..BUCKETS, START + USUAL, 2).await.unwrap();
    assert_eq!(two.len(), 2);
    let bucket = v.bucket();
    let of_v = engine.due(bucket..bucket + 1, START + USUAL, 9).await;
    assert!(of_v.unwrap().iter().any(|due| due.stream == v));
    store(&*engine, &u, next(&u, "a", 3, later, Kind::AgentCompleted)).await;
    assert_eq!(due(&*engine, START + USUAL).await, ["u/b", "v/a2"]);
}

pub(crate) async fn looking_again_holds_for_the_head_that_it_was_decided_on(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    let first = store(
        &*engine,
        &user,
        next(&user, "r", 1, START, Kind::AgentStarted),
    )
    .await;
    let head = store(
        &*engine,
        &user,
        next(&user, "r", 2, START, Kind::AgentThinking),
    )
    .await;
    let at = START + USUAL;
    let moved = [(run_id("r"), at + MINUTE), (run_id("unknown"), at)];
    engine.look_again(&user, first, &moved).await.unwrap();
    assert_eq!(due(&*engine, at).await, ["u/r"]);
    engine.look_again(&user, head, &moved).await.unwrap();
    assert_eq!(due(&*engine, at).await, NONE);
    assert_eq!(due(&*engine, at + MINUTE).await, ["u/r"]);
    let nobody = stream("nobody");
    engine.look_again(&nobody, head, &moved).await.unwrap();
}

pub(crate) async fn a_run_that_waited_is_due_no_later_than_its_deadline(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    store(
        &*engine,
        &user,
        next(&user, "r", 1, START, Kind::AgentStarted),
    )
    .await;
    let hour = 60 * MINUTE;
    let head = store(&*engine, &user, waits(&user, "r", 2, START, 5 * hour)).await;
    let wait_ends = [(run_id("r"), START + 5 * hour)];
    engine.look_again(&user, head, &wait_ends).await.unwrap();
    // A shorter wait, then none.
    let head = store(&*engine, &user, waits(&user, "r", 3, START, 2 * hour)).await;
    assert_eq!(due(&*engine, START + 2 * hour).await, ["u/r"]);
    engine.look_again(&user, head, &wait_ends).await.unwrap();
    store(
        &*engine,
        &user,
        next(&user, "r", 4, START + hour, Kind::AgentThinking),
    )
    .await;
    assert_eq!(due(&*engine, START + hour).await, NONE);
    assert_eq!(due(&*engine, START + hour + USUAL).await, ["u/r"]);
}

pub(crate) async fn runs_above_one_that_ends_are_due_no_later_than_their_own_deadlines(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    store(
        &*engine,
        &user,
        next(&user, "top", 1, START, Kind::AgentStarted),
    )
    .await;
    store(&*engine, &user, child(&user, "mid", "top", START)).await;
    let head = store(&*engine, &user, child(&user, "low", "mid", START)).await;
    let late = START + 600 * MINUTE;
    let all = ["top", "mid", "low"].map(|run| (run_id(run), late));
    engine.look_again(&user, head, &all).await.unwrap();
    assert_eq!(due(&*engine, START + USUAL).await, NONE);
    let ended = next(&user, "low", 2, START, Kind::AgentCompleted);
    store(&*engine, &user, ended).await;
    assert_eq!(due(&*engine, START + USUAL).await, ["u/mid", "u/top"]);
}

pub(crate) async fn open_runs_are_told_with_the_head(engine: Arc<dyn Engine>, _clock: Clock) {
    let user = stream("u");
    let nothing = engine.open_runs(&user).await.unwrap();
    assert_eq!(nothing.runs, []);
    for run in ["a", "b"] {
        store(
            &*engine,
            &user,
            next(&user, run, 1, START, Kind::AgentStarted),
        )
        .await;
    }
    let head = store(
        &*engine,
        &user,
        next(&user, "a", 2, START, Kind::AgentFailed),
    )
    .await;
    let open = engine.open_runs(&user).await.unwrap();
    assert_eq!(open.head, head);
    let runs: Vec<_> = open.runs.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(runs, ["b"]);
}
