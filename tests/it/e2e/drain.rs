//! The end of the process: nothing under way is lost, and readers are sent away.

use std::{future::Future, sync::Arc, time::Duration};

use emitter::{
    engine::{Engine, memory::MemoryEngine},
    proto::v1::{self, SubscribeRequest, subscribe_response::Item},
    run::RunState,
};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Error;
use tonic::{Response, Status, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt;

use super::{
    server::Server,
    wire::{self, PATIENCE, Socket},
};
use crate::{
    processes::tools::until,
    support::{
        events::{run_id, stream},
        faulty_engine::FaultyEngine,
    },
};

#[tokio::test]
async fn readers_are_told_when_to_come_back_and_everything_stops() {
    let server = Server::start().await;
    let token = server.token("alice", "subscribe");
    let mut sockets = Vec::new();
    for _ in 0..10 {
        let mut socket = Socket::connect(server.http, &token, "").await;
        socket.frame_of("connection_caught_up").await;
        sockets.push(socket);
    }
    let mut client = server.subscriber().await;
    let request = wire::with_token(&token, SubscribeRequest::default());
    let mut stream = client.subscribe(request).await.unwrap().into_inner();
    server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;

    let (grpc, http) = (server.grpc, server.http);
    let stopping = tokio::spawn(server.stop());
    let mut times = Vec::new();
    for socket in &mut sockets {
        for n in 1..=5 {
            assert_eq!(socket.event().await["event_id"], format!("run-1-{n}"));
        }
        let closing = socket.frame_of("connection_closing").await;
        assert_eq!(closing["reason"], "DRAINING");
        times.push(closing["reconnect_after_ms"].as_u64().unwrap());
        assert_eq!(socket.closed().await, 4001);
    }
    times.sort_unstable();
    times.dedup();
    assert!(
        times.len() > 5,
        "all are told to come back at once: {times:?}"
    );

    let mut closing = None;
    let status = loop {
        match stream.message().await {
            Ok(message) => closing = message.expect("a status").item,
            Err(status) => break status,
        }
    };
    assert!(
        matches!(&closing, Some(Item::Closing(closing)) if closing.reason == "DRAINING"),
        "{closing:?}"
    );
    assert_eq!(
        status.get_error_details().error_info().unwrap().reason,
        "DRAINING"
    );
    stopping.await.unwrap();
    for address in [grpc, http] {
        assert!(
            tokio::net::TcpStream::connect(address).await.is_err(),
            "{address} still listens"
        );
    }
}

/// A server over an engine that can be held, which drains for `drain` at most. Alice's `run-1` and bob's `run-2` are open.
async fn start(drain: Duration) -> (Server, Arc<FaultyEngine>, Arc<MemoryEngine>) {
    let (server, engine, memory) = Server::start_held(drain).await;
    server.start_runs("alice", &["run-1"]).await;
    server.start_runs("bob", &["run-2"]).await;
    (server, engine, memory)
}

/// Drains `server`, which does not come to its end before `engine` is released: an emit is under way. What waits for both.
async fn drain(server: Server, engine: &FaultyEngine) -> impl Future<Output = ()> {
    let admin = server.admin;
    let (emitting, stopping) = held_up(server, engine).await;
    until("it drains", async || {
        super::http::get(admin, "/readyz").await.0 == 503
    })
    .await;
    async {
        let ended = async { (emitting.await.unwrap(), stopping.await.unwrap()) };
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        let (emitted, ()) = ended.expect("it goes on without end");
        emitted.expect("what was under way is stored");
    }
}

type Emitting = JoinHandle<Result<Response<v1::EmitResponse>, Status>>;

/// An emit that `engine` holds, and the drain of `server`, which waits for it.
async fn held_up(server: Server, engine: &FaultyEngine) -> (Emitting, JoinHandle<()>) {
    engine.hold();
    let mut client = wire::emitter(server.grpc).await;
    let request = v1::EmitRequest {
        event: Some(wire::started("carol", "run-3")),
    };
    let request = wire::with_token(&server.token("agents", "emit"), request);
    let emitting = tokio::spawn(async move { client.emit(request).await });
    until("the append", async || engine.waiting() == 1).await;
    (emitting, tokio::spawn(server.stop()))
}

/// A test that ends by itself ends long before.
const LONG: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_is_held_up_ends_at_its_deadline() {
    let (server, engine, _) = start(Duration::from_secs(2)).await;
    let (emitting, stopping) = held_up(server, &engine).await;
    let stopped = tokio::time::timeout(PATIENCE, stopping).await;
    stopped.expect("it goes on without end").unwrap();
    assert_eq!(engine.waiting(), 1, "the emit held it up to the end");
    assert!(!emitting.is_finished(), "nobody answered it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_work_is_refused_as_draining_while_an_emit_is_under_way() {
    let (server, engine, _) = start(LONG).await;
    let reader = server.token("alice", "subscribe");
    let token = server.token("agents", "emit");
    let (grpc, http, admin) = (server.grpc, server.http, server.admin);
    let mut client = wire::emitter(grpc).await;
    let endpoint = Endpoint::from_shared(format!("http://{grpc}")).unwrap();
    let mut health = HealthClient::new(endpoint.connect().await.unwrap());
    let drained = drain(server, &engine).await;

    let event = wire::event("bob", "run-2", "b1", wire::thinking("x"));
    let request = v1::EmitRequest { event: Some(event) };
    let emit = client.emit(wire::with_token(&token, request));
    let answered = tokio::time::timeout(PATIENCE, emit).await;
    let status = answered.expect("it waits").expect_err("it was taken");
    let details = status.get_error_details();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    assert_eq!(details.error_info().unwrap().reason, "DRAINING");
    assert!(details.retry_info().is_some());
    for service in ["", "emitter.v1.EventEmitter", "emitter.v1.EventSubscriber"] {
        let request = || HealthCheckRequest {
            service: service.into(),
        };
        // It is told a moment later.
        until("it is not serving", async || {
            let checked = health.check(request()).await.unwrap();
            checked.into_inner().status() == ServingStatus::NotServing
        })
        .await;
    }
    assert_eq!(super::http::get(admin, "/healthz").await.0, 200);
    let headers = [("authorization", format!("Bearer {reader}"))];
    match Socket::open(http, "", &headers).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), 503),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("connected"),
    }
    assert_eq!(super::http::get(admin, "/readyz").await.0, 503);
    engine.release();
    drained.await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_run_is_ended_for_its_silence_while_nothing_is_taken_in() {
    let (server, engine, memory) = start(LONG).await;
    let clock = server.clock.clone();
    let drained = drain(server, &engine).await;
    let (appends, upkeeps) = (engine.appends(), engine.upkeeps());
    // Both runs are due from now on, and the watchdog would look as often as the upkeep is done.
    clock.advance(Duration::from_secs(20 * 60));
    until("the upkeep", async || engine.upkeeps() >= upkeeps + 3).await;
    assert_eq!(engine.appends(), appends, "a verdict");
    engine.release();
    drained.await;
    for (user, run) in [("alice", "run-1"), ("bob", "run-2")] {
        let run = memory.run(&stream(user), &run_id(run)).await;
        assert_eq!(run.unwrap().unwrap().state, RunState::Running, "{user}");
    }
}

