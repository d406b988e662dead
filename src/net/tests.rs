use axum::routing::get;
use futures_util::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};

use super::*;
use crate::shutdown::Shutdown;

/// How long anything may take that is expected to happen.
const PATIENCE: Duration = Duration::from_secs(60);

fn door(config: Config) -> Arc<Door> {
    Door::new(config, Arc::new(Metrics::new().0))
}

async fn listener(config: Config) -> (Listener, SocketAddr) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = Listener::new(tcp, door(config));
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn pair(config: Config) -> (Conn, TcpStream) {
    let (listener, address) = listener(config).await;
    let (conn, client) = tokio::join!(listener.accept(), TcpStream::connect(address));
    (conn, client.unwrap())
}

#[test]
fn places_are_bounded_per_node_and_address_and_given_back() {
    let door = door(Config {
        connections: 3,
        connections_per_address: 2,
        ..Config::default()
    });
    let peer = |address: &str| SocketAddr::new(address.parse().unwrap(), 1);
    let first = door.enter(peer("10.0.0.1")).unwrap();
    let second = door.enter(peer("::ffff:10.0.0.1")).unwrap();
    assert!(door.enter(peer("10.0.0.1")).is_none());
    let third = door.enter(peer("10.0.0.2")).unwrap();
    assert!(door.enter(peer("10.0.0.3")).is_none());
    assert_eq!(door.open(), 3);
    drop(first);
    let again = door.enter(peer("10.0.0.1")).unwrap();
    drop((second, third, again));
    assert_eq!(door.open(), 0);
    assert!(door.places.lock().by_address.is_empty());
}

#[tokio::test]
async fn a_connection_over_the_bounds_is_closed_and_the_place_comes_back() {
    let config = Config {
        connections_per_address: 1,
        ..Config::default()
    };
    let (listener, address) = listener(config).await;
    let door = listener.door.clone();
    let mut conns = Box::pin(listener.incoming());
    let _client = TcpStream::connect(address).await.unwrap();
    let first = conns.next().await.unwrap().unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    let mut nothing = [0; 1];
    // The next accept closes the second; nothing is accepted until the first is gone.
    tokio::select! {
        _ = conns.next() => panic!("there was no place"),
        read = second.read(&mut nothing) => assert_eq!(read.unwrap_or(0), 0),
    }
    drop(first);
    let third = TcpStream::connect(address).await.unwrap();
    let conn = conns.next().await.unwrap().unwrap();
    assert_eq!(door.open(), 1);
    drop((conn, third));
    assert_eq!(door.open(), 0);
}

