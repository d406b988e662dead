//! One run, whole.

use std::time::Duration;

use emitter::proto::v1::{RunState, emit_result::Outcome};
use futures_util::SinkExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::e2e::wire::Socket;

const AGENTS: &str = "agents";

fn source(producer: &str, term: u64) -> Option<v1::Source> {
    Some(v1::Source {
        producer_id: producer.into(),
        term,
    })
}

fn from(event: v1::Event, producer: &str, term: u64) -> v1::Event {
    v1::Event {
        source: source(producer, term),
        ..event
    }
}

fn begins(call: &str, tool: &str) -> Payload {
    Payload::ToolExecuting(v1::ToolExecuting {
        tool_call_id: call.into(),
        tool_name: tool.into(),
        ..Default::default()
    })
}

fn ends(call: &str) -> Payload {
    Payload::ToolCompleted(v1::ToolCompleted {
        tool_call_id: call.into(),
        ..Default::default()
    })
}

fn used(event: v1::Event, model: &str, input: u64, cost: u64) -> v1::Event {
    v1::Event {
        usage: Some(v1::Usage {
            provider: "acme".into(),
            model: model.into(),
            input_tokens: input,
            output_tokens: 1,
            cost_nano_usd: Some(cost),
            ..Default::default()
        }),
        ..event
    }
}

/// Emits `events`, one every 100 ms.
async fn emit(server: &Server, events: Vec<v1::Event>) -> Vec<v1::Receipt> {
    let mut receipts = Vec::new();
    for event in events {
        receipts.extend(server.emit_all(AGENTS, vec![event]).await);
        server.clock.advance(Duration::from_millis(100));
    }
    receipts
}

/// A run with two tool calls that overlap, taken over by a second source, with a sub-agent; a third source was refused.
async fn eventful(server: &Server) -> Vec<v1::Receipt> {
    let thought = Payload::AgentThinking(v1::AgentThinking {
        reasoning: "which one?".into(),
        step_number: Some(1),
        ..Default::default()
    });
    let of = |id: &str, payload| event("alice", "r1", id, payload);
    let first = |id: &str, payload| from(of(id, payload), "svc-1", 1);
    let second = |id: &str, payload| from(of(id, payload), "svc-2", 2);
    let before = vec![
        first("1", Payload::AgentStarted(v1::AgentStarted::default())),
        used(first("2", thought), "m1", 10, 500),
        first("3", begins("c1", "search")),
        first("4", begins("c2", "fetch")),
        second("5", ends("c1")),
    ];
    let mut receipts = emit(server, before).await;
    let child = v1::Event {
        parent_run_id: "r1".into(),
        ..wire::started("alice", "child")
    };
    emit(server, vec![child]).await;
    let competing = vec![from(of("6", wire::thinking("me too")), "svc-3", 2)];
    let refused = server.try_emit(AGENTS, competing).await;
    let Some(Outcome::Refusal(refusal)) = &refused[0].outcome else {
        panic!("{refused:?}");
    };
    assert_eq!(refusal.reason, "COMPETING_SOURCE");
    let after = vec![used(second("7", ends("c2")), "m2", 5, 700)];
    receipts.extend(emit(server, after).await);
    receipts
}

