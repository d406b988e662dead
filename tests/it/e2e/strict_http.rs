//! Requests that an HTTP server and a proxy before it might read differently are refused.

use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Error;
use tonic::Code;

use super::{
    event_stream::Answer,
    http,
    server::Server,
    wire::{self, Socket},
};

/// The status line that `request` is answered with.
async fn status(address: std::net::SocketAddr, request: &str) -> String {
    let answer = http::exchange(address, request.as_bytes()).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_request_names_one_host() {
    let server = Server::start().await;
    for (listener, path) in [
        (server.http, "/emitter.js"),
        (server.http, "/v1/stream"),
        (server.admin, "/healthz"),
    ] {
        for (version, hosts, refused) in [
            ("1.1", "", true),
            ("1.1", "host: a\r\nhost: a\r\n", true),
            ("1.1", "host: a\r\nhost: b\r\n", true),
            ("1.0", "host: a\r\nhost: b\r\n", true),
            ("1.1", "host: a\r\n", false),
            ("1.0", "", false),
        ] {
            let request = format!("GET {path} HTTP/{version}\r\n{hosts}connection: close\r\n\r\n");
            let line = status(listener, &request).await;
            assert_eq!(line.contains(" 400 "), refused, "{request}{line}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_websocket_handshake_has_no_body() {
    let server = Server::start().await;
    let token = server.token("alice", "subscribe");
    let head = format!(
        "GET /v1/stream HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    for body in [
        "content-length: 4\r\n\r\nabcd",
        "transfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    ] {
        let mut tcp = tokio::net::TcpStream::connect(server.http).await.unwrap();
        tcp.write_all(format!("{head}{body}").as_bytes())
            .await
            .unwrap();
        let mut line = [0; 12];
        wire::in_time(tokio::io::AsyncReadExt::read_exact(&mut tcp, &mut line))
            .await
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&line), "HTTP/1.1 400", "{body}");
    }
    server.stop().await;
}

#[tokio::test]
async fn two_credentials_are_refused_on_every_transport() {
    let server = Server::start().await;
    let token = server.token("alice", "subscribe emit operate");
    let bearer = format!("Bearer {token}");

    let twice = [
        ("authorization", bearer.as_str()),
        ("authorization", &bearer),
    ];
    let answer = Answer::of(server.http, "GET", "/v1/events", &twice).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.reason().await, "UNAUTHENTICATED");

    let protocols = format!("emitter.v1.json, base64url.bearer.authorization.emitter.{token}");
    let both = [
        ("authorization", bearer.clone()),
        ("sec-websocket-protocol", protocols),
    ];
    match Socket::open(server.http, "", &both).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), 401),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two credentials connected"),
    }

    let mut emitter = wire::emitter(server.grpc).await;
    let events = emitter::proto::v1::EmitBatchRequest {
        events: wire::whole_run("alice", "r1"),
    };
    let mut request = wire::with_token(&token, events);
    let value = bearer.parse().unwrap();
    request.metadata_mut().append("authorization", value);
    let status = emitter.emit_batch(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");

    let mut subscriber = server.subscriber().await;
    let mut request = wire::with_token(&token, emitter::proto::v1::SubscribeRequest::default());
    let value = bearer.parse().unwrap();
    request.metadata_mut().append("authorization", value);
    let status = subscriber.subscribe(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_query_that_is_not_utf_8_is_400() {
    let server = Server::start().await;
    let bearer = format!("Bearer {}", server.token("alice", "subscribe"));
    let events = [("authorization", bearer.as_str())];
    let answer = Answer::of(server.http, "GET", "/v1/events?thread_id=%ff", &events).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.reason().await, "INVALID_REQUEST");
    let headers = [("authorization", bearer.clone())];
    match Socket::open(server.http, "thread_id=%ff", &headers).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), 400),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("%ff connected"),
    }
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_without_upgrade_names_the_header_and_the_settings_of_proxies() {
    let server = Server::start().await;
    let (status, body) = http::get(server.http, "/v1/stream").await;
    assert_eq!(status, 426);
    for part in [
        "the Upgrade header did not arrive",
        "proxy_set_header Upgrade $http_upgrade",
        "HAProxy",
    ] {
        assert!(body.contains(part), "{part} is not in {body}");
    }
    server.stop().await;
}

#[tokio::test]
async fn empty_fragments_count_as_frames() {
    let server = Server::start().await;
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "").await;
    socket.frame_of("connection_caught_up").await;
    // The first fragment of a text, then empty ones.
    let mut fragments = vec![0x01, 0x80, 0, 0, 0, 0];
    for _ in 0..1000 {
        fragments.extend([0x00, 0x80, 0, 0, 0, 0]);
    }
    let tokio_tungstenite::MaybeTlsStream::Plain(tcp) = socket.0.get_mut() else {
        panic!("the test connects without TLS");
    };
    tcp.write_all(&fragments).await.unwrap();
    assert_eq!(socket.closed().await, 4506);
    server.stop().await;
}
