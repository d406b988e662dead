//! Producers that write whole runs, again and again, and do not let go of an event until they know what became of it.

use std::{sync::Arc, time::Duration};

use emitter::{
    client::{Fate, Producer, ProducerConfig},
    proto::v1::{
        AgentCompleted, AgentFailed, AgentStarted, AgentThinking, Event, TextDelta, ToolCompleted,
        ToolExecuting, event::Payload,
    },
};
use rand::{Rng, SeedableRng, distr::Alphanumeric, rngs::StdRng};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    ledger::{Ledger, Left, is_end},
    server::credential,
    tools::until,
};

/// What a load is like.
#[derive(Clone)]
pub(crate) struct LoadConfig {
    /// The gRPC addresses of the nodes. Each attempt goes to one at random.
    pub(crate) nodes: Vec<String>,
    /// Whose events are written. Each run is of one at random.
    pub(crate) users: Vec<String>,
    /// How many producers write at once.
    pub(crate) writers: usize,
    /// How long a producer waits after each call.
    pub(crate) pause: Duration,
    /// How many bytes of text an event carries at most.
    pub(crate) text: usize,
    /// Every so many runs one is left open after its start, with a silence timeout of 3 s; 0: none.
    pub(crate) abandon_every: u64,
    /// How long a producer tries to learn what became of an event.
    pub(crate) give_up: Duration,
    /// How long it asks one node before it asks another.
    pub(crate) node_deadline: Duration,
    pub(crate) seed: u64,
}

impl LoadConfig {
    /// Four producers without pauses on four users.
    pub(crate) fn new(nodes: Vec<String>, seed: u64) -> Self {
        Self {
            nodes,
            users: (0..4).map(|n| format!("u{n}")).collect(),
            writers: 4,
            pause: Duration::ZERO,
            text: 200,
            abandon_every: 0,
            give_up: Duration::from_secs(90),
            node_deadline: Duration::from_secs(3),
            seed,
        }
    }
}

/// Producers at work.
pub(crate) struct Load {
    pub(crate) ledger: Arc<Ledger>,
    stop: CancellationToken,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(config: &LoadConfig) -> Self {
        Self::start_on(Arc::default(), "w", config)
    }

    /// More producers on the same ledger, under names that begin with `prefix`.
    pub(crate) fn start_on(ledger: Arc<Ledger>, prefix: &str, config: &LoadConfig) -> Self {
        let stop = CancellationToken::new();
        let writers = (0..config.writers).map(|n| {
            let writer = Writer::new(format!("{prefix}{n}"), config, n as u64, ledger.clone());
            tokio::spawn(writer.write_until(stop.clone()))
        });
        let writers = writers.collect();
        Self {
            ledger,
            stop,
            writers,
        }
    }

    /// Waits until so many more events are acknowledged.
    pub(crate) async fn acknowledged(&self, more: usize) {
        let want = self.ledger.acknowledged() + more;
        until("events are acknowledged", async || {
            self.ledger.acknowledged() >= want
        })
        .await;
    }

    /// Lets every producer end its run, and waits for that.
    pub(crate) async fn finish(self) -> Arc<Ledger> {
        self.stop.cancel();
        for writer in self.writers {
            writer.await.unwrap();
        }
        self.ledger
    }
}

struct Writer {
    name: String,
    config: LoadConfig,
    producers: Vec<Producer>,
    rng: StdRng,
    ledger: Arc<Ledger>,
    runs: u64,
    /// An event that is settled, to be sent again.
    settled: Option<Event>,
}

impl Writer {
    fn new(name: String, config: &LoadConfig, number: u64, ledger: Arc<Ledger>) -> Self {
        let producer = |node: &String| {
            let once = ProducerConfig {
                deadline: config.node_deadline,
                attempt: config.node_deadline,
                ..ProducerConfig::default()
            };
            Producer::new(node, credential(&name, "emit"), once).unwrap()
        };
        Self {
            producers: config.nodes.iter().map(producer).collect(),
            rng: StdRng::seed_from_u64(config.seed ^ (number << 40)),
            config: config.clone(),
            name,
            ledger,
            runs: 0,
            settled: None,
        }
    }

