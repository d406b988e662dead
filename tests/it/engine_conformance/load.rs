//! Loading: what a sequencer decides on is what the records make.

use std::{sync::Arc, time::Duration};

use emitter::{
    clock::Clock,
    engine::{Commit, Engine, StreamState},
    event::{Event, Kind, RunSequence},
    run::{Book, RunState},
};

use crate::support::events::{
    START, adjusted, append, draft, event, event_id, hours, notes, of, run_id, stream,
};

pub(crate) async fn a_stream_that_does_not_exist_has_a_head_and_nothing_else(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("nobody");
    let state = engine.load(&user).await.unwrap();
    assert!(state.is_empty(), "{state:?}");
    assert_eq!(state.open_runs(), 0);
    assert_eq!(engine.run(&user, &run_id("r")).await, Ok(None));
    // Its head can be appended to.
    engine
        .append(&user, &state, notes(&user, &["a"], START))
        .await
        .unwrap();
}

pub(crate) async fn what_is_loaded_is_what_applying_the_records_makes(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    let later = START + Duration::from_secs(1);
    let started = of(
        event(&user, "e1", Some("r1"), Kind::AgentStarted),
        "t",
        "agent",
    );
    let thinking = Event {
        adjustments: adjusted(),
        ..event(&user, "e2", Some("r1"), Kind::AgentThinking)
    };
    let mut inheriting = draft(thinking, 2, later);
    inheriting.thread_id = started.thread_id.clone();
    inheriting.agent_name = started.agent_name.clone();
    let other = |id: &str, kind| event(&user, id, Some("r2"), kind);
    let commits = [
        vec![draft(started, 1, START), inheriting],
        vec![draft(other("e3", Kind::AgentStarted), 1, later)],
        vec![
            draft(other("e4", Kind::AgentCompleted), 2, later),
            draft(crate::support::events::note(&user, "e5"), 0, later),
        ],
    ];
    let mut want = StreamState::empty(engine.load(&user).await.unwrap().head);
    for drafts in commits {
        for record in append(&*engine, &user, Commit { drafts }).await.records {
            want.apply(&record);
        }
        let got = engine.load(&user).await.unwrap();
        assert_eq!(got.head, want.head);
        assert_eq!(got.open_runs(), want.open_runs());
        assert_eq!(got.dedupe.len(), want.dedupe.len());
        for run in ["r1", "r2"].map(run_id) {
            assert_eq!(got.run(&run), want.run(&run), "{run:?}");
        }
        for id in ["e1", "e2", "e3", "e4", "e5"].map(event_id) {
            assert_eq!(got.dedupe.get(&id), want.dedupe.get(&id), "{id:?}");
        }
    }
    let entry = want.dedupe.get(&event_id("e2")).unwrap();
    assert_eq!(entry.adjustments, adjusted());
    assert_eq!((want.open_runs(), want.dedupe.len()), (1, 5));
}

pub(crate) async fn a_run_can_be_asked_for_alone(engine: Arc<dyn Engine>, _clock: Clock) {
    let user = stream("u");
    let started = event(&user, "e1", Some("r1"), Kind::AgentStarted);
    let drafts = vec![draft(started, 1, START)];
    append(&*engine, &user, Commit { drafts }).await;
    let state = engine.load(&user).await.unwrap();
    let alone = engine.run(&user, &run_id("r1")).await.unwrap();
    assert_eq!(alone.as_ref(), state.run(&run_id("r1")));
    assert_eq!(alone.map(|run| run.last_sequence), Some(RunSequence(1)));
    assert_eq!(engine.run(&user, &run_id("r2")).await, Ok(None));
    assert_eq!(engine.run(&stream("v"), &run_id("r1")).await, Ok(None));
}

/// The engine may not have looked through its runs yet when the id is used again: nothing of the old run may show.
pub(crate) async fn a_run_that_was_forgotten_begins_anew(engine: Arc<dyn Engine>, clock: Clock) {
    let user = stream("u");
    let run = |id: &str, kind, agent: &str| of(event(&user, id, Some("r1"), kind), agent, agent);
    let drafts = vec![
        draft(run("e1", Kind::AgentStarted, "old"), 1, START),
        draft(run("e2", Kind::AgentCompleted, "old"), 2, START),
    ];
    append(&*engine, &user, Commit { drafts }).await;
    clock.advance(hours(24));
    let drafts = vec![draft(
        run("e3", Kind::AgentStarted, "new"),
        1,
        START + hours(24),
    )];
    append(&*engine, &user, Commit { drafts }).await;
    let state = engine.load(&user).await.unwrap();
    let run = state.run(&run_id("r1")).cloned().expect("the run is known");
    assert_eq!(run.agent_name.unwrap().as_str(), "new");
    assert_eq!(run.thread_id.unwrap().as_str(), "new");
    assert_eq!(
        (run.last_sequence, run.state),
        (RunSequence(1), RunState::Running)
    );
    assert_eq!(state.open_runs(), 1);
}
