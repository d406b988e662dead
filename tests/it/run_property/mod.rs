//! The lives of runs against a small reference model: random events of several users, producers and terms, retries,
//! batches, sub-agents, lanes that are let go, clock jumps and the watchdog. After each step, what is stored and what
//! was answered must be what the model says.
//!
//! Any engine must live by it. A failing seed is printed; `EMITTER_SEED=<seed>` runs it again, `EMITTER_SOAK=1` runs ten times as many steps.

mod model;

use std::{sync::Arc, time::Duration};

use emitter::{
    clock::{Clock, Entropy},
    engine::{Engine, ReadLimit},
    event::{ContentHash, Event, Kind, RunSequence, Step, StreamKey, Usage, Wait, WaitId},
    sequencer::{Config, Rules, Sequencer},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use self::model::Model;
use crate::support::{
    events::{custom, event, metrics, run_id, source, stream, tool_call_id, tool_name},
    rig::word,
};

const USERS: [&str; 3] = ["u0", "u1", "u2"];
const RUNS: [&str; 9] = ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8"];
const CALLS: [&str; 3] = ["c0", "c1", "c2"];
const TOOLS: [&str; 2] = ["search", "buy"];
const WAITS: [&str; 3] = ["w0", "w1", "w2"];
const ARGUMENTS: [&[u8]; 2] = [b"a", b"b"];

/// The bounds of a case: small, so that they are met.
fn rules() -> Rules {
    Rules {
        open_runs: 6,
        open_tool_calls: 3,
        descendants: 3,
        depth: 2,
        ..Rules::default()
    }
}

/// What a case runs on.
struct Rig {
    engine: Arc<dyn Engine>,
    sequencer: Arc<Sequencer>,
    clock: Clock,
}

impl Rig {
    fn new(engine: Arc<dyn Engine>, clock: Clock, seed: u64) -> Self {
        let config = Config {
            rules: rules(),
            // At most one for each shard.
            lanes: 1,
            ..Config::default()
        };
        let entropy = Entropy::seeded(seed);
        let sequencer = Sequencer::new(engine.clone(), clock.clone(), entropy, config, metrics());
        Self {
            engine,
            sequencer,
            clock,
        }
    }
}

/// A case of so many steps on `engine`, which reads `clock`. A step is a call of up to four events, or time that passes.
pub(crate) async fn case(engine: Arc<dyn Engine>, clock: Clock, seed: u64, steps: usize) {
    let lives = Lives::new(engine, clock, seed);
    lives.go_on(steps).await.end().await;
}

/// Runs and their model, from one process to the next.
pub(crate) struct Lives {
    rig: Rig,
    rng: StdRng,
    users: [StreamKey; 3],
    model: Model,
    sent: Vec<Event>,
    steps: usize,
}

impl Lives {
    /// None yet, on an engine that is empty and reads `clock`.
    pub(crate) fn new(engine: Arc<dyn Engine>, clock: Clock, seed: u64) -> Self {
        let users = USERS.map(stream);
        Self {
            rig: Rig::new(engine, clock, seed),
            rng: StdRng::seed_from_u64(seed),
            model: Model::new(&users, rules()),
            users,
            sent: Vec::new(),
            steps: 0,
        }
    }

    /// So many steps more.
    pub(crate) async fn go_on(mut self, steps: usize) -> Self {
        for step in self.steps..self.steps + steps {
            self.step(step).await;
            // Where time is real, a step may take long: runs are excused for what nobody watched.
            self.rig.sequencer.sweep().await;
        }
        self.steps += steps;
        self
    }

    /// Ends as a process does that is asked to.
    pub(crate) async fn end(self) -> Ended {
        self.rig.sequencer.stop_watching().await;
        self.rig.engine.close().await;
        Ended(self)
    }

    async fn step(&mut self, step: usize) {
        let Self {
            rig,
            rng,
            users,
            model,
            sent,
            ..
        } = self;
        if rng.random_bool(0.2) {
            return pass_time(rig, model, users, rng).await;
        }
        let user = users.choose(rng).unwrap();
        let events: Vec<Event> = (0..rng.random_range(1..=4))
            .map(|n| {
                let id = format!("e{step}-{n}");
                let old = sent.iter().rev().filter(|event| event.stream == *user);
                let old: Vec<_> = old.take(20).cloned().collect();
                random_event(rng, user, &id, &old)
            })
            .collect();
        sent.extend(events.iter().cloned());
        let submitted = events.iter().cloned().map(Arc::new).collect();
        let answers = rig.sequencer.submit(user.clone(), submitted, None).await;
        let got: Vec<_> = answers.iter().map(word).collect();
        let records = new_records(rig, user, model).await;
        model.call(user, rig.clock.now(), &events, &answers, &got, &records);
    }
}

/// Lives whose process is over.
pub(crate) struct Ended(Lives);

impl Ended {
    /// Goes on in another process, on an `engine` that holds what the last one held.
    pub(crate) fn on(self, engine: Arc<dyn Engine>) -> Lives {
        let mut lives = self.0;
        let seed = lives.rng.random();
        lives.rig = Rig::new(engine, lives.rig.clock, seed);
        lives
    }
}

/// Lets some time pass and does the upkeep: idle lanes are let go, what is over is forgotten, and the watchdog looks.
async fn pass_time(rig: &Rig, model: &mut Model, users: &[StreamKey; 3], rng: &mut StdRng) {
    let seconds = match rng.random_range(0..12) {
        0 => rng.random_range(0..90_000),
        1 | 2 => rng.random_range(0..4_000),
        3..7 => rng.random_range(0..800),
        _ => rng.random_range(0..20),
    };
    rig.clock.advance(Duration::from_secs(seconds));
    rig.sequencer.maintain();
    for _ in 0..rng.random_range(0..16) {
        rig.engine.maintain().await;
    }
    rig.sequencer.sweep().await;
    for user in users {
        let records = new_records(rig, user, model).await;
        model.swept(user, rig.clock.now(), &records);
    }
}

async fn new_records(
    rig: &Rig,
    user: &StreamKey,
    model: &Model,
) -> Vec<Arc<emitter::event::Record>> {
    let limit = ReadLimit {
        records: usize::MAX,
        bytes: usize::MAX,
    };
    let page = rig.engine.read(user, model.read_up_to(user), limit).await;
    page.unwrap().records
}

fn random_event(rng: &mut StdRng, user: &StreamKey, id: &str, old: &[Event]) -> Event {
    if let Some(old) = old.choose(rng)
        && rng.random_bool(0.15)
    {
        return again(rng, old);
    }
    let run = *RUNS.choose(rng).unwrap();
    let (kind, step) = random_step(rng);
    let parent = (kind == Kind::AgentStarted && rng.random_bool(0.4)).then(|| RUNS.choose(rng));
    let mut made = Event {
        step,
        source: source(["p0", "p1"].choose(rng).unwrap(), random_term(rng)),
        parent_run_id: parent.flatten().map(|run| run_id(run)),
        ..event(user, id, Some(run), kind)
    };
    if rng.random_bool(0.2) {
        made.usage = Some(Box::new(Usage {
            provider: "p".into(),
            model: "m".into(),
            tokens: emitter::event::Tokens {
                input: rng.random_range(0..1000),
                ..Default::default()
            },
            cost_nano_usd: None,
        }));
    }
    let content = format!(
        "{run} {:?} {:?} {:?}",
        made.step, made.parent_run_id, made.usage
    );
    made.content = ContentHash::of(content.as_bytes());
    made
}

/// An event that was sent before: as it was, from another source, or with other content under its id.
fn again(rng: &mut StdRng, old: &Event) -> Event {
    match rng.random_range(0..4) {
        0 => Event {
            source: source("p9", 9),
            ..old.clone()
        },
        1 => Event {
            content: ContentHash::of(b"another"),
            ..old.clone()
        },
        _ => old.clone(),
    }
}

/// Mostly 0, so that runs are not taken over all the time.
fn random_term(rng: &mut StdRng) -> u64 {
    match rng.random_range(0..20) {
        0 => rng.random_range(1..6),
        _ => 0,
    }
}

fn random_step(rng: &mut StdRng) -> (Kind, Step) {
    let call = |rng: &mut StdRng| tool_call_id(CALLS.choose(rng).unwrap());
    let tool = |rng: &mut StdRng| tool_name(TOOLS.choose(rng).unwrap());
    let minutes = |rng: &mut StdRng, most: u64| {
        let some = rng.random_bool(0.5);
        some.then(|| Duration::from_secs(60 * rng.random_range(1..most)))
    };
    let wait = |rng: &mut StdRng| {
        let some = rng.random_bool(0.7);
        some.then(|| WaitId::new(WAITS.choose(rng).unwrap()).unwrap())
    };
    let sequence = |rng: &mut StdRng| {
        let some = rng.random_bool(0.3);
        some.then(|| RunSequence(rng.random_range(0..8)))
    };
    match rng.random_range(0..22) {
        0..5 => (
            Kind::AgentStarted,
            Step::Start {
                silence_timeout: minutes(rng, 60),
            },
        ),
        5..9 => (
            Kind::ToolExecuting,
            Step::ToolBegins {
                id: call(rng),
                name: tool(rng),
                arguments: rng
                    .random_bool(0.8)
                    .then(|| ContentHash::of(ARGUMENTS.choose(rng).unwrap())),
                call: None,
            },
        ),
        9..13 => (
            Kind::ToolCompleted,
            Step::ToolEnds {
                id: rng.random_bool(0.6).then(|| call(rng)),
                name: rng.random_bool(0.8).then(|| tool(rng)),
                call: sequence(rng),
            },
        ),
        13 | 14 => (
            Kind::AgentWaiting,
            Step::Wait(Box::new(Wait {
                max_wait: minutes(rng, 180),
                id: wait(rng),
                tool_call_id: rng.random_bool(0.3).then(|| call(rng)),
                ..Wait::default()
            })),
        ),
        18 => (Kind::AgentResumed, Step::Resume { id: wait(rng) }),
        19 => (custom("note"), Step::Other),
        17 => (
            Kind::ToolProgress,
            Step::ToolAdvances {
                id: rng.random_bool(0.8).then(|| call(rng)),
                call: sequence(rng),
            },
        ),
        15 => (Kind::AgentCompleted, Step::End),
        16 => (Kind::AgentFailed, Step::End),
        _ => (Kind::AgentThinking, Step::Other),
    }
}
