//! What both doors over HTTP ask of a request alike, and how they refuse one.

use std::time::Duration;

use axum::{body::Body, response::Response};
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};

use super::json::Object;
use crate::reason::{Reason, Refusal};

/// A refusal for those who can read a status, with the time at which to come back where that means the server, not
/// the request.
pub(super) fn refused(refusal: &Refusal, come_back: Option<Duration>) -> Response {
    let status = StatusCode::from_u16(refusal.reason.http_status())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = problem(status, refusal.reason, &refusal.message);
    let of_server = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    if let (true, Some(after)) = (of_server, come_back) {
        let seconds = after.as_millis().div_ceil(1000);
        // Digits are always a header's value.
        if let Ok(seconds) = HeaderValue::from_str(&seconds.to_string()) {
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
    }
    response
}

/// `{"reason":…,"message":…}` under `status`.
pub(super) fn problem(status: StatusCode, reason: Reason, message: &str) -> Response {
    let mut body = Vec::with_capacity(128);
    let mut object = Object::begin(&mut body);
    object.plain("reason", reason.name());
    object.text("message", message);
    object.end();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_has_the_status_and_the_reason() {
        let response = refused(&Refusal::new(Reason::Draining, "the \"end\""), None);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = axum::body::to_bytes(response.into_body(), 1024)
            .await
            .unwrap();
        assert_eq!(body, r#"{"reason":"DRAINING","message":"the \"end\""}"#);
    }

    #[test]
    fn who_is_sent_away_for_the_servers_sake_is_told_when_to_come_back() {
        let retry_after = |reason, millis: Option<u64>| {
            let come_back = millis.map(Duration::from_millis);
            let response = refused(&Refusal::new(reason, "x"), come_back);
            let value = response.headers().get(RETRY_AFTER);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        for (reason, millis, want) in [
            (Reason::Draining, Some(1), Some("1")),
            (Reason::EngineUnavailable, Some(1000), Some("1")),
            (Reason::ConnectionLimit, Some(1001), Some("2")),
            (Reason::ConnectionLimit, None, None),
            (Reason::CredentialExpired, Some(1000), None),
        ] {
            assert_eq!(retry_after(reason, millis).as_deref(), want, "{reason:?}");
        }
    }
}
