//! Tool calls that have one id, as some providers give it to all calls of a step.

use emitter::proto::v1::{
    self, SubscribeRequest, ToolCompleted, ToolExecuting, ToolProgress, emit_result::Outcome,
    event::Payload, subscribe_request::Start, tool_executing::Input,
};
use serde_json::{Value, json};

use super::{
    server::Server,
    wire::{self, Grpc, Socket},
};

/// The name of a tool, which the provider uses as the id of each of its calls.
const TOOL: &str = "create_document";

fn begins(id: &str, arguments: &str) -> v1::Event {
    let payload = Payload::ToolExecuting(ToolExecuting {
        tool_call_id: TOOL.into(),
        tool_name: TOOL.into(),
        input: Some(Input::ParametersJson(arguments.into())),
        // Output only.
        call_sequence: Some(77),
        ..Default::default()
    });
    wire::event("alice", "r", id, payload)
}

fn ends(id: &str, call_sequence: Option<u64>) -> v1::Event {
    let payload = Payload::ToolCompleted(ToolCompleted {
        tool_call_id: TOOL.into(),
        call_sequence,
        ..Default::default()
    });
    wire::event("alice", "r", id, payload)
}

fn advances(id: &str, call_sequence: Option<u64>) -> v1::Event {
    let payload = Payload::ToolProgress(ToolProgress {
        tool_call_id: TOOL.into(),
        fraction: Some(0.5),
        call_sequence,
        ..Default::default()
    });
    wire::event("alice", "r", id, payload)
}

/// How each event is answered: `stored`, or the reason of its refusal.
async fn answers(server: &Server, events: Vec<v1::Event>) -> Vec<String> {
    let results = server.try_emit("agents", events).await;
    let word = |result: v1::EmitResult| match result.outcome.unwrap() {
        Outcome::Receipt(_) => "stored".to_owned(),
        Outcome::Refusal(refusal) => refusal.reason,
    };
    results.into_iter().map(word).collect()
}

/// The calls that the frames of these events name, over WebSocket.
async fn in_frames(server: &Server, ids: &[&str]) -> Vec<Value> {
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "from=oldest").await;
    let mut calls = Vec::new();
    while calls.len() < ids.len() {
        let frame = socket.event().await;
        if ids.contains(&frame["event_id"].as_str().unwrap()) {
            assert_eq!(frame["payload"]["tool_call_id"], TOOL, "{frame}");
            calls.push(frame["payload"]["call_sequence"].clone());
        }
    }
    calls
}

/// The same over gRPC.
async fn in_records(server: &Server, ids: &[&str]) -> Vec<Option<u64>> {
    let token = server.token("alice", "subscribe");
    let request = SubscribeRequest {
        start: Some(Start::From(v1::StartFrom::Oldest.into())),
        ..Default::default()
    };
    let mut grpc = Grpc::open(server, &token, request).await;
    let mut calls = Vec::new();
    while calls.len() < ids.len() {
        let event = grpc.event().await;
        if ids.contains(&event.event_id.as_str()) {
            calls.push(match event.payload.unwrap() {
                Payload::ToolExecuting(tool) => tool.call_sequence,
                Payload::ToolProgress(tool) => tool.call_sequence,
                Payload::ToolCompleted(tool) => tool.call_sequence,
                other => panic!("{other:?}"),
            });
        }
    }
    calls
}

#[tokio::test]
async fn four_calls_under_one_id_are_four_calls() {
    let server = Server::start().await;
    server.start_runs("alice", &["r"]).await;
    let events = vec![
        begins("b2", r#"{"title": "one"}"#),
        begins("b3", r#"{"title": "two"}"#),
        begins("b4", r#"{"title": "three"}"#),
        begins("b5", r#"{"title": "four"}"#),
        // A step that is executed again after a crash: the same value, written otherwise.
        begins("b6", "{\"title\":\"\\u0074wo\"}"),
        advances("p7", None),
        advances("p8", Some(4)),
    ];
    let stored = vec!["stored"; events.len()];
    assert_eq!(answers(&server, events).await, stored);

    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "").await;
    let open = socket.frame().await["open_runs"][0]["open_tool_calls"].clone();
    let open: Vec<_> = open.as_array().unwrap().iter().collect();
    let sequences: Vec<_> = open.iter().map(|call| &call["call_sequence"]).collect();
    assert_eq!(sequences, [2, 3, 4, 5], "{open:?}");

    let events = vec![
        ends("e9", Some(4)),
        ends("e10", Some(4)),
        ends("e11", None),
        ends("e12", None),
        ends("e13", None),
        ends("e14", None),
    ];
    let unknown = "TOOL_CALL_UNKNOWN";
    let want = ["stored", unknown, "stored", "stored", "stored", unknown];
    assert_eq!(answers(&server, events).await, want);

    let ids = [
        "b2", "b3", "b4", "b5", "b6", "p7", "p8", "e9", "e11", "e12", "e13",
    ];
    let want = [2, 3, 4, 5, 3, 2, 4, 4, 2, 3, 5];
    assert_eq!(json!(in_frames(&server, &ids).await), json!(want));
    assert_eq!(in_records(&server, &ids).await, want.map(Some));
    server.stop().await;
}

#[tokio::test]
async fn progress_of_a_call_that_is_not_open_names_none() {
    let server = Server::start().await;
    server.start_runs("alice", &["r"]).await;
    let events = vec![advances("p2", None), advances("p3", Some(2))];
    assert_eq!(answers(&server, events).await, ["stored", "stored"]);
    let ids = ["p2", "p3"];
    assert_eq!(json!(in_frames(&server, &ids).await), json!([null, null]));
    assert_eq!(in_records(&server, &ids).await, [None, None]);
    server.stop().await;
}
