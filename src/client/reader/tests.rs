use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
        protocol::CloseFrame,
    },
};

use super::*;

const E1: &str = "00000000000000e1";
const E2: &str = "00000000000000e2";

/// One connection of a scripted server: what it was asked for, and the stream.
#[expect(
    clippy::result_large_err,
    reason = "the callback's type is tungstenite's"
)]
async fn accept(listener: &TcpListener) -> (String, WebSocketStream<TcpStream>) {
    let (tcp, _) = listener.accept().await.unwrap();
    let mut asked = String::new();
    let stream =
        tokio_tungstenite::accept_hdr_async(tcp, |request: &Request, mut response: Response| {
            let token = request.headers()["authorization"].to_str().unwrap();
            asked = format!("{} {token}", request.uri().query().unwrap());
            let protocol = request.headers()["sec-websocket-protocol"].clone();
            response
                .headers_mut()
                .insert("sec-websocket-protocol", protocol);
            Ok(response)
        })
        .await
        .unwrap();
    (asked, stream)
}

async fn say(stream: &mut WebSocketStream<TcpStream>, frames: &[String]) {
    for frame in frames {
        stream.send(Message::text(frame.clone())).await.unwrap();
    }
}

async fn close(mut stream: WebSocketStream<TcpStream>, code: u16) {
    let frame = CloseFrame {
        code: code.into(),
        reason: "because".into(),
    };
    stream.close(Some(frame)).await.unwrap();
    while let Some(Ok(_)) = stream.next().await {}
}

