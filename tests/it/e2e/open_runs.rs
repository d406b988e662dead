//! What a reader is told of the runs that are still open, and `from=open`.

use std::{sync::Arc, time::Duration};

use emitter::{
    app::Environment,
    clock::Entropy,
    engine::{Commit, memory},
    event::{Kind, Step},
    proto::v1::{
        self, StartFrom, SubscribeRequest, event::Payload, subscribe_request::Start,
        subscribe_response::Item,
    },
};
use serde_json::{Value, json};

use super::{
    server::Server,
    wire::{self, Grpc, Socket},
};
use crate::support::{events, faulty_engine::FaultyEngine};

fn from(from: StartFrom) -> SubscribeRequest {
    SubscribeRequest {
        start: Some(Start::From(from.into())),
        ..Default::default()
    }
}

/// The ids of the open runs that `frame` tells.
fn ids(frame: &Value) -> Vec<&str> {
    let runs = frame["open_runs"].as_array().unwrap();
    runs.iter()
        .map(|run| run["run_id"].as_str().unwrap())
        .collect()
}

fn in_thread(thread: &str, mut event: v1::Event) -> v1::Event {
    event.thread_id = thread.into();
    event
}

fn waiting(run: &str) -> v1::Event {
    let payload = Payload::AgentWaiting(v1::AgentWaiting::default());
    wire::event("alice", run, &format!("{run}-waiting"), payload)
}

fn tool(run: &str, call: &str) -> v1::Event {
    let payload = Payload::ToolExecuting(v1::ToolExecuting {
        tool_call_id: call.into(),
        tool_name: "search".into(),
        ..Default::default()
    });
    wire::event("alice", run, &format!("{run}-{call}"), payload)
}

fn sub_agent(run: &str, parent: &str) -> v1::Event {
    v1::Event {
        parent_run_id: parent.into(),
        ..wire::started("alice", run)
    }
}

#[tokio::test]
async fn the_beginning_tells_what_is_open_enough_to_draw_it() {
    let server = Server::start().await;
    let now = server.clock.now();
    let mut all = wire::whole_run("alice", "ended");
    all.extend([
        in_thread("t1", wire::started("alice", "parent")),
        tool("parent", "c1"),
        tool("parent", "c2"),
        sub_agent("child", "parent"),
        waiting("child"),
    ]);
    server.emit_all("agents", all).await;
    server.start_runs("bob", &["of-bob"]).await;
    let at = now.to_string();
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    let until = (now + day).to_string();
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "").await;
    let call = |id: &str, sequence: u64| json!({"tool_call_id": id, "call_sequence": sequence, "tool_name": "search", "started_at": at});
    let want = json!([
        {"run_id": "parent", "agent_name": "researcher", "state": "running", "started_at": at, "thread_id": "t1",
         "open_tool_calls": [call("c1", 2), call("c2", 3)]},
        {"run_id": "child", "agent_name": "researcher", "state": "waiting", "started_at": at, "thread_id": "t1",
         "parent_run_id": "parent", "open_tool_calls": [],
         "open_waits": [{"run_sequence": 2, "started_at": at, "expires_at": until}]},
    ]);
    assert_eq!(socket.frame().await["open_runs"], want);

    let mut grpc = Grpc::open(&server, &token, SubscribeRequest::default()).await;
    let open = grpc.established().await.open_runs;
    let call = |id: &str, call_sequence| v1::OpenToolCall {
        tool_call_id: id.into(),
        tool_name: "search".into(),
        started_at: Some(now.into()),
        call_sequence,
    };
    let run = |id: &str, state: v1::RunState| v1::OpenRun {
        run_id: id.into(),
        agent_name: "researcher".into(),
        state: state.into(),
        started_at: Some(now.into()),
        thread_id: "t1".into(),
        ..Default::default()
    };
    let want = [
        v1::OpenRun {
            open_tool_calls: vec![call("c1", 2), call("c2", 3)],
            ..run("parent", v1::RunState::Running)
        },
        v1::OpenRun {
            parent_run_id: "parent".into(),
            open_waits: vec![v1::OpenWait {
                run_sequence: 2,
                started_at: Some(now.into()),
                expires_at: Some((now + day).into()),
                ..Default::default()
            }],
            ..run("child", v1::RunState::Waiting)
        },
    ];
    assert_eq!(open, want);
    server.stop().await;
}

