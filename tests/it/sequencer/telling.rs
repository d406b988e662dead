//! When nodes tell each other what they missed, how much of it, and what they do not.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use emitter::{
    engine::{Engine, Key, memory},
    event::StreamKey,
    sequencer::{Config, Sequencer},
};
use tokio::time::Instant;

use crate::support::{
    events::{custom, event, note, stream},
    faulty_engine::Fault,
    rig::{Rig, until, user_in, words},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn rig() -> Rig {
    Rig::with(Config::default(), memory::Config::default(), 1)
}

/// A user in the range with this number.
fn user_of(range: usize) -> StreamKey {
    user_in(&(range * 64..(range + 1) * 64))
}

/// Something of the user is tried through `node`, with a deadline or without.
async fn attempt(node: &Arc<Sequencer>, user: &StreamKey, deadline: Option<Instant>, want: &str) {
    let events = vec![note(user, "x")];
    let answers = node.submit(user.clone(), events, deadline).await;
    assert_eq!(words(&answers), [want]);
}

async fn is_over(rig: &Rig, user: &StreamKey) -> bool {
    let stored = rig.stored(user).await;
    let mut events = stored.iter().map(|record| &record.draft.event);
    events.any(|event| event.event_id.is_own())
}

/// What is told of a range.
async fn told(rig: &Rig, range: usize) -> Option<Bytes> {
    let entry = rig.memory.get(&Key::Missed(range * 64)).await;
    entry.unwrap().map(|entry| entry.value)
}

/// Lets time pass until it is so, no more than `most`.
async fn within(most: Duration, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + most;
    while !is_so().await {
        assert!(Instant::now() < end, "not within {most:?}: {what}");
        tokio::time::advance(SECOND / 100).await;
    }
}

/// Lets a second pass for `nodes`.
async fn second(rig: &Rig, nodes: &[&Arc<Sequencer>]) {
    rig.clock.advance(SECOND);
    for node in nodes {
        node.tell_missed().await;
        node.sweep().await;
    }
}

/// After how many seconds, from `from` on, the user's run is over; at most two hours.
async fn over_after(rig: &Rig, nodes: &[&Arc<Sequencer>], user: &StreamKey, from: u64) -> u64 {
    for seconds in from + 1..7_200 {
        second(rig, nodes).await;
        if is_over(rig, user).await {
            return seconds;
        }
    }
    panic!("it never ends");
}

/// One failure every two minutes, and what is told and remembered is bounded.
#[tokio::test(start_paused = true)]
async fn a_run_ends_however_often_something_fails_meanwhile() {
    for (timeout, want) in [
        // Of each two minutes, one counts: 10 seconds, 9 minutes, and 50 seconds of the next.
        (10 * MINUTE, 10 + 9 * 120 + 60 + 50),
        // Of what failed, the last 64 minutes are remembered.
        (180 * MINUTE, (180 + 64) * 60),
    ] {
        for nodes in 1..=2 {
            let case = format!("{timeout:?}, {nodes} nodes");
            let over = over_with_failures(nodes, timeout).await;
            assert!(over.abs_diff(want) <= 2, "{over} s, not {want}: {case}");
        }
    }
}

/// After how many seconds a run is over whose user something fails for every two minutes; at most six hours.
async fn over_with_failures(nodes: usize, timeout: Duration) -> u64 {
    let rig = rig();
    let (way, other) = rig.node_over(&rig.clock, Config::default(), 2);
    let both = [&other, &rig.sequencer];
    let (watching, trying, way) = match nodes {
        1 => (&both[1..], &rig.sequencer, &rig.engine),
        _ => (&both[..], &other, &way),
    };
    rig.sequencer.sweep().await;
    let user = stream("u");
    rig.start(&user, timeout).await;
    for seconds in 0..6 * 3_600 {
        if is_over(&rig, &user).await {
            return seconds;
        }
        if seconds % 120 == 10 {
            way.script([Fault::Unavailable]);
            attempt(trying, &user, None, "ENGINE_UNAVAILABLE").await;
        }
        second(&rig, watching).await;
    }
    panic!("it never ends");
}

/// Whether they came too late, or nothing could be done in time.
#[tokio::test(start_paused = true)]
async fn a_deadline_is_missed_by_the_service_only_where_it_had_a_chance() {
    // How long the deadline is, how long the queue takes, and what comes after how many seconds.
    for (deadline, waited, ends_at) in [
        (0, 0, 120),
        (0, 900, 120),
        (100, 900, 120),
        (100, 1_100, 180),
        (1_000, 2_000, 180),
    ] {
        let rig = rig();
        let nodes = &[&rig.sequencer];
        rig.sequencer.sweep().await;
        let user = stream("u");
        rig.start(&user, 2 * MINUTE).await;
        for _ in 0..100 {
            second(&rig, nodes).await;
        }
        let case = format!("{deadline} ms, after {waited} ms");
        if waited > 0 {
            rig.engine.hold();
        }
        let emit = |id: &str, deadline: Option<Instant>| {
            let (sequencer, user) = (rig.sequencer.clone(), user.clone());
            let events = vec![Arc::new(event(&user, id, None, custom("note")))];
            tokio::spawn(async move { sequencer.submit(user, events, deadline).await })
        };
        let first = (waited > 0).then(|| emit("first", None));
        if waited > 0 {
            until("the append", || rig.engine.waiting() == 1).await;
        }
        let late = emit(
            "late",
            Some(Instant::now() + Duration::from_millis(deadline)),
        );
        let begun = Instant::now();
        let waited = Duration::from_millis(waited);
        until("the queue took so long", || begun.elapsed() >= waited).await;
        rig.engine.release();
        assert_eq!(words(&late.await.unwrap()), ["DEADLINE_EXCEEDED"], "{case}");
        if let Some(first) = first {
            assert_eq!(words(&first.await.unwrap()), ["stored"], "{case}");
        }
        let over = over_after(&rig, nodes, &user, 100).await;
        assert_eq!(over, ends_at, "{case}");
    }
}

/// Nor does a hung place of some range keep what is missed elsewhere from being told, nor do leases that hang.
#[tokio::test(start_paused = true)]
async fn each_range_is_told_of_by_itself() {
    let rig = rig();
    let users = [0, 5].map(user_of);
    for user in &users {
        rig.engine.break_stream(user);
    }
    rig.engine.places.hang(0..1, 0..16);
    let sequencer = rig.sequencer.clone();
    let telling = tokio::spawn(async move { sequencer.keep_telling().await });
    let sequencer = rig.sequencer.clone();
    let sweeping = tokio::spawn(async move { sequencer.sweep().await });
    let mut before = None;
    for tried in 0..5 {
        for user in &users {
            attempt(&rig.sequencer, user, None, "ENGINE_UNAVAILABLE").await;
        }
        within(
            SECOND + SECOND / 10,
            &format!("told, at {tried}"),
            async || {
                let now = told(&rig, 5).await;
                let is_news = now.is_some() && now != before;
                before = now;
                is_news
            },
        )
        .await;
        rig.clock.advance(SECOND);
    }
    assert!(!sweeping.is_finished(), "the sweep does not hang");
    assert_eq!(told(&rig, 0).await, None);
    rig.engine.places.hang(0..0, 0..0);
    within(12 * SECOND, "told later", async || {
        told(&rig, 0).await.is_some()
    })
    .await;
    assert!(!telling.is_finished());
    telling.abort();
}

#[tokio::test(start_paused = true)]
async fn no_range_waits_for_what_was_missed_of_another() {
    let rig = rig();
    // The second sweep begins at bucket 67 and asks for all of these at once.
    let users = [2, 5, 6].map(user_of);
    rig.sequencer.sweep().await;
    for user in &users {
        rig.start(user, MINUTE).await;
    }
    rig.clock.advance(MINUTE + SECOND);
    let sequencer = rig.sequencer.clone();
    rig.engine.places.hang(128..129, 0..0);
    let sweeping = tokio::spawn(async move { sequencer.sweep().await });
    within(SECOND, "the others are over", async || {
        is_over(&rig, &users[1]).await && is_over(&rig, &users[2]).await
    })
    .await;
    assert!(!is_over(&rig, &users[0]).await);
    assert_eq!(sweeping.await.unwrap(), 2);
}

/// Another node watched all the while: this one cannot know.
#[tokio::test(start_paused = true)]
async fn what_nobody_is_known_to_have_watched_is_no_news_for_others() {
    let rig = rig();
    let (way, one) = rig.node_over(&rig.clock, Config::default(), 2);
    let (taken, kept) = (user_of(0), user_of(12));
    second(&rig, &[&one]).await;
    rig.start(&taken, 25 * MINUTE).await;
    rig.start(&kept, 20 * MINUTE).await;
    // It does not reach some of its leases any more.
    way.places.set_away(0..0, 0..8);
    for _ in 0..15 * 60 {
        second(&rig, &[&one]).await;
    }
    let two = rig.node(Config::default(), 3);
    let nodes = &[&one, &two];
    assert_eq!(over_after(&rig, nodes, &kept, 15 * 60).await, 20 * 60);
    for range in 0..16 {
        assert_eq!(told(&rig, range).await, None, "of range {range}");
    }
    // The one that took them goes by it: nobody is known to have run until it did, nor is the minute after that held against
    // anyone.
    let over = over_after(&rig, &[&two], &taken, 20 * 60).await;
    assert_eq!(over, (25 + 15 + 1) * 60);
}

#[tokio::test(start_paused = true)]
async fn what_fails_while_nobody_goes_by_the_clock_is_never_told() {
    for unfit in [false, true] {
        let rig = rig();
        let (way, other) = rig.node_over(&rig.clock, Config::default(), 2);
        let nodes = &[&other, &rig.sequencer];
        rig.sequencer.sweep().await;
        let user = stream("u");
        rig.start(&user, 2 * MINUTE).await;
        way.set_unfit(unfit);
        for _ in 0..60 {
            way.script([Fault::Unavailable]);
            attempt(&other, &user, None, "ENGINE_UNAVAILABLE").await;
            second(&rig, nodes).await;
        }
        way.set_unfit(false);
        let over = over_after(&rig, nodes, &user, 60).await;
        // The last failed after 59 seconds.
        assert_eq!(over, if unfit { 120 } else { 239 }, "unfit: {unfit}");
    }
}

/// A node that goes tells first, and waits for no one for long.
#[tokio::test(start_paused = true)]
async fn leases_are_given_back_once_all_is_told() {
    let rig = rig();
    let user = user_of(3);
    let heir = &rig.node(Config::default(), 2);
    let nodes = &[&rig.sequencer, heir];
    second(&rig, nodes).await;
    rig.start(&user, 2 * MINUTE).await;
    rig.engine.script([Fault::Unavailable]);
    attempt(&rig.sequencer, &user, None, "ENGINE_UNAVAILABLE").await;
    for _ in 0..110 {
        second(&rig, nodes).await;
    }
    let before = told(&rig, 3).await;
    rig.engine.script([Fault::Unavailable]);
    attempt(&rig.sequencer, &user, None, "ENGINE_UNAVAILABLE").await;
    // Others come first more often than one round of telling takes.
    for _ in 0..7 {
        rig.engine.fail_next_set();
    }
    rig.sequencer.stop_watching().await;
    assert_ne!(told(&rig, 3).await, before, "told");
    // The first 60 seconds do not count, nor those from 110 to 170.
    let over = over_after(&rig, &[heir], &user, 110).await;
    assert_eq!(over, 240);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_hangs_holds_up_no_leases_for_long() {
    let rig = rig();
    let user = user_of(3);
    second(&rig, &[&rig.sequencer]).await;
    rig.engine.script([Fault::Unavailable]);
    attempt(&rig.sequencer, &user, None, "ENGINE_UNAVAILABLE").await;
    rig.engine.places.hang(192..193, 0..0);
    let lease = async || {
        let entry = rig.memory.get(&Key::Lease(3)).await.unwrap();
        entry.expect("a lease").value
    };
    let held = lease().await;
    let sequencer = rig.sequencer.clone();
    let stopping = tokio::spawn(async move { sequencer.stop_watching().await });
    let began = Instant::now();
    tokio::time::sleep(SECOND).await;
    assert_eq!(lease().await, held, "given back before all is told");
    stopping.await.unwrap();
    let took = began.elapsed();
    assert!(took <= 3 * SECOND, "{took:?}");
    assert_eq!(lease().await[..8], [0; 8], "given back");
}
