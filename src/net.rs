//! Listeners: what every port of the service has in common.
//!
//! A [`Door`] counts the connections of the node and of each peer address, whatever listener they came by. A [`Conn`]
//! holds one of its places until it is dropped, counts its peer's signs of life, and fails when the peer connects but
//! says nothing.

mod descriptors;
mod host;

use std::{
    collections::{HashMap, hash_map},
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::Router;
use futures_util::{Stream, stream};
use http::Request;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, Sleep},
};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tower::ServiceExt as _;

pub use descriptors::{ADMIN_CONNECTIONS, Descriptors};

use crate::{
    shutdown::{Drain, Phase},
    telemetry::Metrics,
};

/// Bounds of what comes in by the listeners.
#[derive(Clone, Debug)]
pub struct Config {
    /// The most connections of the node.
    pub connections: usize,
    /// The most connections of one peer address.
    pub connections_per_address: usize,
    /// What the kernel is asked to buffer for a peer that reads slowly, in bytes (`SO_SNDBUF`).
    pub send_buffer: usize,
    /// How long a peer may take to send the first bytes of a connection, or the head of an HTTP request.
    pub handshake: Duration,
    /// The largest head of an HTTP request, in bytes; at least 8 KiB.
    pub head_bytes: usize,
    /// How long a peer may acknowledge nothing of what it was sent, or make no room for more, until its connection
    /// counts as dead (`TCP_USER_TIMEOUT`, where the system has it).
    pub unacknowledged: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections: 100_000,
            connections_per_address: 1_000,
            send_buffer: 256 * 1024,
            handshake: Duration::from_secs(10),
            head_bytes: 16 * 1024,
            unacknowledged: Duration::from_secs(50),
        }
    }
}

/// The least that the HTTP server can be told to read a head into.
const HEAD_BYTES_LEAST: usize = 8 * 1024;

/// Counts the connections of the node. One door serves all listeners that share its bounds.
pub struct Door {
    config: Config,
    metrics: Arc<Metrics>,
    places: Mutex<Places>,
}

/// How many places are taken. No address stands with zero, so the map is no larger than `total`.
#[derive(Default)]
struct Places {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Door {
    /// A door with all places free.
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            config,
            metrics,
            places: Mutex::default(),
        })
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.places.lock().total
    }

    /// A place for a connection from `peer`; `None`: there are too many.
    fn enter(self: &Arc<Self>, peer: SocketAddr) -> Option<Place> {
        // The same peer over IPv4 and over IPv4 in IPv6 is one address.
        let address = peer.ip().to_canonical();
        let mut places = self.places.lock();
        let of_address = places.by_address.get(&address).copied().unwrap_or(0);
        if places.total >= self.config.connections
            || of_address >= self.config.connections_per_address
        {
            return None;
        }
        places.total += 1;
        places.by_address.insert(address, of_address + 1);
        Some(Place {
            door: self.clone(),
            address,
        })
    }
}

/// One taken place; dropping it gives it back.
struct Place {
    door: Arc<Door>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.door.places.lock();
        places.total = places.total.saturating_sub(1);
        if let hash_map::Entry::Occupied(mut taken) = places.by_address.entry(self.address) {
            *taken.get_mut() = taken.get().saturating_sub(1);
            if *taken.get() == 0 {
                taken.remove();
            }
        }
    }
}

/// A bound port with its door.
pub struct Listener {
    tcp: TcpListener,
    door: Arc<Door>,
}

/// How long to wait after an accept that failed for want of something, such as file descriptors.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

impl Listener {
    /// A listener on the bound port `tcp`.
    pub fn new(tcp: TcpListener, door: Arc<Door>) -> Self {
        Self { tcp, door }
    }

    /// The bound address.
    ///
    /// # Errors
    /// When the system cannot tell it.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next connection that there is a place for. Those over the bounds are closed at once; errors are waited
    /// out. Cancel-safe.
    pub async fn accept(&self) -> Conn {
        let mut pause = PAUSE.0;
        loop {
            let error = match self.tcp.accept().await {
                Ok((tcp, peer)) => match self.admit(tcp, peer) {
                    Some(conn) => return conn,
                    None => continue,
                },
                Err(error) => error,
            };
            // These are of the one connection that was to be accepted.
            if !matches!(
                error.kind(),
                io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::Interrupted
            ) {
                tracing::warn!(?error, "cannot accept a connection");
                tokio::time::sleep(pause).await;
                pause = PAUSE.1.min(pause * 2);
            }
        }
    }

    fn admit(&self, tcp: TcpStream, peer: SocketAddr) -> Option<Conn> {
        let Some(place) = self.door.enter(peer) else {
            self.door.metrics.connections_refused.increment(1);
            return None;
        };
        let config = &self.door.config;
        if let Err(error) = tune(&tcp, config) {
            tracing::debug!(?error, "a connection was gone before it was set up");
            return None;
        }
        Some(Conn::new(tcp, place, config.handshake))
    }

