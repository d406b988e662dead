//! What only the memory engine promises: its bounds, and that its books balance.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{super::local::IDLE, Config, MemoryEngine};
use crate::{
    clock::{Clock, Entropy, Timestamp},
    engine::{AppendError, Appended, Commit, Engine, EngineError, Key, ReadLimit, Watcher},
    event::{
        ContentHash, Cost, Draft, Event, EventId, Kind, Offset, Position, ProducerId, Record,
        RunId, RunSequence, Source, StreamKey, Tenant, ThreadId, Tokens, Usage, UserId,
    },
    telemetry::Metrics,
};

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

fn engine(config: Config) -> (Arc<MemoryEngine>, Clock) {
    let clock = Clock::manual(START);
    let metrics = Arc::new(Metrics::new().0);
    let engine = MemoryEngine::new(config, clock.clone(), &Entropy::seeded(7), metrics);
    (engine, clock)
}

fn user(name: &str) -> StreamKey {
    StreamKey::new(Tenant::new("t").unwrap(), UserId::new(name).unwrap())
}

fn draft(user: &StreamKey, id: &str, run: Option<(&str, u64, Kind)>, body: usize) -> Draft {
    let (run_id, sequence, kind) = match run {
        Some((id, sequence, kind)) => (Some(RunId::new(id).unwrap()), sequence, kind),
        None => (None, 0, Kind::Custom("note".into())),
    };
    let event = Event {
        content: ContentHash::of(id.as_bytes()),
        ..Event::new(
            EventId::new(id).unwrap(),
            user.clone(),
            run_id,
            kind,
            Source::new(ProducerId::new("p").unwrap()),
            Bytes::from(vec![0; body]),
        )
    };
    Draft {
        run_sequence: RunSequence(sequence),
        ..Draft::new(Arc::new(event), START)
    }
}

async fn append(
    engine: &MemoryEngine,
    user: &StreamKey,
    drafts: Vec<Draft>,
) -> Result<Appended, AppendError> {
    let state = engine.load(user).await.unwrap();
    let now = engine.0.clock.now();
    let at_now = |draft| Draft {
        recorded_at: now,
        ..draft
    };
    let drafts = drafts.into_iter().map(at_now).collect();
    engine.append(user, &state, Commit { drafts }).await
}

async fn note(engine: &MemoryEngine, user: &StreamKey, id: &str) -> Result<Appended, AppendError> {
    append(engine, user, vec![draft(user, id, None, 0)]).await
}

async fn retained(engine: &MemoryEngine, user: &StreamKey) -> usize {
    let all = ReadLimit {
        records: usize::MAX,
        bytes: usize::MAX,
    };
    let page = engine.read(user, Offset(0), all).await.unwrap();
    page.records.len()
}

async fn maintain_all(engine: &MemoryEngine) {
    for _ in 0..MemoryEngine::turns() {
        engine.maintain().await;
    }
}

/// Lets pass what the longest memory, that of claims, takes.
async fn pass_two_days(engine: &MemoryEngine, clock: &Clock) {
    for _ in 0..50 {
        clock.advance(HOUR);
        maintain_all(engine).await;
    }
}

fn claim(run: &str) -> Key {
    Key::RunClaim(Tenant::new("t").unwrap(), RunId::new(run).unwrap())
}

struct Deaf;

impl Watcher for Deaf {
    fn stands_at(&self, _head: Position) {}
    fn appended(&self, _records: &[Arc<Record>]) {}
}

/// May hear of nothing.
struct Never;

impl Watcher for Never {
    fn stands_at(&self, _head: Position) {}
    fn appended(&self, records: &[Arc<Record>]) {
        panic!("heard of {records:?}");
    }
}

