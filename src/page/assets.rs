//! The page's files.

use axum::{
    extract::Path,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};

use super::host;

/// A file: its name below `/page/`, its type, what it holds.
type File = (&'static str, &'static str, &'static str);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of `web/`.
macro_rules! web {
    ($name:literal, $content_type:expr) => {
        ($name, $content_type, include_str!(concat!("web/", $name)))
    };
}

const INDEX: File = web!("index.html", HTML);

pub(super) const FILES: [File; 33] = [
    web!("address.js", SCRIPT),
    web!("announcer.js", SCRIPT),
    web!("base.css", CSS),
    web!("dom.js", SCRIPT),
    web!("events-view.js", SCRIPT),
    web!("events.css", CSS),
    web!("format.js", SCRIPT),
    web!("frames.js", SCRIPT),
    web!("json.js", SCRIPT),
    web!("log.js", SCRIPT),
    web!("main.js", SCRIPT),
    web!("page.css", CSS),
    web!("pieces.js", SCRIPT),
    web!("route.js", SCRIPT),
    web!("rows.js", SCRIPT),
    web!("run-view.js", SCRIPT),
    web!("run.css", CSS),
    web!("runs-view.js", SCRIPT),
    web!("runs.css", CSS),
    web!("server-clock.js", SCRIPT),
    web!("status-view.js", SCRIPT),
    web!("steps.js", SCRIPT),
    web!("timeline-view.js", SCRIPT),
    web!("timeline.css", CSS),
    web!("timeline.js", SCRIPT),
    web!("token-form.js", SCRIPT),
    web!("token.js", SCRIPT),
    web!("tree.js", SCRIPT),
    web!("user-switch.js", SCRIPT),
    web!("virtual.js", SCRIPT),
    web!("waterfall-view.js", SCRIPT),
    web!("waterfall.css", CSS),
    web!("waterfall.js", SCRIPT),
];

/// `GET /`.
pub(super) async fn index(headers: HeaderMap) -> Response {
    answer(INDEX, &headers)
}

/// `GET /page/{file}`.
pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match FILES.into_iter().find(|file| file.0 == name) {
        Some(file) => answer(file, &headers),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn answer((_, content_type, text): File, headers: &HeaderMap) -> Response {
    let mut response = text.into_response();
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(CONTENT_TYPE, content_type);
    // The next build may have other files.
    set(CACHE_CONTROL, "no-cache");
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    set(CONTENT_SECURITY_POLICY, &policy(headers));
    set(
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    );
    set(
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    );
    response
}

/// Only this service's own scripts and styles, and connections to itself: what an agent emits can never become code.
fn policy(headers: &HeaderMap) -> String {
    // Not every browser counts a WebSocket to the page's own host as `'self'`.
    let socket = host::own(headers).map_or_else(String::new, |host| format!(" ws://{host}"));
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'{socket}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'"
    )
}
