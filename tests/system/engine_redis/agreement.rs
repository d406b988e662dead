//! What one node must not do to the others, and what no node may tell before it is so.

use std::{sync::Arc, time::Duration};

use emitter::{
    clock::{Clock, Entropy},
    engine::{Commit, Condition, Engine, Key, memory},
    event::StreamKey,
    sequencer::Sequencer,
};

use super::{Config, RedisEngine, Url, node, node_on};
use crate::{
    engine_conformance::bounds,
    processes::tools::until,
    redis::{AOF_ALWAYS, IN_MEMORY, Redis},
    support::{
        events::{self, START, append, draft, maintain_all, note, notes, stream},
        rig::{observing, word},
    },
};

/// What becomes of the event `id`, emitted at a new node on `engine`.
async fn emitted(
    engine: &Arc<RedisEngine>,
    clock: &Clock,
    user: &StreamKey,
    id: &str,
) -> &'static str {
    let sequencer = sequencer(engine, clock);
    let answers = sequencer.submit(user.clone(), vec![note(user, id)], None);
    word(&answers.await[0])
}

/// A new node on `engine`.
fn sequencer(engine: &Arc<RedisEngine>, clock: &Clock) -> Arc<Sequencer> {
    Sequencer::new(
        engine.clone(),
        clock.clone(),
        Entropy::system(),
        observing(),
        events::metrics(),
    )
}

#[tokio::test]
async fn a_retry_is_not_acknowledged_before_replicas_have_the_event() {
    let primary = Redis::start(IN_MEMORY).await;
    let mut replica = Redis::replica_of(&primary, &[]).await;
    let engine = node_on(&primary.address(), |config| {
        config.wait_replicas = 1;
        config.wait_timeout = Duration::from_secs(2);
    });
    let (user, clock) = (stream("u"), Clock::manual(START));
    engine.load(&user).await.unwrap();
    replica.stall();
    assert_eq!(
        emitted(&engine, &clock, &user, "a").await,
        "OUTCOME_UNKNOWN"
    );
    // It is stored, but the replica does not have it.
    let state = engine.load(&user).await.unwrap();
    assert_eq!(state.dedupe.len(), 1);
    assert_eq!(
        emitted(&engine, &clock, &user, "a").await,
        "OUTCOME_UNKNOWN"
    );
    replica.go_on();
    until("the replica has it", async || {
        let answer = emitted(&engine, &clock, &user, "a").await;
        assert_ne!(answer, "stored");
        answer == "duplicate" && engine.confirm(&user, state.head).await.is_ok()
    })
    .await;
    replica.kill().await;
    assert_eq!(
        emitted(&engine, &clock, &user, "a").await,
        "OUTCOME_UNKNOWN"
    );
    primary.cli(&["debug", "change-repl-id"]);
    engine.confirm(&user, state.head).await.unwrap_err();
}

#[tokio::test]
async fn a_node_whose_clock_is_off_stores_and_forgets_nothing() {
    let redis = Redis::start(IN_MEMORY).await;
    let user = stream("u");
    // As Redis, a second off; and by the dedupe window and more ahead or behind.
    let now = Clock::system().now();
    let off = Duration::from_secs(700);
    let at = |now| {
        let config = Config {
            urls: vec![Url::new(&format!("redis://{}", redis.address()))],
            timeout: Duration::from_secs(10),
            clock_tolerance: Duration::from_secs(300),
            ..Config::default()
        };
        let clock = Clock::manual(now);
        (node(config, &clock), clock)
    };
    let (well, clock) = at(now + Duration::from_secs(1));
    assert_eq!(emitted(&well, &clock, &user, "a").await, "stored");
    assert_eq!(well.condition(), Condition::Well);
    for wrong in [now + off, now - off] {
        let (engine, clock) = at(wrong);
        until("the clocks were compared", async || {
            engine.condition() == Condition::Unfit("the clock is not that of Redis")
        })
        .await;
        assert_eq!(
            emitted(&engine, &clock, &user, "b").await,
            "ENGINE_UNAVAILABLE"
        );
        maintain_all(&*engine).await;
        // It could end no run: others may watch.
        sequencer(&engine, &clock).sweep().await;
        assert_eq!(engine.get(&Key::Lease(0)).await, Ok(None));
        // It reads.
        assert_eq!(engine.load(&user).await.unwrap().dedupe.len(), 1);
    }
    assert_eq!(emitted(&well, &clock, &user, "a").await, "duplicate");
}