#[tokio::test]
async fn beyond_its_bytes_it_is_full_and_a_user_at_its_own_cap_still_replaces() {
    let (large, small) = (10_000, 20);
    let (engine, clock) = engine(Config {
        total_bytes: 60_000,
        retention_records: 4,
        dedupe_ids_per_user: 4,
        ..Config::default()
    });
    let (old, new) = (user("old"), user("new"));
    for n in 0..4 {
        let drafts = vec![draft(&old, &format!("o{n}"), None, large)];
        append(&engine, &old, drafts).await.unwrap();
    }
    // 20,000 bytes are left: one large record fits beside the user at its cap, two do not.
    let drafts = vec![draft(&new, "n0", None, large)];
    append(&engine, &new, drafts).await.unwrap();
    let watch = engine.watch(&new, Arc::new(Never)).await.unwrap();
    let before = (engine.bytes(), engine.streams());
    let two = (1..3).map(|n| draft(&new, &format!("n{n}"), None, large));
    let full = append(&engine, &new, two.collect()).await;
    assert!(matches!(full, Err(AppendError::Full)), "{full:?}");
    let absent = user("absent");
    let drafts = vec![draft(&absent, "a", None, 2 * large)];
    let full = append(&engine, &absent, drafts).await;
    assert!(matches!(full, Err(AppendError::Full)), "{full:?}");
    assert_eq!(
        (engine.bytes(), engine.streams()),
        before,
        "a refusal leaves nothing"
    );
    for n in 4..104 {
        let drafts = vec![draft(&old, &format!("o{n}"), None, large)];
        let replaced = append(&engine, &old, drafts).await;
        assert!(replaced.is_ok(), "o{n}: {replaced:?}");
    }
    assert_eq!(engine.bytes(), before.0 + 2 * 2 * 4, "longer ids, no more");
    drop(watch);
    // Time makes room.
    clock.advance(24 * HOUR);
    maintain_all(&engine).await;
    for n in 1..3 {
        let drafts = vec![draft(&new, &format!("n{n}"), None, large + small)];
        append(&engine, &new, drafts).await.unwrap();
    }
}

#[tokio::test]
async fn a_full_engine_takes_no_new_key_but_knows_those_it_has() {
    let value = Bytes::from_static(b"u1");
    let (engine, _clock) = engine(Config {
        total_bytes: 2_000,
        ..Config::default()
    });
    let ttl = HOUR;
    assert_eq!(
        engine
            .put_if_absent(&claim("mine"), value.clone(), ttl)
            .await,
        Ok(None)
    );
    let mut filled = 0;
    let full = loop {
        let key = claim(&format!("fill{filled}"));
        match engine.put_if_absent(&key, value.clone(), ttl).await {
            Ok(None) => filled += 1,
            other => break other,
        }
    };
    assert_eq!(full, Err(EngineError::Full));
    let there = engine
        .put_if_absent(&claim("mine"), Bytes::from_static(b"u2"), ttl)
        .await;
    let there = there.map(|entry| entry.map(|entry| entry.value));
    assert_eq!(there, Ok(Some(value.clone())), "{filled} keys beside it");
    let renewed = engine
        .compare_and_set(&claim("mine"), &value, value.clone(), ttl)
        .await;
    assert_eq!(renewed, Ok(true));
}

#[tokio::test]
async fn the_books_balance_when_an_expired_key_is_put_again_with_a_shorter_value() {
    let (engine, clock) = engine(Config::default());
    let put = |value: &'static str, ttl| {
        let (engine, value) = (engine.clone(), Bytes::from_static(value.as_bytes()));
        async move { engine.put_if_absent(&claim("r"), value, ttl).await }
    };
    put("a user with a long name", SECOND).await.unwrap();
    clock.advance(SECOND);
    put("short", SECOND).await.unwrap();
    clock.advance(SECOND);
    put("a user with a longer name again", SECOND)
        .await
        .unwrap();
    clock.advance(SECOND);
    maintain_all(&engine).await;
    assert_eq!(engine.bytes(), 0);
}

