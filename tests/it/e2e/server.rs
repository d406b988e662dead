//! A server of its own for each test, on free ports, with a clock that the test may move.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use emitter::{
    access::{self, Grant, Scope, mint},
    app::{App, Environment, Running},
    clock::{Clock, Entropy, Timestamp},
    config::{Config, Settings, Sources},
    engine::memory::{self, MemoryEngine},
    proto::v1::{self, emit_result::Outcome, event_subscriber_client::EventSubscriberClient},
};
use futures_util::StreamExt;
use tokio_tungstenite::tungstenite::Message;
use tonic::transport::Channel;

use super::wire::{self, Socket};
use crate::support::{asyncapi::checked, events, faulty_engine::FaultyEngine};

const SECRET: &str = "a secret of the tests, and of nothing else";
const ISSUER: &str = "tests";
const HOUR: Duration = Duration::from_secs(3600);

/// A running server.
pub(super) struct Server {
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) clock: Clock,
    running: Running,
}

impl Server {
    /// A server with the defaults.
    pub(super) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A server with other settings.
    pub(super) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        // Most of a day past the system's time, so that nothing passes because the two agree.
        // A whole second, as tokens end on one.
        let seconds = Clock::system().now().as_millis() / 1000 + 20 * 3600;
        let now = Timestamp::from_millis(seconds * 1000);
        Self::start_in(
            Environment {
                clock: Clock::manual(now),
                entropy: Entropy::system(),
                engine: None,
            },
            change,
        )
        .await
    }

    /// A server in `environment`.
    pub(super) async fn start_in(
        environment: Environment,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let variables = [
            ("EMITTER_GRPC_LISTEN", "127.0.0.1:0"),
            ("EMITTER_HTTP_LISTEN", "127.0.0.1:0"),
            ("EMITTER_ADMIN_LISTEN", "127.0.0.1:0"),
            ("EMITTER_AUTH__ISSUER", ISSUER),
            ("EMITTER_AUTH__SECRET", SECRET),
        ];
        let mut config = Config::load(&Sources {
            environment: variables
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            ..Sources::default()
        })
        .unwrap();
        change(&mut config.settings);
        let clock = environment.clock.clone();
        let running = App::bind(&config, environment).await.unwrap().start();
        let addresses = running.addresses();
        Self {
            grpc: addresses.grpc,
            http: addresses.http,
            admin: addresses.admin,
            clock,
            running,
        }
    }

    /// A server over a memory engine whose calls can be held. It waits for them longer than any test takes, but for
    /// `drain` at most at its end.
    pub(super) async fn start_held(
        drain: Duration,
    ) -> (Self, Arc<FaultyEngine>, Arc<MemoryEngine>) {
        let (memory, clock) = events::memory(memory::Config::default());
        let engine = FaultyEngine::new(memory.clone(), 1);
        let environment = Environment {
            clock,
            entropy: Entropy::system(),
            engine: Some(engine.clone()),
        };
        let change = |settings: &mut Settings| {
            settings.drain = drain;
            settings.limits.engine_timeout = Duration::from_secs(300);
        };
        (Self::start_in(environment, change).await, engine, memory)
    }

    /// Drains and stops it.
    pub(super) async fn stop(self) {
        self.running.stop().await.unwrap();
    }

    /// A token of `sub` with the space-separated `scope`, good for an hour.
    pub(super) fn token(&self, sub: &str, scope: &str) -> String {
        self.mint(self.grant(sub, scope, HOUR))
    }

    /// The same in a tenant.
    pub(super) fn token_in(&self, tenant: &str, sub: &str, scope: &str) -> String {
        self.mint(Grant {
            tenant: Some(tenant.into()),
            ..self.grant(sub, scope, HOUR)
        })
    }

    /// A token that ends after `span`.
    pub(super) fn token_for(&self, sub: &str, scope: &str, span: Duration) -> String {
        self.mint(self.grant(sub, scope, span))
    }

    /// A token to emit with, to these users only.
    pub(super) fn token_for_users(&self, sub: &str, users: &[&str]) -> String {
        self.mint(Grant {
            users: Some(users.iter().map(|user| (*user).to_owned()).collect()),
            ..self.grant(sub, "emit", HOUR)
        })
    }

    /// Starts runs of `user`.
    pub(super) async fn start_runs(&self, user: &str, runs: &[&str]) {
        let start = |run: &&str| wire::started(user, run);
        self.emit_all("agents", runs.iter().map(start).collect())
            .await;
    }

    /// Emits so many events of 60,000 characters in `run`, `e0` and on: more than the kernel's buffers hold, if they are
    /// many.
    pub(super) async fn emit_large(&self, user: &str, run: &str, count: usize) {
        let text = "x".repeat(60_000);
        let large = |n| wire::event(user, run, &format!("e{n}"), wire::thinking(&text));
        let events: Vec<_> = (0..count).map(large).collect();
        // A batch has 4 MiB at most.
        for batch in events.chunks(60) {
            self.emit_all("agents", batch.to_vec()).await;
        }
    }

    /// Emits `events` as one batch with a token of `sub`; all must be stored.
    pub(super) async fn emit_all(&self, sub: &str, events: Vec<v1::Event>) -> Vec<v1::Receipt> {
        let token = self.token(sub, "emit");
        self.emit_with(&token, events).await
    }

    /// Emits `events` as one batch; all must be stored.
    pub(super) async fn emit_with(&self, token: &str, events: Vec<v1::Event>) -> Vec<v1::Receipt> {
        let results = self.try_emit_with(token, events).await;
        let receipt = |result: v1::EmitResult| match result.outcome {
            Some(Outcome::Receipt(receipt)) => receipt,
            other => panic!("not stored: {other:?}"),
        };
        results.into_iter().map(receipt).collect()
    }

    /// Emits `events` as one batch with a token of `sub`.
    pub(super) async fn try_emit(&self, sub: &str, events: Vec<v1::Event>) -> Vec<v1::EmitResult> {
        let token = self.token(sub, "emit");
        self.try_emit_with(&token, events).await
    }

    /// Emits `events` as one batch.
    pub(super) async fn try_emit_with(
        &self,
        token: &str,
        events: Vec<v1::Event>,
    ) -> Vec<v1::EmitResult> {
        let mut client = wire::emitter(self.grpc).await;
        let request = wire::with_token(token, v1::EmitBatchRequest { events });
        client
            .emit_batch(request)
            .await
            .unwrap()
            .into_inner()
            .results
    }

    /// The subscriber's stub.
    pub(super) async fn subscriber(&self) -> EventSubscriberClient<Channel> {
        EventSubscriberClient::connect(format!("http://{}", self.grpc))
            .await
            .unwrap()
    }

    /// The text of the first event of this type that is retained for the token's subject.
    pub(super) async fn first_event_text(&self, token: &str, wire_type: &str) -> String {
        let query = format!("from=oldest&types={wire_type}");
        let mut socket = Socket::connect(self.http, token, &query).await;
        loop {
            match socket.0.next().await {
                Some(Ok(Message::Text(text))) => {
                    let frame = checked(serde_json::from_str(&text).unwrap());
                    if !wire::is_control(&frame) {
                        return text.as_str().to_owned();
                    }
                }
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// What the admin listener answers for `path`: the status and the body.
    pub(super) async fn admin(&self, path: &str) -> (u16, String) {
        super::http::get(self.admin, path).await
    }

    /// The value of a metric, with its labels as they are printed; 0 if it is not there.
    pub(super) async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.admin("/metrics").await;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    fn grant(&self, sub: &str, scope: &str, span: Duration) -> Grant {
        let scopes = scope.split(' ').map(|name| Scope::named(name).unwrap());
        Grant::new(sub, scopes, self.clock.now() + span)
    }

    fn mint(&self, grant: Grant) -> String {
        let config = access::Config {
            issuer: ISSUER.into(),
            secret: SECRET.into(),
        };
        mint(&config, &grant).unwrap()
    }
}
