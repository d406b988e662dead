//! `GET /v1/stream`: who may open a WebSocket, checked before there is any state for it.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri,
    header::{
        CONNECTION, CONTENT_LENGTH, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
    },
};
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    Egress, admission, asked::Asked, frame::Encoding, origin, session::Session, websocket,
};
use crate::{
    access::{self, Principal},
    event::StreamKey,
    reason::{Reason, Refusal},
};

/// The subprotocol of the JSON encoding.
const JSON_PROTOCOL: &str = "emitter.v1.json";

/// What a subprotocol entry begins with that carries a credential. Such an entry is never chosen, so never echoed.
const TOKEN_PREFIX: &str = "base64url.bearer.authorization.emitter.";

/// Answers a request for a stream. A script in a browser can't read the status of a handshake that fails, so a
/// request with an `Origin` is completed and closed with the code; everyone else gets the status.
pub(super) async fn stream(State(egress): State<Arc<Egress>>, mut request: Request) -> Response {
    let upgrade = match Upgrade::of(request.method(), request.headers()) {
        Ok(upgrade) => upgrade,
        Err(problem) => return problem.response(),
    };
    // Without one the connection cannot be upgraded, such as when it does not speak HTTP/1.1.
    let Some(on_upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return NoUpgrade::Unsupported.response();
    };
    let browser = request.headers().contains_key(ORIGIN);
    match open(&egress, &request.into_parts().0).await {
        Ok(session) => {
            tokio::spawn(websocket::serve(egress, on_upgrade, session));
            upgrade.response()
        }
        Err(refusal) => {
            tracing::debug!(?refusal, "a WebSocket is refused");
            egress.metrics.closed(Some(refusal.reason));
            if !browser {
                return egress.refused(&refusal);
            }
            tokio::spawn(websocket::refuse(egress, on_upgrade, refusal));
            upgrade.response()
        }
    }
}

async fn open(egress: &Arc<Egress>, request: &http::request::Parts) -> Result<Session, Refusal> {
    let (principal, stream, asked) = admit(egress, request)?;
    Session::open(egress.clone(), Encoding::Json, principal, stream, asked).await
}

fn admit(egress: &Egress, request: &http::request::Parts) -> Result<Admitted, Refusal> {
    let verify = |token: &str| egress.verify(token);
    let admitted = check(
        &request.headers,
        &request.uri,
        &egress.config.origins,
        &verify,
    )?;
    egress.check_serving()?;
    Ok(admitted)
}

type Admitted = (Arc<Principal>, StreamKey, Asked);

/// Checks everything that the request itself decides, in the order in which it may be told to whoever asks.
fn check(
    headers: &HeaderMap,
    uri: &Uri,
    origins: &[String],
    verify: &dyn Fn(&str) -> Result<Arc<Principal>, Refusal>,
) -> Result<Admitted, Refusal> {
    origin::check(headers, origins)?;
    let offer = Offer::of(headers)?;
    let principal = verify(&credential(headers, &offer)?)?;
    let stream = principal.may_read(None)?;
    offer.check()?;
    let asked = Asked::in_query(uri, None)?;
    Ok((principal, stream, asked))
}

/// The token of the `Authorization` header, or that of the subprotocols; never both, and never one of the URL.
fn credential(headers: &HeaderMap, offer: &Offer<'_>) -> Result<String, Refusal> {
    let unauthenticated = |message| Refusal::new(Reason::Unauthenticated, message);
    let entry = match (access::bearer_in(headers)?, offer.token) {
        (Some(token), None) => return Ok(token.to_owned()),
        (None, Some(entry)) => entry,
        (Some(_), Some(_)) => {
            return Err(unauthenticated(
                "there is a credential in `authorization` and one in the subprotocols: send one",
            ));
        }
        (None, None) => return Err(unauthenticated("there is no credential")),
    };
    // A JWT has dots, which base64url has not.
    if entry.contains('.') {
        return Ok(entry.to_owned());
    }
    general_purpose::URL_SAFE_NO_PAD
        .decode(entry)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| unauthenticated("the credential in the subprotocols is not base64url"))
}

/// The subprotocols that a client offers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Offer<'a> {
    json: bool,
    /// There is an entry other than `JSON_PROTOCOL`.
    other: bool,
    token: Option<&'a str>,
}

