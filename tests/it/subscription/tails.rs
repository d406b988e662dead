//! Tails: encoded once, bounded, gone with the last reader; a slow reader holds a cursor and nothing else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use emitter::{
    engine::memory,
    event::Record,
    fanout::{Config, Delivery, Encode, Start, Subscription},
};
use futures_util::FutureExt;

use crate::support::{
    events::{all, custom, maintain_all, sized},
    faulty_engine::Odds,
    readers::{MUCH, Readers, seen},
};

#[derive(Default)]
struct Counting(AtomicUsize);

impl Encode for Counting {
    fn slot(&self) -> usize {
        0
    }

    fn encode(&self, record: &Record) -> Bytes {
        self.0.fetch_add(1, Ordering::Relaxed);
        Bytes::copy_from_slice(record.draft.event.event_id.as_str().as_bytes())
    }
}

/// Encodes all that `reader` gets without waiting.
fn encode(reader: &mut Subscription, encoder: &Counting) -> Vec<Bytes> {
    let mut encoded = Vec::new();
    while let Some(delivery) = reader.next(MUCH).now_or_never() {
        if let Delivery::Events { entries, .. } = delivery.unwrap() {
            encoded.extend(entries.iter().map(|entry| entry.encoded(encoder)));
        }
    }
    encoded
}

