//! A clock that somebody sets, and a process that stands still.

use std::time::Duration;

use emitter::{
    engine::memory,
    event::{Kind, StreamKey},
    sequencer::Config,
};

use crate::support::{
    events::{event, stream},
    rig::{Rig, words},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// A run that may be silent for 15 minutes.
async fn started() -> (Rig, StreamKey) {
    let rig = Rig::with(Config::default(), memory::Config::default(), 1);
    let user = stream("u");
    let start = event(&user, "s", Some("r"), Kind::AgentStarted);
    assert_eq!(words(&rig.emit(&user, [start]).await), ["stored"]);
    rig.sequencer.sweep().await;
    (rig, user)
}

async fn is_over(rig: &Rig, user: &StreamKey) -> bool {
    rig.sequencer.sweep().await;
    rig.stored_ids(user).await.len() > 1
}

#[tokio::test(start_paused = true)]
async fn a_jump_ahead_is_not_held_against_a_run() {
    let (rig, user) = started().await;
    rig.clock.advance(10 * MINUTE);
    rig.clock.jump_ahead(HOUR);
    assert!(!is_over(&rig, &user).await);
    rig.clock.advance(5 * MINUTE - SECOND);
    assert!(!is_over(&rig, &user).await);
    rig.clock.advance(2 * SECOND);
    assert!(is_over(&rig, &user).await);
}

/// The jump comes while the watchdog looks.
#[tokio::test(start_paused = true)]
async fn nor_is_one_between_the_question_and_the_verdict() {
    let (rig, user) = started().await;
    rig.clock.advance(10 * MINUTE);
    rig.clock.jump_ahead(6 * MINUTE);
    // It is due. Its verdict waits for an append that is under way.
    rig.engine.hold();
    let thinks = event(&user, "x", None, crate::support::events::custom("note"));
    let (sequencer, of) = (rig.sequencer.clone(), user.clone());
    let held = tokio::spawn(async move {
        let events = vec![std::sync::Arc::new(thinks)];
        sequencer.submit(of, events, None).await
    });
    crate::support::rig::until("the append", || rig.engine.waiting() == 1).await;
    let sequencer = rig.sequencer.clone();
    let sweep = tokio::spawn(async move { sequencer.sweep().await });
    tokio::task::yield_now().await;
    rig.clock.jump_ahead(HOUR);
    rig.engine.release();
    held.await.unwrap();
    assert_eq!(sweep.await.unwrap(), 1, "it was looked at");
    assert_eq!(rig.stored_ids(&user).await, ["s", "x"]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_goes_back_does_not_keep_a_run_for_ever() {
    let (rig, user) = started().await;
    rig.clock.advance(10 * MINUTE);
    rig.clock.jump_ahead(HOUR);
    assert!(!is_over(&rig, &user).await);
    rig.clock.jump_back(HOUR);
    assert!(!is_over(&rig, &user).await);
    // It is looked at again when the clock comes to where it was, at the latest.
    rig.clock.advance(5 * MINUTE - SECOND);
    assert!(!is_over(&rig, &user).await);
    rig.clock.advance(HOUR + SECOND);
    assert!(is_over(&rig, &user).await);

    let (rig, user) = started().await;
    rig.clock.jump_back(HOUR);
    rig.clock.advance(15 * MINUTE);
    assert!(!is_over(&rig, &user).await);
    rig.clock.advance(HOUR);
    assert!(is_over(&rig, &user).await);
}

#[tokio::test(start_paused = true)]
async fn an_id_is_remembered_across_a_jump_ahead() {
    let (rig, user) = started().await;
    let again = || event(&user, "s", Some("r"), Kind::AgentStarted);
    rig.clock.advance(9 * MINUTE);
    rig.clock.jump_ahead(HOUR);
    for _ in 0..100 {
        emitter::engine::Engine::maintain(&*rig.memory).await;
    }
    assert_eq!(words(&rig.emit(&user, [again()]).await), ["duplicate"]);
    // Also by a sequencer that has to load it.
    rig.clock.advance(MINUTE - SECOND);
    rig.sequencer.maintain();
    assert_eq!(words(&rig.emit(&user, [again()]).await), ["duplicate"]);
    rig.clock.advance(SECOND);
    assert_eq!(
        words(&rig.emit(&user, [again()]).await),
        ["RUN_ALREADY_STARTED"]
    );
}

/// A process that was stopped, as by a debugger or a suspended machine, has not given runs a chance.
#[tokio::test(start_paused = true)]
async fn time_in_which_the_process_stood_still_does_not_count() {
    let (rig, user) = started().await;
    let stop = |time| async move { tokio::time::advance(time).await };
    for _ in 0..40 {
        stop(10 * SECOND).await;
        rig.clock.advance(10 * SECOND);
        assert!(!is_over(&rig, &user).await);
    }
    stop(HOUR).await;
    rig.clock.advance(HOUR);
    assert!(!is_over(&rig, &user).await);
    // The minute after it does not count either.
    for _ in 0..55 {
        stop(10 * SECOND).await;
        rig.clock.advance(10 * SECOND);
        assert!(!is_over(&rig, &user).await);
    }
    for _ in 0..2 {
        stop(10 * SECOND).await;
        rig.clock.advance(10 * SECOND);
        rig.sequencer.sweep().await;
    }
    assert!(is_over(&rig, &user).await);
}
