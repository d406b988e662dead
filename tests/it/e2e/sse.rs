//! What a reader of `GET /v1/events` gets: the frames of a WebSocket, as events that it resumes after.

mod door;
mod end;

use std::time::Duration;

use emitter::proto::v1::{self, event::Payload, tool_completed, tool_executing};
use serde_json::{Value, json};

use super::{
    event_stream::{self, Event},
    server::Server,
    wire::{self, Socket},
};

/// The position that a frame lets its reader resume after.
fn reached(frame: &Value) -> Option<String> {
    let position = match frame["type"].as_str().unwrap() {
        "connection_established" | "connection_heartbeat" | "connection_caught_up" => {
            &frame["position"]
        }
        "connection_gap" => &frame["next"],
        name if name.starts_with("connection_") => return None,
        _ => return Some(wire::position(frame)),
    };
    Some(position.as_str().unwrap().to_owned())
}

/// Reads the same `query` on both doors until each has caught up, and checks that they say the same.
async fn same_on_both(server: &Server, token: &str, query: &str) -> Vec<Event> {
    let mut events = event_stream::open(server.http, token, query, &[]).await;
    let mut socket = Socket::connect(server.http, token, query).await;
    let mut seen = Vec::new();
    loop {
        let (mut event, mut frame) = (events.next().await.unwrap(), socket.frame().await);
        for frame in [&mut event.frame, &mut frame] {
            // The one thing that is of the connection, not of the stream.
            if let Some(id) = frame.get_mut("connection_id") {
                *id = json!("c");
            }
        }
        assert_eq!(event.frame, frame, "?{query}");
        assert_eq!(event.id, reached(&frame), "{event:?}");
        assert_eq!(event.retry, None, "{event:?}");
        let caught_up = frame["type"] == "connection_caught_up";
        seen.push(event);
        if caught_up {
            return seen;
        }
    }
}

#[tokio::test]
async fn a_whole_run_is_what_a_websocket_shows_live_and_again() {
    let server = Server::start().await;
    let token = server.token("alice", "subscribe");
    let mut events = event_stream::open(server.http, &token, "", &[]).await;
    for (name, want) in [
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("transfer-encoding", "chunked"),
    ] {
        assert_eq!(events.header(name), want, "{name}");
    }
    let mut socket = Socket::connect(server.http, &token, "").await;
    let established = events.next().await.unwrap();
    assert_eq!(established.frame["type"], "connection_established");
    assert_eq!(established.frame["user_id"], "alice");
    for run in ["run-1", "run-2"] {
        let receipts = server
            .emit_all("agents", wire::whole_run("alice", run))
            .await;
        for (n, receipt) in (1..).zip(&receipts) {
            let (event, frame) = (events.event().await, socket.event().await);
            assert_eq!(event.frame, frame);
            assert_eq!(event.frame["event_id"], format!("{run}-{n}"));
            let at = receipt.position.as_ref().unwrap();
            assert_eq!(event.id, Some(format!("{}-{}", at.epoch, at.offset)));
        }
    }
    for query in [
        "from=oldest",
        "from=open",
        "from=oldest&run_id=run-2",
        "from=oldest&types=agent_started,agent_completed",
        "types=progress&from=oldest",
        "",
    ] {
        same_on_both(&server, &token, query).await;
    }
    assert_eq!(same_on_both(&server, &token, "from=oldest").await.len(), 12);
    server.stop().await;
}

#[tokio::test]
async fn joined_deltas_resume_after_the_last_of_them() {
    let server = Server::start().await;
    server.start_runs("alice", &["run-1"]).await;
    let delta = |n: usize| {
        let payload = Payload::TextDelta(v1::TextDelta {
            message_id: "m1".into(),
            text: format!("{n}\n"),
            ..Default::default()
        });
        wire::event("alice", "run-1", &format!("d{n}"), payload)
    };
    server
        .emit_all("agents", (0..200).map(delta).collect())
        .await;
    let token = server.token("alice", "subscribe");
    let seen = same_on_both(&server, &token, "from=oldest").await;
    let joined: u64 = seen
        .iter()
        .filter_map(|event| event.frame["joined"].as_u64())
        .sum();
    assert_eq!(joined, 200, "{seen:?}");
    assert!(seen.len() < 10, "{seen:?}");
    let plain = same_on_both(&server, &token, "from=oldest&join=false").await;
    assert_eq!(plain.len(), 203);
    server.stop().await;
}

#[tokio::test]
async fn line_breaks_within_json_arrive_and_forge_nothing() {
    let server = Server::start().await;
    server.start_runs("alice", &["run-1"]).await;
    let forged = "\n\nid: 9\nevent: x\rretry: 1\r\ndata: {}\n\n:";
    let executing = v1::ToolExecuting {
        tool_call_id: "c1".into(),
        tool_name: "search".into(),
        description: forged.into(),
        input: Some(tool_executing::Input::ParametersJson(
            "{\r\n\"id\"\r:\n\n 9223372036854775807,\n\"data\": \"a\\nb\"\r}".into(),
        )),
        ..Default::default()
    };
    let completed = v1::ToolCompleted {
        tool_call_id: "c1".into(),
        tool_name: "search".into(),
        output: Some(tool_completed::Output::ResultJson("\n[1,\r2]\r\n".into())),
        ..Default::default()
    };
    let payloads = [
        wire::thinking(forged),
        Payload::ToolExecuting(executing),
        Payload::ToolCompleted(completed),
    ];
    let events = (1..).zip(payloads);
    let events =
        events.map(|(n, payload)| wire::event("alice", "run-1", &format!("e{n}"), payload));
    server.emit_all("agents", events.collect()).await;
    let token = server.token("alice", "subscribe");
    let seen = same_on_both(&server, &token, "from=oldest").await;
    let payload = |n: usize| &seen[n].frame["payload"];
    assert_eq!(payload(2)["reasoning"], forged);
    assert_eq!(
        payload(3)["parameters"],
        json!({"id": 9_223_372_036_854_775_807_u64, "data": "a\nb"})
    );
    assert_eq!(payload(4)["result"], json!([1, 2]));
    server.stop().await;
}

