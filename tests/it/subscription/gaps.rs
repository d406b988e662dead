//! What cannot be replayed is announced, exactly.

use std::time::Duration;

use emitter::{
    engine::{Engine, memory},
    event::{Epoch, Offset, Position},
    fanout::{Config, Start},
};

use crate::support::{
    events::{hours, maintain_all},
    faulty_engine::Odds,
    readers::{MUCH, Readers, seen, told},
};

fn two_retained() -> memory::Config {
    memory::Config {
        retention_records: 2,
        ..memory::Config::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_retention_passed_gets_a_gap() {
    let r = Readers::with(Config::default(), two_retained());
    let d = r.notes(["a", "b", "c", "d"]).await;
    assert_eq!(d, 4);
    let epoch = r.engine.load(&r.user).await.unwrap().head.epoch;
    for (after, want) in [
        (0, &["gap trimmed 0 to 2", "c d", "caught up 4"][..]),
        (1, &["gap trimmed 1 to 2", "c d", "caught up 4"]),
        // It has all that was trimmed.
        (2, &["c d", "caught up 4"]),
        (3, &["d", "caught up 4"]),
        (4, &["caught up 4"]),
    ] {
        let start = Start::After(Position::new(epoch, Offset(after)));
        let mut reader = r.reader(start).await;
        assert_eq!(seen(&mut reader), want, "after {after}");
    }
    let mut oldest = r.reader(Start::Oldest).await;
    assert_eq!(seen(&mut oldest), ["c d", "caught up 4"]);
}

#[tokio::test(start_paused = true)]
async fn a_connected_reader_that_retention_passes_gets_a_gap_and_goes_on() {
    let tail = Config {
        tail_records: 1,
        ..Config::default()
    };
    let r = Readers::with(tail, two_retained());
    let mut slow = r.reader(Start::Head).await;
    assert_eq!(seen(&mut slow), ["caught up 0"]);
    r.notes(["a"]).await;
    assert_eq!(seen(&mut slow), ["a"]);
    r.notes(["b", "c", "d", "e"]).await;
    assert_eq!(seen(&mut slow), ["gap trimmed 1 to 3", "d e"]);
    r.notes(["f"]).await;
    assert_eq!(seen(&mut slow), ["f"]);
    // By age, with nothing new.
    r.notes(["g", "h"]).await;
    r.clock.advance(hours(25));
    r.hub.maintain();
    maintain_all(&*r.memory).await;
    assert_eq!(seen(&mut slow), ["gap trimmed 6 to 8"]);
}

#[tokio::test(start_paused = true)]
async fn the_tail_spares_a_reader_the_gap() {
    let r = Readers::with(Config::default(), two_retained());
    let mut reader = r.reader(Start::Head).await;
    assert_eq!(seen(&mut reader), ["caught up 0"]);
    r.notes(["a", "b", "c", "d", "e"]).await;
    assert_eq!(seen(&mut reader), ["a b c d e"]);
}

#[tokio::test(start_paused = true)]
async fn retention_that_passes_a_cursor_between_its_start_and_its_first_read_is_told() {
    let r = Readers::with(Config::default(), two_retained());
    r.notes(["a", "b"]).await;
    let mut reader = r.reader(Start::Oldest).await;
    r.notes(["c", "d"]).await;
    assert_eq!(
        seen(&mut reader),
        ["gap trimmed 0 to 2", "c d", "caught up 4"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_position_of_another_epoch_gets_a_gap_and_then_everything_retained() {
    let r = Readers::with(Config::default(), two_retained());
    r.notes(["a", "b", "c"]).await;
    for after in [0, 2, 3, 1_000] {
        let foreign = Position::new(Epoch::new(0xf0), Offset(after));
        let mut reader = r.reader(Start::After(foreign)).await;
        let gap = format!("gap epoch changed {after} to 1");
        assert_eq!(seen(&mut reader), [&*gap, "b c", "caught up 3"]);
        assert_eq!(
            reader.position(),
            r.engine.load(&r.user).await.unwrap().head
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_connected_reader_is_told_when_the_epoch_changes() {
    let r = Readers::new();
    let mut reader = r.reader(Start::Oldest).await;
    r.notes(["a", "b"]).await;
    assert_eq!(seen(&mut reader), ["a b", "caught up 2"]);
    r.epochs.change(Epoch::new(2));
    r.notes(["c"]).await;
    assert_eq!(seen(&mut reader), ["gap epoch changed 2 to 0", "a b c"]);
    assert_eq!(reader.position(), Position::new(Epoch::new(2), Offset(3)));
}

/// The tail has not heard of the new epoch: nobody may spin, and who comes tells who is there.
#[tokio::test(start_paused = true)]
async fn a_reader_that_comes_in_a_new_epoch_before_its_first_record_waits_for_it() {
    let r = Readers::new();
    let mut first = r.reader(Start::Head).await;
    r.notes(["a"]).await;
    assert_eq!(seen(&mut first), ["a", "caught up 1"]);
    r.epochs.change(Epoch::new(2));
    let mut second = r.reader(Start::Head).await;
    r.engine.set_odds(Odds {
        delay: 1.0,
        ..Odds::default()
    });
    let end = Duration::from_secs(60);
    let next = tokio::time::timeout(end, second.next(MUCH)).await;
    assert_eq!(told(&next.unwrap().unwrap()), "caught up 1");
    let calls = r.engine.reads();
    let nothing = tokio::time::timeout(end, second.next(MUCH)).await;
    assert!(nothing.is_err(), "{nothing:?}");
    let calls = r.engine.reads() - calls;
    assert!(calls < 10, "{calls} reads while nothing comes");
    r.engine.set_odds(Odds::default());
    assert_eq!(seen(&mut first), ["gap epoch changed 1 to 0", "a"]);
    r.notes(["b"]).await;
    assert_eq!(seen(&mut second), ["b"]);
    assert_eq!(seen(&mut first), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_position_beyond_the_head_gets_a_gap_to_the_head() {
    let r = Readers::new();
    let b = r.notes(["a", "b"]).await;
    let epoch = r.engine.load(&r.user).await.unwrap().head.epoch;
    let ahead = Position::new(epoch, Offset(b + 5));
    let mut reader = r.reader(Start::After(ahead)).await;
    assert_eq!(
        seen(&mut reader),
        ["gap position ahead 7 to 2", "caught up 2"]
    );
    r.notes(["c"]).await;
    assert_eq!(seen(&mut reader), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_resume_after_everything_was_evicted_is_told_what_it_missed() {
    let r = Readers::new();
    r.notes(["a", "b"]).await;
    let epoch = r.engine.load(&r.user).await.unwrap().head.epoch;
    for _ in 0..3 {
        r.clock.advance(hours(25));
        maintain_all(&*r.memory).await;
    }
    assert_eq!(r.memory.streams(), 0);
    let after = |offset| Start::After(Position::new(epoch, Offset(offset)));
    let mut missed = r.reader(after(1)).await;
    assert_eq!(seen(&mut missed), ["gap trimmed 1 to 2", "caught up 2"]);
    let mut had_all = r.reader(after(2)).await;
    assert_eq!(seen(&mut had_all), ["caught up 2"]);
    r.notes(["c"]).await;
    assert_eq!(seen(&mut missed), ["c"]);
    assert_eq!(seen(&mut had_all), ["c"]);
}
