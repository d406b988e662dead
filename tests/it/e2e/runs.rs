//! What producers and readers are told of the lives of runs.

use std::time::Duration;

use emitter::{
    config::Mode,
    proto::v1::{
        self, AgentCompleted, AgentStarted, AgentWaiting, SubscribeRequest, ToolCompleted,
        ToolExecuting, emit_result::Outcome, event::Payload, subscribe_response::Item,
    },
};
use serde_json::json;

use super::{
    server::Server,
    wire::{self, Socket},
};

fn refusal(result: &v1::EmitResult) -> &v1::Refusal {
    match result.outcome.as_ref().unwrap() {
        Outcome::Refusal(refusal) => refusal,
        Outcome::Receipt(receipt) => panic!("stored: {receipt:?}"),
    }
}

fn executing(run: &str, id: &str, call: &str) -> v1::Event {
    let payload = Payload::ToolExecuting(ToolExecuting {
        tool_call_id: call.into(),
        tool_name: "search".into(),
        ..Default::default()
    });
    wire::event("alice", run, id, payload)
}

fn completed(run: &str, id: &str) -> v1::Event {
    wire::event(
        "alice",
        run,
        id,
        Payload::AgentCompleted(AgentCompleted::default()),
    )
}

fn thinks(run: &str, id: &str) -> v1::Event {
    wire::event("alice", run, id, wire::thinking(id))
}

fn by(producer: &str, term: u64, event: v1::Event) -> v1::Event {
    v1::Event {
        source: Some(v1::Source {
            producer_id: producer.into(),
            term,
        }),
        ..event
    }
}

