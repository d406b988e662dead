//! What could not be stored through one node, where another one watches over the runs.

use std::{sync::Arc, time::Duration};

use emitter::{
    engine::memory,
    event::{BUCKETS, Event, Kind, Step, StreamKey},
    sequencer::{Config, Sequencer},
};
use tokio::time::Instant;

use crate::support::{
    events::{event, source, stream},
    faulty_engine::{Fault, FaultyEngine, Odds},
    rig::{Answer, Rig, words},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Two nodes over one store. The first watches over all runs.
struct Nodes {
    rig: Rig,
    holder: Arc<Sequencer>,
    other: Arc<Sequencer>,
    /// The other's way to the store.
    way: Arc<FaultyEngine>,
    /// The other's deadline for each call.
    patience: Option<Duration>,
    seconds: u64,
}

impl Nodes {
    async fn new(config: Config) -> Self {
        let rig = Rig::with(Config::default(), memory::Config::default(), 1);
        let (way, other) = rig.node_over(&rig.clock, config, 2);
        let nodes = Self {
            holder: rig.sequencer.clone(),
            other,
            way,
            rig,
            patience: None,
            seconds: 0,
        };
        nodes.holder.sweep().await;
        nodes
    }

    /// Begins a run through the holder.
    async fn start(&self, user: &StreamKey, silence_timeout: Duration) {
        let run = user.user().as_str().to_owned();
        let starts = Event {
            step: Step::Start {
                silence_timeout: Some(silence_timeout),
            },
            ..event(user, "s", Some(&run), Kind::AgentStarted)
        };
        assert_eq!(words(&self.rig.emit(user, [starts]).await), ["stored"]);
    }

    /// A thought of the user's run, through the other node.
    async fn try_other(&self, user: &StreamKey) -> Vec<Answer> {
        let thinks = event(user, "t", Some(user.user().as_str()), Kind::AgentThinking);
        self.try_event(user, thinks).await
    }

    async fn try_event(&self, user: &StreamKey, event: Event) -> Vec<Answer> {
        let deadline = self.patience.map(|patience| Instant::now() + patience);
        let events = vec![Arc::new(event)];
        self.other.submit(user.clone(), events, deadline).await
    }

    /// Lets time pass until `end` seconds have; each second both nodes tell what they missed, and sweep.
    async fn until(&mut self, end: u64) {
        let nodes = [self.other.clone(), self.holder.clone()];
        self.until_by(&nodes, end).await;
    }

    async fn until_by(&mut self, nodes: &[Arc<Sequencer>], end: u64) {
        while self.seconds < end {
            self.seconds += 1;
            self.rig.clock.advance(SECOND);
            for node in nodes {
                node.tell_missed().await;
                node.sweep().await;
            }
        }
    }

    /// The same, while `user` tries to say something through the other node every ten seconds and gets `answer`.
    async fn until_trying(&mut self, user: &StreamKey, end: u64, answer: &str) {
        while self.seconds < end {
            assert_eq!(words(&self.try_other(user).await), [answer]);
            self.until((self.seconds + 10).min(end)).await;
        }
    }

    async fn is_over(&self, user: &StreamKey) -> bool {
        let stored = self.rig.stored(user).await;
        let mut events = stored.iter().map(|record| &record.draft.event);
        events.any(|event| event.event_id.is_own())
    }

    /// The user's run is ended when so many seconds have passed.
    async fn ends_at(&mut self, user: &StreamKey, seconds: u64, case: &str) {
        self.until(seconds - 2).await;
        assert!(!self.is_over(user).await, "too early: {case}");
        self.until(seconds + 2).await;
        assert!(self.is_over(user).await, "too late: {case}");
    }
}

/// Users of one bucket.
fn neighbours() -> [StreamKey; 2] {
    let user = stream("u");
    let mut others = (0..).map(|n| stream(&format!("v{n}")));
    let other = others.find(|other| other.bucket() == user.bucket());
    [user, other.expect("a neighbour")]
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_producer_is_refused_elsewhere_is_not_taken_for_silent() {
    let full = Config {
        queue_bytes: 0,
        ..Config::default()
    };
    let short = Some(Duration::from_millis(1));
    for (answer, config, patience, fault) in [
        (
            "ENGINE_UNAVAILABLE",
            Config::default(),
            None,
            Some(Fault::Unavailable),
        ),
        ("STREAM_FULL", Config::default(), None, Some(Fault::Full)),
        (
            "OUTCOME_UNKNOWN",
            Config::default(),
            None,
            Some(Fault::UnknownBefore),
        ),
        (
            "OUTCOME_UNKNOWN",
            Config::default(),
            None,
            Some(Fault::Panic),
        ),
        ("CONTENDED", Config::default(), None, Some(Fault::Conflict)),
        // After an attempt that failed.
        (
            "DEADLINE_EXCEEDED",
            Config::default(),
            short,
            Some(Fault::Conflict),
        ),
        // Its queue.
        ("ENGINE_UNAVAILABLE", full, None, None),
    ] {
        let case = format!("{answer} by {fault:?}");
        let mut nodes = Nodes::new(config).await;
        nodes.patience = patience;
        if let Some(Fault::Panic) = fault {
            // It is in a task of its own that the engine fails.
            nodes.way.set_odds(Odds {
                delay: 1.0,
                ..Odds::default()
            });
        }
        let [user, neighbour] = neighbours();
        for user in [&user, &neighbour] {
            nodes.start(user, 2 * MINUTE).await;
        }
        while nodes.seconds < 120 {
            if let Some(fault) = &fault {
                let attempts = if answer == "CONTENDED" { 8 } else { 1 };
                nodes.way.script(vec![fault.clone(); attempts]);
            }
            let end = nodes.seconds + 10;
            if end == 120 {
                assert_eq!(words(&nodes.try_other(&user).await), [answer], "{case}");
                nodes.ends_at(&neighbour, 120, &case).await;
            } else {
                nodes.until_trying(&user, end, answer).await;
            }
        }
        // What was refused last was so after 110 seconds: all until 170 do not count.
        nodes.ends_at(&user, 290, &case).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_a_reason_is_no_excuse() {
    let mut nodes = Nodes::new(Config::default()).await;
    let user = stream("u");
    nodes.start(&user, 2 * MINUTE).await;
    while nodes.seconds < 110 {
        let intruder = Event {
            source: source("intruder", 0),
            ..event(&user, "t", Some("u"), Kind::AgentThinking)
        };
        let unknown = event(&user, "x", Some("x"), Kind::AgentThinking);
        let answers = nodes.try_event(&user, intruder).await;
        assert_eq!(words(&answers), ["COMPETING_SOURCE"]);
        let answers = nodes.try_event(&user, unknown).await;
        assert_eq!(words(&answers), ["RUN_NOT_STARTED"]);
        nodes.until(nodes.seconds + 10).await;
    }
    nodes.ends_at(&user, 120, "its own fault").await;
}

/// By the clock of the node that could not store.
#[tokio::test(start_paused = true)]
async fn clocks_of_nodes_may_differ_by_as_much_as_the_excuse_is_off() {
    const APART: Duration = Duration::from_secs(40);
    for (ahead, ends_at) in [(true, 290), (false, 250)] {
        let mut nodes = Nodes::new(Config::default()).await;
        let now = nodes.rig.clock.now();
        let clock = emitter::clock::Clock::manual(if ahead { now + APART } else { now - APART });
        (nodes.way, nodes.other) = nodes.rig.node_over(&clock, Config::default(), 3);
        let user = stream("u");
        nodes.start(&user, 2 * MINUTE).await;
        nodes.way.break_stream(&user);
        for tried in 0..12 {
            assert_eq!(words(&nodes.try_other(&user).await), ["ENGINE_UNAVAILABLE"]);
            for second in 1..=10 {
                clock.advance(SECOND);
                nodes.until(tried * 10 + second).await;
            }
        }
        nodes
            .ends_at(&user, ends_at, &format!("ahead: {ahead}"))
            .await;
    }
}

/// What other nodes missed of 64 buckets lies in the first of them.
#[tokio::test(start_paused = true)]
async fn where_nobody_knows_what_other_nodes_missed_no_run_is_ended() {
    let mut nodes = Nodes::new(Config::default()).await;
    let mut users = (0..).map(|n| stream(&format!("u{n}")));
    let mut in_buckets = |buckets: std::ops::Range<usize>| {
        let found = users.find(|user| buckets.contains(&user.bucket()));
        found.expect("a user")
    };
    let (user, late) = (in_buckets(65..128), in_buckets(65..128));
    let elsewhere = in_buckets(128..BUCKETS);
    for user in [&user, &elsewhere] {
        nodes.start(user, 2 * MINUTE).await;
    }
    nodes.rig.engine.places.set_away(64..65, 0..0);
    nodes.ends_at(&elsewhere, 120, "elsewhere").await;
    nodes.until(200).await;
    nodes.start(&late, 2 * MINUTE).await;
    nodes.until(300).await;
    assert!(!nodes.is_over(&user).await, "judged blindly");
    nodes.rig.engine.places.set_away(0..0, 0..0);
    // It was silent for two minutes before that was noticed. That nobody could ask is no excuse.
    nodes.until(301).await;
    assert!(nodes.is_over(&user).await, "in reach again");
    nodes.ends_at(&late, 320, "no outage").await;
}

/// Whichever node could not store, and though it is gone as well.
#[tokio::test(start_paused = true)]
async fn the_heir_of_a_lease_knows_what_was_missed() {
    for by_holder in [true, false] {
        let case = format!("by the holder: {by_holder}");
        let mut nodes = Nodes::new(Config::default()).await;
        let (_, heir) = nodes.rig.node_over(&nodes.rig.clock, Config::default(), 3);
        let [user, neighbour] = neighbours();
        for user in [&user, &neighbour] {
            nodes.start(user, 5 * MINUTE).await;
        }
        let both = [nodes.holder.clone(), heir.clone()];
        match by_holder {
            true => {
                nodes.rig.engine.break_stream(&user);
                nodes.other = nodes.holder.clone();
            }
            false => nodes.way.break_stream(&user),
        }
        let trying = nodes.other.clone();
        while nodes.seconds < 100 {
            assert_eq!(words(&nodes.try_other(&user).await), ["ENGINE_UNAVAILABLE"]);
            let end = nodes.seconds + 10;
            while nodes.seconds < end {
                let next = nodes.seconds + 1;
                trying.tell_missed().await;
                nodes.until_by(&both, next).await;
            }
        }
        trying.tell_missed().await;
        (nodes.holder, nodes.other) = (heir.clone(), heir);
        nodes.ends_at(&neighbour, 300, &case).await;
        // The last was refused after 90 seconds.
        nodes.ends_at(&user, 450, &case).await;
    }
}

/// Nobody else can know before.
#[tokio::test(start_paused = true)]
async fn what_a_node_missed_that_was_cut_off_is_known_once_it_is_back() {
    let mut nodes = Nodes::new(Config::default()).await;
    let (user, short) = (stream("u"), stream("short"));
    nodes.start(&user, 2 * MINUTE).await;
    nodes.start(&short, MINUTE).await;
    nodes.way.places.set_away(0..BUCKETS, 0..16);
    nodes.until_trying(&user, 58, "ENGINE_UNAVAILABLE").await;
    nodes.ends_at(&short, 60, "the limit").await;
    nodes.until_trying(&user, 100, "ENGINE_UNAVAILABLE").await;
    nodes.way.places.set_away(0..0, 0..0);
    // It could not reach anything until 100, and from its first sweep on.
    nodes.ends_at(&user, 120 + 160, "back").await;
}

/// Other nodes tell at the same time, and the store fails at times.
#[tokio::test(start_paused = true)]
async fn what_is_not_told_at_once_is_told_later() {
    let mut nodes = Nodes::new(Config::default()).await;
    let user = stream("u");
    nodes.start(&user, 2 * MINUTE).await;
    nodes.way.break_stream(&user);
    nodes.until_trying(&user, 10, "ENGINE_UNAVAILABLE").await;
    assert_eq!(words(&nodes.try_other(&user).await), ["ENGINE_UNAVAILABLE"]);
    for _ in 0..3 {
        nodes.way.fail_next_set();
    }
    nodes.until(11).await;
    nodes.way.set_odds(Odds {
        call: 0.5,
        ..Odds::default()
    });
    nodes.until(40).await;
    let looks = nodes.way.looks();
    nodes.way.set_odds(Odds::default());
    nodes.until(50).await;
    // Of leases only: what is told is no news.
    assert_eq!(nodes.way.looks() - looks, 16 * 10);
    nodes.ends_at(&user, 190, "told later").await;
}

#[tokio::test(start_paused = true)]
async fn what_several_nodes_tell_comes_together() {
    let mut nodes = Nodes::new(Config::default()).await;
    let (way, third) = nodes.rig.node_over(&nodes.rig.clock, Config::default(), 3);
    let [user, neighbour] = neighbours();
    for user in [&user, &neighbour] {
        nodes.start(user, 2 * MINUTE).await;
    }
    nodes.way.break_stream(&user);
    way.break_stream(&neighbour);
    // One of them fails, then the other, and then each for a moment.
    nodes.until_trying(&user, 50, "ENGINE_UNAVAILABLE").await;
    let other = std::mem::replace(&mut nodes.other, third);
    nodes
        .until_trying(&neighbour, 100, "ENGINE_UNAVAILABLE")
        .await;
    for (node, user) in [(nodes.other.clone(), &neighbour), (other, &user)] {
        nodes.other = node;
        assert_eq!(words(&nodes.try_other(user).await), ["ENGINE_UNAVAILABLE"]);
        nodes.until(101).await;
    }
    nodes.until(102).await;
    // From 50 to 160, and until 161 but for a second or two.
    nodes.ends_at(&neighbour, 120 + 110, "neighbour").await;
    nodes.ends_at(&user, 120 + 160, "user").await;
}
