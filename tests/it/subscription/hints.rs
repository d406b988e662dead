//! Hints may be lost, and readers may be dropped while they wait: nothing is.

use std::time::Duration;

use emitter::{
    event::Epoch,
    fanout::{Config, Delivery, Start},
};
use futures_util::FutureExt;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::support::{
    events::{all, ids},
    faulty_engine::Odds,
    readers::{MUCH, Readers, seen, told},
    seed,
};

fn lost(odds: f64) -> Odds {
    Odds {
        lost_hint: odds,
        ..Odds::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_hint_in_mid_stream_is_healed_by_the_next() {
    let r = Readers::new();
    let mut reader = r.reader(Start::Head).await;
    r.notes(["a"]).await;
    assert_eq!(seen(&mut reader), ["a", "caught up 1"]);
    r.engine.set_odds(lost(1.0));
    r.notes(["b", "c"]).await;
    assert_eq!(seen(&mut reader), [""; 0], "it cannot know");
    r.engine.set_odds(lost(0.0));
    r.notes(["d"]).await;
    assert_eq!(seen(&mut reader), ["b c d"]);
    r.notes(["e"]).await;
    assert_eq!(seen(&mut reader), ["e"]);
}

/// A reader that comes sees what the tail has not heard of, and the tail is whole again afterwards.
#[tokio::test(start_paused = true)]
async fn a_reader_that_comes_after_a_lost_hint_misses_nothing() {
    let r = Readers::new();
    let mut first = r.reader(Start::Head).await;
    assert_eq!(seen(&mut first), ["caught up 0"]);
    r.engine.set_odds(lost(1.0));
    r.notes(["a", "b"]).await;
    let mut second = r.reader(Start::Oldest).await;
    r.engine.set_odds(lost(0.0));
    r.notes(["c"]).await;
    assert_eq!(seen(&mut second), ["a b c", "caught up 3"]);
    assert_eq!(seen(&mut first), ["a b c"]);
}

/// The engine has just named the head to it: what the tail has not heard of is before that, and is told first.
#[tokio::test(start_paused = true)]
async fn a_reader_that_begins_after_a_lost_hint_is_not_told_too_early_that_it_caught_up() {
    let r = Readers::new();
    let mut first = r.reader(Start::Head).await;
    r.notes(["a"]).await;
    assert_eq!(seen(&mut first), ["a", "caught up 1"]);
    let known = first.position();
    r.engine.set_odds(lost(1.0));
    r.notes(["b", "c"]).await;
    let mut second = r.reader(Start::After(known)).await;
    assert_eq!(seen(&mut second), ["b c", "caught up 3"]);
    // Who waits there already learns it, too.
    assert_eq!(seen(&mut first), ["b c"]);
}

/// Dropped at any point, `next` has lost nothing and repeats nothing.
#[test]
fn next_is_cancel_safe_soak() {
    seed::each_seed(50, 1_000, |seed| async move {
        let mut rng = StdRng::seed_from_u64(seed);
        let small = Config {
            tail_records: 4,
            page_records: 3,
            ..Config::default()
        };
        let r = Readers::with(small, emitter::engine::memory::Config::default());
        let mut reader = r.reader(Start::Oldest).await;
        r.engine.set_odds(Odds {
            delay: 0.7,
            lost_hint: 0.2,
            ..Odds::default()
        });
        let mut got = Vec::new();
        for n in 0..100 {
            if rng.random_bool(0.6) {
                r.notes([&*format!("n{n}")]).await;
            }
            // Dropped at once, or in the middle of a read.
            let next = match rng.random_bool(0.5) {
                true => reader.next(rng.random_range(0..3_000)).now_or_never(),
                false => {
                    let patience = Duration::from_millis(rng.random_range(0..12));
                    let next = reader.next(rng.random_range(0..3_000));
                    tokio::time::timeout(patience, next).await.ok()
                }
            };
            if let Some(delivery) = next {
                collect(&mut got, delivery.unwrap());
            }
        }
        r.engine.set_odds(Odds::default());
        r.notes(["last"]).await;
        while got.last().is_none_or(|id| id != "last") {
            let next = tokio::time::timeout(Duration::from_secs(60), reader.next(3_000)).await;
            let next = next.unwrap_or_else(|_| panic!("nothing comes after {got:?}"));
            collect(&mut got, next.unwrap());
        }
        assert_eq!(got, ids(&all(&*r.memory, &r.user).await));
    });
}

fn collect(got: &mut Vec<String>, delivery: Delivery) {
    match delivery {
        Delivery::Events { entries, .. } => {
            let records: Vec<_> = entries.iter().map(|e| e.record.clone()).collect();
            got.extend(ids(&records));
        }
        Delivery::CaughtUp(_) => {}
        Delivery::Gap(gap) => panic!("{gap:?} after {:?}", got.last()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_whose_last_hint_was_lost_is_told_where_its_stream_stands() {
    let r = Readers::new();
    let mut reader = r.reader(Start::Head).await;
    r.notes(["a"]).await;
    assert_eq!(seen(&mut reader), ["a", "caught up 1"]);
    r.engine.set_odds(lost(1.0));
    r.notes(["b", "c"]).await;
    assert_eq!(seen(&mut reader), [""; 0], "nothing comes after it");
    r.engine.tell_heads().await;
    assert_eq!(seen(&mut reader), ["b c"]);
    let reads = r.engine.reads();
    r.engine.tell_heads().await;
    assert_eq!(seen(&mut reader), [""; 0]);
    assert_eq!(r.engine.reads(), reads, "it knows already");
    // The tail is whole again.
    r.engine.set_odds(lost(0.0));
    r.notes(["d"]).await;
    assert_eq!(seen(&mut reader), ["d"]);
    assert_eq!(r.engine.reads(), reads);
}

/// It wakes one that waits, and nothing else does.
#[tokio::test(start_paused = true)]
async fn where_a_stream_stands_wakes_a_reader_that_waits() {
    let r = Readers::new();
    let mut reader = r.reader(Start::Head).await;
    assert_eq!(seen(&mut reader), ["caught up 0"]);
    r.engine.set_odds(lost(1.0));
    r.notes(["a"]).await;
    let waits = tokio::spawn(async move { reader.next(MUCH).await.map(|next| told(&next)) });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!waits.is_finished());
    r.engine.tell_heads().await;
    let next = tokio::time::timeout(Duration::from_secs(1), waits).await;
    assert_eq!(next.unwrap().unwrap().unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn where_a_stream_stands_tells_of_a_new_epoch() {
    let r = Readers::new();
    let mut reader = r.reader(Start::Head).await;
    r.notes(["a", "b"]).await;
    assert_eq!(seen(&mut reader), ["a b", "caught up 2"]);
    r.epochs.change(Epoch::new(7));
    assert_eq!(seen(&mut reader), [""; 0], "nobody told it");
    r.engine.tell_heads().await;
    assert_eq!(seen(&mut reader), ["gap epoch changed 2 to 0", "a b"]);
    assert_eq!(reader.position().epoch, Epoch::new(7));
}
