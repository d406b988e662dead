//! A master of a cluster does not answer, and no replica takes its place: the users of the others notice nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use emitter::{
    engine::{
        AppendError, Engine, Watch, Watcher,
        redis::{Mode, RedisEngine, Url},
    },
    event::{Position, Record, StreamKey},
};
use tokio::{sync::watch, task::JoinHandle, time};

use super::{node_on, urls};
use crate::{
    processes::tools::until,
    redis::Redis,
    support::events::{START, append, ids, notes, stream},
};

/// How many users each master has.
const USERS: usize = 4;

/// When each event was heard of, and when where the stream stands.
#[derive(Default)]
struct Heard(
    Mutex<HashMap<String, Instant>>,
    Mutex<Vec<(Position, Instant)>>,
);

impl Watcher for Heard {
    fn appended(&self, records: &[Arc<Record>]) {
        let each = ids(records).into_iter().map(|id| (id, Instant::now()));
        self.0.lock().unwrap().extend(each);
        let each = records
            .iter()
            .map(|record| (record.position, Instant::now()));
        self.1.lock().unwrap().extend(each);
    }

    /// What comes so has no record.
    fn stands_at(&self, head: Position) {
        self.1.lock().unwrap().push((head, Instant::now()));
    }
}

impl Heard {
    fn has(&self, id: &str) -> bool {
        self.0.lock().unwrap().contains_key(id)
    }

    /// When it was known that the event at `position` is there: by a record behind it, too, which says what it follows.
    fn knew(&self, position: Position) -> Option<Instant> {
        let heads = self.1.lock().unwrap();
        let includes =
            |head: &Position| head.epoch == position.epoch && head.offset >= position.offset;
        let head = heads.iter().find(|(head, _)| includes(head));
        head.map(|(_, at)| *at)
    }
}

/// What became of the events of one user.
#[derive(Debug, Default)]
struct Outcomes {
    /// When each was acknowledged, after how long, and where it is.
    stored: Vec<(String, Instant, Duration, Position)>,
    refused: Vec<String>,
    unknown: Vec<String>,
}

/// A user with a reader and a producer.
struct Busy {
    user: StreamKey,
    heard: Arc<Heard>,
    _watch: Watch,
    producer: JoinHandle<Outcomes>,
}

impl Busy {
    async fn of(engine: &Arc<RedisEngine>, user: StreamKey, stop: watch::Receiver<bool>) -> Self {
        let heard = Arc::new(Heard::default());
        let watch = engine.watch(&user, heard.clone()).await.unwrap();
        let producer = produce(engine.clone(), user.clone(), stop);
        Self {
            user,
            heard,
            _watch: watch,
            producer: tokio::spawn(producer),
        }
    }
}

/// An event about every 50 ms until `stop`.
async fn produce(
    engine: Arc<RedisEngine>,
    user: StreamKey,
    stop: watch::Receiver<bool>,
) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for count in 0.. {
        let id = format!("n{count}");
        let began = Instant::now();
        let stored = async {
            let refused = |error| AppendError::Unavailable(format!("{error:?}"));
            loop {
                let state = engine.load(&user).await.map_err(refused)?;
                let commit = notes(&user, &[&id], START);
                match engine.append(&user, &state, commit).await {
                    // It was decided on what another master had.
                    Err(AppendError::Conflict(_)) => {}
                    answer => return answer,
                }
            }
        };
        match stored.await {
            Ok(appended) => {
                let position = appended.records[0].position;
                let stored = (id, Instant::now(), began.elapsed(), position);
                outcomes.stored.push(stored);
            }
            Err(error @ AppendError::Unknown(_)) => outcomes.unknown.push(format!("{error:?}")),
            Err(error) => outcomes.refused.push(format!("{error:?}")),
        }
        if *stop.borrow() {
            break;
        }
        time::sleep(Duration::from_millis(50)).await;
    }
    outcomes
}

