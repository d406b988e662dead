use std::sync::LazyLock;

use bytes::Bytes;

use super::*;
use crate::event::{
    AgentName, Epoch, Kind, Position, ProducerId, Record, RunSequence, Source, Tenant, ThreadId,
    UserId,
};

#[path = "decide/recovery_tests.rs"]
mod recovery;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const WINDOW: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3_600);
/// Runs are only observed, so that what is not about their lives needs no `agent_started`.
static RULES: LazyLock<Rules> = LazyLock::new(|| Rules {
    dedupe_window: WINDOW,
    open_runs: 3,
    mode: Mode::Observe,
    ..Rules::default()
});

static STREAM: LazyLock<StreamKey> =
    LazyLock::new(|| StreamKey::new(Tenant::new("t").unwrap(), UserId::new("u").unwrap()));

/// An event in a few letters: `e("id", "run", AgentStarted)`. Its content is what it is made of, less its id.
fn e(id: &str, run: &str, kind: Kind) -> Event {
    Event {
        content: ContentHash::of(format!("{run} {kind:?}").as_bytes()),
        ..Event::new(
            EventId::new(id).unwrap(),
            STREAM.clone(),
            RunId::new(run).ok(),
            kind,
            Source::new(ProducerId::new("p").unwrap()),
            Bytes::new(),
        )
    }
}

fn thinks(id: &str, run: &str) -> Event {
    e(id, run, Kind::AgentThinking)
}

fn on_thread(thread: &str, event: Event) -> Event {
    Event {
        thread_id: ThreadId::new(thread).ok(),
        ..event
    }
}

/// A stream to which `events` were recorded at `NOW`, each as decided.
fn after(events: Vec<Event>) -> StreamState {
    let mut state = StreamState::empty(Position::new(Epoch::new(1), Offset(0)));
    record(&mut state, events, NOW);
    state
}

fn record(state: &mut StreamState, events: Vec<Event>, now: Timestamp) {
    for event in events {
        let (decision, drafts) = decide_one(state, now, event);
        assert!(matches!(decision, Ok(Decision::Store(0))), "{decision:?}");
        let offset = Offset(state.head.offset.0 + 1);
        for draft in drafts {
            state.apply(&Record {
                position: Position::new(state.head.epoch, offset),
                prev: state.head.offset,
                draft,
            });
        }
    }
}

fn decide_one(
    state: &StreamState,
    now: Timestamp,
    event: Event,
) -> (Result<Decision, Refusal>, Vec<Draft>) {
    let foreign = HashSet::new();
    let mut group = Group::new(&STREAM, state, &RULES, now, &foreign);
    let decision = group.decide(&Arc::new(event));
    (decision, group.into_drafts())
}

/// What a decision comes to, in a word.
fn word(decision: &Result<Decision, Refusal>) -> String {
    match decision {
        Ok(Decision::Store(index)) => format!("store {index}"),
        Ok(Decision::SameAs(index)) => format!("same as {index}"),
        Ok(Decision::Duplicate(receipt)) => format!("duplicate of {}", receipt.position.offset.0),
        Err(refusal) => refusal.reason.name().to_owned(),
    }
}

/// Decides `events` as one group.
fn words(state: &StreamState, now: Timestamp, events: Vec<Event>) -> Vec<String> {
    let foreign = HashSet::new();
    let mut group = Group::new(&STREAM, state, &RULES, now, &foreign);
    let decide = |event| word(&group.decide(&Arc::new(event)));
    events.into_iter().map(decide).collect()
}

#[test]
fn an_id_in_the_state() {
    let state = after(vec![thinks("e1", "r"), thinks("e2", "r")]);
    let just_before = Timestamp::from_millis(NOW.as_millis() + 599_999);
    for (what, event, now, want) in [
        ("unknown", thinks("e3", "r"), NOW, "store 0"),
        ("known", thinks("e1", "r"), NOW, "duplicate of 1"),
        ("known", thinks("e2", "r"), NOW, "duplicate of 2"),
        (
            "in the window",
            thinks("e2", "r"),
            just_before,
            "duplicate of 2",
        ),
        ("expired", thinks("e2", "r"), NOW + WINDOW, "store 0"),
        ("reused", thinks("e1", "other"), NOW, "EVENT_ID_REUSED"),
        (
            "reused in the window",
            e("e1", "r", Kind::AgentCompleted),
            just_before,
            "EVENT_ID_REUSED",
        ),
        (
            "reused after it",
            thinks("e1", "s"),
            NOW + WINDOW,
            "store 0",
        ),
    ] {
        let (decision, drafts) = decide_one(&state, now, event.clone());
        assert_eq!(word(&decision), want, "{what}: {event:?}");
        assert_eq!(drafts.len(), usize::from(want == "store 0"), "{what}");
    }
}

