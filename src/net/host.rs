//! The `Host` of an HTTP request (RFC 9112, section 3.2).

use axum::{body::Body, response::Response};
use http::{
    HeaderValue, Request, StatusCode, Version,
    header::{CONTENT_TYPE, HOST},
};

/// The answer to a request whose host is not clear: 400 for HTTP/1.1 without `Host`, and for more than one.
pub(super) fn refusal<B>(request: &Request<B>) -> Option<Response> {
    let body = match request.headers().get_all(HOST).iter().count() {
        1 => return None,
        0 if request.version() < Version::HTTP_11 => return None,
        0 => r#"{"reason":"INVALID_REQUEST","message":"there is no Host header"}"#,
        _ => r#"{"reason":"INVALID_REQUEST","message":"there is more than one Host header"}"#,
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Some(response)
}
