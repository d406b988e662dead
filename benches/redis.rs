//! What an append to Redis costs, beside the bare building block in the same run: one function that adds an entry and
//! publishes it. 64 are under way at once, each of a stream of its own; Redis writes a log that it syncs once a second.
//! Needs Redis 7, as `make tools` installs it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use emitter::{
    clock::{Clock, Entropy},
    engine::{
        Commit, Engine,
        redis::{Config, RedisEngine, Url},
    },
    event::{
        Draft, Event, EventId, Kind, ProducerId, RunId, RunSequence, Source, StreamKey, Tenant,
        UserId,
    },
    telemetry::Metrics,
};
use redis::aio::MultiplexedConnection;

const UNDER_WAY: usize = 64;
const EACH: usize = 1_000;
const ROUNDS: usize = 5;
const BODY: usize = 300;

/// Ticks of the CPU times in `/proc` per second.
const TICKS: f64 = 100.0;

const BARE: &str = "#!lua name=bare
redis.register_function('bare', function(keys, args)
  redis.call('XADD', keys[1], '*', 'r', args[1])
  redis.call('SPUBLISH', keys[1], args[1])
  return 1
end)";

#[tokio::main]
async fn main() {
    // `cargo bench` asks for a list of tests, too.
    let redis = Redis::start();
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", redis.port)).unwrap();
    let connection = loop {
        if let Ok(connection) = client.get_multiplexed_async_connection().await {
            break connection;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let () = redis::cmd("FUNCTION")
        .arg("LOAD")
        .arg(BARE)
        .query_async(&mut connection.clone())
        .await
        .unwrap();
    let config = Config {
        urls: vec![Url::new(&format!("redis://127.0.0.1:{}", redis.port))],
        ..Config::default()
    };
    let metrics = Arc::new(Metrics::new().0);
    let engine = RedisEngine::new(config, Clock::system(), Entropy::system(), metrics);
    println!(
        "{UNDER_WAY} appends under way; a second, and µs of CPU per append: Redis, this process\n"
    );
    println!("| | appends/s | Redis | this process |\n|---|---|---|---|");
    for round in 0..ROUNDS {
        for (name, per) in [("append", 1), ("append of 10, per event", 10)] {
            let before = redis.used();
            let (took, ours) = (Instant::now(), used("self"));
            let streams = (0..UNDER_WAY).map(|n| {
                let engine = engine.clone();
                tokio::spawn(append(engine, format!("{name}-{round}-{n}"), per))
            });
            for done in streams.collect::<Vec<_>>() {
                done.await.unwrap();
            }
            row(
                name,
                EACH * per,
                took,
                redis.used() - before,
                used("self") - ours,
            );
        }
        let before = redis.used();
        let (took, ours) = (Instant::now(), used("self"));
        let streams = (0..UNDER_WAY)
            .map(|n| tokio::spawn(bare(connection.clone(), format!("bare-{round}-{n}"))));
        for done in streams.collect::<Vec<_>>() {
            done.await.unwrap();
        }
        row(
            "bare",
            EACH,
            took,
            redis.used() - before,
            used("self") - ours,
        );
    }
}

fn row(name: &str, each: usize, took: Instant, redis: f64, ours: f64) {
    let count = (UNDER_WAY * each) as f64;
    let per_second = count / took.elapsed().as_secs_f64();
    let micros = |seconds: f64| seconds / count * 1e6;
    let (redis, ours) = (micros(redis), micros(ours));
    println!("| {name} | {per_second:.0} | {redis:.1} | {ours:.1} |");
}

/// Appends the events of one run, `per` at a time.
async fn append(engine: Arc<RedisEngine>, user: String, per: usize) {
    let stream = StreamKey::new(Tenant::new("t").unwrap(), UserId::new(&user).unwrap());
    let mut state = engine.load(&stream).await.unwrap();
    for turn in 0..EACH {
        let draft = |n: usize| {
            let sequence = turn * per + n + 1;
            let kind = if sequence == 1 {
                Kind::AgentStarted
            } else {
                Kind::AgentThinking
            };
            let event = Event::new(
                EventId::new(&format!("019aab1c-{user}-{sequence}")).unwrap(),
                stream.clone(),
                RunId::new(&user).ok(),
                kind,
                Source::new(ProducerId::new("p").unwrap()),
                Bytes::from(vec![b'x'; BODY]),
            );
            Draft {
                run_sequence: RunSequence(sequence as u64),
                ..Draft::new(Arc::new(event), Clock::system().now())
            }
        };
        let drafts = (0..per).map(draft).collect();
        let appended = engine
            .append(&stream, &state, Commit { drafts })
            .await
            .unwrap();
        for record in &appended.records {
            state.apply(record);
        }
    }
}

async fn bare(mut connection: MultiplexedConnection, key: String) {
    let payload = vec![b'x'; BODY + 150];
    for _ in 0..EACH {
        let () = redis::cmd("FCALL")
            .arg("bare")
            .arg(1)
            .arg(&key)
            .arg(&payload)
            .query_async(&mut connection)
            .await
            .unwrap();
    }
}

struct Redis {
    process: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Redis {
    fn start() -> Self {
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/redis-server");
        let program = if installed.exists() {
            installed
        } else {
            "redis-server".into()
        };
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let directory = tempfile::tempdir().unwrap();
        let process = Command::new(program)
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ])
            .args(["--appendonly", "yes", "--appendfsync", "everysec", "--dir"])
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            process,
            port,
            _directory: directory,
        }
    }

    fn used(&self) -> f64 {
        used(&self.process.id().to_string())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _ended_already = self.process.wait();
    }
}

/// The CPU seconds that a process has used.
fn used(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The second field is a name in brackets, which may hold anything; utime and stime are the 14th and 15th.
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum::<f64>()
        / TICKS
}
