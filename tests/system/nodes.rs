//! Nodes that share one Redis.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    balancer::Balancer,
    processes::{
        load::{Load, LoadConfig},
        reading::Reading,
        runs,
        server::Server,
        tools::until,
        verdict::{Allowed, judge},
    },
    redis::{AOF_EVERYSEC, Redis},
    seed::{cases, seed},
};

/// The configuration of a node on a single Redis, or an address behind which one is.
pub(crate) fn on_redis(address: &str) -> String {
    format!(
        "[engine]\nkind = \"redis\"\n\
         [redis]\nurls = [\"redis://{address}\"]\n\
         [retention]\nevents = 100000\nbytes = \"256MiB\"\n\
         [limits]\nconnections_per_address = 50000\n"
    )
}

/// Three nodes on `redis`.
pub(crate) async fn three(redis: &Redis) -> [Server; 3] {
    let toml = on_redis(&redis.address());
    [
        Server::start("node 1", &toml).await,
        Server::start("node 2", &toml).await,
        Server::start("node 3", &toml).await,
    ]
}

/// Readers of every user: two that come back to any node, and one at a node of its own.
fn readings(config: &LoadConfig, nodes: &[Server]) -> Vec<Reading> {
    let users = config.users.iter().enumerate();
    let of_user = users.flat_map(|(n, user)| {
        let seed = config.seed + n as u64;
        [
            Reading::grpc(user, &config.nodes, seed),
            Reading::grpc(user, &config.nodes, seed + 1_000),
            Reading::websocket(user, &nodes[n % nodes.len()].http),
        ]
    });
    of_user.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_killed_lose_double_and_reorder_nothing_soak() {
    let redis = Redis::start(AOF_EVERYSEC).await;
    let mut nodes = three(&redis).await;
    let addresses = nodes.each_ref().map(|node| node.grpc.clone());
    let seed = seed();
    let config = LoadConfig {
        writers: 6,
        pause: Duration::from_millis(10),
        abandon_every: 15,
        node_deadline: Duration::from_millis(500),
        ..LoadConfig::new(addresses.to_vec(), seed)
    };
    let readings = readings(&config, &nodes);
    let load = Load::start(&config);
    let mut rng = StdRng::seed_from_u64(seed);
    let end = tokio::time::Instant::now() + Duration::from_secs(cases(60, 600));
    while tokio::time::Instant::now() < end {
        let alive = rng.random_range(1_000..4_000);
        tokio::time::sleep(Duration::from_millis(alive)).await;
        let node = &mut nodes[rng.random_range(0..3)];
        node.kill().await;
        let away = rng.random_range(0..2_000);
        tokio::time::sleep(Duration::from_millis(away)).await;
        node.restart().await;
    }
    until("enough is acknowledged to judge by", async || {
        load.ledger.acknowledged() > 3_000
    })
    .await;
    let ledger = load.finish().await;
    judge(&ledger, readings, &addresses, Allowed::NOTHING).await;
    runs::agree_with_events(&ledger, &addresses[0]).await;
}

/// One node after the other, with clients that know only the balancer.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_behind_a_balancer_loses_nothing() {
    let redis = Redis::start(AOF_EVERYSEC).await;
    let mut nodes = three(&redis).await;
    let addresses = nodes.each_ref().map(|node| node.grpc.clone());
    let balancer = Balancer::of(&nodes).await;
    let front = [balancer.grpc.clone()];
    let config = LoadConfig {
        pause: Duration::from_millis(5),
        ..LoadConfig::new(front.to_vec(), seed())
    };
    let readings = balancer.readings(&config);
    let load = Load::start(&config);
    for node in &mut nodes {
        load.acknowledged(200).await;
        let status = node.terminate().await;
        assert!(status.success(), "{status}");
        node.restart().await;
        // Only then may the next one go.
        until("the balancer sends to it again", async || {
            node.metric("emitter_events_emitted_total").await > 0.0
        })
        .await;
    }
    load.acknowledged(200).await;
    let ledger = load.finish().await;
    judge(&ledger, readings, &addresses, Allowed::NOTHING).await;
}
