//! Opened anew, a directory is what it was: against a memory engine that is told the same and never ends.
//!
//! A failing seed is printed; `EMITTER_SEED=<seed>` runs it again, `EMITTER_SOAK=1` runs ten times as many.

use std::time::Duration;

use bytes::Bytes;
use emitter::{
    clock::{Clock, Timestamp},
    engine::{Commit, Engine, Key, RunQuery, memory::MemoryEngine},
    event::{Adjustments, Draft, Event, Kind, Step, StreamKey, Usage, Wait, WaitId},
    run::Book,
    usage::UsageQuery,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{as_killed, clock, facts, open, page};
use crate::support::{
    events::{adjusted, draft, event, memory_on, note, run_id, stream, tool_call_id, tool_name},
    seed,
};

const STEPS: usize = 120;

const USERS: [&str; 3] = ["u0", "u1", "u2"];

/// A commit as a sequencer could have decided it on `state`, but that its rules are not kept.
fn random_commit(
    rng: &mut StdRng,
    user: &StreamKey,
    state: &impl Book,
    step: usize,
    now: Timestamp,
) -> Commit {
    let mut drafts: Vec<Draft> = Vec::new();
    let run = run_id(["r0", "r1", "r2", "r3"].choose(rng).unwrap());
    let mut known = state.run(&run).cloned();
    for n in 0..rng.random_range(1..=5) {
        let id = format!("e{step}-{n}");
        if rng.random_bool(0.2) {
            drafts.push(draft(note(user, &id), 0, now));
            continue;
        }
        let open = known.as_ref().is_some_and(|run| run.state.is_open());
        let (kind, settled) = match rng.random_range(0..8) {
            _ if !open => (
                Kind::AgentStarted,
                Step::Start {
                    silence_timeout: None,
                },
            ),
            0 => (Kind::AgentCompleted, Step::End),
            1 => (Kind::AgentWaiting, Step::wait(Some(Duration::from_secs(7)))),
            2 => (
                Kind::ToolExecuting,
                Step::ToolBegins {
                    id: tool_call_id("c"),
                    name: tool_name("search"),
                    arguments: None,
                    call: None,
                },
            ),
            3 => (
                Kind::AgentWaiting,
                Step::Wait(Box::new(Wait {
                    max_wait: Some(Duration::from_secs(rng.random_range(1..3_000))),
                    id: WaitId::new(["w0", "w1"].choose(rng).unwrap()).ok(),
                    ..Wait::default()
                })),
            ),
            4 => (
                Kind::AgentResumed,
                Step::Resume {
                    id: WaitId::new("w0").ok(),
                },
            ),
            _ => (Kind::AgentThinking, Step::Other),
        };
        let sequence = known
            .as_ref()
            .filter(|_| open)
            .map_or(0, |run| run.last_sequence.0)
            + 1;
        let made = Event {
            step: settled.clone(),
            parent_run_id: (!open && rng.random_bool(0.4)).then(|| run_id("r9")),
            usage: rng.random_bool(0.3).then(|| Box::new(usage(rng))),
            adjustments: match rng.random_bool(0.3) {
                true => adjusted(),
                false => Adjustments::default(),
            },
            ..event(user, &id, Some(run.as_str()), kind)
        };
        let mut made = draft(made, sequence, now);
        if let Some(run) = known.as_ref().filter(|_| open) {
            made.parent_run_id = run.parent_run_id.clone();
        }
        let mut book = std::collections::HashMap::new();
        book.extend(known.take().map(|known| (run.clone(), known)));
        emitter::run::record(&mut book, &made, emitter::event::Offset(1));
        known = book.remove(&run);
        drafts.push(made);
    }
    Commit { drafts }
}

fn usage(rng: &mut StdRng) -> Usage {
    Usage {
        provider: "p".into(),
        model: ["m", "n"].choose(rng).unwrap().to_owned().into(),
        tokens: emitter::event::Tokens {
            input: rng.random_range(1..100),
            ..Default::default()
        },
        cost_nano_usd: None,
    }
}

async fn case(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let clock = clock();
    let mut directory = tempfile::tempdir().unwrap();
    let mut engine = open(directory.path(), &clock, 1).unwrap();
    let mut held = Vec::new();
    // The same epoch, drawn from the same seed.
    let mirror = memory_on(super::bounds(), &clock, 1);
    for step in 0..STEPS {
        let user = stream(USERS.choose(&mut rng).unwrap());
        match rng.random_range(0..20) {
            0..13 => {
                let state = mirror.load(&user).await.unwrap();
                let commit = random_commit(&mut rng, &user, &state, step, clock.now());
                let want = mirror.append(&user, &state, commit.clone()).await.unwrap();
                let got = engine.append(&user, &state, commit).await.unwrap();
                assert_eq!(format!("{:?}", got.records), format!("{:?}", want.records));
            }
            13..15 => {
                clock.advance(Duration::from_secs(rng.random_range(0..900)));
                for _ in 0..MemoryEngine::turns() {
                    mirror.maintain().await;
                    engine.maintain().await;
                }
            }
            15 => {
                let key = Key::Acks(user);
                let value = Bytes::from(step.to_string());
                let ttl = Duration::from_secs(1_000);
                let want = mirror.put_if_absent(&key, value.clone(), ttl).await;
                assert_eq!(engine.put_if_absent(&key, value.clone(), ttl).await, want);
                if let Ok(Some(there)) = want {
                    for engine in [&*mirror as &dyn Engine, &*engine] {
                        let set = engine.compare_and_set(&key, &there.value, value.clone(), ttl);
                        assert_eq!(set.await, Ok(true));
                    }
                }
            }
            16..18 => {
                engine.close().await;
                engine = open(directory.path(), &clock, 99).unwrap();
            }
            _ => {
                let killed = tempfile::tempdir().unwrap();
                written(&*engine, step).await;
                as_killed(directory.path(), killed.path());
                let again = open(killed.path(), &clock, 99).unwrap();
                // What was killed stays as it was: its end would be told in the witness that both have.
                held.push((std::mem::replace(&mut engine, again), directory));
                directory = killed;
            }
        }
        same(&*engine, &*mirror, &clock, step).await;
    }
    engine.close().await;
}

/// Waits until the writer has done what maintenance asked it for, and nobody waits for: a copy made meanwhile would be of
/// two moments, the files before it and the witness after it.
async fn written(engine: &dyn Engine, step: usize) {
    let key = Key::Lease(step);
    let put = engine.put_if_absent(&key, Bytes::new(), Duration::from_secs(1));
    assert_eq!(put.await, Ok(None), "step {step}");
}

/// Compares everything that can be asked.
async fn same(engine: &dyn Engine, mirror: &dyn Engine, clock: &Clock, step: usize) {
    let now = clock.now();
    for user in USERS.map(stream) {
        let (got, want) = (
            engine.load(&user).await.unwrap(),
            mirror.load(&user).await.unwrap(),
        );
        assert_eq!(
            facts(&got, now),
            facts(&want, now),
            "{user:?} after step {step}"
        );
        let (got, want) = (page(engine, &user).await, page(mirror, &user).await);
        let (records, wanted) = (&got.records, &want.records);
        assert_eq!(
            format!("{records:?}"),
            format!("{wanted:?}"),
            "{user:?} after step {step}"
        );
        if !records.is_empty() {
            assert_eq!(
                (got.head, got.trimmed),
                (want.head, want.trimmed),
                "step {step}"
            );
        }
        let key = Key::Acks(user);
        assert_eq!(engine.get(&key).await, mirror.get(&key).await);
    }
    let query = RunQuery {
        limit: 100,
        ..RunQuery::default()
    };
    let mut lists = Vec::new();
    for engine in [engine, mirror] {
        let mut runs = engine.runs(&query).await.unwrap();
        runs.retain(|known| !known.run.is_forgotten(super::bounds().run_memory, now));
        lists.push(runs);
    }
    assert_eq!(lists[0], lists[1], "step {step}");
    let mut sums = Vec::new();
    for engine in [engine, mirror] {
        let mut told = engine.usage(&UsageQuery::default()).await.unwrap();
        told.sort_by(|a, b| a.0.cmp(&b.0));
        sums.push(told);
    }
    assert_eq!(sums[0], sums[1], "step {step}");
}

#[test]
fn opened_anew_a_directory_is_what_it_was_soak() {
    seed::each_seed(10, 300, case);
}
