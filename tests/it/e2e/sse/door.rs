//! Who may read over `GET /v1/events`, and what those are told who may not.

use std::time::Duration;

use emitter::config::Settings;

use crate::e2e::{
    event_stream::{self, Answer},
    http,
    server::Server,
    wire::{self, Socket},
};

const APP: &str = "https://app.example";

fn of_app(settings: &mut Settings) {
    settings.origins = vec![APP.into(), "https://other.example".into()];
}

#[tokio::test]
async fn a_reader_sees_its_own_stream_whatever_it_asks_for() {
    let server = Server::start().await;
    let receipts = server
        .emit_all("agents", wire::whole_run("alice", "run-a"))
        .await;
    server
        .emit_all("agents", wire::whole_run("bob", "run-b"))
        .await;
    let at = receipts[0].position.clone().unwrap();
    let of_alice = format!("{}-{}", at.epoch, at.offset);
    let token = server.token("bob", "subscribe");
    for query in [
        "from=oldest&run_id=run-a",
        "from=oldest&run_id=run-a&user_id=alice&tenant_id=default&sub=alice",
    ] {
        let mut events = event_stream::open(server.http, &token, query, &[]).await;
        assert_eq!(events.next().await.unwrap().frame["user_id"], "bob");
        let next = events.next().await.unwrap().frame;
        assert_eq!(next["type"], "connection_caught_up", "?{query}: {next}");
    }
    // Another user's position is a place in one's own stream.
    let mut events = event_stream::resume(server.http, &token, "", &of_alice).await;
    for n in 1..=5 {
        let event = events.event().await.frame;
        assert_eq!(event["event_id"], format!("run-b-{n}"));
    }
    let token = server.token_in("other", "alice", "subscribe");
    let mut events = event_stream::open(server.http, &token, "from=oldest", &[]).await;
    events.next().await.unwrap();
    let next = events.next().await.unwrap().frame;
    assert_eq!(next["type"], "connection_caught_up", "{next}");
    server.stop().await;
}

#[tokio::test]
async fn a_request_that_is_refused_gets_the_status_and_the_reason() {
    let server = Server::start().await;
    let good = format!("Bearer {}", server.token("alice", "subscribe"));
    let emitter = format!("Bearer {}", server.token("alice", "emit"));
    let expired = server.token_for("alice", "subscribe", Duration::from_secs(1));
    server.clock.advance(Duration::from_secs(61));
    let expired = format!("Bearer {expired}");
    let entry = format!("emitter.v1.json, base64url.bearer.authorization.emitter.{good}");
    let in_url = format!("token={0}&access_token={0}&ticket={0}", &good[7..]);
    let authorized = |value: &str| vec![("authorization".to_owned(), value.to_owned())];
    let with_id = |id: &str| {
        let id = ("last-event-id".to_owned(), id.to_owned());
        [authorized(&good), vec![id]].concat()
    };
    let protocol = vec![("sec-websocket-protocol".to_owned(), entry)];
    for (query, headers, status, reason) in [
        ("", vec![], 401, "UNAUTHENTICATED"),
        ("", authorized("Bearer garbage"), 401, "UNAUTHENTICATED"),
        ("", authorized("Basic dTpw"), 401, "UNAUTHENTICATED"),
        ("", protocol, 401, "UNAUTHENTICATED"),
        (&in_url, vec![], 401, "UNAUTHENTICATED"),
        ("", authorized(&expired), 401, "CREDENTIAL_EXPIRED"),
        ("from=x", authorized(&emitter), 403, "SCOPE_MISSING"),
        ("from=x", authorized(&good), 400, "INVALID_REQUEST"),
        ("after=1", authorized(&good), 400, "INVALID_REQUEST"),
        ("from=acked", authorized(&good), 400, "INVALID_REQUEST"),
        ("", with_id("1"), 400, "INVALID_REQUEST"),
        ("", with_id("\u{e9}"), 400, "INVALID_REQUEST"),
    ] {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let path = format!("/v1/events?{query}");
        let answer = Answer::of(server.http, "GET", &path, &headers).await;
        assert_eq!(answer.status, status, "{path} {headers:?}");
        assert_eq!(answer.header("retry-after"), "");
        assert_eq!(answer.header("access-control-allow-origin"), "");
        assert_eq!(answer.reason().await, reason, "{path} {headers:?}");
    }
    let headers = [("authorization", &*good), ("last-event-id", "x")];
    let answer = Answer::of(server.http, "GET", "/v1/events", &headers).await;
    let text = answer.text().await;
    assert!(text.contains("last-event-id"), "{text}");
    let counted = "emitter_connections_closed_total{reason=\"SCOPE_MISSING\"}";
    assert_eq!(server.metric(counted).await, 1.0);
    server.stop().await;
}

