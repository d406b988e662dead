use std::time::Duration;

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::{
    access::{Grant, Scope},
    clock::Timestamp,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn access() -> access::Config {
    access::Config {
        issuer: "dev".into(),
        secret: vec![b's'; access::SECRET_BYTES],
    }
}

fn page() -> Router {
    let routes = Router::new().route("/v1/stream", get(|| async { "the stream" }));
    with_page(routes, access(), "127.0.0.1:1")
}

fn token(scope: Scope, expires_at: Timestamp) -> String {
    access::mint(&access(), &Grant::new("demo", [scope], expires_at)).unwrap()
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

async fn ask(method: Method, path: &str, host: &str, token: Option<&str>) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    request = request.header(header::HOST, host);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Body::empty()).unwrap();
    let (parts, body) = page().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

async fn renewed(token: Option<&str>) -> (u16, Value) {
    let answer = ask(Method::POST, "/dev/token", "localhost:1", token).await;
    (answer.status, serde_json::from_str(&answer.body).unwrap())
}

#[tokio::test]
async fn every_file_that_the_page_names_is_served_as_what_it_is() {
    let index = ask(Method::GET, "/", "127.0.0.1:8080", None).await;
    assert_eq!(index.status, 200);
    assert_eq!(
        index.headers[header::CONTENT_TYPE],
        "text/html; charset=utf-8"
    );
    for (name, content_type, text) in assets::FILES {
        let file = ask(Method::GET, &format!("/page/{name}"), "127.0.0.1", None).await;
        assert_eq!((file.status, file.body.as_str()), (200, text), "{name}");
        assert_eq!(file.headers[header::CONTENT_TYPE], content_type, "{name}");
    }
    // What the page and its scripts name is there.
    let scripts = assets::FILES.iter().map(|file| file.2);
    for text in scripts.chain([index.body.as_str()]) {
        for named in text.split('"').filter(|text| text.starts_with("/page/")) {
            assert_eq!(
                ask(Method::GET, named, "127.0.0.1", None).await.status,
                200,
                "{named}"
            );
        }
        for named in text.split('"').filter_map(|text| text.strip_prefix("./")) {
            let path = format!("/page/{named}");
            assert_eq!(
                ask(Method::GET, &path, "127.0.0.1", None).await.status,
                200,
                "{named}"
            );
        }
    }
    assert_eq!(
        ask(Method::GET, "/page/none.js", "127.0.0.1", None)
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn the_page_can_run_nothing_but_its_own_scripts() {
    let index = ask(Method::GET, "/", "127.0.0.1:8080", None).await;
    let policy = index.headers[header::CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self' ws://127.0.0.1:8080",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(
            policy.split("; ").any(|found| found == part),
            "{part} in {policy}"
        );
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(index.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(index.headers[header::REFERRER_POLICY], "no-referrer");
}

#[tokio::test]
async fn other_names_are_not_answered_whatever_is_asked() {
    let now = Clock::system().now();
    let good = token(Scope::Subscribe, now + DAY);
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/page/main.js"),
        (Method::GET, "/v1/stream"),
        (Method::POST, "/dev/token"),
        (Method::POST, "/dev/sample"),
        (Method::GET, "/nowhere"),
    ] {
        let answer = ask(method, path, "rebound.example:8080", Some(&good)).await;
        assert_eq!(answer.status, 421, "{path}");
    }
    let stream = ask(Method::GET, "/v1/stream", "localhost:8080", None).await;
    assert_eq!((stream.status, stream.body.as_str()), (200, "the stream"));
}

#[tokio::test]
async fn a_token_is_renewed_for_the_same_reader_also_when_it_has_expired() {
    let now = Clock::system().now();
    let before = |span: Duration| {
        Timestamp::default() + now.since(Timestamp::default()).saturating_sub(span)
    };
    for expires_at in [now + DAY, before(Duration::from_secs(60)), before(DAY * 6)] {
        let (status, body) = renewed(Some(&token(Scope::Subscribe, expires_at))).await;
        assert_eq!(status, 200, "{body}");
        let fresh = body["token"].as_str().unwrap();
        let authenticator = Authenticator::new(&access(), Clock::system());
        let principal = authenticator.verify(fresh).unwrap();
        assert_eq!(principal.subject.as_str(), "demo");
        assert_eq!(principal.scopes, [Scope::Subscribe].into());
        let life = principal.expires_at.since(now);
        assert!(
            life > Duration::from_secs(3_500) && life < Duration::from_secs(3_700),
            "{life:?}"
        );
        assert!(body["expires_at"].is_string(), "{body}");
    }
    for (old, status, reason) in [
        (
            Some(token(Scope::Subscribe, before(DAY * 8))),
            401,
            "CREDENTIAL_EXPIRED",
        ),
        (Some(token(Scope::Emit, now + DAY)), 403, "SCOPE_MISSING"),
        (Some("a.b.c".to_owned()), 401, "UNAUTHENTICATED"),
        (None, 401, "UNAUTHENTICATED"),
    ] {
        let (got, body) = renewed(old.as_deref()).await;
        assert_eq!(
            (got, body["reason"].as_str()),
            (status, Some(reason)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_token_of_another_user_is_had_for_a_good_one() {
    let good = token(Scope::Subscribe, Clock::system().now() + DAY);
    let switched = async |user: &str, token: Option<&str>| {
        let path = format!("/dev/token?user={user}");
        let answer = ask(Method::POST, &path, "localhost:1", token).await;
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        (answer.status, body)
    };
    let (status, body) = switched("alice%2F1", Some(&good)).await;
    assert_eq!(status, 200, "{body}");
    let authenticator = Authenticator::new(&access(), Clock::system());
    let fresh = body["token"].as_str().unwrap();
    let principal = authenticator.verify(fresh).unwrap();
    assert_eq!(principal.subject.as_str(), "alice/1");
    assert_eq!(principal.scopes, [Scope::Subscribe].into());
    let long = "x".repeat(200);
    for user in ["", &long] {
        let (status, body) = switched(user, Some(&good)).await;
        let message = body["message"].as_str().unwrap();
        assert_eq!(
            (status, &body["reason"]),
            (400, &json!("INVALID_REQUEST")),
            "{body}"
        );
        assert!(message.starts_with("`user`: "), "{body}");
    }
    assert_eq!(switched("alice", None).await.0, 401);
}

#[tokio::test]
async fn only_so_many_sample_runs_play_at_once() {
    let now = Clock::system().now();
    let good = token(Scope::Subscribe, now + DAY);
    let router = page();
    let play = |token: &str| {
        let request = Request::post("/dev/sample")
            .header(header::HOST, "localhost")
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        router.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(play(&good).await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [202, 202, 202, 202, 429]);
    let expired = token(
        Scope::Subscribe,
        Timestamp::default() + Duration::from_secs(1),
    );
    assert_eq!(play(&expired).await.unwrap().status().as_u16(), 401);
    let emitter = token(Scope::Emit, now + DAY);
    assert_eq!(play(&emitter).await.unwrap().status().as_u16(), 403);
}
