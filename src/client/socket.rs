//! One WebSocket connection of a reader.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::{net::TcpStream, time::Instant};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        http::{HeaderValue, Response, header},
        protocol::WebSocketConfig,
    },
};

use super::Frame;

/// How long it may take until the first frame is there, and how long any frame before the server says otherwise.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// The subprotocol: the encoding of the frames.
const PROTOCOL: &str = "emitter.v1.json";

/// How a connection, or the attempt at one, ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    /// Closed with a code and the server's words.
    Closed(u16, String),
    /// Answered with an HTTP status instead of a stream, and the body.
    Refused(u16, String),
    /// Gone, or never there.
    Lost(String),
}

/// One WebSocket connection.
pub(super) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// How long the server may be silent.
    patience: Duration,
    /// When it has been silent for too long.
    deadline: Instant,
}

impl Socket {
    /// Connects to `url` with `token`.
    pub(super) async fn connect(url: &str, token: &str) -> Result<Self, End> {
        let opening = open(url, token);
        match tokio::time::timeout(HANDSHAKE, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(End::Lost("the handshake took too long".into())),
        }
    }

    /// The next text frame. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Frame, End> {
        loop {
            let received = tokio::time::timeout_at(self.deadline, self.stream.next()).await;
            let message = match received {
                Err(_) => return Err(End::Lost("the server has fallen silent".into())),
                Ok(None) => return Err(End::Lost("the connection ended".into())),
                Ok(Some(Err(error))) => return Err(End::Lost(error.to_string())),
                Ok(Some(Ok(message))) => message,
            };
            // Only frames count as a sign of life: a proxy may answer pings for a server that is gone.
            match message {
                Message::Text(text) => {
                    self.deadline = Instant::now() + self.patience;
                    match Frame::parse(text.as_str().to_owned()) {
                        Some(frame) => return Ok(self.noted(frame)),
                        None => tracing::warn!("a frame is no JSON object with a type"),
                    }
                }
                Message::Close(Some(close)) => {
                    let reason = close.reason.as_str().to_owned();
                    return Err(End::Closed(close.code.into(), reason));
                }
                Message::Close(None) => return Err(End::Closed(1005, String::new())),
                _ => {}
            }
        }
    }

    /// Sends a text frame.
    pub(super) async fn send(&mut self, text: String) -> Result<(), End> {
        let sending = self.stream.send(Message::text(text));
        match tokio::time::timeout(self.patience, sending).await {
            Ok(sent) => sent.map_err(|error| End::Lost(error.to_string())),
            Err(_) => Err(End::Lost("the server takes nothing in".into())),
        }
    }

    /// Takes note of the interval at which the server means to be heard: two missed heartbeats and half of one more
    /// are too long.
    fn noted(&mut self, frame: Frame) -> Frame {
        if let Some(interval) = frame.heartbeat_interval_ms() {
            let bounded = Duration::from_millis(interval.clamp(100, 600_000));
            self.patience = bounded * 5 / 2;
            self.deadline = Instant::now() + self.patience;
        }
        frame
    }
}

async fn open(url: &str, token: &str) -> Result<Socket, End> {
    let lost = |error: &dyn std::fmt::Display| End::Lost(error.to_string());
    let mut request = url.into_client_request().map_err(|error| lost(&error))?;
    let bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(|error| lost(&error))?;
    let headers = request.headers_mut();
    headers.insert(header::AUTHORIZATION, bearer);
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(PROTOCOL),
    );
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(4 * 1024)
        .max_write_buffer_size(256 * 1024);
    let (stream, _response) =
        tokio_tungstenite::connect_async_with_config(request, Some(config), true)
            .await
            .map_err(refused)?;
    Ok(Socket {
        stream,
        patience: HANDSHAKE,
        deadline: Instant::now() + HANDSHAKE,
    })
}

fn refused(error: Error) -> End {
    let text = |response: &Response<Option<Vec<u8>>>| {
        let body = response.body().as_deref().unwrap_or_default();
        String::from_utf8_lossy(body).into_owned()
    };
    match error {
        Error::Http(response) => End::Refused(response.status().as_u16(), text(&response)),
        error => End::Lost(error.to_string()),
    }
}