#[tokio::test]
async fn each_id_resumes_exactly_behind_itself_whatever_the_url_says() {
    let server = Server::start().await;
    server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let token = server.token("alice", "subscribe");
    let seen = same_on_both(&server, &token, "from=oldest").await;
    let events: Vec<_> = seen[1..6].to_vec();
    let first = events[0].id.clone().unwrap();
    for (n, event) in events.iter().enumerate() {
        let id = event.id.as_deref().unwrap();
        for query in ["", "from=oldest", &format!("after={first}")] {
            let mut again = event_stream::resume(server.http, &token, query, id).await;
            let established = again.next().await.unwrap();
            assert_eq!(established.id.as_deref(), Some(id), "?{query}");
            for want in &events[n + 1..] {
                assert_eq!(again.next().await.unwrap(), *want, "?{query} behind {id}");
            }
            let caught_up = again.next().await.unwrap();
            assert_eq!(caught_up.frame["type"], "connection_caught_up");
            assert_eq!(caught_up.id, events[4].id);
        }
    }
    // An empty one is none.
    let mut again = event_stream::resume(server.http, &token, &format!("after={first}"), "").await;
    assert_eq!(again.event().await, events[1]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_where_a_reader_comes_back_while_events_come() {
    const EVENTS: usize = 600;
    let server = Server::start().await;
    let token = server.token("alice", "subscribe");
    server.start_runs("alice", &["run-1"]).await;
    let emitting = async {
        for n in 0..EVENTS {
            let event = wire::event("alice", "run-1", &format!("e{n}"), wire::thinking("x"));
            server.emit_all("agents", vec![event]).await;
        }
    };
    let reading = async {
        let (mut seen, mut last, mut visits) = (Vec::new(), None::<String>, 0);
        while seen.len() < EVENTS {
            visits += 1;
            let id = last.clone().unwrap_or_default();
            let query = "from=oldest&types=agent_thinking";
            let mut events = event_stream::resume(server.http, &token, query, &id).await;
            // Leaves after a few, each time at another place, also before the first.
            for _ in 0..visits % 17 {
                let event = events.next().await.unwrap();
                last = event.id.or(last);
                if !wire::is_control(&event.frame) {
                    seen.push(event.frame["event_id"].as_str().unwrap().to_owned());
                }
                if seen.len() == EVENTS {
                    break;
                }
            }
        }
        (seen, visits)
    };
    let ((), (seen, visits)) = tokio::join!(emitting, reading);
    let want: Vec<_> = (0..EVENTS).map(|n| format!("e{n}")).collect();
    assert_eq!(seen, want);
    assert!(visits > 17, "{visits}");
    server.stop().await;
}

#[tokio::test]
async fn a_gap_is_told_and_resumes_behind_itself() {
    let server = Server::start_with(|settings| settings.retention.events = 10).await;
    let token = server.token("alice", "subscribe");
    let mut receipts = Vec::new();
    for n in 1..=4 {
        let run = wire::whole_run("alice", &format!("run-{n}"));
        receipts.extend(server.emit_all("agents", run).await);
    }
    let head = receipts.last().unwrap().position.clone().unwrap();
    let trimmed = receipts[0].position.clone().unwrap();
    for (id, reason) in [
        (format!("{}-{}", trimmed.epoch, trimmed.offset), "trimmed"),
        ("00000000000000ab-3".into(), "epoch_changed"),
        (
            format!("{}-{}", head.epoch, head.offset + 9),
            "position_ahead",
        ),
    ] {
        let mut events = event_stream::resume(server.http, &token, "", &id).await;
        let established = events.next().await.unwrap();
        assert_eq!(established.id.as_deref(), Some(&*id));
        let gap = events.next().await.unwrap();
        assert_eq!(gap.frame["type"], "connection_gap");
        assert_eq!(gap.frame["reason"], reason);
        assert_eq!(gap.frame["after"], id);
        assert_eq!(gap.id.as_deref(), gap.frame["next"].as_str());
        let next = events.next().await.unwrap();
        // Who leaves right after the gap is not told it again, and goes on where it would have.
        let id = gap.id.as_deref().unwrap();
        let mut again = event_stream::resume(server.http, &token, "", id).await;
        again.next().await.unwrap();
        assert_eq!(again.next().await.unwrap(), next, "{reason}");
    }
    server.stop().await;
}

#[tokio::test]
async fn heartbeats_come_in_band_and_resume_where_the_reader_is() {
    let server = Server::start_with(|settings| {
        settings.limits.heartbeat = Duration::from_millis(100);
    })
    .await;
    let token = server.token("alice", "subscribe");
    let mut events = event_stream::open(server.http, &token, "", &[]).await;
    let established = events.next().await.unwrap();
    assert_eq!(established.frame["heartbeat_interval_ms"], 100);
    let at_first = events.frame_of("connection_heartbeat").await;
    assert_eq!(at_first.id, established.id);
    server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let mut last = events.event().await;
    while last.frame["type"] != "agent_completed" {
        last = events.event().await;
    }
    let heartbeat = events.frame_of("connection_heartbeat").await;
    assert_eq!(heartbeat.id, last.id);
    assert_eq!(heartbeat.frame["position"].as_str(), last.id.as_deref());
    server.stop().await;
}
