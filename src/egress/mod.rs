//! Out again: the stream of one user to each of its readers, over WebSocket, SSE and gRPC.
//!
//! A `handshake`, an HTTP request or a gRPC call says who reads and what it asked for (`admission`, `asked`); a
//! `session` turns the reader's cursor into frames (`frame`, `join`, `control`) and ends when the credential, the
//! drain or the engine ends it; `websocket`, and `pump` for `sse` and `grpc`, carry the frames to their peer and notice
//! when that is gone or too slow.

mod admission;
mod asked;
mod client_message;
mod control;
#[cfg(test)]
mod fixtures;
mod fragments;
mod frame;
pub mod grpc;
mod handshake;
mod join;
mod json;
mod limiter;
mod origin;
mod payload;
mod published;
mod pump;
mod runs;
mod session;
mod sse;
mod websocket;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    response::Response,
    routing::{any, get},
};

use crate::{
    access::{Authenticator, Principal},
    clock::{Clock, Entropy},
    fanout::Hub,
    reason::{Reason, Refusal},
    shutdown::Drain,
    telemetry::Metrics,
};
use control::Closing;
pub use frame::{Encoder, Encoding};
pub use origin::is_pattern as is_origin_pattern;

/// Bounds of the way out.
#[derive(Clone, Debug)]
pub struct Config {
    /// How often a stream gives a sign of life in-band, and a WebSocket by a ping too. A peer that misses two is gone.
    pub heartbeat: Duration,
    /// How long a write may make no progress before the reader is too slow.
    pub write_stall: Duration,
    /// The most readers of one user, over WebSocket, SSE and gRPC together.
    pub connections_per_user: usize,
    /// The largest message from a WebSocket client, in bytes.
    pub client_frame_bytes: usize,
    /// How many messages a second a WebSocket client may send, pings included; as many at once.
    pub client_frames_per_second: u32,
    /// The pages that may connect: origins such as `https://app.example.com`, `https://*.example.com` for all
    /// subdomains, or `*` for every page.
    pub origins: Vec<String>,
    /// The least that a reader who is sent away is told to wait before it comes back.
    pub reconnect_least: Duration,
    /// The most that it is told to wait. Each is told a random time in between, so that they do not come back
    /// all at once.
    pub reconnect_most: Duration,
    /// How long before the end of its credential a WebSocket reader is told.
    pub expiring_notice: Duration,
    /// How long a WebSocket peer may take to finish the handshake, and to take note of the end.
    pub close_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(20),
            write_stall: Duration::from_secs(30),
            connections_per_user: 16,
            client_frame_bytes: 64 * 1024,
            client_frames_per_second: 20,
            origins: Vec::new(),
            reconnect_least: Duration::from_millis(100),
            reconnect_most: Duration::from_secs(5),
            expiring_notice: Duration::from_secs(60),
            close_grace: Duration::from_secs(5),
        }
    }
}

/// The way out: what all readers of this node share.
pub struct Egress {
    hub: Arc<Hub>,
    authenticator: Arc<Authenticator>,
    clock: Clock,
    entropy: Entropy,
    metrics: Arc<Metrics>,
    drain: Drain,
    config: Config,
    json: Encoder,
    proto: Encoder,
    sse: Encoder,
}

impl Egress {
    /// A way out of `hub`.
    pub fn new(
        hub: Arc<Hub>,
        authenticator: Arc<Authenticator>,
        clock: Clock,
        entropy: Entropy,
        metrics: Arc<Metrics>,
        drain: Drain,
        config: Config,
    ) -> Arc<Self> {
        Arc::new(Self {
            json: Encoder::new(Encoding::Json, metrics.encoded.clone()),
            proto: Encoder::new(Encoding::Proto, metrics.encoded.clone()),
            sse: Encoder::new(Encoding::Sse, metrics.encoded.clone()),
            hub,
            authenticator,
            clock,
            entropy,
            metrics,
            drain,
            config,
        })
    }

    /// What the HTTP listener serves: `GET /v1/stream`, `GET /v1/events` and the client for browsers. Connections
    /// must be of [`crate::net::serve_http`].
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/v1/stream", get(handshake::stream))
            .route("/v1/events", any(sse::events))
            .route("/emitter.js", get(published::client))
            .route("/asyncapi.json", get(published::asyncapi))
            .with_state(self.clone())
    }

    /// What the gRPC listener serves.
    pub fn grpc(self: &Arc<Self>) -> grpc::EventSubscriberServer<grpc::Subscriber> {
        grpc::server(self.clone())
    }

    /// Waits until no reader is connected, which after the drain has begun is soon.
    pub async fn idle(&self) {
        self.hub.readers().gone().await;
    }

    fn encoder(&self, encoding: Encoding) -> &Encoder {
        match encoding {
            Encoding::Json => &self.json,
            Encoding::Proto => &self.proto,
            Encoding::Sse => &self.sse,
        }
    }

    fn verify(&self, token: &str) -> Result<Arc<Principal>, Refusal> {
        self.authenticator.verify(token)
    }

    fn check_serving(&self) -> Result<(), Refusal> {
        if self.drain.is_draining() {
            return Err(Refusal::new(
                Reason::Draining,
                "the server is shutting down",
            ));
        }
        Ok(())
    }

    /// The answer to a request that is refused, for those who can read its status.
    fn refused(&self, refusal: &Refusal) -> Response {
        let come_back = self.closing(refusal.reason).reconnect_after;
        admission::refused(refusal, come_back.or(refusal.retry_after))
    }

    /// The end of a stream for `reason`, with a time at which to come back, if at all.
    fn closing(&self, reason: Reason) -> Closing {
        let Config {
            reconnect_least: least,
            reconnect_most: most,
            ..
        } = self.config;
        let spread = most.saturating_sub(least).mul_f64(self.entropy.fraction());
        Closing {
            reason,
            reconnect_after: reason.come_back().then_some(least + spread),
        }
    }
}
