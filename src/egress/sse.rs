//! `GET /v1/events`: the stream as server-sent events, for scripts that read them by `fetch`, and whoever else speaks
//! nothing but HTTP.

mod cors;
mod wire;

use std::{convert::Infallible, future, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
    request::Parts,
};

use super::{
    Egress, admission,
    asked::{Asked, LAST_EVENT_ID},
    control::Control,
    frame::Encoding,
    origin, pump,
    session::{Session, Step},
};
use crate::{
    net::Activity,
    reason::{Reason, Refusal},
};
pub(super) use wire::event;

/// What a proxy that would collect an answer is told, so that events come through when they are sent.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Answers a request for the stream. A script reads the status of a refusal, if its page's origin is listed.
pub(super) async fn events(State(egress): State<Arc<Egress>>, request: Request) -> Response {
    let request = request.into_parts().0;
    let page = match origin::check(&request.headers, &egress.config.origins) {
        Ok(page) => page,
        Err(refusal) => return refuse(&egress, &refusal),
    };
    let mut response = match request.method {
        Method::GET => match open(&egress, &request).await {
            Ok(session) => stream(&egress, session, &request),
            Err(refusal) => refuse(&egress, &refusal),
        },
        Method::OPTIONS => cors::preflight(),
        _ => not_allowed(),
    };
    cors::allow(&mut response, page);
    response
}

/// Checks everything that the request itself decides, in the order in which it may be told to whoever asks.
async fn open(egress: &Arc<Egress>, request: &Parts) -> Result<Session, Refusal> {
    let principal = egress.authenticator.admit(&request.headers)?;
    let stream = principal.may_read(None)?;
    let last_event_id = last_event_id(&request.headers);
    let asked = Asked::in_query(&request.uri, last_event_id.as_deref())?;
    egress.check_serving()?;
    Session::open(egress.clone(), Encoding::Sse, principal, stream, asked).await
}

/// The `Last-Event-ID`, if there is one. Several are one that is malformed.
fn last_event_id(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(LAST_EVENT_ID).iter();
    let texts = lines.map(|line| String::from_utf8_lossy(line.as_bytes()));
    let given: Vec<_> = texts.filter(|text| !text.is_empty()).collect();
    (!given.is_empty()).then(|| given.join(", "))
}

fn stream(egress: &Arc<Egress>, session: Session, request: &Parts) -> Response {
    let activity = request.extensions.get::<Arc<Activity>>();
    let steps = pump::steps(egress.clone(), session, activity.cloned());
    let pieces = steps.filter_map(|step| future::ready(piece(step)));
    let mut response = Response::new(Body::from_stream(pieces.map(Ok::<_, Infallible>)));
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        (X_ACCEL_BUFFERING, "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What is written at once for `step`.
fn piece(step: Step) -> Option<Bytes> {
    match step {
        Step::Send(frames) => Some(match &frames[..] {
            [frame] => frame.clone(),
            several => several.concat().into(),
        }),
        Step::Close(closing) => Control::Closing(closing).encode(Encoding::Sse),
    }
}

fn refuse(egress: &Egress, refusal: &Refusal) -> Response {
    tracing::debug!(?refusal, "an event stream is refused");
    egress.metrics.closed(Some(refusal.reason));
    egress.refused(refusal)
}

fn not_allowed() -> Response {
    let mut response = admission::problem(
        StatusCode::METHOD_NOT_ALLOWED,
        Reason::InvalidRequest,
        "the method must be GET",
    );
    let allowed = HeaderValue::from_static("GET, OPTIONS");
    response.headers_mut().insert(ALLOW, allowed);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_last_event_id_is_none_and_several_are_kept_apart() {
        let id = |lines: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(LAST_EVENT_ID, HeaderValue::from_bytes(line).unwrap());
            }
            last_event_id(&headers)
        };
        for (lines, want) in [
            (&[][..], None),
            (&[b"".as_slice()], None),
            (&[b"ab-1"], Some("ab-1")),
            (&[b"", b"ab-1"], Some("ab-1")),
            (&[b"ab-1", b"ab-2"], Some("ab-1, ab-2")),
            (&[b"\xff"], Some("\u{fffd}")),
        ] {
            assert_eq!(id(lines).as_deref(), want, "{lines:?}");
        }
    }

    #[test]
    fn a_step_is_one_piece() {
        let frame = Bytes::from("a");
        let alone = piece(Step::Send(vec![frame.clone()])).unwrap();
        assert_eq!(alone.as_ptr(), frame.as_ptr(), "it was copied");
        let several = piece(Step::Send(vec![frame, Bytes::from("bc")]));
        assert_eq!(several.unwrap(), "abc");
    }
}