#[tokio::test]
async fn pages_of_listed_origins_may_read_answers_and_refusals() {
    let server = Server::start_with(of_app).await;
    let bearer = format!("Bearer {}", server.token("alice", "subscribe"));
    for (method, authorization, status) in [
        ("GET", &*bearer, 200),
        ("GET", "Bearer garbage", 401),
        ("OPTIONS", "", 204),
        ("POST", &bearer, 405),
    ] {
        let headers = [("authorization", authorization), ("origin", APP)];
        let answer = Answer::of(server.http, method, "/v1/events", &headers).await;
        assert_eq!(answer.status, status, "{method}");
        assert_eq!(answer.header("access-control-allow-origin"), APP);
        assert_eq!(answer.header("vary"), "Origin");
        assert_eq!(
            answer.header("access-control-expose-headers"),
            "retry-after"
        );
        assert_eq!(answer.header("access-control-allow-credentials"), "");
    }
    let preflight = [
        ("origin", APP),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "authorization"),
    ];
    let answer = Answer::of(server.http, "OPTIONS", "/v1/events", &preflight).await;
    for (name, want) in [
        ("access-control-allow-methods", "GET"),
        (
            "access-control-allow-headers",
            "authorization, last-event-id, cache-control, \
             traceparent, tracestate, baggage, sentry-trace",
        ),
        ("access-control-max-age", "600"),
    ] {
        assert_eq!(answer.header(name), want);
    }
    server.stop().await;
}

#[tokio::test]
async fn pages_of_other_origins_may_read_nothing() {
    let server = Server::start_with(of_app).await;
    let bearer = format!("Bearer {}", server.token("alice", "subscribe"));
    for method in ["GET", "OPTIONS", "POST"] {
        for origin in ["https://evil.example", "https://app.example.evil", "null"] {
            let headers = [("authorization", &*bearer), ("origin", origin)];
            let answer = Answer::of(server.http, method, "/v1/events", &headers).await;
            assert_eq!(answer.status, 403, "{method} {origin}");
            for header in answer.headers.keys() {
                assert!(!header.starts_with("access-control"), "{header}");
            }
            assert_eq!(answer.reason().await, "ORIGIN_REFUSED");
        }
    }
    server.stop().await;
    let server = Server::start_with(|settings| settings.origins = vec!["*".into()]).await;
    let bearer = format!("Bearer {}", server.token("alice", "subscribe"));
    let headers = [
        ("authorization", &*bearer),
        ("origin", "https://any.example"),
    ];
    let answer = Answer::of(server.http, "GET", "/v1/events", &headers).await;
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!((answer.status, allowed), (200, "https://any.example"));
    server.stop().await;
}

#[tokio::test]
async fn the_method_is_get_and_the_protocol_may_be_old() {
    let server = Server::start().await;
    let token = server.token("alice", "subscribe");
    let bearer = format!("Bearer {token}");
    for method in ["HEAD", "POST", "PUT", "DELETE"] {
        let headers = [("authorization", &*bearer)];
        let answer = Answer::of(server.http, method, "/v1/events", &headers).await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), "GET, OPTIONS", "{method}");
    }
    assert_eq!(server.metric("emitter_sse_connections").await, 0.0);
    // A body without chunks ends with the connection: here, when the server does.
    let request =
        format!("GET /v1/events?from=oldest HTTP/1.0\r\nauthorization: Bearer {token}\r\n\r\n");
    server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let address = server.http;
    let reading = tokio::spawn(async move { http::exchange(address, request.as_bytes()).await });
    crate::e2e::connections::until(&server, "emitter_sse_connections", 1.0).await;
    server.stop().await;
    let answer = String::from_utf8(reading.await.unwrap()).unwrap();
    assert!(!answer.contains("chunked"), "{answer}");
    for n in 1..=5 {
        assert!(answer.contains(&format!("\"run-1-{n}\"")), "{answer}");
    }
    assert!(answer.contains("DRAINING"), "{answer}");
}

#[tokio::test]
async fn the_readers_of_one_user_are_bounded_together_over_all_doors() {
    let server = Server::start_with(|settings| {
        settings.limits.connections_per_user = 2;
        of_app(settings);
    })
    .await;
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "").await;
    socket.frame_of("connection_caught_up").await;
    let events = event_stream::open(server.http, &token, "", &[]).await;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer), ("origin", APP)];
    let refused = Answer::of(server.http, "GET", "/v1/events", &headers).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("access-control-allow-origin"), APP);
    let after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=5).contains(&after), "{after}");
    assert_eq!(refused.reason().await, "CONNECTION_LIMIT");
    let by_socket = [("authorization", bearer.clone())];
    assert!(Socket::open(server.http, "", &by_socket).await.is_err());
    // Another user is not touched, and a place that is given back can be taken.
    let other = server.token("bob", "subscribe");
    event_stream::open(server.http, &other, "", &[]).await;
    drop(events);
    let left = "emitter_connections_ended_total";
    crate::e2e::connections::until(&server, left, 2.0).await;
    event_stream::open(server.http, &token, "", &[]).await;
    server.stop().await;
}

#[tokio::test]
async fn the_client_for_browsers_is_served_to_any_page_once() {
    let server = Server::start().await;
    let headers = [("origin", "https://any.example")];
    let answer = Answer::of(server.http, "GET", "/emitter.js", &headers).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let javascript = "text/javascript; charset=utf-8";
    assert_eq!(answer.header("content-type"), javascript);
    let tag = answer.header("etag").to_owned();
    assert_eq!(
        answer.text().await,
        include_str!("../../../../clients/browser/emitter.js")
    );
    let headers = [("if-none-match", tag.as_str())];
    let answer = Answer::of(server.http, "GET", "/emitter.js", &headers).await;
    assert_eq!((answer.status, answer.header("etag")), (304, &*tag));
    server.stop().await;
}