    async fn write_until(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.runs += 1;
            let every = self.config.abandon_every;
            let abandoned = every > 0 && self.runs.is_multiple_of(every);
            self.write_run(abandoned).await;
        }
    }

    async fn write_run(&mut self, abandoned: bool) {
        let run = format!("{}-{}", self.name, self.runs);
        let mut events = self.script(&run);
        if abandoned {
            events.truncate(1);
            if let Some(Payload::AgentStarted(started)) = &mut events[0].payload {
                started.silence_timeout = Some(prost_types::Duration {
                    seconds: 3,
                    nanos: 0,
                });
            }
        }
        while !events.is_empty() {
            let most = events.len().min(6);
            // As many single calls as batches.
            let size = if self.rng.random() {
                1
            } else {
                self.rng.random_range(1..=most)
            };
            let chunk: Vec<Event> = events.drain(..size).collect();
            let ends = is_end(&chunk[size - 1]);
            if !self.deliver(chunk).await {
                return;
            }
            if ends {
                self.ledger.book().left(&run, Left::Ended);
            }
            if !self.config.pause.is_zero() {
                tokio::time::sleep(self.config.pause).await;
            }
        }
        if abandoned {
            self.ledger.book().left(&run, Left::Abandoned);
        }
    }

    /// Sends the events until it is known what became of each; `false`: one is not stored, and the run is over.
    async fn deliver(&mut self, chunk: Vec<Event>) -> bool {
        if let Some(again) = self.settled.take()
            && self.rng.random_ratio(1, 10)
        {
            // The same once more: nothing may come of it.
            let fate = self.attempt(std::slice::from_ref(&again)).await.remove(0);
            self.ledger.book().answered(&again, &fate);
        }
        for event in &chunk {
            self.ledger.book().sending(&self.name, event);
        }
        let last = chunk.last().cloned();
        let until = Instant::now() + self.config.give_up;
        let mut open = chunk;
        while !open.is_empty() {
            let fates = self.attempt(&open).await;
            let all_stored = self.settle(&mut open, &fates);
            if !all_stored || (!open.is_empty() && Instant::now() > until) {
                return false;
            }
            if !open.is_empty() {
                let pause = self.rng.random_range(20..100);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
        self.settled = last;
        true
    }

    /// Takes out of `open` what is settled; `false`: one of them is not stored.
    fn settle(&self, open: &mut Vec<Event>, fates: &[Fate]) -> bool {
        let mut book = self.ledger.book();
        let mut fates = fates.iter();
        let mut all_stored = true;
        open.retain(|event| {
            let fate = fates.next().expect("one answer for each");
            let settled = book.answered(event, fate);
            all_stored &= fate.is_ok() || !settled;
            !settled
        });
        all_stored
    }

    async fn attempt(&mut self, events: &[Event]) -> Vec<Fate> {
        let node = self.rng.random_range(0..self.producers.len());
        let producer = &self.producers[node];
        match events {
            [event] => vec![producer.emit(event.clone()).await],
            events => producer.emit_batch(events.to_vec()).await,
        }
    }

    /// The events of a whole run.
    fn script(&mut self, run: &str) -> Vec<Event> {
        let user = self.config.users[self.rng.random_range(0..self.config.users.len())].clone();
        let mut payloads = vec![Payload::AgentStarted(AgentStarted::default())];
        for step in 0..self.rng.random_range(1..5) {
            payloads.extend(self.step(step));
        }
        payloads.push(if self.rng.random_ratio(1, 8) {
            Payload::AgentFailed(AgentFailed {
                code: "NO_LUCK".into(),
                ..AgentFailed::default()
            })
        } else {
            Payload::AgentCompleted(AgentCompleted::default())
        });
        let numbered = payloads.into_iter().enumerate();
        let event = |(n, payload)| Event {
            event_id: format!("{run}-{n}"),
            user_id: user.clone(),
            run_id: run.to_owned(),
            agent_name: "worker".into(),
            payload: Some(payload),
            ..Event::default()
        };
        numbered.map(event).collect()
    }

    fn step(&mut self, step: u32) -> Vec<Payload> {
        let length = self.rng.random_range(0..=self.config.text);
        // Nothing that a store could make smaller.
        let text: String = (&mut self.rng)
            .sample_iter(Alphanumeric)
            .take(length)
            .map(char::from)
            .collect();
        match self.rng.random_range(0..3) {
            0 => vec![Payload::AgentThinking(AgentThinking {
                reasoning: text,
                ..AgentThinking::default()
            })],
            1 => vec![Payload::TextDelta(TextDelta {
                message_id: "m".into(),
                text,
                ..TextDelta::default()
            })],
            _ => vec![
                Payload::ToolExecuting(ToolExecuting {
                    tool_call_id: format!("c{step}"),
                    tool_name: "search".into(),
                    description: text,
                    ..ToolExecuting::default()
                }),
                Payload::ToolCompleted(ToolCompleted {
                    tool_call_id: format!("c{step}"),
                    ..ToolCompleted::default()
                }),
            ],
        }
    }
}
