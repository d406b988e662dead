//! Redis goes away, changes its history, fills up, or is not what the settings want.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use emitter::{
    clock::{Clock, Entropy},
    engine::{
        AppendError, Commit, Condition, Engine, EngineError, Key, RunQuery, StreamState, memory,
        redis::RedisEngine,
    },
    event::{Kind, Offset, Position, StreamKey},
    telemetry::Metrics,
    usage::UsageQuery,
};
use tokio::time::timeout;

use super::{Config, Told, Url, admit, config, loaded, node, node_on};
use crate::{
    processes::tools::until,
    proxy::{Proxy, Way, dropping},
    redis::{AOF_ALWAYS, IN_MEMORY, Redis},
    support::events::{
        ALL, START, all, append, custom, draft, event, ids, notes, offsets, run_id, sized, stream,
    },
};

async fn store(engine: &dyn Engine, user: &StreamKey, id: &str) -> Position {
    append(engine, user, notes(user, &[id], START))
        .await
        .records[0]
        .position
}

/// What becomes of one more note.
async fn outcome(engine: &dyn Engine, user: &StreamKey, state: &StreamState) -> String {
    match engine.append(user, state, notes(user, &["n"], START)).await {
        Ok(_) => "stored".into(),
        Err(AppendError::Conflict(missed)) => format!("conflict of {}", missed.len()),
        Err(AppendError::Reload) => "reload".into(),
        Err(AppendError::Full) => "full".into(),
        Err(AppendError::Unavailable(_)) => "unavailable".into(),
        Err(AppendError::Unknown(_)) => "unknown".into(),
    }
}

/// Until one more note is stored.
async fn stores(engine: &dyn Engine, user: &StreamKey) {
    until("it stores", async || {
        let state = loaded(engine, user).await;
        outcome(engine, user, &state).await == "stored"
    })
    .await;
}

#[tokio::test]
async fn another_history_begins_a_new_epoch_and_offsets_stay() {
    let mut redis = Redis::start(AOF_ALWAYS).await;
    let engine = node_on(&redis.address(), |_| {});
    let user = stream("u");
    let mut seen = Vec::new();
    let mut last = Offset(0);
    for round in ["a", "b", "c"] {
        let commit = notes(&user, &[&format!("{round}1"), &format!("{round}2")], START);
        let before = append(&*engine, &user, commit).await.records[1].position;
        let state = engine.load(&user).await.unwrap();
        assert_eq!(state.head, before);
        assert!(!seen.contains(&before.epoch), "{before} in {seen:?}");
        assert!(before.offset > last, "{before} after {last:?}");
        (seen, last) = ([seen, vec![before.epoch]].concat(), before.offset);
        // Once without a restart, as a failover does it; once with.
        match round {
            "a" => drop(redis.cli(&["debug", "change-repl-id"])),
            _ => {
                redis.kill().await;
                redis.restart().await;
            }
        }
        if round == "a" {
            assert_eq!(outcome(&*engine, &user, &state).await, "reload");
        }
        let after = loaded(&*engine, &user).await;
        assert_eq!(
            (state.epoch_since.is_some(), after.epoch_since),
            (round != "a", Some(START))
        );
        assert_ne!(after.head.epoch, before.epoch, "{round}");
        assert_eq!(after.head.offset, before.offset, "{round}");
        assert_eq!(after.dedupe.len(), state.dedupe.len(), "{round}");
        let kept = all(&*engine, &user).await;
        assert_eq!(offsets(&kept), (1..=last.0).collect::<Vec<_>>());
        assert!(
            kept.iter()
                .all(|record| record.position.epoch == after.head.epoch)
        );
        assert_eq!(outcome(&*engine, &user, &state).await, "reload");
        assert_eq!(engine.load(&user).await.unwrap().head, after.head);
    }
}

