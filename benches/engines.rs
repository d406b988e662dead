//! What each engine and setting costs: the time until an event is acknowledged, with 8 callers that emit singly; events
//! per second and CPU per event with 64, who emit singly and in batches of 100. Prints the table that the README shows. Servers are processes of
//! their own; for Redis, its CPU stands beside the service's. Needs Redis 7, as `make tools` installs it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]

mod load;
mod measured;
#[path = "engines/server.rs"]
mod server;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use emitter::{
    access::Scope,
    client::{Credential, Producer, ProducerConfig},
};
use load::Host;
use measured::{Measured, token};
use server::Redis;

/// How many calls are under way at once: a few, and as many as a busy node has.
const FEW: usize = 8;
const MANY: usize = 64;

/// For how long each row is measured, after as long again to warm up.
const SPAN: Duration = Duration::from_secs(4);

/// So many callers that emit so many events a call, each after its last call was answered.
struct Load(usize, usize);

/// How many events of a user are retained: few, so that retention is at work and no store fills up.
const RETAINED: &str = "500";

/// What was measured of one server under one load.
struct Figures {
    p50: Duration,
    p99: Duration,
    per_second: f64,
    cpu: f64,
    store_cpu: f64,
}

#[tokio::main]
async fn main() {
    println!("{FEW} callers, then {MANY}, {} s each\n", SPAN.as_secs());
    println!(
        "| engine | ack p50 / p99, ms | events/s | CPU, µs | in batches of 100: events/s | CPU, µs |"
    );
    println!("|---|---|---|---|---|---|");
    row("memory", &[], None).await;
    for sync in ["group", "interval(200)", "os"] {
        let directory = tempfile::tempdir().unwrap();
        durable(&format!("durable, `{sync}`"), sync, directory.path()).await;
    }
    for (name, options) in [
        (
            "redis, AOF `everysec`",
            ["--appendonly", "yes", "--appendfsync", "everysec"],
        ),
        (
            "redis, AOF `always`",
            ["--appendonly", "yes", "--appendfsync", "always"],
        ),
    ] {
        let redis = Redis::start(&options).await;
        let urls = format!("redis://127.0.0.1:{}", redis.port);
        let settings = [
            ("EMITTER_ENGINE__KIND", "redis"),
            ("EMITTER_REDIS__URLS", &*urls),
        ];
        row(name, &settings, Some(&redis)).await;
    }
}

async fn durable(name: &str, sync: &str, directory: &Path) {
    let settings = [
        ("EMITTER_DATA_DIR", directory.to_str().unwrap()),
        ("EMITTER_ENGINE__SYNC", sync),
    ];
    row(name, &settings, None).await;
}

async fn row(name: &str, settings: &[(&str, &str)], redis: Option<&Redis>) {
    let retained = [("EMITTER_RETENTION__EVENTS", RETAINED)];
    let server = Measured::emitter(settings.iter().copied().chain(retained));
    let calm = measure(&server, redis, Load(FEW, 1)).await;
    let single = measure(&server, redis, Load(MANY, 1)).await;
    let batched = measure(&server, redis, Load(MANY, 100)).await;
    let millis = |span: Duration| span.as_secs_f64() * 1e3;
    let cpu = |figures: &Figures| match redis {
        Some(_) => format!("{:.1} + {:.1}", figures.cpu, figures.store_cpu),
        None => format!("{:.1}", figures.cpu),
    };
    println!(
        "| {name} | {:.1} / {:.1} | {:.0} | {} | {:.0} | {} |",
        millis(calm.p50),
        millis(calm.p99),
        single.per_second,
        cpu(&single),
        batched.per_second,
        cpu(&batched),
    );
}

/// What `load` comes to.
async fn measure(server: &Measured, redis: Option<&Redis>, load: Load) -> Figures {
    let Load(callers, batch) = load;
    let url = format!("http://{}", server.address("grpc"));
    let credential = Credential::fixed(&token("agents", Scope::Emit));
    let producer = Producer::new(&url, credential, ProducerConfig::default()).unwrap();
    let warm = Instant::now() + SPAN;
    let until = warm + SPAN;
    let callers = (0..callers).map(|caller| {
        let producer = producer.clone();
        tokio::spawn(async move {
            // Other users than those of the other loads.
            let mut host = Host::new(1_000 * (callers + batch) + caller);
            let mut took = Vec::new();
            while Instant::now() < until {
                let mut events = host.batch(batch);
                let asked = Instant::now();
                let refused = match batch {
                    1 => producer.emit(events.remove(0)).await.err(),
                    _ => {
                        let fates = producer.emit_batch(events).await;
                        fates.into_iter().find_map(Result::err)
                    }
                };
                assert!(refused.is_none(), "{refused:?}");
                if asked >= warm {
                    took.push(asked.elapsed());
                }
            }
            took
        })
    });
    let callers: Vec<_> = callers.collect();
    tokio::time::sleep_until(warm.into()).await;
    let store = |redis: Option<&Redis>| redis.map_or(0.0, Redis::cpu_seconds);
    let (ours, theirs) = (server.cpu_seconds(), store(redis));
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await.unwrap());
    }
    took.sort_unstable();
    let events = (took.len() * batch) as f64;
    Figures {
        p50: took[took.len() / 2],
        p99: took[took.len() * 99 / 100],
        per_second: events / SPAN.as_secs_f64(),
        cpu: (server.cpu_seconds() - ours) * 1e6 / events,
        store_cpu: (store(redis) - theirs) * 1e6 / events,
    }
}
