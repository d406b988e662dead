//! A call that runs out of time says what became of its events.

use std::{sync::Arc, time::Duration};

use emitter::{
    app::Environment,
    clock::{Clock, Entropy, Timestamp},
    config::Settings,
    engine::memory::{self, MemoryEngine},
    proto::v1::{EmitRequest, Event, Message, event::Payload},
};
use prost::Message as _;
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{
    server::Server,
    wire::{self, PATIENCE},
};
use crate::support::{events::metrics, faulty_engine::FaultyEngine};

const TIMEOUT: Duration = Duration::from_secs(2);

async fn server(change: impl FnOnce(&mut Settings)) -> (Server, Arc<FaultyEngine>) {
    let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
    let entropy = Entropy::seeded(1);
    let config = memory::Config::default();
    let memory = MemoryEngine::new(config, clock.clone(), &entropy, metrics());
    let engine = FaultyEngine::new(memory, 1);
    let environment = Environment {
        clock,
        entropy,
        engine: Some(engine.clone()),
    };
    let server = Server::start_in(environment, change).await;
    server.start_runs("alice", &["r1"]).await;
    (server, engine)
}

fn request() -> EmitRequest {
    EmitRequest {
        event: Some(Event {
            event_id: "e1".into(),
            user_id: "alice".into(),
            run_id: "r1".into(),
            payload: Some(Payload::Message(Message::default())),
            ..Event::default()
        }),
    }
}

/// What an emit is answered with whose caller waits no longer than `TIMEOUT`. The caller has no timer of its own, as
/// every stub has: that may be first on a busy machine.
async fn timed(server: &Server) -> Status {
    let tcp = TcpStream::connect(server.grpc).await.unwrap();
    let (h2, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    let token = server.token("agents", "emit");
    let call = http::Request::post(format!(
        "http://{}/emitter.v1.EventEmitter/Emit",
        server.grpc
    ))
    .header("content-type", "application/grpc")
    .header("authorization", format!("Bearer {token}"))
    .header("grpc-timeout", format!("{}m", TIMEOUT.as_millis()))
    .body(())
    .unwrap();
    let (answer, mut body) = h2.ready().await.unwrap().send_request(call, false).unwrap();
    let message = request().encode_to_vec();
    let length = (message.len() as u32).to_be_bytes();
    let framed = [&[0], &length[..], &message].concat();
    body.send_data(framed.into(), true).unwrap();
    let headers = answer.await.unwrap();
    Status::from_header_map(headers.headers()).expect("a refusal")
}

fn told(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    let info = details.error_info().expect("ErrorInfo");
    (status.code(), info.reason.clone())
}

#[tokio::test]
async fn a_deadline_that_passes_while_storing_is_told_as_unknown_and_a_retry_finds_the_event() {
    let (server, engine) = server(|_| {}).await;
    let mut client = wire::emitter(server.grpc).await;
    engine.hold();
    let status = timed(&server).await;
    let want = (Code::Unavailable, "OUTCOME_UNKNOWN".to_owned());
    assert_eq!(told(&status), want, "{status:?}");
    assert!(status.get_error_details().retry_info().is_some());

    engine.release();
    let token = server.token("agents", "emit");
    let again = client.emit(wire::with_token(&token, request())).await;
    let again = again.unwrap().into_inner();
    assert!(again.receipt.unwrap().duplicate);
    server.stop().await;
}

#[tokio::test]
async fn a_deadline_that_passes_before_a_call_has_its_turn_is_told_as_such() {
    let (server, engine) = server(|settings| settings.limits.grpc_calls = 1).await;
    engine.hold();
    let mut first = wire::emitter(server.grpc).await;
    let request = wire::with_token(&server.token("agents", "emit"), request());
    let first = tokio::spawn(async move { first.emit(request).await });
    let waits = async {
        while engine.waiting() == 0 {
            tokio::task::yield_now().await;
        }
    };
    let waits = tokio::time::timeout(PATIENCE, waits);
    waits.await.expect("the first append does not come");

    let status = timed(&server).await;
    let want = (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned());
    assert_eq!(told(&status), want, "{status:?}");

    engine.release();
    first.await.unwrap().unwrap();
    server.stop().await;
}
