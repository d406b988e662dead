//! A great many readers come back at once, each with events that it missed.

use std::time::{Duration, Instant};

use emitter::{
    client::{Producer, ProducerConfig},
    proto::v1::{Custom, Event, Position, event::Payload, subscribe_response::Item},
};
use tokio::task::JoinSet;

use crate::{
    nodes::on_redis,
    processes::{
        reading::subscribe,
        server::{Server, credential},
    },
    redis::{AOF_EVERYSEC, Redis},
    seed::cases,
};

const MISSED: usize = 100;

fn user(n: u64) -> String {
    format!("u{n}")
}

fn note(user: u64, n: usize) -> Event {
    Event {
        event_id: format!("u{user}-{n}"),
        user_id: self::user(user),
        payload: Some(Payload::Custom(Custom {
            name: "note".into(),
            ..Custom::default()
        })),
        ..Event::default()
    }
}

/// Emits one event of each user, and `MISSED` each if `all`.
async fn emit(producer: &Producer, events: Vec<Event>) {
    for batch in events.chunks(1_000) {
        for fate in producer.emit_batch(batch.to_vec()).await {
            fate.expect("it is stored");
        }
    }
}

/// Reads until `count` events came, which have to be the next in order.
async fn read(
    node: String,
    n: u64,
    after: Option<Position>,
    first: usize,
    count: usize,
) -> Position {
    let read = async {
        let mut stream = subscribe(&node, &user(n), after).await?;
        let mut position = None;
        let mut came = 0;
        while came < count {
            let message = stream.message().await?.expect("more");
            match message.item.expect("an item") {
                Item::Event(event) => {
                    let id = event.event.expect("an event").event_id;
                    assert_eq!(id, format!("u{n}-{}", first + came));
                    position = event.position;
                    came += 1;
                }
                Item::Gap(gap) => panic!("u{n}: {gap:?}"),
                _ => {}
            }
        }
        // Nothing comes twice behind it.
        let next = tokio::time::timeout(Duration::from_millis(200), stream.message()).await;
        if let Ok(Ok(Some(message))) = next {
            assert!(
                !matches!(message.item, Some(Item::Event(_))),
                "u{n}: {message:?}"
            );
        }
        Ok::<_, tonic::Status>(position.expect("a position"))
    };
    let read = tokio::time::timeout(Duration::from_secs(120), read).await;
    read.unwrap_or_else(|_| panic!("u{n} did not get {count} events"))
        .unwrap_or_else(|status| panic!("u{n}: {status}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_readers_catch_up_at_once_soak() {
    let readers = cases(1_000, 10_000);
    let redis = Redis::start(AOF_EVERYSEC).await;
    let mut node = Server::start("reading", &on_redis(&redis.address())).await;
    let other = Server::start("writing", &on_redis(&redis.address())).await;
    let producer = Producer::new(
        &other.grpc,
        credential("writer", "emit"),
        ProducerConfig::default(),
    )
    .unwrap();

    emit(&producer, (0..readers).map(|n| note(n, 0)).collect()).await;
    let mut reading = JoinSet::new();
    for n in 0..readers {
        let node = node.grpc.clone();
        reading.spawn(async move { (n, read(node, n, None, 0, 1).await) });
    }
    let positions = reading.join_all().await;
    node.kill().await;
    let missed = (1..=MISSED).flat_map(|k| (0..readers).map(move |n| note(n, k)));
    emit(&producer, missed.collect()).await;
    node.restart().await;

    let since = Instant::now();
    let mut reading = JoinSet::new();
    for (n, position) in positions {
        let node = node.grpc.clone();
        reading.spawn(read(node, n, Some(position), 1, MISSED));
    }
    let caught_up = reading.join_all().await.len();
    println!(
        "{caught_up} readers caught up with {MISSED} events each in {:?}",
        since.elapsed()
    );
}
