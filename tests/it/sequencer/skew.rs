//! Nodes whose wall clocks differ.

use std::{sync::Arc, time::Duration};

use emitter::{
    clock::Clock,
    engine::memory,
    event::{Event, Kind, Step, StreamKey},
    sequencer::{Config, Sequencer},
};

use crate::support::{
    events::{START, event, stream},
    places::PutAt,
    rig::{Rig, words},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// Two nodes that share a store, and the clock of each.
struct Nodes {
    rig: Rig,
    put_at: PutAt,
    /// Of the second.
    clock: Clock,
    one: Arc<Sequencer>,
    two: Arc<Sequencer>,
}

impl Nodes {
    /// The clock of the second node is `by` ahead of the first one's, or behind it.
    fn apart(by: Duration, ahead: bool) -> Self {
        let rig = Rig::with(Config::default(), memory::Config::default(), 1);
        let put_at = PutAt::default();
        rig.engine.places.stamp_by(&rig.clock, &put_at);
        let clock = Clock::manual(if ahead { START + by } else { START - by });
        Self {
            one: rig.sequencer.clone(),
            two: rig.node_by(&clock, &put_at, 2),
            rig,
            put_at,
            clock,
        }
    }

    /// Begins a run through the first node.
    async fn start(&self, user: &StreamKey, silence_timeout: Duration) {
        let starts = Event {
            step: Step::Start {
                silence_timeout: Some(silence_timeout),
            },
            ..event(user, "s", Some("r"), Kind::AgentStarted)
        };
        assert_eq!(words(&self.rig.emit(user, [starts]).await), ["stored"]);
    }

    /// Lets time pass, with a sweep of `nodes` each second.
    async fn pass(&self, nodes: &[&Arc<Sequencer>], time: Duration) {
        for _ in 0..time.as_secs() {
            self.rig.clock.advance(SECOND);
            self.clock.advance(SECOND);
            for node in nodes {
                node.sweep().await;
            }
        }
    }

    /// Whether the service has ended the user's run.
    async fn is_over(&self, user: &StreamKey) -> bool {
        let stored = self.rig.stored(user).await;
        stored
            .iter()
            .any(|record| record.draft.event.event_id.is_own())
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_run_ends_in_time_and_no_lease_changes_hands() {
    for by in [20 * SECOND, 40 * SECOND, HOUR] {
        for ahead in [false, true] {
            let case = format!("{by:?} ahead: {ahead}");
            let (nodes, user) = (Nodes::apart(by, ahead), stream("u"));
            let both = [&nodes.one, &nodes.two];
            nodes.pass(&both, 3 * MINUTE).await;
            nodes.start(&user, 20 * SECOND).await;
            nodes.pass(&both, 19 * SECOND).await;
            assert!(!nodes.is_over(&user).await, "too early, {case}");
            nodes.pass(&both, 2 * SECOND).await;
            assert!(nodes.is_over(&user).await, "never, {case}");
        }
    }
}

/// By the clock of the node that watches then, which ran all the while.
#[tokio::test(start_paused = true)]
async fn a_node_that_goes_without_a_word_is_missed_within_seconds() {
    for (ahead, ends_after) in [(true, 4 * MINUTE), (false, 6 * MINUTE)] {
        let (nodes, user) = (Nodes::apart(MINUTE, ahead), stream("u"));
        nodes.pass(&[&nodes.one, &nodes.two], 3 * MINUTE).await;
        nodes.start(&user, 5 * MINUTE).await;
        nodes.pass(&[&nodes.two], ends_after - SECOND).await;
        assert!(!nodes.is_over(&user).await, "too early, ahead: {ahead}");
        nodes.pass(&[&nodes.two], 2 * SECOND).await;
        assert!(nodes.is_over(&user).await, "too late, ahead: {ahead}");
    }
}

/// What the lease says of the time before is by another clock.
#[tokio::test(start_paused = true)]
async fn a_restart_leaves_a_minute_whatever_clock_the_lease_was_put_by() {
    for ahead in [false, true] {
        let (nodes, user) = (Nodes::apart(MINUTE, ahead), stream("u"));
        nodes.pass(&[&nodes.two], 30 * SECOND).await;
        nodes.start(&user, 10 * SECOND).await;
        nodes.pass(&[], SECOND).await;
        let three = nodes.rig.node_by(&nodes.rig.clock, &nodes.put_at, 3);
        nodes.pass(&[&three], MINUTE).await;
        assert!(!nodes.is_over(&user).await, "too early, ahead: {ahead}");
        nodes.pass(&[&three], 12 * SECOND).await;
        assert!(nodes.is_over(&user).await, "too late, ahead: {ahead}");
    }
}
