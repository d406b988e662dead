//! Two hundred users, a thousand runs, eight producers, and readers that drop and resume at random: every reader gets
//! exactly its user's receipts, in their order.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use emitter::proto::v1::{
    self, StartFrom, SubscribeRequest, emit_result::Outcome, event::Payload,
    event_subscriber_client::EventSubscriberClient, subscribe_request::Start,
    subscribe_response::Item,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::{sync::Mutex, task::JoinSet};

use super::{
    server::Server,
    wire::{self, Came, PATIENCE, Socket},
};

const USERS: usize = 200;
const RUNS: usize = 5;
const EVENTS: usize = 40;
const PRODUCERS: usize = 8;

/// How often each reader drops its connection in mid-stream.
const DROPS: usize = 5;

/// What a reader or a receipt says of an event.
type Seen = (String, u64, u64);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_gets_its_users_receipts_in_order_whatever_it_drops() {
    let seed = crate::support::seed::seed();
    let server = Server::start().await;
    let receipts = Arc::new(Mutex::new(HashMap::<String, Vec<Seen>>::new()));

    let mut readers = JoinSet::new();
    for user in 0..USERS {
        let (name, seed) = (format!("user-{user}"), seed ^ user as u64);
        let token = server.token(&name, "subscribe");
        let (http, grpc) = (server.http, server.grpc);
        readers.spawn(async move {
            let mut reader = Reader::new(seed);
            if user % 2 == 0 {
                reader.over_websocket(http, &token).await;
            } else {
                reader.over_grpc(grpc, &token).await;
            }
            (name, reader)
        });
    }

    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        let receipts = receipts.clone();
        let token = server.token("agents", "emit");
        let grpc = server.grpc;
        producers.spawn(async move { produce(producer, seed, grpc, &token, &receipts).await });
    }
    while let Some(done) = producers.join_next().await {
        done.unwrap();
    }

    let mut receipts = std::mem::take(&mut *receipts.lock().await);
    for of_user in receipts.values_mut() {
        of_user.sort_by_key(|(_, offset, _)| *offset);
    }
    let mut dropped = 0;
    while let Some(read) = readers.join_next().await {
        let (user, reader) = read.unwrap();
        assert_eq!(reader.seen, receipts[&user], "{user}, seed {seed}");
        assert!(
            reader.drops >= DROPS,
            "{user} dropped {} times",
            reader.drops
        );
        dropped += reader.drops;
    }
    assert_eq!(receipts.len(), USERS);
    println!(
        "{} events, {dropped} drops in mid-stream",
        USERS * RUNS * EVENTS
    );
    server.stop().await;
}

/// Emits a share of all runs: single calls and batches, retries of what was stored, runs of many users interleaved.
async fn produce(
    producer: usize,
    seed: u64,
    grpc: SocketAddr,
    token: &str,
    receipts: &Mutex<HashMap<String, Vec<Seen>>>,
) {
    let mut rng = StdRng::seed_from_u64(seed ^ (producer as u64) << 32);
    let mut client = wire::emitter(grpc).await;
    let mut runs: Vec<(String, String, usize)> = (0..USERS * RUNS)
        .filter(|n| n % PRODUCERS == producer)
        .map(|n| (format!("user-{}", n / RUNS), format!("run-{n}"), 0))
        .collect();
    runs.shuffle(&mut rng);
    while !runs.is_empty() {
        let mut batch = Vec::new();
        for (user, run, sent) in runs.iter_mut().take(rng.random_range(1..6)) {
            let more = rng.random_range(1..=8).min(EVENTS - *sent);
            for n in *sent..*sent + more {
                let id = format!("{run}-{n}");
                let payload = match n {
                    0 => Payload::AgentStarted(v1::AgentStarted::default()),
                    n if n + 1 == EVENTS => Payload::AgentCompleted(v1::AgentCompleted::default()),
                    _ => wire::thinking(&id),
                };
                batch.push(wire::event(user, run, &id, payload));
            }
            *sent += more;
        }
        let stored = if batch.len() == 1 {
            vec![emit(&mut client, token, &batch[0]).await]
        } else {
            emit_batch(&mut client, token, &batch).await
        };
        if rng.random_bool(0.1) {
            let again = emit_batch(&mut client, token, &batch).await;
            for (first, again) in stored.iter().zip(&again) {
                let want = v1::Receipt {
                    duplicate: true,
                    ..first.clone()
                };
                assert_eq!(*again, want, "seed {seed}");
            }
        }
        let mut all = receipts.lock().await;
        for (event, receipt) in batch.iter().zip(stored) {
            let offset = receipt.position.unwrap().offset;
            let seen = (receipt.event_id, offset, receipt.run_sequence);
            all.entry(event.user_id.clone()).or_default().push(seen);
        }
        drop(all);
        runs.retain(|(_, _, sent)| *sent < EVENTS);
        runs.shuffle(&mut rng);
    }
}

