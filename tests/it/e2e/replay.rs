//! An honest replay of events under their ids: it differs in what its producer makes anew.

use emitter::{
    app::Environment,
    clock::{Clock, Entropy},
    config::EngineKind,
    proto::v1::{self, emit_result::Outcome, event::Payload, tool_executing::Input},
};

use super::{server::Server, wire};

const FIRST: &str = r#"{"id":9007199254740993,"limit":1.0,"q":"é","password":"one"}"#;

/// A tool call with `parameters`, emitted at the second `at` by `producer`, else by the credential's subject.
fn call(parameters: &str, at: i64, producer: Option<&str>) -> v1::Event {
    let payload = Payload::ToolExecuting(v1::ToolExecuting {
        tool_call_id: "c1".into(),
        tool_name: "buy".into(),
        input: Some(Input::ParametersJson(parameters.into())),
        ..Default::default()
    });
    let occurred_at = prost_types::Timestamp {
        seconds: at,
        nanos: 0,
    };
    v1::Event {
        occurred_at: Some(occurred_at),
        traceparent: format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b{at}-01"),
        source: producer.map(|producer_id| v1::Source {
            producer_id: producer_id.into(),
            term: 0,
        }),
        ..wire::event("alice", "run-1", "e1", payload)
    }
}

/// What becomes of `event`: whether it is a duplicate, or why it is refused.
async fn fate(server: &Server, event: v1::Event) -> Result<bool, String> {
    let results = server.try_emit("agents", vec![event]).await;
    match results.into_iter().next().unwrap().outcome.unwrap() {
        Outcome::Receipt(receipt) => Ok(receipt.duplicate),
        Outcome::Refusal(refused) => Err(refused.reason),
    }
}

async fn replays_are_duplicates(server: &Server) {
    let spaced = "{\n  \"q\": \"\\u00e9\",\n  \"limit\": 10e-1,\n  \"id\": 9007199254740993,\n  \"password\": \"one\"\n}";
    for parameters in [FIRST, spaced] {
        let replay = call(parameters, 2, Some("another worker"));
        assert_eq!(fate(server, replay).await, Ok(true), "{parameters}");
    }
    for other in [
        r#"{"id":9007199254740992,"limit":1.0,"q":"é","password":"one"}"#,
        r#"{"id":9007199254740993,"limit":1.0,"q":"é","password":"two"}"#,
    ] {
        let reused = call(other, 1, None);
        let refused = Err("EVENT_ID_REUSED".to_owned());
        assert_eq!(fate(server, reused).await, refused, "{other}");
    }
}

#[tokio::test]
async fn a_replay_with_another_time_and_spelling_is_a_duplicate() {
    let server = Server::start().await;
    server.start_runs("alice", &["run-1"]).await;
    assert_eq!(fate(&server, call(FIRST, 1, None)).await, Ok(false));
    replays_are_duplicates(&server).await;
    server.stop().await;
}

/// The secret that hashes are keyed with is the store's, not the process's.
#[tokio::test]
async fn a_replay_after_a_restart_is_a_duplicate() {
    let directory = tempfile::tempdir().unwrap();
    let start = async |clock: Clock| {
        let environment = Environment {
            clock,
            entropy: Entropy::system(),
            engine: None,
        };
        Server::start_in(environment, |settings| {
            settings.engine.kind = EngineKind::Durable;
            settings.engine.data_dir = directory.path().into();
        })
        .await
    };
    let server = start(Clock::manual(Clock::system().now())).await;
    let clock = server.clock.clone();
    server.start_runs("alice", &["run-1"]).await;
    assert_eq!(fate(&server, call(FIRST, 1, None)).await, Ok(false));
    server.stop().await;
    let server = start(clock).await;
    replays_are_duplicates(&server).await;
    server.stop().await;
}