#[tokio::test]
async fn what_is_over_is_forgotten_a_part_at_a_time_and_in_the_end_all_of_it() {
    const IDS: usize = 25_000;
    const AT_ONCE: usize = 10_000;
    let redis = Redis::start(IN_MEMORY).await;
    let clock = Clock::manual(START);
    let bounds = memory::Config {
        dedupe_ids_per_user: 2 * IDS,
        ..bounds()
    };
    let engine = node(super::config(&redis, bounds.clone()), &clock);
    let user = stream("u");
    for from in (0..IDS).step_by(1_000) {
        let drafts = (from..from + 1_000).map(|n| draft(note(&user, &format!("n{n}")), 0, START));
        let drafts = drafts.collect();
        append(&*engine, &user, Commit { drafts }).await;
    }
    let remembered = async || engine.load(&user).await.unwrap().dedupe.len();
    assert_eq!(remembered().await, IDS);
    clock.advance(bounds.dedupe_window + Duration::from_secs(60));
    append(&*engine, &user, notes(&user, &["one more"], clock.now())).await;
    assert_eq!(remembered().await, IDS + 1 - AT_ONCE);
    for _ in 0..RedisEngine::turns() {
        engine.maintain().await;
    }
    assert_eq!(remembered().await, 1);
}

#[tokio::test]
async fn whoever_knew_a_bucket_says_that_all_of_it_was_lost() {
    let redis = Redis::start(IN_MEMORY).await;
    let user = stream("u");
    let knows = node_on(&redis.address(), |_| {});
    append(&*knows, &user, notes(&user, &["a"], START)).await;
    redis.cli(&["flushall"]);
    // It cannot tell this from a store that is new.
    let fresh = node_on(&redis.address(), |_| {});
    assert_eq!(fresh.load(&user).await.unwrap().epoch_since, None);
    assert_eq!(knows.load(&user).await.unwrap().epoch_since, Some(START));
    assert_eq!(fresh.load(&user).await.unwrap().epoch_since, Some(START));
}

#[tokio::test]
async fn a_wait_that_is_refused_leaves_the_outcome_unknown() {
    let redis = Redis::start(IN_MEMORY).await;
    redis.cli(&[
        "acl", "setuser", "emitter", "on", "nopass", "~*", "&*", "+@all", "-wait",
    ]);
    let engine = node_on(&redis.address(), |config| {
        config.wait_replicas = 1;
        config.urls = vec![Url::new(&format!("redis://emitter:x@{}", redis.address()))];
    });
    let (user, clock) = (stream("u"), Clock::manual(START));
    assert_eq!(
        emitted(&engine, &clock, &user, "a").await,
        "OUTCOME_UNKNOWN"
    );
    assert_eq!(engine.load(&user).await.unwrap().dedupe.len(), 1);
}

#[tokio::test]
async fn a_node_that_connects_to_a_store_that_takes_nothing_reads() {
    for (takes_nothing, takes) in [
        (["maxmemory", "1mb"], ["maxmemory", "0"]),
        (
            ["min-replicas-to-write", "1"],
            ["min-replicas-to-write", "0"],
        ),
    ] {
        let redis = Redis::start(IN_MEMORY).await;
        let user = stream("u");
        let before = node_on(&redis.address(), |_| {});
        append(&*before, &user, notes(&user, &["a"], START)).await;
        let set = |setting: [&str; 2]| redis.cli(&["config", "set", setting[0], setting[1]]);
        set(takes_nothing);
        redis.cli(&["client", "kill", "type", "normal"]);
        for engine in [before, node_on(&redis.address(), |_| {})] {
            let mut state = None;
            until("it connects and reads", async || {
                state = engine.load(&user).await.ok();
                state.is_some()
            })
            .await;
            let state = state.unwrap();
            let refused = engine.append(&user, &state, notes(&user, &["b"], START));
            assert!(refused.await.is_err(), "{takes_nothing:?}");
        }
        set(takes);
        let after = node_on(&redis.address(), |_| {});
        append(&*after, &user, notes(&user, &["c"], START)).await;
    }
}

#[tokio::test]
async fn a_node_says_that_redis_is_away() {
    let mut redis = Redis::start(AOF_ALWAYS).await;
    let at = |address: &str| {
        let config = Config {
            urls: vec![Url::new(&format!("redis://{address}"))],
            ..Config::default()
        };
        node(config, &Clock::system())
    };
    let engine = at(&redis.address());
    let says = async |what: Condition| {
        until("it says so", async || engine.condition() == what).await;
    };
    says(Condition::Well).await;
    redis.kill().await;
    says(Condition::Refusing("Redis cannot be reached")).await;
    // One that never was there may be another's.
    let nowhere = at(&redis.address());
    assert_eq!(
        nowhere.condition(),
        Condition::Unfit("Redis was not reached yet")
    );
    redis.restart().await;
    says(Condition::Well).await;
}
