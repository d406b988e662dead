//! Where readers begin, and the seam between what was and what comes.

use std::{sync::Arc, time::Duration};

use emitter::{
    engine::Engine,
    event::{Epoch, Offset, Position},
    fanout::{Delivery, Start},
};

use crate::support::{
    events::{START, all, append, ids, notes, stream},
    readers::{MUCH, Readers, only, seen},
};

#[tokio::test(start_paused = true)]
async fn a_reader_begins_where_it_asked() {
    let r = Readers::new();
    let mut at = Vec::new();
    for id in ["a", "b", "c"] {
        at.push(r.notes([id]).await);
        // Offsets are not dense.
        let other = stream("other");
        append(&*r.memory, &other, notes(&other, &[id], START)).await;
    }
    let epoch = r.engine.load(&r.user).await.unwrap().head.epoch;
    let after = |offset| Start::After(Position::new(epoch, Offset(offset)));
    let end = format!("caught up {}", at[2]);
    for (start, want) in [
        (Start::Head, &[&*end][..]),
        (Start::Oldest, &["a b c", &end]),
        (after(0), &["a b c", &end]),
        (after(at[0]), &["b c", &end]),
        (after(at[0] + 1), &["b c", &end]),
        (after(at[2]), &[&end]),
    ] {
        // Alone, and beside a reader that made the tail before.
        for beside in [false, true] {
            let other = match beside {
                true => Some(r.reader(Start::Head).await),
                false => None,
            };
            let mut reader = r.reader(start).await;
            assert_eq!(
                seen(&mut reader),
                want,
                "{start:?}, beside another: {beside}"
            );
            assert_eq!(reader.position(), Position::new(epoch, Offset(at[2])));
            drop(other);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_the_subscription_reaches_the_reader() {
    for start in [Start::Head, Start::Oldest] {
        let r = Readers::new();
        let mut reader = r.reader(start).await;
        let b = r.notes(["a", "b"]).await;
        // Not even its head was looked at before.
        assert_eq!(
            seen(&mut reader),
            ["a b".to_owned(), format!("caught up {b}")]
        );
        r.notes(["c"]).await;
        assert_eq!(seen(&mut reader), ["c"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_reader_is_woken() {
    let r = Readers::new();
    let mut reader = r.reader(Start::Head).await;
    assert_eq!(seen(&mut reader), ["caught up 0"]);
    let waiting = tokio::spawn(async move { reader.next(MUCH).await });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    r.notes(["a"]).await;
    let woken = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    let delivery = woken.expect("it is woken").unwrap().unwrap();
    assert!(matches!(delivery, Delivery::Events { .. }), "{delivery:?}");
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_bounded_but_holds_one() {
    let r = Readers::new();
    let mut live = r.reader(Start::Head).await;
    r.notes(["a", "b", "c"]).await;
    let mut paged = r.reader(Start::Oldest).await;
    let weight = all(&*r.memory, &r.user).await[0].draft.weight();
    for (what, reader) in [("live", &mut live), ("paged", &mut paged)] {
        for (bytes, want) in [(0, "a"), (2 * weight, "b c")] {
            let delivery = reader.next(bytes).await.unwrap();
            assert_eq!(crate::support::readers::told(&delivery), want, "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_narrows_what_is_sent() {
    let r = Readers::new();
    for (id, kind) in [("a", "x"), ("b", "y"), ("c", "x"), ("d", "z")] {
        r.typed(id, kind).await;
    }
    let d = r.reader(Start::Head).await.position().offset.0;
    for (kind, want) in [("x", "a c"), ("y", "b"), ("z", "d")] {
        let mut reader = r.filtered(Start::Oldest, only(kind)).await;
        let end = format!("caught up {d}");
        assert_eq!(seen(&mut reader), [want, &end], "{kind}");
    }
    let mut none = r.filtered(Start::Oldest, only("none")).await;
    assert_eq!(seen(&mut none), [format!("caught up {d}")]);
}

/// Readers begin at any moment while records come, and each sees all after its start, once, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_repeated_at_the_seam() {
    const RECORDS: usize = 600;
    let r = Arc::new(Readers::new());
    let writer = tokio::spawn({
        let r = r.clone();
        async move {
            for n in 0..RECORDS {
                r.notes([&*format!("n{n:04}")]).await;
                if n % 7 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    let mut readers = Vec::new();
    let mut n = 0;
    while !writer.is_finished() && readers.len() < 200 {
        let start = [Start::Head, Start::Oldest][n % 2];
        n += 1;
        let mut reader = r.reader(start).await;
        readers.push(tokio::spawn(async move {
            let begun = reader.position();
            let mut got = Vec::new();
            while got.last().is_none_or(|(id, _)| id != "n0599") {
                match reader.next(10_000).await.unwrap() {
                    Delivery::Events { entries, .. } => {
                        let records: Vec<_> = entries.iter().map(|e| e.record.clone()).collect();
                        let offsets = records.iter().map(|r| r.position.offset);
                        got.extend(ids(&records).into_iter().zip(offsets));
                    }
                    Delivery::CaughtUp(position) if position.offset.0 == RECORDS as u64 => break,
                    Delivery::CaughtUp(_) => {}
                    gap => panic!("{gap:?} after {:?}", got.last()),
                }
            }
            (begun, got)
        }));
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    let stored = all(&*r.memory, &r.user).await;
    for reader in readers {
        let got = tokio::time::timeout(Duration::from_secs(20), reader).await;
        let (begun, got) = got.expect("the reader gets to the end").unwrap();
        let want: Vec<_> = stored
            .iter()
            .filter(|record| record.position.offset > begun.offset)
            .map(|record| {
                let id = record.draft.event.event_id.as_str().to_owned();
                (id, record.position.offset)
            })
            .collect();
        assert_eq!(got, want, "from {begun}");
    }
}

#[tokio::test]
async fn the_epoch_is_the_streams_also_before_the_gap_is_told() {
    let r = Readers::new();
    r.notes(["a"]).await;
    let epoch = r.engine.load(&r.user).await.unwrap().head.epoch;
    let foreign = Position::new(Epoch::new(7), Offset(1));
    let mut reader = r.reader(Start::After(foreign)).await;
    assert_eq!((reader.position(), reader.epoch()), (foreign, epoch));
    seen(&mut reader);
    assert_eq!(reader.epoch(), epoch);
    r.epochs.change(Epoch::new(8));
    assert_eq!(reader.epoch(), epoch, "nobody knows yet");
}
