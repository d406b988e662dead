//! A store that does not answer: readers hear heartbeats for a while, and are then told to come back.

use std::time::{Duration, Instant};

use emitter::{
    app::Environment,
    clock::Entropy,
    engine::memory,
    proto::v1::{StartFrom, SubscribeRequest, subscribe_request::Start},
};
use tonic::Code;

use super::{
    server::Server,
    wire::{self, Grpc, PATIENCE, Socket},
};
use crate::support::{
    events,
    faulty_engine::{FaultyEngine, Odds},
};

/// Longer than a session goes without looking at the clock.
const TIMEOUT: Duration = Duration::from_millis(1_500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_holds_no_reader_for_ever() {
    let (memory, clock) = events::memory(memory::Config::default());
    let engine = FaultyEngine::new(memory, 1);
    let environment = Environment {
        clock,
        entropy: Entropy::system(),
        engine: Some(engine.clone()),
    };
    let server = Server::start_in(environment, |settings| {
        settings.limits.engine_timeout = TIMEOUT;
        settings.limits.heartbeat = Duration::from_millis(400);
    })
    .await;
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "").await;
    socket.frame_of("connection_caught_up").await;
    // It is read all the time: who answers no ping is taken for gone.
    let socket = tokio::spawn(async move {
        socket.frame_of("connection_heartbeat").await;
        socket.closed().await
    });
    let request = || SubscribeRequest {
        start: Some(Start::From(StartFrom::Head.into())),
        ..Default::default()
    };
    let mut grpc = Grpc::open(&server, &token, request()).await;
    grpc.established().await;
    // What they are to be told next is only in the store.
    engine.set_odds(Odds {
        lost_hint: 1.0,
        ..Odds::default()
    });
    server.start_runs("alice", &["run-1"]).await;
    let began = Instant::now();
    engine.hold_calls(true);
    engine.tell_heads().await;
    let closed = async { (socket.await.unwrap(), grpc.closed().await) };
    let closed = tokio::time::timeout(PATIENCE, closed).await;
    let (socket_code, (closing, code)) = closed.expect("they hear heartbeats for ever");
    assert_eq!(socket_code, 4004);
    assert_eq!(
        (closing.reason.as_str(), code),
        ("ENGINE_UNAVAILABLE", Code::Unavailable)
    );
    assert!(began.elapsed() >= TIMEOUT, "{:?}", began.elapsed());
    // Whoever comes meanwhile is refused in time, too.
    let began = Instant::now();
    let mut client = server.subscriber().await;
    let refused = client.subscribe(wire::with_token(&token, request()));
    let refused = tokio::time::timeout(PATIENCE, refused).await;
    let refused = refused.expect("an answer");
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    assert!(began.elapsed() >= TIMEOUT, "{:?}", began.elapsed());
    engine.hold_calls(false);
    let mut again = Socket::connect(server.http, &token, "from=oldest").await;
    assert_eq!(again.event().await["run_id"], "run-1");
    server.stop().await;
}