#[test]
fn an_id_in_the_group() {
    let state = after(vec![thinks("old", "r")]);
    let events = vec![
        thinks("e1", "r"),
        thinks("e2", "r"),
        thinks("e1", "r"),
        thinks("old", "r"),
        thinks("e2", "s"),
        thinks("e3", "r"),
        thinks("e2", "r"),
    ];
    let want = [
        "store 0",
        "store 1",
        "same as 0",
        "duplicate of 1",
        "EVENT_ID_REUSED",
        "store 2",
        "same as 1",
    ];
    assert_eq!(words(&state, NOW, events), want);
}

#[test]
fn a_duplicate_gets_the_first_receipt() {
    let state = after(vec![thinks("e1", "r"), thinks("e2", "r")]);
    let (decision, _) = decide_one(&state, NOW + HOUR / 12, thinks("e2", "r"));
    let want = Receipt {
        event_id: EventId::new("e2").unwrap(),
        position: Position::new(Epoch::new(1), Offset(2)),
        run_sequence: RunSequence(2),
        recorded_at: NOW,
        duplicate: true,
        adjustments: crate::event::Adjustments::default(),
    };
    match decision {
        Ok(Decision::Duplicate(receipt)) => assert_eq!(receipt, want),
        other => panic!("{other:?}"),
    }
}

/// A retry finds its own event, whatever became of its run since.
#[test]
fn an_id_is_looked_up_before_the_run() {
    let state = after(vec![on_thread("t1", thinks("e1", "r"))]);
    let foreign = HashSet::from([RunId::new("r").unwrap()]);
    let mut group = Group::new(&STREAM, &state, &RULES, NOW, &foreign);
    let retry = Arc::new(on_thread("t1", thinks("e1", "r")));
    assert_eq!(word(&group.decide(&retry)), "duplicate of 1");
    assert_eq!(
        word(&group.decide(&Arc::new(thinks("e2", "r")))),
        "RUN_OWNED_BY_OTHER_USER"
    );
    assert!(group.claims().is_empty() && group.into_drafts().is_empty());
}

#[test]
fn run_sequences_count_from_one_without_holes() {
    let state = after(vec![
        thinks("a1", "a"),
        thinks("a2", "a"),
        thinks("b1", "b"),
    ]);
    let foreign = HashSet::from([RunId::new("f").unwrap()]);
    let mut group = Group::new(&STREAM, &state, &RULES, NOW, &foreign);
    for event in [
        thinks("a3", "a"),
        thinks("f1", "f"), // refused
        thinks("c1", "c"),
        thinks("a1", "a"), // a duplicate
        thinks("a4", "a"),
        thinks("n1", ""), // without a run
        thinks("b2", "b"),
        thinks("a3", "a"), // the same
        thinks("c2", "c"),
    ] {
        let _decision = group.decide(&Arc::new(event));
    }
    let got: Vec<_> = group
        .into_drafts()
        .iter()
        .map(|draft| format!("{} {}", draft.event.event_id.as_str(), draft.run_sequence.0))
        .collect();
    assert_eq!(got, ["a3 3", "c1 1", "a4 4", "n1 0", "b2 2", "c2 2"]);
}

#[test]
fn a_forgotten_run_is_a_new_one() {
    let mut state = after(vec![on_thread("t1", thinks("a1", "a"))]);
    let last = NOW + 23 * HOUR;
    record(&mut state, vec![e("a2", "a", Kind::AgentCompleted)], last);
    for (now, thread, want) in [
        (last + (24 * HOUR - Duration::from_millis(1)), "t1", 3),
        (last + 24 * HOUR, "t2", 1),
    ] {
        let (_, drafts) = decide_one(&state, now, on_thread(thread, thinks("a3", "a")));
        assert_eq!(drafts[0].run_sequence, RunSequence(want), "at {now}");
    }
}

