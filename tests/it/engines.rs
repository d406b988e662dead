//! The engines that need nothing installed, by the conformance suite and by the lives of runs.

use std::sync::Arc;

use emitter::{
    clock::Clock,
    engine::{Engine, memory::Config},
};
use tempfile::TempDir;
use tokio::runtime::Builder;

use crate::{
    engine_conformance::{bounds, conformance},
    run_property::{self, Lives},
    support::{
        events::{START, durable, memory},
        seed,
    },
};

conformance!(memory_engine, super::super::memory_engine_factory);
conformance!(durable_engine, super::super::durable_engine_factory);

fn memory_engine_factory() -> (Arc<dyn Engine>, Clock, ()) {
    let (engine, clock) = memory(bounds());
    (engine, clock, ())
}

fn durable_engine_factory() -> (Arc<dyn Engine>, Clock, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START);
    let engine = durable(directory.path(), bounds(), &clock, 1).expect("a new directory");
    (engine, clock, directory)
}

#[test]
fn runs_live_as_the_model_says_soak() {
    seed::each_seed(100, 1_000, async |seed| {
        let (engine, clock) = memory(Config::default());
        run_property::case(engine, clock, seed, 1_000).await;
    });
}

/// Each case goes through five processes, one after the other: the model does not notice.
#[test]
fn runs_live_as_the_model_says_in_a_directory_soak() {
    // The engine answers from a thread of its own: its time is not the runtime's to move.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    for seed in seed::seeds(3, 100) {
        println!("EMITTER_SEED={seed}");
        runtime.block_on(live_in_a_directory(seed));
    }
}

async fn live_in_a_directory(seed: u64) {
    let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::manual(START));
    let open = |seed| durable(directory.path(), Config::default(), &clock, seed).unwrap();
    let mut lives = Lives::new(open(seed), clock.clone(), seed);
    for process in 1..5 {
        lives = lives.go_on(100).await.end().await.on(open(seed + process));
    }
    lives.go_on(100).await.end().await;
}
