//! A master of a cluster does not answer, and no replica takes its place: the users of the others notice nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use emitter::{
    engine::{
        AppendError, Appended, Engine, Watch, Watcher,
        redis::{Mode, RedisEngine, Url},
    },
    event::{Position, Record, StreamKey},
};
use tokio::{sync::watch, task::JoinHandle, time};

use super::{loaded, node_on, urls};
use crate::{
    processes::tools::{PATIENCE, until},
    redis::Redis,
    support::events::{START, append, ids, notes, stream},
};

/// How many users each master has.
const USERS: usize = 4;

/// How many events of a user are proof enough that they go on: stored long before a call to a master that stalls fails.
const PROOF: usize = 5;

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

/// An event that was acknowledged.
struct Stored {
    id: String,
    /// When it was acknowledged, and after how long.
    at: Instant,
    took: Duration,
    position: Position,
}

/// What became of the events of one user so far.
#[derive(Default)]
struct Outcomes {
    stored: Vec<Stored>,
    /// Why others were refused, or may be stored.
    failed: Vec<String>,
}

/// A user with a reader and a producer.
struct Busy {
    user: StreamKey,
    heard: Arc<Heard>,
    outcomes: Arc<Mutex<Outcomes>>,
    _watch: Watch,
    producer: JoinHandle<()>,
}

impl Busy {
    async fn of(engine: &Arc<RedisEngine>, user: StreamKey, stop: watch::Receiver<bool>) -> Self {
        let (heard, outcomes) = (Arc::<Heard>::default(), Arc::<Mutex<Outcomes>>::default());
        let watch = engine.watch(&user, heard.clone()).await.unwrap();
        let producer = produce(engine.clone(), user.clone(), outcomes.clone(), stop);
        Self {
            user,
            heard,
            outcomes,
            _watch: watch,
            producer: tokio::spawn(producer),
        }
    }

    /// Those of `users`.
    async fn each(
        engine: &Arc<RedisEngine>,
        users: Vec<StreamKey>,
        stop: &watch::Receiver<bool>,
    ) -> Vec<Self> {
        let mut all = Vec::new();
        for user in users {
            all.push(Self::of(engine, user, stop.clone()).await);
        }
        all
    }

    /// How many events have failed.
    fn failures(&self) -> usize {
        self.outcomes.lock().unwrap().failed.len()
    }

    /// Waits until that many have.
    async fn fails(&self, times: usize) {
        until("events fail", async || self.failures() >= times).await;
    }

    /// Waits until more events are stored, and the reader knows of all up to these.
    async fn goes_on(&self, knows: impl Fn(&Heard, &Stored) -> bool) {
        let before = self.outcomes.lock().unwrap().stored.len();
        until("the users of the others go on", async || {
            let outcomes = self.outcomes.lock().unwrap();
            let stored = outcomes.stored.get(..before + PROOF);
            stored.is_some_and(|stored| stored.iter().all(|stored| knows(&self.heard, stored)))
        })
        .await;
    }

    /// Waits until the reader has the record of an event that is stored from now on. Others may be known of by a comparison
    /// of heads only.
    async fn is_heard(&self) {
        let before = self.outcomes.lock().unwrap().stored.len();
        until("hints come", async || {
            let outcomes = self.outcomes.lock().unwrap();
            let mut stored = outcomes.stored.iter().skip(before);
            stored.any(|stored| hears(&self.heard, stored))
        })
        .await;
    }

    /// Waits for the end of the producer. The reader goes on.
    async fn produced(&mut self) -> Outcomes {
        (&mut self.producer).await.unwrap();
        std::mem::take(&mut *self.outcomes.lock().unwrap())
    }
}

/// The same of each.
async fn all_go_on(all: &[Busy], knows: impl Fn(&Heard, &Stored) -> bool + Copy) {
    futures_util::future::join_all(all.iter().map(|busy| busy.goes_on(knows))).await;
}

/// Whether the event came to the reader.
fn hears(heard: &Heard, stored: &Stored) -> bool {
    heard.has(&stored.id)
}

/// Whether the reader knows that the event is there.
fn knows(heard: &Heard, stored: &Stored) -> bool {
    heard.knew(stored.position).is_some()
}

