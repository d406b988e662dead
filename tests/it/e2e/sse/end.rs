//! How a stream of `GET /v1/events` ends, and what its last event says.

use std::time::Duration;

use emitter::proto::v1::{self, emitter_operator_client::EmitterOperatorClient};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::{Instant, MissedTickBehavior},
};

use crate::e2e::{
    connections::until,
    event_stream::{self, Answer},
    server::Server,
    wire::{self, PATIENCE, Socket},
};

/// Far more, of 60,000 characters each, than there is room for on the way to a reader that takes nothing in.
const EVENTS: usize = 20;

const MINUTES: Duration = Duration::from_secs(600);

/// The closing of an answer, which must be for `reason`, and when to come back.
async fn closed_for(events: &mut Answer, reason: &str) -> Option<u64> {
    let closing = events.closing().await;
    assert_eq!(closing.frame["reason"], reason);
    let told = closing.frame["reconnect_after_ms"].as_u64();
    assert_eq!(closing.retry, told, "{closing:?}");
    told
}

#[tokio::test]
async fn a_credential_that_ends_is_announced_and_then_closes() {
    let server = Server::start().await;
    let token = server.token_for("alice", "subscribe", MINUTES);
    let mut events = event_stream::open(server.http, &token, "", &[]).await;
    events.frame_of("connection_caught_up").await;
    server.clock.advance(MINUTES - Duration::from_secs(60));
    let expiring = events.frame_of("connection_token_expiring").await;
    assert_eq!(expiring.frame["expires_in_ms"], 60_000);
    assert_eq!(expiring.id, None);
    // A minute of leeway follows.
    server.clock.advance(Duration::from_secs(120));
    let retry = closed_for(&mut events, "CREDENTIAL_EXPIRED").await;
    assert!(retry.is_some());
    let counted = "emitter_connections_closed_total{reason=\"CREDENTIAL_EXPIRED\"}";
    assert_eq!(server.metric(counted).await, 1.0);
    server.stop().await;
}

