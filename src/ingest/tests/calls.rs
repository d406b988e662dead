//! Calls over a real connection, with stubs that any client could have.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Server},
};
use tonic_types::StatusExt;
use tower::ServiceExt;

use super::*;
use crate::{
    access::{self, Authenticator, Grant, mint},
    calls::{self, Calls},
    engine::memory::{self, MemoryEngine},
    ingest::{EmitterServer, EmitterService},
    proto::v1::{
        EmitBatchRequest, EmitRequest, Message, emit_result::Outcome,
        event_emitter_client::EventEmitterClient,
    },
    sequencer::{self, Sequencer},
    shutdown::{Phase, Shutdown},
    telemetry::Metrics,
};

/// A server with an engine of its own.
struct Door {
    server: EmitterServer,
    client: EventEmitterClient<Channel>,
    tokens: access::Config,
    clock: Clock,
    shutdown: Shutdown,
    rendered: Box<dyn Fn() -> String>,
}

impl Door {
    async fn open() -> Self {
        let clock = Clock::system();
        let entropy = Entropy::seeded(3);
        let (metrics, handle) = Metrics::new();
        let metrics = Arc::new(metrics);
        let engine = MemoryEngine::new(
            memory::Config::default(),
            clock.clone(),
            &entropy,
            metrics.clone(),
        );
        let sequencer = Sequencer::new(
            engine,
            clock.clone(),
            entropy.clone(),
            // What is not about the lives of runs needs no `agent_started`.
            sequencer::Config {
                rules: sequencer::Rules {
                    mode: sequencer::Mode::Observe,
                    ..sequencer::Rules::default()
                },
                ..sequencer::Config::default()
            },
            metrics.clone(),
        );
        let tokens = access::Config {
            issuer: "tests".into(),
            secret: vec![7; 32],
        };
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let authenticator = Arc::new(Authenticator::new(&tokens, clock.clone()));
        let calls = Calls::new(
            authenticator.clone(),
            calls::Config::default(),
            metrics.clone(),
        );
        let server = EmitterService::new(
            authenticator,
            sequencer,
            clock.clone(),
            entropy,
            metrics,
            shutdown.drain(),
            Config::default(),
        )
        .into_server(calls);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(
            Server::builder()
                .add_service(server.clone())
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let client = EventEmitterClient::connect(format!("http://{address}"))
            .await
            .unwrap();
        Self {
            server,
            client,
            tokens,
            clock,
            shutdown,
            rendered: Box::new(move || handle.render()),
        }
    }

    fn token(&self, scope: Scope, users: Option<&[&str]>) -> String {
        let expires_at = self.clock.now() + Duration::from_secs(60);
        let mut grant = Grant::new("producer", BTreeSet::from([scope]), expires_at);
        grant.tenant = Some("acme".into());
        grant.users = users.map(|users| users.iter().map(|user| (*user).to_owned()).collect());
        mint(&self.tokens, &grant).unwrap()
    }

    fn request<T>(&self, message: T) -> Request<T> {
        with_token(message, &self.token(Scope::Emit, Some(&["u1", "u2"])))
    }

    async fn emit(&mut self, event: v1::Event) -> Result<v1::Receipt, Status> {
        let request = self.request(EmitRequest { event: Some(event) });
        let answer = self.client.emit(request).await?;
        Ok(answer.into_inner().receipt.unwrap())
    }

    async fn emit_batch(
        &mut self,
        events: Vec<v1::Event>,
    ) -> Result<v1::EmitBatchResponse, Status> {
        let request = self.request(EmitBatchRequest { events });
        Ok(self.client.emit_batch(request).await?.into_inner())
    }

    /// What an `Emit` with the given bytes as its body is answered with.
    async fn raw(&self, body: Vec<u8>) -> Status {
        let request = http::Request::post("/emitter.v1.EventEmitter/Emit")
            .header(
                "authorization",
                format!("Bearer {}", self.token(Scope::Emit, None)),
            )
            .body(http_body_util::Full::new(bytes::Bytes::from(body)))
            .unwrap();
        let response = self.server.clone().oneshot(request).await.unwrap();
        Status::from_header_map(response.headers()).unwrap()
    }

    fn counted(&self, reason: &str) -> u64 {
        let line = format!("emitter_events_refused_total{{reason=\"{reason}\"}} ");
        let text = (self.rendered)();
        let value = text.lines().find_map(|l| l.strip_prefix(&line)).unwrap();
        value.parse().unwrap()
    }
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// An event of `user` with the id `id`.
fn of(user: &str, id: &str) -> v1::Event {
    v1::Event {
        event_id: id.into(),
        user_id: user.into(),
        run_id: format!("run-{user}"),
        ..event(Payload::Message(Message::default()))
    }
}

fn text(bytes: usize) -> v1::Event {
    event(Payload::Message(Message {
        text: "x".repeat(bytes),
        ..Message::default()
    }))
}

/// The reason in the status, and its fields.
fn explained(status: &Status) -> (String, Vec<String>) {
    let details = status.get_error_details();
    let fields = details.bad_request().map(|bad| {
        bad.field_violations
            .iter()
            .map(|v| v.field.clone())
            .collect()
    });
    let info = details.error_info().unwrap_or_else(|| panic!("{status:?}"));
    assert_eq!(info.domain, "emitter");
    (info.reason.clone(), fields.unwrap_or_default())
}

#[tokio::test]
async fn an_event_is_stored_once() {
    let mut door = Door::open().await;
    let first = door.emit(of("u1", "a")).await.unwrap();
    assert_eq!(
        (first.event_id.as_str(), first.run_sequence, first.duplicate),
        ("a", 1, false)
    );
    assert_eq!(first.position.as_ref().unwrap().epoch.len(), 16);
    assert!(first.recorded_at.is_some());
    let again = door.emit(of("u1", "a")).await.unwrap();
    let want = v1::Receipt {
        duplicate: true,
        ..first
    };
    assert_eq!(again, want);
    let mut other = of("u1", "a");
    other.thread_id = "t".into();
    let status = door.emit(other).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(explained(&status).0, "EVENT_ID_REUSED");
    assert_eq!(door.counted("EVENT_ID_REUSED"), 1);
}

#[tokio::test]
async fn a_batch_answers_each_event_in_its_place() {
    let mut door = Door::open().await;
    let bad = v1::Event {
        run_id: String::new(),
        ..of("u1", "bad")
    };
    let batch = vec![
        of("u1", "a"),
        of("u2", "b"),
        bad.clone(),
        of("u3", "c"),
        of("u1", "d"),
        of("u2", "e"),
    ];
    let answer = door.emit_batch(batch).await.unwrap();
    let got: Vec<_> = answer
        .results
        .iter()
        .map(|result| match result.outcome.as_ref().unwrap() {
            Outcome::Receipt(r) => format!("{} {}", r.event_id, r.run_sequence),
            Outcome::Refusal(r) => format!("{} {}", r.reason, r.message),
        })
        .collect();
    let want = [
        "a 1",
        "b 1",
        "INVALID_EVENT invalid: events[2].run_id is required",
        "USER_FORBIDDEN the credential may not address this user",
        "d 2",
        "e 2",
    ];
    assert_eq!(got, want);
    assert_eq!(answer.refused_count, 2);
    assert_eq!(
        (
            door.counted("INVALID_EVENT"),
            door.counted("USER_FORBIDDEN")
        ),
        (1, 1)
    );

    let status = door.emit(bad).await.unwrap_err();
    assert_eq!(
        explained(&status),
        ("INVALID_EVENT".into(), vec!["event.run_id".into()])
    );
    assert_eq!(status.message(), "invalid: event.run_id is required");
    assert_eq!(door.counted("INVALID_EVENT"), 2);
}

#[tokio::test]
async fn what_the_sequencer_refuses_has_paths_too() {
    let mut door = Door::open().await;
    let of_thread = |thread: &str, id: &str| v1::Event {
        thread_id: thread.into(),
        ..of("u1", id)
    };
    let batch = vec![of_thread("t1", "a"), of_thread("t2", "b")];
    let answer = door.emit_batch(batch).await.unwrap();
    let Some(Outcome::Refusal(refusal)) = &answer.results[1].outcome else {
        panic!("{answer:?}");
    };
    assert_eq!(refusal.violations[0].field, "events[1].thread_id");
    let status = door.emit(of_thread("t2", "c")).await.unwrap_err();
    assert_eq!(explained(&status).1, ["event.thread_id"]);
}

#[tokio::test]
async fn batches_are_bounded() {
    let mut door = Door::open().await;
    for (batch, rule) in [
        (vec![], "is required"),
        (vec![v1::Event::default(); 1001], "more than 1000"),
        (vec![text(60_000); 70], "larger than 4194304"),
        // Far enough beyond the bound for tonic to refuse it.
        (vec![text(60_000); 100], "larger than 4194304"),
    ] {
        let status = door.emit_batch(batch).await.unwrap_err();
        assert_eq!(
            explained(&status),
            ("INVALID_EVENT".into(), vec!["events".into()])
        );
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(rule), "{status:?}");
    }
    assert_eq!(door.counted("INVALID_EVENT"), 4);
    let answer = door
        .emit_batch(vec![v1::Event::default(); 1000])
        .await
        .unwrap();
    assert_eq!((answer.results.len(), answer.refused_count), (1000, 1000));
}

#[tokio::test]
async fn one_event_is_bounded() {
    let mut door = Door::open().await;
    assert!(door.emit(text(65_000)).await.is_ok());
    for bytes in [65_600, 200_000, 5_000_000] {
        let status = door.emit(text(bytes)).await.unwrap_err();
        assert_eq!(
            explained(&status),
            ("INVALID_EVENT".into(), vec!["event".into()])
        );
    }
    let none = door.request(EmitRequest { event: None });
    let status = door.client.emit(none).await.unwrap_err();
    assert_eq!(
        explained(&status),
        ("INVALID_EVENT".into(), vec!["event".into()])
    );
}

#[tokio::test]
async fn only_a_producers_credential_gets_in() {
    let mut door = Door::open().await;
    let message = || EmitRequest {
        event: Some(of("u1", "a")),
    };
    let reader = door.token(Scope::Subscribe, None);
    let mut basic = Request::new(message());
    basic
        .metadata_mut()
        .insert("authorization", "Basic eDp5".parse().unwrap());
    for (request, reason, code) in [
        (
            Request::new(message()),
            "UNAUTHENTICATED",
            Code::Unauthenticated,
        ),
        (basic, "UNAUTHENTICATED", Code::Unauthenticated),
        (
            with_token(message(), "x.y.z"),
            "UNAUTHENTICATED",
            Code::Unauthenticated,
        ),
        (
            with_token(message(), &reader),
            "SCOPE_MISSING",
            Code::PermissionDenied,
        ),
    ] {
        let status = door.client.emit(request).await.unwrap_err();
        assert_eq!(
            (explained(&status).0.as_str(), status.code()),
            (reason, code)
        );
    }
    assert_eq!(
        (
            door.counted("UNAUTHENTICATED"),
            door.counted("SCOPE_MISSING")
        ),
        (3, 1)
    );
    // A caller that is not let in cannot make the server read 4 MiB first.
    let batch = EmitBatchRequest {
        events: vec![text(60_000); 60],
    };
    let status = door.client.emit_batch(batch).await.unwrap_err();
    assert_eq!(explained(&status).0, "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_draining_server_says_so() {
    let mut door = Door::open().await;
    door.shutdown.advance(Phase::Draining);
    let status = door.emit(of("u1", "a")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(explained(&status).0, "DRAINING");
    assert!(status.get_error_details().retry_info().is_some());
    assert_eq!(door.counted("DRAINING"), 1);
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    let door = Door::open().await;
    for body in [
        &[0, 0, 0, 0, 2, 0x0a, 0x7f][..],
        &[0, 0, 0, 0, 9, 1],
        &[],
        &[9, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0],
    ] {
        let status = door.raw(body.to_vec()).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{body:?}: {status:?}");
        assert_eq!(explained(&status).0, "INVALID_REQUEST");
    }
    assert_eq!(door.counted("INVALID_REQUEST"), 5);
}
