//! Attack 3: frames that make a library log.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::bystander::Bystander;
use crate::processes::server::Server;

/// More than a release build reads in 3 seconds.
const ACKS: usize = 1_000_000;

/// What may be logged meanwhile, in bytes.
const LOGGED: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn ping_acks_that_answer_no_ping_fill_no_log() {
    const ACK: [u8; 17] = *b"\0\0\x08\x06\x01\0\0\0\0unasked!";
    const PING: [u8; 17] = *b"\0\0\x08\x06\0\0\0\0\0the end!";
    let server = Server::start("attacked", "").await;
    let bystander = Bystander::start(&server).await;
    let before = server.logged().len();
    let address = server.grpc.strip_prefix("http://").unwrap();
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    tcp.write_all(preface).await.unwrap();
    let acks = ACK.repeat(1000);
    for _ in 0..ACKS / 1000 {
        tcp.write_all(&acks).await.unwrap();
    }
    tcp.write_all(&PING).await.unwrap();
    // The answer to the ping comes once everything before it was read.
    let mut answers = Vec::new();
    while !answers.ends_with(b"the end!") {
        let read = tcp.read_buf(&mut answers).await.unwrap();
        assert!(read > 0, "the server closed the connection");
    }
    let logged = server.logged().len() - before;
    let seen = bystander.finish().await;
    println!("attack 3, {ACKS} PING acknowledgements: {logged} bytes logged; bystander {seen:?}");
    assert!(logged < LOGGED, "{logged} bytes logged");
}
