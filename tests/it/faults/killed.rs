//! Processes that are killed while they write, and started again where they were.

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::DURABLE;
use crate::{
    processes::{
        load::{Load, LoadConfig},
        reading::{Reading, replay},
        runs,
        server::Server,
        verdict::{Allowed, judge},
    },
    support::seed::{cases, seed},
};

fn readings(config: &LoadConfig, server: &Server) -> Vec<Reading> {
    let both = config.users.iter().flat_map(|user| {
        [
            Reading::grpc(user, std::slice::from_ref(&server.grpc), config.seed),
            Reading::websocket(user, &server.http),
        ]
    });
    both.collect()
}

/// Nothing that was acknowledged is missing, doubled or out of order, and what operators are told agrees with it. That
/// nothing is missing is known, too: the epoch stays, and nobody is told a gap.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_keeps_what_it_acknowledged_soak() {
    kept_through_kills(DURABLE, cases(10, 100)).await;
}

/// What was given to the system is kept by it, synced or not.
#[tokio::test(flavor = "multi_thread")]
async fn killed_it_keeps_what_it_acknowledged_without_a_sync() {
    for sync in ["interval(200)", "os"] {
        let toml = format!("{DURABLE}sync = \"{sync}\"\n");
        kept_through_kills(&toml, 3).await;
    }
}

async fn kept_through_kills(toml: &str, kills: u64) {
    let mut server = Server::start("durable", toml).await;
    let nodes = [server.grpc.clone()];
    let seed = seed();
    let config = LoadConfig::new(nodes.to_vec(), seed);
    let readings = readings(&config, &server);
    let load = Load::start(&config);
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..kills {
        // In the midst of what comes next: producers wait for nobody.
        load.acknowledged(rng.random_range(50..200)).await;
        server.kill().await;
        server.restart().await;
    }
    let ledger = load.finish().await;
    judge(&ledger, readings, &nodes, Allowed::NOTHING).await;
    runs::agree_with_events(&ledger, &nodes[0]).await;
}

/// After an orderly end everything is as it was, the epoch too: nobody is told a gap.
#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_restart_changes_nothing() {
    let mut server = Server::start("durable", DURABLE).await;
    let nodes = [server.grpc.clone()];
    let config = LoadConfig::new(nodes.to_vec(), seed());
    let readings = readings(&config, &server);
    let load = Load::start(&config);
    for _ in 0..3 {
        load.acknowledged(200).await;
        let status = server.terminate().await;
        assert!(status.success(), "{status}");
        server.restart().await;
    }
    let ledger = load.finish().await;
    judge(&ledger, readings, &nodes, Allowed::NOTHING).await;
    runs::agree_with_events(&ledger, &nodes[0]).await;
}

/// Two processes on one directory would overwrite each other.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_directory_is_refused() {
    let first = Server::start("first", DURABLE).await;
    let nodes = [first.grpc.clone()];
    let load = Load::start(&LoadConfig::new(nodes.to_vec(), seed()));
    load.acknowledged(100).await;
    let data = first.data().display().to_string();
    let mut second = Server::prepared("second", &DURABLE.replace("{data}", &data), &[]);
    let refused = second
        .try_start()
        .await
        .expect_err("one directory, two processes");
    assert!(
        [Some(1), Some(64)].contains(&refused.status.code())
            && refused.said.contains(&data)
            && !refused.said.contains("repair"),
        "{refused:#?}"
    );
    load.acknowledged(100).await;
    let ledger = load.finish().await;
    judge(&ledger, Vec::new(), &nodes, Allowed::NOTHING).await;
    assert!(!replay(&first.grpc, "u0").await.is_empty());
}
