//! When a reader is told that it has everything.

use std::time::Duration;

use emitter::{
    engine::Commit,
    fanout::{Delivery, Start, Subscription},
};

use crate::support::{
    events::{append, draft, event},
    readers::{MUCH, Readers, only, seen, told},
};

const SECOND: Duration = Duration::from_secs(1);

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

/// Appends `count` events of type `kind` at once.
async fn many(r: &Readers, name: &str, kind: &str, count: usize) {
    let make = |n| {
        let id = format!("{name}{n}");
        let kind = crate::support::events::custom(kind);
        draft(event(&r.user, &id, None, kind), 0, r.clock.now())
    };
    let drafts = (0..count).map(make).collect();
    append(&*r.epochs, &r.user, Commit { drafts }).await;
}

#[tokio::test(start_paused = true)]
async fn once_when_it_is_first_at_the_head() {
    let r = Readers::new();
    r.notes(["a"]).await;
    let mut reader = r.reader(Start::Oldest).await;
    assert_eq!(seen(&mut reader), ["a", "caught up 1"]);
    for id in ["b", "c"] {
        r.notes([id]).await;
        assert_eq!(seen(&mut reader), [id], "not again");
        pass(10 * SECOND).await;
        assert_eq!(seen(&mut reader), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_head_after_skipped_events_at_most_once_a_second() {
    let r = Readers::new();
    let mut reader = r.filtered(Start::Head, only("want")).await;
    assert_eq!(seen(&mut reader), ["caught up 0"]);
    r.typed("s1", "skip").await;
    assert_eq!(seen(&mut reader), [""; 0], "a second has not passed");
    r.typed("s2", "skip").await;
    pass(SECOND - Duration::from_millis(1)).await;
    assert_eq!(seen(&mut reader), [""; 0]);
    pass(Duration::from_millis(1)).await;
    assert_eq!(seen(&mut reader), ["caught up 2"]);
    // Behind the last one sent, too; and it waits by itself for the second to pass.
    r.typed("w3", "want").await;
    r.typed("s4", "skip").await;
    assert_eq!(seen(&mut reader), ["w3"]);
    let started = tokio::time::Instant::now();
    let next = tokio::time::timeout(60 * SECOND, reader.next(MUCH)).await;
    assert_eq!(told(&next.expect("it is told").unwrap()), "caught up 4");
    assert_eq!(started.elapsed(), SECOND);
    // Nothing skipped since: nothing to tell.
    r.typed("w5", "want").await;
    pass(10 * SECOND).await;
    assert_eq!(seen(&mut reader), ["w5"]);
}

#[tokio::test(start_paused = true)]
async fn on_the_way_when_1000_were_skipped_and_a_second_has_passed() {
    let r = Readers::new();
    for page in 0..8 {
        many(&r, &format!("s{page}-"), "skip", 600).await;
    }
    many(&r, "w", "want", 1).await;
    let head = 8 * 600 + 1;
    // No second passes: nothing is told before the end.
    let mut fast = r.filtered(Start::Oldest, only("want")).await;
    let end = format!("caught up {head}");
    assert_eq!(seen(&mut fast), ["w0", &end]);
    // Every page takes 0.6 seconds: one tell in each second page or later.
    let mut slow = r.filtered(Start::Oldest, only("want")).await;
    let told = paced(&r, &mut slow).await;
    let positions: Vec<u64> = told
        .iter()
        .filter_map(|(_, delivery)| match delivery {
            Delivery::CaughtUp(position) => Some(position.offset.0),
            _ => None,
        })
        .collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "{told:?}");
    assert_eq!(positions.last(), Some(&head), "{told:?}");
    assert!(positions.len() > 2, "{told:?}");
    let times: Vec<_> = told.iter().map(|(at, _)| *at).collect();
    let (last_two, on_the_way) = (&times[times.len() - 2..], &times[..times.len() - 2]);
    assert!(
        on_the_way.windows(2).all(|w| w[1] - w[0] >= SECOND) && on_the_way[0] >= SECOND,
        "{times:?} {last_two:?}"
    );
    assert!(
        positions
            .windows(2)
            .rev()
            .skip(1)
            .all(|w| w[1] - w[0] >= 1_000),
        "{positions:?}"
    );
}

/// What `reader` is told, and when, while each read takes 0.6 seconds, until it is at the head.
async fn paced(r: &Readers, reader: &mut Subscription) -> Vec<(Duration, Delivery)> {
    r.engine.set_read_time(Duration::from_millis(600));
    let started = tokio::time::Instant::now();
    let mut told = Vec::new();
    while let Ok(delivery) = tokio::time::timeout(10 * SECOND, reader.next(MUCH)).await {
        told.push((started.elapsed(), delivery.unwrap()));
    }
    told
}

/// A position told on the way does not stand for the one at the head.
#[tokio::test(start_paused = true)]
async fn the_first_time_at_the_head_is_told_even_if_positions_were_told_before() {
    let r = Readers::new();
    for page in 0..4 {
        many(&r, &format!("s{page}-"), "skip", 512).await;
    }
    many(&r, "w", "want", 1).await;
    let mut reader = r.filtered(Start::Oldest, only("want")).await;
    let told: Vec<_> = paced(&r, &mut reader).await;
    let words: Vec<_> = told
        .iter()
        .map(|(_, d)| crate::support::readers::told(d))
        .collect();
    let last = &words[words.len() - 2..];
    assert_eq!(last, ["w0", "caught up 2049"], "{words:?}");
}