#[tokio::test]
async fn only_the_last_sixty_four_that_the_filter_admits_are_told() {
    let server = Server::start().await;
    let runs: Vec<String> = (0..140).map(|n| format!("run-{n}")).collect();
    let threads = ["even", "odd"];
    let starts = runs.iter().zip(threads.iter().cycle());
    let starts = starts.map(|(run, thread)| in_thread(thread, wire::started("alice", run)));
    server.emit_all("agents", starts.collect()).await;
    let token = server.token("alice", "subscribe");
    let odd: Vec<_> = runs.iter().skip(1).step_by(2).collect();
    let cases: [(&str, Vec<&String>); 5] = [
        ("", runs[76..].iter().collect()),
        ("types=message", runs[76..].iter().collect()),
        ("thread_id=odd", odd[6..].to_vec()),
        ("run_id=run-3", vec![&runs[3]]),
        ("run_id=run-3&thread_id=even", vec![]),
    ];
    for (query, want) in cases {
        let mut socket = Socket::connect(server.http, &token, query).await;
        assert_eq!(ids(&socket.frame().await), want, "?{query}");
    }
    let request = SubscribeRequest {
        thread_id: "odd".into(),
        ..Default::default()
    };
    let mut grpc = Grpc::open(&server, &token, request).await;
    let open = grpc.established().await.open_runs;
    let open: Vec<_> = open.iter().map(|run| &run.run_id).collect();
    assert_eq!(open, odd[6..]);
    server.stop().await;
}

#[tokio::test]
async fn a_gap_tells_what_is_open_behind_it() {
    let server = Server::start_with(|settings| settings.retention.events = 5).await;
    let first = wire::started("alice", "open");
    let receipts = server.emit_all("agents", vec![first]).await;
    let start = receipts[0].position.clone().unwrap();
    server
        .emit_all("agents", wire::whole_run("alice", "ended"))
        .await;
    let token = server.token("alice", "subscribe");
    let after = format!("{}-{}", start.epoch, start.offset - 1);
    for query in [format!("after={after}"), "after=00000000000000ab-1".into()] {
        let mut socket = Socket::connect(server.http, &token, &query).await;
        let gap = socket.frame_of("connection_gap").await;
        assert_eq!(ids(&gap), ["open"], "?{query}");
        let query = format!("{query}&run_id=ended");
        let mut socket = Socket::connect(server.http, &token, &query).await;
        let gap = socket.frame_of("connection_gap").await;
        assert_eq!(ids(&gap), [] as [&str; 0], "?{query}");
    }
    let after = v1::Position {
        offset: start.offset - 1,
        ..start
    };
    let request = SubscribeRequest {
        start: Some(Start::After(after)),
        ..Default::default()
    };
    let mut grpc = Grpc::open(&server, &token, request).await;
    grpc.established().await;
    match grpc.next().await.unwrap() {
        Item::Gap(gap) => assert_eq!(gap.open_runs[0].run_id, "open"),
        other => panic!("{other:?}"),
    }
    server.stop().await;
}

#[tokio::test]
async fn open_begins_with_the_oldest_open_run_and_at_the_head_without_one() {
    let server = Server::start().await;
    let token = server.token("alice", "subscribe");
    server
        .emit_all("agents", wire::whole_run("alice", "ended"))
        .await;
    let mut idle = Socket::connect(server.http, &token, "from=open").await;
    let mut idle_grpc = Grpc::open(&server, &token, from(StartFrom::Open)).await;
    idle.frame_of("connection_caught_up").await;
    idle_grpc.established().await;

    let mut all = vec![in_thread("t1", wire::started("alice", "open-1"))];
    all.extend(wire::whole_run("alice", "ended-2"));
    all.push(in_thread("t2", wire::started("alice", "open-2")));
    all.push(tool("open-1", "c1"));
    server.emit_all("agents", all).await;
    assert_eq!(idle.event().await["run_id"], "open-1");
    assert_eq!(idle_grpc.event().await.run_id, "open-1");
    for (query, want) in [
        ("from=open", "open-1-started"),
        ("from=open&thread_id=t2", "open-2-started"),
        ("from=open&run_id=open-1&types=tool_executing", "open-1-c1"),
    ] {
        let mut socket = Socket::connect(server.http, &token, query).await;
        assert_eq!(socket.event().await["event_id"], want, "?{query}");
    }
    let mut grpc = Grpc::open(&server, &token, from(StartFrom::Open)).await;
    assert_eq!(grpc.event().await.event_id, "open-1-started");
    server.stop().await;
}