#[test]
fn later_events_inherit_from_their_run() {
    let start = Event {
        agent_name: AgentName::new("agent").ok(),
        parent_run_id: RunId::new("parent").ok(),
        ..on_thread("t1", thinks("e1", "r"))
    };
    let plain = thinks("e2", "r");
    let stating = Event {
        agent_name: AgentName::new("helper").ok(),
        ..on_thread("t1", thinks("e3", "r"))
    };
    // In one group, and from the state.
    for split in 0..3 {
        let mut events = vec![start.clone(), plain.clone(), stating.clone()];
        let rest = events.split_off(split);
        let state = after(events);
        let foreign = HashSet::new();
        let mut group = Group::new(&STREAM, &state, &RULES, NOW, &foreign);
        for event in rest {
            group.decide(&Arc::new(event)).unwrap();
        }
        for draft in group.into_drafts() {
            let id = draft.event.event_id.as_str();
            let agent = if id == "e3" { "helper" } else { "agent" };
            let got = (
                draft.thread_id.as_ref().map(ThreadId::as_str),
                draft.agent_name.as_ref().map(AgentName::as_str),
                draft.parent_run_id.as_ref().map(RunId::as_str),
            );
            let want = (Some("t1"), Some(agent), Some("parent"));
            assert_eq!(got, want, "{id}, {split} recorded before");
        }
    }
}

#[test]
fn a_sub_agent_inherits_its_parents_thread_unless_it_states_one() {
    let child = |id: &str, run: &str| Event {
        parent_run_id: RunId::new("p").ok(),
        ..e(id, run, Kind::AgentStarted)
    };
    let state = after(vec![on_thread("t1", e("p1", "p", Kind::AgentStarted))]);
    for (event, want) in [
        (child("a", "a"), "t1"),
        (on_thread("t2", child("b", "b")), "t2"),
    ] {
        let (_, drafts) = decide_one(&state, NOW, event);
        assert_eq!(drafts[0].thread_id, ThreadId::new(want).ok());
    }
}

/// What keeps a sub-agent alive keeps its parent, whose claim must last as long.
#[test]
fn a_claim_covers_what_is_above() {
    let day = 24 * HOUR;
    let child = Event {
        parent_run_id: RunId::new("p").ok(),
        ..e("c1", "c", Kind::AgentStarted)
    };
    let state = after(vec![e("p1", "p", Kind::AgentStarted), child]);
    let claims = |state: &StreamState, event: Event| -> Vec<(String, u64)> {
        let foreign = HashSet::new();
        let mut group = Group::new(&STREAM, state, &RULES, NOW, &foreign);
        group.decide(&Arc::new(event)).unwrap();
        let claims = group.claims().iter();
        let claim = |claim: &Claim| (claim.run_id.as_str().to_owned(), claim.ttl.as_secs() / 3600);
        claims.map(claim).collect()
    };
    let waits = Event {
        step: Step::wait(Some(7 * day)),
        ..e("c2", "c", Kind::AgentWaiting)
    };
    let nine_days = 9 * 24;
    let want = [("c".to_owned(), nine_days), ("p".to_owned(), nine_days)];
    assert_eq!(claims(&state, waits.clone()), want);
    // Not even the end cuts it short: it may not come to be stored.
    let mut state = state;
    record(&mut state, vec![waits], NOW);
    let half_day_later = NOW + 12 * HOUR;
    let foreign = HashSet::new();
    let mut group = Group::new(&STREAM, &state, &RULES, half_day_later, &foreign);
    let ends = e("c3", "c", Kind::AgentCompleted);
    group.decide(&Arc::new(ends)).unwrap();
    let ttls: Vec<_> = group
        .claims()
        .iter()
        .map(|claim| claim.ttl.as_secs() / 3600)
        .collect();
    assert_eq!(ttls, [nine_days - 12, nine_days - 12]);
}

#[test]
fn a_run_keeps_its_thread() {
    let state = after(vec![on_thread("t1", thinks("a1", "a")), thinks("b1", "b")]);
    for (event, want) in [
        (on_thread("t1", thinks("a2", "a")), "store 0"),
        (on_thread("t2", thinks("a2", "a")), "INVALID_EVENT"),
        (thinks("a2", "a"), "store 0"),
        // The first to state a thread settles it.
        (on_thread("t2", thinks("b2", "b")), "store 0"),
    ] {
        let (decision, _) = decide_one(&state, NOW, event.clone());
        assert_eq!(word(&decision), want, "{event:?}");
        if let Err(refusal) = decision {
            assert_eq!(refusal.violations[0].field, "thread_id", "{refusal:?}");
        }
    }
    let in_group = vec![
        on_thread("t1", thinks("c1", "c")),
        on_thread("t2", thinks("c2", "c")),
        on_thread("t1", thinks("c3", "c")),
    ];
    let want = ["store 0", "INVALID_EVENT", "store 1"];
    assert_eq!(words(&state, NOW, in_group), want);
}