#[tokio::test]
async fn a_store_that_lost_everything_begins_a_new_epoch() {
    let redis = Redis::start(IN_MEMORY).await;
    let engine = node_on(&redis.address(), |_| {});
    let user = stream("u");
    let before = store(&*engine, &user, "a").await;
    redis.cli(&["flushall"]);
    let after = store(&*engine, &user, "a").await;
    assert_eq!(after.offset, before.offset);
    assert_ne!(after.epoch, before.epoch);
    // Runs that this node knew of may be gone.
    let since = |state: StreamState| state.epoch_since;
    assert_eq!(since(engine.load(&user).await.unwrap()), Some(START));
    let fresh = (0..)
        .map(|n| stream(&format!("v{n}")))
        .find(|v| v.bucket() != user.bucket());
    assert_eq!(since(engine.load(&fresh.unwrap()).await.unwrap()), None);
}

#[tokio::test]
async fn a_watcher_is_told_of_another_epoch_and_hears_what_comes_then() {
    let mut redis = Redis::start(AOF_ALWAYS).await;
    let engine = node_on(&redis.address(), |_| {});
    let user = stream("u");
    let before = store(&*engine, &user, "a").await;
    let told = Arc::new(Told::default());
    let _watch = engine.watch(&user, told.clone()).await.unwrap();
    redis.kill().await;
    redis.restart().await;
    until("it is told of the new epoch", async || {
        told.heads()
            .last()
            .is_some_and(|head| head.epoch != before.epoch)
    })
    .await;
    let head = loaded(&*engine, &user).await.head;
    assert_eq!(told.heads().last(), Some(&head), "{:?}", told.heads());
    let mut count = 0;
    until("it hears again", async || {
        count += 1;
        store(&*engine, &user, &format!("b{count}")).await;
        !told.ids().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_lost_hint_is_made_up_for() {
    let redis = Redis::start(IN_MEMORY).await;
    let dropped = Arc::new(Mutex::new(0));
    let every_other = dropping(dropped.clone(), |count| count.is_multiple_of(2));
    let proxy = Proxy::without_pushes(&redis.address(), every_other).await;
    let engine = node_on(&proxy.address.to_string(), |_| {});
    let user = stream("u");
    let told = Arc::new(Told::default());
    let _watch = engine.watch(&user, told.clone()).await.unwrap();
    let (mut heard, mut heads) = (Vec::new(), Vec::new());
    // The first time the comparison after connecting may still be under way.
    for round in 1..=2 {
        heard.push(format!("heard{round}"));
        store(&*engine, &user, &format!("heard{round}")).await;
        until("the first is heard of", async || told.ids() == heard).await;
        let head = store(&*engine, &user, &format!("lost{round}")).await;
        heads.push(head);
        // The heads are compared every five seconds.
        until("the head is told", async || told.knows(head)).await;
        assert_eq!((told.ids(), told.heads()), (heard.clone(), heads.clone()));
        assert_eq!(*dropped.lock().unwrap(), round);
    }
}

#[tokio::test]
async fn a_hint_of_much_names_only_the_head() {
    let redis = Redis::start(IN_MEMORY).await;
    let config = config(&redis, memory::Config::default());
    let (metrics, rendered) = Metrics::new();
    let clock = Clock::manual(START);
    let engine = RedisEngine::new(config, clock, Entropy::system(), Arc::new(metrics));
    let user = stream("u");
    let told = Arc::new(Told::default());
    let _watch = engine.watch(&user, told.clone()).await.unwrap();
    let large = |id: &str| draft(sized(&user, id, None, custom("n"), 40 << 10), 0, START);
    let tells = async |ids: &[&str]| {
        let drafts = ids.iter().map(|id| large(id)).collect();
        let appended = append(&*engine, &user, Commit { drafts }).await;
        let head = appended.records.last().unwrap().position;
        until("the head is told", async || told.knows(head)).await;
        head
    };
    let compared = || {
        let text = rendered.render();
        let is = |line: &&str| line.starts_with("emitter_redis_heads_differed_total ");
        text.lines().find(is).expect("the metric").to_owned()
    };
    // Now and then a comparison of heads comes first.
    let mut heads = Vec::new();
    until("both are told by hints", async || {
        let before = compared();
        heads = vec![tells(&["a"]).await, tells(&["b", "c"]).await];
        compared() == before
    })
    .await;
    assert_eq!(told.ids().last().unwrap(), "a");
    assert!(!told.ids().contains(&"c".into()), "{:?}", told.ids());
    assert_eq!(told.heads().last(), heads.last());
}

#[tokio::test]
async fn what_cannot_be_reached_is_unavailable_in_time_and_comes_back() {
    let redis = Redis::start(IN_MEMORY).await;
    let proxy = Proxy::to(&redis.address()).await;
    let engine = node_on(&proxy.address.to_string(), |config| {
        config.timeout = Duration::from_secs(2);
    });
    // Ten times that: the machine may be loaded.
    let in_time = Duration::from_secs(20);
    let user = stream("u");
    for way in [Way::Cut, Way::Stalled] {
        stores(&*engine, &user).await;
        let state = loaded(&*engine, &user).await;
        proxy.set(way);
        let first = timeout(in_time, outcome(&*engine, &user, &state)).await;
        // What was sent may have arrived.
        assert!(
            matches!(first.as_deref(), Ok("unknown" | "unavailable")),
            "{way:?}: {first:?}"
        );
        let answer = timeout(in_time, engine.load(&user)).await;
        assert!(
            matches!(answer, Ok(Err(EngineError::Unavailable(_)))),
            "{way:?}: {answer:?}"
        );
        proxy.set(Way::Open);
        let back = timeout(in_time, loaded(&*engine, &user)).await;
        assert!(back.is_ok(), "{way:?}: it does not come back");
    }
}

#[tokio::test]
async fn what_was_sent_and_not_answered_is_unknown() {
    let redis = Redis::start(IN_MEMORY).await;
    let engine = node_on(&redis.address(), |config| {
        config.timeout = Duration::from_secs(3);
    });
    let user = stream("u");
    loaded(&*engine, &user).await;
    store(&*engine, &user, "a").await;
    let state = loaded(&*engine, &user).await;
    redis.stall();
    assert_eq!(outcome(&*engine, &user, &state).await, "unknown");
    redis.go_on();
    // It was stored after all.
    until("it is stored", async || {
        let records = engine.read(&user, Offset(0), ALL).await;
        records.is_ok_and(|page| ids(&page.records) == ["a", "n"])
    })
    .await;
}

#[tokio::test]
async fn the_functions_are_loaded_again_where_they_are_gone() {
    let redis = Redis::start(IN_MEMORY).await;
    let engine = node_on(&redis.address(), |_| {});
    let user = stream("u");
    for id in ["a", "b", "c"] {
        store(&*engine, &user, id).await;
        assert!(redis.cli(&["function", "list"]).contains("emitter_"));
        redis.cli(&["function", "flush"]);
    }
    assert_eq!(ids(&all(&*engine, &user).await), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_full_store_refuses_emits_and_still_tells_what_it_has() {
    let redis = Redis::start(IN_MEMORY).await;
    let engine = node_on(&redis.address(), |_| {});
    let user = stream("u");
    store(&*engine, &user, "a").await;
    let state = engine.load(&user).await.unwrap();
    redis.cli(&["config", "set", "maxmemory", "1mb"]);
    assert_eq!(outcome(&*engine, &user, &state).await, "full");
    assert_eq!(ids(&all(&*engine, &user).await), ["a"]);
    let told = Arc::new(Told::default());
    assert_eq!(engine.watch(&user, told).await.unwrap().head, state.head);
    // Room is given back all the same.
    engine.maintain().await;
    redis.cli(&["config", "set", "maxmemory", "0"]);
    assert_eq!(outcome(&*engine, &user, &state).await, "stored");
}

#[tokio::test]
async fn a_replica_is_not_written_to_nor_believed() {
    let primary = Redis::start(IN_MEMORY).await;
    let user = stream("u");
    let state = {
        let engine = node_on(&primary.address(), |_| {});
        store(&*engine, &user, "a").await;
        engine.load(&user).await.unwrap()
    };
    let replica = Redis::replica_of(&primary, &[]).await;
    // Its functions came with the data.
    let engine = node_on(&replica.address(), |config| {
        config.timeout = Duration::from_secs(2);
    });
    assert_eq!(outcome(&*engine, &user, &state).await, "unavailable");
    assert!(engine.load(&user).await.is_err());
}

#[tokio::test]
async fn a_master_that_became_a_replica_is_left() {
    let old = Redis::start(IN_MEMORY).await;
    let engine = node_on(&old.address(), |config| {
        config.timeout = Duration::from_secs(3);
    });
    let user = stream("u");
    loaded(&*engine, &user).await;
    store(&*engine, &user, "a").await;
    let new = Redis::replica_of(&old, &[]).await;
    new.cli(&["replicaof", "no", "one"]);
    let elsewhere = node_on(&new.address(), |_| {});
    store(&*elsewhere, &user, "b").await;
    old.cli(&["replicaof", "127.0.0.1", &new.port.to_string()]);
    until("the old one follows", async || {
        old.cli(&["info", "replication"])
            .contains("master_link_status:up")
    })
    .await;
    // Its data would do, but not for long.
    assert!(engine.load(&user).await.is_err());
}

#[tokio::test]
async fn too_few_replicas_refuse_an_emit_before_it_is_stored() {
    let primary = Redis::start(IN_MEMORY).await;
    let engine = node_on(&primary.address(), |config| config.min_replicas = 1);
    let user = stream("u");
    let state = engine.load(&user).await.unwrap();
    assert_eq!(outcome(&*engine, &user, &state).await, "unavailable");
    assert_eq!(ids(&all(&*engine, &user).await), [""; 0]);
    let lacks = Condition::Refusing("too few replicas are connected");
    assert_eq!(engine.condition(), lacks);
    let mut replica = Redis::replica_of(&primary, &[]).await;
    until("the replica is online", async || {
        primary
            .cli(&["info", "replication"])
            .contains("state=online")
    })
    .await;
    // A server's first replica begins another history, as far as it tells.
    let state = engine.load(&user).await.unwrap();
    assert_eq!(outcome(&*engine, &user, &state).await, "stored");
    assert_eq!(engine.condition(), Condition::Well);
    replica.kill().await;
    until("the replica is gone", async || {
        primary
            .cli(&["info", "replication"])
            .contains("connected_slaves:0")
    })
    .await;
    let state = engine.load(&user).await.unwrap();
    assert_eq!(outcome(&*engine, &user, &state).await, "unavailable");
    assert_eq!(engine.load(&user).await.unwrap().head, state.head);
}

#[tokio::test]
async fn an_append_waits_for_replicas_or_its_outcome_is_unknown() {
    let primary = Redis::start(IN_MEMORY).await;
    let replica = Redis::replica_of(&primary, &[]).await;
    let engine = node_on(&primary.address(), |config| {
        config.wait_replicas = 1;
        config.wait_timeout = Duration::from_secs(2);
    });
    let user = stream("u");
    stores(&*engine, &user).await;
    let state = engine.load(&user).await.unwrap();
    replica.stall();
    assert_eq!(outcome(&*engine, &user, &state).await, "unknown");
    assert_ne!(engine.load(&user).await.unwrap().head, state.head);
    replica.go_on();
    stores(&*engine, &user).await;
}

#[tokio::test]
async fn redis_is_reached_over_tls_by_its_user_and_no_other() {
    let redis = Redis::over_tls(&[]).await;
    let user = stream("u");
    let connect = |credentials: &str, ca_file: String| {
        let address = format!("{credentials}{}", redis.address());
        node_on(&address, |config| {
            let url = config.urls[0].secret().replace("redis://", "rediss://");
            config.urls = vec![emitter::engine::redis::Url::new(&url)];
            config.ca_file = ca_file.into();
            config.timeout = Duration::from_secs(3);
        })
    };
    let engine = connect("emitter:secret@", redis.ca_file());
    loaded(&*engine, &user).await;
    let told = Arc::new(Told::default());
    let _watch = engine.watch(&user, told.clone()).await.unwrap();
    store(&*engine, &user, "a").await;
    until("the hint comes", async || told.ids() == ["a"]).await;
    for (credentials, ca_file) in [
        ("emitter:wrong@", redis.ca_file()),
        ("", redis.ca_file()),
        ("emitter:secret@", String::new()),
    ] {
        let engine = connect(credentials, ca_file);
        let answer = engine.load(&user).await.unwrap_err().to_string();
        assert!(
            answer.starts_with("engine unavailable"),
            "{credentials}: {answer}"
        );
    }
}

#[tokio::test]
async fn an_open_run_survives_a_restart_with_its_deadline() {
    let mut redis = Redis::start(AOF_ALWAYS).await;
    let engine = node_on(&redis.address(), |_| {});
    let user = stream("u");
    let started = draft(event(&user, "e1", Some("r"), Kind::AgentStarted), 1, START);
    let drafts = vec![started];
    append(&*engine, &user, Commit { drafts }).await;
    redis.kill().await;
    redis.restart().await;
    let state = loaded(&*engine, &user).await;
    assert_eq!(state.open_runs(), 1);
    // A node that has armed nothing itself sees it.
    let other = node_on(&redis.address(), |_| {});
    let hour = Duration::from_secs(60 * 60);
    let due = other.due(0..1024, START + hour, 10).await.unwrap();
    assert_eq!(due.len(), 1, "{due:?}");
    assert_eq!((&due[0].stream, &due[0].run_id), (&user, &run_id("r")));
}

#[tokio::test]
async fn a_user_with_the_rights_that_are_documented_can_do_everything() {
    let redis = Redis::start(IN_MEMORY).await;
    admit(&redis, "emitter", "");
    let engine = node_on(&format!("emitter:secret@{}", redis.address()), |_| {});
    let user = stream("u");
    let told = Arc::new(Told::default());
    let watch = engine.watch(&user, told.clone()).await.unwrap();
    let started = draft(event(&user, "e1", Some("r"), Kind::AgentStarted), 1, START);
    let drafts = vec![started];
    append(&*engine, &user, Commit { drafts }).await;
    until("the hint comes", async || told.ids() == ["e1"]).await;
    drop(watch);
    engine.maintain().await;
    assert_eq!(all(&*engine, &user).await.len(), 1);
    assert!(engine.run(&user, &run_id("r")).await.unwrap().is_some());
    assert_eq!(engine.open_runs(&user).await.unwrap().runs.len(), 1);
    let listed = RunQuery {
        limit: 10,
        ..RunQuery::default()
    };
    assert_eq!(engine.runs(&listed).await.unwrap().len(), 1);
    let late = START + Duration::from_secs(60 * 60);
    assert_eq!(engine.due(0..1024, late, 10).await.unwrap().len(), 1);
    assert!(
        engine
            .usage(&UsageQuery::default())
            .await
            .unwrap()
            .is_empty()
    );
    let key = Key::Acks(user.clone());
    let put = engine
        .put_if_absent(&key, "x".into(), Duration::from_secs(60))
        .await;
    assert_eq!(put, Ok(None));
    // It may read the server's clock too, which has to be known.
    let config = Config {
        urls: vec![Url::new(&format!(
            "redis://emitter:secret@{}",
            redis.address()
        ))],
        ..Config::default()
    };
    let strict = node(config, &Clock::system());
    until("the clocks are compared", async || {
        strict.condition() == Condition::Well
    })
    .await;
}
