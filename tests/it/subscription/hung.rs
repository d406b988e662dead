//! An engine that does not answer, or takes its time. A reader is dropped from its waiting again and again, as one is that
//! is told heartbeats: it gets what it asked for all the same, or is told in time that it does not.

use std::time::Duration;

use emitter::{
    engine::EngineError,
    event::{ClientId, Epoch, Offset, Position},
    fanout::{Filter, Start, Subscription},
};
use tokio::time::{Instant, timeout};

use crate::support::{
    events::{hours, maintain_all},
    readers::{MUCH, Readers, seen, told},
    rig::ENGINE_TIMEOUT,
};

const SECOND: Duration = Duration::from_secs(1);

/// What `ask` answers, asked anew each second.
async fn persist<T>(mut ask: impl AsyncFnMut() -> T) -> T {
    for _ in 0..60 {
        if let Ok(answer) = timeout(SECOND, ask()).await {
            return answer;
        }
    }
    panic!("no answer in a minute");
}

/// What `reader` is told next, in words.
async fn next(reader: &mut Subscription) -> Result<String, EngineError> {
    let next = persist(async || reader.next(MUCH).await).await;
    next.map(|delivery| told(&delivery))
}

fn is_late<T>(answer: Result<T, EngineError>) -> bool {
    matches!(answer, Err(EngineError::Unavailable(_)))
}

#[tokio::test(start_paused = true)]
async fn a_slow_read_is_begun_once_and_comes_to_its_end() {
    let r = Readers::new();
    r.notes(["a"]).await;
    let mut reader = r.reader(Start::Oldest).await;
    let reads = r.engine.reads();
    r.engine.set_read_time(7 * SECOND / 2);
    let began = Instant::now();
    assert_eq!(next(&mut reader).await.unwrap(), "a");
    assert_eq!(
        (began.elapsed(), r.engine.reads()),
        (7 * SECOND / 2, reads + 1)
    );
    assert_eq!(seen(&mut reader), ["caught up 1"]);
}

/// Its page was asked for before the tail knew of the epoch. What comes then is in both.
#[tokio::test(start_paused = true)]
async fn a_page_that_the_tail_overtakes_is_told_once() {
    let r = Readers::new();
    let mut reader = r.reader(Start::Head).await;
    r.notes(["a"]).await;
    r.clock.advance(hours(25));
    r.hub.maintain();
    maintain_all(&*r.memory).await;
    r.epochs.change(Epoch::new(7));
    assert_eq!(next(&mut reader).await.unwrap(), "gap epoch changed 0 to 1");
    r.engine.set_read_time(7 * SECOND / 2);
    let waits = timeout(SECOND, reader.next(MUCH)).await;
    assert!(waits.is_err(), "{waits:?}");
    r.engine.tell_heads().await;
    r.notes(["b"]).await;
    assert_eq!(next(&mut reader).await.unwrap(), "b");
    r.notes(["c"]).await;
    r.clock.advance(5 * SECOND);
    r.hub.maintain();
    assert_eq!(next(&mut reader).await.unwrap(), "c");
    assert_eq!(seen(&mut reader), ["caught up 3"]);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_is_over_in_time() {
    let r = Readers::new();
    r.notes(["a"]).await;
    let mut reader = r.reader(Start::Oldest).await;
    r.engine.hold_calls(true);
    let began = Instant::now();
    assert!(is_late(next(&mut reader).await));
    assert_eq!(began.elapsed(), ENGINE_TIMEOUT);
    r.engine.hold_calls(false);
    assert_eq!(seen(&mut reader), ["a", "caught up 1"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_open_behind_a_gap_is_over_in_time() {
    let r = Readers::new();
    let mut reader = r.reader(Start::Head).await;
    assert_eq!(seen(&mut reader), ["caught up 0"]);
    r.epochs.change(Epoch::new(7));
    r.engine.tell_heads().await;
    assert_eq!(next(&mut reader).await.unwrap(), "gap epoch changed 0 to 0");
    r.engine.hold_calls(true);
    let began = Instant::now();
    assert!(is_late(persist(async || reader.open_runs().await).await));
    assert_eq!(began.elapsed(), ENGINE_TIMEOUT);
    r.engine.hold_calls(false);
    assert_eq!(reader.open_runs().await, Ok(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_begins_waits_no_longer_either() {
    let r = Readers::new();
    let epoch = r.reader(Start::Head).await.position().epoch;
    let known = Position::new(epoch, Offset(0));
    r.engine.hold_calls(true);
    for start in [Start::Head, Start::Open, Start::After(known)] {
        let began = Instant::now();
        let subscribe = r.hub.subscribe(&r.user, start, Filter::default());
        let subscribed = timeout(60 * SECOND, subscribe).await;
        assert!(is_late(subscribed.expect("an answer")), "{start:?}");
        assert_eq!(began.elapsed(), ENGINE_TIMEOUT, "{start:?}");
    }
    assert_eq!(r.hub.users(), 0, "nobody is left behind");
    // What its client acknowledged is asked for, too.
    let began = Instant::now();
    let client = ClientId::new("tab").unwrap();
    let acked = timeout(60 * SECOND, r.hub.acks().of_client(&r.user, &client)).await;
    assert!(is_late(acked.expect("an answer")));
    assert_eq!(began.elapsed(), ENGINE_TIMEOUT);
}