#[tokio::test]
async fn a_silent_or_dripping_peer_is_given_up() {
    for said in ["", "GET /"] {
        let (mut conn, mut client) = pair(Config::default()).await;
        client.write_all(said.as_bytes()).await.unwrap();
        let mut heard = vec![0; said.len()];
        conn.read_exact(&mut heard).await.unwrap();
        let opening = conn.opening.as_mut().expect("more has to come");
        opening.deadline.as_mut().reset(Instant::now());
        let error = conn.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_bytes_have_the_time_of_the_handshake() {
    let begun = Instant::now();
    let (mut conn, _client) = pair(Config::default()).await;
    let error = conn.read(&mut [0; 64]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let (took, bound) = (begun.elapsed(), Config::default().handshake);
    assert!(took >= bound && took < bound * 2, "{took:?}");
}

#[tokio::test]
async fn a_peer_that_said_enough_may_be_silent() {
    let (mut conn, mut client) = pair(Config::default()).await;
    client.write_all(&[b'x'; FIRST_BYTES]).await.unwrap();
    conn.read_exact(&mut [0; FIRST_BYTES]).await.unwrap();
    assert!(conn.opening.is_none(), "there is still a deadline");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_goes_on_slowly_is_not_stalled() {
    const STALL: Duration = Duration::from_secs(30);
    let activity = Activity::new();
    // Nothing was written for longer than that, but nothing was to be.
    tokio::time::sleep(STALL * 2).await;
    let mut stalled = pin!(activity.stalled(Instant::now(), STALL));
    for _ in 0..10 {
        let moves = tokio::time::sleep(STALL - Duration::from_secs(1));
        tokio::select! {
            biased;
            () = moves => activity.mark_written(),
            () = &mut stalled => panic!("it is taken for stalled"),
        }
    }
    let last = Instant::now();
    stalled.await;
    let took = last.elapsed();
    assert!(took >= STALL && took < STALL * 2, "{took:?}");
}

#[tokio::test]
async fn activity_tells_a_stalled_write_from_one_that_moves() {
    let (mut conn, mut client) = pair(Config::default()).await;
    let activity = conn.activity();
    let block = [0; 64 * 1024];
    // Writes until the kernel takes no more.
    let pause = Duration::from_millis(100);
    while tokio::time::timeout(pause, conn.write(&block))
        .await
        .is_ok()
    {}
    tokio::time::sleep(pause).await;
    assert!(activity.since_written() >= pause);
    let (heard, begun) = (activity.heard(), Instant::now());
    let reader = tokio::spawn(async move {
        let mut sink = vec![0; 1 << 20];
        while client.read(&mut sink).await.is_ok_and(|read| read > 0) {}
    });
    conn.write_all(&block).await.unwrap();
    // It is told in whole milliseconds.
    let since_written = activity.since_written();
    let since_begun = begun.elapsed() + Duration::from_millis(1);
    assert!(since_written < since_begun, "{since_written:?}");
    // Room in a buffer that was full is a sign of life.
    assert!(activity.heard() > heard);
    drop(conn);
    reader.await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_peer_that_makes_no_room_is_given_up_by_the_system() {
    let config = Config {
        unacknowledged: Duration::from_millis(300),
        ..Config::default()
    };
    let (mut conn, client) = pair(config).await;
    let block = [0; 64 * 1024];
    let given_up = async {
        loop {
            if let Err(error) = conn.write_all(&block).await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(PATIENCE, given_up).await;
    assert_eq!(error.unwrap().kind(), io::ErrorKind::TimedOut);
    drop(client);
}

/// Sends `request` over a connection of its own and returns all that comes back.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _reset_is_an_end_too = client.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Serves `/x` until the shutdown, and hands back what serves it, and where.
async fn serving(config: Config, shutdown: &Shutdown) -> (JoinHandle<()>, SocketAddr) {
    let (listener, address) = listener(config).await;
    let router = Router::new().route("/x", get(async || "hello"));
    let served = tokio::spawn(serve_http(listener, router, shutdown.drain()));
    (served, address)
}

#[tokio::test]
async fn http_is_served_within_bounds_until_the_drain_has_stopped() {
    let shutdown = Shutdown::new(Duration::from_secs(1));
    let (served, address) = serving(Config::default(), &shutdown).await;
    let request = b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = exchange(address, request).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"),
        "{answer}"
    );

    let long = format!("GET /x HTTP/1.1\r\nlong: {}\r\n\r\n", "x".repeat(20_000));
    let answer = exchange(address, long.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");

    shutdown.advance(Phase::Draining);
    assert!(exchange(address, request).await.starts_with("HTTP/1.1 200"));
    shutdown.advance(Phase::Stopped);
    tokio::time::timeout(PATIENCE, served)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

/// A head that never ends is given up, as is a peer that says nothing.
#[tokio::test]
async fn http_waits_for_no_head_for_ever() {
    let config = Config {
        handshake: Duration::from_millis(300),
        ..Config::default()
    };
    let shutdown = Shutdown::new(Duration::from_secs(1));
    let (_served, address) = serving(config, &shutdown).await;
    for slow in [&b"GET /x HTTP/1.1\r\nhost: x\r\n"[..], b""] {
        let answer = tokio::time::timeout(PATIENCE, exchange(address, slow)).await;
        assert!(!answer.unwrap().contains("200"));
    }
}