#[tokio::test]
async fn a_refusal_says_how_the_run_stands_and_what_would_have_been_legal() {
    let server = Server::start().await;
    server.start_runs("alice", &["open", "over"]).await;
    server
        .emit_all(
            "agents",
            vec![executing("open", "t1", "c1"), completed("over", "end")],
        )
        .await;
    let unknown_call = Payload::ToolCompleted(ToolCompleted {
        tool_call_id: "c9".into(),
        ..Default::default()
    });
    let mut orphan = wire::started("alice", "orphan");
    orphan.parent_run_id = "over".into();
    let cases = [
        (
            thinks("new", "a"),
            "RUN_NOT_STARTED",
            "unknown",
            "agent_started",
        ),
        (
            v1::Event {
                event_id: "again".into(),
                ..wire::started("alice", "open")
            },
            "RUN_ALREADY_STARTED",
            "running",
            "any event but agent_started",
        ),
        (
            thinks("over", "b"),
            "RUN_ENDED",
            "completed",
            "nothing: a new run needs a new run_id",
        ),
        (
            wire::event("alice", "open", "c", unknown_call),
            "TOOL_CALL_UNKNOWN",
            "running",
            "tool_completed of an open tool call, or tool_executing first",
        ),
        (
            orphan,
            "PARENT_NOT_OPEN",
            "unknown",
            "a parent_run_id of an open run of the same user, or none",
        ),
    ];
    for (event, reason, state, legal) in cases {
        let results = server.try_emit("agents", vec![event]).await;
        let refusal = refusal(&results[0]);
        assert_eq!(refusal.reason, reason);
        assert_eq!(refusal.code, i32::from(tonic::Code::FailedPrecondition));
        assert_eq!(refusal.metadata["run_state"], state, "{refusal:?}");
        assert_eq!(refusal.metadata["legal"], legal, "{refusal:?}");
        if reason == "PARENT_NOT_OPEN" {
            assert_eq!(refusal.metadata["parent_run_id"], "over");
            assert_eq!(refusal.metadata["parent_state"], "completed");
        }
        if reason == "TOOL_CALL_UNKNOWN" {
            assert_eq!(refusal.metadata["open_tool_calls"], "c1");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_run_that_ends_tells_its_open_calls_and_its_totals() {
    let server = Server::start().await;
    server.start_runs("alice", &["r"]).await;
    let used = |id: &str, input, cost| v1::Event {
        usage: Some(v1::Usage {
            provider: "p".into(),
            model: "m".into(),
            input_tokens: input,
            output_tokens: 5,
            cost_nano_usd: cost,
            ..Default::default()
        }),
        ..thinks("r", id)
    };
    let events = vec![
        executing("r", "t1", "c1"),
        executing("r", "t2", "c2"),
        used("u1", 100, Some(7)),
        used("u2", 20, None),
        completed("r", "end"),
    ];
    server.emit_all("agents", events).await;
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "from=oldest").await;
    let end = socket.frame_of("agent_completed").await;
    let calls = end["summary"]["open_tool_calls"].as_array().unwrap();
    let calls: Vec<_> = calls.iter().map(|call| &call["tool_call_id"]).collect();
    assert_eq!(calls, ["c1", "c2"]);
    assert_eq!(
        end["summary"]["usage"],
        json!({
            "events": 2, "input_tokens": 120, "output_tokens": 10, "cached_input_tokens": 0,
            "cache_write_input_tokens": 0, "cache_write_1h_input_tokens": 0, "reasoning_tokens": 0, "cost_nano_usd": 7, "unpriced_events": 1,
        })
    );
    let recorded = recorded(&server, "end").await;
    let summary = recorded.summary.unwrap();
    assert_eq!(summary.open_tool_calls.len(), 2);
    assert_eq!(summary.usage.unwrap().input_tokens, 120);
    server.stop().await;
}

/// The event `id` as a gRPC reader gets it.
async fn recorded(server: &Server, id: &str) -> v1::RecordedEvent {
    let token = server.token("alice", "subscribe");
    let request = SubscribeRequest {
        start: Some(v1::subscribe_request::Start::From(
            v1::StartFrom::Oldest.into(),
        )),
        ..Default::default()
    };
    let mut client = server.subscriber().await;
    let stream = client.subscribe(wire::with_token(&token, request)).await;
    let mut stream = stream.unwrap().into_inner();
    loop {
        if let Some(Item::Event(event)) = stream.message().await.unwrap().unwrap().item
            && event.event.as_ref().unwrap().event_id == id
        {
            return event;
        }
    }
}

#[tokio::test]
async fn a_tool_call_that_is_not_named_is_the_oldest_open_one_and_readers_get_its_id() {
    let server = Server::start().await;
    server.start_runs("alice", &["r"]).await;
    let unnamed = Payload::ToolCompleted(ToolCompleted {
        tool_name: "search".into(),
        ..Default::default()
    });
    let events = vec![
        executing("r", "t1", "c1"),
        executing("r", "t2", "c2"),
        wire::event("alice", "r", "done", unnamed),
    ];
    server.emit_all("agents", events).await;
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "from=oldest").await;
    let frame = socket.frame_of("tool_completed").await;
    assert_eq!(frame["payload"]["tool_call_id"], "c1", "{frame}");
    let event = recorded(&server, "done").await.event.unwrap();
    match event.payload {
        Some(Payload::ToolCompleted(tool)) => assert_eq!(tool.tool_call_id, "c1"),
        other => panic!("{other:?}"),
    }
    server.stop().await;
}

#[tokio::test]
async fn a_second_source_is_told_who_owns_the_run_and_a_higher_term_takes_it_over() {
    let server = Server::start().await;
    let start = by("worker/1", 1, wire::started("alice", "r"));
    server.emit_all("agents", vec![start.clone()]).await;
    let events = vec![
        by("worker/2", 1, thinks("r", "a")),
        // Without a source it is the credential's subject.
        thinks("r", "b"),
        by("worker/2", 2, thinks("r", "c")),
        by("worker/1", 1, thinks("r", "d")),
        by("worker/1", 1, start),
    ];
    let results = server.try_emit("agents", events).await;
    let competing = refusal(&results[0]);
    assert_eq!(competing.reason, "COMPETING_SOURCE");
    assert_eq!(competing.metadata["owner_producer_id"], "worker/1");
    assert_eq!(competing.metadata["owner_term"], "1");
    assert_eq!(competing.metadata["refused_producer_id"], "worker/2");
    assert_eq!(competing.metadata["run_state"], "running");
    assert_eq!(refusal(&results[1]).reason, "SOURCE_FENCED");
    assert!(
        matches!(results[2].outcome, Some(Outcome::Receipt(_))),
        "{results:?}"
    );
    let fenced = refusal(&results[3]);
    assert_eq!(fenced.reason, "SOURCE_FENCED");
    assert_eq!(fenced.metadata["owner_producer_id"], "worker/2");
    match results[4].outcome.as_ref().unwrap() {
        Outcome::Receipt(receipt) => assert!(receipt.duplicate),
        other => panic!("{other:?}"),
    }
    // Readers are not shown who wrote.
    let event = recorded(&server, "c").await.event.unwrap();
    assert_eq!(event.source, None);
    server.stop().await;
}

#[tokio::test]
async fn a_reader_never_sees_a_sub_agent_outlive_its_parent() {
    let server = Server::start().await;
    server.start_runs("alice", &["parent"]).await;
    let mut child = wire::started("alice", "child");
    child.parent_run_id = "parent".into();
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "").await;
    socket.frame_of("connection_caught_up").await;
    server
        .emit_all("agents", vec![child, completed("parent", "end")])
        .await;
    assert_eq!(socket.event().await["run_id"], "child");
    let cancelled = socket.event().await;
    assert_eq!(cancelled["type"], "agent_cancelled");
    assert_eq!(cancelled["run_id"], "child");
    assert_eq!(cancelled["parent_run_id"], "parent");
    assert_eq!(cancelled["run_sequence"], 2);
    assert_eq!(cancelled["payload"], json!({"reason": "parent_ended"}));
    let event_id = cancelled["event_id"].as_str().unwrap();
    assert!(event_id.starts_with("emitter:"), "{event_id}");
    assert_eq!(socket.event().await["event_id"], "end");
    let results = server
        .try_emit("agents", vec![thinks("child", "late")])
        .await;
    assert_eq!(refusal(&results[0]).reason, "RUN_ENDED");
    server.stop().await;
}

