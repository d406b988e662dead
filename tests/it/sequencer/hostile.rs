//! Producers that ask for what cannot be done, much of it, and what that must not do to others.

use std::{sync::Arc, time::Duration};

use emitter::{
    engine::{Engine, memory},
    event::{Event, Kind, Step, StreamKey, Tenant, UserId},
    run::RunState,
    sequencer::Config,
};

use crate::support::{
    events::{all, custom, event, hours, maintain_all, run_id, sized, stream},
    faulty_engine::Fault,
    rig::{Rig, observing, words},
};

fn starts(user: &StreamKey, id: &str, run: &str) -> Event {
    event(user, id, Some(run), Kind::AgentStarted)
}

/// However little room a user has for runs of its own, each event of another user's runs is looked up a few times only.
#[tokio::test]
async fn refusing_a_batch_takes_looks_in_proportion_to_its_events() {
    const EVENTS: usize = 1_000;
    let rig = Rig::with(Config::default(), memory::Config::default(), 1);
    let (mine, other) = (stream("mine"), stream("other"));
    let batch = |user: &StreamKey, word: &str, run: &str, count: usize| -> Vec<Event> {
        let start = |n: usize| starts(user, &format!("{word}{n}"), &format!("{run}{n}"));
        (0..count).map(start).collect()
    };
    let theirs = rig.emit(&other, batch(&other, "e", "r", EVENTS)).await;
    assert!(theirs.iter().all(Result::is_ok));
    let own = rig.emit(&mine, batch(&mine, "o", "own", 999)).await;
    assert!(own.iter().all(Result::is_ok));
    let before = rig.engine.looks();
    let answers = rig.emit(&mine, batch(&mine, "x", "r", EVENTS)).await;
    let foreign = "RUN_OWNED_BY_OTHER_USER";
    assert!(words(&answers).iter().all(|word| *word == foreign));
    let looks = rig.engine.looks() - before;
    assert!(looks <= 4 * EVENTS, "{looks} looks at claims");
}

