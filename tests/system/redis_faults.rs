//! What happens to Redis, or on the way to it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    nodes::on_redis,
    processes::{
        load::{Load, LoadConfig},
        reading::{Heard, Reading, epoch_changed},
        server::Server,
        tools::until_within,
        verdict::{Allowed, judge},
    },
    proxy::{Proxy, Way, dropping},
    redis::{AOF_ALWAYS, AOF_EVERYSEC, Redis},
    seed::seed,
    support::events::stream,
};

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
    busy.load.acknowledged(50).await;
    primary.kill().await;
    link.set(Way::Cut);
    replica.cli(&["replicaof", "no", "one"]);
    way.lead_to(&replica.address()).await;
    busy.load.acknowledged(300).await;
    until_within(
        Duration::from_secs(30),
        "every reader is told",
        async || busy.readings.iter().all(heard_of_a_new_epoch),
    )
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
    let load = Load::start(&config);
    load.acknowledged(2_000).await;
    assert!(*dropped.lock().unwrap() > 0, "no hint came by");
    // From here on nobody hears of anything: the last events of every user are such.
    all.store(true, Ordering::Relaxed);
    let before = *dropped.lock().unwrap();
    let ledger = load.finish().await;
    let addresses = [reading.grpc.clone(), writing.grpc.clone()];
    for reader in &readings {
        let ids = ledger.book().acknowledged_of(&reader.user);
        let patience = Duration::from_secs(15);
        let what = format!("{} has everything", reader.name);
        until_within(patience, &what, async || reader.missing(&ids).is_empty()).await;
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
    cluster[dies].kill().await;
    let patience = Duration::from_secs(30);
    until_within(patience, "every reader there is told", async || {
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
