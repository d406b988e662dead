//! What happens to Redis, or on the way to it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use emitter::{
    client::{Producer, ProducerConfig},
    proto::v1::{AgentStarted, AgentThinking, Event, event::Payload},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    nodes::on_redis,
    processes::{
        load::{Load, LoadConfig},
        reading::{Heard, Reading, epoch_changed},
        server::{Server, credential},
        tools::{until, until_within},
        verdict::{Allowed, judge},
    },
    proxy::{Proxy, Way, dropping},
    redis::{AOF_ALWAYS, AOF_EVERYSEC, IN_MEMORY, Redis},
    seed::seed,
    support::events::stream,
};

/// How long what no hint told may take to be found: heads are compared every five seconds, and the machine may be loaded.
const MOMENT: Duration = Duration::from_secs(30);

/// How many events of a run are proof enough that it goes on: stored long before a call to a master that stalls fails.
const PROOF: usize = 5;

/// Two nodes with a load and readers.
struct Busy {
    nodes: [Server; 2],
    addresses: Vec<String>,
    load: Load,
    readings: Vec<Reading>,
}

impl Busy {
    async fn on(toml: &str) -> Self {
        let nodes = [
            Server::start("node 1", toml).await,
            Server::start("node 2", toml).await,
        ];
        let addresses: Vec<String> = nodes.iter().map(|node| node.grpc.clone()).collect();
        let config = LoadConfig {
            pause: Duration::from_millis(5),
            ..LoadConfig::new(addresses.clone(), seed())
        };
        let readings = config.users.iter().flat_map(|user| {
            [
                Reading::grpc(user, &addresses, config.seed),
                Reading::websocket(user, &nodes[1].http),
            ]
        });
        Self {
            readings: readings.collect(),
            load: Load::start(&config),
            addresses,
            nodes,
        }
    }

