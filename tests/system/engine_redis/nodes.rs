//! Several nodes on one store.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use emitter::{
    clock::Clock,
    engine::{AppendError, Engine, Key, redis::RedisEngine},
    event::{Event, RunId, StreamKey, Tenant, ThreadId, Tokens, Usage},
    usage::UsageQuery,
};

use super::{Told, config, node, node_on};
use crate::{
    engine_conformance::bounds,
    processes::tools::until,
    redis::{AOF_EVERYSEC, Redis},
    support::events::{ALL, START, all, append, draft, ids, note, notes, stream},
};

const EACH: usize = 100;

/// Appends notes, one after the other, whatever comes in between.
async fn write(engine: Arc<RedisEngine>, user: StreamKey, node: usize) -> usize {
    let mut state = engine.load(&user).await.unwrap();
    let mut conflicts = 0;
    for n in 0..EACH {
        let id = format!("{node}-{n}");
        loop {
            match engine
                .append(&user, &state, notes(&user, &[&id], START))
                .await
            {
                Ok(appended) => {
                    state.apply(&appended.records[0]);
                    break;
                }
                Err(AppendError::Conflict(missed)) => {
                    conflicts += 1;
                    for record in &missed {
                        assert_eq!(record.prev, state.head.offset);
                        state.apply(record);
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    conflicts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_race_on_a_stream_keep_one_order_that_all_hear() {
    let redis = Redis::start(AOF_EVERYSEC).await;
    let user = stream("u");
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let engine = node_on(&redis.address(), |_| {});
        let told = Arc::new(Told::default());
        let watch = engine.watch(&user, told.clone()).await.unwrap();
        nodes.push((engine, told, watch));
    }
    let engines = nodes.iter().map(|(engine, ..)| engine.clone());
    let writers = engines
        .enumerate()
        .map(|(n, engine)| write(engine, user.clone(), n));
    let conflicts = futures_util::future::join_all(writers.map(tokio::spawn)).await;
    let conflicts: usize = conflicts.into_iter().map(Result::unwrap).sum();
    assert!(conflicts > 0, "they did not race");
    let stored = ids(&all(&*nodes[0].0, &user).await);
    assert_eq!(stored.len(), 3 * EACH);
    assert_eq!(stored.iter().collect::<BTreeSet<_>>().len(), 3 * EACH);
    for (engine, told, _watch) in &nodes {
        assert_eq!(ids(&all(&**engine, &user).await), stored);
        until("every hint came", async || told.ids().len() == stored.len()).await;
        assert_eq!(told.ids(), stored);
    }
}

#[tokio::test]
async fn of_nodes_that_claim_at_once_one_wins() {
    let redis = Redis::start(AOF_EVERYSEC).await;
    let nodes: Vec<_> = (0..4).map(|_| node_on(&redis.address(), |_| {})).collect();
    let minute = Duration::from_secs(60);
    for n in 0..50 {
        let tenant = Tenant::new("t").unwrap();
        let key = Key::RunClaim(tenant, RunId::new(&format!("r{n}")).unwrap());
        let value = |n: usize| Bytes::from(format!("node {n}"));
        let puts = nodes.iter().enumerate();
        let puts = puts.map(|(n, node)| node.put_if_absent(&key, value(n), minute));
        let puts = futures_util::future::join_all(puts).await;
        let won: Vec<_> = (0..nodes.len())
            .filter(|n| puts[*n].as_ref().unwrap().is_none())
            .collect();
        assert_eq!(won.len(), 1, "{puts:?}");
        for node in &nodes {
            assert_eq!(node.get(&key).await.unwrap().unwrap().value, value(won[0]));
        }
        let held = value(won[0]);
        let sets = nodes.iter().enumerate();
        let sets = sets.map(|(n, node)| node.compare_and_set(&key, &held, value(10 + n), minute));
        let sets = futures_util::future::join_all(sets).await;
        let set = sets.iter().filter(|set| **set == Ok(true)).count();
        assert_eq!(set, 1, "{sets:?}");
    }
}

#[tokio::test]
async fn a_watch_holds_a_subscription_only_as_long_as_it_lives() {
    let redis = Redis::start(AOF_EVERYSEC).await;
    let engine = node_on(&redis.address(), |_| {});
    let channels = || {
        redis
            .cli(&["pubsub", "shardchannels"])
            .split_whitespace()
            .count()
    };
    let users: Vec<_> = (0..20).map(|n| stream(&format!("u{n}"))).collect();
    for _ in 0..3 {
        let mut watches = Vec::new();
        for user in users.iter().chain(&users) {
            let told: Arc<Told> = Arc::default();
            watches.push(engine.watch(user, told).await.unwrap());
        }
        assert_eq!(channels(), users.len());
        watches.truncate(users.len());
        until("half go", async || channels() == users.len()).await;
        drop(watches);
        until("all go", async || channels() == 0).await;
    }
}

#[tokio::test]
async fn series_beyond_the_room_of_a_bucket_are_folded_and_counted() {
    let redis = Redis::start(AOF_EVERYSEC).await;
    let engine = node_on(&redis.address(), |config| {
        // Room for 4 in each bucket.
        config.bounds.usage_series = 256;
    });
    let user = stream("u");
    let spent = |n: usize, model: &str| Event {
        thread_id: ThreadId::new(&format!("t{n}")).ok(),
        usage: Some(Box::new(Usage {
            provider: "p".into(),
            model: model.into(),
            tokens: Tokens {
                input: 1 << 40,
                ..Tokens::default()
            },
            cost_nano_usd: Some(u64::MAX),
        })),
        ..Event::clone(&note(&user, &format!("e{n}")))
    };
    for n in 0..40 {
        // Two models while there is room for them, then one after the other.
        let model = if n < 10 {
            format!("m{}", n % 2)
        } else {
            format!("m{n}")
        };
        let drafts = vec![draft(spent(n, &model), 0, START)];
        append(&*engine, &user, emitter::engine::Commit { drafts }).await;
    }
    let sums = engine.usage(&UsageQuery::default()).await.unwrap();
    let tokens: u64 = sums.iter().map(|(_, sum)| sum.tokens.input).sum();
    let told_apart = sums
        .iter()
        .filter(|(series, _)| series.user.is_some())
        .count();
    assert_eq!((tokens, told_apart), (40 << 40, 4), "{sums:?}");
    assert_eq!(sums.len(), 9, "4, 4 by model, and the rest: {sums:?}");
    let rest = sums
        .iter()
        .find(|(series, _)| &*series.model.model == "(other)");
    let rest = rest.expect("the rest").1;
    // A number stops where Redis does.
    assert_eq!(rest.cost_nano_usd, i64::MAX.unsigned_abs());
    let of_user = UsageQuery {
        user: Some(user.user().clone()),
        ..UsageQuery::default()
    };
    assert_eq!(engine.usage(&of_user).await.unwrap().len(), 4);
}

/// Two users who share a bucket.
fn neighbours() -> (StreamKey, StreamKey) {
    let first = stream("u");
    let mut others = (0..).map(|n| stream(&format!("v{n}")));
    let other = others.find(|other| other.bucket() == first.bucket());
    (first, other.unwrap())
}

#[tokio::test]
async fn a_watched_stream_is_not_moved_by_a_neighbour_that_goes() {
    let redis = Redis::start(AOF_EVERYSEC).await;
    let clock = Clock::manual(START);
    let engine = node(config(&redis, bounds()), &clock);
    let (user, neighbour) = neighbours();
    let watch = engine.watch(&user, Arc::<Told>::default()).await.unwrap();
    let ids = ["a", "b", "c"];
    let gone = append(&*engine, &neighbour, notes(&neighbour, &ids, START)).await;
    for _ in 0..26 {
        clock.advance(Duration::from_secs(60 * 60));
        for _ in 0..RedisEngine::turns() {
            engine.maintain().await;
        }
    }
    let head = engine.load(&neighbour).await.unwrap().head;
    assert!(engine.load(&neighbour).await.unwrap().is_empty());
    assert_eq!(head, gone.records[2].position, "offsets go on from there");
    let keys = redis.cli(&["keys", "*"]);
    assert_eq!(
        keys.lines().count(),
        3,
        "the bucket, its index and the watched stream: {keys}"
    );
    let next = append(&*engine, &user, notes(&user, &["d"], clock.now())).await;
    assert_eq!(
        next.records[0].prev, watch.head.offset,
        "a reader sees no hole"
    );
    let page = engine.read(&user, watch.head.offset, ALL).await.unwrap();
    assert!(
        page.trimmed <= watch.head.offset,
        "a reader is told of no gap: {page:?}"
    );
}