impl<'a> Offer<'a> {
    fn of(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let invalid = |what| Refusal::invalid_field(Reason::InvalidRequest, "subprotocols", what);
        let mut offer = Self::default();
        for line in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
            let line = line.to_str().map_err(|_| invalid("are not text"))?;
            for entry in line
                .split(',')
                .map(str::trim)
                .filter(|entry| !entry.is_empty())
            {
                if entry == JSON_PROTOCOL {
                    offer.json = true;
                    continue;
                }
                offer.other = true;
                if let Some(token) = entry.strip_prefix(TOKEN_PREFIX)
                    && offer.token.replace(token).is_some()
                {
                    return Err(invalid("have two credentials"));
                }
            }
        }
        Ok(offer)
    }

    /// No offer at all means JSON too; an offer without it cannot be met.
    fn check(&self) -> Result<(), Refusal> {
        if self.json || !self.other {
            return Ok(());
        }
        Err(Refusal::invalid_field(
            Reason::InvalidRequest,
            "subprotocols",
            format!("must have `{JSON_PROTOCOL}`"),
        ))
    }
}

/// A handshake that can be completed.
#[derive(Debug)]
struct Upgrade {
    accept: String,
    json: bool,
}

/// Why a request cannot become a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoUpgrade {
    /// No `Upgrade` header arrived.
    NoHeader,
    /// `Upgrade` does not name a WebSocket, or `Connection` does not name `Upgrade`.
    NotAsked,
    /// It has a body.
    Body,
    /// It asks for another version of the protocol.
    Version,
    /// Its key is not one.
    Key,
    /// Its connection cannot become one.
    Unsupported,
}

impl Upgrade {
    fn of(method: &Method, headers: &HeaderMap) -> Result<Self, NoUpgrade> {
        if !headers.contains_key(UPGRADE) {
            return Err(NoUpgrade::NoHeader);
        }
        let asked = method == Method::GET
            && has_token(headers, CONNECTION, "upgrade")
            && has_token(headers, UPGRADE, "websocket");
        if !asked {
            return Err(NoUpgrade::NotAsked);
        }
        // What follows the head would be read as WebSocket frames.
        let length = headers.get_all(CONTENT_LENGTH).iter();
        if headers.contains_key(TRANSFER_ENCODING) || length.into_iter().any(|length| length != "0")
        {
            return Err(NoUpgrade::Body);
        }
        if headers
            .get(SEC_WEBSOCKET_VERSION)
            .is_none_or(|version| version != "13")
        {
            return Err(NoUpgrade::Version);
        }
        let key = headers
            .get(SEC_WEBSOCKET_KEY)
            .map_or(&[][..], HeaderValue::as_bytes);
        if !general_purpose::STANDARD
            .decode(key)
            .is_ok_and(|key| key.len() == 16)
        {
            return Err(NoUpgrade::Key);
        }
        Ok(Self {
            accept: derive_accept_key(key),
            json: Offer::of(headers).is_ok_and(|offer| offer.json),
        })
    }

    fn response(&self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::from_str(&self.accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        if self.json {
            headers.insert(
                SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static(JSON_PROTOCOL),
            );
        }
        response
    }
}

impl NoUpgrade {
    fn response(self) -> Response {
        let (status, message) = match self {
            Self::NoHeader => (
                StatusCode::UPGRADE_REQUIRED,
                "this is a WebSocket, and the Upgrade header did not arrive: a proxy may have removed it. nginx: \
                 set `proxy_http_version 1.1`, `proxy_set_header Upgrade $http_upgrade` and `proxy_set_header \
                 Connection \"upgrade\"`. HAProxy: set `mode http`, and neither `proto h2` nor `alpn h2` on the \
                 server line. Without a WebSocket: GET /v1/events",
            ),
            Self::NotAsked => (
                StatusCode::UPGRADE_REQUIRED,
                "a WebSocket needs `Upgrade: websocket` and `Connection: Upgrade`. nginx: set `proxy_set_header \
                 Upgrade $http_upgrade` and `proxy_set_header Connection \"upgrade\"`",
            ),
            Self::Body => (StatusCode::BAD_REQUEST, "a WebSocket handshake has no body"),
            Self::Version => (
                StatusCode::UPGRADE_REQUIRED,
                "the WebSocket version must be 13",
            ),
            Self::Key => (
                StatusCode::BAD_REQUEST,
                "the WebSocket key must be 16 bytes in base64",
            ),
            Self::Unsupported => (
                StatusCode::BAD_REQUEST,
                "this connection cannot be upgraded",
            ),
        };
        let mut response = admission::problem(status, Reason::InvalidRequest, message);
        if status == StatusCode::UPGRADE_REQUIRED {
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }
}

/// Whether one of the comma-separated tokens of `name` is `token`, in any case.
fn has_token(headers: &HeaderMap, name: http::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|entry| entry.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests;
