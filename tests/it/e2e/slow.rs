//! A reader that takes nothing in harms only itself.

use std::{iter, time::Duration};

use futures_util::StreamExt;

use super::{
    connections::until,
    server::Server,
    wire::{self, Came, PATIENCE, Socket},
};

/// Far more, of 60,000 characters each, than there is room for on the way to a reader that takes nothing in.
const EVENTS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_is_closed_with_4002_and_others_get_everything_meanwhile() {
    let server = Server::start_with(|settings| {
        settings.limits.write_stall = Duration::from_secs(2);
        settings.limits.close_grace = Duration::from_secs(600);
        settings.limits.send_buffer = 16 * 1024;
    })
    .await;
    let token = server.token("alice", "subscribe");
    let mut stalled = Socket::connect_narrow(server.http, &token).await;
    stalled.frame_of("connection_caught_up").await;
    let mut reading = Socket::connect(server.http, &token, "").await;
    reading.frame_of("connection_caught_up").await;

    server.start_runs("alice", &["run-1"]).await;
    assert_eq!(reading.event().await["type"], "agent_started");
    let text = "x".repeat(60_000);
    for n in 0..EVENTS {
        let event = wire::event("alice", "run-1", &format!("e{n}"), wire::thinking(&text));
        server.emit_all("agents", vec![event]).await;
        assert_eq!(reading.event().await["event_id"], format!("e{n}"));
    }
    let closed = "emitter_connections_closed_total{reason=\"TOO_SLOW\"}";
    until(&server, closed, 1.0).await;
    assert_eq!(server.metric("emitter_websocket_connections").await, 1.0);
    // It reads on at last: what was on its way, then the code.
    assert_eq!(stalled.closed().await, 4002);
    wire::in_time(comes_back(&server, &token)).await;
    server.stop().await;
}

/// The reader comes back where it was, and misses nothing. Where it is too slow again, it goes on from there.
async fn comes_back(server: &Server, token: &str) {
    let events = (0..EVENTS).map(|n| format!("e{n}"));
    let mut want = iter::once("run-1-started".to_owned())
        .chain(events)
        .peekable();
    let mut query = "from=oldest".to_owned();
    while let Some(first) = want.peek().cloned() {
        let mut again = Socket::connect(server.http, token, &query).await;
        while want.peek().is_some()
            && let Came::Frame(frame) = again.next().await
        {
            if !wire::is_control(&frame) {
                assert_eq!(
                    Some(frame["event_id"].as_str().unwrap()),
                    want.next().as_deref()
                );
                query = format!("after={}", wire::position(&frame));
            }
        }
        assert_ne!(want.peek(), Some(&first), "nothing came");
    }
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
