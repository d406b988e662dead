//! One WebSocket connection of a reader.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use tokio::{net::TcpStream, time::Instant};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream,
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
    /// Connects to `url` with `token`; over TLS by `tls`.
    pub(super) async fn connect(
        url: &str,
        token: &str,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Self, End> {
        let opening = open(url, token, tls);
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

async fn open(url: &str, token: &str, tls: Option<Arc<ClientConfig>>) -> Result<Socket, End> {
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
    let connector = tls.map_or(Connector::Plain, Connector::Rustls);
    let (stream, _response) = tokio_tungstenite::connect_async_tls_with_config(
        request,
        Some(config),
        true,
        Some(connector),
    )
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    /// A socket that is connected already, and its server's end.
    async fn pair() -> (Socket, WebSocketStream<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (server, _) = listener.accept().await.unwrap();
        let client = MaybeTlsStream::Plain(client.unwrap());
        let socket = Socket {
            stream: WebSocketStream::from_raw_socket(client, Role::Client, None).await,
            patience: HANDSHAKE,
            deadline: Instant::now() + HANDSHAKE,
        };
        let server = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
        (socket, server)
    }

    #[tokio::test]
    async fn each_frame_keeps_the_server_for_two_and_a_half_heartbeats() {
        let (mut socket, mut server) = pair().await;
        for (frame, patience) in [
            (r#"{"type":"connection_heartbeat"}"#, HANDSHAKE),
            (
                r#"{"type":"connection_established","heartbeat_interval_ms":20000}"#,
                Duration::from_secs(50),
            ),
            (
                r#"{"type":"connection_heartbeat"}"#,
                Duration::from_secs(50),
            ),
            (r#"{"type":"note"}"#, Duration::from_secs(50)),
        ] {
            server.send(Message::text(frame)).await.unwrap();
            let begun = Instant::now();
            socket.next().await.unwrap();
            let left = socket.deadline - begun;
            let most = patience + begun.elapsed();
            assert!(patience <= left && left <= most, "{frame}: {left:?}");
        }
        // A ping keeps nobody.
        let deadline = socket.deadline;
        server.send(Message::Ping("".into())).await.unwrap();
        server.close(None).await.unwrap();
        assert_eq!(socket.next().await, Err(End::Closed(1005, String::new())));
        assert_eq!(socket.deadline, deadline);
    }

    #[tokio::test]
    async fn a_server_that_is_silent_beyond_the_deadline_is_left() {
        let (mut socket, _server) = pair().await;
        socket.deadline = Instant::now();
        let silent = End::Lost("the server has fallen silent".into());
        assert_eq!(socket.next().await, Err(silent));
    }
}
