//! The page's sample run, through the real listeners.

use std::time::Duration;

use emitter::{
    access::{self, Grant, Scope, mint},
    app::{App, Environment},
    client::{Credential, Item, Reader, ReaderConfig, Start},
    clock::Clock,
    config::{Config, Sources},
    page,
};

use super::{http, server::Server};
use crate::support::asyncapi;

const SECRET: &str = "a secret of the tests, and of nothing else";

/// As long as the run takes, and then some.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_run_keeps_every_rule_and_completes() {
    let variables = [
        ("EMITTER_GRPC_LISTEN", "127.0.0.1:0"),
        ("EMITTER_HTTP_LISTEN", "127.0.0.1:0"),
        ("EMITTER_ADMIN_LISTEN", "127.0.0.1:0"),
        ("EMITTER_AUTH__ISSUER", "dev"),
        ("EMITTER_AUTH__SECRET", SECRET),
    ];
    let environment = variables.map(|(name, value)| (name.into(), value.into()));
    let config = Config::load(&Sources {
        environment: environment.into(),
        ..Sources::default()
    })
    .unwrap();
    let app = App::bind(&config, Environment::default()).await.unwrap();
    let addresses = app.addresses();
    let access = access::Config {
        issuer: "dev".into(),
        secret: SECRET.into(),
    };
    let grpc = addresses.grpc.to_string();
    let running = app
        .with_http(|routes| page::with_page(routes, access.clone(), &grpc))
        .start();
    let expires_at = Clock::system().now() + Duration::from_secs(600);
    let token = mint(&access, &Grant::new("demo", [Scope::Subscribe], expires_at)).unwrap();

    let host = addresses.http;
    let request = format!(
        "POST /dev/sample HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    let answer = http::exchange(host, request.as_bytes()).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 202"), "{answer}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let run_id = body["run_id"].as_str().unwrap();

    let http = host.to_string();
    let reading = read_until_end(&http, &token, run_id);
    let frames = tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the run did not end");
    let of = |wire_type: &str| frames.iter().filter(|kind| *kind == wire_type).count();
    assert_eq!(
        (
            of("agent_started"),
            of("tool_executing"),
            of("tool_completed")
        ),
        (2, 5, 5),
        "{frames:?}"
    );
    assert_eq!(
        (of("agent_completed"), of("agent_failed")),
        (2, 0),
        "{frames:?}"
    );
    assert!(
        of("thinking_delta") > 3 && of("text_delta") > 20,
        "{frames:?}"
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn only_dev_has_a_page() {
    let server = Server::start().await;
    for path in ["/", "/page/main.js", "/dev/token", "/dev/sample"] {
        assert_eq!(http::get(server.http, path).await.0, 404, "{path}");
    }
    server.stop().await;
}

/// The types of all events until the run completes.
async fn read_until_end(http: &str, token: &str, run_id: &str) -> Vec<String> {
    let config = ReaderConfig {
        start: Start::Oldest,
        join: Some(false),
        ..ReaderConfig::default()
    };
    let mut reader =
        Reader::new(&format!("http://{http}"), Credential::fixed(token), config).unwrap();
    let mut types = Vec::new();
    loop {
        if let Item::Event(frame) = reader.next().await.unwrap() {
            types.push(frame.kind().to_owned());
            let frame = asyncapi::checked(serde_json::from_str(frame.text()).unwrap());
            if frame["type"] == "agent_completed" && frame["run_id"] == run_id {
                return types;
            }
        }
    }
}
