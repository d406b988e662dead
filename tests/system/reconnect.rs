//! A great many readers come back at once, each with events that it missed.

use std::time::{Duration, Instant};

use emitter::{
    client::{Producer, ProducerConfig},
    proto::v1::{Custom, Event, Position, event::Payload, subscribe_response::Item},
};
use tokio::task::JoinSet;
use tonic::Status;

use crate::{
    nodes::on_redis,
    processes::{
        reading::{is_passing, subscribe},
        server::{Server, credential},
        tools::PATIENCE,
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

/// Reads until `count` events came, which have to be the next in order. What cuts it off, it survives as any reader does.
async fn read(
    node: String,
    n: u64,
    mut position: Option<Position>,
    first: usize,
    count: usize,
) -> Position {
    let ids: Vec<String> = (first..first + count)
        .map(|k| format!("u{n}-{k}"))
        .collect();
    let mut left = ids.iter();
    let read = async {
        while let Err(status) = read_on(&node, n, &mut position, &mut left).await {
            assert!(is_passing(&status), "u{n}: {status}");
            let pause = rand::random_range(100..1_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(600), read).await;
    assert!(read.is_ok(), "u{n} did not get {count} events");
    position.expect("a position")
}

/// The same over one connection.
async fn read_on(
    node: &str,
    n: u64,
    position: &mut Option<Position>,
    left: &mut std::slice::Iter<'_, String>,
) -> Result<(), Status> {
    let mut stream = subscribe(node, &user(n), position.clone()).await?;
    while !left.as_slice().is_empty() {
        let message = stream.message().await?;
        let message = message.ok_or_else(|| Status::unavailable("the stream ended"))?;
        match message.item.expect("an item") {
            Item::Event(event) => {
                let id = event.event.expect("an event").event_id;
                assert_eq!(Some(&id), left.next());
                *position = event.position;
            }
            Item::Gap(gap) => panic!("u{n}: {gap:?}"),
            _ => {}
        }
    }
    // Nothing comes twice behind it.
    let next = tokio::time::timeout(Duration::from_millis(200), stream.message()).await;
    if let Ok(Ok(Some(message))) = next {
        let is_event = matches!(message.item, Some(Item::Event(_)));
        assert!(!is_event, "u{n}: {message:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_readers_catch_up_at_once_soak() {
    let readers = cases(1_000, 10_000);
    let redis = Redis::start(AOF_EVERYSEC).await;
    let mut node = Server::start("reading", &on_redis(&redis.address())).await;
    let other = Server::start("writing", &on_redis(&redis.address())).await;
    let patient = ProducerConfig {
        deadline: PATIENCE,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&other.grpc, credential("writer", "emit"), patient).unwrap();

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
