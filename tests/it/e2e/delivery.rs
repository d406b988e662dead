//! What a client acknowledges, and where it goes on from there.

use std::sync::Arc;

use emitter::{
    app::Environment,
    clock::{Clock, Entropy},
    engine::{Engine, memory},
    event::{ClientId, Epoch},
    fanout::{Config, Hub},
    proto::v1::{self, StartFrom, SubscribeRequest, event::Payload, subscribe_request::Start},
};
use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{
    server::Server,
    wire::{self, Grpc, Socket},
};
use crate::support::{epoch_engine::EpochEngine, events};

/// A server over `engine`.
async fn start_on(engine: Arc<dyn Engine>, clock: Clock) -> Server {
    let environment = Environment {
        clock,
        entropy: Entropy::system(),
        engine: Some(engine),
    };
    Server::start_in(environment, |_| {}).await
}

async fn say(socket: &mut Socket, message: Value) {
    let message = Message::text(message.to_string());
    socket.0.send(message).await.unwrap();
}

/// Acknowledges everything up to and with `frame`.
async fn ack(socket: &mut Socket, frame: &Value) {
    let ack = json!({"type": "ack", "epoch": frame["epoch"], "offset": frame["offset"]});
    say(socket, ack).await;
}

/// Waits until everything that was said is heard, and returns what the server objected to.
pub(super) async fn heard(socket: &mut Socket) -> Vec<String> {
    say(socket, json!({"type": "unheard of"})).await;
    let mut objections = Vec::new();
    loop {
        let error = socket.frame_of("connection_error").await;
        let message = error["message"].as_str().unwrap();
        if message.contains("is not known") {
            return objections;
        }
        assert_eq!(error["reason"], "INVALID_REQUEST", "{error}");
        objections.push(message.to_owned());
    }
}

/// The next events.
async fn next_events(socket: &mut Socket, count: usize) -> Vec<Value> {
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(socket.event().await);
    }
    events
}

/// Where `client` begins that asks for what it acknowledged: the offset.
async fn acked(server: &Server, user: &str, client: &str) -> u64 {
    let token = server.token(user, "subscribe");
    let query = format!("client_id={client}&from=acked");
    let mut socket = Socket::connect(server.http, &token, &query).await;
    let position = socket.frame().await["position"].clone();
    let (_, offset) = position.as_str().unwrap().split_once('-').unwrap();
    offset.parse().unwrap()
}

#[tokio::test]
async fn an_ack_survives_a_reconnect_and_acked_begins_exactly_behind_it() {
    let server = Server::start().await;
    for user in ["alice", "bob"] {
        let run = format!("run-of-{user}");
        server.emit_all("agents", wire::whole_run(user, &run)).await;
    }
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "client_id=tab&from=oldest").await;
    let all = next_events(&mut socket, 5).await;
    ack(&mut socket, &all[2]).await;
    assert_eq!(heard(&mut socket).await, [] as [&str; 0]);
    drop(socket);

    for _ in 0..2 {
        let mut again = Socket::connect(server.http, &token, "client_id=tab&from=acked").await;
        let established = again.frame().await;
        assert_eq!(established["position"], wire::position(&all[2]));
        assert_eq!(next_events(&mut again, 2).await, all[3..]);
        let request = SubscribeRequest {
            start: Some(Start::From(StartFrom::Acked.into())),
            client_id: "tab".into(),
            ..Default::default()
        };
        let mut again = Grpc::open(&server, &token, request).await;
        assert_eq!(again.event().await.event_id, "run-of-alice-4");
    }
    // Who never acknowledged anything gets everything: another client, another user's of the same name.
    for (user, client) in [("alice", "other"), ("bob", "tab")] {
        let token = server.token(user, "subscribe");
        let query = format!("client_id={client}&from=acked");
        let mut first = Socket::connect(server.http, &token, &query).await;
        let event = first.event().await;
        assert_eq!(event["event_id"], format!("run-of-{user}-1"));
    }
    server.stop().await;
}

#[tokio::test]
async fn an_ack_never_moves_back_and_one_of_another_epoch_is_ignored() {
    let server = Server::start().await;
    server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "client_id=tab&from=oldest").await;
    let all = next_events(&mut socket, 5).await;
    ack(&mut socket, &all[3]).await;
    ack(&mut socket, &all[1]).await;
    let other = json!({"epoch": "00000000000000ab", "offset": all[4]["offset"]});
    ack(&mut socket, &other).await;
    assert_eq!(heard(&mut socket).await, [] as [&str; 0]);
    let want = all[3]["offset"].as_u64().unwrap();
    assert_eq!(acked(&server, "alice", "tab").await, want);
    // Also on a connection that only knows less.
    let query = format!("client_id=tab&after={}", wire::position(&all[0]));
    let mut second = Socket::connect(server.http, &token, &query).await;
    second.event().await;
    ack(&mut second, &all[1]).await;
    assert_eq!(heard(&mut second).await, [] as [&str; 0]);
    assert_eq!(acked(&server, "alice", "tab").await, want);
    server.stop().await;
}