#[tokio::test]
async fn the_books_balance_after_everything_has_expired() {
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (engine, clock) = engine(Config {
            retention_records: 20,
            retention_bytes: 20_000,
            dedupe_ids_per_user: 30,
            dedupe_ids_per_node: 200,
            usage_age: HOUR,
            usage_series: 20,
            ..Config::default()
        });
        let mut watches = Vec::new();
        let mut sequences = std::collections::HashMap::<(u8, u8), u64>::new();
        for n in 0..2_000 {
            let u = rng.random_range(0..12u8);
            let user = user(&format!("user{u}"));
            match rng.random_range(0..10) {
                0 => {
                    let value = Bytes::from(vec![0; rng.random_range(0..40)]);
                    let ttl = SECOND * rng.random_range(0..7_200);
                    let key = claim(&format!("r{}", rng.random_range(0..9)));
                    if let Ok(Some(there)) = engine.put_if_absent(&key, value.clone(), ttl).await {
                        let set = engine.compare_and_set(&key, &there.value, value, ttl).await;
                        assert_eq!(set, Ok(true));
                    }
                }
                1 => {
                    watches.push(engine.watch(&user, Arc::new(Deaf)).await.unwrap());
                    if watches.len() > 5 {
                        watches.swap_remove(rng.random_range(0..5));
                    }
                }
                2 => {
                    clock.advance(SECOND * rng.random_range(0..3_600));
                    engine.maintain().await;
                }
                _ => {
                    let mut drafts = Vec::new();
                    for i in 0..rng.random_range(1..5) {
                        let run = rng.random_range(0..6u8);
                        let sequence = sequences.entry((u, run)).or_default();
                        *sequence += 1;
                        let kind = match rng.random_range(0..4) {
                            0 => Kind::AgentCompleted,
                            _ => Kind::AgentThinking,
                        };
                        let run = format!("u{u}r{run}");
                        // Some ids again and again, as after their window.
                        let id = format!("e{}", rng.random_range(0..n + 2) * 10 + i);
                        let body = rng.random_range(0..500);
                        let draft = draft(&user, &id, Some((&run, *sequence, kind)), body);
                        drafts.push(consuming(draft, &mut rng));
                    }
                    append(&engine, &user, drafts).await.unwrap();
                }
            }
        }
        assert!(engine.bytes() > 0 && engine.streams() > 0, "seed {seed}");
        drop(watches);
        pass_two_days(&engine, &clock).await;
        let usage_series = engine.0.usage_series.load(Ordering::Relaxed);
        assert_eq!(
            (engine.bytes(), engine.streams(), dedupe_ids(&engine)),
            (0, 0, 0),
            "seed {seed}: bytes, streams, ids"
        );
        assert_eq!(usage_series, 0, "seed {seed}");
    }
}

/// `draft` in one of some threads, and half of the time with usage of one of some models.
fn consuming(draft: Draft, rng: &mut StdRng) -> Draft {
    let model = format!("model {}", "x".repeat(rng.random_range(0..30)));
    let usage = rng.random_bool(0.5).then(|| Usage {
        provider: "p".into(),
        model: model.as_str().into(),
        tokens: Tokens::default(),
        cost_nano_usd: None,
    });
    Draft {
        cost: usage.as_ref().map(Cost::without_price),
        thread_id: ThreadId::new(&format!("t{}", rng.random_range(0..3))).ok(),
        event: Arc::new(Event {
            usage: usage.map(Box::new),
            ..Event::clone(&draft.event)
        }),
        ..draft
    }
}

fn dedupe_ids(engine: &MemoryEngine) -> usize {
    engine
        .0
        .dedupe_ids
        .load(std::sync::atomic::Ordering::Relaxed)
}

#[tokio::test]
async fn beyond_the_nodes_ids_the_appending_user_forgets_its_own_oldest() {
    let (engine, _clock) = engine(Config {
        dedupe_ids_per_node: 10,
        ..Config::default()
    });
    let (a, b) = (user("a"), user("b"));
    for n in 0..6 {
        note(&engine, &a, &format!("a{n}")).await.unwrap();
    }
    for n in 0..8 {
        note(&engine, &b, &format!("b{n}")).await.unwrap();
    }
    let (a, b) = (
        engine.load(&a).await.unwrap().dedupe,
        engine.load(&b).await.unwrap().dedupe,
    );
    assert_eq!((a.len(), b.len()), (6, 4));
    for (n, known) in [(3, false), (4, true), (7, true)] {
        let id = EventId::new(&format!("b{n}")).unwrap();
        assert_eq!(b.get(&id).is_some(), known, "b{n}");
    }
}

