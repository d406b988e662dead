//! One run id belongs to one user of a tenant.

use std::time::Duration;

use emitter::{
    engine::{Engine, Key, claim, memory},
    event::{Event, Kind, Step, StreamKey, Tenant, UserId},
};

use crate::support::{
    events::{event, hours, maintain_all, run_id, stream},
    faulty_engine::{Fault, Odds},
    rig::{Rig, observing, words},
};

const MINUTE: Duration = Duration::from_secs(60);

fn starts(user: &StreamKey, id: &str, run: &str) -> Event {
    event(user, id, Some(run), Kind::AgentStarted)
}

async fn emit(rig: &Rig, user: &StreamKey, id: &str, run: &str) -> &'static str {
    words(&rig.emit(user, [starts(user, id, run)]).await)[0]
}

const REFUSED: &str = "RUN_OWNED_BY_OTHER_USER";

#[tokio::test(start_paused = true)]
async fn a_run_of_another_user_is_refused_and_nothing_else_is() {
    let rig = Rig::new();
    let (mine, other) = (stream("mine"), stream("other"));
    assert_eq!(emit(&rig, &mine, "e1", "r").await, "stored");
    let batch = [
        starts(&other, "x1", "s"),
        starts(&other, "x2", "r"),
        starts(&other, "x3", "t"),
        starts(&other, "x4", "r"),
        starts(&other, "x5", "s"),
    ];
    let answers = rig.emit(&other, batch).await;
    assert_eq!(
        words(&answers),
        ["stored", REFUSED, "stored", REFUSED, "stored"]
    );
    assert_eq!(rig.stored_ids(&other).await, ["x1", "x3", "x5"]);
    let sequences: Vec<u64> = answers.iter().flatten().map(|r| r.run_sequence.0).collect();
    assert_eq!(sequences, [1, 1, 2]);
    // Long after, too, while the run is remembered; and in another tenant the id is free.
    rig.clock.advance(hours(23));
    assert_eq!(emit(&rig, &other, "x6", "r").await, REFUSED);
    let elsewhere = StreamKey::new(
        Tenant::new("elsewhere").unwrap(),
        UserId::new("other").unwrap(),
    );
    assert_eq!(emit(&rig, &elsewhere, "x6", "r").await, "stored");
    assert_eq!(emit(&rig, &mine, "e2", "r").await, "stored");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_its_stream_does_not_know_is_replaced_after_a_minute() {
    let rig = Rig::new();
    let (mine, other) = (stream("mine"), stream("other"));
    rig.engine.script([Fault::Unavailable]);
    assert_eq!(emit(&rig, &mine, "e1", "r").await, "ENGINE_UNAVAILABLE");
    assert_eq!(emit(&rig, &other, "x1", "r").await, REFUSED);
    rig.clock.advance(MINUTE - Duration::from_millis(1));
    assert_eq!(emit(&rig, &other, "x1", "r").await, REFUSED);
    rig.clock.advance(Duration::from_millis(1));
    assert_eq!(emit(&rig, &other, "x1", "r").await, "stored");
    assert_eq!(emit(&rig, &mine, "e1", "r").await, REFUSED);
    rig.clock.advance(MINUTE);
    assert_eq!(emit(&rig, &mine, "e1", "r").await, REFUSED);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_kept_alive_stays_claimed_and_a_forgotten_one_is_free() {
    let rig = Rig::new();
    let (mine, other) = (stream("mine"), stream("other"));
    // An event every 20 hours, for longer than a claim lives unless it is renewed.
    for n in 0..6 {
        assert_eq!(emit(&rig, &mine, &format!("e{n}"), "r").await, "stored");
        rig.clock.advance(hours(20));
        rig.sequencer.maintain();
        maintain_all(&*rig.memory).await;
        let id = format!("x{n}");
        assert_eq!(emit(&rig, &other, &id, "r").await, REFUSED, "round {n}");
    }
    let last = rig.stored(&mine).await;
    assert_eq!(last.last().unwrap().draft.run_sequence.0, 6);
    let ends = event(&mine, "end", Some("r"), Kind::AgentCompleted);
    assert_eq!(words(&rig.emit(&mine, [ends]).await), ["stored"]);
    rig.clock.advance(hours(24));
    assert_eq!(emit(&rig, &other, "x", "r").await, "stored");
    assert_eq!(emit(&rig, &mine, "e", "r").await, REFUSED);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_cannot_be_put_stores_nothing() {
    let rig = Rig::new();
    let user = stream("u");
    // The state is at hand, so that the claim is the only other call.
    assert_eq!(emit(&rig, &user, "e1", "r").await, "stored");
    rig.engine.set_odds(Odds {
        call: 1.0,
        ..Odds::default()
    });
    let answers = rig
        .emit(&user, [starts(&user, "e2", "r"), starts(&user, "e3", "s")])
        .await;
    assert_eq!(words(&answers), ["ENGINE_UNAVAILABLE", "PRECEDING_FAILED"]);
    // A known run needs none.
    assert_eq!(emit(&rig, &user, "e2", "r").await, "stored");
    assert_eq!(rig.stored_ids(&user).await, ["e1", "e2"]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_changes_while_it_is_renewed_is_looked_at_again() {
    let rig = Rig::new();
    let user = stream("u");
    rig.engine.script([Fault::Unavailable]);
    assert_eq!(emit(&rig, &user, "e1", "r").await, "ENGINE_UNAVAILABLE");
    rig.engine.fail_next_set();
    assert_eq!(emit(&rig, &user, "e1", "r").await, "stored");
}

#[tokio::test(start_paused = true)]
async fn of_two_users_that_start_one_run_at_once_one_gets_it() {
    for seed in 0..50 {
        let rig = Rig::with(observing(), memory::Config::default(), seed);
        rig.engine.set_odds(Odds {
            delay: 0.7,
            ..Odds::default()
        });
        let users = ["a", "b", "c"].map(stream);
        let calls = users.iter().map(|user| emit(&rig, user, "e", "r"));
        let mut got: Vec<_> = futures_util::future::join_all(calls).await;
        got.sort_unstable();
        assert_eq!(got, [REFUSED, REFUSED, "stored"], "seed {seed}");
    }
}

/// The first user's append failed long ago and left its claim. Both come at once: one may take the claim over, the
/// other may renew it, but not both.
#[tokio::test(start_paused = true)]
async fn of_two_users_that_find_an_old_claim_at_once_one_gets_the_run() {
    for seed in 0..100 {
        let rig = Rig::with(observing(), memory::Config::default(), seed);
        let (mine, other) = (stream("mine"), stream("other"));
        rig.engine.script([Fault::Unavailable]);
        assert_eq!(emit(&rig, &mine, "e", "r").await, "ENGINE_UNAVAILABLE");
        rig.clock.advance(MINUTE);
        rig.engine.set_odds(Odds {
            delay: 0.7,
            ..Odds::default()
        });
        let (mine, other) = tokio::join!(emit(&rig, &mine, "e", "r"), emit(&rig, &other, "x", "r"));
        let mut got = [mine, other];
        got.sort_unstable();
        assert_eq!(got, [REFUSED, "stored"], "seed {seed}");
    }
}

/// The store of the claim has lost it, and not that of the run: its failover may lose one of the two.
async fn lose_claim(rig: &Rig, run: &str, to: &StreamKey) {
    let key = Key::RunClaim(to.tenant().clone(), run_id(run));
    let there = rig.memory.get(&key).await.unwrap().expect("a claim");
    let claim = claim::encode(to.user(), 7);
    let set = rig
        .memory
        .compare_and_set(&key, &there.value, claim, hours(96));
    assert!(set.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_open_run_goes_on_though_its_claim_was_lost_to_another_user() {
    for has_begun in [false, true] {
        let rig = Rig::with(
            emitter::sequencer::Config::default(),
            memory::Config::default(),
            1,
        );
        let (mine, other, third) = (stream("mine"), stream("other"), stream("third"));
        assert_eq!(emit(&rig, &mine, "e1", "r").await, "stored");
        lose_claim(&rig, "r", &other).await;
        if has_begun {
            assert_eq!(emit(&rig, &other, "x1", "r").await, "stored");
        }
        // Where it begins to wait, the claim is to be renewed.
        let waits = Event {
            step: Step::wait(None),
            ..event(&mine, "e2", Some("r"), Kind::AgentWaiting)
        };
        let case = format!("the other has begun: {has_begun}");
        assert_eq!(words(&rig.emit(&mine, [waits]).await), ["stored"], "{case}");
        assert_eq!(emit(&rig, &third, "y1", "r").await, REFUSED, "{case}");
        // A wait of a day, and then the watchdog.
        rig.clock.advance(hours(23));
        let thinks = event(&mine, "e3", Some("r"), Kind::AgentThinking);
        assert_eq!(
            words(&rig.emit(&mine, [thinks]).await),
            ["stored"],
            "{case}"
        );
        rig.clock.advance(MINUTE * 20);
        rig.sequencer.sweep().await;
        let stored = rig.stored_ids(&mine).await;
        assert_eq!(stored.len(), 4, "{case}: {stored:?}");
    }
}