#[tokio::test]
async fn an_ack_of_a_former_epoch_does_not_count_where_the_new_one_is_still_to_be_told() {
    let server = Server::start().await;
    server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let token = server.token("alice", "subscribe");
    let query = "client_id=tab&after=00000000000000ab-7";
    let mut socket = Socket::connect(server.http, &token, query).await;
    ack(
        &mut socket,
        &json!({"epoch": "00000000000000ab", "offset": 7}),
    )
    .await;
    assert_eq!(heard(&mut socket).await, [] as [&str; 0]);
    assert_eq!(acked(&server, "alice", "tab").await, 0);
    server.stop().await;
}

#[tokio::test]
async fn an_ack_for_each_of_10_000_replayed_events_is_welcome() {
    const EVENTS: usize = 10_000;
    let server = Server::start().await;
    let token = server.token("alice", "subscribe");
    let note = |n: usize| v1::Event {
        user_id: "alice".to_owned(),
        event_id: format!("note-{n}"),
        payload: Some(Payload::Custom(v1::Custom {
            name: "note".to_owned(),
            data: None,
        })),
        ..Default::default()
    };
    for batch in 0..EVENTS / 1000 {
        let events = (0..1000).map(|n| note(batch * 1000 + n)).collect();
        server.emit_all("agents", events).await;
    }
    let mut socket = Socket::connect(server.http, &token, "client_id=tab&from=oldest").await;
    let mut last = 0;
    for _ in 0..EVENTS {
        let event = socket.event().await;
        last = event["offset"].as_u64().unwrap();
        ack(&mut socket, &event).await;
    }
    assert_eq!(heard(&mut socket).await, Vec::<String>::new());
    assert_eq!(acked(&server, "alice", "tab").await, last);
    server.stop().await;
}

#[tokio::test]
async fn acks_beyond_one_for_each_frame_count_as_frames() {
    let server = Server::start().await;
    let token = server.token("alice", "subscribe");
    server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let mut socket = Socket::connect(server.http, &token, "client_id=tab&from=oldest").await;
    let events = next_events(&mut socket, 5).await;
    socket.frame_of("connection_caught_up").await;
    // 7 frames were sent; a heartbeat may come between, and the limiter may let some more pass.
    for _ in 0..1000 {
        let ack =
            json!({"type": "ack", "epoch": events[0]["epoch"], "offset": events[0]["offset"]});
        let sent = socket.0.send(Message::text(ack.to_string())).await;
        if sent.is_err() {
            break;
        }
    }
    let closing = socket.frame_of("connection_closing").await;
    assert_eq!(closing["reason"], "TOO_MANY_FRAMES", "{closing}");
    server.stop().await;
}

#[tokio::test]
async fn an_ack_that_makes_no_sense_is_an_error_and_the_socket_lives() {
    let server = Server::start().await;
    let token = server.token("alice", "subscribe");
    let receipts = server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let last = receipts.last().unwrap().position.clone().unwrap();
    let mut socket = Socket::connect(server.http, &token, "client_id=tab&from=oldest").await;
    next_events(&mut socket, 5).await;
    let beyond = json!({"epoch": last.epoch, "offset": last.offset + 1});
    ack(&mut socket, &beyond).await;
    let ahead = heard(&mut socket).await;
    assert!(ahead.len() == 1 && ahead[0].contains("beyond"), "{ahead:?}");
    for (nonsense, field) in [
        (json!({"type": "ack"}), "`epoch` is missing"),
        (
            json!({"type": "ack", "epoch": last.epoch}),
            "`offset` is missing",
        ),
        (
            json!({"type": "ack", "epoch": "x", "offset": last.offset}),
            "`epoch`: \"x\" is not an epoch",
        ),
        (
            json!({"type": "ack", "epoch": last.epoch, "offset": -1}),
            "`offset`: -1 is not an offset",
        ),
        (
            json!({"type": "ack", "epoch": last.epoch, "offset": "1"}),
            "`offset`: \"1\" is not an offset",
        ),
        (
            json!({"type": "ack", "epoch": last.epoch, "offset": 1.0}),
            "`offset`: 1.0 is not an offset",
        ),
    ] {
        say(&mut socket, nonsense.clone()).await;
        let errors = heard(&mut socket).await;
        assert!(
            errors.len() == 1 && errors[0].starts_with(field),
            "{nonsense}: {errors:?}"
        );
    }
    let mut nameless = Socket::connect(server.http, &token, "from=oldest").await;
    let seen = next_events(&mut nameless, 5).await;
    ack(&mut nameless, &seen[0]).await;
    let unnamed = heard(&mut nameless).await;
    assert!(
        unnamed.len() == 1 && unnamed[0].contains("client_id"),
        "{unnamed:?}"
    );
    // Both read on, and nothing was acknowledged.
    server.start_runs("alice", &["run-2"]).await;
    assert_eq!(socket.event().await["run_id"], "run-2");
    assert_eq!(nameless.event().await["run_id"], "run-2");
    assert_eq!(acked(&server, "alice", "tab").await, 0);
    server.stop().await;
}

