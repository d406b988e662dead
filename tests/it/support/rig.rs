//! A sequencer over a memory engine that can be told to misbehave.

use std::{ops::Range, sync::Arc, time::Duration};

use emitter::{
    clock::{Clock, Entropy},
    engine::{
        Bounded,
        memory::{self, MemoryEngine},
    },
    event::{Event, Kind, Receipt, Record, Step, StreamKey},
    reason::Refusal,
    sequencer::{Config, Mode, Rules, Sequencer},
};

use super::{epoch_engine::EpochEngine, events, faulty_engine::FaultyEngine, places::PutAt};

/// How long the engine may take.
pub(crate) const ENGINE_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) type Answer = Result<Receipt, Refusal>;

pub(crate) struct Rig {
    pub(crate) memory: Arc<MemoryEngine>,
    pub(crate) epochs: Arc<EpochEngine>,
    pub(crate) engine: Arc<FaultyEngine>,
    pub(crate) sequencer: Arc<Sequencer>,
    pub(crate) clock: Clock,
}

impl Rig {
    /// One that only observes runs: what is not about their lives needs no `agent_started`.
    pub(crate) fn new() -> Self {
        Self::with(observing(), memory::Config::default(), 1)
    }

    pub(crate) fn with(config: Config, bounds: memory::Config, seed: u64) -> Self {
        let (memory, clock) = events::memory(bounds);
        let epochs = EpochEngine::new(memory.clone());
        let engine = FaultyEngine::new(epochs.clone(), seed);
        let sequencer = Sequencer::new(
            Bounded::new(engine.clone(), ENGINE_TIMEOUT),
            clock.clone(),
            Entropy::seeded(seed),
            config,
            events::metrics(),
        );
        Self {
            memory,
            epochs,
            engine,
            sequencer,
            clock,
        }
    }

    /// Another node over the same engine.
    pub(crate) fn node(&self, config: Config, seed: u64) -> Arc<Sequencer> {
        Sequencer::new(
            Bounded::new(self.engine.clone(), ENGINE_TIMEOUT),
            self.clock.clone(),
            Entropy::seeded(seed),
            config,
            events::metrics(),
        )
    }

    /// Another node over the same store, with a way to it and a clock of its own.
    pub(crate) fn node_by(&self, clock: &Clock, put_at: &PutAt, seed: u64) -> Arc<Sequencer> {
        let (way, node) = self.node_over(clock, Config::default(), seed);
        way.places.stamp_by(clock, put_at);
        node
    }

    /// The same, with its way to the store.
    pub(crate) fn node_over(
        &self,
        clock: &Clock,
        config: Config,
        seed: u64,
    ) -> (Arc<FaultyEngine>, Arc<Sequencer>) {
        let engine = FaultyEngine::new(self.epochs.clone(), seed);
        let node = Sequencer::new(
            Bounded::new(engine.clone(), ENGINE_TIMEOUT),
            clock.clone(),
            Entropy::seeded(seed),
            config,
            events::metrics(),
        );
        (engine, node)
    }

    /// Emits `events` in one call, without a deadline.
    pub(crate) async fn emit(
        &self,
        stream: &StreamKey,
        events: impl IntoIterator<Item = Event>,
    ) -> Vec<Answer> {
        let events = events.into_iter().map(Arc::new).collect();
        self.sequencer.submit(stream.clone(), events, None).await
    }

    /// Starts the run of a user that has the user's name.
    pub(crate) async fn start(&self, user: &StreamKey, silence_timeout: Duration) {
        let run = user.user().as_str();
        let starts = Event {
            step: Step::Start {
                silence_timeout: Some(silence_timeout),
            },
            ..events::event(user, "s", Some(run), Kind::AgentStarted)
        };
        assert_eq!(words(&self.emit(user, [starts]).await), ["stored"]);
    }

    /// Everything retained of `stream`, asked of the engine behind the faults.
    pub(crate) async fn stored(&self, stream: &StreamKey) -> Vec<Arc<Record>> {
        events::all(&*self.memory, stream).await
    }

    /// The ids of everything retained.
    pub(crate) async fn stored_ids(&self, stream: &StreamKey) -> Vec<String> {
        events::ids(&self.stored(stream).await)
    }
}

/// The defaults, but that runs are only observed.
pub(crate) fn observing() -> Config {
    Config {
        rules: Rules {
            mode: Mode::Observe,
            ..Rules::default()
        },
        ..Config::default()
    }
}

/// `stored`, `duplicate`, or the reason of a refusal.
pub(crate) fn word(answer: &Answer) -> &'static str {
    match answer {
        Ok(receipt) if receipt.duplicate => "duplicate",
        Ok(_) => "stored",
        Err(refusal) => refusal.reason.name(),
    }
}

pub(crate) fn words(answers: &[Answer]) -> Vec<&'static str> {
    answers.iter().map(word).collect()
}

/// A user in one of `buckets`.
pub(crate) fn user_in(buckets: &Range<usize>) -> StreamKey {
    let mut users = (0..).map(|n| events::stream(&format!("u{n}")));
    let found = users.find(|user| buckets.contains(&user.bucket()));
    found.expect("a user")
}

/// Lets other tasks run until `done`. Panics after a long time by the runtime's clock, naming `what`.
pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
    let later = tokio::time::Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(tokio::time::Instant::now() < later, "never: {what}");
        tokio::time::advance(Duration::from_millis(1)).await;
    }
}
