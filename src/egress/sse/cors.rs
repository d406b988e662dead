//! What lets a page of another origin read the stream.

use axum::{body::Body, response::Response};
use http::{
    HeaderValue, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
    },
};

/// Lets the page of `origin`, which is listed, read `response`. Credentials of the browser's own, such as cookies, are
/// never asked for.
pub(super) fn allow(response: &mut Response, origin: Option<&HeaderValue>) {
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let exposed = HeaderValue::from_static("retry-after");
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
}

/// What a browser is told that asks before it sends the request.
pub(super) fn preflight() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET"),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, last-event-id, cache-control, \
             traceparent, tracestate, baggage, sentry-trace",
        ),
        (ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(response: &Response, name: http::HeaderName) -> Option<&str> {
        let value = response.headers().get(name)?;
        Some(value.to_str().unwrap())
    }

    #[test]
    fn a_page_may_read_what_its_origin_is_named_in() {
        let origin = HeaderValue::from_static("https://app.example");
        for named in [None, Some(&origin)] {
            let mut response = Response::new(Body::empty());
            allow(&mut response, named);
            let told = header(&response, ACCESS_CONTROL_ALLOW_ORIGIN);
            assert_eq!(told, named.map(|origin| origin.to_str().unwrap()));
            assert_eq!(header(&response, VARY), Some("Origin"));
            assert!(!format!("{:?}", response.headers()).contains("credentials"));
        }
    }

    #[test]
    fn a_preflight_admits_the_headers_that_a_reader_sends() {
        let response = preflight();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        for (name, want) in [
            (ACCESS_CONTROL_ALLOW_METHODS, "GET"),
            (
                ACCESS_CONTROL_ALLOW_HEADERS,
                "authorization, last-event-id, cache-control, \
             traceparent, tracestate, baggage, sentry-trace",
            ),
            (ACCESS_CONTROL_MAX_AGE, "600"),
        ] {
            assert_eq!(header(&response, name), Some(want));
        }
    }
}