#[tokio::test]
async fn the_client_that_acknowledged_longest_ago_makes_room_for_the_seventeenth() {
    let server = Server::start().await;
    server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let token = server.token("alice", "subscribe");
    let mut last = 0;
    // The first acknowledges again before the last one comes, so the second is the one.
    for client in (0..16).chain([0, 16]) {
        let query = format!("client_id=tab-{client}&from=oldest");
        let mut socket = Socket::connect(server.http, &token, &query).await;
        let all = next_events(&mut socket, 5).await;
        ack(&mut socket, &all[4]).await;
        assert_eq!(heard(&mut socket).await, [] as [&str; 0]);
        last = all[4]["offset"].as_u64().unwrap();
    }
    for client in 0..17 {
        let want = if client == 1 { 0 } else { last };
        let begins = acked(&server, "alice", &format!("tab-{client}")).await;
        assert_eq!(begins, want, "tab-{client}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_acked_position_that_was_trimmed_is_told_as_a_gap() {
    let server = Server::start_with(|settings| settings.retention.events = 10).await;
    server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "client_id=tab&from=oldest").await;
    let first = socket.event().await;
    ack(&mut socket, &first).await;
    assert_eq!(heard(&mut socket).await, [] as [&str; 0]);
    for run in ["run-2", "run-3", "run-4"] {
        server
            .emit_all("agents", wire::whole_run("alice", run))
            .await;
    }
    let mut socket = Socket::connect(server.http, &token, "client_id=tab&from=acked").await;
    assert_eq!(socket.frame().await["position"], wire::position(&first));
    let gap = socket.frame().await;
    assert_eq!(
        (&gap["type"], &gap["reason"]),
        (&json!("connection_gap"), &json!("trimmed"))
    );
    assert_eq!(socket.event().await["event_id"], "run-3-1");
    server.stop().await;
}

#[tokio::test]
async fn an_acked_position_of_another_epoch_is_told_as_a_gap() {
    let (memory, clock) = events::memory(memory::Config::default());
    let engine = EpochEngine::new(memory);
    let server = start_on(engine.clone(), clock).await;
    server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "client_id=tab&from=oldest").await;
    let first = socket.event().await;
    ack(&mut socket, &first).await;
    assert_eq!(heard(&mut socket).await, [] as [&str; 0]);
    drop(socket);
    engine.change(Epoch::new(0xe2));
    let mut socket = Socket::connect(server.http, &token, "client_id=tab&from=acked").await;
    let gap = socket.frame_of("connection_gap").await;
    assert_eq!(gap["reason"], "epoch_changed");
    assert_eq!(gap["after"], wire::position(&first));
    server.stop().await;
}

#[tokio::test]
async fn acked_needs_a_client_that_names_itself() {
    let server = Server::start_with(|settings| settings.origins = vec!["https://app".into()]).await;
    let token = server.token("alice", "subscribe");
    let headers = [
        ("authorization", format!("Bearer {token}")),
        ("origin", "https://app".into()),
    ];
    let long = format!("client_id={}", "x".repeat(129));
    for query in ["from=acked", "from=acked&client_id=", &long] {
        let mut socket = Socket::open(server.http, query, &headers).await.unwrap();
        assert_eq!(socket.closed().await, 4501, "?{query}");
    }
    let mut client = server.subscriber().await;
    let request = SubscribeRequest {
        start: Some(Start::From(StartFrom::Acked.into())),
        ..Default::default()
    };
    let refused = client.subscribe(wire::with_token(&token, request)).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::InvalidArgument);
    server.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_before_the_drain_is_stored_when_it_is_over() {
    let (engine, clock) = events::memory(memory::Config::default());
    let server = start_on(engine.clone(), clock.clone()).await;
    server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "client_id=tab&from=oldest").await;
    let all = next_events(&mut socket, 5).await;
    ack(&mut socket, &all[0]).await;
    assert_eq!(heard(&mut socket).await, [] as [&str; 0]);
    // The first is stored at once, the second only a second later.
    ack(&mut socket, &all[4]).await;
    assert_eq!(heard(&mut socket).await, [] as [&str; 0]);
    // The client takes note of the end at once: nothing but the acknowledgement takes time.
    let (_, code) = tokio::join!(server.stop(), async {
        let code = socket.closed().await;
        drop(socket);
        code
    });
    assert_eq!(code, 4001);
    let hub = Hub::new(engine, Config::default(), clock, events::metrics());
    let client = ClientId::new("tab").unwrap();
    let stored = hub
        .acks()
        .of_client(&events::stream("alice"), &client)
        .await;
    let stored = stored.unwrap().map(|position| position.to_string());
    assert_eq!(stored, Some(wire::position(&all[4])));
}
