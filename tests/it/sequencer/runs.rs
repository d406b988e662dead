//! Runs under contention and in great number: one owner at any time, and an end for each.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use emitter::{
    clock::Timestamp,
    engine::{Engine, memory},
    event::{Event, Kind, Step, StreamKey},
    reason::Reason,
    run::Book,
    sequencer::{Config, PARENT_ENDED},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::support::{
    events::{all, event, maintain_all, run_id, source, stream},
    faulty_engine::{Fault, Odds},
    rig::{Answer, Rig, until, words},
    seed,
};

const MINUTE: Duration = Duration::from_secs(60);

fn enforcing(seed: u64) -> Rig {
    Rig::with(Config::default(), memory::Config::default(), seed)
}

fn of(producer: &str, term: u64, event: Event) -> Event {
    Event {
        source: source(producer, term),
        ..event
    }
}

fn start(user: &StreamKey, id: &str, run: &str, timeout: Duration) -> Event {
    Event {
        step: Step::Start {
            silence_timeout: Some(timeout),
        },
        ..event(user, id, Some(run), Kind::AgentStarted)
    }
}

fn child(user: &StreamKey, id: &str, run: &str, parent: &str) -> Event {
    Event {
        parent_run_id: Some(run_id(parent)),
        ..event(user, id, Some(run), Kind::AgentStarted)
    }
}

fn thinks(user: &StreamKey, id: &str, run: &str) -> Event {
    event(user, id, Some(run), Kind::AgentThinking)
}

async fn one(rig: &Rig, user: &StreamKey, event: Event) -> Answer {
    rig.emit(user, [event]).await.remove(0)
}

const RUNS: usize = 1_000;
const USERS: usize = 40;