#[tokio::test]
async fn readers_get_what_is_stored_and_are_told_when_to_come_back() {
    let server = Server::start().await;
    let token = server.token("alice", "subscribe");
    let mut readers = Vec::new();
    for _ in 0..10 {
        let mut events = event_stream::open(server.http, &token, "", &[]).await;
        events.frame_of("connection_caught_up").await;
        readers.push(events);
    }
    assert_eq!(server.metric("emitter_sse_connections").await, 10.0);
    server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let stopping = tokio::spawn(server.stop());
    let mut times = Vec::new();
    for events in &mut readers {
        for n in 1..=5 {
            let event = events.event().await;
            assert_eq!(event.frame["event_id"], format!("run-1-{n}"));
        }
        times.push(closed_for(events, "DRAINING").await.unwrap());
    }
    times.sort_unstable();
    times.dedup();
    assert!(times.len() > 5, "all come back at once: {times:?}");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_takes_nothing_in_is_ended_and_others_get_everything_meanwhile() {
    let server = Server::start_with(|settings| {
        settings.limits.write_stall = Duration::from_secs(2);
        settings.limits.close_grace = Duration::from_secs(600);
        settings.limits.send_buffer = 16 * 1024;
    })
    .await;
    let token = server.token("alice", "subscribe");
    let mut stalled = event_stream::open_narrow(server.http, &token).await;
    stalled.frame_of("connection_caught_up").await;
    let mut reading = event_stream::open(server.http, &token, "", &[]).await;
    reading.frame_of("connection_caught_up").await;

    server.start_runs("alice", &["run-1"]).await;
    assert_eq!(reading.event().await.frame["type"], "agent_started");
    // More than there is room for on the way to the one that does not read.
    let text = "x".repeat(60_000);
    for n in 0..EVENTS {
        let event = wire::event("alice", "run-1", &format!("e{n}"), wire::thinking(&text));
        server.emit_all("agents", vec![event]).await;
        assert_eq!(reading.event().await.frame["event_id"], format!("e{n}"));
    }
    let closed = "emitter_connections_closed_total{reason=\"TOO_SLOW\"}";
    until(&server, closed, 1.0).await;
    assert_eq!(server.metric("emitter_sse_connections").await, 1.0);

    // It reads on at last: what was on its way, then why it ends. It resumes behind that, and misses nothing.
    let mut last = String::new();
    let mut next = 0;
    assert_eq!(stalled.event().await.frame["type"], "agent_started");
    loop {
        let event = stalled.next().await.expect("it says why");
        if event.frame["type"] == "connection_closing" {
            assert_eq!(event.frame["reason"], "TOO_SLOW");
            assert!(event.retry.is_some(), "{event:?}");
            break;
        }
        if !wire::is_control(&event.frame) {
            assert_eq!(event.frame["event_id"], format!("e{next}"));
            next += 1;
        }
        last = event.id.unwrap_or(last);
    }
    assert_eq!(stalled.next().await, None);
    assert!(next < EVENTS, "it was not stalled");
    // Where it is too slow again, it goes on from there.
    wire::in_time(async {
        while next < EVENTS {
            let begun = next;
            let mut again = event_stream::resume(server.http, &token, "", &last).await;
            while next < EVENTS
                && let Some(event) = again.next().await
            {
                if !wire::is_control(&event.frame) {
                    assert_eq!(event.frame["event_id"], format!("e{next}"));
                    next += 1;
                }
                last = event.id.unwrap_or(last);
            }
            assert!(next > begun, "nothing came behind {last}");
        }
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_take_nothing_in_do_not_hold_up_the_drain() {
    let server = Server::start_with(|settings| {
        settings.limits.send_buffer = 16 * 1024;
        settings.limits.write_stall = Duration::from_secs(3600);
        settings.drain = Duration::from_secs(3600);
        // What is under way at the end gets these.
        settings.limits.handshake = Duration::from_secs(3);
        settings.limits.close_grace = Duration::from_secs(1);
    })
    .await;
    let token = server.token("alice", "subscribe");
    let mut events = event_stream::open(server.http, &token, "", &[]).await;
    events.frame_of("connection_caught_up").await;
    let mut socket = Socket::connect(server.http, &token, "").await;
    socket.frame_of("connection_caught_up").await;
    server.start_runs("alice", &["run-1"]).await;
    server.emit_large("alice", "run-1", 200).await;
    // Far from the hour that a write may make no progress, and that the drain may take.
    let stopped = tokio::time::timeout(PATIENCE, server.stop()).await;
    stopped.expect("they hold it up");
    drop((events, socket));
}

#[tokio::test]
async fn a_reader_that_goes_on_slowly_is_not_too_slow() {
    // Longer than this machine is away, and short of what the test takes.
    const STALL: Duration = Duration::from_secs(6);
    let server = Server::start_with(|settings| {
        settings.limits.write_stall = STALL;
        settings.limits.send_buffer = 16 * 1024;
        settings.limits.event_bytes = 1 << 20;
    })
    .await;
    server.start_runs("alice", &["run-1"]).await;
    let text = "x".repeat(1_000_000);
    for n in 0..4 {
        let event = wire::event("alice", "run-1", &format!("e{n}"), wire::thinking(&text));
        server.emit_all("agents", vec![event]).await;
    }
    let token = server.token("alice", "subscribe");
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let mut events = socket.connect(server.http).await.unwrap();
    let request = format!(
        "GET /v1/events?from=oldest HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    events.write_all(request.as_bytes()).await.unwrap();
    // For longer than a write may make no progress it takes the first of the large ones, and has not all of it then.
    let (begun, mut taken, mut bytes) = (Instant::now(), 0, vec![0; 4 * 1024]);
    // How slow the reader is, not something that is waited for.
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while begun.elapsed() < STALL * 4 / 3 {
        taken += events.read(&mut bytes).await.unwrap();
        pace.tick().await;
    }
    assert!(taken < text.len(), "it has taken {taken} bytes");
    let counted = "emitter_connections_closed_total{reason=\"TOO_SLOW\"}";
    assert_eq!(server.metric(counted).await, 0.0);
    assert_eq!(server.metric("emitter_sse_connections").await, 1.0);
    drop(events);
    server.stop().await;
}

#[tokio::test]
async fn a_reader_that_leaves_is_noticed_and_leaves_nothing_behind() {
    let server = Server::start().await;
    let token = server.token("alice", "subscribe");
    let mut events = event_stream::open(server.http, &token, "", &[]).await;
    events.frame_of("connection_caught_up").await;
    assert_eq!(server.metric("emitter_sse_connections").await, 1.0);
    drop(events);
    until(&server, "emitter_connections_ended_total", 1.0).await;
    assert_eq!(server.metric("emitter_sse_connections").await, 0.0);
    server.stop().await;
}

#[tokio::test]
async fn a_newer_connection_of_the_same_client_takes_its_place_on_any_door() {
    let server = Server::start().await;
    let token = server.token("alice", "subscribe");
    let query = "client_id=tab";
    let mut first = event_stream::open(server.http, &token, query, &[]).await;
    first.next().await.unwrap();
    let mut socket = Socket::connect(server.http, &token, query).await;
    socket.frame_of("connection_established").await;
    assert_eq!(closed_for(&mut first, "REPLACED").await, None);
    let mut second = event_stream::open(server.http, &token, query, &[]).await;
    second.next().await.unwrap();
    assert_eq!(socket.closed().await, 4508);
    server.stop().await;
}

#[tokio::test]
async fn operators_see_it_and_end_it() {
    let server = Server::start_with(|settings| settings.limits.connections_per_user = 1).await;
    let token = server.token("alice", "subscribe");
    let mut events = event_stream::open(server.http, &token, "client_id=tab", &[]).await;
    let established = events.next().await.unwrap().frame;
    let url = format!("http://{}", server.grpc);
    let mut operator = EmitterOperatorClient::connect(url).await.unwrap();
    let operate = server.token("ops", "operate");
    let request = wire::with_token(&operate, v1::ListConnectionsRequest::default());
    let listed = operator
        .list_connections(request)
        .await
        .unwrap()
        .into_inner();
    let [one] = &listed.connections[..] else {
        panic!("{listed:?}");
    };
    assert_eq!(one.transport(), v1::Transport::Sse);
    assert_eq!(established["connection_id"], one.connection_id);
    assert_eq!((&*one.user_id, &*one.client_id), ("alice", "tab"));
    let end = v1::DisconnectRequest {
        user_id: "alice".into(),
        ..Default::default()
    };
    let ended = operator.disconnect(wire::with_token(&operate, end)).await;
    assert_eq!(ended.unwrap().into_inner().disconnected_count, 1);
    assert!(closed_for(&mut events, "DISCONNECTED").await.is_some());
    // Who was told may come back at once: its place is free.
    event_stream::open(server.http, &token, "", &[]).await;
    server.stop().await;
}
