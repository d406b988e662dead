//! Stock clients for the tests: tonic stubs and a plain WebSocket, nothing of the crate's own client.

use std::{future::Future, net::SocketAddr, time::Duration};

use emitter::proto::v1::{
    self, event::Payload, event_emitter_client::EventEmitterClient, subscribe_response::Item,
};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Error, Message, client::IntoClientRequest, http::HeaderValue},
};
use tonic::{Code, Request, Status, Streaming, transport::Channel};

use super::server::Server;
use crate::support::asyncapi::checked;

/// How long anything may take that is expected to happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What `coming` comes to. Whole waits are measured: heartbeats come for ever.
pub(super) async fn in_time<T>(coming: impl Future<Output = T>) -> T {
    let came = tokio::time::timeout(PATIENCE, coming).await;
    came.expect("it did not come")
}

/// The emitter's stub at `grpc`.
pub(super) async fn emitter(grpc: SocketAddr) -> EventEmitterClient<Channel> {
    EventEmitterClient::connect(format!("http://{grpc}"))
        .await
        .unwrap()
        .max_encoding_message_size(16 << 20)
}

/// `message` with a bearer token.
pub(super) fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

/// A connection to `address` with little room for what comes.
pub(super) async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    socket.connect(address).await.unwrap()
}

/// An event of `user` and `run` with the id `id`.
pub(super) fn event(user: &str, run: &str, id: &str, payload: Payload) -> v1::Event {
    v1::Event {
        event_id: id.into(),
        user_id: user.into(),
        run_id: run.into(),
        agent_name: "researcher".into(),
        payload: Some(payload),
        ..Default::default()
    }
}

/// The first event of a run.
pub(super) fn started(user: &str, run: &str) -> v1::Event {
    let payload = Payload::AgentStarted(v1::AgentStarted::default());
    event(user, run, &format!("{run}-started"), payload)
}

/// A thought.
pub(super) fn thinking(text: &str) -> Payload {
    Payload::AgentThinking(v1::AgentThinking {
        reasoning: text.into(),
        ..Default::default()
    })
}

/// The five critical events of a run, in order, with ids `<run>-1` to `<run>-5`.
pub(super) fn whole_run(user: &str, run: &str) -> Vec<v1::Event> {
    let payloads = [
        Payload::AgentStarted(v1::AgentStarted::default()),
        thinking("which one?"),
        Payload::ToolExecuting(v1::ToolExecuting {
            tool_call_id: "c1".into(),
            tool_name: "search".into(),
            ..Default::default()
        }),
        Payload::ToolCompleted(v1::ToolCompleted {
            tool_call_id: "c1".into(),
            tool_name: "search".into(),
            ..Default::default()
        }),
        Payload::AgentCompleted(v1::AgentCompleted::default()),
    ];
    let numbered = payloads.into_iter().zip(1..);
    numbered
        .map(|(payload, n)| event(user, run, &format!("{run}-{n}"), payload))
        .collect()
}

/// A WebSocket client of `/v1/stream`.
pub(super) struct Socket(pub(super) WebSocketStream<MaybeTlsStream<TcpStream>>);

/// What came over a socket.
#[derive(Debug)]
pub(super) enum Came {
    /// A text frame.
    Frame(Value),
    /// A close frame with this code.
    Closed(u16),
    /// The connection ended without one.
    Ended,
}

