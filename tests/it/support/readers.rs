//! A hub over a memory engine that can be told to misbehave, and what its readers see.

use std::sync::Arc;

use emitter::{
    clock::Clock,
    engine::{Bounded, Commit, Engine, memory, memory::MemoryEngine},
    event::{Event, StreamKey},
    fanout::{Config, Delivery, Filter, GapReason, Hub, Start, Subscription},
};
use futures_util::FutureExt;

use super::{
    epoch_engine::EpochEngine,
    events::{self, custom, draft, event},
    faulty_engine::FaultyEngine,
    rig::ENGINE_TIMEOUT,
};

/// More than any page has.
pub(crate) const MUCH: usize = 1 << 30;

pub(crate) struct Readers {
    pub(crate) memory: Arc<MemoryEngine>,
    pub(crate) epochs: Arc<EpochEngine>,
    pub(crate) engine: Arc<FaultyEngine>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) clock: Clock,
    pub(crate) user: StreamKey,
}

impl Readers {
    pub(crate) fn new() -> Self {
        Self::with(Config::default(), memory::Config::default())
    }

    pub(crate) fn with(config: Config, bounds: memory::Config) -> Self {
        let (memory, clock) = events::memory(bounds);
        let epochs = EpochEngine::new(memory.clone());
        let engine = FaultyEngine::new(epochs.clone(), 1);
        let bounded = Bounded::new(engine.clone(), ENGINE_TIMEOUT);
        let hub = Hub::new(bounded, config, clock.clone(), events::metrics());
        Self {
            memory,
            epochs,
            engine,
            hub,
            clock,
            user: events::stream("u"),
        }
    }

    pub(crate) async fn reader(&self, start: Start) -> Subscription {
        self.filtered(start, Filter::default()).await
    }

    pub(crate) async fn filtered(&self, start: Start, filter: Filter) -> Subscription {
        let subscribed = self.hub.subscribe(&self.user, start, filter).await;
        subscribed.expect("subscribed")
    }

    /// Appends one event of type `kind` with the id `id`. Returns its offset.
    pub(crate) async fn typed(&self, id: &str, kind: &str) -> u64 {
        self.store(event(&self.user, id, None, custom(kind))).await
    }

    /// Appends a note for each of `ids`, one by one. Returns the last one's offset.
    pub(crate) async fn notes(&self, ids: impl IntoIterator<Item = &str>) -> u64 {
        let mut last = 0;
        for id in ids {
            last = self.typed(id, "note").await;
        }
        last
    }

    pub(crate) async fn store(&self, event: Event) -> u64 {
        let drafts = vec![draft(event, 0, self.clock.now())];
        // Not through the faults: only its hints may be lost.
        let engine: &dyn Engine = &*self.epochs;
        let appended = events::append(engine, &self.user, Commit { drafts }).await;
        appended.records[0].position.offset.0
    }
}

/// A filter that admits one type.
pub(crate) fn only(kind: &str) -> Filter {
    Filter {
        types: Some([kind.to_owned()].into()),
        ..Filter::default()
    }
}

/// A delivery in words: `a b`, `gap trimmed 1 to 3`, `caught up 3`.
pub(crate) fn told(delivery: &Delivery) -> String {
    match delivery {
        Delivery::Events { entries, .. } => {
            let id = |entry: &Arc<emitter::fanout::Entry>| {
                entry.record.draft.event.event_id.as_str().to_owned()
            };
            entries.iter().map(id).collect::<Vec<_>>().join(" ")
        }
        Delivery::Gap(gap) => {
            let reason = match gap.reason {
                GapReason::Trimmed => "trimmed",
                GapReason::EpochChanged => "epoch changed",
                GapReason::PositionAhead => "position ahead",
            };
            let (after, next) = (gap.after.offset.0, gap.next.offset.0);
            format!("gap {reason} {after} to {next}")
        }
        Delivery::CaughtUp(position) => format!("caught up {}", position.offset.0),
    }
}

/// What `reader` is told without waiting, in words; at most 1,000 deliveries.
pub(crate) fn seen(reader: &mut Subscription) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(delivery) = reader.next(MUCH).now_or_never() {
        seen.push(told(&delivery.expect("the engine answers")));
        assert!(seen.len() < 1_000, "no end: {seen:?}");
    }
    seen
}
