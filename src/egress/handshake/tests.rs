use http::{HeaderName, header::AUTHORIZATION};

use super::*;
use crate::{
    access::Scope,
    clock::Timestamp,
    event::{ProducerId, Source, Tenant, UserId},
};

fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The header lines of a valid handshake, with `extra` ones.
fn handshake(extra: &[(HeaderName, &str)]) -> HeaderMap {
    let mut all = headers(&[
        (CONNECTION, "keep-alive, Upgrade"),
        (UPGRADE, "WebSocket"),
        (SEC_WEBSOCKET_VERSION, "13"),
        (SEC_WEBSOCKET_KEY, KEY),
    ]);
    all.extend(headers(extra));
    all
}

#[test]
fn only_a_handshake_of_the_protocol_is_completed() {
    let upgrade = Upgrade::of(&Method::GET, &handshake(&[])).unwrap();
    // The example of RFC 6455, section 1.3.
    assert_eq!(upgrade.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let without = |name: HeaderName, value: Option<&'static str>| {
        let mut changed = handshake(&[]);
        changed.remove(&name);
        if let Some(value) = value {
            changed.insert(name, HeaderValue::from_static(value));
        }
        changed
    };
    let cases = [
        (Method::GET, without(UPGRADE, None), NoUpgrade::NoHeader),
        (
            Method::GET,
            handshake(&[(CONTENT_LENGTH, "4")]),
            NoUpgrade::Body,
        ),
        (
            Method::GET,
            handshake(&[(TRANSFER_ENCODING, "chunked")]),
            NoUpgrade::Body,
        ),
        (
            Method::GET,
            without(UPGRADE, Some("h2c")),
            NoUpgrade::NotAsked,
        ),
        (
            Method::GET,
            without(CONNECTION, Some("keep-alive")),
            NoUpgrade::NotAsked,
        ),
        (Method::HEAD, handshake(&[]), NoUpgrade::NotAsked),
        (
            Method::GET,
            without(SEC_WEBSOCKET_VERSION, None),
            NoUpgrade::Version,
        ),
        (
            Method::GET,
            without(SEC_WEBSOCKET_VERSION, Some("8")),
            NoUpgrade::Version,
        ),
        (
            Method::GET,
            without(SEC_WEBSOCKET_KEY, None),
            NoUpgrade::Key,
        ),
        (
            Method::GET,
            without(SEC_WEBSOCKET_KEY, Some("c2hvcnQ=")),
            NoUpgrade::Key,
        ),
        (
            Method::GET,
            without(SEC_WEBSOCKET_KEY, Some("???")),
            NoUpgrade::Key,
        ),
    ];
    for (method, headers, want) in cases {
        assert_eq!(
            Upgrade::of(&method, &headers).unwrap_err(),
            want,
            "{headers:?}"
        );
    }
    for (problem, status) in [
        (NoUpgrade::NoHeader, 426),
        (NoUpgrade::NotAsked, 426),
        (NoUpgrade::Body, 400),
        (NoUpgrade::Version, 426),
        (NoUpgrade::Key, 400),
        (NoUpgrade::Unsupported, 400),
    ] {
        assert_eq!(problem.response().status().as_u16(), status);
    }
}

