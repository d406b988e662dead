//! Random producers, readers, faults, retention and clock jumps, checked against a model of the promise: one order,
//! acknowledged means stored, once per id, and every reader gets everything after its cursor or is told the gap.
//!
//! A failing seed is printed; `EMITTER_SEED=<seed>` runs it again, `EMITTER_SOAK=1` runs many more.

mod model;
mod producer;
mod reader;

use std::{sync::Arc, time::Duration};

use emitter::{
    clock::Clock,
    engine::{Engine, memory},
    event::StreamKey,
    fanout::{self, Hub},
    sequencer,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::watch;

use self::{model::Log, producer::Producer, reader::Reader};
use crate::support::{
    events::{self, stream},
    faulty_engine::Odds,
    rig::{Rig, observing, until},
    schedule, seed,
};

/// What the tasks of one case share.
struct World {
    rig: Rig,
    hub: Arc<Hub>,
    /// For each user, everything that was ever stored.
    logs: Vec<Arc<Log>>,
    users: Vec<StreamKey>,
    /// The last offsets, once producers and faults are over.
    last: watch::Sender<Option<Vec<u64>>>,
}

impl World {
    async fn new(rng: &mut StdRng, seed: u64) -> Arc<Self> {
        let bounds = memory::Config {
            retention_records: rng.random_range(3..150),
            retention_bytes: rng.random_range(5_000..200_000),
            retention_age: Duration::from_secs(rng.random_range(60..20_000)),
            ..memory::Config::default()
        };
        let config = sequencer::Config {
            lanes: rng.random_range(1..100),
            ..observing()
        };
        let rig = Rig::with(config, bounds, seed);
        let tails = fanout::Config {
            tail_records: rng.random_range(1..40),
            tail_bytes: rng.random_range(1_000..100_000),
            tail_total_bytes: rng.random_range(0..100_000),
            page_records: rng.random_range(1..30),
            ..fanout::Config::default()
        };
        let hub = Hub::new(
            rig.engine.clone(),
            tails,
            rig.clock.clone(),
            events::metrics(),
        );
        let users: Vec<_> = ["u0", "u1"].map(stream).into();
        let mut logs = Vec::new();
        for user in &users {
            // Behind the faults: this watch hears of everything.
            logs.push(Log::new(&*rig.memory, user).await);
        }
        Arc::new(Self {
            rig,
            hub,
            logs,
            users,
            last: watch::Sender::new(None),
        })
    }
}

async fn case(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::new(&mut rng, seed).await;
    let mut odds = |most: f64| match rng.random_bool(0.3) {
        true => 0.0,
        false => rng.random_range(0.0..most),
    };
    world.rig.engine.set_odds(Odds {
        append: odds(0.4),
        call: odds(0.1),
        delay: odds(0.8),
        lost_hint: odds(0.5),
    });
    let mut seeds = || StdRng::seed_from_u64(rng.random());
    let producers: Vec<_> = (0..3)
        .map(|n| tokio::spawn(Producer::new(world.clone(), n, seeds()).run()))
        .collect();
    let readers: Vec<_> = (0..5)
        .map(|n| tokio::spawn(Reader::new(world.clone(), n % 2, seeds()).run()))
        .collect();
    let keeper = tokio::spawn(keep(world.clone(), seeds()));

    let mut histories = Vec::new();
    for producer in producers {
        histories.push(producer.await.expect("the producer ends"));
    }
    until("all is settled", || world.rig.sequencer.in_flight() == 0).await;
    world.rig.engine.set_odds(Odds::default());
    // A last record each, so that lost hints are healed.
    for user in &world.users {
        let end = events::event(user, "end", None, events::custom("end"));
        let answers = world.rig.emit(user, [end]).await;
        assert!(answers[0].is_ok(), "{answers:?}");
    }
    let last = world.logs.iter().map(|log| log.last()).collect();
    world.last.send_replace(Some(last));
    for reader in readers {
        reader.await.expect("the reader gets to the end");
    }
    keeper.abort();
    for log in &world.logs {
        log.check_order();
    }
    model::check_answers(&world.logs, &histories);
    assert_eq!(world.hub.users(), 0, "readers are gone");
}

/// How far the clock goes in one case: a run that was silent for a day may be forgotten or, still open, go on to be counted,
/// and the model does not know which are open.
const SPAN: Duration = Duration::from_secs(20 * 3_600);

/// Lets time pass, with jumps, and does the upkeep.
async fn keep(world: Arc<World>, mut rng: StdRng) {
    let clock: &Clock = &world.rig.clock;
    let mut left = SPAN;
    loop {
        schedule::pass(&mut rng, 1..30).await;
        let jump = match rng.random_range(0..40) {
            0 => rng.random_range(0..8_000_000),
            1..4 => rng.random_range(0..700_000),
            _ => rng.random_range(0..2_000),
        };
        let jump = left.min(Duration::from_millis(jump));
        left -= jump;
        clock.advance(jump);
        world.rig.sequencer.maintain();
        world.hub.maintain();
        world.rig.memory.maintain().await;
    }
}

#[test]
fn every_reader_gets_everything_or_is_told_soak() {
    seed::each_seed(1_000, 50_000, case);
}