/// A producer that starts every run, writes into it, and now and then takes it over by a higher term. It keeps writing
/// with the old one, as a process does that has not noticed.
async fn fight(rig: Arc<Rig>, name: &'static str, seed: u64, refused: Arc<AtomicU64>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut terms = vec![0; RUNS];
    for round in 0..8 {
        for n in 0..RUNS {
            let run = (n * 7 + round * 13) % RUNS;
            let user = stream(&format!("user-{}", run % USERS));
            let run_name = format!("run-{run}");
            if round > 0 && rng.random_bool(0.2) {
                terms[run] += rng.random_range(1..3);
            }
            let event = match round {
                0 => event(
                    &user,
                    &format!("{name}-{run}-s"),
                    Some(&run_name),
                    Kind::AgentStarted,
                ),
                _ => thinks(&user, &format!("{name}-{run}-{round}"), &run_name),
            };
            let event = of(name, terms[run], event);
            if let Err(refusal) = one(&rig, &user, event).await {
                match refusal.reason {
                    Reason::CompetingSource | Reason::SourceFenced => {
                        let owner = &refusal.metadata["owner_producer_id"];
                        assert!(["one", "two"].contains(&owner.as_str()), "{refusal:?}");
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    reason => panic!("{reason:?}: {refusal:?}"),
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_producers_that_fight_over_a_thousand_runs_one_owns_each_at_any_time() {
    let seed = seed::seed();
    let rig = Arc::new(enforcing(seed));
    rig.engine.set_odds(Odds {
        delay: 0.2,
        ..Odds::default()
    });
    let refused = Arc::new(AtomicU64::new(0));
    let fights = [("one", 1), ("two", 2)]
        .map(|(name, n)| tokio::spawn(fight(rig.clone(), name, seed ^ n, refused.clone())));
    for fight in fights {
        fight.await.unwrap();
    }
    let mut take_overs = 0;
    for user in 0..USERS {
        let mut owners = BTreeMap::new();
        for record in rig.stored(&stream(&format!("user-{user}"))).await {
            let run = record.draft.event.run_id.clone().unwrap();
            let source = record.draft.event.source.clone();
            let Some(owner) = owners.insert(run.clone(), source.clone()) else {
                continue;
            };
            // After a take-over nothing of the loser is stored: terms do not fall, and none has two producers.
            assert!(source.term >= owner.term, "{run:?}: {owner:?} {source:?}");
            if source.term == owner.term {
                assert_eq!(source, owner, "{run:?}");
            }
            take_overs += usize::from(source.producer_id != owner.producer_id);
        }
    }
    assert!(take_overs > RUNS / 4, "{take_overs} take-overs");
    let refused = refused.load(Ordering::Relaxed);
    let noted = rig.sequencer.refused_sources();
    assert_eq!(noted.count(Some(stream("u").tenant())), refused);
    assert_eq!(noted.count(None), refused);
    let listed = noted.recent(usize::MAX, |_| true);
    let of_listed: u64 = listed.iter().map(|refused| refused.count).sum();
    assert_eq!(of_listed, refused, "all of them fit the list");
    assert!(
        listed
            .iter()
            .all(|refused| refused.owner != refused.refused)
    );
}

#[tokio::test(start_paused = true)]
async fn a_source_is_fenced_also_for_calls_in_flight_and_still_finds_its_receipts() {
    let rig = enforcing(1);
    let user = stream("u");
    let started = of("old", 0, event(&user, "e1", Some("r"), Kind::AgentStarted));
    let first = one(&rig, &user, started.clone()).await.unwrap();
    rig.engine.hold();
    // Behind an append under way, a take-over and then a call of the old source wait together.
    let calls = [
        thinks(&user, "e2", "r"),
        of("new", 1, thinks(&user, "e3", "r")),
        of("old", 0, thinks(&user, "e4", "r")),
    ];
    let [under_way, take_over, in_flight] = calls.map(|event| {
        let event = match event.event_id.as_str() {
            "e2" => of("old", 0, event),
            _ => event,
        };
        let sequencer = rig.sequencer.clone();
        let user = user.clone();
        tokio::spawn(async move { sequencer.submit(user, vec![Arc::new(event)], None).await })
    });
    until("all wait", || rig.sequencer.in_flight() == 3).await;
    rig.engine.release();
    assert_eq!(words(&under_way.await.unwrap()), ["stored"]);
    assert_eq!(words(&take_over.await.unwrap()), ["stored"]);
    let fenced = in_flight.await.unwrap().remove(0).unwrap_err();
    assert_eq!(fenced.reason, Reason::SourceFenced);
    assert_eq!(fenced.metadata["owner_producer_id"], "new");
    assert_eq!(fenced.metadata["owner_term"], "1");
    let again = one(&rig, &user, started).await.unwrap();
    assert!(again.duplicate);
    assert_eq!(again.position, first.position);
}

#[tokio::test(start_paused = true)]
async fn runs_that_are_abandoned_end_once_and_in_time_and_leave_nothing() {
    const USERS: usize = 500;
    const RUNS: usize = 200;
    let rig = enforcing(1);
    let mut rng = StdRng::seed_from_u64(seed::seed());
    let mut deadlines = BTreeMap::new();
    for user in (0..USERS).map(|n| stream(&format!("user-{n}"))) {
        let starts: Vec<_> = (0..RUNS)
            .map(|n| {
                let run = format!("{}-{n}", user.user().as_str());
                let timeout = Duration::from_secs(rng.random_range(60..900));
                deadlines.insert(run.clone(), rig.clock.now() + timeout);
                start(&user, &format!("s-{n}"), &run, timeout)
            })
            .collect();
        assert!(rig.emit(&user, starts).await.iter().all(Result::is_ok));
        rig.clock.advance(Duration::from_secs(1));
    }
    let mut ended = 0;
    while rig.clock.now() < *deadlines.values().max().unwrap() {
        ended += rig.sequencer.sweep().await;
        rig.clock.advance(Duration::from_secs(1));
    }
    ended += rig.sequencer.sweep().await;
    assert_eq!(ended, USERS * RUNS, "each was looked at once");
    let mut verdicts = BTreeMap::new();
    for user in (0..USERS).map(|n| stream(&format!("user-{n}"))) {
        for record in rig.stored(&user).await {
            if record.draft.event.kind == Kind::AgentFailed {
                let run = record.draft.event.run_id.clone().unwrap();
                let at = record.draft.recorded_at;
                assert_eq!(
                    verdicts.insert(run.as_str().to_owned(), at),
                    None,
                    "{run:?}"
                );
            }
        }
    }
    assert_eq!(verdicts.len(), USERS * RUNS);
    // Those that came due while others were being started were looked at when the sweeps began.
    let sweeps_began = deadlines.values().min().copied().unwrap_or_default();
    let sweeps_began = sweeps_began.max(START + Duration::from_secs(USERS as u64));
    for (run, deadline) in &deadlines {
        let at = verdicts[run];
        let latest = (*deadline).max(sweeps_began) + Duration::from_secs(1);
        assert!(*deadline <= at && at < latest, "{run}: {deadline} {at}");
    }
    // A watchdog's leases are kept for 8 days.
    for _ in 0..200 {
        rig.clock.advance(60 * MINUTE);
        maintain_all(&*rig.memory).await;
        rig.sequencer.maintain();
    }
    assert_eq!((rig.memory.bytes(), rig.memory.streams()), (0, 0));
}

const START: Timestamp = crate::support::events::START;

#[tokio::test(start_paused = true)]
async fn an_event_that_races_its_verdict_is_before_it_or_refused() {
    for seed in 0..200 {
        let rig = Arc::new(enforcing(seed));
        rig.engine.set_odds(Odds {
            delay: 0.5,
            ..Odds::default()
        });
        let user = stream("u");
        one(&rig, &user, start(&user, "s", "r", MINUTE))
            .await
            .unwrap();
        rig.clock.advance(MINUTE);
        let event = thinks(&user, "e", "r");
        let (_, answer) = tokio::join!(rig.sequencer.sweep(), one(&rig, &user, event));
        let stored = rig.stored_ids(&user).await;
        match answer {
            Ok(_) => assert_eq!(stored[..2], ["s", "e"], "seed {seed}: {stored:?}"),
            Err(refusal) => {
                assert_eq!(refusal.reason, Reason::RunEnded, "seed {seed}");
                assert_eq!(stored.len(), 2, "seed {seed}: {stored:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn time_in_which_nothing_could_be_stored_is_not_held_against_a_run() {
    let rig = enforcing(1);
    let user = stream("u");
    one(&rig, &user, start(&user, "s", "r", 10 * MINUTE))
        .await
        .unwrap();
    rig.clock.advance(9 * MINUTE);
    rig.engine.script([Fault::Unavailable]);
    let refused = one(&rig, &user, thinks(&user, "e", "r")).await.unwrap_err();
    assert_eq!(refused.reason, Reason::EngineUnavailable);
    rig.clock.advance(MINUTE);
    // A minute is allowed for the retry.
    rig.sequencer.sweep().await;
    assert_eq!(rig.stored_ids(&user).await, ["s"]);
    rig.clock.advance(MINUTE);
    rig.sequencer.sweep().await;
    let stored = rig.stored(&user).await;
    assert_eq!(stored.last().unwrap().draft.event.kind, Kind::AgentFailed);
}

#[tokio::test(start_paused = true)]
async fn a_sub_agent_keeps_its_parent_alive_and_ends_with_it_in_one_append() {
    let rig = enforcing(1);
    let user = stream("u");
    let events = [
        start(&user, "p", "parent", 10 * MINUTE),
        child(&user, "c", "child", "parent"),
        child(&user, "g", "grandchild", "child"),
    ];
    assert_eq!(words(&rig.emit(&user, events).await), ["stored"; 3]);
    for n in 0..3 {
        rig.clock.advance(8 * MINUTE);
        rig.sequencer.sweep().await;
        let event = thinks(&user, &format!("t{n}"), "grandchild");
        one(&rig, &user, event).await.unwrap();
    }
    let open = rig.memory.open_runs(&user).await.unwrap();
    assert_eq!(open.runs.len(), 3);
    let appends = rig.engine.appends();
    let ends = event(&user, "end", Some("parent"), Kind::AgentCompleted);
    one(&rig, &user, ends).await.unwrap();
    assert_eq!(rig.engine.appends(), appends + 1);
    let stored = rig.stored(&user).await;
    let last: Vec<_> = stored[stored.len() - 3..]
        .iter()
        .map(|record| record.draft.event.run_id.as_ref().unwrap().as_str())
        .collect();
    assert_eq!(last, ["grandchild", "child", "parent"]);
    let cancelled = &stored[stored.len() - 3].draft;
    assert_eq!(cancelled.event.kind, Kind::AgentCancelled);
    assert_eq!(cancelled.parent_run_id.as_ref().unwrap().as_str(), "child");
    let body = String::from_utf8_lossy(&cancelled.event.body).into_owned();
    assert!(body.contains(PARENT_ENDED), "{body:?}");
    let state = rig.memory.load(&user).await.unwrap();
    assert_eq!(state.open_runs(), 0);
    assert!(
        state
            .run(&run_id("parent"))
            .unwrap()
            .open_children
            .is_empty()
    );
}

/// The bounds of a family, one by one: depth, number, and that both belong to one user.
#[tokio::test(start_paused = true)]
async fn a_family_is_bounded_and_of_one_user() {
    let rig = enforcing(1);
    let user = stream("u");
    one(
        &rig,
        &user,
        event(&user, "r0", Some("r0"), Kind::AgentStarted),
    )
    .await
    .unwrap();
    let deeper = (1..=9).map(|n| {
        let (run, parent) = (format!("r{n}"), format!("r{}", n - 1));
        child(&user, &run, &run, &parent)
    });
    let answers = rig.emit(&user, deeper).await;
    let want = [["stored"; 8].as_slice(), &["LIMIT_EXCEEDED"]].concat();
    assert_eq!(words(&answers), want);
    let more = (0..57).map(|n| child(&user, &format!("m{n}"), &format!("m{n}"), "r0"));
    let answers = rig.emit(&user, more).await;
    let want = [["stored"; 56].as_slice(), &["LIMIT_EXCEEDED"]].concat();
    assert_eq!(words(&answers), want);
    let other = stream("other");
    let foreign = one(&rig, &other, child(&other, "x", "x", "r0"))
        .await
        .unwrap_err();
    assert_eq!(foreign.reason, Reason::ParentNotOpen);
    assert_eq!(foreign.metadata["run_state"], "unknown");
    assert!(all(&*rig.memory, &other).await.is_empty());
}
