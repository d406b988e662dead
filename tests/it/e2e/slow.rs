//! A reader that takes nothing in harms only itself.

use std::time::Duration;

use futures_util::StreamExt;

use super::{
    server::Server,
    wire::{self, PATIENCE, Socket},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_is_closed_with_4002_and_others_get_everything_meanwhile() {
    let server = Server::start_with(|settings| {
        settings.limits.write_stall = Duration::from_millis(500);
        settings.limits.close_grace = Duration::from_secs(10);
        settings.limits.send_buffer = 16 * 1024;
    })
    .await;
    let token = server.token("alice", "subscribe");
    let mut stalled = Socket::connect(server.http, &token, "").await;
    stalled.frame_of("connection_caught_up").await;
    let mut reading = Socket::connect(server.http, &token, "").await;
    reading.frame_of("connection_caught_up").await;

    server.start_runs("alice", &["run-1"]).await;
    assert_eq!(reading.event().await["type"], "agent_started");
    // More than the kernel's buffers hold, while only one of the two reads.
    let text = "x".repeat(60_000);
    for n in 0..200 {
        let event = wire::event("alice", "run-1", &format!("e{n}"), wire::thinking(&text));
        server.emit_all("agents", vec![event]).await;
        assert_eq!(reading.event().await["event_id"], format!("e{n}"));
    }
    let closed = "emitter_connections_closed_total{reason=\"TOO_SLOW\"}";
    let told = async {
        while server.metric(closed).await < 1.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, told)
        .await
        .expect("it was not closed");
    assert_eq!(server.metric("emitter_websocket_connections").await, 1.0);
    // It reads on at last: what was on its way, then the code.
    assert_eq!(stalled.closed().await, 4002);

    // It comes back where it was, and misses nothing.
    let mut again = Socket::connect(server.http, &token, "from=oldest").await;
    assert_eq!(again.event().await["type"], "agent_started");
    for n in 0..200 {
        assert_eq!(again.event().await["event_id"], format!("e{n}"));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_peer_that_vanishes_is_noticed_and_leaves_nothing_behind() {
    let server = Server::start_with(|settings| {
        settings.limits.heartbeat = Duration::from_millis(100);
    })
    .await;
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "").await;
    socket.frame_of("connection_caught_up").await;
    assert_eq!(server.metric("emitter_websocket_connections").await, 1.0);
    // It is there but answers no ping: nothing polls it any more.
    let gone = async {
        while server.metric("emitter_websocket_connections").await > 0.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("it is still counted");
    assert!(socket.0.next().await.is_some());
    server.stop().await;
}
