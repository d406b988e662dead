//! An engine that refuses, forgets to answer, or breaks.

use std::{sync::Arc, time::Duration};

use emitter::{
    engine::{Commit, memory},
    event::{Event, Kind, StreamKey},
    run::{Book, RunState},
    sequencer::Config,
};
use tokio::time::Instant;

use crate::support::{
    events::{START, custom, draft, event, notes, run_id, stream},
    faulty_engine::{Fault, Odds},
    rig::{Rig, until, words},
};

fn batch(user: &StreamKey, ids: &[&str]) -> Vec<Event> {
    let thinks = |id: &&str| event(user, id, Some("r"), Kind::AgentThinking);
    ids.iter().map(thinks).collect()
}

#[tokio::test(start_paused = true)]
async fn after_a_retryable_failure_later_events_of_the_call_are_not_attempted() {
    for (fault, want) in [
        (Fault::Unavailable, "ENGINE_UNAVAILABLE"),
        (Fault::Full, "STREAM_FULL"),
    ] {
        let rig = Rig::new();
        let user = stream("u");
        rig.emit(&user, batch(&user, &["old"])).await;
        rig.engine.script([fault.clone()]);
        let ids = ["old", "a", "b", "a", "c"];
        let answers = rig.emit(&user, batch(&user, &ids)).await;
        let late = "PRECEDING_FAILED";
        assert_eq!(
            words(&answers),
            ["duplicate", want, late, late, late],
            "{fault:?}"
        );
        assert_eq!(rig.stored_ids(&user).await, ["old"]);
        let answers = rig.emit(&user, batch(&user, &ids)).await;
        assert_eq!(
            words(&answers),
            ["duplicate", "stored", "stored", "duplicate", "stored"]
        );
        assert_eq!(rig.stored_ids(&user).await, ["old", "a", "b", "c"]);
        until("nothing in flight", || rig.sequencer.in_flight() == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_cannot_be_loaded_from_stores_nothing() {
    let rig = Rig::new();
    let user = stream("u");
    rig.engine.set_odds(Odds {
        call: 1.0,
        ..Odds::default()
    });
    let answers = rig.emit(&user, batch(&user, &["a", "b"])).await;
    assert_eq!(words(&answers), ["ENGINE_UNAVAILABLE", "PRECEDING_FAILED"]);
    assert_eq!(rig.engine.appends(), 0);
    rig.engine.set_odds(Odds::default());
    let answers = rig.emit(&user, batch(&user, &["a", "b"])).await;
    assert_eq!(words(&answers), ["stored", "stored"]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_told_and_its_retry_stores_exactly_once() {
    for (fault, stored_before, then) in [
        (Fault::UnknownBefore, &[][..], "stored"),
        (Fault::UnknownAfter, &["a", "b"][..], "duplicate"),
    ] {
        let rig = Rig::new();
        let user = stream("u");
        rig.engine.script([fault.clone()]);
        let answers = rig.emit(&user, batch(&user, &["a", "b"])).await;
        assert_eq!(words(&answers), ["OUTCOME_UNKNOWN"; 2], "{fault:?}");
        assert_eq!(rig.stored_ids(&user).await, stored_before, "{fault:?}");
        let loads = rig.engine.loads();
        let answers = rig.emit(&user, batch(&user, &["a", "b", "c"])).await;
        assert_eq!(rig.engine.loads(), loads + 1, "{fault:?}");
        assert_eq!(words(&answers), [then, then, "stored"], "{fault:?}");
        let stored = rig.stored(&user).await;
        assert_eq!(rig.stored_ids(&user).await, ["a", "b", "c"], "{fault:?}");
        for (answer, record) in answers.into_iter().zip(&stored) {
            let receipt = answer.unwrap();
            assert_eq!(receipt, record.receipt(receipt.duplicate));
        }
        let sequences: Vec<u64> = stored.iter().map(|r| r.draft.run_sequence.0).collect();
        assert_eq!(sequences, [1, 2, 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn after_eight_attempts_it_is_contended() {
    for fault in [Fault::Conflict, Fault::Reload] {
        let rig = Rig::new();
        let user = stream("u");
        rig.engine.script(vec![fault.clone(); 7]);
        let answers = rig.emit(&user, batch(&user, &["a", "b"])).await;
        assert_eq!(words(&answers), ["stored", "stored"], "{fault:?}");
        assert_eq!(rig.engine.appends(), 8);
        rig.engine.script(vec![fault.clone(); 8]);
        let answers = rig.emit(&user, batch(&user, &["c", "d"])).await;
        assert_eq!(words(&answers), ["CONTENDED", "PRECEDING_FAILED"]);
        assert_eq!(rig.engine.appends(), 16, "{fault:?}");
        assert_eq!(rig.stored_ids(&user).await, ["a", "b"]);
        let answers = rig.emit(&user, batch(&user, &["c", "d"])).await;
        assert_eq!(words(&answers), ["stored", "stored"], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_end_with_the_deadline() {
    let rig = Rig::new();
    let user = stream("u");
    rig.engine.script(vec![Fault::Conflict; 8]);
    let deadline = Instant::now() + Duration::from_millis(10);
    let events = vec![crate::support::events::note(&user, "a")];
    let answers = rig
        .sequencer
        .submit(user.clone(), events, Some(deadline))
        .await;
    assert_eq!(words(&answers), ["DEADLINE_EXCEEDED"]);
    assert!((2..6).contains(&rig.engine.appends()));
}

#[tokio::test(start_paused = true)]
async fn what_a_rival_wrote_is_taken_in_before_deciding_again() {
    let rig = Rig::new();
    let user = stream("u");
    rig.emit(&user, batch(&user, &["a"])).await;
    // Another node's writer has the next event of the run, and one of our retries.
    let rival = |ids: &[&str], from: u64| Commit {
        drafts: (from..)
            .zip(batch(&user, ids))
            .map(|(sequence, event)| draft(event, sequence, START))
            .collect(),
    };
    rig.engine
        .script([Fault::Rival(rival(&["b", "c"], 2)), Fault::None]);
    let answers = rig.emit(&user, batch(&user, &["d", "c", "e"])).await;
    assert_eq!(words(&answers), ["stored", "duplicate", "stored"]);
    assert_eq!(rig.stored_ids(&user).await, ["a", "b", "c", "d", "e"]);
    let stored = rig.stored(&user).await;
    let sequences: Vec<u64> = stored.iter().map(|r| r.draft.run_sequence.0).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5]);
    assert_eq!(rig.engine.loads(), 1, "a conflict brings what was missed");
    // So many that the engine does not say which.
    let many: Vec<String> = (0..300).map(|n| format!("m{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    rig.engine
        .script([Fault::Rival(notes(&user, &many, START)), Fault::None]);
    let answers = rig.emit(&user, batch(&user, &["f"])).await;
    assert_eq!(words(&answers), ["stored"]);
    assert_eq!(rig.engine.loads(), 2);
    let known = rig.sequencer.submit(
        user.clone(),
        vec![crate::support::events::note(&user, "m7")],
        None,
    );
    assert_eq!(words(&known.await), ["duplicate"]);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_fails_leaves_nobody_waiting_and_no_count() {
    let rig = Rig::new();
    let user = stream("u");
    rig.engine.hold();
    rig.engine.script([Fault::Panic]);
    let submit = |id: &str| {
        let events = vec![crate::support::events::note(&user, id)];
        let (sequencer, user) = (rig.sequencer.clone(), user.clone());
        tokio::spawn(async move { sequencer.submit(user, events, None).await })
    };
    let first = submit("a");
    until("the append", || rig.engine.waiting() == 1).await;
    let waits = submit("b");
    until("both", || rig.sequencer.in_flight() == 2).await;
    rig.engine.release();
    assert_eq!(words(&first.await.unwrap()), ["OUTCOME_UNKNOWN"]);
    assert_eq!(words(&waits.await.unwrap()), ["OUTCOME_UNKNOWN"]);
    assert_eq!(rig.sequencer.in_flight(), 0);
    assert_eq!(words(&submit("b").await.unwrap()), ["stored"]);
    assert_eq!(rig.stored_ids(&user).await, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_failed_append_leaves_no_state() {
    let rig = Rig::new();
    let user = stream("u");
    rig.engine.script([Fault::Unavailable]);
    let lost = event(&user, "x", Some("r"), Kind::AgentCompleted);
    rig.emit(&user, [lost]).await;
    // Neither its id nor its run is known.
    let answers = rig
        .emit(
            &user,
            [
                event(&user, "x", None, custom("other")),
                event(&user, "y", Some("r"), Kind::AgentStarted),
            ],
        )
        .await;
    assert_eq!(words(&answers), ["stored", "stored"]);
    let state = emitter::engine::Engine::load(&*rig.memory, &user).await;
    let run = state.unwrap().run(&run_id("r")).cloned().unwrap();
    assert_eq!((run.last_sequence.0, run.state), (1, RunState::Running));
}

/// Nodes share the engine: what one has not heard of yet is no ground for a refusal when the append that would have found
/// out fails.
#[tokio::test(start_paused = true)]
async fn where_an_append_fails_nothing_is_refused_on_an_old_state() {
    let rig = Rig::with(Config::default(), memory::Config::default(), 1);
    let other = rig.node(Config::default(), 2);
    let user = stream("u");
    let of_run = |id: &str, run: &str, kind: Kind| event(&user, id, Some(run), kind);
    let started = vec![of_run("a1", "a", Kind::AgentStarted)];
    assert_eq!(words(&rig.emit(&user, started).await), ["stored"]);
    let started = vec![Arc::new(of_run("b1", "b", Kind::AgentStarted))];
    let answers = other.submit(user.clone(), started, None).await;
    assert_eq!(words(&answers), ["stored"]);

    let thoughts = || {
        vec![
            of_run("a2", "a", Kind::AgentThinking),
            of_run("b2", "b", Kind::AgentThinking),
        ]
    };
    rig.engine.script([Fault::Unavailable]);
    let answers = rig.emit(&user, thoughts()).await;
    assert_eq!(words(&answers), ["ENGINE_UNAVAILABLE", "PRECEDING_FAILED"]);
    let answers = rig.emit(&user, thoughts()).await;
    assert_eq!(words(&answers), ["stored", "stored"]);
    assert_eq!(rig.stored_ids(&user).await, ["a1", "b1", "a2", "b2"]);
}

/// The first receipt may have been held back because the event was not safe yet. Until it is, nobody is told that it is
/// stored, nor that it is not.
#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_its_event_to_be_safe() {
    let rig = Rig::new();
    let user = stream("u");
    let notes = |ids: &[&str]| {
        let each = ids.iter().map(|id| event(&user, id, None, custom("other")));
        each.collect::<Vec<_>>()
    };
    assert_eq!(words(&rig.emit(&user, notes(&["x"])).await), ["stored"]);
    rig.engine.confirm_nothing(true);
    let answers = rig.emit(&user, notes(&["x"])).await;
    assert_eq!(words(&answers), ["OUTCOME_UNKNOWN"]);
    rig.engine.script([Fault::Unavailable]);
    let answers = rig.emit(&user, notes(&["x", "y"])).await;
    assert_eq!(words(&answers), ["OUTCOME_UNKNOWN", "ENGINE_UNAVAILABLE"]);
    rig.engine.confirm_nothing(false);
    let answers = rig.emit(&user, notes(&["x", "y"])).await;
    assert_eq!(words(&answers), ["duplicate", "stored"]);
    assert_eq!(rig.stored_ids(&user).await, ["x", "y"]);
}
