//! The watchdog: what it costs while nothing is due, and what a verdict costs.

use std::{sync::Arc, time::Duration};

use criterion::{Criterion, Throughput};
use emitter::{
    clock::{Clock, Entropy, Timestamp},
    engine::memory::{self, MemoryEngine},
    event::{Event, EventId, Kind, ProducerId, RunId, Source, StreamKey, Tenant, UserId},
    sequencer::{self, Sequencer},
    telemetry::Metrics,
};
use tokio::runtime::Runtime;

const USERS: usize = 1_000;
const RUNS_PER_USER: usize = 100;

/// Longer than a run may be silent.
const SILENCE: Duration = Duration::from_secs(16 * 60);

pub(crate) fn watchdog(c: &mut Criterion) {
    let runtime = super::runtime();
    let mut group = c.benchmark_group("watchdog");
    group.sample_size(10);
    group.bench_function("sweep, 100,000 open runs, none due", |b| {
        let (sequencer, _) = runtime.block_on(open_runs());
        b.iter(|| assert_eq!(runtime.block_on(sequencer.sweep()), 0));
    });
    group.throughput(Throughput::Elements((USERS * RUNS_PER_USER) as u64));
    group.bench_function("verdicts, 100,000 runs due", |b| {
        b.iter_custom(|times| (0..times).map(|_| verdicts(&runtime)).sum());
    });
    group.finish();
}

/// How long it takes to end as many runs as there are.
fn verdicts(runtime: &Runtime) -> Duration {
    let (sequencer, clock) = runtime.block_on(open_runs());
    clock.advance(SILENCE);
    let begun = std::time::Instant::now();
    let ended = runtime.block_on(sequencer.sweep());
    let took = begun.elapsed();
    assert_eq!(ended, USERS * RUNS_PER_USER);
    assert_eq!(runtime.block_on(sequencer.sweep()), 0);
    took
}

/// A sequencer with many open runs, by a clock that stands still.
async fn open_runs() -> (Arc<Sequencer>, Clock) {
    let metrics = Arc::new(Metrics::new().0);
    let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
    let entropy = Entropy::system();
    let config = memory::Config::default();
    let engine = MemoryEngine::new(config, clock.clone(), &entropy, metrics.clone());
    let config = sequencer::Config::default();
    let sequencer = Sequencer::new(engine, clock.clone(), entropy, config, metrics);
    for user in 0..USERS {
        let user = UserId::new(&format!("user-{user}")).unwrap();
        let stream = StreamKey::new(Tenant::new("default").unwrap(), user);
        let starts = (0..RUNS_PER_USER)
            .map(|run| started(&stream, run))
            .collect();
        let answers = sequencer.submit(stream.clone(), starts, None).await;
        assert!(answers.iter().all(Result::is_ok));
    }
    (sequencer, clock)
}

fn started(stream: &StreamKey, run: usize) -> Arc<Event> {
    let run_id = format!("run-{}-{run}", stream.user().as_str());
    Arc::new(Event::new(
        EventId::new(&format!("{run_id}-1")).unwrap(),
        stream.clone(),
        RunId::new(&run_id).ok(),
        Kind::AgentStarted,
        Source::new(ProducerId::new("agents").unwrap()),
        Vec::new().into(),
    ))
}
