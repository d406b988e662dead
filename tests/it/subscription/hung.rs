//! An engine that does not answer, or takes its time. A reader is dropped from its waiting again and again, as one is that
//! is told heartbeats: it gets what it asked for all the same, or is told in time that it does not.

use std::time::Duration;

use emitter::{
    engine::EngineError,
    event::{ClientId, Epoch},
    fanout::{Filter, Start, Subscription},
};
use tokio::time::{Instant, timeout};

use crate::support::{
    readers::{MUCH, Readers, seen, told},
    rig::ENGINE_TIMEOUT,
};

const SECOND: Duration = Duration::from_secs(1);

/// What `ask` answers, asked anew each second.
async fn persist<T>(mut ask: impl AsyncFnMut() -> T) -> T {
    loop {
        if let Ok(answer) = timeout(SECOND, ask()).await {
            return answer;
        }
    }
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
    // While it waited, more came.
    r.clock.advance(5 * SECOND);
    r.notes(["b"]).await;
    r.hub.maintain();
    r.clock.advance(5 * SECOND);
    r.hub.maintain();
    assert!(timeout(SECOND, reader.next(MUCH)).await.is_err());
    r.notes(["c"]).await;
    assert_eq!(next(&mut reader).await.unwrap(), "b c");
    r.notes(["d"]).await;
    assert_eq!(seen(&mut reader), ["d"]);
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
    let known = emitter::event::Position::new(epoch, emitter::event::Offset(0));
    r.engine.hold_calls(true);
    for start in [Start::Head, Start::Open, Start::After(known)] {
        let began = Instant::now();
        let subscribed = r.hub.subscribe(&r.user, start, Filter::default()).await;
        assert!(is_late(subscribed), "{start:?}");
        assert_eq!(began.elapsed(), ENGINE_TIMEOUT, "{start:?}");
    }
    assert_eq!(r.hub.users(), 0, "nobody is left behind");
    // What its client acknowledged is asked for, too.
    let began = Instant::now();
    let client = ClientId::new("tab").unwrap();
    assert!(is_late(r.hub.acks().of_client(&r.user, &client).await));
    assert_eq!(began.elapsed(), ENGINE_TIMEOUT);
}
