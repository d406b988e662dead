//! Events that stand in a thread, and in no run.

use emitter::proto::v1::{
    self, PatchOp, emit_result::Outcome, event::Payload, subscribe_response::Item,
};

use super::{
    server::Server,
    wire::{self, Grpc, Socket},
};

/// An event of `alice` in `thread`, without a run.
fn event(thread: &str, id: &str, payload: Payload) -> v1::Event {
    v1::Event {
        thread_id: thread.into(),
        ..wire::event("alice", "", id, payload)
    }
}

fn payloads() -> [(&'static str, Payload); 3] {
    let message = v1::Message {
        role: "user".into(),
        text: "Hello".into(),
        ..Default::default()
    };
    let snapshot = v1::StateSnapshot {
        snapshot: Some(1.0.into()),
    };
    let operation = v1::PatchOperation {
        op: PatchOp::Replace.into(),
        value: Some(2.0.into()),
        ..Default::default()
    };
    let delta = v1::StateDelta {
        operations: vec![operation],
    };
    [
        ("message", Payload::Message(message)),
        ("state_snapshot", Payload::StateSnapshot(snapshot)),
        ("state_delta", Payload::StateDelta(delta)),
    ]
}

#[tokio::test]
async fn messages_and_states_may_stand_in_a_thread_without_a_run() {
    let server = Server::start().await;
    let events = payloads().map(|(id, payload)| event("t1", id, payload));
    server.emit_all("agents", events.into()).await;
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "from=oldest&thread_id=t1").await;
    let request = v1::SubscribeRequest {
        start: Some(v1::subscribe_request::Start::From(
            v1::StartFrom::Oldest.into(),
        )),
        ..Default::default()
    };
    let mut reader = Grpc::open(&server, &token, request).await;
    reader.established().await;
    for (wire_type, _) in payloads() {
        let frame = socket.event().await;
        assert_eq!(frame["type"], wire_type, "{frame}");
        assert_eq!(frame["thread_id"], "t1", "{frame}");
        assert!(frame["run_id"].is_null(), "{frame}");
        // For readers whose stubs lack the arm.
        let Ok(Item::Event(recorded)) = reader.next().await else {
            panic!("no event");
        };
        assert_eq!(recorded.r#type, wire_type, "{recorded:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn without_a_thread_they_need_a_run() {
    let server = Server::start().await;
    let thought = event("t1", "thought", wire::thinking("hm"));
    let events = payloads().map(|(id, payload)| event("", id, payload));
    for event in events.into_iter().chain([thought]) {
        let results = server.try_emit("agents", vec![event.clone()]).await;
        match &results[0].outcome {
            Some(Outcome::Refusal(refused)) => {
                assert_eq!(refused.reason, "INVALID_EVENT", "{refused:?}");
                assert_eq!(
                    refused.violations[0].field, "events[0].run_id",
                    "{refused:?}"
                );
            }
            other => panic!("{event:?}: {other:?}"),
        }
    }
    server.stop().await;
}
