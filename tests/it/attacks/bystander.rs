//! A producer and a reader that must not notice an attack.

use std::time::{Duration, Instant};

use emitter::proto::v1::{
    self, event::Payload, event_emitter_client::EventEmitterClient,
    event_subscriber_client::EventSubscriberClient, subscribe_response::Item,
};
use tokio::{sync::watch, task::JoinHandle};
use tonic::{Request, Streaming};

use crate::processes::server::{Server, token};

const PATIENCE: Duration = Duration::from_secs(60);

/// Emits one event after the other, each once its reader has the last one.
pub(super) struct Bystander {
    arrived: watch::Receiver<u64>,
    stop: watch::Sender<bool>,
    running: JoinHandle<Seen>,
}

/// What a bystander went through.
#[derive(Debug)]
pub(super) struct Seen {
    /// How many of its events arrived: all of them.
    pub(super) events: u64,
    /// The longest time from an emit to the reader.
    pub(super) slowest: Duration,
}

impl Bystander {
    /// Starts one, and waits for its first event.
    pub(super) async fn start(server: &Server) -> Self {
        let emitter = EventEmitterClient::connect(server.grpc.clone()).await;
        let mut emitter = emitter.unwrap();
        let mut events = subscribed(server).await;
        let (arriving, arrived) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let token = token("bystander", "emit");
        let running = tokio::spawn(async move {
            let mut seen = Seen {
                events: 0,
                slowest: Duration::ZERO,
            };
            while !*stopped.borrow() {
                let begun = Instant::now();
                let id = format!("bystander-{}", seen.events);
                let payload = match seen.events {
                    0 => Payload::AgentStarted(v1::AgentStarted::default()),
                    _ => Payload::AgentThinking(v1::AgentThinking::default()),
                };
                let exchange = async {
                    emitter.emit(emit(&token, &id, payload)).await.unwrap();
                    next(&mut events).await
                };
                let got = tokio::time::timeout(PATIENCE, exchange).await;
                assert_eq!(got.expect("an event did not arrive"), id);
                seen.events += 1;
                seen.slowest = seen.slowest.max(begun.elapsed());
                arriving.send_replace(seen.events);
            }
            seen
        });
        let mut bystander = Self {
            arrived,
            stop,
            running,
        };
        bystander.more(1).await;
        bystander
    }

    /// Waits until so many more events have arrived.
    pub(super) async fn more(&mut self, count: u64) {
        let until = *self.arrived.borrow() + count;
        let arrived = self.arrived.wait_for(|events| *events >= until);
        arrived.await.expect("the bystander failed");
    }

    /// Ends it.
    pub(super) async fn finish(self) -> Seen {
        self.stop.send_replace(true);
        self.running.await.unwrap()
    }
}

async fn subscribed(server: &Server) -> Streaming<v1::SubscribeResponse> {
    let reader = EventSubscriberClient::connect(server.grpc.clone()).await;
    let mut request = Request::new(v1::SubscribeRequest::default());
    let bearer = format!("Bearer {}", token("bystander", "subscribe"));
    let bearer = bearer.parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    reader
        .unwrap()
        .subscribe(request)
        .await
        .unwrap()
        .into_inner()
}

fn emit(token: &str, id: &str, payload: Payload) -> Request<v1::EmitRequest> {
    let event = v1::Event {
        event_id: id.into(),
        user_id: "bystander".into(),
        run_id: "bystander".into(),
        agent_name: "researcher".into(),
        payload: Some(payload),
        ..Default::default()
    };
    let mut request = Request::new(v1::EmitRequest { event: Some(event) });
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

/// The id of the next event.
async fn next(events: &mut Streaming<v1::SubscribeResponse>) -> String {
    loop {
        let response = events.message().await.unwrap();
        let response = response.expect("the bystander's stream ended");
        if let Some(Item::Event(record)) = response.item {
            return record.event.unwrap_or_default().event_id;
        }
    }
}
