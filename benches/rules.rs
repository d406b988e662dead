//! What the rules of runs cost: life cycle, source, deadline and usage together add at most 10 % CPU per event to a
//! service that has none of them (`Mode::Bare`, which only exists for this).
//!
//! Two servers, each a process of its own, take the same batches of 100 events over gRPC in turn, and only their own
//! CPU counts. Fails if the median of the ratios is above `MOST`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]

mod load;
mod measured;
mod spread;

use std::{process::ExitCode, time::Duration};

use emitter::{
    access::Scope,
    client::{Credential, Producer, ProducerConfig},
};
use load::Host;
use measured::{Measured, token};
use spread::spread;
use tokio::time::timeout;

/// The most that the rules may cost: the CPU per event with them by that without them.
const MOST: f64 = 1.10;

/// How often the two are compared.
const PAIRS: usize = 12;

/// How often each has its turn within a pair: whatever else the machine does meets both alike.
const TURNS: usize = 10;

/// How many events a server takes in a turn.
const TURN: usize = 12_000;

/// How many events one call emits.
const BATCH: usize = 100;

/// How many processes emit, each one call at a time; they share a connection.
const HOSTS: usize = 4;

/// How long a turn may take.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> ExitCode {
    let mut bare = Server::start("bare");
    let mut rules = Server::start("enforce");
    compare(&mut bare, &mut rules).await;
    println!(
        "CPU per event, µs\n{:>10} {:>10} {:>8}",
        "bare", "rules", "ratio"
    );
    let mut ratios = Vec::new();
    for _ in 0..PAIRS {
        let (without, with) = compare(&mut bare, &mut rules).await;
        println!("{without:>10.2} {with:>10.2} {:>8.3}", with / without);
        ratios.push(with / without);
    }
    let (median, least, greatest) = spread(ratios);
    println!(
        "the rules cost {median:.3} in the median, {least:.3} to {greatest:.3}; at most {MOST}"
    );
    ExitCode::from(u8::from(median > MOST))
}

/// One pair: the microseconds of CPU per event of each.
async fn compare(bare: &mut Server, rules: &mut Server) -> (f64, f64) {
    let before = (bare.process.cpu_seconds(), rules.process.cpu_seconds());
    for _ in 0..TURNS {
        bare.take_turn().await;
        rules.take_turn().await;
    }
    let per_event = |seconds: f64| seconds * 1e6 / (TURNS * TURN) as f64;
    (
        per_event(bare.process.cpu_seconds() - before.0),
        per_event(rules.process.cpu_seconds() - before.1),
    )
}

/// A server, and who emits to it.
struct Server {
    process: Measured,
    producer: Producer,
    hosts: Vec<Host>,
}

impl Server {
    /// A server with the defaults but for the mode of runs.
    fn start(mode: &str) -> Self {
        let process = Measured::emitter([("EMITTER_RUNS__MODE", mode)]);
        let url = format!("http://{}", process.address("grpc"));
        let credential = Credential::fixed(&token("agents", Scope::Emit));
        Self {
            process,
            producer: Producer::new(&url, credential, ProducerConfig::default()).unwrap(),
            hosts: (0..HOSTS).map(Host::new).collect(),
        }
    }

    /// Has its hosts emit a turn's events.
    async fn take_turn(&mut self) {
        let emitting = std::mem::take(&mut self.hosts).into_iter().map(|mut host| {
            let producer = self.producer.clone();
            tokio::spawn(async move {
                for _ in 0..TURN / BATCH / HOSTS {
                    let fates = producer.emit_batch(host.batch(BATCH)).await;
                    let refused = fates.iter().find_map(|fate| fate.as_ref().err());
                    assert!(refused.is_none(), "{refused:?}");
                }
                host
            })
        });
        for emitted in emitting.collect::<Vec<_>>() {
            let host = timeout(PATIENCE, emitted).await.unwrap().unwrap();
            self.hosts.push(host);
        }
    }
}
