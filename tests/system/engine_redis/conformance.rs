//! The conformance suite on a server of its own for each test and on a cluster, and the lives of runs.

use std::{pin::Pin, sync::Arc, thread};

use emitter::{
    clock::Clock,
    engine::{
        Engine,
        redis::{Config, Mode},
    },
};
use tokio::runtime::{Builder, Runtime};

use super::{config, config_of, node};
use crate::{
    engine_conformance::{bounds, conformance},
    redis::{IN_MEMORY, Redis},
    run_property,
    support::{events::START, seed},
};

conformance!(redis_engine, super::super::one_server);

/// Servers, and the runtime that the engine's connections live on: the suite blocks its own.
struct Held {
    runtime: Option<Runtime>,
    _servers: Vec<Redis>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What `make` makes, on a runtime of its own.
fn elsewhere<T: Send + 'static>(
    make: impl AsyncFnOnce() -> (T, Vec<Redis>) + Send + 'static,
) -> (T, Held) {
    let making = thread::spawn(move || {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (made, servers) = runtime.block_on(make());
        let held = Held {
            runtime: Some(runtime),
            _servers: servers,
        };
        (made, held)
    });
    making.join().unwrap()
}

fn one_server() -> (Arc<dyn Engine>, Clock, Held) {
    let clock = Clock::manual(START);
    let its = clock.clone();
    let (engine, held) = elsewhere(async move || {
        let server = Redis::start(IN_MEMORY).await;
        let engine = node(config(&server, bounds()), &its);
        (engine, vec![server])
    });
    (engine, clock, held)
}

type Case =
    Box<dyn FnOnce(Arc<dyn Engine>, Clock) -> Pin<Box<dyn Future<Output = ()>>> + Send + 'static>;

#[test]
fn the_suite_holds_on_a_cluster() {
    let (urls, held) = elsewhere(async || {
        let nodes = Redis::cluster().await;
        (super::urls(&nodes), nodes.into())
    });
    let runtime = held.runtime.as_ref().unwrap();
    let mut failed = Vec::new();
    let mut count = 0;
    let mut run = |name: &'static str, case: Case| {
        count += 1;
        let clock = Clock::manual(START);
        let config = Config {
            mode: Mode::Cluster,
            urls: urls.clone(),
            prefix: format!("case-{count}"),
            ..config_of(bounds())
        };
        let engine = {
            let _entered = runtime.enter();
            node(config, &clock)
        };
        let case = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(case(engine, clock));
        });
        if case.join().is_err() {
            failed.push(name);
        }
    };
    conformance!(each run);
    assert!(failed.is_empty(), "{failed:?} of {count}");
    assert!(count > 50, "{count}");
}

#[test]
fn runs_live_as_the_model_says_on_redis_soak() {
    let seed = seed::seed();
    for seed in seed..seed + seed::cases(2, 40) {
        let (engine, clock, _held) = one_server();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        println!("EMITTER_SEED={seed}");
        runtime.block_on(run_property::case(engine, clock, seed, 500));
    }
}
