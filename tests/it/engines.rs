//! The engines that need nothing installed, by the conformance suite and by the lives of runs.

use std::sync::Arc;

use emitter::{
    clock::Clock,
    engine::{Engine, memory::Config},
};
use tempfile::TempDir;

use crate::{
    engine_conformance::{bounds, conformance},
    run_property,
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
    seed::each_seed(seed::cases(100, 1_000), async |seed| {
        let (engine, clock) = memory(Config::default());
        run_property::case(engine, clock, seed, 1_000).await;
    });
}