#[tokio::test]
async fn an_open_run_whose_start_was_trimmed_begins_with_a_gap() {
    let server = Server::start_with(|settings| settings.retention.events = 6).await;
    server.start_runs("alice", &["open"]).await;
    server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let token = server.token("alice", "subscribe");
    let mut whole = Socket::connect(server.http, &token, "from=open").await;
    assert_eq!(ids(&whole.frame().await), ["open"]);
    assert_eq!(whole.frame().await["event_id"], "open-started");
    server.start_runs("alice", &["open-2"]).await;
    let mut socket = Socket::connect(server.http, &token, "from=open").await;
    let established = socket.frame().await;
    let gap = socket.frame().await;
    assert_eq!(gap["reason"], "trimmed", "{gap}");
    assert_eq!(gap["after"], established["position"]);
    assert_eq!(socket.frame().await["event_id"], "run-1-1");
    let mut grpc = Grpc::open(&server, &token, from(StartFrom::Open)).await;
    grpc.established().await;
    assert!(matches!(grpc.next().await.unwrap(), Item::Gap(_)));
    server.stop().await;
}

#[tokio::test]
async fn nothing_speaks_of_what_is_behind_a_gap_before_the_gap_is_told() {
    let (memory, clock) = events::memory(memory::Config::default());
    let engine = FaultyEngine::new(memory, 1);
    let environment = Environment {
        clock,
        entropy: Entropy::system(),
        engine: Some(engine.clone()),
    };
    let server = Server::start_in(environment, |settings| {
        settings.limits.heartbeat = Duration::from_millis(400);
    })
    .await;
    server.start_runs("alice", &["run-1"]).await;
    let token = server.token("alice", "subscribe");
    // Enough for the beginning, not for the gap.
    engine.allow_open_runs(1);
    let after = "00000000000000ab-7";
    let mut socket = Socket::connect(server.http, &token, &format!("after={after}")).await;
    assert_eq!(socket.frame().await["position"], after);
    for _ in 0..3 {
        let frame = socket.frame().await;
        let told = (&frame["type"], &frame["position"]);
        assert_eq!(told, (&json!("connection_heartbeat"), &json!(after)));
    }
    engine.allow_open_runs(1);
    let gap = socket.frame_of("connection_gap").await;
    assert_eq!((ids(&gap), &gap["after"]), (vec!["run-1"], &json!(after)));
    assert_eq!(socket.event().await["run_id"], "run-1");
    server.stop().await;
}

#[tokio::test]
async fn a_run_that_starts_while_the_open_ones_are_read_is_not_missed() {
    for query in ["", "from=open", "after=00000000000000ab-1"] {
        let (memory, clock) = events::memory(memory::Config::default());
        let engine = FaultyEngine::new(memory, 1);
        let environment = Environment {
            clock: clock.clone(),
            entropy: Entropy::system(),
            engine: Some(engine.clone()),
        };
        let server = Server::start_in(environment, |_| {}).await;
        let token = server.token("alice", "subscribe");
        let stream = events::stream("alice");
        let start = events::event(&stream, "e1", Some("late"), Kind::AgentStarted);
        let start = events::of(start, "t1", "researcher");
        let mut draft = events::draft(Arc::new(start), 1, clock.now());
        draft.step = Step::Start {
            silence_timeout: None,
        };
        engine.store_behind_open_runs(Commit {
            drafts: vec![draft],
        });
        let mut socket = Socket::connect(server.http, &token, query).await;
        // It is told as open, or it comes as an event.
        loop {
            let frame = socket.frame().await;
            let told = frame["open_runs"]
                .as_array()
                .is_some_and(|runs| !runs.is_empty());
            if told || frame["run_id"] == "late" {
                break;
            }
            assert_ne!(
                frame["type"], "connection_caught_up",
                "?{query}: it was missed"
            );
        }
        server.stop().await;
    }
}

/// What any producer may leave open within the bounds: 64 runs with 256 tool calls each, under ids of 128 characters.
#[tokio::test]
async fn what_is_open_fits_into_a_message_of_a_stock_client() {
    let server = Server::start().await;
    let runs: Vec<String> = (0..64).map(|n| format!("r{n}")).collect();
    let names: Vec<&str> = runs.iter().map(String::as_str).collect();
    server.start_runs("alice", &names).await;
    for run in &names {
        let call = |n: usize| {
            let payload = Payload::ToolExecuting(v1::ToolExecuting {
                tool_call_id: format!("{n:0>128}"),
                tool_name: "x".repeat(128),
                ..Default::default()
            });
            wire::event("alice", run, &format!("{run}-{n}"), payload)
        };
        server
            .emit_all("agents", (0..256).map(call).collect())
            .await;
    }
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "").await;
    let frame = socket.frame().await;
    let bytes = frame.to_string().len();
    println!("connection_established has {bytes} bytes");
    let mut grpc = Grpc::open(&server, &token, SubscribeRequest::default()).await;
    let first = grpc.next().await;
    assert!(
        first.is_ok(),
        "{:?}; as JSON it has {bytes} bytes",
        first.err()
    );
}