#[tokio::test]
async fn a_run_is_shown_whole() {
    let server = Server::start().await;
    let began = server.clock.now();
    let receipts = eventful(&server).await;
    let operator = Operator::of(&server).await;
    let shown = operator.get("", "r1").await.unwrap();

    let run = shown.run.unwrap();
    let listed = operator.list(ListRunsRequest::default()).await.unwrap();
    assert!(listed.runs.contains(&run), "{listed:?}");
    assert_eq!(run.state(), RunState::Running);
    assert_eq!((run.run_sequence, &run.source), (6, &source("svc-2", 2)));
    assert_eq!(run.usage.unwrap().cost_nano_usd, 1_200);
    assert_eq!(run.open_tool_calls, []);
    assert_eq!(shown.open_children, ["child"]);

    let millis = |item: &v1::TimelineItem| {
        item.duration
            .map(|took| took.seconds * 1_000 + i64::from(took.nanos) / 1_000_000)
    };
    let items: Vec<_> = shown
        .timeline
        .iter()
        .map(|item| {
            let source = item.source.as_ref().map(|source| source.term);
            let call = (item.tool_call_id.as_str(), item.tool_name.as_str());
            (item.r#type.as_str(), call, millis(item), source)
        })
        .collect();
    let want = [
        ("agent_started", ("", ""), None, Some(1)),
        ("agent_thinking", ("", ""), None, None),
        ("tool_executing", ("c1", "search"), None, None),
        ("tool_executing", ("c2", "fetch"), None, None),
        ("tool_completed", ("c1", "search"), Some(200), Some(2)),
        ("tool_completed", ("c2", "fetch"), Some(300), None),
    ];
    assert_eq!(items, want);
    let thought = &shown.timeline[1];
    assert_eq!(
        (thought.text.as_str(), thought.step_number),
        ("which one?", Some(1))
    );
    assert_eq!(thought.usage.as_ref().unwrap().model, "m1");
    assert_eq!(thought.recorded_at, at(began + Duration::from_millis(100)));
    let positions: Vec<_> = shown
        .timeline
        .iter()
        .map(|item| item.position.clone())
        .collect();
    let stored: Vec<_> = receipts
        .iter()
        .map(|receipt| receipt.position.clone())
        .collect();
    assert_eq!(positions, stored);
    assert!(!shown.timeline_truncated);

    let usage: Vec<_> = shown
        .usage
        .iter()
        .map(|it| {
            (
                it.model.as_str(),
                it.totals.unwrap().input_tokens,
                it.totals.unwrap().cost_nano_usd,
            )
        })
        .collect();
    assert_eq!(usage, [("m1", 10, 500), ("m2", 5, 700)]);
    let [refused] = &shown.source_refusals[..] else {
        panic!("{:?}", shown.source_refusals);
    };
    assert_eq!(
        (&refused.owner, &refused.refused),
        (&source("svc-2", 2), &source("svc-3", 2))
    );
    assert_eq!(
        (refused.reason.as_str(), refused.count),
        ("COMPETING_SOURCE", 1)
    );
    let delivery = shown.delivery.unwrap();
    assert_eq!(&delivery.stored_up_to, stored.last().unwrap());
    server.stop().await;
}

#[tokio::test]
async fn a_run_may_be_silent_for_as_long_as_its_sub_agents_may() {
    let server = Server::start().await;
    let began = server.clock.now();
    let hour = Duration::from_secs(3600);
    let timeout = |seconds| {
        Payload::AgentStarted(v1::AgentStarted {
            silence_timeout: Some(prost_types::Duration { seconds, nanos: 0 }),
            ..Default::default()
        })
    };
    let child = v1::Event {
        parent_run_id: "r1".into(),
        ..event("alice", "child", "1", timeout(7_200))
    };
    let parent = event("alice", "r1", "1", timeout(3_600));
    server.emit_all(AGENTS, vec![parent, child]).await;
    let operator = Operator::of(&server).await;
    let until = async || {
        let run = operator.get("", "r1").await.unwrap().run.unwrap();
        run.silent_until
    };
    assert_eq!(until().await, at(began + 2 * hour));
    let ended = event("alice", "child", "2", completed());
    server.emit_all(AGENTS, vec![ended]).await;
    assert_eq!(until().await, at(began + hour));
    let ended = event("alice", "r1", "2", completed());
    server.emit_all(AGENTS, vec![ended]).await;
    assert_eq!(until().await, None);
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_longer_retained_is_told() {
    let server = Server::start_with(|settings| settings.retention.events = 3).await;
    server
        .emit_all(AGENTS, wire::whole_run("alice", "r1"))
        .await;
    let operator = Operator::of(&server).await;
    let shown = operator.get("", "r1").await.unwrap();
    let numbers: Vec<u64> = shown
        .timeline
        .iter()
        .map(|item| item.run_sequence)
        .collect();
    assert_eq!(numbers, [3, 4, 5]);
    assert!(shown.timeline_truncated);
    server.stop().await;
}

#[tokio::test]
async fn who_got_a_run_is_told() {
    let server = Server::start().await;
    let started = wire::started("alice", "r1");
    let stored = server.emit_all(AGENTS, vec![started]).await;
    let token = server.token("alice", "subscribe");
    let query = "from=oldest&client_id=web";
    let mut socket = Socket::connect(server.http, &token, query).await;
    let frame = socket.event().await;
    let ack = json!({"type": "ack", "epoch": frame["epoch"], "offset": frame["offset"]});
    for said in [ack, json!({"type": "unheard of"})] {
        let said = Message::text(said.to_string());
        socket.0.send(said).await.unwrap();
    }
    // What was said before this was heard.
    socket.frame_of("connection_error").await;

    let operator = Operator::of(&server).await;
    let delivery = async || operator.get("", "r1").await.unwrap().delivery.unwrap();
    let got = delivery().await;
    let [reader] = &got.connections[..] else {
        panic!("{got:?}");
    };
    assert_eq!(
        (reader.client_id.as_str(), &reader.position),
        ("web", &stored[0].position)
    );
    let [acked] = &got.acknowledgements[..] else {
        panic!("{got:?}");
    };
    assert_eq!(
        (&acked.position, acked.covers_run),
        (&stored[0].position, true)
    );
    let ended = event("alice", "r1", "2", completed());
    server.emit_all(AGENTS, vec![ended]).await;
    assert!(!delivery().await.acknowledgements[0].covers_run);
    server.stop().await;
}

#[tokio::test]
async fn a_run_that_is_not_known_is_not_found() {
    let server = Server::start().await;
    let operator = Operator::of(&server).await;
    let status = operator.get("", "r1").await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert_eq!(reason(&status), "NOT_FOUND");
    let status = operator.get("", "").await.unwrap_err();
    assert_eq!(reason(&status), "INVALID_REQUEST");
    server.stop().await;
}

#[tokio::test]
async fn refused_sources_are_listed() {
    let server = Server::start().await;
    eventful(&server).await;
    let list = async |tenant: &str| {
        let operator = Operator::of_tenant(&server, tenant).await;
        let request = v1::ListSourceRefusalsRequest::default();
        let request = wire::with_token(&operator.token, request);
        let answer = operator.client.clone().list_source_refusals(request).await;
        let answer = answer.unwrap().into_inner();
        let refused = answer.source_refusals.into_iter();
        let refused: Vec<_> = refused.map(|it| (it.run_id, it.refused)).collect();
        (refused, answer.refused_events)
    };
    let refused = (vec![("r1".to_owned(), source("svc-3", 2))], 1);
    assert_eq!(list("default").await, refused);
    assert_eq!(list("other").await, (vec![], 0));
    assert_eq!(list("*").await, refused);
    let operator = Operator::of(&server).await;
    let request = v1::ListSourceRefusalsRequest {
        page_size: 1_001,
        ..Default::default()
    };
    let request = wire::with_token(&operator.token, request);
    let answer = operator.client.clone().list_source_refusals(request).await;
    assert_eq!(reason(&answer.unwrap_err()), "INVALID_REQUEST");
    server.stop().await;
}
