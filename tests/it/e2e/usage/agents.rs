//! Agents that work at random, and what must become of each of their events.

use emitter::proto::v1::{self, Usage, event::Payload};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::super::wire;

/// Providers and models; some alike in one of the two.
const MODELS: [(&str, &str); 6] = [
    ("acme", "large"),
    ("acme", "small"),
    ("other", "large"),
    ("other", "unknown"),
    ("", "large"),
    ("", ""),
];

/// The largest count that an event may state.
const MOST: u64 = (1 << 53) - 1;

/// How many runs are open at a time, and how deep they nest.
const OPEN: usize = 30;
const DEPTH: usize = 4;

/// What must become of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stored,
    Duplicate,
    Refused,
}

/// An event, its run's thread, and what must become of it.
pub(super) struct Sent {
    pub(super) event: v1::Event,
    pub(super) thread: String,
    pub(super) fate: Fate,
}

/// The agents of one tenant.
pub(super) struct Agents {
    rng: StdRng,
    users: usize,
    runs: usize,
    events: usize,
    open: Vec<Open>,
    ended: Vec<Open>,
    /// What was stored lately.
    recent: Vec<(v1::Event, String)>,
}

#[derive(Clone)]
struct Open {
    user: String,
    run: String,
    thread: String,
    depth: usize,
    parent: Option<String>,
}