#[tokio::test]
async fn what_was_just_appended_is_remembered_even_beyond_the_nodes_ids() {
    let (engine, _clock) = engine(Config {
        dedupe_ids_per_node: 2,
        ..Config::default()
    });
    let user = user("u");
    let drafts = (0..5).map(|n| draft(&user, &format!("e{n}"), None, 0));
    append(&engine, &user, drafts.collect()).await.unwrap();
    assert_eq!(engine.load(&user).await.unwrap().dedupe.len(), 5);
    note(&engine, &user, "e5").await.unwrap();
    assert_eq!(engine.load(&user).await.unwrap().dedupe.len(), 2);
}

/// An id that is used again right after its window, before the engine has swept, is the newest then.
#[tokio::test]
async fn ended_runs_that_are_forgotten_early_are_counted() {
    let (metrics, rendered) = Metrics::new();
    let clock = Clock::manual(START);
    let entropy = Entropy::seeded(7);
    let engine = MemoryEngine::new(Config::default(), clock, &entropy, Arc::new(metrics));
    let user = user("u");
    let ended = |n: u32| {
        let id = format!("r{n}");
        draft(&user, &id, Some((&id, 1, Kind::AgentCompleted)), 0)
    };
    append(&engine, &user, (0..11_001).map(ended).collect())
        .await
        .unwrap();
    let want = "emitter_runs_forgotten_early_total 1001";
    assert!(rendered.render().contains(want), "{}", rendered.render());
}

#[tokio::test]
async fn an_id_used_again_after_its_window_does_not_keep_others_nor_go_first() {
    let (engine, clock) = engine(Config {
        dedupe_ids_per_user: 3,
        ..Config::default()
    });
    let window = engine.0.config.dedupe_window;
    let user = user("u");
    note(&engine, &user, "again").await.unwrap();
    note(&engine, &user, "other").await.unwrap();
    clock.advance(window);
    note(&engine, &user, "again").await.unwrap();
    let held = engine.load(&user).await.unwrap().dedupe;
    assert_eq!(held.len(), 1, "{held:?}");
    assert_eq!(held.oldest(), Some(START + window));
    for n in 0..2 {
        note(&engine, &user, &format!("n{n}")).await.unwrap();
    }
    let held = engine.load(&user).await.unwrap().dedupe;
    let again = EventId::new("again").unwrap();
    assert!(held.get(&again).is_some(), "{held:?}");
}

#[tokio::test]
async fn a_stream_is_evicted_only_when_it_is_empty_idle_and_unwatched() {
    let (engine, clock) = engine(Config::default());
    let (written, watched) = (user("written"), user("watched"));
    note(&engine, &written, "a").await.unwrap();
    let watch = engine.watch(&watched, Arc::new(Deaf)).await.unwrap();
    assert_eq!(engine.streams(), 2);
    // Asking makes no stream.
    engine.load(&user("asked")).await.unwrap();
    assert_eq!(retained(&engine, &user("asked")).await, 0);
    assert_eq!(engine.streams(), 2);
    clock.advance(24 * HOUR - SECOND);
    maintain_all(&engine).await;
    assert_eq!(
        engine.streams(),
        2,
        "a record is retained, the other is watched"
    );
    clock.advance(SECOND);
    maintain_all(&engine).await;
    assert_eq!(engine.streams(), 1, "only the watched one stays");
    drop(watch);
    clock.advance(IDLE - SECOND);
    maintain_all(&engine).await;
    assert_eq!(engine.streams(), 1, "not idle for long enough");
    clock.advance(SECOND);
    maintain_all(&engine).await;
    assert_eq!((engine.streams(), engine.bytes()), (0, 0));
}

#[tokio::test]
async fn an_eviction_alone_makes_no_gap_for_a_stream_that_held_nothing() {
    let (engine, clock) = engine(Config::default());
    // Somebody else's records, in other buckets or in this one.
    note(&engine, &user("other"), "a").await.unwrap();
    let user = user("u");
    let watch = engine.watch(&user, Arc::new(Deaf)).await.unwrap();
    let head = watch.head;
    drop(watch);
    clock.advance(IDLE);
    maintain_all(&engine).await;
    assert_eq!(engine.streams(), 1);
    let limit = ReadLimit {
        records: 1,
        bytes: 1,
    };
    let page = engine.read(&user, head.offset, limit).await.unwrap();
    assert!(page.trimmed <= head.offset, "{page:?} after {head}");
    assert_eq!(page.head.epoch, head.epoch);
}
