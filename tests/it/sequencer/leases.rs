//! Several nodes over one engine: one of them watches over a run, and another where that one does not.

use std::{sync::Arc, time::Duration};

use emitter::{
    engine::memory,
    event::{BUCKETS, Event, Kind, Step, StreamKey},
    sequencer::{Config, Sequencer},
};

use tokio::time::Instant;

use crate::support::{
    events::{event, stream},
    faulty_engine::Odds,
    rig::{Rig, words},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn rig() -> Rig {
    Rig::with(Config::default(), memory::Config::default(), 1)
}

/// A run that may be silent for 15 minutes.
fn start(user: &StreamKey, run: &str) -> Event {
    event(user, run, Some(run), Kind::AgentStarted)
}

/// How many events the service ended runs by.
async fn ended(rig: &Rig, user: &StreamKey) -> usize {
    let stored = rig.stored(user).await;
    let own = |record: &&Arc<_>| -> bool {
        let record: &Arc<emitter::event::Record> = record;
        record.draft.event.event_id.is_own()
    };
    stored.iter().filter(own).count()
}

/// Lets time pass, with a sweep of `nodes` each second.
async fn pass(rig: &Rig, nodes: &[&Arc<Sequencer>], time: Duration) -> usize {
    let mut looked_at = 0;
    for _ in 0..time.as_secs() {
        rig.clock.advance(SECOND);
        for node in nodes {
            looked_at += node.sweep().await;
        }
    }
    looked_at
}

#[tokio::test(start_paused = true)]
async fn one_node_watches_from_its_first_sweep_on_and_another_where_it_is_gone() {
    let rig = rig();
    let user = stream("u");
    let (one, two) = (&rig.sequencer, &rig.node(Config::default(), 2));
    assert_eq!(
        words(&rig.emit(&user, [start(&user, "a")]).await),
        ["stored"]
    );
    one.sweep().await;
    let looked_at = pass(&rig, &[two], 14 * SECOND).await;
    assert_eq!(looked_at, 0, "it holds no lease");
    pass(&rig, &[one, two], 15 * MINUTE - 14 * SECOND - SECOND).await;
    assert_eq!(ended(&rig, &user).await, 0);
    assert_eq!(pass(&rig, &[two, one], SECOND).await, 1);
    assert_eq!(ended(&rig, &user).await, 1);

    // It goes without a word.
    rig.emit(&user, [start(&user, "b")]).await;
    pass(&rig, &[one, two], 15 * MINUTE - SECOND).await;
    assert_eq!(pass(&rig, &[two], 8 * SECOND).await, 0);
    assert_eq!(pass(&rig, &[two], 10 * SECOND).await, 1);
    assert_eq!(ended(&rig, &user).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_drains_gives_its_leases_back_at_once() {
    let rig = rig();
    let user = stream("u");
    let (one, two) = (&rig.sequencer, &rig.node(Config::default(), 2));
    rig.emit(&user, [start(&user, "a")]).await;
    pass(&rig, &[one, two], 15 * MINUTE - SECOND).await;
    one.stop_watching().await;
    rig.clock.advance(SECOND);
    assert_eq!(one.sweep().await, 0);
    assert_eq!(two.sweep().await, 1);
    assert_eq!(ended(&rig, &user).await, 1);
    assert_eq!(one.sweep().await, 0, "it takes none again");
}

#[tokio::test(start_paused = true)]
async fn a_lease_from_a_clock_that_went_back_is_taken_over() {
    let rig = rig();
    let user = stream("u");
    let (one, two) = (&rig.sequencer, &rig.node(Config::default(), 2));
    one.sweep().await;
    rig.clock.jump_back(HOUR);
    rig.emit(&user, [start(&user, "a")]).await;
    pass(&rig, &[two], 15 * MINUTE).await;
    assert_eq!(
        ended(&rig, &user).await,
        0,
        "nobody knows who watched until then"
    );
    pass(&rig, &[two], MINUTE + SECOND).await;
    assert_eq!(ended(&rig, &user).await, 1);
}

/// A server that was down for an hour does not end every run when it comes back.
#[tokio::test(start_paused = true)]
async fn time_in_which_nobody_watched_does_not_count() {
    for given_back in [false, true] {
        let rig = rig();
        let user = stream("u");
        rig.emit(&user, [start(&user, "a")]).await;
        pass(&rig, &[&rig.sequencer], 10 * MINUTE).await;
        if given_back {
            rig.sequencer.stop_watching().await;
        }
        rig.clock.advance(HOUR);
        let two = &rig.node(Config::default(), 2);
        two.sweep().await;
        // The minute after it does not either.
        pass(&rig, &[two], 6 * MINUTE - 10 * SECOND).await;
        assert_eq!(ended(&rig, &user).await, 0, "given back: {given_back}");
        pass(&rig, &[two], 20 * SECOND).await;
        assert_eq!(ended(&rig, &user).await, 1, "given back: {given_back}");
    }
}

/// However short it was: what had no chance to give a sign has a minute to come back.
#[tokio::test(start_paused = true)]
async fn nor_does_that_of_a_restart() {
    for (given_back, down) in [(true, 1), (true, 20), (false, 1), (false, 20)] {
        let rig = rig();
        let user = stream("u");
        let started = Event {
            step: Step::Start {
                silence_timeout: Some(10 * SECOND),
            },
            ..start(&user, "a")
        };
        rig.emit(&user, [started]).await;
        pass(&rig, &[&rig.sequencer], 9 * SECOND).await;
        if given_back {
            rig.sequencer.stop_watching().await;
        }
        rig.clock.advance(down * SECOND);
        let two = &rig.node(Config::default(), 2);
        pass(&rig, &[two], MINUTE).await;
        let case = format!("given back: {given_back}, down for {down} s");
        assert_eq!(ended(&rig, &user).await, 0, "{case}");
        pass(&rig, &[two], 10 * SECOND).await;
        assert_eq!(ended(&rig, &user).await, 1, "{case}");
    }
}

/// Nor does it for the node that comes after that one.
#[tokio::test(start_paused = true)]
async fn what_a_holder_knows_of_such_time_goes_with_the_lease() {
    let rig = rig();
    let user = stream("u");
    let started = Event {
        step: Step::Start {
            silence_timeout: Some(2 * HOUR),
        },
        ..start(&user, "a")
    };
    rig.emit(&user, [started]).await;
    pass(&rig, &[&rig.sequencer], MINUTE).await;
    rig.clock.advance(HOUR);
    let (two, three) = (
        &rig.node(Config::default(), 2),
        &rig.node(Config::default(), 3),
    );
    two.sweep().await;
    // What is noted goes out with the next renewal.
    pass(&rig, &[two], MINUTE).await;
    pass(&rig, &[three], 2 * HOUR - 2 * MINUTE - 10 * SECOND).await;
    assert_eq!(ended(&rig, &user).await, 0);
    pass(&rig, &[three], 2 * MINUTE).await;
    assert_eq!(ended(&rig, &user).await, 1);
}

/// It knows of it itself.
#[tokio::test(start_paused = true)]
async fn a_jump_of_the_clock_that_a_lease_tells_of_counts_once() {
    let rig = rig();
    let user = stream("u");
    let (one, two) = (&rig.sequencer, &rig.node(Config::default(), 2));
    rig.emit(&user, [start(&user, "a")]).await;
    pass(&rig, &[one, two], MINUTE).await;
    rig.clock.jump_ahead(HOUR);
    pass(&rig, &[one, two], MINUTE).await;
    pass(&rig, &[two], 13 * MINUTE - SECOND).await;
    assert_eq!(ended(&rig, &user).await, 0);
    pass(&rig, &[two], 2 * SECOND).await;
    assert_eq!(ended(&rig, &user).await, 1);
}

#[tokio::test(start_paused = true)]
async fn runs_that_cannot_be_ended_do_not_hide_others() {
    let rig = rig();
    let mut users: Vec<_> = (0..200).map(|n| stream(&format!("u{n}"))).collect();
    users.sort_by_key(StreamKey::bucket);
    let last = users.pop().unwrap();
    assert!(last.bucket() > BUCKETS / 2);
    // More than a sweep asks for at once.
    for user in &users[..5] {
        let runs: Vec<_> = (0..1_000)
            .map(|n| format!("{}-{n}", user.user().as_str()))
            .collect();
        let answers = rig
            .emit(user, runs.iter().map(|run| start(user, run)))
            .await;
        assert!(answers.iter().all(Result::is_ok));
        rig.engine.break_stream(user);
    }
    rig.emit(&last, [start(&last, "r")]).await;
    rig.clock.advance(HOUR);
    for _ in 0..3 {
        rig.sequencer.sweep().await;
    }
    assert_eq!(ended(&rig, &last).await, 1);
}

/// Whether it is all of it that fails: a part of it may be away.
#[tokio::test(start_paused = true)]
async fn a_watchdog_asks_an_engine_that_fails_for_each_lease_once_a_sweep() {
    let rig = rig();
    let all_fail = Odds {
        call: 1.0,
        ..Odds::default()
    };
    rig.engine.set_odds(all_fail);
    for sweeps in 1..5 {
        rig.sequencer.sweep().await;
        assert_eq!(rig.engine.looks(), 16 * sweeps);
    }
    rig.engine.set_odds(Odds::default());
    rig.sequencer.sweep().await;
    rig.engine.set_odds(all_fail);
    let looks = rig.engine.looks();
    rig.clock.advance(6 * SECOND);
    for sweeps in 1..5 {
        rig.sequencer.sweep().await;
        assert_eq!(rig.engine.looks(), looks + 16 * sweeps);
    }
    rig.engine.set_odds(Odds::default());
    let user = stream("u");
    rig.emit(&user, [start(&user, "a")]).await;
    pass(&rig, &[&rig.sequencer], 17 * MINUTE).await;
    assert_eq!(ended(&rig, &user).await, 1);
}

#[tokio::test(start_paused = true)]
async fn all_leases_cost_the_time_of_one() {
    const LONGEST: Duration = Duration::from_millis(20);
    let rig = rig();
    rig.engine.set_odds(Odds {
        delay: 1.0,
        ..Odds::default()
    });
    for what in ["taken", "renewed"] {
        let (looks, since) = (rig.engine.looks(), Instant::now());
        rig.sequencer.sweep().await;
        assert_eq!(rig.engine.looks() - looks, 16, "{what}");
        // And that of asking which runs are due.
        let took = since.elapsed();
        assert!(took < 2 * LONGEST, "{what} in {took:?}");
        rig.clock.advance(6 * SECOND);
    }
    let (looks, since) = (rig.engine.looks(), Instant::now());
    rig.sequencer.stop_watching().await;
    assert_eq!(rig.engine.looks() - looks, 16, "given back");
    let took = since.elapsed();
    assert!(took < LONGEST, "given back in {took:?}");
}