/// An event about every 50 ms until `stop`.
async fn produce(
    engine: Arc<RedisEngine>,
    user: StreamKey,
    outcomes: Arc<Mutex<Outcomes>>,
    stop: watch::Receiver<bool>,
) {
    for count in 0.. {
        let id = format!("n{count}");
        let began = Instant::now();
        let stored = async {
            let refused = |error| AppendError::Unavailable(format!("{error:?}"));
            loop {
                let state = engine.load(&user).await.map_err(refused)?;
                let commit = notes(&user, &[&id], START);
                match engine.append(&user, &state, commit).await {
                    // It was decided on what another master had, or on its history.
                    Err(AppendError::Conflict(_) | AppendError::Reload) => {}
                    answer => return answer,
                }
            }
        };
        let answer = stored.await;
        let (at, took) = (Instant::now(), began.elapsed());
        let stored = |appended: Appended| Stored {
            id,
            at,
            took,
            position: appended.records[0].position,
        };
        match answer {
            Ok(appended) => outcomes.lock().unwrap().stored.push(stored(appended)),
            Err(error) => outcomes.lock().unwrap().failed.push(format!("{error:?}")),
        }
        if *stop.borrow() {
            break;
        }
        time::sleep(Duration::from_millis(50)).await;
    }
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

/// An engine on a cluster. A master that only has no time answers before the `timeout` of a test.
fn engine_on(urls: Vec<Url>, timeout: Duration) -> Arc<RedisEngine> {
    node_on("", |config| {
        config.mode = Mode::Cluster;
        config.urls = urls;
        config.timeout = timeout;
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_of_a_cluster_that_stalls_is_noticed_by_its_users_only() {
    let (nodes, there, elsewhere) = cluster().await;
    let engine = engine_on(urls(&nodes), Duration::from_secs(15));
    let (stop, stopped) = watch::channel(false);
    let theirs = Busy::each(&engine, there, &stopped).await;
    let others = Busy::each(&engine, elsewhere, &stopped).await;
    all_go_on(&others, hears).await;
    let subscribed: Vec<u64> = nodes.iter().map(subscriptions).collect();
    let failures = || -> Vec<usize> { theirs.iter().map(Busy::failures).collect() };
    let before = failures();
    nodes[0].stall();
    all_go_on(&others, hears).await;
    assert_eq!(failures(), before, "the others waited for their calls");
    for (busy, before) in theirs.iter().zip(before) {
        busy.fails(before + 1).await;
    }
    all_go_on(&others, hears).await;
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
    for mut busy in theirs {
        let failed = busy.produced().await.failed.len();
        println!("{:?}: {failed} failed", busy.user);
    }
    let mut failures = Vec::new();
    for mut busy in others {
        let Outcomes { stored, failed } = busy.produced().await;
        let (user, heard) = (&busy.user, &busy.heard);
        let last = &stored.last().unwrap().id;
        until("the last is heard of", async || heard.has(last)).await;
        let heard = |id: &str| heard.0.lock().unwrap().get(id).copied();
        let late = stored
            .iter()
            .map(|stored| Some(heard(&stored.id)?.saturating_duration_since(stored.at)));
        let late: Vec<Option<Duration>> = late.collect();
        let missed = late.iter().filter(|late| late.is_none()).count();
        println!(
            "{user:?}: {} stored within {:?}, heard within {:?}, {missed} without a record; failed: {failed:?}",
            stored.len(),
            stored.iter().map(|stored| stored.took).max(),
            late.iter().flatten().max()
        );
        if !failed.is_empty() || missed > 0 {
            failures.push(user.clone());
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
    let mut urls = urls(&nodes);
    urls.push(Url::new(&format!("redis://localhost:{}", nodes[1].port)));
    let engine = engine_on(urls, Duration::from_secs(5));
    let (stop, stopped) = watch::channel(false);
    let theirs = Busy::each(&engine, there, &stopped).await;
    let others = Busy::each(&engine, elsewhere, &stopped).await;
    let before: Vec<usize> = theirs.iter().map(Busy::failures).collect();
    nodes[0].stall();
    // By now calls fail all the time, and who serves what is asked as seldom as it can be.
    for (busy, before) in theirs.iter().zip(before) {
        busy.fails(before + 2).await;
    }
    for busy in &others[..USERS] {
        move_slot(&busy.user, &nodes[1], &nodes[2]);
        busy.goes_on(knows).await;
    }
    all_go_on(&others, knows).await;
    // Hints, too, come from where the slots are now.
    for busy in &others[..USERS] {
        busy.is_heard().await;
    }
    stop.send_replace(true);
    nodes[0].go_on();
    let mut failures = Vec::new();
    for mut busy in others {
        let Outcomes { stored, failed } = busy.produced().await;
        let (user, heard) = (&busy.user, &busy.heard);
        let knew = |stored: &Stored| heard.knew(stored.position);
        let last = stored.last().unwrap();
        until("the last is known", async || knew(last).is_some()).await;
        let late = stored.iter().map(|stored| {
            let (id, position) = (&stored.id, stored.position);
            let knew = knew(stored).unwrap_or_else(|| panic!("nobody knows {id} at {position:?}"));
            knew.saturating_duration_since(stored.at)
        });
        let missed = stored.iter().filter(|stored| !hears(heard, stored)).count();
        println!(
            "{user:?}: {} stored within {:?}, known within {:?}, {missed} without a record; failed: {failed:?}",
            stored.len(),
            stored.iter().map(|stored| stored.took).max(),
            late.max()
        );
        if !failed.is_empty() {
            failures.push(user.clone());
        }
    }
    assert!(failures.is_empty(), "they noticed: {failures:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_while_a_master_stalls_serves_the_users_of_the_others() {
    let (nodes, there, elsewhere) = cluster().await;
    let before = engine_on(urls(&nodes), PATIENCE / 2);
    for user in there.iter().chain(&elsewhere) {
        append(&*before, user, notes(user, &["before"], START)).await;
    }
    nodes[0].stall();
    let engine = engine_on(urls(&nodes), PATIENCE / 2);
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
    tokio::select! {
        asked = asked => panic!("the others waited for these: {asked:?}"),
        slowest = served => println!("users of the others are served within {slowest:?}"),
    }
    nodes[0].go_on();
    for user in &there {
        loaded(&*engine, user).await;
    }
}
