//! Peers that misbehave: each is told so or cut off, and a bystander receives everything.

use std::time::Duration;

use emitter::proto::v1::{self, emit_result::Outcome};
use futures_util::SinkExt;
use prost::Message as _;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_types::StatusExt;

use super::{
    http,
    server::Server,
    wire::{self, PATIENCE, Socket},
};

/// A reader that must get everything, whatever others do.
struct Bystander {
    socket: Socket,
    runs: usize,
}

impl Bystander {
    async fn of(server: &Server) -> Self {
        let token = server.token("bystander", "subscribe");
        let mut socket = Socket::connect(server.http, &token, "").await;
        socket.frame_of("connection_caught_up").await;
        Self { socket, runs: 0 }
    }

    /// Emits a run to it and receives it whole.
    async fn check(&mut self, server: &Server) {
        self.runs += 1;
        let run = format!("bystander-run-{}", self.runs);
        server
            .emit_all("agents", wire::whole_run("bystander", &run))
            .await;
        for n in 1..=5 {
            let frame = self.socket.event().await;
            assert_eq!(frame["event_id"], format!("{run}-{n}"));
        }
    }
}

#[tokio::test]
async fn garbage_on_every_listener_disturbs_nobody() {
    let seed = crate::support::seed::seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let server = Server::start_with(|settings| {
        settings.limits.handshake = Duration::from_millis(300);
    })
    .await;
    let mut bystander = Bystander::of(&server).await;
    // With the head of a frame that is too large, whatever follows: for the rest of a frame there is more time.
    let preface =
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff".as_slice();
    for address in [server.grpc, server.http, server.admin] {
        for begin in [
            b"".as_slice(),
            preface,
            b"GET /v1/stream HTTP/1.1\r\n",
            b"GET /v1/events HTTP/1.1\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 99\r\n\r\n",
        ] {
            let mut bytes = begin.to_vec();
            bytes.extend((0..rng.random_range(0..4096)).map(|_| rng.random::<u8>()));
            // Only that it ends, within the handshake's time, counts here.
            http::exchange(address, &bytes).await;
        }
        bystander.check(&server).await;
    }
    println!("seed {seed}");
    server.stop().await;
}

