//! What things take: memory of a node for each reader and each event, the disk and the Redis memory of an event, and how
//! long a durable directory takes to start after a kill. Prints the table of `deploy/README.md`. Needs Redis 7, as
//! `make tools` installs it.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking; it shares its servers with others"
)]

mod load;
mod measured;
#[path = "engines/server.rs"]
mod server;

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Instant};

use emitter::{
    access::Scope,
    client::{Credential, Producer, ProducerConfig},
};
use futures_util::StreamExt;
use load::Host;
use measured::{Measured, token};
use prost::Message;
use server::Redis;
use tokio_tungstenite::{connect_async, tungstenite::client::IntoClientRequest};

/// How many readers are connected, each of a user of its own.
const READERS: usize = 2_000;

/// How many events are emitted, by so many producers of 12 users each.
const EVENTS: usize = 500_000;
const PRODUCERS: usize = 50;
const BATCH: usize = 100;

#[tokio::main]
async fn main() {
    println!("| what | takes |\n|---|---|");
    readers().await;
    in_memory().await;
    on_disk().await;
    in_redis().await;
}

async fn readers() {
    let many = READERS.to_string();
    let limits = [("EMITTER_LIMITS__CONNECTIONS_PER_ADDRESS", &*many)];
    let server = Measured::emitter(limits);
    let mut readers = vec![connect(&server, 0).await];
    let before = server.resident_bytes();
    for user in 1..READERS {
        readers.push(connect(&server, user).await);
    }
    let taken = server.resident_bytes() - before;
    let each = taken as f64 / (READERS - 1) as f64 / 1024.0;
    println!("| a WebSocket reader of a user of its own, idle | {each:.1} KiB of the node |");
}

async fn connect(server: &Measured, user: usize) -> impl Sized {
    let address = format!("ws://{}/v1/stream", server.address("http"));
    let mut request = address.into_client_request().unwrap();
    let bearer = format!(
        "Bearer {}",
        token(&format!("user-{user}"), Scope::Subscribe)
    );
    let headers = request.headers_mut();
    headers.insert("authorization", bearer.parse().unwrap());
    let (mut socket, _) = connect_async(request).await.unwrap();
    // The first frame says that the stream begins.
    socket.next().await.unwrap().unwrap();
    socket
}

async fn in_memory() {
    let server = Measured::emitter([]);
    let before = server.resident_bytes();
    let sent = emit(&server).await;
    let each = per_event((server.resident_bytes() - before) as f64);
    println!(
        "| an event of {:.0} bytes, memory engine | {each:.0} bytes of the node |",
        per_event(sent as f64)
    );
}

async fn on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [("EMITTER_DATA_DIR", directory.path().to_str().unwrap())];
    let server = Measured::emitter(settings);
    let before = server.resident_bytes();
    emit(&server).await;
    println!(
        "| the same, durable directory | {:.0} bytes of disk, {:.0} of the node |",
        per_event(allocated(directory.path()) as f64),
        per_event((server.resident_bytes() - before) as f64)
    );
    // Killed, not closed.
    drop(server);
    let began = Instant::now();
    let server = Measured::emitter(settings);
    println!(
        "| starting with these {EVENTS} events after a kill | {:.1} s, {:.1} s of CPU, {:.0} MiB of the node |",
        began.elapsed().as_secs_f64(),
        server.cpu_seconds(),
        server.resident_bytes() as f64 / f64::from(1 << 20)
    );
}

async fn in_redis() {
    let redis = Redis::start(&[]).await;
    let urls = format!("redis://127.0.0.1:{}", redis.port);
    let settings = [
        ("EMITTER_ENGINE__KIND", "redis"),
        ("EMITTER_REDIS__URLS", &*urls),
    ];
    let server = Measured::emitter(settings);
    let (before, theirs) = (server.resident_bytes(), redis.resident_bytes());
    emit(&server).await;
    println!(
        "| the same, Redis | {:.0} bytes of Redis, {:.0} of the node |",
        per_event((redis.resident_bytes() - theirs) as f64),
        per_event((server.resident_bytes() - before) as f64)
    );
}

/// Emits `EVENTS` events of about 600 users. Returns how many bytes they were on the wire.
async fn emit(server: &Measured) -> usize {
    let url = format!("http://{}", server.address("grpc"));
    let credential = Credential::fixed(&token("agents", Scope::Emit));
    let producer = Producer::new(&url, credential, ProducerConfig::default()).unwrap();
    let producers = (0..PRODUCERS).map(|number| {
        let producer = producer.clone();
        tokio::spawn(async move {
            let (mut host, mut bytes) = (Host::new(number), 0);
            for _ in 0..EVENTS / PRODUCERS / BATCH {
                let events = host.batch(BATCH);
                bytes += events.iter().map(Message::encoded_len).sum::<usize>();
                let fates = producer.emit_batch(events).await;
                let refused = fates.into_iter().find_map(Result::err);
                assert!(refused.is_none(), "{refused:?}");
            }
            bytes
        })
    });
    let producers: Vec<_> = producers.collect();
    let mut bytes = 0;
    for producer in producers {
        bytes += producer.await.unwrap();
    }
    bytes
}

fn per_event(of: f64) -> f64 {
    of / EVENTS as f64
}

/// How many bytes of disk a directory takes.
fn allocated(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(facts) if facts.is_dir() => allocated(&entry.path()),
        Ok(facts) => facts.blocks() * 512,
        // Compaction has taken it away.
        Err(_) => 0,
    });
    bytes.sum()
}
