//! What an emitted event costs.

use emitter::{
    access::Scope,
    client::{Credential, Producer, ProducerConfig},
};

use super::{
    Pair,
    load::Host,
    measured::{Measured, token},
};

/// How many calls are under way at once.
const CALLERS: usize = 8;

/// How many calls of one event make a turn, and how many events of batches.
const CALLS: usize = 16_000;
const EVENTS: usize = 100_000;

/// Agents that emit to both servers in turn, so many events a call.
pub(crate) struct Emitting<'a> {
    servers: [Turn<'a>; 2],
}

struct Turn<'a> {
    server: &'a Measured,
    producer: Producer,
    hosts: Vec<Host>,
    batch: usize,
}

impl<'a> Emitting<'a> {
    pub(crate) fn new(emitter: &'a Measured, bare: &'a Measured, batch: usize) -> Self {
        let turn = |server| Turn::new(server, batch);
        Self {
            servers: [turn(emitter), turn(bare)],
        }
    }
}

impl Pair for Emitting<'_> {
    async fn measure(&mut self) -> (f64, f64) {
        let [ours, theirs] = &mut self.servers;
        (ours.take().await, theirs.take().await)
    }
}

impl<'a> Turn<'a> {
    fn new(server: &'a Measured, batch: usize) -> Self {
        let url = format!("http://{}", server.address("grpc"));
        let credential = Credential::fixed(&token("agents", Scope::Emit));
        Self {
            server,
            producer: Producer::new(&url, credential, ProducerConfig::default()).unwrap(),
            // Other users than those of other rows: their runs are at other places.
            hosts: (0..CALLERS)
                .map(|host| Host::new(batch * CALLERS + host))
                .collect(),
            batch,
        }
    }

    /// The microseconds of the server's CPU per event.
    async fn take(&mut self) -> f64 {
        let events = if self.batch == 1 { CALLS } else { EVENTS };
        let (batch, calls) = (self.batch, events / self.batch / CALLERS);
        let before = self.server.cpu_seconds();
        let emitting = std::mem::take(&mut self.hosts).into_iter().map(|mut host| {
            let producer = self.producer.clone();
            tokio::spawn(async move {
                for _ in 0..calls {
                    emit(&producer, &mut host, batch).await;
                }
                host
            })
        });
        for emitted in emitting.collect::<Vec<_>>() {
            self.hosts.push(emitted.await.unwrap());
        }
        (self.server.cpu_seconds() - before) * 1e6 / (calls * CALLERS * batch) as f64
    }
}

async fn emit(producer: &Producer, host: &mut Host, batch: usize) {
    let mut events = host.batch(batch);
    let refused = if batch == 1 {
        producer.emit(events.remove(0)).await.err()
    } else {
        let fates = producer.emit_batch(events).await;
        fates.into_iter().find_map(Result::err)
    };
    assert!(refused.is_none(), "{refused:?}");
}
