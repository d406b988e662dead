//! A node: a sequencer, a hub, and its own way to the store.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use emitter::{
    clock::Entropy,
    engine::Bounded,
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

/// How long the store may take.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Node {
    pub(super) sequencer: Arc<Sequencer>,
    pub(super) hub: Arc<Hub>,
    pub(super) engine: Arc<FaultyEngine>,
    /// Shut while it lives.
    death: Gate,
    upkeep: Mutex<JoinSet<()>>,
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
        });
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
        self.freeze(true);
        self.death.set_shut(false);
    }

    /// Resolves when it has died.
    pub(super) async fn died(&self) {
        self.death.pass().await;
    }

    /// The store does not answer, or does again.
    pub(super) fn freeze(&self, frozen: bool) {
        self.engine.hold_calls(frozen);
        match frozen {
            true => self.engine.hold(),
            false => self.engine.release(),
        }
    }

    pub(super) fn heal(&self) {
        self.engine.set_odds(Odds::default());
        self.freeze(false);
    }
}