#[tokio::test]
async fn a_silent_run_is_ended_by_the_service_and_one_that_waits_is_not() {
    let server = Server::start().await;
    let brief = Payload::AgentStarted(AgentStarted {
        silence_timeout: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        ..Default::default()
    });
    let waits = Payload::AgentWaiting(AgentWaiting::default());
    server.start_runs("alice", &["waiting"]).await;
    let events = vec![
        wire::event("alice", "brief", "b1", brief),
        wire::event("alice", "waiting", "w1", waits),
    ];
    server.emit_all("agents", events).await;
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "").await;
    socket.frame_of("connection_caught_up").await;
    server.clock.advance(Duration::from_secs(60));
    let failed = socket.event().await;
    assert_eq!(failed["type"], "agent_failed");
    assert_eq!(failed["run_id"], "brief");
    assert_eq!(failed["agent_name"], "researcher");
    assert_eq!(failed["payload"]["code"], "STALLED");
    // A day later the other has waited long enough. The token is good for an hour.
    server.clock.advance(Duration::from_secs(24 * 3600));
    let again = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &again, "from=oldest&run_id=waiting").await;
    let failed = socket.frame_of("agent_failed").await;
    assert_eq!(failed["payload"]["code"], "STALLED");
    assert_eq!(failed["payload"]["message"], "nobody answered within 1day");
    assert_eq!(server.metric("emitter_runs_stalled_total").await, 2.0);
    server.stop().await;
}

#[tokio::test]
async fn what_is_only_observed_is_stored_marked_and_counted() {
    let server = Server::start_with(|settings| settings.runs.mode = Mode::Observe).await;
    let events = vec![thinks("r", "a"), completed("r", "end"), thinks("r", "late")];
    server.emit_all("agents", events).await;
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "from=oldest").await;
    let mut marks = Vec::new();
    for _ in 0..3 {
        marks.push(socket.event().await["violation"].clone());
    }
    assert_eq!(
        marks,
        [json!("RUN_NOT_STARTED"), json!(null), json!("RUN_ENDED")]
    );
    assert_eq!(recorded(&server, "late").await.violation, "RUN_ENDED");
    let counted = "emitter_run_violations_total{reason=\"RUN_ENDED\"}";
    assert_eq!(server.metric(counted).await, 1.0);
    server.stop().await;
}
