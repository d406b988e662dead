//! HTTP/1.1 by hand: what a test sends is what it says.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::wire::PATIENCE;

/// The status and body that `GET path` is answered with.
pub(super) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let answer = exchange(address, request.as_bytes()).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (
        status.unwrap_or_else(|| panic!("no status in {head:?}")),
        body.to_owned(),
    )
}

/// Everything that comes back for `bytes` until the server closes.
pub(super) async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may close before it has read all.
        let _closed = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).await;
        answer
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .expect("the server did not close")
}