#[test]
fn the_json_protocol_is_chosen_and_a_token_never_echoed() {
    let token = format!("{TOKEN_PREFIX}c2VjcmV0");
    for (offered, chosen) in [
        (None, None),
        (
            Some(format!("{JSON_PROTOCOL}, {token}")),
            Some(JSON_PROTOCOL),
        ),
        (
            Some(format!("{token},{JSON_PROTOCOL}")),
            Some(JSON_PROTOCOL),
        ),
        (Some(token.clone()), None),
        (Some("graphql-ws".to_owned()), None),
    ] {
        let extra = offered
            .iter()
            .map(|line| (SEC_WEBSOCKET_PROTOCOL, line.as_str()));
        let headers = handshake(&extra.collect::<Vec<_>>());
        let response = Upgrade::of(&Method::GET, &headers).unwrap().response();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let got: Vec<_> = response
            .headers()
            .get_all(SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .collect();
        assert_eq!(got, chosen.into_iter().collect::<Vec<_>>(), "{offered:?}");
        assert!(!format!("{:?}", response.headers()).contains("c2VjcmV0"));
    }
}

#[test]
fn subprotocols_are_read_from_any_number_of_lines() {
    let token = format!("{TOKEN_PREFIX}abc");
    let lines = headers(&[
        (SEC_WEBSOCKET_PROTOCOL, " a ,,"),
        (SEC_WEBSOCKET_PROTOCOL, &token),
        (SEC_WEBSOCKET_PROTOCOL, JSON_PROTOCOL),
    ]);
    let offer = Offer::of(&lines).unwrap();
    assert_eq!(
        offer,
        Offer {
            json: true,
            other: true,
            token: Some("abc"),
        }
    );
    let twice = headers(&[
        (SEC_WEBSOCKET_PROTOCOL, &token),
        (SEC_WEBSOCKET_PROTOCOL, &token),
    ]);
    assert_eq!(
        Offer::of(&twice).unwrap_err().reason,
        Reason::InvalidRequest
    );
}

/// Knows the tokens `good` and `a.b.c` of a reader, `emitter` of a producer, and one that has expired.
fn verify(token: &str) -> Result<Arc<Principal>, Refusal> {
    let scope = match token {
        "good" | "a.b.c" => Scope::Subscribe,
        "emitter" => Scope::Emit,
        "expired" => return Err(Refusal::new(Reason::CredentialExpired, "expired")),
        _ => return Err(Refusal::new(Reason::Unauthenticated, "unknown")),
    };
    Ok(Arc::new(Principal {
        tenant: Tenant::new("t").unwrap(),
        subject: UserId::new("u1").unwrap(),
        source: Source::new(ProducerId::new("producer").unwrap()),
        scopes: [scope].into(),
        users: None,
        tier: None,
        expires_at: Timestamp::from_millis(1),
    }))
}

/// `emitter.v1.json` and the token entry for `token`.
fn offer(token: &str) -> String {
    let token = general_purpose::URL_SAFE_NO_PAD.encode(token);
    format!("{JSON_PROTOCOL}, {TOKEN_PREFIX}{token}")
}

fn outcome(query: &str, lines: &[(HeaderName, &str)]) -> Result<(), Reason> {
    let uri: Uri = format!("/v1/stream{query}").parse().unwrap();
    let origins = ["https://app.example".to_owned()];
    check(&headers(lines), &uri, &origins, &verify)
        .map(|(_, stream, _)| assert_eq!(stream.user().as_str(), "u1"))
        .map_err(|refusal| refusal.reason)
}

#[test]
fn who_may_open_a_stream() {
    let good = offer("good");
    let raw = format!("{JSON_PROTOCOL}, {TOKEN_PREFIX}a.b.c");
    let garbage = format!("{JSON_PROTOCOL}, {TOKEN_PREFIX}!!");
    let no_json = format!(
        "{TOKEN_PREFIX}{}",
        general_purpose::URL_SAFE_NO_PAD.encode("good")
    );
    let (emitter, expired) = (offer("emitter"), offer("expired"));
    let protocols = SEC_WEBSOCKET_PROTOCOL;
    let app = (ORIGIN, "https://app.example");
    type Case<'a> = (&'a str, Vec<(HeaderName, &'a str)>, Result<(), Reason>);
    let cases: Vec<Case<'_>> = vec![
        ("", vec![(protocols.clone(), &good)], Ok(())),
        ("", vec![(protocols.clone(), &raw)], Ok(())),
        ("", vec![(protocols.clone(), &good), app.clone()], Ok(())),
        ("?from=oldest", vec![(protocols.clone(), &good)], Ok(())),
        ("", vec![], Err(Reason::Unauthenticated)),
        ("?token=good", vec![], Err(Reason::Unauthenticated)),
        (
            "?access_token=good",
            vec![app.clone()],
            Err(Reason::Unauthenticated),
        ),
        (
            "",
            vec![(protocols.clone(), &garbage)],
            Err(Reason::Unauthenticated),
        ),
        (
            "",
            vec![(protocols.clone(), &expired)],
            Err(Reason::CredentialExpired),
        ),
        (
            "",
            vec![(protocols.clone(), &emitter)],
            Err(Reason::ScopeMissing),
        ),
        (
            "",
            vec![(protocols.clone(), &no_json)],
            Err(Reason::InvalidRequest),
        ),
        (
            "?from=x",
            vec![(protocols.clone(), &good)],
            Err(Reason::InvalidRequest),
        ),
        // What is checked first is what is told.
        (
            "?from=x",
            vec![(protocols.clone(), &emitter)],
            Err(Reason::ScopeMissing),
        ),
        (
            "?from=x",
            vec![
                (protocols.clone(), &expired),
                (ORIGIN, "https://evil.example"),
            ],
            Err(Reason::OriginRefused),
        ),
        (
            "",
            vec![
                (protocols.clone(), &good),
                (ORIGIN, "https://app.example.evil"),
            ],
            Err(Reason::OriginRefused),
        ),
        (
            "",
            vec![(protocols.clone(), &good), (ORIGIN, "HTTPS://APP.EXAMPLE")],
            Err(Reason::OriginRefused),
        ),
        (
            "",
            vec![(protocols.clone(), &good), (ORIGIN, "null")],
            Err(Reason::OriginRefused),
        ),
        (
            "",
            vec![
                (protocols.clone(), &good),
                app,
                (ORIGIN, "https://evil.example"),
            ],
            Err(Reason::OriginRefused),
        ),
    ];
    for (query, lines, want) in cases {
        assert_eq!(outcome(query, &lines), want, "{query} {lines:?}");
    }
}

#[test]
fn a_request_has_one_credential() {
    let good = offer("good");
    let header = |value| (AUTHORIZATION, value);
    let protocols = (SEC_WEBSOCKET_PROTOCOL, good.as_str());
    let refused = Err(Reason::Unauthenticated);
    for (lines, want) in [
        (vec![header("Bearer good")], Ok(())),
        (vec![header("Bearer good"), header("Bearer good")], refused),
        (vec![header("Basic dTpw"), header("Bearer good")], refused),
        (vec![header("Bearer good"), protocols.clone()], refused),
        // Not a credential of this service.
        (vec![header("Basic dTpw"), protocols], Ok(())),
    ] {
        assert_eq!(outcome("", &lines), want, "{lines:?}");
    }
}