#[tokio::test]
async fn health_and_metrics_are_served_to_operators() {
    let server = Server::start().await;
    assert_eq!(server.admin("/healthz").await.0, 200);
    let (status, body) = server.admin("/readyz").await;
    assert_eq!(status, 200, "{body}");
    server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let invalid = v1::Event::default();
    server.try_emit("agents", vec![invalid]).await;
    assert_eq!(server.metric("emitter_events_emitted_total").await, 5.0);
    let refused = "emitter_events_refused_total{reason=\"INVALID_EVENT\"}";
    assert_eq!(server.metric(refused).await, 1.0);
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "from=oldest").await;
    socket.frame_of("connection_caught_up").await;
    assert_eq!(server.metric("emitter_websocket_connections").await, 1.0);
    assert_eq!(server.metric("emitter_events_sent_total").await, 5.0);
    // Those were read back; how long delivery takes is told of live events only.
    let delivered = "emitter_delivery_seconds_count";
    assert_eq!(server.metric(delivered).await, 0.0);
    server
        .emit_all("agents", wire::whole_run("alice", "run-2"))
        .await;
    assert_eq!(socket.event().await["event_id"], "run-2-1");
    for name in [
        delivered,
        "emitter_append_seconds_count",
        "emitter_reader_lag_records_count",
    ] {
        assert!(server.metric(name).await > 0.0, "{name}");
    }
    server.stop().await;
}
