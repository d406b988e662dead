//! Waits for a person, as producers begin and end them and readers see them.

use std::time::Duration;

use emitter::proto::v1::{
    self, AgentResumed, AgentWaiting, RunState, SubscribeRequest, ToolCompleted, ToolExecuting,
    ToolProgress, emit_result::Outcome, event::Payload, subscribe_request::Start,
    subscribe_response::Item,
};
use serde_json::{Value, json};

use super::{
    server::Server,
    wire::{self, Grpc, Socket},
};

const MINUTE: Duration = Duration::from_secs(60);

fn asks(id: &str, wait: AgentWaiting) -> v1::Event {
    wire::event("alice", "r", id, Payload::AgentWaiting(wait))
}

fn named(wait_id: &str, minutes: i64) -> AgentWaiting {
    AgentWaiting {
        wait_id: wait_id.into(),
        prompt: "Go on?".into(),
        max_wait: Some(prost_types::Duration {
            seconds: 60 * minutes,
            nanos: 0,
        }),
        ..Default::default()
    }
}

fn resumes(id: &str, wait_id: &str) -> v1::Event {
    let payload = Payload::AgentResumed(AgentResumed {
        wait_id: wait_id.into(),
    });
    wire::event("alice", "r", id, payload)
}

fn begins(id: &str, call: &str) -> v1::Event {
    let payload = Payload::ToolExecuting(ToolExecuting {
        tool_call_id: call.into(),
        tool_name: "search".into(),
        ..Default::default()
    });
    wire::event("alice", "r", id, payload)
}

fn ends(id: &str, call: &str) -> v1::Event {
    let payload = Payload::ToolCompleted(ToolCompleted {
        tool_call_id: call.into(),
        ..Default::default()
    });
    wire::event("alice", "r", id, payload)
}

fn advances(id: &str, call: &str) -> v1::Event {
    let payload = Payload::ToolProgress(ToolProgress {
        tool_call_id: call.into(),
        fraction: Some(0.5),
        ..Default::default()
    });
    wire::event("alice", "r", id, payload)
}

/// How the run stands after each of so many events, over WebSocket and over gRPC, where the event changes that.
async fn states(server: &Server, count: usize) -> Vec<(String, Option<String>)> {
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "from=oldest").await;
    let request = SubscribeRequest {
        start: Some(Start::From(v1::StartFrom::Oldest.into())),
        ..Default::default()
    };
    let mut grpc = Grpc::open(server, &token, request).await;
    let mut states = Vec::new();
    while states.len() < count {
        let frame = socket.event().await;
        let recorded = loop {
            if let Item::Event(recorded) = grpc.next().await.unwrap() {
                break recorded;
            }
        };
        let state = frame["state"].as_str().map(str::to_owned);
        let code = match recorded.state() {
            RunState::Unspecified => None,
            RunState::Running => Some("running"),
            RunState::Waiting => Some("waiting"),
            RunState::Completed => Some("completed"),
            RunState::Failed => Some("failed"),
            RunState::Cancelled => Some("cancelled"),
        };
        assert_eq!(state.as_deref(), code, "{frame}");
        states.push((frame["event_id"].as_str().unwrap().to_owned(), state));
    }
    states
}

/// The open runs that a new reader gets.
async fn open_runs(server: &Server) -> Value {
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "").await;
    socket.frame().await["open_runs"].clone()
}