    /// All connections, for ever, as a gRPC server takes them.
    pub fn incoming(self) -> impl Stream<Item = io::Result<Conn>> + Send + 'static {
        stream::unfold(self, |listener| async {
            let conn = listener.accept().await;
            Some((Ok(conn), listener))
        })
    }
}

fn tune(tcp: &TcpStream, config: &Config) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = socket2::SockRef::from(tcp);
    socket.set_send_buffer_size(config.send_buffer)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(config.unacknowledged))?;
    Ok(())
}

/// How a connection moves. Shared with whoever must notice that it stopped.
#[derive(Debug)]
pub struct Activity {
    opened: Instant,
    /// Milliseconds from `opened` to the last write that the kernel took.
    written: AtomicU64,
    /// How many signs of life the peer has given.
    heard: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self {
            opened: Instant::now(),
            written: AtomicU64::new(0),
            heard: AtomicU64::new(0),
        }
    }

    /// How long ago the kernel last took bytes for the peer.
    pub fn since_written(&self) -> Duration {
        let written = Duration::from_millis(self.written.load(Ordering::Relaxed));
        self.opened.elapsed().saturating_sub(written)
    }

    /// How many signs of life the peer has given so far: bytes from it, or room made by its acknowledgements in a send
    /// buffer that was full. It changes with each, and wraps.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Waits until a write that began at `begun` has made no progress for `stall`.
    pub async fn stalled(&self, begun: Instant, stall: Duration) {
        loop {
            let still = self.since_written().min(begun.elapsed());
            if still >= stall {
                return;
            }
            tokio::time::sleep(stall - still).await;
        }
    }

    fn mark_written(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.written.store(now, Ordering::Relaxed);
    }

    fn mark_heard(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection that holds a place at the door. Reads fail with `TimedOut` while the first bytes are overdue.
pub struct Conn {
    tcp: TcpStream,
    opening: Option<Opening>,
    activity: Arc<Activity>,
    /// The kernel's send buffer was full at the last write.
    blocked: bool,
    _place: Place,
}

/// How many bytes a peer must send within the handshake's time: all of the HTTP/2 preface, for which the gRPC server
/// would wait without end. An HTTP request's head has a bound of its own.
const FIRST_BYTES: usize = 24;

/// The time before the first bytes have come.
struct Opening {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Conn {
    fn new(tcp: TcpStream, place: Place, handshake: Duration) -> Self {
        Self {
            tcp,
            opening: Some(Opening {
                missing: FIRST_BYTES,
                deadline: Box::pin(tokio::time::sleep(handshake)),
            }),
            activity: Arc::new(Activity::new()),
            blocked: false,
            _place: place,
        }
    }

    /// How this connection moves.
    pub fn activity(&self) -> Arc<Activity> {
        self.activity.clone()
    }

    /// Takes note of what a write did.
    fn wrote(&mut self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Pending => self.blocked = true,
            Poll::Ready(Ok(taken)) if *taken > 0 => {
                self.activity.mark_written();
                if std::mem::take(&mut self.blocked) {
                    self.activity.mark_heard();
                }
            }
            Poll::Ready(_) => {}
        }
    }
}

impl Connected for Conn {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.tcp.connect_info()
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.tcp).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            this.activity.mark_heard();
        }
        let Some(opening) = &mut this.opening else {
            return polled;
        };
        opening.missing = opening.missing.saturating_sub(read);
        if opening.missing == 0 {
            this.opening = None;
        } else if polled.is_pending() {
            ready!(opening.deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.tcp).poll_write(cx, buf);
        this.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.tcp).poll_write_vectored(cx, bufs);
        this.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

/// Serves `router` over HTTP/1.1 with upgrades, until the drain has stopped; then requests under way may finish
/// within the handshake's time. Each request has its connection's `Arc<Activity>` as an extension. An upgraded
/// connection's IO is a `TokioIo<Conn>`, and no longer this function's.
pub async fn serve_http(listener: Listener, router: Router, drain: Drain) {
    let config = listener.door.config.clone();
    let mut open = JoinSet::new();
    let mut stopped = pin!(drain.reached(Phase::Stopped));
    loop {
        tokio::select! {
            biased;
            () = &mut stopped => break,
            Some(_) = open.join_next() => {}
            conn = listener.accept() => {
                open.spawn(serve_connection(conn, router.clone(), config.clone(), drain.clone()));
            }
        }
    }
    drop(listener);
    let ended = async { while open.join_next().await.is_some() {} };
    let _rest_is_aborted = tokio::time::timeout(config.handshake, ended).await;
}

async fn serve_connection(conn: Conn, router: Router, config: Config, drain: Drain) {
    let activity = conn.activity();
    let service = tower::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(activity.clone());
        let router = router.clone();
        async move {
            match host::refusal(&request) {
                Some(refusal) => Ok(refusal),
                None => router.oneshot(request).await,
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.handshake)
        .max_buf_size(config.head_bytes.max(HEAD_BYTES_LEAST))
        .serve_connection(TokioIo::new(conn), TowerToHyperService::new(service))
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.reached(Phase::Stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(?error, "an HTTP connection ended");
    }
}

#[cfg(test)]
mod tests;
