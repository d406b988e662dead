//! Credentials end, and can be renewed.

use std::time::Duration;

use emitter::proto::v1::{SubscribeRequest, subscribe_response::Item};
use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::{Error, Message};
use tonic_types::StatusExt;

use super::{
    delivery::heard,
    server::Server,
    wire::{self, Socket},
};

const MINUTES: Duration = Duration::from_secs(600);

/// For how long after its end a credential is accepted, since clocks differ.
const LEEWAY: Duration = Duration::from_secs(60);

async fn authenticate(socket: &mut Socket, token: &str) {
    let message = format!(r#"{{"type":"authenticate","token":"{token}"}}"#);
    socket.0.send(Message::text(message)).await.unwrap();
}

#[tokio::test]
async fn a_credential_that_ends_is_announced_and_then_closes_with_4003() {
    let server = Server::start().await;
    let token = server.token_for("alice", "subscribe", MINUTES);
    let mut socket = Socket::connect(server.http, &token, "").await;
    socket.frame_of("connection_caught_up").await;
    server.clock.advance(MINUTES - Duration::from_secs(60));
    let expiring = socket.frame_of("connection_token_expiring").await;
    assert_eq!(expiring["expires_in_ms"], 60_000, "{expiring}");
    server.clock.advance(Duration::from_secs(60) + LEEWAY);
    let closing = socket.frame_of("connection_closing").await;
    assert_eq!(closing["reason"], "CREDENTIAL_EXPIRED");
    assert!(closing["reconnect_after_ms"].is_number(), "{closing}");
    assert_eq!(socket.closed().await, 4003);
    server.stop().await;
}

#[tokio::test]
async fn authenticate_renews_for_the_same_reader_only() {
    let server = Server::start().await;
    let token = server.token_for("alice", "subscribe", MINUTES);
    let mut socket = Socket::connect(server.http, &token, "").await;
    socket.frame_of("connection_caught_up").await;
    server.clock.advance(MINUTES - Duration::from_secs(30));
    socket.frame_of("connection_token_expiring").await;
    let others = [
        (server.token("bob", "subscribe"), "USER_FORBIDDEN"),
        (
            server.token_in("other", "alice", "subscribe"),
            "TENANT_FORBIDDEN",
        ),
        (server.token("alice", "emit"), "SCOPE_MISSING"),
        ("garbage".into(), "UNAUTHENTICATED"),
    ];
    for (other, want) in others {
        authenticate(&mut socket, &other).await;
        let error = socket.frame_of("connection_error").await;
        assert_eq!(error["reason"], want);
    }
    // White space around a token is ignored, as in a header.
    let renewed = server.token_for("alice", "subscribe", MINUTES);
    authenticate(&mut socket, &format!(" {renewed}  ")).await;
    assert_eq!(heard(&mut socket).await, [] as [&str; 0]);
    // It outlives the first token, and is told of the second one's end.
    server.clock.advance(MINUTES - Duration::from_secs(30));
    socket.frame_of("connection_token_expiring").await;
    server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    assert_eq!(socket.event().await["event_id"], "run-1-1");
    server.clock.advance(Duration::from_secs(30) + LEEWAY);
    assert_eq!(socket.closed().await, 4003);
    server.stop().await;
}

#[tokio::test]
async fn a_grpc_stream_ends_with_its_credential() {
    let server = Server::start().await;
    let token = server.token_for("alice", "subscribe", MINUTES);
    let mut client = server.subscriber().await;
    let request = wire::with_token(&token, SubscribeRequest::default());
    let mut stream = client.subscribe(request).await.unwrap().into_inner();
    server.clock.advance(MINUTES + LEEWAY);
    let mut last = None;
    let status = loop {
        match stream.message().await {
            Ok(message) => last = message.expect("a status").item,
            Err(status) => break status,
        }
    };
    assert!(
        matches!(&last, Some(Item::Closing(closing)) if closing.reason == "CREDENTIAL_EXPIRED"),
        "{last:?}"
    );
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "CREDENTIAL_EXPIRED");
    server.stop().await;
}

#[tokio::test]
async fn an_expired_credential_does_not_open_anything() {
    let server = Server::start().await;
    let token = server.token_for("alice", "subscribe", MINUTES);
    server.clock.advance(MINUTES + LEEWAY);
    let bearer = format!("Bearer {token}");
    match Socket::open(server.http, "", &[("authorization", bearer.clone())]).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), 401),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("connected"),
    }
    server.stop().await;
    // A browser, which cannot read the status, gets the code.
    let server = Server::start_with(|settings| settings.origins = vec!["https://app".into()]).await;
    let token = server.token_for("alice", "subscribe", MINUTES);
    server.clock.advance(MINUTES + LEEWAY);
    let headers = [
        ("authorization", format!("Bearer {token}")),
        ("origin", "https://app".into()),
    ];
    let mut socket = Socket::open(server.http, "", &headers).await.unwrap();
    assert_eq!(socket.closed().await, 4003);
    server.stop().await;
}

#[tokio::test]
async fn a_credential_is_accepted_for_a_minute_after_its_end() {
    let server = Server::start().await;
    let token = server.token_for("alice", "subscribe", MINUTES);
    server
        .clock
        .advance(MINUTES + LEEWAY - Duration::from_secs(1));
    let mut socket = Socket::connect(server.http, &token, "").await;
    socket.frame_of("connection_caught_up").await;
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(socket.closed().await, 4003);
    server.stop().await;
}
