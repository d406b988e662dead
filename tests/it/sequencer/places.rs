//! A part of the engine is away, as a shard of a cluster is: that keeps nobody elsewhere from being watched, and excuses
//! nobody elsewhere.

use std::{ops::Range, sync::Arc, time::Duration};

use emitter::{
    engine::memory,
    event::{BUCKETS, Kind, StreamKey},
    sequencer::{Config, Sequencer},
};

use crate::support::{
    events::{custom, event},
    rig::{Rig, user_in, words},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Buckets and leases of one place. The leases are for these buckets, and for more that are elsewhere.
const AWAY: Range<usize> = 0..300;
const AWAY_LEASES: Range<usize> = 0..8;

/// Buckets elsewhere whose leases are in that place, and those whose leases are not. What nodes missed of the buckets from
/// 256 to 320 lies in the first of them.
const WITHOUT_LEASES: Range<usize> = 320..512;
const WELL: Range<usize> = 512..BUCKETS;

fn rig() -> Rig {
    Rig::with(Config::default(), memory::Config::default(), 1)
}

async fn is_over(rig: &Rig, user: &StreamKey) -> bool {
    let stored = rig.stored(user).await;
    stored
        .iter()
        .any(|record| record.draft.event.event_id.is_own())
}

/// Lets time pass, with a sweep of `nodes` each second.
async fn pass(rig: &Rig, nodes: &[&Arc<Sequencer>], time: Duration) {
    for _ in 0..time.as_secs() {
        rig.clock.advance(SECOND);
        for node in nodes {
            node.sweep().await;
        }
    }
}

/// The same, while `user` tries to say something every ten seconds and cannot.
async fn pass_trying(rig: &Rig, user: &StreamKey, time: Duration) {
    for _ in 0..time.as_secs() / 10 {
        let note = event(user, "note", None, custom("note"));
        let answers = rig.emit(user, [note]).await;
        assert_eq!(words(&answers), ["ENGINE_UNAVAILABLE"]);
        pass(rig, &[&rig.sequencer], 10 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn runs_elsewhere_end_in_time_and_those_there_do_not() {
    for tries in [false, true] {
        let rig = rig();
        let node = &[&rig.sequencer];
        let (there, others) = (user_in(&AWAY), [&WITHOUT_LEASES, &WELL].map(user_in));
        rig.sequencer.sweep().await;
        for user in others.iter().chain([&there]) {
            rig.start(user, 2 * MINUTE).await;
        }
        rig.engine.places.set_away(AWAY, AWAY_LEASES);
        match tries {
            true => pass_trying(&rig, &there, 2 * MINUTE - 10 * SECOND).await,
            false => pass(&rig, node, 2 * MINUTE - 10 * SECOND).await,
        }
        pass(&rig, node, 9 * SECOND).await;
        for user in &others {
            assert!(!is_over(&rig, user).await, "too early, tries: {tries}");
        }
        pass(&rig, node, 2 * SECOND).await;
        for user in &others {
            let bucket = user.bucket();
            assert!(is_over(&rig, user).await, "not in {bucket}, tries: {tries}");
        }
        pass(&rig, node, 5 * MINUTE).await;
        rig.engine.places.set_away(0..0, 0..0);
        pass(&rig, node, 58 * SECOND).await;
        assert!(!is_over(&rig, &there).await, "no chance, tries: {tries}");
        let run = there.user().as_str();
        let thinks = event(&there, "t", Some(run), Kind::AgentThinking);
        assert_eq!(words(&rig.emit(&there, [thinks]).await), ["stored"]);
        pass(&rig, node, 2 * MINUTE + 5 * SECOND).await;
        assert!(is_over(&rig, &there).await, "never, tries: {tries}");
    }
}

/// It may be the user's own stream that is broken.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_stored_for_one_user_excuses_no_other() {
    let rig = rig();
    let (broken, other) = (user_in(&AWAY), user_in(&WELL));
    rig.sequencer.sweep().await;
    for user in [&broken, &other] {
        rig.start(user, 2 * MINUTE).await;
    }
    rig.engine.break_stream(&broken);
    pass_trying(&rig, &broken, 2 * MINUTE - 10 * SECOND).await;
    assert!(!is_over(&rig, &other).await, "too early");
    pass(&rig, &[&rig.sequencer], 11 * SECOND).await;
    assert!(is_over(&rig, &other).await, "not in time");
}

/// The node that watched goes without a word, after the place was away or while it is. Its leases tell of the outage
/// where they could be renewed.
#[tokio::test(start_paused = true)]
async fn a_node_that_takes_over_knows_which_place_was_away() {
    for (one_until, two_from, leases) in [
        (306, 306, AWAY_LEASES),
        (299, 300, 8..16),
        (60, 0, AWAY_LEASES),
    ] {
        let case = format!("one until {one_until} s, two from {two_from} s");
        let rig = rig();
        let (one, two) = (&rig.sequencer, &rig.node(Config::default(), 2));
        let (there, other) = (user_in(&AWAY), user_in(&WELL));
        let mut seconds = 0;
        let mut until = async |end: u64| {
            while seconds < end {
                seconds += 1;
                let swept = [(one, seconds <= one_until), (two, seconds > two_from)];
                let nodes = swept.iter().filter(|(_, sweeps)| *sweeps);
                let nodes: Vec<_> = nodes.map(|(node, _)| *node).collect();
                pass(&rig, &nodes, SECOND).await;
            }
        };
        until(2).await;
        rig.start(&there, 2 * MINUTE).await;
        rig.engine.places.set_away(AWAY, leases);
        until(300).await;
        rig.engine.places.set_away(0..0, 0..0);
        until(306).await;
        rig.start(&other, 30 * SECOND).await;
        until(335).await;
        assert!(!is_over(&rig, &other).await, "too early, {case}");
        until(338).await;
        assert!(is_over(&rig, &other).await, "not in time, {case}");
        until(359).await;
        assert!(!is_over(&rig, &there).await, "no chance, {case}");
        until(500).await;
        assert!(is_over(&rig, &there).await, "never, {case}");
    }
}