    /// Ends the load and compares.
    async fn judge(self, allowed: Allowed) -> crate::processes::verdict::Verdict {
        let ledger = self.load.finish().await;
        judge(&ledger, self.readings, &self.addresses, allowed).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_comes_back_with_everything() {
    let mut redis = Redis::start(AOF_ALWAYS).await;
    let busy = Busy::on(&on_redis(&redis.address())).await;
    for _ in 0..3 {
        busy.load.acknowledged(300).await;
        redis.kill().await;
        redis.restart().await;
    }
    busy.load.acknowledged(300).await;
    busy.judge(Allowed::GAPS).await;
}

/// What a replica has not got is lost with the primary. That is told, and the runs go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_to_a_replica_that_lags_is_told() {
    let mut primary = Redis::start(AOF_EVERYSEC).await;
    let link = Proxy::to(&primary.address()).await;
    let replica = Redis::replica_at(&link.address.to_string(), AOF_EVERYSEC).await;
    let way = Proxy::to(&primary.address()).await;
    let busy = Busy::on(&on_redis(&way.address.to_string())).await;
    busy.load.acknowledged(300).await;
    // What is stalled in a process would still be read when that goes on.
    link.set(Way::Stalled);
    busy.load.acknowledged(150).await;
    primary.kill().await;
    link.set(Way::Cut);
    replica.cli(&["replicaof", "no", "one"]);
    way.lead_to(&replica.address()).await;
    busy.load.acknowledged(300).await;
    until("every reader is told", async || {
        busy.readings.iter().all(heard_of_a_new_epoch)
    })
    .await;
    let verdict = busy.judge(Allowed::LOSS).await;
    // A few were sent once more, and stored anew.
    assert!(verdict.lost() >= 30, "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stalls_or_is_cut_off_costs_time_only() {
    let redis = Redis::start(AOF_EVERYSEC).await;
    let way = Proxy::to(&redis.address()).await;
    let busy = Busy::on(&on_redis(&way.address.to_string())).await;
    for (how, seconds) in [(Way::Stalled, 30), (Way::Cut, 5)] {
        busy.load.acknowledged(300).await;
        way.set(how);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let reasons: BTreeSet<String> = {
            let book = busy.load.ledger.book();
            book.attempts.keys().cloned().collect()
        };
        let unknown = |reason: &&String| {
            ![
                "OUTCOME_UNKNOWN",
                "ENGINE_UNAVAILABLE",
                "PRECEDING_FAILED",
                "DEADLINE_EXCEEDED",
            ]
            .contains(&reason.as_str())
                && !reason.starts_with("on the way: ")
        };
        assert!(!reasons.is_empty(), "nothing was refused in {seconds} s");
        let unknown: Vec<_> = reasons.iter().filter(unknown).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        way.set(Way::Open);
    }
    busy.load.acknowledged(300).await;
    busy.judge(Allowed::NOTHING).await;
}

/// A node that does nothing else says what is wrong with Redis.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_and_a_policy_that_evicts_are_said_once_and_their_ends_too() {
    let mut redis = Redis::start(AOF_EVERYSEC).await;
    let node = Server::start("node", &on_redis(&redis.address())).await;
    let said = |what: &str| node.logged().matches(what).count();
    let says = async |what: &str| until(what, async || said(what) > 0).await;
    redis.cli(&["config", "set", "maxmemory", "1gb"]);
    for (policy, what) in [
        ("allkeys-lru", "Redis evicts keys"),
        ("noeviction", "Redis does not evict keys any more"),
    ] {
        assert_eq!(said(what), 0);
        redis.cli(&["config", "set", "maxmemory-policy", policy]);
        says(what).await;
    }
    let (begins, ends) = ("Redis cannot be reached", "Redis is reached again");
    assert_eq!((said(begins), said(ends)), (0, 0));
    redis.kill().await;
    says(begins).await;
    // Calls are refused by now, and several attempts to connect have failed.
    until("it refuses", async || {
        let away = node.metric("emitter_redis_masters_away").await;
        node.metric("emitter_engine_refusing").await > 0.0 && away == 1.0
    })
    .await;
    redis.restart().await;
    says(ends).await;
    until("it takes calls", async || {
        let away = node.metric("emitter_redis_masters_away").await;
        node.metric("emitter_engine_refusing").await == 0.0 && away == 0.0
    })
    .await;
    assert_eq!((said(begins), said(ends)), (1, 1));
    assert_eq!(said("Redis evicts keys"), 1);
}

/// A node is told by Redis what others appended, and asks when it was not told.
#[tokio::test(flavor = "multi_thread")]
async fn hints_that_are_lost_cost_a_moment_only() {
    let redis = Redis::start(AOF_EVERYSEC).await;
    let dropped = Arc::<Mutex<u64>>::default();
    let all = Arc::<AtomicBool>::default();
    let from_now_on = all.clone();
    let filter = dropping(dropped.clone(), move |count| {
        from_now_on.load(Ordering::Relaxed) || count.is_multiple_of(100)
    });
    let way = Proxy::without_pushes(&redis.address(), filter).await;
    let writing = Server::start("writing", &on_redis(&redis.address())).await;
    let reading = Server::start("reading", &on_redis(&way.address.to_string())).await;
    let config = LoadConfig {
        pause: Duration::from_millis(2),
        ..LoadConfig::new(vec![writing.grpc.clone()], seed())
    };
    let node = [reading.grpc.clone()];
    let reader = |user: &String| Reading::grpc(user, &node, config.seed);
    let readings: Vec<Reading> = config.users.iter().map(reader).collect();
    // Only who reads already needs hints.
    let is_there = |reading: &Reading| {
        let heard = reading.heard();
        heard.iter().any(|heard| matches!(heard, Heard::CaughtUp))
    };
    until("everybody reads", async || readings.iter().all(is_there)).await;
    let load = Load::start(&config);
    load.acknowledged(2_000).await;
    until("a hint is lost", async || *dropped.lock().unwrap() > 0).await;
    // From here on nobody hears of anything: the last events of every user are such.
    all.store(true, Ordering::Relaxed);
    let before = *dropped.lock().unwrap();
    load.acknowledged(50).await;
    let ledger = load.finish().await;
    let addresses = [reading.grpc.clone(), writing.grpc.clone()];
    for reader in &readings {
        let ids = ledger.book().acknowledged_of(&reader.user);
        let what = format!("{} has everything", reader.name);
        until_within(MOMENT, &what, async || reader.missing(&ids).is_empty()).await;
    }
    assert!(*dropped.lock().unwrap() > before, "the last was not lost");
    judge(&ledger, readings, &addresses, Allowed::NOTHING).await;
}

/// The settings of a node on a cluster.
fn on_cluster(nodes: &[Redis]) -> String {
    let urls = nodes
        .iter()
        .map(|node| format!("\"redis://{}\"", node.address()));
    let urls = urls.collect::<Vec<_>>().join(", ");
    format!("[engine]\nkind = \"redis\"\n[redis]\nmode = \"cluster\"\nurls = [{urls}]\n")
}

/// The same settings, with so many seconds for an answer of Redis.
fn with_timeout(toml: &str, seconds: u64) -> String {
    let engine = seconds * 5;
    let patient =
        format!("[limits]\nengine_timeout = \"{engine}s\"\n[redis]\ntimeout = \"{seconds}s\"\n");
    toml.replace("[redis]\n", &patient)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_password_is_named_in_the_log_and_at_readyz() {
    let redis = Redis::start(IN_MEMORY).await;
    redis.cli(&["config", "set", "requirepass", "secret"]);
    let node = Server::start("node", &on_redis(&redis.address())).await;
    let named = "Redis wants a password: set redis.password_file";
    let ready = async || node.admin("/readyz").await;
    until("it is said", async || {
        let (status, body) = ready().await;
        status == 503 && body.contains(named)
    })
    .await;
    let log = node.logged();
    let lines = log
        .lines()
        .filter(|line| line.contains("Redis cannot be reached"));
    let lines: Vec<&str> = lines.collect();
    assert!(lines.len() == 1 && lines[0].contains(named), "{lines:?}");
    redis.cli(&["-a", "secret", "config", "set", "requirepass", ""]);
    until("it is reached", async || {
        let (status, body) = ready().await;
        status == 200 && !body.contains("problems")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_no_node_of_a_cluster_tells_anything_is_said_once() {
    let cluster = Redis::cluster().await;
    let toml = on_cluster(&cluster).replace("redis://", "redis://nobody:wrong@");
    // No node may be taken for one that does not answer.
    let node = Server::start("node", &with_timeout(&toml, 20)).await;
    let said = |what: &str| node.logged().matches(what).count();
    let (lost, why) = (
        "no node of the cluster tells",
        "Password authentication failed",
    );
    until("it is said", async || said(lost) > 0).await;
    until("a master is away", async || {
        node.metric("emitter_redis_masters_away").await == 1.0
    })
    .await;
    let refusals = |node: &Redis| -> u64 {
        let errors = node.cli(&["info", "errorstats"]);
        let counted = errors
            .lines()
            .find_map(|line| line.strip_prefix("errorstat_WRONGPASS:count="));
        counted.map_or(0, |counted| counted.trim().parse().unwrap())
    };
    until("each was asked several times", async || {
        cluster.iter().all(|node| refusals(node) >= 3)
    })
    .await;
    assert_eq!(said(lost), 1);
    let log = node.logged();
    let line = log.lines().find(|line| line.contains(lost)).unwrap();
    let is_named = |node: &Redis| line.contains(&node.address());
    assert!(line.contains(why) && cluster.iter().any(is_named), "{line}");
    for node in &cluster {
        node.cli(&[
            "acl", "setuser", "nobody", "on", ">wrong", "~*", "&*", "+@all",
        ]);
    }
    until("it is reached", async || {
        said("the cluster tells again") > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_three_keeps_everything() {
    let cluster = Redis::cluster().await;
    let busy = Busy::on(&on_cluster(&cluster)).await;
    busy.load.acknowledged(1_000).await;
    busy.judge(Allowed::NOTHING).await;
}

/// Whether a reader was told of another epoch.
fn heard_of_a_new_epoch(reading: &Reading) -> bool {
    let is_change = |heard: &Heard| matches!(heard, Heard::Gap(why, _) if *why == epoch_changed());
    reading.heard().iter().any(is_change)
}

/// What the replica has not got is lost, and told to the readers of the users there; the others notice nothing but a
/// pause.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_in_a_cluster_is_told_to_the_users_of_that_master_only() {
    let mut cluster = Redis::cluster_with_replicas().await;
    let busy = Busy::on(&on_cluster(&cluster)).await;
    busy.load.acknowledged(300).await;
    let tag = |user: &str| format!("{{emitter:{}}}", stream(user).bucket());
    let dies = cluster
        .iter()
        .position(|node| node.is_master_of(&tag("u0")));
    let dies = dies.expect("a master of u0");
    let (there, elsewhere): (Vec<&Reading>, Vec<&Reading>) = busy
        .readings
        .iter()
        .partition(|reading| cluster[dies].is_master_of(&tag(&reading.user)));
    assert!(!elsewhere.is_empty(), "every user is on one master");
    cluster[dies].may_be_replaced(&cluster);
    cluster[dies].kill().await;
    until("every reader there is told", async || {
        there.iter().all(|reading| heard_of_a_new_epoch(reading))
    })
    .await;
    busy.load.acknowledged(1_000).await;
    // It comes back as a replica of the one that was its own.
    cluster[dies].restart().await;
    busy.load.acknowledged(300).await;
    let gaps: Vec<_> = elsewhere
        .iter()
        .filter(|reading| reading.gaps() > 0)
        .collect();
    let gaps: Vec<_> = gaps.iter().map(|reading| &reading.name).collect();
    assert!(gaps.is_empty(), "told of gaps that are none: {gaps:?}");
    busy.judge(Allowed::LOSS).await;
}

/// Events of one run without end, about every 50 ms until `stop`.
struct Steady {
    stored: Arc<AtomicUsize>,
    /// How long the slowest took, and what was not stored.
    run: JoinHandle<(Duration, Vec<String>)>,
}

impl Steady {
    fn begin(node: String, user: String, stop: CancellationToken) -> Self {
        let stored = Arc::<AtomicUsize>::default();
        let run = tokio::spawn(Self::write(node, user, stored.clone(), stop));
        Self { stored, run }
    }

    async fn write(
        node: String,
        user: String,
        stored: Arc<AtomicUsize>,
        stop: CancellationToken,
    ) -> (Duration, Vec<String>) {
        let patient = ProducerConfig {
            deadline: Duration::from_secs(60),
            attempt: Duration::from_secs(60),
            ..ProducerConfig::default()
        };
        let producer = Producer::new(&node, credential("steady", "emit"), patient).unwrap();
        let (mut slowest, mut failed) = (Duration::ZERO, Vec::new());
        for count in 0.. {
            if stop.is_cancelled() {
                break;
            }
            let payload = match count {
                0 => Payload::AgentStarted(AgentStarted::default()),
                _ => Payload::AgentThinking(AgentThinking::default()),
            };
            let event = Event {
                event_id: format!("steady-{user}-{count}"),
                user_id: user.clone(),
                run_id: format!("steady-{user}"),
                agent_name: "worker".into(),
                payload: Some(payload),
                ..Event::default()
            };
            let began = Instant::now();
            match producer.emit(event).await {
                Ok(_) => stored.fetch_add(1, Ordering::Relaxed),
                Err(refusal) => {
                    failed.push(format!("{refusal:?}"));
                    0
                }
            };
            slowest = slowest.max(began.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        (slowest, failed)
    }

    fn stored(&self) -> usize {
        self.stored.load(Ordering::Relaxed)
    }

    /// Waits until each of `runs` has stored `PROOF` events more.
    async fn all_go_on(runs: &[Self]) {
        let goals: Vec<usize> = runs.iter().map(|run| run.stored() + PROOF).collect();
        until("each goes on", async || {
            let mut each = runs.iter().zip(&goals);
            each.all(|(run, goal)| run.stored() >= *goal)
        })
        .await;
    }
}

/// Its users wait until it goes on, with all that they had, and so do those whose new run's id is claimed there. What else
/// the others do goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_of_a_cluster_that_stalls_costs_time_only_and_its_users_most_of_it() {
    let cluster = Redis::cluster().await;
    for node in &cluster {
        node.cli(&["config", "set", "cluster-require-full-coverage", "no"]);
    }
    let busy = Busy::on(&with_timeout(&on_cluster(&cluster), 15)).await;
    let tag = |user: &str| format!("{{emitter:{}}}", stream(user).bucket());
    let users = (0..).map(|n| format!("v{n}"));
    let elsewhere = users.filter(|user| !cluster[0].is_master_of(&tag(user)));
    let stop = CancellationToken::new();
    let runs = elsewhere.take(4).zip(busy.addresses.iter().cycle());
    let runs = runs.map(|(user, node)| Steady::begin(node.clone(), user, stop.clone()));
    let runs: Vec<Steady> = runs.collect();
    busy.load.acknowledged(300).await;
    Steady::all_go_on(&runs).await;
    let failed = async || {
        let [one, other] = &busy.nodes;
        let name = "emitter_redis_errors_total";
        one.metric(name).await + other.metric(name).await
    };
    let before = failed().await;
    cluster[0].stall();
    Steady::all_go_on(&runs).await;
    assert_eq!(failed().await, before, "the others waited for its users");
    until("calls of its users fail", async || failed().await > before).await;
    Steady::all_go_on(&runs).await;
    cluster[0].go_on();
    busy.load.acknowledged(300).await;
    stop.cancel();
    for run in runs {
        let (slowest, failed) = run.run.await.unwrap();
        println!("one of the others: within {slowest:?}");
        assert!(failed.is_empty(), "{failed:?}");
    }
    busy.judge(Allowed::NOTHING).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_reached_over_tls_as_a_user() {
    let redis = Redis::over_tls(AOF_EVERYSEC).await;
    let toml = |password: &str| {
        format!(
            "[engine]\nkind = \"redis\"\n\
             [redis]\nurls = [\"rediss://emitter:{password}@{}\"]\nca_file = \"{}\"\n",
            redis.address(),
            redis.ca_file()
        )
    };
    let busy = Busy::on(&toml("secret")).await;
    busy.load.acknowledged(300).await;
    for node in &busy.nodes {
        assert!(
            !node.logged().contains("secret"),
            "a password is in the log"
        );
    }
    busy.judge(Allowed::NOTHING).await;
}