fn established(epoch: &str, offset: u64) -> String {
    let position = format!(r#""position":"{epoch}-{offset}""#);
    control(
        "established",
        &format!(r#"{position},"heartbeat_interval_ms":20000"#),
    )
}

fn event(epoch: &str, offset: u64) -> String {
    format!(r#"{{"type":"note","event_id":"e{offset}","epoch":"{epoch}","offset":{offset}}}"#)
}

fn control(kind: &str, fields: &str) -> String {
    format!(r#"{{"type":"connection_{kind}",{fields}}}"#)
}

async fn server<F, T>(script: impl FnOnce(TcpListener) -> F) -> (String, JoinHandle<T>)
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (url, tokio::spawn(script(listener)))
}

fn reader(url: &str, config: ReaderConfig) -> Reader {
    Reader::new(url, Credential::fixed("tok"), config).unwrap()
}

/// The items up to the first one that ends the reading, told briefly.
async fn told(reader: &mut Reader, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..count {
        told.push(match reader.next().await {
            Ok(Item::Event(frame)) => format!("{}", frame.position().unwrap().offset.0),
            Ok(Item::Established(_)) => "established".into(),
            Ok(Item::Gap(frame)) => format!("gap {}", frame.reason().unwrap()),
            Ok(Item::CaughtUp(_)) => "caught up".into(),
            Ok(Item::Notice(frame)) => frame.kind().into(),
            Ok(Item::Disconnected { reason, .. }) => format!("lost: {reason}"),
            Err(stopped) => format!("stopped {}", stopped.code),
        });
    }
    told
}

#[tokio::test]
async fn it_resumes_after_what_it_saw_and_drops_what_comes_again() {
    let (url, server) = server(|listener| async move {
        let (first, mut stream) = accept(&listener).await;
        say(
            &mut stream,
            &[established(E1, 4), event(E1, 5), event(E1, 7)],
        )
        .await;
        drop(stream);
        let (second, mut stream) = accept(&listener).await;
        let frames = [
            established(E1, 7),
            event(E1, 7),
            event(E1, 9),
            control("caught_up", &format!(r#""position":"{E1}-12""#)),
        ];
        say(&mut stream, &frames).await;
        close(stream, 4001).await;
        let (third, stream) = accept(&listener).await;
        close(stream, 4503).await;
        [first, second, third]
    })
    .await;
    let config = ReaderConfig {
        start: Start::Oldest,
        thread_id: Some("a b&c".into()),
        types: vec!["note".into(), "x.y".into()],
        join: Some(false),
        ..ReaderConfig::default()
    };
    let mut reader = reader(&url, config);
    let told = told(&mut reader, 10).await;
    assert_eq!(told[..3], ["established", "5", "7"]);
    assert!(told[3].starts_with("lost"), "{told:?}");
    assert_eq!(
        told[4..],
        [
            "established",
            "9",
            "caught up",
            "lost: closed with 4001: because",
            "stopped 4503",
            "stopped 4503"
        ]
    );
    let filter = "thread_id=a%20b%26c&types=note%2Cx.y&join=false Bearer tok";
    assert_eq!(
        server.await.unwrap(),
        [
            format!("from=oldest&{filter}"),
            format!("after={E1}-7&{filter}"),
            format!("after={E1}-12&{filter}"),
        ]
    );
}

#[tokio::test]
async fn a_named_reader_acknowledges_what_its_caller_has_dealt_with() {
    let (url, server) = server(|listener| async move {
        let mut asked = Vec::new();
        let mut heard = Vec::new();
        for frames in [
            vec![established(E1, 4), event(E1, 5)],
            // What was acknowledged last may have been lost with the connection.
            vec![established(E1, 5)],
        ] {
            let (query, mut stream) = accept(&listener).await;
            asked.push(query);
            say(&mut stream, &frames).await;
            match stream.next().await {
                Some(Ok(Message::Text(text))) => heard.push(text.as_str().to_owned()),
                other => panic!("{other:?}"),
            }
            close(stream, 4001).await;
        }
        let (_, stream) = accept(&listener).await;
        close(stream, 4508).await;
        (asked, heard)
    })
    .await;
    let config = ReaderConfig {
        start: Start::Acked,
        client_id: Some("tab 1".into()),
        ..ReaderConfig::default()
    };
    let mut reader = reader(&url, config);
    let told = told(&mut reader, 6).await;
    assert_eq!(told[..2], ["established", "5"]);
    assert_eq!((&*told[3], &*told[5]), ("established", "stopped 4508"));
    let ack = format!(r#"{{"epoch":"{E1}","offset":5,"type":"ack"}}"#);
    let (asked, heard) = server.await.unwrap();
    assert_eq!(heard, [ack.clone(), ack]);
    let first = "from=acked&client_id=tab%201 Bearer tok".to_owned();
    let second = format!("after={E1}-5&client_id=tab%201 Bearer tok");
    assert_eq!(asked, [first, second]);
}

#[tokio::test]
async fn after_a_gap_the_cursor_is_the_servers() {
    let (url, server) = server(|listener| async move {
        let (first, mut stream) = accept(&listener).await;
        let gap = format!(r#""reason":"epoch_changed","after":"{E1}-9","next":"{E2}-0""#);
        let frames = [
            established(E1, 3),
            event(E1, 4),
            event(E1, 9),
            control("gap", &gap),
            event(E2, 4), // the same ids come again under the new epoch
            event(E2, 9),
            event(E2, 10),
        ];
        say(&mut stream, &frames).await;
        drop(stream);
        let (second, mut stream) = accept(&listener).await;
        let gap = format!(r#""reason":"position_ahead","after":"{E2}-10","next":"{E2}-6""#);
        let frames = [established(E2, 6), control("gap", &gap), event(E2, 7)];
        say(&mut stream, &frames).await;
        close(stream, 4500).await;
        [first, second]
    })
    .await;
    let after = format!("{E1}-3").parse().unwrap();
    let mut reader = reader(
        &url,
        ReaderConfig {
            start: Start::After(after),
            ..ReaderConfig::default()
        },
    );
    let told = told(&mut reader, 10).await;
    assert_eq!(
        told[..5],
        ["established", "4", "9", "gap epoch_changed", "10"]
    );
    assert_eq!(
        told[6..],
        ["established", "gap position_ahead", "7", "stopped 4500"]
    );
    assert_eq!(
        server.await.unwrap(),
        [
            format!("after={E1}-3 Bearer tok"),
            format!("after={E2}-10 Bearer tok"),
        ]
    );
}

#[tokio::test]
async fn a_silent_server_is_left() {
    let (url, _server) = server(|listener| async move {
        let (_, mut stream) = accept(&listener).await;
        let begins = format!(r#""position":"{E1}-3","heartbeat_interval_ms":100"#);
        say(&mut stream, &[control("established", &begins)]).await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut reader = reader(&url, ReaderConfig::default());
    let told = told(&mut reader, 2).await;
    assert_eq!(told, ["established", "lost: the server has fallen silent"]);
}

#[tokio::test]
async fn the_server_says_when_to_come_back() {
    let (url, _server) = server(|listener| async move {
        let (_, mut stream) = accept(&listener).await;
        let closing = control("closing", r#""reason":"DRAINING","reconnect_after_ms":700"#);
        say(&mut stream, &[closing]).await;
        close(stream, 4001).await;
        let (_, stream) = accept(&listener).await;
        close(stream, 4501).await;
    })
    .await;
    let mut reader = reader(&url, ReaderConfig::default());
    assert_eq!(told(&mut reader, 1).await, ["connection_closing"]);
    let begun = Instant::now();
    let item = reader.next().await.unwrap();
    let Item::Disconnected { retry_in, .. } = item else {
        panic!("{item:?}");
    };
    assert!(retry_in >= Duration::from_millis(700), "{retry_in:?}");
    assert_eq!(told(&mut reader, 1).await, ["stopped 4501"]);
    assert!(begun.elapsed() >= retry_in);
}

/// Answers the handshake with an HTTP response.
async fn answer(listener: &TcpListener, status: &str, body: &str) {
    let (mut tcp, _) = listener.accept().await.unwrap();
    let mut request = [0; 2048];
    let _read = tcp.read(&mut request).await.unwrap();
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
    tcp.write_all(text.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_refused_handshake_ends_it_unless_that_passes() {
    let (url, _server) = server(|listener| async move {
        answer(&listener, "503 Service Unavailable", "").await;
        answer(&listener, "429 Too Many Requests", "").await;
        answer(
            &listener,
            "401 Unauthorized",
            r#"{"reason":"CREDENTIAL_EXPIRED"}"#,
        )
        .await;
        answer(&listener, "403 Forbidden", r#"{"reason":"SCOPE_MISSING"}"#).await;
    })
    .await;
    let tokens = Arc::new(AtomicUsize::new(0));
    let count = tokens.clone();
    let credential = Credential::renewed(move || count.fetch_add(1, Ordering::Relaxed).to_string());
    let mut reader = Reader::new(&url, credential, ReaderConfig::default()).unwrap();
    assert_eq!(
        told(&mut reader, 4).await,
        [
            "lost: answered with HTTP status 503",
            "lost: answered with HTTP status 429",
            "lost: answered with HTTP status 401",
            "stopped 403"
        ]
    );
    assert_eq!(tokens.load(Ordering::Relaxed), 4);
}

#[test]
fn an_expired_credential_is_final_without_another() {
    let expired = End::Closed(4003, String::new());
    assert!(stopped(&expired, false).is_some());
    assert!(stopped(&expired, true).is_none());
    let body = r#"{"reason":"CREDENTIAL_EXPIRED"}"#;
    assert!(stopped(&End::Refused(401, body.into()), false).is_some());
    assert!(stopped(&End::Refused(401, body.into()), true).is_none());
    assert!(stopped(&End::Refused(401, String::new()), true).is_some());
    for code in [1000, 1001, 1006, 1011, 4001, 4499, 5000] {
        assert!(stopped(&End::Closed(code, String::new()), false).is_none());
    }
}

#[test]
fn an_acknowledgement_is_due_from_a_named_reader_for_what_came_since_it_began() {
    let at = |offset: u64| format!("{E1}-{offset}").parse::<Position>().unwrap();
    let reader = |client_id: Option<&str>| {
        let config = ReaderConfig {
            start: Start::After(at(4)),
            client_id: client_id.map(str::to_owned),
            ..ReaderConfig::default()
        };
        Reader::new("http://127.0.0.1:1", Credential::fixed("tok"), config).unwrap()
    };
    let mut named = reader(Some("tab"));
    assert!(named.ack_due().is_none(), "it has not begun");
    named.acked.begin(named.seen.cursor());
    assert!(named.ack_due().is_none(), "nothing came");
    assert!(named.seen.admit(at(5), None));
    assert!(named.ack_due().is_some());
    named.acked.begin(named.seen.cursor());
    assert!(named.ack_due().is_some(), "it began before");

    let mut nameless = reader(None);
    nameless.acked.begin(nameless.seen.cursor());
    assert!(nameless.seen.admit(at(5), None));
    assert!(nameless.ack_due().is_none());
}