/// How often somebody subscribed at `node`.
fn subscriptions(node: &Redis) -> u64 {
    let stats = node.cli(&["info", "commandstats"]);
    let calls = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_ssubscribe:calls="));
    let calls = calls.and_then(|calls| calls.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

/// A cluster of which `stalls` is to stall, an engine on it, and users: of that master, and of the others.
async fn cluster() -> ([Redis; 3], Vec<StreamKey>, Vec<StreamKey>) {
    let nodes = Redis::cluster().await;
    for node in &nodes {
        node.cli(&["config", "set", "cluster-require-full-coverage", "no"]);
    }
    let of = |node: &Redis| -> Vec<StreamKey> {
        let users = (0..).map(|n| stream(&format!("u{n}")));
        let own = users.filter(|user| node.is_master_of(&format!("{{emitter:{}}}", user.bucket())));
        own.take(USERS).collect()
    };
    let (there, elsewhere) = (of(&nodes[0]), [of(&nodes[1]), of(&nodes[2])].concat());
    (nodes, there, elsewhere)
}

fn engine_on(nodes: &[Redis]) -> Arc<RedisEngine> {
    node_on("", |config| {
        config.mode = Mode::Cluster;
        config.urls = urls(nodes);
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_of_a_cluster_that_stalls_is_noticed_by_its_users_only() {
    let (nodes, there, elsewhere) = cluster().await;
    let engine = engine_on(&nodes);
    let (stop, stopped) = watch::channel(false);
    let (mut theirs, mut others) = (Vec::new(), Vec::new());
    for (users, busy) in [(there, &mut theirs), (elsewhere, &mut others)] {
        for user in users {
            busy.push(Busy::of(&engine, user, stopped.clone()).await);
        }
    }
    time::sleep(Duration::from_secs(1)).await;
    let subscribed: Vec<u64> = nodes.iter().map(subscriptions).collect();
    nodes[0].stall();
    time::sleep(Duration::from_secs(17)).await;
    nodes[0].go_on();
    let mut back = Vec::new();
    for Busy { user, heard, .. } in &theirs {
        let mut count = 0;
        until("they go on", async || {
            count += 1;
            let id = format!("back{count}");
            let Ok(state) = engine.load(user).await else {
                return false;
            };
            let commit = notes(user, &[&id], START);
            let stored = engine.append(user, &state, commit).await.is_ok();
            stored && {
                time::sleep(Duration::from_millis(200)).await;
                heard.has(&id)
            }
        })
        .await;
        back.push(count);
    }
    println!("users of the master that stalled are back after {back:?} attempts");
    stop.send_replace(true);
    for busy in theirs {
        let outcomes = busy.producer.await.unwrap();
        let (refused, unknown) = (outcomes.refused.len(), outcomes.unknown.len());
        println!("{:?}: {refused} refused, {unknown} unknown", busy.user);
    }
    let mut failures = Vec::new();
    for busy in others {
        let outcomes = busy.producer.await.unwrap();
        let last = &outcomes.stored.last().unwrap().0;
        until("the last is heard of", async || busy.heard.has(last)).await;
        let slowest = outcomes.stored.iter().map(|stored| stored.2).max();
        let heard = |id: &str| busy.heard.0.lock().unwrap().get(id).copied();
        let all = outcomes.stored.iter();
        let late: Vec<Option<Duration>> = all
            .map(|(id, at, ..)| Some(heard(id)?.saturating_duration_since(*at)))
            .collect();
        let (missed, latest) = (
            late.iter().filter(|late| late.is_none()).count(),
            late.iter().flatten().max(),
        );
        let (refused, unknown) = (outcomes.refused.len(), outcomes.unknown.len());
        println!(
            "{:?}: {} stored within {slowest:?}, {refused} refused, {unknown} unknown; \
             heard within {latest:?}, {missed} without a record",
            busy.user,
            outcomes.stored.len()
        );
        let second = Duration::from_secs(1);
        if refused + unknown + missed > 0 || slowest > Some(second) || latest > Some(&second) {
            failures.push(busy.user);
        }
    }
    let again: Vec<u64> = nodes.iter().map(subscriptions).collect();
    println!("subscriptions before {subscribed:?}, after {again:?}");
    assert!(failures.is_empty(), "they noticed: {failures:?}");
    assert_eq!(subscribed[1..], again[1..], "no reader subscribed again");
}

/// Takes the slot of `user` and all that is in it to another master.
fn move_slot(user: &StreamKey, from: &Redis, to: &Redis) {
    let tag = format!("{{emitter:{}}}", user.bucket());
    let slot = from.cli(&["cluster", "keyslot", &tag]).trim().to_owned();
    let id = |node: &Redis| node.cli(&["cluster", "myid"]).trim().to_owned();
    let (from_id, to_id) = (id(from), id(to));
    to.cli(&["cluster", "setslot", &slot, "importing", &from_id]);
    from.cli(&["cluster", "setslot", &slot, "migrating", &to_id]);
    let keys = from.cli(&["cluster", "getkeysinslot", &slot, "1000"]);
    let port = to.port.to_string();
    let mut migrate = vec!["migrate", "127.0.0.1", &port, "", "0", "5000", "keys"];
    migrate.extend(keys.lines().filter(|key| !key.is_empty()));
    assert_eq!(from.cli(&migrate).trim(), "OK");
    for node in [to, from] {
        node.cli(&["cluster", "setslot", &slot, "node", &to_id]);
    }
}

/// Its node is known by two names.
#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_while_another_master_stalls_are_followed_at_once() {
    let (nodes, there, elsewhere) = cluster().await;
    let engine = node_on("", |config| {
        config.mode = Mode::Cluster;
        config.urls = urls(&nodes);
        let alias = format!("redis://localhost:{}", nodes[1].port);
        config.urls.push(Url::new(&alias));
    });
    let (stop, stopped) = watch::channel(false);
    let (mut theirs, mut others) = (Vec::new(), Vec::new());
    for (users, busy) in [(there, &mut theirs), (elsewhere, &mut others)] {
        for user in users {
            busy.push(Busy::of(&engine, user, stopped.clone()).await);
        }
    }
    nodes[0].stall();
    // By now calls fail all the time, and who serves what is asked as seldom as it can be.
    time::sleep(Duration::from_secs(8)).await;
    for busy in &others[..USERS] {
        move_slot(&busy.user, &nodes[1], &nodes[2]);
        time::sleep(Duration::from_millis(700)).await;
    }
    time::sleep(Duration::from_secs(2)).await;
    stop.send_replace(true);
    nodes[0].go_on();
    let mut failures = Vec::new();
    for busy in others {
        let outcomes = busy.producer.await.unwrap();
        let slowest = outcomes.stored.iter().map(|stored| stored.2).max();
        let knew = |position| busy.heard.knew(position);
        let (.., last) = outcomes.stored.last().unwrap();
        until("the last is known", async || knew(*last).is_some()).await;
        let late = outcomes.stored.iter().map(|(id, at, _, position)| {
            let knew =
                knew(*position).unwrap_or_else(|| panic!("nobody knows {id} at {position:?}"));
            knew.saturating_duration_since(*at)
        });
        let (latest, second) = (late.max(), Duration::from_secs(1));
        println!(
            "{:?}: {} stored within {slowest:?}, known within {latest:?}; refused {:?}, unknown {:?}",
            busy.user,
            outcomes.stored.len(),
            outcomes.refused,
            outcomes.unknown
        );
        let failed = outcomes.refused.len() + outcomes.unknown.len();
        if failed > 0 || slowest > Some(second) || latest > Some(second) {
            failures.push(busy.user);
        }
    }
    assert!(failures.is_empty(), "they noticed: {failures:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_while_a_master_stalls_serves_the_users_of_the_others() {
    let (nodes, there, elsewhere) = cluster().await;
    let before = engine_on(&nodes);
    for user in there.iter().chain(&elsewhere) {
        append(&*before, user, notes(user, &["before"], START)).await;
    }
    nodes[0].stall();
    let engine = engine_on(&nodes);
    let asked = there.iter().map(|user| engine.load(user));
    let asked = futures_util::future::join_all(asked);
    let served = async {
        let mut slowest = Duration::ZERO;
        for round in 0..10 {
            for user in &elsewhere {
                let began = Instant::now();
                append(&*engine, user, notes(user, &[&format!("r{round}")], START)).await;
                slowest = slowest.max(began.elapsed());
            }
        }
        slowest
    };
    let (asked, slowest) = tokio::join!(asked, served);
    println!("users of the others are served within {slowest:?}");
    assert!(asked.iter().all(Result::is_err), "{asked:?}");
    // The first waits until it is known who serves what.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    nodes[0].go_on();
    for user in &there {
        until("they are served again", async || {
            engine.load(user).await.is_ok()
        })
        .await;
    }
}
