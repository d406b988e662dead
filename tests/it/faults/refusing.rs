//! Files that cannot be written any more: the limit for the size of files stands in for the disk.

use super::DURABLE;
use crate::{
    processes::{
        load::{Load, LoadConfig},
        reading::{Reading, replay},
        server::Server,
        tools::{output, tool, until},
        verdict::{Allowed, judge},
    },
    support::seed::seed,
};

/// Where the limit is met, writing fails, and does not end the process.
const IGNORING: [&str; 3] = ["sh", "-ec", "trap '' XFSZ; exec \"$0\" \"$@\""];

/// From now on the server can write no file, or can again.
fn limit(server: &Server, size: &str) {
    let mut limit = tool("prlimit");
    limit
        .args(["--pid", &server.pid().to_string()])
        .arg(format!("--fsize={size}:unlimited"));
    output(&mut limit);
}

async fn ready(server: &Server) -> (u16, String) {
    let (status, body) = server.admin("/readyz").await;
    let said: serde_json::Value = serde_json::from_str(&body).unwrap();
    (status, said["status"].as_str().unwrap().to_owned())
}

async fn refuses(server: &Server) {
    until("it refuses", async || ready(server).await.1 == "refusing").await;
}

/// A sync that hangs for a while is told too.
async fn is_ready(server: &Server) {
    until("it is ready", async || {
        ready(server).await == (200, "ready".into())
    })
    .await;
}

/// It serves reads and says that it refuses emits; takes them again by itself; and where it is asked to end meanwhile, it
/// does, without a word that everything is well: its next start finds out.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_written_is_told_and_left_as_it_is() {
    let mut server = Server::start_under("durable", DURABLE, &IGNORING).await;
    let nodes = [server.grpc.clone()];
    let config = LoadConfig::new(nodes.to_vec(), seed());
    let readings = config.users.iter();
    let readings = readings.map(|user| Reading::grpc(user, &nodes, config.seed));
    let readings = readings.collect();
    let load = Load::start(&config);
    load.acknowledged(100).await;
    is_ready(&server).await;

    limit(&server, "0");
    refuses(&server).await;
    assert_eq!(ready(&server).await.0, 200, "readers are served");
    assert_eq!(server.admin("/healthz").await.0, 200);
    until("the metric says so too", async || {
        server.metric("emitter_engine_refusing").await > 0.9
    })
    .await;
    let user = &config.users[0];
    let acknowledged = load.ledger.book().acknowledged_of(user);
    let read = replay(&server.grpc, user).await;
    for id in acknowledged {
        assert!(read.iter().any(|seen| seen.event_id == id), "{id}");
    }
    limit(&server, "unlimited");
    load.acknowledged(100).await;
    is_ready(&server).await;

    limit(&server, "0");
    refuses(&server).await;
    assert!(server.terminate().await.success());
    server.restart().await;
    load.acknowledged(100).await;
    let ledger = load.finish().await;
    judge(&ledger, readings, &nodes, Allowed::NOTHING).await;
}
