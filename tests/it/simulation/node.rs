//! A node: a sequencer, a hub, and its own way to the store.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use emitter::{
    clock::{Clock, Entropy},
    engine::Bounded,
    event::BUCKETS,
    fanout::{self, Hub},
    run::Defaults,
    sequencer::{Config, Rules, Sequencer},
};
use tokio::task::JoinSet;

use super::{HOUR, SECOND, world::World};
use crate::support::{
    events,
    faulty_engine::{FaultyEngine, Odds},
    gate::Gate,
};

/// How long a node that is in touch with the store may take to tell the others what could not be stored through it: it
/// tries every second, and a call may fail by chance.
const TELLS_WITHIN: Duration = Duration::from_secs(30);

/// How long the store may take.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Node {
    pub(super) sequencer: Arc<Sequencer>,
    pub(super) hub: Arc<Hub>,
    pub(super) engine: Arc<FaultyEngine>,
    /// Shut while it lives.
    death: Gate,
    upkeep: Mutex<JoinSet<()>>,
    clock: Clock,
    touch: Mutex<Touch>,
}

/// Whether a node reaches the store.
#[derive(Default)]
struct Touch {
    frozen: bool,
    cut_off: bool,
    dead: bool,
    /// When that changed, by the time that passes, and whether it did from then on.
    changes: Vec<(Duration, bool)>,
}

impl Node {
    pub(super) fn start(world: &World, seed: u64) -> Arc<Self> {
        let engine = FaultyEngine::new(world.epochs.clone(), seed);
        let config = Config {
            rules: Rules {
                run_memory: 100 * HOUR,
                defaults: Defaults {
                    silence_timeout: 60 * SECOND,
                    ..Defaults::default()
                },
                ..Rules::default()
            },
            ..Config::default()
        };
        let bounded = Bounded::new(engine.clone(), ENGINE_TIMEOUT);
        let sequencer = Sequencer::new(
            bounded.clone(),
            world.clock.clone(),
            Entropy::seeded(seed),
            config,
            events::metrics(),
        );
        let tails = fanout::Config {
            tail_records: 16,
            page_records: 10,
            ..fanout::Config::default()
        };
        let hub = Hub::new(bounded, tails, world.clock.clone(), events::metrics());
        let node = Arc::new(Self {
            sequencer,
            hub,
            engine,
            death: Gate::shut(),
            upkeep: Mutex::default(),
            clock: world.clock.clone(),
            touch: Mutex::default(),
        });
        node.touch(|_| {});
        node.keep_up();
        node
    }

    /// What a node does from time to time.
    fn keep_up(&self) {
        let mut upkeep = self.upkeep.lock().unwrap();
        let sequencer = self.sequencer.clone();
        upkeep.spawn(async move {
            loop {
                sequencer.sweep().await;
                tokio::time::sleep(SECOND).await;
            }
        });
        let sequencer = self.sequencer.clone();
        upkeep.spawn(async move {
            loop {
                sequencer.tell_missed().await;
                tokio::time::sleep(SECOND).await;
            }
        });
        let (sequencer, hub) = (self.sequencer.clone(), self.hub.clone());
        upkeep.spawn(async move {
            loop {
                sequencer.maintain();
                hub.maintain();
                tokio::time::sleep(SECOND).await;
            }
        });
        let engine = self.engine.clone();
        upkeep.spawn(async move {
            loop {
                engine.tell_heads().await;
                tokio::time::sleep(5 * SECOND).await;
            }
        });
    }

    /// What it does from now on reaches nobody.
    pub(super) fn die(&self) {
        self.upkeep.lock().unwrap().abort_all();
        self.touch(|touch| touch.dead = true);
        self.freeze(true);
        self.death.set_shut(false);
    }

    /// Resolves when it has died.
    pub(super) async fn died(&self) {
        self.death.pass().await;
    }

    /// The store does not answer, or does again.
    pub(super) fn freeze(&self, frozen: bool) {
        self.touch(|touch| touch.frozen = frozen);
        self.engine.hold_calls(frozen);
        match frozen {
            true => self.engine.hold(),
            false => self.engine.release(),
        }
    }

    /// The store cannot be reached from here, or can again.
    pub(super) fn cut_off(&self, cut_off: bool) {
        self.touch(|touch| touch.cut_off = cut_off);
        match cut_off {
            true => self.engine.places.set_away(0..BUCKETS, 0..BUCKETS),
            false => self.engine.places.set_away(0..0, 0..0),
        }
    }

    pub(super) fn heal(&self) {
        self.engine.set_odds(Odds::default());
        self.freeze(false);
        self.cut_off(false);
    }

    fn touch(&self, change: impl FnOnce(&mut Touch)) {
        let touch = &mut *self.touch.lock().unwrap();
        change(touch);
        let is_in_touch = !touch.frozen && !touch.cut_off && !touch.dead;
        touch.changes.push((self.clock.steady(), is_in_touch));
    }

    /// When the others know at the latest what could not be stored here at `at`: once this node was in touch with the
    /// store for long enough. Where it never is, they may not.
    pub(super) fn has_told_by(&self, at: Duration) -> Option<Duration> {
        let changes = &self.touch.lock().unwrap().changes;
        let ends = changes.iter().skip(1).map(|(end, _)| *end);
        let stretches = changes.iter().zip(ends.chain([Duration::MAX]));
        let mut told = stretches.filter_map(|((begin, is_in_touch), end)| {
            let told = at.max(*begin) + TELLS_WITHIN;
            (*is_in_touch && told <= end).then_some(told)
        });
        told.next()
    }
}