impl Agents {
    pub(super) fn new(seed: u64, users: usize) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            users,
            runs: 0,
            events: 0,
            open: Vec::new(),
            ended: Vec::new(),
            recent: Vec::new(),
        }
    }

    /// What is sent while `runs` runs start and end.
    pub(super) fn work(&mut self, runs: usize) -> Vec<Sent> {
        let until = self.runs + runs;
        let mut sent = Vec::new();
        while self.runs < until || !self.open.is_empty() {
            let step = match self.rng.random_range(0..20) {
                0..6 if self.runs < until && self.open.len() < OPEN => Some(self.start()),
                0..11 => self.end(),
                11..17 => self.go_on(),
                17..19 => self.retry(),
                _ => self.break_a_rule(),
            };
            sent.extend(step);
        }
        // Another day: what is sent again then is not known any more.
        self.recent.clear();
        sent
    }

    fn start(&mut self) -> Sent {
        self.runs += 1;
        let parents = self.open.iter().filter(|open| open.depth < DEPTH);
        let parents: Vec<Open> = parents.cloned().collect();
        let parent = match self.rng.random_bool(0.3) {
            true => parents.choose(&mut self.rng).cloned(),
            false => None,
        };
        let user = format!("user{}", self.rng.random_range(0..self.users));
        let thread = ["", "t1", "t2", "t3"].choose(&mut self.rng).unwrap();
        let run = Open {
            user: parent.as_ref().map_or(user, |parent| parent.user.clone()),
            run: format!("run{}", self.runs),
            // A sub-agent inherits its parent's, where it states none.
            thread: match (*thread, &parent) {
                ("", Some(parent)) => parent.thread.clone(),
                (stated, _) => stated.to_owned(),
            },
            depth: parent.as_ref().map_or(0, |parent| parent.depth + 1),
            parent: parent.map(|parent| parent.run),
        };
        self.open.push(run.clone());
        let mut event = self.event(&run, Payload::AgentStarted(v1::AgentStarted::default()));
        event.parent_run_id = run.parent.clone().unwrap_or_default();
        event.thread_id = (*thread).to_owned();
        self.stored(event, run.thread)
    }

    /// Ends a run that has no open sub-agents.
    fn end(&mut self) -> Option<Sent> {
        let parents: Vec<_> = self
            .open
            .iter()
            .filter_map(|run| run.parent.clone())
            .collect();
        let childless = (0..self.open.len()).filter(|n| !parents.contains(&self.open[*n].run));
        let childless: Vec<usize> = childless.collect();
        let run = self.open.swap_remove(*childless.choose(&mut self.rng)?);
        self.ended.push(run.clone());
        let payload = match self.rng.random_range(0..3) {
            0 => Payload::AgentFailed(v1::AgentFailed {
                message: "no".into(),
                ..Default::default()
            }),
            1 => Payload::AgentCancelled(v1::AgentCancelled::default()),
            _ => Payload::AgentCompleted(v1::AgentCompleted::default()),
        };
        let event = self.event(&run, payload);
        Some(self.stored(event, run.thread))
    }

    fn go_on(&mut self) -> Option<Sent> {
        let run = self.open.choose(&mut self.rng)?.clone();
        let payload = match self.rng.random_bool(0.5) {
            true => wire::thinking("hm"),
            false => Payload::TextDelta(v1::TextDelta {
                message_id: "m".into(),
                text: "x".into(),
                ..Default::default()
            }),
        };
        let mut event = self.event(&run, payload);
        if self.rng.random_bool(0.5) {
            event.thread_id = run.thread.clone();
        }
        Some(self.stored(event, run.thread))
    }

    /// Sends something again, as after a lost answer.
    fn retry(&mut self) -> Option<Sent> {
        let (event, thread) = self.recent.choose(&mut self.rng)?.clone();
        Some(Sent {
            event,
            thread,
            fate: Fate::Duplicate,
        })
    }

    fn break_a_rule(&mut self) -> Option<Sent> {
        let open = self.open.choose(&mut self.rng)?.clone();
        let mut event = self.event(&open, wire::thinking("no"));
        event.usage = Some(self.usage());
        match self.rng.random_range(0..3) {
            // The run has ended.
            0 => {
                let ended = self.ended.choose(&mut self.rng)?;
                event.user_id.clone_from(&ended.user);
                event.run_id.clone_from(&ended.run);
            }
            // The run is somebody else's.
            1 => event.user_id.push_str(" and another"),
            // The id is known for something else.
            _ => {
                let (known, _) = self.recent.choose(&mut self.rng)?;
                event.event_id.clone_from(&known.event_id);
                event.user_id.clone_from(&known.user_id);
                event.run_id.clone_from(&known.run_id);
                event.payload = Some(wire::thinking("something else"));
            }
        }
        Some(Sent {
            event,
            thread: open.thread,
            fate: Fate::Refused,
        })
    }

    fn event(&mut self, run: &Open, payload: Payload) -> v1::Event {
        self.events += 1;
        let id = format!("e{}", self.events);
        let usage = self.rng.random_bool(0.7).then(|| self.usage());
        v1::Event {
            usage,
            ..wire::event(&run.user, &run.run, &id, payload)
        }
    }

    fn stored(&mut self, event: v1::Event, thread: String) -> Sent {
        if self.recent.len() > 200 {
            let old = self.rng.random_range(0..self.recent.len());
            self.recent.swap_remove(old);
        }
        self.recent.push((event.clone(), thread.clone()));
        Sent {
            event,
            thread,
            fate: Fate::Stored,
        }
    }

    fn usage(&mut self) -> Usage {
        let (provider, model) = MODELS.choose(&mut self.rng).unwrap();
        let rng = &mut self.rng;
        // Few are large, and many small: sums stay far below where they would stop.
        let most = match rng.random_range(0..1_000) {
            0 => MOST / 100_000,
            _ => 50_000,
        };
        let (input, output) = (rng.random_range(0..=most), rng.random_range(0..=most));
        let cached = rng.random_range(0..=input);
        let write = rng.random_range(0..=input - cached);
        Usage {
            provider: (*provider).into(),
            model: (*model).into(),
            input_tokens: input,
            output_tokens: output,
            cached_input_tokens: cached,
            cache_write_input_tokens: write,
            cache_write_1h_input_tokens: rng.random_range(0..=write),
            reasoning_tokens: rng.random_range(0..=output),
            cost_nano_usd: rng.random_bool(0.2).then(|| rng.random_range(0..1_000_000)),
            ..Default::default()
        }
    }
}
