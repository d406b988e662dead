//! An engine that does not answer: nobody waits for it without end.

use std::time::Duration;

use emitter::event::Kind;
use tokio::time::Instant;

use crate::support::{
    events::{event, note, stream},
    faulty_engine::Fault,
    rig::{ENGINE_TIMEOUT as TIMEOUT, Rig, until, words},
};

#[tokio::test(start_paused = true)]
async fn an_append_that_hangs_is_unknown_and_the_state_is_loaded_again() {
    let rig = Rig::new();
    let user = stream("u");
    rig.emit(
        &user,
        [event(
            &user,
            "0",
            None,
            crate::support::events::custom("note"),
        )],
    )
    .await;
    rig.engine.hold();
    let began = Instant::now();
    let answers = rig
        .sequencer
        .submit(user.clone(), vec![note(&user, "a")], None);
    assert_eq!(words(&answers.await), ["OUTCOME_UNKNOWN"]);
    assert_eq!(began.elapsed(), TIMEOUT);
    assert_eq!(rig.engine.waiting(), 0);
    rig.engine.release();
    let loads = rig.engine.loads();
    let events = vec![note(&user, "a"), note(&user, "b")];
    let answers = rig.sequencer.submit(user.clone(), events, None).await;
    assert_eq!(words(&answers), ["stored", "stored"]);
    assert_eq!(rig.engine.loads(), loads + 1);
    assert_eq!(rig.stored_ids(&user).await, ["0", "a", "b"]);
}

/// It stores it all the same, later.
#[tokio::test(start_paused = true)]
async fn what_is_stored_late_is_stored_once() {
    let rig = Rig::new();
    let user = stream("u");
    for (id, then) in [("a", "duplicate"), ("b", "stored")] {
        rig.engine.script([Fault::Late(TIMEOUT)]);
        let submit = || {
            rig.sequencer
                .submit(user.clone(), vec![note(&user, id)], None)
        };
        assert_eq!(words(&submit().await), ["OUTCOME_UNKNOWN"]);
        let is_over = || rig.engine.late() == 0;
        if then == "duplicate" {
            until("it is stored at last", is_over).await;
        }
        assert_eq!(words(&submit().await), [then], "{id}");
        until("nothing is on its way", is_over).await;
    }
    assert_eq!(rig.stored_ids(&user).await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn every_other_call_that_hangs_is_unavailable() {
    let rig = Rig::new();
    let user = stream("u");
    rig.engine.hold_calls(true);
    let began = Instant::now();
    let load = rig
        .sequencer
        .submit(user.clone(), vec![note(&user, "a")], None);
    assert_eq!(words(&load.await), ["ENGINE_UNAVAILABLE"]);
    assert_eq!(began.elapsed(), TIMEOUT);
    assert_eq!(rig.engine.appends(), 0);
    rig.engine.hold_calls(false);
    let answers = rig
        .sequencer
        .submit(user.clone(), vec![note(&user, "a")], None);
    assert_eq!(words(&answers.await), ["stored"]);

    // The claim of a new run.
    rig.engine.hold_calls(true);
    let began = Instant::now();
    let start = event(&user, "s", Some("r"), Kind::AgentStarted);
    assert_eq!(
        words(&rig.emit(&user, [start.clone()]).await),
        ["ENGINE_UNAVAILABLE"]
    );
    assert_eq!(began.elapsed(), TIMEOUT);
    // The watchdog.
    let began = Instant::now();
    rig.sequencer.sweep().await;
    assert_eq!(began.elapsed(), TIMEOUT);
    rig.engine.hold_calls(false);
    assert_eq!(words(&rig.emit(&user, [start]).await), ["stored"]);
    rig.clock.advance(16 * Duration::from_secs(60));
    rig.sequencer.sweep().await;
    assert_eq!(rig.stored(&user).await.len(), 3, "the run is over");
}
