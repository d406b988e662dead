//! A way to a server that stalls, is cut, and loses messages.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// What the proxy does with what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It passes on.
    Open,
    /// Nothing passes, and nothing ends: it is passed on later.
    Stalled,
    /// Every connection is ended, and none is taken.
    Cut,
}

/// Decides for each message that Redis publishes to a subscriber whether it is passed on.
pub(crate) type Filter = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// A TCP proxy on a port of its own, ended when dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    way: watch::Sender<Way>,
    passed: Arc<AtomicU64>,
    target: watch::Sender<String>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// To `target`, such as `127.0.0.1:6379`.
    pub(crate) async fn to(target: &str) -> Self {
        Self::filtered(target, None).await
    }

    /// The same, to Redis: published messages that `filter` refuses are left out.
    pub(crate) async fn without_pushes(target: &str, filter: Filter) -> Self {
        Self::filtered(target, Some(filter)).await
    }

    async fn filtered(target: &str, filter: Option<Filter>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, watched) = watch::channel(Way::Open);
        let passed = Arc::<AtomicU64>::default();
        let (target, targets) = watch::channel(target.to_owned());
        let accept = accept(listener, targets, watched, filter, passed.clone());
        Self {
            address,
            way,
            passed,
            target,
            task: tokio::spawn(accept),
        }
    }

    /// From now on.
    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// To another server from now on: every connection is ended, and new ones lead there.
    pub(crate) async fn lead_to(&self, target: &str) {
        self.target.send_replace(target.to_owned());
        self.set(Way::Cut);
        // Every connection notices.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.set(Way::Open);
    }

    /// How many bytes passed, both ways.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.way.send_replace(Way::Cut);
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    target: watch::Receiver<String>,
    way: watch::Receiver<Way>,
    filter: Option<Filter>,
    passed: Arc<AtomicU64>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        if *way.borrow() == Way::Cut {
            continue;
        }
        let (target, way, filter, passed) = (
            target.borrow().clone(),
            way.clone(),
            filter.clone(),
            passed.clone(),
        );
        tokio::spawn(async move {
            let mut cut = way.clone();
            tokio::select! {
                () = connect(client, &target, way, filter, passed) => {}
                // An error: the proxy is gone.
                _ = cut.wait_for(|way| *way == Way::Cut) => {}
            }
        });
    }
}

async fn connect(
    client: TcpStream,
    target: &str,
    way: watch::Receiver<Way>,
    filter: Option<Filter>,
    passed: Arc<AtomicU64>,
) {
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let _only_slower = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pass(from_client, to_server, way.clone(), None, passed.clone()) => {}
        () = pass(from_server, to_client, way, filter, passed) => {}
    }
}

/// Passes on what comes, until one side ends.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    filter: Option<Filter>,
    passed: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut waiting = Vec::new();
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let length_of = &buffer[..length];
        if way.wait_for(|way| *way == Way::Open).await.is_err() {
            return;
        }
        let sent = match &filter {
            None => to.write_all(length_of).await,
            Some(filter) => {
                waiting.extend_from_slice(length_of);
                let kept = resp::kept(&mut waiting, filter.as_ref());
                to.write_all(&kept).await
            }
        };
        passed.fetch_add(length as u64, Ordering::Relaxed);
        if sent.is_err() {
            return;
        }
    }
}

/// Just enough of Redis's protocol to see where a message ends.
mod resp {
    /// Takes the whole messages out of `waiting`, and leaves out the published ones that `filter` refuses.
    pub(super) fn kept(waiting: &mut Vec<u8>, filter: &dyn Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut kept = Vec::new();
        let mut at = 0;
        while let Some(length) = length(&waiting[at..]) {
            let message = &waiting[at..at + length];
            if !is_published(message) || filter(message) {
                kept.extend_from_slice(message);
            }
            at += length;
        }
        waiting.drain(..at);
        kept
    }

    /// Whether it is a published message: a push (RESP3) or an array (RESP2) whose first element says so.
    fn is_published(message: &[u8]) -> bool {
        let mut lines = message.split(|byte| *byte == b'\n');
        let kind = lines.next().and_then(|line| line.first());
        let words: [&[u8]; 3] = [b"message\r", b"pmessage\r", b"smessage\r"];
        matches!(kind, Some(b'>' | b'*')) && lines.nth(1).is_some_and(|word| words.contains(&word))
    }

    /// The length of the message that `bytes` begin with, if it is whole.
    pub(super) fn length(bytes: &[u8]) -> Option<usize> {
        let line = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
        let number = || {
            let digits = std::str::from_utf8(&bytes[1..line - 2]).ok()?;
            digits.parse::<i64>().ok()
        };
        let elements = match bytes[0] {
            b'$' | b'=' | b'!' => {
                let Ok(body) = usize::try_from(number()?) else {
                    return Some(line);
                };
                let whole = line + body + 2;
                return (bytes.len() >= whole).then_some(whole);
            }
            b'*' | b'>' | b'~' => number()?.max(0),
            b'%' | b'|' => number()? * 2,
            _ => return Some(line),
        };
        let mut at = line;
        for _ in 0..elements {
            at += length(bytes.get(at..).filter(|rest| !rest.is_empty())?)?;
        }
        Some(at)
    }
}

/// Drops those that `choose` says of, by their count from 1, and counts what it dropped.
pub(crate) fn dropping(
    dropped: Arc<Mutex<u64>>,
    choose: impl Fn(u64) -> bool + Send + Sync + 'static,
) -> Filter {
    let seen = AtomicU64::new(0);
    Arc::new(move |_: &[u8]| {
        let drop = choose(seen.fetch_add(1, Ordering::Relaxed) + 1);
        *dropped.lock().unwrap() += u64::from(drop);
        !drop
    })
}

#[test]
fn messages_of_redis_are_taken_apart() {
    let whole: [&[u8]; 7] = [
        b"+OK\r\n",
        b"$-1\r\n",
        b"$4\r\na\r\nb\r\n",
        b"*2\r\n:1\r\n*1\r\n$0\r\n\r\n",
        b">3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$1\r\nx\r\n",
        b"%1\r\n+a\r\n_\r\n",
        b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n",
    ];
    for message in whole {
        assert_eq!(resp::length(message), Some(message.len()));
        for end in 0..message.len() {
            assert_eq!(resp::length(&message[..end]), None, "{message:?} to {end}");
        }
    }
    let mut waiting = whole.concat();
    waiting.extend_from_slice(b"+O");
    let kept = resp::kept(&mut waiting, &|_| false);
    let rest = [&whole[..4], &whole[5..6]].concat().concat();
    assert_eq!((kept, waiting), (rest, b"+O".to_vec()));
}
