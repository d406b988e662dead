//! A store that has lost events: what goes on is accepted for a while, and told apart.

use std::time::Duration;

use emitter::{
    engine::{Engine, memory},
    event::{Epoch, Kind, RunSequence},
    sequencer::Config,
};

use crate::support::{
    events::{event, hours, run_id, stream},
    rig::{Rig, words},
};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn runs_that_a_store_has_lost_go_on_and_end() {
    let rig = Rig::with(Config::default(), memory::Config::default(), 1);
    let user = stream("u");
    let thinks = |id: &str, run: &str| event(&user, id, Some(run), Kind::AgentThinking);
    let ends = |id: &str, run: &str| event(&user, id, Some(run), Kind::AgentCompleted);
    let started = event(&user, "0", Some("known"), Kind::AgentStarted);
    assert_eq!(words(&rig.emit(&user, [started]).await), ["stored"]);
    let refused = rig.emit(&user, [thinks("1", "lost")]).await;
    assert_eq!(words(&refused), ["RUN_NOT_STARTED"]);

    // The sequencer's copy is of the old epoch: its append is told to load again.
    rig.epochs.lose(Epoch::new(7), rig.clock.now());
    let events = [
        thinks("1", "lost"),
        thinks("2", "silent"),
        ends("3", "over"),
        thinks("4", "known"),
    ];
    assert_eq!(words(&rig.emit(&user, events).await), ["stored"; 4]);
    rig.clock.advance(10 * MINUTE);
    let more = [ends("5", "lost"), thinks("6", "over"), ends("7", "known")];
    let answers = rig.emit(&user, more).await;
    assert_eq!(words(&answers), ["stored", "RUN_ENDED", "stored"]);
    assert_eq!(answers[0].as_ref().unwrap().run_sequence, RunSequence(2));
    for (run, recovered) in [
        ("lost", true),
        ("silent", true),
        ("over", true),
        ("known", false),
    ] {
        let known = rig.engine.run(&user, &run_id(run)).await.unwrap();
        assert_eq!(known.unwrap().recovered, recovered, "{run}");
    }

    // The watchdog ends what falls silent, and after the grace the rules are as before.
    rig.clock.advance(6 * MINUTE);
    rig.sequencer.sweep().await;
    let silent = rig.engine.run(&user, &run_id("silent")).await.unwrap();
    assert_eq!(silent.unwrap().state.name(), "failed");
    rig.clock.advance(hours(1));
    let late = rig.emit(&user, [thinks("8", "late")]).await;
    assert_eq!(words(&late), ["RUN_NOT_STARTED"]);
}

/// Another user's claim outlives what the store has lost of its run.
#[tokio::test(start_paused = true)]
async fn a_lost_run_does_not_pass_to_another_user() {
    let rig = Rig::with(Config::default(), memory::Config::default(), 1);
    let (alice, bob) = (stream("alice"), stream("bob"));
    let started = event(&alice, "0", Some("r"), Kind::AgentStarted);
    assert_eq!(words(&rig.emit(&alice, [started]).await), ["stored"]);
    rig.epochs.lose(Epoch::new(7), rig.clock.now());
    let thinks = event(&bob, "1", Some("r"), Kind::AgentThinking);
    let answers = rig.emit(&bob, [thinks]).await;
    assert_eq!(words(&answers), ["RUN_OWNED_BY_OTHER_USER"]);
}
