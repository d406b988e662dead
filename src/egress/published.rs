//! What anybody may load from the service that it fits: `GET /emitter.js`, the client for browsers, and
//! `GET /asyncapi.json`, the description of the client stream.

use std::sync::LazyLock;

use axum::{body::Body, response::Response};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
        X_CONTENT_TYPE_OPTIONS,
    },
};

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// A file that is served.
struct Published {
    text: &'static str,
    content_type: &'static str,
    /// The hash of the text, as an entity tag.
    tag: String,
}

static CLIENT: LazyLock<Published> = LazyLock::new(|| {
    let text = include_str!("../../clients/browser/emitter.js");
    Published::new(text, "text/javascript; charset=utf-8")
});

static ASYNCAPI: LazyLock<Published> = LazyLock::new(|| {
    let text = include_str!("../../proto/asyncapi.json");
    Published::new(text, "application/json")
});

/// `GET /emitter.js`.
pub(super) async fn client(headers: HeaderMap) -> Response {
    CLIENT.answer(&headers)
}

/// `GET /asyncapi.json`.
pub(super) async fn asyncapi(headers: HeaderMap) -> Response {
    ASYNCAPI.answer(&headers)
}

impl Published {
    fn new(text: &'static str, content_type: &'static str) -> Self {
        let tag = format!("\"{}\"", blake3::hash(text.as_bytes()).to_hex());
        Self {
            text,
            content_type,
            tag,
        }
    }

    /// The text, or that who asks has it already. It is nobody's secret: any page may load it.
    fn answer(&self, headers: &HeaderMap) -> Response {
        let mut response = Response::new(Body::empty());
        if self.is_known(headers) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            *response.body_mut() = Body::from(self.text);
            let content_type = HeaderValue::from_static(self.content_type);
            response.headers_mut().insert(CONTENT_TYPE, content_type);
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
        if let Ok(tag) = HeaderValue::from_str(&self.tag) {
            response.headers_mut().insert(ETAG, tag);
        }
        response
    }

    /// Whether one of the tags that the client has is today's.
    fn is_known(&self, headers: &HeaderMap) -> bool {
        headers
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag == "*" || tag == self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(file: &Published, tags: &[&str]) -> (StatusCode, HeaderMap, String) {
        let mut headers = HeaderMap::new();
        for tag in tags {
            headers.append(IF_NONE_MATCH, HeaderValue::from_str(tag).unwrap());
        }
        let (head, body) = file.answer(&headers).into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        (head.status, head.headers, body)
    }

    #[tokio::test]
    async fn any_page_may_load_them() {
        for (file, content_type) in [
            (&CLIENT, "text/javascript; charset=utf-8"),
            (&ASYNCAPI, "application/json"),
        ] {
            let (status, headers, body) = asked(file, &[]).await;
            assert_eq!((status, &*body), (StatusCode::OK, file.text));
            for (name, want) in [
                ("content-type", content_type),
                ("access-control-allow-origin", "*"),
                ("cross-origin-resource-policy", "cross-origin"),
                ("x-content-type-options", "nosniff"),
                ("cache-control", "no-cache"),
                ("etag", &file.tag),
            ] {
                assert_eq!(headers[name], want, "{name}");
            }
        }
        assert_ne!(CLIENT.tag, ASYNCAPI.tag);
    }

    #[tokio::test]
    async fn who_has_it_is_told_so() {
        let (tag, weak) = (CLIENT.tag.as_str(), format!("W/{}", CLIENT.tag));
        let among = format!("\"a\", {tag}");
        for tags in [&[tag][..], &[&weak], &[&among], &["\"a\"", tag], &["*"]] {
            let (status, headers, body) = asked(&CLIENT, tags).await;
            let got = (status, &headers[ETAG], &*body);
            let want = HeaderValue::from_str(tag).unwrap();
            assert_eq!(got, (StatusCode::NOT_MODIFIED, &want, ""), "{tags:?}");
            assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        }
        for tags in [&["\"a\""][..], &[tag.trim_matches('"')], &[""]] {
            assert_eq!(asked(&CLIENT, tags).await.0, StatusCode::OK, "{tags:?}");
        }
    }
}