type Client = v1::event_emitter_client::EventEmitterClient<tonic::transport::Channel>;

async fn emit(client: &mut Client, token: &str, event: &v1::Event) -> v1::Receipt {
    let request = v1::EmitRequest {
        event: Some(event.clone()),
    };
    let response = client.emit(wire::with_token(token, request)).await;
    response.unwrap().into_inner().receipt.unwrap()
}

async fn emit_batch(client: &mut Client, token: &str, events: &[v1::Event]) -> Vec<v1::Receipt> {
    let request = v1::EmitBatchRequest {
        events: events.to_vec(),
    };
    let response = client.emit_batch(wire::with_token(token, request)).await;
    let results = response.unwrap().into_inner().results;
    let receipt = |result: v1::EmitResult| match result.outcome {
        Some(Outcome::Receipt(receipt)) => receipt,
        other => panic!("not stored: {other:?}"),
    };
    results.into_iter().map(receipt).collect()
}

/// A reader of one user that drops its connection at random until it has everything.
struct Reader {
    rng: StdRng,
    seen: Vec<Seen>,
    position: Option<(String, u64)>,
    drops: usize,
}

impl Reader {
    fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            seen: Vec::new(),
            position: None,
            drops: 0,
        }
    }

    fn is_done(&self) -> bool {
        self.seen.len() >= RUNS * EVENTS
    }

    /// Up to where to read before the next drop: it drops early enough to do so `DROPS` times.
    fn until(&mut self) -> usize {
        let left = RUNS * EVENTS - self.seen.len();
        if self.drops >= DROPS {
            return usize::MAX;
        }
        self.seen.len() + self.rng.random_range(1..=(left / 2).clamp(1, 40))
    }

    fn take(&mut self, id: String, epoch: String, offset: u64, run_sequence: u64) {
        self.seen.push((id, offset, run_sequence));
        self.position = Some((epoch, offset));
    }

    async fn over_websocket(&mut self, http: SocketAddr, token: &str) {
        while !self.is_done() {
            let query = match &self.position {
                None => "from=oldest".to_owned(),
                Some((epoch, offset)) => format!("after={epoch}-{offset}"),
            };
            let until = self.until();
            let mut socket = Socket::connect(http, token, &query).await;
            while !self.is_done() && self.seen.len() < until {
                let frame = match socket.next().await {
                    Came::Frame(frame) => frame,
                    other => panic!("{other:?} after {} events", self.seen.len()),
                };
                assert_ne!(frame["type"], "connection_gap", "{frame}");
                if !wire::is_control(&frame) {
                    let text = |key: &str| frame[key].as_str().unwrap().to_owned();
                    let number = |key: &str| frame[key].as_u64().unwrap();
                    let (id, epoch) = (text("event_id"), text("epoch"));
                    self.take(id, epoch, number("offset"), number("run_sequence"));
                }
            }
            self.drops += usize::from(!self.is_done());
        }
    }

    async fn over_grpc(&mut self, grpc: SocketAddr, token: &str) {
        let mut client = EventSubscriberClient::connect(format!("http://{grpc}"))
            .await
            .unwrap();
        while !self.is_done() {
            let start = match &self.position {
                None => Start::From(StartFrom::Oldest.into()),
                Some((epoch, offset)) => Start::After(v1::Position {
                    epoch: epoch.clone(),
                    offset: *offset,
                }),
            };
            let request = SubscribeRequest {
                start: Some(start),
                ..Default::default()
            };
            let until = self.until();
            let response = client.subscribe(wire::with_token(token, request)).await;
            let mut stream = response.unwrap().into_inner();
            while !self.is_done() && self.seen.len() < until {
                let next = tokio::time::timeout(PATIENCE, stream.message()).await;
                let message = next.expect("nothing came").unwrap().expect("it ended");
                match message.item.unwrap() {
                    Item::Event(record) => {
                        let (event, position) = (record.event.unwrap(), record.position.unwrap());
                        let sequence = record.run_sequence;
                        self.take(event.event_id, position.epoch, position.offset, sequence);
                    }
                    Item::Established(_) | Item::CaughtUp(_) => {}
                    other => panic!("{other:?} after {} events", self.seen.len()),
                }
            }
            self.drops += usize::from(!self.is_done());
        }
    }
}