#[test]
fn open_runs_are_limited() {
    let ends = |id: &str, run: &str| e(id, run, Kind::AgentCompleted);
    let two_open = || after(vec![thinks("a1", "a"), thinks("b1", "b")]);
    let store = |n: usize| format!("store {n}");
    let full = || "LIMIT_EXCEEDED".to_owned();
    for (what, events, want) in [
        (
            "a third and a fourth",
            vec![thinks("c1", "c"), thinks("d1", "d"), thinks("a2", "a")],
            vec![store(0), full(), store(1)],
        ),
        (
            "one that ends at once is never open",
            vec![thinks("c1", "c"), ends("d1", "d"), ends("x1", "x")],
            vec![store(0), store(1), store(2)],
        ),
        (
            "one of the state ends",
            vec![
                ends("a2", "a"),
                thinks("c1", "c"),
                thinks("d1", "d"),
                thinks("x1", "x"),
            ],
            vec![store(0), store(1), store(2), full()],
        ),
        (
            "one of the group ends",
            vec![
                thinks("c1", "c"),
                ends("c2", "c"),
                thinks("d1", "d"),
                thinks("x1", "x"),
            ],
            vec![store(0), store(1), store(2), full()],
        ),
        (
            "an ended one ends again",
            vec![
                thinks("c1", "c"),
                ends("c2", "c"),
                ends("c3", "c"),
                thinks("d1", "d"),
                thinks("x1", "x"),
            ],
            vec![store(0), store(1), store(2), store(3), full()],
        ),
        (
            "a run that was refused may come later",
            vec![
                thinks("c1", "c"),
                thinks("d1", "d"),
                ends("c2", "c"),
                thinks("d1", "d"),
            ],
            vec![store(0), full(), store(1), store(2)],
        ),
        (
            "events without a run",
            vec![thinks("c1", "c"), thinks("n1", ""), thinks("n2", "")],
            vec![store(0), store(1), store(2)],
        ),
    ] {
        assert_eq!(words(&two_open(), NOW, events), want, "{what}");
    }
}

#[test]
fn claims_are_due_for_new_runs_and_once_in_each_half_day() {
    // `NOW` is in the middle of a half day.
    let half_day = 12 * 3_600_000;
    let edge = Timestamp::from_millis(NOW.as_millis().next_multiple_of(half_day));
    let just_before = Timestamp::from_millis(edge.as_millis() - 1);
    let state = after(vec![thinks("a1", "a")]);
    for (what, events, now, want) in [
        ("a known run", vec![thinks("a2", "a")], NOW, &[][..]),
        (
            "in the same half day",
            vec![thinks("a2", "a")],
            just_before,
            &[],
        ),
        ("in the next", vec![thinks("a2", "a")], edge, &["a"]),
        (
            "once per group",
            vec![thinks("a2", "a"), thinks("a3", "a")],
            edge,
            &["a"],
        ),
        (
            "new runs",
            vec![thinks("b1", "b"), thinks("b2", "b"), thinks("c1", "c")],
            NOW,
            &["b", "c"],
        ),
        ("a retry", vec![thinks("a1", "a")], NOW, &[]),
        ("no run", vec![thinks("n1", "")], NOW, &[]),
    ] {
        let foreign = HashSet::new();
        let mut group = Group::new(&STREAM, &state, &RULES, now, &foreign);
        for event in events {
            group.decide(&Arc::new(event)).unwrap();
        }
        let claims: Vec<_> = group
            .claims()
            .iter()
            .map(|claim| claim.run_id.as_str())
            .collect();
        assert_eq!(claims, want, "{what}");
    }
}

#[test]
fn a_refused_event_leaves_no_trace_in_the_group() {
    let state = after(vec![
        thinks("a1", "a"),
        thinks("b1", "b"),
        thinks("c1", "c"),
    ]);
    let foreign = HashSet::from([RunId::new("f").unwrap()]);
    let mut group = Group::new(&STREAM, &state, &RULES, NOW, &foreign);
    for event in [thinks("f1", "f"), thinks("d1", "d")] {
        let decision = group.decide(&Arc::new(event));
        assert!(decision.is_err(), "{decision:?}");
    }
    assert!(group.claims().is_empty(), "{:?}", group.claims());
    // Its id is free.
    let decision = group.decide(&Arc::new(thinks("d1", "a")));
    assert_eq!(word(&decision), "store 0");
}
