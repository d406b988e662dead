//! What is in memory is counted, and given back.

use std::{path::Path, sync::Arc, time::Duration};

use emitter::{
    clock::{Clock, Entropy},
    engine::{
        Engine,
        durable::{Config, DurableEngine, Sync},
    },
    telemetry::Metrics,
};

use super::{bounds, clock};
use crate::{
    processes::tools::until,
    support::events::{append, maintain_all, memory_on, notes, stream},
};

/// An engine, and what it says that it holds.
struct Weighed {
    engine: Arc<DurableEngine>,
    rendered: Box<dyn Fn() -> String>,
}

impl Weighed {
    fn open(directory: &Path, clock: &Clock) -> Self {
        let (metrics, rendered) = Metrics::new();
        let config = Config {
            directory: directory.to_owned(),
            sync: Sync::Group,
            bounds: bounds(),
        };
        let metrics = Arc::new(metrics);
        let engine = DurableEngine::open(config, clock.clone(), &Entropy::seeded(1), metrics);
        Self {
            engine: engine.unwrap(),
            rendered: Box::new(move || rendered.render()),
        }
    }

    async fn bytes(&self) -> usize {
        maintain_all(&*self.engine).await;
        let text = (self.rendered)();
        let bytes = text
            .lines()
            .find_map(|line| line.strip_prefix("emitter_engine_bytes "));
        bytes.expect("the gauge").parse().unwrap()
    }
}

#[tokio::test]
async fn what_the_writer_knows_of_streams_is_counted_and_given_back() {
    const STREAMS: usize = 50;
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let held = Weighed::open(directory.path(), &clock);
    assert_eq!(held.bytes().await, 0);
    let memory = memory_on(bounds(), &clock, 1);
    for user in 0..STREAMS {
        let user = stream(&format!("u{user}"));
        for engine in [&*held.engine as &dyn Engine, &*memory] {
            append(engine, &user, notes(&user, &["a"], clock.now())).await;
        }
    }
    let (bytes, without) = (held.bytes().await, memory.bytes());
    // A key, a place on disk and two sets for each.
    assert!(
        bytes >= without + STREAMS * 150,
        "{bytes}, {without} without"
    );
    held.engine.close().await;
    let held = Weighed::open(directory.path(), &clock);
    assert_eq!(held.bytes().await, bytes);
    clock.advance(Duration::from_secs(4_000));
    until("all is given back", async || {
        let left = held.bytes().await;
        println!("{left} of {bytes} bytes are left");
        left == 0
    })
    .await;
    held.engine.close().await;
}