#[tokio::test]
async fn a_call_that_runs_beside_a_question_leaves_the_question_open() {
    let server = Server::start().await;
    let began = server.clock.now();
    server.start_runs("alice", &["r"]).await;
    let question = AgentWaiting {
        tool_call_id: "c1".into(),
        kind: "approval".into(),
        choices: vec!["yes".into(), "no".into()],
        ..named("w1", 300)
    };
    let events = vec![
        begins("b2", "c1"),
        begins("b3", "c2"),
        asks("w4", question),
        asks("w5", named("w2", 60)),
        advances("p6", "c2"),
        ends("e7", "c2"),
        wire::event("alice", "r", "t8", wire::thinking("meanwhile")),
    ];
    server.emit_all("agents", events).await;
    let at = |minutes: u32| (began + minutes * MINUTE).to_string();
    let open = open_runs(&server).await;
    assert_eq!(open[0]["state"], "waiting", "{open}");
    assert_eq!(
        open[0]["open_waits"],
        json!([
            {"wait_id": "w1", "tool_call_id": "c1", "kind": "approval", "run_sequence": 4, "started_at": at(0),
             "expires_at": at(300)},
            {"wait_id": "w2", "run_sequence": 5, "started_at": at(0), "expires_at": at(60)},
        ])
    );
    // Far longer than a run may be silent.
    server.clock.advance(30 * MINUTE);
    server
        .emit_all("agents", vec![resumes("r9", "w2"), resumes("r10", "w2")])
        .await;
    // The second wait expires by itself, long before the first.
    server
        .emit_all("agents", vec![asks("w11", named("w3", 10))])
        .await;
    server.clock.advance(200 * MINUTE);
    server.emit_all("agents", vec![advances("p12", "c1")]).await;
    let open = open_runs(&server).await;
    let ids = open[0]["open_waits"].as_array().unwrap().iter();
    let ids: Vec<_> = ids.map(|open| &open["wait_id"]).collect();
    assert_eq!(ids, ["w1"]);
    // The end of the call that was to be approved.
    server.emit_all("agents", vec![ends("e13", "c1")]).await;
    assert_eq!(open_runs(&server).await[0]["open_waits"], json!(null));
    let changes = states(&server, 13).await.into_iter();
    let changes: Vec<_> = changes.filter(|(_, state)| state.is_some()).collect();
    let change = |id: &str, state: &str| (id.to_owned(), Some(state.to_owned()));
    assert_eq!(
        changes,
        [
            change("r-started", "running"),
            change("w4", "waiting"),
            change("e13", "running"),
        ]
    );
    server.stop().await;
}

#[tokio::test]
async fn resuming_without_an_id_ends_all_waits_and_with_none_open_does_nothing() {
    let server = Server::start().await;
    server.start_runs("alice", &["r"]).await;
    let events = vec![
        resumes("r2", ""),
        asks("w3", named("w1", 60)),
        asks("w4", named("", 60)),
        asks("w5", named("", 60)),
        resumes("r6", ""),
        asks("w7", AgentWaiting::default()),
        wire::event("alice", "r", "t8", wire::thinking("an answer came")),
    ];
    server.emit_all("agents", events).await;
    let states = states(&server, 8).await.into_iter();
    let states: Vec<_> = states.map(|(_, state)| state.unwrap_or_default()).collect();
    assert_eq!(
        states,
        [
            "running", "", "waiting", "", "", "running", "waiting", "running"
        ]
    );
    server.stop().await;
}

#[tokio::test]
async fn a_seventeenth_wait_is_refused() {
    let server = Server::start().await;
    server.start_runs("alice", &["r"]).await;
    let waits = (1..=16).map(|n| asks(&format!("w{n}"), named(&format!("w{n}"), n)));
    server.emit_all("agents", waits.collect()).await;
    let events = vec![
        asks("x1", named("w17", 1)),
        // One that is asked again takes its own place.
        asks("x2", named("w16", 16)),
    ];
    let results = server.try_emit("agents", events).await;
    match results[0].outcome.as_ref().unwrap() {
        Outcome::Refusal(refusal) => {
            assert_eq!(refusal.reason, "LIMIT_EXCEEDED");
            assert_eq!(refusal.metadata["limit"], "open_waits");
        }
        other => panic!("{other:?}"),
    }
    assert!(
        matches!(results[1].outcome, Some(Outcome::Receipt(_))),
        "{results:?}"
    );
    // The first has expired.
    server.clock.advance(MINUTE);
    server
        .emit_all("agents", vec![asks("x3", named("w17", 1))])
        .await;
    server.stop().await;
}

#[tokio::test]
async fn a_run_whose_last_wait_expires_is_stalled() {
    let server = Server::start().await;
    server.start_runs("alice", &["r"]).await;
    let events = vec![asks("w2", named("w1", 180)), asks("w3", named("w2", 120))];
    server.emit_all("agents", events).await;
    let token = server.token_for("alice", "subscribe", Duration::from_secs(24 * 3600));
    let mut socket = Socket::connect(server.http, &token, "").await;
    socket.frame_of("connection_caught_up").await;
    server.clock.advance(179 * MINUTE);
    server
        .emit_all("agents", vec![wire::started("alice", "other")])
        .await;
    assert_eq!(socket.event().await["run_id"], "other");
    server.clock.advance(MINUTE);
    let failed = socket.event().await;
    assert_eq!(failed["run_id"], "r", "{failed}");
    assert_eq!(failed["payload"]["code"], "STALLED");
    assert_eq!(failed["payload"]["message"], "nobody answered within 3h");
    assert_eq!(failed["state"], "failed");
    server.stop().await;
}