impl Socket {
    /// Connects with the query `query` and `headers`.
    pub(super) async fn open(
        http: SocketAddr,
        query: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Self, Error> {
        Self::over(TcpStream::connect(http).await?, query, headers).await
    }

    async fn over(
        tcp: TcpStream,
        query: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Self, Error> {
        let url = format!("ws://{}/v1/stream?{query}", tcp.peer_addr()?);
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().insert(*name, value);
        }
        let tcp = MaybeTlsStream::Plain(tcp);
        let (stream, _) = tokio_tungstenite::client_async(request, tcp).await?;
        Ok(Self(stream))
    }

    /// Connects with a bearer token.
    pub(super) async fn connect(http: SocketAddr, token: &str, query: &str) -> Self {
        let bearer = format!("Bearer {token}");
        Self::open(http, query, &[("authorization", bearer)])
            .await
            .unwrap_or_else(|error| panic!("?{query}: {error}"))
    }

    /// Connects with a bearer token, and has little room for what comes.
    pub(super) async fn connect_narrow(http: SocketAddr, token: &str) -> Self {
        let headers = [("authorization", format!("Bearer {token}"))];
        let opened = Self::over(narrow(http).await, "", &headers).await;
        opened.unwrap_or_else(|error| panic!("{error}"))
    }

    /// What comes next.
    pub(super) async fn next(&mut self) -> Came {
        let next = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Came::Frame(checked(serde_json::from_str(&text).unwrap()));
                    }
                    Some(Ok(Message::Close(close))) => {
                        return Came::Closed(close.map_or(1005, |close| close.code.into()));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Came::Ended,
                }
            }
        };
        in_time(next).await
    }

    /// The next frame.
    pub(super) async fn frame(&mut self) -> Value {
        match self.next().await {
            Came::Frame(frame) => frame,
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    /// The next frame of this type; others before it are dropped.
    pub(super) async fn frame_of(&mut self, wire_type: &str) -> Value {
        let next = async {
            loop {
                let frame = self.frame().await;
                if frame["type"] == wire_type {
                    return frame;
                }
            }
        };
        in_time(next).await
    }

    /// The next frame that is an event.
    pub(super) async fn event(&mut self) -> Value {
        let next = async {
            loop {
                let frame = self.frame().await;
                if !is_control(&frame) {
                    return frame;
                }
            }
        };
        in_time(next).await
    }

    /// The code that the server closes with; frames before it are dropped.
    pub(super) async fn closed(&mut self) -> u16 {
        let closed = async {
            loop {
                match self.next().await {
                    Came::Frame(_) => {}
                    Came::Closed(code) => return code,
                    Came::Ended => panic!("the connection ended without a close frame"),
                }
            }
        };
        in_time(closed).await
    }
}

/// A gRPC subscription.
pub(super) struct Grpc(Streaming<v1::SubscribeResponse>);

impl Grpc {
    /// Subscribes at `server`.
    pub(super) async fn open(server: &Server, token: &str, request: v1::SubscribeRequest) -> Self {
        let mut client = server.subscriber().await;
        let opened = client.subscribe(with_token(token, request)).await;
        Self(opened.unwrap().into_inner())
    }

    /// The next item, or the status that the stream ends with.
    pub(super) async fn next(&mut self) -> Result<Item, Status> {
        let next = tokio::time::timeout(PATIENCE, self.0.message()).await;
        let message = next.expect("nothing came")?;
        Ok(message.expect("a status").item.unwrap())
    }

    /// The stream's beginning.
    pub(super) async fn established(&mut self) -> v1::Established {
        match self.next().await.unwrap() {
            Item::Established(established) => established,
            other => panic!("{other:?}"),
        }
    }

    /// The next event; what comes before it is dropped.
    pub(super) async fn event(&mut self) -> v1::Event {
        loop {
            if let Item::Event(recorded) = self.next().await.unwrap() {
                return recorded.event.unwrap();
            }
        }
    }

    /// The last words of a stream that ends, and the code that it ends with.
    pub(super) async fn closed(&mut self) -> (v1::Closing, Code) {
        let mut closing = None;
        loop {
            match self.next().await {
                Ok(Item::Closing(last)) => closing = Some(last),
                Ok(_) => {}
                Err(status) => return (closing.expect("last words"), status.code()),
            }
        }
    }
}

/// Whether `frame` speaks of the connection.
pub(super) fn is_control(frame: &Value) -> bool {
    frame["type"].as_str().unwrap().starts_with("connection_")
}

/// The position of an event's frame, as `after` takes it.
pub(super) fn position(frame: &Value) -> String {
    format!("{}-{}", frame["epoch"].as_str().unwrap(), frame["offset"])
}
