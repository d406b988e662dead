//! Streams, events and drafts in few words.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use emitter::{
    clock::{Clock, Entropy, Timestamp},
    engine::{
        Appended, Commit, Engine, ReadLimit,
        durable::{self, DurableEngine, OpenError},
        memory::{self, MemoryEngine},
    },
    event::{
        Action, Adjustment, Adjustments, AgentName, ContentHash, Draft, Event, EventId, Kind,
        Offset, ProducerId, Record, RunId, RunSequence, Source, StreamKey, Tenant, ThreadId,
        ToolCallId, ToolName, UserId,
    },
    telemetry::Metrics,
};

/// When manual clocks start.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// A page that holds whatever there is.
pub(crate) const ALL: ReadLimit = ReadLimit {
    records: usize::MAX,
    bytes: usize::MAX,
};

pub(crate) fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 60 * 60)
}

pub(crate) fn stream(user: &str) -> StreamKey {
    StreamKey::new(Tenant::new("default").unwrap(), UserId::new(user).unwrap())
}

pub(crate) fn run_id(id: &str) -> RunId {
    RunId::new(id).unwrap()
}

pub(crate) fn event_id(id: &str) -> EventId {
    EventId::new(id).unwrap()
}

pub(crate) fn custom(name: &str) -> Kind {
    Kind::Custom(name.into())
}

/// An event with a body of `body` bytes; its content is what it is made of, less its id.
pub(crate) fn sized(
    stream: &StreamKey,
    id: &str,
    run: Option<&str>,
    kind: Kind,
    body: usize,
) -> Event {
    Event {
        content: ContentHash::of(format!("{run:?} {kind:?} {body}").as_bytes()),
        ..Event::new(
            event_id(id),
            stream.clone(),
            run.map(run_id),
            kind,
            source("p", 0),
            Bytes::from(vec![b'x'; body]),
        )
    }
}

/// That one label was dropped.
pub(crate) fn adjusted() -> Adjustments {
    vec![Adjustment {
        field: "labels.k".into(),
        action: Action::Dropped,
        reason: "has a control character".into(),
    }]
    .into()
}

pub(crate) fn tool_call_id(id: &str) -> ToolCallId {
    ToolCallId::new(id).unwrap()
}

pub(crate) fn tool_name(name: &str) -> ToolName {
    ToolName::new(name).unwrap()
}

pub(crate) fn source(producer: &str, term: u64) -> Source {
    Source {
        producer_id: ProducerId::new(producer).unwrap(),
        term,
    }
}

/// An event of `kind`; see `sized`.
pub(crate) fn event(stream: &StreamKey, id: &str, run: Option<&str>, kind: Kind) -> Event {
    sized(stream, id, run, kind, 0)
}

/// An event without a run.
pub(crate) fn note(stream: &StreamKey, id: &str) -> Arc<Event> {
    Arc::new(event(stream, id, None, custom("note")))
}

/// The same event on `thread`, by `agent`.
pub(crate) fn of(event: Event, thread: &str, agent: &str) -> Event {
    Event {
        thread_id: Some(ThreadId::new(thread).unwrap()),
        agent_name: Some(AgentName::new(agent).unwrap()),
        ..event
    }
}

/// The draft of `event` as the `sequence`th event of its run.
pub(crate) fn draft(event: impl Into<Arc<Event>>, sequence: u64, now: Timestamp) -> Draft {
    Draft {
        run_sequence: RunSequence(sequence),
        ..Draft::new(event.into(), now)
    }
}

/// A commit of one draft without a run for each of `ids`.
pub(crate) fn notes(stream: &StreamKey, ids: &[&str], now: Timestamp) -> Commit {
    Commit {
        drafts: ids
            .iter()
            .map(|id| draft(note(stream, id), 0, now))
            .collect(),
    }
}

/// Appends `commit` at the head.
pub(crate) async fn append(engine: &dyn Engine, stream: &StreamKey, commit: Commit) -> Appended {
    let state = engine.load(stream).await.expect("load");
    engine.append(stream, &state, commit).await.expect("append")
}

/// Everything retained of `stream`.
pub(crate) async fn all(engine: &dyn Engine, stream: &StreamKey) -> Vec<Arc<Record>> {
    engine
        .read(stream, Offset(0), ALL)
        .await
        .expect("read")
        .records
}

pub(crate) fn ids(records: &[Arc<Record>]) -> Vec<String> {
    let id = |record: &Arc<Record>| record.draft.event.event_id.as_str().to_owned();
    records.iter().map(id).collect()
}

pub(crate) fn offsets(records: &[Arc<Record>]) -> Vec<u64> {
    let offset = |record: &Arc<Record>| record.position.offset.0;
    records.iter().map(offset).collect()
}

pub(crate) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().0)
}

/// A memory engine on a manual clock.
pub(crate) fn memory(config: memory::Config) -> (Arc<MemoryEngine>, Clock) {
    let clock = Clock::manual(START);
    let engine = MemoryEngine::new(config, clock.clone(), &Entropy::seeded(1), metrics());
    (engine, clock)
}

/// A memory engine on `clock`; what it draws is of `seed`.
pub(crate) fn memory_on(bounds: memory::Config, clock: &Clock, seed: u64) -> Arc<MemoryEngine> {
    MemoryEngine::new(bounds, clock.clone(), &Entropy::seeded(seed), metrics())
}

/// The durable engine over `directory`, on `clock`; what it draws is of `seed`.
pub(crate) fn durable(
    directory: &Path,
    bounds: memory::Config,
    clock: &Clock,
    seed: u64,
) -> Result<Arc<DurableEngine>, OpenError> {
    let config = durable::Config {
        directory: directory.to_owned(),
        sync: durable::Sync::Group,
        bounds,
    };
    DurableEngine::open(config, clock.clone(), &Entropy::seeded(seed), metrics())
}

/// Lets the engine give back everything that it can give back at this moment.
pub(crate) async fn maintain_all(engine: &dyn Engine) {
    for _ in 0..MemoryEngine::turns() {
        engine.maintain().await;
    }
}
