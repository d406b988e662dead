//! Open runs, and when a watchdog is to look at them.

use std::{sync::Arc, time::Duration};

use emitter::{
    clock::{Clock, Timestamp},
    engine::{Commit, Engine},
    event::{
        BUCKETS, ContentHash, Draft, Event, Kind, Position, RunSequence, RunState, Step, StreamKey,
        Wait, WaitId,
    },
    run::Book as _,
};

use crate::support::events::{
    START, all, append, draft, event, run_id, stream, tool_call_id, tool_name,
};

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
    draft.step = Step::wait(Some(span));
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
    // A shorter wait in its place, then none.
    let drafts = vec![
        next(&user, "r", 3, START, Kind::AgentThinking),
        waits(&user, "r", 4, START, 2 * hour),
    ];
    let stored = append(&*engine, &user, Commit { drafts }).await;
    let head = stored.records[1].position;
    assert_eq!(due(&*engine, START + 2 * hour).await, ["u/r"]);
    engine.look_again(&user, head, &wait_ends).await.unwrap();
    store(
        &*engine,
        &user,
        next(&user, "r", 5, START + hour, Kind::AgentThinking),
    )
    .await;
    assert_eq!(due(&*engine, START + hour).await, NONE);
    assert_eq!(due(&*engine, START + hour + USUAL).await, ["u/r"]);
}

/// A wait with an id, of so many minutes.
fn asks(user: &StreamKey, sequence: u64, id: &str, minutes: u32) -> Draft {
    let mut draft = next(user, "r", sequence, START, Kind::AgentWaiting);
    draft.step = Step::Wait(Box::new(Wait {
        max_wait: Some(MINUTE * minutes),
        id: WaitId::new(id).ok(),
        tool_call_id: Some(tool_call_id("c")),
        call: Some(RunSequence(2)),
        kind: Some("approval".into()),
    }));
    draft.state = Some(RunState::Waiting);
    draft
}

fn resumes(user: &StreamKey, sequence: u64, id: &str) -> Draft {
    let mut draft = next(user, "r", sequence, START, Kind::AgentResumed);
    draft.step = Step::Resume {
        id: WaitId::new(id).ok(),
    };
    draft
}

pub(crate) async fn a_run_is_due_when_its_last_open_wait_expires(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    let started = next(&user, "r", 1, START, Kind::AgentStarted);
    store(&*engine, &user, started).await;
    store(&*engine, &user, asks(&user, 2, "long", 300)).await;
    let head = store(&*engine, &user, asks(&user, 3, "short", 120)).await;
    let late = [(run_id("r"), START + 300 * MINUTE)];
    engine.look_again(&user, head, &late).await.unwrap();
    // A sign of life beside the questions changes nothing.
    let progress = next(&user, "r", 4, START, Kind::ToolProgress);
    store(&*engine, &user, progress).await;
    assert_eq!(due(&*engine, START + 299 * MINUTE).await, NONE);
    store(&*engine, &user, resumes(&user, 5, "long")).await;
    assert_eq!(due(&*engine, START + 119 * MINUTE).await, NONE);
    assert_eq!(due(&*engine, START + 120 * MINUTE).await, ["u/r"]);
    let head = store(&*engine, &user, resumes(&user, 6, "unknown")).await;
    engine.look_again(&user, head, &late).await.unwrap();
    store(&*engine, &user, resumes(&user, 7, "")).await;
    assert_eq!(due(&*engine, START + USUAL).await, ["u/r"]);
}

pub(crate) async fn open_waits_and_calls_of_one_id_are_kept_apart(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    let begins = |sequence: u64, arguments: &[u8]| {
        let mut draft = next(&user, "r", sequence, START, Kind::ToolExecuting);
        draft.step = Step::ToolBegins {
            id: tool_call_id("c"),
            name: tool_name("search"),
            arguments: Some(ContentHash::of(arguments)),
            call: Some(RunSequence(sequence)),
        };
        draft
    };
    let mut ends = next(&user, "r", 6, START, Kind::ToolCompleted);
    ends.step = Step::ToolEnds {
        id: Some(tool_call_id("c")),
        name: Some(tool_name("search")),
        call: Some(RunSequence(3)),
    };
    let drafts = vec![
        next(&user, "r", 1, START, Kind::AgentStarted),
        begins(2, b"one"),
        begins(3, b"two"),
        asks(&user, 4, "w1", 60),
        asks(&user, 5, "w2", 60),
        ends,
        resumes(&user, 7, "w1"),
    ];
    append(&*engine, &user, Commit { drafts }).await;
    let known = engine.run(&user, &run_id("r")).await.unwrap().unwrap();
    let loaded = engine.load(&user).await.unwrap();
    assert_eq!(loaded.run(&run_id("r")), Some(&known));
    let calls = known.open_tool_calls.iter();
    let calls: Vec<_> = calls
        .map(|call| (call.call_sequence.0, call.arguments))
        .collect();
    assert_eq!(calls, [(2, Some(ContentHash::of(b"one")))]);
    let [open] = &known.open_waits[..] else {
        panic!("{:?}", known.open_waits);
    };
    assert_eq!((open.sequence.0, open.started_at), (5, START));
    assert_eq!(open.expires_at, START + 60 * MINUTE);
    let Step::Wait(wait) = asks(&user, 5, "w2", 60).step else {
        unreachable!()
    };
    assert_eq!(open.wait, *wait);
    let records = all(&*engine, &user).await;
    let states: Vec<_> = records.iter().map(|record| record.draft.state).collect();
    let waits = Some(RunState::Waiting);
    assert_eq!(states, [None, None, None, waits, waits, None, None]);
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