#[tokio::test]
async fn a_peer_that_stops_within_its_first_words_is_cut_off() {
    let server = Server::start_with(|settings| {
        settings.limits.handshake = Duration::from_millis(300);
    })
    .await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
    for sent in [0, 1, 15, 16, preface.len() - 1] {
        http::exchange(server.grpc, &preface[..sent]).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn calls_that_the_grpc_library_refuses_have_a_reason_too() {
    let server = Server::start().await;
    let token = server.token("agents", "emit subscribe");
    let mut raw = Raw::connect(&server).await;
    let large = v1::SubscribeRequest {
        types: vec!["x".repeat(100 * 1024)],
        ..Default::default()
    };
    let unknown = HealthCheckRequest {
        service: "nobody.v1.Nobody".into(),
    };
    let emit = "/emitter.v1.EventEmitter/Emit";
    let subscribe = "/emitter.v1.EventSubscriber/Subscribe";
    let cases = [
        (
            "/emitter.v1.EventEmitter/Nothing",
            "",
            Vec::new(),
            Code::Unimplemented,
        ),
        (
            "/emitter.v1.EventSubscriber/Nothing",
            "",
            Vec::new(),
            Code::Unimplemented,
        ),
        (
            "/nobody.v1.Nobody/Emit",
            "",
            Vec::new(),
            Code::Unimplemented,
        ),
        (emit, "gzip", Vec::new(), Code::Unimplemented),
        (subscribe, "gzip", Vec::new(), Code::Unimplemented),
        (subscribe, "", large.encode_to_vec(), Code::InvalidArgument),
        (
            "/grpc.health.v1.Health/Check",
            "",
            unknown.encode_to_vec(),
            Code::NotFound,
        ),
    ];
    for (path, encoding, bytes, code) in cases {
        let mut request = wire::with_token(&token, Bytes::from(bytes));
        if !encoding.is_empty() {
            let encoding = encoding.parse().unwrap();
            request.metadata_mut().insert("grpc-encoding", encoding);
        }
        let status = raw.call(path, request).await;
        assert_eq!(status.code(), code, "{path} {encoding}: {status:?}");
        let details = status.get_error_details();
        let info = details
            .error_info()
            .unwrap_or_else(|| panic!("{path} {encoding}"));
        assert_eq!(info.domain, "emitter");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_call_whose_body_does_not_come_does_not_hold_up_others() {
    let server = Server::start_with(|settings| {
        settings.limits.grpc_calls = 1;
        settings.limits.request_body = Duration::from_secs(2);
    })
    .await;
    let mut bystander = Bystander::of(&server).await;
    let token = server.token("agents", "emit");
    let mut stalled = Raw::connect(&server).await;
    stalled.0.ready().await.unwrap();
    let path = "/emitter.v1.EventEmitter/Emit".parse().unwrap();
    let request = wire::with_token(&token, futures_util::stream::pending::<Bytes>());
    let answer = stalled.0.client_streaming(request, path, RawCodec);
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    let status = answer
        .expect("it is not given up")
        .expect_err("it has no event");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    bystander.check(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn ten_thousand_mutations_of_valid_calls_get_typed_answers() {
    let seed = crate::support::seed::seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let server = Server::start().await;
    let mut bystander = Bystander::of(&server).await;
    let token = server.token("agents", "emit");
    let mut client = Raw::connect(&server).await;
    let (mut stored, mut refused) = (0, 0);
    for n in 0..10_000 {
        let run = format!("run-{n}");
        let event = wire::whole_run("victim", &run).swap_remove(rng.random_range(0..5));
        let request = v1::EmitRequest { event: Some(event) };
        let mut bytes = request.encode_to_vec();
        for _ in 0..rng.random_range(1..4) {
            mutate(&mut bytes, &mut rng);
        }
        match client.emit(&token, bytes).await {
            Ok(()) => stored += 1,
            Err(status) => {
                let details = status.get_error_details();
                let info = details
                    .error_info()
                    .unwrap_or_else(|| panic!("seed {seed}, call {n}: {status:?}"));
                assert_eq!(info.domain, "emitter");
                assert_ne!(status.code(), Code::Internal, "seed {seed}, call {n}");
                refused += 1;
            }
        }
    }
    println!("seed {seed}: {stored} stored, {refused} refused");
    assert!(
        stored > 0 && refused > 1_000,
        "{stored} stored, {refused} refused"
    );
    bystander.check(&server).await;
    server.stop().await;
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    if bytes.is_empty() {
        return bytes.push(rng.random());
    }
    let at = rng.random_range(0..bytes.len());
    match rng.random_range(0..5) {
        0 => bytes[at] = rng.random(),
        1 => bytes[at] ^= 1 << rng.random_range(0..8),
        2 => bytes.truncate(at),
        3 => bytes.insert(at, rng.random()),
        _ => {
            let end = rng.random_range(at..bytes.len());
            let piece = bytes[at..end].to_vec();
            bytes.extend(piece);
        }
    }
}

/// A client of `Emit` that sends bytes as they are.
struct Raw(tonic::client::Grpc<tonic::transport::Channel>);

impl Raw {
    async fn connect(server: &Server) -> Self {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc));
        Self(tonic::client::Grpc::new(
            endpoint.unwrap().connect().await.unwrap(),
        ))
    }

    /// A call of any method.
    async fn call(&mut self, path: &str, request: tonic::Request<Bytes>) -> tonic::Status {
        self.0.ready().await.unwrap();
        let path = path.parse().unwrap();
        let answer = self.0.server_streaming(request, path, RawCodec).await;
        answer.expect_err("the call was not refused")
    }

    async fn emit(&mut self, token: &str, bytes: Vec<u8>) -> Result<(), tonic::Status> {
        self.0.ready().await.unwrap();
        let path = "/emitter.v1.EventEmitter/Emit".parse().unwrap();
        let request = wire::with_token(token, Bytes::from(bytes));
        let response = self.0.unary(request, path, RawCodec).await?;
        let response = v1::EmitResponse::decode(response.into_inner()).unwrap();
        response.receipt.expect("a receipt");
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct RawCodec;

impl tonic::codec::Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for RawCodec {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(
        &mut self,
        item: Bytes,
        to: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), tonic::Status> {
        bytes::BufMut::put(to, item);
        Ok(())
    }
}

impl tonic::codec::Decoder for RawCodec {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(
        &mut self,
        from: &mut tonic::codec::DecodeBuf<'_>,
    ) -> Result<Option<Bytes>, tonic::Status> {
        let all = bytes::Buf::remaining(from);
        Ok(Some(bytes::Buf::copy_to_bytes(from, all)))
    }
}

#[tokio::test]
async fn a_batch_and_an_event_may_be_as_large_as_said_and_no_larger() {
    let server = Server::start().await;
    server
        .start_runs("alice", &["run-1", "run-2", "run-3"])
        .await;
    let sized = |bytes: usize| {
        let mut event = wire::event("alice", "run-1", &format!("of-{bytes}"), wire::thinking(""));
        let grow = bytes - event.encoded_len() - 10;
        event.payload = Some(wire::thinking(&"x".repeat(grow)));
        // The lengths of the text and of its message take a few bytes more.
        while event.encoded_len() < bytes {
            let text = bytes - event.encoded_len() + text_len(&event);
            event.payload = Some(wire::thinking(&"x".repeat(text)));
        }
        assert_eq!(event.encoded_len(), bytes);
        event
    };
    let limit = 64 * 1024;
    let results = server
        .try_emit("agents", vec![sized(limit), sized(limit + 1)])
        .await;
    assert!(
        matches!(results[0].outcome, Some(Outcome::Receipt(_))),
        "{:?}",
        results[0]
    );
    assert_eq!(reason(&results[1]), "INVALID_EVENT");

    let small = |n: usize| wire::event("alice", "run-2", &format!("n-{n}"), wire::thinking("x"));
    let results = server
        .try_emit("agents", (0..1000).map(small).collect())
        .await;
    assert_eq!(
        results
            .iter()
            .filter(|result| matches!(result.outcome, Some(Outcome::Receipt(_))))
            .count(),
        1000
    );
    let mut client = wire::emitter(server.grpc).await;
    let token = server.token("agents", "emit");
    let large = |n: usize| {
        let text = "x".repeat(60_000);
        wire::event("alice", "run-3", &format!("l-{n}"), wire::thinking(&text))
    };
    for events in [
        Vec::new(),
        (0..1001).map(small).collect(),
        (0..80).map(large).collect(),
    ] {
        let count = events.len();
        let request = wire::with_token(&token, v1::EmitBatchRequest { events });
        let status = client.emit_batch(request).await.unwrap_err();
        let details = status.get_error_details();
        let info = details
            .error_info()
            .unwrap_or_else(|| panic!("{count}: {status:?}"));
        assert!(
            ["INVALID_EVENT", "LIMIT_EXCEEDED"].contains(&info.reason.as_str()),
            "{count}: {info:?}"
        );
    }
    server.stop().await;
}

fn text_len(event: &v1::Event) -> usize {
    match &event.payload {
        Some(v1::event::Payload::AgentThinking(thinking)) => thinking.reasoning.len(),
        other => panic!("{other:?}"),
    }
}

fn reason(result: &v1::EmitResult) -> &str {
    match result.outcome.as_ref().unwrap() {
        Outcome::Refusal(refusal) => &refusal.reason,
        Outcome::Receipt(receipt) => panic!("stored: {receipt:?}"),
    }
}

#[tokio::test]
async fn a_socket_that_talks_too_much_is_closed_and_one_that_talks_nonsense_is_told() {
    let server = Server::start().await;
    let mut bystander = Bystander::of(&server).await;
    let token = server.token("alice", "subscribe");

    let mut nonsense = Socket::connect(server.http, &token, "").await;
    for said in [
        Message::text("{"),
        Message::text(r#"{"type":"dance"}"#),
        Message::binary(vec![1, 2]),
    ] {
        nonsense.0.send(said).await.unwrap();
        let error = nonsense.frame_of("connection_error").await;
        assert_eq!(error["reason"], "INVALID_REQUEST");
    }

    let mut chatty = Socket::connect(server.http, &token, "").await;
    // Far more than 20 in each second that this takes.
    for _ in 0..1_000 {
        // It may be closed before all are sent.
        if chatty
            .0
            .send(Message::text(r#"{"type":"dance"}"#))
            .await
            .is_err()
        {
            break;
        }
    }
    assert_eq!(chatty.closed().await, 4506);

    let mut large = Socket::connect(server.http, &token, "").await;
    large
        .0
        .send(Message::text("x".repeat(64 * 1024 + 1)))
        .await
        .unwrap();
    assert_eq!(large.closed().await, 1009);

    bystander.check(&server).await;
    server.stop().await;
}