#[tokio::test(start_paused = true)]
async fn a_record_in_the_tail_is_encoded_once_however_many_read_it() {
    let r = Readers::new();
    let encoder = Counting::default();
    let mut readers = Vec::new();
    for _ in 0..50 {
        readers.push(r.reader(Start::Head).await);
    }
    r.notes(["a", "b", "c"]).await;
    let first = encode(&mut readers[0], &encoder);
    assert_eq!(first, ["a", "b", "c"]);
    for reader in &mut readers[1..] {
        let encoded = encode(reader, &encoder);
        // The same bytes, not equal ones.
        let same = encoded
            .iter()
            .zip(&first)
            .all(|(a, b)| a.as_ptr() == b.as_ptr());
        assert!(same && encoded.len() == 3, "{encoded:?}");
    }
    assert_eq!(encoder.0.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn tails_age_out_and_their_readers_page() {
    let r = Readers::new();
    let mut behind = r.reader(Start::Head).await;
    let mut current = r.reader(Start::Head).await;
    r.notes(["a", "b"]).await;
    assert_eq!(seen(&mut current), ["a b", "caught up 2"]);
    let reads = r.engine.reads();
    r.clock.advance(Duration::from_millis(4_999));
    r.hub.maintain();
    r.notes(["c"]).await;
    assert_eq!(seen(&mut current), ["c"]);
    assert_eq!(r.engine.reads(), reads, "all from the tail");
    r.clock.advance(Duration::from_millis(1));
    r.hub.maintain();
    assert_eq!(seen(&mut behind), ["a b c", "caught up 3"]);
    assert!(r.engine.reads() > reads, "from the engine");
    r.notes(["d"]).await;
    let reads = r.engine.reads();
    assert_eq!(seen(&mut behind), ["d"]);
    assert_eq!(r.engine.reads(), reads, "from the tail again");
}

#[tokio::test(start_paused = true)]
async fn tails_are_bounded_and_their_readers_miss_nothing() {
    let weight = {
        let r = Readers::new();
        r.notes(["a"]).await;
        all(&*r.memory, &r.user).await[0].draft.weight()
    };
    // An entry counts twice its record, for its encodings.
    let default = Config::default;
    for (what, config, held) in [
        (
            "records",
            Config {
                tail_records: 3,
                ..default()
            },
            3,
        ),
        (
            "bytes",
            Config {
                tail_bytes: 7 * weight,
                ..default()
            },
            3,
        ),
        (
            "total",
            Config {
                tail_total_bytes: 7 * weight,
                ..default()
            },
            3,
        ),
        (
            "nothing",
            Config {
                tail_total_bytes: 0,
                ..default()
            },
            0,
        ),
    ] {
        let r = Readers::with(config, memory::Config::default());
        let mut reader = r.reader(Start::Head).await;
        assert_eq!(seen(&mut reader), ["caught up 0"]);
        r.notes(["a", "b", "c", "d", "e"]).await;
        let held_now = all(&*r.memory, &r.user)
            .await
            .iter()
            // One in the log, one here, and one in the tail.
            .filter(|record| Arc::strong_count(record) == 3)
            .count();
        assert_eq!(held_now, held, "{what}");
        assert_eq!(seen(&mut reader), ["a b c d e"], "{what}");
        r.notes(["f"]).await;
        assert_eq!(seen(&mut reader), ["f"], "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_nothing_but_its_cursor() {
    let bounds = memory::Config {
        retention_records: 10,
        ..memory::Config::default()
    };
    let r = Readers::with(Config::default(), bounds);
    let mut slow = r.reader(Start::Head).await;
    let mut fast = r.reader(Start::Head).await;
    let first = r.notes(["first"]).await;
    let record = Arc::downgrade(&all(&*r.memory, &r.user).await[0]);
    assert_eq!(
        seen(&mut fast),
        ["first".to_owned(), format!("caught up {first}")]
    );
    let before = r.memory.bytes();
    for n in 0..1_000 {
        let id = format!("n{n:03}");
        r.store(sized(&r.user, &id, None, custom("n"), 1_000)).await;
        assert_eq!(seen(&mut fast), [id], "nobody waits for the slow one");
    }
    r.clock.advance(Duration::from_secs(5));
    r.hub.maintain();
    maintain_all(&*r.memory).await;
    assert!(record.upgrade().is_none(), "somebody holds the record");
    let after = r.memory.bytes();
    assert!(
        after < before + 10 * 3_000 + 1_000 * 300,
        "{before} to {after}"
    );
    let last: Vec<String> = (990..1_000).map(|n| format!("n{n:03}")).collect();
    assert_eq!(
        seen(&mut slow),
        ["gap trimmed 0 to 991", &last.join(" "), "caught up 1001"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_user_is_here_exactly_as_long_as_it_has_a_reader() {
    let r = Readers::new();
    assert_eq!(r.hub.users(), 0);
    let (a, b) = (r.reader(Start::Head).await, r.reader(Start::Oldest).await);
    assert_eq!(r.hub.users(), 1);
    drop(a);
    assert_eq!(r.hub.users(), 1);
    drop(b);
    assert_eq!(r.hub.users(), 0);
    // The engine is told, too: nothing keeps the stream.
    r.clock.advance(Duration::from_secs(61));
    maintain_all(&*r.memory).await;
    assert_eq!(r.memory.streams(), 0);
}

/// They meet while the engine answers; whichever goes first, the other still counts, and its tail still ages.
#[tokio::test(start_paused = true)]
async fn two_first_readers_at_once_share_one_tail() {
    for seed in 0..20u64 {
        let r = Readers::new();
        r.engine.set_odds(Odds {
            delay: 1.0,
            ..Odds::default()
        });
        let (a, b) = tokio::join!(r.reader(Start::Head), r.reader(Start::Head));
        r.engine.set_odds(Odds::default());
        let (goes, mut stays) = if seed % 2 == 0 { (a, b) } else { (b, a) };
        drop(goes);
        assert_eq!(r.hub.users(), 1, "{seed}");
        let third = r.reader(Start::Head).await;
        r.notes(["a"]).await;
        let record = Arc::downgrade(&all(&*r.memory, &r.user).await[0]);
        r.clock.advance(Duration::from_secs(25 * 60 * 60));
        r.hub.maintain();
        maintain_all(&*r.memory).await;
        assert!(record.upgrade().is_none(), "{seed}: a tail does not age");
        assert_eq!(seen(&mut stays), ["gap trimmed 0 to 1", "caught up 1"]);
        drop((third, stays));
        assert_eq!(r.hub.users(), 0, "{seed}");
    }
}
