//! A producer: runs with events, some abandoned; what fails is retried at whichever node there is.

use std::{sync::Arc, time::Duration};

use emitter::{
    event::{Event, Kind, Step},
    reason::Reason,
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use tokio::time::Instant;

use super::{MINUTE, SECOND, world::World};
use crate::support::{
    events::{event, run_id, source},
    rig::Answer,
};

/// How many calls a producer makes, retries not counted.
const CALLS: usize = 40;

/// After this time it gives up: ids are not remembered for ever.
const GIVES_UP: Duration = Duration::from_secs(8 * 60);

/// What became of one event in the end; `None` if the producer gave up.
pub(super) struct Told {
    pub(super) user: usize,
    pub(super) event: Arc<Event>,
    pub(super) answer: Option<Answer>,
}

impl Told {
    pub(super) fn is_duplicate(&self) -> bool {
        matches!(&self.answer, Some(Ok(receipt)) if receipt.duplicate)
    }
}

/// A run that the producer has begun and not ended.
#[derive(Clone)]
struct OpenRun {
    user: usize,
    id: String,
}

pub(super) struct Producer {
    world: Arc<World>,
    name: usize,
    rng: StdRng,
    made: usize,
    runs: Vec<OpenRun>,
    told: Vec<Told>,
}

impl Producer {
    pub(super) fn new(world: Arc<World>, name: usize, rng: StdRng) -> Self {
        Self {
            world,
            name,
            rng,
            made: 0,
            runs: Vec::new(),
            told: Vec::new(),
        }
    }

    /// Everything that it was told, in the order in which it went on.
    pub(super) async fn run(mut self) -> Vec<Told> {
        for _ in 0..CALLS {
            let (user, events) = self.next_call();
            self.insist(user, events).await;
            let most = match self.rng.random_bool(0.3) {
                true => 20,
                false => 6_000,
            };
            let pause = Duration::from_millis(self.rng.random_range(0..most));
            tokio::time::sleep(pause).await;
        }
        self.told
    }

    fn next_call(&mut self) -> (usize, Vec<Arc<Event>>) {
        let known = self.runs.choose(&mut self.rng).cloned();
        match (self.rng.random_range(0..10), known) {
            (0 | 1, _) | (_, None) => self.begins(None),
            (2, Some(parent)) => self.begins(Some(parent)),
            (3, Some(run)) => {
                self.runs.retain(|open| open.id != run.id);
                (run.user, vec![self.event(&run, Kind::AgentCompleted)])
            }
            // It is abandoned: nothing more is heard of it.
            (4, Some(run)) => {
                self.runs.retain(|open| open.id != run.id);
                (run.user, vec![self.event(&run, Kind::AgentThinking)])
            }
            (_, Some(run)) => {
                let count = self.rng.random_range(1..4);
                let thinks = (0..count).map(|_| self.event(&run, Kind::AgentThinking));
                (run.user, thinks.collect())
            }
        }
    }

    fn begins(&mut self, parent: Option<OpenRun>) -> (usize, Vec<Arc<Event>>) {
        let user = match &parent {
            Some(parent) => parent.user,
            None => self.rng.random_range(0..self.world.users.len()),
        };
        self.made += 1;
        let id = format!("p{}-r{}", self.name, self.made);
        let run = OpenRun { user, id };
        let timeout = self.rng.random_range(20..120) * SECOND;
        let start = Event {
            parent_run_id: parent.map(|parent| run_id(&parent.id)),
            step: Step::Start {
                silence_timeout: Some(timeout),
            },
            ..Arc::unwrap_or_clone(self.event(&run, Kind::AgentStarted))
        };
        let events = vec![Arc::new(start), self.event(&run, Kind::AgentThinking)];
        self.runs.push(run);
        (user, events)
    }

    fn event(&mut self, run: &OpenRun, kind: Kind) -> Arc<Event> {
        self.made += 1;
        let (stream, id) = (
            &self.world.users[run.user],
            format!("p{}-{}", self.name, self.made),
        );
        Arc::new(Event {
            source: source(&format!("p{}", self.name), 0),
            ..event(stream, &id, Some(&run.id), kind)
        })
    }

    /// Retries what failed, at any node, until nothing is worth a retry, and then goes on.
    async fn insist(&mut self, user: usize, events: Vec<Arc<Event>>) {
        let (began, mut left) = (Instant::now(), events);
        while !left.is_empty() {
            if began.elapsed() > GIVES_UP {
                for event in left {
                    self.told.push(Told {
                        user,
                        event,
                        answer: None,
                    });
                }
                return;
            }
            let answers = self.call(user, &left).await;
            let worth = |answer: &Answer| matches!(answer, Err(r) if r.reason.retryable());
            let failed = answers.iter().position(worth).unwrap_or(answers.len());
            for (event, answer) in left.drain(..failed).zip(answers) {
                self.note(user, event, answer);
            }
            let pause = Duration::from_millis(self.rng.random_range(10..1_000));
            tokio::time::sleep(pause).await;
        }
    }

    /// One call. No answers: the node died.
    async fn call(&mut self, user: usize, events: &[Arc<Event>]) -> Vec<Answer> {
        let node = self.world.some_node(&mut self.rng).await;
        let patience = self.rng.random_range(0..10);
        let deadline = (patience > 7).then(|| Instant::now() + patience * SECOND / 10);
        let stream = self.world.users[user].clone();
        let submitted = node.sequencer.submit(stream, events.to_vec(), deadline);
        tokio::select! {
            biased;
            () = node.died() => Vec::new(),
            answers = submitted => {
                // The service may have had no chance before the deadline.
                let is_failure = |answer: &Answer| {
                    matches!(answer, Err(r) if r.reason.retryable() && r.reason != Reason::DeadlineExceeded)
                };
                if answers.iter().any(is_failure) {
                    self.world.could_not_store(user, &node);
                }
                answers
            }
            // A call that takes longer than the engine may take is a bug.
            () = tokio::time::sleep(MINUTE) => panic!("no answer to {events:?}"),
        }
    }

    fn note(&mut self, user: usize, event: Arc<Event>, answer: Answer) {
        if let Err(refusal) = &answer {
            let run = event.run_id.as_ref().map(|run| run.as_str().to_owned());
            match refusal.reason {
                // The watchdog was faster, here or with the parent.
                Reason::RunEnded | Reason::ParentNotOpen | Reason::RunNotStarted => {
                    self.runs.retain(|open| Some(&open.id) != run.as_ref());
                }
                reason => panic!("{reason:?} for {event:?}: {refusal:?}"),
            }
        }
        let answer = Some(answer);
        self.told.push(Told {
            user,
            event,
            answer,
        });
    }
}
