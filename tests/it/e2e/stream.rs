//! What a WebSocket client gets: frames, positions, filters, joins, heartbeats.

use emitter::proto::v1::{self, event::Payload};
use serde_json::json;

use super::{
    server::Server,
    wire::{self, Socket},
};

#[tokio::test]
async fn a_whole_run_arrives_live_and_again_by_position() {
    let server = Server::start().await;
    let token = server.token("alice", "subscribe");
    let mut live = Socket::connect(server.http, &token, "").await;
    let established = live.frame().await;
    assert_eq!(established["type"], "connection_established");
    assert_eq!(established["user_id"], "alice");
    let receipts = server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let mut frames = Vec::new();
    for (n, receipt) in (1..).zip(&receipts) {
        let frame = live.event().await;
        let position = receipt.position.as_ref().unwrap();
        assert_eq!(frame["event_id"], format!("run-1-{n}"));
        assert_eq!(frame["run_sequence"], n);
        assert_eq!(frame["offset"], position.offset);
        assert_eq!(frame["epoch"], position.epoch);
        frames.push(frame);
    }
    let types: Vec<_> = frames.iter().map(|frame| frame["type"].clone()).collect();
    let want = [
        "agent_started",
        "agent_thinking",
        "tool_executing",
        "tool_completed",
        "agent_completed",
    ];
    assert_eq!(types, want);
    assert_eq!(
        frames[3]["payload"],
        json!({"tool_call_id": "c1", "call_sequence": 3, "tool_name": "search", "status": "succeeded"})
    );
    // Each position resumes exactly behind itself, twice alike.
    for (n, frame) in frames.iter().enumerate() {
        let query = format!("after={}", wire::position(frame));
        let mut again = Socket::connect(server.http, &token, &query).await;
        for want in &frames[n + 1..] {
            assert_eq!(again.event().await, *want, "?{query}");
        }
        let caught_up = again.frame_of("connection_caught_up").await;
        assert_eq!(
            caught_up["position"],
            wire::position(&frames[4]),
            "?{query}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn the_largest_event_that_can_be_configured_gets_through_as_json() {
    let server = Server::start_with(|settings| {
        settings.limits.event_bytes = 1 << 20;
    })
    .await;
    // Each of these characters takes six bytes in JSON.
    let text = "\u{1}".repeat(1_000_000);
    server.start_runs("alice", &["run-1"]).await;
    let event = wire::event("alice", "run-1", "e1", wire::thinking(&text));
    server.emit_all("agents", vec![event]).await;
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "from=oldest").await;
    assert_eq!(socket.event().await["type"], "agent_started");
    assert_eq!(socket.event().await["payload"]["reasoning"], text);
    server.stop().await;
}

#[tokio::test]
async fn filters_narrow_and_the_cursor_advances_over_what_they_skip() {
    let server = Server::start().await;
    let mut events = wire::whole_run("alice", "run-1");
    events.extend(wire::whole_run("alice", "run-2"));
    for event in &mut events {
        event.thread_id = format!("thread-of-{}", event.run_id);
    }
    let receipts = server.emit_all("agents", events).await;
    let head = receipts.last().unwrap().position.clone().unwrap();
    let token = server.token("alice", "subscribe");
    let cases: [(&str, &[&str]); 4] = [
        (
            "run_id=run-1",
            &["run-1-1", "run-1-2", "run-1-3", "run-1-4", "run-1-5"],
        ),
        (
            "thread_id=thread-of-run-2&types=agent_started",
            &["run-2-1"],
        ),
        (
            "types=agent_started,agent_completed",
            &["run-1-1", "run-1-5", "run-2-1", "run-2-5"],
        ),
        ("types=progress", &[]),
    ];
    for (query, want) in cases {
        let query = format!("from=oldest&{query}");
        let mut socket = Socket::connect(server.http, &token, &query).await;
        for id in want {
            assert_eq!(socket.event().await["event_id"], *id, "?{query}");
        }
        let caught_up = socket.frame_of("connection_caught_up").await;
        assert_eq!(
            caught_up["position"],
            format!("{}-{}", head.epoch, head.offset),
            "?{query}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_position_that_cannot_be_resumed_is_told_as_a_gap() {
    let server = Server::start().await;
    let receipts = server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let head = receipts.last().unwrap().position.clone().unwrap();
    let token = server.token("alice", "subscribe");

    let other_epoch = "00000000000000ab-3";
    let query = format!("after={other_epoch}");
    let mut socket = Socket::connect(server.http, &token, &query).await;
    let gap = socket.frame_of("connection_gap").await;
    assert_eq!(
        (&gap["reason"], &gap["after"]),
        (&json!("epoch_changed"), &json!(other_epoch))
    );
    for n in 1..=5 {
        assert_eq!(socket.event().await["event_id"], format!("run-1-{n}"));
    }

    let ahead = format!("{}-{}", head.epoch, head.offset + 1000);
    let query = format!("after={ahead}");
    let mut socket = Socket::connect(server.http, &token, &query).await;
    let gap = socket.frame_of("connection_gap").await;
    let at_head = format!("{}-{}", head.epoch, head.offset);
    assert_eq!(
        gap,
        json!({"type": "connection_gap", "reason": "position_ahead", "after": ahead, "next": at_head, "open_runs": []})
    );
    server
        .emit_all("agents", wire::whole_run("alice", "run-2"))
        .await;
    assert_eq!(socket.event().await["event_id"], "run-2-1");
    server.stop().await;
}

#[tokio::test]
async fn what_retention_trimmed_is_told_as_a_gap() {
    let server = Server::start_with(|settings| settings.retention.events = 10).await;
    let first = server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let token = server.token("alice", "subscribe");
    for n in 2..=4 {
        server
            .emit_all("agents", wire::whole_run("alice", &format!("run-{n}")))
            .await;
    }
    let position = first[0].position.clone().unwrap();
    let query = format!("after={}-{}", position.epoch, position.offset);
    let mut socket = Socket::connect(server.http, &token, &query).await;
    let gap = socket.frame_of("connection_gap").await;
    assert_eq!(gap["reason"], "trimmed", "{gap}");
    for run in [3, 4] {
        for n in 1..=5 {
            assert_eq!(socket.event().await["event_id"], format!("run-{run}-{n}"));
        }
    }
    server.stop().await;
}

fn delta(run: &str, n: usize, text: &str) -> v1::Event {
    let payload = Payload::TextDelta(v1::TextDelta {
        message_id: "m1".into(),
        role: "assistant".into(),
        text: text.into(),
    });
    wire::event("alice", run, &format!("{run}-d{n}"), payload)
}

#[tokio::test]
async fn a_reader_that_lags_gets_deltas_joined_unless_it_declines() {
    let server = Server::start().await;
    let texts: Vec<String> = (0..200).map(|n| format!("{n} ")).collect();
    let deltas: Vec<_> = (1..)
        .zip(&texts)
        .map(|(n, text)| delta("run-1", n, text))
        .collect();
    server.start_runs("alice", &["run-1"]).await;
    let receipts = server.emit_all("agents", deltas).await;
    let token = server.token("alice", "subscribe");

    let mut plain = Socket::connect(server.http, &token, "from=oldest&join=false").await;
    plain.event().await;
    for text in &texts {
        let frame = plain.event().await;
        assert_eq!(frame["payload"]["text"], *text);
        assert!(frame.get("joined").is_none(), "{frame}");
    }

    let mut joining = Socket::connect(server.http, &token, "from=oldest").await;
    joining.event().await;
    let (mut text, mut frames, mut events) = (String::new(), 0, 0);
    let mut next_offset = receipts[0].position.clone().unwrap().offset;
    while events < texts.len() {
        let frame = joining.event().await;
        let joined = frame["joined"].as_u64().unwrap_or(1);
        let first = frame.get("first_offset").unwrap_or(&frame["offset"]);
        assert_eq!(first.as_u64(), Some(next_offset), "{frame}");
        text.push_str(frame["payload"]["text"].as_str().unwrap());
        events += joined as usize;
        frames += 1;
        assert_eq!(frame["event_id"], format!("run-1-d{events}"));
        next_offset = frame["offset"].as_u64().unwrap() + 1;
    }
    assert_eq!(text, texts.concat());
    assert!(frames < texts.len(), "nothing was joined");
    server.stop().await;
}

#[tokio::test]
async fn heartbeats_carry_the_position_in_band() {
    let server = Server::start_with(|settings| {
        settings.limits.heartbeat = std::time::Duration::from_secs(2);
    })
    .await;
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "").await;
    assert_eq!(socket.frame().await["heartbeat_interval_ms"], 2000);
    let receipts = server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let head = receipts.last().unwrap().position.clone().unwrap();
    let want = format!("{}-{}", head.epoch, head.offset);
    loop {
        let heartbeat = socket.frame_of("connection_heartbeat").await;
        if heartbeat["position"] == want {
            break;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn exact_json_passes_through_and_secrets_do_not() {
    let server = Server::start().await;
    server.start_runs("alice", &["run-1"]).await;
    let parameters = r#"{"id":9223372036854775807,"api_key":"sk-1",
 "price": 1.10,"cut":"\ud83d"}"#;
    let payload = Payload::ToolExecuting(v1::ToolExecuting {
        tool_call_id: "c1".into(),
        tool_name: "buy".into(),
        input: Some(v1::tool_executing::Input::ParametersJson(parameters.into())),
        ..Default::default()
    });
    server
        .emit_all("agents", vec![wire::event("alice", "run-1", "e1", payload)])
        .await;
    let token = server.token("alice", "subscribe");
    let text = server.first_event_text(&token, "tool_executing").await;
    let want =
        r#""parameters":{"id":9223372036854775807,"api_key":"[redacted]","price":1.10,"cut":"�"}"#;
    assert!(text.contains(want), "{text}");
    server.stop().await;
}