#[tokio::test]
async fn a_tenant_whose_batches_do_not_fit_does_not_keep_silent_runs_of_others_alive() {
    let bounds = memory::Config {
        total_bytes: 2 << 20,
        ..memory::Config::default()
    };
    let rig = Rig::with(Config::default(), bounds, 1);
    let victim = stream("victim");
    let hostile = StreamKey::new(Tenant::new("hostile").unwrap(), UserId::new("h").unwrap());
    rig.emit(&victim, [starts(&victim, "e1", "r")]).await;
    // For an hour, the victim's appends would have worked at any time; its run is silent, and is allowed 15 minutes.
    for n in 0..120 {
        let large = sized(&hostile, &format!("x{n}"), None, custom("big"), 3 << 20);
        assert_eq!(words(&rig.emit(&hostile, [large]).await), ["STREAM_FULL"]);
        rig.clock.advance(Duration::from_secs(30));
        let note = event(&victim, &format!("n{n}"), None, custom("note"));
        assert_eq!(words(&rig.emit(&victim, [note]).await), ["stored"]);
        rig.sequencer.sweep().await;
    }
    let run = rig
        .memory
        .run(&victim, &run_id("r"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(run.state, RunState::Failed, "silent for an hour");
}

#[tokio::test]
async fn an_event_of_a_run_that_the_engine_forgot_does_not_open_it_for_ever() {
    let rig = Rig::with(
        observing(),
        memory::Config {
            retention_age: hours(1),
            ..memory::Config::default()
        },
        1,
    );
    let user = stream("u");
    let mut serial = 0;
    let mut runs = async |prefix: &str, count: usize| {
        for chunk in (0..count).collect::<Vec<_>>().chunks(400) {
            let events: Vec<_> = chunk
                .iter()
                .flat_map(|n| {
                    serial += 2;
                    let run = format!("{prefix}{n}");
                    [
                        starts(&user, &format!("e{serial}"), &run),
                        event(
                            &user,
                            &format!("f{serial}"),
                            Some(&run),
                            Kind::AgentCompleted,
                        ),
                    ]
                })
                .collect();
            let answers = rig.emit(&user, events).await;
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
            rig.clock.advance(Duration::from_millis(1));
        }
    };
    runs("old", 500).await;
    rig.clock.advance(hours(23));
    runs("new", 10_400).await;
    rig.clock.advance(hours(1));
    // The lane forgets the old ones now; the engine has not been swept since, and forgets the first that ended.
    runs("last", 200).await;
    assert!(
        rig.memory
            .run(&user, &run_id("new0"))
            .await
            .unwrap()
            .is_none()
    );
    let late = event(&user, "late", Some("new0"), Kind::AgentThinking);
    let answers = rig.emit(&user, [late]).await;
    assert!(answers[0].is_ok(), "{answers:?}");
    let open = rig.memory.open_runs(&user).await.unwrap().runs;
    for _ in 0..3 {
        rig.clock.advance(hours(24));
        rig.sequencer.sweep().await;
    }
    let still = rig.memory.open_runs(&user).await.unwrap().runs;
    assert_eq!(
        (open.len(), still.len()),
        (0, 0),
        "a run that ended is open for ever: {open:?}"
    );
}

#[tokio::test]
async fn observing_stores_what_enforcing_would_refuse() {
    let rig = Rig::new();
    let user = stream("u");
    rig.emit(&user, [starts(&user, "p", "parent")]).await;
    let early = event(&user, "e0", Some("r"), custom("early"));
    let start = Event {
        parent_run_id: Some(run_id("parent")),
        ..starts(&user, "e1", "r")
    };
    assert_eq!(
        words(&rig.emit(&user, [early, start]).await),
        ["stored", "stored"]
    );
}

#[tokio::test]
async fn a_violation_changes_nothing_of_its_run() {
    let rig = Rig::new();
    let user = stream("u");
    let waits = Event {
        step: Step::wait(Some(hours(24))),
        ..event(&user, "w", Some("r"), Kind::AgentWaiting)
    };
    rig.emit(&user, [starts(&user, "s", "r"), waits]).await;
    // Refused when enforced: the tool call is not known.
    let ends = event(&user, "t", Some("r"), Kind::ToolCompleted);
    assert_eq!(words(&rig.emit(&user, [ends]).await), ["stored"]);
    let records = all(&*rig.memory, &user).await;
    assert!(records[2].draft.violation.is_some());
    let run = rig.memory.run(&user, &run_id("r")).await.unwrap().unwrap();
    assert_eq!(run.state, RunState::Waiting);
}

#[tokio::test]
async fn the_watchdog_does_not_repeat_what_cannot_be_done() {
    // 5 users with 1,000 runs each that cannot be ended, since there is no room.
    let bounds = memory::Config {
        total_bytes: 1 << 30,
        ..memory::Config::default()
    };
    let rig = Rig::with(Config::default(), bounds, 1);
    for n in 0..5 {
        let user = stream(&format!("u{n}"));
        let start = |n: usize| {
            starts(
                &user,
                &format!("e{n}"),
                &format!("{}-{n}", user.user().as_str()),
            )
        };
        rig.emit(&user, (0..1000).map(start)).await;
    }
    rig.clock.advance(hours(1));
    rig.engine.script((0..10_000).map(|_| Fault::Full));
    let before = rig.engine.appends();
    let looked_at = rig.sequencer.sweep().await;
    let appends = rig.engine.appends() - before;
    assert!(appends <= 2 * 5, "{appends} appends");
    assert!(looked_at <= 2 * 5000, "{looked_at}");
}

#[tokio::test]
async fn time_in_which_the_queue_was_full_is_no_silence() {
    let config = Config {
        queue_bytes: 1 << 20,
        ..Config::default()
    };
    let rig = Rig::with(config, memory::Config::default(), 1);
    let (hog, user) = (stream("hog"), stream("u"));
    rig.emit(&user, [starts(&user, "e1", "r")]).await;
    rig.engine.hold();
    let large = |id: &str| Arc::new(sized(&hog, id, None, custom("big"), (1 << 20) - 1_000));
    let stuck = tokio::spawn({
        let (sequencer, hog, large) = (rig.sequencer.clone(), hog.clone(), large("x"));
        async move { sequencer.submit(hog, vec![large], None).await }
    });
    tokio::task::yield_now().await;
    while rig.engine.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    // The user's producer tries all the time, and is refused.
    for n in 0..32 {
        rig.clock.advance(Duration::from_secs(30));
        let sign = sized(
            &user,
            &format!("s{n}"),
            Some("r"),
            Kind::AgentThinking,
            2_000,
        );
        assert_eq!(
            words(&rig.emit(&user, [sign]).await),
            ["ENGINE_UNAVAILABLE"]
        );
    }
    rig.engine.release();
    stuck.await.unwrap();
    rig.sequencer.sweep().await;
    let run = rig.memory.run(&user, &run_id("r")).await.unwrap().unwrap();
    assert_eq!(
        run.state,
        RunState::Running,
        "its producer could not store a sign of life"
    );
}

/// The end is not stored, so the run waits on, and is open for as long.
#[tokio::test]
async fn a_run_whose_end_could_not_be_stored_stays_claimed_for_as_long_as_it_waits() {
    let rig = Rig::with(Config::default(), memory::Config::default(), 1);
    let (mine, other) = (stream("mine"), stream("other"));
    let waits = Event {
        step: Step::wait(Some(hours(7 * 24))),
        ..event(&mine, "w", Some("r"), Kind::AgentWaiting)
    };
    rig.emit(&mine, [starts(&mine, "s", "r"), waits]).await;
    rig.engine.script([Fault::Unavailable]);
    let ends = event(&mine, "e", Some("r"), Kind::AgentCompleted);
    assert_eq!(
        words(&rig.emit(&mine, [ends]).await),
        ["ENGINE_UNAVAILABLE"]
    );
    for day in 1..7 {
        rig.clock.advance(hours(24));
        rig.sequencer.sweep().await;
        maintain_all(&*rig.memory).await;
        let taken = rig
            .emit(&other, [starts(&other, &format!("x{day}"), "r")])
            .await;
        assert_eq!(words(&taken), ["RUN_OWNED_BY_OTHER_USER"], "day {day}");
    }
}

/// Claims that outlived a refused start are lost to others for a minute, but nobody knows their runs.
#[tokio::test]
async fn claims_without_runs_cost_no_more_looks_than_runs() {
    const EVENTS: usize = 960;
    let rig = Rig::with(Config::default(), memory::Config::default(), 1);
    let (mine, decoy, other) = (stream("mine"), stream("decoy"), stream("other"));
    let own = (0..999).map(|n| starts(&mine, &format!("o{n}"), &format!("own{n}")));
    rig.emit(&mine, own.collect::<Vec<_>>()).await;
    let parents = (0..15).map(|n| starts(&other, &format!("p{n}"), &format!("p{n}")));
    rig.emit(&other, parents.collect::<Vec<_>>()).await;
    // Sub-agents below runs that turn out to be another user's: their ids are claimed, and then they are refused.
    let top = |n| starts(&decoy, &format!("d{n}"), &format!("p{n}"));
    let mut batch: Vec<_> = (0..15).map(top).collect();
    batch.extend((0..EVENTS).map(|n| Event {
        parent_run_id: Some(run_id(&format!("p{}", n / 64))),
        ..starts(&decoy, &format!("c{n}"), &format!("r{n}"))
    }));
    let answers = rig.emit(&decoy, batch).await;
    assert!(answers.iter().all(Result::is_err));
    let before = rig.engine.looks();
    let batch = (0..EVENTS).map(|n| starts(&mine, &format!("x{n}"), &format!("r{n}")));
    let answers = rig.emit(&mine, batch.collect::<Vec<_>>()).await;
    let looks = rig.engine.looks() - before;
    assert!(answers.iter().all(Result::is_err));
    assert!(looks <= 8 * EVENTS, "{looks} looks for {EVENTS} events");
}

#[tokio::test]
async fn one_user_whose_run_cannot_be_ended_does_not_keep_the_watchdog_from_others() {
    let rig = Rig::with(Config::default(), memory::Config::default(), 1);
    for n in 0..1000 {
        let user = stream(&format!("u{n}"));
        rig.emit(&user, [starts(&user, "s", &format!("r{n}"))])
            .await;
    }
    rig.clock.advance(Duration::from_secs(16 * 60));
    rig.engine.script([Fault::Full]);
    rig.sequencer.sweep().await;
    let mut ended = 0;
    for n in 0..1000 {
        ended += rig.stored(&stream(&format!("u{n}"))).await.len() - 1;
    }
    assert_eq!(ended, 999);
}
