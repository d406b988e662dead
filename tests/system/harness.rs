//! The harness itself, where nothing goes wrong.

use std::time::Duration;

use crate::{
    processes::{
        load::{Load, LoadConfig},
        reading::Reading,
        runs,
        server::Server,
        verdict::{Allowed, examine, judge},
    },
    seed::seed,
};

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_goes_wrong_nothing_is_found() {
    let server = Server::start("memory", "").await;
    let nodes = [server.grpc.clone()];
    let seed = seed();
    let config = LoadConfig {
        abandon_every: 20,
        pause: Duration::from_millis(2),
        ..LoadConfig::new(nodes.to_vec(), seed)
    };
    let readings = config.users.iter().flat_map(|user| {
        [
            Reading::grpc(user, &nodes, seed),
            Reading::websocket(user, &server.http),
        ]
    });
    let readings = readings.collect();
    let load = Load::start(&config);
    load.acknowledged(3_000).await;
    let ledger = load.finish().await;
    let verdict = judge(&ledger, readings, &nodes, Allowed::NOTHING).await;
    assert_eq!(verdict.lost(), 0);
    runs::agree_with_events(&ledger, &nodes[0]).await;
}

/// The memory engine loses everything with its process: what is to be found.
#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_found() {
    let mut server = Server::start("memory", "").await;
    let nodes = [server.grpc.clone()];
    let seed = seed();
    // So many that one of them is amid a run, with its start lost.
    let config = LoadConfig {
        writers: 16,
        ..LoadConfig::new(nodes.to_vec(), seed)
    };
    let readings = config.users.iter().flat_map(|user| {
        [
            Reading::grpc(user, &nodes, seed),
            Reading::websocket(user, &server.http),
        ]
    });
    let readings = readings.collect();
    let load = Load::start(&config);
    load.acknowledged(500).await;
    server.kill().await;
    server.restart().await;
    load.acknowledged(500).await;
    let ledger = load.finish().await;
    let verdict = examine(&ledger, readings, &nodes, Allowed::NOTHING).await;
    assert!(verdict.lost() >= 500, "{}", verdict.lost());
    let found = |what: &str| {
        verdict
            .problems
            .iter()
            .any(|problem| problem.contains(what))
    };
    assert!(found("is lost") && found("a gap, epoch_changed") && found("RUN_NOT_STARTED"));
}
