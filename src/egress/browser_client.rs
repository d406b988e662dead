//! `GET /emitter.js`: the client for browsers, served by what it talks to, so that the two fit.

use std::sync::LazyLock;

use axum::{body::Body, response::Response};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
        X_CONTENT_TYPE_OPTIONS,
    },
};

const SOURCE: &str = include_str!("../../clients/browser/emitter.js");

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// The hash of the source, as an entity tag.
static TAG: LazyLock<String> =
    LazyLock::new(|| format!("\"{}\"", blake3::hash(SOURCE.as_bytes()).to_hex()));

/// Answers with the source, or that who asks has it already. It is nobody's secret: any page may load it.
pub(super) async fn source(headers: HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    if is_known(&headers) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        *response.body_mut() = Body::from(SOURCE);
        let javascript = HeaderValue::from_static("text/javascript; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, javascript);
    }
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (CROSS_ORIGIN_RESOURCE_POLICY, "cross-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Kept, but asked for again each time: a new server may have another.
        (CACHE_CONTROL, "no-cache"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    // A quoted hash is always a header's value.
    if let Ok(tag) = HeaderValue::from_str(&TAG) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// Whether one of the tags that the client has is today's.
fn is_known(headers: &HeaderMap) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == "*" || tag == *TAG)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(tags: &[&str]) -> (StatusCode, HeaderMap, String) {
        let mut headers = HeaderMap::new();
        for tag in tags {
            headers.append(IF_NONE_MATCH, HeaderValue::from_str(tag).unwrap());
        }
        let (head, body) = source(headers).await.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        (head.status, head.headers, body)
    }

    #[tokio::test]
    async fn any_page_may_load_the_client() {
        let (status, headers, body) = asked(&[]).await;
        assert_eq!((status, &*body), (StatusCode::OK, SOURCE));
        for (name, want) in [
            ("content-type", "text/javascript; charset=utf-8"),
            ("access-control-allow-origin", "*"),
            ("cross-origin-resource-policy", "cross-origin"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-cache"),
            ("etag", &*TAG),
        ] {
            assert_eq!(headers[name], want, "{name}");
        }
    }

    #[tokio::test]
    async fn who_has_it_is_told_so() {
        let (tag, weak) = (TAG.as_str(), format!("W/{}", *TAG));
        let among = format!("\"a\", {tag}");
        for tags in [&[tag][..], &[&weak], &[&among], &["\"a\"", tag], &["*"]] {
            let (status, headers, body) = asked(tags).await;
            let got = (status, &headers[ETAG], &*body);
            let want = HeaderValue::from_str(tag).unwrap();
            assert_eq!(got, (StatusCode::NOT_MODIFIED, &want, ""), "{tags:?}");
            assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        }
        for tags in [&["\"a\""][..], &[tag.trim_matches('"')], &[""]] {
            assert_eq!(asked(tags).await.0, StatusCode::OK, "{tags:?}");
        }
    }
}
