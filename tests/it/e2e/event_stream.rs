//! A client of `/v1/events` by hand: HTTP/1.1 with its chunks, and server-sent events as the HTML standard reads them,
//! but stricter: what no event of ours should have is a failure.

use std::{collections::BTreeMap, net::SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::wire::{self, PATIENCE};
use crate::support::asyncapi;

/// An answer whose body is read as it comes.
pub(super) struct Answer {
    pub(super) status: u16,
    /// By their names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    tcp: BufReader<TcpStream>,
    /// What came of the body and was not read yet.
    body: Vec<u8>,
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) id: Option<String>,
    pub(super) retry: Option<u64>,
    pub(super) frame: Value,
}

impl Answer {
    /// Asks for `path` with `headers`.
    pub(super) async fn of(
        http: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        let tcp = TcpStream::connect(http).await.unwrap();
        Self::over(tcp, method, path, headers).await
    }

    async fn over(mut tcp: TcpStream, method: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        let http = tcp.peer_addr().unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {http}\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut tcp = BufReader::new(tcp);
        let status = line(&mut tcp).await;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut headers = BTreeMap::new();
        loop {
            let line = line(&mut tcp).await;
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        Self {
            status: code.unwrap_or_else(|| panic!("no status in {status:?}")),
            headers,
            tcp,
            body: Vec::new(),
        }
    }

    /// The header `name`, or nothing.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The whole body of an answer that says how long it is.
    pub(super) async fn text(mut self) -> String {
        let length = self.header("content-length").parse().unwrap();
        let mut body = vec![0; length];
        let read = tokio::time::timeout(PATIENCE, self.tcp.read_exact(&mut body)).await;
        read.expect("the body did not come").unwrap();
        String::from_utf8(body).unwrap()
    }

    /// The reason of a refusal.
    pub(super) async fn reason(self) -> String {
        assert_eq!(self.header("content-type"), "application/json");
        let text = self.text().await;
        let body: Value = serde_json::from_str(&text).unwrap();
        assert!(body["message"].is_string(), "{body}");
        body["reason"].as_str().unwrap().to_owned()
    }

    /// The next event; `None` at the body's end.
    pub(super) async fn next(&mut self) -> Option<Event> {
        let next = async {
            loop {
                if let Some(end) = self.body.windows(2).position(|two| two == b"\n\n") {
                    let event: Vec<u8> = self.body.drain(..end + 2).collect();
                    return Some(parsed(&event));
                }
                if !self.take_chunk().await {
                    assert_eq!(self.body, b"", "the body ends within an event");
                    return None;
                }
            }
        };
        wire::in_time(next).await
    }

    /// Whether there was one more chunk.
    async fn take_chunk(&mut self) -> bool {
        let size = line(&mut self.tcp).await;
        let size = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("{size:?}"));
        let begin = self.body.len();
        self.body.resize(begin + size, 0);
        self.tcp.read_exact(&mut self.body[begin..]).await.unwrap();
        assert_eq!(line(&mut self.tcp).await, "");
        size > 0
    }

    /// The next event whose frame is of this type; others before it are dropped.
    pub(super) async fn frame_of(&mut self, wire_type: &str) -> Event {
        let next = async {
            loop {
                let event = self.next().await;
                let event = event.unwrap_or_else(|| panic!("it ended before {wire_type}"));
                if event.frame["type"] == wire_type {
                    return event;
                }
            }
        };
        wire::in_time(next).await
    }

    /// The next event that is one of the user's.
    pub(super) async fn event(&mut self) -> Event {
        let next = async {
            loop {
                let event = self.next().await.expect("an event");
                if !wire::is_control(&event.frame) {
                    return event;
                }
            }
        };
        wire::in_time(next).await
    }

    /// The last event, which says why the stream ends; events before it are dropped.
    pub(super) async fn closing(&mut self) -> Event {
        let closing = self.frame_of("connection_closing").await;
        assert_eq!(closing.id, None);
        assert_eq!(self.next().await, None, "it goes on after {closing:?}");
        closing
    }
}

/// Begins to read with `token` and further `headers`; it must be let in.
pub(super) async fn open(
    http: SocketAddr,
    token: &str,
    query: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let bearer = format!("Bearer {token}");
    let mut all = vec![("authorization", bearer.as_str())];
    all.extend(headers);
    let answer = Answer::of(http, "GET", &format!("/v1/events?{query}"), &all).await;
    if answer.status != 200 {
        panic!("?{query}: {}", answer.reason().await);
    }
    assert_eq!(answer.header("content-type"), "text/event-stream");
    answer
}

/// Begins to read with `token`, and has little room for what comes.
pub(super) async fn open_narrow(http: SocketAddr, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer)];
    Answer::over(wire::narrow(http).await, "GET", "/v1/events", &headers).await
}

/// Begins to read behind `id`.
pub(super) async fn resume(http: SocketAddr, token: &str, query: &str, id: &str) -> Answer {
    open(http, token, query, &[("last-event-id", id)]).await
}

async fn line(tcp: &mut BufReader<TcpStream>) -> String {
    let mut line = Vec::new();
    let read = tokio::time::timeout(PATIENCE, tcp.read_until(b'\n', &mut line)).await;
    read.expect("nothing came").unwrap();
    let line = String::from_utf8(line).unwrap();
    let ended = line.strip_suffix("\r\n");
    ended
        .unwrap_or_else(|| panic!("cut off: {line:?}"))
        .to_owned()
}

fn parsed(event: &[u8]) -> Event {
    let text = std::str::from_utf8(event).unwrap();
    assert!(!text.contains('\r'), "{text:?}");
    let (mut id, mut retry, mut data) = (None, None, Vec::new());
    for line in text.trim_end_matches('\n').split('\n') {
        match line.split_once(": ") {
            Some(("id", value)) if id.is_none() => id = Some(value.to_owned()),
            Some(("retry", value)) if retry.is_none() => retry = Some(value.parse().unwrap()),
            Some(("data", value)) => data.push(value),
            _ => panic!("{line:?} in {text:?}"),
        }
    }
    let frame = serde_json::from_str(&data.join("\n"));
    let frame = frame.unwrap_or_else(|error| panic!("{error} in {text:?}"));
    Event {
        id,
        retry,
        frame: asyncapi::checked(frame),
    }
}
