//! Every example of `proto/asyncapi.json`, replayed: what the server sends and takes is what the document shows.
//!
//! Nothing is set aside but what is random or secret: the `connection_id` of `connection_established`, and the `token`
//! of `authenticate`.

mod story;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use emitter::{
    app::Environment,
    clock::{Clock, Entropy, Timestamp},
    config::Settings,
    engine::memory,
    event::Epoch,
    proto::v1,
};
use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{
    server::Server,
    wire::{self, Socket},
};
use crate::support::{
    asyncapi::{DOCUMENT, members},
    epoch_engine::EpochEngine,
    events,
};

/// 2026-11-21T10:00:00Z.
const BEGIN: Timestamp = Timestamp::from_millis(1_795_255_200_000);

/// The examples' epoch.
const EPOCH: Epoch = Epoch::new(0x4091_b7a2_8218_fb4e);

/// The examples that have not been seen yet, by their names.
struct Examples(BTreeMap<&'static str, Value>);

impl Examples {
    fn all() -> Self {
        let messages = members(&DOCUMENT["components"]["messages"]).values();
        let mut all = BTreeMap::new();
        for example in messages.flat_map(|message| message["examples"].as_array().unwrap()) {
            let name = example["name"].as_str().unwrap();
            let twice = all.insert(name, example["payload"].clone());
            assert!(twice.is_none(), "two examples have the name {name:?}");
        }
        Self(all)
    }

    fn take(&mut self, name: &str) -> Value {
        let example = self.0.remove(name);
        example.unwrap_or_else(|| panic!("no example {name:?} is left"))
    }

    fn seen(&mut self, name: &str, frame: &Value) {
        let example = self.take(name);
        assert_eq!(*frame, example, "{name}: {frame:#} is not {example:#}");
    }

    /// Takes the example with this event, if there is one.
    fn seen_event(&mut self, frame: &Value) {
        let of_event = |example: &Value| example["event_id"] == frame["event_id"];
        let found = self.0.iter().find(|(_, example)| of_event(example));
        if let Some((name, _)) = found {
            let name = *name;
            self.seen(name, frame);
        }
    }
}

#[tokio::test]
async fn every_example_is_what_the_server_sends_or_takes() {
    let mut examples = Examples::all();
    events_of_a_story(&mut examples).await;
    joined_deltas(&mut examples).await;
    heartbeat(&mut examples).await;
    trimmed(&mut examples).await;
    conversation(&mut examples).await;
    let left: Vec<_> = examples.0.keys().collect();
    assert!(left.is_empty(), "these were not replayed: {left:?}");
}

/// A server whose user `u1` has seen the first `events` of the story.
async fn told(events: usize, bounds: memory::Config, change: impl FnOnce(&mut Settings)) -> Server {
    let (memory, clock) = events::memory(bounds);
    clock.set(BEGIN);
    let engine = EpochEngine::new(memory);
    engine.change(EPOCH);
    let server = start(engine, clock, change).await;
    for (millis, event) in story::events().into_iter().take(events) {
        emit(&server, millis, event).await;
    }
    server
}

async fn start(
    engine: Arc<EpochEngine>,
    clock: Clock,
    change: impl FnOnce(&mut Settings),
) -> Server {
    let environment = Environment {
        clock,
        entropy: Entropy::system(),
        engine: Some(engine),
    };
    Server::start_in(environment, change).await
}

/// Emits `event` at that many milliseconds after the beginning.
async fn emit(server: &Server, millis: u64, event: v1::Event) {
    server.clock.set(BEGIN + Duration::from_millis(millis));
    server.emit_all("agents", vec![event]).await;
}

async fn connect(server: &Server, query: &str) -> Socket {
    Socket::connect(server.http, &server.token("u1", "subscribe"), query).await
}

async fn say(socket: &mut Socket, message: &Value) {
    let message = Message::text(message.to_string());
    socket.0.send(message).await.unwrap();
}

async fn events_of_a_story(examples: &mut Examples) {
    let server = told(usize::MAX, memory::Config::default(), |_| {}).await;
    let mut socket = connect(&server, "from=oldest").await;
    loop {
        let frame = socket.frame().await;
        if frame["type"] == "connection_caught_up" {
            break;
        }
        if !wire::is_control(&frame) {
            examples.seen_event(&frame);
        }
    }
    server.stop().await;
}

/// A reader lags that has 64 events to read.
async fn joined_deltas(examples: &mut Examples) {
    let server = told(0, memory::Config::default(), |_| {}).await;
    for n in 0..64 {
        emit(&server, 0, story::note(&format!("n{n}"))).await;
    }
    for (millis, event) in story::deltas() {
        emit(&server, millis, event).await;
    }
    let mut socket = connect(&server, "from=oldest&types=text_delta").await;
    examples.seen("text_delta, joined", &socket.event().await);
    server.stop().await;
}

async fn heartbeat(examples: &mut Examples) {
    let quick = |settings: &mut Settings| settings.limits.heartbeat = Duration::from_millis(400);
    let server = told(4, memory::Config::default(), quick).await;
    let mut socket = connect(&server, "").await;
    let frame = socket.frame_of("connection_heartbeat").await;
    examples.seen("connection_heartbeat", &frame);
    server.stop().await;
}

async fn trimmed(examples: &mut Examples) {
    let bounds = memory::Config {
        retention_records: 11,
        ..memory::Config::default()
    };
    let server = told(18, bounds, |_| {}).await;
    let mut socket = connect(&server, "after=4091b7a28218fb4e-1").await;
    let gap = socket.frame_of("connection_gap").await;
    examples.seen("connection_gap, trimmed", &gap);
    server.stop().await;
}

/// What else is said on a connection, by either side.
async fn conversation(examples: &mut Examples) {
    let server = told(4, memory::Config::default(), |settings| {
        settings.limits.reconnect_least = Duration::from_millis(1500);
        settings.limits.reconnect_most = Duration::from_millis(1500);
    })
    .await;
    let mut socket = connect(&server, "client_id=tab").await;
    let mut established = socket.frame().await;
    let example = &examples.0["connection_established"];
    established["connection_id"] = example["connection_id"].clone();
    examples.seen("connection_established", &established);
    examples.seen("connection_caught_up", &socket.frame().await);

    for (query, example) in [
        ("after=00000000000000ab-7", "connection_gap, epoch_changed"),
        (
            "after=4091b7a28218fb4e-1000",
            "connection_gap, position_ahead",
        ),
    ] {
        let mut socket = connect(&server, query).await;
        examples.seen(example, &socket.frame_of("connection_gap").await);
    }

    // Only the second is objected to.
    say(&mut socket, &examples.take("ack")).await;
    say(&mut socket, &json!({"type": "unheard of"})).await;
    examples.seen("connection_error", &socket.frame().await);
    let mut newer = connect(&server, "client_id=tab&from=acked").await;
    assert_eq!(newer.frame().await["position"], established["position"]);
    examples.seen("connection_closing, do not", &socket.frame().await);
    expires(&server, examples).await;

    let mut socket = connect(&server, "").await;
    socket.frame_of("connection_caught_up").await;
    let (closing, ()) = tokio::join!(
        async move { socket.frame_of("connection_closing").await },
        async move {
            drop(newer);
            server.stop().await;
        }
    );
    examples.seen("connection_closing, come back", &closing);
}

/// A credential that ends, and is renewed in time.
async fn expires(server: &Server, examples: &mut Examples) {
    let minutes = Duration::from_secs(600);
    let token = server.token_for("u1", "subscribe", minutes);
    let mut socket = Socket::connect(server.http, &token, "").await;
    socket.frame_of("connection_caught_up").await;
    server.clock.set(BEGIN + Duration::from_secs(541));
    let expiring = socket.frame().await;
    examples.seen("connection_token_expiring", &expiring);

    let mut renewal = examples.take("authenticate");
    renewal["token"] = server.token_for("u1", "subscribe", minutes).into();
    say(&mut socket, &renewal).await;
    // Once this is objected to, the renewal was heard.
    say(&mut socket, &json!({"type": "unheard of"})).await;
    socket.frame_of("connection_error").await;
    // Far beyond the end of the first token, the connection lives to be told of the second one's.
    server.clock.set(BEGIN + Duration::from_secs(1100));
    socket.frame_of("connection_token_expiring").await;
}
