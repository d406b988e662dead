//! The emission path, piece by piece: decide, append, encode, hub wake-up; and the watchdog beside it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark fails by panicking"
)]

mod watchdog;

use std::{collections::HashSet, hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use emitter::{
    clock::{Clock, Entropy},
    egress::{Encoder, Encoding},
    engine::{
        Commit, Engine, StreamState,
        memory::{self, MemoryEngine},
    },
    event::{
        Draft, Epoch, Event, EventId, Kind, Offset, Position, ProducerId, Record, RunId,
        RunSequence, Source, StreamKey, Tenant, ThreadId, UserId,
    },
    fanout::{self, Delivery, Encode, Filter, Hub, Start},
    proto::v1,
    sequencer::{Group, Rules, Sequencer},
    telemetry::Metrics,
};
use prost::Message;

const BATCH: usize = 100;

fn event(n: usize) -> Arc<Event> {
    let payload = v1::event::Payload::AgentThinking(v1::AgentThinking {
        reasoning: "Comparing the three candidates by price and delivery date.".into(),
        step_number: Some(3),
        ..Default::default()
    });
    let body = v1::Event {
        payload: Some(payload),
        ..Default::default()
    };
    let body = body.encode_to_vec();
    // The first of them begins the run.
    let kind = match n {
        0 => Kind::AgentStarted,
        _ => Kind::AgentThinking,
    };
    Arc::new(Event {
        thread_id: ThreadId::new("thread-1").ok(),
        ..Event::new(
            EventId::new(&format!("01890a5d-ac96-774b-bcce-{n:012}")).unwrap(),
            stream(),
            RunId::new("run-1").ok(),
            kind,
            Source::new(ProducerId::new("agents").unwrap()),
            body.into(),
        )
    })
}

fn stream() -> StreamKey {
    StreamKey::new(
        Tenant::new("default").unwrap(),
        UserId::new("user-1").unwrap(),
    )
}

fn draft(n: usize) -> Draft {
    Draft {
        run_sequence: RunSequence(n as u64 + 1),
        ..Draft::new(event(n), Clock::system().now())
    }
}

fn record(n: usize) -> Record {
    Record {
        position: Position::new(Epoch::new(1), Offset(n as u64 + 1)),
        prev: Offset(n as u64),
        draft: draft(n),
    }
}

fn engine() -> (Arc<MemoryEngine>, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new().0);
    let config = memory::Config::default();
    let clock = Clock::system();
    let engine = MemoryEngine::new(config, clock, &Entropy::system(), metrics.clone());
    (engine, metrics)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn decide(c: &mut Criterion) {
    let (rules, stream) = (Rules::default(), stream());
    let state = StreamState::empty(Position::new(Epoch::new(1), Offset(0)));
    let events: Vec<_> = (0..BATCH).map(event).collect();
    let nobody = HashSet::new();
    let now = Clock::system().now();
    let mut group = c.benchmark_group("decide");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("batch of 100", |b| {
        b.iter(|| {
            let mut group = Group::new(&stream, &state, &rules, now, &nobody);
            for event in &events {
                black_box(group.decide(event).is_ok());
            }
            group.into_drafts()
        });
    });
    group.finish();
}

fn append(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("engine, commit of 100", |b| {
        let (engine, _) = engine();
        let stream = stream();
        let mut state = runtime.block_on(engine.load(&stream)).unwrap();
        let mut n = 0;
        b.iter_batched(
            || {
                n += BATCH;
                (n..n + BATCH).map(draft).collect()
            },
            |drafts| {
                let append = engine.append(&stream, &state, Commit { drafts });
                let appended = runtime.block_on(append).unwrap();
                state.head = appended.records[BATCH - 1].position;
                appended
            },
            BatchSize::SmallInput,
        );
    });
    for size in [1, BATCH] {
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(format!("sequencer, call of {size}"), |b| {
            let (engine, metrics) = engine();
            let config = emitter::sequencer::Config::default();
            let sequencer =
                Sequencer::new(engine, Clock::system(), Entropy::system(), config, metrics);
            let submit = |events| {
                let answers = runtime.block_on(sequencer.submit(stream(), events, None));
                assert!(answers[0].is_ok());
                answers
            };
            submit(vec![event(0)]);
            let mut n = 1;
            b.iter_batched(
                || {
                    n += size;
                    (n - size..n).map(event).collect()
                },
                submit,
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let record = record(1);
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    for (name, encoding) in [
        ("json frame", Encoding::Json),
        ("server-sent event", Encoding::Sse),
        ("protobuf response", Encoding::Proto),
    ] {
        let encoder = Encoder::new(encoding, metrics::Counter::noop());
        group.bench_function(name, |b| b.iter(|| encoder.encode(&record)));
    }
    group.finish();
}

fn wake_up(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("hub");
    for readers in [1, 100] {
        group.throughput(Throughput::Elements(readers));
        group.bench_function(format!("append to delivery, {readers} readers"), |b| {
            let (engine, metrics) = engine();
            let hub = Hub::new(
                engine.clone(),
                fanout::Config::default(),
                Clock::system(),
                metrics,
            );
            let stream = stream();
            let mut subscriptions = runtime.block_on(async {
                let mut all = Vec::new();
                for _ in 0..readers {
                    let filter = Filter::default();
                    let mut one = hub.subscribe(&stream, Start::Head, filter).await.unwrap();
                    assert!(matches!(one.next(1 << 16).await, Ok(Delivery::CaughtUp(_))));
                    all.push(one);
                }
                all
            });
            let mut state = runtime.block_on(engine.load(&stream)).unwrap();
            let mut n = 0;
            b.iter(|| {
                n += 1;
                runtime.block_on(async {
                    let commit = Commit {
                        drafts: vec![draft(n)],
                    };
                    let appended = engine.append(&stream, &state, commit).await.unwrap();
                    state.head = appended.records[0].position;
                    for one in &mut subscriptions {
                        black_box(one.next(1 << 16).await.unwrap());
                    }
                });
            });
        });
    }
    group.finish();
}

criterion_group!(path, decide, append, encode, wake_up, watchdog::watchdog);
criterion_main!(path);
